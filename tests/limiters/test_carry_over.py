"""A policy that succeeds one of its kind goes on where that is: the past is not counted anew."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FixedWindow, RateLimiter, TokenBucket, WindowTokenBucket
from anythrottle.abc import Policy
from tests.conftest import Run
from tests.limiters.tools import Crowd, left, left_at, pass_at_once, tasks
from tests.properties import examples


@pytest.mark.timing
class TestLevel:
    @pytest.mark.parametrize(
        ("old", "seconds", "new", "passed"),
        [
            # faster, slower
            (TokenBucket(1, 1, burst=100), 10, TokenBucket(100, 1, burst=100), 10),
            (TokenBucket(100, 1, burst=100), 0.5, TokenBucket(1, 1, burst=100), 50),
            (TokenBucket(100, 100), 10, TokenBucket(100, 1), 10),
            # by the time and not by the limit
            (TokenBucket(10, 10, burst=100), 20, TokenBucket(10, 1, burst=100), 20),
            # a larger burst has room for more; what a smaller one has no room for is lost
            (TokenBucket(1, 1, burst=5), 50, TokenBucket(1, 1, burst=100), 5),
            (TokenBucket(1, 1, burst=100), 50, TokenBucket(1, 1, burst=5), 5),
            (TokenBucket(1, 1, burst=100), 50, TokenBucket(100, 1, burst=20), 20),
            # nothing has flowed in yet, or all of it
            (TokenBucket(1, 1, burst=100), 0, TokenBucket(100, 1, burst=100), 0),
            (TokenBucket(100, 1, burst=100), 1, TokenBucket(1, 1, burst=100), 100),
            (TokenBucket(1, 4, burst=100), 3, TokenBucket(1, 2, burst=100), 0),
        ],
        ids=repr,
    )
    async def test_what_has_flowed_in_stays(
        self, old: TokenBucket, seconds: float, new: TokenBucket, passed: int
    ) -> None:
        limiter = RateLimiter(old)
        pass_at_once(limiter)
        await anyio.sleep(seconds)
        limiter.reconfigure(new)
        assert limiter.peek().remaining == passed
        assert pass_at_once(limiter) == passed

    async def test_a_part_of_a_token_stays(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 4, burst=100))
        pass_at_once(limiter)
        await anyio.sleep(3)
        limiter.reconfigure(TokenBucket(1, 2, burst=100))
        # Three fourths were there; the fourth takes a fourth of the new time.
        assert limiter.peek().retry_after == 0.5

    async def test_from_then_on_the_new_rate_holds(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 1, burst=100))
        pass_at_once(limiter)
        await anyio.sleep(10)
        limiter.reconfigure(TokenBucket(100, 1, burst=100))
        for passed in (10, 50, 100, 100):
            assert pass_at_once(limiter) == passed
            await anyio.sleep(0.5 if passed == 10 else 1.5)

    async def test_one_that_was_never_used_is_full_by_its_own_burst(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 1, burst=3))
        limiter.reconfigure(TokenBucket(100, 1, burst=100))
        assert pass_at_once(limiter) == 3

    async def test_again_and_again(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 1, burst=1000))
        pass_at_once(limiter)
        for seconds, rate in ((10, 100), (1, 2), (5, 1000), (0.5, 1)):
            await anyio.sleep(seconds)
            limiter.reconfigure(TokenBucket(rate, 1, burst=1000))

        # 10 by 1, 100 by 100, 10 by 2 and 500 by 1000 a second.
        assert pass_at_once(limiter) == 620

    async def test_what_is_charged_costs_no_more_under_another_rate(self) -> None:
        limiter = RateLimiter(TokenBucket(10, 1, burst=100))
        await limiter.acquire(60)
        limiter.reconfigure(TokenBucket(1, 1, burst=100))
        assert left(limiter) == [40]

    async def test_those_in_line_go_by_it(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 10, burst=1))
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(4))
            await anyio.sleep(5)
            limiter.reconfigure(TokenBucket(1, 1, burst=1))
            await anyio.sleep(1)
            limiter.reconfigure(TokenBucket(1, 8, burst=1))

        assert list(crowd.granted.values()) == [0.0, 5.5, 10.0, 18.0]

    async def test_a_call_that_was_marked_as_counted_runs_on(self) -> None:
        limiter = RateLimiter(TokenBucket(4, 4))
        async with limiter.permit(3) as permit:
            permit.mark_counted()
            limiter.reconfigure(TokenBucket(8, 8))
            assert left(limiter) == [1]
            permit.refund()
            assert left(limiter) == [4]

    async def test_units_have_nothing_to_do_with_each_other(self) -> None:
        limiter = RateLimiter(TokenBucket(9, 9), TokenBucket(8, 8, unit="tokens"))
        await limiter.acquire({"calls": 9, "tokens": 4})
        await anyio.sleep(1)
        limiter.reconfigure(TokenBucket(80, 1), TokenBucket(80, 1, unit="tokens"))
        assert left(limiter) == [1, 5]

    def test_outside_of_an_event_loop(self, run: Run) -> None:
        limiter = RateLimiter(TokenBucket(100, 1e6))
        assert pass_at_once(limiter) == 100
        limiter.reconfigure(TokenBucket(100, 1e-6, burst=50))
        assert limiter.peek().remaining in {0, 50}
        limiter.reconfigure(TokenBucket(1, 1e6, burst=50))

        async def main() -> None:
            assert pass_at_once(limiter) in {0, 50}

        run(main)


@pytest.mark.timing
class TestDebt:
    async def test_it_is_paid_at_the_new_rate_from_now_on(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 1))
        limiter.penalize(21)
        await anyio.sleep(10)
        limiter.reconfigure(TokenBucket(10, 1))
        # Ten are left of it, and there has to be one more.
        assert limiter.peek().retry_after == pytest.approx(1.1)

    async def test_it_takes_no_longer_than_before(self) -> None:
        limiter = RateLimiter(TokenBucket(10, 1))
        limiter.penalize(30)
        await anyio.sleep(1)
        limiter.reconfigure(TokenBucket(1, 1))
        # Ten were left of it, for a second; then there has to be one more.
        assert limiter.peek().retry_after == pytest.approx(2.0)
        assert limiter.peek().remaining == 0

    async def test_what_is_forgiven_once_is_not_charged_again(self) -> None:
        limiter = RateLimiter(TokenBucket(10, 1))
        limiter.penalize(30)
        limiter.reconfigure(TokenBucket(1, 1))
        limiter.reconfigure(TokenBucket(10, 1))
        # Two seconds of it, at one a second, are two tokens.
        assert limiter.peek().retry_after == pytest.approx(0.3)

    async def test_of_what_is_forgiven_nothing_comes_back(self) -> None:
        limiter = RateLimiter(TokenBucket(10, 1))
        async with limiter.permit(8) as permit:
            limiter.penalize(32)
            limiter.reconfigure(TokenBucket(10, 2))
            assert limiter.peek().retry_after == pytest.approx(3.2)
            permit.refund()
            assert limiter.peek().retry_after == pytest.approx(3.2)

    async def test_if_nothing_is_forgiven_all_comes_back_though_floats_are_rounded(self) -> None:
        for limit in range(1, 50):
            limiter = RateLimiter(TokenBucket(limit, 0.7, burst=10))
            async with limiter.permit(8) as permit:
                limiter.penalize(12)
                await anyio.sleep(0.1)
                limiter.reconfigure(TokenBucket(limit, 0.7, burst=20))
                before = limiter.peek().retry_after
                permit.refund()
                # But for what has flowed back in that time.
                sooner = 8 * 0.7 / limit - 0.1
                assert limiter.peek().retry_after <= max(before - sooner, 0.0) + 1e-9

    async def test_a_smaller_burst_is_no_debt(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 1, burst=100))
        await limiter.acquire(40)
        limiter.reconfigure(TokenBucket(1, 1, burst=10))
        assert left(limiter) == [10]


SECOND, MINUTE, HOUR = (TokenBucket(100, per) for per in (1, 60, 3600))


@pytest.mark.timing
class TestWhichSucceedsWhich:
    async def used(self, *policies: Policy) -> RateLimiter:
        """Return a limiter that has 5, 10 and so on left by its policies in turn."""
        limiter = RateLimiter(*policies)
        await limiter.acquire(0)
        for number, bucket in enumerate(limiter._gate.buckets, 1):
            now = anyio.current_time()
            bucket.take(now, int(bucket.capacity) - 5 * number)
            bucket.start(now, int(bucket.capacity) - 5 * number)

        assert left(limiter) == [5 * number for number in range(1, len(policies) + 1)]
        return limiter

    @pytest.mark.parametrize("swapped", [False, True])
    async def test_those_whose_times_are_alike(self, swapped: bool) -> None:
        limiter = await self.used(SECOND, HOUR)
        new = [TokenBucket(200, 1.5), TokenBucket(300, 3000)]
        limiter.reconfigure(*reversed(new) if swapped else new)
        assert left(limiter) == ([10, 5] if swapped else [5, 10])

    async def test_then_those_whose_bursts_are_alike(self) -> None:
        limiter = await self.used(TokenBucket(90, 60, burst=90), TokenBucket(80, 60, burst=8000))
        limiter.reconfigure(TokenBucket(70, 60, burst=7000), TokenBucket(70, 60, burst=70))
        assert left(limiter) == [10, 5]

    async def test_of_two_bursts_the_one_that_is_more_alike_counts(self) -> None:
        limiter = await self.used(TokenBucket(90, 60, burst=20), TokenBucket(80, 60, burst=8000))
        limiter.reconfigure(TokenBucket(70, 60, burst=7000))
        assert left(limiter) == [10]

    async def test_else_in_their_order(self) -> None:
        limiter = await self.used(TokenBucket(100, 60), TokenBucket(100.0, 60, burst=100), MINUTE)
        limiter.reconfigure(*[TokenBucket(100, 61)] * 3)
        assert left(limiter) == [5, 10, 15]

    async def test_one_that_is_kept_has_no_successor(self) -> None:
        limiter = await self.used(SECOND, HOUR)
        # Even though its time is more like that of the other one which goes.
        limiter.reconfigure(TokenBucket(200, 0.5), SECOND)
        assert left(limiter) == [10, 5]

    async def test_of_more_than_there_were_those_left_over_are_new(self) -> None:
        limiter = RateLimiter(SECOND)
        await limiter.acquire(100)
        await anyio.sleep(0.5)
        limiter.reconfigure(TokenBucket(100, 100), TokenBucket(200, 2), TokenBucket(400, 1e6))
        # What is added knows what has been charged, as if it had been in force.
        assert left(limiter) == [0, 50, 300]
        await limiter.acquire(0)

    async def test_of_fewer_than_there_were_each_has_one(self) -> None:
        limiter = await self.used(SECOND, MINUTE, HOUR)
        limiter.reconfigure(TokenBucket(100, 100))
        assert left(limiter) == [10]

    async def test_one_beside_one_that_is_kept_is_new(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 1, burst=100))
        await limiter.acquire(100)
        await anyio.sleep(10)
        limiter.reconfigure(TokenBucket(1, 1, burst=100), TokenBucket(5, 1, burst=100))
        assert left(limiter) == [10, 50]

    @pytest.mark.parametrize("other", [WindowTokenBucket(100, 100), FixedWindow(100, 100)])
    async def test_the_level_is_that_of_a_token_bucket_beside_others_too(
        self, other: Policy
    ) -> None:
        limiter = RateLimiter(other, TokenBucket(100, 100))
        await limiter.acquire(100)
        await anyio.sleep(10)
        limiter.reconfigure(TokenBucket(200, 2))
        assert left(limiter) == [10]

    @pytest.mark.parametrize("other", [WindowTokenBucket(100, 1), FixedWindow(100, 1)])
    async def test_between_other_kinds_the_past_is_counted_as_if_the_new_one_had_been_in_force(
        self, other: Policy
    ) -> None:
        limiter = RateLimiter(other)
        await limiter.acquire(100)
        await anyio.sleep(10)
        limiter.reconfigure(TokenBucket(5, 1, burst=100))
        assert left(limiter) == [50]
        limiter.reconfigure(WindowTokenBucket(150, 60))
        assert left(limiter) == [50]


@pytest.mark.timing
class TestHistory:
    async def test_an_exact_window_after_it_knows_all(self) -> None:
        limiter = RateLimiter(TokenBucket(10, 1, burst=50))
        await limiter.acquire(30)
        await anyio.sleep(10)
        limiter.reconfigure(TokenBucket(1000, 1, burst=100))
        await limiter.acquire(20)
        await anyio.sleep(1)
        limiter.reconfigure(TokenBucket(1, 1, burst=100))
        await limiter.acquire(7)
        limiter.reconfigure("60/min")
        assert left(limiter) == [3]
        for until, remaining in ((60, 33), (70, 53), (71, 60)):
            assert await left_at(limiter, until) == [remaining]

    async def test_calls_that_count_from_their_end_still_do(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(9, 10, measure="end"), TokenBucket(9, 1))
        async with limiter.permit(4):
            await anyio.sleep(20)

        async with limiter.permit(3):
            await anyio.sleep(1)
            limiter.reconfigure(TokenBucket(9, 2))
            await anyio.sleep(1)
            limiter.reconfigure("9/10s")
            # Four ended at 20, and three were held until 21.
            assert left(limiter) == [2]
            assert await left_at(limiter, 30) == [6]
            assert await left_at(limiter, 31) == [9]

    async def test_a_call_that_is_held_again_leaves_alone_what_has_ended_meanwhile(self) -> None:
        policy = WindowTokenBucket(9, 10, measure="end")
        limiter = RateLimiter(policy, TokenBucket(9, 1))
        async with limiter.permit(4):
            await anyio.sleep(5)
            async with limiter.permit(3):
                pass

            await anyio.sleep(1)
            limiter.reconfigure(TokenBucket(9, 2))
            limiter.reconfigure(policy)
            assert left(limiter) == [2]
            assert await left_at(limiter, 15) == [5]

    async def test_a_call_that_runs_is_held_once_by_a_window_that_comes_then(self) -> None:
        limiter = RateLimiter(TokenBucket(9, 9))
        async with limiter.permit(4):
            await anyio.sleep(1)
            limiter.reconfigure(TokenBucket(9, 2))
            limiter.reconfigure(WindowTokenBucket(9, 10, measure="end"))
            assert left(limiter) == [5]
            await anyio.sleep(100)
            assert left(limiter) == [5]

        await anyio.sleep(10)
        assert left(limiter) == [9]


@pytest.mark.timing
class TestCallsThatRun:
    @pytest.mark.parametrize(("per", "back"), [(1000, 35), (1, 35)])
    async def test_as_much_comes_back_as_was_still_out(self, per: float, back: int) -> None:
        limiter = RateLimiter(TokenBucket(100, 20))
        async with limiter.permit(60) as permit:
            await anyio.sleep(5)
            limiter.reconfigure(TokenBucket(100, per))
            # 25 have flowed in.
            assert left(limiter) == [65]
            permit.refund()
            assert left(limiter) == [65 + back]
            permit.refund()
            assert left(limiter) == [65 + back]

    async def test_what_flows_in_then_does_so_at_the_new_rate(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 100))
        async with limiter.permit(60) as permit:
            await anyio.sleep(10)
            limiter.reconfigure(TokenBucket(100, 10))
            await anyio.sleep(2)
            await limiter.acquire(70)
            # Of the 60, 10 and 20 have come back.
            permit.settle(20)
            assert left(limiter) == [30]

    async def test_what_has_come_back_stays_so(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 1))
        async with limiter.permit(60) as permit:
            await anyio.sleep(1)
            await limiter.acquire(90)
            limiter.reconfigure(TokenBucket(1, 1000, burst=100))
            permit.refund()
            assert left(limiter) == [10]

    async def test_each_gets_back_its_own(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 1000))
        async with limiter.permit(30) as first, limiter.permit(20) as second:
            limiter.reconfigure(TokenBucket(100, 2000))
            second.refund()
            assert left(limiter) == [70]
            first.settle(10)
            assert left(limiter) == [90]
            limiter.reconfigure(TokenBucket(200, 3000))
            first.refund()
            assert left(limiter) == [100]

    async def test_more_can_be_charged(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 1000))
        async with limiter.permit(30) as permit:
            limiter.reconfigure(TokenBucket(100, 2000))
            permit.settle(90)
            limiter.reconfigure(TokenBucket(100, 1000))
            assert left(limiter) == [10]
            permit.settle(5)
            assert left(limiter) == [95]


@pytest.mark.timing
class TestServersWord:
    async def test_no_more_passes_before_the_reset_at_a_higher_rate(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 100))
        await limiter.acquire(100)
        limiter.tighten(remaining=40, reset_after=50)
        await anyio.sleep(5)
        limiter.reconfigure(TokenBucket(1000, 100, burst=100))
        await anyio.sleep_until(49.5)
        assert pass_at_once(limiter) == 35
        await anyio.sleep_until(50)
        assert pass_at_once(limiter) == 5
        await anyio.sleep_until(55)
        assert pass_at_once(limiter) == 50

    async def test_nothing_passes_before_the_reset_if_nothing_remains(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 100))
        limiter.tighten(remaining=0, reset_after=50)
        limiter.reconfigure(TokenBucket(1000, 100))
        await anyio.sleep_until(49.9)
        assert not limiter.peek().allowed
        await limiter.acquire()
        assert anyio.current_time() == pytest.approx(50.1)

    async def test_a_server_that_leaves_more_than_can_be_used_holds_up_nothing(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 100))
        await limiter.acquire(100)
        limiter.tighten(remaining=10**6, reset_after=50)
        limiter.reconfigure(TokenBucket(1000, 100, burst=100))
        await anyio.sleep(10)
        assert left(limiter) == [100]

    async def test_a_reset_beyond_the_new_window_counts_as_that(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 3600))
        limiter.tighten(remaining=0, reset_after=3000)
        limiter.reconfigure(TokenBucket(100, 100))
        await limiter.acquire()
        # All of what might have flowed in before the reset, and one more.
        assert anyio.current_time() == pytest.approx(100 + 1)

    async def test_that_nothing_is_left_for_now_holds_though_more_is_said_later(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 100))
        limiter.tighten(remaining=0, reset_after=50)
        limiter.tighten(remaining=40, reset_after=60)
        limiter.reconfigure(TokenBucket(50, 100))
        await anyio.sleep_until(51)
        assert pass_at_once(limiter) == 0

    async def test_a_debt_beyond_the_reset_takes_no_longer_than_before(self) -> None:
        limiter = RateLimiter(TokenBucket(100, 100))
        limiter.penalize(100)
        limiter.tighten(remaining=40, reset_after=50)
        limiter.penalize(60)
        # Nothing flows in before 10; the debt is paid at 70.
        assert limiter.peek().retry_after == pytest.approx(71)
        limiter.reconfigure(TokenBucket(10, 100))
        assert limiter.peek().retry_after == pytest.approx(80)

    @examples(150)
    @given(st.data())
    def test_however_it_is_reconfigured(self, run: Run, data: st.DataObject) -> None:
        rates = st.builds(
            TokenBucket,
            st.sampled_from([1, 10, 100, 1000]),
            st.sampled_from([64, 128]),
            burst=st.sampled_from([None, 5, 100]),
        )
        remaining = data.draw(st.integers(0, 60), "remaining")
        reset_after = data.draw(st.sampled_from([8, 32, 64]), "reset_after")
        first, *others = data.draw(st.lists(rates, min_size=2, max_size=5), "rates")
        spent = data.draw(st.integers(0, 120), "spent")
        before = data.draw(st.booleans(), "before")

        async def main() -> None:
            limiter = RateLimiter(first)
            limiter.penalize(spent)
            await anyio.sleep(1)
            begun = anyio.current_time()
            limiter.tighten(remaining=remaining, reset_after=reset_after)
            passed = pass_at_once(limiter) if before else 0
            for policy in others:
                limiter.reconfigure(policy)
                passed += pass_at_once(limiter)
                await anyio.sleep(reset_after / 5)
                passed += pass_at_once(limiter)

            await anyio.sleep_until(math.nextafter(begun + reset_after, 0.0))
            passed += pass_at_once(limiter)
            assert passed <= remaining
            # It is not held up for ever.
            await anyio.sleep(1e5)
            assert pass_at_once(limiter) == math.floor(limiter._gate.buckets[0].capacity)

        run(main)


@pytest.mark.timing
class TestFixedWindow:
    """Of the same windows: what is used in the one that is under way is so by the new limit."""

    @pytest.fixture(autouse=True)
    def wall_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)

    @pytest.fixture(params=[{}, {"align": "utc"}], ids=["first", "utc"])
    def windows(self, request: pytest.FixtureRequest) -> Callable[[int], FixedWindow]:
        def fixed_window(limit: int) -> FixedWindow:
            return FixedWindow(limit, 10, **request.param)

        return fixed_window

    async def test_what_earlier_windows_have_let_pass_is_no_debt(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(100))
        for number in range(10):
            await limiter.acquire(60)
            await anyio.sleep_until(10 * (number + 1))

        await limiter.acquire(20)
        await anyio.sleep(5)
        limiter.reconfigure(windows(50))
        assert left(limiter) == [30]
        assert await left_at(limiter, 110) == [50]

    async def test_a_higher_limit(self, windows: Callable[[int], FixedWindow]) -> None:
        limiter = RateLimiter(windows(3))
        assert pass_at_once(limiter) == 3
        await anyio.sleep(4)
        limiter.reconfigure(windows(8))
        assert pass_at_once(limiter) == 5
        assert limiter.peek().retry_after == 6.0
        await anyio.sleep(6)
        assert pass_at_once(limiter) == 8

    async def test_a_debt_is_paid_by_the_new_limit_from_now_on(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(1))
        limiter.penalize(101)
        await anyio.sleep(105)
        limiter.reconfigure(windows(100))
        # One a window has been paid, at ten edges.
        assert left(limiter) == [9]
        await anyio.sleep(5)
        assert left(limiter) == [100]

    async def test_a_debt_takes_no_longer_than_before(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(100))
        limiter.penalize(350)
        await anyio.sleep(5)
        limiter.reconfigure(windows(10))
        assert limiter.peek().retry_after == 35.0

    async def test_what_is_too_much_by_the_new_limit_is_no_debt(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(100))
        async with limiter.permit(60) as permit:
            await anyio.sleep(5)
            limiter.reconfigure(windows(50))
            assert left(limiter) == [0]
            permit.refund()
            assert left(limiter) == [0]
            await anyio.sleep(5)
            assert left(limiter) == [50]

    async def test_a_call_that_runs_gets_back_what_is_still_out(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(9))
        async with limiter.permit(4) as early:
            await anyio.sleep(10)
            async with limiter.permit(5) as late:
                limiter.reconfigure(windows(7))
                early.refund()
                assert left(limiter) == [2]
                late.settle(3)
                assert left(limiter) == [4]

    async def test_a_servers_word_goes_on(self, windows: Callable[[int], FixedWindow]) -> None:
        limiter = RateLimiter(windows(5))
        await limiter.acquire()
        await anyio.sleep(4)
        limiter.tighten(remaining=1, reset_after=9)
        limiter.reconfigure(windows(7))
        await limiter.acquire(max_wait=0)
        assert left(limiter) == [2]
        assert await left_at(limiter, 12.9) == [2]
        assert await left_at(limiter, 13) == [7]

    async def test_who_is_at_its_checkpoint_is_charged_once(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(5))
        await limiter.acquire(0)

        async def reconfigure() -> None:
            limiter.reconfigure(windows(6))

        async with tasks() as task_group:
            for function in (limiter.acquire, reconfigure, limiter.acquire):
                task_group.start_soon(function)

        assert left(limiter) == [4]

    async def test_no_two_windows_of_utc_in_a_row_hold_more_however_the_wall_clock_is_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter = RateLimiter(FixedWindow(5, 10, align="utc"))
        assert pass_at_once(limiter) == 5
        for number in (1, 2):
            # Each edge comes after two seconds.
            wall = 1_000_000_000.0 + 10 * number - 2
            monkeypatch.setattr(time, "time", partial(float, wall))
            assert pass_at_once(limiter) == 0
            if number == 2:
                limiter.reconfigure(FixedWindow(4, 10, align="utc"))

            await anyio.sleep(2)
            assert pass_at_once(limiter) == (5 if number == 1 else 0)

        await anyio.sleep_until(10)
        # Of twice the limit of now, five are out since 2.
        assert pass_at_once(limiter) == 3

    async def test_it_remembers_what_a_longer_window_has_to_know(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(9))
        await limiter.acquire(3)
        await anyio.sleep(10)
        async with limiter.permit(4) as permit:
            limiter.reconfigure(windows(8))
            permit.settle(2)
            limiter.reconfigure("9/min")
            assert left(limiter) == [4]
            assert await left_at(limiter, 60) == [7]

    async def test_a_call_of_an_earlier_window_gets_nothing_back(
        self, windows: Callable[[int], FixedWindow]
    ) -> None:
        limiter = RateLimiter(windows(9))
        async with limiter.permit(4) as permit:
            await anyio.sleep(5)
            limiter.reconfigure(windows(8))
            await anyio.sleep(6)
            await limiter.acquire(2)
            permit.refund()
            assert left(limiter) == [6]

    async def test_those_in_line_keep_to_the_edges_that_they_were_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter = RateLimiter(FixedWindow(3, 10, align="utc"))
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for name in ("now", "next", "after"):
                await crowd.join(name, 3)

            monkeypatch.setattr(time, "time", partial(float, 1_000_000_003.5))
            limiter.reconfigure(FixedWindow(4, 10, align="utc"))

        assert crowd.granted == {"now": 0.0, "next": 10.0, "after": 20.0}

    async def test_a_wall_clock_set_back_after_it_resets_no_count(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter = RateLimiter(FixedWindow(3, 10, align="utc"))
        await limiter.acquire(0)
        await anyio.sleep(4)
        await limiter.acquire(3)
        await anyio.sleep(1)
        limiter.reconfigure(FixedWindow(2, 10, align="utc"))
        monkeypatch.setattr(time, "time", partial(float, 1_000_000_002.0))
        assert limiter.peek().retry_after == 8.0

    @pytest.mark.parametrize(
        ("old", "new", "until"),
        [
            (FixedWindow(100, 10), FixedWindow(50, 20), 24),
            (FixedWindow(100, 10), FixedWindow(50, 10, align="utc", offset=-2.0), 13),
            (FixedWindow(100, 10, align="utc"), FixedWindow(50, 10, align="utc", offset=2.0), 12),
        ],
        ids=repr,
    )
    async def test_for_other_windows_the_past_is_counted_anew(
        self, old: FixedWindow, new: FixedWindow, until: float
    ) -> None:
        limiter = RateLimiter(old)
        await limiter.acquire(0)
        await anyio.sleep(4)
        await limiter.acquire(40)
        await anyio.sleep(1)
        limiter.reconfigure(new)
        assert left(limiter) == [10]
        assert await left_at(limiter, until - 0.1) == [10]
        assert await left_at(limiter, until) == [50]

    async def test_other_units_have_nothing_to_do_with_it(self) -> None:
        limiter = RateLimiter(FixedWindow(100, 10))
        await limiter.acquire(40)
        limiter.reconfigure(FixedWindow(50, 10, unit="tokens"))
        assert left(limiter) == [50]
