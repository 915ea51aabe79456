"""G5 for what a call can do besides: it is cancelled at each suspension in turn, in all ways."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from anythrottle import LimitExceeded, RateLimiter, ThrottleException, current_permit
from anythrottle.abc import Permit
from anythrottle.testing import wait_idle
from tests.limiters.tools import BLOWS, Blow, Victim, sweep_with

pytestmark = pytest.mark.promise("G5")


async def assert_all_is_back(limiter: RateLimiter, calls: int) -> None:
    statistics = limiter.statistics()
    assert (statistics.tasks_waiting, statistics.borrowed_tokens, statistics.kept) == (0, 0, 0)
    await anyio.sleep(1000)
    assert [state.remaining for state in limiter.quotas()] == [calls]
    with anyio.fail_after(100):
        await limiter.run(anyio.sleep, 0)


@pytest.mark.parametrize("blow", BLOWS)
def test_a_call_that_is_marked_and_kept(blow: Blow) -> None:
    """What is kept was returned; what was cut off holds nothing."""

    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter("2/10s end", concurrency=1)
        returned: list[Permit] = []

        async def begin() -> Permit:
            permit = current_permit()
            await anyio.sleep(1)
            permit.mark_counted()
            permit.keep()
            await anyio.sleep(1)
            return permit

        async def call() -> None:
            returned.append(await limiter.run(begin))

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, anyio.sleep, 1)
            await wait_idle()
            await victim.run(call())

        assert limiter.statistics().kept == len(returned)
        for permit in returned:
            permit.end()

        await assert_all_is_back(limiter, 2)

    assert sweep_with(blow, scenario) >= 3


@pytest.mark.parametrize("blow", BLOWS)
def test_a_call_that_is_shed(blow: Blow) -> None:
    """In the same step, too: who came instead of it loses nothing."""

    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter("1/10s", max_waiting=1)
        start = anyio.current_time()

        async def wait() -> None:
            try:
                await limiter.acquire(priority=5)
            except LimitExceeded:
                assert anyio.current_time() == start + 1

        async def come() -> None:
            await anyio.sleep(1)
            await limiter.acquire(priority=1)
            assert anyio.current_time() == start + 10

        await limiter.acquire()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(come)
            await wait_idle()
            await victim.run(wait())

        await assert_all_is_back(limiter, 1)

    assert sweep_with(blow, scenario) >= 2


@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("max_wait", [3, 30])
def test_a_call_that_goes_again_within_its_patience(blow: Blow, max_wait: float) -> None:
    """Whether its second turn comes in time or is refused: the line goes on."""

    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter("9/10s", concurrency=1)
        attempts: list[int] = []

        async def once_more() -> None:
            attempts.append(1)
            await anyio.sleep(1)
            if len(attempts) == 1:
                raise ThrottleException(retry_after=5)

        async def call() -> None:
            with suppress(LimitExceeded):
                await limiter.run(once_more, max_wait=max_wait)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, anyio.sleep, 1)
            await wait_idle()
            task_group.start_soon(limiter.run, anyio.sleep, 1)
            await victim.run(call())

        assert len(attempts) <= 1 + (max_wait > 5)
        await assert_all_is_back(limiter, 9)

    assert sweep_with(blow, scenario) >= 2
