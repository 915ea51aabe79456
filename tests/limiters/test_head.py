"""The head of the line: whose task sleeps on behalf of all, and whose seeks a shared slot."""

from __future__ import annotations

import math

import anyio
import pytest

from anythrottle._limiters.forecast import Forecasts
from anythrottle._limiters.head import Head
from anythrottle._limiters.local_gate import LocalGate
from anythrottle._limiters.queue import TurnQueue
from anythrottle._limiters.scheduling import Scheduler
from anythrottle._limiters.slots import Slot, Slots
from anythrottle._limiters.turn import Turn
from anythrottle._loops.clock import LoopClock, loop_of, native_loop
from anythrottle.testing import wait_idle

pytestmark = pytest.mark.timing


class Line:
    """A line without a limiter: its head, and what it was served with."""

    def __init__(self, slots: Slots | None = None) -> None:
        clock = LoopClock(lambda _: None, "the line")
        gate, queue = LocalGate((), slots or Slots(), clock), TurnQueue()
        self.scheduler = Scheduler(gate, queue, Forecasts(gate, queue))
        self.head = Head(self.scheduler)
        self.loop = loop_of(native_loop())
        self.begun = self.loop.time()
        self.served: list[float] = []
        self.spare: object = None
        self.arrivals = 0

    def join(self, due: float) -> Turn:
        """Let a turn join in front of all others, that is due in so many seconds."""
        self.arrivals -= 1
        turn = Turn(1, (), ends=True)
        turn.place, turn.loop, turn.due = (0, self.arrivals), self.loop, self.begun + due
        self.scheduler.join(turn)
        return turn

    async def watch(self, turn: Turn) -> None:
        await self.head.watch(turn, self.loop, self.loop.time(), self.serve)

    def serve(self, now: float, spare: object = None, *, watcher: Turn | None = None) -> None:
        self.served.append(now - self.begun)
        self.spare = spare
        self.scheduler.due = math.inf
        if watcher is not None:
            watcher.granted = True

    def must_wake(self, turn: Turn, due: float) -> bool:
        return self.head.must_wake(turn, self.begun + due)

    @property
    def passed(self) -> float:
        return self.loop.time() - self.begun


class TestSleep:
    async def test_until_the_line_is_due(self) -> None:
        line = Line()
        await line.watch(line.join(due=5))
        assert line.served == [line.passed] == [5]

    async def test_one_that_is_due_is_served_at_once(self) -> None:
        line = Line()
        await line.watch(line.join(due=0))
        assert line.served == [line.passed] == [0]

    async def test_until_the_turn_gives_up(self) -> None:
        line = Line()
        turn = line.join(due=5)
        turn.give_up = line.begun + 3
        await line.watch(turn)
        assert (line.served, line.passed) == ([], 3)

    async def test_until_it_is_woken(self) -> None:
        line = Line()
        sleeper = line.join(due=5)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, sleeper)
            await anyio.sleep(2)
            sleeper.wake()

        assert (line.served, line.passed) == ([], 2)

    async def test_whether_it_would_be_for_too_long(self) -> None:
        line = Line()
        sleeper = line.join(due=5)
        assert line.must_wake(sleeper, 3), "nobody sleeps: it has to be woken"
        assert not line.must_wake(sleeper, math.inf), "there is nothing to wait for"
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, sleeper)
            await wait_idle()
            assert line.must_wake(sleeper, 3)
            assert not line.must_wake(sleeper, 5)
            assert line.must_wake(line.join(due=7), 7), "another turn has come to be the head"

        assert line.must_wake(sleeper, 7), "it does not sleep any more"

    async def test_who_is_cancelled_sleeps_no_more(self) -> None:
        line = Line()
        sleeper = line.join(due=5)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, sleeper)
            await wait_idle()
            task_group.cancel_scope.cancel()

        assert line.must_wake(sleeper, 7)

    async def test_an_earlier_sleeper_that_wakes_leaves_the_next_one_alone(self) -> None:
        line = Line()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, line.join(due=1))
            await wait_idle()
            second = line.join(due=5)
            task_group.start_soon(line.watch, second)
            await anyio.sleep(2)
            assert not line.must_wake(second, 5)
            assert line.served == [], "it is not the head any more"


class TestSeek:
    """A slot of a capacity limiter, of which others hold the only one."""

    @pytest.fixture
    async def capacity(self) -> anyio.CapacityLimiter:
        capacity = anyio.CapacityLimiter(1)
        capacity.acquire_on_behalf_of_nowait(self)
        return capacity

    def line(self, capacity: anyio.CapacityLimiter) -> tuple[Line, Turn]:
        """Return a line, and its head, which is due but for a slot."""
        line = Line(Slots(shared=capacity))
        turn = line.join(due=math.inf)
        line.scheduler.wants_slot = True
        assert line.must_wake(turn, math.inf)
        return line, turn

    async def test_one_comes(self, capacity: anyio.CapacityLimiter) -> None:
        line, turn = self.line(capacity)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, turn)
            await wait_idle()
            assert not line.must_wake(turn, math.inf)
            capacity.release_on_behalf_of(self)

        assert isinstance(line.spare, Slot)
        assert line.must_wake(turn, math.inf)
        assert capacity.statistics().borrowers == (line.spare,)

    async def test_the_turn_gives_up(self, capacity: anyio.CapacityLimiter) -> None:
        line, turn = self.line(capacity)
        turn.give_up = line.begun + 3
        await line.watch(turn)
        assert line.spare is None
        assert line.passed == 3
        assert line.must_wake(turn, math.inf), "it is for another one to seek"
        assert capacity.statistics().tasks_waiting == 0

    @pytest.mark.parametrize("whose", ["its own", "all"])
    async def test_it_is_sought_no_longer(
        self, capacity: anyio.CapacityLimiter, whose: str
    ) -> None:
        line, turn = self.line(capacity)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, turn)
            await wait_idle()
            line.head.stop_seeking(Turn(1, (), ends=True))
            assert not line.must_wake(turn, math.inf), "that was another turn"
            line.head.stop_seeking(turn if whose == "its own" else None)
            assert line.must_wake(turn, math.inf)

        assert line.spare is None
        assert capacity.statistics().tasks_waiting == 0

    async def test_slots_that_have_been_exchanged_meanwhile(
        self, capacity: anyio.CapacityLimiter
    ) -> None:
        line, turn = self.line(capacity)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, turn)
            await wait_idle()
            line.scheduler.gate.slots.resize(1, None)
            capacity.release_on_behalf_of(self)

        assert line.spare is None
        assert capacity.borrowed_tokens == 0

    async def test_who_is_cancelled_seeks_no_more(self, capacity: anyio.CapacityLimiter) -> None:
        line, turn = self.line(capacity)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(line.watch, turn)
            await wait_idle()
            task_group.cancel_scope.cancel()

        assert line.must_wake(turn, math.inf), "it is for another one to seek"
        assert capacity.statistics().tasks_waiting == 0
