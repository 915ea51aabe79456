"""Feedback: what one tells a limiter from outside of its calls."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle import (
    Cost,
    FixedWindow,
    LimitExceeded,
    RateLimiter,
    TokenBucket,
    WindowTokenBucket,
)
from anythrottle.abc import Policy
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import Crowd, left, left_at, permit_of, tasks
from tests.properties import examples
from tests.stopwatch import RealTime


@pytest.fixture(autouse=True)
def wall_clock(monkeypatch: pytest.MonkeyPatch, real_time: RealTime) -> None:
    """Let UTC be the same whenever a limiter looks for the first time."""
    monkeypatch.setattr(time, "time", lambda: 1_000_000_003.0)


async def drain(limiter: RateLimiter, number: int) -> list[float]:
    """Return the instants at which one call after the other passes."""
    instants = []
    for _ in range(number):
        await limiter.acquire()
        instants.append(anyio.current_time())

    return instants


@pytest.mark.timing
class TestPenalize:
    async def test_is_charged_at_that_instant(self) -> None:
        limiter = RateLimiter("5/10s")
        await limiter.acquire(1)
        await anyio.sleep(4)
        limiter.penalize(2)
        assert left(limiter) == [2]
        assert await left_at(limiter, 10) == [3]
        assert await left_at(limiter, 14) == [5]

    async def test_may_exceed_the_limit(self) -> None:
        limiter = RateLimiter("5/10s", TokenBucket(10, 10, burst=5), FixedWindow(5, 10))
        limiter.penalize(12)
        assert left(limiter) == [0, 0, 0]
        # The exact window is free from 10 on, but the fixed one takes over 7, and then 2.
        assert await drain(limiter, 4) == [20.0, 20.0, 20.0, 30.0]

    async def test_delays_those_in_line(self) -> None:
        limiter = RateLimiter("5/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first", 3)
            await crowd.join("due at 10", 3)
            await crowd.join("due then too", 2)
            await anyio.sleep(4)
            limiter.penalize(3)
            await wait_idle()
            assert limiter.statistics().tasks_waiting == 2

        assert list(crowd.granted.values()) == [0.0, 14.0, 14.0]

    async def test_takes_nothing_from_who_is_due_in_that_instant(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("first", "second")
            # Its timer has yet to go off.
            stall(1)
            limiter.penalize(1)

        assert crowd.granted == {"first": 0.0, "second": 1.0}

    async def test_units_that_are_not_named_are_not_charged(self) -> None:
        limiter = RateLimiter("5/10s", "100 tokens/10s", "9 pages/10s", "50 tokens/min")
        limiter.penalize({"tokens": 30})
        assert left(limiter) == [5, 70, 9, 20]
        limiter.penalize({"pages": 9, "calls": 2})
        assert left(limiter) == [3, 70, 0, 20]
        limiter.penalize(1)
        assert left(limiter) == [2, 70, 0, 20]
        limiter.penalize({})
        limiter.penalize(0)
        assert left(limiter) == [2, 70, 0, 20]

    async def test_belongs_to_no_call_that_could_hold_it(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(5, 10, measure="end"), concurrency=2)
        async with limiter:
            limiter.penalize(3)
            assert left(limiter) == [1]
            assert limiter.statistics().borrowed_tokens == 1
            assert await left_at(limiter, 10) == [4]

    async def test_a_window_of_utc_is_told_first_what_utc_is(self) -> None:
        limiter = RateLimiter(FixedWindow(5, 10, align="utc"))
        limiter.penalize(5)
        assert limiter._gate.buckets[0].reset_after(0.0) == pytest.approx(7.0)

    async def test_a_limiter_that_counts_nothing_takes_anything(self) -> None:
        limiter = RateLimiter()
        limiter.penalize(10**9)
        limiter.penalize({"tokens": 5})
        limiter.acquire_nowait()

    @pytest.mark.parametrize(
        ("cost", "error"),
        [
            (-1, ValueError),
            ({"tokens": 1}, ValueError),
            ({"calls": 1, "tokens": 1}, ValueError),
            ({"calls": -1}, ValueError),
            (1.0, TypeError),
            (True, TypeError),
            (None, TypeError),
            ({"calls": "1"}, TypeError),
        ],
    )
    async def test_what_is_wrong_is_refused_and_changes_nothing(
        self, cost: Any, error: type[Exception]
    ) -> None:
        limiter = RateLimiter("5/10s")
        with pytest.raises(error, match=r"^(cost|unit)"):
            limiter.penalize(cost)

        assert left(limiter) == [5]

    def test_outside_of_an_event_loop(self, run: Run) -> None:
        limiter = RateLimiter("5/h")
        limiter.penalize(3)
        assert limiter.peek().remaining == 2

        async def main() -> None:
            assert left(limiter) == [2]

        run(main)

    @examples(60)
    @given(st.data())
    def test_it_is_as_if_somebody_had_passed(self, run: Run, data: st.DataObject) -> None:
        """Judged by the plain list: a penalty is a call that needs not wait."""
        limit = data.draw(st.integers(1, 6), "limit")
        penalties = data.draw(
            st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=6), "penalties"
        )
        arrivals = data.draw(
            st.lists(st.tuples(st.integers(0, 20), st.integers(1, limit)), max_size=8), "arrivals"
        )
        steps = [(at / 2, cost, "penalty") for at, cost in penalties]
        steps += [(at / 2 + 0.25, cost, "call") for at, cost in arrivals]
        steps.sort()

        async def main() -> dict[object, float]:
            limiter = RateLimiter(WindowTokenBucket(limit, 2.0))
            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                for number, (at, cost, kind) in enumerate(steps):
                    await anyio.sleep_until(at)
                    await wait_idle()
                    if kind == "penalty":
                        limiter.penalize(cost)
                    else:
                        await crowd.join(number, cost)

            return crowd.granted

        expected: dict[object, float] = {}
        charged: list[tuple[float, int]] = []
        line: list[tuple[int, int]] = []
        for tick in range(4 * 200):
            now = tick / 4
            due = [step for step in enumerate(steps) if step[1][0] == now]
            for number, (_, cost, kind) in [(-1, (now, 0, "")), *due]:
                if kind == "penalty":
                    charged.append((now, cost))
                elif kind == "call":
                    line.append((number, cost))

                while line and line[0][1] + sum(c for at, c in charged if now < at + 2.0) <= limit:
                    expected[line[0][0]] = now
                    charged.append((now, line.pop(0)[1]))

        assert run(main) == expected


#: Wholes and halves, exact in floats.
halves = st.integers(0, 24).map(lambda number: number / 2)

policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(WindowTokenBucket, st.integers(1, 8), st.sampled_from([4.0, 10.0])),
    st.builds(
        TokenBucket,
        st.integers(1, 8),
        st.sampled_from([4.0, 8.0]),
        burst=st.integers(1, 8),
    ),
    st.builds(FixedWindow, st.integers(1, 8), st.sampled_from([4.0, 10.0])),
    st.builds(FixedWindow, st.integers(1, 8), st.sampled_from([4.0, 10.0]), align=st.just("utc")),
)


class TestTightenAnyPolicy:
    """Whatever comes back, no more than the server lets pass."""

    @examples(200)
    @example(FixedWindow(1, 10, align="utc"), [], [(2.5, 0, 5.5), (5.0, 1, 10.0)])
    @given(
        policies,
        st.lists(st.tuples(halves, st.integers(1, 8)), max_size=5),
        st.lists(st.tuples(halves, st.integers(0, 8), halves), min_size=1, max_size=3),
    )
    def test_until_the_reset_no_more_than_remain_and_nothing_sooner(
        self,
        run: Run,
        policy: Policy,
        past: list[tuple[float, int]],
        words: list[tuple[float, int, float]],
    ) -> None:
        async def course(tightened: bool) -> list[float]:
            limiter = RateLimiter(policy)
            await limiter.acquire(0)
            for gap, cost in past:
                await anyio.sleep(gap)
                limiter.penalize(cost)

            instants: list[float] = []
            #: What the server said: how much may pass of those to come, and until when.
            said: list[tuple[int, int, float]] = []

            async def call() -> None:
                await limiter.acquire()
                instants.append(anyio.current_time())

            async with tasks() as task_group:
                for gap, remaining, reset_after in words:
                    await anyio.sleep(gap)
                    await wait_idle()
                    if tightened:
                        limiter.tighten(remaining=remaining, reset_after=reset_after)
                        reset = anyio.current_time() + min(reset_after, policy.window)
                        said.append((len(instants), remaining, reset))

                    for _ in range(6):
                        task_group.start_soon(call)

                    await wait_idle()

            for before, remaining, reset in said:
                assert sum(instant < reset for instant in instants[before:]) <= remaining

            return instants

        sooner, later = run(course, False), run(course, True)
        assert len(sooner) == len(later)
        # A fixed window that a word opened, ends before one that a later call would have opened.
        if not isinstance(policy, FixedWindow) or len(words) == 1:
            assert all(a <= b + 1e-9 for a, b in zip(sooner, later, strict=True))

    @examples(60)
    @given(policies, st.lists(st.tuples(halves, st.integers(1, 8)), max_size=5), st.integers(0, 8))
    def test_without_a_reset_it_is_as_if_the_rest_had_been_charged(
        self, run: Run, policy: Policy, past: list[tuple[float, int]], remaining: int
    ) -> None:
        async def course(tighten: bool) -> list[float]:
            limiter = RateLimiter(policy)
            await limiter.acquire(0)
            for gap, cost in past:
                await anyio.sleep(gap)
                limiter.penalize(cost)

            if tighten:
                limiter.tighten(remaining=remaining)
            else:
                limiter.penalize(max(left(limiter)[0] - remaining, 0))

            return await drain(limiter, 12)

        expected = run(course, False)
        if isinstance(policy, TokenBucket):
            # What has flowed in of the next token is cut off too.
            assert all(a >= b for a, b in zip(run(course, True), expected, strict=True))
        else:
            assert run(course, True) == expected

    @examples(100)
    @given(
        st.integers(1, 6),
        st.lists(st.tuples(halves, st.integers(1, 6)), max_size=4),
        st.integers(0, 6),
        halves,
    )
    def test_an_exact_window_gives_the_rest_at_the_reset_and_not_later(
        self,
        run: Run,
        limit: int,
        past: list[tuple[float, int]],
        remaining: int,
        reset_after: float,
    ) -> None:
        window = 10.0

        async def course() -> tuple[list[tuple[float, int]], float, list[float]]:
            limiter = RateLimiter(WindowTokenBucket(limit, window))
            charged = []
            for gap, cost in past:
                await anyio.sleep(gap)
                limiter.penalize(cost)
                charged.append((anyio.current_time(), cost))

            limiter.tighten(remaining=remaining, reset_after=reset_after)
            now = anyio.current_time()
            return charged, now, await drain(limiter, 2 * limit + 3)

        charged, now, instants = run(course)
        reset = now + min(reset_after, window)
        passed: list[float] = []
        instant = now
        while len(passed) < len(instants):
            out = sum(cost for at, cost in charged if instant < at + window)
            out += sum(instant < at + window for at in passed)
            if out < limit and (instant >= reset or len(passed) < remaining):
                passed.append(instant)
            else:
                instant += 0.5

        assert instants == passed


@pytest.mark.timing
class TestTighten:
    async def test_never_loosens(self) -> None:
        limiter = RateLimiter("5/10s")
        await limiter.acquire(4)
        limiter.tighten(remaining=3, reset_after=1)
        limiter.tighten(remaining=1, reset_after=0)
        limiter.tighten(remaining=10**9)
        assert left(limiter) == [1]
        assert await drain(limiter, 2) == [0.0, 10.0]

    async def test_of_two_words_each_holds(self) -> None:
        limiter = RateLimiter("5/10s")
        limiter.tighten(remaining=1, reset_after=6)
        limiter.tighten(remaining=3, reset_after=8)
        assert await drain(limiter, 4) == [0.0, 6.0, 6.0, 8.0]

    async def test_each_policy_within_its_own_window(self) -> None:
        limiter = RateLimiter("5/10s", "100/100s")
        limiter.tighten(remaining=2, reset_after=50)
        assert left(limiter) == [2, 2]
        await limiter.acquire(2)
        assert await left_at(limiter, 10) == [5, 0]
        await limiter.acquire()
        assert anyio.current_time() == 50.0

    @pytest.mark.parametrize("reset_after", [10**400, math.inf, 10.5])
    async def test_a_reset_beyond_the_window_counts_as_the_window(self, reset_after: float) -> None:
        limiter = RateLimiter("5/10s")
        limiter.tighten(remaining=0, reset_after=reset_after)
        assert await drain(limiter, 1) == [10.0]

    async def test_a_window_that_is_in_debt_as_the_server_says_is_not_made_longer(self) -> None:
        limiter = RateLimiter(FixedWindow(3, 10))
        await drain(limiter, 3)
        limiter.penalize(2)
        await anyio.sleep_until(5)
        limiter.tighten(remaining=1, reset_after=9)
        assert await drain(limiter, 2) == [10.0, 20.0]

    async def test_only_policies_of_that_unit(self) -> None:
        limiter = RateLimiter("5/10s", "100 tokens/10s", "500 tokens/min")
        limiter.tighten(remaining=30, reset_after=5, unit="tokens")
        assert left(limiter) == [5, 30, 30]
        limiter.tighten(remaining=1)
        assert left(limiter) == [1, 30, 30]

    async def test_those_in_line_wait_for_the_reset(self) -> None:
        limiter = RateLimiter("5/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first", 3)
            await crowd.join("due at 10", 4)
            await crowd.join("behind", 1)
            await anyio.sleep(4)
            limiter.tighten(remaining=3, reset_after=8)

        assert list(crowd.granted.values()) == [0.0, 12.0, 12.0]

    async def test_those_in_line_that_remain_pass(self) -> None:
        limiter = RateLimiter("3/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(6))
            limiter.tighten(remaining=2, reset_after=10)

        # Nothing was left that could be withheld, and the reset is when it comes back anyway.
        assert list(crowd.granted.values()) == [0.0] * 3 + [10.0] * 3

    async def test_what_comes_back_before_the_reset_counts_as_what_remains(self) -> None:
        limiter = RateLimiter("4/10s")
        await limiter.acquire(1)
        await anyio.sleep(2)
        await limiter.acquire(3)
        limiter.tighten(remaining=2, reset_after=10)
        assert await drain(limiter, 4) == [10.0, 12.0, 12.0, 12.0]

    async def test_a_window_of_utc_is_told_first_what_utc_is(self) -> None:
        limiter = RateLimiter(FixedWindow(5, 10, align="utc"))
        limiter.tighten(remaining=2, reset_after=1)
        assert limiter._gate.buckets[0].reset_after(0.0) == pytest.approx(7.0)

    async def test_calls_that_run_and_hold_their_charge_do_not_add_to_what_remains(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(5, 10, measure="end"))
        async with limiter.permit(2):
            limiter.tighten(remaining=1, reset_after=6)
            assert left(limiter) == [1]
            await anyio.sleep(1)

        assert await left_at(limiter, 5) == [1]
        assert await left_at(limiter, 6) == [3]
        assert await left_at(limiter, 11) == [5]

    async def test_what_was_granted_already_passes(self) -> None:
        limiter = RateLimiter("5/10s")
        passed: list[float] = []

        async def call() -> None:
            await limiter.acquire()
            passed.append(anyio.current_time())

        await limiter.acquire(0)
        async with tasks() as task_group:
            task_group.start_soon(call)
            await wait_idle()
            limiter.tighten(remaining=0, reset_after=3)
            task_group.start_soon(call)

        assert passed == [0.0, 3.0]

    @pytest.mark.parametrize(
        "policy", [TokenBucket(5, 10), FixedWindow(5, 10), WindowTokenBucket(5, 10)]
    )
    async def test_then_it_goes_on_as_ever(self, policy: Policy) -> None:
        limiter = RateLimiter(policy)
        limiter.tighten(remaining=0, reset_after=5)
        await anyio.sleep(100)
        assert left(limiter) == [5]
        assert limiter.peek(5).reset_after == 0.0

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"remaining": -1}, ValueError, "remaining must be at least 0, not -1"),
            ({"remaining": 1.0}, TypeError, "remaining must be an int, not 1.0"),
            ({"remaining": True}, TypeError, "remaining must be an int, not True"),
            ({"remaining": None}, TypeError, "remaining must be an int, not None"),
            ({"reset_after": -1}, ValueError, "reset_after must be at least 0"),
            ({"reset_after": math.nan}, ValueError, "reset_after must be at least 0"),
            ({"reset_after": "6m"}, TypeError, "reset_after must be a number of seconds"),
            ({"reset_after": True}, TypeError, "reset_after must be a number of seconds"),
            ({"unit": "tokens"}, ValueError, "unit 'tokens' is not counted by this limiter"),
            ({"unit": None}, ValueError, "unit None is not counted by this limiter"),
        ],
    )
    async def test_what_is_wrong_is_named_and_changes_nothing(
        self, options: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        limiter = RateLimiter("5/10s")
        with pytest.raises(error) as raised:
            limiter.tighten(**({"remaining": 0} | options))

        assert words in str(raised.value)
        assert left(limiter) == [5]

    def test_where_nothing_is_counted_there_is_nothing_to_tighten(self) -> None:
        with pytest.raises(ValueError, match=r"unit 'calls' is not .* which counts nothing$"):
            RateLimiter().tighten(remaining=5)

    def test_its_parameters_are_named(self) -> None:
        with pytest.raises(TypeError):
            RateLimiter("5/s").tighten(5)  # type: ignore[call-arg]

    def test_outside_of_an_event_loop(self, run: Run) -> None:
        limiter = RateLimiter("5/h")
        limiter.tighten(remaining=2, reset_after=1800)

        async def main() -> None:
            assert left(limiter) == [2]
            assert limiter.peek(3).retry_after == pytest.approx(1800)

        run(main)


@pytest.mark.timing
class TestTogether:
    async def test_a_pause_and_a_penalty(self) -> None:
        limiter = RateLimiter("2/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            limiter.pause(5)
            await crowd.join_all(*range(3))
            limiter.penalize(1)

        assert list(crowd.granted.values()) == [5.0, 10.0, 15.0]

    @pytest.mark.parametrize("verb", ["penalize", "tighten"])
    async def test_who_asks_is_told_at_once(self, verb: str) -> None:
        limiter = RateLimiter("2/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(3))
            assert limiter.peek().retry_after == 10.0
            await anyio.sleep(4)
            if verb == "penalize":
                limiter.penalize(2)
                due = 14.0
            else:
                limiter.tighten(remaining=1, reset_after=9)
                due = 13.0

            assert limiter.peek().retry_after == due - 4.0
            await crowd.join("newcomer")

        assert crowd.granted["newcomer"] == due

    async def test_a_penalty_does_not_end_a_pause(self) -> None:
        limiter = RateLimiter("2/10s")
        limiter.pause(5)
        limiter.penalize(0)
        limiter.tighten(remaining=1)
        assert limiter.statistics().paused_for == 5.0
        limiter.resume()
        assert limiter.statistics().paused_for == 0.0
        assert limiter.peek().remaining == 1

    async def test_a_pause_without_seconds_by_the_policies_as_they_are_now(self) -> None:
        limiter = RateLimiter("2/10s", "5/3s")
        limiter.pause()
        assert limiter.statistics().paused_for == 3.0
        limiter.resume()
        limiter.reconfigure("2/20s")
        limiter.pause()
        assert limiter.statistics().paused_for == 20.0

    @pytest.mark.parametrize("cost", [1, {"calls": 1}])
    async def test_resume_lets_go_who_has_been_charged_for_nothing(self, cost: Cost) -> None:
        """A call that found its grant paused away has given it back, and gets it again."""
        limiter = RateLimiter("1/10s", concurrency=1)
        permit = permit_of(limiter, cost)
        async with tasks() as task_group:
            task_group.start_soon(permit.__aenter__)
            limiter.pause(math.inf)
            await anyio.sleep(4)
            assert limiter.statistics().borrowed_tokens == 0
            assert left(limiter) == [1]
            with pytest.raises(LimitExceeded):
                await limiter.permit(max_wait=0).__aenter__()

            limiter.resume()

        assert permit.waited == 4.0


class TestName:
    @pytest.mark.parametrize("name", [None, "", "geocoder"])
    def test_it_is_as_it_was_given(self, name: str | None) -> None:
        assert RateLimiter(name=name).name == name


@pytest.mark.timing
class TestLoad:
    async def test_it_tells_who_waits_and_who_holds(self) -> None:
        limiter = RateLimiter(concurrency=2)
        assert limiter.load() == (0, 0)
        async with tasks() as task_group:
            for _ in range(5):
                task_group.start_soon(limiter.run, partial(anyio.sleep, 1))

            await wait_idle()
            assert limiter.load() == (3, 2)

        assert limiter.load() == (0, 0)

    async def test_without_anything_held(self) -> None:
        limiter = RateLimiter("1/s")
        async with limiter:
            assert limiter.load() == (0, 0)
            assert limiter.statistics().borrowed_tokens == 0


def test_the_load_of_an_ended_run_is_nothing_and_stays_as_it_was(run: Run) -> None:
    limiter = RateLimiter(concurrency=1)

    async def leave() -> None:
        await limiter.permit().__aenter__()
        assert limiter.load() == (0, 1)

    run(leave)
    assert limiter.load() == (0, 0)
    assert len(limiter._gate.slots.holders) == 1
    assert limiter.statistics().borrowed_tokens == 0
    assert not limiter._gate.slots.holders
