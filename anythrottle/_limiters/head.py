"""What the head of the line does for all of them: it watches the clock, or seeks a shared slot."""

from __future__ import annotations

from math import inf
from typing import final

import anyio

from .._loops.event_loop import EventLoop
from .slots import Slot, Slots
from .turn import Turn


@final
class Head:
    """
    The head of a line, as far as its task sleeps on behalf of all.

    At most one task sleeps until the line is due, and at most one waits in the own line of a
    capacity limiter. Another turn may come to be the head meanwhile; that one is woken then.
    """

    __slots__ = ("_scope", "_seeker", "_wake_at", "_watcher")

    def __init__(self) -> None:
        #: The turn whose task sleeps, and until when.
        self._watcher: Turn | None = None
        self._wake_at = inf
        #: The turn whose task waits for a shared slot.
        self._seeker: Turn | None = None
        self._scope: anyio.CancelScope | None = None

    @property
    def seeks(self) -> bool:
        """Whether a shared slot is sought."""
        return self._seeker is not None

    def must_wake(self, first: Turn, due: float, *, wants_slot: bool) -> bool:
        """
        Return whether the first in line has to look, because nothing else makes it in time.

        :param due: when it is due
        :param wants_slot: whether it waits for a shared slot
        """
        if wants_slot and self._seeker is None:
            return True

        return due < (self._wake_at if first is self._watcher else inf)

    async def sleep(self, turn: Turn, loop: EventLoop, until: float) -> bool:
        """Sleep until an instant; return whether the task was woken before."""
        self._watcher = turn
        self._wake_at = until
        try:
            return await loop.park_until(turn, until)
        finally:
            if self._watcher is turn:
                self._watcher = None

    async def seek_slot(self, turn: Turn, loop: EventLoop, slots: Slots) -> Slot | None:
        """Wait for a shared slot until the turn gives up; return what it was borrowed for."""
        shared = slots.shared
        assert shared is not None
        slot = Slot(shared)
        self._seeker = turn
        borrowed = False
        try:
            with anyio.move_on_after(turn.give_up - loop.time()) as self._scope:
                await shared.acquire_on_behalf_of(slot)
                borrowed = True
        finally:
            if self._seeker is turn:
                self._seeker = self._scope = None

        if borrowed and shared is not slots.shared:
            shared.release_on_behalf_of(slot)
            return None

        return slot if borrowed else None

    def stop_seeking(self, turn: Turn | None = None) -> None:
        """Seek a shared slot no longer: at all, or on behalf of a turn."""
        if self._scope is not None and (turn is None or turn is self._seeker):
            self._scope.cancel()
            self._seeker = self._scope = None
