"""
Decides whose turn it is, from the front of the line. It has no event loop, and never waits.

1. The order of the line is its places' order: priority, then arrival. No turn is granted while
   one with a lower place waits.
2. A grant is made by the event that lets the head pass (its own timer, or a call that lets
   something go), and made in full: :meth:`Scheduler.grant_due` grants all turns that are due, and
   returns when it is to be called again if nothing else happens.
3. A grant belongs to no call until its task has resumed. If that is cancelled before, the grant
   is undone and the line is served again, as of when that grant was due. So neither a turn nor
   its credit can be lost or doubled.
4. A change that comes late, after a stall of the loop, takes nothing from turns that fell due
   before: the code that makes it calls :meth:`Scheduler.grant_due` first, if
   :attr:`Scheduler.due` has passed.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf, nextafter
from typing import final

from .._policies.policy import Decision
from .gate import Gate, Outlook
from .queue import TurnQueue
from .turn import FRONT, Place, Turn

#: The error that says how to enter a limiter which has to know when a call has ended.
HOLDS = (
    "{verb}() is for limiters that hold nothing while a call runs; {limiter} does hold something: "
    "use 'async with limiter.permit(cost):'"
)


@final
class Scheduler:
    """
    Grants turns at a gate: first come, first served within a priority.

    The caller passes the time in, wakes the tasks of the turns that :meth:`grant_due` returns, and
    calls that again after all that may let others pass.

    :param gate: the gate, which decides and charges the turns
    :param queue: the turns in line
    :param outlook: what foresees when they will go
    :param max_waiting: how many turns may wait, infinity for no bound

    :ivar arrivals: how many calls have come so far
    :ivar due: when the head is due, as last seen; infinity if not before something is let go
    :ivar wants_slot: whether the head waits for a shared slot
    """

    __slots__ = ("arrivals", "due", "gate", "max_waiting", "outlook", "queue", "wants_slot")

    def __init__(
        self, gate: Gate, queue: TurnQueue, outlook: Outlook, max_waiting: float = inf
    ) -> None:
        self.gate = gate
        self.queue = queue
        self.outlook = outlook
        self.max_waiting = max_waiting
        self.arrivals = 0
        self.due = inf
        self.wants_slot = False

    def new_place(self, priority: float) -> Place:
        """Return the place of a call that comes now."""
        self.arrivals += 1
        return (priority, self.arrivals)

    def grant_due(self, now: float, spare: object = None) -> tuple[list[Turn], float]:
        """
        Grant all turns that are due, from the front; dismiss those at which the gate fails.

        :param spare: what a shared slot has been borrowed for already
        :return: the turns whose tasks are to be woken, and when to call this again: infinity if
            not before something has happened

        """
        gate, queue = self.gate, self.queue
        if spare is not None:
            spare = gate.slots.hand_on(spare)

        since = min(self.due, now)
        if since < gate.paused_until <= now:
            # A pause is credited to no turn.
            since = gate.paused_until

        late = now - since
        surprise = gate.holds and self.due == inf
        self.due = inf
        self.wants_slot = False
        woken: list[Turn] = []
        while (head := queue.head) is not None:
            try:
                delay = gate.delay(head.amounts, now)
                if delay > 0:
                    # Later than now, whatever a bucket of a user's own may have rounded.
                    self.due = max(now + delay, nextafter(now, inf))
                    break

                earliest = max(head.came, since)
                since = gate.due_since(head.amounts, earliest, now) if gate.credits else now
                taken = gate.take(head, now, since, spare)
            except Exception as exc:  # noqa: BLE001 - of a user's own policy: it is for the head
                self.dismiss(head, exc)
                woken.append(head)
                continue

            if not taken:
                self.wants_slot = True
                break

            spare = None
            head.came = now
            if surprise:
                # Slots are not part of the forecasts, so a grant after one invalidates them.
                self.outlook.invalidate()

            queue.pop()
            woken.append(head)

        if spare is not None:
            gate.slots.give_back(spare)

        if self.outlook.tables:
            self.outlook.note_grants(now, late)

        return woken, self.due

    def expect_head(self, now: float) -> None:
        """Note that the head may be due from now on, which could not be foreseen."""
        self.due = now
        self.outlook.invalidate()

    def try_now(self, turn: Turn, now: float) -> bool:
        """
        Grant a turn if it is due and no other goes before it; return whether it was granted.

        Turns in line that are due must have been granted before.
        """
        head = self.queue.head
        if head is None:
            self.gate.notice(now)
        elif head.place <= turn.place:
            return False

        turn.due = now + self.gate.take_if_due(turn, now)
        if turn.granted and self.outlook.tables:
            self.outlook.invalidate()

        return turn.granted

    def one_too_many(self, turn: Turn, now: float, latest: float, *, newcomer: bool) -> Turn | None:
        """
        Return which turn is to be refused if another one joins the line.

        It is the newcomer, if it would wait too long for sure; else the last, if too many would
        wait.

        :param latest: the latest instant for the turn
        :param newcomer: whether the turn may be refused because too many wait
        :return: the newcomer, a turn in line, or ``None``

        """
        # Calls that go again may stand behind it, but the forecast takes all of them for ahead.
        ranked = turn.place[0] > FRONT or self.queue.rank(turn.place) == self.queue.count_ahead(
            FRONT
        )
        if latest < inf and (
            (latest <= now and not self.gate.answers_later)
            or (ranked and self.outlook.is_hopeless(turn.amounts, now, turn.place[0], latest))
        ):
            return turn

        turn.may_be_shed = newcomer
        if newcomer and len(self.queue) >= self.max_waiting:
            return next((t for t in self.queue.behind(turn.place) if t.may_be_shed), turn)

        return None

    def join(self, turn: Turn) -> None:
        """Put a turn in line that came now, and could not go by :meth:`try_now`."""
        if self.outlook.tables:
            self.outlook.note_newcomer(turn)

        self.queue.add(turn)
        if self.queue.head is turn:
            self.due = turn.due
            self.wants_slot = False

    def rejoin(self, turn: Turn) -> None:
        """Put a turn in line that has its place from before."""
        self.queue.add(turn)
        self.outlook.invalidate()

    def withdraw(self, turn: Turn) -> None:
        """Take a turn out of the line, because it is to be looked at anew."""
        self.queue.remove(turn)
        self.outlook.invalidate()

    def dismiss(self, turn: Turn, error: Exception) -> None:
        """Take a turn that will never be granted out of the line, with an error."""
        turn.error = error
        self.queue.remove(turn)
        self.outlook.note_leaving(turn)

    def leave(self, turn: Turn, now: float) -> bool:
        """
        Drop a turn whose call does not begin; what it was granted is let go.

        :return: whether that may let other turns pass
        """
        if turn.granted:
            self.gate.give_back(turn, now)
            self.outlook.invalidate()
            # What it gives back has been due for as long for the next turn.
            self.due = min(self.due, turn.due)
            return True

        if turn.in_line:
            self.queue.remove(turn)
            self.outlook.note_leaving(turn)
            return True

        # Else it was refused, and so has never been in line.
        return turn.error is not None

    def call_back(self, turn: Turn, now: float) -> None:
        """Put a granted turn, whose call has not begun, back into its place in line."""
        self.gate.give_back(turn, now)
        turn.may_be_shed = False
        # The head may have waited for what this turn held: now it waits for the pause.
        self.rejoin(turn)

    def recall(self, now: float) -> list[Turn]:
        """Put all granted turns whose calls have not begun back into their places; return them."""
        turns = [turn for turn in self.gate.slots.holders if turn.began == inf]
        self.gate.give_back_all(turns, now)
        for turn in turns:
            turn.may_be_shed = False
            self.queue.add(turn)

        return turns

    def recount(self) -> list[Turn]:
        """Compute anew what the turns in line cost; dismiss and return those that never can go."""
        turns = self.queue.ahead_of()
        for turn in turns:
            if self.gate.holds and not turn.ends:
                has_changed = HOLDS.format(verb="acquire", limiter="it has changed and")
                self.dismiss(turn, RuntimeError(has_changed))
                continue

            try:
                turn.amounts = self.gate.amounts(turn.cost)
            except ValueError as exc:
                self.dismiss(turn, exc)

        return [turn for turn in turns if turn.error is not None]

    def start(self, turn: Turn, now: float) -> None:
        """Begin the call of a turn that is held; it counts from ``now`` on."""
        if now > turn.came and self.outlook.tables:
            self.outlook.note_grants(now, now - turn.came)

        self.gate.start(turn, now)

    def end(self, turn: Turn, now: float) -> None:
        """End the call of a turn; what it held is let go."""
        self.gate.release(turn, now)
        if self.gate.holds_charges:
            self.outlook.note_end()

    def mark_counted(self, turn: Turn, now: float, units: Collection[str]) -> None:
        """Count a running call from now on, in some units."""
        self.gate.mark_counted(turn, now, units)
        if self.gate.holds_charges:
            self.outlook.note_end()

    def settle(self, turn: Turn, now: float, changes: dict[str, int]) -> None:
        """Correct the charge of a started turn, by unit."""
        for unit, change in changes.items():
            self.gate.settle(turn, now, unit, change)

        self.outlook.invalidate()

    def decide(self, turn: Turn, now: float) -> Decision:
        """Return why a turn would have to wait, and how long."""
        return self.outlook.decide(turn.amounts, now, turn.place[0])

    def change_loops(self, shift: float) -> list[Turn]:
        """Forget what waits and what is held; return the turns that waited in the other loop."""
        turns: list[Turn] = []
        if self.queue.head is not None:
            turns = self.queue.ahead_of()
            self.queue.clear()

        self.due = inf
        self.outlook.invalidate()
        self.gate.change_loops(shift)
        return turns
