"""Fixed windows, as the server of a shared limiter counts."""

from __future__ import annotations

from math import ceil, floor
from typing import final

from .exchange import NEVER, Micros, Rule
from .rule_state import RuleState


@final
class FixedState(RuleState):
    """
    Fixed windows: ``used`` was charged in the one that ends at ``end``, the latest that was noted.

    What was charged beyond the limit is carried on, the limit's worth into each window. No grant is
    made in the last ``grace`` of a window, because its call might start in the next one.

    :ivar foreign: receipts up to this one are of windows that have ended
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.used = 0
        self.end = 0
        self.foreign = 0

    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        if amount > self.limit:
            return NEVER

        excess = self._used_at(instant) + amount - self.limit
        if excess > 0:
            edges = ceil((self.used + amount - self.limit) / self.limit)
            instant = max(instant, self._edge(edges))

        end = self._end_at(instant)
        return end if end and end - instant < grace < self.window else instant

    def fits(self, amount: int, instant: Micros) -> int:
        return floor((self.limit - self._used_at(instant)) / amount)

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        self._open(instant, grace)
        self.used += amount
        return self.end

    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        self.charge(amount, now, 0)

    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        self._roll(now)
        if now < self.end and receipt > self.foreign:
            self.used = max(self.used - amount, 0)

    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        self._roll(now)
        free = floor(self.limit - self.used)
        reset = now if reset < 0 else min(reset, now + self.window)
        end = self.end if now < self.end else self._end_from(now)
        # Ending before the reset would also admit the next window's quota, which is right only if
        # the service leaves enough for it.
        next_room = self.limit - max(self.used - self.limit, 0)
        if end < reset and self._end_from(end) < reset:
            next_room += self.limit

        early = end < reset and max(min(free, remaining), 0) + next_room > remaining
        if free > remaining or early:
            self._open(now, 0)
            self.used += max(free - remaining, 0)

        if early:
            self.end = reset

    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        self._roll(now)
        if receipt > now:
            self.end = max(self.end, receipt)
            self.used += amount

    def full_at(self, now: Micros) -> Micros:
        if not self._used_at(now):
            return now

        return self._edge(ceil(self.used / self.limit))

    def _used_at(self, instant: Micros) -> float:
        return max(self.used - self._edges_passed(instant) * self.limit, 0)

    def _edge(self, number: int) -> Micros:
        """Return the end of the latest window, number 1, or of one that is to follow it."""
        if number == 1:
            return self.end

        return self._end_from(self.end) + (number - 2) * self.window

    def _edges_passed(self, instant: Micros) -> int:
        if instant < self.end:
            return 0

        return (instant - self._edge(2)) // self.window + 2

    def _end_at(self, instant: Micros) -> Micros:
        """Return the end of the window that is under way at an instant, 0 if there is none."""
        passed = self._edges_passed(instant)
        if not passed or self.used > passed * self.limit:
            return self._edge(passed + 1)

        # A window that opens with its first call has no edge before that.
        return self._end_from(instant) if self.extra >= 0 else 0

    def _roll(self, now: Micros) -> None:
        """Note which window is under way; after one, another follows only to carry debt."""
        passed = self._edges_passed(now)
        if not passed:
            return

        used = max(self.used - passed * self.limit, 0)
        self.foreign = max(self.foreign, self.end)
        self.end = self._edge(passed + 1) if used else 0
        self.used = floor(used)

    def _open(self, instant: Micros, grace: Micros) -> None:
        """Open a window, unless one is under way."""
        self._roll(instant)
        if self.end <= instant:
            self.end = self._end_from(instant)
            if self.extra < 0:
                # Its first call may start as late as that.
                self.end += grace

    def _end_from(self, instant: Micros) -> Micros:
        if self.extra < 0:
            return instant + self.window

        return instant + self.window - (instant - floor(self.extra)) % self.window
