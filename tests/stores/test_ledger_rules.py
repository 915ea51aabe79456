"""The rules of a shared limiter, judged by the buckets of one process."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from random import Random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FixedWindow, TokenBucket, WindowTokenBucket
from anythrottle._policies.bucket import goes_by_utc
from anythrottle._policies.policy import Policy
from anythrottle.stores.exchange import NEVER, Kind, Rule
from anythrottle.stores.rule_states import (
    FixedState,
    state_of,
)
from tests.properties import examples

#: Seconds of the buckets are microseconds of the rules, so floats are as exact as integers.
SECOND = 2**20

#: An instant that is no edge of a window.
ORIGIN = 1700 * SECOND + 12_345

#: By how many microseconds a rule may be earlier than the bucket, in a test of 60 charges.
EARLIER = defaultdict(int, bucket=10)


def rule_and_policy(kind: str, limit: int, window: int, extra: int) -> tuple[Rule, Policy]:
    """Return a rule, and the policy of which it is the twin."""
    match kind:
        case "window" | "end":
            policy = WindowTokenBucket(limit, window, measure="end" if kind == "end" else "start")
            return Rule(cast("Kind", kind), limit, window, 0, "calls"), policy
        case "bucket":
            burst = 1 + extra % 8
            return (
                Rule("bucket", limit, window, burst, "calls"),
                TokenBucket(limit, window, burst=burst),
            )
        case "first":
            return Rule("fixed", limit, window, -1, "calls"), FixedWindow(limit, window)
        case _:
            offset = extra * window // 16
            return (
                Rule("fixed", limit, window, offset, "calls"),
                FixedWindow(limit, window, align="utc", offset=offset),
            )


@dataclass
class Charge:
    cost: int
    #: By the rule, and by the bucket.
    receipt: int
    theirs: float


class Pair:
    """A rule and the bucket of its policy, through the same events."""

    def __init__(self, rule: Rule, policy: Policy) -> None:
        self.state = state_of(rule)
        self.bucket = policy.bucket()
        self.now = ORIGIN
        self.charges: list[Charge] = []
        #: Until when both agree: once a service's figures have put off the end of a window at set
        #: times of UTC, a bucket watches over the next one as if the wall clock had jumped.
        self.comparable_until = math.inf
        self.pass_by(0)

    def pass_by(self, micros: int) -> None:
        self.now += micros
        self.state.forget(self.now)
        if goes_by_utc(self.bucket):
            self.bucket.set_utc(self.now, self.now)

    def due(self, cost: int) -> int:
        """Return when a cost is due, about which both agree."""
        due = self.state.earliest(cost, self.now, 0)
        theirs = self.now + self.bucket.delay(self.now, cost)
        if min(due, theirs) < self.comparable_until:
            # In whole microseconds, rounded later.
            assert due == (NEVER if theirs == math.inf else math.ceil(theirs))

        return due

    def ask(self, cost: int) -> None:
        due = self.due(cost)
        if due > self.now:
            assert self.state.fits(cost, self.now) <= 0
            return

        assert self.state.fits(cost, self.now) >= 1
        self.bucket.take(self.now, cost)
        theirs = self.bucket.start(self.now, cost)
        receipt = self.state.charge(cost, self.now, 0)
        assert receipt == (0 if theirs == math.inf else math.ceil(theirs))
        self.charges.append(Charge(cost, receipt, theirs))

    def wait(self, cost: int) -> None:
        due = self.due(cost)
        if due < NEVER:
            self.pass_by(due - self.now)
            self.ask(cost)

    def end(self, index: int) -> None:
        if self.charges:
            charge = self.charges[index % len(self.charges)]
            charge.theirs = self.bucket.release(self.now, charge.cost, charge.theirs)
            if not charge.receipt and self.state.holds:
                self.state.count(charge.cost, self.now)
                charge.receipt = int(charge.theirs)

    def give_back(self, index: int) -> None:
        if self.charges:
            charge = self.charges.pop(index % len(self.charges))
            self.bucket.give_back(self.now, charge.cost, charge.theirs)
            if charge.receipt:
                self.state.give_back(charge.cost, charge.receipt, self.now)
            else:
                self.state.held -= charge.cost

    def tighten(self, remaining: int, after: int) -> None:
        """Tighten; ``after`` 0 stands for a reset that is unknown."""
        self.bucket.tighten(self.now, remaining, after or None)
        self.state.tighten(remaining, self.now + after if after else -1, self.now)
        if (
            isinstance(self.state, FixedState)
            and self.state.extra >= 0
            and self.state.end > self.now
            and (self.state.end - self.state.extra) % self.state.window
        ):
            self.comparable_until = min(self.comparable_until, self.state.end)

    def penalize(self, cost: int) -> None:
        # A penalty is charged to a call that has ended already.
        self.bucket.take(self.now, cost)
        receipt = self.bucket.start(self.now, cost)
        self.bucket.release(self.now, cost, receipt)
        self.state.charge_now(cost, self.now, self.now)

    def compare(self) -> None:
        quota = self.state.quota(self.now)
        assert quota.remaining == self.bucket.remaining(self.now)
        for cost in range(1, math.floor(self.state.capacity) + 2):
            self.due(cost)

        if quota.remaining < math.floor(self.state.capacity):
            assert quota.more == self.due(quota.remaining + 1)
        else:
            assert quota.more == self.now


EVENTS = ["pass", "ask", "ask", "wait", "end", "back", "back", "tighten", "penalize"]


def go(pair: Pair, event: str, number: int, micros: int) -> None:
    match event:
        case "pass":
            pair.pass_by(micros)
        case "ask":
            pair.ask(1 + number % 4)
        case "wait":
            pair.wait(1 + number % 4)
        case "end":
            pair.end(number)
        case "back":
            pair.give_back(number)
        case "tighten":
            pair.tighten(number, micros)
        case _:
            pair.penalize(number)


KINDS = ["window", "end", "bucket", "first", "utc"]


@pytest.mark.parametrize("kind", KINDS)
class TestAgainstTheBucketsOfOneProcess:
    @examples(300)
    @given(st.integers(0, 2**32))
    def test_equal_events_have_equal_answers(self, kind: str, seed: int) -> None:
        random = Random(seed)  # noqa: S311 - to be the same each time
        limit = random.choice([1, 2, 4, 8])
        pair = Pair(*rule_and_policy(kind, limit, SECOND, random.randrange(16)))
        for _ in range(random.randrange(60)):
            micros = random.choice([random.randrange(40), random.randrange(2 * SECOND)])
            go(pair, random.choice(EVENTS), random.randrange(12), micros)
            if pair.now >= pair.comparable_until:
                break

            pair.compare()

    @examples(100)
    @given(st.integers(0, 2**32))
    def test_so_it_is_with_rates_that_are_no_round_numbers(self, kind: str, seed: int) -> None:
        random = Random(seed)  # noqa: S311 - to be the same each time
        limit, window = random.randint(1, 9), random.randint(1, 10**8)
        rule, policy = rule_and_policy(kind, limit, window, random.randrange(16))
        state, bucket, now = state_of(rule), policy.bucket(), ORIGIN
        for _ in range(60):
            now += random.choice(
                [0, random.randrange(1 + window // limit), random.randrange(window)]
            )
            state.forget(now)
            cost = 1 + random.randrange(math.floor(state.capacity))
            if goes_by_utc(bucket):
                bucket.set_utc(now, now)

            due, theirs = state.earliest(cost, now, 0), now + bucket.delay(now, cost)
            if due < NEVER:
                # Beyond what the bucket rounds, at most one microsecond later; earlier by what
                # overflows there as it is charged at whole microseconds.
                assert -EARLIER[kind] - 1e-3 < due - theirs < 1 + 1e-3
                now = due
            else:
                assert theirs == math.inf

            if due < NEVER and bucket.delay(now, cost) < 1e-3:
                bucket.take(now, cost)
                receipt = bucket.start(now, cost)
                state.charge(cost, now, 0)
                if state.holds:
                    bucket.release(now, cost, receipt)
                    state.count(cost, now)
