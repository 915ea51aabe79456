"""
The throttler's promise T8: whatever cuts a run off, each job is then in exactly one place.

The sweeps cut a run off at each suspension that it has, in the pool's own tasks and in what they
call, one after the other; take stock; and run again.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias

import anyio
import pytest

from anythrottle import Attempts, JobInterrupted, RateLimiter, ThrottleException, Throttler, amap
from anythrottle._engine.source_reader import SourceReader
from anythrottle._engine.workers import WorkerPool
from anythrottle._jobs import JobOf
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.conftest import Run
from tests.engine.diary import Diary, Job, doubled, failures, finish
from tests.sweep import Strike, striker, sweep

#: All that a run awaits: the pool's own tasks, and the one that is in run() itself.
AWAITED: list[tuple[type, str]] = [
    (WorkerPool, "_work"),
    (SourceReader, "pull"),
    (Throttler, "run"),
]

#: Runs a throttler, lets the strike cut it off, and tells whether it did.
How: TypeAlias = Callable[["Throttler[JobOf[object], object]", Strike], Awaitable[bool]]


@pytest.fixture
def strike_pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[Strike], None]:
    """Count the suspensions of the pool's tasks for a strike, from the next run on."""
    return striker(monkeypatch, AWAITED)


class AsyncJobs:
    """An async source that takes a second for each job, and can be cut off at any time."""

    def __init__(self, jobs: list[object]) -> None:
        self.left = list(jobs)

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        await anyio.sleep(1)
        if not self.left:
            raise StopAsyncIteration

        return self.left.pop(0)


class Scenario:
    """A throttler with jobs of all kinds, and the stock-taking after a run."""

    NAMES = ("plain", "bounces", "replaced", "fails", "awaitable", "falsy", "slow", "last")

    def __init__(self, source: str, *, consumes: bool = True) -> None:
        self.diary = diary = Diary()
        self.failed: list[object] = []
        again = [ThrottleException(retry_after=2)]
        instead = self.named("replaced")
        jobs: list[object] = [
            self.named("plain", seconds=1),
            self.named("bounces", seconds=1, errors=again),
            self.named("replaced", errors=[ThrottleException(instead, retry_after=1)]),
            self.named("fails", errors=[ValueError("fails")]),
            self.named("awaitable", seconds=2)(),
            self.named("falsy", seconds=1),
            self.named("slow", seconds=9),
            self.named("last"),
        ]
        self.awaitable = jobs[4]
        self.source: object = jobs
        if source == "async":
            self.source = AsyncJobs(jobs)
        elif source == "generator":
            self.source = (job for job in jobs)

        self.jobs = jobs
        self.throttler: Throttler[JobOf[object], object] = Throttler(
            self.source,  # type: ignore[arg-type]
            diary.consumer(0.5) if consumes else None,
            time_window=5,
            per_time_window=3,
            concurrency=2,
        )

    def named(
        self, name: str, *, seconds: float | None = None, errors: Sequence[BaseException] = ()
    ) -> Job:
        job = self.diary.job(name, seconds=seconds, errors=errors)
        job.scenario_name = name  # type: ignore[attr-defined]
        return job

    def name_of(self, job: object) -> str:
        return "awaitable" if job is self.awaitable else job.scenario_name  # type: ignore[attr-defined]

    def take_stock(self) -> list[str]:
        """Return what is in which place, all together."""
        for item, error in failures(self.throttler):
            name = self.name_of(item)
            assert isinstance(error, ValueError if name == "fails" else JobInterrupted)
            self.failed.append(name)

        left = [self.name_of(job) for job in self.throttler.remaining()]
        unread: list[str] = []
        if isinstance(self.source, AsyncJobs):
            unread = [self.name_of(job) for job in self.source.left]

        return [*map(str, self.diary.consumed), *map(str, self.failed), *left, *unread]

    def check_all_accounted_for(self, when: str) -> None:
        stock = self.take_stock()
        assert doubled(stock) == [], when
        if isinstance(self.source, list | AsyncJobs):
            assert sorted(stock) == sorted(self.NAMES), when

    def check_done(self, when: str) -> None:
        stock = self.take_stock()
        assert sorted(stock) == sorted(self.NAMES), when
        assert self.throttler.remaining() == [], when
        assert set(self.failed) <= {"fails", "awaitable"}, when
        statistics = self.throttler.statistics()
        assert (statistics.running, statistics.done + statistics.failed) == (0, 8), when
        # What has ended well has not run again.
        assert doubled(self.diary.who("end")) == [], when

    async def cut_off(self, how: How, strike: Strike) -> None:
        """Run, be struck, take stock, and run again."""
        when = f"struck at {strike._number}"
        was_cut_off = await how(self.throttler, strike)
        # A run that was cancelled never returns as if it were done.
        if not was_cut_off:
            self.check_done(when)

        self.check_all_accounted_for(when)
        strike.blow = lambda: None
        with anyio.fail_after(10_000):
            await self.throttler.run()

        self.check_done(when)


async def by_scope(throttler: Throttler[JobOf[object], object], strike: Strike) -> bool:
    with anyio.CancelScope() as scope:
        strike.blow = scope.cancel
        await throttler.run()
        return False

    return True


async def by_outer_scope(throttler: Throttler[JobOf[object], object], strike: Strike) -> bool:
    ended = False

    async def run() -> None:
        nonlocal ended
        await throttler.run()
        ended = True

    async with anyio.create_task_group() as task_group:
        strike.blow = task_group.cancel_scope.cancel
        task_group.start_soon(run)

    return not ended


async def natively(throttler: Throttler[JobOf[object], object], strike: Strike) -> bool:
    task = asyncio.create_task(throttler.run())
    strike.blow = task.cancel
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()

    return task.cancelled()


async def by_teardown(throttler: Throttler[JobOf[object], object], strike: Strike) -> bool:
    """Cancel every task at once, as asyncio.run() does at its end."""
    task = asyncio.create_task(throttler.run())
    here = asyncio.current_task()
    strike.blow = lambda: [each.cancel() for each in asyncio.all_tasks() if each is not here]
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()

    return task.cancelled()


def run_on_asyncio(main: Callable[..., Awaitable[object]], *args: object) -> None:
    anyio.run(main, *args, backend_options={"loop_factory": VirtualEventLoop})


@pytest.mark.promise("T8")
class TestSweep:
    @pytest.mark.parametrize("source", ["list", "async", "generator"])
    @pytest.mark.parametrize("how", [by_scope, by_outer_scope])
    def test_by_scope(
        self, run: Run, strike_pool: Callable[[Strike], None], how: How, source: str
    ) -> None:
        for strike in sweep():
            strike_pool(strike)
            run(Scenario(source).cut_off, how, strike)

    @pytest.mark.parametrize("source", ["list", "async"])
    @pytest.mark.parametrize("woken", [False, True])
    @pytest.mark.parametrize("how", [by_scope, natively, by_teardown])
    # AnyIO starts a task of its own around each: asyncio cancels that before the first step.
    @pytest.mark.filterwarnings("ignore:coroutine '.*wrapper' was never awaited")
    def test_on_asyncio(
        self, strike_pool: Callable[[Strike], None], how: How, source: str, *, woken: bool
    ) -> None:
        for strike in sweep(when_woken=woken):
            strike_pool(strike)
            run_on_asyncio(Scenario(source).cut_off, how, strike)

        # Those that were never awaited, as long as their warnings are ignored.
        gc.collect()

    @pytest.mark.parametrize("how", [by_scope, by_outer_scope])
    def test_without_a_consumer(
        self, run: Run, strike_pool: Callable[[Strike], None], how: How
    ) -> None:
        async def main(strike: Strike) -> None:
            diary = Diary()
            throttler = Throttler(diary.jobs(5, seconds=1), time_window=5, per_time_window=2)
            cut_off = await how(throttler, strike)
            done = throttler.statistics().done
            assert done + len(throttler.remaining()) == 5, f"struck at {strike._number}"
            assert cut_off or done == 5
            strike.blow = lambda: None
            await finish(throttler)
            assert throttler.statistics().done == 5
            assert doubled(diary.who("end")) == []

        for strike in sweep():
            strike_pool(strike)
            run(main, strike)

    @pytest.mark.parametrize("woken", [False, True])
    def test_natively_without_a_consumer(
        self, strike_pool: Callable[[Strike], None], *, woken: bool
    ) -> None:
        async def main(strike: Strike) -> None:
            diary = Diary()
            throttler = Throttler(diary.jobs(4, seconds=1), time_window=5, per_time_window=2)
            task = asyncio.create_task(throttler.run())
            strike.blow = task.cancel
            await asyncio.wait([task])
            assert task.cancelled() or throttler.statistics().done == 4
            assert throttler.statistics().done + len(throttler.remaining()) == 4
            strike.blow = lambda: None
            await finish(throttler)
            assert throttler.statistics().done == 4
            assert doubled(diary.who("end")) == []

        for strike in sweep(when_woken=woken):
            strike_pool(strike)
            run_on_asyncio(main, strike)

    @pytest.mark.parametrize("woken", [False, True])
    def test_struck_twice_natively(
        self, strike_pool: Callable[[Strike], None], *, woken: bool
    ) -> None:
        """Whoever is impatient cancels again while the run winds down."""

        async def main(strike: Strike) -> None:
            scenario = Scenario("list")
            task = asyncio.create_task(scenario.throttler.run())

            def blow() -> None:
                task.cancel()
                asyncio.get_running_loop().call_soon(task.cancel)

            strike.blow = blow
            await asyncio.wait([task])
            scenario.check_all_accounted_for(f"struck at {strike._number}")
            strike.blow = lambda: None
            await finish(scenario.throttler)
            scenario.check_done(f"struck at {strike._number}")

        for strike in sweep(when_woken=woken):
            strike_pool(strike)
            run_on_asyncio(main, strike)

    def test_a_consumer_that_fails_at_any_time(
        self, run: Run, strike_pool: Callable[[Strike], None]
    ) -> None:
        """The strike makes the consumer's call fail: the error is bare, with nothing noted."""

        async def main(strike: Strike) -> None:
            scenario = Scenario("async")
            error = ArithmeticError("mine")
            struck = anyio.Event()
            consume = scenario.diary.consumer(0.5)

            async def consume_or_fail(result: object) -> None:
                await consume(result)
                if struck.is_set():
                    raise error

            throttler: Throttler[JobOf[object], object] = Throttler(  # type: ignore[call-overload]
                scenario.source,
                consume_or_fail,
                time_window=5,
                per_time_window=3,
                concurrency=2,
            )
            scenario.throttler = throttler
            strike.blow = struck.set
            raised: list[BaseException] = []
            try:
                await finish(throttler)
            except ArithmeticError as exc:
                # Only if there was a result left to be consumed.
                raised.append(exc)

            assert raised in ([], [error])
            # That of its job alone: nothing else has failed.
            assert len(getattr(error, "__notes__", ())) == len(raised), (
                f"struck at {strike._number}"
            )

            scenario.check_all_accounted_for(f"struck at {strike._number}")
            struck = anyio.Event()
            await finish(throttler)
            scenario.check_done(f"struck at {strike._number}")

        for strike in sweep():
            strike_pool(strike)
            run(main, strike)


@pytest.mark.timing
@pytest.mark.promise("T8")
class TestT8OneByOne:
    async def test_a_callable_cut_off_midway_runs_again(self) -> None:
        diary = Diary()
        jobs = diary.jobs(4, seconds=10)
        throttler = Throttler(jobs, diary.consumer(), concurrency=2)
        with anyio.move_on_after(15):
            await throttler.run()

        assert sorted(diary.who("cut off"), key=str) == [2, 3]
        assert throttler.remaining() == jobs[2:]
        assert throttler.statistics().running == 0
        await finish(throttler)
        assert diary.starts[4:] == [2, 3]
        assert sorted(diary.consumed, key=str) == [0, 1, 2, 3]

    async def test_that_start_does_not_count_for_max_throttles(self) -> None:
        diary = Diary()
        job = diary.job(0, seconds=10, errors=[ThrottleException(retry_after=0)])
        throttler = Throttler([job], diary.consumer(), attempts=Attempts(max_throttles=2))
        for _ in range(5):
            with anyio.move_on_after(5):
                await throttler.run()

        await finish(throttler)
        assert diary.consumed == [0]
        assert throttler.statistics().started == 7

    async def test_nor_in_the_outcome(self) -> None:
        diary = Diary()
        throttler = Throttler([diary.job(0, seconds=10, errors=[ValueError()])])
        with anyio.move_on_after(5):
            await throttler.run()

        await finish(throttler)
        assert throttler.exceptions.receive_nowait().attempts == 1

    async def test_an_awaitable_cut_off_midway_is_collected(self) -> None:
        diary = Diary()
        coroutine = diary.job(0, seconds=10)()
        throttler = Throttler([coroutine, diary.job(1, seconds=10)], diary.consumer())
        with anyio.move_on_after(5):
            await throttler.run()

        outcome = throttler.exceptions.receive_nowait()
        assert outcome.item is coroutine
        assert isinstance(outcome.error, JobInterrupted)
        assert outcome.error.job is coroutine
        assert "pass a callable" in str(outcome.error)
        # A start that was cut off is not counted.
        assert outcome.attempts == 0
        assert coroutine not in throttler.remaining()
        await finish(throttler)
        assert diary.consumed == [1]

    async def test_an_awaitable_that_was_not_started_is_not_lost(self) -> None:
        diary = Diary()
        coroutines = [diary.job(n, seconds=10)() for n in range(4)]
        throttler = Throttler(coroutines, diary.consumer(), concurrency=1)
        with anyio.move_on_after(5):
            await throttler.run()

        assert throttler.remaining() == coroutines[1:]
        await finish(throttler)
        assert diary.consumed == [1, 2, 3]

    async def test_a_result_that_waits_for_the_consumer_is_kept(self) -> None:
        diary = Diary()
        jobs = diary.jobs(3)
        throttler = Throttler(jobs, diary.consumer(10))
        with anyio.move_on_after(15):
            await throttler.run()

        assert diary.consumed == [0]
        assert throttler.remaining() == jobs[1:]
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]
        assert diary.starts == [0, 1, 2]

    async def test_a_consumer_call_that_was_cancelled_is_repeated(self) -> None:
        diary = Diary()
        calls = 0

        async def consume(result: object) -> None:
            nonlocal calls
            calls += 1
            await anyio.sleep(10)
            diary.consumed.append(result)

        throttler = Throttler([diary.job(0)], consume)
        for _ in range(3):
            with anyio.move_on_after(5):
                await throttler.run()

        await finish(throttler)
        assert calls == 4
        assert diary.consumed == diary.starts == [0]

    async def test_kept_results_come_in_their_order(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(6), diary.consumer(10), concurrency=5)
        for _ in range(3):
            with anyio.move_on_after(15):
                await throttler.run()

        await finish(throttler)
        assert diary.consumed == [0, 1, 2, 3, 4, 5]
        assert doubled(diary.starts) == []

    async def test_more_results_than_the_buffer_holds_are_kept(self) -> None:
        diary = Diary()
        # Two that wait, and one with the consumer.
        throttler = Throttler(diary.jobs(8), diary.consumer(100), concurrency=2)
        with anyio.move_on_after(50):
            await throttler.run()

        ended = len(diary.who("end"))
        assert ended >= 3
        assert len(throttler.remaining()) == 8
        await finish(throttler)
        assert sorted(diary.consumed, key=str) == list(range(8))
        assert doubled(diary.who("end")) == []

    async def test_a_job_that_shields_itself_ends_and_its_result_is_kept(self) -> None:
        diary = Diary()

        async def shielded() -> str:
            diary.note("start", "shielded")
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)

            return "shielded"

        throttler: Throttler[JobOf[object], object] = Throttler([shielded], diary.consumer())
        with anyio.move_on_after(5):
            await throttler.run()

        assert throttler.remaining() == [shielded]
        await finish(throttler)
        assert diary.consumed == diary.starts == ["shielded"]

    async def test_a_job_that_raises_when_it_is_cut_off_has_failed(self) -> None:
        async def job() -> None:
            try:
                await anyio.sleep(10)
            finally:
                raise ValueError("while cut off")

        throttler = Throttler([job])
        with anyio.move_on_after(5) as scope:
            await throttler.run()

        assert scope.cancelled_caught
        assert [str(outcome.error) async for outcome in throttler.exceptions] == ["while cut off"]
        assert throttler.remaining() == []

    async def test_a_job_with_a_task_group_of_its_own_runs_again(self) -> None:
        diary = Diary()
        seconds = 10

        async def job() -> str:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(anyio.sleep, seconds)
                task_group.start_soon(anyio.sleep, seconds)

            return "whole"

        throttler: Throttler[JobOf[object], object] = Throttler([job], diary.consumer())
        with anyio.move_on_after(5):
            await throttler.run()

        assert throttler.remaining() == [job]
        await finish(throttler)
        assert diary.consumed == ["whole"]

    async def test_a_consumer_with_a_task_group_of_its_own_is_repeated(self) -> None:
        diary = Diary()

        async def consume(result: object) -> None:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(anyio.sleep, 10)
                task_group.start_soon(anyio.sleep, 10)

            diary.consumed.append(result)

        throttler = Throttler(diary.jobs(1), consume)
        with anyio.move_on_after(5):
            await throttler.run()

        assert len(throttler.remaining()) == 1
        await finish(throttler)
        assert diary.consumed == [0]

    async def test_cancelled_before_it_began(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(3), diary.consumer())
        with anyio.CancelScope() as scope:
            scope.cancel()
            await throttler.run()

        assert scope.cancelled_caught
        assert len(throttler.remaining()) == 3
        await finish(throttler)
        assert sorted(diary.consumed, key=str) == [0, 1, 2]

    async def test_cancelled_from_inside_a_job(self) -> None:
        scope = anyio.CancelScope()

        async def job() -> str:
            scope.cancel()
            return "done"

        diary = Diary()
        throttler: Throttler[JobOf[object], object] = Throttler(
            [job, diary.job(1)], diary.consumer()
        )
        with scope:
            await throttler.run()

        assert scope.cancelled_caught
        await finish(throttler)
        assert sorted(diary.consumed, key=str) == [1, "done"]

    async def test_a_shared_limiter_is_left_clean(self) -> None:
        diary = Diary()
        limiter = RateLimiter("2/10s", concurrency=2)
        throttler = Throttler(diary.jobs(6, seconds=8), diary.consumer(), limiter=limiter)
        with anyio.move_on_after(5):
            await throttler.run()

        statistics = limiter.statistics()
        assert (statistics.borrowed_tokens, statistics.tasks_waiting) == (0, 0)
        await anyio.sleep(10)
        assert limiter.peek().remaining == 2

    async def test_run_again_at_once_and_often(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(10, seconds=1), diary.consumer(0.3), concurrency=3)
        for tenth in range(1, 40):
            with anyio.move_on_after(tenth / 10):
                await throttler.run()

        await finish(throttler)
        assert sorted(diary.consumed, key=str) == list(range(10))


async def test_a_source_that_was_about_to_be_asked_when_it_was_cancelled_is_not_cut_off() -> None:
    """Who was woken before has to look, for nobody throws a cancellation at it any more."""
    diary = Diary()
    scope = anyio.CancelScope()

    async def cancel() -> None:
        if not scope.cancel_called:
            # By starting, this job has woken the task that pulls.
            scope.cancel()
            await anyio.sleep_forever()

    async def generate() -> AsyncGenerator[Job]:
        for job in [cancel, *diary.jobs(3)]:
            await anyio.sleep(0)
            yield job

    throttler = Throttler(generate(), diary.consumer(), concurrency=1)
    with scope:
        await throttler.run()

    assert scope.cancelled_caught
    await finish(throttler)
    assert diary.starts == [0, 1, 2]


async def test_a_run_whose_tasks_were_all_cancelled_before_it_does_not_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task group without tasks raises no cancellation that is pending."""
    ended = False
    with anyio.CancelScope() as scope:

        def die_at_once(self: WorkerPool[object, object], *task_groups: object) -> None:
            scope.cancel()

        monkeypatch.setattr(WorkerPool, "begin", die_at_once)
        await Throttler(Diary().jobs(1)).run()
        ended = True

    assert scope.cancelled_caught
    assert not ended


async def test_nor_if_somebody_else_has_cancelled_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def die_at_once(self: WorkerPool[object, object], *task_groups: object) -> None:
        pass

    monkeypatch.setattr(WorkerPool, "begin", die_at_once)
    with pytest.raises(RuntimeError, match="cancelled by other code"):
        await Throttler(Diary().jobs(1)).run()

    with pytest.raises(RuntimeError, match="cancelled by other code"):
        await amap(anyio.sleep, [1])


@pytest.mark.promise("T8")
class TestNoNeverAwaitedWarnings:
    """From what the throttler has taken over; warnings are errors in these tests."""

    @pytest.mark.timing
    async def test_dropped_with_coroutines_that_it_has_pulled(self) -> None:
        diary = Diary()
        # Older than the throttler: a garbage collection comes to them first.
        coroutines = [diary.job(n, seconds=10)() for n in range(5)]
        throttler = Throttler(iter(coroutines[:3]), diary.consumer(), concurrency=2)
        with anyio.move_on_after(5):
            await throttler.run()

        for coroutine in coroutines[3:]:
            throttler.add(coroutine)

        del throttler, coroutines, coroutine
        gc.collect()

    def test_dropped_with_coroutines_that_were_added(self) -> None:
        coroutine = Diary().job(0)()
        throttler: Throttler[JobOf[object], object] = Throttler([])
        throttler.add(coroutine)
        del throttler, coroutine
        gc.collect()

    async def test_handed_out_they_are_whoever_s_has_them(self) -> None:
        diary = Diary()
        throttler: Throttler[JobOf[object], object] = Throttler([], diary.consumer())
        throttler.add(diary.job(0)())
        (coroutine,) = throttler.remaining()
        del throttler
        gc.collect()
        assert not callable(coroutine)
        assert await coroutine == 0

    def test_a_constructor_that_was_refused(self) -> None:
        with pytest.raises(ValueError, match="concurrency"):
            Throttler([], concurrency=0)

        gc.collect()


@pytest.mark.promise("T8")
class TestNativelyOnAsyncio:
    def test_asyncio_run_is_torn_down(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(5, seconds=10), diary.consumer(1), concurrency=2)
        tasks = []

        async def leave_it_running() -> None:
            tasks.append(asyncio.create_task(throttler.run()))
            await asyncio.sleep(15)

        run_on_asyncio(leave_it_running)
        assert tasks[0].cancelled()
        assert sorted(diary.consumed, key=str) == [0, 1]
        assert len(throttler.remaining()) == 3
        run_on_asyncio(finish, throttler)
        assert sorted(diary.consumed, key=str) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("consumes", [True, False])
    def test_asyncio_timeout(self, *, consumes: bool) -> None:
        diary = Diary()

        async def main() -> None:
            throttler = Throttler(
                diary.jobs(4, seconds=10), diary.consumer() if consumes else None, concurrency=2
            )
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(15):
                    await throttler.run()

            assert len(throttler.remaining()) == 2
            async with asyncio.timeout(15):
                await throttler.run()

            assert throttler.statistics().done == 4
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()

        run_on_asyncio(main)

    def test_asyncio_wait_for(self) -> None:
        diary = Diary()

        async def main() -> None:
            throttler = Throttler(diary.jobs(4, seconds=10), diary.consumer(), concurrency=2)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(throttler.run(), 15)

            assert len(throttler.remaining()) == 2
            await asyncio.wait_for(throttler.run(), 15)
            assert sorted(diary.consumed, key=str) == [0, 1, 2, 3]

        run_on_asyncio(main)

    def test_in_an_asyncio_task_group(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(4, seconds=10), diary.consumer(), concurrency=2)

        async def fail() -> None:
            await asyncio.sleep(15)
            raise KeyError("mine")

        async def main() -> None:
            async def both() -> None:
                async with asyncio.TaskGroup() as task_group:
                    task_group.create_task(throttler.run())
                    task_group.create_task(fail())

            with pytest.raises(ExceptionGroup) as caught:
                await both()

            assert [type(error) for error in caught.value.exceptions] == [KeyError]
            await finish(throttler)

        run_on_asyncio(main)
        assert sorted(diary.consumed, key=str) == [0, 1, 2, 3]

    def test_a_job_that_awaits_a_cancelled_task_has_failed(self) -> None:
        diary = Diary()

        async def job() -> None:
            task = asyncio.create_task(asyncio.sleep(10))
            task.cancel()
            await task

        async def main() -> None:
            throttler: Throttler[JobOf[object], object] = Throttler(
                [diary.job(0), job, diary.job(2)], diary.consumer(), concurrency=1
            )
            await finish(throttler)
            ((item, error),) = failures(throttler)
            assert item is job
            assert isinstance(error, asyncio.CancelledError)
            assert diary.consumed == [0, 2]

        run_on_asyncio(main)

    def test_a_cancelled_task_as_job_has_failed(self) -> None:
        async def main() -> None:
            task = asyncio.create_task(asyncio.sleep(10))
            task.cancel()
            diary = Diary()
            throttler: Throttler[JobOf[object], object] = Throttler(
                [task, diary.job(1)], diary.consumer()
            )
            await finish(throttler)
            assert diary.consumed == [1]
            assert [item for item, _ in failures(throttler)] == [task]

        run_on_asyncio(main)

    def test_a_job_that_cancels_its_own_task_has_failed(self) -> None:
        diary = Diary()

        async def job() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(10)

        async def main() -> None:
            throttler: Throttler[JobOf[object], object] = Throttler(
                [diary.job(0), job, diary.job(2)], diary.consumer(), concurrency=1
            )
            await finish(throttler)
            assert [item for item, _ in failures(throttler)] == [job]
            assert diary.consumed == [0, 2]

        run_on_asyncio(main)

    def test_nothing_of_that_is_left_for_the_jobs_after_it(self) -> None:
        cancelling: list[int] = []

        async def job() -> None:
            task = asyncio.current_task()
            assert task is not None
            cancelling.append(task.cancelling())
            task.cancel()
            await asyncio.sleep(10)

        async def main() -> None:
            throttler: Throttler[JobOf[object], object] = Throttler([job, job, job], concurrency=1)
            await finish(throttler)
            assert len(failures(throttler)) == 3

        run_on_asyncio(main)
        assert cancelling == [0, 0, 0]

    @pytest.mark.parametrize("concurrency", [1, 2])
    @pytest.mark.parametrize("consumes", [True, False])
    def test_a_job_that_cancels_its_own_task_and_returns(
        self, concurrency: int, *, consumes: bool
    ) -> None:
        """Neither a hang nor a silent end: if the run cannot go on, it says so, and loses none."""
        diary = Diary()

        async def job() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "returned"

        async def main() -> None:
            throttler: Throttler[JobOf[object], object] = Throttler(
                [diary.job(0, seconds=1), job, diary.job(2), diary.job(3, seconds=1)],
                diary.consumer() if consumes else None,
                concurrency=concurrency,
            )
            for _ in range(2):
                task = asyncio.create_task(throttler.run())
                done, _ = await asyncio.wait([task], timeout=1000)
                assert done, "the run hangs"
                if not task.cancelled() and task.exception() is None:
                    break

            assert throttler.remaining() == []
            assert throttler.statistics().done + throttler.statistics().failed == 4
            if consumes:
                assert sorted(diary.consumed, key=str) == [0, 2, 3, "returned"]

        run_on_asyncio(main)

    def test_a_task_that_was_cancelled_before_the_run(self) -> None:
        """Somebody has caught a cancellation, and runs a throttler in that very task."""
        diary = Diary()

        async def main() -> None:
            async def cleaner() -> None:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    await Throttler(diary.jobs(3, seconds=1), diary.consumer()).run()
                    raise

            task = asyncio.create_task(cleaner())
            await wait_idle()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        run_on_asyncio(main)
        assert sorted(diary.consumed, key=str) == [0, 1, 2]


@pytest.mark.promise("T8")
class TestOnTrio:
    def test_nurseries_of_trio_s_own(self) -> None:
        """Several tasks cancelled in one nursery are a group of cancellations."""
        import trio

        from anythrottle.testing._virtual_trio import VirtualClock

        diary = Diary()

        async def two_naps() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 10)
                nursery.start_soon(trio.sleep, 10)

        async def job() -> str:
            await two_naps()
            return "job"

        async def consume(result: object) -> None:
            await two_naps()
            diary.consumed.append(result)

        async def main() -> None:
            throttler: Throttler[JobOf[object], object] = Throttler([job], consume)
            with trio.move_on_after(5):
                await throttler.run()

            assert throttler.remaining() == [job]
            with trio.move_on_after(15):
                await throttler.run()

            assert throttler.remaining() == [job]
            assert failures(throttler) == []
            await finish(throttler)
            assert throttler.remaining() == []

        trio.run(main, clock=VirtualClock())
        assert diary.consumed == ["job"]


def test_a_source_that_is_cut_off_in_its_own_step_loses_nothing(run: Run) -> None:
    def generate() -> Iterator[Job]:
        yield from diary.jobs(3)

    async def main() -> None:
        throttler = Throttler(generate(), diary.consumer(1), concurrency=1)
        for _ in range(10):
            with anyio.move_on_after(0.5):
                await throttler.run()

        await finish(throttler)

    diary = Diary()
    run(main)
    assert sorted(diary.consumed, key=str) == [0, 1, 2]


async def test_a_consumer_that_cancels_the_run_is_not_called_again() -> None:
    """Though results wait, and it never comes to a checkpoint itself."""
    consumed: list[int] = []

    async def job() -> int:
        return 1

    async def consumer(result: int) -> None:
        consumed.append(result)
        scope.cancel()

    throttler = Throttler([job] * 5, consumer, limiter=RateLimiter(), concurrency=5)
    with anyio.CancelScope() as scope:
        await throttler.run()

    assert consumed == [1]
    assert len(throttler.remaining()) == 4
