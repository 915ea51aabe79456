"""What the throttler tells of itself while it runs, before, afterwards, and out of a loop."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sized
from math import inf
from typing import Any

import anyio
import anyio.to_thread
import pytest

from anythrottle import Attempts, RateLimiter, ThrottleException, Throttler, ThrottlerStatistics
from anythrottle._jobs import JobOf
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.engine.diary import Diary, Job, failures, finish
from tests.engine.mine import Mine
from tests.stopwatch import ROUNDING, RealTime

pytestmark = pytest.mark.timing


class Pool(Sized):
    """An iterable that knows its length and is no sequence."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)


class Samples:
    """The statistics of a run, at chosen instants."""

    def __init__(self, throttler: Throttler[JobOf[object], object]) -> None:
        self.throttler = throttler

    async def at(self, *instants: float) -> list[ThrottlerStatistics]:
        """Run the throttler to its end, and sample it when all that was due has happened."""
        start = anyio.current_time()
        found: list[ThrottlerStatistics] = []
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, self.throttler)
            for instant in instants:
                await anyio.sleep(start + instant - anyio.current_time())
                await wait_idle()
                found.append(self.throttler.statistics())

        return found


def delayed_by(seconds: float) -> Callable[[Exception], bool | float]:
    return lambda error: seconds if isinstance(error, OSError) else False


class TestQueued:
    async def test_a_sequence_knows_from_the_begin_how_many_it_has(self) -> None:
        throttler = Throttler(Diary().jobs(5, seconds=1), concurrency=2)
        assert throttler.statistics().queued == 5
        samples = await Samples(throttler).at(0, 0.5, 1, 2, 3)
        assert [each.queued for each in samples] == [3, 3, 1, 0, 0]
        assert [each.running for each in samples] == [2, 2, 2, 1, 0]

    async def test_what_else_knows_its_length_does_too(self) -> None:
        throttler = Throttler(Pool(Diary().jobs(5, seconds=1)), concurrency=2)
        assert throttler.statistics().queued == 5
        samples = await Samples(throttler).at(0, 1, 2, 3)
        assert [each.queued for each in samples] == [3, 1, 0, 0]

    async def test_a_generator_cannot_tell_until_its_end(self) -> None:
        jobs = Diary().jobs(5, seconds=1)
        throttler = Throttler((job for job in jobs), limiter=RateLimiter(concurrency=2))
        assert throttler.statistics().queued is None
        samples = await Samples(throttler).at(0, 1, 2, 3)
        assert [each.queued for each in samples] == [None, None, 0, 0]
        assert throttler.statistics().queued == 0

    async def test_nor_can_an_async_generator(self) -> None:
        diary = Diary()

        async def generate() -> AsyncGenerator[Job]:
            for job in diary.jobs(3, seconds=10):
                await anyio.sleep(1)
                yield job

        samples = await Samples(Throttler(generate())).at(0, 1, 3, 4)
        assert [each.queued for each in samples] == [None, None, 0, 0]
        assert [each.running for each in samples] == [0, 1, 3, 3]

    async def test_after_the_end_of_the_source_there_are_those_that_were_put_back(self) -> None:
        diary = Diary()
        error = ThrottleException(retry_after=5)
        jobs = [diary.job(n, seconds=1, errors=[error]) for n in range(3)]
        throttler = Throttler(iter(jobs), concurrency=3)
        samples = await Samples(throttler).at(0, 2, 7)
        assert [each.queued for each in samples] == [0, 3, 0]
        assert [each.running for each in samples] == [3, 0, 0]
        assert [each.throttled for each in samples] == [0, 3, 3]

    async def test_added_jobs_count(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2))
        throttler.add(diary.job("a"))
        throttler.add(diary.job("b"), front=True)
        assert throttler.statistics().queued == 4
        await finish(throttler)
        assert throttler.statistics().queued == 0

    async def test_those_left_by_a_cancelled_run_count(self) -> None:
        throttler = Throttler(Diary().jobs(5, seconds=3), concurrency=2)
        with anyio.move_on_after(1):
            await throttler.run()

        statistics = throttler.statistics()
        assert (statistics.queued, statistics.running) == (5, 0)
        assert len(throttler.remaining()) == 5

    async def test_an_item_pulled_ahead_counts_once(self) -> None:
        throttler = Throttler(Pool(Diary().jobs(4, seconds=3)), limiter="1/10s")
        [sample] = await Samples(throttler).at(5)
        assert sample.queued == 3


class TestDelayedAndRetried:
    async def test_delayed_jobs_are_not_queued(self) -> None:
        diary = Diary()
        jobs = [diary.job(n, seconds=1, errors=[OSError()]) for n in range(3)]
        throttler = Throttler(jobs, attempts=Attempts(retry_on=delayed_by(5)))
        samples = await Samples(throttler).at(0, 1, 5, 6, 7)
        assert [each.delayed for each in samples] == [0, 3, 3, 0, 0]
        assert [each.queued for each in samples] == [0, 0, 0, 0, 0]
        assert [each.running for each in samples] == [3, 0, 0, 3, 0]
        assert [each.retried for each in samples] == [0, 3, 3, 3, 3]
        assert [each.done for each in samples] == [0, 0, 0, 0, 3]

    async def test_who_is_due_and_finds_no_slot_waits(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[OSError()]), diary.job("b", seconds=10)]
        throttler = Throttler(jobs, concurrency=1, attempts=Attempts(retry_on=delayed_by(5)))
        samples = await Samples(throttler).at(4, 6, 10)
        assert [each.delayed + (each.queued or 0) for each in samples] == [1, 1, 0]
        assert samples[0].delayed == 1

    async def test_each_retry_counts(self) -> None:
        job = Diary().job("a", errors=[OSError(), OSError(), KeyError()])
        throttler = Throttler([job], attempts=Attempts(retry_on=delayed_by(0)))
        await finish(throttler)
        failures(throttler)
        statistics = throttler.statistics()
        assert statistics == ThrottlerStatistics(3, 0, 0, 1, 0, retried=2, delayed=0)


class TestPerSecond:
    async def test_a_steady_run(self) -> None:
        throttler = Throttler(Diary().jobs(60, seconds=0.5), concurrency=1)
        samples = await Samples(throttler).at(0, 1, 5, 15, 30)
        assert [each.per_second for each in samples] == [0, 2, 2, 2, 2]

    async def test_it_decays_when_nothing_ends(self) -> None:
        diary = Diary()
        jobs = [*diary.jobs(10, seconds=1), diary.job("long", seconds=30)]
        samples = await Samples(Throttler(jobs, concurrency=1)).at(10, 12, 15, 20, 30)
        assert [each.per_second for each in samples] == [1, 10 / 12, 10 / 15, 10 / 20, 10 / 30]

    async def test_and_after_the_run(self) -> None:
        throttler = Throttler(Diary().jobs(10, seconds=1), concurrency=1)
        statistics = await finish(throttler)
        assert statistics.per_second == 1
        await anyio.sleep(5)
        assert throttler.statistics().per_second == 10 / 15
        await anyio.sleep(5)
        assert throttler.statistics().per_second == 10 / 20

    async def test_failures_end_too_and_throttles_and_retries_do_not(self) -> None:
        diary = Diary()
        jobs = [
            diary.job("a", errors=[KeyError()]),
            diary.job("b"),
            diary.job("c", errors=[OSError()]),
            diary.job("d", errors=[ThrottleException(retry_after=100)]),
        ]
        jobs = [diary.job("first", seconds=1), *jobs]
        throttler = Throttler(jobs, concurrency=1, attempts=Attempts(retry_on=delayed_by(50)))
        [sample] = await Samples(throttler).at(2)
        failures(throttler)
        assert (sample.done, sample.failed, sample.retried, sample.throttled) == (2, 1, 1, 1)
        assert sample.per_second == 3 / 2

    async def test_each_run_begins_anew(self) -> None:
        throttler = Throttler(Diary().jobs(4, seconds=1), concurrency=1)
        with anyio.move_on_after(2.5):
            await throttler.run()

        assert throttler.statistics().per_second == 2 / 2.5
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(0.5)
            assert throttler.statistics().per_second == 0
            await anyio.sleep(0.5)
            await wait_idle()
            assert throttler.statistics().per_second == 1

    async def test_results_that_wait_for_the_consumer_have_ended(self) -> None:
        diary = Diary()
        jobs = diary.jobs(2, seconds=1)
        throttler = Throttler(jobs, diary.consumer(100), concurrency=2)
        [sample] = await Samples(throttler).at(2)
        assert (sample.done, sample.per_second) == (0, 1)

    def test_a_later_run_on_another_clock_is_not_taken_for_the_same(
        self, run: Run, real_time: RealTime
    ) -> None:
        throttler = Throttler(Diary().jobs(20, seconds=5), limiter=RateLimiter())

        async def late() -> None:
            await anyio.sleep(3)
            await throttler.run()

        async def ask(seconds: float) -> ThrottlerStatistics:
            await anyio.sleep(seconds)
            return throttler.statistics()

        run(late)
        # Its clock begins at 0 again. In reality, no time has passed until the question: the 20
        # jobs of the other run, which took 5 seconds, ended just now.
        statistics = run(ask, 4)
        assert statistics.per_second == pytest.approx(4)


class TestPausedFor:
    async def test_how_long_the_pause_still_lasts(self) -> None:
        await anyio.sleep(1000)
        diary = Diary()
        job = diary.job("a", seconds=1, errors=[ThrottleException(retry_after=20)])
        samples = await Samples(Throttler([job])).at(0, 1, 15, 21)
        assert [each.paused_for for each in samples] == [0, 20, 6, 0]

    async def test_a_pause_without_end(self) -> None:
        limiter = RateLimiter("9/s")
        throttler = Throttler(Diary().jobs(2), limiter=limiter)
        async with anyio.create_task_group() as task_group:
            limiter.pause(inf)
            task_group.start_soon(finish, throttler)
            await wait_idle()
            statistics = throttler.statistics()
            assert statistics.paused_for == inf
            assert statistics.expected_in is None
            limiter.resume()

        assert throttler.statistics().paused_for == 0

    async def test_a_pause_that_began_before_the_first_run(self) -> None:
        await anyio.sleep(1000)
        limiter = RateLimiter("9/s")
        limiter.pause(20)
        throttler = Throttler(Diary().jobs(2), limiter=limiter)
        assert throttler.statistics().paused_for == 20

    async def test_a_limiter_of_one_s_own_cannot_tell(self) -> None:
        limiter: Any = Mine(RateLimiter("9/s"))
        limiter.pause(5)
        throttler = Throttler(Diary().jobs(2), limiter=limiter)
        [sample] = await Samples(throttler).at(1)
        assert sample.paused_for == 0
        assert sample.running == sample.done == 0


class TestExpectedIn:
    async def test_what_is_left_at_this_pace(self) -> None:
        throttler = Throttler(Diary().jobs(100, seconds=0.5), concurrency=1)
        samples = await Samples(throttler).at(0.25, 1, 10, 40)
        assert [each.expected_in for each in samples] == [None, 49, 40, 10]

    async def test_of_slow_jobs(self) -> None:
        throttler = Throttler(Diary().jobs(20, seconds=60), concurrency=2)
        samples = await Samples(throttler).at(59, 60, 300, 359, 540)
        expected = [each.expected_in for each in samples]
        assert expected[0] is None
        # Two a minute: ten minutes. Just before two more end, eleven.
        assert expected[1:] == pytest.approx([540, 300, 10 * 359 / 10, 60])

    async def test_with_a_window(self) -> None:
        throttler = Throttler(Diary().jobs(50), limiter="10/10s", concurrency=1)
        samples = await Samples(throttler).at(15)
        assert samples[0].done == 20
        assert samples[0].expected_in == pytest.approx(30, abs=6)

    async def test_delayed_jobs_are_left_too(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[OSError()]), *diary.jobs(3, seconds=1)]
        throttler = Throttler(jobs, concurrency=1, attempts=Attempts(retry_on=delayed_by(50)))
        [sample] = await Samples(throttler).at(2)
        # Two ended, one runs, one is delayed.
        assert (sample.delayed, sample.running, sample.queued) == (1, 1, 0)
        assert sample.expected_in == 2

    async def test_the_pause_comes_first(self) -> None:
        diary = Diary()
        jobs = diary.jobs(2, seconds=1)
        jobs += [diary.job("a", errors=[ThrottleException(retry_after=30)]), diary.job("b")]
        [sample] = await Samples(Throttler(jobs, concurrency=1)).at(2)
        assert sample.expected_in == 30 + 2

    async def test_it_is_now_when_nothing_is_left(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2, seconds=1))
        statistics = await finish(throttler)
        assert statistics.expected_in == 0
        await anyio.sleep(5)
        assert throttler.statistics().expected_in == 0

    async def test_who_cannot_tell_what_is_left_cannot_tell_the_end(self) -> None:
        jobs = Diary().jobs(4, seconds=1)
        samples = await Samples(Throttler(iter(jobs), concurrency=1)).at(1, 2, 3)
        assert [each.expected_in for each in samples] == [None, None, 1]

    async def test_before_the_first_run(self) -> None:
        assert Throttler(Diary().jobs(4)).statistics().expected_in is None
        await anyio.sleep(1000)
        assert Throttler([]).statistics().expected_in == 0


class TestOutsideOfAnEventLoop:
    def test_before_any_run(self) -> None:
        throttler = Throttler(Diary().jobs(3))
        statistics = throttler.statistics()
        assert statistics == ThrottlerStatistics(0, 0, 0, 0, 0)
        assert (statistics.queued, statistics.per_second) == (3, 0)
        assert statistics.paused_for == 0
        assert statistics.expected_in is None
        assert repr(throttler) == "<Throttler idle: 0 running, 0 done, 0 failed>"

    def test_after_one(self, run: Run) -> None:
        throttler = Throttler(Diary().jobs(3, seconds=1))
        run(throttler.run)
        for _ in range(2):
            statistics = throttler.statistics()
            assert statistics == ThrottlerStatistics(3, 0, 3, 0, 0)
            assert statistics.queued == 0
            assert statistics.expected_in == 0

    def test_while_the_limiter_is_paused(self) -> None:
        limiter = RateLimiter()
        before = time.monotonic()
        limiter.pause(1000)
        paused_for = Throttler(Diary().jobs(3), limiter=limiter).statistics().paused_for
        assert 1000 - (time.monotonic() - before) <= paused_for <= 1000

    def test_asking_in_between_does_not_disturb_the_next_run(self, run: Run) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(6), limiter="2/10s", concurrency=1)

        async def for_a_while() -> None:
            with anyio.move_on_after(5):
                await throttler.run()

        run(for_a_while)
        for _ in range(3):
            throttler.statistics()

        statistics = run(throttler.run)
        assert statistics.done == 6
        throttler.statistics()


class TestEquality:
    def test_is_of_what_has_become_of_the_jobs(self) -> None:
        one = ThrottlerStatistics(1, 2, 3, 4, 5, 6, 7, queued=8, per_second=9, expected_in=1)
        assert one == ThrottlerStatistics(1, 2, 3, 4, 5, 6, 7)
        assert hash(one) == hash(ThrottlerStatistics(1, 2, 3, 4, 5, 6, 7))
        for index in range(7):
            counts: list[Any] = [1, 2, 3, 4, 5, 6, 7]
            counts[index] += 1
            assert one != ThrottlerStatistics(*counts)


class TestAQuestionChangesNothing:
    @pytest.mark.parametrize("ask", [Throttler.statistics, repr, Throttler.remaining])
    async def test_a_run_that_is_asked_all_the_time_goes_the_same_way(
        self, ask: Callable[[Throttler[JobOf[object], object]], object]
    ) -> None:
        async def starts_of(
            asked: Callable[[Throttler[JobOf[object], object]], object] | None,
        ) -> tuple[list[object], list[float]]:
            diary = Diary()
            # No two of them end in the same instant: Trio has no order then.
            jobs = [diary.job(n, seconds=1 + n / 64, errors=[OSError()]) for n in range(12)]
            throttler = Throttler(
                jobs, limiter="3/4s", concurrency=2, attempts=Attempts(retry_on=delayed_by(5))
            )
            start = anyio.current_time()

            async def keep_asking() -> None:
                while asked is not None:
                    asked(throttler)
                    await anyio.sleep(0.125)

            async with anyio.create_task_group() as task_group:
                task_group.start_soon(keep_asking)
                await finish(throttler)
                task_group.cancel_scope.cancel()

            return diary.starts, [instant - start for instant in diary.when("start")]

        assert await starts_of(ask) == await starts_of(None)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_pause_where_the_loop_s_clock_is_the_real_one(backend: str) -> None:
    async def main() -> None:
        limiter = RateLimiter("9/s")
        before = anyio.current_time()
        limiter.pause(1000)
        throttler = Throttler(Diary().jobs(3), limiter=limiter)
        with anyio.move_on_after(0.01):
            await throttler.run()

        passed = anyio.current_time() - before
        paused_for = throttler.statistics().paused_for
        assert 0 < paused_for <= 1000 - passed + 2 * ROUNDING + 0.1

    anyio.run(main, backend=backend)


def test_to_ask_does_not_bind_it_to_the_loop() -> None:
    throttler = Throttler(Diary().jobs(1))

    async def ask() -> None:
        assert "0 done" in repr(throttler)

    async def main() -> None:
        await anyio.to_thread.run_sync(lambda: anyio.run(throttler.run))

    async def both() -> None:
        await ask()
        # In another loop, while this one runs.
        await main()

    anyio.run(both)
    assert throttler.statistics().done == 1
