"""G1 and G2, what a limiter takes and refuses, pauses, and defects that others have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unittest import mock

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    CostTooHigh,
    FixedWindow,
    LimitExceeded,
    RateLimiter,
    RateLimiterStatistics,
    ThrottleException,
    TokenBucket,
    WindowTokenBucket,
    abc,
)
from anythrottle._limiters import rate_limiter
from anythrottle._limiters.rate_limiter import as_limiter
from anythrottle.abc import Policy
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import (
    Counts,
    Crowd,
    Grant,
    assert_exact,
    latest_start,
    tasks,
    turn_back,
)
from tests.properties import examples

#: Windows that are no round numbers in floats.
odd_windows = st.one_of(
    st.sampled_from([0.1, 0.3, 0.7, 1 / 3, math.pi, 10.0, 86_400.0, 1e-6]), st.floats(1e-4, 1e4)
)


class Chaos:
    """A crowd that arrives, leaves, stalls the loop and pauses the limiter, as a script says."""

    def __init__(self, limiter: RateLimiter, window: float) -> None:
        self.limiter = limiter
        self.window = window
        self.grants: list[Grant] = []

    async def perform(self, script: list[tuple[str, float, int]]) -> list[Grant]:
        async with tasks() as task_group:
            for verb, part, cost in script:
                seconds = part * self.window
                if verb == "wait":
                    await anyio.sleep(seconds)
                elif verb == "stall":
                    stall(seconds)
                elif verb == "stall later":
                    task_group.start_soon(self._stall_after, seconds)
                elif verb == "pause":
                    self.limiter.pause(seconds)
                elif verb == "resume":
                    self.limiter.resume()
                elif verb == "nowait":
                    self._take_now(cost)
                elif verb == "come and stall":
                    task_group.start_soon(self._call, cost, math.inf, seconds)
                elif verb == "come and go":
                    task_group.start_soon(self._call, cost, seconds, 0.0)
                else:
                    task_group.start_soon(self._call, cost, math.inf, 0.0)

        return self.grants

    def _take_now(self, cost: int) -> None:
        try:
            self.limiter.acquire_nowait(cost)
        except LimitExceeded:
            return

        self.grants.append((anyio.current_time(), cost))

    async def _call(self, cost: int, patience: float, hang: float) -> None:
        with anyio.move_on_after(patience):
            await self.limiter.acquire(cost, priority=cost % 2)
            self.grants.append((anyio.current_time(), cost))
            stall(hang)

    async def _stall_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        stall(self.window / 3)


VERBS = [
    *("come", "come", "come and go", "come and stall", "nowait"),
    *("wait", "stall", "stall later", "pause", "resume"),
]

#: Parts of a window: odd ones, and those at which something falls due.
parts = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), st.floats(0.0, 1.5))


@pytest.mark.promise("G1")
class TestExact:
    """G1: no window ever holds more than the limit."""

    @examples(150)
    @given(st.data())
    def test_whatever_happens(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 6), "limit")
        window = data.draw(odd_windows, "window")
        steps = st.tuples(st.sampled_from(VERBS), parts, st.integers(1, limit))
        script = data.draw(st.lists(steps, min_size=5, max_size=40), "script")
        fast = data.draw(st.booleans(), "fast")

        async def main() -> list[Grant]:
            limiter = RateLimiter(WindowTokenBucket(limit, window), fast_acquire=fast)
            grants = await Chaos(limiter, window).perform(script)
            assert limiter.statistics().tasks_waiting == 0
            return grants

        assert_exact(run(main), limit, window)

    @examples(8)
    @given(st.data())
    def test_with_so_many_charges_that_neighbours_are_merged(
        self, run: Run, data: st.DataObject
    ) -> None:
        limit = data.draw(st.integers(1_001, 1_500), "limit")
        window = data.draw(odd_windows, "window")
        gaps = data.draw(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=10), "rhythm")
        stalls = data.draw(st.sets(st.integers(0, 2 * limit), max_size=5), "stalls")

        async def main() -> list[float]:
            limiter = RateLimiter(WindowTokenBucket(limit, window), fast_acquire=True)
            grants: list[float] = []
            with anyio.fail_after(1e13):
                for number in range(2 * limit + 100):
                    stall(gaps[number % len(gaps)] * window / limit)
                    if number in stalls:
                        stall(window / 7)

                    await limiter.acquire()
                    grants.append(anyio.current_time())

            return grants

        grants = run(main)
        for first, next_ in zip(grants, grants[limit:], strict=False):
            assert next_ - first >= window
            assert first + window <= next_

    @examples(50)
    @given(st.data())
    def test_with_concurrency(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 5), "limit")
        slots = data.draw(st.integers(1, 3), "slots")
        shared = data.draw(st.booleans(), "shared")
        window = data.draw(odd_windows, "window")
        calls = data.draw(
            st.lists(st.tuples(parts, parts, st.integers(0, limit)), max_size=25), "calls"
        )

        async def main() -> None:
            capacity = anyio.CapacityLimiter(slots)
            limiter = RateLimiter(
                WindowTokenBucket(limit, window), concurrency=capacity if shared else slots
            )
            grants: list[Grant] = []
            running = 0

            async def call(cost: int, seconds: float, patience: float) -> None:
                nonlocal running
                with anyio.move_on_after(patience):
                    async with limiter.permit(cost):
                        grants.append((anyio.current_time(), cost))
                        running += 1
                        assert running <= slots
                        try:
                            await anyio.sleep(seconds)
                        finally:
                            running -= 1

            async with tasks() as task_group:
                for number, (gap, length, cost) in enumerate(calls):
                    await anyio.sleep(gap * window / 2)
                    patience = math.inf if number % 3 else 1.5 * window
                    task_group.start_soon(call, cost, length * window, patience)

            assert_exact(grants, limit, window)
            assert limiter.statistics().borrowed_tokens == 0
            assert limiter.statistics().tasks_waiting == 0
            assert capacity.borrowed_tokens == 0

        run(main)

    async def test_on_a_real_clock_too(self) -> None:
        window = 0.02
        limiter = RateLimiter(WindowTokenBucket(5, window))
        grants: list[tuple[float, int]] = []

        async def call() -> None:
            await limiter.acquire()
            # From the grant to a reading of the clock, any time may pass.
            grants.append((latest_start(limiter), 1))
            assert grants[-1][0] <= limiter._line.clock.loop().time()

        async with tasks() as task_group:
            for _ in range(23):
                task_group.start_soon(call)

        assert_exact(grants, 5, window)


@pytest.mark.promise("G2")
class TestExactAtTheServer:
    """G2: with measure="end", wherever in the call the server counts it."""

    @examples(100)
    @given(st.data())
    def test_for_any_choice_of_instants(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 5), "limit")
        window = data.draw(odd_windows, "window")
        calls = data.draw(
            st.lists(
                st.tuples(parts, parts, st.integers(1, limit), st.sampled_from(["", "", "stall"])),
                max_size=25,
            ),
            "calls",
        )

        async def main() -> list[tuple[float, float, int]]:
            limiter = RateLimiter(WindowTokenBucket(limit, window, measure="end"))
            blocks: list[tuple[float, float, int]] = []

            async def call(cost: int, seconds: float, hang: str) -> None:
                async with limiter.permit(cost):
                    begun = anyio.current_time()
                    await anyio.sleep(seconds)
                    if hang:
                        stall(window / 3)

                    blocks.append((begun, anyio.current_time(), cost))

            async with tasks() as task_group:
                for gap, length, cost, hang in calls:
                    await anyio.sleep(gap * window / 2)
                    task_group.start_soon(call, cost, length * window, hang)

            assert len(blocks) == len(calls)
            assert limiter.statistics().borrowed_tokens == 0
            return blocks

        blocks = run(main)
        # The worst choice: each window that begins with the end of a call, with all that reach in.
        for _, start, _ in blocks:
            reach_in = [
                cost
                for begun, ended, cost in blocks
                if ended >= start and (begun - start < window or begun < start + window)
            ]
            assert sum(reach_in) <= limit

        # And some random choices, judged as grants are.
        choose = st.floats(0.0, 1.0)
        for _ in range(3):
            instants = [
                (min(begun + data.draw(choose, "place") * (ended - begun), ended), cost)
                for begun, ended, cost in blocks
            ]
            assert_exact(instants, limit, window)

    @pytest.mark.timing
    async def test_measure_start_does_not_promise_it(self) -> None:
        limiter = RateLimiter("1/10s")
        blocks: list[tuple[float, float]] = []
        for length in (9.0, 1.0):
            async with limiter:
                begun = anyio.current_time()
                await anyio.sleep(length)
                blocks.append((begun, anyio.current_time()))

        (_, end_of_first), (start_of_second, _) = blocks
        assert start_of_second - end_of_first == 1.0


class TestParameters:
    @pytest.mark.parametrize("value", [0, -1])
    def test_concurrency_below_1(self, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^concurrency must be at least 1, not {value}$"):
            RateLimiter("5/s", concurrency=value)

    @pytest.mark.parametrize("value", [1.5, 1.0, True, False, "1", math.inf])
    def test_concurrency_that_is_no_int(self, value: Any) -> None:
        message = "^concurrency must be an int or a CapacityLimiter, not "
        with pytest.raises(TypeError, match=message) as raised:
            RateLimiter("5/s", concurrency=value)

        assert repr(value) in str(raised.value)

    @pytest.mark.parametrize("text", ["20 in 10s", "0/s", "20/0s", ""])
    def test_a_text_that_is_no_limit(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not a limit") as raised:
            RateLimiter("5/s", text)

        assert repr(text) in str(raised.value)

    @pytest.mark.parametrize("policy", [5, None, (5, 1), WindowTokenBucket])
    def test_what_is_no_policy(self, policy: Any) -> None:
        with pytest.raises(TypeError, match="a policy must be a Policy or a text such as"):
            RateLimiter(policy)

    @pytest.mark.parametrize("priority", [1.0, "1", None, True])
    async def test_priority_that_is_no_int(self, priority: Any) -> None:
        limiter = RateLimiter("5/h")
        for _ in range(2):
            with pytest.raises(TypeError, match=r"^priority must be an int, not ") as raised:
                await limiter.acquire(priority=priority)

            assert repr(priority) in str(raised.value)
            with pytest.raises(TypeError, match=r"^priority must be an int, not "):
                limiter.permit(priority=priority)

            await limiter.acquire()

        assert limiter.peek().remaining == 3

    @pytest.mark.parametrize("seconds", ["1", True, 1j])
    def test_a_pause_that_is_no_number(self, seconds: Any) -> None:
        with pytest.raises(TypeError, match=r"^seconds must be a number of seconds, not "):
            RateLimiter().pause(seconds)

    @pytest.mark.parametrize("seconds", [-1, -1e-9, math.nan, -math.inf])
    def test_a_pause_out_of_range(self, seconds: float) -> None:
        limiter = RateLimiter()
        with pytest.raises(ValueError, match=r"^seconds must be at least 0, in") as raised:
            limiter.pause(seconds)

        assert repr(seconds) in str(raised.value)
        assert limiter.statistics().paused_for == 0

    def test_options_are_named(self) -> None:
        with pytest.raises(TypeError):
            RateLimiter("5/s", 5)  # type: ignore[arg-type]


class TestHolding:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: RateLimiter("5/s", concurrency=2),
            lambda: RateLimiter(concurrency=anyio.CapacityLimiter(2)),
            lambda: RateLimiter("5/s", WindowTokenBucket(5, 1, measure="end")),
        ],
        ids=["int", "CapacityLimiter", "measure=end"],
    )
    async def test_a_limiter_that_holds_refuses_acquire_and_names_permit(
        self, make: Callable[[], RateLimiter]
    ) -> None:
        limiter = make()
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"^acquire\(\) is for limiters .*permit\("):
                await limiter.acquire()

            with pytest.raises(RuntimeError, match=r"^acquire_nowait\(\) is for .*permit\("):
                limiter.acquire_nowait()

            async with limiter, limiter.permit(0):
                assert limiter.statistics().borrowed_tokens == 2

        assert limiter.statistics().borrowed_tokens == 0

    async def test_a_limiter_that_holds_nothing_takes_both(self) -> None:
        limiter = RateLimiter("5/h")
        await limiter.acquire()
        limiter.acquire_nowait()
        async with limiter, limiter.permit():
            assert limiter.statistics().borrowed_tokens == 0

        assert limiter.peek().remaining == 1

    async def test_it_can_be_entered_more_than_once_by_one_task(self) -> None:
        limiter = RateLimiter(concurrency=3)
        async with limiter:
            async with limiter, limiter:
                assert limiter.statistics().borrowed_tokens == 3

            assert limiter.statistics().borrowed_tokens == 1

        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.timing
    async def test_it_is_entered_with_priority_0(self) -> None:
        limiter = RateLimiter("1/s")
        entered: list[float] = []

        async def enter() -> None:
            async with limiter:
                entered.append(anyio.current_time())

        async with tasks() as task_group:
            await limiter.acquire()
            crowd = Crowd(limiter, task_group)
            await crowd.join("before")
            await crowd.join("behind", priority=1)
            task_group.start_soon(enter)

        assert crowd.granted == {"before": 1.0, "behind": 3.0}
        assert entered == [2.0]

    async def test_it_can_be_left_by_another_task(self) -> None:
        limiter = RateLimiter(concurrency=2)
        async with tasks() as task_group:
            task_group.start_soon(limiter.__aenter__)
            await wait_idle()
            assert limiter.statistics().borrowed_tokens == 1
            await limiter.__aexit__(None, None, None)

        assert limiter.statistics().borrowed_tokens == 0
        await limiter.__aexit__(None, None, None)
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.timing
    async def test_it_can_be_entered_by_many_at_once(self) -> None:
        limiter = RateLimiter(concurrency=3)
        running = most = 0

        async def call(seconds: float) -> None:
            nonlocal running, most
            async with limiter:
                running += 1
                most = max(most, running)
                await anyio.sleep(seconds)
                running -= 1

        async with tasks() as task_group:
            for number in range(10):
                task_group.start_soon(call, 1.0 + number % 3)

        assert most == 3
        assert limiter.statistics().borrowed_tokens == 0


@pytest.mark.timing
class TestPause:
    async def test_those_in_line_wait_for_its_end(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b", "c")
            limiter.pause(10)

        assert crowd.granted == {"a": 0.0, "b": 10.0, "c": 11.0}

    async def test_those_granted_but_not_resumed_go_back_to_the_front_in_order(self) -> None:
        limiter = RateLimiter("3/10s")
        order: list[str] = []

        async def call(name: str) -> None:
            await limiter.acquire()
            order.append(name)

        async with tasks() as task_group:
            limiter.acquire_nowait(3)
            for name in "abcdef":
                task_group.start_soon(call, name)
                await wait_idle()

            await anyio.sleep_until(10)
            run = limiter._line.clock.latest
            assert run is not None
            # Woken in this instant, as the head is: it has granted, or is about to.
            limiter._line.serve(run.time())
            limiter.pause(5)
            await wait_idle()
            granted = len(order)
            in_line = [turn.place for turn in limiter._line.queue.ahead_of(0)]
            assert in_line == sorted(in_line, key=repr)
            assert len(in_line) == 6 - granted
            assert limiter.peek().remaining == 3 - granted
            await anyio.sleep_until(14)
            assert len(order) == granted
            await anyio.sleep_until(15)
            await wait_idle()
            assert sorted(order) == ["a", "b", "c"]

        assert sorted(order[3:]) == ["d", "e", "f"]
        assert anyio.current_time() == 25.0

    async def test_a_pause_between_grant_and_resumption_holds_every_one_of_them(self) -> None:
        limiter = RateLimiter()
        resumed: list[tuple[int, float]] = []

        async def call(number: int) -> None:
            await limiter.acquire()
            resumed.append((number, anyio.current_time()))
            if number == 0:
                limiter.pause(5)

        async with tasks() as task_group:
            limiter.pause(1)
            for number in range(4):
                task_group.start_soon(call, number)
                await wait_idle()

        # On Trio some may have resumed before the first.
        assert all(at in {1.0, 6.0} for _, at in resumed)
        early = [number for number, at in resumed if at == 1.0]
        assert early[-1] == 0
        assert sorted(number for number, _ in resumed) == [0, 1, 2, 3]

    async def test_an_acquire_at_its_checkpoint_is_held_too(self) -> None:
        limiter = RateLimiter("5/s")
        await limiter.acquire()
        granted: list[float] = []

        async def call() -> None:
            await limiter.acquire()
            granted.append(anyio.current_time())

        async def pause() -> None:
            limiter.pause(5)

        async with tasks() as task_group:
            task_group.start_soon(call)
            task_group.start_soon(pause)
            task_group.start_soon(call)

        assert set(granted) <= {0.0, 5.0}
        assert granted[-1] == 5.0

    async def test_calls_that_run_go_on(self) -> None:
        limiter = RateLimiter("5/s", concurrency=1)
        async with limiter:
            limiter.pause(5)
            await anyio.sleep(1)

        assert limiter.statistics() == RateLimiterStatistics(
            tasks_waiting=0, borrowed_tokens=0, total_tokens=1, paused_for=4.0
        )

    @pytest.mark.parametrize("pauses", [(3, 10), (10, 3), (10, 10), (10, 0), (0, 10)])
    async def test_of_overlapping_pauses_the_later_end_holds(self, pauses: tuple[int, int]) -> None:
        limiter = RateLimiter()
        for seconds in pauses:
            limiter.pause(seconds)

        await limiter.acquire()
        assert anyio.current_time() == 10.0

    async def test_it_can_be_extended_while_somebody_sleeps_through_it(self) -> None:
        limiter = RateLimiter()
        limiter.pause(2)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("a")
            await anyio.sleep(1)
            limiter.pause(9)

        assert crowd.granted == {"a": 10.0}

    async def test_none_is_the_shortest_window_or_a_second(self) -> None:
        for limiter, seconds in [
            (RateLimiter(), 1.0),
            (RateLimiter(concurrency=5), 1.0),
            (RateLimiter("5/10s"), 10.0),
            (RateLimiter("100/min", "5/2s", "1000/h"), 2.0),
        ]:
            limiter.pause()
            assert limiter.statistics().paused_for == seconds

    async def test_infinity_is_until_resume(self) -> None:
        limiter = RateLimiter("5/s")
        limiter.pause(math.inf)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b")
            await anyio.sleep(1000)
            assert not crowd.granted
            assert limiter.statistics().paused_for == math.inf
            limiter.pause(1)
            limiter.resume()

        assert crowd.granted == {"a": 1000.0, "b": 1000.0}

    async def test_resume_ends_a_pause_at_once(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            limiter.pause(100)
            await crowd.join_all("a", "b")
            await anyio.sleep(5)
            limiter.resume()

        assert crowd.granted == {"a": 5.0, "b": 6.0}

    async def test_resume_without_a_pause_changes_nothing(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b")
            limiter.resume()

        assert crowd.granted == {"a": 0.0, "b": 1.0}

    async def test_a_pause_that_is_over_is_no_pause(self) -> None:
        limiter = RateLimiter("5/s")
        limiter.pause(1)
        await anyio.sleep(1)
        assert limiter.peek().allowed
        await limiter.acquire()
        limiter.acquire_nowait()
        assert limiter.statistics().paused_for == 0
        assert anyio.current_time() == 1.0

    async def test_acquire_nowait_is_refused_meanwhile(self) -> None:
        limiter = RateLimiter()
        limiter.pause(5)
        with pytest.raises(LimitExceeded) as raised:
            limiter.acquire_nowait(0)

        assert raised.value.retry_after == 5.0
        assert raised.value.decision.reason == "pause"

    async def test_tokens_come_back_during_a_pause(self) -> None:
        limiter = RateLimiter("3/s")
        await limiter.acquire(3)
        limiter.pause(10)
        await limiter.acquire(3)
        assert anyio.current_time() == 10.0


class TestNullLimiter:
    async def test_limits_nothing(self) -> None:
        limiter = RateLimiter()
        for cost in (1, 10**9, {"tokens": 5}, 0):
            await limiter.acquire(cost)
            limiter.acquire_nowait(cost)
            async with limiter.permit(cost), limiter:
                pass

        assert limiter.statistics() == RateLimiterStatistics(
            tasks_waiting=0, borrowed_tokens=0, total_tokens=math.inf, paused_for=0.0
        )

    @pytest.mark.timing
    async def test_still_pauses(self) -> None:
        limiter = RateLimiter()
        limiter.pause(5)
        async with limiter:
            assert anyio.current_time() == 5.0


async def test_acquire_makes_no_turn_for_who_need_not_wait() -> None:
    limiter = RateLimiter("9/h")
    await limiter.acquire()
    with mock.patch.object(rate_limiter, "Turn", side_effect=AssertionError):
        await limiter.acquire()
        await limiter.acquire(5)

    assert limiter.peek().remaining == 2


class TestAcquireNowait:
    async def test_takes_what_is_there(self) -> None:
        limiter = RateLimiter("3/h")
        limiter.acquire_nowait(2)
        limiter.acquire_nowait()
        with pytest.raises(LimitExceeded) as raised:
            limiter.acquire_nowait()

        assert isinstance(raised.value, anyio.WouldBlock)
        assert raised.value.decision.reason == "rate"
        limiter.acquire_nowait(0)

    @pytest.mark.timing
    async def test_goes_by_priority_0(self) -> None:
        limiter = RateLimiter("3/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first", 1)
            await crowd.join("later", 3, priority=1)
            limiter.acquire_nowait()
            await crowd.join("before", 2)
            with pytest.raises(LimitExceeded) as raised:
                limiter.acquire_nowait()

            assert (raised.value.decision.reason, raised.value.retry_after) == ("line", 10.0)

        assert crowd.granted == {"first": 0.0, "before": 10.0, "later": 20.0}

    @pytest.mark.timing
    async def test_retry_after_is_exact(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, 0.3))
        await anyio.sleep(0.1)
        for _ in range(20):
            limiter.acquire_nowait()
            with pytest.raises(LimitExceeded) as raised:
                limiter.acquire_nowait()

            due = anyio.current_time() + raised.value.retry_after
            await anyio.sleep_until(math.nextafter(due, 0))
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait()

            await anyio.sleep_until(due)


class TestStatisticsAndRepr:
    @pytest.mark.timing
    async def test_statistics(self) -> None:
        limiter = RateLimiter("1/s", concurrency=2)
        async with tasks() as task_group:
            async with limiter:
                for _ in range(3):
                    task_group.start_soon(limiter.permit().__aenter__)

                await wait_idle()
                limiter.pause(0.25)
                assert limiter.statistics() == RateLimiterStatistics(
                    tasks_waiting=3, borrowed_tokens=1, total_tokens=2, paused_for=0.25
                )
                assert (
                    repr(limiter)
                    == "<RateLimiter 1 calls/1s, 1/2 at once, 3 waiting, paused for 0.25s>"
                )

            task_group.cancel_scope.cancel()

    def test_repr(self) -> None:
        assert repr(RateLimiter()) == "<RateLimiter without limit>"
        assert repr(RateLimiter(name="null")) == "<RateLimiter 'null' without limit>"
        limiter = RateLimiter("20/10s", "200_000 tokens/min", concurrency=5, name="api")
        expected = "<RateLimiter 'api' 20 calls/10s, 200000 tokens/60s, 0/5 at once>"
        assert repr(limiter) == expected

    async def test_total_tokens_of_a_capacity_limiter_that_changes(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        limiter = RateLimiter(concurrency=capacity)
        assert limiter.statistics().total_tokens == 2
        capacity.total_tokens = 7
        assert limiter.statistics().total_tokens == 7
        assert repr(limiter) == "<RateLimiter 0/7 at once>"

    def test_is_light(self) -> None:
        limiter = RateLimiter()
        assert not hasattr(limiter, "__dict__")
        assert not hasattr(limiter.permit(), "__dict__")
        assert not hasattr(limiter.statistics(), "__dict__")


class TestAsLimiter:
    def test_text(self) -> None:
        limiter = as_limiter("20/10s")
        assert isinstance(limiter, RateLimiter)
        assert repr(limiter) == "<RateLimiter 20 calls/10s>"

    def test_a_limiter_stays_as_it_is(self) -> None:
        limiter = RateLimiter()
        assert as_limiter(limiter) is limiter
        assert isinstance(limiter, abc.Limiter)

    @pytest.mark.parametrize("value", [5, None, RateLimiter, WindowTokenBucket(1, 1)])
    def test_anything_else(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"^limiter must be a limiter or a text") as raised:
            as_limiter(value)

        assert repr(value) in str(raised.value)

    def test_a_bad_text(self) -> None:
        with pytest.raises(ValueError, match="'5 in 1s' is not a limit"):
            as_limiter("5 in 1s")


#: What is not exact, with 2 at once, some with windows that others would round to nothing.
OTHERS: list[Policy] = [
    TokenBucket(2, 1),
    TokenBucket(2, 1e-9),
    TokenBucket(2, 0.999),
    FixedWindow(2, 1),
    FixedWindow(2, 1e-9),
    FixedWindow(2, 0.999),
]


@pytest.mark.timing
class TestDefectsSeenInOthers:
    async def test_2n_in_one_window(self) -> None:
        limiter = RateLimiter("10/s")
        await anyio.sleep(0.95)
        grants: list[Grant] = []
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for number in range(40):
                await crowd.join(number)
                await anyio.sleep(0.01)

            grants = crowd.grants

        assert len(grants) == 40
        assert_exact(grants, 10, 1.0)

    @pytest.mark.parametrize("window", [1e-9, 1e-3, 0.999, 86_400.0 * 365])
    async def test_no_limit_at_all(self, window: float) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, window))
        instants: list[float] = []
        for _ in range(5):
            await limiter.acquire()
            instants.append(anyio.current_time())

        assert all(later - earlier >= window for earlier, later in pairwise(instants))

    async def test_large_costs_starve(self) -> None:
        limiter = RateLimiter("10/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for number in range(10):
                await crowd.join(f"before {number}")

            await crowd.join("large", 10)
            for number in range(50):
                await crowd.join(f"after {number}")

        assert crowd.granted["large"] == 1.0
        assert min(at for name, at in crowd.granted.items() if "after" in str(name)) == 2.0

    async def test_newcomers_barge(self) -> None:
        limiter = RateLimiter("2/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first", 1)
            await crowd.join("waiting", 2)
            # One token is free, and it stays so.
            await crowd.join("newcomer", 1)
            with pytest.raises(LimitExceeded) as raised:
                limiter.acquire_nowait()

            assert raised.value.decision.reason == "line"

        assert crowd.granted == {"first": 0.0, "waiting": 1.0, "newcomer": 2.0}

    async def test_herd_or_polling(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(200))
            counts = Counts(monkeypatch)

        assert crowd.granted[199] == 199.0
        assert counts.parks <= 2 * 199

    async def test_permit_lost_when_cancelled_between_grant_and_resumption(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("first", "cancelled", "next")

            async def cancel_in_the_same_instant() -> None:
                await anyio.sleep_until(1.0)
                crowd.scopes["cancelled"].cancel()

            task_group.start_soon(cancel_in_the_same_instant)

        assert crowd.granted["next"] in {1.0, 2.0}
        assert ("cancelled" in crowd.granted) == (crowd.granted["next"] == 2.0)

    async def test_reserve_ahead_without_refund(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first")
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as leavers:
                    for _ in range(3_000):
                        leavers.start_soon(limiter.acquire)

                    await wait_idle()
                    assert limiter.statistics().tasks_waiting == 3_000
                    scope.cancel()

            await crowd.join("last")

        assert crowd.granted == {"first": 0.0, "last": 1.0}

    async def test_refused_calls_that_charge(self) -> None:
        limiter = RateLimiter("2/s")
        await limiter.acquire(2)
        await anyio.sleep(0.5)
        for _ in range(100):
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait()

            with anyio.move_on_after(0.001):
                await limiter.acquire()

        await anyio.sleep_until(1.0)
        limiter.acquire_nowait(2)

    async def test_queries_that_change_state(self) -> None:
        limiter = RateLimiter("2/s")
        for _ in range(100):
            assert limiter.peek(2).allowed
            repr(limiter)
            limiter.statistics()

        limiter.acquire_nowait(2)
        await anyio.sleep(0.5)
        for _ in range(100):
            assert limiter.peek().retry_after == 0.5

    async def test_cost_above_capacity_waits_for_ever_or_passes(self) -> None:
        limiter = RateLimiter("2/s", "5/min")
        for cost in (3, 5, 6, 10**9):
            with pytest.raises(CostTooHigh):
                await limiter.acquire(cost)

        assert anyio.current_time() == 0.0
        limiter.acquire_nowait(2)

    @pytest.mark.parametrize("policy", OTHERS, ids=repr)
    async def test_no_limit_at_all_by_other_policies(self, policy: Policy) -> None:
        limiter = RateLimiter(policy)
        instants: list[float] = []
        for _ in range(9):
            await limiter.acquire()
            instants.append(anyio.current_time())

        # At most two at once, then the rate.
        assert len({*instants[:3]}) >= 2
        assert instants[-1] - instants[0] >= 2.9 * policy.window

    @pytest.mark.parametrize("policy", OTHERS, ids=repr)
    async def test_refused_calls_that_charge_by_other_policies(self, policy: Policy) -> None:
        limiter = RateLimiter(policy)
        await limiter.acquire(2)
        due = anyio.current_time() + limiter.peek(2).retry_after
        for _ in range(50):
            assert limiter.peek(2).retry_after > 0
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait(2)

            with pytest.raises(LimitExceeded):
                await limiter.acquire(2, max_wait=0)

            with anyio.move_on_after(policy.window / 1000):
                await limiter.acquire(2)

        await anyio.sleep_until(due)
        limiter.acquire_nowait(2)

    @pytest.mark.parametrize("policy", OTHERS, ids=repr)
    async def test_cost_above_the_capacity_of_other_policies(self, policy: Policy) -> None:
        limiter = RateLimiter(policy)
        for cost in (3, 10**9):
            with pytest.raises(CostTooHigh):
                await limiter.acquire(cost)

        assert limiter.peek().remaining == 2

    async def test_wall_clock_that_is_set_again_and_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A quota per day is no quota per change of the clock."""
        limiter = RateLimiter(FixedWindow(2, 86_400, align="utc"))
        wall = 1_700_000_000.0
        monkeypatch.setattr(time, "time", lambda: wall)
        await limiter.acquire(2)
        for jump in (-3600.0, 86_400.0, -86_400.0 * 400, 0.5, 86_400.0 * 30, -1.7e9):
            wall += jump
            assert not limiter.peek().allowed
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait()

    async def test_wall_clock_of_no_use_to_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for policy in (TokenBucket(1, 1), FixedWindow(1, 1)):
            limiter = RateLimiter(policy)
            await limiter.acquire()
            for wall in (0.0, 1e12):
                monkeypatch.setattr(time, "time", lambda wall=wall: wall)
                assert limiter.peek().retry_after == 1.0

    @pytest.mark.parametrize("policy", [*OTHERS, WindowTokenBucket(2, 1)], ids=repr)
    async def test_clock_going_back(self, policy: Policy) -> None:
        limiter = RateLimiter(policy)
        await anyio.sleep(100)
        await limiter.acquire(2)
        turn_back(50)
        with pytest.raises(LimitExceeded):
            limiter.acquire_nowait()

        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(3))

        # Late by what the clock went back, at the most; nobody is forgotten.
        assert len(crowd.granted) == 3
        assert anyio.current_time() <= 100 + 4 * policy.window

    async def test_wall_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        for wall in (0.0, 1e12):
            monkeypatch.setattr(time, "time", lambda wall=wall: wall)
            assert limiter.peek().retry_after == 1.0

    async def test_whole_seconds(self) -> None:
        limiter = RateLimiter("3/100ms")
        for _ in range(9):
            await limiter.acquire()

        assert anyio.current_time() == pytest.approx(0.2)

    async def test_0_as_long_ago(self) -> None:
        limiter = RateLimiter("1/s")
        assert anyio.current_time() == 0.0
        limiter.acquire_nowait()
        assert not limiter.peek().allowed

    async def test_never_catches_up_after_a_late_wake(self) -> None:
        """10 000/s x 2000 in 0.2 s, although the loop is late again and again."""
        limiter = RateLimiter(WindowTokenBucket(10, 0.001))
        granted = 0

        async def call() -> None:
            nonlocal granted
            await limiter.acquire()
            granted += 1
            if granted % 100 == 0:
                # Late, but by less than a window.
                stall(0.0005)

        async with tasks() as task_group:
            for _ in range(2000):
                task_group.start_soon(call)

        assert granted == 2000
        # A late batch delays the next one by as much, and no more.
        assert anyio.current_time() <= 0.2 + 20 * 0.0005

    async def test_never_catches_up_with_a_steady_flow(self) -> None:
        """10 000/s x 2000, one at a time, although the loop is late again and again."""
        limiter = RateLimiter(TokenBucket(10_000, 1, burst=1))
        granted = 0

        async def call() -> None:
            nonlocal granted
            await limiter.acquire()
            granted += 1
            if granted % 10 == 0:
                stall(0.0009)

        async with tasks() as task_group:
            for _ in range(2000):
                task_group.start_soon(call)

        assert granted == 2000
        # The last one may be late; no lateness before it adds to that.
        assert anyio.current_time() <= 0.2 + 0.001

    async def test_one_call_delays_another(self) -> None:
        """No lock is held over a sleep: another limiter, and a better priority, pass at once."""
        limiter, other = RateLimiter("10/h"), RateLimiter("10/h")
        await limiter.acquire(5)
        async with tasks() as task_group:
            task_group.start_soon(limiter.acquire, 10)
            await wait_idle()
            await other.acquire(10)
            await limiter.acquire(5, priority=-1)
            assert anyio.current_time() == 0.0
            task_group.cancel_scope.cancel()

    async def test_composed_limits_not_atomic(self) -> None:
        limiter = RateLimiter("100/s", "1/10s")
        await limiter.acquire()
        async with tasks() as task_group:
            for _ in range(50):
                task_group.start_soon(limiter.acquire)

            await wait_idle()
            # Fifty wait for the second policy, and the first has not been charged for them.
            assert limiter._gate.buckets[0].remaining(0.0) == 99
            task_group.cancel_scope.cancel()

    def test_hangs_or_breaks_in_a_second_event_loop_run(self, run: Run) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, 0.001), concurrency=1)

        async def main() -> None:
            async def call() -> None:
                async with limiter:
                    await checkpoint()

            async with tasks() as task_group:
                for _ in range(5):
                    task_group.start_soon(call)

        for _ in range(3):
            run(main)

    async def test_pause_not_seen_by_those_already_queued(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(5))
            await anyio.sleep(0.999)
            limiter.pause(30)

        assert crowd.granted[1] == 30.999

    async def test_retry_after_clamped_silently(self) -> None:
        limiter = RateLimiter()
        limiter.pause(3600 * 24)
        await limiter.acquire()
        assert anyio.current_time() == 3600 * 24

    @pytest.mark.parametrize("shared", [False, True])
    async def test_retry_that_keeps_its_slot_while_it_waits(self, shared: bool) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity if shared else 1)
        starts: list[float] = []

        async def job() -> None:
            starts.append(anyio.current_time())
            if len(starts) == 1:
                raise ThrottleException(retry_after=10)

        async with tasks() as task_group:
            task_group.start_soon(limiter.run, job)
            await anyio.sleep(5)
            assert limiter.statistics().borrowed_tokens == 0
            assert limiter.statistics().tasks_waiting == 1
            # Others who use the same slots go on meanwhile.
            async with capacity:
                assert capacity.borrowed_tokens == 1

        assert starts == [0.0, 10.0]
        assert capacity.borrowed_tokens == 0

    async def test_composed_limits_of_all_kinds_not_atomic(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(
            *("100/min", "100 tokens/min"),
            TokenBucket(100, 60),
            FixedWindow(100, 60),
            WindowTokenBucket(100, 60, measure="end"),
            concurrency=capacity,
        )
        cost = {"calls": 1, "tokens": 60}
        async with limiter.permit(cost):
            pass

        def left() -> list[int]:
            now = anyio.current_time()
            return [bucket.remaining(now) for bucket in limiter._gate.buckets]

        before = left()
        async with tasks() as task_group:
            for _ in range(20):
                # The tokens do not suffice, so nothing else is charged for them.
                task_group.start_soon(limiter.permit(cost).__aenter__)

            await wait_idle()
            assert left() == before == [99, 40, 99, 99, 99]
            assert capacity.borrowed_tokens == 0
            task_group.cancel_scope.cancel()

        assert left() == before
