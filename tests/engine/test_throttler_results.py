"""A throttler's results, until the consumer has had them, and its failures."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from anythrottle._engine.backlog import Backlog
from anythrottle._engine.cancellation import RunCancellation
from anythrottle._engine.change import Change
from anythrottle._engine.consuming import Consumer, consume
from anythrottle._engine.job_record import JobRecord
from anythrottle._engine.tally import Tally
from anythrottle._engine.throttler_results import ThrottlerResults
from anythrottle._jobs import JobOf


async def job() -> int:
    return 1


def unexpected(error: BaseException) -> None:
    raise error


def begun(
    jobs: int, *, consumed: bool = True, tally: Tally | None = None
) -> tuple[Backlog[JobOf[int], int], ThrottlerResults[JobOf[int], int]]:
    """Return a backlog of so many jobs, and its results, in a run."""
    tally = tally or Tally()
    tally.begin_run(lambda: 0.0)
    backlog: Backlog[JobOf[int], int] = Backlog([job] * jobs, None, "jobs")
    results = ThrottlerResults(backlog, tally, consumed=consumed, most_waiting=lambda: 2)
    results.failures.open_receivers = 1
    backlog.begin_run()
    results.begin_run()
    return backlog, results


def start(backlog: Backlog[JobOf[int], int]) -> JobRecord[JobOf[int], int]:
    record = backlog.next_job(lambda: 0.0, unexpected)
    assert record is not None
    assert backlog.start(record)
    return record


def succeed(results: ThrottlerResults[JobOf[int], int], record: JobRecord[JobOf[int], int]) -> None:
    record.value = 1
    record.undelivered = True
    results.succeed(record)


def test_there_is_room_for_so_many() -> None:
    backlog, results = begun(3)
    assert results.bounded
    first, second = start(backlog), start(backlog)
    for record in (first, second):
        assert results.has_room(record)
        succeed(results, record)

    assert not results.has_room(second)
    _, record = results.processed.receive_nowait()
    assert results.has_room(second)
    assert (results._tally.done, len(backlog.started)) == (0, 2)
    results.finish(record)
    assert (results._tally.done, len(backlog.started)) == (1, 1)


def test_without_a_consumer_there_is_always_room() -> None:
    backlog, results = begun(3, consumed=False)
    assert not results.bounded
    for _ in range(3):
        succeed(results, start(backlog))

    assert (results._tally.done, len(backlog.started)) == (3, 0)


def test_failures_are_collected(caplog: pytest.LogCaptureFixture) -> None:
    backlog, results = begun(2)
    error = ValueError()
    results.fail(start(backlog), error)
    assert results._tally.failed == 1
    assert results.failures.items()[0].error is error
    assert not caplog.records
    results.failures.open_receivers = 0
    results.fail(start(backlog), error)
    assert results._tally.failed == 2
    assert len(results.failures) == 1
    assert caplog.records[0].getMessage() == "job 1 has failed, and exceptions is closed"


def test_each_end_is_told() -> None:
    tally = Tally()
    backlog, results = begun(3, tally=tally)
    now = 0.0
    tally.begin_run(lambda: now)
    succeed(results, start(backlog))
    results.fail(start(backlog), ValueError())
    assert tally.per_second(2.0) == 1
    assert tally.per_second(4.0) == 0.5
    now = 4.0
    succeed(results, start(backlog))
    assert tally.per_second(4.0) == 0.75
    tally.shift(100.0)
    assert tally.per_second(104.0) == 0.75


def test_before_a_run_there_is_no_pace() -> None:
    tally = Tally()
    tally.shift(5.0)
    assert tally.per_second(10.0) == 0


class TestEndRun:
    def test_results_are_kept_once(self) -> None:
        backlog, results = begun(3)
        records = [start(backlog) for _ in range(3)]
        for record in (records[1], records[0]):
            succeed(results, record)

        _, with_consumer = results.processed.receive_nowait()
        assert with_consumer is records[1]
        for _ in range(2):
            backlog.end_run()
            results.end_run()
            assert sorted(e.position for e in results.processed.items()) == [0, 1]

    def test_the_streams_are_open_while_it_runs_alone(self) -> None:
        _, results = begun(0)
        for _ in range(2):
            assert not results.processed.is_at_end()
            assert not results.failures.is_at_end()
            results.end()
            assert results.processed.is_at_end()
            assert not results.failures.is_at_end()
            results.end_run()
            assert results.failures.is_at_end()
            results.begin_run()

    def test_unread_failures_are_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        backlog, results = begun(2)
        for _ in range(2):
            results.fail(start(backlog), ValueError())

        results.end_run()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert caplog.messages == [
            "2 failed jobs have not been read from the throttler's exceptions"
        ]


def test_a_consumer_call_that_is_cut_off_by_closing_its_coroutine_is_repeated() -> None:
    backlog, results = begun(1)
    succeed(results, start(backlog))
    errors: list[BaseException] = []
    calls: list[int] = []

    async def consumer(result: int) -> None:
        calls.append(result)
        await asyncio.sleep(0)

    loop: Any = SimpleNamespace(is_cancelled=lambda: False)
    run: Any = SimpleNamespace(
        cancellation=RunCancellation(loop), fail=errors.append, change=Change()
    )
    handed: Consumer[JobOf[int], int] = Consumer(consumer, None)
    consuming = consume(results, handed, run)
    consuming.send(None)
    consuming.close()
    assert (calls, errors, results._tally.done) == ([1], [], 0)
    results.end_run()
    assert results.processed.receive_nowait()[1].value == 1
