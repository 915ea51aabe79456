"""Wakes the one task that waits for a change, whichever part of a run makes it."""

from __future__ import annotations

from typing import final

from .._loops.event_loop import EventLoop, Parked


@final
class Change:
    """
    A change that one task at a time waits for.

    :ivar waiting: what that task is parked as, or ``None``; reset when a run has ended, because its
        event loop may be no more

    """

    __slots__ = ("_loop", "waiting")

    _loop: EventLoop

    def __init__(self) -> None:
        self.waiting: Parked | None = None

    def await_by(self, waiting: Parked, loop: EventLoop) -> None:
        """Wake a task by each change from now on, until it is forgotten."""
        self._loop = loop
        self.waiting = waiting

    def forget(self, waiting: Parked) -> None:
        """Stop waking a task, unless a task of another run has taken its place already."""
        if self.waiting is waiting:
            self.waiting = None

    def tell(self) -> None:
        """Wake the task that waits, if there is one."""
        if self.waiting is not None:
            self._loop.wake(self.waiting)
