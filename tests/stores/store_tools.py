"""What the tests of stores on real servers share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from anythrottle import (
    LimitExceeded,
    StoreError,
)
from anythrottle.abc import Limiter
from tests.stores.redis_tools import until
from tests.stores.servers import Server

#: By when an exchange is to be answered where no test waits for that: machines may be slow.
PATIENT = 60.0

#: The same where it is waited for.
IMPATIENT = 0.5


async def passes(limiter: Limiter, most: int = 20) -> int:
    """
    Return how many calls in a row pass that must not wait for long.

    They may wait for a second answer, because on a slow machine the first may come too late.
    """
    for number in range(most):
        try:
            async with limiter.permit(max_wait=60):
                pass
        except LimitExceeded:
            return number

    return most


async def again(limiter: Limiter) -> None:
    """Take a turn, once the store answers."""
    while True:
        try:
            async with limiter.permit():
                return
        except StoreError:
            await anyio.sleep(0.02)


@asynccontextmanager
async def calling(limiter: Limiter, tasks: int) -> AsyncIterator[list[None]]:
    """Let tasks take turn after turn; yield a list of all that have begun."""
    begun: list[None] = []

    async def call() -> None:
        while True:
            await again(limiter)
            begun.append(None)

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(call)

        yield begun
        group.cancel_scope.cancel()


class Starts:
    """Calls that start, each between two instants."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.spans: list[tuple[float, float]] = []

    async def take(self, since: float | None = None) -> None:
        """Take a turn, which the server may have charged since an instant, or from now on."""
        before = anyio.current_time() if since is None else since
        async with self._limiter.permit():
            self.spans.append((before, anyio.current_time()))

    async def take_in_the_end(self) -> None:
        """
        Take a turn, again and again until the store serves it.

        What it was charged for one whose answer came too late may go to a later one.
        """
        since = anyio.current_time()
        while True:
            try:
                await self.take(since)
            except StoreError:
                await anyio.sleep(0.05)
            else:
                return

    def assert_within(self, limit: int, window: float) -> None:
        """Assert that no window has more starts for sure than it may have."""
        for first, _ in self.spans:
            there = sum(first <= a and b < first + window - 1e-4 for a, b in self.spans)
            assert there <= limit, f"{there} of {limit}: {self.spans}"


async def wait_for_listeners(server: Server, number: int) -> None:
    """Wait until so many connections listen for what the server publishes."""
    await until(
        lambda: len(server.ask("CLIENT", "LIST", "TYPE", "pubsub").split(b"\n")) - 1 >= number
    )
