"""What fell due while the event loop stood still, and what is told before its timers run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import anyio
import pytest

from anythrottle import LimitExceeded, RateLimiter, TokenBucket
from anythrottle._limiters.short_ways import free_loop
from anythrottle.abc import Permit
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall

pytestmark = pytest.mark.promise("G3")

Told: TypeAlias = Callable[[RateLimiter, Permit], object]

#: One a second, evenly.
EVEN = TokenBucket(1, 1, burst=1)


def nothing(limiter: RateLimiter, permit: Permit) -> None: ...


def refused(limiter: RateLimiter, permit: Permit) -> None:
    with pytest.raises(LimitExceeded):
        limiter.acquire_nowait()


TOLD: dict[str, Told] = {
    "nothing": nothing,
    "settled up": lambda _, permit: permit.settle(3),
    "settled down": lambda _, permit: permit.settle(0),
    "refunded": lambda _, permit: permit.refund(),
    "penalized": lambda limiter, _: limiter.penalize(1),
    "tightened to nothing": lambda limiter, _: limiter.tighten(remaining=0),
    "tightened to more than there is": lambda limiter, _: limiter.tighten(remaining=10**6),
    "not paused, and resumed": lambda limiter, _: limiter.resume(),
    "asked": lambda limiter, _: (limiter.peek(), limiter.statistics(), repr(limiter)),
    "refused": refused,
    "the same again": lambda limiter, _: limiter.reconfigure(EVEN),
    "another rate": lambda limiter, _: limiter.reconfigure(TokenBucket(2, 1, burst=1)),
    "one more limit": lambda limiter, _: limiter.reconfigure(EVEN, "1000/h"),
    "slots": lambda limiter, _: limiter.reconfigure(EVEN, concurrency=100),
}


class Stall:
    """Twenty wait for their turns, one a second; the loop stands still from 0.5 to 11.5."""

    limiter: RateLimiter
    permit: Permit

    def __init__(self) -> None:
        self.gone = 0

    async def run(self, told: Callable[[Stall], object]) -> int:
        """Return how many have gone after the stall, once what is told has been."""
        self.limiter = RateLimiter(EVEN)
        async with anyio.create_task_group() as self.task_group:
            async with self.limiter.permit() as self.permit:
                pass

            for _ in range(20):
                self.task_group.start_soon(self._call)

            await anyio.sleep(0.5)
            stall(11)
            told(self)
            await wait_idle()
            gone = self.gone
            self.task_group.cancel_scope.cancel()

        return gone

    async def _call(self) -> None:
        async with self.limiter.permit():
            self.gone += 1
            await anyio.sleep_forever()


@pytest.mark.timing
@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD.keys())
async def test_what_is_told_takes_nothing_from_those_that_are_due(told: Told) -> None:
    gone = await Stall().run(lambda world: told(world.limiter, world.permit))
    assert gone == 11


@pytest.mark.timing
@pytest.mark.parametrize("priority", [-1, 0, 1])
async def test_a_newcomer_goes_after_those_that_are_due(priority: int) -> None:
    went: list[int] = []

    async def come(world: Stall) -> None:
        await world.limiter.acquire(priority=priority)
        went.append(world.gone)

    def told(world: Stall) -> None:
        world.task_group.start_soon(come, world)

    assert await Stall().run(told) == 11
    assert went == []


@pytest.mark.timing
class TestAPauseIsCreditedToNoTurn:
    @pytest.mark.parametrize(
        ("pauses", "resumed", "right"),
        [
            ([10.0], False, 1),
            ([5.0], False, 6),
            ([0.25], False, 11),
            ([3.0, 5.0], False, 6),
            ([10.0], True, 1),
            ([float("inf")], True, 1),
            ([float("inf")], False, 0),
        ],
    )
    async def test_what_is_due_is_due_at_its_end(
        self, pauses: list[float], resumed: bool, right: int
    ) -> None:
        """One goes at the pause's end, and one more in each second that follows."""
        limiter = RateLimiter(EVEN)
        gone: list[int] = []

        async def call(number: int) -> None:
            await limiter.acquire()
            gone.append(number)

        await limiter.acquire()
        async with anyio.create_task_group() as task_group:
            for number in range(20):
                task_group.start_soon(call, number)

            await anyio.sleep(0.5)
            for seconds in pauses:
                limiter.pause(seconds)

            stall(10.5)
            if resumed:
                limiter.resume()

            await wait_idle()
            task_group.cancel_scope.cancel()

        assert len(gone) == right

    async def test_a_pause_that_begins_after_the_stall_takes_the_credit(self) -> None:
        world = Stall()
        assert await world.run(lambda world: world.limiter.pause(5)) == 0

    async def test_the_short_way_is_open_again_after_a_resume(self) -> None:
        limiter = RateLimiter("5/s")
        limiter.pause()
        limiter.resume()
        await limiter.acquire()
        assert free_loop(limiter._line) is not None


@pytest.mark.timing
async def test_a_turn_that_is_handed_on_keeps_its_credit() -> None:
    """The first is cancelled in the step in which it is granted what was due at 1."""
    limiter = RateLimiter(EVEN)
    went: list[tuple[str, float]] = []
    scope = anyio.CancelScope()

    async def call(name: str) -> None:
        with scope if name == "first" else anyio.CancelScope():
            await limiter.acquire()
            went.append((name, anyio.current_time() - start))

    start = anyio.current_time()
    await limiter.acquire()
    async with anyio.create_task_group() as task_group:
        for name in ("first", "second", "third", "fourth"):
            task_group.start_soon(call, name)
            await wait_idle()

        stall(2.75)
        limiter.penalize(0)
        scope.cancel()

    assert sorted(went, key=lambda entry: entry[1]) in [
        [("second", 2.75), ("third", 2.75), ("fourth", 3.0)],
        [("third", 2.75), ("second", 2.75), ("fourth", 3.0)],
    ]
