"""
The limiters that ``compared`` compares, each in the configuration that its own texts recommend.

Where they recommend none, it is the one that keeps the limit best. Each makes a :class:`Turn` for
so many calls per window; for those that count them, one for calls and tokens. What can be said of
a package only by reading its documentation is said here, and dated by its version.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import anyio
import anyio.lowlevel

from anythrottle import RateLimiter, WindowTokenBucket

AMPLE = 10**9
#: A timeout of those who want one: in seconds, longer than anything here.
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


@dataclass(frozen=True)
class Contender:
    """
    A limiter, as it is compared.

    :ivar name: its row
    :ivar package: the distribution it comes with; empty, if it is written by hand
    :ivar modules: the packages that may read the clock
    :ivar how: what makes it, for 20 calls per 2 seconds
    :ivar calls: makes a turn for a limit and a window
    :ivar bare: makes the call whose cost is measured, for an ample limit
    :ivar weighted: whether calls may cost more than one
    :ivar units: makes a turn for calls, tokens and a window, whose cost is in tokens
    :ivar together: whether both units are one decision
    :ivar shares: what it can share its state by with other processes
    :ivar threads: whether it limits threads that run no event loop
    """

    name: str
    package: str
    modules: tuple[str, ...]
    how: str
    calls: Callable[[int, float], Turn]
    bare: Callable[[], Callable[[], Awaitable[object]]]
    weighted: bool = False
    units: Callable[[int, int, float], Turn] | None = None
    together: bool = False
    shares: str = ""
    threads: bool = False

    @property
    def installed(self) -> str | None:
        """The version that is installed, empty if there need be none, or ``None``."""
        if not self.package:
            return ""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


def turn(*acquires: Acquire, close: Callable[[], object] = nothing) -> Turn:
    """Make a turn of functions that are awaited before the call, one after the other."""

    @asynccontextmanager
    async def take(cost: int) -> AsyncIterator[Mark]:
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
    async def take(cost: int) -> AsyncIterator[Mark]:
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


def us(how: str, measure: str, *, marks: bool = False) -> Contender:
    return Contender(
        name=f"anythrottle, {how}",
        package="anythrottle",
        modules=("anythrottle",),
        how={
            "start": 'RateLimiter("20/2s")',
            "end": 'RateLimiter("20/2s end")',
        }[measure]
        + (", permit.mark_counted()" if marks else ""),
        calls=partial(our_calls, measure, marks),
        bare=partial(our_bare, measure, marks),
        weighted=True,
        units=partial(our_units, measure, marks),
        together=True,
    )


# By hand: each keeps its place for a window longer than its call takes.


def by_hand(limit: int, window: float) -> Turn:
    semaphore = anyio.Semaphore(limit)

    @asynccontextmanager
    async def take(_: int) -> AsyncIterator[Mark]:
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
    import asyncio_throttle

    return asyncio_throttle.Throttler(limit, window).acquire


def throttler_enter(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import throttler

    return throttler.Throttler(limit, window).__aenter__


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
    from token_throttle import (
        MemoryBackendBuilder,
        PerModelConfig,
        Quota,
        RateLimiter,
        UsageQuotas,
    )

    limiter = RateLimiter(
        PerModelConfig(
            quotas=UsageQuotas(
                [
                    Quota(metric=metric, limit=limit, per_seconds=round(window))
                    for metric, limit in quotas.items()
                ]
            )
        ),
        backend=MemoryBackendBuilder(),
    )

    @asynccontextmanager
    async def reserve(usage: dict[str, int]) -> AsyncIterator[Mark]:
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


CONTENDERS = (
    us('"20/2s"', "start"),
    us('"20/2s end"', "end"),
    us('"20/2s end", marked', "end", marks=True),
    Contender(
        name="semaphore and sleep",
        package="",
        modules=(),
        how="anyio.Semaphore(20), and sleep(2) inside of it after the call",
        calls=by_hand,
        bare=by_hand_bare,
    ),
    Contender(
        name="aiolimiter",
        package="aiolimiter",
        modules=("aiolimiter",),
        how="AsyncLimiter(20, 2)",
        calls=lambda limit, window: turn(aiolimiter_acquire(limit, window)),
        bare=lambda: partial(aiolimiter_acquire(AMPLE, 1.0), 1),
        weighted=True,
        units=in_turn(aiolimiter_acquire),
    ),
    Contender(
        name="asynciolimiter",
        package="asynciolimiter",
        modules=("asynciolimiter",),
        how="Limiter(20 / 2)",
        calls=lambda limit, window: turn(one(asynciolimiter_wait(limit, window))),
        # The regular one makes an even pace, and a call without a wait costs as this one.
        bare=lambda: asynciolimiter_leaky(AMPLE, 1.0),
    ),
    Contender(
        name="asynciolimiter, leaky",
        package="asynciolimiter",
        modules=("asynciolimiter",),
        how="LeakyBucketLimiter(20 / 2, capacity=20)",
        calls=lambda limit, window: turn(one(asynciolimiter_leaky(limit, window))),
        bare=lambda: asynciolimiter_leaky(AMPLE, 1.0),
    ),
    Contender(
        name="asyncio-throttle",
        package="asyncio-throttle",
        modules=("asyncio_throttle",),
        how="Throttler(20, 2)",
        calls=lambda limit, window: turn(one(asyncio_throttle_acquire(limit, window))),
        bare=lambda: asyncio_throttle_acquire(AMPLE, 1e-9),
    ),
    Contender(
        name="throttler",
        package="throttler",
        modules=("throttler",),
        how="Throttler(20, 2)",
        calls=lambda limit, window: turn(one(throttler_enter(limit, window))),
        # It makes room for as many as it lets through.
        bare=lambda: throttler_enter(1_000, 1e-9),
    ),
    Contender(
        name="pyrate-limiter",
        package="pyrate-limiter",
        modules=("pyrate_limiter",),
        how="Limiter(Rate(20, Duration.SECOND * 2))",
        calls=pyrate_calls,
        bare=lambda: partial(pyrate_acquire(pyrate_limiter(AMPLE, 1.0)), 1),
        weighted=True,
        units=pyrate_units,
        shares="Redis, Postgres, SQLite, shared memory",
        threads=True,
    ),
    Contender(
        name="limits",
        package="limits",
        modules=("limits",),
        how="MovingWindowRateLimiter(MemoryStorage()), and a loop that waits for hit()",
        calls=lambda limit, window: turn(limits_acquire(limit, window)),
        bare=lambda: partial(limits_acquire(AMPLE, 1.0), 1),
        weighted=True,
        units=in_turn(limits_acquire),
        shares="Redis, Memcached, MongoDB",
        threads=True,
    ),
    Contender(
        name="throttled-py",
        package="throttled-py",
        modules=("throttled",),
        how='Throttled(using="gcra", quota=per_duration(timedelta(seconds=2), 20), timeout=...)',
        calls=lambda limit, window: turn(throttled_limit(limit, window)),
        bare=lambda: partial(throttled_limit(AMPLE, 1.0), 1),
        weighted=True,
        units=in_turn(throttled_limit),
        shares="Redis",
        threads=True,
    ),
    Contender(
        name="token-throttle",
        package="token-throttle",
        modules=("token_throttle",),
        how='Quota(metric="requests", limit=20, per_seconds=2), reserve()',
        calls=token_throttle_calls,
        bare=token_throttle_bare,
        weighted=True,
        units=token_throttle_units,
        together=True,
        shares="Redis, SQLite",
        threads=True,
    ),
)
