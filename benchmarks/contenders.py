"""
The limiters that ``compared`` compares, each in the configuration that its own texts recommend.

Where they recommend none, it is the one that keeps the limit best. What can be said of a package
only by reading its documentation is said here.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from .turns import (
    AMPLE,
    Turn,
    aiolimiter_acquire,
    asyncio_throttle_acquire,
    asynciolimiter_leaky,
    asynciolimiter_wait,
    by_hand,
    by_hand_bare,
    in_turn,
    limits_acquire,
    one,
    our_bare,
    our_calls,
    our_units,
    pyrate_acquire,
    pyrate_calls,
    pyrate_limiter,
    pyrate_units,
    throttled_limit,
    throttler_enter,
    token_throttle_bare,
    token_throttle_calls,
    token_throttle_units,
    turn,
)


@dataclass(frozen=True)
class Contender:
    """
    A limiter, as it is compared.

    :ivar name: its row
    :ivar package: the distribution it comes with; empty, if it is written by hand
    :ivar modules: the packages that may read the clock
    :ivar how: what makes it, for 20 calls per 2 seconds
    :ivar calls: makes a turn for a limit and a window
    :ivar bare: makes the call whose cost is measured, for an ample limit; ``None`` if each waits
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
    bare: Callable[[], Callable[[], Awaitable[object]]] | None = None
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
        shares="Redis, Valkey",
    )


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
        how="Limiter(20 / 2), an even pace",
        calls=lambda limit, window: turn(one(asynciolimiter_wait(limit, window))),
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
