"""Windows that move with time, as the server of a shared limiter counts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from math import floor
from typing import final

from .exchange import NEVER, Micros, Rule
from .rule_state import ANY_NUMBER, RuleState

#: How many charges are remembered one by one; beyond, later ones are merged.
EXACT_ENTRIES = 1000


class WindowState(RuleState):
    """
    A window from the start of the calls.

    Invariant: the limit is what is free, plus what is held, plus the sum of the entries that have
    not come back. Equal ends are one entry; beyond :data:`EXACT_ENTRIES`, ends are rounded later
    by at most a thousandth of the window, so that they become equal.

    :ivar entries: the end and the amount of each charge, in their order
    :ivar used: the sum of the entries
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.entries: list[tuple[Micros, int]] = []
        self.used = 0
        self.grain = max(self.window // EXACT_ENTRIES, 1)

    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        excess = self.used + self.held + amount - self.limit
        if excess <= 0:
            return instant

        for end, charged in self.entries:
            excess -= charged
            if excess <= 0:
                return max(end, instant)

        return NEVER

    def fits(self, amount: int, instant: Micros) -> int:
        free = self.limit - self.held - self._used_at(instant)
        return floor(free / amount)

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        return self.add(instant + grace + self.window, amount)

    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        self.forget(now)
        self.add(at + self.window, amount)

    def start(self, amount: int, at: Micros, receipt: Micros) -> None:
        found = self.remove(amount, receipt, receipt)
        if found:
            self.add(min(at + self.window, receipt), found)

    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        self.forget(now)
        # Its return may have been moved, by merging or by tighten(), but never to an earlier time.
        if receipt > now:
            self.remove(amount, receipt, NEVER)

    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        self.forget(now)
        free = floor(self.limit - self.held - self.used)
        withheld = max(free - remaining, 0)
        spare = max(remaining - free, 0)
        if reset < 0:
            if withheld:
                self.add(now + self.window, withheld)

            return

        reset = min(reset, now + self.window)
        # What would come back before the reset comes back with it, except for what is to spare.
        for end, amount in self.entries[: bisect_right(self.entries, (reset, ANY_NUMBER))]:
            part = min(amount, spare)
            spare -= part
            withheld += self.remove(amount - part, end, end)

        if withheld:
            self.add(max(reset, now + 1), withheld)

    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        if receipt > now:
            self.add(receipt, amount)

    def full_at(self, now: Micros) -> Micros:
        last = self.entries[-1][0] if self.entries else now
        return max(last, now + self.window if self.held else now)

    def forget(self, now: Micros) -> None:
        count = bisect_right(self.entries, (now, ANY_NUMBER))
        self.used -= sum(amount for _, amount in self.entries[:count])
        del self.entries[:count]

    def add(self, end: Micros, amount: int) -> Micros:
        """Enter a charge; return its end, which may have become later."""
        if len(self.entries) >= EXACT_ENTRIES:
            end += -end % self.grain

        if not amount:
            return end

        index = bisect_left(self.entries, (end, 0))
        if index < len(self.entries) and self.entries[index][0] == end:
            self.entries[index] = (end, self.entries[index][1] + amount)
        else:
            insort(self.entries, (end, amount))

        self.used += amount
        return end

    def remove(self, amount: int, first: Micros, last: Micros) -> int:
        """Take an amount out of the entries with ends from the first to the last, in order."""
        index = bisect_left(self.entries, (first, 0))
        removed = 0
        while removed < amount and index < len(self.entries) and self.entries[index][0] <= last:
            end, charged = self.entries[index]
            part = min(charged, amount - removed)
            removed += part
            if part == charged:
                del self.entries[index]
            else:
                self.entries[index] = (end, charged - part)

        self.used -= removed
        return removed

    def _used_at(self, instant: Micros) -> int:
        used = self.used
        for end, amount in self.entries:
            if end > instant:
                break

            used -= amount

        return used


@final
class EndState(WindowState):
    """A window from the end of the calls: what runs is held."""

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        self.held += amount
        return 0

    def start(self, amount: int, at: Micros, receipt: Micros) -> None:
        pass

    def count(self, amount: int, at: Micros) -> None:
        self.held -= amount
        if amount:
            self.add(at + self.window, amount)
