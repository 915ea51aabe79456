"""Who is refused leaves nothing to the garbage collector: a service sheds load when it is busy."""

from __future__ import annotations

import anyio
import pytest

from anythrottle import (
    CostTooHigh,
    Granted,
    LimitExceeded,
    RateLimiter,
    ThrottleException,
)
from anythrottle.abc import Event
from tests.cycles import Case, left_by


async def at_once_without_waiting() -> None:
    limiter = RateLimiter("1/min")
    limiter.acquire_nowait()
    with pytest.raises(LimitExceeded):
        limiter.acquire_nowait()


async def at_once() -> None:
    limiter = RateLimiter("1/min")
    await limiter.acquire()
    with pytest.raises(LimitExceeded):
        await limiter.acquire(max_wait=1)


async def when_it_has_waited() -> None:
    limiter = RateLimiter(concurrency=1)
    async with limiter:
        with pytest.raises(LimitExceeded):
            await limiter.permit(max_wait=0.001).__aenter__()


async def by_a_full_line() -> None:
    limiter = RateLimiter("1/min", max_waiting=0)
    await limiter.acquire()
    with pytest.raises(LimitExceeded):
        await limiter.acquire()


async def for_who_goes_before_it() -> None:
    limiter = RateLimiter(concurrency=1, max_waiting=1)

    async def come_later() -> None:
        async with limiter.permit(priority=0):
            pass

    async def come() -> None:
        with pytest.raises(LimitExceeded):
            await limiter.permit(priority=1).__aenter__()

    async with anyio.create_task_group() as task_group, limiter:
        for function in come, come_later:
            task_group.start_soon(function)
            await anyio.sleep(0.001)


async def because_it_has_become_impossible() -> None:
    limiter = RateLimiter("5/min")
    await limiter.acquire(5)

    async def come() -> None:
        with pytest.raises(CostTooHigh):
            await limiter.acquire(5)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(come)
        await anyio.sleep(0.001)
        limiter.reconfigure("2/min")


async def because_the_limiter_holds_now() -> None:
    limiter = RateLimiter("1/min")
    await limiter.acquire()

    async def come() -> None:
        with pytest.raises(RuntimeError):
            await limiter.acquire()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(come)
        await anyio.sleep(0.001)
        limiter.reconfigure("1/min end")


async def by_what_an_observer_does() -> None:
    limiters: list[RateLimiter] = []

    def lower(event: Event) -> None:
        if isinstance(event, Granted):
            limiter = limiters.pop()
            limiter.pause(1)
            limiter.reconfigure("1/min")

    limiter = RateLimiter("5/min", observer=lower)
    limiters.append(limiter)
    with pytest.raises(CostTooHigh):
        limiter.acquire_nowait(2)


async def when_it_goes_again() -> None:
    limiter = RateLimiter("5/min")

    async def throttled() -> None:
        raise ThrottleException(retry_after=60)

    with pytest.raises(LimitExceeded):
        await limiter.run(throttled, max_wait=1)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "case",
    [
        at_once_without_waiting,
        at_once,
        when_it_has_waited,
        by_a_full_line,
        for_who_goes_before_it,
        because_it_has_become_impossible,
        because_the_limiter_holds_now,
        by_what_an_observer_does,
        when_it_goes_again,
    ],
)
def test_nothing_is_left(case: Case, backend: str) -> None:
    assert left_by(case, backend) == set()
