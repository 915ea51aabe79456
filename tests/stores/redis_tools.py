"""What the tests of Redis servers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from anythrottle import StoreError
from anythrottle.stores.exchange import Push, Reply, Request
from anythrottle.stores.redis_links import Client
from anythrottle.stores.redis_script import Script
from anythrottle.stores.redis_server import RedisServer
from tests.stores.servers import HOST, Server

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

#: Counts the exchanges, and answers with that number for the instant, and the node for the epoch.
SCRIPT = Script.of(
    """
    local calls = redis.call('HINCRBY', KEYS[1], 'calls', 1)
    return {'done', '', 0, 0, 0, 0, ARGV[2], calls, 0, 0, 0, 0, 0, 0}
    """
)

#: A push without grants, which pauses until the instant.
PUSH = "0 epoch 1 {until} 0 0 0 0 0"


def store(server: Client | str, *, prefix: str = "test", deadline: float = 20.0) -> RedisServer:
    """Return a server that is waited for long enough, unless it is waited for in vain."""
    return RedisServer(server, prefix, deadline, script=SCRIPT)


def request(node: str = "node") -> Request:
    return Request(
        rules="",
        node=node,
        number=1,
        epoch="",
        fresh="",
        expires=0,
        grace=0,
        horizon=0,
        lease=0,
        hold_back=0,
        alive=False,
        holds=False,
        census=(0, 0, 0),
        count_all=False,
        probe=(),
        received=(),
        wants=(),
        happenings=(),
    )


async def calls(server: RedisServer, name: str = "api") -> int:
    """Make an exchange; return how many there were."""
    reply = await server.exchange(name, request())
    return reply.news.now


async def again(server: RedisServer, name: str = "api") -> Reply:
    """Make an exchange, again and again until it is answered."""
    while True:
        try:
            return await server.exchange(name, request())
        except StoreError:
            await anyio.sleep(0.02)


async def until(true: Callable[[], object]) -> None:
    while not true():
        await anyio.sleep(0.01)


def published(server: Server, channel: str, message: str) -> int:
    """Publish a message; return how many have got it."""
    return int(server.ask("SPUBLISH", channel, message))


class Heard(list[Push]):
    """The pushes that have come."""

    async def hears(self, server: Server, channel: str) -> None:
        """Publish until it is heard here: what is sent while the connection is broken is lost."""
        count = len(self)
        while len(self) == count:
            published(server, channel, PUSH.format(until=count))
            with anyio.move_on_after(0.1):
                while len(self) == count:
                    await anyio.sleep(0.005)


#: What the fakes say of themselves, as a server of Redis 7 does.
HELLO = b"%3\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n"


@asynccontextmanager
async def fake(*answers: bytes, hello: bytes = HELLO) -> AsyncIterator[str]:
    """Serve on a port what gives the same answers in turn, after the first; yield its URL."""

    async def serve(client: SocketStream) -> None:
        async with client:
            try:
                await client.receive()
                await client.send(hello)
                for answer in cycle(answers):
                    await client.receive()
                    await client.send(answer)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async with (
        await anyio.create_tcp_listener(local_host=HOST) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield f"redis://{HOST}:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610 - no SQL
        tasks.cancel_scope.cancel()


def run(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run an async function on a loop."""
    anyio.run(main, backend=backend)
