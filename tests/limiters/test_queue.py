"""Those in line: their order, and how many there may be."""

from __future__ import annotations

import math
from unittest import mock

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import LimitExceeded, RateLimiter, ThrottleException, WindowTokenBucket
from anythrottle._limiters import queue as queue_module
from anythrottle._limiters.queue import TurnQueue
from anythrottle._limiters.turn import FRONT, Turn
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import Crowd, plain_fifo, tasks
from tests.properties import examples
from tests.sweep import Strike


def turn_at(priority: float, number: int) -> Turn:
    turn = Turn(1, (1,), ends=False)
    turn.place = (priority, number)
    return turn


class TestTurnQueue:
    @examples(100)
    @given(st.data())
    def test_it_is_what_a_sorted_list_is(self, data: st.DataObject) -> None:
        with mock.patch.object(queue_module, "_MOST", data.draw(st.sampled_from([2, 5, 1024]))):
            self.compare(data)

    def compare(self, data: st.DataObject) -> None:
        queue = TurnQueue()
        plain: list[Turn] = []
        popped = 0
        priorities = st.sampled_from([FRONT, -2, 0, 0, 1, 5])
        for number in range(data.draw(st.integers(1, 60), "steps")):
            act = data.draw(st.sampled_from(["add", "add", "pop", "remove"]), "act")
            if act == "add":
                # Some come back to where they were.
                number = data.draw(st.sampled_from([number, number, -number]), "number")  # noqa: PLW2901
                turn = turn_at(data.draw(priorities), number)
                queue.add(turn)
                plain = sorted([*plain, turn], key=place)
                assert turn.in_line
            elif act == "pop" and plain:
                assert queue.head is plain[0]
                queue.pop()
                popped += 1
                assert not plain.pop(0).in_line
            elif act == "remove" and plain:
                turn = plain.pop(data.draw(st.integers(0, len(plain) - 1)))
                queue.remove(turn)
                assert not turn.in_line

            assert len(queue) == len(plain)
            assert queue.popped == popped
            assert queue.head is (plain[0] if plain else None)
            assert [turn for block in queue.blocks for turn in block] == plain
            assert all(queue.blocks), "a block is empty"
            assert queue.ahead_of() == plain
            for priority in (FRONT, -3, -2, 0, 3, math.inf):
                ahead = [turn for turn in plain if place(turn)[0] <= priority]
                assert queue.ahead_of(priority) == ahead
                assert queue.count_ahead(priority) == len(ahead)

            for index, turn in enumerate(plain):
                assert queue.rank(place(turn)) == index + 1
                assert queue.ranked(index, index + 3) == plain[index : index + 3]

    def test_clearing_it_forgets_all(self) -> None:
        queue = TurnQueue()
        turns = [turn_at(number % 3, number) for number in range(3000)]
        for turn in turns:
            queue.add(turn)

        queue.remove(turns[4])
        queue.clear()
        assert (len(queue), queue.head, queue.ahead_of(), queue.blocks) == (0, None, [], [])
        queue.add(turns[5])
        assert (len(queue), queue.head) == (1, turns[5])

    def test_those_who_come_last_fill_one_block_after_the_other(self) -> None:
        queue = TurnQueue()
        with mock.patch.object(queue_module, "_MOST", 4):
            for number in range(10):
                queue.add(turn_at(0, number))

            assert [len(block) for block in queue.blocks] == [4, 4, 2]
            queue.pop()
            for number in range(10, 13):
                queue.add(turn_at(0, number))

        assert [len(block) for block in queue.blocks] == [3, 4, 4, 1]

    def test_those_who_stay_keep_their_order_when_the_others_leave(self) -> None:
        queue = TurnQueue()
        turns = [turn_at(number * 37 % 10_007, number) for number in range(5000)]
        for turn in turns:
            queue.add(turn)

        for turn in turns[50:]:
            queue.remove(turn)

        left = []
        while (turn_left := queue.head) is not None:
            left.append(turn_left)
            queue.pop()

        assert left == sorted(turns[:50], key=place)

    @pytest.mark.parametrize("backwards", [False, True])
    def test_who_has_left_takes_no_room(self, backwards: bool) -> None:
        queue = TurnQueue()
        turns = [turn_at(0, number) for number in range(3000)]
        for turn in turns:
            queue.add(turn)

        for turn in reversed(turns) if backwards else turns:
            queue.remove(turn)
            assert sum(map(len, queue.blocks)) == len(queue)

        assert queue.blocks == []
        assert queue.head is None

    @pytest.mark.parametrize("distinct", [False, True])
    def test_each_costs_a_few_looks_and_moves_few_others(self, distinct: bool) -> None:
        few = self.looks(500, distinct=distinct)
        many = self.looks(8000, distinct=distinct)
        # Four times as many twice: one look more for each doubling, when a turn joins, is counted
        # and leaves.
        assert many <= few + 3 * 4

    def looks(self, number: int, *, distinct: bool) -> float:
        """Count how many places are compared, for each turn that joins, is counted and leaves."""
        count = 0

        class Priority(float):
            def __eq__(self, other: object) -> bool:
                nonlocal count
                count += 1
                return super().__eq__(other)

            __hash__ = float.__hash__

        queue = TurnQueue()
        scattered = [index * 7919 % number * distinct for index in range(number)]
        turns = [turn_at(Priority(each), index) for index, each in enumerate(scattered)]
        for turn in turns:
            queue.add(turn)
            queue.count_ahead(place(turn)[0])
            assert max(map(len, queue.blocks)) <= 1024

        for turn in turns[::2]:
            queue.remove(turn)

        while queue.head is not None:
            queue.pop()

        return count / number


def place(turn: Turn) -> tuple[float, int]:
    return turn.place


@pytest.mark.timing
class TestMaxWaiting:
    async def test_so_many_may_wait_and_the_next_is_refused_at_once(self) -> None:
        limiter = RateLimiter("1/s", max_waiting=3)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(4))
            for _ in range(2):
                with pytest.raises(LimitExceeded) as raised:
                    await limiter.acquire()

                assert raised.value.decision.reason == "line"
                assert raised.value.retry_after == 4.0
                with pytest.raises(LimitExceeded):
                    await limiter.acquire(max_wait=1000)

            assert anyio.current_time() == 0.0
            assert limiter.statistics().tasks_waiting == 3
            # When one has gone, there is room for one.
            await anyio.sleep(1)
            await wait_idle()
            await crowd.join("late")
            with pytest.raises(LimitExceeded):
                await limiter.acquire()

        assert crowd.granted == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0, "late": 4.0}

    async def test_a_turn_that_is_due_is_granted_however_many_may_wait(self) -> None:
        limiter = RateLimiter("2/s", max_waiting=0)
        await limiter.acquire()
        await limiter.acquire()
        with pytest.raises(LimitExceeded) as raised:
            await limiter.acquire()

        assert (raised.value.decision.reason, raised.value.retry_after) == ("rate", 1.0)
        await anyio.sleep(1)
        await limiter.acquire(2)

    @pytest.mark.parametrize("shared", [False, True])
    async def test_nobody_may_wait_for_a_slot(self, shared: bool) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity if shared else 1, max_waiting=0)
        async with limiter:
            for context in (limiter, limiter.permit(), limiter.permit(max_wait=9)):
                with pytest.raises(LimitExceeded) as raised:
                    await context.__aenter__()

                assert raised.value.decision.reason == "concurrency"
                assert raised.value.retry_after == math.inf

            assert capacity.statistics().tasks_waiting == 0

        async with limiter:
            pass

        assert capacity.borrowed_tokens == 0

    async def test_who_leaves_makes_room(self) -> None:
        limiter = RateLimiter("1/s", max_waiting=2)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(0, 1, 2)
            await crowd.leave(1)
            await crowd.join(3)
            with pytest.raises(LimitExceeded):
                await limiter.acquire()

        assert crowd.granted == {0: 0.0, 2: 1.0, 3: 2.0}

    async def test_a_refusal_takes_nothing(self) -> None:
        limiter = RateLimiter("2/10s", max_waiting=0)
        limiter.pause(3)
        for _ in range(5):
            with pytest.raises(LimitExceeded) as raised:
                await limiter.acquire()

            assert (raised.value.decision.reason, raised.value.retry_after) == ("pause", 3.0)

        await anyio.sleep(3)
        limiter.acquire_nowait(2)
        assert limiter.peek().retry_after == 10.0

    @examples(80)
    @given(st.data())
    def test_who_is_refused_is_told_the_truth(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 5), "limit")
        window = data.draw(st.integers(1, 1024), "window") / 64
        most = data.draw(st.integers(0, 6), "max_waiting")
        costs = data.draw(st.lists(st.integers(0, limit), max_size=20), "costs")
        gaps = st.integers(0, 64).map(lambda n: n / 32)
        gap = data.draw(st.lists(gaps, min_size=len(costs), max_size=len(costs)), "gaps")
        pause = data.draw(st.sampled_from([0.0, 0.0, 2.5]), "pause")
        cost = data.draw(st.integers(0, limit), "cost")

        async def main() -> None:
            limiter = RateLimiter(WindowTokenBucket(limit, window), max_waiting=most)
            limiter.pause(pause)
            calls = []
            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                for number, each in enumerate(costs):
                    await anyio.sleep(gap[number])
                    await wait_idle()
                    statistics = limiter.statistics()
                    if statistics.tasks_waiting < most or limiter.peek(each).allowed:
                        calls.append((max(anyio.current_time(), pause), each))
                        await crowd.join(number, each)
                    else:
                        with pytest.raises(LimitExceeded):
                            await limiter.acquire(each)

                    assert limiter.statistics().tasks_waiting <= most

                now = anyio.current_time()
                if limiter.statistics().tasks_waiting < most or limiter.peek(cost).allowed:
                    return

                with pytest.raises(LimitExceeded) as raised:
                    await limiter.acquire(cost)

                due = now + raised.value.retry_after
                # It may only come back, as there is no room for it to wait.
                await anyio.sleep_until(due)
                await wait_idle()
                limiter.acquire_nowait(cost)

            calls.append((max(now, pause), cost))
            expected = plain_fifo(calls, limit, window)
            assert [*crowd.granted.values(), due] == expected

        # On a clock that starts at 0, so that the sums are exact.
        run(main)


@pytest.mark.timing
class TestWhoIsNoNewcomer:
    """Those who had their turn and lost it, or go again, are not refused for lack of room."""

    @pytest.mark.parametrize("max_waiting", [0, 1])
    async def test_a_turn_that_a_pause_takes_back(self, max_waiting: int) -> None:
        limiter = RateLimiter("5/10s", max_waiting=max_waiting, observer=lambda _: None)
        async with tasks():
            strike = Strike(1)
            strike.blow = lambda: limiter.pause(3)
            await strike.wrap(limiter.acquire())

        assert anyio.current_time() == 3.0

    async def test_a_turn_on_the_short_way_that_a_pause_takes_back(self) -> None:
        limiter = RateLimiter("5/10s", max_waiting=0)
        await limiter.acquire()
        async with tasks():
            strike = Strike(1)
            strike.blow = lambda: limiter.pause(3)
            await strike.wrap(limiter.acquire())

        assert anyio.current_time() == 3.0

    async def test_turns_from_the_line_that_a_pause_takes_back(self) -> None:
        limiter = RateLimiter("2/s", max_waiting=2)
        granted: list[float] = []

        async def call() -> None:
            await limiter.acquire()
            granted.append(anyio.current_time())

        async with tasks() as task_group:
            await limiter.acquire(2)
            for _ in range(2):
                task_group.start_soon(call)

            await wait_idle()
            stall(1)
            # Both are granted their turns, and have not resumed when the pause begins.
            limiter.resume()
            assert limiter.statistics().tasks_waiting == 0
            limiter.pause(5)
            await anyio.sleep(1)
            assert limiter.statistics().tasks_waiting == 2
            with pytest.raises(LimitExceeded):
                await limiter.acquire()

        assert granted == [6.0, 6.0]

    @pytest.mark.parametrize("max_waiting", [0, 1])
    @pytest.mark.parametrize("concurrency", [None, 1])
    async def test_a_retry(self, max_waiting: int, concurrency: int | None) -> None:
        limiter = RateLimiter("5/10s", max_waiting=max_waiting, concurrency=concurrency)
        starts: list[float] = []

        async def job() -> None:
            starts.append(anyio.current_time())
            if len(starts) == 1:
                await anyio.sleep(1)
                raise ThrottleException(retry_after=4)

        async with tasks() as task_group:
            task_group.start_soon(limiter.run, job)
            await anyio.sleep(1.5)
            # It waits for the end of the pause.
            assert (starts, limiter.statistics().tasks_waiting) == ([0.0], 1)

        assert starts == [0.0, 5.0]

    async def test_a_retry_when_the_line_is_full(self) -> None:
        limiter = RateLimiter("1/10s", max_waiting=1)
        starts: list[float] = []

        async def job() -> None:
            starts.append(anyio.current_time())
            if len(starts) == 1:
                await anyio.sleep(1)
                raise ThrottleException(retry_after=0)

        async with tasks() as task_group:
            task_group.start_soon(limiter.run, job)
            await wait_idle()
            crowd = Crowd(limiter, task_group)
            await crowd.join("other")

        assert starts == [0.0, 10.0]
        assert crowd.granted == {"other": 20.0}


class TestBadBounds:
    @pytest.mark.parametrize("value", [-1, -(10**30)])
    def test_too_small(self, value: int) -> None:
        with pytest.raises(ValueError, match=f"max_waiting must be at least 0, not {value}"):
            RateLimiter("1/s", max_waiting=value)

    @pytest.mark.parametrize("value", [True, False, 1.0, math.inf, math.nan, "3"])
    def test_no_int(self, value: int) -> None:
        with pytest.raises(TypeError, match=f"max_waiting must be an int, not {value!r}"):
            RateLimiter("1/s", max_waiting=value)
