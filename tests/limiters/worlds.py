"""
Twin worlds: the same limiter with the same past, in which one more caller does this or that.

All numbers are such that sums are exact: what is due at one instant by one reckoning is due at it
by any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import anyio
from hypothesis import strategies as st

from anythrottle import FixedWindow, RateLimiter, TokenBucket, WindowTokenBucket
from anythrottle.abc import Policy
from anythrottle.testing import wait_idle
from tests.limiters.tools import tasks

#: A multiple of any window used here, small enough for exact sums.
MIDNIGHT = 86_400.0 * 64


class WallClock:
    """A wall clock that goes with the running loop's clock, until it is set."""

    def __init__(self) -> None:
        self._shown = MIDNIGHT
        self._since = 0.0

    def now(self) -> float:
        return self._shown + (anyio.current_time() - self._since)

    def set(self, wall: float) -> None:
        self._shown, self._since = wall, anyio.current_time()


@contextmanager
def wall_clock(shown: float = MIDNIGHT) -> Iterator[WallClock]:
    """Let ``time.time`` go with the loop's clock from now on."""
    clock = WallClock()
    clock.set(shown)
    with mock.patch.object(time, "time", clock.now):
        yield clock


_eighths = st.integers(1, 80).map(lambda n: n / 8)
_limits = st.integers(1, 5)
_starts = st.builds(WindowTokenBucket, _limits, _eighths)
_ends = st.builds(WindowTokenBucket, _limits, _eighths, measure=st.just("end"))
_flows = st.builds(
    TokenBucket,
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0.5, 1.0, 4.0, 16.0]),
    burst=st.sampled_from([None, 1, 3, 6]),
)
_firsts = st.builds(FixedWindow, _limits, _eighths)
_quotas = st.builds(
    FixedWindow,
    _limits,
    _eighths,
    align=st.just("utc"),
    offset=st.integers(-16, 16).map(lambda n: n / 8),
)


@dataclass(frozen=True)
class Call:
    """One who came before: so long after the last one, perhaps to stay until all may go."""

    gap: float
    cost: int
    priority: int
    stays: bool


@dataclass(frozen=True)
class World:
    policies: tuple[Policy, ...]
    concurrency: int | None
    shared: bool
    past: list[Call]
    #: Before which of them a pause begins, and how long it is.
    pause: tuple[int, float]
    cost: int
    priority: int

    def limiter(self) -> RateLimiter:
        """Return a new limiter; within an event loop, as it may have a capacity limiter."""
        slots = self.concurrency
        if slots is not None and self.shared:
            return RateLimiter(*self.policies, concurrency=anyio.CapacityLimiter(slots))

        return RateLimiter(*self.policies, concurrency=slots)


def draw_world(data: Any, *, holding: bool = True) -> World:
    """Draw a world; without ``holding``, one whose limiter holds nothing while a call runs."""
    kinds = [_starts, _flows, _firsts, _quotas, *([_ends] if holding else [])]
    policies = data.draw(st.lists(st.one_of(kinds), min_size=1, max_size=3), "policies")
    most = min(int(policy.bucket().capacity) for policy in policies)
    costs = st.integers(0, most)
    slots = st.sampled_from([None, None, 1, 2, 3]) if holding else st.none()
    calls = st.builds(
        Call,
        st.sampled_from([0.0, 0.0, 0.0, 0.125, 0.5, 1.0, 3.25]),
        costs,
        st.sampled_from([0, 0, 0, -1, 1]),
        st.booleans() if holding else st.just(False),
    )
    past = data.draw(st.lists(calls, max_size=12), "past")
    pauses = st.sampled_from([0.0, 0.0, 0.25, 2.0, 5.5])
    return World(
        policies=tuple(policies),
        concurrency=data.draw(slots, "concurrency"),
        shared=data.draw(st.booleans(), "shared"),
        past=past,
        pause=(data.draw(st.integers(0, len(past)), "pause at"), data.draw(pauses, "pause")),
        cost=data.draw(costs, "cost"),
        priority=data.draw(st.sampled_from([0, 0, 0, -1, 1]), "priority"),
    )


@dataclass
class Story:
    """What has happened in a world."""

    limiter: RateLimiter
    world: World
    #: Set when whoever stays may go.
    go: anyio.Event = field(default_factory=anyio.Event)
    #: When each of those was granted its turn that came before, by number, and the caller.
    granted: dict[object, float] = field(default_factory=dict)
    #: When the caller came.
    came: float = 0.0
    #: How many were in line then.
    in_line: int = 0

    async def enter(self, name: object, cost: int, *, stays: bool = False, **options: Any) -> None:
        async with self.limiter.permit(cost, **options):
            self.granted[name] = anyio.current_time()
            if stays:
                await self.go.wait()

    async def call(self, **options: Any) -> None:
        """Take the caller's turn."""
        await self.enter("caller", self.world.cost, priority=self.world.priority, **options)


async def play(
    world: World,
    caller: Callable[[Story], Coroutine[Any, Any, None]] | None,
    *,
    stay: float = 0.0,
) -> Story:
    """
    Let a world come to pass, with a caller or without.

    :param caller: what the caller does, when all others have come
    :param stay: when those who stay let go, in seconds after the caller has come
    """
    story = Story(world.limiter(), world)
    before, seconds = world.pause
    with wall_clock(MIDNIGHT + 1.375):
        async with tasks() as task_group:
            for number, call in enumerate(world.past):
                await anyio.sleep(call.gap)
                if number == before:
                    story.limiter.pause(seconds)

                task_group.start_soon(_enter, story, number, call)
                await wait_idle()

            if before == len(world.past):
                story.limiter.pause(seconds)

            story.came = anyio.current_time()
            story.in_line = story.limiter.statistics().tasks_waiting
            if caller is not None:
                task_group.start_soon(caller, story)

            await wait_idle()
            await anyio.sleep(stay)
            story.go.set()

    return story


async def _enter(story: Story, number: int, call: Call) -> None:
    await story.enter(number, call.cost, stays=call.stays, priority=call.priority)
