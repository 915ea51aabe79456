"""Lets the one task that waits for a change in a backlog be woken, whoever causes that."""

from __future__ import annotations

from typing import final

from .._loops.event_loop import EventLoop, Parked


@final
class Change:
    """
    A change that one task at a time waits for, in one run after the other.

    :ivar waiting: what that task is parked as, or ``None``; only the methods here set it

    """

    __slots__ = ("_loop", "waiting")

    _loop: EventLoop

    def __init__(self) -> None:
        self.waiting: Parked | None = None

    def await_by(self, waiting: Parked, loop: EventLoop) -> None:
        """Let a task be woken whenever it is parked, until it is forgotten."""
        self._loop = loop
        self.waiting = waiting

    def forget(self, waiting: Parked) -> None:
        """Let a task not be woken any more; perhaps one of another run is to be already."""
        if self.waiting is waiting:
            self.waiting = None

    def forget_run(self) -> None:
        """Let nobody be woken: the event loop may be no more."""
        self.waiting = None

    def tell(self) -> None:
        """Wake the task that waits, if there is one."""
        if self.waiting is not None:
            self._loop.wake(self.waiting)
