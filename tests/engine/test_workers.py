"""The workers: as many tasks as are needed, one of them with the lead."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anythrottle import (
    Attempts,
    CostTooHigh,
    Failed,
    Finished,
    RateLimiter,
    ThrottleException,
    Throttler,
    amap,
    for_each,
)
from anythrottle._engine.admission import Worker
from anythrottle._engine.cancellation import RunCancellation
from anythrottle._engine.workers import WorkerPool
from anythrottle._jobs import JobOf
from anythrottle.abc import Event
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.diary import Diary, Job, finish

pytestmark = pytest.mark.timing


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the workers that have been made."""
    made = 0
    add_worker = WorkerPool._add_worker

    def count(self: WorkerPool[object, object]) -> None:
        nonlocal made
        made += 1
        add_worker(self)

    monkeypatch.setattr(WorkerPool, "_add_worker", count)
    return lambda: made


class TestWorkers:
    async def test_no_more_than_concurrency(self, workers: Callable[[], int]) -> None:
        await finish(Throttler(Diary().jobs(20, seconds=1), concurrency=4))
        assert workers() == 4

    async def test_no_more_than_are_needed(self, workers: Callable[[], int]) -> None:
        await finish(Throttler(Diary().jobs(20), concurrency=10))
        # One runs a job, one waits for the next; on Trio, one may be on its way back.
        assert workers() in (2, 3)

    async def test_none_for_jobs_that_wait_for_the_window(self, workers: Callable[[], int]) -> None:
        await finish(Throttler(Diary().jobs(20, seconds=1), limiter="1/2s"))
        assert workers() in (2, 3)

    async def test_as_many_as_run_without_concurrency(self, workers: Callable[[], int]) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(20, seconds=1), limiter=RateLimiter()))
        assert diary.most_running == 20
        assert workers() == 21

    @pytest.mark.parametrize("throttled", [False, True])
    async def test_none_for_a_job_that_goes_again_and_again(
        self, workers: Callable[[], int], throttled: bool
    ) -> None:
        attempts = 0

        async def fail(_: int) -> None:
            nonlocal attempts
            attempts += 1
            if attempts < 500:
                raise ThrottleException(retry_after=0) if throttled else OSError

        again = Attempts(500, retry_on=lambda _: 0.0)
        await for_each(fail, [0], limiter=RateLimiter(fast_acquire=True), attempts=again)
        assert attempts == 500
        assert workers() <= 2

    @pytest.mark.parametrize("quick", [14, 15, 16, 17, 31, 32, 100])
    async def test_as_many_as_may_run_after_jobs_that_end_at_once(
        self, workers: Callable[[], int], quick: int
    ) -> None:
        async def call(item: int) -> None:
            if item >= quick:
                await anyio.sleep(1)

        start = anyio.current_time()
        await for_each(call, range(quick + 6), concurrency=3)
        assert anyio.current_time() - start == 2
        assert workers() == 3

    async def test_none_while_results_wait_for_the_consumer(
        self, workers: Callable[[], int]
    ) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(30), diary.consumer(1), concurrency=8))
        assert workers() <= 3
        assert diary.consumed == list(range(30))

    async def test_who_adds_a_job_goes_on_with_it(self, workers: Callable[[], int]) -> None:
        tasks: list[int] = []

        async def job() -> None:
            if not tasks:
                # Meanwhile somebody else waits for a job.
                await anyio.sleep(1)

            tasks.append(anyio.get_current_task().id)
            if len(tasks) < 10:
                throttler.add(job)

        throttler: Throttler[JobOf[object], object] = Throttler([job], limiter=RateLimiter())
        await finish(throttler)
        assert len(tasks) == 10
        # Nobody has been woken for that, or made.
        assert len(set(tasks)) == 1
        assert workers() == 2


class TestStopInEveryState:
    @pytest.mark.parametrize("instant", [number / 4 for number in range(40)])
    async def test_nothing_starts_after_it(self, instant: float) -> None:
        diary = Diary()
        throttler = Throttler(
            diary.jobs(12, seconds=1.5),
            diary.consumer(0.5),
            time_window=2,
            per_time_window=2,
            concurrency=3,
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await wait_idle()
            await anyio.sleep(instant)
            throttler.stop()
            started = len(diary.starts)
            await wait_idle()
            assert len(diary.starts) == started

        assert len(diary.starts) == started
        assert len(diary.consumed) == started
        assert len(throttler.remaining()) == 12 - started
        await finish(throttler)
        assert set(diary.consumed) == set(range(12))
        assert len(diary.consumed) == 12

    async def test_with_a_turn_that_was_granted_in_the_same_instant(self) -> None:
        diary = Diary()
        limiter = RateLimiter("1/5s")
        throttler = Throttler(diary.jobs(3), diary.consumer(), limiter=limiter)

        async def stop_at_5() -> None:
            await anyio.sleep(5)
            throttler.stop()

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(stop_at_5)
            task_group.start_soon(finish, throttler)

        # Whoever comes first in that instant: what was charged and not used is given back.
        remaining = len(throttler.remaining())
        assert len(diary.starts) + remaining == 3
        assert limiter.peek().allowed == (remaining == 2)

    async def test_nothing_is_pulled_after_it(self) -> None:
        diary = Diary()
        pulled: list[object] = []

        async def stop() -> None:
            throttler.stop()

        async def source() -> AsyncIterator[Job]:
            for job in [stop, *diary.jobs(3)]:
                pulled.append(job)
                await anyio.sleep(1)
                yield job

        throttler: Throttler[JobOf[object], object] = Throttler(source())
        await finish(throttler)
        assert pulled == [stop]
        # So the source was not cut off in the middle of a step.
        await finish(throttler)
        assert diary.starts == [0, 1, 2]


class RefundingLimiter:
    """A limiter that lets the run be stopped at the instant at which it grants."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] = lambda: None
        self.refunds = 0
        self.waited = 0.0

    def permit(self, cost: object = 1, *, priority: int = 0) -> RefundingLimiter:
        return self

    async def run(self, func: object, *args: object) -> None: ...

    def wrap(self, func: object) -> None: ...

    def pause(self, seconds: float | None = None) -> None: ...

    def settle(self, cost: object) -> None: ...

    def refund(self) -> None:
        self.refunds += 1

    async def __aenter__(self) -> Self:
        self.stop()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


async def test_a_turn_for_which_there_is_no_use_is_given_back() -> None:
    diary = Diary()
    limiter = RefundingLimiter()
    jobs = diary.jobs(3)
    throttler = Throttler(jobs, diary.consumer(), limiter=limiter)  # type: ignore[call-overload]
    limiter.stop = throttler.stop
    await finish(throttler)
    assert diary.starts == []
    assert limiter.refunds == 1
    assert throttler.remaining() == jobs


class TestWorkConserving:
    async def test_a_source_is_pulled_while_one_slot_is_busy(self) -> None:
        diary = Diary()
        jobs = [diary.job("long", seconds=100), *[diary.job(n, seconds=1) for n in range(10)]]
        await finish(Throttler(jobs, concurrency=2))
        assert diary.when("end")[:10] == [float(n) for n in range(1, 11)]

    async def test_a_slow_consumer_alone_does_not_idle_the_slots(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(10, seconds=1), diary.consumer(1), concurrency=2))
        # A second for the first results, then the consumer is never without one.
        assert anyio.current_time() == 11

    async def test_slots_fill_again_after_the_consumer_was_slow(self) -> None:
        diary = Diary()
        slow = [True]

        async def consume(result: object) -> None:
            if slow and len(diary.consumed) < 20:
                await anyio.sleep(1)

            diary.consumed.append(result)

        jobs: list[Job] = [diary.job(n) for n in range(20)]
        jobs += [diary.job(n, seconds=10) for n in range(20, 40)]
        await finish(Throttler(jobs, consume, limiter=RateLimiter(), concurrency=10))
        assert diary.most_running == 10

    @pytest.mark.parametrize("steps", range(4))
    @pytest.mark.parametrize("struck", range(3))
    def test_somebody_leads_when_one_was_cancelled_natively(
        self, monkeypatch: pytest.MonkeyPatch, struck: int, steps: int
    ) -> None:
        """An idle worker, the leader or its successor, while a job waits for one added later."""
        workers: list[asyncio.Task[Any]] = []
        work = WorkerPool._work

        async def note_and_work(self: WorkerPool[Any, Any], worker: Worker) -> None:
            task = asyncio.current_task()
            assert task is not None
            workers.append(task)
            await work(self, worker)

        monkeypatch.setattr(WorkerPool, "_work", note_and_work)

        async def main() -> None:
            diary = Diary()
            added = anyio.Event()
            send, receive = anyio.create_memory_object_stream[Job](3)
            for number in range(3):
                send.send_nowait(diary.job(number, seconds=1))

            async def wait_for_another() -> None:
                await added.wait()

            async def be_the_other() -> None:
                added.set()

            throttler: Throttler[JobOf[object], object] = Throttler(
                receive, limiter="100/s", concurrency=3
            )
            async with receive, anyio.create_task_group() as task_group:
                task_group.start_soon(finish, throttler)
                await anyio.sleep(10)
                assert len(workers) == 3
                throttler.add(wait_for_another)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()

                workers[struck].cancel()
                await anyio.sleep(1)
                throttler.add(be_the_other)
                await anyio.sleep(1)
                assert added.is_set()
                send.close()

            assert throttler.statistics().done + throttler.statistics().failed == 5

        anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})


class TestTheEnd:
    @pytest.mark.parametrize("steps", range(6))
    async def test_a_job_added_at_the_last_moment_runs_with_all_that_it_adds_or_not_at_all(
        self, steps: int
    ) -> None:
        ended, added = anyio.Event(), anyio.Event()
        starts: list[str] = []

        async def late() -> None:
            starts.append("late")
            throttler.add(later)
            await added.wait()

        async def later() -> None:
            starts.append("later")
            added.set()

        def observe(event: Event) -> None:
            if isinstance(event, Finished) and event.index == 1:
                ended.set()

        diary = Diary()
        jobs = [diary.job("short", seconds=0.5), diary.job("long", seconds=1)]
        throttler = Throttler[JobOf[object], object](
            jobs, limiter="100/s", concurrency=2, observer=observe
        )

        async def add_late() -> None:
            await ended.wait()
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()

            throttler.add(late)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(add_late)
            with anyio.fail_after(100):
                await throttler.run()

        if starts:
            assert starts == ["late", "later"]
            assert throttler.remaining() == []
        else:
            assert throttler.remaining() == [late]


class Ticker:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.turns = 0

    async def tick(self, turns: int, then: Callable[[], object]) -> None:
        for _ in range(turns):
            await checkpoint()
            self.turns += 1

        then()


class Again(Exception):
    pass


class Busy:
    """Runs of jobs that never wait; and how many of these have ended."""

    #: More would be for ever.
    MOST = 100_000

    def __init__(self) -> None:
        self.count = 0

    async def job(self, error: Exception | None = None) -> None:
        self.count += 1
        if self.count > self.MOST:
            raise SystemExit(1)

        if error is not None:
            raise error

    def cost(self, _: object) -> int:
        self.count += 1
        if self.count > self.MOST:
            raise SystemExit(1)

        raise Again

    async def end_at_once(self) -> None:
        await for_each(lambda _: self.job(), range(self.MOST + 1))

    async def go_again_at_once(self) -> None:
        await for_each(self.job, [Again()], attempts=Attempts(retry_on=lambda _: 0))

    async def be_throttled(self) -> None:
        limiter = RateLimiter(fast_acquire=True)
        await amap(self.job, [ThrottleException(retry_after=0)], limiter=limiter)

    async def be_throttled_without_an_engine(self) -> None:
        limiter = RateLimiter(fast_acquire=True)
        await limiter.run(self.job, ThrottleException(retry_after=0))

    async def have_no_price(self) -> None:
        jobs = [self.job] * (self.MOST + 1)
        await Throttler(jobs, limiter="9/s", cost=self.cost).run()


class TestOthersRunMeanwhile:
    async def test_jobs_begin_in_order_over_turns_of_the_loop(self) -> None:
        ticker = Ticker()
        begun: list[tuple[int, int]] = []

        async def job(item: int) -> None:
            begun.append((item, ticker.turns))
            await anyio.sleep(1)

        with anyio.move_on_after(0.5):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(ticker.tick, 10_000, task_group.cancel_scope.cancel)
                await for_each(job, range(50))

        assert [item for item, _ in begun] == list(range(50))
        turns = [turn for _, turn in begun]
        assert all(before < after for before, after in pairwise(turns))

    @pytest.mark.parametrize(
        "be_busy",
        [
            Busy.end_at_once,
            Busy.go_again_at_once,
            Busy.be_throttled,
            Busy.be_throttled_without_an_engine,
            Busy.have_no_price,
        ],
    )
    async def test_and_can_cancel_it(self, be_busy: Callable[[Busy], Awaitable[None]]) -> None:
        busy = Busy()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(Ticker().tick, 50, task_group.cancel_scope.cancel)
            await be_busy(busy)
            raise AssertionError("it has come to an end")

        assert 0 < busy.count <= busy.MOST

    async def test_jobs_whose_cost_has_become_impossible(self) -> None:
        ticker = Ticker()
        limiter = RateLimiter("10_000 tokens/s")
        errors = Counter[type[BaseException]]()

        async def fail() -> None:
            raise Again

        def observe(event: Event) -> None:
            if isinstance(event, Failed):
                errors[type(event.error)] += 1
                ticks.append(ticker.turns)

        ticks: list[int] = []
        throttler: Throttler[JobOf[object], object] = Throttler(
            [fail] * 900,
            limiter=limiter,
            cost=lambda _: {"tokens": 6},
            attempts=Attempts(retry_on=lambda _: 60.0),
            observer=observe,
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(30)
            assert throttler.statistics().delayed == 900
            limiter.reconfigure("5 tokens/s")
            await anyio.sleep(30)
            await ticker.tick(10_000, lambda: None)

        assert errors == {CostTooHigh: 900}
        # Never many in a row.
        assert max(Counter(ticks).values()) <= 4


async def produce() -> AsyncIterator[int]:
    for number in range(100):
        yield number


async def test_whether_the_run_is_cancelled_is_not_asked_at_each_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    is_under_way = RunCancellation.is_under_way

    def counted(cancellation: RunCancellation) -> bool:
        nonlocal asked
        asked += 1
        return is_under_way(cancellation)

    monkeypatch.setattr(RunCancellation, "is_under_way", counted)
    await finish(Throttler(iter(Diary().jobs(100))))
    assert asked < 10
    await for_each(checkpoint_for, produce())
    assert asked < 20


async def checkpoint_for(_: int) -> None:
    await checkpoint()
