"""When, and to how many calls, all rules of a shared limiter agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from .exchange import NEVER, Amounts, Micros
from .rule_states import ANY_NUMBER, BucketState, FixedState, RuleState

#: How often rules are asked for an instant to which all agree.
PASSES = 8


@final
class Agreement:
    """
    The rules of a limiter, which have to agree to each call.

    :ivar rules: in their order
    """

    def __init__(self, rules: Sequence[RuleState]) -> None:
        self.rules = rules

    def first(self, amounts: Amounts, instant: Micros, grace: Micros, *, buckets: bool) -> Micros:
        """
        Return the first instant, from ``instant`` on, to which all rules agree.

        A later instant may be unfit although an earlier one was fit, but only because of a fixed
        window's edge. If such edges leave no room between them, they are ignored.
        """
        agreed = instant
        for _ in range(PASSES):
            before = agreed
            for rule, amount in zip(self.rules, amounts, strict=True):
                if amount and agreed < NEVER and (buckets or not isinstance(rule, BucketState)):
                    agreed = rule.earliest(amount, agreed, grace)

            if agreed in (before, NEVER):
                return agreed

        return self.first(amounts, instant, 0, buckets=buckets)

    def part(
        self, amounts: Amounts, when: tuple[Micros, Micros], latest: Micros, turns: int
    ) -> int:
        """
        Return how many equal calls are one turn's part of what is there.

        :param when: since when the first one has been due, and its instant
        :param latest: the instant that the last one may have, if they go one by one
        """
        since, instant = when
        there = self._fits(amounts, since, instant, instant)
        if there == 1 and since == instant < latest and not self._has_edges(amounts):
            return self._fits(amounts, since, instant, latest)

        return -(-there // turns)

    def _fits(self, amounts: Amounts, since: Micros, instant: Micros, latest: Micros) -> int:
        """Return how many equal calls may go at an instant, or until the latest: at least 1."""
        # How much overflows while calls wait for several buckets is hard to tell.
        until = latest if self._bucket_of(amounts) else since
        there = ANY_NUMBER
        for rule, amount in zip(self.rules, amounts, strict=True):
            if amount and isinstance(rule, BucketState):
                there = min(there, rule.fits_until(amount, since, until))
            elif amount:
                there = min(there, rule.fits(amount, instant))

        return max(there, 1)

    def _bucket_of(self, amounts: Amounts) -> tuple[BucketState, int] | None:
        """Return the one bucket that charges a call, and how much; ``None`` if it isn't one."""
        buckets = [
            (rule, amount)
            for rule, amount in zip(self.rules, amounts, strict=True)
            if amount and isinstance(rule, BucketState)
        ]
        return buckets[0] if len(buckets) == 1 else None

    def _has_edges(self, amounts: Amounts) -> bool:
        """Return whether a later instant may be unfit though an earlier one was fit."""
        return any(
            amount and isinstance(rule, FixedState)
            for rule, amount in zip(self.rules, amounts, strict=True)
        )

    def last_of(self, amounts: Amounts, count: int, since: Micros, instant: Micros) -> Micros:
        """Return the instant at which the last of so many calls can go."""
        found = self._bucket_of(amounts)
        if count == 1 or not found:
            return instant

        bucket, amount = found
        return max(instant, bucket.due_from(amount * count, since))
