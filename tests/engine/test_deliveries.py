"""The deliveries: results until the consumer has had them, and failures."""

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
from anythrottle._engine.deliveries import Deliveries
from anythrottle._engine.job import Errand
from anythrottle._engine.tally import Tally
from anythrottle._jobs import JobOf


async def job() -> int:
    return 1


def unexpected(error: BaseException) -> None:
    raise error


def begun(
    jobs: int, *, consumed: bool = True, tally: Tally | None = None
) -> tuple[Backlog[JobOf[int], int], Deliveries[JobOf[int], int]]:
    """Return a backlog of so many jobs, and its deliveries, in a run."""
    tally = tally or Tally()
    backlog: Backlog[JobOf[int], int] = Backlog([job] * jobs, None, "jobs")
    deliveries = Deliveries(backlog, tally, consumed=consumed, most_waiting=lambda: 2)
    deliveries.failures.open_receivers = 1
    backlog.begin_run()
    deliveries.begin_run()
    return backlog, deliveries


def start(backlog: Backlog[JobOf[int], int]) -> Errand[JobOf[int], int]:
    errand = backlog.next_job(lambda: 0.0, unexpected)
    assert errand is not None
    assert backlog.start(errand)
    return errand


def succeed(deliveries: Deliveries[JobOf[int], int], errand: Errand[JobOf[int], int]) -> None:
    errand.value = 1
    errand.ended = True
    deliveries.succeed(errand)


def test_there_is_room_for_so_many() -> None:
    backlog, deliveries = begun(3)
    assert deliveries.bounded
    first, second = start(backlog), start(backlog)
    for errand in (first, second):
        assert deliveries.has_room(errand)
        succeed(deliveries, errand)

    assert not deliveries.has_room(second)
    _, errand = deliveries.processed.receive_nowait()
    assert deliveries.has_room(second)
    assert (deliveries._tally.done, len(backlog.started)) == (0, 2)
    deliveries.finish(errand)
    assert (deliveries._tally.done, len(backlog.started)) == (1, 1)


def test_without_a_consumer_there_is_always_room() -> None:
    backlog, deliveries = begun(3, consumed=False)
    assert not deliveries.bounded
    for _ in range(3):
        succeed(deliveries, start(backlog))

    assert (deliveries._tally.done, len(backlog.started)) == (3, 0)


def test_failures_are_collected(caplog: pytest.LogCaptureFixture) -> None:
    backlog, deliveries = begun(2)
    error = ValueError()
    deliveries.fail(start(backlog), error)
    assert deliveries._tally.failed == 1
    assert deliveries.failures.items()[0].error is error
    assert not caplog.records
    deliveries.failures.open_receivers = 0
    deliveries.fail(start(backlog), error)
    assert deliveries._tally.failed == 2
    assert len(deliveries.failures) == 1
    assert caplog.records[0].getMessage() == "job 1 has failed, and exceptions is closed"


def test_each_end_is_told() -> None:
    tally = Tally()
    backlog, deliveries = begun(3, tally=tally)
    now = 0.0
    tally.begin_run(lambda: now)
    succeed(deliveries, start(backlog))
    deliveries.fail(start(backlog), ValueError())
    assert tally.per_second(2.0) == 1
    assert tally.per_second(4.0) == 0.5
    now = 4.0
    succeed(deliveries, start(backlog))
    assert tally.per_second(4.0) == 0.75
    tally.shift(100.0)
    assert tally.per_second(104.0) == 0.75


def test_before_a_run_there_is_no_pace() -> None:
    tally = Tally()
    tally.note_end()
    tally.shift(5.0)
    assert tally.per_second(10.0) == 0


class TestEndRun:
    def test_results_are_kept_once(self) -> None:
        backlog, deliveries = begun(3)
        errands = [start(backlog) for _ in range(3)]
        for errand in (errands[1], errands[0]):
            succeed(deliveries, errand)

        _, with_consumer = deliveries.processed.receive_nowait()
        assert with_consumer is errands[1]
        for _ in range(2):
            backlog.end_run()
            deliveries.end_run()
            assert sorted(e.position for e in deliveries.processed.items()) == [0, 1]

    def test_the_streams_are_open_while_it_runs_alone(self) -> None:
        _, deliveries = begun(0)
        for _ in range(2):
            assert not deliveries.processed.is_at_end()
            assert not deliveries.failures.is_at_end()
            deliveries.end()
            assert deliveries.processed.is_at_end()
            assert not deliveries.failures.is_at_end()
            deliveries.end_run()
            assert deliveries.failures.is_at_end()
            deliveries.begin_run()

    def test_unread_failures_are_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        backlog, deliveries = begun(2)
        for _ in range(2):
            deliveries.fail(start(backlog), ValueError())

        deliveries.end_run()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert caplog.messages == [
            "2 failed jobs have not been read from the throttler's exceptions"
        ]


def test_a_consumer_call_that_is_cut_off_by_closing_its_coroutine_is_repeated() -> None:
    backlog, deliveries = begun(1)
    succeed(deliveries, start(backlog))
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
    consuming = consume(deliveries, handed, run)
    consuming.send(None)
    consuming.close()
    assert (calls, errors, deliveries._tally.done) == ([1], [], 0)
    deliveries.end_run()
    assert deliveries.processed.receive_nowait()[1].value == 1
