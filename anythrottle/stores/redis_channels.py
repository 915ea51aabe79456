"""Connections that listen to what servers publish, made again each time they break."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing, contextmanager
from typing import TypeAlias, cast, final

import anyio
from anyio.abc import TaskGroup

from .redis_links import Connection, Links, NotConnected, Place, RedisError

_logger = logging.getLogger("anythrottle")

#: Called with each message of a channel.
Hear: TypeAlias = Callable[[bytes | None], None]

#: How long to wait before a connection is made again, in seconds: at first, and at most.
_FIRST_DELAY, _LAST_DELAY = 0.05, 1.0

#: How many channels a command names at most.
_BATCH = 200

#: After how many silent seconds a server is asked if it is still there.
_SILENCE = 10.0


@final
class _Ear:
    """A connection that listens, and the channels that it has asked for."""

    __slots__ = ("channels", "connection", "since")

    def __init__(self, connection: Connection, since: float) -> None:
        self.connection = connection
        self.since = since
        self.channels: set[str] = set()


@final
class Channels:
    """
    What is listened to, over one connection to each server that publishes any of it.

    The channels are shard channels, which only one server of a cluster publishes; without a cluster
    they are like others. Commands go over connections of their own: a subscription that succeeds
    has no answer, so that the answer to one that is refused would be taken for a command's.
    """

    __slots__ = (
        "_amiss",
        "_broken",
        "_changed",
        "_delay",
        "_ears",
        "_hears",
        "_links",
        "_tasks",
        "_told",
    )

    def __init__(self, links: Links, tasks: TaskGroup) -> None:
        self._links = links
        self._tasks = tasks
        self._hears: dict[str, list[Hear]] = {}
        self._ears: dict[Place, _Ear] = {}
        self._changed = anyio.Event()
        #: The channels whose subscriptions may not be as they have to be.
        self._amiss: set[str] = set()
        self._broken = False
        self._delay = _FIRST_DELAY
        self._told = ""

    @contextmanager
    def listening(self, channel: str, hear: Hear) -> Generator[None]:
        """
        Call a function with each message of a channel, once that is subscribed to.

        It is called with ``None`` when the channel is subscribed to, first and after each break:
        what was published before was not heard.
        """
        hears = self._hears.setdefault(channel, [])
        hears.append(hear)
        self._look_at({channel})
        try:
            yield
        finally:
            hears.remove(hear)
            if not hears:
                del self._hears[channel]
                self._look_at({channel})

    def _look_at(self, channels: AbstractSet[str]) -> None:
        """Make :meth:`run` look at the subscriptions to some channels."""
        self._amiss |= channels
        self._changed.set()

    async def run(self) -> None:
        """Keep subscribed to what is listened to, until this is cancelled."""
        while True:
            if self._broken:
                self._broken = False
                await anyio.sleep(self._delay)
                self._delay = min(2 * self._delay, _LAST_DELAY)

            self._changed = anyio.Event()
            try:
                await self._subscribe()
            except Exception as error:  # noqa: BLE001 - whatever it is, it may be over soon
                self._tell(repr(error))
                self._broken = True
                continue

            with anyio.move_on_after(_SILENCE) as silence:
                await self._changed.wait()

            if silence.cancelled_caught:
                await self._ping()

    async def _subscribe(self) -> None:
        """Begin and end the subscriptions to channels that may be amiss, as they have to be."""
        amiss, self._amiss = self._amiss, set()
        try:
            self._end(amiss - self._hears.keys())
            wanted: dict[Place, set[str]] = {}
            for channel in amiss & self._hears.keys():
                wanted.setdefault(self._links.servers.place_of(channel), set()).add(channel)

            for place, channels in wanted.items():
                ear = self._ears.get(place) or await self._open(place)
                for group in _groups(place, channels - ear.channels):
                    ear.connection.send_command(b"SSUBSCRIBE", *group)

                ear.channels |= channels
        except BaseException:
            self._amiss |= amiss
            raise

    def _end(self, channels: AbstractSet[str]) -> None:
        """End subscriptions, and the connections that are not needed any more."""
        for place, ear in tuple(self._ears.items()):
            for group in _groups(place, channels & ear.channels):
                ear.connection.send_command(b"SUNSUBSCRIBE", *group)

            ear.channels -= channels
            if not ear.channels:
                self._ears.pop(place).connection.invalidate()

    async def _open(self, place: Place) -> _Ear:
        connection = await self._links.open(place)
        ear = self._ears[place] = _Ear(connection, anyio.current_time())
        self._tasks.start_soon(self._hear, place, ear)
        self._tasks.start_soon(self._hear_refusals, place, ear)
        return ear

    async def _hear(self, place: Place, ear: _Ear) -> None:
        """Hand on what is published, until the connection ends; if it broke, have it replaced."""
        try:
            async with aclosing(ear.connection.push_messages) as messages:
                async for message in messages:
                    self._handle(ear, message)
        except NotConnected as error:
            if self._ears.get(place) is not ear:
                return

            self._tell(repr(error))
            del self._ears[place]
            if anyio.current_time() - ear.since > _LAST_DELAY:
                self._delay = _FIRST_DELAY

            self._broken = True
            self._look_at(ear.channels)

    def _handle(self, ear: _Ear, message: Sequence[object]) -> None:
        kind, channel = message[0], cast("bytes", message[1]).decode()
        if kind == b"smessage":
            for hear in tuple(self._hears.get(channel, ())):
                hear(cast("bytes", message[2]))
        elif kind == b"ssubscribe":
            self._told = ""
            for hear in tuple(self._hears.get(channel, ())):
                hear(None)

        elif channel in ear.channels:
            # This process has not asked for the end, so a cluster keeps the channel elsewhere now.
            ear.channels.discard(channel)
            self._look_at({channel})

    async def _hear_refusals(self, place: Place, ear: _Ear) -> None:
        """Break the connection if a subscription is refused: the answer does not say which one."""
        try:
            async with aclosing(ear.connection.streamed_messages) as answers:
                async for answer in answers:
                    self._tell(repr(answer))
                    if isinstance(answer, RedisError):
                        self._links.servers.failed(place, answer)

                    ear.connection.invalidate()
        except NotConnected:
            return

    async def _ping(self) -> None:
        """Break the connections that do not answer a ping, because they are dead."""
        for ear in tuple(self._ears.values()):
            try:
                with anyio.fail_after(self._links.timeout):
                    await ear.connection.create_request(b"PING")
            except (NotConnected, TimeoutError):
                ear.connection.invalidate()

    def _tell(self, reason: str) -> None:
        """Log why nothing is heard, once for each reason in a row."""
        if reason != self._told:
            self._told = reason
            _logger.warning("not subscribed, turns may come late; trying again: %s", reason)


def _groups(place: Place, channels: AbstractSet[str]) -> Iterator[tuple[str, ...]]:
    """Yield channels by what one command may name: of a cluster, those of one limiter."""
    groups: dict[str, list[str]] = {}
    for channel in channels:
        groups.setdefault("" if place is None else channel.partition("}")[0], []).append(channel)

    for group in groups.values():
        for start in range(0, len(group), _BATCH):
            yield tuple(group[start : start + _BATCH])
