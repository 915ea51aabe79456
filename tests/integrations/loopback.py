"""A real server on the loopback, which answers as it is told, and clients of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
from aiohttp import web

from anythrottle import RateLimiter
from anythrottle.integrations._hosts import ClientLimiter
from anythrottle.integrations.aiohttp import ThrottledMiddleware

Answer: TypeAlias = Callable[["Loopback", web.Request], Awaitable[web.StreamResponse]]

#: How much longer than is needed for anything a test waits for what is not to come, in seconds.
SOON = 0.05


class Loopback:
    """A server that runs."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        #: Method, path and body of each request.
        self.seen: list[tuple[str, str, bytes]] = []
        #: Set: what waits goes on.
        self.go_on = asyncio.Event()
        #: The answers that are still to be given; then it is "yes".
        self.answers: deque[Answer] = deque()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, await request.read()))
        answer = self.answers.popleft() if self.answers else text()
        return await answer(self, request)

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        """Refuse a request that asks whether it may go on, once; then let it."""
        self.seen.append((request.method, request.path, b""))
        if self.answers:
            return await self.answers.popleft()(self, request)

        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None


@asynccontextmanager
async def serving() -> AsyncGenerator[Loopback]:
    server = Loopback()
    app = web.Application()
    app.router.add_route("*", "/asks", server.handle, expect_handler=server.expect)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{server.port}"
        yield server
    finally:
        server.go_on.set()
        await runner.cleanup()


@asynccontextmanager
async def client(
    server: Loopback,
    limiter: ClientLimiter,
    *,
    timeout: float | aiohttp.ClientTimeout = 20,
    **options: Any,
) -> AsyncGenerator[aiohttp.ClientSession]:
    if not isinstance(timeout, aiohttp.ClientTimeout):
        timeout = aiohttp.ClientTimeout(total=timeout)

    throttled = ThrottledMiddleware(limiter, **options)
    async with aiohttp.ClientSession(
        server.url, middlewares=(throttled,), timeout=timeout
    ) as session:
        yield session


def text(body: bytes = b"yes", status: int = 200, **headers: str) -> Answer:
    async def answer(_: Loopback, request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=named(headers))

    return answer


def refused(after: str = "0.001", body: bytes = b"no", status: int = 429) -> Answer:
    return text(body, status, retry_after=after)


def streamed(status: int = 200, *, size: int = 4, **headers: str) -> Answer:
    """Answer in two parts: the second comes when it goes on."""

    async def answer(server: Loopback, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=named(headers))
        await response.prepare(request)
        await response.write(b"x" * size)
        await server.go_on.wait()
        await response.write(b"rest")
        return response

    return answer


def late(then: Answer) -> Answer:
    """Answer only when it goes on."""

    async def answer(server: Loopback, request: web.Request) -> web.StreamResponse:
        await server.go_on.wait()
        return await then(server, request)

    return answer


def broken(status: int = 200, **headers: str) -> Answer:
    """Answer with half a body, and end the connection."""

    async def answer(_: Loopback, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            status=status, headers={**named(headers), "Content-Length": "100"}
        )
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


def named(headers: dict[str, str]) -> dict[str, str]:
    """Return headers whose names were written as arguments."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


def held(limiter: RateLimiter) -> int:
    """Return how many calls a limiter is held by."""
    return limiter.statistics().borrowed_tokens


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)
