"""What the tests of shared limiters share: processes, and a book of what they start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio

from anythrottle import Cost, StoreError
from anythrottle.abc import Policy
from anythrottle.stores.exchange import Micros
from anythrottle.stores.memory import MemoryRateLimiter, MemoryServer, MemoryStore
from tests.limiters.tools import tasks

SECOND = 1_000_000


class Branch:
    """A process: a store of its own, and its limiter of the name that all share."""

    def __init__(
        self, server: MemoryServer, *policies: Policy | str, deadline: float = 1.0, **options: Any
    ) -> None:
        self.server = server
        self.store = MemoryStore(server, deadline=deadline)
        self.limiter: MemoryRateLimiter = self.store.limiter("api", *policies, **options)
        #: When which calls have started, by the server's clock, and what they cost.
        self.starts: list[tuple[Micros, int]] = []
        self.errors: list[Exception] = []

    async def acquire(self, cost: int = 1, **options: Any) -> None:
        """Take a turn, and note when it starts."""
        await self.limiter.acquire(cost, **options)
        self.starts.append((self.server.now(), cost))

    async def keep_on(self, cost: int = 1) -> None:
        """Start one call after the other, as soon as each may; after an error, wait a little."""
        while True:
            try:
                await self.acquire(cost)
            except StoreError as exc:
                self.errors.append(exc)
                await anyio.sleep(0.02)

    async def try_to(self, cost: int = 1, **options: Any) -> None:
        """Take a turn, or note the error."""
        try:
            await self.acquire(cost, **options)
        except Exception as exc:  # noqa: BLE001 - whatever it is
            self.errors.append(exc)

    def permit(self, cost: Cost = 1, **options: Any) -> Any:
        """Return a permit, whatever its type."""
        return self.limiter.permit(cost, **options)

    async def call(self, seconds: float, cost: Cost = 1, **options: Any) -> None:
        """Make a call that takes a while."""
        async with self.limiter.permit(cost, **options):
            self.starts.append((self.server.now(), 1))
            await anyio.sleep(seconds)


@asynccontextmanager
async def branches(
    count: int, *policies: Policy | str, server: MemoryServer | None = None, **options: Any
) -> AsyncIterator[list[Branch]]:
    """Return so many processes that share a limiter, with their stores entered."""
    server = server or MemoryServer()
    made = [Branch(server, *policies, **options) for _ in range(count)]
    async with AsyncExitStack() as stack:
        for branch in made:
            await stack.enter_async_context(branch.store)

        yield made


def server_with(**network: float) -> MemoryServer:
    """Return a server with a network to which this happens."""
    server = MemoryServer(seed=7)
    for name, value in network.items():
        setattr(server.network, name, value)

    return server


async def crowd(made: list[Branch], seconds: float, waiters: int, cost: int = 1) -> None:
    """Let each process have so many tasks that start calls, for a while."""
    with anyio.move_on_after(seconds):
        async with tasks() as group:
            for branch in made:
                for _ in range(waiters):
                    group.start_soon(branch.keep_on, cost)


def all_starts(made: Sequence[Branch]) -> list[tuple[Micros, int]]:
    """Return what all of them have started, in order."""
    return sorted(start for branch in made for start in branch.starts)


def most_in_a_window(starts: Sequence[tuple[Micros, int]], window: float) -> int:
    """Return the most that any window holds."""
    length = round(window * SECOND)
    most = first = held = 0
    for instant, cost in starts:
        held += cost
        while starts[first][0] + length <= instant:
            held -= starts[first][1]
            first += 1

        most = max(most, held)

    return most


async def free(server: MemoryServer, *policies: Policy | str, **options: Any) -> int | None:
    """Return how much a newcomer finds to be left, by the server."""
    async with MemoryStore(server) as store:
        decision = await store.limiter("api", *policies, **options).peek()
        return decision.remaining
