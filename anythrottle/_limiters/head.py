"""What the head of the line does for the whole line: watch the clock, or seek a shared slot."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import final

import anyio

from .._loops.event_loop import EventLoop
from .scheduling import Scheduler
from .slots import Slot, Slots
from .turn import Turn

#: The least nap after a timer that went off early, in seconds; it doubles while that goes on, so
#: that a clock too coarse for the instant it is asked for cannot make the head spin.
_NAP = 1e-6


@final
class Head:
    """
    The head of a line, whose task waits on behalf of all.

    At most one task sleeps until the line is due, and at most one waits in a capacity limiter's
    own line. Another turn may become the head meanwhile; its task is woken then.

    :param scheduler: the scheduler, which says when the head is due

    """

    __slots__ = ("_scheduler", "_scope", "_seeker", "_wake_at", "_watcher")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        #: The turn whose task sleeps, and until when.
        self._watcher: Turn | None = None
        self._wake_at = inf
        #: The turn whose task waits for a shared slot.
        self._seeker: Turn | None = None
        self._scope: anyio.CancelScope | None = None

    def must_wake(self, head: Turn, due: float) -> bool:
        """Return whether the head's task, due at an instant, must be woken to look in time."""
        if self._scheduler.wants_slot and self._seeker is None:
            return True

        return due < (self._wake_at if head is self._watcher else inf)

    async def watch(
        self, turn: Turn, loop: EventLoop, now: float, serve: Callable[..., None]
    ) -> None:
        """
        Wait, as the head, for what the line waits for, or until the turn is woken.

        :param now: the present instant
        :param serve: grants the turns that are due, as :meth:`.WaitLine.serve` does
        """
        scheduler, queue = self._scheduler, self._scheduler.queue
        nap = 0.0
        while queue.head is turn:
            if scheduler.due <= now:
                serve(now, watcher=turn)
                if turn.granted or turn.error is not None:
                    return

            if now >= turn.give_up:
                return

            if scheduler.wants_slot and self._seeker is None:
                spare = await self._seek_slot(turn, loop, scheduler.gate.slots)
                # Pause and tokens are looked at again: nothing was held meanwhile. Without a slot,
                # another turn may have to go on seeking.
                serve(loop.time(), spare)
                return

            self._watcher = turn
            self._wake_at = until = max(min(scheduler.due, turn.give_up), now + nap)
            try:
                if await loop.park_until(turn, until):
                    # Not only time has passed, so all is to be looked at anew.
                    return
            finally:
                if self._watcher is turn:
                    self._watcher = None

            now = loop.time()
            nap = 0.0 if now >= until else max(2 * nap, _NAP)

    async def _seek_slot(self, turn: Turn, loop: EventLoop, slots: Slots) -> Slot | None:
        """Wait for a shared slot, until the turn gives up; return it, ``None`` without one."""
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
