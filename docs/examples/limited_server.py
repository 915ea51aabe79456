"""A real HTTP server that enforces a limit, for the examples; on asyncio and on Trio."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import anyio
from hypercorn.config import Config

SECONDS_PER_REQUEST = 0.05


@dataclass
class LimitedServer:
    """
    An ASGI app that echoes the path, ``limit`` times in any ``window`` seconds of its own clock.

    Beyond that it answers 429, with ``Retry-After`` in whole seconds, as HTTP wants it.
    """

    limit: int
    window: float
    allowed: list[float] = field(default_factory=list)
    refused: int = 0
    in_flight: int = 0
    most_in_flight: int = 0

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve one request, or one life of the server, as ASGI has it."""
        if scope["type"] == "lifespan":
            for _ in ("startup", "shutdown"):
                await send({"type": f"{(await receive())['type']}.complete"})
            return

        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            retry_after = self.refuse(time.monotonic())
            if not retry_after:
                await anyio.sleep(SECONDS_PER_REQUEST)
        finally:
            # Not in flight any more once it is answered: with that the client may go on.
            self.in_flight -= 1

        headers = [(b"retry-after", b"%d" % retry_after)] if retry_after else []
        status = 429 if retry_after else 200
        body = b"" if retry_after else self.page(scope["path"])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def page(self, path: str) -> bytes:
        """Return what is at a path."""
        return path.removeprefix("/").encode()

    def refuse(self, now: float) -> int:
        """Tell after how many seconds to come again, or count the request and return 0."""
        earlier = self.allowed[-self.limit :]
        if len(earlier) == self.limit and now < earlier[0] + self.window:
            self.refused += 1
            return math.ceil(earlier[0] + self.window - now)

        self.allowed.append(now)
        return 0

    def serving(self, backend: str) -> AbstractAsyncContextManager[str]:
        """Serve on a free port of this machine; return what yields the URL."""
        return serving(self, backend)


@asynccontextmanager
async def serving(app: Any, backend: str) -> AsyncIterator[str]:
    """Serve an ASGI app on a free port of this machine, and yield the URL."""
    # The port is ours, and connections may queue, before the server has started.
    listener = socket.create_server(("127.0.0.1", 0))
    url = "http://{}:{}".format(*listener.getsockname())
    config = Config.from_mapping(
        bind=f"fd://{listener.detach()}", loglevel="WARNING", graceful_timeout=0.5
    )
    serve = import_module(f"hypercorn.{backend}").serve
    stop = anyio.Event()

    async def serve_until_stopped() -> None:
        # If it were cancelled, it would leave its sockets open.
        with anyio.CancelScope(shield=True):
            await serve(app, config, shutdown_trigger=stop.wait, mode="asgi")

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(serve_until_stopped)
        try:
            yield url
        finally:
            stop.set()
