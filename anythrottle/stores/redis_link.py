"""A connection that many tasks use at once, and that counts as alive while it brings answers."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from math import inf
from typing import Generic, Protocol, TypeVar, final

import anyio
from anyio import get_cancelled_exc_class
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .redis_faults import FallenSilent
from .turnstile import Turnstile

#: How often the event loop goes round before an answer counts as missing: if this process was busy,
#: the answer may have come already.
_ROUNDS = 5

#: By how much equal instants may differ, in seconds.
_ROUNDING = 1e-6


class Answer(Awaitable[object], Protocol):
    """What a server is to answer; it may be awaited more than once."""

    @property
    def complete(self) -> bool:
        """Whether it has been answered."""
        ...


class Asked(Protocol):
    """What a link needs of a connection."""

    @property
    def usable(self) -> bool:
        """Whether it can be asked."""
        ...

    def invalidate(self) -> None:
        """Break it: all tasks that wait for an answer get an error."""
        ...


C = TypeVar("C", bound=Asked)


@final
class Link(Generic[C]):
    """
    A connection to a server, which may owe any number of answers.

    A task that is cancelled while it waits leaves the connection to the others. The connection is
    broken if it owes answers and delivers none for as long as a server may take: then it is dead,
    although its socket does not say so.

    :param connection: the connection
    :param tasks: the task group in which it is watched
    :param turnstile: where requests wait that are to be sent over it
    :param timeout: for how long the server may be silent, in seconds
    """

    __slots__ = (
        "_asked",
        "_owed",
        "_silent",
        "_since",
        "_tasks",
        "_timeout",
        "_turnstile",
        "connection",
    )

    def __init__(
        self, connection: C, tasks: TaskGroup, turnstile: Turnstile, timeout: float
    ) -> None:
        self.connection = connection
        self._tasks = tasks
        self._turnstile = turnstile
        self._timeout = timeout
        self._owed = 0
        #: Since when it owes answers and has delivered none.
        self._since = inf
        self._asked = anyio.Event()
        #: Whether it was broken because of that.
        self._silent = False
        tasks.start_soon(self._watch)

    async def answer(self, asked: Answer) -> object:
        """
        Return the answer to what has just been asked.

        :raises Exception: if it is an error, or the connection breaks
        :raises TimeoutError: if it was broken because the server was silent
        """
        since = anyio.current_time()
        if not self._owed:
            self._since = since
            self._asked.set()

        self._owed += 1
        try:
            answer = await self._await(asked, since)
        except Exception:
            self._note_answer()
            if self._silent:
                raise FallenSilent(f"no answer within {self._timeout:g} s") from None

            raise

        self._note_answer()
        return answer

    async def _await(self, asked: Answer, since: float) -> object:
        """Return an answer; if this is cancelled before it comes, it goes on being owed."""
        try:
            return await asked
        except get_cancelled_exc_class():
            if not await _comes_after_all(asked, min(self._late(since), self._timeout)):
                # The request goes on taking up the server's time.
                self._turnstile.occupy()
                self._tasks.start_soon(self._outlive, asked)
                raise

        return await asked

    def _note_answer(self) -> None:
        self._owed -= 1
        self._since = anyio.current_time()

    def close(self) -> None:
        """Note that another connection takes the place of this one, which has broken."""
        self._asked.set()

    async def _outlive(self, asked: Answer) -> None:
        """Wait for an answer whose task has been cancelled."""
        with suppress(Exception):
            await asked

        self._note_answer()
        self._turnstile.leave()

    async def _watch(self) -> None:
        """Break the connection when it is silent for too long."""
        while self.connection.usable:
            if not self._owed:
                self._asked = anyio.Event()
                await self._asked.wait()
                continue

            await anyio.sleep(max(-self._late(self._since), 0.0))
            late = self._late(self._since)
            if self._owed and late >= -_ROUNDING:
                await _catch_up(min(late, self._timeout))
                if self._owed and self._late(self._since) >= -_ROUNDING:
                    self._silent = True
                    self.connection.invalidate()
                    return

    def _late(self, since: float) -> float:
        """Return by how much the time since an instant exceeds what a server may take."""
        return anyio.current_time() - since - self._timeout


async def _catch_up(late: float) -> None:
    """Wait for what this process was too busy to send, or to receive, for so many seconds."""
    await anyio.sleep(max(late, 0.0))
    for _ in range(_ROUNDS):
        await checkpoint()


async def _comes_after_all(asked: Answer, late: float) -> bool:
    """Return whether there is an answer, once this process has caught up."""
    with anyio.CancelScope(shield=True):
        await _catch_up(late)

    return asked.complete


def close_streams(connection: object) -> None:
    """Close what coredis leaves open if no connection comes about: AnyIO would warn of it."""
    for part in vars(connection).values():
        if isinstance(part, MemoryObjectSendStream | MemoryObjectReceiveStream):
            part.close()
