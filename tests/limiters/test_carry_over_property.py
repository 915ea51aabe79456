"""Token buckets that succeed one another, judged by what flows in, piece by piece of time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import LimitExceeded, RateLimiter, TokenBucket
from anythrottle.abc import Permit
from tests.conftest import Run
from tests.limiters.tools import left
from tests.properties import examples


@dataclass
class Running:
    """A call: its permit, what it is charged, and how much of that has not flowed back yet."""

    permit: Permit
    cost: int
    out: float


@dataclass
class PlainFlow:
    """The reference: what flows in, piece by piece of time, at the rate of then."""

    rate: float
    burst: float
    level: float
    running: list[Running] = field(default_factory=list)

    def flow(self, seconds: float) -> None:
        self.level = min(self.level + seconds * self.rate, self.burst)
        for call in self.running:
            call.out = max(call.out - seconds * self.rate, 0.0)

    def refund(self, call: Running) -> None:
        self.level = min(self.level + min(call.cost, call.out), self.burst)
        call.cost = 0

    def become(self, rate: float, burst: float) -> None:
        if self.level < 0 and rate < self.rate:
            # No longer in debt than it would have been. Of what is forgiven, nothing comes back.
            self.level *= rate / self.rate
            for call in self.running:
                call.out = 0.0

        self.rate, self.burst = rate, burst
        self.level = min(self.level, burst)


class Twins:
    """A limiter and its reference, to which the same is done."""

    def __init__(self, limit: int, per: float, burst: int) -> None:
        self.limiter = RateLimiter(TokenBucket(limit, per, burst=burst))
        self.plain = PlainFlow(limit / per, burst, burst)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self.plain.flow(seconds)

    async def call(self, cost: int) -> None:
        if cost > self.plain.level:
            with pytest.raises((LimitExceeded, ValueError)):
                self.limiter.acquire_nowait(cost)
        else:
            permit: Any = self.limiter.permit(cost, max_wait=0)
            await permit.__aenter__()
            self.plain.level -= cost
            out = self.plain.burst - self.plain.level
            self.plain.running.append(Running(permit, cost, out))

    async def refund(self, number: int) -> None:
        for call in self.plain.running[number : number + 1]:
            call.permit.refund()
            self.plain.refund(call)

    async def penalize(self, cost: int) -> None:
        self.limiter.penalize(cost)
        self.plain.level -= cost

    async def reconfigure(self, policy: tuple[int, float, int]) -> None:
        limit, per, burst = policy
        self.limiter.reconfigure(TokenBucket(limit, per, burst=burst))
        self.plain.become(limit / per, burst)

    def compare(self) -> None:
        level, rate = self.plain.level, self.plain.rate
        # Where something was given back, the roundings are in favour of who did it.
        assert left(self.limiter) == [max(math.floor(level + 1e-9), 0)]
        for cost in {1, int(self.plain.burst)}:
            wait = max((cost - level) / rate, 0.0)
            assert self.limiter.peek(cost).retry_after == pytest.approx(wait, rel=1e-9, abs=1e-9)


#: Such that no sum and no quotient is rounded.
_policies = st.tuples(
    st.sampled_from([1, 2, 8, 64]),
    st.sampled_from([0.5, 1.0, 4.0, 32.0]),
    st.sampled_from([1, 3, 10, 100]),
)

_steps = st.one_of(
    st.tuples(st.just("sleep"), st.integers(0, 64).map(lambda n: n / 8)),
    st.tuples(st.just("call"), st.integers(1, 10)),
    st.tuples(st.just("call"), st.integers(1, 10)),
    st.tuples(st.just("refund"), st.integers(0, 5)),
    st.tuples(st.just("penalize"), st.integers(1, 40)),
    st.tuples(st.just("reconfigure"), _policies),
    st.tuples(st.just("reconfigure"), _policies),
)


@examples(300)
@given(_policies, st.lists(_steps, max_size=25))
def test_any_course_of_rates(
    run: Run, first: tuple[int, float, int], script: list[tuple[str, Any]]
) -> None:
    async def main() -> None:
        twins = Twins(*first)
        await twins.limiter.acquire(0)
        for verb, value in script:
            await getattr(twins, verb)(value)
            twins.compare()

    run(main)
