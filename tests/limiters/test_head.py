"""The head of the line: whose task sleeps on behalf of all, and whose seeks a shared slot."""

from __future__ import annotations

import math

import anyio
import pytest

from anythrottle._limiters.head import Head
from anythrottle._limiters.slots import Slot, Slots
from anythrottle._limiters.turn import Turn
from anythrottle._loops.clock import loop_of, native_loop
from anythrottle._loops.event_loop import EventLoop
from anythrottle.testing import wait_idle

pytestmark = pytest.mark.timing


def turn() -> Turn:
    return Turn(1, (), ends=True)


@pytest.fixture
async def loop() -> EventLoop:
    return loop_of(native_loop())


def too_long(head: Head, first: Turn, due: float) -> bool:
    """Return whether the first in line would sleep too long, while no slot is wanted."""
    return head.must_wake(first, due, wants_slot=False)


class TestSleep:
    async def test_until_an_instant(self, loop: EventLoop) -> None:
        head, begun = Head(), loop.time()
        assert not await head.sleep(turn(), loop, begun + 5)
        assert loop.time() == begun + 5

    async def test_until_it_is_woken(self, loop: EventLoop) -> None:
        head, sleeper, begun = Head(), turn(), loop.time()
        woken: list[bool] = []

        async def sleep() -> None:
            woken.append(await head.sleep(sleeper, loop, begun + 5))

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(sleep)
            await anyio.sleep(2)
            loop.wake(sleeper)

        assert woken == [True]
        assert loop.time() == begun + 2

    async def test_whether_it_would_be_for_too_long(self, loop: EventLoop) -> None:
        head, sleeper, begun = Head(), turn(), loop.time()
        assert too_long(head, sleeper, begun + 3), "nobody sleeps: it has to be woken"
        assert not too_long(head, sleeper, math.inf), "there is nothing to wait for"
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(head.sleep, sleeper, loop, begun + 5)
            await wait_idle()
            assert too_long(head, sleeper, begun + 3)
            assert not too_long(head, sleeper, begun + 5)
            assert too_long(head, turn(), begun + 7), "another turn has come to be the head"

        assert too_long(head, sleeper, begun + 7), "it does not sleep any more"

    async def test_who_is_cancelled_sleeps_no_more(self, loop: EventLoop) -> None:
        head, sleeper = Head(), turn()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(head.sleep, sleeper, loop, loop.time() + 5)
            await wait_idle()
            task_group.cancel_scope.cancel()

        assert too_long(head, sleeper, loop.time() + 7)

    async def test_an_earlier_sleeper_that_wakes_leaves_the_next_one_alone(
        self, loop: EventLoop
    ) -> None:
        head, first, second, begun = Head(), turn(), turn(), loop.time()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(head.sleep, first, loop, begun + 1)
            await wait_idle()
            task_group.start_soon(head.sleep, second, loop, begun + 5)
            await anyio.sleep(2)
            assert not too_long(head, second, begun + 5)


class TestSeek:
    """A slot of a capacity limiter, of which others hold the only one."""

    async def seek(self, slots: Slots, head: Head, seeker: Turn, loop: EventLoop) -> None:
        self.found = await head.seek_slot(seeker, loop, slots)

    async def test_one_comes(self, loop: EventLoop) -> None:
        capacity = anyio.CapacityLimiter(1)
        head, slots, outsider = Head(), Slots(shared=capacity), object()
        capacity.acquire_on_behalf_of_nowait(outsider)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self.seek, slots, head, turn(), loop)
            await wait_idle()
            assert head.seeks
            capacity.release_on_behalf_of(outsider)

        assert isinstance(self.found, Slot)
        assert not head.seeks
        assert capacity.statistics().borrowers == (self.found,)

    async def test_the_turn_gives_up(self, loop: EventLoop) -> None:
        capacity = anyio.CapacityLimiter(1)
        head, slots, seeker, begun = Head(), Slots(shared=capacity), turn(), loop.time()
        capacity.acquire_on_behalf_of_nowait(object())
        seeker.give_up = begun + 3
        await self.seek(slots, head, seeker, loop)
        assert self.found is None
        assert loop.time() == begun + 3
        assert not head.seeks
        assert head.must_wake(turn(), math.inf, wants_slot=True), "it is for another one to seek"
        assert capacity.statistics().tasks_waiting == 0

    @pytest.mark.parametrize("whose", ["its own", "all"])
    async def test_it_is_sought_no_longer(self, loop: EventLoop, whose: str) -> None:
        capacity = anyio.CapacityLimiter(1)
        head, slots, seeker = Head(), Slots(shared=capacity), turn()
        capacity.acquire_on_behalf_of_nowait(object())
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self.seek, slots, head, seeker, loop)
            await wait_idle()
            head.stop_seeking(turn())
            assert head.seeks, "that was another turn"
            head.stop_seeking(seeker if whose == "its own" else None)
            assert not head.seeks

        assert self.found is None
        assert capacity.statistics().tasks_waiting == 0

    async def test_slots_that_have_been_exchanged_meanwhile(self, loop: EventLoop) -> None:
        capacity = anyio.CapacityLimiter(1)
        head, slots, outsider = Head(), Slots(shared=capacity), object()
        capacity.acquire_on_behalf_of_nowait(outsider)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self.seek, slots, head, turn(), loop)
            await wait_idle()
            slots.resize(1, None)
            capacity.release_on_behalf_of(outsider)

        assert self.found is None
        assert capacity.borrowed_tokens == 0

    async def test_who_is_cancelled_seeks_no_more(self, loop: EventLoop) -> None:
        capacity = anyio.CapacityLimiter(1)
        head, slots = Head(), Slots(shared=capacity)
        capacity.acquire_on_behalf_of_nowait(object())
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self.seek, slots, head, turn(), loop)
            await wait_idle()
            task_group.cancel_scope.cancel()

        assert not head.seeks
        assert head.must_wake(turn(), math.inf, wants_slot=True), "it is for another one to seek"
        assert capacity.statistics().tasks_waiting == 0
