"""The line: order, work conservation, cancellation at every suspension, wake-ups."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    LimitExceeded,
    RateLimiter,
    RateLimiterStatistics,
    TokenBucket,
    WindowTokenBucket,
)
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import (
    BLOWS,
    Blow,
    Counts,
    Crowd,
    Victim,
    assert_exact,
    plain_fifo,
    set_clock,
    sweep_with,
    tasks,
)
from tests.properties import examples
from tests.sweep import Strike

windows = st.one_of(st.sampled_from([0.1, 0.3, 1.0, 10.0, 1 / 3]), st.floats(1e-3, 1e3))

IDLE = RateLimiterStatistics(
    tasks_waiting=0, borrowed_tokens=0, total_tokens=math.inf, paused_for=0.0
)


@pytest.mark.timing
@pytest.mark.promise("G4")
class TestOrder:
    async def test_first_come_first_served(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(10))

        assert list(crowd.granted.items()) == [(number, float(number)) for number in range(10)]

    async def test_lower_priority_numbers_go_first(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for name, priority in [("first", 5), ("b", 0), ("c", 1), ("a", -1), ("b2", 0)]:
                await crowd.join(name, priority=priority)

        assert list(crowd.granted.items()) == [
            ("first", 0.0),
            ("a", 1.0),
            ("b", 2.0),
            ("b2", 3.0),
            ("c", 4.0),
        ]

    async def test_a_large_cost_is_not_starved_by_small_ones(self) -> None:
        limiter = RateLimiter("10/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("one", 1)
            await anyio.sleep(1)
            await crowd.join("all", 10)
            for number in range(50):
                await crowd.join(number)
                with pytest.raises(LimitExceeded):
                    limiter.acquire_nowait()

                await anyio.sleep(0.1)

        assert list(crowd.granted)[:2] == ["one", "all"]
        assert crowd.granted["all"] == 10.0
        assert crowd.granted[0] == 20.0

    async def test_nobody_barges_while_the_granted_have_yet_to_resume(self) -> None:
        limiter = RateLimiter("2/s", fast_acquire=True)
        got: list[str] = []

        async def call(name: str) -> None:
            await limiter.acquire()
            got.append(name)

        async with tasks() as task_group:
            await limiter.acquire(2)
            task_group.start_soon(call, "in line")
            await wait_idle()
            task_group.start_soon(call, "in line")
            task_group.start_soon(call, "in line")
            await anyio.sleep(1)
            # All that is due has been granted or is about to be; newcomers come after.
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait(2)

            task_group.start_soon(call, "newcomer")

        assert got == ["in line"] * 3 + ["newcomer"]

    async def test_zero_cost_waits_its_turn_in_line_too(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b")
            await crowd.join("free", 0)
            await crowd.join("c")

        assert crowd.granted == {"a": 0.0, "b": 1.0, "free": 1.0, "c": 2.0}

    async def test_zero_cost_in_line_takes_nothing_of_a_steady_flow(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 1, burst=1))
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b")
            await crowd.join("free", 0)
            await crowd.join("c")
            # Late, so that those in line are credited from when they were due.
            stall(1.5)

        assert crowd.granted == {"a": 0.0, "b": 1.5, "free": 1.5, "c": 2.0}

    async def test_a_small_call_of_better_priority_passes_a_large_head_at_once(self) -> None:
        limiter = RateLimiter("10/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first", 5)
            await anyio.sleep(1)
            await crowd.join("large", 10)
            await crowd.join("small", 3, priority=-1)

        # The large one waits for what the small one took.
        assert crowd.granted == {"first": 0.0, "small": 1.0, "large": 11.0}

    async def test_the_head_that_was_passed_takes_over_when_the_new_head_leaves(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("first", "second")
            await crowd.join("urgent", priority=-1)
            await crowd.leave("urgent")

        assert crowd.granted == {"first": 0.0, "second": 1.0}

    async def test_a_call_on_the_short_way_keeps_its_place_when_a_pause_begins(self) -> None:
        limiter = RateLimiter("2/s")
        await limiter.acquire()
        came: list[int] = []
        granted: dict[int, float] = {}

        async def call(number: int) -> None:
            came.append(number)
            await limiter.acquire(number)
            granted[number] = anyio.current_time()

        async with tasks() as task_group:
            # The first passes its checkpoint, the second queues up behind it.
            task_group.start_soon(call, 1)
            task_group.start_soon(call, 2)
            await checkpoint()
            limiter.pause(5)

        assert [granted[number] for number in came] == [5.0, 6.0]


@pytest.mark.promise("G3", "G4")
class TestAgainstThePlainList:
    """G3 and G4: each grant exactly when the reference says."""

    def grants(
        self, run: Run, limit: int, window: float, calls: list[tuple[float, int]]
    ) -> tuple[list[tuple[float, int]], list[float]]:
        """Let calls come after gaps of time; return arrivals with costs, and when each went."""
        arrivals: list[tuple[float, int]] = []

        async def main() -> dict[object, float]:
            limiter = RateLimiter(WindowTokenBucket(limit, window))
            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                for number, (gap, cost) in enumerate(calls):
                    await anyio.sleep(gap)
                    arrivals.append((anyio.current_time(), cost))
                    await crowd.join(number, cost)

            assert limiter.statistics() == IDLE
            return crowd.granted

        granted = run(main)
        return arrivals, [granted[number] for number in range(len(calls))]

    @examples(80)
    @given(st.data())
    def test_round_numbers_agree_exactly(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 6), "limit")
        window = data.draw(st.integers(1, 4096), "window") / 256
        gaps = st.one_of(st.just(0.0), st.just(window), st.integers(0, 4096).map(lambda n: n / 512))
        calls = data.draw(st.lists(st.tuples(gaps, st.integers(1, limit)), max_size=25), "calls")
        arrivals, granted = self.grants(run, limit, window, calls)
        assert granted == plain_fifo(arrivals, limit, window)

    @examples(80)
    @given(st.data())
    def test_odd_numbers_agree_to_the_last_digit(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 6), "limit")
        window = data.draw(windows, "window")
        gaps = st.floats(0.0, 2.0).map(lambda part: part * window)
        calls = data.draw(st.lists(st.tuples(gaps, st.integers(1, limit)), max_size=25), "calls")
        arrivals, granted = self.grants(run, limit, window, calls)
        for index, instant in enumerate(granted):
            due = plain_fifo(arrivals[: index + 1], limit, window, granted[:index])[-1]
            assert due <= instant <= due + 2 * math.ulp(due)

        assert_exact(
            [(at, cost) for at, (_, cost) in zip(granted, arrivals, strict=True)], limit, window
        )

    @examples(50)
    @given(st.data())
    def test_who_leaves_is_as_if_it_had_never_come(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 4), "limit")
        window = data.draw(st.integers(1, 4096), "window") / 256
        costs = data.draw(st.lists(st.integers(1, limit), min_size=1, max_size=20), "costs")
        priorities = st.lists(st.integers(-1, 1), min_size=len(costs), max_size=len(costs))
        priority = data.draw(priorities, "priorities")
        leavers = data.draw(st.sets(st.sampled_from(range(len(costs)))), "leavers")
        order = data.draw(st.permutations(sorted(leavers)), "in this order")

        async def main() -> dict[object, float]:
            limiter = RateLimiter(WindowTokenBucket(limit, window))
            async with tasks() as task_group:
                await limiter.acquire(limit)
                crowd = Crowd(limiter, task_group)
                for number, cost in enumerate(costs):
                    await crowd.join(number, cost, priority=priority[number])

                for number in order:
                    await crowd.leave(number)

                assert limiter.statistics().tasks_waiting == len(costs) - len(leavers)

            assert limiter.statistics() == IDLE
            return crowd.granted

        granted = run(main)
        stayed = [number for number in range(len(costs)) if number not in leavers]
        stayed.sort(key=priority.__getitem__)
        calls = [(0.0, limit), *((0.0, costs[number]) for number in stayed)]
        expected = plain_fifo(calls, limit, window)[1:]
        assert granted == dict(zip(stayed, expected, strict=True))


@pytest.mark.timing
@pytest.mark.promise("G3")
class TestWorkConservation:
    async def test_after_a_stall_all_that_is_due_is_granted_at_once(self) -> None:
        limiter = RateLimiter("3/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for number in range(12):
                await crowd.join(number)
                await anyio.sleep(0.1)

            await wait_idle()
            # 0 to 2 at 0.0, 0.1 and 0.2, 3 to 5 a second later each.
            stall(100)

        late = [at for at in crowd.granted.values() if at > 50]
        first, *_ = late
        assert late[:3] == [first] * 3
        assert late[3:] == [first + 1] * len(late[3:])

    async def test_a_stall_between_grant_and_resumption_crowds_no_window(self) -> None:
        limiter = RateLimiter("1/s")
        granted: list[float] = []

        async def call() -> None:
            await limiter.acquire()
            granted.append(anyio.current_time())
            # Whoever is to resume next does so late.
            stall(0.75)

        async with tasks() as task_group:
            for _ in range(5):
                task_group.start_soon(call)

        assert all(later - earlier >= 1 for earlier, later in pairwise(granted))

    async def test_the_next_in_line_watches_as_soon_as_a_grant_begins(self) -> None:
        # The token is held until the granted task resumes; only then is it known when it is back.
        limiter = RateLimiter("1/s", fast_acquire=True)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for name in range(4):
                task_group.start_soon(crowd._call, name, 1, {})

        assert list(crowd.granted.values()) == [0.0, 1.0, 2.0, 3.0]

    async def test_who_queues_up_behind_a_call_at_its_checkpoint_is_served(self) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        await anyio.sleep(1)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for name in range(4):
                task_group.start_soon(crowd._call, name, 1, {})

        assert list(crowd.granted.values()) == [1.0, 2.0, 3.0, 4.0]

    async def test_many_pauses_in_a_row_do_not_make_the_head_late(self) -> None:
        limiter = RateLimiter()
        limiter.pause(1.0)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("head")
            for _ in range(40):
                await anyio.sleep(0.75)
                limiter.pause(1.0)

        assert crowd.granted == {"head": 31.0}

    async def test_a_grant_that_a_pause_takes_back_is_for_the_head(self) -> None:
        limiter = RateLimiter("1/s")
        # On Trio, the order in which they come is another one each time.
        for _ in range(20):
            entered: list[str] = []

            async def call(name: str, priority: int, entered: list[str] = entered) -> None:
                async with limiter.permit(priority=priority):
                    entered.append(name)

            async def pause() -> None:
                limiter.pause(5)

            async with tasks() as task_group:
                # It is granted a turn, and passes a checkpoint,
                task_group.start_soon(call, "first", 0)
                # while the next one waits for what the first holds.
                task_group.start_soon(call, "urgent", -1)
                task_group.start_soon(pause)

            assert sorted(entered) == ["first", "urgent"]
            await anyio.sleep(1)

    async def test_a_refund_is_for_those_in_line(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            async with limiter.permit() as permit:
                await crowd.join("next")
                await anyio.sleep(0.5)
                permit.refund()
                await wait_idle()
                assert crowd.granted == {"next": 0.5}

    @pytest.mark.parametrize("seconds", [3600, math.inf])
    async def test_a_head_that_sleeps_is_woken_to_seek_a_shared_slot(self, seconds: float) -> None:
        shared = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=shared)
        limiter.pause(seconds)
        granted: list[float] = []

        async def head() -> None:
            async with limiter:
                granted.append(anyio.current_time())

        async with tasks() as task_group:
            task_group.start_soon(head)
            await wait_idle()
            async with shared:
                limiter.resume()
                await anyio.sleep(1)

            await wait_idle()
            assert granted == [1.0]

    async def test_a_pause_that_takes_a_grant_back_wakes_the_head_when_it_ends(self) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(partial(limiter.acquire, priority=5))
            await wait_idle()
            stall(1.5)
            # Granted to the one in line, which does not resume before the pause. Meanwhile
            # somebody comes who goes first, and waits for what that one holds.
            limiter.resume()
            strike = Strike(1)
            strike.blow = partial(limiter.pause, 10)
            with anyio.fail_after(100):
                await strike.wrap(limiter.acquire(priority=-1))

            assert anyio.current_time() == 11.5


async def take(limiter: RateLimiter, seconds: float) -> None:
    """Take a turn as the limiter's kind demands, and hold it for a while."""
    async with limiter:
        await anyio.sleep(seconds)


@pytest.mark.promise("G5")
class TestCancellationSweeps:
    """G5: cancelled at every suspension there is, nothing is lost and nothing doubled."""

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("fast", [False, True], ids=["checkpoint", "fast"])
    @pytest.mark.parametrize("before", [0, 1, 2], ids=["head", "second", "third"])
    def test_acquire_in_line(self, blow: Blow, fast: bool, before: int) -> None:
        limit, window = 2, 10.0

        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter(WindowTokenBucket(limit, window), fast_acquire=fast)
            got: list[float] = []

            async def prey() -> None:
                await limiter.acquire()
                got.append(anyio.current_time())

            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                await limiter.acquire(2)
                await crowd.join_all(*range(before))
                task_group.start_soon(victim.run, prey())
                await wait_idle()
                await crowd.join_all("x", "y", "z")

            alive = before + 3 + len(got)
            due = [window * (1 + number // limit) for number in range(alive)]
            expected = dict(
                zip([*range(before), *["victim"][: len(got)], "x", "y", "z"], due, strict=True)
            )
            if got:
                assert got == [expected.pop("victim")]

            assert crowd.granted == expected
            await assert_whole(limiter, limit, window)

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
    def test_acquire_that_needs_not_wait(self, blow: Blow, used: bool) -> None:
        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter("2/10s")
            came: list[str] = []
            granted: dict[str, float] = {}

            async def call(name: str, cost: int) -> None:
                came.append(name)
                await limiter.acquire(cost)
                granted[name] = anyio.current_time()

            if used:
                await limiter.acquire()
                await anyio.sleep(10)

            begun = anyio.current_time()
            async with tasks() as task_group:
                task_group.start_soon(victim.run, call("victim", 2))
                # They come while the victim passes its checkpoint; on Trio, perhaps before it.
                task_group.start_soon(call, "x", 1)
                task_group.start_soon(call, "y", 1)

            names = [name for name in came if name in granted]
            calls = [(begun, 2 if name == "victim" else 1) for name in names]
            assert {*names} >= {"x", "y"}
            assert granted == dict(zip(names, plain_fifo(calls, 2, 10.0), strict=True))
            await assert_whole(limiter, 2, 10.0)

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.parametrize("blow", BLOWS)
    def test_acquire_that_is_granted_and_paused(self, blow: Blow) -> None:
        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter("2/10s")
            got: list[float] = []

            async def prey() -> None:
                await limiter.acquire()
                got.append(anyio.current_time())

            async def pauser() -> None:
                await anyio.sleep(10)
                limiter.pause(5)

            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                await limiter.acquire(2)
                task_group.start_soon(victim.run, prey())
                await wait_idle()
                await crowd.join("x")
                task_group.start_soon(pauser)

            # Those who had not resumed when the pause began wait for its end.
            assert set(got) <= {10.0, 15.0}
            assert crowd.granted["x"] in {10.0, 15.0}
            await anyio.sleep(5)
            await assert_whole(limiter, 2, 10.0)

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("fast", [False, True], ids=["checkpoint", "fast"])
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    @pytest.mark.parametrize("enter", ["permit", "async with"])
    @pytest.mark.parametrize("before", [0, 1, 2], ids=["free", "head", "second"])
    def test_slots(self, blow: Blow, fast: bool, shared: bool, enter: str, before: int) -> None:
        async def scenario(victim: Victim) -> None:
            capacity = anyio.CapacityLimiter(1)
            limiter = RateLimiter(
                "100/1000s", concurrency=capacity if shared else 1, fast_acquire=fast
            )
            log: list[tuple[str, str, float]] = []

            async def call(name: str) -> None:
                async with limiter if enter == "async with" else limiter.permit():
                    log.append((name, "in", anyio.current_time()))
                    try:
                        await anyio.sleep(1)
                    finally:
                        log.append((name, "out", anyio.current_time()))

            async with tasks() as task_group:
                for name in "ab"[:before]:
                    task_group.start_soon(call, name)
                    await wait_idle()

                task_group.start_soon(victim.run, call("victim"))
                await wait_idle()
                for name in "xyz":
                    task_group.start_soon(call, name)
                    await wait_idle()

            entered = [name for name, what, _ in log if what == "in"]
            names = [*"ab"[:before], "victim", *"xyz"]
            assert entered == [name for name in names if name in entered]
            assert set(names) - set(entered) <= {"victim"}
            # One at a time, each as soon as the one before it has left.
            assert [what for _, what, _ in log] == ["in", "out"] * len(entered)
            left = 0.0
            for (_, _, came), (name, _, went) in zip(log[::2], log[1::2], strict=True):
                assert came == left
                assert went == came + 1 or name == "victim"
                left = went

            assert capacity.borrowed_tokens == 0
            assert capacity.statistics().tasks_waiting == 0
            assert limiter.peek().remaining == 100 - len(entered)
            statistics = limiter.statistics()
            assert (statistics.tasks_waiting, statistics.borrowed_tokens) == (0, 0)
            assert limiter._gate.slots.holders == {}
            await take(limiter, 0)

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    @pytest.mark.parametrize("measure", ["start", "end"])
    def test_tokens_and_slots(self, blow: Blow, shared: bool, measure: Any) -> None:
        async def scenario(victim: Victim) -> None:
            capacity = anyio.CapacityLimiter(2)
            policy = WindowTokenBucket(2, 10, measure=measure)
            limiter = RateLimiter(policy, concurrency=capacity if shared else 2)
            entered: list[tuple[str, float]] = []

            async def call(name: str, seconds: float) -> None:
                async with limiter.permit():
                    entered.append((name, anyio.current_time()))
                    await anyio.sleep(seconds)

            async with tasks() as task_group:
                for name in ("a", "b"):
                    task_group.start_soon(call, name, 0)
                    await wait_idle()

                task_group.start_soon(victim.run, call("victim", 20.0))
                await wait_idle()
                for name in "xy":
                    task_group.start_soon(call, name, 1)
                    await wait_idle()

            through = any(name == "victim" for name, _ in entered)
            assert [name for name, _ in entered if name != "victim"] == ["a", "b", "x", "y"]
            times = dict(entered)
            assert times["x"] == 10.0
            if not through:
                assert times["y"] == 10.0

            assert capacity.borrowed_tokens == 0
            assert limiter.statistics().borrowed_tokens == 0
            await anyio.sleep(10)
            assert limiter.peek().remaining == 2

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.parametrize("blow", BLOWS)
    def test_the_seeker_of_a_shared_slot(self, blow: Blow) -> None:
        async def scenario(victim: Victim) -> None:
            capacity = anyio.CapacityLimiter(1)
            limiter = RateLimiter(concurrency=capacity)
            entered: list[tuple[str, float]] = []

            async def call(name: str, priority: int) -> None:
                async with limiter.permit(priority=priority):
                    entered.append((name, anyio.current_time()))
                    await anyio.sleep(1)

            async with tasks() as task_group:
                outsider = object()
                await capacity.acquire_on_behalf_of(outsider)
                # The victim waits in the capacity limiter's own line, on behalf of all.
                task_group.start_soon(victim.run, call("victim", 0))
                await wait_idle()
                task_group.start_soon(call, "urgent", -1)
                await wait_idle()
                task_group.start_soon(call, "next", 0)
                await anyio.sleep(5)
                capacity.release_on_behalf_of(outsider)

            assert [name for name, _ in entered if name != "victim"] == ["urgent", "next"]
            assert entered[0] == ("urgent", 5.0)
            assert capacity.borrowed_tokens == 0
            assert capacity.statistics().tasks_waiting == 0

        assert sweep_with(blow, scenario) >= 2


async def assert_whole(limiter: RateLimiter, limit: int, window: float) -> None:
    """Check that nothing is held, and that after a window the full burst is there."""
    assert limiter.statistics() == IDLE
    await anyio.sleep(window)
    assert limiter.peek(limit).allowed
    limiter.acquire_nowait(limit)
    assert limiter.peek().retry_after == window


@pytest.mark.promise("G5")
class TestCancellation:
    async def test_a_cancelled_scope_makes_every_acquire_raise_and_take_nothing(self) -> None:
        limiter = RateLimiter("5/s", concurrency=None)
        for _ in range(3):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await limiter.acquire()
                pytest.fail("it was no checkpoint")

            assert scope.cancelled_caught
            assert limiter.peek().remaining == 5

    @pytest.mark.parametrize("concurrency", [None, 1])
    async def test_a_cancelled_scope_lets_nobody_in(self, concurrency: int | None) -> None:
        limiter = RateLimiter("5/s", concurrency=concurrency)
        for context in (limiter, limiter.permit(), limiter.permit(0)):
            with anyio.CancelScope() as scope:
                scope.cancel()
                async with context:
                    pytest.fail("it was no checkpoint")

            assert scope.cancelled_caught

        assert limiter.peek().remaining == 5
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.parametrize("fast", [False, True])
    async def test_in_a_cancelled_scope_nobody_waits(self, fast: bool) -> None:
        limiter = RateLimiter("1/h", fast_acquire=fast)
        await limiter.acquire()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire()

        assert scope.cancelled_caught
        assert limiter.statistics().tasks_waiting == 0

    async def test_others_run_during_an_acquire(self) -> None:
        limiter = RateLimiter("1000/s")
        ran = 0

        async def other() -> None:
            nonlocal ran
            for _ in range(100):
                ran += 1
                await checkpoint()

        async with tasks() as task_group:
            task_group.start_soon(other)
            await checkpoint()
            for _ in range(20):
                before = ran
                # On Trio, the other may be second in one round and first in the next.
                await limiter.acquire()
                await limiter.acquire()
                assert ran > before

    async def test_a_fast_acquire_that_needs_not_wait_is_no_checkpoint(self) -> None:
        limiter = RateLimiter("10/h", fast_acquire=True)
        held = RateLimiter("10/h", concurrency=2, fast_acquire=True)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(3):
                await limiter.acquire()
                async with held:
                    pass

                async with held.permit():
                    pass

            done = True

        assert done
        assert limiter.peek().remaining == 7
        assert held.peek().remaining == 4

    @pytest.mark.timing
    async def test_an_acquire_that_comes_due_as_it_looks_is_a_checkpoint(self) -> None:
        limiter = RateLimiter("1/s")
        # The clock moves on from one reading to the next, as real ones do.
        set_clock(limiter, 0.0, 0.9, 1.1)
        limiter.acquire_nowait()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire()
            pytest.fail("it was no checkpoint")

        assert scope.cancelled_caught

    @pytest.mark.timing
    async def test_a_late_cancellation_of_the_head_hands_the_watch_on(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("first", "head", "next")
            await anyio.sleep(0.5)
            await crowd.leave("head")

        assert crowd.granted == {"first": 0.0, "next": 1.0}

    @pytest.mark.timing
    async def test_a_seeker_of_a_shared_slot_that_leaves_hands_the_search_on(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        entered: list[tuple[str, float]] = []
        scopes = {"seeker": anyio.CancelScope(), "urgent": anyio.CancelScope()}

        async def call(name: str, priority: int) -> None:
            with scopes[name]:
                async with limiter.permit(priority=priority):
                    entered.append((name, anyio.current_time()))

        async with tasks() as task_group:
            outsider = object()
            await capacity.acquire_on_behalf_of(outsider)
            task_group.start_soon(call, "seeker", 0)
            await wait_idle()
            task_group.start_soon(call, "urgent", -1)
            await wait_idle()
            scopes["seeker"].cancel()
            await anyio.sleep(1)
            capacity.release_on_behalf_of(outsider)

        assert entered == [("urgent", 1.0)]
        assert capacity.borrowed_tokens == 0

    @pytest.mark.timing
    async def test_all_leave_and_a_newcomer_is_not_made_to_wait(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(100))
            for number in range(99, 0, -1):
                await crowd.leave(number)

            assert limiter.statistics().tasks_waiting == 0
            await crowd.join("newcomer")

        assert crowd.granted == {0: 0.0, "newcomer": 1.0}


@pytest.mark.timing
@pytest.mark.promise("G7")
class TestWakeUps:
    """G7: one wake per grant, and at most one more per batch."""

    async def test_one_wake_per_grant_and_one_more_per_batch(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter = RateLimiter("50/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(1000))
            counts = Counts(monkeypatch)

        assert list(crowd.granted.values()) == [float(number // 50) for number in range(1000)]
        batches = 19
        assert counts.wakes <= 950 + batches
        # A timer's wake-up is one, too: whoever is woken without a grant parks once more.
        assert counts.parks <= 2 * batches

    @pytest.mark.parametrize("window", [1.0, 0.001])
    async def test_a_line_with_slots_wakes_each_once(
        self, monkeypatch: pytest.MonkeyPatch, window: float
    ) -> None:
        limiter = RateLimiter(WindowTokenBucket(1000, window), concurrency=10)
        entered = 0

        async def call() -> None:
            nonlocal entered
            async with limiter:
                entered += 1
                await anyio.sleep(0.01)

        async with tasks() as task_group:
            for _ in range(500):
                task_group.start_soon(call)

            await wait_idle()
            counts = Counts(monkeypatch)

        assert entered == 500
        assert counts.wakes == 490
        assert counts.parks == 0

    async def test_5_000_waiters_of_which_every_other_one_is_cancelled(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter = RateLimiter("500/s")
        await limiter.acquire(500)
        scopes = [anyio.CancelScope() for _ in range(5_000)]
        granted: list[tuple[int, float]] = []

        async def call(number: int) -> None:
            with scopes[number]:
                await limiter.acquire(priority=number)
                granted.append((number, anyio.current_time()))

        counts = Counts(monkeypatch)
        async with tasks() as task_group:
            for number in range(5_000):
                task_group.start_soon(call, number)

            await wait_idle()
            assert limiter.statistics().tasks_waiting == 5_000
            for scope in scopes[1::2]:
                scope.cancel()

            await wait_idle()
            assert limiter.statistics().tasks_waiting == 2_500

        granted.sort()
        due = [(number, 1.0 + number // 1000) for number in range(0, 5_000, 2)]
        assert granted == due
        assert counts.wakes <= 2_500 + 2 * 5
        assert counts.parks <= 5_000 + 20
        assert limiter.statistics() == IDLE

    async def test_those_who_have_left_are_cleared_away(self) -> None:
        limiter = RateLimiter("1/h")
        await limiter.acquire()
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("head")
            for number in range(1000):
                await crowd.join(number)
                await crowd.leave(number)
                assert sum(map(len, limiter._line.queue.blocks)) == len(limiter._line.queue) == 1

    async def test_after_a_pause_a_turn_costs_what_it_did_before(self) -> None:
        limiter = RateLimiter("1000/s", fast_acquire=True)

        async def acquire() -> int:
            await limiter.acquire()
            calls = 0

            def profile(_frame: FrameType, event: str, _argument: object) -> None:
                nonlocal calls
                calls += event == "call"

            before = sys.getprofile()
            sys.setprofile(profile)
            try:
                await limiter.acquire()
            finally:
                sys.setprofile(before)

            return calls

        usual = await acquire()
        limiter.pause(1)
        await anyio.sleep(1)
        assert await acquire() == usual

    @pytest.mark.parametrize("cancel", ["none", "every other", "from the front", "from the back"])
    def test_the_cost_is_linear(self, run: Run, cancel: str) -> None:
        async def main(number: int) -> None:
            limiter = RateLimiter("100/s")
            scopes = [anyio.CancelScope() for _ in range(number)]

            async def call(index: int) -> None:
                with scopes[index]:
                    await limiter.acquire(priority=index)

            async with tasks() as task_group:
                await limiter.acquire(100)
                for index in range(number):
                    task_group.start_soon(call, index)

                await wait_idle()
                victims = {
                    "none": range(0),
                    "every other": range(0, number, 2),
                    "from the front": range(number - 1),
                    "from the back": range(number - 1, 0, -1),
                }
                for index in victims[cancel]:
                    scopes[index].cancel()

        few = count_calls(partial(run, main, 250))
        many = count_calls(partial(run, main, 1_000))
        assert many <= 4.4 * few, "four times the waiters cost far more than four times as much"


def count_calls(function: Callable[[], object]) -> int:
    """Count the calls of functions of this library's limiters and policies."""
    count = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event == "call" and "/anythrottle/_" in frame.f_code.co_filename.replace("\\", "/"):
            count += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)

    return count
