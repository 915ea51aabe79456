"""A ledger with one process, judged by the buckets and the line of a limiter without a store."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import islice
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle import FixedWindow, TokenBucket, WindowTokenBucket
from anythrottle._policies.bucket import goes_by_utc
from anythrottle._policies.policy import Policy
from anythrottle._policies.token_bucket import TokenBucketState
from anythrottle.stores.exchange import (
    NEVER,
    Amounts,
    Charged,
    Ended,
    GivenBack,
    Grant,
    Happening,
    Micros,
    Paused,
    Resumed,
    Rule,
    Tightened,
)
from anythrottle.stores.ledger import Ledger
from tests.properties import examples
from tests.stores.processes import make_request, times, wants_of

#: Seconds of the buckets are microseconds of the rules, so floats are as exact as integers.
SECOND = 2**20

ORIGIN = 1700 * SECOND + 12_345

WINDOW = (Rule("window", 4, SECOND, 0, "calls"), WindowTokenBucket(4, SECOND))
LONG = (Rule("window", 8, 4 * SECOND, 0, "calls"), WindowTokenBucket(8, 4 * SECOND))
END = (Rule("end", 4, SECOND, 0, "calls"), WindowTokenBucket(4, SECOND, measure="end"))
BUCKET = (Rule("bucket", 4, SECOND, 4, "calls"), TokenBucket(4, SECOND, burst=4))
PACE = (Rule("bucket", 8, SECOND, 2, "calls"), TokenBucket(8, SECOND, burst=2))
FIRST = (Rule("fixed", 4, SECOND, -1, "calls"), FixedWindow(4, SECOND))
UTC = (
    Rule("fixed", 4, SECOND, SECOND // 4, "calls"),
    FixedWindow(4, SECOND, align="utc", offset=SECOND // 4),
)

SETS: list[tuple[list[tuple[Rule, Policy]], int]] = [
    ([WINDOW], 0),
    ([END], 0),
    ([BUCKET], 0),
    ([FIRST], 0),
    ([UTC], 0),
    ([], 3),
    ([PACE], 1),
    ([PACE, WINDOW], 0),
    ([PACE, LONG, FIRST], 2),
    ([UTC, END, BUCKET], 3),
]


@dataclass
class Started:
    """What the line knows of a call: what each bucket has said."""

    amounts: Amounts
    receipts: list[float]
    ended: bool = False


class Line:
    """The line of a limiter in one process: what is due is granted and starts, in order."""

    def __init__(self, policies: list[Policy], slots: int) -> None:
        self.buckets = [policy.bucket() for policy in policies]
        self.slots = slots
        self.bounded = bool(slots)
        self.line: deque[Amounts] = deque()
        self.due = math.inf
        self.paused_until = -math.inf
        self.came = 0.0
        self.started: list[Started] = []

    def delay(self, amounts: Amounts, now: float) -> float:
        if self.bounded and not self.slots:
            return math.inf

        delays = [
            bucket.delay(now, amount) if amount else 0.0
            for bucket, amount in zip(self.buckets, amounts, strict=False)
        ]
        return max([0.0, self.paused_until - now, *delays])

    def grant_due(self, now: float) -> list[Amounts]:
        """Grant and start what is due, as :class:`.Scheduler` does."""
        for bucket in self.buckets:
            if goes_by_utc(bucket):
                bucket.set_utc(now, now)

        since = min(self.due, now)
        if since < self.paused_until <= now:
            since = self.paused_until

        self.due = math.inf
        granted: list[Amounts] = []
        while self.line:
            amounts = self.line[0]
            delay = self.delay(amounts, now)
            if delay > 0:
                self.due = now + delay
                break

            since = earliest = max(self.came, since)
            for bucket, amount in zip(self.buckets, amounts, strict=False):
                if amount:
                    since = max(since, earliest + bucket.delay(earliest, amount))

            self.start(self.line.popleft(), now, min(since, now))
            granted.append(amounts)

        return granted

    def start(self, amounts: Amounts, now: float, since: float) -> None:
        receipts: list[float] = []
        for bucket, amount in zip(self.buckets, amounts, strict=False):
            if amount:
                bucket.take(now, amount, since)
                receipts.append(bucket.start(now, amount))
            else:
                receipts.append(-math.inf)

        self.slots -= 1
        self.started.append(Started(amounts, receipts))

    def end(self, index: int, now: float) -> None:
        call = self.started[index]
        call.ended = True
        self.slots += 1
        for number, bucket in enumerate(self.buckets):
            if call.amounts[number]:
                receipt = call.receipts[number]
                call.receipts[number] = bucket.release(now, call.amounts[number], receipt)

    def give_back(self, index: int, now: float) -> None:
        call = self.started.pop(index)
        for number, bucket in enumerate(self.buckets):
            receipt = call.receipts[number]
            if isinstance(bucket, TokenBucketState):
                # It allows for so much that floats may round.
                receipt -= 8 * math.ulp(receipt)

            if call.amounts[number]:
                bucket.give_back(now, call.amounts[number], receipt)

        if not call.ended:
            self.slots += 1


class Pair:
    """A ledger and the line, to which the same happens."""

    def __init__(self, pairs: list[tuple[Rule, Policy]], slots: int, random: Random) -> None:
        self.random = random
        self.rules = [rule for rule, _ in pairs]
        if slots:
            self.rules.append(Rule("slots", slots, 0, 0, "calls"))

        self.bounded = bool(slots)
        self.now: Micros = ORIGIN
        self.local = Line([policy for _, policy in pairs], slots)
        self.ledger = Ledger(make_request(self.rules, "a", 1, fresh="e1"), self.now)
        self.number = 0
        self.received: tuple[int, ...] = ()
        #: The receipts of the calls that have started, as the line has them.
        self.receipts: list[tuple[Micros, ...]] = []

    def exchange(self, *happenings: Happening) -> None:
        """Let both grant what is due, and compare."""
        self.number += 1
        request = make_request(
            self.rules,
            "a",
            self.number,
            epoch="e1",
            lease=10**12,
            received=self.received,
            wants=wants_of(self.local.line),
            happenings=happenings,
        )
        reply, _ = self.ledger.exchange(request, self.now)
        granted = self.local.grant_due(self.now)
        assert [grant.amounts for grant in expanded(reply.news.grants)] == granted
        assert all(grant.due == self.now for grant in reply.news.grants)
        due = self.local.due
        assert reply.news.due == (NEVER if due == math.inf else math.ceil(due))
        for quota, bucket in zip(reply.quotas, self.local.buckets, strict=False):
            assert quota.remaining == bucket.remaining(self.now)

        # Calls that were granted together have the receipts of the last of them.
        calls = iter(self.local.started[len(self.local.started) - len(granted) :])
        for grant in reply.news.grants:
            group = list(islice(calls, grant.count))
            for call in group:
                call.receipts = group[-1].receipts.copy()

        self.received = tuple(grant.number for grant in reply.news.grants)
        self.receipts += [grant.receipts for grant in expanded(reply.news.grants)]

    def step(self) -> None:
        self.now += self.random.choice([0, 1, 1000, SECOND // 8, SECOND // 3, 2 * SECOND])
        self.exchange()
        happening = self.random.choice(
            [self.ask, self.ask, self.wait, self.end, self.end, self.give_back, self.rare]
        )()
        if happening is not None:
            self.exchange(happening)

    def ask(self) -> Happening | None:
        cost = self.random.choice([1, 1, 2])
        parts = [self.random.choice([1, 1, 1, 0]) * cost for _ in self.local.buckets]
        amounts = (*parts, 1) if self.bounded else tuple(parts)
        if not self.local.line:
            self.local.came = self.now

        self.local.line += [amounts] * self.random.choice([1, 3, 9])
        self.exchange()
        return None

    def wait(self) -> Happening | None:
        if self.local.due < math.inf:
            # On time, or late.
            late = self.random.choice([0, 0, 1, SECOND // 5])
            self.now = max(self.now, math.ceil(self.local.due)) + late
            self.exchange()

        return None

    def end(self) -> Happening | None:
        running = [index for index, call in enumerate(self.local.started) if not call.ended]
        if not running:
            return None

        index = self.random.choice(running)
        self.local.end(index, self.now)
        amounts = self.local.started[index].amounts
        held = tuple(
            amount if rule.holds else 0 for rule, amount in zip(self.rules, amounts, strict=True)
        )
        self.receipts[index] = tuple(
            self.now + rule.window if rule.kind == "end" else receipt
            for rule, receipt in zip(self.rules, self.receipts[index], strict=True)
        )
        self.local.due = min(self.local.due, self.now)
        return Ended(self.now, held)

    def give_back(self) -> Happening | None:
        if not self.local.started:
            return None

        index = self.random.randrange(len(self.local.started))
        call, receipts = self.local.started[index], self.receipts.pop(index)
        self.local.give_back(index, self.now)
        # The slot of a call that has ended is free.
        amounts = tuple(
            0 if call.ended and rule.kind == "slots" else amount
            for rule, amount in zip(self.rules, call.amounts, strict=True)
        )
        self.local.due = min(self.local.due, self.now)
        return GivenBack(amounts, receipts)

    def rare(self) -> Happening | None:
        kind = self.random.choice(["pause", "resume", "penalize", "tighten"])
        if kind == "pause":
            until = self.now + self.random.randrange(2 * SECOND)
            self.local.paused_until = max(self.local.paused_until, until)
            return Paused(until)

        if kind == "resume":
            if self.local.paused_until > self.now:
                self.local.paused_until = self.now

            self.local.due = min(self.local.due, self.now)
            return Resumed()

        if not self.local.buckets:
            return None

        index = self.random.randrange(len(self.local.buckets))
        bucket = self.local.buckets[index]
        if kind == "penalize":
            amount = self.random.randrange(1, 6)
            bucket.take(self.now, amount)
            bucket.release(self.now, amount, bucket.start(self.now, amount))
            amounts = tuple(amount if each == index else 0 for each in range(len(self.rules)))
            return Charged(self.now, amounts, held=False)

        remaining = self.random.randrange(4)
        # What puts the ends of windows off is a matter of the rules.
        bucket.tighten(self.now, remaining, None)
        return Tightened(index, remaining, -1)


def expanded(grants: tuple[Grant, ...]) -> list[Grant]:
    """Return one grant for each call."""
    return [grant for grant in grants for _ in range(grant.count)]


@pytest.mark.parametrize(("pairs", "slots"), SETS)
class TestAgainstOneProcess:
    @pytest.mark.untraced
    @examples(40)
    @given(st.integers(0, 2**32))
    # What has come back says since when a call has been due that was not the first in line.
    @example(265239)
    def test_equal_events_have_equal_answers(
        self, pairs: list[tuple[Rule, Policy]], slots: int, seed: int
    ) -> None:
        pair = Pair(pairs, slots, Random(seed))  # noqa: S311 - to be the same each time
        for _ in range(60):
            pair.step()


def test_several_of_a_grant_have_its_receipts() -> None:
    assert times((1, 2), 3) == (3, 6)
