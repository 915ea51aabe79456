"""The rules of a shared limiter, judged by the buckets of one process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FixedWindow, TokenBucket, WindowTokenBucket
from anythrottle._policies.bucket import Bucket, goes_by_utc
from anythrottle._policies.policy import Policy
from anythrottle.stores.exchange import NEVER, Kind, Quota, Rule
from anythrottle.stores.ledger_rules import (
    EXACT_ENTRIES,
    BucketState,
    FixedState,
    RuleState,
    WindowState,
    state_of,
)
from tests.properties import examples

#: Seconds of the buckets are microseconds of the rules, so floats are as exact as integers.
SECOND = 2**20

#: An instant that is no edge of a window.
ORIGIN = 1700 * SECOND + 12_345


def window_rule(limit: int, window: int = SECOND) -> WindowState:
    return cast("WindowState", state_of(Rule("window", limit, window, 0, "calls")))


def end_rule(limit: int, window: int = SECOND) -> WindowState:
    return cast("WindowState", state_of(Rule("end", limit, window, 0, "calls")))


def bucket_rule(limit: float, burst: float, window: int = SECOND) -> BucketState:
    return cast("BucketState", state_of(Rule("bucket", limit, window, burst, "calls")))


def fixed_rule(limit: int, offset: int = -1, window: int = SECOND) -> FixedState:
    return cast("FixedState", state_of(Rule("fixed", limit, window, offset, "calls")))


def slot_rule(limit: int) -> RuleState:
    return state_of(Rule("slots", limit, 0, 0, "calls"))


def rule_and_policy(kind: str, limit: int, window: int, extra: int) -> tuple[Rule, Policy]:
    """Return a rule, and the policy of which it is the twin."""
    match kind:
        case "window" | "end":
            measure = "end" if kind == "end" else "start"
            policy: Policy = WindowTokenBucket(limit, window, measure=measure)
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
        self.bucket = cast("Bucket", policy.bucket())
        self.now = ORIGIN
        self.charges: list[Charge] = []
        #: Whether a service's figures have put off the end of a window.
        self.put_off = False
        self.pass_by(0)

    def pass_by(self, micros: int) -> None:
        self.now += micros
        self.state.forget(self.now)
        if goes_by_utc(self.bucket):
            self.bucket.set_utc(self.now, self.now)

    def due(self, cost: int) -> int:
        """Return when a cost is due, about which both agree."""
        due = self.state.earliest(cost, self.now, 0)
        delay = self.bucket.delay(self.now, cost)
        # In whole microseconds, rounded later.
        assert due == (NEVER if delay == math.inf else self.now + math.ceil(delay))
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


steps = st.lists(
    st.tuples(
        st.sampled_from(["pass", "ask", "ask", "wait", "end", "back", "tighten", "penalize"]),
        st.integers(0, 11),
        st.one_of(st.integers(0, 40), st.integers(0, 2 * SECOND)),
    ),
    max_size=40,
)


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


class TestAgainstTheBucketsOfOneProcess:
    @pytest.mark.parametrize("kind", KINDS)
    @examples(300)
    @given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 15), steps)
    def test_equal_events_have_equal_answers(
        self, kind: str, limit: int, extra: int, steps: list[tuple[str, int, int]]
    ) -> None:
        pair = Pair(*rule_and_policy(kind, limit, SECOND, extra))
        for event, number, micros in steps:
            go(pair, event, number, micros)
            pair.compare()
