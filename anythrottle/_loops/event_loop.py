"""
What an event loop does for us: it has a clock, and parks and wakes its tasks natively.

AnyIO's own ``Event`` would do, at twice the time and memory for each task that waits, because it
has to find its backend anew each time.
"""

from __future__ import annotations

import asyncio
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from math import inf
from typing import Literal

from .process import current_process


class Parked:
    """What a task waits for: it remembers how to wake that task while it is parked."""

    __slots__ = ("parked",)

    #: An ``asyncio.Future`` or a Trio task, while parked.
    parked: object


class EventLoop(ABC):
    """
    An event loop, from the start of a run to its end.

    In a forked child process, the loops of the parent have ended.
    """

    __slots__ = (
        "__weakref__",
        "_process",
        "behind",
        "checkpoint",
        "checkpoint_if_cancelled",
        "deadline",
        "real",
        "suspect",
        "time",
    )

    #: Whether this loop's clock is the real one, which is read as ``time.monotonic()``.
    real: bool
    #: Returns the time of this loop's clock, in seconds.
    time: Callable[[], float]
    #: Yields to other tasks once, and raises if the caller is cancelled.
    checkpoint: Callable[[], Awaitable[None]]
    #: Raises if the scope that the caller is in is cancelled, and yields to other tasks only then.
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    #: Returns the deadline of that scope: minus infinity if it is cancelled.
    deadline: Callable[[], float]

    def __init__(self) -> None:
        self._process = current_process()
        #: By how much this loop's clock was behind ``time.monotonic()`` when it was last read.
        self.behind = 0.0
        #: The task that was noted last, if that may have failed since; ``True`` if one has.
        self.suspect: weakref.ref[asyncio.Task[object]] | Literal[True] | None = None

    @abstractmethod
    def is_current(self) -> bool:
        """Return whether the caller is in this loop, or in a guest's loop within it."""

    def is_here(self) -> bool:
        """Return whether the caller is a task of this loop: slower than :meth:`is_current`."""
        return self.is_current()

    @abstractmethod
    def task(self) -> object | None:
        """Return the task of this loop that the caller is; ``None`` if it is none."""

    def is_over(self) -> bool:
        """Return, from outside of it, whether this loop stands still, or has ended."""
        return self.has_ended()

    @abstractmethod
    def has_ended(self) -> bool:
        """Return whether this loop has ended for good."""

    @abstractmethod
    def goes_on_here(self, native: object) -> bool:
        """
        Return whether this loop goes on in the caller's thread, which may be another than before.

        :param native: what :func:`.native_loop` returns
        """

    @abstractmethod
    def park(self, waiter: Parked) -> Awaitable[object]:
        """Wait for :meth:`wake`."""

    @abstractmethod
    async def park_until(self, waiter: Parked, instant: float) -> bool:
        """Wait for :meth:`wake` or an instant of the loop's clock; return whether it was a wake."""

    @abstractmethod
    def wake(self, waiter: Parked) -> None:
        """Wake the task that is parked, if any; to do so again changes nothing."""

    @abstractmethod
    def post(self, function: Callable[[], object]) -> None:
        """Call a function in this loop soon, asked from any thread; if it has ended, do nothing."""

    def is_cancelled(self) -> bool:
        """Return whether the scope that the caller is in is cancelled."""
        return self.deadline() == -inf

    def note_actor(self) -> None:  # noqa: B027 - for loops that learn late that a task has failed
        """Note that the task which runs now begins its call, or grants turns to others."""

    def is_alarmed(self) -> bool:
        """
        Return whether a task that was noted has failed, so that others may be cancelled at once.

        If so, a task that has just passed a checkpoint has to :meth:`look` before its call begins.
        """
        return False

    async def look(self) -> None:
        """Raise if the scope that the caller is in is cancelled, or is about to be."""
        await self.checkpoint_if_cancelled()
