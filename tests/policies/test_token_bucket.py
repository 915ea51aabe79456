"""The token bucket, judged by a plain list of charges and by exact arithmetic."""

import math
import pickle
from dataclasses import FrozenInstanceError, dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle._policies.bucket import Bucket
from anythrottle._policies.policy import Policy
from anythrottle._policies.token_bucket import TokenBucket, TokenBucketState
from tests.properties import examples

#: Of limit, per and burst; the shortest are no round numbers in floats.
policies = st.builds(
    lambda limit, per, burst: TokenBucket(limit, per, burst=burst),
    st.one_of(st.integers(1, 20), st.floats(0.1, 20.0)),
    st.one_of(st.sampled_from([0.1, 0.3, 1.0, 1 / 3, 10.0, math.pi]), st.floats(1e-3, 1e5)),
    st.one_of(st.none(), st.integers(1, 10), st.floats(1.0, 10.0)),
)

origins = st.one_of(st.sampled_from([0.0, 0.1, 1e6, -1e6]), st.floats(-1e7, 1e7))

#: What a few roundings can make of an amount of tokens.
TINY = 1e-9


def slack(policy: TokenBucket, *instants: float) -> float:
    """Return how much flows in while a clock cannot tell the instants from the next ones."""
    return TINY + 8 * math.ulp(max(map(abs, instants))) * policy.limit / policy.per


def burst_of(policy: TokenBucket) -> float:
    assert policy.burst is not None
    return policy.burst


def costs(policy: TokenBucket) -> range:
    return range(1, math.floor(burst_of(policy)) + 1)


def gaps(policy: TokenBucket, most: float = 3.0) -> st.SearchStrategy[float]:
    """Return spans of time, up to so many times that of the policy."""
    return st.floats(0.0, most).map(lambda part: part * policy.per)


@dataclass
class Charge:
    """An amount and the instant since which it was due."""

    instant: float
    cost: int


def excess(policy: TokenBucket, charges: list[Charge]) -> float:
    """Return by how much a span of time holds more than it may, of all spans there are."""
    rate = policy.limit / policy.per
    most = -math.inf
    for first, start in enumerate(charges):
        total = 0
        for end in charges[first:]:
            total += end.cost
            most = max(most, total - burst_of(policy) - rate * (end.instant - start.instant))

    return most


class PlainLevel:
    """The reference: the level in exact arithmetic, step by step."""

    def __init__(self, policy: TokenBucket) -> None:
        self.rate = Fraction(policy.limit) / Fraction(policy.per)
        self.burst = Fraction(burst_of(policy))

    def level(self, charges: list[Charge], now: float) -> Fraction:
        """Return the level, had there been just these charges, in the order of time."""
        level, at = self.burst, None
        for instant, cost in [*((c.instant, c.cost) for c in charges), (now, 0)]:
            if at is not None:
                level = min(level + self.rate * (Fraction(instant) - at), self.burst)

            level, at = level - cost, Fraction(instant)

        return level


def spend(bucket: TokenBucketState, now: float, cost: int) -> float:
    """Charge at once, due or not; return the receipt."""
    bucket.take(now, cost)
    return bucket.start(now, cost)


#: What a bucket is told, and what it answers: each line a method, its arguments, and the answer if
#: it is a question.
Course = list[tuple[Any, ...]]

QUESTIONS = {"delay", "forgive", "history", "remaining", "reset_after"}


def follow(bucket: TokenBucketState, course: Course) -> None:
    for number, (method, *arguments) in enumerate(course):
        if method == "spend":
            spend(bucket, *arguments)
        elif method in QUESTIONS:
            answer = getattr(bucket, method)(*arguments[:-1])
            assert answer == arguments[-1], course[: number + 1]
        else:
            getattr(bucket, method)(*arguments)


CREDIT: dict[str, tuple[TokenBucket, Course]] = {
    "without credit a late grant shifts those that follow": (
        TokenBucket(10, 1, burst=1),
        [("spend", 0.0, 1), ("take", 0.15, 1), ("delay", 0.15, 1, pytest.approx(0.1))],
    ),
    "with credit it does not": (
        TokenBucket(10, 1, burst=1),
        [("spend", 0.0, 1), ("take", 0.15, 1, 0.1), ("delay", 0.15, 1, pytest.approx(0.05))],
    ),
    "no credit from before the last charge": (
        TokenBucket(10, 1, burst=2),
        [("take", 5.0, 1), ("take", 6.0, 2, 1.0), ("delay", 5.0, 1, pytest.approx(0.2))],
    ),
    "nor from times to come": (
        TokenBucket(10, 1, burst=2),
        [("take", 5.0, 2, 7.0), ("delay", 5.0, 1, pytest.approx(0.1))],
    ),
}

TIGHTENED: dict[str, Course] = {
    "nothing flows in before the reset": [
        ("tighten", 0.0, 2, 4.0),
        ("remaining", 0.0, 2),
        ("remaining", 4.0, 2),
        ("delay", 0.0, 3, 5.0),
        ("reset_after", 0.0, 7.0),
    ],
    "what is missing from what remains may flow in": [
        ("spend", 0.0, 5),
        ("tighten", 0.0, 2, 4.0),
        ("delay", 0.0, 1, 3.0),
        ("delay", 0.0, 2, 4.0),
        ("delay", 0.0, 3, 5.0),
    ],
    "a server that leaves more than can be used changes nothing": [
        ("spend", 0.0, 5),
        *[("tighten", number * 0.25, 1000 - number, 60.0) for number in range(1, 11)],
        ("remaining", 2.5, 2),
        ("delay", 2.5, 3, 0.5),
    ],
    "a reset beyond the window counts as the window": [
        ("tighten", 0.0, 0, 1e9),
        ("delay", 0.0, 1, 11.0),
    ],
    "without a reset it is as if it had been charged just now": [
        ("tighten", 0.0, 2, None),
        ("delay", 0.0, 3, 1.0),
        ("tighten", 0.0, 4, None),
        ("delay", 0.0, 3, 1.0),
    ],
    "an earlier reset loosens nothing": [
        ("tighten", 0.0, 0, 8.0),
        ("tighten", 1.0, 3, 1.0),
        ("delay", 1.0, 1, 8.0),
        ("spend", 1.0, 1),
        ("delay", 1.0, 1, 9.0),
    ],
    "a full bucket that was tightened is no forgotten one": [
        ("tighten", 0.0, 5, 8.0),
        ("remaining", 0.0, 5),
        ("reset_after", 0.0, 8.0),
        ("spend", 0.0, 5),
        ("delay", 0.0, 1, 9.0),
    ],
}

KEPT: dict[str, tuple[TokenBucket, Course]] = {
    "debt is paid back first": (
        TokenBucket(1, 1, burst=3),
        [
            ("spend", 0.0, 10),
            ("remaining", 0.0, 0),
            ("delay", 0.0, 0, 7.0),
            ("delay", 0.0, 1, 8.0),
            ("reset_after", 0.0, 10.0),
        ],
    ),
    "debt that is forgiven leaves less of it": (
        TokenBucket(1, 1, burst=3),
        [
            ("spend", 0.0, 10),
            ("forgive", 0.0, 7.0, False),
            ("forgive", 0.0, 4.0, True),
            ("delay", 1.0, 0, 3.0),
            ("forgive", 4.0, 0.0, False),
        ],
    ),
    "debt that is forgiven leaves it empty": (
        TokenBucket(1, 1, burst=3),
        [("spend", 0.0, 10), ("forgive", 0.0, -1.0, True), ("delay", 0.0, 1, 1.0)],
    ),
    "history is when the calls began": (
        TokenBucket(1, 2, burst=10),
        [
            ("take", 0.0, 4),
            ("history", 0.0, []),
            ("start", 0.0, 3),
            ("history", 0.0, [(0.0, 3)]),
            ("history", 1e6, [(0.0, 3)]),
            ("start", 1.0, 1),
            ("take", 1.0, 1),
            ("history", 1.0, [(0.0, 3), (1.0, 1)]),
        ],
    ),
    "what was withheld is part of it, from when the server said so": (
        TokenBucket(1, 1, burst=5),
        [
            ("tighten", 3.0, 1, None),
            ("tighten", 3.5, 1, None),
            ("tighten", 4.0, 9, None),
            ("history", 5.0, [(3.0, 4), (3.5, 1)]),
        ],
    ),
    "what is held is let go, and no more": (
        TokenBucket(1, 1, burst=5),
        [
            ("take", 0.0, 4),
            ("start", 0.0, 1),
            ("forget_held",),
            ("remaining", 0.0, 4),
            ("forget_held",),
            ("remaining", 0.0, 4),
        ],
    ),
    "a clock that goes back gives nothing twice": (
        TokenBucket(1, 1, burst=2),
        [
            ("spend", 100.0, 2),
            ("delay", 50.0, 1, 51.0),
            ("delay", 101.0, 1, 0.0),
            ("spend", 101.0, 1),
            ("spend", 50.0, 1),
            ("delay", 101.0, 1, 2.0),
        ],
    ),
}


class TestTokenBucket:
    def test_is_a_value(self) -> None:
        policy = TokenBucket(20, 10)
        assert policy == TokenBucket(limit=20.0, per=10.0, burst=20.0, unit="calls")
        assert hash(policy) == hash(TokenBucket(20, 10, burst=20))
        assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301
        assert {type(value) for value in (policy.limit, policy.per, policy.burst)} == {float}
        assert not hasattr(policy, "__dict__")
        with pytest.raises(FrozenInstanceError):
            policy.limit = 21  # type: ignore[misc]

    def test_is_a_policy(self) -> None:
        policy = TokenBucket(20, 10, burst=5, unit="tokens")
        assert isinstance(policy, Policy)
        bucket: Bucket = policy.bucket()
        assert (policy.window, policy.holds, policy.unit) == (10.0, False, "tokens")
        assert bucket.capacity == 5.0

    @pytest.mark.parametrize(("limit", "burst"), [(20, 20.0), (1, 1.0), (0.5, 1.0), (2.5, 2.5)])
    def test_the_burst_is_the_limit_but_at_least_1(self, limit: float, burst: float) -> None:
        assert TokenBucket(limit, 1).burst == burst
        assert repr(TokenBucket(limit, 1)).endswith(f"burst={burst}, unit='calls')")

    @pytest.mark.parametrize("limit", [0, 0.0, -1, math.nan, math.inf, -math.inf, 10**400])
    def test_refuses_a_limit_out_of_range(self, limit: float) -> None:
        with pytest.raises(ValueError, match=r"^limit must be above 0 and finite, not ") as raised:
            TokenBucket(limit, 1)

        assert repr(limit) in str(raised.value)

    @pytest.mark.parametrize("per", [0, 0.0, -1, math.nan, math.inf, -math.inf])
    def test_refuses_a_time_out_of_range(self, per: float) -> None:
        with pytest.raises(ValueError, match=r"^per must be above 0 and finite") as raised:
            TokenBucket(1, per)

        assert repr(per) in str(raised.value)

    @pytest.mark.parametrize("burst", [0, 0.5, -1, math.nan, math.inf, -math.inf])
    def test_refuses_a_burst_out_of_range(self, burst: float) -> None:
        with pytest.raises(ValueError, match=r"^burst must be at least 1 and finite") as raised:
            TokenBucket(1, 1, burst=burst)

        assert repr(burst) in str(raised.value)

    @pytest.mark.parametrize("value", [True, False, "1"])
    def test_refuses_what_is_no_number(self, value: float) -> None:
        with pytest.raises(TypeError, match=rf"^limit must be a number, not {value!r}$"):
            TokenBucket(value, 1)

        with pytest.raises(TypeError, match=rf"^per must be a number of seconds, not {value!r}$"):
            TokenBucket(1, value)

        with pytest.raises(TypeError, match=rf"^burst must be a number, not {value!r}$"):
            TokenBucket(1, 1, burst=value)

    def test_refuses_nothing_at_all(self) -> None:
        with pytest.raises(TypeError, match=r"^limit must be a number, not None$"):
            TokenBucket(None, 1)  # type: ignore[arg-type]

        with pytest.raises(TypeError, match=r"^per must be a number of seconds, not None$"):
            TokenBucket(1, None)  # type: ignore[arg-type]

    def test_refuses_a_unit_that_is_no_name(self) -> None:
        with pytest.raises(TypeError, match=r"^unit must be a str, not 5$"):
            TokenBucket(1, 1, unit=5)  # type: ignore[arg-type]

        with pytest.raises(ValueError, match=r"^unit must not be empty$"):
            TokenBucket(1, 1, unit="")

    def test_burst_and_unit_are_named(self) -> None:
        with pytest.raises(TypeError):
            TokenBucket(1, 1, 1)  # type: ignore[call-arg]


class TestGrants:
    @examples(200)
    @given(policies, origins, st.data())
    @example(TokenBucket(1, 0.3, burst=1), 1e6, None)
    def test_no_span_holds_more_than_a_burst_and_what_flows_in(
        self, policy: TokenBucket, now: float, data: st.DataObject | None
    ) -> None:
        bucket = policy.bucket()
        calls = [(0.0, 1)] * 20
        if data is not None:
            some_time = st.one_of(st.just(0.0), gaps(policy))
            calls_ = st.tuples(some_time, st.sampled_from(costs(policy)))
            calls = data.draw(st.lists(calls_, max_size=30), "calls")

        charges = []
        for gap, cost in calls:
            now += gap
            delay = bucket.delay(now, cost)
            if delay > 0:
                # Refused until then, as floats go, and granted exactly then.
                before = now + delay - 2 * math.ulp(max(abs(now), abs(now + delay)))
                assert before <= now or bucket.delay(before, cost) > 0

            now += delay
            assert bucket.delay(now, cost) == 0.0
            spend(bucket, now, cost)
            charges.append(Charge(now, cost))

        instants = [charge.instant for charge in charges] or [0.0]
        assert excess(policy, charges) <= slack(policy, *instants) * max(len(charges), 1)

    @examples(100)
    @given(policies, origins, st.data())
    def test_nobody_waits_for_longer_than_what_is_missing_takes(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket, plain = policy.bucket(), PlainLevel(policy)
        calls = st.tuples(gaps(policy), st.integers(1, 15))
        charges: list[Charge] = []
        for gap, cost in data.draw(st.lists(calls, max_size=20), "calls"):
            now += gap
            level = float(plain.level(charges, now))
            tolerance = slack(policy, now, *(c.instant for c in charges)) * (len(charges) + 1)
            for asked in costs(policy):
                wait = max(asked - level, 0.0) * policy.per / policy.limit
                # An amount that flows in within the tolerance, in seconds.
                assert bucket.delay(now, asked) == pytest.approx(
                    wait, rel=1e-9, abs=tolerance * policy.per / policy.limit
                )

            assert bucket.remaining(now) in {
                max(math.floor(level - tolerance), 0),
                max(math.floor(level + tolerance), 0),
            }
            # Due or not: it may go into debt.
            spend(bucket, now, cost)
            charges.append(Charge(now, cost))

    @examples(100)
    @given(policies, origins, st.data())
    def test_remaining_is_the_most_that_is_due(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket = policy.bucket()
        steps = st.tuples(gaps(policy, 1.0), st.integers(0, 12))
        for gap, cost in data.draw(st.lists(steps, max_size=20), "steps"):
            now += gap
            bucket.take(now, cost)
            remaining = bucket.remaining(now)
            assert remaining == 0 or bucket.delay(now, remaining) == 0.0
            assert bucket.delay(now, remaining + 1) > 0.0

    def test_a_burst_then_the_flow(self) -> None:
        bucket = TokenBucket(10, 1, burst=3).bucket()
        now, instants = 0.0, []
        for _ in range(6):
            now += bucket.delay(now, 1)
            spend(bucket, now, 1)
            instants.append(now)

        assert instants == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])

    def test_what_overflows_is_lost(self) -> None:
        bucket = TokenBucket(10, 1, burst=3).bucket()
        spend(bucket, 0.0, 3)
        assert bucket.delay(1000.0, 3) == 0.0
        assert bucket.delay(1000.0, 4) == math.inf
        spend(bucket, 1000.0, 3)
        assert bucket.delay(1000.0, 1) == pytest.approx(0.1)

    def test_one_window_can_hold_burst_and_limit(self) -> None:
        bucket = TokenBucket(4, 10, burst=3).bucket()
        now, inside = 0.0, 0
        while now <= 10.0:
            spend(bucket, now, 1)
            inside += 1
            now += bucket.delay(now, 1)

        assert inside == 7

    def test_a_full_window_takes_as_long_as_it_says(self) -> None:
        for limit, per in [(3, 0.1), (7, 1 / 3), (49, 10.0), (1e6, 60.0)]:
            bucket = TokenBucket(limit, per).bucket()
            spend(bucket, 0.0, int(limit))
            assert bucket.delay(0.0, int(limit)) == per

    def test_a_clock_that_is_coarser_than_the_rate_costs_no_rate(self) -> None:
        # In one tick of a float 119 tokens flow in.
        bucket = TokenBucket(1e9, 1, burst=200).bucket()
        now, count = 1e9, 0
        while now < 1e9 + 1e-4:
            now += bucket.delay(now, 1)
            spend(bucket, now, 1)
            count += 1

        assert count == pytest.approx(1e5, rel=0.01)
        assert bucket.remaining(now) == 0 or bucket.delay(now, bucket.remaining(now)) == 0.0

    @pytest.mark.parametrize(
        ("limit", "per", "burst"),
        [
            (5e-324, 1e308, 1),
            (1e308, 5e-324, 1e308),
            (1e308, 1e308, 1),
            (5e-324, 5e-324, 1e308),
            (1, 5e-324, 1),
            (1, 1e308, 1),
        ],
    )
    def test_nothing_raises_at_the_ends_of_the_floats(
        self, limit: float, per: float, burst: float
    ) -> None:
        bucket = TokenBucket(limit, per, burst=burst).bucket()
        for now in (0.0, 1e9, -1e9):
            receipt = spend(bucket, now, 1)
            answers = [bucket.delay(now, 1), bucket.reset_after(now), bucket.delay(1e300, 1)]
            assert all(answer >= 0 for answer in answers)
            assert bucket.remaining(now) >= 0
            bucket.tighten(now, 0, 1.0)
            bucket.give_back(now, 1, receipt)
            assert not math.isnan(bucket._level)
            assert not math.isnan(bucket._at)

    def test_no_amount_is_too_large_to_be_charged(self) -> None:
        bucket = TokenBucket(1, 1, burst=3).bucket()
        bucket.take(0.0, 10**400)
        assert bucket.delay(0.0, 1) > 1e300
        assert bucket.history(0.0) == []
        bucket.give_back(0.0, 10**400, None)
        assert bucket.delay(3.0, 3) == 0.0
        bucket.tighten(3.0, 10**400, 1.0)
        assert bucket.remaining(3.0) == 3


class TestCredit:
    def chain(self, bucket: TokenBucketState, waiters: int, due: float, wakes: list[float]) -> int:
        """Let waiters in line be served at late wakes only; return how many were."""
        served = 0
        for now in wakes:
            while served < waiters:
                delay = bucket.delay(due, 1)
                if due + delay > now:
                    break

                due += delay
                bucket.take(now, 1, due)
                served += 1

            for _ in range(served):
                bucket.start(now, 0)

        return served

    @pytest.mark.parametrize("burst", [1, 3, 10])
    def test_late_timers_cost_no_rate(self, burst: int) -> None:
        bucket = TokenBucket(100, 1, burst=burst).bucket()
        spend(bucket, 0.0, burst)
        # Timers that tick in 16 ms.
        wakes = [number * 0.016 for number in range(1, 626)]
        served = self.chain(bucket, 10_000, 0.0, wakes)
        assert served in {999, 1000}

    def test_after_a_stall_all_that_is_due_goes_at_once(self) -> None:
        bucket = TokenBucket(10, 1, burst=1).bucket()
        spend(bucket, 0.0, 1)
        assert self.chain(bucket, 1_000, 0.0, [5.05]) == 50
        # And no more: what comes next is due where the last one left off.
        assert bucket.delay(5.05, 1) == pytest.approx(0.05)

    def test_nothing_gathers_above_the_burst_while_nobody_waits(self) -> None:
        bucket = TokenBucket(10, 1, burst=2).bucket()
        spend(bucket, 0.0, 2)
        # Three waited; the rest of a long time nobody did.
        assert self.chain(bucket, 3, 0.0, [100.0]) == 3
        assert bucket.remaining(100.0) == 2
        assert self.chain(bucket, 1_000, 100.0, [100.0]) == 2

    @pytest.mark.parametrize(("policy", "course"), CREDIT.values(), ids=CREDIT)
    def test_one_by_one(self, policy: TokenBucket, course: Course) -> None:
        follow(policy.bucket(), course)

    @examples(100)
    @given(policies, origins, st.data())
    def test_by_the_instants_at_which_they_were_due_no_span_holds_too_much(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket = policy.bucket()
        steps = st.tuples(gaps(policy, 2.0), st.sampled_from(costs(policy)))
        charges: list[Charge] = []
        due = now
        for late, cost in data.draw(st.lists(steps, max_size=30), "steps"):
            due += bucket.delay(due, cost)
            now = max(now, due + late)
            assert bucket.delay(now, cost) == 0.0
            bucket.take(now, cost, due)
            bucket.start(now, cost)
            charges.append(Charge(due, cost))

        instants = [charge.instant for charge in charges] or [0.0]
        assert excess(policy, charges) <= slack(policy, *instants) * max(len(charges), 1)


class TestGivingBack:
    @examples(100)
    @given(policies, origins, st.data())
    def test_who_has_not_begun_gets_all_of_it(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket = policy.bucket()
        cost = data.draw(st.sampled_from(costs(policy)), "cost")
        bucket.take(now, cost)
        later = now + data.draw(gaps(policy), "later")
        bucket.give_back(later, cost, None)
        assert bucket.reset_after(later) <= slack(policy, now, later) * policy.per / policy.limit
        assert bucket.delay(later, math.floor(burst_of(policy)) + 1) == math.inf

    @examples(200)
    @given(policies, origins, st.data())
    def test_the_last_call_leaves_it_as_if_it_had_never_been_charged(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket, plain = policy.bucket(), PlainLevel(policy)
        calls = st.tuples(gaps(policy), st.integers(1, 15))
        charges: list[Charge] = []
        receipt = math.nan
        for gap, cost in data.draw(st.lists(calls, min_size=1, max_size=10), "calls"):
            now += gap
            receipt = spend(bucket, now, cost)
            charges.append(Charge(now, cost))

        now += data.draw(gaps(policy), "later")
        expected = float(plain.level(charges[:-1], now))
        bucket.give_back(now, charges[-1].cost, receipt)
        tolerance = 3 * slack(policy, now, receipt, *(c.instant for c in charges)) * len(charges)
        assert bucket._level_at(now) == pytest.approx(expected, rel=1e-9, abs=tolerance)

    @examples(100)
    @given(policies, origins, st.data())
    def test_an_earlier_call_never_gets_more_than_if_it_had_never_been_charged(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket, plain = policy.bucket(), PlainLevel(policy)
        calls = st.tuples(gaps(policy, 2.0), st.integers(1, 8))
        charges: list[Charge] = []
        receipts = []
        for gap, cost in data.draw(st.lists(calls, min_size=1, max_size=10), "calls"):
            now += gap
            receipts.append(spend(bucket, now, cost))
            charges.append(Charge(now, cost))

        now += data.draw(gaps(policy, 2.0), "later")
        index = data.draw(st.integers(0, len(charges) - 1), "index")
        others = charges[:index] + charges[index + 1 :]
        before = bucket._level_at(now)
        bucket.give_back(now, charges[index].cost, receipts[index])
        tolerance = 3 * slack(policy, now, *receipts) * len(charges)
        assert bucket._level_at(now) <= float(plain.level(others, now)) + tolerance
        assert bucket._level_at(now) >= before - tolerance

    def test_at_once_all_of_it_comes_back_however_floats_are_rounded(self) -> None:
        for cost in range(1, 101):
            for limit, per, now in [(1e6, 1, 1e9 + cost / 7), (7, 1 / 3, 0.0), (cost, 0.3, 0.1)]:
                bucket = TokenBucket(limit, per, burst=100).bucket()
                bucket.give_back(now, cost, spend(bucket, now, cost))
                assert bucket._level == 100.0

    def test_what_has_come_back_stays_so(self) -> None:
        bucket = TokenBucket(1, 1, burst=4).bucket()
        receipt = spend(bucket, 0.0, 4)
        assert receipt == 4.0
        bucket.give_back(3.0, 4, receipt)
        assert bucket.remaining(3.0) == 4
        spend(bucket, 3.0, 2)
        bucket.give_back(4.0, 4, receipt)
        assert bucket._level == pytest.approx(2.0)
        assert bucket.remaining(4.0) == 3

    def test_in_the_instant_of_its_receipt_it_has_come_back(self) -> None:
        bucket = TokenBucket(1, 1, burst=10).bucket()
        receipt = spend(bucket, 0.0, 1)
        assert receipt == 1.0
        spend(bucket, 1.0, 10)
        bucket.give_back(1.0, 1, receipt)
        assert bucket.delay(1.0, 1) == 1.0

    def test_what_is_given_back_at_once_is_held_no_more(self) -> None:
        bucket = TokenBucket(1, 1, burst=4).bucket()
        for _ in range(3):
            bucket.take(0.0, 2)
            bucket.take(0.0, 1)
            bucket.give_back_held(0.0, [2, 1])
            assert bucket._level == 4.0

    def test_a_part(self) -> None:
        bucket = TokenBucket(1, 1, burst=10).bucket()
        receipt = spend(bucket, 0.0, 8)
        bucket.give_back(0.0, 5, receipt)
        assert bucket.remaining(0.0) == 7

    def test_the_end_of_a_call_is_nothing_to_it(self) -> None:
        bucket = TokenBucket(1, 1, burst=2).bucket()
        receipt = spend(bucket, 0.0, 2)
        assert bucket.release(0.5, 2, receipt) == receipt
        assert bucket.delay(0.5, 1) == 0.5


class TestTighten:
    @examples(200)
    @given(policies, origins, st.data())
    def test_it_only_tightens_and_holds_to_what_remains(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket = policy.bucket()
        steps = st.tuples(gaps(policy, 2.0), st.integers(0, 12))
        for gap, cost in data.draw(st.lists(steps, max_size=6), "steps"):
            now += gap
            spend(bucket, now, cost)

        before = bucket.ahead(now)
        remaining = data.draw(st.integers(0, 12), "remaining")
        reset_after = data.draw(st.one_of(st.none(), gaps(policy, 2.0)), "reset_after")
        bucket.tighten(now, remaining, reset_after)
        tolerance = slack(policy, now) * 10
        for part in (0.0, 0.1, 0.5, 0.9, 1.0, 1.5, 5.0, 50.0):
            then = now + part * policy.per
            assert bucket._level_at(then) <= before._level_at(then) + tolerance

        assert bucket.remaining(now) <= remaining
        if reset_after is not None:
            end = now + min(reset_after, policy.per)
            taken, instant = 0, now
            while True:
                instant += bucket.delay(instant, 1)
                if instant >= end - tolerance * policy.per / policy.limit:
                    break

                spend(bucket, instant, 1)
                taken += 1

            assert taken <= remaining

    @pytest.mark.parametrize("course", TIGHTENED.values(), ids=TIGHTENED)
    def test_one_by_one(self, course: Course) -> None:
        follow(TokenBucket(10, 10, burst=5).bucket(), course)


class TestSuccession:
    """What is not seen through a limiter; see also there."""

    def test_what_is_called_back_stands_above_the_burst(self) -> None:
        old, new = TokenBucket(1, 1, burst=10).bucket(), TokenBucket(1, 1, burst=4).bucket()
        # Seven that were granted, late by a stall, and whose calls have not begun.
        old._level, old._at = 17.0, 50.0
        new.succeed(old, 51.0, [])
        for _ in range(11):
            assert new.delay(51.0, 1) == 0.0
            new.take(51.0, 1, 48.0)

        assert new.delay(51.0, 1) == 1.0

    def test_above_the_burst_of_both_nothing_gathers(self) -> None:
        old, new = TokenBucket(1, 1, burst=4).bucket(), TokenBucket(1, 1, burst=10).bucket()
        old._level, old._at = 7.0, 50.0
        new.succeed(old, 60.0, [])
        assert new.remaining(60.0) == 7
        assert new.remaining(61.0) == 8
        assert new.remaining(100.0) == 10

    def test_what_is_called_back_does_not_count_as_missing_before_a_reset(self) -> None:
        old, new = TokenBucket(60, 60, burst=4).bucket(), TokenBucket(600, 60).bucket()
        old.tighten(0.0, 10, 50.0)
        old._level = 7.0
        new.succeed(old, 0.0, [])
        new.take(0.0, 3)
        # Those apart, ten until the reset.
        assert new.remaining(0.0) == 4
        assert new.remaining(49.0) == 4
        assert new.remaining(50.0) == 10
        assert new.remaining(51.0) == 20

    @pytest.mark.parametrize(
        ("rate", "forgiven", "delay"),
        [(2.0, False, 1.0), (1.0, False, 2.0), (0.5, True, 3.0), (0.875, True, 1 + 1 / 0.875)],
    )
    def test_it_tells_whether_debt_was_forgiven(
        self, rate: float, forgiven: bool, delay: float
    ) -> None:
        old, new = TokenBucket(1, 1, burst=10).bucket(), TokenBucket(rate, 1, burst=10).bucket()
        spend(old, 0.0, 11)
        # At 1, the old one would be out of debt.
        assert new.succeed(old, 0.0, []) == forgiven
        assert new.delay(0.0, 1) == pytest.approx(delay)

    def test_what_may_flow_in_until_a_reset_that_is_near_is_the_same(self) -> None:
        old, new = TokenBucket(10, 10).bucket(), TokenBucket(100, 10).bucket()
        spend(old, 0.0, 10)
        # Five may be there by then, though half of one flows in.
        old.tighten(0.0, 5, 0.5)
        new.succeed(old, 0.0, [])
        assert new.delay(0.0, 5) == 0.5

    def test_a_reset_is_by_the_clock_of_its_run(self) -> None:
        old, new = TokenBucket(60, 60).bucket(), TokenBucket(600, 60).bucket()
        spend(old, 0.0, 60)
        old.tighten(0.0, 40, 50.0)
        old.shift(1000.0)
        new.succeed(old, 1000.0, [])
        assert new.remaining(1049.99) <= 40
        assert new.remaining(1051.0) == 50

    @given(policies, policies, origins)
    def test_a_receipt_is_for_as_much_as_before(
        self, first: TokenBucket, second: TokenBucket, origin: float
    ) -> None:
        old, new = first.bucket(), second.bucket()
        receipt = spend(old, origin, 3)
        now = origin + first.per / 7
        new.succeed(old, now, [])
        told = new.receipt_of(old, now, receipt)
        if receipt <= now:
            assert told == receipt
        else:
            still_out = (receipt - now) / first.per * first.limit
            tiny = 4 * (slack(first, now, receipt) + slack(second, now, told))
            assert (told - now) / second.per * second.limit == pytest.approx(still_out, abs=tiny)

    def test_a_receipt_of_what_has_come_back_or_was_forgiven_stays_so(self) -> None:
        old, new = TokenBucket(1, 1).bucket(), TokenBucket(9, 1).bucket()
        for receipt in (5.0, 4.0, -math.inf):
            assert new.receipt_of(old, 5.0, receipt) == receipt

        assert new.receipt_of(old, 5.0, math.inf) == math.inf

    def test_nothing_raises_at_the_ends_of_the_floats(self) -> None:
        ends = [TokenBucket(5e-324, 1e308), TokenBucket(1e308, 5e-324), TokenBucket(1, 1)]
        for first in ends:
            for second in ends:
                old, new = first.bucket(), second.bucket()
                receipt = spend(old, 1.0, 10**400)
                old.tighten(2.0, 10**400, 1e300)
                new.succeed(old, 3.0, old.history(3.0))
                new.give_back(3.0, 1, new.receipt_of(old, 3.0, receipt))
                assert new.remaining(3.0) >= 0
                assert not math.isnan(new.reset_after(3.0))


class TestState:
    @examples(50)
    @given(policies, st.one_of(origins, st.sampled_from([1e300, -1e300])))
    def test_a_fresh_bucket_is_full_whatever_the_time(
        self, policy: TokenBucket, now: float
    ) -> None:
        bucket = policy.bucket()
        assert bucket.remaining(now) == math.floor(burst_of(policy))
        assert bucket.reset_after(now) == 0.0
        assert bucket.history(now) == []
        bucket.shift(now)
        assert bucket._at == -math.inf
        assert bucket.remaining(now) == math.floor(burst_of(policy))
        assert not bucket.take_free(1)

    @examples(50)
    @given(policies, origins)
    def test_a_bucket_that_was_emptied_is_empty_whatever_the_time(
        self, policy: TokenBucket, now: float
    ) -> None:
        bucket = policy.bucket()
        bucket.take(now, math.floor(burst_of(policy)))
        assert bucket.remaining(now) == 0

    @pytest.mark.parametrize(("policy", "course"), KEPT.values(), ids=KEPT)
    def test_one_by_one(self, policy: TokenBucket, course: Course) -> None:
        follow(policy.bucket(), course)

    def test_what_was_given_back_is_no_part_of_the_history(self) -> None:
        bucket = TokenBucket(1, 1, burst=10).bucket()
        receipt = spend(bucket, 0.0, 6)
        bucket.give_back(0.0, 2, receipt)
        assert bucket.history(0.0) == [(0.0, 4)]
        # But what has flowed in again stays so.
        bucket.give_back(3.5, 4, receipt)
        assert bucket.history(3.5) == [(0.0, 2)]

    def test_nor_is_it_however_floats_are_rounded(self) -> None:
        # The receipt less the time that it takes to be full is later than the call, as floats go.
        for limit, per, now in [(1, 0.3, 0.1), (3, 1.0, 0.1), (1, 10.0, 2.3)]:
            bucket = TokenBucket(limit, per, burst=limit).bucket()
            receipt = spend(bucket, now, limit)
            assert receipt - per > now
            bucket.give_back(now, limit, receipt)
            assert bucket.history(now) == []

    def test_what_was_charged_long_before_stays_in_the_history(self) -> None:
        bucket = TokenBucket(1, 1, burst=10).bucket()
        spend(bucket, 50.0, 1)
        receipt = spend(bucket, 100.0, 1)
        bucket.give_back(100.0, 1, receipt)
        assert bucket.history(100.0) == [(50.0, 1)]

    @examples(50)
    @given(policies, origins, st.data())
    def test_a_successor_that_is_told_the_history_is_no_fuller(
        self, policy: TokenBucket, now: float, data: st.DataObject
    ) -> None:
        bucket = policy.bucket()
        steps = st.tuples(gaps(policy, 1.0), st.integers(1, 12))
        for gap, cost in data.draw(st.lists(steps, max_size=6), "steps"):
            now += gap
            spend(bucket, now, cost)

        successor = policy.bucket()
        for instant, cost in bucket.history(now):
            spend(successor, instant, cost)

        assert successor._level_at(now) <= bucket._level_at(now) + 10 * slack(policy, now)

    def test_shift_moves_what_is_missing(self) -> None:
        for seconds in (-1e6, 0.1, 1e6):
            bucket = TokenBucket(1, 1, burst=3).bucket()
            spend(bucket, 5.0, 3)
            bucket.shift(seconds)
            delay = bucket.delay(5.0 + seconds, 3)
            assert 3.0 <= delay <= 3.0 + 4 * math.ulp(1e6)

    def test_thinking_ahead_leaves_it_as_it_was(self) -> None:
        bucket = TokenBucket(1, 1, burst=5).bucket()
        bucket.take(0.0, 2)
        ahead = bucket.ahead(1.0)
        # What is held has begun there.
        assert ahead.remaining(0.0) == 3
        assert bucket.history(0.0) == []
        spend(ahead, 1.0, 4)
        ahead.tighten(1.0, 0, None)
        assert (bucket.remaining(1.0), ahead.remaining(1.0)) == (4, 0)

    def test_questions_change_nothing(self) -> None:
        bucket = TokenBucket(1, 1, burst=4).bucket()
        spend(bucket, 0.0, 4)
        answers = [
            (bucket.remaining(now), bucket.delay(now, 4), bucket.reset_after(now))
            for now in (100.0, 0.0, 4.0, 2.0)
        ]
        assert answers == [(4, 0.0, 0.0), (0, 4.0, 4.0), (4, 0.0, 0.0), (2, 2.0, 2.0)]
        assert bucket.history(1.0) == [(0.0, 4)]

    def test_a_bucket_has_no_other_attributes(self) -> None:
        assert not hasattr(TokenBucket(1, 1).bucket(), "__dict__")
