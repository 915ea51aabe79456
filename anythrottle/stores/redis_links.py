"""
Connections of our own to servers that speak the protocol of Redis, by coredis.

No other module imports coredis. This one uses a client's settings, and what it knows of its
servers, but not its pool of connections. A connection that breaks while it is on loan is lost to
that pool, and so is one whose making is cancelled: when all 64 are, its users wait for ever.
Besides, a call by way of client and pool costs half as much again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol, TypeAlias, cast, final

import anyio
import coredis
from anyio.abc import TaskGroup, TaskStatus
from coredis.connection import (
    BaseConnection,
    BaseConnectionParams,
    SentinelManagedConnection,
    TCPConnection,
    TCPLocation,
    UnixDomainSocketConnection,
)
from coredis.exceptions import (
    AskError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
)
from coredis.exceptions import ConnectionError as NotConnected
from coredis.pool import ClusterConnectionPool, ConnectionPool, SentinelConnectionPool
from coredis.typing import Key, RedisValueT

from .redis_faults import OneOfMany, TooOld, check_version, plainer
from .redis_link import Link, close_streams
from .redis_script import Script
from .redis_urls import unreadable
from .turnstile import Turnstile

__all__ = (
    "Client",
    "Connection",
    "Links",
    "NotConnected",
    "Place",
    "RedisError",
    "is_client",
    "servers_of",
)

#: A client that is a user's own.
Client: TypeAlias = (
    coredis.Redis[bytes]
    | coredis.Redis[str]
    | coredis.RedisCluster[bytes]
    | coredis.RedisCluster[str]
)

#: A connection to a server.
Connection: TypeAlias = BaseConnection

_Pool: TypeAlias = ConnectionPool[TCPConnection] | ConnectionPool[UnixDomainSocketConnection]

#: Where a server is; ``None`` if there is only one to ask.
Place: TypeAlias = TCPLocation | None

#: How often a command may be sent, because a server lacks the script or names another server.
_ATTEMPTS = 5


class Servers(Protocol):
    """The servers of a client: which there are, and how they are connected to."""

    def place_of(self, key: str) -> Place:
        """Return where a key, or a channel, is kept."""
        ...

    async def connection(self, place: Place) -> Connection:
        """Return a new connection, which has not begun."""
        ...

    def failed(self, place: Place, error: RedisError) -> None:
        """Note an error of the server at a place: keys may have gone elsewhere."""
        ...


def is_client(value: object) -> bool:
    """Return whether something is a client of coredis."""
    return isinstance(value, coredis.Redis | coredis.RedisCluster)


def servers_of(client: Client | str) -> Servers:
    """
    Return the servers of a client, or the one at a URL.

    :raises RuntimeError: if the client is a cluster's and was not entered
    :raises ValueError: if a file that the URL names cannot be read

    """
    pool = _pool_of(client) if isinstance(client, str) else client.connection_pool
    if isinstance(pool, ClusterConnectionPool):
        return _Cluster(pool)

    return _Sentinel(pool) if isinstance(pool, SentinelConnectionPool) else _Alone(pool)


def _pool_of(url: str) -> _Pool:
    try:
        return ConnectionPool.from_url(url, decode_components=True)
    except OSError as error:
        raise unreadable(url, error) from error


class _OneServer:
    """A single server, which keeps all keys."""

    __slots__ = ()

    def place_of(self, key: str) -> Place:  # noqa: ARG002 - as is said
        return None

    def failed(self, place: Place, error: RedisError) -> None:
        """Do nothing: there is no other to ask."""


class _Alone(_OneServer):
    """A server that is always at the same place."""

    __slots__ = ("_params", "_pool")

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._params = _params(pool.connection_kwargs)

    async def connection(self, place: Place) -> Connection:  # noqa: ARG002 - there is one
        make = cast("Callable[..., Connection]", self._pool.connection_class)
        return make(self._pool.location, **self._params)


class _Sentinel(_OneServer):
    """The primary that a Sentinel names, each time anew."""

    __slots__ = ("_params", "_pool")

    def __init__(self, pool: SentinelConnectionPool) -> None:
        self._pool = pool
        self._params = _params(pool.connection_kwargs)

    async def connection(self, place: Place) -> Connection:  # noqa: ARG002 - there is one
        location = await self._pool.get_primary_location()
        name = self._pool.service_name
        return SentinelManagedConnection(location, name, is_primary=True, **self._params)


class _Cluster:
    """The servers of a cluster, each of which keeps some of the keys."""

    __slots__ = ("_layout", "_params", "_pool")

    def __init__(self, pool: ClusterConnectionPool) -> None:
        self._pool = pool
        self._layout = pool.cluster_layout
        self._params = _params(pool.connection_kwargs)
        if not self._layout.nodes:
            raise RuntimeError(
                "the client knows no server of its cluster: enter it before the store"
            )

    def place_of(self, key: str) -> Place:
        node = self._layout.node_for_slot(Key(key).slot)
        return TCPLocation(node.host, node.port)

    async def connection(self, place: Place) -> Connection:
        assert place is not None
        return self._pool.connection_class(place, **self._params)

    def failed(self, place: Place, error: RedisError) -> None:
        assert place is not None
        # After the second error, a task of the pool asks again which server keeps what.
        self._layout.report_errors(self._layout.node_for_location(place), error)


def _params(params: BaseConnectionParams) -> BaseConnectionParams:
    """Return the settings of a connection that waits for answers and pushes, however long."""
    params = params.copy()
    params["noreply"] = False
    params["decode_responses"] = False
    params["encoding"] = "utf-8"
    params["max_idle_time"] = None
    params.pop("processing_budget", None)  # shared by the connections of the pool
    return params


#: The part of the time that a server may take within which a connection has to stand: a little less
#: than all, so that its users are told why it does not before they give up.
_IN_TIME = 0.9


@final
class _Opening(TaskStatus[None]):
    """A connection that is being made, for so many seconds at most, and what became of it."""

    __slots__ = ("_connection", "_ended", "_error", "_running", "_scope", "_timeout", "done")

    def __init__(self, timeout: float) -> None:
        self.done = anyio.Event()
        self._timeout = timeout
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + timeout)
        self._running = anyio.CancelScope(shield=True)
        self._connection: Connection | None = None
        self._error: Exception | None = None
        self._ended = False

    async def run(self, servers: Servers, place: Place) -> None:
        """
        Make the connection, and keep it until it ends.

        It ends with this task, if it does not break before. Nothing is raised: coredis turns
        some cancellations into errors, and errors are for the tasks in :meth:`wait`.
        """
        connection = None
        try:
            with self._scope:
                connection = self._connection = await servers.connection(place)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._end, connection)
                    await self._keep(connection)
                    tasks.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - see wait()
            self._error = error
        finally:
            if connection is not None:
                close_streams(connection)

            if not self.done.is_set():
                self._fail(servers, place)

    async def _keep(self, connection: Connection) -> None:
        with self._running:
            try:
                await connection.run(task_status=self)
            except Exception as error:  # noqa: BLE001 - see wait()
                # Unless it was ended here, the server has ended it.
                self._error = error if self._ended else plainer(error)

    async def _end(self, connection: Connection) -> None:
        """End a connection when this is cancelled, in such a way that coredis logs nothing."""
        try:
            await anyio.sleep_forever()
        finally:
            self._ended = True
            if connection.stream is None or self.done.is_set():
                self._running.cancel()
            else:
                # If it were cancelled while the server is greeted, coredis would log an error, with
                # a traceback, as if the fault were its own.
                with anyio.CancelScope(shield=True):
                    await connection.stream.aclose()

    def started(self, value: None = None) -> None:  # noqa: ARG002 - coredis says nothing
        """Note that the connection stands: coredis calls this."""
        self._scope.deadline = inf
        self.done.set()

    def _fail(self, servers: Servers, place: Place) -> None:
        if self._scope.cancel_called:
            self._error = TimeoutError(f"no answer within {self._timeout:g} s")

        # A cluster's client asks which server serves instead only after errors of this kind.
        servers.failed(place, NotConnected(str(self._error)))
        self.done.set()

    async def wait(self) -> Connection:
        """Return the connection when it stands, or raise why it does not."""
        await self.done.wait()
        connection = self._connection
        if connection is None or not connection.usable:
            raise self._error or NotConnected("the connection has ended at once")

        try:
            check_version(connection.server_version or "")
        except TooOld:
            connection.invalidate()
            raise

        return connection


@final
class Links:
    """
    A connection to each server that is asked, made when it is needed, and again when it breaks.

    :param tasks: the task group in which the connections run; they end when it is cancelled
    :ivar servers: the servers
    :ivar timeout: for how long a server may take to answer a connection, in seconds

    """

    __slots__ = ("_links", "_openings", "_tasks", "_turnstiles", "servers", "timeout")

    def __init__(self, servers: Servers, tasks: TaskGroup, timeout: float) -> None:
        self.servers = servers
        self._tasks = tasks
        self.timeout = timeout
        self._links = dict[Place, Link[Connection]]()
        self._openings = dict[Place, _Opening]()
        self._turnstiles = defaultdict[Place, Turnstile](Turnstile)

    def turnstile(self, key: str) -> Turnstile:
        """Return where requests wait for the server that keeps a key."""
        return self._turnstiles[self.servers.place_of(key)]

    async def evaluate(self, script: Script, key: str, args: Sequence[RedisValueT]) -> object:
        """
        Return what a script answers.

        A task that is cancelled here leaves the connection to others. The connection is broken when
        it owes answers and delivers none for as long as a server may take.

        :param key: the key that decides which server is asked
        :raises ~coredis.exceptions.RedisError: if it was not carried out, or there is no answer
        :raises TimeoutError: if a server takes a connection and does not answer

        """
        return await self._ask(script, key, b"EVALSHA", script.sha, 1, key, *args)

    async def delete(self, *keys: str) -> None:
        """Delete keys that one server keeps."""
        await self._ask(None, keys[0], b"UNLINK", *keys)

    async def open(self, place: Place) -> Connection:
        """Return a new connection to a place, which the caller does not share."""
        opening = _Opening(self.timeout * _IN_TIME)
        self._tasks.start_soon(opening.run, self.servers, place)
        return await opening.wait()

    async def _ask(
        self, script: Script | None, key: str, command: bytes, *args: RedisValueT
    ) -> object:
        """Return the answer of the server that keeps a key; send it the script if it lacks that."""
        place = self.servers.place_of(key)
        asking = False
        attempt = 0
        while True:
            attempt += 1
            link = self._links.get(place)
            if link is None or not link.connection.usable:
                link = await self._connect(place)

            try:
                if asking:  # it holds for the next command alone, so nothing may come between
                    _ = link.connection.create_request(b"ASKING")

                return await link.answer(
                    link.connection.create_request(command, *args, decode=True)
                )
            except NoScriptError:
                if attempt == _ATTEMPTS or script is None:
                    raise

                load = link.connection.create_request(b"SCRIPT LOAD", script.text, decode=True)
                _ = await link.answer(load)
            except AskError as error:
                if place is None:
                    raise OneOfMany("the server is one of a cluster") from error

                if attempt == _ATTEMPTS:
                    raise

                self.servers.failed(place, error)
                asking = not isinstance(error, MovedError)
                place = TCPLocation(error.host, error.port)
            except ReadOnlyError:
                # The server was the primary once. The next connection goes to the present one.
                link.connection.invalidate()
                raise

    async def _connect(self, place: Place) -> Link[Connection]:
        """Return the shared connection; it goes on being made if a task that waits is cancelled."""
        opening = self._openings.get(place)
        if opening is None or opening.done.is_set():
            opening = self._openings[place] = _Opening(self.timeout * _IN_TIME)
            self._tasks.start_soon(opening.run, self.servers, place)

        connection = await opening.wait()
        link = self._links.get(place)
        if link is None or link.connection is not connection:
            if link is not None:
                link.close()
            link = Link(connection, self._tasks, self._turnstiles[place], self.timeout)
            self._links[place] = link

        return link
