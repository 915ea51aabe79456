"""A job that waits for what it holds itself: an error where its turn could never come."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from anythrottle import LimitExceeded, RateLimiter, WindowTokenBucket
from anythrottle._limiters import holding
from anythrottle.testing import wait_idle
from tests.limiters.tools import tasks

pytestmark = pytest.mark.timing

STUCK = pytest.raises(RuntimeError, match="a slot could never come")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    assert not any(holding._waiting.values())


async def nothing() -> None: ...


def inside(limiter: RateLimiter) -> Callable[[], Coroutine[Any, Any, None]]:
    async def func() -> None:
        await limiter.run(nothing)

    return func


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: (RateLimiter(concurrency=1),) * 2, id="slots"),
        pytest.param(lambda: (RateLimiter(WindowTokenBucket(1, 1, measure="end")),) * 2, id="held"),
        pytest.param(lambda: (RateLimiter(concurrency=anyio.CapacityLimiter(1)),) * 2, id="shared"),
        pytest.param(
            lambda: tuple(
                RateLimiter(concurrency=slots) for slots in [anyio.CapacityLimiter(1)] * 2
            ),
            id="two with shared slots",
        ),
    ],
)
class TestStuck:
    async def test_in_the_job_itself(self, make: Any) -> None:
        outer, inner = make()
        with STUCK:
            await outer.run(inside(inner))

        await outer.run(nothing)

    async def test_in_a_block(self, make: Any) -> None:
        outer, inner = make()

        async def func() -> None:
            async with inner:
                raise AssertionError("it has a slot")

        with STUCK:
            await outer.run(func)

    async def test_in_a_child_task(self, make: Any) -> None:
        outer, inner = make()

        async def func() -> None:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(inside(inner))

        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="could never come")):
            await outer.run(func)

    async def test_not_if_it_would_give_up(self, make: Any) -> None:
        outer, inner = make()

        async def func() -> None:
            async with inner.permit(max_wait=1):
                raise AssertionError("it has a slot")

        with pytest.raises(LimitExceeded):
            await outer.run(func)

    async def test_not_after_the_job_has_ended(self, make: Any) -> None:
        """A task that it has left behind still has its context."""
        outer, inner = make()

        async def func() -> None:
            task_group.start_soon(later)

        async def later() -> None:
            await anyio.sleep(5)
            await inner.run(nothing)

        async with anyio.create_task_group() as task_group:
            await outer.run(func)


class TestSeveralJobs:
    async def test_the_last_one_that_waits_is_told(self) -> None:
        limiter = RateLimiter(concurrency=2)
        told: list[RuntimeError] = []

        async def func() -> None:
            await wait_idle()
            try:
                await limiter.run(nothing)
            except RuntimeError as exc:
                told.append(exc)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, func)
            task_group.start_soon(limiter.run, func)

        assert len(told) == 1

    async def test_a_plain_job_has_the_other_slot(self) -> None:
        limiter = RateLimiter(concurrency=2)
        start = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, anyio.sleep, 5)
            await wait_idle()
            await limiter.run(inside(limiter))

        assert anyio.current_time() - start == 5

    async def test_a_slot_that_somebody_else_has_borrowed(self) -> None:
        slots = anyio.CapacityLimiter(2)
        start = anyio.current_time()

        async def other() -> None:
            async with slots:
                await anyio.sleep(5)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(other)
            await wait_idle()
            limiter = RateLimiter(concurrency=slots)
            await limiter.run(inside(limiter))

        assert anyio.current_time() - start == 5

    async def test_fewer_shared_slots_than_are_held(self) -> None:
        slots = anyio.CapacityLimiter(2)
        limiter = RateLimiter(concurrency=slots)
        told: list[float] = []

        async def func() -> None:
            await wait_idle()
            slots.total_tokens = 1
            try:
                await limiter.run(nothing)
            except RuntimeError:
                told.append(anyio.current_time() - start)
                slots.total_tokens = 2

        start = anyio.current_time()
        async with tasks() as task_group:
            task_group.start_soon(limiter.run, func)
            task_group.start_soon(limiter.run, func)

        assert told == [0.0]

    async def test_fewer_slots_than_are_held(self) -> None:
        """When the one is told that waits last, the other waits for the slot that it holds."""
        limiter = RateLimiter(concurrency=2)
        told: list[str] = []

        async def func(name: str) -> None:
            await wait_idle()
            limiter.reconfigure(concurrency=1)
            try:
                await limiter.run(nothing)
            except RuntimeError:
                told.append(name)

        async with tasks() as task_group:
            task_group.start_soon(limiter.run, func, "a")
            task_group.start_soon(limiter.run, func, "b")

        assert sorted(told) == ["a", "b"]

    async def test_slots_that_become_fewer_while_one_waits(self) -> None:
        """It waits for its own slot as soon as nobody else has one."""
        limiter = RateLimiter(concurrency=2)
        told: list[float] = []

        async def func() -> None:
            try:
                await limiter.run(nothing)
            except RuntimeError:
                told.append(anyio.current_time() - start)

        start = anyio.current_time()
        async with tasks() as task_group:
            task_group.start_soon(limiter.run, anyio.sleep, 5)
            task_group.start_soon(limiter.run, func)
            await wait_idle()
            limiter.reconfigure(concurrency=1)

        assert told == [5.0]

    async def test_slots_that_become_fewer_while_one_waits_for_a_token(self) -> None:
        limiter = RateLimiter("1/10s", concurrency=2)
        told: list[float] = []

        async def func() -> None:
            try:
                await limiter.run(nothing)
            except RuntimeError:
                told.append(anyio.current_time() - start)

        start = anyio.current_time()
        async with tasks() as task_group:
            task_group.start_soon(limiter.run, func)
            await anyio.sleep(1)
            limiter.reconfigure(concurrency=1)

        assert told == [1.0]

    async def test_a_pause_that_somebody_will_end(self) -> None:
        limiter = RateLimiter(concurrency=2)
        start = anyio.current_time()

        async def func() -> None:
            limiter.pause(math.inf)
            await limiter.run(nothing)

        async with tasks() as task_group:
            task_group.start_soon(limiter.run, func)
            await anyio.sleep(5)
            limiter.resume()

        assert anyio.current_time() - start == 5

    async def test_who_is_cancelled_waits_no_more(self) -> None:
        limiter = RateLimiter(concurrency=2)

        async def func() -> None:
            with anyio.move_on_after(1):
                await limiter.run(nothing)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, anyio.sleep, 5)
            await wait_idle()
            await limiter.run(func)

    async def test_a_task_that_a_job_leaves_behind_in_a_group_of_others(self) -> None:
        """It has the job's context, but the job does not wait for it."""
        limiter = RateLimiter(concurrency=1)
        ends: list[float] = []

        async def func() -> None:
            task_group.start_soon(behind)
            await anyio.sleep(5)

        async def behind() -> None:
            await limiter.run(nothing)
            ends.append(anyio.current_time() - start)

        start = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, func)

        assert ends == [5]

    async def test_a_permit_that_another_task_leaves(self) -> None:
        """It is no job of this limiter's that waits."""
        limiter = RateLimiter(concurrency=1)
        start = anyio.current_time()

        async def func() -> None:
            permit = limiter.permit()
            await permit.__aenter__()
            task_group.start_soon(leave, permit)
            await limiter.run(nothing)

        async def leave(permit: Any) -> None:
            await anyio.sleep(5)
            await permit.__aexit__(None, None, None)

        async with anyio.create_task_group() as task_group:
            await RateLimiter().run(func)

        assert anyio.current_time() - start == 5
