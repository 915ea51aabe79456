"""The backlog: each job in exactly one place, at each step."""

from __future__ import annotations

import inspect
import logging

import anyio
import pytest

from anythrottle import JobInterrupted
from anythrottle._engine.backlog import Backlog
from anythrottle._engine.job import Errand
from anythrottle._limiters.throttle import JobOf


async def job() -> int:
    return 1


async def other() -> int:
    return 2


async def third() -> int:
    return 3


def begun(jobs: list[JobOf[int]] | None = None) -> Backlog[int]:
    """Make a backlog in a run, with ``jobs`` added."""
    backlog: Backlog[int] = Backlog([], 5)
    backlog.failures.open_receivers = 1
    for each in jobs or []:
        backlog.add(each)

    backlog.begin_run()
    return backlog


async def test_started_jobs_are_numbered_and_counted() -> None:
    backlog = begun([job, other])
    errands = [backlog.start(), backlog.start()]
    assert [errand.position for errand in errands] == [0, 1]
    assert [errand.attempts for errand in errands] == [1, 1]
    assert (backlog.starts, backlog.running) == (2, 2)
    assert backlog.remaining() == [job, other]


async def test_there_must_be_one_to_start() -> None:
    with pytest.raises(anyio.WouldBlock):
        begun().start()


async def test_the_one_ahead_is_no_longer_ahead_when_it_starts() -> None:
    backlog = begun()
    backlog.ahead = Errand(job)
    assert backlog.remaining() == [job]
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(backlog.todo.send, backlog.ahead, None)
        await backlog.todo.ready()
        errand = backlog.start()
        assert backlog.ahead is None
        assert backlog.remaining() == [job]

    backlog.succeed(errand, 1)
    backlog.finish(errand)
    assert backlog.remaining() == []


async def test_a_job_that_runs_holds_the_end_off() -> None:
    backlog = begun([job])
    errand = backlog.start()
    backlog.end_of_source()
    assert not backlog.todo.is_at_end()
    backlog.put_back(errand, other)
    assert not backlog.todo.is_at_end()
    assert backlog.throttled == 1
    again = backlog.start()
    assert (again.job, again.position, again.attempts) == (other, 0, 2)
    backlog.succeed(again, 1)
    # Whoever consumes the result may still add a job.
    assert not backlog.todo.is_at_end()
    backlog.finish(again)
    assert backlog.todo.is_at_end()


async def test_failures_are_collected() -> None:
    backlog = begun([job, other])
    error = ValueError()
    backlog.fail(backlog.start(), error)
    assert (backlog.failed, backlog.running) == (1, 0)
    assert backlog.failures.items()[0].error is error
    assert backlog.remaining() == [other]
    backlog.failures.open_receivers = 0
    backlog.fail(backlog.start(), error)
    assert backlog.failed == 2
    assert len(backlog.failures) == 1


class TestEndRun:
    async def test_what_ran_goes_to_the_front_in_its_place(self) -> None:
        backlog = begun([job, other, third])
        first, second = backlog.start(), backlog.start()
        assert (first.attempts, second.attempts) == (1, 1)
        backlog.end_run()
        assert backlog.todo.items() == [first, second, *backlog.todo.items()[2:]]
        assert (first.attempts, backlog.running) == (0, 0)
        assert backlog.remaining() == [job, other, third]

    async def test_an_awaitable_is_collected(self) -> None:
        coroutine = job()
        backlog = begun([coroutine])
        backlog.start()
        backlog.end_run()
        (outcome,) = backlog.failures.items()
        assert isinstance(outcome.error, JobInterrupted)
        assert backlog.remaining() == []
        coroutine.close()

    async def test_results_are_kept_once(self) -> None:
        backlog = begun([job, other])
        in_buffer, with_consumer = backlog.start(), backlog.start()
        for errand in (in_buffer, with_consumer):
            backlog.succeed(errand, 1)

        backlog.processed.open_receivers = 1
        backlog.processed.send_nowait(in_buffer)
        for _ in range(2):
            backlog.end_run()
            assert sorted(e.position for e in backlog.processed.items()) == [0, 1]

        assert backlog.remaining() == [job, other]

    async def test_the_streams_are_open_while_it_runs_alone(self) -> None:
        backlog: Backlog[int] = Backlog([], 5)

        def at_end() -> tuple[bool, bool, bool]:
            todo, processed, failures = backlog.todo, backlog.processed, backlog.failures
            return todo.is_at_end(), processed.is_at_end(), failures.is_at_end()

        for _ in range(2):
            assert at_end() == (True, True, True)
            backlog.begin_run()
            assert at_end() == (False, False, False)
            backlog.end_of_source()
            assert at_end() == (True, False, False)
            backlog.end_of_jobs()
            assert at_end() == (True, True, False)
            backlog.end_run()

    async def test_unread_failures_are_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        backlog = begun([job, other])
        for _ in range(2):
            backlog.fail(backlog.start(), ValueError())

        backlog.end_run()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert caplog.records[0].args == (2,)


class TestDiscard:
    def test_closes_what_nobody_will_await(self) -> None:
        coroutines = [job(), job()]
        backlog = begun([coroutines[0]])
        backlog.ahead = Errand(coroutines[1])
        backlog.discard()
        states = [inspect.getcoroutinestate(coroutine) for coroutine in coroutines]
        assert states == [inspect.CORO_CLOSED] * 2

    def test_unless_somebody_else_has_them(self) -> None:
        coroutine = job()
        backlog = begun([coroutine])
        backlog.remaining()
        backlog.discard()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
        coroutine.close()


def test_remaining_has_the_rest_of_a_sequence() -> None:
    backlog = Backlog([job, other], 5)
    backlog.add(third)
    assert backlog.remaining() == [third, job, other]


async def test_a_result_is_delivered_once() -> None:
    backlog = begun([job, other, third])
    lost, sent, received = (backlog.start() for _ in range(3))
    for value, errand in enumerate([lost, sent, received]):
        backlog.succeed(errand, value)

    # Their workers were cancelled at the hand-over, before it, in it, and after it.
    backlog.processed.send_nowait(sent)
    received.received = True
    for errand in (lost, sent, received):
        backlog.deliver(errand)

    assert backlog.processed.items() == [lost, sent]
