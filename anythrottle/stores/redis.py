"""Limits that are shared by all processes that use the same Redis or Valkey server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import final

from .redis_links import Client
from .redis_server import RedisServer
from .remote_limiter import RemoteRateLimiter
from .server import Server
from .settings import check_name
from .store import Store, StoreStatistics

__all__ = ("RedisRateLimiter", "RedisStore", "RedisStoreStatistics")

#: The state of a :class:`RedisStore`.
RedisStoreStatistics = StoreStatistics


@final
class RedisRateLimiter(RemoteRateLimiter):
    """
    A limiter that is shared by all processes which use its name on the same server.

    :meth:`RedisStore.limiter` makes it. It is used as a :class:`~anythrottle.RateLimiter` is, while
    its store is entered, but for three things: :meth:`peek` asks the server, and so has to be
    awaited; ``permit(max_wait=0)``, which waits for one answer, stands for ``acquire_nowait()``;
    and its policies cannot be exchanged, because they are those of all processes.
    """

    __slots__ = ()


@final
class RedisStore(Store[RedisRateLimiter]):
    """
    Makes limiters that hold across all processes, kept by a Redis or Valkey server.

    At most 20 calls in any 10 seconds, 5 at a time, however many processes there are::

        store = RedisStore("redis://localhost:6379/0")
        limiter = store.limiter("api", "20/10s end", concurrency=5)

        async def main():
            async with store:
                async with limiter:
                    ...

    Store and limiters can be globals: making them touches neither network, clock nor event loop.
    Entering the store starts the tasks that talk to the server; it may be entered again later, in
    another run too. Leaving it while the server does not answer takes as long as ``deadline``.

    It needs Redis 7 or Valkey, a single server, one with Sentinels, or a cluster; install
    ``anythrottle[redis]``.

    :param server: a URL (``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or
        ``unix://``), or a client of coredis, which its owner enters, before this
    :param prefix: what the names of all keys begin with: 1 to 200 printable characters without
        spaces and braces
    :param deadline: by when an exchange with the server is to be answered, in seconds, above 0,
        from when it is sent. In a burst, exchanges are sent as others are answered, 32 at once
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range, or ``server`` is no such URL, or has an
        option that is not known; on entering, if a file that it names cannot be read

    """

    _limiter_type = RedisRateLimiter

    def __init__(
        self, server: str | Client, *, prefix: str = "anythrottle", deadline: float = 1.0
    ) -> None:
        super().__init__(deadline=deadline)
        self._redis = RedisServer(server, check_name("prefix", prefix), deadline)

    def _open(self) -> AbstractAsyncContextManager[Server]:
        return self._redis
