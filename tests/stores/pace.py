"""What tests on real time share: the conformance suite, judged only where the machine kept up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
from anyio.lowlevel import checkpoint

from anythrottle import WindowTokenBucket, abc
from anythrottle.stores.redis import RedisRateLimiter, RedisStore
from anythrottle.testing import LimiterConformance
from tests.stores.servers import HOST, Server

#: Numbers of limiters, so that no two of them have the same name.
_numbers = count()

#: The lengths of windows with which a test is tried, while the machine is too slow for it.
WINDOWS = (0.5, 1.0, 2.0, 4.0, 8.0)


class Pace:
    """
    Watches how late this process and a server are.

    :ivar late: the most by which a sleep and one answer together took too long, in seconds

    """

    def __init__(self) -> None:
        self.late = 0.0

    @asynccontextmanager
    async def watching(self, server: Server) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, server)
            yield
            tasks.cancel_scope.cancel()

    async def _watch(self, server: Server) -> None:
        async with await anyio.connect_tcp(HOST, server.port) as stream:
            while True:
                before = anyio.current_time()
                await anyio.sleep(0.005)
                await stream.send(b"PING\r\n")
                await stream.receive()
                self.late = max(self.late, anyio.current_time() - before - 0.005)


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
