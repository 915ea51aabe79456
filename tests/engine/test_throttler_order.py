"""The throttler's promises on order and throttling: T1, T3 and T4."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf

import anyio
import pytest

from anythrottle import Attempts, RateLimiter, ThrottleException, Throttler, WindowTokenBucket
from anythrottle.testing import wait_idle
from tests.engine.diary import Diary, failures, finish

pytestmark = pytest.mark.timing


@pytest.mark.promise("T1")
class TestT1Order:
    @pytest.mark.parametrize("concurrency", [1, 3, 10])
    async def test_jobs_start_in_the_order_given(self, concurrency: int) -> None:
        diary = Diary()
        jobs = [diary.job(n, seconds=(7 * n) % 5) for n in range(30)]
        await finish(Throttler(jobs, concurrency=concurrency))
        assert diary.starts == list(range(30))

    @pytest.mark.parametrize("limiter", ["3/10s", "100/s"])
    async def test_in_order_without_concurrency(self, limiter: str) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(20, seconds=1), limiter=limiter))
        assert diary.starts == list(range(20))

    @pytest.mark.parametrize("seconds", [None, 1])
    async def test_every_job_throttled_at_once_restarts_in_its_original_order(
        self, seconds: float | None
    ) -> None:
        diary = Diary()
        jobs = [
            # All are under way when the first is throttled.
            diary.job(n, seconds=seconds, errors=[ThrottleException(retry_after=30)])
            for n in range(6)
        ]
        throttler = Throttler(jobs, diary.consumer(), limiter=RateLimiter(concurrency=6))
        await finish(throttler)
        if seconds is None:
            # Each is throttled before the next could start.
            assert diary.starts == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        else:
            assert diary.starts == [0, 1, 2, 3, 4, 5] * 2

        assert sorted(diary.consumed, key=str) == [0, 1, 2, 3, 4, 5]

    async def test_whatever_the_order_in_which_they_are_thrown_back(self) -> None:
        diary = Diary()
        throw_back_after = [3, 1, 2, 5, 4]
        jobs = [
            diary.job(n, seconds=seconds, errors=[ThrottleException(retry_after=10)])
            for n, seconds in enumerate(throw_back_after)
        ]
        throttler = Throttler([*jobs, diary.job("later")], concurrency=5)
        await finish(throttler)
        assert diary.who("raise") == [1, 2, 0, 4, 3]
        assert diary.starts == [0, 1, 2, 3, 4] * 2 + ["later"]

    async def test_thrown_back_again_and_again(self) -> None:
        diary = Diary()
        jobs = [
            diary.job(n, seconds=1, errors=[ThrottleException(retry_after=10)] * (3 - n))
            for n in range(3)
        ]
        await finish(Throttler([*jobs, diary.job("later")], concurrency=3))
        assert diary.starts[:3] == [0, 1, 2]
        assert diary.starts[3:6] == [0, 1, 2]
        # One at a time may now go on to what comes later.
        firsts = {name: diary.starts.index(name) for name in diary.starts}
        assert firsts["later"] > 5

    async def test_at_most_one_task_in_the_limiter_s_line(self) -> None:
        diary = Diary()
        limiter = RateLimiter("2/10s", concurrency=1)
        throttler = Throttler(diary.jobs(12, seconds=1), limiter=limiter, concurrency=5)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            waiting = set()
            for _ in range(100):
                await anyio.sleep(0.5)
                waiting.add(limiter.statistics().tasks_waiting)

        assert waiting == {0, 1}


@pytest.mark.promise("T3")
class TestT3PickedLate:
    async def test_an_idle_throttler_holds_nothing_of_a_shared_limiter(self) -> None:
        limiter = RateLimiter("1/10s", concurrency=1)
        send, receive = anyio.create_memory_object_stream[Callable[[], Awaitable[object]]](1)
        with send, receive:
            async with anyio.create_task_group() as task_group:
                throttler = Throttler(receive, limiter=limiter, concurrency=4)
                task_group.start_soon(throttler.run)
                await wait_idle()
                statistics = limiter.statistics()
                assert (statistics.borrowed_tokens, statistics.tasks_waiting) == (0, 0)
                assert limiter.peek().allowed
                async with limiter:
                    assert anyio.current_time() == 0

                send.close()

    async def test_nor_when_it_has_had_some_jobs(self) -> None:
        diary = Diary()
        limiter = RateLimiter("5/10s", concurrency=1)
        send, receive = anyio.create_memory_object_stream[Callable[[], Awaitable[object]]](3)
        with send, receive:
            async with anyio.create_task_group() as task_group:
                throttler = Throttler(receive, limiter=limiter, concurrency=4)
                task_group.start_soon(throttler.run)
                for job in diary.jobs(3, seconds=1):
                    send.send_nowait(job)

                await anyio.sleep(5)
                assert diary.who("end") == [0, 1, 2]
                assert limiter.statistics().borrowed_tokens == 0
                assert limiter.peek().remaining == 2
                send.close()

    async def test_nothing_is_charged_for_a_run_without_jobs(self) -> None:
        limiter = RateLimiter("1/10s", concurrency=1)
        await finish(Throttler([], limiter=limiter))
        assert limiter.peek().allowed

    async def test_the_job_that_is_frontmost_when_the_turn_comes(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(3), diary.consumer(), limiter="1/10s")
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(5)
            throttler.add(diary.job("added while the next waited"))

        assert diary.starts == [0, "added while the next waited", 1, 2]

    async def test_a_throttled_job_overtakes_the_one_that_waits_for_a_turn(self) -> None:
        diary = Diary()
        slow = diary.job(0, seconds=5, errors=[ThrottleException(retry_after=0)])
        throttler = Throttler([slow, diary.job(1), diary.job(2)], limiter="1/10s")
        await finish(throttler)
        assert diary.starts == [0, 0, 1, 2]
        assert diary.when("start") == [0, 10, 20, 30]

    async def test_once_a_pause_has_begun_nothing_starts(self) -> None:
        diary = Diary()
        jobs = [diary.job(0, errors=[ThrottleException(retry_after=50)]), *diary.jobs(10)]
        # A job of the same batch would start at once if it could.
        await finish(Throttler(jobs, per_time_window=100, concurrency=10))
        assert diary.when("start")[0] == 0
        assert diary.when("start")[1] == 50

    async def test_a_pause_from_outside_counts_too(self) -> None:
        diary = Diary()
        limiter = RateLimiter("1/10s")
        throttler = Throttler(diary.jobs(3), limiter=limiter)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(9)
            limiter.pause(100)

        assert diary.when("start") == [0, 109, 119]


@pytest.mark.promise("T4")
class TestT4Throttled:
    async def test_the_default_pause_is_the_time_window(self) -> None:
        diary = Diary()
        job = diary.job(0, errors=[ThrottleException()])
        await finish(Throttler([job], time_window=7, per_time_window=5))
        assert diary.when("start") == [0, 7]

    async def test_with_a_limiter_it_is_the_limiter_s_own(self) -> None:
        diary = Diary()
        job = diary.job(0, errors=[ThrottleException()])
        limiter = RateLimiter("100/4s")
        await finish(Throttler([job], limiter=limiter))
        assert diary.when("start") == [0, 4]

    @pytest.mark.parametrize("retry_after", [0, 0.5, 12, 300])
    async def test_retry_after(self, retry_after: float) -> None:
        diary = Diary()
        job = diary.job(0, errors=[ThrottleException(retry_after=retry_after)])
        await finish(Throttler([job], time_window=7, per_time_window=5))
        assert diary.when("start") == [0, retry_after]

    async def test_the_whole_limiter_pauses(self) -> None:
        diary = Diary()
        limiter = RateLimiter("100/s")
        other = Throttler(
            [diary.job("other", seconds=1), diary.job("other too")], limiter=limiter, concurrency=1
        )
        throttled = Throttler(
            [diary.job("throttled", errors=[ThrottleException(retry_after=20)])], limiter=limiter
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, other)
            await anyio.sleep(0.5)
            task_group.start_soon(finish, throttled)

        assert ("start", "other too", 20.5) in diary.entries
        assert limiter.statistics().paused_for == 0

    async def test_the_replacement_runs_instead_in_its_place(self) -> None:
        diary = Diary()
        replacement = diary.job("replacement")
        bad = diary.job("bad", errors=[ThrottleException(replacement, retry_after=5)])
        throttler = Throttler([bad, diary.job("later")], diary.consumer(), concurrency=1)
        await finish(throttler)
        assert diary.starts == ["bad", "replacement", "later"]
        assert diary.consumed == ["replacement", "later"]

    async def test_a_replacement_that_is_a_coroutine(self) -> None:
        diary = Diary()
        replacement = diary.job("replacement")()
        bad = diary.job("bad", errors=[ThrottleException(replacement, retry_after=5)])
        await finish(Throttler([bad], diary.consumer()))
        assert diary.consumed == ["replacement"]

    async def test_replacements_of_replacements(self) -> None:
        diary = Diary()
        third = diary.job("third")
        second = diary.job("second", errors=[ThrottleException(third, retry_after=1)])
        first = diary.job("first", errors=[ThrottleException(second, retry_after=1)])
        statistics = await finish(Throttler([first], diary.consumer()))
        assert diary.consumed == ["third"]
        assert (statistics.started, statistics.throttled, statistics.done) == (3, 2, 1)

    async def test_running_jobs_go_on_during_the_pause(self) -> None:
        diary = Diary()
        jobs = [
            diary.job("long", seconds=10),
            diary.job("bad", seconds=2, errors=[ThrottleException(retry_after=100)]),
            diary.job("later"),
        ]
        await finish(Throttler(jobs, diary.consumer(), concurrency=2))
        assert ("end", "long", 10.0) in diary.entries
        assert ("start", "bad", 102.0) in diary.entries

    async def test_the_slot_is_free_during_the_pause(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=1)
        job = diary.job(0, errors=[ThrottleException(retry_after=100)])
        throttler = Throttler([job], limiter=limiter)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(50)
            assert limiter.statistics().borrowed_tokens == 0
            assert throttler.statistics().running == 0

    async def test_the_pause_begins_before_the_slot_is_freed(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=1)
        job = diary.job("bad", seconds=1, errors=[ThrottleException(retry_after=100)])
        throttler = Throttler([job], limiter=limiter)

        async def wait_for_the_slot() -> None:
            async with limiter:
                diary.note("start", "other")

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(0.5)
            task_group.start_soon(wait_for_the_slot)

        assert diary.when("start")[1] >= 101
        assert [
            name for name, at in zip(diary.starts, diary.when("start"), strict=True) if at
        ] != []

    async def test_max_throttles(self) -> None:
        diary = Diary()
        last = ThrottleException(retry_after=3)
        errors = [ThrottleException(retry_after=1), ThrottleException(retry_after=2), last]
        bad = diary.job("bad", errors=errors)
        throttler = Throttler(
            [bad, diary.job("later")], diary.consumer(), attempts=Attempts(max_throttles=3)
        )
        statistics = await finish(throttler)
        assert diary.starts == ["bad", "bad", "bad", "later"]
        assert diary.when("start") == [0, 1, 3, 6]
        outcome = throttler.exceptions.receive_nowait()
        assert outcome.error is last
        assert outcome.attempts == 3
        assert last.__notes__ == ["It was throttled 3 times; the last retry_after was 3 s."]
        assert (statistics.throttled, statistics.failed, statistics.done) == (2, 1, 1)

    async def test_max_throttles_of_one(self) -> None:
        diary = Diary()
        throttler = Throttler(
            [diary.job(0, errors=[ThrottleException()])], attempts=Attempts(max_throttles=1)
        )
        assert (await finish(throttler)).failed == 1
        assert diary.starts == [0]

    async def test_max_throttles_counts_replacements_as_the_same_job(self) -> None:
        diary = Diary()
        last = diary.job("last")()
        second = diary.job("second", errors=[ThrottleException(last, retry_after=0)])
        first = diary.job("first", errors=[ThrottleException(second, retry_after=0)])
        throttler = Throttler([first], attempts=Attempts(max_throttles=2))
        await finish(throttler)
        assert diary.starts == ["first", "second"]
        assert inspect.getcoroutinestate(last) == inspect.CORO_CLOSED  # type: ignore[arg-type]
        gc.collect()

    async def test_without_max_throttles_it_may_bounce_for_ever(self) -> None:
        diary = Diary()
        bad = diary.job("bad", errors=[ThrottleException(retry_after=1)] * 200)
        await finish(Throttler([bad], diary.consumer()))
        assert len(diary.starts) == 201
        assert diary.consumed == ["bad"]

    async def test_an_awaitable_that_throttles_cannot_run_again(self) -> None:
        diary = Diary()
        signal = ThrottleException(retry_after=20)
        coroutine = diary.job("bad", errors=[signal])()
        throttler = Throttler([coroutine, diary.job("later")], diary.consumer(), concurrency=1)
        await finish(throttler)
        ((item, error),) = failures(throttler)
        assert item is coroutine
        assert error is signal
        assert "callable" in signal.__notes__[0]
        assert "task=" in signal.__notes__[0]
        # But it pauses.
        assert diary.when("start") == [0, 20]

    async def test_an_awaitable_that_throttles_with_a_task_can(self) -> None:
        diary = Diary()
        signal = ThrottleException(diary.job("again"), retry_after=20)
        throttler = Throttler([diary.job("bad", errors=[signal])()], diary.consumer())
        await finish(throttler)
        assert diary.consumed == ["again"]

    async def test_overlapping_pauses_keep_the_later_end(self) -> None:
        diary = Diary()
        jobs = [
            diary.job(0, seconds=1, errors=[ThrottleException(retry_after=50)]),
            diary.job(1, seconds=2, errors=[ThrottleException(retry_after=5)]),
        ]
        await finish(Throttler(jobs, concurrency=2))
        assert diary.when("start") == [0, 0, 51, 51]


@pytest.mark.promise("T4")
class TestT4Groups:
    async def test_a_pure_group_is_one_throttle(self) -> None:
        diary = Diary()
        first, second = diary.job("first"), diary.job("second")
        group = ExceptionGroup(
            "",
            [
                ThrottleException(retry_after=3),
                ExceptionGroup("", [ThrottleException(first, retry_after=9)]),
                ThrottleException(second, retry_after=5),
            ],
        )
        throttler = Throttler([diary.job("bad", errors=[group])], diary.consumer())
        statistics = await finish(throttler)
        assert diary.consumed == ["first"]
        assert diary.when("start") == [0, 9]
        assert statistics.throttled == 1

    async def test_of_a_task_group_of_the_job_s_own(self) -> None:
        attempts = 0

        async def part() -> None:
            if attempts == 1:
                raise ThrottleException(retry_after=10)

        async def job() -> str:
            nonlocal attempts
            attempts += 1
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(part)
                task_group.start_soon(part)

            return "whole"

        diary = Diary()
        await finish(Throttler([job], diary.consumer()))
        assert diary.consumed == ["whole"]
        assert anyio.current_time() == 10

    async def test_a_mixed_group_is_an_error_but_pauses_too(self) -> None:
        diary = Diary()
        group = ExceptionGroup("", [ValueError(), ThrottleException(retry_after=9)])
        throttler = Throttler(
            [diary.job("bad", errors=[group]), diary.job("later")], diary.consumer(), concurrency=1
        )
        await finish(throttler)
        assert [error for _, error in failures(throttler)] == [group]
        assert diary.consumed == ["later"]
        assert diary.when("start") == [0, 9]

    async def test_a_group_without_throttles_is_an_error_and_no_pause(self) -> None:
        diary = Diary()
        group = ExceptionGroup("", [ValueError(), KeyError()])
        throttler = Throttler([diary.job(0, errors=[group]), diary.job(1)])
        await finish(throttler)
        assert [error for _, error in failures(throttler)] == [group]
        assert anyio.current_time() == 0

    async def test_the_coroutines_that_are_not_taken_are_closed(self) -> None:
        diary = Diary()
        taken, not_taken = diary.job("taken")(), diary.job("not taken")()
        group = ExceptionGroup(
            "", [ThrottleException(taken, retry_after=0), ThrottleException(not_taken)]
        )
        await finish(Throttler([diary.job("bad", errors=[group])], diary.consumer()))
        assert diary.consumed == ["taken"]
        assert inspect.getcoroutinestate(not_taken) == inspect.CORO_CLOSED  # type: ignore[arg-type]

    async def test_nor_is_that_of_a_mixed_group(self) -> None:
        diary = Diary()
        task = diary.job("not taken")()
        group = ExceptionGroup("", [ThrottleException(task, retry_after=0), ValueError()])
        throttler = Throttler([diary.job("bad", errors=[group])])
        await finish(throttler)
        assert len(failures(throttler)) == 1
        assert inspect.getcoroutinestate(task) == inspect.CORO_CLOSED  # type: ignore[arg-type]


class TestPauseWithoutEnd:
    async def test_resume_from_outside(self) -> None:
        diary = Diary()
        limiter = RateLimiter(WindowTokenBucket(5, 10))
        job = diary.job(0, errors=[ThrottleException(retry_after=inf)])
        throttler = Throttler([job], limiter=limiter)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(partial(finish, throttler))
            await anyio.sleep(100)
            limiter.resume()

        assert diary.when("start") == [0, 100]
