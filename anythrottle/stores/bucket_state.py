"""Token buckets, as the server of a shared limiter counts."""

from __future__ import annotations

from math import ceil, floor
from typing import final

from .exchange import NEVER, Micros, Rule
from .rule_state import ANY_NUMBER, RuleState


@final
class BucketState(RuleState):
    """
    A token bucket: there were ``level`` tokens at the instant ``at``, and more flow in since then.

    Nothing flows in before that instant, if it is still to come.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.level = rule.extra
        self.at = 0

    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        if amount <= self.level:
            return instant

        return NEVER if amount > self.extra else max(instant, self._due(amount))

    def fits(self, amount: int, instant: Micros) -> int:
        return min(floor(self._level_at(instant) / amount), ANY_NUMBER)

    def fits_until(self, amount: int, since: Micros, latest: Micros) -> int:
        """Return how many calls can go one after the other, from an instant to the latest."""
        flow = max(latest - max(self.at, since), 0) / self.window * self.limit
        return min(floor((self._due_level_at(since) + flow) / amount), ANY_NUMBER)

    def due_from(self, amount: int, since: Micros) -> Micros:
        """Return when an amount is complete, if what flows in from ``since`` on is all taken."""
        missing = max(amount - self._due_level_at(since), 0)
        return max(since, self.at) + ceil(missing / self.limit * self.window) if missing else since

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        self.level = self._due_level_at(instant) - amount
        self.at = max(self.at, instant)
        return max(instant, self._due(self.extra))

    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        self.charge(amount, now, 0)

    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        if receipt > now:
            back = min(amount, (receipt - now) / self.window * self.limit)
            self.level = min(self.level + back, self.extra)

    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        self.level = min(self._level_at(now), remaining)
        self.at = max(self.at, now)
        if reset >= 0:
            reset = min(reset, now + self.window)
            missing = max(remaining - self.level, 0.0)
            self.at = max(self.at, reset - floor(missing / self.limit * self.window))

    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        # As if nothing of it had flowed in yet, because that counts once, not for each process.
        if receipt > now:
            self.charge(amount, now, 0)

    def full_at(self, now: Micros) -> Micros:
        return max(self._due(self.extra), now)

    @property
    def capacity(self) -> float:
        return self.extra

    def _due(self, amount: float) -> Micros:
        return min(self.at + ceil((amount - self.level) / self.limit * self.window), NEVER)

    def _level_at(self, instant: Micros) -> float:
        if instant <= self.at:
            return self.level

        return min(self.level + (instant - self.at) / self.window * self.limit, self.extra)

    def _due_level_at(self, instant: Micros) -> float:
        """
        Return the level from which a call is charged that is due at an instant.

        The instant was rounded up, so what overflows within less than a microsecond is kept: in a
        fast bucket that is a good part of the tokens.
        """
        if instant <= self.at:
            return self.level

        level = self.level + (instant - self.at) / self.window * self.limit
        return level if level < self.extra + self.limit / self.window else self.extra
