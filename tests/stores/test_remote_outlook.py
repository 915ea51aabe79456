"""What is told of a shared limiter, beside what is told of one of a process's own."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import anyio
import pytest

from anythrottle import LimitExceeded, RateLimiter, TokenBucket
from anythrottle.abc import Policy
from anythrottle.stores.memory import MemoryRateLimiter, MemoryServer
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


async def refusal(limiter: MemoryRateLimiter) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as refused:
        async with limiter.permit(max_wait=0):
            pass

    return refused.value


@pytest.mark.timing
class TestHowLongARefusedCallHasToWait:
    @pytest.fixture
    async def branches(self) -> AsyncIterator[list[MemoryRateLimiter]]:
        server = MemoryServer()
        one, two = Branch(server, "5/10s"), Branch(server, "5/10s")
        async with one.store, two.store:
            yield [one.limiter, two.limiter]

    async def test_while_there_is_a_pause(self, branches: list[MemoryRateLimiter]) -> None:
        await branches[0].acquire()
        branches[0].pause(5)
        for waited in range(1, 5):
            # The other process has heard of it by then.
            await anyio.sleep(1)
            for limiter in branches:
                refused = await refusal(limiter)
                assert refused.decision.reason == "pause"
                assert refused.retry_after == pytest.approx(5 - waited, abs=0.2)

    async def test_while_there_is_an_endless_pause(self, branches: list[MemoryRateLimiter]) -> None:
        branches[0].pause(math.inf)
        assert (await refusal(branches[0])).retry_after == math.inf

    async def test_up_to_the_last_moment(self, branches: list[MemoryRateLimiter]) -> None:
        """The server grants a turn a little before it is due, and then no process waits for one."""
        start = anyio.current_time()
        await branches[0].acquire(5)
        await anyio.sleep(9.7)
        while anyio.current_time() - start < 9.95:
            for limiter in branches:
                refused = await refusal(limiter)
                due = start + 10 - anyio.current_time()
                assert refused.retry_after == pytest.approx(due, abs=0.1)
                (state,) = refused.quotas
                # What it has in stock is not due yet.
                assert state.remaining == 0
                assert state.retry_after == pytest.approx(due, abs=0.1)

            await anyio.sleep(0.02)

    async def test_for_a_slot(self) -> None:
        branch = Branch(MemoryServer(), "5/10s", concurrency=1)
        async with branch.store, branch.limiter.permit():
            refused = await refusal(branch.limiter)
            assert (refused.decision.reason, refused.retry_after) == ("concurrency", math.inf)

    async def test_for_what_counts_from_the_end(self) -> None:
        branch = Branch(MemoryServer(), "1/10s end")
        async with branch.store, branch.limiter.permit():
            refused = await refusal(branch.limiter)
            assert (refused.decision.reason, refused.retry_after) == ("rate", math.inf)
