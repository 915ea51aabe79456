"""The exact window, judged by a plain list of all charges."""

import math
import pickle
from bisect import bisect_right
from dataclasses import FrozenInstanceError, dataclass
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle import WindowTokenBucket
from anythrottle._policies.bucket import Bucket
from anythrottle._policies.window import WindowBucket
from tests.properties import examples

#: Windows that are no round numbers in floats.
windows = st.one_of(
    st.sampled_from([0.1, 0.3, 1.0, 1 / 3, 10.0, 86_400.0, 1e-9, math.pi, 5e-324]),
    st.floats(1e-6, 1e6),
)


@dataclass(eq=False)
class Charge:
    """What the reference knows of a charge: when it was taken back to the bucket, if it was."""

    cost: int
    receipt: float | None = None
    back_at: float = math.inf


class PlainWindow:
    """The reference: a list of all charges, none ever merged or dropped."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self.charges: list[Charge] = []

    def free(self, now: float) -> int:
        return self.limit - sum(charge.cost for charge in self.charges if charge.back_at > now)

    def due(self, now: float, cost: int) -> float:
        """Return the first instant from ``now`` on at which there is room."""
        instants = [now, *sorted(charge.back_at for charge in self.charges if charge.back_at > now)]
        return next((instant for instant in instants if self.free(instant) >= cost), math.inf)

    def return_of(self, now: float) -> float:
        """Return the first instant that is a window after ``now``, however one computes it."""
        back_at = now + self.window
        while back_at - now < self.window:
            back_at = math.nextafter(back_at, math.inf)

        return back_at


class TestWindowTokenBucket:
    def test_is_a_value(self) -> None:
        policy = WindowTokenBucket(20, 10)
        assert policy == WindowTokenBucket(limit=20, window=10.0, measure="start", unit="calls")
        assert hash(policy) == hash(WindowTokenBucket(20, 10.0))
        assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301
        assert type(policy.window) is float
        assert not hasattr(policy, "__dict__")
        with pytest.raises(FrozenInstanceError):
            policy.limit = 21  # type: ignore[misc]

    def test_holds_only_if_it_measures_the_end(self) -> None:
        assert not WindowTokenBucket(1, 1).holds
        assert WindowTokenBucket(1, 1, measure="end").holds

    @pytest.mark.parametrize("limit", [0, -1])
    def test_refuses_a_limit_below_1(self, limit: int) -> None:
        with pytest.raises(ValueError, match=rf"^limit must be at least 1, not {limit}$"):
            WindowTokenBucket(limit, 1)

    @pytest.mark.parametrize("limit", [1.5, 1.0, True, "1", None, math.nan, math.inf])
    def test_refuses_a_limit_that_is_no_int(self, limit: int) -> None:
        with pytest.raises(TypeError, match=r"^limit must be an int, not ") as raised:
            WindowTokenBucket(limit, 1)

        assert repr(limit) in str(raised.value)

    @pytest.mark.parametrize("window", [0, 0.0, -1, math.nan, math.inf, -math.inf])
    def test_refuses_a_window_out_of_range(self, window: float) -> None:
        with pytest.raises(ValueError, match=r"^window must be above 0 and finite") as raised:
            WindowTokenBucket(1, window)

        assert repr(window) in str(raised.value)

    @pytest.mark.parametrize("window", [True, "1", None])
    def test_refuses_a_window_that_is_no_number(self, window: float) -> None:
        with pytest.raises(TypeError, match=r"^window must be a number of seconds, not "):
            WindowTokenBucket(1, window)

    @pytest.mark.parametrize("measure", ["middle", "", None, True])
    def test_refuses_another_measure(self, measure: object) -> None:
        with pytest.raises(ValueError, match=r"^measure must be 'start' or 'end', not "):
            WindowTokenBucket(1, 1, measure=measure)  # type: ignore[arg-type]

    def test_refuses_a_unit_that_is_no_name(self) -> None:
        with pytest.raises(TypeError, match=r"^unit must be a str, not 5$"):
            WindowTokenBucket(1, 1, unit=5)  # type: ignore[arg-type]

        with pytest.raises(ValueError, match=r"^unit must not be empty$"):
            WindowTokenBucket(1, 1, unit="")

    def test_measure_and_unit_are_named(self) -> None:
        with pytest.raises(TypeError):
            WindowTokenBucket(1, 1, "end")  # type: ignore[call-arg]


class Pair:
    """A bucket and the reference, through the same events."""

    def __init__(self, policy: WindowTokenBucket, now: float) -> None:
        self.policy = policy
        self.bucket = policy.bucket()
        self.plain = PlainWindow(policy.limit, policy.window)
        self.now = now
        self.held: list[Charge] = []
        self.running: list[Charge] = []

    def take(self, cost: int) -> None:
        due = self.plain.due(self.now, cost)
        delay = self.bucket.delay(self.now, cost)
        if due > self.now:
            # Not a moment too soon, and, as floats go, on the moment.
            assert self.now + delay >= due
            late = self.now + delay - due if due < math.inf else 0.0
            assert late <= 2 * math.ulp(max(abs(self.now), abs(due)))
            return

        assert delay == 0.0
        self.bucket.take(self.now, cost)
        self.held.append(Charge(cost))
        self.plain.charges.append(self.held[-1])

    def start(self, index: int) -> None:
        charge = self.held.pop(index % len(self.held))
        charge.receipt = self.bucket.start(self.now, charge.cost)
        self.running.append(charge)
        if not self.policy.holds:
            charge.back_at = self.plain.return_of(self.now)

        assert charge.receipt == charge.back_at

    def cancel(self, index: int) -> None:
        charge = self.held.pop(index % len(self.held))
        self.bucket.give_back(self.now, charge.cost, None)
        charge.back_at = -math.inf

    def end(self, index: int, *, refund: bool) -> None:
        charge = self.running.pop(index % len(self.running))
        assert charge.receipt is not None
        charge.receipt = self.bucket.release(self.now, charge.cost, charge.receipt)
        if self.policy.holds:
            charge.back_at = self.plain.return_of(self.now)

        assert charge.receipt == charge.back_at
        if refund:
            self.bucket.give_back(self.now, charge.cost, charge.receipt)
            charge.back_at = min(charge.back_at, self.now)

    def compare(self) -> None:
        free = self.plain.free(self.now)
        assert self.bucket.remaining(self.now) == free
        # As each bucket finds it, by three questions.
        assert self.bucket.left(self.now) == Bucket.left(self.bucket, self.now)
        for cost in range(1, self.policy.limit + 1):
            assert (self.bucket.delay(self.now, cost) == 0.0) == (free >= cost)


EVENTS = ["take", "take", "start", "start", "cancel", "end", "refund"]


class TestAgainstThePlainList:
    @examples(150)
    @given(st.data(), st.sampled_from(["start", "end"]))
    def test_any_course_of_events(self, data: st.DataObject, measure: Any) -> None:
        limit = data.draw(st.integers(1, 8), "limit")
        window = data.draw(windows, "window")
        policy = WindowTokenBucket(limit, window, measure=measure)
        pair = Pair(policy, data.draw(st.floats(-1e6, 1e6), "origin"))
        passes = st.one_of(
            st.just(0.0),
            st.floats(0.0, 3.0).map(lambda part: part * window),
            st.sampled_from([window, window / limit]),
        )
        steps = st.tuples(passes, st.sampled_from(EVENTS), st.integers(0, 7))
        for seconds, event, number in data.draw(st.lists(steps, max_size=40), "steps"):
            pair.now += seconds
            if event == "take":
                pair.take(1 + number % limit)
            elif event == "start" and pair.held:
                pair.start(number)
            elif event == "cancel" and pair.held:
                pair.cancel(number)
            elif event in {"end", "refund"} and pair.running:
                pair.end(number, refund=event == "refund")

            pair.compare()

    @examples(100)
    @given(st.integers(1, 5), windows, st.floats(-1e9, 1e9))
    @example(1, 0.1, 0.2)
    @example(1, 0.3, 1e9)
    def test_a_window_is_never_short_however_it_is_measured(
        self, limit: int, window: float, now: float
    ) -> None:
        bucket = WindowTokenBucket(limit, window).bucket()
        instants = []
        for _ in range(5 * limit):
            now += bucket.delay(now, 1)
            bucket.take(now, 1)
            bucket.start(now, 1)
            instants.append(now)

        for first, next_ in zip(instants, instants[limit:], strict=False):
            assert next_ - first >= window
            assert first + window <= next_


class TestStations:
    def test_what_is_held_comes_back_only_after_it_has_started(self) -> None:
        bucket = WindowTokenBucket(1, 10).bucket()
        bucket.take(0.0, 1)
        assert bucket.delay(1000.0, 1) == math.inf
        assert bucket.start(1000.0, 1) == 1010.0
        assert bucket.delay(1000.0, 1) == 10.0
        assert bucket.delay(1010.0, 1) == 0.0

    def test_measure_end_counts_from_the_end(self) -> None:
        bucket = WindowTokenBucket(1, 10, measure="end").bucket()
        bucket.take(0.0, 1)
        receipt = bucket.start(0.0, 1)
        assert bucket.delay(50.0, 1) == math.inf
        receipt = bucket.release(50.0, 1, receipt)
        assert receipt == 60.0
        assert bucket.delay(50.0, 1) == 10.0
        # A second time it changes nothing.
        assert bucket.release(55.0, 1, receipt) == 60.0
        assert bucket.delay(50.0, 1) == 10.0

    def test_measure_start_ignores_the_end(self) -> None:
        bucket = WindowTokenBucket(1, 10).bucket()
        bucket.take(0.0, 1)
        receipt = bucket.start(0.0, 1)
        assert bucket.release(5.0, 1, receipt) == receipt
        assert bucket.delay(5.0, 1) == 5.0

    def test_take_free_looks_at_no_clock(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        assert bucket.take_free(2)
        assert not bucket.take_free(2)
        assert bucket.take_free(1)
        assert not bucket.take_free(1)
        bucket.give_back(0.0, 3, None)
        assert bucket.remaining(0.0) == 3

    def test_what_had_come_back_before_a_refund_stays_so(self) -> None:
        bucket = WindowTokenBucket(2, 10).bucket()
        bucket.take(0.0, 1)
        receipt = bucket.start(0.0, 1)
        bucket.give_back(10.0, 1, receipt)
        assert bucket.remaining(10.0) == 2
        assert bucket.delay(10.0, 2) == 0.0

    def test_a_refund_touches_no_other_charge(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        receipts = []
        for now in (0.0, 1.0, 2.0):
            bucket.take(now, 1)
            receipts.append(bucket.start(now, 1))

        bucket.give_back(3.0, 1, receipts[1])
        assert bucket.remaining(3.0) == 1
        assert bucket.delay(3.0, 2) == 7.0
        assert bucket.delay(3.0, 3) == 9.0

    def test_a_refund_while_it_is_held(self) -> None:
        bucket = WindowTokenBucket(1, 10, measure="end").bucket()
        bucket.take(0.0, 1)
        bucket.give_back(0.0, 1, bucket.start(0.0, 1))
        assert bucket.remaining(0.0) == 1

    def test_reset_after(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        assert bucket.reset_after(5.0) == 0.0
        for now in (0.0, 4.0):
            bucket.take(now, 1)
            bucket.start(now, 1)

        assert bucket.reset_after(5.0) == 9.0
        assert bucket.reset_after(14.0) == 0.0
        assert bucket.reset_after(20.0) == 0.0
        bucket.take(20.0, 1)
        # It can't be full before a window from now, as what is held has yet to start.
        assert bucket.reset_after(20.0) == 10.0

    def test_forget_held_lets_go_what_is_held_and_no_more(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        bucket.take(0.0, 3)
        bucket.start(0.0, 1)
        bucket.forget_held()
        assert bucket.remaining(0.0) == 2
        assert bucket.remaining(10.0) == 3

    @examples(50)
    @given(st.floats(-1e9, 1e9))
    def test_shift_never_lets_a_token_come_back_early(self, shift: float) -> None:
        bucket = WindowTokenBucket(1, 10).bucket()
        bucket.take(0.0, 1)
        bucket.start(0.0, 1)
        bucket.shift(shift)
        due = shift + bucket.delay(shift, 1)
        assert due - shift >= 10
        assert due - shift <= 10 + 4 * math.ulp(abs(shift) + 10)

    @pytest.mark.parametrize("measure", ["start", "end"])
    def test_thinking_ahead_leaves_it_as_it_was(self, measure: Any) -> None:
        bucket = WindowTokenBucket(2, 10, measure=measure).bucket()
        bucket.take(0.0, 1)
        bucket.release(0.0, 1, bucket.start(0.0, 1))
        ahead = bucket.ahead(1.0)
        ahead.take(1.0, 1)
        assert (bucket.remaining(1.0), ahead.remaining(1.0)) == (1, 0)
        ahead.release(1.0, 1, ahead.start(1.0, 1))
        assert ahead.delay(1.0, 2) == 10.0
        assert bucket.delay(1.0, 2) == 9.0
        bucket.take(1.0, 1)
        assert bucket.delay(1.0, 2) == math.inf

    def test_ahead_what_is_held_begins_now(self) -> None:
        bucket = WindowTokenBucket(2, 10).bucket()
        bucket.take(0.0, 2)
        assert bucket.ahead(3.0).delay(3.0, 1) == 10.0
        assert bucket.delay(3.0, 1) == math.inf
        # As nobody knows when the call will end, this can't be known.
        bucket = WindowTokenBucket(2, 10, measure="end").bucket()
        bucket.take(0.0, 2)
        assert bucket.ahead(3.0).delay(3.0, 1) == math.inf

    def test_questions_change_nothing(self) -> None:
        bucket = WindowTokenBucket(2, 10).bucket()
        bucket.take(0.0, 1)
        bucket.start(0.0, 1)
        answers = [
            (bucket.remaining(now), bucket.delay(now, 2), bucket.reset_after(now))
            for now in (100.0, 0.0, 10.0, 5.0)
        ]
        assert answers == [(2, 0.0, 0.0), (1, 10.0, 10.0), (2, 0.0, 0.0), (1, 5.0, 5.0)]


class TestGivingBackTooMuch:
    def test_no_more_comes_back_than_is_out(self) -> None:
        bucket = WindowTokenBucket(5, 10).bucket()
        bucket.take(0.0, 2)
        bucket.give_back(1.0, 4, bucket.start(0.0, 2))
        assert bucket.remaining(1.0) == 5
        assert bucket.remaining(20.0) == 5


class TestClockGoingBack:
    def test_a_token_comes_back_later_rather_than_early(self) -> None:
        bucket = WindowTokenBucket(2, 10).bucket()
        bucket.take(100.0, 1)
        bucket.start(100.0, 1)
        bucket.take(50.0, 1)
        # Entries stay in order: this one comes back with the one before it.
        assert bucket.start(50.0, 1) == 110.0
        assert bucket.delay(60.0, 1) == 50.0
        assert bucket.delay(110.0, 2) == 0.0


def spend(bucket: WindowBucket, instants: list[float]) -> list[float]:
    """Charge 1 at each instant; return the receipts."""
    receipts = []
    for now in instants:
        bucket.take(now, 1)
        receipts.append(bucket.start(now, 1))

    return receipts


class TestBoundedMemory:
    WINDOW = 60.0

    @pytest.mark.parametrize("per_window", [1_500, 100_000, 10_000_000])
    def test_entries_stay_few(self, per_window: int) -> None:
        bucket = WindowTokenBucket(10**9, self.WINDOW).bucket()
        most = 0
        for number in range(100_000):
            now = number * self.WINDOW / per_window
            bucket.take(now, 1)
            bucket.start(now, 1)
            most = max(most, len(bucket._entries))

        assert most <= 2_100

    @pytest.mark.parametrize("per_window", [900, 1_500, 20_000])
    def test_returns_are_late_by_a_thousandth_of_the_window_at_most(self, per_window: int) -> None:
        limit = 10**9
        bucket = WindowTokenBucket(limit, self.WINDOW).bucket()
        instants = [number * self.WINDOW / per_window for number in range(per_window)]
        spend(bucket, instants)
        last = instants[-1]
        exact = [instant + self.WINDOW for instant in instants]
        late = [instant + self.WINDOW / 1000 for instant in exact]
        merged = 0
        for now in [last + number * self.WINDOW / 997 for number in range(1_100)]:
            out = limit - bucket.remaining(now)
            assert out >= per_window - bisect_right(exact, now), "some came back early"
            assert out <= per_window - bisect_right(late, now - 1e-9), "some came back too late"
            merged += out > per_window - bisect_right(exact, now)

        assert bool(merged) == (per_window > 1_000)

    def test_up_to_a_thousand_are_exact(self) -> None:
        bucket = WindowTokenBucket(10**6, self.WINDOW).bucket()
        instants = [number * 1e-6 for number in range(1_000)]
        receipts = spend(bucket, instants)
        assert all(now + self.WINDOW <= back for now, back in zip(instants, receipts, strict=True))
        assert all(first < second for first, second in pairwise(receipts))
        assert len(bucket._entries) == 1_000

    def test_from_a_thousand_on_those_within_a_thousandth_are_merged(self) -> None:
        bucket = WindowTokenBucket(10**6, 1000).bucket()
        spend(bucket, [number / 2 for number in range(999)])
        assert spend(bucket, [600.0, 601.0]) == [1600.0, 1601.0]
        assert len(bucket._entries) == 1_000
        # Else what was charged at 600 would come back late by more than that.
        assert spend(bucket, [601.0005]) == [1601.0005]
        assert len(bucket._entries) == 1_001

    @examples(25)
    @given(st.data())
    def test_no_window_holds_more_than_the_limit_though_returns_are_merged(
        self, data: st.DataObject
    ) -> None:
        limit = data.draw(st.integers(1_001, 3_000), "limit")
        window = data.draw(windows.filter(lambda window: window > 1e-9), "window")
        bucket = WindowTokenBucket(limit, window).bucket()
        gaps = st.floats(0.0, 2.0).map(lambda part: part * window / limit)
        rhythm = data.draw(st.lists(gaps, min_size=1, max_size=20), "rhythm")
        now = data.draw(st.sampled_from([0.0, 0.1, 1e6]), "origin")
        instants: list[float] = []
        for number in range(2 * limit + 10):
            now += rhythm[number % len(rhythm)]
            now += bucket.delay(now, 1)
            bucket.take(now, 1)
            bucket.start(now, 1)
            instants.append(now)

        for first, next_ in zip(instants, instants[limit:], strict=False):
            assert next_ - first >= window
            assert first + window <= next_

    def test_a_merged_charge_can_be_refunded(self) -> None:
        limit = 5_000
        bucket = WindowTokenBucket(limit, self.WINDOW).bucket()
        instants = [number * self.WINDOW / limit / 2 for number in range(limit)]
        receipts = spend(bucket, instants)
        now = instants[-1]
        assert bucket.remaining(now) == 0
        for number, receipt in enumerate(receipts[::-1], start=1):
            bucket.give_back(now, 1, receipt)
            assert bucket.remaining(now) == number

        assert all(amount == 0 for _, amount, _ in bucket._entries)

    def test_equal_instants_take_one_entry(self) -> None:
        bucket = WindowTokenBucket(100, 1).bucket()
        receipts = spend(bucket, [0.5] * 100)
        assert len(bucket._entries) == 1
        assert set(receipts) == {1.5}

    def test_throughput_loses_a_thousandth_at_most(self) -> None:
        limit, window = 5_000, 1.0
        bucket = WindowTokenBucket(limit, window).bucket()
        # Smoothly spent, so that neighbours are merged, and then always as soon as it may be.
        instants = list(accumulate([window / limit] * limit))
        spend(bucket, instants)
        now = instants[-1]
        for _ in range(5 * limit):
            now += bucket.delay(now, 1)
            bucket.take(now, 1)
            bucket.start(now, 1)

        assert now - instants[-1] <= 5 * window * 1.001 + 1e-9


class TestCapacityAndDebt:
    @pytest.mark.parametrize("measure", ["start", "end"])
    def test_the_capacity_is_the_limit(self, measure: Any) -> None:
        assert WindowTokenBucket(7, 10, measure=measure).bucket().capacity == 7

    def test_what_is_charged_beyond_the_limit_has_to_come_back_first(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        spend(bucket, [0.0, 0.0])
        bucket.take(4.0, 6)
        bucket.start(4.0, 6)
        assert bucket.remaining(4.0) == 0
        assert bucket.delay(4.0, 1) == 10.0
        # The first two come back, and are not enough.
        assert bucket.remaining(10.0) == 0
        assert bucket.delay(10.0, 3) == 4.0
        assert bucket.remaining(14.0) == 3
        assert bucket.reset_after(4.0) == 10.0

    def test_a_debt_that_is_held_is_for_as_long_as_nobody_knows(self) -> None:
        bucket = WindowTokenBucket(3, 10, measure="end").bucket()
        bucket.take(0.0, 5)
        receipt = bucket.start(0.0, 5)
        assert bucket.delay(100.0, 1) == math.inf
        bucket.release(100.0, 5, receipt)
        assert bucket.delay(100.0, 1) == 10.0

    def test_no_debt_is_too_large(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        bucket.take(0.0, 10**400)
        receipt = bucket.start(0.0, 10**400)
        assert bucket.remaining(9.0) == 0
        assert bucket.delay(9.0, 3) == 1.0
        bucket.give_back(9.0, 10**400, receipt)
        assert bucket.remaining(9.0) == 3

    def test_nothing_is_free_while_there_is_debt(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        bucket.take(0.0, 4)
        assert not bucket.take_free(1)
        assert bucket.remaining(0.0) == 0

    @examples(100)
    @given(
        st.integers(1, 5),
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.booleans()), max_size=15),
    )
    def test_any_course_of_charges_and_refunds(
        self, limit: int, steps: list[tuple[int, int, bool]]
    ) -> None:
        """Judged by the plain list; charges are not asked for, so they may exceed the limit."""
        policy = WindowTokenBucket(limit, 8)
        bucket, plain, now = policy.bucket(), PlainWindow(limit, 8.0), 0.0
        for seconds, cost, refund in steps:
            now += seconds
            if refund and plain.charges:
                charge = plain.charges[cost % len(plain.charges)]
                if charge.receipt is not None:
                    bucket.give_back(now, charge.cost, charge.receipt)
                    charge.back_at, charge.receipt = min(charge.back_at, now), None
            else:
                bucket.take(now, cost)
                plain.charges.append(Charge(cost, bucket.start(now, cost), now + 8.0))

            assert bucket.remaining(now) == max(plain.free(now), 0)
            assert bucket.left(now) == Bucket.left(bucket, now)
            for amount in range(1, limit + 1):
                assert now + bucket.delay(now, amount) == plain.due(now, amount)


class TestTighten:
    def plainly(self, grants: list[tuple[float, int]], limit: int, now: float) -> int:
        return limit - sum(cost for at, cost in grants if now < at + 8.0)

    @examples(200)
    @given(st.data(), st.sampled_from(["start", "end"]))
    def test_until_the_reset_at_most_what_remains_and_then_as_ever(
        self, data: st.DataObject, measure: Any
    ) -> None:
        """Judged tick by tick: a call passes if window and server allow it, and only then."""
        limit = data.draw(st.integers(1, 6), "limit")
        bucket = WindowTokenBucket(limit, 8, measure=measure).bucket()
        grants: list[tuple[float, int]] = []
        now = 0.0

        def charge(amount: int) -> None:
            bucket.take(now, amount)
            bucket.release(now, amount, bucket.start(now, amount))
            grants.append((now, amount))

        past = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=5)
        for seconds, amount in data.draw(past, "past"):
            now += seconds
            charge(amount)

        #: How much more may pass, and until when.
        said: list[list[float]] = []
        words = st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 12))
        for seconds, remaining, reset_after in data.draw(st.lists(words, max_size=3), "words"):
            now += seconds
            bucket.tighten(now, remaining, reset_after)
            said.append([remaining, now + min(reset_after, 8)])

        for _ in range(30):
            while self.plainly(grants, limit, now) >= 1 and all(
                rest >= 1 or now >= reset for rest, reset in said
            ):
                assert bucket.delay(now, 1) == 0.0
                charge(1)
                for word in said:
                    word[0] -= now < word[1]

            assert bucket.delay(now, 1) > 0.0
            now += 1.0

    @pytest.mark.parametrize("measure", ["start", "end"])
    def test_without_a_reset_the_rest_is_charged_now(self, measure: Any) -> None:
        bucket = WindowTokenBucket(5, 10, measure=measure).bucket()
        bucket.tighten(2.0, 2, None)
        assert bucket.remaining(2.0) == 2
        assert bucket.delay(2.0, 3) == 10.0
        # Where less is left already, nothing changes.
        bucket.tighten(3.0, 4, None)
        assert bucket.delay(3.0, 3) == 9.0
        assert bucket.reset_after(3.0) == 9.0

    def test_the_window_is_the_longest_it_can_be_told(self) -> None:
        bucket = WindowTokenBucket(5, 10).bucket()
        bucket.tighten(0.0, 0, math.inf)
        assert bucket.delay(0.0, 1) == 10.0

    def test_what_remains_stays_when_something_comes_back(self) -> None:
        bucket = WindowTokenBucket(5, 10).bucket()
        spend(bucket, [0.0, 0.0])
        bucket.tighten(5.0, 1, 10.0)
        assert [bucket.remaining(at) for at in (5.0, 10.0, 15.0)] == [1, 1, 5]
        bucket.take(12.0, 0)
        assert bucket.remaining(12.0) == 1

    def test_what_is_held_is_no_part_of_what_remains(self) -> None:
        bucket = WindowTokenBucket(5, 10, measure="end").bucket()
        bucket.take(0.0, 2)
        receipt = bucket.start(0.0, 2)
        bucket.tighten(0.0, 1, 4.0)
        assert bucket.remaining(0.0) == 1
        bucket.release(1.0, 2, receipt)
        assert bucket.delay(1.0, 2) == 3.0
        assert bucket.delay(1.0, 4) == 10.0

    def test_in_debt_there_is_nothing_to_withhold_but_what_comes_back(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        for now, amount in ((0.0, 5), (1.0, 1)):
            bucket.take(now, amount)
            bucket.start(now, amount)

        bucket.tighten(4.0, 1, 8.0)
        # 2 of the 5 would have been there at 10, and one more at 11.
        assert [bucket.remaining(at) for at in (9.0, 10.0, 11.0, 12.0)] == [0, 1, 1, 3]

    def test_a_charge_whose_return_was_put_off_can_be_refunded(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        receipts = spend(bucket, [0.0, 1.0])
        bucket.tighten(2.0, 0, 9.5)
        assert bucket.delay(2.0, 1) == 9.5
        bucket.give_back(3.0, 1, receipts[0])
        assert bucket.remaining(3.0) == 1
        assert bucket.remaining(11.5) == 3


class TestHistory:
    def test_is_what_was_charged_and_when(self) -> None:
        bucket = WindowTokenBucket(5, 10).bucket()
        assert bucket.history(0.0) == []
        bucket.take(0.0, 2)
        assert bucket.history(0.0) == []
        bucket.start(0.0, 2)
        spend(bucket, [3.0, 12.0])
        assert bucket.history(12.0) == [(0.0, 2), (3.0, 1), (12.0, 1)]
        assert bucket.history(1000.0) == bucket.history(12.0)

    def test_what_was_given_back_is_no_part_of_it(self) -> None:
        bucket = WindowTokenBucket(5, 10).bucket()
        receipts = spend(bucket, [0.0, 1.0])
        bucket.give_back(2.0, 1, receipts[0])
        assert bucket.history(2.0) == [(1.0, 1)]

    def test_a_call_that_is_measured_at_its_end_counts_from_there(self) -> None:
        bucket = WindowTokenBucket(5, 10, measure="end").bucket()
        bucket.take(0.0, 2)
        receipt = bucket.start(0.0, 2)
        assert bucket.history(5.0) == []
        bucket.release(7.0, 2, receipt)
        assert bucket.history(8.0) == [(7.0, 2)]

    def test_what_was_withheld_counts_from_when_the_server_said_so(self) -> None:
        bucket = WindowTokenBucket(5, 10).bucket()
        bucket.tighten(3.0, 1, 4.0)
        assert bucket.history(5.0) == [(3.0, 4)]

    @examples(100)
    @given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 5)), max_size=120), windows)
    def test_never_too_early_and_never_too_little(
        self, steps: list[tuple[float, int]], window: float
    ) -> None:
        bucket = WindowTokenBucket(10**6, window).bucket()
        charged: list[tuple[float, int]] = []
        now = 0.0
        for part, amount in steps:
            now += part * window
            bucket.take(now, amount)
            bucket.start(now, amount)
            charged.append((now, amount))

        told = bucket.history(now)
        assert told == sorted(told)
        assert sum(amount for _, amount in told) == sum(amount for _, amount in charged)
        # From any instant on, at least as much as there was.
        for since, _ in charged:
            told_since = sum(amount for at, amount in told if at >= since)
            assert told_since >= sum(amount for at, amount in charged if at >= since)

        # What is out is told exactly.
        out = [(at, amount) for at, amount in told if at + window > now or now - at < window]
        assert sum(amount for _, amount in out) == 10**6 - bucket.remaining(now)

    def test_of_what_has_come_back_only_the_latest_is_told_one_by_one(self) -> None:
        bucket = WindowTokenBucket(1, 1).bucket()
        spend(bucket, [float(number) for number in range(100_000)])
        told = bucket.history(1e5)
        assert len(told) <= 17
        assert sum(amount for _, amount in told) == 100_000
        assert told[-8:] == [(99_992.0 + number, 1) for number in range(8)]
        # The older, the coarser.
        amounts = [amount for _, amount in told]
        assert amounts == sorted(amounts, reverse=True)

    def test_shift_moves_what_has_come_back_too(self) -> None:
        bucket = WindowTokenBucket(1, 1).bucket()
        spend(bucket, [0.0, 5.0])
        bucket.shift(100.0)
        told = bucket.history(110.0)
        assert [at for at, _ in told] == pytest.approx([100.0, 105.0])
        assert all(at >= since for (at, _), since in zip(told, (100.0, 105.0), strict=True))


class TestAhead:
    def test_calls_that_run_may_be_thought_to_end_now(self) -> None:
        bucket = WindowTokenBucket(3, 10, measure="end").bucket()
        bucket.take(0.0, 2)
        bucket.start(0.0, 2)
        assert bucket.ahead(4.0).delay(4.0, 2) == math.inf
        assert bucket.ahead(4.0, ended=True).delay(4.0, 2) == 10.0
        assert bucket.delay(4.0, 2) == math.inf

    def test_then_those_who_come_after_are_thought_to_end_at_once_too(self) -> None:
        ahead = WindowTokenBucket(1, 10, measure="end").bucket().ahead(0.0, ended=True)
        ahead.take(0.0, 1)
        ahead.start(0.0, 1)
        assert ahead.delay(0.0, 1) == 10.0

    def test_who_measures_the_start_asks_for_no_end(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        spend(bucket, [0.0])
        bucket.take(2.0, 2)
        for ended in (False, True):
            ahead = bucket.ahead(4.0, ended=ended)
            assert (ahead.delay(4.0, 1), ahead.delay(4.0, 2)) == (6.0, 10.0)

    def test_debt_is_thought_of(self) -> None:
        bucket = WindowTokenBucket(3, 10).bucket()
        bucket.take(0.0, 7)
        bucket.start(0.0, 7)
        assert bucket.ahead(4.0).delay(4.0, 3) == 6.0
        bucket = WindowTokenBucket(3, 10, measure="end").bucket()
        bucket.take(0.0, 7)
        bucket.start(0.0, 7)
        assert bucket.ahead(4.0, ended=True).delay(4.0, 3) == 10.0
