"""Predicts when a newcomer could go, by simulating the line ahead of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import final

from .._policies.bucket import Bucket, goes_by_utc
from .._policies.policy import Decision, Reason, binding_of, seconds_until
from .local_gate import LocalGate
from .queue import TurnQueue
from .timetable import Answer, Forecast, Timetable
from .turn import Turn

#: The tables before anything has been foreseen. Shared, and never changed.
_NONE: Mapping[bool, Timetable] = {}

#: By which part of the remaining wait an answer may be wrong.
_TOLERANCE = 0.01

#: By which part of a wait turns may go earlier though there is one turn more, or some have gone
#: later: a window that merges charges merges others then.
_MERGED = 0.002

#: Behind so few turns an answer is always exact; of so many, one may be left out of account.
_FEW = 64

#: In a line of so few turns it is foreseen, too, that some give up because others join before them.
_VERY_FEW = 16

#: How many turns may be simulated anew for each event: that a turn joins or leaves, or a question.
_PAID = 32

#: By what factor turns that join in between may cost more than the others, on average.
_MORE = 4


@final
class Forecasts:
    """
    Answers newcomers from a timetable of the line, which is kept.

    It foresees that turns join at the end and are granted at the front; it keeps account of turns
    that join in between or leave; anything else makes it void. Where it has become too inexact, the
    line is simulated anew if few turns are ahead, or if as much has happened since the timetable
    was made as pays for another one: so each event costs a bounded number of steps. Else the answer
    errs on the safe side: a turn is found hopeless only if it surely is. One thing is not foreseen:
    that a turn gives up because calls go on for longer than they might, or, in a long line, because
    others have joined before it since.

    :param gate: the gate
    :param queue: the turns in line

    """

    __slots__ = ("_bounded", "_gate", "_marked", "_queue", "tables")

    def __init__(self, gate: LocalGate, queue: TurnQueue) -> None:
        self._gate = gate
        self._queue = queue
        #: Timetables, by whether they assume that calls which hold their charge end at once.
        self.tables: Mapping[bool, Timetable] = _NONE
        #: Whether the middle of the line was asked for since it was empty.
        self._marked = False
        #: Whether one that may give up has come since then.
        self._bounded = False

    def invalidate(self) -> None:
        """Forget the timetables: something has happened that could not be foreseen."""
        self.tables = _NONE

    def note_newcomer(self, turn: Turn) -> None:
        """Note that a turn is about to join the line."""
        self._forget_empty_line()
        queue = self._queue
        if self._bounded and len(queue) <= _VERY_FEW and queue.rank(turn.place) < len(queue):
            # Those behind it go later now, perhaps too late for them.
            self.tables = _NONE
            return

        tables = self.tables.items()
        self.tables = {key: table for key, table in tables if table.note_newcomer(turn)}

    def note_leaving(self, turn: Turn) -> None:
        """Note that a turn has left the line."""
        for table in self.tables.values():
            table.note_leaving(turn)

    def note_grants(self, now: float, late: float) -> None:
        """Note that turns have been granted at the front, ``late`` seconds after they were due."""
        self._forget_empty_line()
        if late:
            for table in self.tables.values():
                # A table that was made after they were due has foreseen some of that.
                table.late += min(late, now - table.made)

    def note_end(self) -> None:
        """Note that a call has ended, and so has let its charge go."""
        if False in self.tables:
            self.tables = {key: table for key, table in self.tables.items() if key}

    def is_hopeless(
        self, amounts: Sequence[int], now: float, priority: float, latest: float
    ) -> bool:
        """
        Return whether a newcomer surely cannot go by the instant ``latest``.

        That is, if no turn ahead leaves before it has waited for as long as it may. Slots, and what
        calls hold while they run, may be let go at any time.
        """
        self._bounded = True
        ahead = self._queue.count_ahead(priority)
        if not ahead:
            return Forecast.of(self._gate, now, ended=True).answer(amounts).due > latest

        table = self._table(now, ended=True)
        answer = table.answer(amounts, priority, ahead)
        if answer is not None:
            wait = answer.due - now
            delay = self._delay(table, now)
            exact = not (answer.inserted or answer.left or delay)
            if exact or (not answer.left and self._is_steady()):
                least = answer.due if exact else now + (1 - _MERGED) * wait
                if least > latest:
                    return True

            most = answer.due + delay + _MORE * _share(wait, answer, ahead)
            in_time = most <= latest and (not answer.inserted or ahead > _FEW)
            if in_time or not self._may_simulate(table, ahead):
                return False

        return self._simulated(table, amounts, priority, ahead, now).due > latest

    def decide(self, amounts: Sequence[int], now: float, priority: float = 0) -> Decision:
        """Return whether a newcomer could go now; if not, why, and when it could."""
        gate = self._gate
        ahead = self._queue.count_ahead(priority)
        full = gate.slots.none_left()
        starved = full or gate.slots.none_behind(ahead)
        buckets: Sequence[Bucket] = gate.buckets
        if ahead and not starved:
            due, delays = self._expected(amounts, priority, ahead, now)
        else:
            # How long a slot takes is unknown.
            forecast = self._without_line(now)
            due, delays, *_ = forecast.answer(amounts)
            if not ahead:
                buckets = forecast.buckets

        reason: Reason | None = None
        if gate.paused_until > now:
            reason = "pause"
        elif ahead:
            reason = "line"
        elif full:
            reason = "concurrency"
        elif max(delays, default=0.0) > 0:
            reason = "rate"

        wait = inf if starved else seconds_until(now, due)
        if not gate.policies:
            return Decision(reason is None, reason, wait, None, 0.0, None, None)

        left = [bucket.remaining(now) for bucket in buckets]
        binding = binding_of(delays, left, gate.capacities)
        policy = gate.policies[binding]
        reset = buckets[binding].reset_after(now)
        return Decision(reason is None, reason, wait, left[binding], reset, policy.limit, policy)

    def _forget_empty_line(self) -> None:
        if self.tables and self._queue.head is None:
            self.tables = _NONE
            self._marked = self._bounded = False

    def _expected(
        self, amounts: Sequence[int], priority: float, ahead: int, now: float
    ) -> tuple[float, list[float]]:
        """Return when a newcomer may go, and for how long each bucket makes it wait then."""
        table = self._table(now, ended=False)
        answer = table.answer(amounts, priority, ahead)
        if answer is not None:
            wait = answer.due - now
            # Too late is better than too early.
            due = answer.due + _MORE * _share(wait, answer, ahead)
            delay = self._delay(table, now)
            if (answer.inserted + answer.left) * _FEW < ahead and delay <= _TOLERANCE * wait:
                return due, answer.delays

            if not self._may_simulate(table, ahead):
                return due + delay, answer.delays

        answer = self._simulated(table, amounts, priority, ahead, now)
        return answer.due, answer.delays

    def _table(self, now: float, *, ended: bool) -> Timetable:
        """Return the timetable to answer a question from."""
        table = self.tables.get(ended and self._gate.holds_charges)
        if table is None:
            table = self._new_table(now, ended=ended)

        table.events += 1
        return table

    def _new_table(self, now: float, *, ended: bool) -> Timetable:
        table = Timetable(self._gate, self._queue, now, ended=ended, marked=self._marked)
        self.tables = {**self.tables, ended and self._gate.holds_charges: table}
        return table

    def _may_simulate(self, table: Timetable, ahead: int) -> bool:
        """Return whether the line may be simulated anew for a newcomer."""
        return ahead <= _FEW or table.events * _PAID >= len(self._queue)

    def _simulated(
        self, table: Timetable, amounts: Sequence[int], priority: float, ahead: int, now: float
    ) -> Answer:
        """Return an exact answer, where a timetable has none, or has become inexact."""
        covered = table.covered
        if covered > 0:
            if ahead <= _FEW < covered or (table.marked and not self._may_simulate(table, ahead)):
                # This is not worth a new timetable, or that is not paid for.
                forecast = Forecast.of(self._gate, now, ended=table.ended)
                for turn in self._queue.ranked(0, ahead):
                    forecast.pass_by(turn)

                return forecast.answer(amounts)

            self._marked = self._marked or covered > ahead

        table = self._new_table(now, ended=table.ended)
        answer = table.answer(amounts, priority, ahead)
        assert answer is not None
        return answer

    def _delay(self, table: Timetable, now: float) -> float:
        """Return by how much the turns in line may go later than a timetable says."""
        # While it is unknown when a slot or a charge will be let go, all moves on with time.
        gate = self._gate
        moves = gate.holds and (gate.holds_charges or gate.slots.none_left())
        return table.late + (now - table.made if moves else 0.0)

    def _is_steady(self) -> bool:
        """Return whether one more turn, or a delay, can only make turns behind it go later."""
        buckets = self._gate.buckets
        enough = ("always", "alone") if len(buckets) == 1 else ("always",)
        return all(bucket.monotone in enough for bucket in buckets)

    def _without_line(self, now: float) -> Forecast:
        forecast = Forecast.of(self._gate, now)
        for bucket in forecast.buckets:
            if self._queue.head is None and goes_by_utc(bucket):
                bucket.set_utc(now, self._gate.clock.utc(now))

        return forecast


def _share(wait: float, answer: Answer, ahead: int) -> float:
    """Return by how much turns left out of account prolong a wait, if they are like the others."""
    # Infinity times nothing would be no number.
    return wait * answer.inserted / ahead if answer.inserted else 0.0
