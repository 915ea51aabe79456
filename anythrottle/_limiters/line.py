"""
The only place where a task waits its turn.

Only the head of the line sleeps, or waits for a slot of a capacity limiter that it shares with
others. All the rest are parked, without a timer (a ``max_wait`` apart). No ``await`` stands
between looking at the state and parking. What is granted to whom is the turnstile's matter.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import ExitStack
from math import inf, ulp
from typing import final

import anyio

from .._errors import LimitExceeded
from .._events import Abandoned, Refused, tell
from .._loops.event_loop import EventLoop
from .holding import Slot, borrowers_of, is_inside, slots_here, turns_here, waiting_inside
from .patience import Patience, latest_turn
from .turn import FRONT, Turn
from .turnstile import Turnstile

#: The least nap after a timer that went off early, in seconds; it doubles while that goes on, so
#: that a clock too coarse for the instant it is asked for cannot make the head spin.
_NAP = 1e-6

#: By how many units in the last place an instant may be off that was reckoned on another way.
_ROUNDING = 64


@final
class WaitLine(Turnstile):
    """The line before a turnstile, whose parameters it takes."""

    __slots__ = ()

    def enter_now(self, turn: Turn, priority: float, *, begins: bool = True) -> bool:
        """
        Let the call of a turn begin if that may be at once, as nobody is in line.

        :param priority: that of its place, should it come to stand in line
        :param begins: whether the call begins; else the turn is only held, for :meth:`begin`
        :return: whether it has begun, or is held
        """
        loop = self.enter_free()
        if loop is None:
            return False

        turn.loop = loop
        turn.came = now = loop.time()
        gate = self.gate
        if gate.utc_buckets:
            self.outlook.read_utc(now)

        # As nobody is in line, there is no forecast that this would make void.
        if begins and self.observer is None and not gate.slow:
            entered = gate.pass_now(turn, now)
            if entered and gate.holds:
                turn.task_id = id(loop.task())
        else:
            turn.place = (priority, self.arrivals)
            entered = self._hold_now(turn, now) and (not begins or self.begin(turn))
            if not entered:
                self._leave(turn)
                turn.place = None

        return entered

    def _hold_now(self, turn: Turn, now: float) -> bool:
        """Hold a turn if it is due, and tell the observer; return whether it is held."""
        if self.gate.delay(turn.amounts, now) > 0 or not self.gate.take(turn, now, now):
            return False

        if self.observer is not None:
            self._tell_granted(turn, 0.0)

        return True

    async def wait(
        self,
        turn: Turn,
        *,
        fast: bool,
        max_wait: Patience = None,
        newcomer: bool = True,
        begins: bool = True,
    ) -> float:
        """
        Wait until ``turn``, which has its place, has been granted, and let its call begin.

        :param fast: whether a turn that is due at once shall not be a checkpoint
        :param max_wait: how long to wait at most
        :param newcomer: whether it may be refused because too many wait already
        :param begins: whether the call begins; else the turn is only held, for :meth:`begin`
        :return: how long it has waited, in seconds
        :raises ~anythrottle.LimitExceeded: if it would have to wait too long, or for too many

        """
        turn.loop = loop = self.clock.loop()
        arrived = turn.came = now = loop.time()
        patient = max_wait is None
        try:
            if self._arrive(turn, now, max_wait, newcomer=newcomer) and not fast:
                await loop.checkpoint()
                if loop.suspect is not None and loop.is_alarmed():
                    await loop.look()

                now = loop.time()

            while loop is self.clock.latest:
                if not turn.granted or self.gate.paused_until > now:
                    fast = False
                    await self._next_news(turn, loop, now, patient=patient)
                elif self.observer is not None and not turn.told:
                    self._tell_granted(turn, now - arrived)
                else:
                    return (self._begin(turn, now) if begins else now) - arrived

                if turn.granted and not fast and loop.must_look():
                    await loop.look()

                now = loop.time()
                if now >= turn.give_up:
                    self._check_patience(turn, loop, now)
        except BaseException as exc:
            self._leave(turn)
            if self.observer is not None and not isinstance(exc, Exception):
                waited = self.clock.estimate() - arrived
                tell(self.observer, Abandoned(self.name, turn.cost, waited))

            raise

        # Another loop has used the limiter while this one stood still. What was granted here has
        # been let go.
        turn.granted = turn.in_line = turn.told = False
        turn.slot = None
        turn.amounts = self.gate.amounts(turn.cost)
        return await self.wait(turn, fast=True, newcomer=False, begins=begins)

    def _arrive(self, turn: Turn, now: float, max_wait: Patience, *, newcomer: bool) -> bool:
        """Grant a turn that is due, or let it stand in line; return whether it is granted."""
        latest = inf
        if max_wait is not None:
            latest, turn.give_up = latest_turn(max_wait, now)

        if turn.in_line and latest < inf:
            # It goes again, and stands in line for that; but perhaps it cannot come in time.
            self.queue.remove(turn)
            self.outlook.void()

        came = turn.in_line or turn.granted or turn.error is not None
        if not (came or self.try_now(turn, now)):
            shed = None
            if max_wait is not None or self.max_waiting < inf:
                try:
                    shed = self._admit(turn, now, latest, newcomer=newcomer)
                except LimitExceeded:
                    self.serve(now)
                    raise

            self.outlook.note_newcomer(turn)
            self.queue.add(turn)
            if shed is not None and self.observer is not None:
                # Now that all is in order: it may do what it likes to the limiter.
                tell(self.observer, shed)

        return turn.granted

    def _admit(self, turn: Turn, now: float, latest: float, *, newcomer: bool) -> Refused | None:
        """
        Refuse a turn that would wait too long for sure, or one if there would be too many.

        :return: what is to be told, if another one was refused
        """
        assert turn.place is not None
        # Others that go again may stand behind it, of which the forecast knows no better.
        ranked = turn.place[0] > FRONT or self.queue.rank(turn.place) == self.queue.count_ahead(
            FRONT
        )
        if latest < inf and (
            latest <= now
            or (ranked and self.outlook.is_hopeless(turn.amounts, now, turn.place[0], latest))
        ):
            raise self.refuse(turn, now)

        turn.may_be_shed = newcomer
        if newcomer and len(self.queue) >= self.max_waiting:
            last = next((t for t in self.queue.behind(turn.place) if t.may_be_shed), None)
            if last is None:
                raise self.refuse(turn, now)

            assert last.place is not None
            decision = self.outlook.decide(last.amounts, now, last.place[0])
            self._dismiss(last, LimitExceeded(decision, self.quotas()))
            self.outlook.note_leaving(last)
            return Refused(self.name, last.cost, decision)

        return None

    def _next_news(
        self, turn: Turn, loop: EventLoop, now: float, *, patient: bool
    ) -> Awaitable[object]:
        """Wait until something may have changed for a turn that may not go."""
        if turn.error is not None:
            # It can never be granted any more, as the limiter has become another one.
            raise turn.error

        if turn.granted:
            # A pause has begun between the grant and now.
            self.call_back(turn, now)

        if patient and self.gate.holds and is_inside():
            return self._news_inside(turn, loop, now)

        if self.queue.first() is turn:
            return self._watch(turn, loop, now)

        return loop.park(turn) if turn.give_up == inf else loop.park_until(turn, turn.give_up)

    async def _news_inside(self, turn: Turn, loop: EventLoop, now: float) -> None:
        """
        Wait for news inside of jobs, and count as waiting there.

        :raises RuntimeError: if what is waited for is held by jobs alone that wait for it as well
        """
        gate = self.gate
        stuck = gate.paused_until < inf and gate.delay(turn.amounts, now) == inf
        turns, slots = turns_here(gate.charged), gate.capacity
        with ExitStack() as stack:
            stack.enter_context(waiting_inside(gate, turns, gate.charged if stuck else ()))
            if slots is not None:
                mine, borrowers = slots_here(slots), borrowers_of(slots)
                stack.enter_context(waiting_inside(slots, mine, borrowers))

            await self._next_news(turn, loop, now, patient=False)

    def _check_patience(self, turn: Turn, loop: EventLoop, now: float) -> None:
        """Raise if a turn in line has come to the end of its patience."""
        if turn.in_line and loop is self.clock.latest:
            # Perhaps it is due just now.
            self.serve(now)
            if turn.granted:
                return

            if self.queue.first() is turn and self._due - now <= _ROUNDING * ulp(now):
                # Or all but now: sums of floats come out differently on different ways.
                turn.give_up = self._due
                return

            self._leave(turn)
            raise self.refuse(turn, now)

    async def _watch(self, turn: Turn, loop: EventLoop, now: float) -> None:
        """As the head of the line, wait for what the line waits for."""
        nap = 0.0
        while self.queue.first() is turn:
            self.serve(now)
            if turn.granted or turn.error is not None or now >= turn.give_up:
                return

            if self._slot_wanted and self._slot_seeker is None:
                await self._seek_slot(turn, loop)
                return

            until = max(min(self._due, turn.give_up), now + nap)
            if await self._sleep(turn, loop, until):
                # For more than the time, perhaps: all is to be looked at anew.
                return

            now = loop.time()
            nap = 0.0 if now >= until else max(2 * nap, _NAP)

    async def _sleep(self, turn: Turn, loop: EventLoop, until: float) -> bool:
        """Sleep as the head of the line; tell whether it was woken before the time was up."""
        self._watcher = turn
        self._wake_at = until
        try:
            return await loop.park_until(turn, until)
        finally:
            if self._watcher is turn:
                self._watcher = None

    async def _seek_slot(self, turn: Turn, loop: EventLoop) -> None:
        """Wait for a slot in the capacity limiter's own line, and let the head have it."""
        capacity = self.gate.capacity
        assert capacity is not None
        slot = Slot(capacity)
        self._slot_seeker = turn
        borrowed = False
        try:
            with anyio.move_on_after(turn.give_up - loop.time()) as self._seek_scope:
                await capacity.acquire_on_behalf_of(slot)
                borrowed = True
        finally:
            if self._slot_seeker is turn:
                self._slot_seeker = self._seek_scope = None

        spare = slot if borrowed and capacity is self.gate.capacity else None
        if borrowed and spare is None:
            capacity.release_on_behalf_of(slot)

        # Pause and tokens are looked at again: meanwhile nothing was held. Without a slot, it may
        # be for another one to go on seeking.
        self.serve(loop.time(), spare)
