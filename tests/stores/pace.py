"""The conformance suite on real time, with windows that are as long as the machine is slow."""

from __future__ import annotations

from itertools import count

from anyio.lowlevel import checkpoint

from anythrottle import WindowTokenBucket, abc
from anythrottle.stores.redis import RedisRateLimiter, RedisStore
from anythrottle.testing import LimiterConformance

#: Numbers of limiters, so that no two of them have the same name.
_numbers = count()

#: The lengths of windows with which a test is tried. On a slow machine it may fail with a short
#: one, because it allows for a part of the window; what fails with all of them is a fault.
WINDOWS = (0.5, 1.0, 2.0, 4.0, 8.0)


class RedisConformance(LimiterConformance):
    """The suite over one store, with windows of some length."""

    def __init__(self, store: RedisStore, window: float) -> None:
        self.window = window
        self.slack = window / 4
        self.resolution = window / 10
        self._store = store
        self._limiters: list[RedisRateLimiter] = []

    def make_limiter(
        self, limit: int, window: float, *, concurrency: int | None = None
    ) -> abc.Limiter:
        policy = WindowTokenBucket(limit, window)
        name = f"limiter-{next(_numbers)}"
        self._limiters.append(self._store.limiter(name, policy, concurrency=concurrency))
        return self._limiters[-1]

    async def settle_down(self) -> None:
        """Wait until the server has heard of all that other tasks have done, and they of it."""
        for _ in range(10):
            await checkpoint()

        for limiter in self._limiters:
            await limiter.peek()

        for _ in range(10):
            await checkpoint()
