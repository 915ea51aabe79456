"""What is told of a shared limiter, beside what is told of one of a process's own."""

from __future__ import annotations

import pytest

from anythrottle import RateLimiter, TokenBucket
from anythrottle.abc import Policy
from anythrottle.stores.memory import MemoryServer
from tests.stores.branches import Branch

TWO = TokenBucket(2, 100, burst=2)


@pytest.mark.timing
@pytest.mark.parametrize(
    ("policies", "costs", "remaining"),
    [
        # The smallest part is left of the second one, then of the first one.
        (["100/h", "10/10s"], [1], 9),
        (["10/100s", "100/10s"], [1], 9),
        # Of equal parts, the one with less.
        (["10/100s", "2/100s"], [], 2),
        (["2/100s", "10/100s"], [], 2),
        # The one that is waited for longest, though more is left of it.
        (["100/h", "100/10s"], [100], 0),
        ([TWO, "5/10s"], [2], 0),
    ],
)
async def test_the_policy_that_binds_is_the_same_as_that_of_a_limiter_of_ones_own(
    policies: list[str | Policy], costs: list[int], remaining: int
) -> None:
    own = RateLimiter(*policies)
    branch = Branch(MemoryServer(), *policies)
    async with branch.store:
        for cost in costs:
            await own.acquire(cost)
            await branch.limiter.acquire(cost)

        expected, told = own.peek(), await branch.limiter.peek()

    assert (expected.remaining, expected.allowed) == (remaining, told.allowed)
    assert (told.remaining, told.policy, told.limit) == (
        expected.remaining,
        expected.policy,
        expected.limit,
    )
    assert told.reset_after == pytest.approx(expected.reset_after, rel=0.02)
