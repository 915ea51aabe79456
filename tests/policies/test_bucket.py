"""Buckets of a user's own: what they inherit, and that a limiter treats them as it does ours."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import inf
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    FixedWindow,
    LimitExceeded,
    RateLimiter,
    TokenBucket,
    WindowTokenBucket,
    abc,
)
from anythrottle._limiters.forecast import Forecasts
from anythrottle._policies.bucket import complete
from tests.conftest import Run
from tests.limiters.tools import pass_at_once, tasks
from tests.properties import examples

pytestmark = pytest.mark.timing

#: What a class that is derived from Bucket has to have.
REQUIRED = {"capacity", "delay", "take", "start", "give_back", "shift", "forget_held", "ahead"}


class Least(abc.Bucket):
    """An exact window, with no more than what each bucket has to have."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self.out: list[tuple[float, int]] = []
        self.held = 0

    @property
    def capacity(self) -> float:
        return self.limit

    def delay(self, now: float, cost: int) -> float:
        missing = cost + self.held + sum(n for at, n in self.out if at > now) - self.limit
        if missing <= 0:
            return 0.0

        for back_at, amount in sorted(self.out):
            if back_at > now:
                missing -= amount
                if missing <= 0:
                    return back_at - now

        return inf

    def take(self, now: float, cost: int, since: float | None = None) -> None:
        self.held += cost

    def start(self, now: float, cost: int) -> float:
        self.held -= cost
        self.out.append((now + self.window, cost))
        return now + self.window

    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        if receipt is None:
            self.held -= cost
        elif receipt > now:
            self.out.remove((receipt, cost))

    def shift(self, seconds: float) -> None:
        self.out = [(at + seconds, amount) for at, amount in self.out]

    def forget_held(self) -> None:
        self.held = 0

    def ahead(self, now: float, *, ended: bool = False) -> Least:
        copy = deepcopy(self)
        if copy.held:
            copy.start(now, copy.held)

        return copy


@dataclass(frozen=True)
class Leasts:
    """The policy of such buckets."""

    limit: int
    window: float
    unit: str = "calls"
    holds: bool = False
    make: Any = Least

    def bucket(self) -> Any:
        return self.make(self.limit, self.window)


def begun(run: Run, policy: abc.Policy, costs: list[int], **options: Any) -> list[float]:
    """Return when calls of some costs begin that all come at once, by a policy."""
    instants: list[float] = []

    async def call(limiter: RateLimiter, cost: int) -> None:
        await limiter.acquire(cost)
        instants.append(anyio.current_time())

    async def main() -> None:
        limiter = RateLimiter(policy, **options)
        async with tasks() as task_group:
            for cost in costs:
                task_group.start_soon(call, limiter, cost)
                await anyio.sleep(0.25)

    run(main)
    return instants


class TestWhatIsRequired:
    def test_it_is_eight_members(self) -> None:
        assert abc.Bucket.__abstractmethods__ == REQUIRED

    def test_a_class_that_lacks_one_makes_no_bucket(self) -> None:
        class Lacking(Least):
            take = abc.Bucket.take

        with pytest.raises(TypeError, match=r"abstract method '?take"):
            Lacking(1, 1)

    @pytest.mark.parametrize("name", sorted(REQUIRED))
    def test_so_it_is_if_it_is_not_derived(self, name: str) -> None:
        members = {key: None for key in REQUIRED if key != name}
        bucket = type("Lacking", (), members)()
        message = rf"bucket\(\) must return an anythrottle.abc.Bucket.*Lacking.*no {name}"
        with pytest.raises(TypeError, match=message):
            RateLimiter(Leasts(1, 1.0, make=lambda _limit, _window: bucket))

    @pytest.mark.parametrize("policy", [WindowTokenBucket(2, 1), TokenBucket(2, 1)])
    def test_ours_are_used_as_they_are(self, policy: abc.Policy) -> None:
        bucket = policy.bucket()
        assert complete(bucket) is bucket


class TestWhatIsInherited:
    @given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3)), max_size=12), st.integers(0, 5))
    @examples(100)
    def test_it_says_what_an_exact_window_says(
        self, steps: list[tuple[float, int]], remaining: int
    ) -> None:
        least, ours = Least(5, 4.0), WindowTokenBucket(5, 4).bucket()
        now = 0.0
        for seconds, cost in steps:
            now += seconds
            assert least.remaining(now) == ours.remaining(now)
            assert least.left(now) == pytest.approx(ours.left(now))
            assert least.reset_after(now) == pytest.approx(ours.reset_after(now))
            assert not least.take_free(cost)
            for bucket in (least, ours):
                if not bucket.delay(now, cost):
                    bucket.take(now, cost)
                    receipt = bucket.start(now, cost)
                    assert bucket.release(now + 1, cost, receipt) == receipt

        for bucket in (least, ours):
            bucket.tighten(now, remaining, None)
            assert bucket.remaining(now) <= remaining

        assert least.remaining(now) == ours.remaining(now)
        assert least.history(now) == [(now, 5 - least.remaining(now))][: least.remaining(now) < 5]
        assert not least.forgive(now, now)

    def test_it_gives_back_each_that_is_held(self) -> None:
        bucket = Least(5, 4.0)
        bucket.take(0.0, 2)
        bucket.take(0.0, 1)
        bucket.give_back_held(0.0, [2, 1])
        assert bucket.held == 0
        assert bucket.remaining(0.0) == 5

    def test_it_says_the_least_of_itself(self) -> None:
        bucket = Least(5, 4.0)
        assert not bucket.quick
        assert bucket.uses_since
        assert not bucket.exact_history
        assert bucket.monotone == "never"
        bucket.take(0.0, 1)
        bucket.start(0.0, 1)
        bucket.drop_due(9.0)
        assert bucket.out == [(4.0, 1)]


class Bare:
    """The same, derived from nothing."""

    def __init__(self, limit: int, window: float) -> None:
        self._bucket = Least(limit, window)

    def __getattr__(self, name: str) -> Any:
        if name not in REQUIRED:
            raise AttributeError(name)

        return getattr(self._bucket, name)


@pytest.mark.parametrize("make", [Least, Bare])
class TestInALimiter:
    def test_calls_begin_as_by_an_exact_window(self, run: Run, make: Any) -> None:
        costs = [1, 2, 3, 1, 1, 2, 3]
        ours = begun(run, WindowTokenBucket(3, 2), costs)
        assert begun(run, Leasts(3, 2.0, make=make), costs) == ours
        slots = begun(run, Leasts(3, 2.0, make=make), costs, max_waiting=100)
        assert slots == ours

    async def test_it_is_asked_and_told(self, make: Any) -> None:
        limiter = RateLimiter(Leasts(3, 2.0, make=make))
        await limiter.acquire(2)
        decision = limiter.peek(2)
        assert (decision.allowed, decision.retry_after, decision.reset_after) == (False, 2, 2)
        (state,) = limiter.quotas()
        assert (state.remaining, state.retry_after, state.reset_after) == (1, 2, 2)
        limiter.tighten(remaining=0)
        assert limiter.peek().remaining == 0
        with pytest.raises(LimitExceeded):
            await limiter.acquire(max_wait=1)

        await limiter.acquire(3)
        assert anyio.current_time() == 2

    async def test_calls_that_are_called_back_are_charged_once(self, make: Any) -> None:
        policy = Leasts(3, 2.0, make=make)
        limiter = RateLimiter(policy, "100/s")
        limiter.pause()
        async with tasks() as task_group:
            for cost in (1, 2):
                task_group.start_soon(limiter.acquire, cost)

            await anyio.sleep(1)
            # They are granted their turns, and are called back before they resume.
            limiter.resume()
            limiter.reconfigure(policy, "50/s")
            await anyio.sleep(0.5)
            assert limiter.peek().remaining == 0
            await anyio.sleep(1.75)
            assert limiter.peek().remaining == 3

    async def test_its_successor_is_charged_what_is_missing(self, make: Any) -> None:
        limiter = RateLimiter(Leasts(3, 2.0, make=make))
        await limiter.acquire(2)
        await anyio.sleep(1)
        limiter.reconfigure("5/4s")
        assert limiter.peek().remaining == 3
        await limiter.acquire(4)
        assert anyio.current_time() == 5

    def test_it_goes_over_to_another_clock(self, run: Run, make: Any) -> None:
        limiter = RateLimiter(Leasts(3, 2.0, make=make))

        async def use() -> float:
            await limiter.acquire(3)
            return anyio.current_time()

        assert run(use) == 0
        assert run(use) == pytest.approx(2, abs=0.5)


class TestAsOurs:
    """What a bucket may say of itself, and what else it may do."""

    async def test_one_that_goes_by_utc_is_told_what_that_is(self) -> None:
        told: list[float] = []

        class Clock(Least, abc.WallClockBucket):
            def set_utc(self, now: float, utc: float) -> None:
                told.append(utc - now)

        limiter = RateLimiter(Leasts(3, 2.0, make=Clock))
        await limiter.acquire(3)
        limiter.peek()
        limiter.quotas()
        await limiter.acquire()
        assert len(told) >= 4
        assert max(told) - min(told) < 1
        assert min(told) > 1e9

    async def test_one_that_has_a_level_begins_where_the_other_stands(self) -> None:
        class Level(Least, abc.LevelBucket):
            def unlikeness(self, old: abc.Bucket) -> tuple[float, ...] | None:
                return () if isinstance(old, Level) else None

            def succeed(self, old: Level, now: float, told: list[tuple[float, int]]) -> bool:
                self.out = old.out.copy()
                return False

        limiter = RateLimiter(Leasts(3, 2.0, make=Level))
        async with limiter.permit(2) as permit:
            await anyio.sleep(1)
            limiter.reconfigure(Leasts(4, 2.0, make=Level))
            # By a history it would all have been charged just now.
            assert limiter.peek(3).retry_after == 1
            permit.refund()
            assert limiter.peek().remaining == 4

        limiter.reconfigure(TokenBucket(3, 1), FixedWindow(4, 1))
        assert limiter.peek().allowed

    @pytest.mark.parametrize(
        ("monotone", "alone", "among_others"),
        [("always", True, True), ("alone", True, False), ("never", False, False)],
    )
    def test_one_that_is_monotone_lets_a_forecast_err_on_the_safe_side(
        self, monotone: Any, alone: bool, among_others: bool
    ) -> None:
        made = type("Monotone", (Least,), {"monotone": monotone})
        policy = Leasts(1, 2.0, make=made)
        for limiter, steady in (
            (RateLimiter(policy), alone),
            (RateLimiter(policy, "5/s"), among_others),
        ):
            outlook = limiter._line.scheduler.outlook
            assert isinstance(outlook, Forecasts)
            assert outlook._is_steady() is steady

    async def test_a_delay_that_is_rounded_away_ends(self) -> None:
        class Rounded(Least):
            def delay(self, now: float, cost: int) -> float:
                return 1e-30 if now == 1 else super().delay(now, cost)

        limiter = RateLimiter(Leasts(1, 1.0, make=Rounded))
        await limiter.acquire()
        with anyio.fail_after(5):
            await limiter.acquire()

        assert 1 < anyio.current_time() < 1.1


async def test_nothing_is_given_back_of_what_its_bucket_has_forgotten() -> None:
    limiter = RateLimiter(Leasts(3, 1.0))
    async with limiter.permit(2) as permit:
        await anyio.sleep(5)
        limiter.reconfigure("4/10s")
        permit.refund()
        assert pass_at_once(limiter) == 4
