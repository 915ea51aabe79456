"""The short ways past an empty line: what they come to is what the long way comes to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    FixedWindow,
    Granted,
    LimitExceeded,
    RateLimiter,
    Reconfigured,
    TokenBucket,
    WindowTokenBucket,
)
from anythrottle._limiters.short_ways import free_loop
from anythrottle.abc import Event, Policy
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.conftest import Run
from tests.limiters.tools import Crowd, left, permit_of, tasks
from tests.properties import examples

#: The end of a pause so long ago that it makes no difference to anything.
LONG_AGO = -1e300


#: What is added to each gap, so that nothing is done in the instant of a timer: Trio may run either
#: first.
APART = 2**-10


class Step(NamedTuple):
    """What is done next."""

    #: How long after what was done before, in quarters of a second.
    gap: int
    verb: str
    cost: int
    #: For how long a call runs, or a pause takes, in quarters of a second.
    quarters: int


class World:
    """Calls to a limiter, and all that can be told from outside of it."""

    def __init__(self, limiter: RateLimiter, *, shut: bool) -> None:
        self.limiter = limiter
        self.shut = shut
        self.log: list[Any] = []
        #: When each call began. Trio may shuffle those of one instant.
        self.begun: dict[int, float] = {}

    def shut_the_short_ways(self) -> None:
        if self.shut:
            self.limiter._gate.pause_until(LONG_AGO)

    async def call(self, number: int, step: Step) -> None:
        verb = "acquire" if step.verb == "cancelled" else step.verb
        if verb == "acquire" and self.limiter._gate.holds:
            verb = "permit"

        with anyio.CancelScope() as scope:
            if step.verb == "cancelled":
                scope.cancel()

            if verb == "acquire":
                await self.limiter.acquire(step.cost)
                self.begin(number)
            elif verb == "run":
                await self.limiter.run(self.run, number, step.quarters / 4, cost=step.cost)
            elif verb == "enter" and (permit := permit_of(self.limiter, step.cost)).enter_now():
                await self.run(number, step.quarters / 4)
                permit.leave()
            else:
                async with self.limiter.permit(step.cost) as permit:
                    self.begin(number)
                    if verb == "settled":
                        permit.settle(max(step.cost - 1, 0))

                    await anyio.sleep(step.quarters / 4)

    async def run(self, number: int, seconds: float) -> None:
        self.begin(number)
        await anyio.sleep(seconds)

    def begin(self, number: int) -> None:
        self.begun[number] = anyio.current_time()

    async def play(self, script: Sequence[Step]) -> list[Any]:
        async with tasks() as task_group:
            for number, step in enumerate(script):
                await anyio.sleep(step.gap / 4 + APART)
                self.shut_the_short_ways()
                if step.verb == "nowait":
                    self.take_now(step.cost)
                elif step.verb == "pause":
                    self.limiter.pause(step.quarters / 4)
                else:
                    task_group.start_soon(self.call, number, step)

                await wait_idle()
                self.log.append((self.limiter.peek(), self.limiter.statistics()))

        return [*self.log, self.begun, anyio.current_time(), self.limiter.quotas()]

    def take_now(self, cost: int) -> None:
        if not self.limiter._gate.holds:
            try:
                self.limiter.acquire_nowait(cost)
            except LimitExceeded as exc:
                self.log.append(exc.decision)


class Kind(NamedTuple):
    """What a limiter is made of."""

    policies: list[Policy]
    slots: int | None
    fast: bool
    observed: bool


#: Most ways are open to these.
starting: st.SearchStrategy[Policy] = st.sampled_from(
    [
        WindowTokenBucket(4, 2.0),
        TokenBucket(4, 2.0),
        TokenBucket(4, 2.0, burst=3),
        FixedWindow(4, 2.0),
    ]
)

policies = st.one_of(starting, st.just(WindowTokenBucket(4, 2.0, measure="end")))

kinds = st.one_of(
    st.builds(
        Kind,
        st.lists(starting, min_size=1, max_size=2),
        st.none(),
        st.sampled_from([False, False, False, True]),
        st.just(value=False),
    ),
    st.builds(
        Kind,
        st.lists(policies, max_size=2),
        st.sampled_from([None, 1, 2]),
        st.booleans(),
        st.booleans(),
    ),
)

scripts = st.lists(
    st.builds(
        Step,
        gap=st.sampled_from([1, 0, 3, 9]),
        verb=st.sampled_from(
            [
                "acquire",
                "acquire",
                "cancelled",
                "cancelled",
                "permit",
                "enter",
                "enter",
                "run",
                "settled",
                "nowait",
                "pause",
            ]
        ),
        cost=st.sampled_from([1, 1, 2, 3, 0]),
        quarters=st.integers(0, 5),
    ),
    min_size=4,
    max_size=20,
)


@examples(60)
@given(kinds, scripts)
def test_they_come_to_what_the_long_way_comes_to(run: Run, kind: Kind, script: list[Step]) -> None:
    async def main(*, shut: bool) -> tuple[list[Any], list[str]]:
        events: list[Event] = []
        limiter = RateLimiter(
            *kind.policies,
            concurrency=kind.slots,
            fast_acquire=kind.fast,
            observer=events.append if kind.observed else None,
        )
        return await World(limiter, shut=shut).play(script), sorted(map(repr, events))

    assert run(main, shut=False) == run(main, shut=True)


@pytest.mark.timing
class TestWhenTheyAreOpen:
    async def test_from_the_first_call_on(self) -> None:
        limiter = RateLimiter("5/10s")
        assert limiter._line.clock.latest is None
        loop = free_loop(limiter._line)
        assert loop is not None
        assert loop is limiter._line.clock.latest

    async def test_who_comes_to_wait_after_all_has_a_place_already(self) -> None:
        limiter = RateLimiter("5/10s")
        await limiter.acquire()
        before = limiter._line.scheduler.arrivals
        assert free_loop(limiter._line) is not None
        assert limiter._line.scheduler.arrivals == before + 1

    async def test_not_while_anybody_waits(self) -> None:
        limiter = RateLimiter("1/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("first", "second")
            assert free_loop(limiter._line) is None

        assert free_loop(limiter._line) is not None

    async def test_not_after_a_pause_until_somebody_has_gone_the_long_way(self) -> None:
        limiter = RateLimiter("5/10s")
        await limiter.acquire()
        limiter.pause(1)
        assert free_loop(limiter._line) is None
        await anyio.sleep(1)
        assert free_loop(limiter._line) is None
        await limiter.acquire()
        assert free_loop(limiter._line) is not None

    @pytest.mark.parametrize("unit", ["attempts", "tokens"])
    async def test_not_without_the_unit_where_another_one_than_calls_is_counted(
        self, unit: str
    ) -> None:
        limiter = RateLimiter(f"5 {unit}/10s")
        await limiter.acquire({unit: 2})
        for cost in (1, 2):
            with pytest.raises(ValueError, match=unit):
                await limiter.acquire(cost)

        assert left(limiter) == [3]

    @pytest.mark.parametrize("instant", [LONG_AGO, 0.0, math.inf])
    async def test_not_with_any_end_of_a_pause(self, instant: float) -> None:
        limiter = RateLimiter("5/10s")
        await limiter.acquire()
        limiter._gate.pause_until(instant)
        assert free_loop(limiter._line) is None


def test_not_in_another_loop(run: Run) -> None:
    limiter = RateLimiter("5/10s")
    run(limiter.acquire)

    async def main() -> None:
        assert free_loop(limiter._line) is None

    run(main)


@pytest.mark.timing
class TestTheObserver:
    """It is told after the checkpoint, once for each call."""

    @pytest.fixture
    def told(self) -> list[Event]:
        return []

    @pytest.fixture
    async def limiter(self, told: list[Event]) -> RateLimiter:
        limiter = RateLimiter("5/10s", observer=told.append)
        await limiter.acquire()
        return limiter

    @pytest.fixture
    def meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Let something happen while calls of a limiter are at their checkpoints."""

        def meanwhile(limiter: RateLimiter, function: Callable[[], object]) -> None:
            loop = limiter._line.clock.latest
            assert loop is not None
            checkpoint = loop.checkpoint

            async def passed() -> None:
                await checkpoint()
                function()

            monkeypatch.setattr(loop, "checkpoint", passed)

        return meanwhile

    async def test_a_stall_is_a_wait(
        self, limiter: RateLimiter, told: list[Event], meanwhile: Callable[..., None]
    ) -> None:
        meanwhile(limiter, lambda: stall(2))
        await limiter.acquire(3)
        assert told[1:] == [Granted(None, 3, 2.0)]

    async def test_other_policies_are_waited_for_anew(
        self, limiter: RateLimiter, told: list[Event], meanwhile: Callable[..., None]
    ) -> None:
        meanwhile(limiter, lambda: limiter.reconfigure("1/10s", concurrency=None))
        await limiter.acquire()
        assert [type(event) for event in told[1:]] == [Reconfigured, Granted]
        assert told[-1] == Granted(None, 1, 10.0)


def test_an_observer_is_told_once_of_a_call_in_a_loop_that_was_left() -> None:
    told: list[Event] = []
    limiter = RateLimiter("5/10s", observer=told.append)
    left, other = VirtualEventLoop(), VirtualEventLoop()

    async def start() -> asyncio.Task[None]:
        # The loop stands still when the call is at its checkpoint.
        return asyncio.create_task(limiter.acquire(2))

    async def finish(call: asyncio.Task[None]) -> None:
        await call

    with closing(left), closing(other):
        call = left.run_until_complete(start())
        other.run_until_complete(limiter.acquire())
        assert told == [Granted(None, 1, 0.0)]
        left.run_until_complete(finish(call))
        assert told[1:] == [Granted(None, 2, 0.0)]
