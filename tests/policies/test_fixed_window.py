"""The fixed window, judged by a plain list of all grants."""

import math
import pickle
from dataclasses import FrozenInstanceError, dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle import FixedWindow
from anythrottle._policies.bucket import Bucket
from anythrottle._policies.fixed_window_bucket import FixedWindowBucket
from anythrottle._policies.policy import Policy
from anythrottle._policies.utc_window_bucket import UtcWindowBucket
from tests.properties import examples

#: Windows that are no round numbers in floats.
windows = st.one_of(
    st.sampled_from([0.1, 0.3, 1.0, 1 / 3, 10.0, 86_400.0, math.pi]), st.floats(1e-3, 1e6)
)

origins = st.one_of(st.sampled_from([0.0, 0.1, 1e6, -1e6]), st.floats(-1e7, 1e7))

#: Some UTC of the present, in seconds since the epoch.
PRESENT = 1.7e9

DAY = 86_400.0


def utc_bucket(limit: int, window: float, offset: float = 0.0) -> UtcWindowBucket:
    bucket = FixedWindow(limit, window, align="utc", offset=offset).bucket()
    assert isinstance(bucket, UtcWindowBucket)
    return bucket


def spend(bucket: FixedWindowBucket, now: float, cost: int) -> float:
    """Charge at once, due or not; return the receipt."""
    bucket.take(now, cost)
    return bucket.start(now, cost)


@dataclass(eq=False)
class Call:
    """What the reference knows of a call."""

    cost: int
    receipt: float = math.nan
    began: float = math.nan
    #: The number of the window it was charged in.
    window: int = -1
    alive: bool = True


@dataclass
class PlainWindows:
    """The reference for windows that start at their first call: all calls, window by window."""

    limit: int
    length: float
    calls: list[Call] = field(default_factory=list)
    held: list[Call] = field(default_factory=list)
    #: When each of the windows ends.
    ends: list[float] = field(default_factory=list)

    def following(self, now: float) -> list[float]:
        """Return the ends of the windows up to now, which follow as long as debt is left."""
        ends = list(self.ends)
        debt = self.used(len(ends) - 1) - self.limit if ends else 0
        while ends and ends[-1] <= now and debt > 0:
            ends.append(self.end_of(ends[-1]))
            debt -= self.limit

        return ends

    def is_near_an_edge(self, now: float) -> bool:
        """Tell whether rounding may decide about which window it is, one of those after debt."""
        ends = self.following(now + self.length)[len(self.ends) :]
        return any(math.isclose(now, end, rel_tol=1e-12, abs_tol=1e-12) for end in ends)

    def end_of(self, start: float) -> float:
        end = start + self.length
        while end - start < self.length:
            end = math.nextafter(end, math.inf)

        return end

    def used(self, number: int) -> int:
        own = sum(call.cost for call in self.calls if call.window == number and call.alive)
        return own + (max(self.used(number - 1) - self.limit, 0) if number > 0 else 0)

    def free(self, now: float) -> int:
        ends = self.following(now)
        held = sum(call.cost for call in self.held)
        used = 0
        if ends and now < ends[-1]:
            used = self.used(len(ends) - 1)

        return self.limit - held - used

    def start(self, call: Call, now: float) -> None:
        self.ends = self.following(now)
        if not self.ends or self.ends[-1] <= now:
            self.ends.append(self.end_of(now))

        call.window = len(self.ends) - 1
        call.began = now
        self.held.remove(call)
        self.calls.append(call)

    def refund(self, call: Call, now: float) -> None:
        self.ends = self.following(now)
        if call.window == len(self.ends) - 1 and now < self.ends[-1]:
            call.alive = False


class TestFixedWindow:
    def test_is_a_value(self) -> None:
        policy = FixedWindow(20, 10)
        assert policy == FixedWindow(limit=20, window=10.0, align="first", offset=0.0, unit="calls")
        assert hash(policy) == hash(FixedWindow(20, 10.0))
        assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301
        assert type(policy.window) is float
        assert type(policy.offset) is float
        assert not hasattr(policy, "__dict__")
        with pytest.raises(FrozenInstanceError):
            policy.limit = 21  # type: ignore[misc]

    def test_is_a_policy(self) -> None:
        policy = FixedWindow(20, 10, align="utc", offset=-3, unit="tokens")
        assert isinstance(policy, Policy)
        assert (policy.holds, policy.unit, policy.offset) == (False, "tokens", -3.0)
        bucket: Bucket = policy.bucket()
        assert type(bucket) is UtcWindowBucket
        assert bucket.capacity == 20
        first: Bucket = FixedWindow(20, 10).bucket()
        assert type(first) is FixedWindowBucket

    @pytest.mark.parametrize("limit", [0, -1])
    def test_refuses_a_limit_below_1(self, limit: int) -> None:
        with pytest.raises(ValueError, match=rf"^limit must be at least 1, not {limit}$"):
            FixedWindow(limit, 1)

    @pytest.mark.parametrize("limit", [1.5, 1.0, True, "1", None, math.nan, math.inf])
    def test_refuses_a_limit_that_is_no_int(self, limit: int) -> None:
        with pytest.raises(TypeError, match=r"^limit must be an int, not ") as raised:
            FixedWindow(limit, 1)

        assert repr(limit) in str(raised.value)

    @pytest.mark.parametrize("window", [0, 0.0, -1, math.nan, math.inf, -math.inf])
    def test_refuses_a_window_out_of_range(self, window: float) -> None:
        with pytest.raises(ValueError, match=r"^window must be above 0 and finite") as raised:
            FixedWindow(1, window)

        assert repr(window) in str(raised.value)

    @pytest.mark.parametrize("value", [True, "1", None])
    def test_refuses_what_is_no_number(self, value: float) -> None:
        with pytest.raises(TypeError, match=rf"^window must be a number of s.*, not {value!r}$"):
            FixedWindow(1, value)

        with pytest.raises(TypeError, match=rf"^offset must be a number of s.*, not {value!r}$"):
            FixedWindow(1, 1, align="utc", offset=value)

    @pytest.mark.parametrize("offset", [math.nan, math.inf, -math.inf])
    def test_refuses_an_offset_that_is_not_finite(self, offset: float) -> None:
        with pytest.raises(ValueError, match=r"^offset must be finite, in seconds") as raised:
            FixedWindow(1, 1, align="utc", offset=offset)

        assert repr(offset) in str(raised.value)

    def test_refuses_an_offset_from_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"^offset must be 0 unless align is 'utc', not 5\.0$"):
            FixedWindow(1, 10, offset=5)

    @pytest.mark.parametrize("align", ["last", "", None, True])
    def test_refuses_another_align(self, align: object) -> None:
        with pytest.raises(ValueError, match=r"^align must be 'first' or 'utc', not ") as raised:
            FixedWindow(1, 1, align=align)  # type: ignore[arg-type]

        assert repr(align) in str(raised.value)

    def test_refuses_a_unit_that_is_no_name(self) -> None:
        with pytest.raises(TypeError, match=r"^unit must be a str, not 5$"):
            FixedWindow(1, 1, unit=5)  # type: ignore[arg-type]

        with pytest.raises(ValueError, match=r"^unit must not be empty$"):
            FixedWindow(1, 1, unit="")

    def test_align_offset_and_unit_are_named(self) -> None:
        with pytest.raises(TypeError):
            FixedWindow(1, 1, "utc")  # type: ignore[call-arg]


EVENTS = ["take", "take", "free", "start", "start", "cancel", "refund", "penalty"]


class TestAgainstThePlainList:
    """Windows that start at their first call."""

    def compare(self, bucket: FixedWindowBucket, plain: PlainWindows, now: float) -> None:
        free = plain.free(now)
        held = sum(call.cost for call in plain.held)
        assert bucket.remaining(now) == max(free, 0)
        for cost in range(1, plain.limit + 1):
            delay = bucket.delay(now, cost)
            assert (delay == 0.0) == (free >= cost)
            assert (delay == math.inf) == (cost > plain.limit - held)
            if 0.0 < delay < math.inf:
                # Not a moment too soon, and, as floats go, on the moment.
                then = now + delay
                # The reference goes from edge to edge, each of them rounded.
                fuzz = 99 * math.ulp(max(abs(now), abs(then)))
                assert plain.free(then + fuzz) >= cost
                assert bucket.delay(now + delay, cost) == 0.0
                before = now + delay - 4 * math.ulp(max(abs(now), abs(now + delay)))
                assert before <= now or bucket.delay(before, cost) > 0.0

    @examples(200)
    @given(st.data(), st.integers(1, 6), windows)
    def test_any_course_of_events(self, data: st.DataObject, limit: int, window: float) -> None:
        bucket, plain = FixedWindow(limit, window).bucket(), PlainWindows(limit, window)
        now = data.draw(origins, "origin")
        passes = st.one_of(st.just(0.0), st.floats(0.0, 2.5).map(lambda part: part * window))
        steps = st.tuples(passes, st.sampled_from(EVENTS), st.integers(0, 7))
        for seconds, event, number in data.draw(st.lists(steps, max_size=30), "steps"):
            now += seconds
            while plain.is_near_an_edge(now):
                now += window / 1000

            call = Call(1 + number % limit)
            if event == "take" and bucket.delay(now, call.cost) == 0.0:
                bucket.take(now, call.cost, now - number)
                plain.held.append(call)
            elif event == "free" and bucket.take_free(call.cost):
                assert plain.free(now) >= call.cost
                plain.held.append(call)
            elif event == "start" and plain.held:
                call = plain.held[number % len(plain.held)]
                plain.start(call, now)
                call.receipt = bucket.start(now, call.cost)
                assert call.receipt == bucket.release(now, call.cost, call.receipt)
            elif event == "cancel" and plain.held:
                bucket.give_back(now, plain.held.pop(number % len(plain.held)).cost, None)
            elif event == "penalty":
                call.cost = 2 * limit - 1 + number
                plain.held.append(call)
                plain.start(call, now)
                call.receipt = spend(bucket, now, call.cost)
            elif event == "refund" and any(call.alive for call in plain.calls):
                running = [call for call in plain.calls if call.alive]
                call = running[number % len(running)]
                plain.refund(call, now)
                bucket.give_back(now, call.cost, call.receipt)

            self.compare(bucket, plain, now)
            assert bucket.reset_after(now) >= 0.0


def most_in_a_span(calls: list[Call], window: float) -> int:
    """Return how much the fullest span of a window's length holds, of all spans there are."""
    calls = sorted((call for call in calls if call.alive), key=lambda call: call.began)
    most = 0
    for first, start in enumerate(calls):
        inside = (call.cost for call in calls[first:] if call.began - start.began < window)
        most = max(most, sum(inside))

    return most


class TestGrants:
    @examples(150)
    @given(st.data(), st.integers(1, 5), windows, st.sampled_from(["first", "utc"]))
    def test_as_fast_as_it_can_never_more_than_the_limit_in_a_window(
        self, data: st.DataObject, limit: int, window: float, align: str
    ) -> None:
        bucket = FixedWindow(limit, window, align=align).bucket()  # type: ignore[arg-type]
        now = data.draw(origins, "origin")
        parts = st.floats(0.0, 1.5).map(lambda part: part * window)
        gaps = data.draw(st.lists(st.one_of(st.just(0.0), parts), min_size=1, max_size=9), "gaps")
        calls = []
        for number in range(6 * limit):
            now += gaps[number % len(gaps)]
            now += bucket.delay(now, 1)
            assert bucket.delay(now, 1) == 0.0
            end = spend(bucket, now, 1)
            assert now < end
            assert end - now <= window + 8 * math.ulp(max(abs(now), abs(end), window))
            calls.append(Call(1, end, now))

        for call in calls:
            assert sum(other.receipt == call.receipt for other in calls) <= limit

        assert most_in_a_span(calls, window) <= 2 * limit

    @pytest.mark.parametrize("align", ["first", "utc"])
    def test_twice_the_limit_can_pass_around_an_edge(self, align: str) -> None:
        bucket = FixedWindow(3, 10, align=align).bucket()  # type: ignore[arg-type]
        spend(bucket, 0.0, 1)
        spend(bucket, 9.9, 2)
        assert bucket.remaining(9.9) == 0
        assert bucket.remaining(10.0) == 3
        spend(bucket, 10.0, 3)
        assert bucket.delay(10.0, 1) == 10.0

    def test_a_window_starts_at_the_first_call_after_the_last_one(self) -> None:
        bucket = FixedWindow(1, 10).bucket()
        assert spend(bucket, 3.0, 1) == 13.0
        assert bucket.delay(4.0, 1) == 9.0
        assert spend(bucket, 17.0, 1) == 27.0

    def test_a_window_shorter_than_the_clock_can_tell(self) -> None:
        for bucket in (FixedWindow(1, 5e-324).bucket(), utc_bucket(1, 5e-324), utc_bucket(1, 1e-9)):
            now = 1e9
            for _ in range(5):
                spend(bucket, now, 1)
                assert 0.0 < bucket.delay(now, 1) < 1e-6
                now += bucket.delay(now, 1)
                assert bucket.delay(now, 1) == 0.0

    def test_a_window_so_short_that_its_edges_are_no_floats_ends_after_now(self) -> None:
        bucket = utc_bucket(1, 5.3743085153618574e-15)
        now = 778.4426150001458
        assert spend(bucket, now, 1) > now

    def test_what_is_held_counts_until_it_begins_and_then_in_that_window(self) -> None:
        for bucket in (FixedWindow(3, 10).bucket(), utc_bucket(3, 10)):
            bucket.take(0.0, 2)
            assert bucket.remaining(0.0) == 1
            assert bucket.delay(0.0, 2) == math.inf
            spend(bucket, 1.0, 1)
            # Who comes next needs an edge; with more than the limit but for what is held, not even
            # that is enough.
            assert bucket.delay(1.0, 1) == (10.0 if type(bucket) is FixedWindowBucket else 9.0)
            assert bucket.delay(1.0, 2) == math.inf
            assert bucket.remaining(15.0) == 1
            end = bucket.start(15.0, 2)
            assert end == (25.0 if type(bucket) is FixedWindowBucket else 20.0)
            assert bucket.remaining(15.0) == 1
            assert bucket.delay(15.0, 3) == end - 15.0

    def test_take_free_looks_at_no_clock(self) -> None:
        bucket = FixedWindow(3, 10).bucket()
        assert bucket.take_free(2)
        assert not bucket.take_free(2)
        bucket.start(0.0, 2)
        assert not bucket.take_free(2)
        assert bucket.take_free(1)
        bucket.give_back(0.0, 1, None)
        assert bucket.remaining(10.0) == 3
        # By UTC another window may have begun, or none may have ended yet.
        assert not utc_bucket(3, 10).take_free(1)

    def test_debt_is_carried_from_window_to_window(self) -> None:
        for bucket in (FixedWindow(10, 10).bucket(), utc_bucket(10, 10)):
            spend(bucket, 0.0, 35)
            assert [bucket.remaining(now) for now in (0.0, 10.0, 20.0, 30.0, 40.0)] == [
                *(0, 0, 0, 5, 10),
            ]
            assert [bucket.delay(2.0, cost) for cost in (1, 5, 6, 10)] == [28.0, 28.0, 38.0, 38.0]
            assert bucket.reset_after(2.0) == 38.0
            assert spend(bucket, 31.0, 5) == 40.0
            assert bucket.history(31.0) == [(0.0, 35), (31.0, 5)]
            assert bucket.delay(31.0, 1) == 9.0

    def test_debt_that_is_forgiven_leaves_the_window_full(self) -> None:
        for bucket in (FixedWindow(10, 10).bucket(), utc_bucket(10, 10)):
            spend(bucket, 0.0, 35)
            assert not bucket.forgive(0.0, 30.0)
            assert bucket.forgive(0.0, 29.0)
            assert bucket.delay(0.0, 1) == 30.0
            assert bucket.delay(0.0, 10) == 30.0
            assert bucket.forgive(0.0, -1.0)
            assert bucket.delay(0.0, 10) == 10.0
            assert not bucket.forgive(0.0, -1.0)
            assert not bucket.forgive(99.0, 0.0)

    def test_no_debt_is_too_large(self) -> None:
        for bucket in (FixedWindow(10, 1e-3).bucket(), utc_bucket(10, 1e-3)):
            spend(bucket, 0.0, 10**400)
            assert bucket.delay(5.0, 1) > 1e290
            assert bucket.remaining(5.0) == 0
            assert bucket.reset_after(1e9) > 1e290


class TestGivingBack:
    def test_a_window_that_is_open_gets_it_back(self) -> None:
        for bucket in (FixedWindow(3, 10).bucket(), utc_bucket(3, 10)):
            receipt = spend(bucket, 0.0, 3)
            bucket.give_back(9.0, 2, receipt)
            assert bucket.remaining(9.0) == 2
            assert bucket.reset_after(9.0) == 1.0
            bucket.give_back(9.5, 1, receipt)
            assert bucket.remaining(9.5) == 3
            assert bucket.history(9.5) == []

    def test_by_a_clock_that_shows_less_than_nothing(self) -> None:
        bucket = FixedWindow(3, 10).bucket()
        receipt = spend(bucket, -50.0, 2)
        bucket.give_back(-45.0, 2, receipt)
        assert bucket.remaining(-45.0) == 3

    def test_what_was_charged_in_an_earlier_window_has_come_back(self) -> None:
        for bucket in (FixedWindow(3, 10).bucket(), utc_bucket(3, 10)):
            receipt = spend(bucket, 0.0, 3)
            bucket.give_back(10.0, 3, receipt)
            assert bucket.remaining(10.0) == 3
            spend(bucket, 10.0, 3)
            bucket.give_back(11.0, 3, receipt)
            assert bucket.remaining(11.0) == 0

    def test_a_charge_that_is_debt_of_the_next_window_stays(self) -> None:
        bucket = FixedWindow(3, 10).bucket()
        receipt = spend(bucket, 0.0, 5)
        bucket.give_back(10.0, 5, receipt)
        assert bucket.remaining(10.0) == 1
        assert bucket.remaining(20.0) == 3

    @pytest.mark.parametrize("utc", [1003.0, 1007.0, 1000.5, 1009.5, 5001.0])
    def test_though_the_end_of_the_window_has_been_moved(self, utc: float) -> None:
        bucket = utc_bucket(3, 10)
        bucket.set_utc(0.0, 1004.0)
        receipt = spend(bucket, 0.0, 2)
        assert receipt == 6.0
        bucket.set_utc(0.1, utc)
        bucket.give_back(0.2, 1, receipt)
        assert bucket.remaining(0.2) == 2
        later = spend(bucket, 0.2, 1)
        assert later == pytest.approx(0.1 + 10 - utc % 10)
        bucket.give_back(0.3, 1, later)
        assert bucket.remaining(0.3) == 2
        bucket.give_back(0.3, 1, receipt)
        assert bucket.remaining(0.3) == 3


class TestTighten:
    @examples(150)
    @given(st.data(), st.integers(1, 6), windows, st.sampled_from(["first", "utc"]))
    def test_it_only_tightens_and_holds_to_what_remains(
        self, data: st.DataObject, limit: int, window: float, align: str
    ) -> None:
        bucket = FixedWindow(limit, window, align=align).bucket()  # type: ignore[arg-type]
        now = data.draw(origins, "origin")
        steps = st.tuples(st.floats(0.0, 1.5), st.integers(0, 9))
        for part, cost in data.draw(st.lists(steps, max_size=5), "steps"):
            now += part * window
            spend(bucket, now, cost)

        bucket.take(now, data.draw(st.integers(0, limit), "held"))
        before = bucket.ahead(now)
        held = bucket._held
        remaining = data.draw(st.integers(0, 3 * limit), "remaining")
        reset = data.draw(st.one_of(st.none(), st.floats(0.0, 2.0)), "reset")
        reset_after = None if reset is None else reset * window
        bucket.tighten(now, remaining, reset_after)
        assert bucket.remaining(now) <= remaining
        for cost in range(1, limit - held + 1):
            fuzz = 8 * math.ulp(max(abs(now), window))
            assert bucket.delay(now, cost) >= before.delay(now, cost) - fuzz or held

        reset_at = now if reset_after is None else now + min(reset_after, window)
        taken, instant = 0, now
        while bucket.delay(instant, 1) < math.inf:
            instant += bucket.delay(instant, 1)
            if instant >= reset_at:
                break

            spend(bucket, instant, 1)
            taken += 1

        assert taken <= remaining

    def test_a_window_is_opened_if_there_is_none(self) -> None:
        for bucket in (FixedWindow(5, 10).bucket(), utc_bucket(5, 10)):
            bucket.tighten(0.0, 2, None)
            assert bucket.remaining(0.0) == 2
            assert bucket.delay(0.0, 3) == 10.0
            assert bucket.history(0.0) == [(0.0, 3)]

    def test_what_is_held_is_left_as_well(self) -> None:
        for bucket in (FixedWindow(4, 10).bucket(), utc_bucket(4, 10)):
            bucket.take(0.0, 1)
            bucket.tighten(0.0, 1, None)
            assert bucket.remaining(0.0) == 1
            bucket.start(0.0, 1)
            assert bucket.history(0.0) == [(0.0, 3)]

    def test_the_window_ends_no_earlier_than_the_server_resets(self) -> None:
        bucket = FixedWindow(5, 10).bucket()
        spend(bucket, 0.0, 1)
        bucket.tighten(8.0, 2, 7.0)
        assert bucket.delay(8.0, 3) == 7.0
        bucket.tighten(9.0, 2, 1.0)
        assert bucket.delay(9.0, 3) == 6.0
        bucket.tighten(9.0, 0, 1e9)
        assert bucket.delay(9.0, 1) == 10.0

    def test_a_server_that_leaves_more_than_can_be_used_changes_nothing(self) -> None:
        bucket = FixedWindow(5, 10).bucket()
        bucket.tighten(0.0, 5, 10.0)
        assert bucket.history(0.0) == []
        spend(bucket, 0.0, 5)
        for now in range(1, 10):
            bucket.tighten(now, 99 - now, 10.0)

        assert bucket.delay(9.0, 1) == 1.0
        assert bucket.delay(9.0, 5) == 1.0

    def test_what_was_said_is_not_forgotten_with_nothing_used(self) -> None:
        bucket = utc_bucket(5, 10)
        bucket.tighten(8.0, 7, 7.0)
        assert bucket.remaining(8.0) == 5
        assert bucket.reset_after(8.0) == 7.0
        spend(bucket, 8.0, 5)
        assert bucket.delay(8.0, 1) == 7.0
        # Then windows start on the edges again.
        assert spend(bucket, 16.0, 1) == 20.0

    def test_debt_after_a_window_that_was_made_longer_is_paid_at_the_edges(self) -> None:
        bucket = utc_bucket(5, 10)
        spend(bucket, 8.0, 7)
        bucket.tighten(8.0, 0, 7.0)
        assert [bucket.delay(8.0, cost) for cost in (1, 3, 4)] == [7.0, 7.0, 12.0]
        assert [bucket.remaining(now) for now in (10.0, 15.0, 20.0)] == [0, 3, 5]

    def test_debt_that_lasts_beyond_the_reset_needs_no_longer_window(self) -> None:
        bucket = utc_bucket(5, 10)
        spend(bucket, 8.0, 12)
        bucket.tighten(8.0, 0, 7.0)
        assert [bucket.remaining(now) for now in (10.0, 20.0, 30.0)] == [0, 3, 5]

    def test_debt_leaves_the_next_window_no_more_than_the_server_leaves(self) -> None:
        bucket = FixedWindow(3, 10).bucket()
        spend(bucket, 0.0, 3)
        spend(bucket, 0.0, 2)
        # The window that begins at 10 has room for 1: its begin need not be put off.
        bucket.tighten(5.0, 1, 9.0)
        assert [bucket.delay(5.0, cost) for cost in (1, 2)] == [5.0, 15.0]

    def test_held_beyond_the_limit_is_no_debt_of_the_next_window(self) -> None:
        bucket = FixedWindow(3, 10).bucket()
        spend(bucket, 0.0, 2)
        bucket.take(5.0, 2)
        bucket.tighten(5.0, 0, 10.0)
        assert bucket.delay(5.0, 1) == 10.0

    def test_the_server_s_reset_holds_whatever_utc_is(self) -> None:
        bucket = utc_bucket(5, 10)
        bucket.set_utc(0.0, 1008.0)
        spend(bucket, 0.0, 1)
        bucket.tighten(0.0, 0, 7.0)
        for utc in (1001.0, 1009.0, 5009.0, 1002.9):
            bucket.set_utc(0.5, utc)
            assert bucket.delay(0.5, 1) >= 6.5


class JumpyCourse:
    """A bucket by UTC and all its calls, while the wall clock is set forward and back."""

    def __init__(self, limit: int, window: float, now: float) -> None:
        self.bucket = utc_bucket(limit, window)
        self.limit = limit
        self.window = window
        self.now = now
        self.calls: list[Call] = []
        self.held: list[Call] = []
        #: Which window it is, and when that ends.
        self.number = 0
        self.end = -math.inf

    def pass_to(self, now: float) -> None:
        self.note_end()
        self.number += now >= self.end
        self.now = now

    def note_end(self) -> None:
        if self.bucket._end > self.now:
            self.end = self.bucket._end

    def set_clock(self, windows_since_an_edge: float) -> None:
        used = self.bucket._used_at(self.now)
        utc = PRESENT // self.window * self.window + windows_since_an_edge * self.window
        self.bucket.set_utc(self.now, utc)
        assert self.bucket._used_at(self.now) == used

    def take(self, cost: int) -> None:
        delay = self.bucket.delay(self.now, cost)
        if delay > self.window / 4:
            return

        self.pass_to(self.now + delay)
        assert self.bucket.delay(self.now, cost) == 0.0
        self.bucket.take(self.now, cost)
        self.held.append(Call(cost))

    def cancel(self) -> None:
        if self.held:
            self.bucket.give_back(self.now, self.held.pop().cost, None)

    def start(self) -> None:
        for call in self.held:
            call.began, call.window = self.now, self.number
            call.receipt = self.bucket.start(self.now, call.cost)

        self.calls += self.held
        self.held.clear()

    def refund(self, number: int) -> None:
        alive = [call for call in self.calls if call.alive]
        if alive:
            call = alive[-(number % len(alive))]
            before = self.bucket._used_at(self.now)
            self.bucket.give_back(self.now, call.cost, call.receipt)
            given_back = before - self.bucket._used_at(self.now)
            # In another window nothing comes back; then it was no refund for us.
            assert given_back in ({0, call.cost} if call.window == self.number else {0})
            call.alive = not given_back

    def check(self) -> None:
        held = sum(call.cost for call in self.held)
        assert self.bucket.remaining(self.now) + held <= self.limit
        assert most_in_a_span(self.calls, self.window) <= 2 * self.limit


class TestUtc:
    def test_windows_start_at_set_times(self) -> None:
        bucket = utc_bucket(2, DAY, 8 * 3600.0)
        midnight = 19_700 * DAY
        bucket.set_utc(100.0, midnight + 7.5 * 3600)
        spend(bucket, 100.0, 2)
        assert bucket.delay(100.0, 1) == 1800.0
        assert bucket.reset_after(100.0) == 1800.0
        spend(bucket, 1900.0, 2)
        assert bucket.delay(1900.0, 1) == DAY

    @examples(200)
    @given(windows, st.floats(-1e6, 1e6), origins, st.floats(0.0, 2e9), st.floats(0.0, 9.0))
    @example(0.1, 0.0, 0.0, PRESENT, 0.0)
    @example(0.1, 0.05, 0.0, PRESENT, 1.0)
    @example(1.0, -1e-100, 0.0, 0.0, 0.0)
    def test_an_edge_is_after_now_and_a_window_away_at_most(
        self, window: float, offset: float, now: float, utc: float, part: float
    ) -> None:
        bucket = utc_bucket(1, window, offset)
        bucket.set_utc(now, utc)
        later = now + part * window
        end = spend(bucket, later, 1)
        fuzz = 8 * math.ulp(max(abs(now), abs(end), abs(utc), abs(offset), window))
        assert later < end <= later + window + fuzz
        # It is a multiple of the window in UTC.
        past = math.fmod(end - now + utc - offset, window)
        assert min(abs(past), window - abs(past)) <= fuzz

    @examples(100)
    @given(windows, origins, st.floats(0.0, 2e9))
    def test_edges_are_the_same_floats_however_they_are_come_to(
        self, window: float, now: float, utc: float
    ) -> None:
        one, other = utc_bucket(1, window), utc_bucket(1, window)
        one.set_utc(now, utc)
        other.set_utc(now, utc)
        # One of them step by step, the other all at once, in debt.
        instants = [spend(one, now, 1)]
        for _ in range(6):
            instants.append(spend(one, instants[-1], 1))

        spend(other, now, 6)
        assert now + other.delay(now, 1) == pytest.approx(instants[5], rel=1e-15)
        for number, instant in enumerate(instants[:5], start=1):
            assert other._used_at(instant) == 6 - number
            assert other._used_at(math.nextafter(instant, -math.inf)) == 7 - number

    @pytest.mark.parametrize("window", [0.1, 0.3, 1 / 3, math.pi])
    def test_an_instant_just_before_an_edge_is_before_it(self, window: float) -> None:
        for number in range(200):
            bucket = utc_bucket(1, window)
            bucket.set_utc(number / 7, PRESENT + number / 9)
            edge, next_ = (bucket._base + steps * window for steps in (number, number + 1))
            assert bucket._end_from(math.nextafter(edge, -math.inf)) == edge
            assert bucket._end_from(edge) == next_

    def test_an_edge_is_as_fine_as_the_clock_though_utc_is_not(self) -> None:
        bucket = utc_bucket(1, 60.0)
        # By UTC, there are 12 seconds until the full minute.
        bucket.set_utc(0.1, PRESENT - PRESENT % 60 + 48)
        assert abs(spend(bucket, 0.1, 1) - 12.1) < 1e-12

    def test_never_told_the_clock_is_utc(self) -> None:
        assert spend(utc_bucket(1, 10), 1003.0, 1) == 1010.0
        assert spend(utc_bucket(1, 10, 5.0), 1003.0, 1) == 1005.0
        assert spend(utc_bucket(1, 10, 5.0), -1003.0, 1) == -995.0

    @pytest.mark.parametrize("utc", [1000.5, 1003.0, 1009.0, 990.0, 5007.0, 0.0])
    def test_a_jump_by_itself_resets_no_count(self, utc: float) -> None:
        bucket = utc_bucket(3, 10)
        bucket.set_utc(0.0, 1002.0)
        spend(bucket, 0.0, 3)
        bucket.set_utc(0.0, utc)
        assert bucket.remaining(0.0) == 0
        # The next edge by the new reckoning.
        assert bucket.delay(0.0, 1) == pytest.approx(10 - utc % 10)
        assert bucket.reset_after(0.0) == pytest.approx(10 - utc % 10)

    def test_being_told_again_after_the_end_opens_nothing(self) -> None:
        bucket = utc_bucket(3, 10)
        bucket.set_utc(0.0, 1002.0)
        spend(bucket, 0.0, 3)
        bucket.set_utc(8.0, 1009.0)
        assert bucket.remaining(8.0) == 3
        assert bucket.delay(8.0, 1) == 0.0
        assert spend(bucket, 8.0, 3) == 9.0

    def test_a_window_that_comes_again_starts_anew(self) -> None:
        bucket = utc_bucket(3, 10)
        bucket.set_utc(0.0, 1000.0)
        for now in (1.0, 5.0):
            spend(bucket, now, 1)

        bucket.set_utc(10.0, 1010.0)
        bucket.set_utc(10.0, 1007.0)
        receipt = spend(bucket, 10.0, 1)
        assert receipt == 13.0
        # It may have been charged from 3.0 on.
        bucket.give_back(11.0, 1, receipt)
        assert bucket.history(11.0) == [(1.0, 1), (10.0, 1)]

    def test_debt_goes_on_by_the_new_reckoning(self) -> None:
        bucket = utc_bucket(3, 10)
        bucket.set_utc(0.0, 1002.0)
        spend(bucket, 0.0, 5)
        bucket.set_utc(8.0, 1005.0)
        assert bucket.remaining(8.0) == 1
        assert bucket.delay(8.0, 2) == 5.0

    def test_clocks_that_disagree_a_little_about_an_edge_cost_no_window(self) -> None:
        bucket = utc_bucket(3, DAY)
        bucket.set_utc(0.0, 19_700 * DAY + 3600)
        spend(bucket, 0.0, 3)
        # By the wall clock it is the next day by now, a moment too early.
        now = DAY - 3600 - 0.001
        bucket.set_utc(now, 19_701 * DAY + 0.001)
        assert bucket.delay(now, 3) == pytest.approx(0.001)
        # But what was used by the same reckoning in this window is not forgotten so soon.
        bucket = utc_bucket(3, DAY)
        bucket.set_utc(0.0, 19_700 * DAY + 23 * 3600)
        spend(bucket, 0.0, 3)
        bucket.set_utc(600.0, 19_701 * DAY + 3600)
        assert bucket.delay(600.0, 1) == pytest.approx(23 * 3600)

    @pytest.mark.parametrize("readings", [1, 5])
    def test_an_edge_that_comes_again_a_moment_later_is_the_same_one(self, readings: int) -> None:
        bucket = utc_bucket(3, 10)
        bucket.set_utc(0.0, 1000.0)
        # Due just at an edge, as all are who have waited for it; then the clock is read again.
        spend(bucket, 0.0, 3)
        for number in range(readings):
            bucket.set_utc(0.0001 * number, 999.9995)

        assert bucket.delay(0.001, 1) == pytest.approx(10, abs=0.001)
        assert spend(bucket, 10.1, 1) == pytest.approx(20, abs=0.001)

    @pytest.mark.parametrize(("back", "delay"), [(0.0625, 10.0625), (0.125, 0.125)])
    def test_up_to_a_hundredth_of_a_window_is_a_moment(self, back: float, delay: float) -> None:
        bucket = utc_bucket(3, 10)
        bucket.set_utc(0.0, 1000.0)
        spend(bucket, 0.0, 3)
        bucket.set_utc(0.0, 1000.0 - back)
        assert bucket.delay(0.0, 1) == delay

    @pytest.mark.parametrize(("offset", "end"), [(0.0, 10.0), (2.0, 2.0), (-3.0, 7.0), (25.0, 5.0)])
    def test_until_it_is_told_what_utc_is_the_clock_shows_it(
        self, offset: float, end: float
    ) -> None:
        bucket = utc_bucket(3, 10, offset)
        assert spend(bucket, 1.0, 3) == end
        assert bucket.delay(1.0, 1) == end - 1

    @examples(300)
    @given(st.data(), st.integers(1, 4), st.sampled_from([0.1, 1.0, 10.0, math.pi, DAY]))
    def test_whatever_the_wall_clock_does_no_span_holds_more_than_twice_the_limit(
        self, data: st.DataObject, limit: int, window: float
    ) -> None:
        course = JumpyCourse(limit, window, data.draw(origins, "origin"))
        parts = st.one_of(st.just(0.0), st.floats(0.0, 0.4))
        # How far into a window it is by the wall clock, when it is set.
        jumps = st.one_of(st.none(), st.floats(0.0, 5.0), st.sampled_from([0.95, 0.999, 0.5]))
        steps = st.tuples(parts, jumps, st.integers(1, limit), st.integers(0, 9))
        for part, jump, cost, number in data.draw(st.lists(steps, max_size=40), "steps"):
            course.pass_to(course.now + part * window)
            if jump is not None:
                course.set_clock(jump)

            course.take(cost)
            if number <= 1:
                course.cancel()
            elif number <= 3:
                course.refund(number)
            else:
                course.start()

            course.check()

        course.start()
        course.check()

    def test_the_guard_makes_wait_where_the_wall_clock_would_not(self) -> None:
        bucket = utc_bucket(2, 10)
        now = 0.0
        granted = []
        for _ in range(3):
            # Just before an edge, again and again.
            bucket.set_utc(now, 1009.0)
            if now == 1.0:
                # An edge comes at 2.0, but what was used at 0.0 is in the way till 10.0.
                assert bucket.remaining(2.0) == 0
                assert bucket.reset_after(1.0) == 9.0

            for _ in range(2):
                now += bucket.delay(now, 1)
                spend(bucket, now, 1)
                granted.append(now)

        assert granted == [0.0, 0.0, 1.0, 1.0, 10.0, 10.0]

    def test_the_guard_gets_back_what_is_given_back(self) -> None:
        bucket = utc_bucket(2, 10)
        for number in range(10):
            receipt = spend(bucket, number / 10, 2)
            bucket.give_back(number / 10, 2, receipt)
            bucket.take(number / 10, 2)
            bucket.give_back(number / 10, 2, None)

        assert bucket._guard.remaining(1.0) == 4

    @pytest.mark.parametrize("index", [0, 1])
    def test_of_several_charges_the_guard_gives_back_the_first(self, index: int) -> None:
        bucket = utc_bucket(2, 10)
        bucket.set_utc(0.0, 1005.0)
        receipts = [spend(bucket, now, 1) for now in (0.0, 4.0)]
        bucket.give_back(4.5, 1, receipts[index])
        assert bucket._guard.remaining(4.5) == 3
        # The other way round it would forget too early what was used at 4.0.
        assert bucket._guard.remaining(10.0) == 3
        assert bucket._guard.remaining(14.0) == 4

    @pytest.mark.parametrize("window", [0.1, 0.3, 1 / 3, math.pi])
    def test_the_guard_gives_back_what_began_on_an_edge(self, window: float) -> None:
        for number in range(200):
            bucket = utc_bucket(1, window)
            bucket.set_utc(0.0, PRESENT + number / 9)
            edge = bucket._base + (1 + number % 9) * window
            bucket.give_back(edge, 1, spend(bucket, edge, 1))
            assert bucket._guard.remaining(edge) == 2

    def test_the_guard_forgets_who_is_no_more(self) -> None:
        bucket = utc_bucket(2, 10)
        for _ in range(3):
            bucket.take(0.0, 2)
            bucket.forget_held()

        assert bucket.remaining(0.0) == 2
        assert bucket._guard.remaining(0.0) == 4


class TestState:
    @pytest.mark.parametrize("align", ["first", "utc"])
    @pytest.mark.parametrize("now", [0.0, 1e9, -1e9, 1e300, -1e300])
    def test_a_fresh_bucket_is_full_whatever_the_time(self, align: str, now: float) -> None:
        bucket = FixedWindow(3, 10, align=align).bucket()  # type: ignore[arg-type]
        assert bucket.remaining(now) == 3
        assert bucket.reset_after(now) == 0.0
        assert bucket.history(now) == []
        assert bucket.delay(now, 3) == 0.0
        assert bucket.delay(now, 4) == math.inf
        bucket.shift(now)
        assert bucket.remaining(-now) == 3

    def test_reset_after(self) -> None:
        bucket = FixedWindow(3, 10).bucket()
        bucket.take(0.0, 1)
        assert bucket.reset_after(0.0) == 10.0
        bucket.start(0.0, 1)
        assert bucket.reset_after(4.0) == 6.0
        assert bucket.reset_after(10.0) == 0.0
        bucket.take(4.0, 2)
        assert bucket.reset_after(4.0) == 6.0
        bucket.take(4.0, 2)
        assert bucket.reset_after(4.0) == 16.0
        bucket = utc_bucket(3, 10)
        bucket.take(4.0, 1)
        assert bucket.reset_after(4.0) == 6.0

    def test_history_is_when_the_calls_began(self) -> None:
        for bucket in (FixedWindow(3, 10).bucket(), utc_bucket(3, 10)):
            bucket.take(0.0, 3)
            assert bucket.history(0.0) == []
            bucket.start(0.0, 1)
            bucket.start(4.0, 1)
            assert bucket.history(5.0) == [(0.0, 1), (4.0, 1)]
            assert bucket.history(1e6) == [(0.0, 1), (4.0, 1)]

    @pytest.mark.parametrize("align", ["first", "utc"])
    @pytest.mark.parametrize("seconds", [-1e6, 0.1, 1e6])
    def test_shift_moves_the_window(self, align: str, seconds: float) -> None:
        bucket = FixedWindow(3, 10, align=align).bucket()  # type: ignore[arg-type]
        spend(bucket, 2.0, 5)
        bucket.tighten(2.0, 0, 10.0)
        delay = bucket.delay(2.0, 3)
        bucket.shift(seconds)
        shifted = bucket.delay(2.0 + seconds, 3)
        assert delay <= shifted + 4 * math.ulp(1e6)
        assert shifted <= delay + 4 * math.ulp(1e6)
        [(instant, amount)] = bucket.history(2.0 + seconds)
        assert instant == pytest.approx(2.0 + seconds)
        assert amount == 5

    @pytest.mark.parametrize("align", ["first", "utc"])
    def test_nothing_remains_of_another_clock(self, align: str) -> None:
        bucket = FixedWindow(3, 10, align=align).bucket()  # type: ignore[arg-type]
        spend(bucket, 1e6, 1)
        bucket.tighten(1e6 + 5, 1, 10.0)
        bucket.shift(-1e6)
        assert bucket.reset_after(20.0) == 0.0
        receipt = spend(bucket, 20.0, 3)
        bucket.give_back(21.0, 2, receipt)
        assert bucket.history(21.0)[-1] == (20.0, 1)

    def test_forget_held_lets_go_what_is_held_and_no_more(self) -> None:
        bucket = FixedWindow(5, 10).bucket()
        bucket.take(0.0, 4)
        bucket.start(0.0, 1)
        bucket.forget_held()
        assert bucket.remaining(0.0) == 4

    def test_thinking_ahead_leaves_it_as_it_was(self) -> None:
        for bucket in (FixedWindow(3, 10).bucket(), utc_bucket(3, 10)):
            bucket.take(0.0, 2)
            ahead = bucket.ahead(1.0)
            # What is held has begun there.
            assert ahead.history(1.0) == [(1.0, 2)]
            assert bucket.history(1.0) == []
            assert ahead.delay(1.0, 3) < math.inf
            assert bucket.delay(1.0, 3) == math.inf
            spend(ahead, 1.0, 1)
            assert (bucket.remaining(1.0), ahead.remaining(1.0)) == (1, 0)
            ahead.tighten(1.0, 0, 10.0)
            ahead.shift(5.0)
            assert bucket.remaining(1.0) == 1
            assert bucket.start(1.0, 2) == (11.0 if type(bucket) is FixedWindowBucket else 10.0)

    def test_ahead_the_guard_is_a_copy_too(self) -> None:
        bucket = utc_bucket(2, 10)
        ahead = bucket.ahead(0.0, ended=True)
        assert isinstance(ahead, UtcWindowBucket)
        for now in (0.0, 10.0):
            spend(ahead, now, 2)

        assert ahead._guard.remaining(10.0) == 2
        assert bucket._guard.remaining(10.0) == 4

    def test_questions_change_nothing(self) -> None:
        for bucket in (FixedWindow(2, 10).bucket(), utc_bucket(2, 10)):
            spend(bucket, 0.0, 3)
            answers = [
                (
                    bucket.remaining(now),
                    bucket.delay(now, 2),
                    bucket.reset_after(now),
                )
                for now in (100.0, 0.0, 10.0, 5.0)
            ]
            assert answers == [
                (2, 0.0, 0.0),
                (0, 20.0, 20.0),
                (1, 10.0, 10.0),
                (0, 15.0, 15.0),
            ]

    def test_a_clock_that_goes_back_gives_nothing_twice(self) -> None:
        for bucket in (FixedWindow(2, 10).bucket(), utc_bucket(2, 10)):
            spend(bucket, 100.0, 1)
            assert spend(bucket, 50.0, 1) == 110.0
            assert bucket.delay(60.0, 1) == 50.0
            assert bucket.history(60.0) == [(100.0, 2)]

    def test_a_bucket_has_no_other_attributes(self) -> None:
        assert not hasattr(FixedWindow(1, 1).bucket(), "__dict__")
        assert not hasattr(utc_bucket(1, 1), "__dict__")
