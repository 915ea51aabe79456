"""Load shedding: who is refused if too many wait, by priority."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import CostTooHigh, LimitExceeded, RateLimiter, Refused, ThrottleException, amap
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import tasks
from tests.properties import examples

pytestmark = pytest.mark.timing


class Line:
    """Calls by name, and what has become of them."""

    def __init__(self, limiter: RateLimiter, tasks: Any) -> None:
        self.limiter = limiter
        self.tasks = tasks
        self.start = anyio.current_time()
        self.told: dict[str, float | LimitExceeded] = {}

    async def come(self, name: str, priority: int = 0, **options: Any) -> None:
        self.tasks.start_soon(self._call, name, priority, options)
        await wait_idle()

    async def _call(self, name: str, priority: int, options: dict[str, Any]) -> None:
        try:
            await self.limiter.acquire(priority=priority, **options)
        except LimitExceeded as exc:
            self.told[name] = exc
        else:
            self.told[name] = anyio.current_time() - self.start

    def refused(self) -> set[str]:
        return {name for name, told in self.told.items() if isinstance(told, LimitExceeded)}


async def test_the_last_in_line_is_refused_if_the_newcomer_goes_before_it() -> None:
    limiter = RateLimiter("1/10s", max_waiting=2)
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        for name in ("runs", "first", "second"):
            await line.come(name)

        await anyio.sleep(1)
        await line.come("urgent", -1)
        assert line.refused() == {"second"}
        error = line.told["second"]
        assert isinstance(error, LimitExceeded)
        assert error.decision.reason == "line"
        assert [state.remaining for state in error.quotas] == [0]
        assert limiter.statistics().tasks_waiting == 2

    assert line.told == {"runs": 0, "urgent": 10, "first": 20, "second": error}


async def test_else_the_newcomer_is() -> None:
    async with anyio.create_task_group() as tasks:
        line = Line(RateLimiter("1/10s", max_waiting=2), tasks)
        await line.come("runs")
        await line.come("first", 1)
        await line.come("second", 1)
        await line.come("as the others", 1)
        await line.come("later", 2)
        assert line.refused() == {"as the others", "later"}


async def test_the_only_one_in_line() -> None:
    async with anyio.create_task_group() as tasks:
        line = Line(RateLimiter("1/10s", max_waiting=1), tasks)
        await line.come("runs")
        for number in range(3):
            await line.come(f"priority {-number}", -number)

    assert line.refused() == {"priority 0", "priority -1"}
    assert line.told["priority -2"] == 10


async def test_where_nobody_may_wait_nobody_is_shed() -> None:
    async with anyio.create_task_group() as tasks:
        line = Line(RateLimiter("1/10s", max_waiting=0), tasks)
        await line.come("runs")
        await line.come("urgent", -1)
        assert line.refused() == {"urgent"}


async def test_who_seeks_a_slot_for_all() -> None:
    slots = anyio.CapacityLimiter(1)
    limiter = RateLimiter(concurrency=slots, max_waiting=1)
    begun: list[int] = []

    async def call(priority: int) -> None:
        try:
            async with limiter.permit(priority=priority):
                begun.append(priority)
                await anyio.sleep(1)
        except LimitExceeded:
            begun.append(priority + 100)

    async with anyio.create_task_group() as tasks:
        for priority in (0, -1, -2):
            tasks.start_soon(call, priority)
            await wait_idle()

    assert begun == [0, 99, -2]
    assert slots.borrowed_tokens == 0


async def test_those_that_are_due_are_served_first() -> None:
    async with anyio.create_task_group() as tasks:
        line = Line(RateLimiter("1/10s", max_waiting=1), tasks)
        await line.come("runs")
        await line.come("due")
        await anyio.sleep(9)
        stall(2)
        await line.come("urgent", -1)
        await anyio.sleep(15)

    assert line.refused() == set()
    assert line.told == {"runs": 0, "due": 11, "urgent": 21}


async def test_who_cannot_come_in_time_sheds_nobody() -> None:
    async with anyio.create_task_group() as tasks:
        line = Line(RateLimiter("1/10s", max_waiting=1), tasks)
        await line.come("runs")
        await line.come("waits")
        await line.come("in a hurry", -1, max_wait=5)
        assert line.refused() == {"in a hurry"}


async def test_the_observer_is_told_of_the_one_that_is_refused() -> None:
    events: list[Any] = []
    limiter = RateLimiter("1/10s", max_waiting=1, observer=events.append)
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        await line.come("runs")
        tasks.start_soon(limiter.acquire, 1)
        await wait_idle()
        tasks.cancel_scope.cancel()

    events.clear()
    limiter = RateLimiter("2/10s", max_waiting=1, observer=events.append)
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        await line.come("runs", cost=2)
        await line.come("shed", cost=2)
        events.clear()
        await line.come("urgent", -1)
        assert [type(event) for event in events] == [Refused]
        assert events[0].cost == 2


class TestObserversThatAct:
    """They are told when the line is in order again."""

    async def shed(self, act: Any, limit: str = "10/10s") -> tuple[dict[str, Any], RateLimiter]:
        def observe(event: object) -> None:
            if isinstance(event, Refused):
                act(limiter)

        limiter = RateLimiter(limit, max_waiting=1, observer=observe)
        limiter.pause(100)
        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            await line.come("shed", 5)
            await line.come("urgent", 1)

        assert line.refused() == {"shed"}
        return line.told, limiter

    async def test_one_that_resumes(self) -> None:
        told, limiter = await self.shed(lambda limiter: limiter.resume())
        assert told["urgent"] == 0
        assert limiter.peek().remaining == 9

    async def test_one_that_reconfigures(self) -> None:
        told, limiter = await self.shed(lambda limiter: limiter.reconfigure("3/10s", "9/60s"))
        assert told["urgent"] == 100
        assert [state.remaining for state in limiter.quotas()] == [2, 8]

    async def test_one_that_makes_it_impossible(self) -> None:
        events: list[object] = []

        def observe(event: object) -> None:
            events.append(event)
            if isinstance(event, Refused):
                limiter.reconfigure("1/10s")

        limiter = RateLimiter("2/10s", max_waiting=1, observer=observe)
        limiter.pause(10)
        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            await line.come("shed", 5)
            with pytest.raises(CostTooHigh):
                await limiter.acquire(2)

        assert line.refused() == {"shed"}


class TestWhoIsNot:
    async def test_a_retry(self) -> None:
        limiter = RateLimiter("1/10s", concurrency=1, max_waiting=1)
        attempts: list[float] = []

        async def job() -> None:
            attempts.append(anyio.current_time())
            if len(attempts) == 1:
                raise ThrottleException(retry_after=0)

        async with anyio.create_task_group() as tasks:
            line = Line(RateLimiter("1/s"), tasks)
            line.limiter = limiter
            tasks.start_soon(limiter.run, job)
            await wait_idle()
            with pytest.raises(LimitExceeded):
                await limiter.run(job, priority=-(10**9))

        assert len(attempts) == 2

    @pytest.mark.parametrize("max_wait", [None, 100])
    async def test_who_waits_when_a_retry_comes_but_a_newcomer_then(
        self, max_wait: float | None
    ) -> None:
        limiter = RateLimiter("1/10s", max_waiting=1)
        attempts: list[float] = []

        async def job() -> None:
            attempts.append(anyio.current_time())
            if len(attempts) == 1:
                await anyio.sleep(1)
                raise ThrottleException(retry_after=0)

        begun: list[float] = []

        async def wait() -> None:
            await limiter.acquire()
            begun.append(anyio.current_time())

        async with tasks() as task_group:
            task_group.start_soon(partial(limiter.run, job, max_wait=max_wait))
            await wait_idle()
            task_group.start_soon(wait)
            await anyio.sleep(2)
            assert limiter.statistics().tasks_waiting == 2
            with pytest.raises(LimitExceeded):
                await limiter.acquire()

        assert (attempts, begun) == ([0.0, 10.0], [20.0])

    async def test_an_engine_s(self) -> None:
        limiter = RateLimiter("1/10s", max_waiting=1)
        results: list[int] = []

        async def call(number: int) -> int:
            return number

        async def run() -> None:
            results.extend(await amap(call, range(3), limiter=limiter))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await wait_idle()
            assert limiter.statistics().tasks_waiting == 1
            # It counts, and is not shed.
            with pytest.raises(LimitExceeded):
                await limiter.acquire(priority=-1)

        assert results == [0, 1, 2]

    async def test_an_engine_s_that_comes_when_the_line_is_full(self) -> None:
        limiter = RateLimiter("1/10s", max_waiting=1)
        results: list[int] = []

        async def call(number: int) -> int:
            return number

        async def run() -> None:
            results.extend(await amap(call, range(2), limiter=limiter))

        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            await line.come("runs")
            await line.come("waits", 1)
            tasks.start_soon(run)

        assert line.told == {"runs": 0, "waits": 30}
        assert results == [0, 1]

    async def test_a_turn_that_was_called_back(self) -> None:
        limiter = RateLimiter("2/10s", max_waiting=1)
        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            await line.come("first")
            await line.come("second")
            await line.come("granted", 5)
            await anyio.sleep(9)
            stall(1)
            limiter.resume()
            # It has its turn, and has not resumed.
            assert limiter.statistics().tasks_waiting == 0
            limiter.pause(5)
            await wait_idle()
            with pytest.raises(LimitExceeded):
                await limiter.acquire()

        assert line.told["granted"] == 15

    async def test_a_turn_that_reconfigure_takes_back(self) -> None:
        limiter = RateLimiter("2/10s", max_waiting=1)
        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            await line.come("first")
            await line.come("second")
            await line.come("granted", 5)
            await anyio.sleep(9)
            stall(1)
            limiter.resume()
            limiter.reconfigure("2/30s")
            await wait_idle()
            with pytest.raises(LimitExceeded):
                await limiter.acquire()

        assert line.told["granted"] == 30


@examples(80)
@given(st.integers(0, 4), st.lists(st.tuples(st.integers(-2, 2), st.booleans()), max_size=25))
def test_the_line_is_the_best_that_have_come(
    run: Run, most: int, comers: list[tuple[int, bool]]
) -> None:
    """Of those that wait, nobody stands behind a place that was refused, if both came in time."""

    async def main() -> None:
        limiter = RateLimiter("1/10s", max_waiting=most)
        waiting: list[tuple[int, int]] = []
        refused: list[tuple[int, int]] = []
        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            await line.come("runs")
            for number, (priority, passes) in enumerate(comers):
                if passes:
                    await anyio.sleep(10)
                    waiting = sorted(waiting)[1:]
                    if not limiter.statistics().tasks_waiting and limiter.peek().allowed:
                        await line.come(f"through {number}")

                await line.come(str(number), priority)
                waiting = sorted([*waiting, (priority, number)])
                refused += waiting[most:]
                del waiting[most:]
                assert line.refused() == {str(place[1]) for place in refused}
                assert limiter.statistics().tasks_waiting == len(waiting)

    run(main)
