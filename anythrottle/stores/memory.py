"""A store in this process, for tests: the ledger behind the limiters that talk to a server."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import final

import anyio
from anyio.abc import TaskGroup

from .._loops.clock import LoopClock, weakly
from .exchange import Micros, Push, Reply, Request
from .ledger import Ledger
from .remote_limiter import RemoteRateLimiter
from .store import Store
from .turnstile import Turnstile

_MICRO = 1e6


@dataclass(slots=True)
class Network:
    """
    What may go wrong between a process and a server that lives in the same process.

    :ivar delay: how long a message takes, in seconds
    :ivar jitter: by how much more it may take, in seconds; so messages overtake one another
    :ivar loss: the share of messages that are lost: requests, replies and pushes
    :ivar down: whether nothing gets through
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    down: bool = False


@final
class MemoryServer:
    """
    A server that lives in this process: any number of stores may share it.

    :param ahead: by how many seconds its clock is ahead of the first event loop's
    :param seed: what random delays and losses begin with

    :ivar network: what is between it and its clients; it may be changed at any time
    :ivar exchanges: how many requests it has carried out
    :ivar pushes: how many pushes it has sent
    """

    def __init__(self, *, ahead: float = 1e9, seed: int = 0) -> None:
        self.network = Network()
        self.ahead = ahead
        self._used = False
        self._clock = LoopClock(weakly(self._change_loops), "the server")
        self.exchanges = 0
        self.pushes = 0
        self._random = random.Random(seed)  # noqa: S311 - of a network
        self._ledgers: dict[str, Ledger] = {}
        self._listeners: dict[tuple[str, str], Callable[[Push], None]] = {}

    @property
    def ledgers(self) -> Mapping[str, Ledger]:
        """What it knows of each limiter."""
        return self._ledgers

    def flush(self) -> None:
        """Forget all."""
        self._ledgers.clear()

    def now(self) -> Micros:
        """Return what its clock shows."""
        return int((self._clock.now() + self.ahead) * _MICRO)

    @asynccontextmanager
    async def connect(self, network: Network) -> AsyncGenerator[_Connection]:
        """
        Return a connection.

        :param network: what may go wrong with it, besides
        """
        async with anyio.create_task_group() as tasks:
            try:
                yield _Connection(self, network, tasks)
            finally:
                tasks.cancel_scope.cancel()

    async def travel(self, own: Network) -> bool:
        """
        Take the time that a message takes; return whether it arrives.

        :param own: what is between the server and the store in question, besides
        """
        ways = (self.network, own)
        await anyio.sleep(sum(way.delay + self._random.random() * way.jitter for way in ways))
        return not any(way.down or self._random.random() < way.loss for way in ways)

    def _change_loops(self, shift: float) -> None:
        """Go over to a loop whose clock is ahead: the server's goes on as time does."""
        if self._used:
            self.ahead -= shift

        self._used = True

    def carry_out(self, name: str, request: Request) -> tuple[Reply, list[Push]]:
        """Carry a request out, at once."""
        now = self.now()
        self.exchanges += 1
        known = self._ledgers.pop(name, None)
        if known is not None and known.expires_at <= now:
            known = None

        ledger = known or Ledger(request, now)
        reply, pushes = ledger.exchange(request, now)
        # A request that was given up begins no state.
        if known or reply.status != "stale":
            self._ledgers[name] = ledger

        return reply, pushes

    def forget(self, name: str) -> None:
        """Forget a limiter."""
        self._ledgers.pop(name, None)

    def listen(self, name: str, node: str, on_push: Callable[[Push], None] | None) -> None:
        """Note what sends a process its pushes; ``None`` to send it none any more."""
        if on_push is None:
            self._listeners.pop((name, node), None)
        else:
            self._listeners[name, node] = on_push

    def publish(self, name: str, push: Push) -> None:
        """Send a push to the process that it is for, or to all."""
        self.pushes += 1
        for (each, node), on_push in list(self._listeners.items()):
            if each == name and push.node in ("", node):
                on_push(push)


@final
class _Connection:
    """A :class:`.Server`: the connection of one store."""

    def __init__(self, server: MemoryServer, network: Network, tasks: TaskGroup) -> None:
        self._server = server
        self._network = network
        self._tasks = tasks
        self._turnstile = Turnstile()

    def turnstile(self, name: str) -> Turnstile:  # noqa: ARG002 - it is one server
        return self._turnstile

    async def exchange(self, name: str, request: Request) -> Reply:
        server = self._server
        if not await server.travel(self._network):
            await anyio.sleep_forever()

        reply, pushes = server.carry_out(name, request)
        for push in pushes:
            server.publish(name, push)

        if not await server.travel(self._network):
            await anyio.sleep_forever()

        return reply

    async def forget(self, name: str) -> None:
        self._server.forget(name)

    @asynccontextmanager
    async def listen(
        self,
        name: str,
        node: str,
        on_push: Callable[[Push], None],
        on_ready: Callable[[], None],  # noqa: ARG002 - it is so from the beginning
    ) -> AsyncGenerator[None]:
        def send(push: Push) -> None:
            self._tasks.start_soon(self._bring, push, on_push)

        self._server.listen(name, node, send)
        try:
            yield
        finally:
            self._server.listen(name, node, None)

    async def _bring(self, push: Push, on_push: Callable[[Push], None]) -> None:
        if await self._server.travel(self._network):
            on_push(push)


@final
class MemoryRateLimiter(RemoteRateLimiter):
    """A limiter of a :class:`MemoryStore`."""

    __slots__ = ()


@final
class MemoryStore(Store[MemoryRateLimiter]):
    """
    A store without a server, for tests of programs that share limits.

    Its limiters are those of :class:`~anythrottle.stores.redis.RedisStore`, but the server lives in
    this process, by the clock of the event loop, so that virtual clocks work. Stores with the same
    server share their limits, as processes would.

    >>> import anyio
    >>> from anythrottle.stores.memory import MemoryServer, MemoryStore
    >>> server = MemoryServer()
    >>> one, other = MemoryStore(server), MemoryStore(server)
    >>> async def main():
    ...     async with one, other:
    ...         await one.limiter("api", "20/10s").acquire(19)
    ...         decision = await other.limiter("api", "20/10s").peek(2)
    ...         return decision.allowed, decision.remaining
    >>> anyio.run(main)
    (False, 1)

    :param server: what it shares with other stores; ``None`` for a server of its own
    :param deadline: by when an exchange is to be answered, in seconds

    :ivar network: what may go wrong between it and the server, besides what does for all stores;
        with ``network.down`` it is as good as dead for the others

    """

    _limiter_type = MemoryRateLimiter

    def __init__(self, server: MemoryServer | None = None, *, deadline: float = 1.0) -> None:
        super().__init__(deadline=deadline)
        self.server = server or MemoryServer()
        self.network = Network()

    def _open(self) -> AbstractAsyncContextManager[_Connection]:
        return self.server.connect(self.network)
