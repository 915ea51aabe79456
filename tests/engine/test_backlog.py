"""The backlog: each job in exactly one place, at each step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import cast

import pytest

from anythrottle._engine.admission import Worker
from anythrottle._engine.backlog import Backlog
from anythrottle._engine.change import Change
from anythrottle._engine.job_record import JobRecord
from anythrottle._jobs import JobOf
from anythrottle._loops.event_loop import EventLoop

#: What is made of jobs, each of which is its own item.
Jobs = Backlog[JobOf[int], int]


async def job() -> int:
    return 1


async def other() -> int:
    return 2


async def third() -> int:
    return 3


def surprise(error: BaseException) -> None:
    """Want no errors."""
    raise error


def no_time() -> float:
    """Want nobody to ask what time it is."""
    raise AssertionError


def at(instant: float) -> Callable[[], float]:
    """Tell that it is that instant."""
    return lambda: instant


def begun(added: list[JobOf[int]] | None = None, source: list[JobOf[int]] | None = None) -> Jobs:
    """Make a backlog in a run, with jobs added and jobs to come from a sequence."""
    backlog: Jobs = Backlog(source or [], None, "jobs")
    for each in added or []:
        backlog.add(each, front=False)

    backlog.begin_run()
    return backlog


def start(backlog: Jobs) -> JobRecord[JobOf[int], int]:
    """Start the frontmost job."""
    record = backlog.next_job(no_time, surprise)
    assert record is not None
    assert backlog.start(record)
    return record


def made() -> JobRecord[JobOf[int], int]:
    """Make what is pulled."""
    return JobRecord(job, job)


class Listening:
    """An event loop, as far as a task is concerned that waits for a change: then it is called."""

    def __init__(self, change: Change, call: Callable[[], object]) -> None:
        self._call = call
        self._change = change
        self._waiting = Worker()
        change.await_by(self._waiting, cast("EventLoop", self))

    def cancel(self) -> None:
        self._change.forget(self._waiting)

    def wake(self, _: object) -> None:
        self._call()


def succeed(backlog: Jobs, record: JobRecord[JobOf[int], int]) -> None:
    """Let a job end well, and its result be kept."""
    record.value = 1
    record.undelivered = True
    backlog.running -= 1


async def test_started_jobs_are_numbered_and_counted() -> None:
    backlog = begun([job, other])
    records = [start(backlog), start(backlog)]
    assert [record.position for record in records] == [0, 1]
    assert [record.attempts for record in records] == [1, 1]
    assert (backlog.starts, backlog.running) == (2, 2)
    assert backlog.remaining() == [job, other]


def test_only_who_is_frontmost_starts() -> None:
    backlog = begun([job], source=[other])
    first = backlog.next_job(no_time, surprise)
    assert first is not None
    start(backlog)
    second = backlog.next_job(no_time, surprise)
    assert second is not None
    assert not backlog.start(first)
    backlog.add(third, front=True)
    assert not backlog.start(second)
    assert not backlog.drop(second)
    assert (backlog.starts, second.attempts, backlog.remaining()) == (1, 0, [third, job, other])
    assert start(backlog).item is third
    assert backlog.drop(second)
    assert (backlog.starts, second.attempts, second.position) == (2, 0, 2)


def test_what_is_no_job_is_named_by_its_position_and_passed_over() -> None:
    backlog = begun(source=[job, 5, other])  # type: ignore[list-item]
    assert backlog.next_job(no_time, surprise) is backlog.ahead
    start(backlog)
    with pytest.raises(TypeError, match=r"^jobs\[1\] must be .*, not 5; .*func=$"):
        backlog.next_job(no_time, surprise)

    assert backlog.remaining() == [job, other]


async def test_so_is_what_an_iterator_has_given() -> None:
    backlog: Jobs = Backlog(iter([job, other, 5]), None, "jobs")  # type: ignore[arg-type]
    for each in (job, other):
        assert backlog.record(await backlog.source.pull()).item is each

    with pytest.raises(TypeError, match=r"^jobs\[2\] must be .*, not 5; .*func=$"):
        backlog.record(await backlog.source.pull())


def test_one_that_was_pulled_is_ahead_until_it_starts() -> None:
    backlog = begun([other])
    told: list[object] = []
    Listening(backlog.ahead_taken, lambda: told.append(backlog.ahead))
    backlog.ahead = made()
    assert backlog.remaining() == [other, job]
    assert start(backlog).item is other
    assert backlog.next_job(no_time, surprise) is backlog.ahead
    assert not told
    record = start(backlog)
    assert told == [backlog.ahead] == [None]
    assert backlog.remaining() == [other, job]
    for each in list(backlog.started):
        succeed(backlog, each)
        backlog.finish(each)

    assert record.position == 1
    assert backlog.remaining() == []


def test_one_ahead_may_be_dropped() -> None:
    backlog = begun()
    backlog.ahead = record = made()
    assert backlog.drop(record)
    assert backlog.ahead is None
    assert (record.attempts, record.position) == (0, 0)
    succeed(backlog, record)
    backlog.finish(record)
    assert backlog.remaining() == []


def test_a_sequence_is_advanced_by_one_when_there_is_nothing_else() -> None:
    backlog = begun([job], source=[other, third])
    assert backlog.queued == 3
    start(backlog)
    assert backlog.ahead is None
    for position, each in enumerate([other, third], 1):
        record = backlog.next_job(no_time, surprise)
        assert record is not None
        assert record.item is each
        assert (record.position, backlog.positions) == (-1, position)
        assert backlog.next_job(no_time, surprise) is record
        assert start(backlog) is record
        assert record.position == position

    assert backlog.next_job(no_time, surprise) is None
    assert not backlog.is_at_end()
    for record in list(backlog.started):
        succeed(backlog, record)
        backlog.finish(record)

    assert backlog.is_at_end()


def test_those_added_at_the_front_go_before_all_others_and_the_latest_first() -> None:
    backlog = begun([job])
    throttled = start(backlog)
    backlog.put_back(throttled)
    for each in (other, third):
        backlog.add(each, front=True)

    started = [start(backlog) for _ in range(3)]
    assert [record.item for record in started] == [third, other, job]
    assert [record.position for record in started] == [2, 1, 0]
    # Where it was, it comes back to.
    for record in (started[2], started[1]):
        backlog.put_back(record)

    assert start(backlog).item is other


async def test_a_job_that_runs_holds_the_end_off() -> None:
    backlog = begun([job])
    record = start(backlog)
    backlog.end_of_source()
    assert not backlog.is_at_end()
    backlog.put_back(record)
    assert not backlog.is_at_end()
    assert backlog.throttled == 1
    again = start(backlog)
    assert (again.job, again.position, again.attempts) == (job, 0, 2)
    succeed(backlog, again)
    # Whoever consumes the result may still add a job.
    assert not backlog.is_at_end()
    backlog.finish(again)
    assert backlog.is_at_end()


def test_the_source_ends_once() -> None:
    backlog = begun([job])
    backlog.end_of_source()
    backlog.end_of_source()
    record = start(backlog)
    backlog.finish(record)
    assert backlog.is_at_end()


class TestDelayed:
    def test_goes_back_to_its_place_when_it_is_due(self) -> None:
        backlog = begun([job, other, third])
        records = [start(backlog), start(backlog)]
        backlog.end_of_source()
        backlog.delay(records[1], 5.0)
        backlog.delay(records[0], 7.0)
        assert (backlog.retried, backlog.delayed, backlog.running) == (2, 2, 0)
        assert (backlog.next_due, backlog.queued) == (5.0, 1)
        assert backlog.remaining() == [job, other, third]
        first = backlog.next_job(at(4.9), surprise)
        assert first is not None
        assert first.item is third
        assert backlog.next_job(at(5.0), surprise) is records[1]
        assert backlog.next_job(at(7.0), surprise) is records[0]
        assert backlog.next_due == math.inf
        for record in (records[0], records[1], first):
            assert start(backlog) is record
            assert not backlog.is_at_end()
            backlog.finish(record)

        assert backlog.is_at_end()

    def test_if_too_many_are_no_new_one_starts(self) -> None:
        backlog = begun([job] * 1001, source=[other])
        # They run together, so one more than may be will be delayed.
        records = [start(backlog) for _ in range(1001)]
        new: list[bool] = []
        for number, record in enumerate(records):
            backlog.delay(record, 5.0 + number)
            new.append(backlog.next_job(at(0.0), surprise) is not None)

        assert new == [True] * 999 + [False] * 2
        assert backlog.next_job(at(5.0), surprise) is records[0]

    def test_holds_the_end_off(self) -> None:
        backlog = begun([job])
        record = start(backlog)
        backlog.end_of_source()
        backlog.delay(record, 5.0)
        assert not backlog.is_at_end()

    def test_is_at_the_front_when_the_run_has_ended(self) -> None:
        backlog = begun([job, other])
        record = start(backlog)
        backlog.delay(record, 5.0)
        assert backlog.end_run() == []
        assert (backlog.delayed, backlog.next_due) == (0, math.inf)
        assert backlog.todo[0][1] is record
        assert record.attempts == 1


class TestAChange:
    @pytest.mark.parametrize("how", ["added", "put back", "delayed", "end of source", "end"])
    def test_is_told_once_it_is_so(self, how: str) -> None:
        backlog = begun([job])
        record = start(backlog)
        told: list[tuple[list[object], float, bool]] = []
        Listening(
            backlog.change,
            lambda: told.append(
                ([record for _, record in backlog.todo], backlog.next_due, backlog.is_at_end())
            ),
        )
        if how == "added":
            backlog.add(job, front=False)
            record = backlog.todo[0][1]
        elif how == "put back":
            backlog.put_back(record)
        elif how == "delayed":
            backlog.delay(record, 5.0)
        else:
            backlog.end_of_source()
            if how == "end":
                backlog.finish(record)

        expected = {
            "added": ([record], math.inf, False),
            "put back": ([record], math.inf, False),
            "delayed": ([], 5.0, False),
            "end of source": ([], math.inf, False),
            "end": ([], math.inf, True),
        }
        assert told[-1] == expected[how]

    def test_of_an_end_is_not_told_while_others_run(self) -> None:
        backlog = begun([job, other])
        records = [start(backlog), start(backlog)]
        told: list[bool] = []
        Listening(backlog.change, lambda: told.append(backlog.is_at_end()))
        backlog.end_of_source()
        backlog.finish(records[0])
        assert told == [False]
        backlog.finish(records[1])
        assert told == [False, True]

    def test_is_not_told_to_a_task_of_an_earlier_run(self) -> None:
        backlog = begun()
        told: list[str] = []
        earlier = Listening(backlog.change, lambda: told.append("earlier"))
        backlog.end_run()
        backlog.add(job, front=False)
        assert not told
        later = Listening(backlog.change, lambda: told.append("later"))
        # Its event loop goes on, and it is cancelled.
        earlier.cancel()
        backlog.add(job, front=False)
        assert told == ["later"]
        later.cancel()
        backlog.add(job, front=False)
        assert told == ["later"]


class TestEndRun:
    def test_what_ran_goes_to_the_front_in_its_place(self) -> None:
        backlog = begun([job, other, third])
        first, second = start(backlog), start(backlog)
        assert (first.attempts, second.attempts) == (1, 1)
        assert backlog.end_run() == []
        assert [record for _, record in sorted(backlog.todo)][:2] == [first, second]
        assert (first.attempts, backlog.running) == (0, 0)
        assert backlog.remaining() == [job, other, third]

    def test_an_awaitable_is_lost(self) -> None:
        coroutine = job()
        backlog = begun([coroutine])
        record = start(backlog)
        assert backlog.end_run() == [record]
        # Until somebody is told.
        assert backlog.remaining() == [coroutine]
        backlog.finish(record)
        assert backlog.remaining() == []
        coroutine.close()

    def test_what_has_ended_stays_where_it_is(self) -> None:
        backlog = begun([job])
        record = start(backlog)
        succeed(backlog, record)
        assert backlog.end_run() == []
        assert list(backlog.started) == [record]
        assert backlog.remaining() == [job]
        backlog.begin_run()
        backlog.end_of_source()
        assert not backlog.is_at_end()

    def test_the_stream_is_open_while_it_runs_alone(self) -> None:
        backlog: Jobs = Backlog([], None, "jobs")
        for _ in range(2):
            assert backlog.is_at_end()
            backlog.begin_run()
            assert not backlog.is_at_end()
            assert backlog.next_job(no_time, surprise) is None
            assert backlog.is_at_end()
            backlog.end_run()


class TestDiscard:
    def test_closes_what_nobody_will_await(self) -> None:
        coroutines = [job(), job()]
        backlog = begun([coroutines[0]])
        backlog.ahead = JobRecord(coroutines[1], coroutines[1])
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
    backlog = begun([third], source=[job, other])
    assert backlog.remaining() == [third, job, other]
    start(backlog)
    assert backlog.next_job(no_time, surprise) is not None
    assert backlog.remaining() == [third, job, other]
