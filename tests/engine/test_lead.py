"""The lead: one worker has it, and one other at most is on its way to it."""

from __future__ import annotations

import anyio
import pytest

from anythrottle._engine.admission import Worker
from anythrottle._engine.lead import Lead
from anythrottle._loops.clock import loop_of, native_loop
from anythrottle.testing import wait_idle

pytestmark = pytest.mark.timing


def make() -> Lead:
    return Lead(loop_of(native_loop()))


async def test_without_followers_one_is_to_be_made_but_not_two() -> None:
    lead = make()
    assert lead.wake_successor()
    beginner = Worker()
    lead.coming.add(beginner)
    assert not lead.wake_successor()
    lead.coming.discard(beginner)
    assert lead.wake_successor()


async def test_followers_come_one_at_a_time() -> None:
    lead = make()
    come: list[int] = []

    async def follow(number: int) -> None:
        await lead.follow(Worker())
        come.append(number)

    async with anyio.create_task_group() as task_group:
        for number in range(3):
            task_group.start_soon(follow, number)

        await wait_idle()
        for count in range(1, 4):
            assert not lead.wake_successor()
            # It is on its way already.
            assert not lead.wake_successor()
            await wait_idle()
            assert len(come) == count

    assert sorted(come) == [0, 1, 2]
    assert lead.wake_successor()


async def test_one_that_is_cancelled_follows_no_more() -> None:
    lead = make()
    with anyio.move_on_after(1):
        await lead.follow(Worker())

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(lead.follow, Worker())
        await wait_idle()
        assert not lead.wake_successor()
        task_group.cancel_scope.cancel()

    assert lead.wake_successor()
