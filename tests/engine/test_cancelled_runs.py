"""A run that is cancelled starts nothing more, and can be cancelled whatever its jobs do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anythrottle import (
    RateLimiter,
    ThrottleException,
    Throttler,
    amap,
    amap_outcomes,
    first,
    for_each,
)
from tests.engine.mine import Mine

Func: TypeAlias = Callable[[int], Awaitable[None]]

#: So many that none of the runs here could start them all by chance.
MANY = 300


def generated() -> Iterator[int]:
    yield from range(MANY)


async def produced() -> AsyncIterator[int]:
    for number in range(MANY):
        yield number


async def by_outcomes(func: Func, items: Any, **options: Any) -> None:
    async with amap_outcomes(func, items, **options) as outcomes:
        async for _ in outcomes:
            pass


async def by_throttler(func: Func, items: Any, **options: Any) -> None:
    jobs = [partial(func, number) for number in range(MANY)]
    await Throttler(jobs, limiter=options.pop("limiter", RateLimiter()), **options).run()


RUNS = [
    pytest.param(run, items, id=f"{run.__name__}-{name}")
    for run in (amap, for_each, first, by_outcomes, by_throttler)
    for name, items in (("list", lambda: range(MANY)), ("gen", generated), ("agen", produced))
    if run is not by_throttler or name == "list"
]

OPTIONS: list[Any] = [
    pytest.param(dict, id="free"),
    pytest.param(lambda: {"concurrency": 200}, id="slots"),
    pytest.param(lambda: {"concurrency": anyio.CapacityLimiter(200)}, id="shared"),
    pytest.param(lambda: {"limiter": RateLimiter(f"{MANY}/s")}, id="rate"),
    pytest.param(lambda: {"limiter": RateLimiter(fast_acquire=True)}, id="fast"),
    pytest.param(lambda: {"limiter": Mine(RateLimiter())}, id="mine"),
    pytest.param(lambda: {"observer": lambda _: None}, id="observed"),
]


@pytest.mark.timing
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("call", "items"), RUNS)
class TestByScope:
    async def test_from_the_step_on_in_which_it_is_cancelled(
        self, call: Any, items: Any, options: Any
    ) -> None:
        """It is another task that cancels, while jobs begin one by one."""
        begun: list[int] = []

        async def func(number: int) -> None:
            begun.append(number)
            await anyio.sleep(60)

        async def cancel() -> None:
            while len(begun) < 5:
                await checkpoint()

            task_group.cancel_scope.cancel()
            so_far.extend(begun)

        so_far: list[int] = []
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(cancel)
            await call(func, items(), **options())

        assert begun == so_far == list(range(len(begun)))

    async def test_by_a_job_that_never_suspends(self, call: Any, items: Any, options: Any) -> None:
        begun: list[int] = []

        async def func(number: int) -> None:
            begun.append(number)
            if len(begun) == 3:
                scope.cancel()

            if call is first:
                raise OSError

        with anyio.CancelScope() as scope:
            await call(func, items(), **options())

        assert scope.cancelled_caught
        assert len(begun) == 3


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("call", "items"), RUNS)
def test_natively_at_most_one_more_for_each_worker(call: Any, items: Any, options: Any) -> None:
    begun: list[int] = []
    at_work: set[object] = set()

    async def func(number: int) -> None:
        begun.append(number)
        at_work.add(asyncio.current_task())
        if len(begun) == 3:
            host[0].cancel()

        if call is first:
            raise OSError

    async def main() -> None:
        host.append(asyncio.ensure_future(call(func, items(), **options())))
        with pytest.raises(asyncio.CancelledError):
            await host[0]

    host: list[asyncio.Future[object]] = []
    asyncio.run(main())
    assert len(begun) <= 3 + len(at_work)


class TestNoTaskStartsAnotherBeforeItsFirstCheckpoint:
    @pytest.mark.timing
    @pytest.mark.parametrize(("call", "items"), RUNS)
    async def test_jobs_without_a_limit_begin_one_by_one_in_order(
        self, call: Any, items: Any
    ) -> None:
        begun: list[int] = []
        turns: list[int] = []

        async def func(number: int) -> None:
            begun.append(number)
            await anyio.sleep(0.01)
            if call is first and len(begun) < MANY:
                raise OSError

        async def watch() -> None:
            while len(begun) < MANY:
                turns.append(len(begun))
                await checkpoint()

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(watch)
            await call(func, items())

        assert begun == list(range(MANY))
        assert max(b - a for a, b in pairwise(turns)) <= 2
        # A worker that is made waits for one more pass before it starts its job, and another.
        assert len(turns) > 1.5 * MANY

    async def test_retries_at_once_can_be_cancelled(self) -> None:
        async def fail(_: int) -> None:
            raise OSError

        await cancelled_from_outside(partial(for_each, fail, [1], retry_on=lambda _: 0))

    async def test_pauses_of_nothing_can_be_cancelled(self) -> None:
        async def throttled(_: int = 0) -> None:
            raise ThrottleException(retry_after=0)

        limiter = RateLimiter(fast_acquire=True)
        await cancelled_from_outside(partial(amap, throttled, [1], limiter=limiter))
        await cancelled_from_outside(partial(limiter.run, throttled))

    async def test_jobs_that_cannot_be_admitted_let_others_run(self) -> None:
        """Each of them has become impossible since its cost was checked."""
        limiter = RateLimiter("9/s", fast_acquire=True)
        turns: list[int] = []
        failed: list[int] = []

        async def watch() -> None:
            while len(failed) < MANY:
                turns.append(len(failed))
                await checkpoint()

        def cost(number: int) -> int:
            if not number:
                limiter.reconfigure("5/s")

            return 9 if number < MANY else 1

        async def func(_: int) -> None: ...

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(watch)
            async with amap_outcomes(func, range(MANY), limiter=limiter, cost=cost) as outcomes:
                async for outcome in outcomes:
                    assert isinstance(outcome.error, ValueError)
                    failed.append(outcome.index)

        assert failed == list(range(MANY))
        assert len(turns) > MANY / 10


async def cancelled_from_outside(run: Callable[[], Awaitable[object]]) -> None:
    """Cancel a run after some passes of the event loop."""

    async def cancel() -> None:
        for _ in range(20):
            await checkpoint()

        task_group.cancel_scope.cancel()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(cancel)
        await run()
        raise AssertionError("it was not cancelled")
