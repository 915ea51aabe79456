"""Nothing starts in a run that is cancelled, or whose caller has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anythrottle import RateLimiter, Throttler, amap, amap_outcomes, first, for_each
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.mine import Mine

pytestmark = pytest.mark.timing

Call: TypeAlias = Callable[[int], Awaitable[object]]

#: More than could start by chance.
MANY = 200


class Slowly:
    """An async iterator that has to wait for each of its items."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = iter(items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        await checkpoint()
        for item in self._items:
            return item

        raise StopAsyncIteration


#: Makes a source of items.
SOURCES: dict[str, Callable[[Iterable[object]], Any]] = {
    "list": list,
    "generator": lambda items: (item for item in items),
    "async iterator": Slowly,
}


async def by(function: Any, call: Call, source: str, **options: Any) -> None:
    await function(call, SOURCES[source](range(MANY)), **options)


async def by_outcomes(call: Call, source: str, **options: Any) -> None:
    async with amap_outcomes(call, SOURCES[source](range(MANY)), **options) as outcomes:
        async for _ in outcomes:
            pass


async def by_throttler(call: Call, source: str, **options: Any) -> None:
    jobs = SOURCES[source](partial(call, item) for item in range(MANY))
    await Throttler(jobs, **{"limiter": RateLimiter(), **options}).run()


async def turn_over(_: object) -> None:
    await checkpoint()


WAYS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "for_each": partial(by, for_each),
    "amap": partial(by, amap),
    "first": partial(by, first),
    "amap_outcomes": by_outcomes,
    "in order": partial(by_outcomes, ordered=True),
    "Throttler": by_throttler,
    "consumer": partial(by_throttler, consumer_fn=turn_over),
}

#: What limits a run; made anew for each.
LIMITS: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": dict,
    "concurrency": lambda: {"concurrency": 3},
    "shared slots": lambda: {"concurrency": anyio.CapacityLimiter(3)},
    "rate": lambda: {"limiter": "10_000/s"},
    "fast": lambda: {"limiter": RateLimiter("10_000/s", fast_acquire=True)},
    "slots": lambda: {"limiter": RateLimiter("10_000/s", concurrency=3)},
    "own": lambda: {"limiter": Mine(RateLimiter("10_000/s"))},
    "cost": lambda: {"limiter": "10_000/s", "cost": lambda _: 1},
    "observer": lambda: {"limiter": "10_000/s", "observer": lambda _: None},
}


class Calls:
    """What to call for each item; counts its starts, and those in a run that is cancelled."""

    def __init__(self, way: str, seconds: float | None, at: int = 0) -> None:
        self.starts = self.late = 0
        self.strike: Callable[[], None] = lambda: None
        self.is_over: Callable[[], bool] = lambda: False
        self._at = at
        self._seconds = seconds
        self._fails = way == "first"

    async def __call__(self, item: int) -> None:
        self.starts += 1
        self.late += self.is_over()
        if self.starts == self._at:
            self.strike()

        if self._seconds is not None:
            await anyio.sleep(self._seconds)

        if self._fails:
            raise ValueError(item)


async def after_turns(turns: int, then: Callable[[], object]) -> None:
    for _ in range(turns):
        await checkpoint()

    then()


def fail() -> None:
    raise ArithmeticError


STRIKES = ["from inside", "from inside, in turns", "from outside", "a sibling fails"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("way", WAYS)
class TestNothingStartsOnceTheRunIsCancelled:
    @pytest.mark.parametrize("strike", STRIKES)
    async def test_by_scope(self, way: str, source: str, strike: str) -> None:
        """From the step on in which the scope is cancelled."""
        for limit, options in LIMITS.items():
            # A call that strikes ends at once, and those after it would.
            seconds = {STRIKES[0]: None, STRIKES[1]: 0.0}.get(strike, 60)
            calls = Calls(way, seconds, at=5)
            with anyio.fail_after(1000):
                await self.cut_off(calls, way, source, options(), strike)

            assert (calls.late, 0 < calls.starts < MANY) == (0, True), limit

    @staticmethod
    async def cut_off(
        calls: Calls, way: str, source: str, options: dict[str, Any], strike: str
    ) -> None:
        ended = False
        try:
            async with anyio.create_task_group() as task_group:
                scope = task_group.cancel_scope
                calls.is_over = lambda: scope.cancel_called
                if strike == "a sibling fails":
                    task_group.start_soon(after_turns, 12, fail)
                elif strike == "from outside":
                    task_group.start_soon(after_turns, 12, scope.cancel)
                else:
                    calls.strike = scope.cancel

                await WAYS[way](calls, source, **options)
                ended = True
        except* ArithmeticError:
            pass

        assert not ended

    @pytest.mark.parametrize("seconds", [None, 60])
    def test_natively(self, way: str, source: str, seconds: float | None) -> None:
        """From the step on in which the run's own task has it: before, one for each worker."""

        async def main(options: dict[str, Any]) -> tuple[int, int, int]:
            calls = Calls(way, seconds, at=5)
            task = asyncio.create_task(WAYS[way](calls, source, **options))
            workers = 0

            def strike() -> None:
                nonlocal workers
                workers = sum(t.get_name() == "anythrottle worker" for t in asyncio.all_tasks())
                calls.is_over = lambda: True
                task.cancel()

            calls.strike = strike
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 1000)

            return calls.starts, calls.late, workers

        for limit, options in LIMITS.items():
            starts, late, workers = on_asyncio(main, options())
            assert starts < MANY, limit
            assert late <= workers, limit


def on_asyncio(function: Callable[..., Awaitable[Any]], *args: object) -> Any:
    return anyio.run(function, *args, backend_options={"loop_factory": VirtualEventLoop})


@pytest.mark.parametrize("seconds", [None, 0.0])
@pytest.mark.parametrize("source", SOURCES)
class TestNothingStartsOnceTheCallerHasFailed:
    @pytest.mark.parametrize("ordered", [False, True])
    async def test_in_the_block(self, ordered: bool, source: str, seconds: float | None) -> None:
        for limit, options in LIMITS.items():
            calls = Calls("amap_outcomes", seconds)
            items: Any = SOURCES[source](range(MANY))
            with anyio.fail_after(1000), suppress(ArithmeticError):
                async with amap_outcomes(calls, items, ordered=ordered, **options()) as outcomes:
                    await anext(outcomes)
                    calls.is_over = lambda: True
                    fail()

            assert (calls.late, calls.is_over(), calls.starts < MANY) == (0, True, True), limit

    async def test_in_the_consumer(self, source: str, seconds: float | None) -> None:
        for limit, options in LIMITS.items():
            calls = Calls("consumer", seconds)

            async def consume(_: object, calls: Calls = calls) -> None:
                await checkpoint()
                calls.is_over = lambda: True
                fail()

            with anyio.fail_after(1000), pytest.raises(ArithmeticError):
                await by_throttler(calls, source, consumer_fn=consume, **options())

            assert (calls.late, calls.starts < MANY) == (0, True), limit
