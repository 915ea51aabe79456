"""What a process has to tell the server about one limiter, and by when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import final

from .._policies.charge_log import ChargeLog
from .again import FRAGILE
from .exchange import (
    Amounts,
    Charged,
    Happening,
    Micros,
    Paused,
    Remembered,
    Resumed,
    Rule,
    Started,
    Tightened,
)
from .server_clock import ServerClock
from .stock import Lot, Segment

#: How many charges are remembered for each rule, in case the server forgets them.
_LOGGED = 256


@final
class Local:
    """
    Something that happened, or is to happen, at an instant of the process's own clock.

    :ivar make: returns what the server is told, given that instant by its clock
    """

    __slots__ = ("instant", "make")

    def __init__(self, instant: float, make: Callable[[Micros], Happening]) -> None:
        self.instant = instant
        self.make = make


#: What is told even to a server that has forgotten all else, or by another dialogue.
_LASTING = (Local, Paused, Resumed, Tightened)


@final
class Outbox:
    """
    What there is to tell the server, in order.

    Starts are told together, if they lie close to one another: as if all were at the last one's
    instant, which is the safe side.

    :param rules: what must agree to each call
    :param spread: how far starts that are told together may lie apart, in microseconds

    :ivar due: by when it is to be told, by the process's own clock
    :ivar pauses: whether there is a pause in it, or the end of one
    """

    __slots__ = ("_logs", "_rules", "_spread", "_started", "_told", "due", "pauses")

    def __init__(self, rules: tuple[Rule, ...], spread: Micros) -> None:
        self._rules = rules
        self._spread = spread
        self._told: list[Happening | Local] = []
        self._started: dict[Lot, None] = {}
        self._logs = [ChargeLog(_LOGGED) for _ in rules]
        self.due = inf
        self.pauses = False

    def __bool__(self) -> bool:
        return bool(self._told)

    def tell(self, happening: Happening | Local, due: float) -> None:
        """Report something, by an instant of the process's own clock."""
        self._told.append(happening)
        self.due = min(self.due, due)

    def speak_by(self, instant: float) -> None:
        """Note that something is to be told by an instant."""
        self.due = min(self.due, instant)

    def note_start(self, lot: Lot, at: Micros) -> tuple[Segment, bool]:
        """
        Note that a call starts.

        :return: the segment that it started in, and whether that is new
        """
        segment = lot.segments[-1] if lot.segments else None
        if segment is not None and not segment.closed and at - segment.first <= self._spread:
            segment.count += 1
            segment.last = max(segment.last, at)
            return segment, False

        segment = Segment(at)
        lot.segments.append(segment)
        self._started[lot] = None
        return segment, True

    def take(self, clock: ServerClock, life: int, *, tells_starts: bool) -> tuple[Happening, ...]:
        """Take out all that there is to tell."""
        happenings = self._starts(life) if tells_starts else []
        self._close_starts()
        for each in self._told:
            if isinstance(each, Local):
                happening = each.make(clock.latest(each.instant))
                self._remember_charged(happening)
                happenings.append(happening)
            else:
                happenings.append(each)

        self._told = []
        self.pauses = False
        self.due = inf
        return tuple(happenings)

    def remember(self, index: int, receipt: Micros, amount: int) -> None:
        """Remember what a rule has charged, in case the server forgets it."""
        self._logs[index].note(receipt, amount)

    def hold_nothing(self) -> None:
        """Note that the server has taken what is held: what was to be held is charged instead."""
        self._told = [
            replace(each, held=False) if isinstance(each, Charged) else each for each in self._told
        ]

    def begin_anew(self, now: Micros, unheard: Sequence[Happening]) -> None:
        """
        Keep only what a server that has forgotten all has to know: charges, then what lasts.

        :param unheard: what it was told in vain
        """
        self._close_starts()
        remembered: list[Happening | Local] = [
            Remembered(index, amount, int(receipt))
            for index, log in enumerate(self._logs)
            for receipt, amount in log.entries()
            if receipt > now
        ]
        again = [each for each in (*unheard, *self._told) if isinstance(each, _LASTING)]
        self._told = [*remembered, *again]
        self.due = -inf

    def forget_fragile(self) -> None:
        """Drop what is about things that the server has taken."""
        self._told = [each for each in self._told if not isinstance(each, FRAGILE)]

    def take_over(self, before: Outbox, unheard: Sequence[Happening]) -> None:
        """
        Take over what was said before the store was entered.

        :param unheard: what has been sent, perhaps in vain
        """
        self._told = [each for each in (*unheard, *before._told) if isinstance(each, _LASTING)]
        self.pauses = before.pauses
        if self._told:
            self.due = -inf

    def shift(self, seconds: float) -> None:
        """Go over to a clock that is ahead."""
        self._told = [
            Local(each.instant + seconds, each.make) if isinstance(each, Local) else each
            for each in self._told
        ]

    def _remember_charged(self, happening: Happening) -> None:
        """Remember a charge that belongs to no call."""
        if isinstance(happening, Charged):
            for index, amount in enumerate(happening.amounts):
                if amount and self._rules[index].window:
                    self.remember(index, happening.at + self._rules[index].window, amount)

    def _starts(self, life: int) -> list[Happening]:
        return [
            Started(segment.last, _times(lot.grant.amounts, segment.count), lot.grant.receipts)
            for lot in self._started
            if lot.life == life
            for segment in lot.segments
        ]

    def _close_starts(self) -> None:
        """Close the segments of the started calls, and remember what those were charged."""
        for lot in self._started:
            for segment in lot.segments:
                segment.closed = True
                for index, receipt in self._receipts(lot, segment.last):
                    self.remember(index, receipt, lot.grant.amounts[index] * segment.count)

            lot.segments.clear()

        self._started.clear()

    def _receipts(self, lot: Lot, at: Micros) -> Iterable[tuple[int, Micros]]:
        """Return when what a call was charged comes back if it starts at an instant."""
        for index, rule in enumerate(self._rules):
            if rule.kind == "window":
                yield index, at + rule.window
            elif rule.kind == "bucket":
                yield index, at + int(rule.extra / rule.limit * rule.window)
            elif rule.kind == "fixed":
                yield index, lot.grant.receipts[index]


def _times(amounts: Amounts, count: int) -> Amounts:
    return tuple(amount * count for amount in amounts)
