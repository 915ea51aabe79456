"""Throttled clients over real sockets, in real time: but nothing depends on how fast that is."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from anythrottle import RateLimiter
from tests.integrations.sockets import serving
from tests.integrations.tools import LIBRARIES, Library, held

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

#: How long a call is on its way to the server, and its answer's body after the headers.
LATENCY, BODY = 0.06, 0.2

Message = dict[str, Any]


@dataclass
class ExactServer:
    """An ASGI app that counts an exact window at instants of its own, and refuses what is more."""

    limit: int
    window: float
    tells: bool = False
    counted: list[float] = field(default_factory=list)
    refused: int = 0
    #: How many of the first calls are refused whatever the window.
    refuses: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(20261130))  # noqa: S311

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            for _ in ("startup", "shutdown"):
                await send({"type": f"{(await receive())['type']}.complete"})

            return

        await anyio.sleep(self.chance.uniform(0, LATENCY))
        allowed = self.count(time.monotonic())
        headers = [(b"retry-after", b"0.2")] if not allowed else []
        if self.tells:
            headers.append((b"ratelimit-policy", b'"a";q=%d;w=%g' % (self.limit, self.window)))

        status = 200 if allowed else 429
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await anyio.sleep(self.chance.uniform(0, BODY))
        await send({"type": "http.response.body", "body": b"last"})

    def count(self, now: float) -> bool:
        """Count a call, if there are not too many in the window that ends now."""
        passed = len([at for at in self.counted if at > now - self.window])
        if passed >= self.limit or self.refused < self.refuses:
            self.refused += 1
            return False

        self.counted.append(now)
        return True


@asynccontextmanager
async def client_of(library: Library, limiter: Any, **options: Any) -> AsyncIterator[Any]:
    transport = library.ours.ThrottledTransport(
        library.module.AsyncHTTPTransport(), limiter, **options
    )
    async with library.module.AsyncClient(
        transport=transport, trust_env=False, timeout=900
    ) as client:
        yield client


async def get(client: Any, url: str, statuses: list[int]) -> None:
    answer = await client.get(url)
    assert answer.content == b"first last"
    statuses.append(answer.status_code)


@both_backends
def test_a_text_is_exact_at_the_server(backend: str) -> None:
    async def sixty(library: Library) -> None:
        server = ExactServer(20, 2)
        statuses: list[int] = []
        async with (
            serving(server, backend) as url,
            client_of(library, "20/2s") as client,
            anyio.create_task_group() as task_group,
        ):
            for _ in range(60):
                task_group.start_soon(get, client, url, statuses)

        assert (server.refused, statuses) == (0, [200] * 60)

    async def main() -> None:
        async with anyio.create_task_group() as task_group:
            for library in LIBRARIES.values():
                task_group.start_soon(sixty, library)

    anyio.run(main, backend=backend)


@both_backends
def test_limits_that_are_learned_are_exact_too(library: Library, backend: str) -> None:
    async def main() -> None:
        server = ExactServer(20, 0.5, tells=True)
        statuses: list[int] = []
        limiter = RateLimiter()
        async with (
            serving(server, backend) as url,
            client_of(library, limiter, learn=True) as client,
            anyio.create_task_group() as task_group,
        ):
            for _ in range(50):
                task_group.start_soon(get, client, url, statuses)

        assert (server.refused, statuses) == (0, [200] * 50)
        assert held(limiter) == 0

    anyio.run(main, backend=backend)


@both_backends
def test_refusals_go_again(library: Library, backend: str) -> None:
    async def main() -> None:
        server = ExactServer(10_000, 1, refuses=5)
        statuses: list[int] = []
        limiter = RateLimiter(concurrency=4)
        async with (
            serving(server, backend) as url,
            client_of(library, limiter, max_throttles=6) as client,
            anyio.create_task_group() as task_group,
        ):
            for _ in range(12):
                task_group.start_soon(get, client, url, statuses)

        assert (server.refused, statuses) == (5, [200] * 12)
        assert held(limiter) == 0

    anyio.run(main, backend=backend)


@both_backends
def test_who_is_cut_off_leaves_nothing_behind(library: Library, backend: str) -> None:
    """In the line, before the headers, half-read, closed by another task."""
    limiter = RateLimiter(concurrency=4)
    chance = random.Random(7)  # noqa: S311

    async def cut_off(client: Any, url: str) -> None:
        with anyio.move_on_after(chance.uniform(0, 0.5)):
            await client.get(url)

    async def half_read(client: Any, url: str, task_group: Any) -> None:
        answer = await client.send(client.build_request("GET", url), stream=True)
        task_group.start_soon(answer.aclose)

    async def main() -> None:
        async with (
            serving(ExactServer(10_000, 1), backend) as url,
            client_of(library, limiter) as client,
        ):
            async with anyio.create_task_group() as task_group:
                for _ in range(20):
                    task_group.start_soon(cut_off, client, url)
                    task_group.start_soon(half_read, client, url, task_group)

            assert held(limiter) == 0
            statuses: list[int] = []
            await get(client, url, statuses)
            assert statuses == [200]
            pool = client._transport._transport._pool
            assert all(connection.is_idle() for connection in pool.connections)

    anyio.run(main, backend=backend)


@both_backends
def test_what_never_left_is_given_back(library: Library, backend: str) -> None:
    """Nobody listens there any more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = "http://{}:{}/".format(*listener.getsockname())

    async def main() -> None:
        limiter = RateLimiter("2/h end", concurrency=1)
        async with client_of(library, limiter) as client:
            for wrong in (url, "gopher://127.0.0.1/"):
                with pytest.raises(
                    (library.module.ConnectError, library.module.UnsupportedProtocol)
                ):
                    await client.get(wrong)

        assert limiter.peek().remaining == 2
        assert held(limiter) == 0

    anyio.run(main, backend=backend)
