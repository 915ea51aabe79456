"""G2: a call tells that its server has counted it, and counts from then on."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from anythrottle import (
    FixedWindow,
    RateLimiter,
    TokenBucket,
    WindowTokenBucket,
    amap,
    current_permit,
)
from anythrottle._limiters.turn import Turn
from anythrottle.abc import Permit, Policy
from anythrottle.testing import wait_idle
from tests.limiters.tools import left, tasks

pytestmark = [pytest.mark.timing, pytest.mark.promise("G2")]

END = "2/10s end"


class World:
    """Calls that mark themselves when they are told to, and others that wait."""

    def __init__(self, *policies: Policy | str, concurrency: int | None = None) -> None:
        self.limiter = RateLimiter(*policies, concurrency=concurrency)
        self.start = anyio.current_time()
        self.begun: dict[str, float] = {}

    @property
    def now(self) -> float:
        return anyio.current_time() - self.start

    @property
    def remaining(self) -> int | None:
        return self.limiter.peek().remaining

    async def call(self, name: str, cost: Any = 1, seconds: float = 0) -> None:
        async with self.limiter.permit(cost):
            self.begun[name] = self.now
            await anyio.sleep(seconds)

    async def next_begins(self, cost: Any = 1) -> float:
        """Make a call, and return when it has begun."""
        await self.call("next", cost)
        return self.begun["next"]

    @asynccontextmanager
    async def marked(self, cost: int = 1) -> AsyncIterator[Permit]:
        """Hold a call that marks itself at 1."""
        async with self.limiter.permit(cost) as permit:
            await self.until(1)
            permit.mark_counted()
            yield permit

    async def until(self, instant: float) -> None:
        await anyio.sleep(instant - self.now)


async def test_others_go_a_window_after_the_mark() -> None:
    world = World(END)
    async with tasks() as task_group, world.limiter.permit(2) as permit:
        task_group.start_soon(world.call, "next")
        await world.until(1)
        permit.mark_counted()
        await world.until(30)

    assert world.begun == {"next": 11}


async def test_without_it_they_go_a_window_after_the_end() -> None:
    world = World(END)
    async with tasks() as task_group:
        task_group.start_soon(world.call, "first", 2, 5)
        await wait_idle()
        task_group.start_soon(world.call, "next")

    assert world.begun == {"first": 0, "next": 15}


async def test_twice_is_as_once() -> None:
    world = World(END)
    async with tasks() as task_group, world.limiter.permit(2) as permit:
        task_group.start_soon(world.call, "next")
        await world.until(1)
        permit.mark_counted()
        await world.until(5)
        permit.mark_counted()
        permit.mark_counted("calls")
        await world.until(6)

    assert world.begun == {"next": 11}


async def test_before_the_call() -> None:
    limiter = RateLimiter(END)
    permit: Any = limiter.permit()
    with pytest.raises(RuntimeError, match="enter the permit first"):
        permit.mark_counted()


async def test_after_the_end_it_changes_nothing() -> None:
    world = World(END)
    async with world.limiter.permit(2) as permit:
        await world.until(5)

    await world.until(8)
    permit.mark_counted()
    assert await world.next_begins() == 15


async def test_what_settle_adds_is_held_until_the_end() -> None:
    world = World("4/10s end")
    async with world.marked() as permit:
        permit.settle(3)
        await world.until(5)

    await world.until(11)
    assert world.remaining == 2
    assert await world.next_begins(4) == 15


async def test_or_until_it_is_marked_too() -> None:
    world = World("4/10s end")
    async with world.marked() as permit:
        permit.settle(3)
        await world.until(3)
        permit.mark_counted()
        await world.until(5)

    assert await world.next_begins(4) == 13


async def test_what_settle_gives_back_comes_back_at_once() -> None:
    world = World("4/10s end")
    async with world.marked(4) as permit:
        permit.settle(1)
        assert world.remaining == 3
        await world.until(5)

    assert world.remaining == 3
    await world.until(11)
    assert world.remaining == 4


async def test_a_unit_on_its_own() -> None:
    world = World("4/10s end", "100 tokens/10s end")
    async with world.limiter.permit({"tokens": 100}) as permit:
        await world.until(1)
        permit.mark_counted("requests")
        await world.until(5)

    await world.until(11)
    assert left(world.limiter) == [4, 0]
    assert await world.next_begins({"tokens": 100}) == 15


async def test_a_unit_that_is_not_counted() -> None:
    async with RateLimiter(END).permit() as permit:
        with pytest.raises(ValueError, match="unit 'tokens' is not counted"):
            permit.mark_counted("tokens")

        wrong: Any = 5
        with pytest.raises(TypeError, match="unit must be a str, not 5"):
            permit.mark_counted("calls", wrong)


async def test_one_that_is_counted_no_more() -> None:
    limiter = RateLimiter(END, "5 tokens/s")
    async with limiter.permit({"tokens": 1}) as permit:
        limiter.reconfigure(END)
        permit.mark_counted("tokens")


async def test_of_a_limiter_without_a_rate() -> None:
    async with RateLimiter(concurrency=1).permit() as permit:
        permit.mark_counted()
        permit.mark_counted("whatever")


async def test_of_a_run_without_a_limiter() -> None:
    async def call(_: int) -> None:
        permit = current_permit()
        permit.mark_counted("whatever")
        with pytest.raises(TypeError, match="unit must be a str"):
            permit.mark_counted(wrong)

    wrong: Any = 5
    await amap(call, range(2))


@pytest.mark.parametrize(
    "policy", [WindowTokenBucket(2, 10), TokenBucket(2, 10), FixedWindow(2, 10)]
)
async def test_under_other_policies_nothing_changes(policy: Policy) -> None:
    marked, plain = World(policy), World(policy)
    async with marked.limiter.permit(2) as permit, plain.limiter.permit(2):
        await marked.until(4)
        permit.mark_counted()

    for instant in (5, 9.9, 10, 11):
        await marked.until(instant)
        assert marked.limiter.peek() == plain.limiter.peek()


async def test_who_asks_after_it_is_told_when_it_counts_no_more() -> None:
    limiter = RateLimiter(END)
    async with tasks() as task_group, limiter.permit(2) as permit:
        task_group.start_soon(limiter.run, wait_idle)
        await wait_idle()
        assert limiter.peek().retry_after == math.inf
        await anyio.sleep(1)
        permit.mark_counted()
        assert limiter.peek().retry_after == 10.0


def test_what_is_not_named_was_counted_as_one_call_and_nothing_else() -> None:
    turn = Turn({"tokens": 3}, (3,), ends=True)
    turn.marks = [(1.0, (), {"tokens": 3})]
    assert turn.counted("calls") == [(1.0, 1)]
    assert turn.counted("tokens") == [(1.0, 3)]
    assert turn.counted("images") == []


async def test_the_slot_stays() -> None:
    world = World("5/10s end", concurrency=1)
    async with tasks() as task_group, world.limiter.permit() as permit:
        task_group.start_soon(world.call, "next")
        await world.until(1)
        permit.mark_counted()
        await world.until(3)
        assert world.limiter.statistics().borrowed_tokens == 1

    assert world.begun == {"next": 3}


async def test_who_was_cut_off_after_it_counts_from_it() -> None:
    world = World(END)
    with anyio.move_on_after(5):
        async with world.marked(2):
            await anyio.sleep_forever()

    assert await world.next_begins() == 11


class TestReconfigure:
    @pytest.mark.parametrize("units", [(), ("calls",)])
    @pytest.mark.parametrize(
        ("before", "after", "begun"),
        [
            ("2/10s end", "2/20s end", 21),
            ("2/10s end", "2/20s", 21),
            ("2/10s", "2/20s end", 21),
            ("2/10s", "2/20s", 20),
        ],
    )
    async def test_what_comes_takes_the_call_as_counted_there(
        self, before: str, after: str, begun: float, units: tuple[str, ...]
    ) -> None:
        world = World(before)
        async with world.limiter.permit(2) as permit:
            await world.until(1)
            permit.mark_counted(*units)
            await world.until(3)
            world.limiter.reconfigure(after)
            await world.until(5)

        assert await world.next_begins(2) == begun

    async def test_and_back_again(self) -> None:
        world = World("2/10s")
        async with world.marked(2):
            world.limiter.reconfigure("2/20s end")
            await world.until(2)
            world.limiter.reconfigure("2/30s")
            await world.until(3)
            world.limiter.reconfigure("2/40s end")
            await world.until(5)

        assert await world.next_begins(2) == 41

    async def test_what_is_given_back_later_comes_back(self) -> None:
        world = World("2/10s end")
        async with world.marked(2) as permit:
            world.limiter.reconfigure("2/20s end")
            permit.settle(1)
            assert world.remaining == 1
            await world.until(5)

        assert world.remaining == 1
        assert await world.next_begins(2) == 21

    async def test_what_is_added_after_the_mark_is_held_further(self) -> None:
        world = World("4/10s end")
        async with world.marked(1) as permit:
            permit.settle(4)
            world.limiter.reconfigure("4/20s end")
            await world.until(5)

        await world.until(21)
        assert world.remaining == 1
        assert await world.next_begins(4) == 25

    @pytest.mark.parametrize(("after", "begun"), [("2/20s end", 21), ("2/20s", 20)])
    async def test_a_unit_that_was_not_counted_before(self, after: str, begun: float) -> None:
        world = World("9 tokens/10s end")
        async with world.limiter.permit({"tokens": 2}) as permit:
            permit.settle({"tokens": 3})
            await world.until(1)
            permit.mark_counted()
            await world.until(3)
            world.limiter.reconfigure(after)
            assert world.remaining == 1
            await world.until(5)

        assert await world.next_begins(2) == begun

    async def test_nor_in_one_that_comes_after_that(self) -> None:
        world = World("9 tokens/10s end")
        async with world.limiter.permit({"tokens": 2}) as permit:
            permit.settle({"tokens": 3})
            await world.until(1)
            permit.mark_counted()
            await world.until(2)
            permit.mark_counted()
            world.limiter.reconfigure("2/20s end")
            await world.until(3)
            world.limiter.reconfigure("2/30s end")
            await world.until(5)

        assert await world.next_begins(2) == 31

    async def test_what_is_given_back_is_its_own(self) -> None:
        world = World("4/10s")
        async with world.limiter.permit(2) as permit:
            await world.until(0.5)
            await world.limiter.acquire()
            await world.until(1)
            permit.mark_counted()
            world.limiter.reconfigure("4/20s end")
            permit.settle(1)
            await world.until(2)

        await world.until(20.5)
        assert world.remaining == 3

    async def test_a_mark_of_one_unit_is_none_of_another(self) -> None:
        world = World("9 tokens/10s end")
        async with world.limiter.permit({"tokens": 2}) as permit:
            await world.until(1)
            permit.mark_counted("tokens")
            world.limiter.reconfigure("1/20s end")
            await world.until(5)

        assert await world.next_begins(1) == 25


async def test_marks_out_of_order_are_taken_over_in_order() -> None:
    world = World()
    async with world.limiter.permit() as first:
        await world.until(1)
        async with world.limiter.permit() as second:
            await world.until(2)
            second.mark_counted()
            await world.until(9)
            first.mark_counted()
            world.limiter.reconfigure("2/10s end")

    assert await world.next_begins() == 12
    assert await world.next_begins() == 19


async def test_what_was_added_after_a_mark_is_held_by_a_policy_that_comes_later() -> None:
    world = World()
    async with world.limiter.permit() as permit:
        permit.mark_counted()
        permit.mark_counted()
        await world.until(3)
        permit.settle(5)
        await world.until(4)
        world.limiter.reconfigure("5/10s end")
        await world.until(8)

    await world.until(10)
    assert world.remaining == 1
    assert await world.next_begins(5) == 18


async def test_and_what_was_marked_later_counts_from_then() -> None:
    world = World()
    async with world.limiter.permit() as permit:
        permit.mark_counted("calls")
        await world.until(3)
        permit.settle(5)
        permit.mark_counted()
        permit.settle(4)
        await world.until(4)
        world.limiter.reconfigure("5/10s end")
        await world.until(8)

    await world.until(10)
    assert world.remaining == 2
    assert await world.next_begins(5) == 13


async def test_many_corrections_are_all_held_by_a_policy_that_comes_later() -> None:
    world = World("200/1s")
    async with world.limiter.permit() as permit:
        for number in range(2, 131):
            permit.settle(number)
            await anyio.sleep(0.1)
            if number == 60:
                permit.mark_counted()

        world.limiter.reconfigure("200/10s end")
        # 60 of them came back 10 seconds after their mark.
        assert world.remaining == 70
        await anyio.sleep(20)
        assert world.remaining == 130

    assert world.remaining == 130


class OwnBucket:
    """A bucket of a user's own around one of ours, that counts how often a call ends."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket
        self.released = 0

    def release(self, now: float, cost: int, receipt: float) -> float:
        self.released += 1
        return float(self._bucket.release(now, cost, receipt))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bucket, name)


class OwnPolicy:
    limit = 2.0
    window = 10.0
    unit = "calls"
    holds = True

    def __init__(self) -> None:
        self.made: list[OwnBucket] = []

    def bucket(self) -> Any:
        self.made.append(OwnBucket(WindowTokenBucket(2, 10, measure="end").bucket()))
        return self.made[-1]


async def test_a_bucket_of_one_s_own_is_told_once_that_a_call_has_ended() -> None:
    policy = OwnPolicy()
    world = World(policy)
    async with world.marked(2) as permit:
        permit.mark_counted()
        await world.until(5)

    assert policy.made[0].released == 1
    assert await world.next_begins() == 11
