"""The servers of ASGI applications, each in this process, and raw requests to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import uvicorn
from anyio.abc import SocketStream
from granian.server.embed import Server as Granian

from tests.integrations.sockets import serving
from tests.stores.servers import free_port


@asynccontextmanager
async def uvicorn_serving(app: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(app, port=free_port(), log_level="critical", ws="wsproto")
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as task_group:
        # Not serve(), which would take the signals of the tests.
        task_group.start_soon(server._serve)
        while not server.started:
            await anyio.sleep(0.01)

        try:
            yield f"http://127.0.0.1:{config.port}/"
        finally:
            server.should_exit = True


@asynccontextmanager
async def granian_serving(app: Any) -> AsyncIterator[str]:
    port = free_port()
    interface: Any = "asgi"
    server: Any = Granian(app, port=port, interface=interface, log_enabled=False)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(server.serve)
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", port)
            except OSError:
                await anyio.sleep(0.01)
            else:
                await stream.aclose()
                break

        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.stop()


class Kind(NamedTuple):
    """A kind of server, and the event loop that it runs on."""

    backend: str
    serving: Callable[[Any], AbstractAsyncContextManager[str]]


SERVERS = {
    "hypercorn on asyncio": Kind("asyncio", partial(serving, backend="asyncio")),
    "hypercorn on Trio": Kind("trio", partial(serving, backend="trio")),
    "uvicorn": Kind("asyncio", uvicorn_serving),
    "granian": Kind("asyncio", granian_serving),
}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[SocketStream]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with await anyio.connect_tcp(parts.hostname, parts.port) as stream:
        yield stream


async def head_of(stream: SocketStream) -> tuple[int, dict[str, str]]:
    """Receive an answer up to the end of its headers; return its status, and them."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive()

    first, *lines = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in named}


async def open_websocket(url: str) -> tuple[int, dict[str, str]]:
    """Ask for a websocket; return the status of the answer, and its headers."""
    async with connected(url) as stream:
        await stream.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        return await head_of(stream)
