"""How each limiter is made and awaited, as its own texts recommend, or else as it limits best."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

import anyio

from anythrottle import RateLimiter, WindowTokenBucket

AMPLE = 10**9
#: A timeout for limiters that want one: in seconds, longer than anything here.
LONG = 1e9

#: Tells a limiter that the server has counted the call.
Mark = Callable[[], object]
Acquire = Callable[[int], Awaitable[object]]


def nothing() -> None:
    """Take no notice of a mark."""


@dataclass(frozen=True)
class Turn:
    """
    What calls go through.

    :ivar take: an async context manager for a call of this cost, which yields the mark
    :ivar close: ends what the limiter has started besides
    """

    take: Callable[[int], AbstractAsyncContextManager[Mark]]
    close: Callable[[], object] = nothing


def turn(*acquires: Acquire, close: Callable[[], object] = nothing) -> Turn:
    """Make a turn of functions that are awaited before the call, one after the other."""

    @asynccontextmanager
    async def take(cost: int) -> AsyncGenerator[Mark]:
        for acquire in acquires:
            await acquire(cost)

        yield nothing

    return Turn(take, close)


def one(acquire: Callable[[], Awaitable[object]]) -> Acquire:
    """Make a function without a cost take one, which is not looked at."""

    async def acquire_one(_: int) -> None:
        await acquire()

    return acquire_one


# anythrottle: from the start, from the end, and from the mark


def ours(limiter: RateLimiter, *, marks: bool, unit: str | None = None) -> Turn:
    @asynccontextmanager
    async def take(cost: int) -> AsyncGenerator[Mark]:
        async with limiter.permit({unit: cost} if unit else cost) as permit:
            yield permit.mark_counted if marks else nothing

    return Turn(take)


def our_calls(measure: str, marks: bool, limit: int, window: float) -> Turn:  # noqa: FBT001 - bound by partial()
    policy = WindowTokenBucket(limit, window, measure=measure)  # type: ignore[arg-type]
    return ours(RateLimiter(policy), marks=marks)


def our_units(measure: str, marks: bool, calls: int, tokens: int, window: float) -> Turn:  # noqa: FBT001 - as above
    limiter = RateLimiter(
        WindowTokenBucket(calls, window, measure=measure),  # type: ignore[arg-type]
        WindowTokenBucket(tokens, window, unit="tokens", measure=measure),  # type: ignore[arg-type]
    )
    return ours(limiter, marks=marks, unit="tokens")


def our_bare(measure: str, marks: bool) -> Callable[[], Awaitable[object]]:  # noqa: FBT001 - as above
    limiter = RateLimiter(WindowTokenBucket(AMPLE, 1.0, measure=measure))  # type: ignore[arg-type]
    if measure == "start":
        return limiter.acquire

    async def call() -> None:
        async with limiter.permit() as permit:
            if marks:
                permit.mark_counted()

    return call


# By hand: each keeps its place for a window longer than its call takes.


def by_hand(limit: int, window: float) -> Turn:
    semaphore = anyio.Semaphore(limit)

    @asynccontextmanager
    async def take(_: int) -> AsyncGenerator[Mark]:
        async with semaphore:
            yield nothing
            await anyio.sleep(window)

    return Turn(take)


def by_hand_bare() -> Callable[[], Awaitable[object]]:
    semaphore = anyio.Semaphore(AMPLE)

    async def call() -> None:
        async with semaphore:
            await anyio.lowlevel.checkpoint()

    return call


# aiolimiter: its one class


def aiolimiter_acquire(limit: int, window: float) -> Acquire:
    import aiolimiter

    return aiolimiter.AsyncLimiter(limit, window).acquire


# asynciolimiter: its text says to take Limiter if one doesn't know which


def asynciolimiter_wait(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import asynciolimiter

    return asynciolimiter.Limiter(limit / window).wait


def asynciolimiter_leaky(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import asynciolimiter

    return asynciolimiter.LeakyBucketLimiter(limit / window, capacity=limit).wait


# asyncio-throttle and throttler: one class each that has to do with rates


def asyncio_throttle_acquire(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    from asyncio_throttle.throttler import Throttler

    return Throttler(limit, window).acquire


def throttler_enter(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import throttler

    enter: Callable[[], Awaitable[object]] = throttler.Throttler(limit, window).__aenter__
    return enter


# pyrate-limiter: a bucket in memory, and its default algorithm, the log


def pyrate_limiter(limit: int, window: float) -> Any:
    import pyrate_limiter

    return pyrate_limiter.Limiter(pyrate_limiter.Rate(limit, round(window * 1000)))


def pyrate_acquire(limiter: Any) -> Acquire:
    return partial(limiter.try_acquire_async, "service")


def pyrate_calls(limit: int, window: float) -> Turn:
    limiter = pyrate_limiter(limit, window)
    return turn(pyrate_acquire(limiter), close=limiter.close)


def pyrate_units(calls: int, tokens: int, window: float) -> Turn:
    limiters = [pyrate_limiter(limit, window) for limit in (calls, tokens)]
    count, weigh = map(pyrate_acquire, limiters)
    return turn(
        one(partial(count, 1)), weigh, close=lambda: [limiter.close() for limiter in limiters]
    )


# limits: the moving window, exact; it never waits, so this waits as its window stats say


def limits_acquire(limit: int, window: float) -> Acquire:
    from limits import RateLimitItemPerSecond
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    limiter = MovingWindowRateLimiter(MemoryStorage())
    item = RateLimitItemPerSecond(limit, round(window))

    async def acquire(cost: int = 1) -> None:
        while not await limiter.hit(item, "service", cost=cost):
            stats = await limiter.get_window_stats(item, "service")
            await anyio.sleep(max(stats.reset_time - time.time(), 0.001))

    return acquire


# throttled-py: GCRA, as in its own example of waiting


def throttled_limit(limit: int, window: float) -> Acquire:
    from throttled.asyncio import MemoryStore, RateLimiterType, Throttled, per_duration

    throttle = Throttled(
        key="service",
        timeout=LONG,
        using=RateLimiterType.GCRA.value,
        quota=per_duration(timedelta(seconds=window), limit),
        store=MemoryStore(),
    )
    return lambda cost: throttle.limit(cost=cost)


# token-throttle: reserve(), which it recommends, and what is told back is what was reserved


def token_throttle(window: float, quotas: dict[str, int]) -> Callable[[dict[str, int]], Any]:
    # Type checkers look at it as Python 3.11 would, on which it cannot be installed.
    peer: Any = import_module("token_throttle")
    limiter = peer.RateLimiter(
        peer.PerModelConfig(
            quotas=peer.UsageQuotas(
                [
                    peer.Quota(metric=metric, limit=limit, per_seconds=round(window))
                    for metric, limit in quotas.items()
                ]
            )
        ),
        backend=peer.MemoryBackendBuilder(),
    )

    @asynccontextmanager
    async def reserve(usage: dict[str, int]) -> AsyncGenerator[Mark]:
        async with limiter.reserve(usage, "model", usage_on_error=usage) as handle:
            handle.set_actual_usage(usage)
            yield nothing

    return reserve


def token_throttle_calls(limit: int, window: float) -> Turn:
    reserve = token_throttle(window, {"requests": limit})
    return Turn(lambda cost: reserve({"requests": cost}))


def token_throttle_units(calls: int, tokens: int, window: float) -> Turn:
    reserve = token_throttle(window, {"requests": calls, "tokens": tokens})
    return Turn(lambda cost: reserve({"requests": 1, "tokens": cost}))


def token_throttle_bare() -> Callable[[], Awaitable[object]]:
    reserve = token_throttle(1.0, {"requests": AMPLE})

    async def call() -> None:
        async with reserve({"requests": 1}):
            pass

    return call


def in_turn(acquire: Callable[[int, float], Acquire]) -> Callable[[int, int, float], Turn]:
    """Make two limiters, one after the other, of what knows one unit."""

    def units(calls: int, tokens: int, window: float) -> Turn:
        count, weigh = acquire(calls, window), acquire(tokens, window)
        return turn(one(partial(count, 1)), weigh)

    return units
