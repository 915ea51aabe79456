"""What the observer of a throttler is told of its jobs, and what becomes of one that fails."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    Failed,
    Finished,
    Granted,
    JobInterrupted,
    Paused,
    RateLimiter,
    Started,
    Throttled,
    ThrottleException,
    Throttler,
    ThrottlerStatistics,
)
from anythrottle._jobs import JobOf
from anythrottle.abc import Event
from tests.engine.diary import Diary, failures, finish

pytestmark = pytest.mark.timing


class Witness:
    """An observer that notes what it is told, when, and how the throttler was just then."""

    def __init__(self) -> None:
        self.throttler: Throttler[JobOf[object], object] | None = None
        self.events: list[Event] = []
        self.instants: list[float] = []
        self.statistics: list[ThrottlerStatistics] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.instants.append(anyio.current_time())
        if self.throttler is not None:
            self.statistics.append(self.throttler.statistics())

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def watch(
        self, jobs: list[Any], *args: Any, **options: Any
    ) -> Throttler[JobOf[object], object]:
        """Make a throttler to observe."""
        self.throttler = Throttler(jobs, *args, observer=self, **options)
        return self.throttler


@pytest.fixture
def witness() -> Witness:
    return Witness()


class TestObserverParameter:
    @pytest.mark.parametrize("observer", [5, "print", [print]])
    @pytest.mark.parametrize("limiter", [None, "5/s"])
    def test_what_cannot_be_called(self, observer: Any, limiter: Any) -> None:
        with pytest.raises(TypeError) as caught:
            Throttler([], limiter=limiter, observer=observer)

        assert str(caught.value) == f"observer must be a function of one argument, not {observer!r}"

    def test_what_can(self) -> None:
        Throttler([], observer=None)
        Throttler([], observer=print)
        Throttler([], limiter="5/s", observer=Witness())


class TestEvents:
    async def test_a_job_that_ends_well(self, witness: Witness) -> None:
        job = Diary().job("a", seconds=3)
        await finish(witness.watch([job]))
        assert witness.events == [Started(0, job, 1, 0.0), Finished(0, job, 1, 3.0)]
        assert witness.instants[1] - witness.instants[0] == 3

    async def test_a_job_that_fails(self, witness: Witness) -> None:
        error = ValueError("mine")
        job = Diary().job("a", seconds=3, errors=[error])
        throttler = witness.watch([job])
        await finish(throttler)
        assert witness.events == [Started(0, job, 1, 0.0), Failed(0, job, 1, 3.0, error)]
        assert failures(throttler) == [(job, error)]

    async def test_a_job_that_is_throttled_and_goes_again(self, witness: Witness) -> None:
        errors = [ThrottleException(retry_after=5), ThrottleException()]
        job = Diary().job("a", seconds=1, errors=errors)
        await finish(witness.watch([job], time_window=20, per_time_window=10))
        assert witness.events == [
            Started(0, job, 1, 0.0),
            Throttled(None, 0, 1, errors[0], job),
            Started(0, job, 2, 5.0),
            Throttled(None, 0, 2, errors[1], job),
            Started(0, job, 3, 25.0),
            Finished(0, job, 3, 1.0),
        ]
        assert [at - witness.instants[0] for at in witness.instants] == [0, 1, 6, 7, 27, 28]

    async def test_a_group_of_signals_is_told_of_as_it_is(self, witness: Witness) -> None:
        group = ExceptionGroup("", [ThrottleException(), ThrottleException(retry_after=2)])
        job = Diary().job("a", errors=[group])
        await finish(witness.watch([job]))
        assert witness.events[1] == Throttled(None, 0, 1, group, job)

    async def test_a_mixed_group_has_failed(self, witness: Witness) -> None:
        group = ExceptionGroup("", [ThrottleException(retry_after=2), ValueError()])
        job = Diary().job("a", errors=[group])
        throttler = witness.watch([job])
        await finish(throttler)
        failures(throttler)
        assert witness.events[1:] == [Failed(0, job, 1, 0.0, group)]

    async def test_a_job_that_is_throttled_too_often_has_failed(self, witness: Witness) -> None:
        errors = [ThrottleException(retry_after=2) for _ in range(3)]
        job = Diary().job("a", seconds=1, errors=errors)
        throttler = witness.watch([job], attempts=Attempts(max_throttles=2))
        await finish(throttler)
        failures(throttler)
        assert witness.kinds == ["Started", "Throttled", "Started", "Failed"]
        assert witness.events[-1] == Failed(0, job, 2, 1.0, errors[1])

    async def test_a_replacement_takes_the_job_s_place(self, witness: Witness) -> None:
        diary = Diary()
        instead = diary.job("instead", seconds=2)
        error = ThrottleException(instead, retry_after=5)
        job = diary.job("a", errors=[error])
        await finish(witness.watch([job, diary.job("b")], concurrency=1))
        assert witness.events[:4] == [
            Started(0, job, 1, 0.0),
            Throttled(None, 0, 1, error, job),
            Started(0, instead, 2, 5.0),
            Finished(0, instead, 2, 2.0),
        ]

    async def test_an_awaitable(self, witness: Witness) -> None:
        coroutine: Any = Diary().job("a", seconds=1)()
        await finish(witness.watch([coroutine]))
        assert witness.events == [Started(0, coroutine, 1, 0.0), Finished(0, coroutine, 1, 1.0)]

    async def test_an_awaitable_that_was_cut_off_has_failed(self, witness: Witness) -> None:
        coroutine: Any = Diary().job("a", seconds=5)()
        throttler = witness.watch([coroutine])
        with anyio.move_on_after(2):
            await throttler.run()

        [(_, error)] = failures(throttler)
        assert isinstance(error, JobInterrupted)
        failed = witness.events[-1]
        assert isinstance(failed, Failed)
        assert (failed.index, failed.item, failed.error) == (0, coroutine, error)

    async def test_a_callable_that_was_cut_off_starts_again(self, witness: Witness) -> None:
        job = Diary().job("a", seconds=5)
        throttler = witness.watch([job])
        with anyio.move_on_after(2):
            await throttler.run()

        assert witness.kinds == ["Started"]
        await finish(throttler)
        # That start does not count.
        assert witness.events[1:] == [Started(0, job, 1, 0.0), Finished(0, job, 1, 5.0)]

    async def test_an_error_that_ends_the_run_is_no_failure(self, witness: Witness) -> None:
        class Stop(BaseException):
            pass

        throttler = witness.watch([Diary().job("a", errors=[Stop()])])
        with pytest.raises(Stop):
            await finish(throttler)

        assert witness.kinds == ["Started"]

    async def test_an_added_job(self, witness: Witness) -> None:
        throttler = witness.watch([])
        job = Diary().job("a")
        throttler.add(job)
        await finish(throttler)
        assert [type(event) for event in witness.events] == [Started, Finished]
        assert witness.events[0] == Started(0, job, 1, 0.0)

    async def test_each_of_many_jobs_by_its_index(self, witness: Witness) -> None:
        diary = Diary()
        jobs = [diary.job(number, seconds=10 - number) for number in range(4)]
        await finish(witness.watch(jobs, limiter="1/s", concurrency=4))
        begun = witness.instants[0]
        told = [
            (type(event), event.index, at - begun)
            for event, at in zip(witness.events, witness.instants, strict=True)
            if isinstance(event, (Started, Finished))
        ]
        assert told[:4] == [(Started, number, number) for number in range(4)]
        # They all end at the same time.
        assert sorted(told[4:], key=lambda entry: entry[1]) == [
            (Finished, number, 10) for number in range(4)
        ]
        assert {event.item for event in witness.events if isinstance(event, Started)} == {*jobs}

    async def test_waited_is_that_of_all_turns(self, witness: Witness) -> None:
        diary = Diary()
        jobs = [diary.job(0), diary.job(1, errors=[ThrottleException(retry_after=25)])]
        await finish(witness.watch(jobs, limiter="1/10s"))
        started = [event for event in witness.events if isinstance(event, Started)]
        assert [event.waited for event in started] == [0, 10, 35]

    async def test_one_observer_may_hear_the_limiter_too(self, witness: Witness) -> None:
        error = ThrottleException(retry_after=5)
        job = Diary().job("a", errors=[error])
        limiter = RateLimiter("5/10s", name="api", observer=witness)
        await finish(witness.watch([job], limiter=limiter, concurrency=1))
        # The throttler waits for each of its turns, the last one too, if there may be a job.
        assert witness.events[:7] == [
            Granted("api", 1, 0.0),
            Started(0, job, 1, 0.0),
            Paused("api", 5.0),
            Throttled(None, 0, 1, error, job),
            Granted("api", 1, 5.0),
            Started(0, job, 2, 5.0),
            Finished(0, job, 2, 0.0),
        ]
        assert not any(isinstance(event, Granted) for event in witness.events[7:])

    async def test_its_own_limiter_tells_nothing(self, witness: Witness) -> None:
        await finish(witness.watch(Diary().jobs(3), time_window=10, per_time_window=1))
        assert set(witness.kinds) == {"Started", "Finished"}


class TestAfterTheChange:
    """Whoever asks the throttler when it is told sees what it is told of."""

    async def test_started(self, witness: Witness) -> None:
        await finish(witness.watch([Diary().job("a", seconds=1)], Diary().consumer()))
        assert witness.statistics[0] == ThrottlerStatistics(1, 1, 0, 0, 0)

    async def test_finished_before_the_consumer_has_had_it(self, witness: Witness) -> None:
        await finish(witness.watch([Diary().job("a", seconds=1)], Diary().consumer(1)))
        assert witness.statistics[1] == ThrottlerStatistics(1, 0, 0, 0, 0)

    async def test_finished_without_a_consumer(self, witness: Witness) -> None:
        await finish(witness.watch([Diary().job("a", seconds=1)]))
        assert witness.statistics[1] == ThrottlerStatistics(1, 0, 1, 0, 0)

    async def test_failed(self, witness: Witness) -> None:
        throttler = witness.watch([Diary().job("a", errors=[ValueError()])])
        await finish(throttler)
        failures(throttler)
        assert witness.statistics[1] == ThrottlerStatistics(1, 0, 0, 1, 0)

    async def test_failed_can_be_read_at_once(self) -> None:
        read: list[object] = []

        def observe(event: Event) -> None:
            if isinstance(event, Failed):
                outcome = throttler.exceptions.receive_nowait()
                read.append((outcome.index, outcome.item, outcome.attempts, outcome.duration))
                assert outcome.error is event.error

        job = Diary().job("a", seconds=2, errors=[ValueError()])
        throttler: Throttler[JobOf[object], object] = Throttler([job], observer=observe)
        await finish(throttler)
        assert read == [(0, job, 1, 2.0)]

    async def test_throttled(self, witness: Witness) -> None:
        job = Diary().job("a", errors=[ThrottleException(retry_after=5)])
        seen: list[tuple[list[object], float]] = []
        limiter = RateLimiter(concurrency=1)

        def observe(event: Event) -> None:
            witness(event)
            if isinstance(event, Throttled):
                # It is at the front, and the pause has begun.
                seen.append((list(throttler.remaining()), limiter.statistics().paused_for))

        throttler: Throttler[JobOf[object], object] = Throttler(
            [job], limiter=limiter, observer=observe
        )
        witness.throttler = throttler
        await finish(throttler)
        assert seen == [([job], 5)]
        assert witness.statistics[1] == ThrottlerStatistics(1, 0, 0, 0, 1)


async def run_all(observer: Callable[[Event], None] | None) -> tuple[list[object], list[float]]:
    """Run jobs of which one fails and one is throttled; return what was consumed, and when."""
    diary = Diary()
    jobs = [
        diary.job(0, seconds=1),
        diary.job(1, seconds=1, errors=[ValueError()]),
        diary.job(2, seconds=1, errors=[ThrottleException(retry_after=5)]),
        diary.job(3, seconds=1),
    ]
    throttler: Throttler[JobOf[object], object] = Throttler(
        jobs, diary.consumer(), limiter="1/s", concurrency=1, observer=observer
    )
    statistics = await finish(throttler)
    assert statistics == ThrottlerStatistics(5, 0, 3, 1, 1)
    assert len(failures(throttler)) == 1
    starts = diary.when("start")
    return diary.consumed, [at - starts[0] for at in starts]


#: What :func:`run_all` comes to.
ALL = [0, 2, 3], [0.0, 1.0, 2.0, 8.0, 9.0]


class TestObserversThatFail:
    async def test_are_logged_and_the_run_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        told: list[Event] = []

        def fail(event: Event) -> None:
            told.append(event)
            raise ZeroDivisionError

        assert await run_all(fail) == ALL
        assert [type(event).__name__ for event in told] == [
            *("Started", "Finished", "Started", "Failed", "Started", "Throttled"),
            *("Started", "Finished", "Started", "Finished"),
        ]
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == len(told)
        for record, event in zip(errors, told, strict=True):
            assert record.name == "anythrottle"
            assert "observer" in record.message
            assert repr(event) in record.message
            assert record.exc_info is not None
            assert isinstance(record.exc_info[1], ZeroDivisionError)

    async def test_one_that_listens_changes_nothing(self) -> None:
        assert await run_all(Witness()) == ALL

    async def test_one_that_fails_when_an_awaitable_is_told_of(self) -> None:
        def fail(event: Event) -> None:
            raise ZeroDivisionError

        diary = Diary()
        jobs: list[Any] = [diary.job("a")(), diary.job("b")()]
        await finish(Throttler(jobs, diary.consumer(), observer=fail))
        assert sorted(map(str, diary.consumed)) == ["a", "b"]


class TestObserversThatCallBack:
    async def test_stop_at_the_first_result(self, witness: Witness) -> None:
        def observe(event: Event) -> None:
            witness(event)
            if isinstance(event, Finished):
                throttler.stop()

        diary = Diary()
        throttler: Throttler[JobOf[object], object] = Throttler(
            diary.jobs(5, seconds=1), concurrency=1, observer=observe
        )
        statistics = await finish(throttler)
        assert (statistics.started, statistics.done) == (1, 1)
        assert len(throttler.remaining()) == 4

    async def test_add_a_job_for_one_that_has_failed(self) -> None:
        diary = Diary()
        again = diary.job("again")

        def observe(event: Event) -> None:
            if isinstance(event, Failed):
                throttler.add(again)

        jobs = [diary.job("a", errors=[ValueError()]), diary.job("b")]
        throttler: Throttler[JobOf[object], object] = Throttler(
            jobs, diary.consumer(), concurrency=1, observer=observe
        )
        await finish(throttler)
        failures(throttler)
        assert sorted(map(str, diary.consumed)) == ["again", "b"]

    async def test_add_a_job_at_the_end_of_the_last_one(self) -> None:
        diary = Diary()
        more: list[Callable[[], Awaitable[object]]] = [diary.job("c"), diary.job("b")]

        def observe(event: Event) -> None:
            if isinstance(event, Started) and more:
                throttler.add(more.pop())

        throttler: Throttler[JobOf[object], object] = Throttler(
            [diary.job("a")], diary.consumer(), concurrency=1, observer=observe
        )
        await finish(throttler)
        assert diary.consumed == ["a", "b", "c"]


async def test_without_an_observer_no_record_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a record was built")

    names = {"Started", "Finished", "Failed", "Throttled", "Granted", "Paused", "tell"}
    patched = set()
    for module in list(sys.modules.values()):
        if module.__name__.startswith("anythrottle._"):
            for name in names & set(vars(module)):
                monkeypatch.setattr(module, name, fail)
                patched.add(name)

    assert patched == names
    assert await run_all(None) == ALL
