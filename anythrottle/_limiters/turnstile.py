"""
Grants turns, from the front of the line. Nothing waits here.

1. The order of the line is its places' order: priority, then arrival. Nobody is granted a turn
   while somebody with a lower place waits.
2. A grant is made by whoever lets the head pass (its own timer, or a call that lets something
   go), and made in full: :meth:`Turnstile.serve` grants all that are due, then sees to it that
   the new head watches the clock, if time alone can help it.
3. A grant belongs to nobody until its task has resumed. If that is cancelled before, the grant
   is undone and the line is served again, as of when that grant was due. So neither a turn nor
   its credit can be lost or doubled.
4. What is told late, after a stall of the loop, takes nothing from those that fell due before:
   :meth:`Turnstile.catch_up` serves them first.
5. A call begins in three steps: it holds its turn, then the observer is told, then, after a last
   look, the instant is read from which on it counts. No code of a user's own runs after that.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf, nextafter

import anyio

from .._errors import LimitExceeded
from .._events import Ended, Granted, Observer, Refused, tell
from .._loops.clock import LoopClock, weakly
from .._loops.event_loop import EventLoop
from .._policies.bucket import Bucket
from .._policies.policy import PolicyState
from .forecast import Outlook
from .gate import NEVER, Gate
from .queue import TurnQueue
from .quotas import quotas_of
from .turn import Place, Turn

#: Says how to enter a limiter that wants to know when a call has ended.
HOLDS = (
    "{verb}() is for limiters that hold nothing while a call runs; {limiter} does hold something: "
    "use 'async with limiter.permit(cost):'"
)


class Turnstile:
    """
    Grants turns at a gate: first come, first served within a priority.

    :param gate: what decides; the turns are charged there
    :param name: the limiter's name
    :param max_waiting: how many may wait, infinity for no bound
    :param observer: who is told what happens here

    """

    __slots__ = (
        "__weakref__",
        "_due",
        "_seek_scope",
        "_slot_seeker",
        "_slot_wanted",
        "_wake_at",
        "_watcher",
        "arrivals",
        "clock",
        "gate",
        "max_waiting",
        "name",
        "observer",
        "outlook",
        "queue",
    )

    def __init__(
        self, gate: Gate, name: str | None, *, max_waiting: float, observer: Observer | None
    ) -> None:
        self.gate = gate
        self.name = name
        self.max_waiting = max_waiting
        self.observer = observer
        owner = "the limiter" if name is None else f"the limiter {name!r}"
        self.clock = LoopClock(weakly(self.change_loops), owner)
        #: How many have come so far.
        self.arrivals = 0
        self.queue = TurnQueue()
        self.outlook = Outlook(gate, self.queue, self.clock.utc)
        #: What the head waits for, as last seen: an instant, or a slot of a capacity limiter.
        self._due = inf
        self._slot_wanted = False
        #: The head that sleeps, and until when.
        self._watcher: Turn | None = None
        self._wake_at = inf
        #: The one that waits in the capacity limiter's own line, on behalf of all of this one.
        self._slot_seeker: Turn | None = None
        self._seek_scope: anyio.CancelScope | None = None

    def try_now(self, turn: Turn, now: float) -> bool:
        """Grant ``turn`` if it is due and nobody goes before it; tell whether it was granted."""
        assert turn.place is not None
        self.catch_up(now)
        first = self.notice(now)
        if first is not None and first.place is not None and first.place <= turn.place:
            return False

        self.outlook.void()
        return self.gate.delay(turn.amounts, now) <= 0 and self.gate.take(turn, now, now)

    def notice(self, now: float) -> Turn | None:
        """Return the head of the line; if there is none, notice what UTC is by now."""
        first = self.queue.first()
        if first is None:
            self.outlook.read_utc(now)

        return first

    def new_place(self, priority: float) -> Place:
        """Return the place of somebody who comes now."""
        self.arrivals += 1
        return (priority, self.arrivals)

    def enter_free(self) -> EventLoop | None:
        """
        Return the loop that the caller is in, if nobody is in line and nothing is paused.

        The caller's :attr:`arrivals` is then its place, should it have to wait all the same.
        """
        if self.queue.blocks or self.gate.paused_until != NEVER:
            return None

        loop = self.clock.latest
        if loop is None or not loop.is_current():
            return None

        self.arrivals += 1
        return loop

    def may_start(self, loop: EventLoop, bucket: Bucket) -> bool:
        """Tell whether a call that was let in by :meth:`enter_free` may begin by now."""
        gate = self.gate
        return gate.paused_until == NEVER and bucket is gate.only and loop is self.clock.latest

    def leave_free(self, loop: EventLoop, bucket: Bucket, cost: int) -> None:
        """Give back what a call that was let in by :meth:`enter_free` holds in ``bucket``."""
        if loop is self.clock.latest and any(b is bucket for b in self.gate.buckets):
            now = self.clock.estimate()
            bucket.give_back(now, cost, None)
            self.disturb(now)

    def take_now(self, turn: Turn) -> None:
        """
        Let the call of a turn begin at once.

        :raises ~anythrottle.LimitExceeded: if it would have to wait

        """
        now = self.clock.now()
        turn.loop = self.clock.latest
        turn.place = self.new_place(0)
        if not self.try_now(turn, now):
            raise self.refuse(turn, now)

        if self.observer is not None:
            self._tell_granted(turn, 0.0)
            now = self.clock.now()

        if not self.begin(turn):
            self._leave(turn)
            raise turn.error or self.refuse(turn, now)

    def serve(self, now: float, spare: object = None) -> None:
        """
        Grant all that are due, from the front, and see to it that the new head watches the clock.

        :param spare: on whose behalf a slot of the capacity limiter has been borrowed already

        """
        gate = self.gate
        if spare is not None:
            spare = gate.hand_on(spare)

        since = self._due_since(now)
        late = now - since
        surprise = gate.holds and self._due == inf
        self._due = inf
        self._slot_wanted = granted = False
        while (head := self.queue.first()) is not None:
            try:
                delay = gate.delay(head.amounts, now)
                if delay > 0:
                    # Later than now, whatever a bucket of a user's own may have rounded.
                    self._due = max(now + delay, nextafter(now, inf))
                    break

                earliest = max(head.came, since)
                since = gate.due_since(head.amounts, earliest, now) if gate.credits else now
                taken = gate.take(head, now, since, spare)
            except Exception as exc:  # noqa: BLE001 - a policy's of the user's own: it is for the head
                self._dismiss(head, exc)
                continue

            if not taken:
                self._slot_wanted = True
                break

            spare = None
            head.came = now
            if surprise:
                # Who has waited for a slot goes later than anybody could foresee.
                self.outlook.void()

            self.queue.pop()
            _wake(head)
            granted = True

        if granted and self.clock.latest is not None:
            # Who lets others go may fail in this step, and they may be of its task group.
            self.clock.latest.note_actor()

        if spare is not None:
            gate.return_slot(spare)

        self.outlook.note_grants(now, late)
        if head is not None:
            self._alert(head)

    def _alert(self, head: Turn) -> None:
        """Wake the head, which has to see for itself, unless it sleeps no longer than it has to."""
        wake_at = self._wake_at if head is self._watcher else inf
        if self._due < wake_at or (self._slot_wanted and self._slot_seeker is None):
            _wake(head)

    def _due_since(self, now: float) -> float:
        """Return since when the head is due, should it be: timers are late."""
        since = min(self._due, now)
        # A pause is credited to no turn.
        paused_until = self.gate.paused_until
        return paused_until if since < paused_until <= now else since

    def catch_up(self, now: float) -> None:
        """Serve those in line that have fallen due, before something else is done to the line."""
        if self._due <= now:
            self.serve(now)

    def disturb(self, now: float) -> None:
        """Serve those in line, now that something has happened that nobody could foresee."""
        self.outlook.void()
        self.serve(now)

    def note_start(self, now: float) -> None:
        """Look again, now that a call has begun, if the head waits for what such calls hold."""
        if self._due < inf:
            return

        head = self.queue.first()
        if self.gate.slow and head is not None:
            # Its buckets are not asked here, as that may take a while and the call has begun.
            _wake(head)
        else:
            self.serve(now)

    def begin(self, turn: Turn) -> bool:
        """
        Let the call of a turn that is held begin, after a last look whether it still may.

        :return: whether it has begun; if not, it is in line again, or can never be granted
        """
        if not turn.granted or turn.error is not None or turn.loop is not self.clock.latest:
            return False

        now = self.clock.estimate()
        if self.gate.paused_until > now:
            self.call_back(turn, now)
            return False

        self._begin(turn, now)
        return True

    def call_back(self, turn: Turn, now: float) -> None:
        """Take back what was granted to a turn whose call has not begun: it is in line again."""
        self.gate.give_back(turn, now)
        turn.may_be_shed = False
        self.queue.add(turn)
        # The head may have waited for what this turn held: now it waits for the pause.
        self.disturb(now)

    def end(self, turn: Turn) -> None:
        """Let the call of a turn end; what it held goes to those in line."""
        if turn.began == inf:
            # It was held, or called back since, and is not needed.
            self._leave(turn)
        elif turn.granted and turn.loop is self.clock.latest:
            if not (self.gate.holds or self.queue.blocks):
                self.gate.let_go(turn)
                return

            now = self.clock.estimate()
            self.gate.release(turn, now)
            if self.gate.holds_charges:
                self.outlook.note_end()

            if self.queue.blocks and self.gate.is_crowded():
                # Still: there were more slots when it began.
                self.wake_all()
            elif self.queue.blocks:
                self.serve(now)

            if self.observer is not None and self.gate.holds:
                tell(self.observer, Ended(self.name, now - turn.began))

    def keep(self, turn: Turn) -> Turn:
        """Let a call go on whose function has returned; return what it holds, for :meth:`end`."""
        if turn.granted and turn.loop is self.clock.latest:
            return self.gate.keep(turn)

        return turn

    def mark_counted(self, turn: Turn, units: Collection[str]) -> None:
        """Let a call that runs count from now on, in some units; it may make others due sooner."""
        if turn.granted and turn.loop is self.clock.latest:
            now = self.clock.estimate()
            self.catch_up(now)
            self.gate.mark_counted(turn, now, units)
            if self.gate.holds_charges:
                self.outlook.note_end()
                if self.queue.blocks:
                    self.serve(now)

    def wake_all(self) -> None:
        """Let all in line see for themselves: some may wait now for what they hold themselves."""
        for turn in self.queue.ahead_of():
            _wake(turn)

    def settle(self, turn: Turn, changes: dict[str, int]) -> None:
        """Correct the charge of a started turn, by unit; what comes back goes to those in line."""
        if turn.loop is self.clock.latest:
            now = self.clock.estimate()
            self.catch_up(now)
            for unit, change in changes.items():
                self.gate.settle(turn, now, unit, change)

            self.disturb(now)

    def rejoin(self, turn: Turn) -> None:
        """Let a turn be in line already, before :meth:`.WaitLine.wait` is called for it."""
        turn.loop = self.clock.loop()
        turn.came = turn.loop.time()
        self.queue.add(turn)
        self.outlook.void()

    def quotas(self) -> tuple[PolicyState, ...]:
        """Return what each policy has left."""
        now = self.clock.peek()
        here = self.clock.latest is not None and self.clock.latest.is_current()
        return quotas_of(self.gate, now, self.clock.utc, here=here)

    def refuse(self, turn: Turn, now: float) -> LimitExceeded:
        """Return the error of a turn that would have to wait and may not."""
        assert turn.place is not None
        decision = self.outlook.decide(turn.amounts, now, turn.place[0])
        if self.observer is not None:
            tell(self.observer, Refused(self.name, turn.cost, decision))

        return LimitExceeded(decision, self.quotas())

    def recall(self, now: float) -> list[Turn]:
        """Take back what was granted to calls that have not begun: they are in line again."""
        turns = [turn for turn in self.gate.charged if turn.began == inf]
        self.gate.give_back_all(turns, now)
        for turn in turns:
            turn.may_be_shed = False
            self.queue.add(turn)

        return turns

    def recount(self) -> None:
        """Count anew what those in line cost; who can never be granted any more is let go."""
        for turn in self.queue.ahead_of():
            try:
                turn.amounts = self.gate.amounts(turn.cost)
            except ValueError as exc:
                turn.error = exc

            if self.gate.holds and not turn.ends:
                turn.error = RuntimeError(
                    HOLDS.format(verb="acquire", limiter="it has changed and")
                )

            if turn.error is not None:
                self._dismiss(turn, turn.error)

    def stop_seeking(self) -> None:
        """Leave the line of a capacity limiter that is not the gate's any more."""
        if self._seek_scope is not None:
            self._seek_scope.cancel()

    def change_loops(self, shift: float) -> None:
        """Forget who waits and what is held, for another loop goes on with its own clock."""
        for turn in self.queue.ahead_of():
            # Its loop may only stand still, and go on one day.
            _wake(turn)

        self.queue.clear()
        self._due = inf
        self._watcher = None
        self._slot_seeker = None
        self._seek_scope = None
        self.outlook.void()
        self.gate.change_loops(shift)

    def _tell_granted(self, turn: Turn, waited: float) -> None:
        """Tell the observer that a turn is granted, and held."""
        assert self.observer is not None
        turn.told = True
        try:
            tell(self.observer, Granted(self.name, turn.cost, waited))
        except BaseException:
            # It ends the program, and the call does not begin.
            self._leave(turn)
            raise

    def _begin(self, turn: Turn, now: float) -> float:
        """Let the call of a turn that is held begin; return the instant from which on it counts."""
        if now > turn.came:
            self.outlook.note_grants(now, now - turn.came)

        if self.gate.slow:
            self.gate.start_slow(turn, now)
            now = self.clock.estimate()

        if turn.loop is not None:
            turn.loop.note_actor()
            if self.gate.holds:
                turn.task_id = id(turn.loop.task())

        self.gate.start(turn, now)
        if self.queue.blocks:
            self.note_start(now)

        return now

    def _dismiss(self, turn: Turn, error: Exception) -> None:
        """Take a turn that can never be granted out of the line, with an error."""
        turn.error = error
        self.queue.remove(turn)
        _wake(turn)
        if turn is self._slot_seeker:
            self.stop_seeking()

    def _leave(self, turn: Turn) -> None:
        """Take a turn that was cancelled out of the line, or hand on what it was granted."""
        if turn.loop is not self.clock.latest:
            return

        now = self.clock.estimate()
        if turn.granted:
            self.gate.give_back(turn, now)
            self.outlook.void()
            # What it gives back has been due for as long for the next one.
            self._due = min(self._due, turn.due)
        elif turn.in_line:
            self.queue.remove(turn)
            self.outlook.note_leaving(turn)
        elif turn.error is None:
            # It was refused, and so has never been there.
            return

        # Whether or not it was the head: it may have been the one that was on watch.
        self.serve(now)


def _wake(turn: Turn) -> None:
    # Outside of an event loop, a turn has no task that could be woken.
    if turn.loop is not None:
        turn.loop.wake(turn)
