"""
The only place where a task waits its turn.

1. The order of the line is its keys' order: priority, then arrival. Nobody is granted a turn
   while somebody with a lower key waits.
2. A grant is made by whoever lets the head pass (its own timer, or a call that lets something
   go), and made in full: :meth:`WaitLine.serve` grants all that are due, then sees to it that
   the new head watches the clock, if time alone can help it.
3. A grant belongs to nobody until its task has resumed. If that is cancelled before, the grant
   is undone and the line is served again. So a turn can be neither lost nor doubled.
4. Only the head sleeps, or waits for a slot of a capacity limiter that it shares with others.
   All the rest are parked, without a timer. No ``await`` stands between looking at the state
   and parking.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import final

from .._policies.policy import Bucket
from .clock import RunClock
from .gate import NEVER, Gate, Turn
from .parking import Run

#: The least nap after a timer that went off early, in seconds; it doubles while that goes on, so
#: that a clock too coarse for the instant it is asked for cannot make the head spin.
_NAP = 1e-6

#: So many turns that have left are not worth the clearing of the line.
_FEW = 32


@final
class WaitLine:
    """
    The line before a gate: first come, first served within a priority.

    :param gate: what decides; the line charges the turns there
    :param clock: the clock of the run that uses both

    """

    __slots__ = (
        "_due",
        "_gone",
        "_slot_seeker",
        "_slot_wanted",
        "_wake_at",
        "_watcher",
        "arrivals",
        "clock",
        "gate",
        "turns",
    )

    def __init__(self, gate: Gate, clock: RunClock) -> None:
        self.gate = gate
        self.clock = clock
        #: How many have come so far.
        self.arrivals = 0
        #: The heap of those in line.
        self.turns: list[tuple[tuple[int, int], Turn]] = []
        #: How many in the heap have left; they stay there, without a key, until they come up.
        self._gone = 0
        #: What the head waits for, as last seen: an instant, or a slot of a capacity limiter.
        self._due = inf
        self._slot_wanted = False
        #: The head that sleeps, and until when.
        self._watcher: Turn | None = None
        self._wake_at = inf
        #: The one that waits in the capacity limiter's own line, on behalf of all of this one.
        self._slot_seeker: Turn | None = None

    def __len__(self) -> int:
        return len(self.turns) - self._gone

    def try_now(self, turn: Turn, now: float, priority: int = 0) -> bool:
        """Grant ``turn`` if it is due and nobody goes before it; tell whether it was granted."""
        if self._first() is not None and self.turns[0][0][0] <= priority:
            return False

        return self.gate.delay(turn.amounts, now) <= 0 and self.gate.take(turn, now)

    def enter_free(self) -> Run | None:
        """
        Return the run that the caller is in, if nobody is in line and nothing is paused.

        The caller's :attr:`arrivals` is then its place, should it have to wait all the same.
        """
        if self.turns or self.gate.paused_until != NEVER:
            return None

        run = self.clock.latest
        if run is None or not run.is_current():
            return None

        self.arrivals += 1
        return run

    def leave_free(self, run: Run, bucket: Bucket, cost: int) -> None:
        """Give back what a call that was let in by :meth:`enter_free` holds in ``bucket``."""
        if run is self.clock.latest:
            now = self.clock.estimate()
            bucket.give_back(now, cost, None)
            self.serve(now)

    async def wait(
        self, turn: Turn, *, priority: int, fast: bool, arrival: int | None = None
    ) -> float:
        """
        Wait until ``turn`` has been granted and its call may begin.

        :param priority: lower goes first
        :param fast: whether a turn that is due at once shall not be a checkpoint
        :param arrival: the place that the call has been given already
        :return: how long it has waited, in seconds

        """
        turn.run = run = self.clock.run()
        arrived = now = run.time()
        if arrival is None:
            self.arrivals += 1
            arrival = self.arrivals

        place = (priority, arrival)
        try:
            if not self.try_now(turn, now, priority):
                self._join(turn, place)
            elif not fast:
                await run.checkpoint()

            while True:
                if not turn.granted:
                    await self._wait_for_grant(turn, run, now)

                if run is not self.clock.latest:
                    # Another loop has used the limiter while this one stood still. What was
                    # granted here has been let go.
                    turn.granted = False
                    turn.key = turn.slot = None
                    return await self.wait(turn, priority=priority, fast=True)

                now = run.time()
                if self.gate.paused_until <= now:
                    self.gate.start(turn, now)
                    if self.turns:
                        self.note_start(now)

                    return now - arrived

                # A pause has begun between the grant and now: back to its place.
                self.gate.give_back(turn, now)
                self._join(turn, place)
                # The head may have waited for what this turn held: now it waits for the pause.
                self.serve(now)
        except BaseException:
            self._leave(turn)
            raise

    def serve(self, now: float, spare: object = None) -> None:
        """
        Grant all that are due, from the front, and see to it that the new head watches the clock.

        :param spare: on whose behalf a slot of the capacity limiter has been borrowed already

        """
        self._due = inf
        self._slot_wanted = False
        while (head := self._first()) is not None:
            delay = self.gate.delay(head.amounts, now)
            if delay > 0:
                self._due = now + delay
                break

            if not self.gate.take(head, now, spare):
                self._slot_wanted = True
                break

            spare = None
            heappop(self.turns)
            _wake(head)

        if spare is not None:
            self.gate.return_slot(spare)

        if head is None:
            return

        # Unless it sleeps no longer than it has to, the head must see for itself.
        wake_at = self._wake_at if head is self._watcher else inf
        if self._due < wake_at or (self._slot_wanted and self._slot_seeker is None):
            _wake(head)

    def note_start(self, now: float) -> None:
        """Look again, now that a call has begun, if the head waits for what such calls hold."""
        if self._due == inf:
            self.serve(now)

    def end(self, turn: Turn) -> None:
        """Let the call of a started turn end; what it held goes to those in line."""
        if not self.gate.holds:
            turn.granted = False
        elif turn.granted and turn.run is self.clock.latest:
            now = self.clock.estimate()
            self.gate.release(turn, now)
            self.serve(now)

    def refund(self, turn: Turn) -> None:
        """Give back what is still out of a started turn's charge, to those in line."""
        if turn.run is self.clock.latest:
            now = self.clock.estimate()
            self.gate.refund(turn, now)
            self.serve(now)

    def ahead_of(self, priority: int) -> list[Turn]:
        """Return those in line who go before a newcomer, first to last."""
        ahead = [entry for entry in self.turns if entry[1].key and entry[0][0] <= priority]
        return [turn for _, turn in sorted(ahead, key=_key)]

    def forget(self) -> None:
        """Forget all that wait: their run is over."""
        self.turns = []
        self._gone = 0
        self._watcher = None
        self._slot_seeker = None

    async def _wait_for_grant(self, turn: Turn, run: Run, now: float) -> None:
        """Be parked; as the head of the line, watch for what the line waits for."""
        nap = 0.0
        while not turn.granted:
            if self._first() is not turn:
                await run.park(turn)
                now = run.time()
                continue

            self.serve(now)
            if turn.granted:
                return

            woken = True
            until = max(self._due, now + nap)
            if not self._slot_wanted:
                woken = await self._sleep(turn, run, until)
            elif self._slot_seeker is None:
                await self._seek_slot(turn, run)
            else:
                await run.park(turn)

            now = run.time()
            nap = 0.0 if woken or now >= until else max(2 * nap, _NAP)

    async def _sleep(self, turn: Turn, run: Run, until: float) -> bool:
        """Sleep as the head of the line; tell whether it was woken before the time was up."""
        self._watcher = turn
        self._wake_at = until
        try:
            return await run.park_until(turn, until)
        finally:
            if self._watcher is turn:
                self._watcher = None

    async def _seek_slot(self, turn: Turn, run: Run) -> None:
        """Wait for a slot in the capacity limiter's own line, and let the head have it."""
        assert self.gate.capacity is not None
        slot = object()
        self._slot_seeker = turn
        try:
            await self.gate.capacity.acquire_on_behalf_of(slot)
        finally:
            if self._slot_seeker is turn:
                self._slot_seeker = None

        # Pause and tokens are looked at again: meanwhile nothing was held.
        self.serve(run.time(), slot)

    def _join(self, turn: Turn, place: tuple[int, int]) -> None:
        turn.key = place
        heappush(self.turns, (place, turn))

    def _first(self) -> Turn | None:
        heap = self.turns
        while heap and heap[0][1].key is None:
            heappop(heap)
            self._gone -= 1

        return heap[0][1] if heap else None

    def _leave(self, turn: Turn) -> None:
        """Take a turn that was cancelled out of the line, or hand on what it was granted."""
        if turn.run is not self.clock.latest:
            return

        now = self.clock.estimate()
        if turn.granted:
            self.gate.give_back(turn, now)
        elif turn.key is not None:
            turn.key = None
            self._gone += 1
            if self._gone > _FEW and self._gone > len(self.turns) / 2:
                self.turns = [entry for entry in self.turns if entry[1].key is not None]
                heapify(self.turns)
                self._gone = 0

        # Whether or not it was the head: it may have been the one that was on watch.
        self.serve(now)


def _wake(turn: Turn) -> None:
    assert turn.run is not None
    turn.run.wake(turn)


def _key(entry: tuple[tuple[int, int], Turn]) -> tuple[int, int]:
    return entry[0]
