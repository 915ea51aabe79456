"""A server that speaks the protocol of Redis, as stores see it."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import cast, final

import anyio
from anyio import AsyncContextManagerMixin

from .exchange import Push, Reply, Request
from .lua import script
from .redis_advice import fault
from .redis_channels import Channels
from .redis_links import Client, Links, is_client, servers_of
from .redis_script import Script
from .redis_urls import redis_url
from .settings import MOST_POLICIES
from .turnstile import Turnstile
from .wire import push_of, reply_of, request_args

_logger = logging.getLogger("anythrottle")

#: A limiter's keys, by what follows the first one's name: windows, processes, the queue, leases,
#: processes that hold something, and silent ones.
_PARTS = ("", *(f":w{i}" for i in range(MOST_POLICIES)), ":n", ":q", ":a", ":h", ":s")


@final
class RedisServer(AsyncContextManagerMixin):
    """
    A Redis or Valkey server, or a cluster of them, to which limiters talk by a script.

    Constructing it touches neither network nor event loop. While it is entered it keeps one
    connection for commands and one that listens, each from the first use on, in a cluster with each
    server that is needed.

    :param server: a URL (``redis://``, ``rediss://``, ``valkey://``, ``valkeys://``, ``unix://``),
        or a client, which its owner enters, before this and for longer
    :param prefix: what the names of all keys and channels begin with
    :param deadline: for how long the server may take to answer a new connection, in seconds
    :param script: what is carried out for each exchange, if it is not the package's own
    :raises ValueError: if ``server`` is a URL that makes no sense
    :raises TypeError: if it is neither a URL nor a client

    """

    __slots__ = ("_channels", "_deadline", "_links", "_prefix", "_script", "_server")

    def __init__(
        self, server: Client | str, prefix: str, deadline: float, *, script: Script | None = None
    ) -> None:
        if isinstance(server, str):
            server = redis_url(server)
        elif not is_client(server):
            raise TypeError(
                f"server must be a URL or a client of coredis (coredis.Redis or "
                f"coredis.RedisCluster), not {reprlib.repr(server)}"
            )

        self._server = server
        self._prefix = prefix
        self._deadline = deadline
        self._script = script
        self._links: Links | None = None
        self._channels: Channels | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[RedisServer]:
        self._script = self._script or script_of_package()
        servers = servers_of(self._server)
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            self._links = Links(servers, tasks, self._deadline)
            self._channels = Channels(self._links, tasks)
            tasks.start_soon(self._channels.run)
            try:
                yield self
            except Exception as error:  # noqa: BLE001 - it is raised below, as it was, in no group
                failure = error
            finally:
                self._links = self._channels = None
                tasks.cancel_scope.cancel()

        if failure is not None:
            raise failure

    async def exchange(self, name: str, request: Request) -> Reply:
        """
        Return the server's reply to a request.

        :raises ~anythrottle.StoreError: if it has not come; the reason says what to do
        :raises RuntimeError: if the server is not entered

        """
        links = self._entered()
        assert self._script is not None
        try:
            flat = await links.evaluate(self._script, self._key(name), request_args(request))
        except Exception as error:
            raise fault(name, error, self._prefix) from error

        return reply_of(cast("list[str | int]", flat))

    def turnstile(self, name: str) -> Turnstile:
        """
        Return where exchanges about a limiter wait until they may begin.

        :raises RuntimeError: if the server is not entered

        """
        return self._entered().turnstile(self._key(name))

    async def forget(self, name: str) -> None:
        """
        Delete all that the server knows of a limiter.

        :raises ~anythrottle.StoreError: if that cannot be said to have happened
        :raises RuntimeError: if the server is not entered

        """
        links = self._entered()
        key = self._key(name)
        try:
            await links.delete(*(key + part for part in _PARTS))
        except Exception as error:
            raise fault(name, error, self._prefix) from error

    @asynccontextmanager
    async def listen(
        self,
        name: str,
        node: str,
        on_push: Callable[[Push], None],
        on_ready: Callable[[], None],
    ) -> AsyncGenerator[None]:
        """
        Call a function with each push for a process, or for all.

        :raises RuntimeError: if the server is not entered

        """
        self._entered()
        assert self._channels is not None
        key = self._key(name)
        with (
            self._channels.listening(f"{key}:all", partial(_hand_on, "", on_push, None)),
            self._channels.listening(f"{key}:n:{node}", partial(_hand_on, node, on_push, on_ready)),
        ):
            yield

    def _entered(self) -> Links:
        if self._links is None:
            raise RuntimeError("the store is not entered: use it inside of `async with store:`")

        return self._links

    def _key(self, name: str) -> str:
        """Return a limiter's first key; its braces decide which server of a cluster keeps all."""
        return f"{{{self._prefix}:{name}}}"


def _hand_on(
    node: str,
    on_push: Callable[[Push], None],
    on_ready: Callable[[], None] | None,
    message: bytes | None,
) -> None:
    """Call ``on_push`` with a message's push; ``on_ready`` if pushes are heard from now on."""
    if message is None:
        if on_ready is not None:
            on_ready()

        return

    try:
        push = push_of(node, message.decode())
    except Exception:
        _logger.exception("a push makes no sense, and is ignored: %r", message)
    else:
        on_push(push)


@cache
def script_of_package() -> Script:
    """Return the script that carries out an exchange."""
    return Script.of(script())
