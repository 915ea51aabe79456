"""The throttler: jobs that are worth another attempt, and attempts that take too long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    RateLimiter,
    Retried,
    Started,
    ThrottleException,
    Throttler,
    amap,
    amap_outcomes,
    first,
    for_each,
)
from anythrottle._jobs import JobOf
from anythrottle.abc import Event
from anythrottle.testing import wait_idle
from tests.engine.diary import Diary, Job, failures, finish

pytestmark = pytest.mark.timing


class Later(Exception):
    """An error after which a job is to go again, in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def later(error: Exception) -> bool | float:
    return error.seconds if isinstance(error, Later) else False


@pytest.fixture(autouse=True)
def highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let chance draw the longest delay."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)


class TestDelays:
    async def test_a_job_goes_again_after_its_delay(self) -> None:
        diary = Diary()
        job = diary.job("a", seconds=1, errors=[Later(5), Later(0), Later(2.5)])
        throttler = Throttler([job], diary.consumer(), attempts=Attempts(retry_on=later))
        statistics = await finish(throttler)
        assert diary.when("start") == [0, 6, 7, 10.5]
        assert diary.consumed == ["a"]
        assert (statistics.retried, statistics.throttled, statistics.started) == (3, 0, 4)
        assert (statistics.done, statistics.failed, statistics.delayed) == (1, 0, 0)

    async def test_a_delay_of_next_to_nothing_takes_a_millisecond(self) -> None:
        diary = Diary()
        await anyio.sleep(64)
        throttler = Throttler(
            [diary.job("a", errors=[Later(1e-9)])], attempts=Attempts(retry_on=later)
        )
        await finish(throttler)
        assert diary.when("start") == [64, 64 + 0.001]

    async def test_by_type_it_backs_off(self) -> None:
        diary = Diary()
        errors = [OSError() for _ in range(8)]
        await finish(
            Throttler([diary.job("a", errors=errors)], attempts=Attempts(retry_on=OSError))
        )
        assert diary.when("start") == [0, 1, 3, 7, 15, 31, 63, 123, 183]

    async def test_other_errors_are_collected_at_once(self) -> None:
        diary = Diary()
        error = KeyError()
        job = diary.job("a", errors=[OSError(), error])
        throttler = Throttler([job], attempts=Attempts(retry_on=(OSError, ValueError)))
        await finish(throttler)
        assert diary.when("start") == [0, 1]
        assert failures(throttler) == [(job, error)]

    async def test_a_delayed_job_has_no_slot_and_others_go_on_without_a_pause(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=1)
        jobs = [diary.job("a", seconds=1, errors=[Later(10)])]
        jobs += [diary.job(number, seconds=1) for number in range(3)]
        async with anyio.create_task_group() as task_group:
            throttler = Throttler(
                jobs, limiter=limiter, concurrency=1, attempts=Attempts(retry_on=later)
            )
            task_group.start_soon(finish, throttler)
            await anyio.sleep(6)
            assert limiter.statistics().borrowed_tokens == 0
            assert limiter.statistics().paused_for == 0
            assert throttler.statistics().delayed == 1

        assert diary.starts == ["a", 0, 1, 2, "a"]
        assert diary.when("start") == [0, 1, 2, 3, 11]

    async def test_who_is_due_goes_before_who_has_never_started(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", seconds=1, errors=[Later(1.5)])]
        jobs += [diary.job(number, seconds=1) for number in range(5)]
        await finish(Throttler(jobs, concurrency=1, attempts=Attempts(retry_on=later)))
        # Due at 2.5, while somebody else runs.
        assert diary.starts == ["a", 0, 1, "a", 2, 3, 4]
        assert diary.when("start") == [0, 1, 2, 3, 4, 5, 6]

    async def test_those_that_are_due_go_in_their_order(self) -> None:
        diary = Diary()
        delays = {"a": 9.0, "b": 5.0, "c": 7.0}
        jobs = [diary.job(name, errors=[Later(delay)]) for name, delay in delays.items()]
        jobs += [diary.job("long", seconds=20), diary.job("last")]
        await finish(Throttler(jobs, concurrency=1, attempts=Attempts(retry_on=later)))
        assert diary.starts == ["a", "b", "c", "long", "a", "b", "c", "last"]

    async def test_each_at_its_own_instant(self) -> None:
        diary = Diary()
        delays = {"a": 9.0, "b": 5.0, "c": 7.0}
        jobs = [diary.job(name, errors=[Later(delay)]) for name, delay in delays.items()]
        await finish(Throttler(jobs, attempts=Attempts(retry_on=later)))
        assert diary.starts[3:] == ["b", "c", "a"]
        assert diary.when("start")[3:] == [5, 7, 9]

    async def test_who_becomes_due_while_another_waits_for_its_turn_goes_first(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[Later(5)]), diary.job("b"), diary.job("c")]
        throttler = Throttler(
            jobs, time_window=10, per_time_window=1, attempts=Attempts(retry_on=later)
        )
        await finish(throttler)
        assert diary.starts == ["a", "a", "b", "c"]
        assert diary.when("start") == [0, 10, 20, 30]

    async def test_each_attempt_pays(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[Later(0), Later(0)]), diary.job("b")]
        await finish(
            Throttler(jobs, limiter="2/10s", concurrency=1, attempts=Attempts(retry_on=later))
        )
        assert diary.starts == ["a", "a", "a", "b"]
        assert diary.when("start") == [0, 0, 10, 10]

    async def test_the_run_lasts_until_the_delayed_ones_are_done(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[Later(500)]), diary.job("b")]
        send, receive = anyio.create_memory_object_stream[Job](2)
        with receive, send:
            for job in jobs:
                send.send_nowait(job)

            send.close()
            for source in (receive, iter([diary.job("c", errors=[Later(300)])])):
                throttler = Throttler(source, diary.consumer(), attempts=Attempts(retry_on=later))
                await finish(throttler)

        assert diary.consumed == ["b", "a", "c"]
        assert anyio.current_time() == 800

    async def test_without_a_consumer_too(self) -> None:
        diary = Diary()
        await finish(
            Throttler([diary.job("a", errors=[Later(500)])], attempts=Attempts(retry_on=later))
        )
        assert diary.when("end") == [500]

    async def test_an_idle_service_wakes_up_for_it(self) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Job](9)
        with receive:
            throttler = Throttler(receive, diary.consumer(), attempts=Attempts(retry_on=later))
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(finish, throttler)
                with send:
                    send.send_nowait(diary.job("a", errors=[Later(5)]))
                    await anyio.sleep(3)
                    send.send_nowait(diary.job("b"))
                    await anyio.sleep(10)
                    assert diary.starts == ["a", "b", "a"]
                    assert diary.when("start") == [0, 3, 5]

    async def test_a_job_added_meanwhile_goes_at_once(self) -> None:
        diary = Diary()
        throttler = Throttler(
            [diary.job("a", errors=[Later(50)])], attempts=Attempts(retry_on=later)
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(3)
            throttler.add(diary.job("b"))

        assert diary.starts == ["a", "b", "a"]
        assert diary.when("start") == [0, 3, 50]

    async def test_a_slow_consumer_does_not_hold_it_up_for_ever(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[Later(2)]), *diary.jobs(3)]
        throttler = Throttler(
            jobs, diary.consumer(10), concurrency=1, attempts=Attempts(retry_on=later)
        )
        await finish(throttler)
        assert sorted(diary.consumed, key=str) == [0, 1, 2, "a"]

    async def test_many_that_are_delayed_to_the_same_instant(self) -> None:
        diary = Diary()
        jobs = [diary.job(number, errors=[Later(5)]) for number in range(50)]
        await finish(
            Throttler(jobs, diary.consumer(), concurrency=7, attempts=Attempts(retry_on=later))
        )
        assert diary.starts == [*range(50), *range(50)]
        assert diary.when("start") == [0] * 50 + [5] * 50

    @pytest.mark.untraced
    @pytest.mark.parametrize("consumed", [True, False])
    async def test_memory_is_bounded_although_they_wait_outside(self, *, consumed: bool) -> None:
        diary = Diary()
        pulled = 0

        def generate() -> Iterator[Job]:
            nonlocal pulled
            for number in range(3000):
                pulled += 1
                yield diary.job(number, errors=[Later(50)])

        throttler = Throttler(
            generate(),
            diary.consumer() if consumed else None,
            limiter=RateLimiter(concurrency=4),
            attempts=Attempts(retry_on=later),
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(10)
            assert throttler.statistics().delayed < 1010
            assert pulled < 1015

        assert sorted(diary.who("end"), key=repr) == sorted(range(3000), key=repr)
        assert len(diary.consumed) == 3000 * consumed
        assert anyio.current_time() == 150

    async def test_nor_does_that_hold_up_who_has_been_started(self) -> None:
        diary = Diary()
        throttled = diary.job("throttled", seconds=5, errors=[ThrottleException(retry_after=1)])
        others = [diary.job(number, errors=[Later(50)]) for number in range(1100)]
        async with anyio.create_task_group() as task_group:
            throttler = Throttler(
                [throttled, *others], limiter=RateLimiter(), attempts=Attempts(retry_on=later)
            )
            task_group.start_soon(finish, throttler)
            await anyio.sleep(4)
            assert throttler.statistics().delayed >= 1000

        starts = [
            when for what, who, when in diary.entries if (what, who) == ("start", "throttled")
        ]
        assert starts == [0, 6]

    async def test_a_replacement_that_is_to_go_again(self) -> None:
        diary = Diary()
        instead = diary.job("instead", errors=[Later(4)])
        job = diary.job("a", errors=[ThrottleException(instead, retry_after=2)])
        await finish(Throttler([job], diary.consumer(), attempts=Attempts(retry_on=later)))
        assert diary.starts == ["a", "instead", "instead"]
        assert diary.when("start") == [0, 2, 6]


class CreepingLoop(asyncio.SelectorEventLoop):
    """Its clock moves on by a microsecond at each look, as a real one does."""

    now = 0.0

    def time(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.mark.parametrize("tenths", range(30, 60))
def test_a_job_that_falls_due_between_two_looks(tenths: int) -> None:
    tried: list[int] = []

    async def fail_once(item: int) -> None:
        tried.append(item)
        if len(tried) == 1:
            raise OSError

    async def main() -> None:
        await for_each(
            fail_once, [0], limiter="9/s", attempts=Attempts(retry_on=lambda _: tenths * 1e-7)
        )

    anyio.run(main, backend_options={"loop_factory": CreepingLoop})
    assert tried == [0, 0]


class TestAttempts:
    async def test_retries_are_bounded(self) -> None:
        diary = Diary()
        errors = [Later(1), Later(1), Later(1)]
        job = diary.job("a", errors=errors)
        throttler = Throttler([job], attempts=Attempts(3, retry_on=later))
        statistics = await finish(throttler)
        assert diary.when("start") == [0, 1, 2]
        [(item, error)] = failures(throttler)
        assert (item, error) == (job, errors[2])
        assert error.__notes__ == ["It was the last of 3 attempts."]
        assert (statistics.retried, statistics.failed) == (2, 1)

    async def test_throttles_and_errors_are_counted_apart(self) -> None:
        for last in (Later(1), ThrottleException(retry_after=1)):
            diary = Diary()
            errors: list[BaseException] = [Later(1), ThrottleException(retry_after=7)]
            job = diary.job("a", errors=[*errors * 2, last])
            attempts = Attempts(3, max_throttles=3, retry_on=later)
            throttler = Throttler([job], attempts=attempts)
            statistics = await finish(throttler)
            assert len(diary.starts) == 5
            outcome = throttler.exceptions.receive_nowait()
            assert (outcome.error, outcome.attempts) == (last, 5)
            assert (statistics.retried, statistics.throttled) == (2, 2)
            [note] = last.__notes__
            assert note in {
                "It was the last of 3 attempts.",
                "It was throttled 3 times; the last retry_after was 1 s.",
            }

    @pytest.mark.parametrize("kind", ["throttler", "amap"])
    async def test_errors_three_times_and_429s_for_as_long_as_it_takes(self, kind: str) -> None:
        attempts = Attempts(3, retry_on=OSError)
        errors = [ThrottleException(retry_after=3) for _ in range(10)]
        errors.insert(4, OSError())  # type: ignore[arg-type]
        errors.insert(8, OSError())  # type: ignore[arg-type]
        diary = Diary()
        jobs = [diary.job(number, errors=errors) for number in range(5)]
        if kind == "amap":
            assert await amap(lambda job: job(), jobs, attempts=attempts) == [*range(5)]
        else:
            throttler = Throttler(jobs, diary.consumer(), concurrency=2, attempts=attempts)
            assert (await finish(throttler)).failed == 0
            assert sorted(diary.consumed, key=str) == [*range(5)]

    async def test_the_service_s_last_word_is_noted_though_it_said_nothing_then(self) -> None:
        errors = [ThrottleException(retry_after=1.5), ThrottleException(), ThrottleException()]
        job = Diary().job("a", errors=errors)
        throttler = Throttler([job], attempts=Attempts(max_throttles=3))
        await finish(throttler)
        assert errors[2].__notes__ == ["It was throttled 3 times; the last retry_after was 1.5 s."]

    async def test_a_timeout_counts_as_an_error(self) -> None:
        diary = Diary()
        job = diary.job("a", seconds=9)
        attempts = Attempts(2, max_throttles=1, retry_on=OSError, timeout=5)
        throttler = Throttler([job], attempts=attempts)
        await finish(throttler)
        assert len(diary.starts) == 2
        [(_, error)] = failures(throttler)
        assert isinstance(error, TimeoutError)

    async def test_what_was_cut_off_counts_for_neither(self) -> None:
        diary = Diary()
        errors = [Later(0), ThrottleException(retry_after=0)]
        job = diary.job("a", seconds=2, errors=errors)
        attempts = Attempts(2, max_throttles=2, retry_on=later)
        throttler = Throttler([job], diary.consumer(), attempts=attempts)
        for instant in (1, 3, 3):
            with anyio.move_on_after(instant):
                await throttler.run()

        await finish(throttler)
        assert len(diary.starts) == 6
        assert diary.consumed == ["a"]

    async def test_a_group_of_throttles_is_one(self) -> None:
        diary = Diary()
        errors = [
            ExceptionGroup("", [ThrottleException(retry_after=1), ThrottleException(retry_after=4)])
            for _ in range(3)
        ]
        throttler = Throttler([diary.job("a", errors=errors)], attempts=Attempts(max_throttles=3))
        await finish(throttler)
        assert diary.when("start") == [0, 4, 8]
        assert errors[2].__notes__ == ["It was throttled 3 times; the last retry_after was 4 s."]

    async def test_a_mixed_group_says_nothing_of_how_often(self) -> None:
        mixed = ExceptionGroup("", [ThrottleException(retry_after=1), KeyError()])
        throttler = Throttler(
            [Diary().job("a", errors=[mixed])], attempts=Attempts(max_throttles=1)
        )
        await finish(throttler)
        assert [error for _, error in failures(throttler)] == [mixed]
        assert not hasattr(mixed, "__notes__")

    async def test_a_throttle_is_one_even_if_retry_on_names_it(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[ThrottleException(retry_after=7)]), diary.job("b")]
        throttler = Throttler(jobs, concurrency=1, attempts=Attempts(retry_on=Exception))
        statistics = await finish(throttler)
        assert diary.when("start") == [0, 7, 7]
        assert (statistics.retried, statistics.throttled) == (0, 1)

    async def test_the_back_off_grows_with_errors_alone(self) -> None:
        diary = Diary()
        throttle = ThrottleException(retry_after=1)
        errors: list[BaseException] = [throttle, OSError(), throttle, OSError()]
        await finish(
            Throttler([diary.job("a", errors=errors)], attempts=Attempts(retry_on=OSError))
        )
        assert diary.when("start") == [0, 1, 2, 3, 5]

    async def test_an_awaitable_cannot_go_again(self) -> None:
        error = Later(1)

        async def fail() -> None:
            raise error

        coroutine = fail()
        throttler: Throttler[JobOf[object], object] = Throttler(
            [coroutine], attempts=Attempts(retry_on=later)
        )
        statistics = await finish(throttler)
        assert failures(throttler) == [(coroutine, error)]
        assert error.__notes__ == ["An awaitable cannot run again: pass a callable that makes it."]
        assert statistics.retried == 0
        assert anyio.current_time() == 0

    async def test_an_awaitable_that_would_not_go_again_has_no_note(self) -> None:
        error = KeyError()

        async def fail() -> None:
            raise error

        throttler: Throttler[JobOf[object], object] = Throttler(
            [fail()], attempts=Attempts(retry_on=later)
        )
        await finish(throttler)
        assert failures(throttler)[0][1] is error
        assert not hasattr(error, "__notes__")

    async def test_a_group_of_such_errors(self) -> None:
        diary = Diary()
        groups = [ExceptionGroup("", [OSError(), OSError()]) for _ in range(2)]
        mixed = ExceptionGroup("", [OSError(), KeyError()])
        throttler = Throttler(
            [diary.job("a", errors=[*groups, mixed])], attempts=Attempts(retry_on=OSError)
        )
        await finish(throttler)
        assert diary.when("start") == [0, 1, 3]
        assert [error for _, error in failures(throttler)] == [mixed]


class TestAFunctionThatFails:
    @pytest.mark.parametrize(
        ("retry_on", "expected"),
        [
            (lambda error: 1 / 0, ZeroDivisionError),
            (lambda error: None, TypeError),
            (lambda error: -1, ValueError),
        ],
        ids=["raises", "None", "-1"],
    )
    async def test_that_is_the_job_s_error_and_the_others_go_on(
        self, retry_on: Callable[[Exception], Any], expected: type[Exception]
    ) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[OSError()]), diary.job("b", seconds=5), diary.job("c")]
        limiter = RateLimiter(concurrency=2)
        throttler = Throttler(
            jobs, diary.consumer(), limiter=limiter, attempts=Attempts(retry_on=retry_on)
        )
        await finish(throttler)
        ((job, error),) = failures(throttler)
        assert job is jobs[0]
        assert isinstance(error, expected)
        assert isinstance(error.__context__, OSError)
        assert sorted(diary.consumed, key=str) == ["b", "c"]
        assert limiter.statistics().borrowed_tokens == 0


class TestTimeout:
    async def test_an_attempt_that_takes_too_long_has_failed(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", seconds=9), diary.job("b", seconds=4.75)]
        throttler = Throttler(jobs, diary.consumer(), attempts=Attempts(timeout=5))
        statistics = await finish(throttler)
        assert anyio.current_time() == 5
        assert diary.who("cut off") == ["a"]
        assert diary.consumed == ["b"]
        outcome = throttler.exceptions.receive_nowait()
        assert outcome.item is jobs[0]
        assert isinstance(outcome.error, TimeoutError)
        assert (outcome.attempts, outcome.duration) == (1, 5)
        assert (statistics.done, statistics.failed) == (1, 1)

    async def test_it_frees_its_slot_and_the_others_go_on(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=1)
        jobs = [diary.job("a", seconds=9), diary.job("b", seconds=1)]
        throttler = Throttler(jobs, limiter=limiter, attempts=Attempts(timeout=5))
        await finish(throttler)
        assert diary.when("start") == [0, 5]
        assert len(failures(throttler)) == 1
        assert limiter.statistics().borrowed_tokens == 0

    async def test_it_may_be_worth_another_attempt(self) -> None:
        diary = Diary()
        pace = iter([9.0, 9.0, 1.0])

        async def job() -> object:
            diary.note("start", "a")
            await anyio.sleep(next(pace))
            return "a"

        throttler = Throttler(
            [job], diary.consumer(), attempts=Attempts(retry_on=TimeoutError, timeout=2)
        )
        await finish(throttler)
        assert diary.when("start") == [0, 3, 7]
        assert diary.consumed == ["a"]

    async def test_up_to_the_last_attempt(self) -> None:
        diary = Diary()
        job = diary.job("a", seconds=9)
        throttler = Throttler([job], attempts=Attempts(2, retry_on=TimeoutError, timeout=2))
        await finish(throttler)
        assert diary.when("start") == [0, 3]
        [(_, error)] = failures(throttler)
        assert error.__notes__ == ["It was the last of 2 attempts."]

    async def test_it_is_the_time_of_an_attempt_and_not_of_its_wait(self) -> None:
        diary = Diary()
        jobs = diary.jobs(3, seconds=4)
        throttler = Throttler(jobs, diary.consumer(), limiter="1/60s", attempts=Attempts(timeout=5))
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]

    async def test_the_consumer_may_take_longer(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(2), diary.consumer(50), attempts=Attempts(timeout=5)))
        assert diary.consumed == [0, 1]

    async def test_a_job_s_own_timeout_error_is_an_error_like_others(self) -> None:
        own = TimeoutError("mine")
        diary = Diary()
        jobs = [diary.job("a", errors=[own]), diary.job("b")]
        throttler = Throttler(jobs, diary.consumer(), attempts=Attempts(timeout=5))
        await finish(throttler)
        assert failures(throttler) == [(jobs[0], own)]
        assert diary.consumed == ["b"]

        again = Throttler([diary.job("c", errors=[own])], attempts=Attempts(retry_on=TimeoutError))
        assert (await finish(again)).retried == 1

    async def test_a_job_s_own_scope_that_times_out_inside(self) -> None:
        async def job() -> object:
            with anyio.move_on_after(1):
                await anyio.sleep(9)

            return "moved on"

        diary = Diary()
        await finish(Throttler([job], diary.consumer(), attempts=Attempts(timeout=5)))
        assert diary.consumed == ["moved on"]

    async def test_a_job_that_raises_something_else_when_it_is_cut_off(self) -> None:
        error = OSError("cut off")

        async def job() -> None:
            try:
                await anyio.sleep(9)
            except anyio.get_cancelled_exc_class():
                raise error from None

        throttler: Throttler[JobOf[object], object] = Throttler([job], attempts=Attempts(timeout=5))
        await finish(throttler)
        assert failures(throttler) == [(job, error)]

    async def test_a_job_that_is_throttled_when_it_is_cut_off(self) -> None:
        diary = Diary()

        async def job() -> object:
            diary.note("start", "a")
            try:
                await anyio.sleep(9 if len(diary.starts) < 2 else 0)
            except anyio.get_cancelled_exc_class():
                raise ThrottleException(retry_after=3) from None

            return "a"

        await finish(Throttler([job], diary.consumer(), attempts=Attempts(timeout=5)))
        assert diary.when("start") == [0, 8]
        assert diary.consumed == ["a"]

    async def test_the_run_s_cancellation_is_no_timeout(self) -> None:
        for instant in (2, 5):
            diary = Diary()
            jobs = diary.jobs(2, seconds=9)
            throttler = Throttler(jobs, attempts=Attempts(timeout=5))
            with anyio.move_on_after(instant) as scope:
                await throttler.run()

            assert scope.cancelled_caught
            failed = failures(throttler)
            # In the instant of both, each job goes one way.
            assert len(failed) + len(throttler.remaining()) == 2
            if instant == 2:
                assert failed == []

    async def test_an_awaitable(self) -> None:
        throttler: Throttler[JobOf[object], object] = Throttler(
            [anyio.sleep(9)], attempts=Attempts(retry_on=TimeoutError, timeout=5)
        )
        await finish(throttler)
        [(_, error)] = failures(throttler)
        assert isinstance(error, TimeoutError)
        assert "awaitable" in error.__notes__[0]

    async def test_stop_lets_it_run_into_its_timeout(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2, seconds=9), concurrency=1, attempts=Attempts(timeout=5))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(1)
            throttler.stop()

        assert anyio.current_time() == 5
        assert len(failures(throttler)) == 1
        assert len(throttler.remaining()) == 1


class TestStopAndCancel:
    async def test_stop_leaves_those_that_are_delayed(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[Later(50)]), diary.job("b", errors=[Later(30)])]
        jobs += [diary.job("c")]
        throttler = Throttler(jobs, diary.consumer(), attempts=Attempts(retry_on=later))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(5)
            assert throttler.remaining() == jobs[:2]
            assert throttler.statistics().delayed == 2
            throttler.stop()

        assert anyio.current_time() == 5
        assert throttler.remaining() == jobs[:2]
        assert throttler.statistics().delayed == 0
        assert throttler.statistics().queued == 2
        # The delay was of that run.
        await finish(throttler)
        assert diary.starts == ["a", "b", "c", "a", "b"]
        assert anyio.current_time() == 5
        assert diary.consumed == ["c", "a", "b"]

    async def test_stop_in_the_instant_that_it_is_due(self) -> None:
        diary = Diary()
        throttler = Throttler(
            [diary.job("a", errors=[Later(5)])], attempts=Attempts(retry_on=later)
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await wait_idle()
            await anyio.sleep(5)
            throttler.stop()

        assert len(diary.starts) + len(throttler.remaining()) == 2
        await finish(throttler)
        assert diary.starts == ["a", "a"]

    async def test_a_job_that_fails_after_stop_does_not_keep_the_run(self) -> None:
        diary = Diary()
        job = diary.job("a", seconds=5, errors=[Later(50)])
        throttler = Throttler([job], attempts=Attempts(retry_on=later))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(1)
            throttler.stop()

        assert anyio.current_time() == 5
        assert throttler.remaining() == [job]

    async def test_the_next_run_goes_on_with_those_delayed_when_it_was_cancelled(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[Later(50)]), diary.job("b", errors=[Later(30)])]
        jobs += [diary.job("c", seconds=9), diary.job("d", seconds=1)]
        throttler = Throttler(
            jobs, diary.consumer(), concurrency=3, attempts=Attempts(retry_on=later)
        )
        with anyio.move_on_after(3):
            await throttler.run()

        assert diary.consumed == ["d"]
        assert throttler.remaining() == jobs[:3]
        assert throttler.statistics().delayed == 0
        await finish(throttler)
        assert diary.starts == ["a", "b", "c", "d", "a", "b", "c"]
        assert sorted(diary.consumed, key=str) == ["a", "b", "c", "d"]
        assert anyio.current_time() == 12

    async def test_delayed_awaitables_do_not_exist(self) -> None:
        # So a cancelled run has none to give up.
        async def fail() -> None:
            raise Later(9)

        throttler: Throttler[JobOf[object], object] = Throttler(
            [fail(), anyio.sleep(9)], attempts=Attempts(retry_on=later)
        )
        with anyio.move_on_after(3):
            await throttler.run()

        assert len(failures(throttler)) == 2
        assert throttler.remaining() == []

    async def test_attempts_are_counted_over_runs(self) -> None:
        diary = Diary()
        job = diary.job("a", errors=[Later(50), Later(50), Later(50)])
        throttler = Throttler([job], attempts=Attempts(3, retry_on=later))
        for _ in range(2):
            with anyio.move_on_after(3):
                await throttler.run()

        await finish(throttler)
        assert len(diary.starts) == 3
        assert throttler.exceptions.receive_nowait().attempts == 3

    async def test_remaining_is_in_the_order_given(self) -> None:
        diary = Diary()
        errors: list[Iterable[BaseException]] = [[], [Later(90)], [], [Later(50)], []]
        jobs = [diary.job(n, seconds=2, errors=each) for n, each in enumerate(errors)]
        throttler = Throttler(
            jobs, limiter="4/9s", concurrency=4, attempts=Attempts(retry_on=later)
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(1)
            assert throttler.remaining() == jobs
            await anyio.sleep(2)
            assert throttler.remaining() == [jobs[1], jobs[3], jobs[4]]
            throttler.stop()


class TestEvents:
    async def test_an_observer_is_told_of_each_retry(self) -> None:
        diary = Diary()
        errors = [Later(5), Later(2)]
        job = diary.job("a", seconds=1, errors=errors)
        events: list[Event] = []
        throttler = Throttler(
            [diary.job("b"), job], attempts=Attempts(retry_on=later), observer=events.append
        )
        await finish(throttler)
        assert [event for event in events if isinstance(event, Retried)] == [
            Retried(1, job, 1, 5, errors[0]),
            Retried(1, job, 2, 2, errors[1]),
        ]
        kinds = [type(event).__name__ for event in events if event.index == 1]  # type: ignore[union-attr]
        assert kinds == ["Started", "Retried", "Started", "Retried", "Started", "Finished"]

    async def test_after_the_change(self) -> None:
        seen: list[tuple[int, int, int]] = []

        def observe(event: Event) -> None:
            if isinstance(event, Retried):
                statistics = throttler.statistics()
                seen.append((statistics.delayed, statistics.running, statistics.retried))

        job = Diary().job("a", errors=[Later(5)])
        throttler = Throttler([job], attempts=Attempts(retry_on=later), observer=observe)
        await finish(throttler)
        assert seen == [(1, 0, 1)]

    async def test_a_last_attempt_is_no_retry(self) -> None:
        events: list[Event] = []
        job = Diary().job("a", errors=[Later(5)])
        throttler = Throttler([job], attempts=Attempts(1, retry_on=later), observer=events.append)
        await finish(throttler)
        failures(throttler)
        assert [type(event).__name__ for event in events] == ["Started", "Failed"]

    async def test_the_wait_in_line_does_not_count_the_delay(self) -> None:
        events: list[Event] = []
        job = Diary().job("a", errors=[Later(5)])
        await finish(
            Throttler(
                [job], limiter="1/8s", attempts=Attempts(retry_on=later), observer=events.append
            )
        )
        waited = [event.waited for event in events if isinstance(event, Started)]
        assert waited == [0, 3]


class TestMapping:
    @staticmethod
    def calls(plans: dict[str, list[BaseException | float]]) -> Callable[[str], Awaitable[str]]:
        """Return a function that raises, or takes its time, as planned for an item's calls."""

        async def call(item: str) -> str:
            plan = plans[item].pop(0)
            if isinstance(plan, BaseException):
                raise plan

            await anyio.sleep(plan)
            return item

        return call

    async def test_outcomes_of_calls_that_went_again(self) -> None:
        plans: dict[str, list[BaseException | float]] = {
            "a": [Later(5), 1],
            "b": [2],
            "c": [Later(1), KeyError()],
        }
        async with amap_outcomes(
            self.calls(plans), plans, attempts=Attempts(retry_on=later)
        ) as outcomes:
            found = [(each.item, each.attempts, anyio.current_time()) async for each in outcomes]

        assert found == [("c", 2, 1), ("b", 1, 2), ("a", 2, 6)]

    async def test_in_order(self) -> None:
        plans: dict[str, list[BaseException | float]] = {"a": [Later(5), 1], "b": [2], "c": [0]}
        call = self.calls(plans)
        async with amap_outcomes(
            call, plans, ordered=True, concurrency=1, attempts=Attempts(retry_on=later)
        ) as outcomes:
            found = [(outcome.item, anyio.current_time()) async for outcome in outcomes]

        assert found == [("a", 6), ("b", 6), ("c", 6)]

    async def test_timeouts(self) -> None:
        plans: dict[str, list[BaseException | float]] = {"a": [9, 1], "b": [9, 9], "c": [1]}
        call = self.calls(plans)
        found: dict[str, tuple[int, type[BaseException] | None]] = {}
        async with amap_outcomes(
            call, plans, attempts=Attempts(2, retry_on=TimeoutError, timeout=3)
        ) as outcomes:
            async for outcome in outcomes:
                error = None if outcome.error is None else type(outcome.error)
                found[outcome.item] = (outcome.attempts, error)

        assert found == {"a": (2, None), "b": (2, TimeoutError), "c": (1, None)}

    async def test_leaving_while_calls_are_delayed(self) -> None:
        plans: dict[str, list[BaseException | float]] = {"a": [Later(50), 1], "b": [1]}
        async with amap_outcomes(
            self.calls(plans), plans, attempts=Attempts(retry_on=later)
        ) as outcomes:
            async for outcome in outcomes:
                assert outcome.item == "b"
                break

        assert anyio.current_time() == 1
        assert plans == {"a": [1], "b": []}

    async def test_an_error_of_the_function_is_that_of_the_call(self) -> None:
        plans: dict[str, list[BaseException | float]] = {"a": [OSError()], "b": [9]}
        call = self.calls(plans)
        async with amap_outcomes(
            call, plans, attempts=Attempts(retry_on=lambda error: 1 / 0)
        ) as outcomes:
            found = [outcome async for outcome in outcomes]

        assert [outcome.item for outcome in found] == ["a", "b"]
        assert isinstance(found[0].error, ZeroDivisionError)
        plans = {"a": [OSError()], "b": [9]}
        with pytest.raises(ZeroDivisionError):
            await amap(self.calls(plans), plans, attempts=Attempts(retry_on=lambda error: 1 / 0))

    async def test_amap_waits_for_those_that_are_delayed(self) -> None:
        plans: dict[str, list[BaseException | float]] = {"a": [Later(5), 1], "b": [2]}
        assert await amap(self.calls(plans), plans, attempts=Attempts(retry_on=later)) == ["a", "b"]
        assert anyio.current_time() == 6

    async def test_amap_ends_with_the_last_attempt(self) -> None:
        errors = [Later(5), Later(5)]
        plans: dict[str, list[BaseException | float]] = {"a": [*errors], "b": [90]}
        with pytest.raises(Later) as caught:
            await amap(self.calls(plans), plans, attempts=Attempts(2, retry_on=later))

        assert caught.value is errors[1]
        assert anyio.current_time() == 5

    async def test_first_takes_who_is_first_in_the_end(self) -> None:
        plans: dict[str, list[BaseException | float]] = {"a": [Later(5), 1], "b": [9]}
        outcome = await first(self.calls(plans), plans, attempts=Attempts(retry_on=later))
        assert (outcome.item, outcome.attempts) == ("a", 2)
        assert anyio.current_time() == 6
