"""A limiter that becomes another one: nothing is forgotten, nobody is lost."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    Cost,
    CostTooHigh,
    FixedWindow,
    Granted,
    LimitExceeded,
    RateLimiter,
    TokenBucket,
    WindowTokenBucket,
)
from anythrottle._limiters.permit import TurnPermit
from anythrottle._policies.fixed_window_bucket import FixedWindowBucket
from anythrottle.abc import Bucket, Event, Policy
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.limiters.tools import (
    BLOWS,
    Blow,
    Crowd,
    Victim,
    left,
    left_at,
    permit_of,
    sweep_with,
    tasks,
)
from tests.properties import examples
from tests.stopwatch import RealTime


def ending(limit: int, window: float) -> WindowTokenBucket:
    return WindowTokenBucket(limit, window, measure="end")


class Callers:
    """Tasks that hold a permit for some time, by name, with what has become of them."""

    def __init__(self, limiter: RateLimiter, task_group: anyio.abc.TaskGroup) -> None:
        self.limiter = limiter
        self.task_group = task_group
        self.entered: dict[object, float] = {}
        self.errors: dict[object, Exception] = {}
        self.failed_at: dict[object, float] = {}
        self.running = 0

    async def come(
        self, name: object, seconds: float = 0.0, cost: Cost = 1, priority: int = 0
    ) -> None:
        self.task_group.start_soon(self._call, name, seconds, cost, priority)
        await wait_idle()

    async def come_all(self, *names: object, seconds: float = 0.0) -> None:
        for name in names:
            await self.come(name, seconds)

    async def _call(self, name: object, seconds: float, cost: Cost, priority: int) -> None:
        try:
            # Asking for it may raise as well.
            async with self.limiter.permit(cost, priority=priority):
                self.entered[name] = anyio.current_time()
                self.running += 1
                try:
                    await anyio.sleep(seconds)
                finally:
                    self.running -= 1
        except (ValueError, RuntimeError) as exc:
            self.errors[name] = exc
            self.failed_at[name] = anyio.current_time()


@pytest.mark.timing
class TestTighterAndLooser:
    async def test_a_tighter_limit_holds_at_once_with_what_has_passed(self) -> None:
        limiter = RateLimiter("5/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await limiter.acquire(2)
            await anyio.sleep(1)
            await limiter.acquire(2)
            limiter.reconfigure("3/10s")
            assert left(limiter) == [0]
            await crowd.join_all("a", "b", "c")

        assert list(crowd.granted.values()) == [10.0, 11.0, 11.0]

    @pytest.mark.parametrize(
        ("old", "seconds", "new", "granted"),
        [
            ("3/10s", 5, ["2/10s"], [0.0] * 3 + [10.0] * 2 + [20.0] * 2),
            ("1/10s", 1, ["1/4s"], [0.0, 4.0, 8.0]),
            ("1/h", 5, [], [0.0] + [5.0] * 4),
        ],
        ids=["they go by it", "a shorter window lets go sooner", "without policies all go"],
    )
    async def test_those_in_line(
        self, old: str, seconds: float, new: list[str], granted: list[float]
    ) -> None:
        limiter = RateLimiter(old)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(len(granted)))
            await anyio.sleep(seconds)
            limiter.reconfigure(*new)

        assert list(crowd.granted.values()) == granted

    async def test_a_looser_one_lets_go_at_once_who_is_due(self) -> None:
        limiter = RateLimiter("1/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(6))
            await anyio.sleep(5)
            limiter.reconfigure("3/10s")
            await wait_idle()
            assert list(crowd.granted.values()) == [0.0, 5.0, 5.0]

        assert list(crowd.granted.values()) == [0.0, 5.0, 5.0, 10.0, 15.0, 15.0]

    async def test_a_longer_window_counts_what_had_come_back(self) -> None:
        limiter = RateLimiter("5/s")
        await limiter.acquire(5)
        await anyio.sleep(1)
        await limiter.acquire(4)
        assert await left_at(limiter, 2.5) == [5]
        limiter.reconfigure("12/10s")
        assert left(limiter) == [3]
        assert await left_at(limiter, 10) == [8]
        # And so does another one after this.
        limiter.reconfigure("12/20s")
        assert left(limiter) == [3]

    async def test_a_pause_stays(self) -> None:
        limiter = RateLimiter("1/h")
        limiter.pause(10)
        limiter.reconfigure("5/s")
        await limiter.acquire()
        assert anyio.current_time() == 10.0

    async def test_from_nothing(self) -> None:
        limiter = RateLimiter()
        await limiter.acquire()
        limiter.reconfigure("2/10s", "9 tokens/10s")
        await limiter.acquire({"tokens": 5})
        assert left(limiter) == [1, 4]

    async def test_a_policy_that_was_there_before_stays_with_all_it_knows(self) -> None:
        limiter = RateLimiter("5/10s", "9/min")
        async with limiter.permit(3) as permit:
            pass

        first, second = limiter._gate.buckets
        limiter.reconfigure("9/min", "7/h", WindowTokenBucket(5, 10), "5/10s")
        assert limiter._gate.buckets[0] is second
        assert limiter._gate.buckets[2] is first
        assert limiter._gate.buckets[3] is not first
        assert left(limiter) == [6, 4, 2, 2]
        limiter.reconfigure("5/10s", concurrency=2)
        assert limiter._gate.buckets == (first,)
        permit.refund()
        assert left(limiter) == [5]

    def test_it_can_be_seen(self) -> None:
        limiter = RateLimiter("5/10s", name="api")
        limiter.reconfigure("7 tokens/min", concurrency=3)
        assert repr(limiter) == "<RateLimiter 'api' 7 tokens/60s, 0/3 at once>"
        assert limiter.statistics().total_tokens == 3
        limiter.reconfigure("7 tokens/min")
        assert limiter.statistics().total_tokens == 3
        limiter.reconfigure(concurrency=None)
        assert repr(limiter) == "<RateLimiter 'api' without limit>"

    def test_outside_of_an_event_loop(self, run: Run) -> None:
        limiter = RateLimiter("5/h")
        limiter.acquire_nowait(3)
        limiter.reconfigure("4/h")
        assert limiter.peek().remaining == 1

        async def main() -> None:
            assert left(limiter) == [1]
            limiter.reconfigure("6/h")
            assert left(limiter) == [3]

        run(main)

    @pytest.mark.parametrize(
        ("policies", "options", "error"),
        [
            (["2/s", "5 in 1s"], {}, ValueError),
            (["2/s", 5], {}, TypeError),
            (["2/s", WindowTokenBucket], {}, TypeError),
            (["2/s"], {"concurrency": 0}, ValueError),
            (["2/s"], {"concurrency": True}, TypeError),
            (["2/s"], {"concurrency": 1.5}, TypeError),
        ],
    )
    async def test_what_is_wrong_changes_nothing(
        self, policies: list[Any], options: dict[str, Any], error: type[Exception]
    ) -> None:
        limiter = RateLimiter("1/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b")
            before = (limiter.peek(), limiter.statistics(), repr(limiter))
            with pytest.raises(error, match=r"policy|limit|concurrency"):
                limiter.reconfigure(*policies, **options)

            assert (limiter.peek(), limiter.statistics(), repr(limiter)) == before

        assert crowd.granted == {"a": 0.0, "b": 10.0}


@pytest.mark.timing
class TestOtherKinds:
    @pytest.fixture(autouse=True)
    def wall_clock(self, monkeypatch: pytest.MonkeyPatch, real_time: RealTime) -> None:
        monkeypatch.setattr(time, "time", lambda: 1_000_000_003.0)

    @pytest.mark.parametrize(
        ("old", "new", "remaining", "full_at"),
        [
            # 4 were charged at 0, and it is 2 now, when UTC ends with a 3.
            (WindowTokenBucket(5, 10), TokenBucket(10, 20, burst=6), 3, 8.0),
            (WindowTokenBucket(5, 10), FixedWindow(6, 10), 2, 10.0),
            (WindowTokenBucket(5, 10), FixedWindow(6, 10, align="utc"), 2, 9.0),
            (WindowTokenBucket(5, 10), ending(6, 20), 2, 20.0),
            (FixedWindow(5, 10), WindowTokenBucket(6, 20), 2, 20.0),
            (FixedWindow(5, 10), TokenBucket(10, 20, burst=6), 3, 8.0),
            (FixedWindow(5, 10), FixedWindow(6, 8), 2, 8.0),
            (FixedWindow(5, 10), FixedWindow(6, 10, align="utc"), 2, 9.0),
            (FixedWindow(5, 10, align="utc"), WindowTokenBucket(6, 20), 2, 20.0),
            (TokenBucket(5, 10), WindowTokenBucket(6, 20), 2, 20.0),
            (TokenBucket(5, 10), FixedWindow(6, 10), 2, 10.0),
            # The one left over, and the one that has flowed in since.
            (TokenBucket(5, 10), TokenBucket(10, 20, burst=6), 2, 10.0),
            (ending(5, 10), TokenBucket(10, 20, burst=6), 3, 8.0),
        ],
        ids=repr,
    )
    async def test_know_what_was_charged(
        self, old: Policy, new: Policy, remaining: int, full_at: float
    ) -> None:
        limiter = RateLimiter(old)
        async with limiter.permit(4):
            pass

        await anyio.sleep(2)
        limiter.reconfigure(new)
        assert left(limiter) == [remaining]
        await anyio.sleep_until(full_at - 0.01)
        assert left(limiter)[0] < 6
        assert await left_at(limiter, full_at + 1e-6) == [6]

    async def test_debt_goes_on(self) -> None:
        limiter = RateLimiter("5/10s")
        limiter.penalize(8)
        limiter.reconfigure(TokenBucket(10, 10, burst=5))
        await limiter.acquire()
        assert anyio.current_time() == 4.0

    @pytest.mark.parametrize(
        "new",
        [
            TokenBucket(10, 10, burst=5),
            FixedWindow(1, 1),
            FixedWindow(5, 1),
            FixedWindow(1, 1, align="utc"),
            WindowTokenBucket(1, 1),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize(
        "old",
        [
            WindowTokenBucket(100, 1),
            FixedWindow(100, 1),
            TokenBucket(100, 1, burst=1),
            ending(100, 1),
        ],
        ids=repr,
    )
    async def test_what_a_tighter_one_would_not_have_allowed_is_no_debt(
        self, old: Policy, new: Policy
    ) -> None:
        limiter = RateLimiter(old)
        for _ in range(1000):
            async with limiter.permit():
                pass

        now = anyio.current_time()
        limiter.reconfigure(new)
        async with limiter.permit():
            assert anyio.current_time() <= now + 1 + 1e-6

    async def test_debt_goes_on_beside_what_would_not_have_been_allowed(self) -> None:
        limiter = RateLimiter(FixedWindow(100, 10))
        await limiter.acquire(100)
        limiter.penalize(8)
        limiter.reconfigure(TokenBucket(1, 1))
        await limiter.acquire()
        # The debt of 8 would have been paid at 10.
        assert anyio.current_time() == 11.0

    @pytest.mark.parametrize(
        "new", [FixedWindow(1, 1), FixedWindow(1, 1, align="utc"), TokenBucket(1, 1)], ids=repr
    )
    async def test_what_is_too_much_for_an_exact_window_is_no_longer_so_elsewhere(
        self, new: Policy
    ) -> None:
        limiter = RateLimiter("100/s")
        for _ in range(1000):
            await limiter.acquire()

        limiter.reconfigure("10/10s")
        await anyio.sleep(5)
        limiter.reconfigure(new)
        await limiter.acquire()
        # By the exact window, it would have been some 20; one more, as the new ones allow it then.
        assert 19.8 <= anyio.current_time() <= 21.0 + 1e-6

    @pytest.mark.parametrize(
        "new", [FixedWindow(4, 10), TokenBucket(4, 10), ending(4, 10)], ids=repr
    )
    async def test_calls_that_are_held_are_no_debt_either(self, new: Policy) -> None:
        limiter = RateLimiter(ending(9, 10))
        async with limiter.permit(5), limiter.permit(4) as permit:
            await anyio.sleep(1)
            limiter.reconfigure(new)
            # Of what the new policy has forgiven, nothing comes back.
            permit.refund()
            assert left(limiter) == [0]

        await anyio.sleep(10)
        assert left(limiter) == [4]

    async def test_what_a_server_has_said_goes_on(self) -> None:
        limiter = RateLimiter("5/10s")
        limiter.tighten(remaining=1, reset_after=5)
        limiter.reconfigure("6/10s")
        assert left(limiter) == [2]
        assert await left_at(limiter, 10) == [6]

    async def test_an_added_policy_of_a_unit_that_was_counted(self) -> None:
        limiter = RateLimiter("5/10s", "100 tokens/10s")
        await limiter.acquire({"calls": 2, "tokens": 30})
        limiter.reconfigure("5/10s", "9/min", "100 tokens/10s", TokenBucket(50, 10, unit="tokens"))
        assert left(limiter) == [3, 7, 70, 20]

    async def test_of_several_the_one_with_the_longest_memory_is_asked(self) -> None:
        limiter = RateLimiter("5/s", FixedWindow(20, 60), TokenBucket(10, 10))
        await limiter.acquire(5)
        await anyio.sleep(30)
        await limiter.acquire(2)
        limiter.reconfigure("9/50s")
        assert left(limiter) == [2]

    @pytest.mark.parametrize("old", [FixedWindow(9, 5), TokenBucket(9, 5)], ids=repr)
    async def test_each_remembers_what_has_come_back(self, old: Policy) -> None:
        limiter = RateLimiter(old)
        await limiter.acquire(9)
        await anyio.sleep(10)
        await limiter.acquire(2)
        limiter.reconfigure("11/20s")
        assert left(limiter) == [0]
        assert await left_at(limiter, 20 + 1e-6) == [9]
        assert await left_at(limiter, 30 + 1e-6) == [11]

    async def test_of_several_one_that_has_just_begun_anew_is_not_asked(self) -> None:
        limiter = RateLimiter("5/10s", FixedWindow(100, 60), TokenBucket(10**6, 3600))
        await limiter.acquire(0)
        limiter.penalize(1)
        await anyio.sleep(59)
        await limiter.acquire(5)
        await anyio.sleep_until(60.5)
        # The quota is a new one, and the flow has made up for it; but these 5 were just now.
        limiter.reconfigure("5/20s", FixedWindow(100, 90))
        assert left(limiter)[0] == 0
        await limiter.acquire()
        assert anyio.current_time() == 79.0

    async def test_a_unit_that_is_new_has_no_past(self) -> None:
        limiter = RateLimiter("5/10s")
        await limiter.acquire(4)
        limiter.reconfigure("9 tokens/10s")
        await limiter.acquire({"tokens": 2})
        assert left(limiter) == [7]


#: What may happen: a verb, an amount, and a number of ticks.
Step = tuple[str, int, int]

TICK = 0.5


def plain_grants(
    events: list[tuple[float, Step]], limit: int, window: float
) -> dict[object, float]:
    """Return when each call, by its number, has to be granted: looked for tick by tick."""
    expected: dict[object, float] = {}
    charged: list[tuple[float, int]] = []
    line: list[tuple[int, int]] = []
    instant, number = 0.0, 0
    while number < len(events) or line:
        if number < len(events) and events[number][0] == instant:
            verb, amount, ticks = events[number][1]
            if verb == "reconfigure":
                limit, window = amount, ticks * TICK
                line = [(name, cost) for name, cost in line if cost <= limit]
            elif verb == "come" and amount <= limit:
                line.append((number, amount))

            number += 1
        else:
            instant += TICK

        while line:
            out = sum(cost for since, cost in charged if instant < since + window)
            if out + line[0][1] > limit:
                break

            charged.append((instant, line[0][1]))
            expected[line.pop(0)[0]] = instant

    return expected


class TestAgainstThePlainList:
    """Windows of all lengths, judged by all grants since ever."""

    @examples(150)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["come", "come", "wait", "reconfigure"]),
                st.integers(1, 5),
                st.integers(1, 12),
            ),
            min_size=3,
            max_size=20,
        )
    )
    def test_any_course_of_limits(self, run: Run, script: list[Step]) -> None:
        """So few calls that each of them is remembered: to the instant, no sooner and no later."""

        async def main() -> None:
            limiter = RateLimiter(WindowTokenBucket(3, 4 * TICK))
            events: list[tuple[float, Step]] = []
            async with tasks() as task_group:
                callers = Callers(limiter, task_group)
                for number, (verb, amount, ticks) in enumerate(script):
                    events.append((anyio.current_time(), (verb, amount, ticks)))
                    if verb == "come":
                        await callers.come(number, cost=amount)
                    elif verb == "reconfigure":
                        limiter.reconfigure(WindowTokenBucket(amount, ticks * TICK))
                        await wait_idle()
                    else:
                        await anyio.sleep(ticks * TICK)
                        await wait_idle()

            assert all(type(error) is CostTooHigh for error in callers.errors.values())
            assert callers.entered == plain_grants(events, 3, 4 * TICK)

        run(main)

    @examples(60)
    @given(st.data())
    def test_no_window_of_the_limit_in_force_holds_too_much(
        self, run: Run, data: st.DataObject
    ) -> None:
        """With so many calls that the older ones are remembered together; after any policy."""
        kinds = st.sampled_from([WindowTokenBucket, WindowTokenBucket, FixedWindow, TokenBucket])
        limits = st.tuples(kinds, st.integers(1, 30), st.floats(0.1, 20.0))
        script = data.draw(
            st.lists(st.tuples(limits, st.floats(0.0, 15.0)), min_size=2, max_size=5), "script"
        )

        async def main() -> None:
            (kind, limit, window), _ = script[0]
            limiter = RateLimiter()
            grants: list[float] = []

            async def caller() -> None:
                while True:
                    await limiter.acquire()
                    now = anyio.current_time()
                    # By all grants since ever, none left out: the new one and those before.
                    held = sum(now - at < window or now < at + window for at in grants)
                    if kind is WindowTokenBucket:
                        assert held < limit, f"{held + 1} in {window} s: {grants}"

                    grants.append(now)

            with anyio.move_on_after(sum(seconds for _, seconds in script)):
                async with anyio.create_task_group() as task_group:
                    limiter.reconfigure(kind(limit, window))
                    for _ in range(3):
                        task_group.start_soon(caller)

                    for (kind, limit, window), seconds in script:
                        limiter.reconfigure(kind(limit, window))
                        await anyio.sleep(seconds)

            assert limiter.statistics().tasks_waiting == 0
            # Whoever was in debt, by the longest window that there was, is so no more.
            await anyio.sleep(2 * max(window for (_, _, window), _ in script) * 1.01)
            assert limiter.peek(limit).allowed

        run(main)

    @pytest.mark.timing
    async def test_of_what_is_long_past_the_returns_are_late_but_not_for_ever(self) -> None:
        limiter = RateLimiter("1/s")
        for _ in range(200):
            await limiter.acquire()

        assert anyio.current_time() == 199.0
        limiter.reconfigure("30/60s")
        # All of the last 60 count, so it is exactly at 229 that there is room for one more; who
        # has been remembered together comes back together, with the latest of them.
        await limiter.acquire()
        assert 229.0 <= anyio.current_time() <= 259.0
        await anyio.sleep(60)
        assert left(limiter) == [30]


@pytest.mark.timing
class TestThoseInLine:
    async def test_who_can_never_fit_any_more_gets_the_error_that_it_would_get_now(self) -> None:
        limiter = RateLimiter("5/10s")
        await limiter.acquire(5)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come("head", cost=4)
            await callers.come("small", cost=1)
            await callers.come("large", cost=5)
            await callers.come("last", cost=3)
            await anyio.sleep(1)
            limiter.reconfigure("3/10s")
            await wait_idle()
            assert callers.failed_at == {"head": 1.0, "large": 1.0}
            assert limiter.statistics().tasks_waiting == 2

        error = callers.errors["head"]
        assert isinstance(error, CostTooHigh)
        assert (error.cost, error.limit, error.unit) == (4, 3, "calls")
        assert callers.entered == {"small": 10.0, "last": 20.0}

    async def test_whose_units_do_not_fit_gets_an_error(self) -> None:
        limiter = RateLimiter("1/10s")
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come("first")
            await callers.come("an int", cost=1)
            await callers.come("a mapping", cost={"calls": 1})
            limiter.reconfigure("1/10s", "9 tokens/10s")
            await wait_idle()
            assert set(callers.errors) == {"an int", "a mapping"}
            assert all("'calls', 'tokens'" in str(error) for error in callers.errors.values())
            await callers.come("names both", cost={"tokens": 3})
            limiter.reconfigure("9 tokens/10s")
            await wait_idle()
            # Nothing counts calls any more, which a mapping need not name.
            assert callers.entered["names both"] == 0.0
            assert left(limiter) == [6]

    async def test_who_waits_in_acquire_gets_an_error_if_the_limiter_is_to_hold_something(
        self,
    ) -> None:
        for options in ({"concurrency": 2}, {"concurrency": anyio.CapacityLimiter(2)}, {}):
            limiter = RateLimiter("1/10s")
            policy = "1/20s" if options else ending(1, 20)
            errors: list[str] = []
            start = anyio.current_time()

            async def call(limiter: RateLimiter, errors: list[str]) -> None:
                with pytest.raises(RuntimeError) as raised:
                    await limiter.acquire()

                errors.append(str(raised.value))

            async with tasks() as task_group:
                callers = Callers(limiter, task_group)
                await callers.come("first")
                for _ in range(2):
                    task_group.start_soon(call, limiter, errors)

                await callers.come("has a permit")
                await anyio.sleep(1)
                limiter.reconfigure(policy, **options)
                await wait_idle()
                assert len(errors) == 2
                assert all(error.startswith("acquire() is for limiters") for error in errors)
                assert all("limiter.permit(" in error for error in errors)
                assert limiter.statistics().tasks_waiting == 1

            assert callers.entered["has a permit"] == start + 20.0

    @pytest.mark.parametrize("policies", [["5/s"], ["5/s", "50/min"]], ids=["short", "long"])
    async def test_who_is_at_its_checkpoint_gets_the_error_too(self, policies: list[str]) -> None:
        limiter = RateLimiter(*policies)
        await limiter.acquire(0)
        outcomes: list[str] = []

        async def call() -> None:
            try:
                await limiter.acquire(4)
            except CostTooHigh:
                outcomes.append("refused")
            else:
                outcomes.append("passed")

        async def reconfigure() -> None:
            limiter.reconfigure("3/s")

        async with tasks() as task_group:
            task_group.start_soon(call)
            task_group.start_soon(reconfigure)
            task_group.start_soon(call)
            with anyio.fail_after(100):
                while len(outcomes) < 2:
                    await anyio.sleep(1)

        # Trio may have let one pass before.
        assert "refused" in outcomes
        await anyio.sleep(100)
        assert left(limiter) == [3]

    @pytest.mark.parametrize(
        ("policies", "options"),
        [(["5/s"], {}), (["5/s", "50/min"], {}), (["5/s"], {"concurrency": 2}), (["9/s"], {})],
    )
    async def test_a_call_at_its_checkpoint_leaves_nothing_behind(
        self, policies: list[str], options: dict[str, Any]
    ) -> None:
        limiter = RateLimiter("5/s")
        await limiter.acquire(0)
        errors: list[Exception] = []

        async def call() -> None:
            try:
                await limiter.acquire(2)
            except RuntimeError as exc:
                errors.append(exc)

        async def reconfigure() -> None:
            limiter.reconfigure(*policies, **options)

        async with tasks() as task_group:
            for function in (call, reconfigure, call):
                task_group.start_soon(function)

        assert bool(errors) == bool(options)
        await anyio.sleep(1000)
        assert left(limiter) == [policy.limit for policy in limiter._gate.policies]

    @pytest.mark.parametrize("new", [["3/10s"], ["2/10s"], ["9/10s", "4/20s"], []])
    async def test_who_was_granted_and_has_not_resumed_goes_back_to_its_place(
        self, new: list[str]
    ) -> None:
        """In the end it is as if the limiter had been that other one a moment before."""
        limiter = RateLimiter("3/10s", "30/10s")
        order: list[int] = []
        granted: list[float] = []

        async def call(number: int) -> None:
            await limiter.acquire()
            order.append(number)
            granted.append(anyio.current_time())

        limiter.acquire_nowait(3)
        async with tasks() as task_group:
            for number in range(6):
                task_group.start_soon(call, number)
                await wait_idle()

            await anyio.sleep_until(10)
            run = limiter._line.clock.latest
            assert run is not None
            # Woken in this instant, as the head is: it has granted, or is about to.
            limiter._line.serve(run.time())
            already = len(order)
            limiter.reconfigure(*new)
            in_line = [turn.place for turn in limiter._line.queue.ahead_of(0)]
            assert in_line == sorted(in_line, key=repr)

        expected = {
            ("3/10s",): [10.0] * 3 + [20.0] * 3,
            ("2/10s",): [10.0] * 2 + [20.0] * 2 + [30.0] * 2,
            ("9/10s", "4/20s"): [10.0] + [20.0] * 3 + [30.0, 40.0],
            (): [10.0] * 6,
        }[tuple(new)]
        if not already:
            assert granted == expected

        batches = [{n for n, at in zip(order, granted, strict=True) if at == i} for i in granted]
        assert all(max(a) < min(b) for a, b in pairwise(batches) if a != b)
        assert len(granted) == 6

    async def test_who_has_to_wait_anew_is_told_of_anew(self) -> None:
        granted: list[float] = []

        def observe(event: Event) -> None:
            if isinstance(event, Granted):
                granted.append(event.waited)
                if len(granted) == 2:
                    # The second one has not begun, and does not fit any more.
                    limiter.reconfigure("3/10s")

        limiter = RateLimiter("4/10s", observer=observe)
        await limiter.acquire(2)
        await limiter.acquire(2)
        assert anyio.current_time() == 10.0
        assert granted == [0.0, 0.0, 10.0]

    async def test_a_permit_that_was_asked_for_before(self) -> None:
        limiter = RateLimiter("5/10s")
        fits, does_not, lacks = (permit_of(limiter, cost) for cost in (2, 3, 1))
        limiter.reconfigure("2/10s", "9/min")
        async with fits:
            assert left(limiter) == [0, 7]

        with pytest.raises(CostTooHigh):
            await does_not.__aenter__()

        limiter.reconfigure("2 tokens/10s")
        with pytest.raises(ValueError, match="does not fit this limiter"):
            await lacks.__aenter__()

        assert left(limiter) == [2]
        assert limiter.statistics().tasks_waiting == 0

    async def test_the_patience_of_those_in_line_stays(self) -> None:
        limiter = RateLimiter("1/10s")
        await limiter.acquire()
        async with tasks() as task_group:

            async def call() -> None:
                with pytest.raises(LimitExceeded):
                    await limiter.acquire(max_wait=12)

                assert anyio.current_time() == 12.0

            task_group.start_soon(call)
            await wait_idle()
            limiter.reconfigure("1/20s")

        await limiter.acquire()
        assert anyio.current_time() == 20.0

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("new", [["2/10s"], ["2/5s"], ["2/10s", "3/10s"]], ids=repr)
    def test_cancelled_at_any_suspension_none_is_lost(self, blow: Blow, new: list[str]) -> None:
        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter("1/10s")
            got: list[float] = []

            async def prey() -> None:
                await limiter.acquire()
                got.append(anyio.current_time())
                await limiter.acquire()
                got.append(anyio.current_time())

            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                await limiter.acquire()
                task_group.start_soon(victim.run, prey())
                await wait_idle()
                await crowd.join_all("x", "y")
                await anyio.sleep(4)
                limiter.reconfigure(*new)
                await crowd.join("z")

            assert len(crowd.granted) == 3
            assert limiter.statistics().tasks_waiting == 0
            await anyio.sleep(100)
            assert left(limiter) == [policy.limit for policy in limiter._gate.policies]

        assert sweep_with(blow, scenario) >= 3


@dataclass(frozen=True)
class Broken:
    """A policy that cannot make its bucket."""

    limit: int = 1
    window: float = 1.0
    unit: str = "calls"
    holds: bool = False

    def bucket(self) -> Bucket:
        raise ZeroDivisionError


@pytest.mark.timing
async def test_a_policy_that_fails_changes_nothing() -> None:
    limiter = RateLimiter("1/10s")
    async with tasks() as task_group:
        await limiter.acquire()
        task_group.start_soon(limiter.acquire)
        await wait_idle()
        with pytest.raises(ZeroDivisionError):
            limiter.reconfigure(Broken(), concurrency=1)

        assert repr(limiter) == "<RateLimiter 1 calls/10s, 1 waiting>"

    assert anyio.current_time() == 10.0


@pytest.mark.timing
class TestInTheSameInstant:
    async def test_a_patience_that_ends_and_a_cost_that_does_not_fit(self) -> None:
        limiter = RateLimiter("1/100s")
        await limiter.acquire()
        errors: list[type[Exception]] = []

        async def wait() -> None:
            with pytest.raises((ValueError, LimitExceeded)) as raised:
                await limiter.acquire(max_wait=150)

            errors.append(raised.type)
            assert "zip" not in str(raised.value)

        async def reconfigure() -> None:
            await anyio.sleep(150)
            limiter.reconfigure("1/100s", "5 tokens/s")

        async with tasks() as task_group:
            task_group.start_soon(reconfigure)
            task_group.start_soon(wait)
            await wait_idle()
            limiter.pause(1000)

        assert len(errors) == 1


#: What happens to a limiter, and what is left by each policy: each line an instant, a verb, and its
#: arguments.
Course = list[tuple[Any, ...]]


async def follow(limiter: RateLimiter, course: Course) -> None:
    """Let it happen; calls run until they end, by name, and nobody has to wait."""
    permits: dict[str, TurnPermit] = {}
    for number, (instant, *step) in enumerate(course):
        now = anyio.current_time()
        assert instant >= now, f"somebody has waited: {course[: number + 1]}"
        if instant > now:
            await anyio.sleep_until(instant)

        match step:
            case "begin", str(name), cost:
                permits[name] = await limiter.permit(cost, max_wait=0).__aenter__()
            case "end", str(name):
                await permits[name].__aexit__(None, None, None)
            case "acquire", cost:
                await limiter.acquire(cost)
            case (("refund" | "settle") as verb, str(name), *cost):
                getattr(permits[name], verb)(*cost)
            case "left", *amounts:
                assert left(limiter) == amounts, course[: number + 1]
            case "become", *policies:
                limiter.reconfigure(*policies)
            case "tighten", remaining, float(reset_after):
                limiter.tighten(remaining=remaining, reset_after=reset_after)
            case _:
                pytest.fail(f"{step!r} is no step")


RUNNING: dict[str, tuple[list[Policy | str], Course]] = {
    "a charge is held from now on, instead of counting from the start": (
        ["5/10s"],
        [
            (0.0, "begin", "call", 3),
            (4.0, "become", ending(5, 10)),
            (4.0, "left", 2),
            (4.0, "begin", "other", 2),
            (4.0, "end", "other"),
            (50.0, "left", 2),
            (50.0, "end", "call"),
            (59.0, "left", 2),
            (60.0, "left", 5),
        ],
    ),
    "a charge that was held counts from now on": (
        [ending(5, 10)],
        [
            (0.0, "begin", "call", 3),
            (4.0, "become", "5/10s"),
            (4.0, "left", 2),
            (13.0, "left", 2),
            (14.0, "left", 5),
            (14.0, "end", "call"),
            (14.0, "left", 5),
        ],
    ),
    "a charge that is held is so by the new limit too": (
        [ending(5, 10)],
        [
            (0.0, "begin", "call", 2),
            (0.0, "begin", "other", 2),
            (0.0, "end", "other"),
            (8.0, "become", ending(6, 20)),
            (8.0, "left", 2),
            (20.0, "left", 4),
            (20.0, "end", "call"),
            (39.0, "left", 4),
            (40.0, "left", 6),
        ],
    ),
    "a charge that was held and then counted is held once": (
        [ending(5, 10)],
        [
            (0.0, "begin", "call", 3),
            (0.0, "begin", "other", 2),
            (0.0, "end", "other"),
            (10.0, "become", "5/10s"),
            (10.0, "left", 2),
            (10.0, "become", ending(5, 10)),
            (10.0, "left", 2),
            (10.0, "end", "call"),
            (20.0, "left", 5),
        ],
    ),
    "a charge that had come back and is held again counts once": (
        [ending(5, 5)],
        [
            (0.0, "begin", "call", 3),
            (2.0, "become", "5/10s"),
            (7.0, "become", ending(5, 5)),
            (7.0, "left", 2),
            (7.0, "become", "5/10s"),
            (7.0, "left", 2),
            (7.0, "end", "call"),
            (17.0, "left", 5),
        ],
    ),
    "a charge of which a server has moved a part is held once": (
        ["5/10s"],
        [
            (0.0, "begin", "call", 3),
            (4.0, "tighten", 3, 9.0),
            (4.0, "become", ending(5, 20)),
            (4.0, "left", 2),
            (4.0, "end", "call"),
        ],
    ),
    "what was charged later is given back of what counts from then": (
        ["5/10s"],
        [
            (0.0, "begin", "call", 1),
            (0.0, "acquire", 1),
            (4.0, "settle", "call", 3),
            (4.0, "become", "5/20s"),
            (4.0, "refund", "call"),
            (4.0, "left", 4),
            (4.0, "end", "call"),
            (20.0, "left", 5),
        ],
    ),
    "of two that run, each gets back its own": (
        ["5/10s"],
        [
            (0.0, "begin", "early", 2),
            (4.0, "begin", "late", 2),
            (4.0, "become", "5/20s"),
            (4.0, "refund", "late"),
            (20.0, "left", 5),
            (20.0, "end", "late"),
            (20.0, "end", "early"),
        ],
    ),
    "a refund of what had come back gives nothing": (
        ["5/20s"],
        [
            (0.0, "begin", "call", 3),
            (10.0, "acquire", 2),
            (10.0, "become", "5/4s"),
            (10.0, "left", 3),
            (10.0, "refund", "call"),
            (10.0, "left", 3),
            (10.0, "end", "call"),
        ],
    ),
    "a unit that was not counted before can be settled": (
        ["5/10s"],
        [
            (0.0, "begin", "call", 2),
            (0.0, "become", "5/10s", "100 tokens/10s"),
            (0.0, "left", 3, 100),
            (0.0, "settle", "call", {"tokens": 30}),
            (0.0, "left", 3, 70),
            (0.0, "settle", "call", {"tokens": 20}),
            (0.0, "left", 3, 80),
            (0.0, "end", "call"),
        ],
    ),
    "units that are not counted any more": (
        ["5/10s", "9 tokens/10s"],
        [
            (0.0, "begin", "call", {"tokens": 3}),
            (0.0, "become", "5/10s"),
            (0.0, "refund", "call"),
            (0.0, "left", 5),
            (0.0, "become", "5/10s", "9 tokens/10s"),
            (0.0, "refund", "call"),
            (0.0, "left", 5, 9),
            (0.0, "end", "call"),
        ],
    ),
}


@pytest.mark.timing
class TestCallsThatRun:
    @pytest.mark.parametrize(("policies", "course"), RUNNING.values(), ids=RUNNING)
    async def test_one_by_one(self, policies: list[Policy | str], course: Course) -> None:
        await follow(RateLimiter(*policies), course)

    async def test_what_is_not_counted_any_more_can_be_settled_all_the_same(self) -> None:
        limiter = RateLimiter("5/10s", "100 tokens/10s")
        async with limiter.permit({"tokens": 50}) as permit:
            limiter.reconfigure("5/10s")
            permit.settle({"tokens": 20, "calls": 2})
            assert left(limiter) == [3]
            with pytest.raises(ValueError, match="'pages' is not counted"):
                permit.settle({"pages": 1})

        async with limiter.permit() as permit:
            limiter.reconfigure("100 tokens/10s")
            permit.settle({"calls": 0})
            permit.mark_counted("calls")

        limiter = RateLimiter("5/10s", "100 tokens/10s")
        async with limiter.permit({"tokens": 50}) as permit:
            limiter.reconfigure("100 tokens/10s")
            permit.settle({"calls": 0, "tokens": 20})
            permit.mark_counted("requests")
            assert left(limiter) == [80]

    @pytest.mark.parametrize(
        ("new", "at_10"), [("5/10s", 5), (ending(5, 10), 2)], ids=["by start", "by end"]
    )
    async def test_are_charged_for_a_unit_that_was_not_counted_before(
        self, new: Policy | str, at_10: int
    ) -> None:
        limiter = RateLimiter(concurrency=5)
        async with limiter, limiter.permit({"calls": 2}), limiter.permit(0):
            await anyio.sleep_until(4)
            limiter.reconfigure(new)
            assert left(limiter) == [2]
            assert await left_at(limiter, 10) == [at_10]

        assert left(limiter) == [at_10]
        assert await left_at(limiter, 20) == [5]

    async def test_what_they_have_ended_is_remembered_beside_a_longer_window(self) -> None:
        limiter = RateLimiter(ending(2, 3), "100/10s")
        async with limiter:
            await anyio.sleep_until(20)

        limiter.reconfigure(ending(1, 3), "100/10s")
        assert limiter.peek().retry_after == 3.0

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (WindowTokenBucket(5, 10), WindowTokenBucket(6, 20)),
            (WindowTokenBucket(5, 10), ending(6, 20)),
            (WindowTokenBucket(5, 10), FixedWindow(6, 20)),
            (WindowTokenBucket(5, 10), TokenBucket(6, 6000)),
            (ending(5, 10), WindowTokenBucket(6, 20)),
            (ending(5, 10), ending(6, 20)),
            (FixedWindow(5, 10), WindowTokenBucket(6, 20)),
            (TokenBucket(5, 5000), WindowTokenBucket(6, 20)),
        ],
        ids=repr,
    )
    async def test_can_be_refunded_and_settled_with_the_new_policy(
        self, old: Policy, new: Policy
    ) -> None:
        limiter = RateLimiter(old)
        async with limiter.permit(2) as early:
            await anyio.sleep(1)
            async with limiter.permit(2) as late:
                await anyio.sleep(1)
                limiter.reconfigure(new)
                assert left(limiter) == [2]
                early.settle(3)
                assert left(limiter) == [1]
                early.settle(1)
                assert left(limiter) == [3]
                late.refund()
                assert left(limiter) == [5]
                late.settle(2)
                early.refund()
                assert left(limiter) == [4]

            late.refund()
            assert left(limiter) == [6]

        await anyio.sleep(1e5)
        assert left(limiter) == [6]

    async def test_a_charge_that_a_policy_has_forgotten_is_held_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FixedWindowBucket, "history", lambda _self, _now: [])
        limiter = RateLimiter(FixedWindow(5, 10))
        async with limiter.permit(3):
            await anyio.sleep_until(1000)
            limiter.reconfigure(ending(5, 10))
            assert left(limiter) == [2]
            assert await left_at(limiter, 2000) == [2]

    async def test_a_call_that_has_ended_gives_back_no_more_than_it_took(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(3) as permit:
            pass

        await limiter.acquire(2)
        limiter.reconfigure("6/10s")
        permit.refund()
        permit.refund()
        assert left(limiter)[0] <= 4
        await anyio.sleep(10)
        assert left(limiter) == [6]


@pytest.mark.timing
class TestConcurrency:
    async def test_more_slots_help_those_who_wait(self) -> None:
        limiter = RateLimiter(concurrency=1)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come_all(*range(5), seconds=10)
            await anyio.sleep(1)
            limiter.reconfigure(concurrency=3)
            await wait_idle()
            assert callers.running == 3

        assert list(callers.entered.values()) == [0.0, 1.0, 1.0, 10.0, 11.0]

    async def test_with_fewer_slots_those_that_run_count(self) -> None:
        limiter = RateLimiter(concurrency=3)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            for number in range(3):
                await callers.come(number, 10.0 + number)

            await callers.come_all("next", "last", seconds=5)
            limiter.reconfigure(concurrency=1)
            assert limiter.statistics().borrowed_tokens == 3

        assert (callers.entered["next"], callers.entered["last"]) == (12.0, 17.0)

    async def test_calls_that_run_count_though_nothing_was_held_before(self) -> None:
        limiter = RateLimiter("9/s")
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come_all("a", "b", seconds=10)
            limiter.reconfigure("9/s", concurrency=2)
            assert limiter.statistics().borrowed_tokens == 2
            await callers.come("next")

        assert callers.entered["next"] == 10.0
        assert limiter.statistics().borrowed_tokens == 0

    async def test_concurrency_is_as_it_is_unless_it_is_said(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        for concurrency, total in ((1, 1), (capacity, 1), (None, math.inf)):
            limiter = RateLimiter("5/s", concurrency=concurrency)
            limiter.reconfigure("7/s")
            assert limiter.statistics().total_tokens == total
            async with limiter:
                assert capacity.borrowed_tokens == (concurrency is capacity)

        assert capacity.borrowed_tokens == 0

    async def test_no_bound_any_more(self) -> None:
        for concurrency in (1, anyio.CapacityLimiter(1)):
            limiter = RateLimiter(concurrency=concurrency)
            async with tasks() as task_group:
                callers = Callers(limiter, task_group)
                await callers.come_all(*range(4), seconds=10)
                limiter.reconfigure(concurrency=None)
                await wait_idle()
                assert callers.running == 4
                await limiter.acquire()

            if isinstance(concurrency, anyio.CapacityLimiter):
                assert concurrency.borrowed_tokens == 0

    @pytest.mark.parametrize("shared", [False, True])
    async def test_slots_that_are_shared_from_now_on(self, shared: bool) -> None:
        before: Any = anyio.CapacityLimiter(3) if shared else 3
        capacity = anyio.CapacityLimiter(3)
        limiter = RateLimiter(concurrency=before)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come_all("a", "b", seconds=10)
            limiter.reconfigure(concurrency=capacity)
            assert capacity.borrowed_tokens == 2
            await callers.come_all("c", "d", seconds=10)
            assert capacity.borrowed_tokens == 3
            assert callers.running == 3

        assert callers.entered["d"] == 10.0
        assert capacity.borrowed_tokens == 0
        if shared:
            assert before.borrowed_tokens == 0

    async def test_slots_that_are_its_own_from_now_on(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        limiter = RateLimiter(concurrency=capacity)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come_all("a", "b", "c", seconds=10)
            limiter.reconfigure(concurrency=2)
            await wait_idle()
            assert capacity.borrowed_tokens == 0
            assert capacity.statistics().tasks_waiting == 0
            assert limiter.statistics().borrowed_tokens == 2

        assert callers.entered["c"] == 10.0

    async def test_too_few_shared_slots_for_the_calls_that_run(self) -> None:
        limiter = RateLimiter(concurrency=3)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            for number in range(3):
                await callers.come(number, 1.0 + number)

            capacity = anyio.CapacityLimiter(1)
            limiter.reconfigure(concurrency=capacity)
            await callers.come("next", 5)
            await anyio.sleep_until(2.5)
            assert callers.running == 1
            assert capacity.borrowed_tokens == 1

        assert callers.entered["next"] == 3.0
        assert capacity.borrowed_tokens == 0

    async def test_a_slot_that_was_sought_is_for_a_call_that_runs_without_one(self) -> None:
        limiter = RateLimiter(concurrency=2)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            for number in range(2):
                await callers.come(number, 10.0)

            capacity = anyio.CapacityLimiter(1)
            await capacity.acquire_on_behalf_of("outsider")
            limiter.reconfigure(concurrency=capacity)
            await callers.come("next", 1)
            assert capacity.statistics().tasks_waiting == 1
            capacity.release_on_behalf_of("outsider")
            await anyio.sleep(5)
            assert callers.running == 2
            assert capacity.borrowed_tokens == 1

        assert callers.entered["next"] == 10.0
        assert capacity.borrowed_tokens == 0

    async def test_the_seeker_of_a_slot_leaves_the_line_of_the_old_ones(self) -> None:
        old, new = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        await old.acquire_on_behalf_of("outsider")
        limiter = RateLimiter(concurrency=old)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come_all("a", "b", seconds=1)
            assert old.statistics().tasks_waiting == 1
            limiter.reconfigure(concurrency=new)
            await wait_idle()
            assert old.statistics().tasks_waiting == 0
            assert new.borrowed_tokens == 1
            assert callers.running == 1

        assert callers.entered == {"a": 0.0, "b": 1.0}
        assert (old.borrowed_tokens, new.borrowed_tokens) == (1, 0)

    @pytest.mark.parametrize("urgent", [False, True])
    async def test_the_head_seeks_a_slot_in_the_line_of_the_new_ones(self, urgent: bool) -> None:
        old, new = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        await old.acquire_on_behalf_of("outsider")
        await new.acquire_on_behalf_of("outsider")
        limiter = RateLimiter(concurrency=old)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come("seeker")
            if urgent:
                # Now the seeker waits on behalf of another one.
                await callers.come("urgent", priority=-1)

            limiter.reconfigure(concurrency=new)
            await wait_idle()
            assert old.statistics().tasks_waiting == 0
            assert new.statistics().tasks_waiting == 1
            await anyio.sleep(5)
            new.release_on_behalf_of("outsider")
            await anyio.sleep(1)
            assert callers.entered.pop("seeker") == 5.0
            assert callers.entered == ({"urgent": 5.0} if urgent else {})
            task_group.cancel_scope.cancel()

    async def test_a_slot_that_comes_from_the_old_ones_in_that_instant_goes_back(self) -> None:
        old, new = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        await old.acquire_on_behalf_of("outsider")
        await new.acquire_on_behalf_of("outsider")
        limiter = RateLimiter(concurrency=old)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come("seeker")
            old.release_on_behalf_of("outsider")
            limiter.reconfigure(concurrency=new)
            await anyio.sleep(5)
            assert old.borrowed_tokens == 0
            assert not callers.entered
            new.release_on_behalf_of("outsider")

        assert callers.entered == {"seeker": 5.0}
        assert (old.borrowed_tokens, new.borrowed_tokens) == (0, 0)

    async def test_a_seeker_that_can_never_fit_any_more_gets_its_error_at_once(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        await capacity.acquire_on_behalf_of("outsider")
        limiter = RateLimiter("5/s", concurrency=capacity)
        async with tasks() as task_group:
            callers = Callers(limiter, task_group)
            await callers.come("seeker", cost=4)
            await callers.come("next")
            limiter.reconfigure("3/s")
            await wait_idle()
            assert callers.failed_at == {"seeker": 0.0}
            assert capacity.statistics().tasks_waiting == 1
            await anyio.sleep(5)
            capacity.release_on_behalf_of("outsider")

        assert callers.entered == {"next": 5.0}

    async def test_a_seeker_that_is_cancelled_as_its_cost_has_come_not_to_fit(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        await capacity.acquire_on_behalf_of("outsider")
        limiter = RateLimiter("5/s", concurrency=capacity)
        scope = anyio.CancelScope()

        async def seek() -> None:
            with scope:
                await limiter.permit(4).__aenter__()

        async with tasks() as task_group:
            task_group.start_soon(seek)
            await wait_idle()
            callers = Callers(limiter, task_group)
            await callers.come("next")
            limiter.reconfigure("3/s")
            scope.cancel()
            await anyio.sleep(5)
            capacity.release_on_behalf_of("outsider")

        assert callers.entered == {"next": 5.0}

    @examples(100)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("come"), st.floats(0.0, 5.0)),
                st.tuples(st.just("wait"), st.floats(0.0, 3.0)),
                st.tuples(st.just("slots"), st.sampled_from([1, 2, 3, -1, -2, -3, 0])),
                st.tuples(st.just("outsider"), st.sampled_from([0.0, 0.5, 2.0])),
            ),
            max_size=30,
        )
    )
    def test_exchanged_again_and_again(self, run: Run, script: list[tuple[str, Any]]) -> None:
        """A number is slots of its own, a negative one a capacity limiter, and 0 no bound."""

        async def main() -> None:
            shared = {-size: anyio.CapacityLimiter(size) for size in (1, 2, 3)}
            limiter = RateLimiter(concurrency=2)
            slots = 2
            running = entered = came = 0

            async def call(seconds: float) -> None:
                nonlocal running, entered
                async with limiter.permit():
                    running += 1
                    entered += 1
                    # Those that others have are not ours, so there may be less.
                    assert not slots or running <= abs(slots)
                    await anyio.sleep(seconds)
                    running -= 1

            async def outsider(seconds: float) -> None:
                async with shared[-2]:
                    await anyio.sleep(seconds)

            async with tasks() as task_group:
                for verb, what in script:
                    if verb == "come":
                        came += 1
                        task_group.start_soon(call, what)
                    elif verb == "wait":
                        await anyio.sleep(what)
                    elif verb == "outsider":
                        task_group.start_soon(outsider, what)
                    else:
                        slots = what
                        limiter.reconfigure(
                            concurrency=shared[what] if what < 0 else (what or None)
                        )

            assert entered == came
            assert limiter.statistics().tasks_waiting == 0
            assert limiter.statistics().borrowed_tokens == 0
            for capacity in shared.values():
                assert capacity.borrowed_tokens == 0
                assert capacity.statistics().tasks_waiting == 0

        run(main)


@pytest.mark.timing
class TestFromWithin:
    @pytest.mark.parametrize(
        "new",
        [
            lambda limiter: limiter.reconfigure("9/10s"),
            lambda limiter: limiter.reconfigure("9/10s", concurrency=1),
            lambda limiter: limiter.reconfigure(ending(9, 10), concurrency=None),
            lambda limiter: limiter.reconfigure(concurrency=anyio.CapacityLimiter(1)),
        ],
    )
    async def test_a_job_may_do_it(self, new: Callable[[RateLimiter], None]) -> None:
        limiter = RateLimiter("3/10s", concurrency=2)

        async def job() -> float:
            new(limiter)
            await anyio.sleep(1)
            return anyio.current_time()

        assert await limiter.run(job) == 1.0
        assert limiter.statistics().borrowed_tokens == 0
        assert await limiter.run(job) == 2.0
        async with limiter:
            new(limiter)

        assert limiter.statistics().borrowed_tokens == 0
        assert left(limiter) in ([6], [])


def test_help_says_that_the_concurrency_stays_as_it_is() -> None:
    assert "concurrency: 'Concurrency | AsItIs' = <as it is>" in str(
        inspect.signature(RateLimiter.reconfigure)
    )
