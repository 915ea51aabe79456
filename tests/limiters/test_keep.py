"""Calls that go on after their functions have returned."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from anythrottle import RateLimiter, ThrottleException, amap, current_permit
from anythrottle.abc import Permit
from anythrottle.testing import wait_idle
from tests.conftest import Run

pytestmark = pytest.mark.timing


async def keep() -> Permit:
    current_permit().keep()
    return current_permit()


async def nothing() -> None: ...


def held(limiter: RateLimiter) -> tuple[int, int]:
    statistics = limiter.statistics()
    return statistics.borrowed_tokens, statistics.kept


@pytest.fixture(params=["a number", "shared"])
def limiter(request: pytest.FixtureRequest) -> Callable[[], RateLimiter]:
    if request.param == "shared":
        return lambda: RateLimiter(concurrency=anyio.CapacityLimiter(1))

    return lambda: RateLimiter(concurrency=1)


async def test_it_holds_its_slot_until_its_end(limiter: Callable[[], RateLimiter]) -> None:
    kept = limiter()
    permit = await kept.run(keep)
    assert held(kept) == (1, 1)
    assert repr(permit) == "<Permit kept>"
    start = anyio.current_time()
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(kept.run, nothing)
        await anyio.sleep(5)
        assert kept.statistics().tasks_waiting == 1
        permit.end()
        assert repr(permit) == "<Permit ended>"

    assert anyio.current_time() == start + 5
    assert held(kept) == (0, 0)


async def test_by_wrap(limiter: Callable[[], RateLimiter]) -> None:
    kept = limiter()
    permit = await kept.wrap(keep)()
    assert held(kept) == (1, 1)
    permit.end()
    await kept.run(nothing)


async def test_a_second_time_it_does_nothing(limiter: Callable[[], RateLimiter]) -> None:
    kept = limiter()
    first = await kept.run(keep)
    first.end()
    second = await kept.run(keep)
    first.end()
    assert held(kept) == (1, 1)
    second.end()


async def test_from_another_task(limiter: Callable[[], RateLimiter]) -> None:
    kept = limiter()
    permit = await kept.run(keep)

    async def end() -> None:
        permit.end()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(end)

    assert held(kept) == (0, 0)


async def test_what_it_is_charged_counts_from_its_end() -> None:
    limiter = RateLimiter("1/10s end")
    start = anyio.current_time()
    permit = await limiter.run(keep)
    await anyio.sleep(3)
    permit.end()
    await limiter.run(nothing)
    assert anyio.current_time() == start + 13


async def test_it_can_be_corrected_and_marked() -> None:
    limiter = RateLimiter("4/10s end")
    start = anyio.current_time()
    permit = await limiter.run(keep, cost=3)
    permit.settle(4)
    permit.settle(2)
    assert limiter.peek().remaining == 2
    await anyio.sleep(1)
    permit.mark_counted()
    await anyio.sleep(4)
    permit.end()
    await limiter.run(nothing, cost=4)
    assert anyio.current_time() == start + 11
    permit.refund()


async def test_a_reconfigured_limiter_knows_of_it() -> None:
    limiter = RateLimiter("4/10s end")
    start = anyio.current_time()
    permit = await limiter.run(keep, cost=3)
    limiter.reconfigure("4/20s end", "10 tokens/s", concurrency=1)
    assert held(limiter) == (1, 1)
    limiter.reconfigure("4/20s end")
    await anyio.sleep(2)
    permit.end()
    await limiter.run(nothing, cost=4)
    assert anyio.current_time() == start + 22


async def test_slots_that_are_exchanged() -> None:
    limiter = RateLimiter(concurrency=2)
    first, second = await limiter.run(keep), await limiter.run(keep)
    shared = anyio.CapacityLimiter(1)
    limiter.reconfigure(concurrency=shared)
    assert shared.borrowed_tokens == 1
    first.end()
    second.end()
    assert shared.borrowed_tokens == 0


async def test_that_has_no_slot_yet_of_the_new_ones() -> None:
    limiter = RateLimiter(concurrency=2)
    shared = anyio.CapacityLimiter(1)

    async def later() -> Permit:
        permit = await keep()
        await anyio.sleep(1)
        return permit

    permits: list[Permit] = []

    async def run() -> None:
        permits.append(await limiter.run(later))

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(run)
        task_group.start_soon(run)
        await wait_idle()
        limiter.reconfigure(concurrency=shared)

    # The slot of one goes to the other, which is kept, too.
    permits[0].end()
    permits[1].end()
    assert shared.borrowed_tokens == 0
    assert held(limiter) == (0, 0)


@pytest.mark.parametrize("error", [ZeroDivisionError, ThrottleException])
async def test_an_error_ends_it(error: type[Exception]) -> None:
    limiter = RateLimiter(concurrency=1)
    permits: list[Permit] = []

    async def fail() -> None:
        permits.append(await keep())
        raise error

    with pytest.raises(error):
        await limiter.run(fail, max_throttles=1)

    assert held(limiter) == (0, 0)
    permits[0].end()


async def test_who_goes_again_is_kept_at_last() -> None:
    limiter = RateLimiter(concurrency=1)
    attempts: list[Permit] = []

    async def once_more() -> None:
        attempts.append(await keep())
        if len(attempts) == 1:
            raise ThrottleException(retry_after=1)

    await limiter.run(once_more)
    attempts[0].end()
    assert held(limiter) == (1, 1)
    attempts[1].end()
    assert held(limiter) == (0, 0)


async def test_cancellation_ends_it() -> None:
    limiter = RateLimiter(concurrency=1)

    async def forever() -> None:
        await keep()
        await anyio.sleep_forever()

    with anyio.move_on_after(1):
        await limiter.run(forever)

    assert held(limiter) == (0, 0)


async def test_who_ends_it_within_its_function_has_not_kept_it() -> None:
    limiter = RateLimiter(concurrency=1)

    async def think_better_of_it() -> None:
        permit = await keep()
        permit.end()
        permit.end()
        assert held(limiter) == (1, 0)

    await limiter.run(think_better_of_it)
    assert held(limiter) == (0, 0)


class TestElsewhere:
    async def test_in_a_block(self) -> None:
        async with RateLimiter(concurrency=1).permit() as permit:
            with pytest.raises(RuntimeError, match="keep"):
                permit.keep()

            with pytest.raises(RuntimeError, match="was not kept"):
                permit.end()

    async def test_after_the_function(self) -> None:
        async def get() -> Permit:
            return current_permit()

        permit = await RateLimiter(concurrency=1).run(get)
        with pytest.raises(RuntimeError, match="keep"):
            permit.keep()

        with pytest.raises(RuntimeError, match="was not kept"):
            permit.end()

    @pytest.mark.parametrize("options", [{}, {"limiter": "5/s"}])
    async def test_in_a_job(self, options: dict[str, Any]) -> None:
        async def call(_: int) -> None:
            with pytest.raises(RuntimeError, match="keep"):
                current_permit().keep()

            with pytest.raises(RuntimeError, match="was not kept"):
                current_permit().end()

        await amap(call, [1], **options)


def test_after_its_run_its_end_is_nothing(run: Run) -> None:
    limiter = RateLimiter(concurrency=1)
    permit = run(limiter.run, keep)
    run(limiter.run, nothing)
    kept = run(limiter.run, keep)
    run(limiter.run, nothing)

    async def end() -> None:
        await limiter.run(keep)
        permit.end()
        kept.end()
        assert held(limiter) == (1, 1)

    run(end)


async def test_the_limiter_does_not_hold_the_permit() -> None:
    limiter = RateLimiter(concurrency=1)
    gc.collect()
    permit: Any = await limiter.run(keep)
    reference = weakref.ref(permit)
    del permit
    gc.collect()
    assert reference() is None
    assert held(limiter) == (1, 1)


async def test_who_waits_inside_of_it_is_not_stuck_by_itself() -> None:
    """A task that the function has left behind: the kept permit may end any time."""
    limiter = RateLimiter(concurrency=1)
    start = anyio.current_time()
    async with anyio.create_task_group() as task_group:

        async def leave_a_task() -> Permit:
            task_group.start_soon(limiter.run, nothing)
            return await keep()

        permit = await limiter.run(leave_a_task)
        await anyio.sleep(1)
        permit.end()

    assert anyio.current_time() == start + 1


def test_what_another_loop_has_let_go_is_kept_no_more() -> None:
    """A loop that stands still while another one uses the limiter has lost what it held."""
    limiter = RateLimiter(concurrency=1)

    async def slowly() -> Permit:
        permit = await keep()
        await go_on.wait()
        return permit

    go_on = asyncio.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(limiter.run(slowly))
    while not limiter.statistics().borrowed_tokens:
        loop.run_until_complete(asyncio.sleep(0))

    anyio.run(limiter.run, nothing)
    go_on.set()
    permit = loop.run_until_complete(task)
    permit.end()
    loop.close()
    assert held(limiter) == (0, 0)
