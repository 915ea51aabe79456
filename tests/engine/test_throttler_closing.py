"""`Throttler.aclose()`: the source is closed, and what remains is given up."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Any

import anyio
import pytest

from anythrottle import SourceInterrupted, ThrottleException, Throttler
from anythrottle._jobs import JobOf
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.diary import Diary, Job, failures, finish
from tests.limiters.tools import BLOWS, Blow, Victim, sweep_with

pytestmark = pytest.mark.timing


class Source:
    """An async generator of jobs that has something to give back, which takes 3 seconds."""

    def __init__(self, jobs: Iterable[Any], *, step: float = 0.0) -> None:
        self.left = list(jobs)
        self.ends: list[tuple[str, float]] = []
        self.begun = False
        self._step = step
        self.items = self._generate()

    async def _generate(self) -> AsyncGenerator[Any]:
        self.begun = True
        try:
            while self.left:
                await anyio.sleep(self._step)
                yield self.left.pop(0)
        finally:
            try:
                await anyio.sleep(3)
                self.ends.append(("released", anyio.current_time()))
            except anyio.get_cancelled_exc_class():
                self.ends.append(("cut off", anyio.current_time()))
                raise

    @property
    def closed(self) -> bool:
        return self.items.ag_frame is None  # type: ignore[attr-defined]


async def run_for(seconds: float, throttler: Throttler[JobOf[object], object]) -> None:
    with anyio.move_on_after(seconds):
        await throttler.run()


class TestTheSource:
    async def test_is_closed_and_nothing_cuts_that_off(self) -> None:
        source = Source(Diary().jobs(9, seconds=10))
        throttler = Throttler(source.items, concurrency=2)
        await run_for(5, throttler)
        assert not source.closed
        await throttler.aclose()
        assert source.closed
        assert source.ends == [("released", 8)]

    async def test_is_closed_at_the_end_of_a_block(self) -> None:
        source = Source(Diary().jobs(9, seconds=1))
        async with Throttler(source.items, concurrency=1) as throttler:
            await run_for(2.5, throttler)

        assert source.closed
        assert source.ends == [("released", 5.5)]

    async def test_is_closed_after_an_error(self) -> None:
        async def consume(_: object) -> None:
            raise OSError("consumer")

        source = Source(Diary().jobs(9, seconds=1))
        with pytest.raises(OSError, match="consumer"):
            async with Throttler(source.items, consume) as throttler:
                await throttler.run()

        assert source.ends == [("released", 4)]

    async def test_is_closed_after_a_run_that_was_stopped(self) -> None:
        async def stop() -> None:
            throttler.stop()

        source = Source([stop, *Diary().jobs(9)])
        async with Throttler(source.items, concurrency=1) as throttler:
            await throttler.run()

        assert source.ends == [("released", 3)]

    async def test_is_closed_without_any_run(self) -> None:
        async with Throttler(Source([]).items):
            pass

        closed = False

        def generate() -> Iterator[Job]:
            nonlocal closed
            try:
                yield from Diary().jobs(2)
            finally:
                closed = True

        begun = generate()
        next(begun)
        await Throttler(begun).aclose()
        assert closed

    async def test_is_closed_if_it_is_a_plain_generator(self) -> None:
        closed = False

        def generate() -> Iterator[Job]:
            nonlocal closed
            try:
                yield from Diary().jobs(9, seconds=1)
            finally:
                closed = True

        throttler = Throttler(generate(), concurrency=1)
        await run_for(2.5, throttler)
        assert not closed
        await throttler.aclose()
        assert closed

    async def test_stays_open_if_it_is_anything_else(self) -> None:
        send, receive = anyio.create_memory_object_stream[Job](10)
        with send, receive:
            for job in Diary().jobs(9, seconds=1):
                send.send_nowait(job)

            async with Throttler(receive, concurrency=1) as throttler:
                await run_for(2.5, throttler)

            receive.receive_nowait()

        jobs = iter(Diary().jobs(9, seconds=1))
        async with Throttler(jobs, concurrency=1) as throttler:
            await run_for(2.5, throttler)

        next(jobs)

    async def test_may_fail_and_is_closed_all_the_same(self) -> None:
        async def generate() -> AsyncGenerator[Job]:
            try:
                for job in Diary().jobs(9, seconds=1):
                    yield job
            finally:
                raise ValueError("cleanup")

        throttler = Throttler(generate(), concurrency=1)
        await run_for(1.5, throttler)
        with pytest.raises(ValueError, match="cleanup"):
            await throttler.aclose()

        await throttler.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await throttler.run()

    async def test_that_was_cut_off_has_ended_already(self) -> None:
        source = Source(Diary().jobs(2), step=10)
        throttler = Throttler(source.items)
        await run_for(5, throttler)
        with pytest.raises(SourceInterrupted):
            await throttler.run()

        await throttler.aclose()
        assert source.ends == [("cut off", 5)]


class TestWhenItIsCancelled:
    @staticmethod
    async def begun() -> tuple[Source, Throttler[JobOf[object], object]]:
        source = Source(Diary().jobs(9, seconds=1))
        throttler: Throttler[JobOf[object], object] = Throttler(source.items, concurrency=1)
        await run_for(1.5, throttler)
        return source, throttler

    async def test_by_scope(self) -> None:
        source, throttler = await self.begun()
        with anyio.CancelScope(deadline=2) as scope:
            await throttler.aclose()

        assert scope.cancelled_caught
        await self.check_closed(source, throttler)

    def test_natively(self) -> None:
        async def main() -> None:
            source, throttler = await self.begun()
            task = asyncio.create_task(throttler.aclose())
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await self.check_closed(source, throttler)

        anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})

    async def test_in_a_scope_that_is_cancelled_already(self) -> None:
        source, throttler = await self.begun()
        await anyio.sleep(0.5)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await throttler.aclose()

        await self.check_closed(source, throttler)

    @staticmethod
    async def check_closed(source: Source, throttler: Throttler[JobOf[object], object]) -> None:
        assert source.closed
        assert source.ends == [("cut off", 2)]
        await throttler.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await throttler.run()


class TestDuringARun:
    async def test_it_is_refused_and_the_run_goes_on(self) -> None:
        diary = Diary()
        refused: list[str] = []

        async def refuse(where: str) -> None:
            with pytest.raises(anyio.BusyResourceError):
                await throttler.aclose()

            refused.append(where)

        async def job() -> None:
            await refuse("job")
            await anyio.sleep(1)

        async def consume(_: object) -> None:
            await refuse("consumer")

        source = Source([job, *diary.jobs(2)])
        throttler: Throttler[JobOf[object], object] = Throttler(
            source.items, consume, concurrency=1
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(0.5)
            await refuse("task")

        assert refused == ["job", "task", "consumer", "consumer", "consumer"]
        await throttler.aclose()


class TestAfterwards:
    async def test_nothing_can_be_run_or_added(self) -> None:
        throttler = Throttler(Diary().jobs(2))
        await throttler.aclose()
        for _ in range(2):
            with pytest.raises(anyio.ClosedResourceError):
                await throttler.run()

            with pytest.raises(anyio.ClosedResourceError):
                throttler.add(Diary().job(0))

        throttler.stop()
        assert repr(throttler) == "<Throttler closed: 0 running, 0 done, 0 failed>"

    async def test_twice_is_as_once(self) -> None:
        source = Source(Diary().jobs(9, seconds=1))
        throttler = Throttler(source.items, concurrency=1)
        await run_for(1.5, throttler)
        async with anyio.create_task_group() as task_group:
            for _ in range(2):
                task_group.start_soon(throttler.aclose)

            await wait_idle()
            with pytest.raises(anyio.ClosedResourceError):
                await throttler.run()

            with pytest.raises(anyio.ClosedResourceError):
                throttler.add(Diary().job(0))

        assert source.ends == [("released", 4.5)]
        await throttler.aclose()
        assert len(source.ends) == 1

    async def test_what_has_failed_and_what_remains_can_be_read(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[OSError()]), diary.job("b", seconds=10), diary.job("c")]
        throttler = Throttler(iter(jobs), concurrency=1)
        await run_for(5, throttler)
        await throttler.aclose()
        assert [job for job, _ in failures(throttler)] == jobs[:1]
        with pytest.raises(anyio.EndOfStream):
            await throttler.exceptions.receive()

        assert throttler.remaining() == jobs[1:]
        statistics = throttler.statistics()
        assert (statistics.started, statistics.failed, statistics.done) == (2, 1, 0)


class TestAwaitablesThatRemain:
    """Those that nobody will await are closed; warnings are errors in these tests."""

    async def test_of_those_taken_over(self) -> None:
        diary = Diary()
        # Older than the throttler: a garbage collection comes to them first.
        coroutines = [diary.job(n, seconds=10)() for n in range(5)]
        throttler = Throttler(iter(coroutines[:3]), concurrency=2)
        await run_for(5, throttler)
        for coroutine in coroutines[3:]:
            throttler.add(coroutine)

        await throttler.aclose()
        for coroutine in coroutines:
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                await coroutine

    @pytest.mark.parametrize("kind", [list, tuple, deque])
    async def test_of_a_sequence(self, kind: Callable[[Iterable[object]], Any]) -> None:
        diary = Diary()
        coroutines = kind([diary.job(n, seconds=10)() for n in range(5)])
        async with Throttler(coroutines, concurrency=2) as throttler:
            await run_for(5, throttler)

        assert len(failures(throttler)) == 2
        del coroutines, throttler
        gc.collect()

    async def test_of_a_sequence_that_makes_its_items_nothing_is_made(self) -> None:
        made: list[int] = []

        class Jobs(Sequence[Any]):
            def __len__(self) -> int:
                return 9

            def __getitem__(self, index: Any) -> Any:
                made.append(index)
                return Diary().job(index, seconds=1)()

        async with Throttler(Jobs(), concurrency=1) as throttler:
            await run_for(2.5, throttler)

        assert made in ([0, 1, 2], [0, 1, 2, 3])
        assert len(failures(throttler)) == 1

    async def test_those_that_were_handed_out_belong_to_others(self) -> None:
        coroutine = Diary().job(0)()
        throttler: Throttler[JobOf[object], object] = Throttler([coroutine])
        assert throttler.remaining() == [coroutine]
        await throttler.aclose()
        assert await coroutine == 0

    async def test_those_that_are_under_way_elsewhere_go_on(self) -> None:
        async def job() -> int:
            await anyio.sleep(1)
            return 1

        coroutine = job()
        found: list[int] = []

        async def use() -> None:
            found.append(await coroutine)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(use)
            await wait_idle()
            await Throttler([coroutine]).aclose()

        assert found == [1]


@pytest.mark.parametrize("blow", BLOWS)
def test_wherever_it_is_cut_off_the_source_is_closed_in_the_end(blow: Blow) -> None:
    runs: list[Source] = []

    async def scenario(victim: Victim) -> None:
        diary = Diary()
        jobs = diary.jobs(4, seconds=1)
        jobs.insert(1, diary.job("bounces", errors=[ThrottleException(retry_after=2)]))
        source = Source(jobs, step=0.25)
        runs.append(source)
        throttler: Throttler[JobOf[object], object] = Throttler(
            source.items, diary.consumer(0.5), concurrency=2
        )

        async def use() -> None:
            async with throttler:
                await throttler.run()

        with anyio.fail_after(1000):
            await victim.run(use())
            # Perhaps it was cut off before it began.
            await throttler.aclose()

        assert source.closed
        assert len(source.ends) == source.begun
        left = [job for job in jobs if job in throttler.remaining()]
        assert len(diary.consumed) + len(left) + len(source.left) == len(jobs)

    assert sweep_with(blow, scenario) > 10
    gc.collect()
