"""Corrections: what a call was charged becomes what it has really cost."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    Cost,
    FixedWindow,
    LimitExceeded,
    RateLimiter,
    ThrottleException,
    TokenBucket,
    WindowTokenBucket,
    current_permit,
)
from anythrottle._limiters.permit import TurnPermit
from anythrottle.abc import Permit, Policy
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.limiters.tools import Crowd, left, left_at, permit_of, tasks
from tests.properties import examples

#: The grid on which the plain reference reckons; in floats, its instants and their sums are exact.
TICK = 0.5


@pytest.mark.timing
class TestUp:
    async def test_the_difference_is_charged_at_that_instant(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(2) as permit:
            await anyio.sleep(3)
            permit.settle(4)
            assert left(limiter) == [1]

        assert await left_at(limiter, 10) == [3]
        assert await left_at(limiter, math.nextafter(13, 0)) == [3]
        assert await left_at(limiter, 13) == [5]

    async def test_later_calls_wait_until_a_debt_is_paid_back(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(5) as permit:
            await anyio.sleep(1)
            permit.settle(8)

        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("fits in what is left of the first return", 2)
            await crowd.join("needs the second one", 1)

        assert list(crowd.granted.values()) == [10.0, 11.0]

    async def test_those_in_line_wait_for_longer(self) -> None:
        limiter = RateLimiter("5/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            async with limiter.permit(3) as permit:
                await crowd.join("sleeps until 10", 4)
                await anyio.sleep(4)
                permit.settle(5)

        assert list(crowd.granted.values()) == [14.0]

    async def test_a_debt_of_many_limits_is_out_for_one_window(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit() as permit:
            await anyio.sleep(1)
            permit.settle(10**9)

        await limiter.acquire(5)
        assert anyio.current_time() == 11.0

    async def test_after_the_call_too(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(2) as permit:
            pass

        await anyio.sleep(4)
        permit.settle(5)
        assert left(limiter) == [0]
        assert await left_at(limiter, 10) == [2]

    async def test_long_after_the_window(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(2) as permit:
            pass

        await anyio.sleep_until(1000)
        permit.settle(5)
        assert left(limiter) == [2]
        await limiter.acquire(3)
        assert anyio.current_time() == 1010.0

    async def test_what_is_added_while_a_call_runs_is_held_as_the_rest(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(5, 10, measure="end"))
        async with limiter.permit(2) as permit:
            await anyio.sleep_until(1)
            permit.settle(4)
            assert await left_at(limiter, 50) == [1]

        await anyio.sleep_until(55)
        permit.settle(5)
        assert left(limiter) == [0]
        assert await left_at(limiter, 60) == [4]
        assert await left_at(limiter, 65) == [5]

    async def test_a_token_bucket_flows_from_below_zero(self) -> None:
        limiter = RateLimiter(TokenBucket(10, 10, burst=5))
        async with limiter.permit(3) as permit:
            permit.settle(8)

        await limiter.acquire(1)
        assert anyio.current_time() == 4.0

    async def test_a_fixed_window_carries_it_over(self) -> None:
        limiter = RateLimiter(FixedWindow(5, 10))
        async with limiter.permit(3) as permit:
            await anyio.sleep(1)
            permit.settle(7)

        await limiter.acquire(1)
        assert anyio.current_time() == 10.0
        await limiter.acquire(4)
        assert anyio.current_time() == 20.0

    async def test_nothing_is_too_much(self) -> None:
        for policy in (TokenBucket(5, 10), FixedWindow(5, 10), WindowTokenBucket(5, 10)):
            limiter = RateLimiter(policy)
            async with limiter.permit(3) as permit:
                permit.settle(10**400)
                assert left(limiter) == [0]
                # As floats go, what a token bucket had beside so much is forgotten.
                permit.settle(0)

            await anyio.sleep(20)
            assert left(limiter) == [5]


@pytest.mark.timing
class TestDown:
    async def test_what_is_still_out_comes_back_at_once_and_is_for_those_in_line(self) -> None:
        limiter = RateLimiter("5/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            async with limiter.permit(5) as permit:
                await crowd.join("waits", 3)
                await crowd.join("waits on", 1)
                await anyio.sleep(2)
                permit.settle(2)
                await wait_idle()
                assert list(crowd.granted.values()) == [2.0]

        assert list(crowd.granted.values()) == [2.0, 10.0]

    async def test_what_had_come_back_stays_so(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(3) as permit:
            await anyio.sleep_until(10)
            async with limiter.permit(5):
                permit.settle(0)
                assert left(limiter) == [0]

    async def test_long_after_the_window_it_changes_nothing(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(3) as permit:
            pass

        await anyio.sleep_until(1000)
        await limiter.acquire(2)
        permit.settle(1)
        assert left(limiter) == [3]

    async def test_what_was_added_last_comes_back_first(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(2) as permit:
            await anyio.sleep_until(5)
            permit.settle(4)
            permit.settle(3)
            assert await left_at(limiter, 10) == [4]
            permit.settle(1)
            assert left(limiter) == [5]

    @pytest.mark.parametrize("measure", ["start", "end"])
    async def test_after_the_call_too(self, measure: Any) -> None:
        limiter = RateLimiter(WindowTokenBucket(5, 10, measure=measure))
        async with limiter.permit(5) as permit:
            pass

        await anyio.sleep_until(9)
        permit.settle(2)
        assert left(limiter) == [3]
        assert await left_at(limiter, 10) == [5]

    async def test_what_is_held_comes_back_too(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(5, 10, measure="end"))
        async with limiter.permit(5) as permit:
            await anyio.sleep_until(50)
            permit.settle(2)
            assert left(limiter) == [3]

        assert await left_at(limiter, 59) == [3]
        assert await left_at(limiter, 60) == [5]

    async def test_a_token_bucket_gets_back_what_has_not_flowed_in(self) -> None:
        limiter = RateLimiter(TokenBucket(10, 10, burst=5))
        async with limiter.permit(4) as permit:
            await anyio.sleep(1)
            assert left(limiter) == [2]
            permit.settle(3)
            assert left(limiter) == [3]
            permit.settle(0)
            assert left(limiter) == [5]

    async def test_a_fixed_window_gets_back_what_was_charged_in_it(self) -> None:
        limiter = RateLimiter(FixedWindow(5, 10))
        async with limiter.permit(4) as permit:
            permit.settle(3)
            assert left(limiter) == [2]
            await anyio.sleep_until(10)
            await limiter.acquire(1)
            permit.settle(0)
            assert left(limiter) == [4]

    async def test_the_slot_stays(self) -> None:
        limiter = RateLimiter("5/10s", concurrency=1)
        async with limiter.permit(5) as permit:
            permit.settle(0)
            assert limiter.statistics().borrowed_tokens == 1
            with pytest.raises(LimitExceeded) as raised:
                await limiter.permit(max_wait=0).__aenter__()

            assert raised.value.decision.reason == "concurrency"


@pytest.mark.timing
class TestAgainAndAgain:
    async def test_each_time_the_charge_becomes_what_is_said(self) -> None:
        limiter = RateLimiter("9/10s")
        async with limiter.permit(3) as permit:
            for cost in (5, 5, 1, 0, 0, 8, 2):
                permit.settle(cost)
                assert left(limiter) == [9 - cost]

    async def test_to_nothing_and_up_again(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(3) as permit:
            permit.settle(0)
            await anyio.sleep_until(4)
            permit.settle(3)

        assert await left_at(limiter, 10) == [2]
        assert await left_at(limiter, 14) == [5]

    async def test_after_a_refund(self) -> None:
        limiter = RateLimiter("5/10s", "9 tokens/10s")
        async with limiter.permit({"tokens": 4}) as permit:
            permit.refund()
            assert left(limiter) == [5, 9]
            permit.settle({"tokens": 2})
            assert left(limiter) == [5, 7]
            permit.settle(3)
            assert left(limiter) == [2, 7]
            permit.refund()
            assert left(limiter) == [5, 9]

    async def test_a_refund_gives_back_what_was_added(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(3) as permit:
            permit.settle(50)
            permit.refund()
            assert left(limiter) == [5]


@pytest.mark.timing
class TestUnits:
    async def test_units_that_are_not_named_stay_as_they_are(self) -> None:
        limiter = RateLimiter("5/10s", "100 tokens/10s", "9 pages/10s")
        async with limiter.permit({"tokens": 30, "pages": 2}) as permit:
            assert left(limiter) == [4, 70, 7]
            permit.settle({"tokens": 50})
            assert left(limiter) == [4, 50, 7]
            permit.settle({"pages": 0, "calls": 3})
            assert left(limiter) == [2, 50, 9]
            permit.settle({})
            assert left(limiter) == [2, 50, 9]

    async def test_an_int_is_calls(self) -> None:
        limiter = RateLimiter("5/10s", "100 tokens/10s")
        async with limiter.permit({"calls": 4, "tokens": 30}) as permit:
            permit.settle(2)
            assert left(limiter) == [3, 70]

    async def test_each_policy_of_a_unit_is_charged(self) -> None:
        limiter = RateLimiter("5/10s", "8/min", TokenBucket(20, 10), FixedWindow(9, 10))
        async with limiter.permit(2) as permit:
            permit.settle(4)
            assert left(limiter) == [1, 4, 16, 5]
            permit.settle(1)
            assert left(limiter) == [4, 7, 19, 8]

    @pytest.mark.parametrize(
        ("cost", "words"),
        [
            ({"tokens": 3}, ["'tokens' is not counted", "'calls', 'pages'"]),
            ({"pages": 1, "Calls": 1}, ["'Calls' is not counted"]),
            ({"pages": -1}, ["cost['pages'] must be at least 0", "-1"]),
            (-1, ["cost must be at least 0", "-1"]),
        ],
    )
    async def test_wrong_costs_are_named_and_change_nothing(
        self, cost: Cost, words: list[str]
    ) -> None:
        limiter = RateLimiter("5/10s", "9 pages/10s")
        async with limiter.permit({"pages": 3}) as permit:
            with pytest.raises(ValueError, match=r"must be|not counted") as raised:
                permit.settle(cost)

            assert all(word in str(raised.value) for word in words)
            assert left(limiter) == [4, 6]
            permit.refund()
            assert left(limiter) == [5, 9]

    @pytest.mark.parametrize("cost", [1.0, True, "3", None, {"pages": 1.5}, {"pages": False}])
    async def test_wrong_types_are_named_and_change_nothing(self, cost: Any) -> None:
        limiter = RateLimiter("5/10s", "9 pages/10s")
        async with limiter.permit({"pages": 3}) as permit:
            with pytest.raises(TypeError, match=r"^cost.* must be an int.*, not "):
                permit.settle(cost)

            assert left(limiter) == [4, 6]

    async def test_an_int_where_nothing_counts_calls(self) -> None:
        limiter = RateLimiter("9 pages/10s")
        async with limiter.permit({"pages": 3}) as permit:
            with pytest.raises(ValueError, match=r"^unit 'calls' is not counted .*'pages'$"):
                permit.settle(2)

            permit.settle({"pages": 1})
            assert left(limiter) == [8]

    async def test_where_nothing_is_counted_anything_goes(self) -> None:
        limiter = RateLimiter(concurrency=1)
        async with limiter.permit() as permit:
            permit.settle({"tokens": 5})
            permit.settle(7)
            permit.refund()


class TestWhen:
    @pytest.mark.timing
    async def test_before_the_call_has_begun(self) -> None:
        limiter = RateLimiter("1/10s")
        permit = permit_of(limiter)
        with pytest.raises(RuntimeError, match="enter the permit first"):
            permit.settle(1)

        await limiter.acquire()
        async with tasks() as task_group:
            task_group.start_soon(permit.__aenter__)
            await wait_idle()
            with pytest.raises(RuntimeError, match="enter the permit first"):
                permit.settle(0)

        assert permit.waited == 10.0
        permit.settle(0)
        assert left(limiter) == [1]

    @pytest.mark.timing
    async def test_a_call_that_was_cancelled_before_has_nothing_to_correct(self) -> None:
        limiter = RateLimiter("1/10s")
        await limiter.acquire()
        permit = permit_of(limiter)
        with anyio.move_on_after(1):
            await permit.__aenter__()

        with pytest.raises(RuntimeError, match="enter the permit first"):
            permit.settle(5)

        assert limiter.peek().retry_after == 9.0

    def test_of_a_run_that_is_over_changes_nothing(self, run: Run) -> None:
        limiter = RateLimiter("5/h")

        async def first() -> Permit:
            async with limiter.permit(3) as permit:
                return permit

        async def second(permit: Permit) -> None:
            await limiter.acquire()
            for cost in (0, 5, 500):
                permit.settle(cost)
                assert left(limiter) == [1]

        run(second, run(first))

    @pytest.mark.timing
    async def test_by_the_job_itself(self) -> None:
        limiter = RateLimiter("5/10s", "100 tokens/10s")

        async def job() -> list[int]:
            current_permit().settle({"tokens": 7})
            return left(limiter)

        assert await limiter.run(job, cost={"tokens": 60}) == [4, 93]

    @pytest.mark.timing
    async def test_each_attempt_of_a_job_has_its_own(self) -> None:
        limiter = RateLimiter("5/100s")
        permits: list[Permit] = []

        async def job() -> list[int]:
            permits.append(current_permit())
            if len(permits) == 1:
                permits[0].settle(0)
                raise ThrottleException(retry_after=1)

            permits[0].settle(2)
            permits[1].settle(1)
            return left(limiter)

        assert await limiter.run(job, cost=3) == [2]


class Call:
    """What the plain reference knows of a call."""

    def __init__(self, number: int, cost: int) -> None:
        self.number = number
        self.cost = cost
        self.granted_at: float | None = None
        self.ended = False
        #: Since when it counts, and how much; ``None`` for what is held.
        self.charges: list[tuple[float | None, int]] = []

    def charge(self, instant: float | None, amount: int) -> None:
        self.charges.append((instant, amount))


class PlainLimiter:
    """The reference: a list of calls, looked through from the first one on at each tick."""

    def __init__(self, limit: int, window: float, measure: str) -> None:
        self.limit = limit
        self.window = window
        self.holds = measure == "end"
        self.calls: list[Call] = []

    def free(self, now: float) -> int:
        return self.limit - sum(
            amount
            for call in self.calls
            for instant, amount in call.charges
            if instant is None or instant + self.window > now
        )

    def serve(self, now: float) -> None:
        for call in self.calls:
            if call.granted_at is None:
                if call.cost > self.free(now):
                    return

                call.granted_at = now
                call.charge(None if self.holds else now, call.cost)

    def settle(self, call: Call, cost: int, now: float) -> None:
        change = cost - sum(amount for _, amount in call.charges)
        if change >= 0:
            call.charge(None if self.holds and not call.ended else now, change)
            return

        # The latest charges first; it is all the same whether they are out any more.
        while change:
            instant, amount = call.charges.pop()
            kept = max(amount + change, 0)
            change += amount - kept
            if kept:
                call.charge(instant, kept)

    def end(self, call: Call, now: float) -> None:
        call.ended = True
        call.charges = [(now if at is None else at, amount) for at, amount in call.charges]


class Course:
    """A limiter and the reference through the same events, on the grid."""

    def __init__(self, policy: WindowTokenBucket) -> None:
        self.limiter = RateLimiter(policy)
        self.plain = PlainLimiter(policy.limit, policy.window, policy.measure)
        self.permits: dict[int, Permit] = {}
        self.granted: dict[int, float] = {}
        self.ends: list[anyio.Event] = []

    async def perform(self, script: list[tuple[str, int, int]]) -> None:
        async with tasks() as task_group:
            for verb, number, cost in script:
                now = anyio.current_time()
                begun = [call for call in self.plain.calls if call.granted_at is not None]
                if verb == "wait":
                    for _ in range(number):
                        await anyio.sleep(TICK)
                        await self.compare()
                elif verb == "come":
                    call = Call(len(self.ends), 1 + cost % self.plain.limit)
                    self.plain.calls.append(call)
                    self.ends.append(anyio.Event())
                    task_group.start_soon(self._call, call)
                elif begun and verb == "settle":
                    call = begun[number % len(begun)]
                    self.plain.settle(call, cost, now)
                    self.permits[call.number].settle(cost)
                elif begun and verb == "refund":
                    call = begun[number % len(begun)]
                    self.plain.settle(call, 0, now)
                    self.permits[call.number].refund()
                elif begun and verb == "end" and not begun[number % len(begun)].ended:
                    call = begun[number % len(begun)]
                    self.plain.end(call, now)
                    self.ends[call.number].set()

                await self.compare()

            for event in self.ends:
                event.set()

    async def compare(self) -> None:
        await wait_idle()
        now = anyio.current_time()
        self.plain.serve(now)
        expected = {c.number: c.granted_at for c in self.plain.calls if c.granted_at is not None}
        assert self.granted == expected
        assert left(self.limiter) == [max(self.plain.free(now), 0)]

    async def _call(self, call: Call) -> None:
        async with self.limiter.permit(call.cost) as self.permits[call.number]:
            self.granted[call.number] = anyio.current_time()
            await self.ends[call.number].wait()


VERBS = ["come", "come", "wait", "wait", "settle", "settle", "refund", "end"]


class TestAgainstThePlainList:
    @examples(150)
    @given(st.data(), st.sampled_from(["start", "end"]))
    def test_any_course_of_events(self, run: Run, data: st.DataObject, measure: Any) -> None:
        limit = data.draw(st.integers(1, 5), "limit")
        window = TICK * data.draw(st.integers(1, 8), "window")
        steps = st.tuples(st.sampled_from(VERBS), st.integers(0, 6), st.integers(0, 9))
        script = data.draw(st.lists(steps, min_size=4, max_size=30), "script")
        policy = WindowTokenBucket(limit, window, measure=measure)
        run(Course(policy).perform, script)


policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(
        WindowTokenBucket,
        st.integers(1, 9),
        st.floats(0.1, 10.0),
        measure=st.sampled_from(["start", "end"]),
    ),
    st.builds(TokenBucket, st.integers(1, 9), st.floats(0.1, 10.0)),
    st.builds(FixedWindow, st.integers(1, 9), st.floats(0.1, 10.0)),
    st.builds(FixedWindow, st.integers(1, 9), st.floats(0.1, 10.0), align=st.just("utc")),
)


@pytest.mark.timing
class TestManyCorrections:
    async def test_charges_that_have_come_back_are_forgotten(self) -> None:
        limiter = RateLimiter("1_000_000 tokens/10s")
        async with limiter.permit({"tokens": 0}) as permit:
            for number in range(1, 1001):
                permit.settle({"tokens": number})
                await anyio.sleep(1)

            assert isinstance(permit, TurnPermit)
            assert len(permit.charges) <= 100
            assert limiter.peek({"tokens": 0}).remaining == 1_000_000 - 9
            permit.refund()
            assert limiter.peek({"tokens": 0}).remaining == 1_000_000

    async def test_of_several_policies_too(self) -> None:
        limiter = RateLimiter("9/s", "1_000_000 tokens/10s", "9_000_000 tokens/s")
        async with limiter.permit({"calls": 0, "tokens": 1}) as permit:
            for number in range(2, 1001):
                permit.settle({"tokens": number})
                await anyio.sleep(1)

            assert isinstance(permit, TurnPermit)
            assert len(permit.charges) <= 100
            permit.refund()
            assert left(limiter) == [9, 1_000_000, 9_000_000]

    async def test_a_few_are_given_back_each_for_itself(self) -> None:
        limiter = RateLimiter("9/s", "9 images/s", "9 files/s", "100 tokens/s")
        none = {"calls": 0, "images": 0, "files": 0}
        async with limiter.permit({**none, "tokens": 1}) as permit:
            for number in (2, 3):
                await anyio.sleep(4)
                permit.settle({"tokens": number})

            limiter.reconfigure("100 tokens/10s")
            await anyio.sleep(3)
            assert left(limiter) == [98]
            permit.settle({"tokens": 0})
            assert left(limiter) == [100]


class TestConservation:
    """Nothing is lost, and nothing comes from nowhere."""

    @examples(150)
    @given(
        st.lists(policies, min_size=1, max_size=3),
        st.lists(
            st.tuples(
                st.sampled_from(["come", "come", "wait", "settle", "refund", "end", "penalize"]),
                st.floats(0.0, 12.0),
                st.integers(0, 20),
            ),
            max_size=25,
        ),
    )
    def test_in_the_end_all_of_it_is_back(
        self, run: Run, policies: list[Policy], script: list[tuple[str, float, int]]
    ) -> None:
        async def main() -> None:
            limiter = RateLimiter(*policies)
            most = [int(policy.limit) for policy in policies]
            entered: list[Any] = []
            for verb, seconds, number in script:
                if verb == "wait":
                    await anyio.sleep(seconds)
                elif verb == "penalize":
                    limiter.penalize(number)
                elif verb == "come":
                    permit = permit_of(limiter, number % (min(most) + 1))
                    with suppress(LimitExceeded):
                        permit.max_wait = 0
                        await permit.__aenter__()
                        entered.append(permit)
                elif entered and verb == "settle":
                    entered[number % len(entered)].settle(number)
                elif entered and verb == "refund":
                    entered[number % len(entered)].refund()
                elif entered and verb == "end":
                    await entered[number % len(entered)].__aexit__(None, None, None)

                assert all(0 <= now <= all_ for now, all_ in zip(left(limiter), most, strict=True))

            for permit in entered:
                await permit.__aexit__(None, None, None)

            await anyio.sleep(1e6)
            assert left(limiter) == most
            decision = limiter.peek(min(most))
            assert decision.allowed
            assert decision.reset_after == 0.0
            assert limiter.statistics().borrowed_tokens == 0

        run(main)


@pytest.mark.timing
async def test_the_caller_may_use_its_mapping_again() -> None:
    limiter = RateLimiter("1000 tokens/min")
    cost = {"tokens": 100}
    async with limiter.permit(cost) as permit:
        cost["tokens"] = 10
        permit.settle(cost)
        assert limiter.peek({"tokens": 0}).remaining == 990
        cost["tokens"] = 500
        permit.refund()
        assert limiter.peek({"tokens": 0}).remaining == 1000
