"""Waiting with a bound: ``max_wait``, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import Decision, LimitExceeded, RateLimiter, WindowTokenBucket
from anythrottle._events import Abandoned, Event, Granted, Refused
from anythrottle._limiters.forecast import Forecasts
from anythrottle._limiters.max_wait import check_max_wait
from anythrottle._policies.window import WindowBucket
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import BLOWS, Blow, Crowd, Victim, sweep_with, tasks
from tests.limiters.worlds import Story, draw_world, play
from tests.properties import examples
from tests.sweep import Strike


def seconds_between(earlier: float, later: float) -> float:
    """Return a delay that leads from an instant to another, or past it by a digit."""
    delay = later - earlier
    while earlier + delay < later:
        delay = math.nextafter(delay, math.inf)

    return delay


class Refusals:
    """Lets calls be refused, and notes when."""

    def __init__(self) -> None:
        self.at: dict[object, float] = {}
        self.decisions: dict[object, Decision] = {}

    async def call(self, name: object, call: Callable[[], Any]) -> None:
        try:
            await call()
        except LimitExceeded as exc:
            self.at[name] = anyio.current_time()
            self.decisions[name] = exc.decision


class Impatient(Crowd):
    """A crowd in which some wait with a bound, and are refused."""

    def __init__(self, limiter: RateLimiter, task_group: TaskGroup) -> None:
        super().__init__(limiter, task_group)
        self.refusals = Refusals()

    async def _call(self, name: object, cost: int, options: dict[str, Any]) -> None:
        await self.refusals.call(name, partial(super()._call, name, cost, options))


class TestAgainstATwinWithoutABound:
    @examples(250)
    @given(st.data())
    def test_refused_at_once_if_and_only_if_the_turn_could_not_come_in_time(
        self, run: Run, data: st.DataObject
    ) -> None:
        """All that is held is let go just after the caller has come."""
        world = draw_world(data, holding=data.draw(st.booleans(), "holding"))
        twin = run(play, world, Story.call)
        due = twin.granted["caller"]
        exact = seconds_between(twin.came, due)
        patience = st.sampled_from(
            [exact, exact, exact - 0.125, exact + 0.125, exact / 2, math.nextafter(exact, 0)]
        )
        max_wait = max(data.draw(patience, "max_wait"), 1e-3)
        refusals = Refusals()

        async def caller(story: Story) -> None:
            await refusals.call("caller", partial(story.call, max_wait=max_wait))

        story = run(play, world, caller)
        if due <= story.came + max_wait:
            assert refusals.at == {}
            assert story.granted == twin.granted
        else:
            assert refusals.at == {"caller": story.came}
            assert not refusals.decisions["caller"].allowed
            # Those in line haven't noticed.
            assert story.granted == run(play, world, None).granted

    @examples(150)
    @given(st.data())
    def test_who_does_not_wait_is_let_in_if_there_is_room(
        self, run: Run, data: st.DataObject
    ) -> None:
        world = draw_world(data)
        refusals = Refusals()
        answers: list[Decision] = []

        async def caller(story: Story) -> None:
            if world.priority == 0:
                answers.append(story.limiter.peek(world.cost))

            await refusals.call("caller", partial(story.call, max_wait=0))

        story = run(play, world, caller, stay=100.0)
        twin = run(play, world, Story.call, stay=100.0)
        at_once = twin.granted["caller"] == twin.came
        if at_once:
            assert story.granted == twin.granted
        else:
            assert refusals.at == {"caller": story.came}
            assert story.granted == run(play, world, None, stay=100.0).granted

        if answers:
            assert answers[0].allowed == at_once
            assert answers[0] == refusals.decisions.get("caller", answers[0])


@pytest.mark.timing
class TestTheEndOfPatience:
    """It could have come in time, and did not."""

    @pytest.mark.parametrize("shared", [False, True])
    async def test_a_slot_that_is_not_let_go(self, shared: bool) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter("5/s", concurrency=capacity if shared else 1)
        async with limiter:
            for seconds in (0.5, 2.25, 1 / 3):
                begun = anyio.current_time()
                with pytest.raises(LimitExceeded) as raised:
                    await limiter.permit(max_wait=seconds).__aenter__()

                assert anyio.current_time() - begun == pytest.approx(seconds, abs=1e-15)
                decision = raised.value.decision
                assert (decision.reason, decision.retry_after) == ("concurrency", math.inf)
                assert limiter.statistics().tasks_waiting == 0
                assert capacity.statistics().tasks_waiting == 0

        assert limiter.peek(4).allowed
        assert capacity.borrowed_tokens == 0

    async def test_a_charge_that_is_not_let_go(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, 2, measure="end"))
        async with limiter:
            # If it were let go now, it would be back in 2 s.
            with pytest.raises(LimitExceeded):
                await limiter.permit(max_wait=1.875).__aenter__()

            assert anyio.current_time() == 0.0
            with pytest.raises(LimitExceeded):
                await limiter.permit(max_wait=2).__aenter__()

            assert anyio.current_time() == 2.0

    async def test_a_better_priority_that_comes_in_between(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join("first")
            await crowd.join("second", max_wait=1.5)
            await crowd.join("third")
            await crowd.join("urgent", priority=-1)

        assert crowd.refusals.at == {"second": 1.5}
        # One in line, and one token out until 2.0, when that one takes it.
        assert crowd.refusals.decisions["second"].reason == "line"
        assert crowd.refusals.decisions["second"].retry_after == 1.5
        assert crowd.granted == {"first": 0.0, "urgent": 1.0, "third": 2.0}

    async def test_a_pause_that_comes_in_between(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join("first")
            for name, seconds in [("head", 1), ("behind", 3), ("last", 5)]:
                await crowd.join(name, max_wait=seconds)

            await crowd.join("patient")
            await anyio.sleep(0.5)
            limiter.pause(10)

        assert crowd.refusals.at == {"head": 1.0, "behind": 3.0, "last": 5.0}
        # After the patient one: the others give up before the pause is over.
        waits = [crowd.refusals.decisions[name].retry_after for name in ("head", "behind", "last")]
        assert waits == [10.5, 8.5, 6.5]
        assert {decision.reason for decision in crowd.refusals.decisions.values()} == {"pause"}
        assert crowd.granted == {"first": 0.0, "patient": 10.5}

    @pytest.mark.promise("G7")
    async def test_who_gives_up_before_a_pause_is_over_is_in_nobodys_way(self) -> None:
        limiter = RateLimiter("1/10s")
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join("first")
            await crowd.join("head", max_wait=12)
            limiter.pause(60)
            assert limiter.peek().retry_after == 60.0
            await crowd.join("in time", max_wait=60)
            assert limiter.peek().retry_after == 70.0
            await crowd.join("too late", max_wait=69)

        assert crowd.refusals.at == {"head": 12.0, "too late": 0.0}
        assert crowd.granted == {"first": 0.0, "in time": 60.0}

    @pytest.mark.promise("G7")
    async def test_many_who_give_up_before_a_pause_is_over(self) -> None:
        limiter = RateLimiter("10/s")
        refusals = Refusals()
        async with tasks() as task_group:
            for number in range(300):
                cost = 1 + number % 2
                call = partial(limiter.acquire, cost, max_wait=50)
                task_group.start_soon(refusals.call, number, call)

            await wait_idle()
            limiter.pause(60)
            for number in range(300, 350):
                call = partial(limiter.acquire, max_wait=64)
                task_group.start_soon(refusals.call, number, call)

            await wait_idle()
            assert not refusals.at
            await anyio.sleep(55)
            assert set(refusals.at.values()) == {50.0}
            left = len(refusals.at)

        assert len(refusals.at) == left
        assert limiter.statistics().tasks_waiting == 0

    @pytest.mark.promise("G7")
    async def test_who_gives_up_because_of_a_newcomer_is_in_nobodys_way(self) -> None:
        limiter = RateLimiter("1/10s")
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join("first")
            await crowd.join("batch", max_wait=12)
            await crowd.join("urgent", priority=-1)
            await crowd.join("third", max_wait=20)
            await crowd.join("fourth", max_wait=29)

        assert crowd.refusals.at == {"batch": 12.0, "fourth": 0.0}
        assert crowd.granted == {"first": 0.0, "urgent": 10.0, "third": 20.0}

    async def test_until_somebody_gives_up_those_behind_wait(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(10, 10))
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join("first", 5)
            await crowd.join("large", 10, max_wait=10.5)
            await anyio.sleep(2)
            # Now the large one could go at 12 only, and will have given up by 10.5.
            limiter.penalize(1)
            assert limiter.peek(4).retry_after == 8.5
            await crowd.join("small", 4)

        assert crowd.refusals.at == {"large": 10.5}
        assert crowd.granted["small"] == 10.5

    async def test_a_penalty_that_comes_in_between(self) -> None:
        limiter = RateLimiter("2/s")
        await limiter.acquire(2)
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            for name in range(3):
                await crowd.join(name, max_wait=2)

            await anyio.sleep(0.5)
            # All of it is back a window later, and then there are two tokens.
            limiter.penalize(1000)
            await anyio.sleep(1.25)
            assert limiter.statistics().tasks_waiting == 1

        assert crowd.refusals.at == {2: 2.0}
        assert crowd.refusals.decisions[2].retry_after == 0.5

    async def test_due_exactly_at_the_end(self) -> None:
        limiter = RateLimiter("2/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first", 2)
            for name in range(4):
                await crowd.join(name, max_wait=1 + name // 2)

        assert crowd.granted == {"first": 0.0, 0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0}

    @pytest.mark.parametrize("seconds", [0.1, 1 / 3, 0.7, 1e-9, 12345.678])
    async def test_due_exactly_at_the_end_with_odd_numbers(self, seconds: float) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, seconds))
        await anyio.sleep(1 / 7)
        await limiter.acquire()
        await anyio.sleep(seconds / 3)
        for _ in range(20):
            wait = limiter.peek().retry_after
            if wait:
                with pytest.raises(LimitExceeded):
                    await limiter.acquire(max_wait=wait - 4 * math.ulp(anyio.current_time()))

            await limiter.acquire(max_wait=wait)

    async def test_due_by_a_slot_that_is_let_go_in_the_last_moment(self) -> None:
        for shared in (False, True):
            capacity = anyio.CapacityLimiter(1)
            limiter = RateLimiter(concurrency=capacity if shared else 1)
            begun = anyio.current_time()
            entered: list[float] = []
            refusals = Refusals()

            async def call(limiter: RateLimiter = limiter, entered: list[float] = entered) -> None:
                async with limiter.permit(max_wait=2):
                    entered.append(anyio.current_time())

            async with tasks() as task_group, limiter:
                task_group.start_soon(refusals.call, 1, call)
                await wait_idle()
                task_group.start_soon(refusals.call, 2, call)
                await wait_idle()
                await anyio.sleep(2)

            # The one or the other is first at that moment, but none is stuck and nothing is lost.
            assert len(entered) + len(refusals.at) == 2
            assert {*entered, *refusals.at.values()} == {begun + 2}
            assert capacity.borrowed_tokens == 0
            assert limiter.statistics().tasks_waiting == 0
            async with limiter.permit(max_wait=0):
                pass

    async def test_after_a_stall_who_is_due_is_let_in_and_who_is_not_is_refused(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            await limiter.acquire()
            crowd = Impatient(limiter, task_group)
            for name in (1, 2, 3):
                await crowd.join(name, max_wait=name)

            # One token is back; the two others have no patience left.
            stall(50)

        assert crowd.granted == {1: 50.0}
        assert crowd.refusals.at == {2: 50.0, 3: 50.0}

    async def test_infinite_patience_is_none(self) -> None:
        limiter = RateLimiter("1/h")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for name in range(5):
                await crowd.join(name, max_wait=math.inf)

        assert list(crowd.granted.values()) == [0.0, 3600.0, 7200.0, 10800.0, 14400.0]

    async def test_who_waits_as_long_as_it_takes_needs_no_forecast(self) -> None:
        limiter = RateLimiter("1/s", max_waiting=9)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            with mock.patch.object(Forecasts, "is_hopeless") as asked:
                asked.return_value = False
                for max_wait in (None, None, math.inf, math.inf):
                    await crowd.join(len(crowd.scopes), max_wait=max_wait)

                assert not asked.called
                await crowd.join("bounded", max_wait=100)
                assert asked.called

        assert list(crowd.granted.values()) == [0.0, 1.0, 2.0, 3.0, 4.0]

    async def test_patience_ends_in_a_pause_without_end(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            await limiter.acquire()
            crowd = Impatient(limiter, task_group)
            for name in (2, 3):
                await crowd.join(name, max_wait=name)

            limiter.pause(math.inf)
            with pytest.raises(LimitExceeded) as raised:
                await limiter.acquire(max_wait=1e300)

            assert raised.value.retry_after == math.inf

        assert crowd.refusals.at == {2: 2.0, 3: 3.0}

    async def test_observers_are_told_of_one_refusal_and_of_nothing_else(self) -> None:
        events: list[Event] = []
        limiter = RateLimiter("1/s", name="x", observer=events.append)
        await limiter.acquire()
        with pytest.raises(LimitExceeded) as at_once:
            await limiter.acquire(max_wait=0.5)

        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join("late", max_wait=1)
            limiter.penalize(1)
            limiter.pause(2)

        told = [event for event in events if isinstance(event, (Granted, Refused, Abandoned))]
        assert told == [
            Granted("x", 1, 0.0),
            Refused("x", 1, at_once.value.decision),
            Refused("x", 1, crowd.refusals.decisions["late"]),
        ]


@pytest.mark.timing
class TestGrantsThatAPauseTakesBack:
    """Who was let in at once, and is not yet through when a pause begins, waits no longer."""

    @pytest.mark.parametrize("seconds", [0, 5])
    async def test_when_it_has_just_come(self, seconds: float) -> None:
        limiter = RateLimiter("10/10s")
        strike = Strike(1)
        strike.blow = partial(limiter.pause, 100)
        with pytest.raises(LimitExceeded) as raised:
            await strike.wrap(limiter.acquire(max_wait=seconds))

        assert anyio.current_time() == seconds
        assert raised.value.decision.reason == "pause"
        assert raised.value.retry_after == 100 - seconds
        assert limiter.statistics().tasks_waiting == 0
        assert limiter.peek().remaining == 10

    async def test_when_the_pause_is_short_enough(self) -> None:
        limiter = RateLimiter("10/10s")
        strike = Strike(1)
        strike.blow = partial(limiter.pause, 5)
        await strike.wrap(limiter.acquire(max_wait=5))
        assert anyio.current_time() == 5.0

    async def test_when_it_was_in_line(self) -> None:
        limiter = RateLimiter("2/s")
        async with tasks() as task_group:
            await limiter.acquire(2)
            crowd = Impatient(limiter, task_group)
            for name in (2, 3):
                await crowd.join(name, max_wait=name)

            stall(1)
            limiter.resume()
            assert limiter.statistics().tasks_waiting == 0
            limiter.pause(100)

        assert crowd.refusals.at == {2: 2.0, 3: 3.0}
        assert limiter.peek(2).retry_after == 98.0

    async def test_with_a_deadline(self) -> None:
        limiter = RateLimiter("10/10s")
        strike = Strike(1)
        strike.blow = partial(limiter.pause, 100)
        with anyio.move_on_after(5) as scope:
            await strike.wrap(limiter.acquire(max_wait="deadline"))

        assert scope.cancelled_caught
        assert anyio.current_time() == 5.0
        assert limiter.statistics().tasks_waiting == 0


@pytest.mark.timing
class TestWithoutWaiting:
    async def test_acquire(self) -> None:
        limiter = RateLimiter("2/s")
        for _ in range(2):
            await limiter.acquire(max_wait=0)

        with pytest.raises(LimitExceeded) as raised:
            await limiter.acquire(max_wait=0)

        assert (raised.value.decision.reason, raised.value.retry_after) == ("rate", 1.0)
        assert anyio.current_time() == 0.0

    @pytest.mark.parametrize("shared", [False, True])
    async def test_it_is_refused_in_one_go(self, shared: bool) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter("9/s", concurrency=capacity if shared else 1)
        async with tasks() as task_group:
            async with limiter:
                for _ in range(2):
                    entering = limiter.permit(max_wait=0).__aenter__()
                    with pytest.raises(LimitExceeded):
                        # It does not even try to wait.
                        entering.send(None)

                    task_group.start_soon(limiter.permit(0).__aenter__)
                    await wait_idle()

            task_group.cancel_scope.cancel()

    async def test_it_does_not_barge(self) -> None:
        limiter = RateLimiter("3/s")
        async with tasks() as task_group:
            await limiter.acquire(2)
            crowd = Crowd(limiter, task_group)
            await crowd.join("large", 3)
            with pytest.raises(LimitExceeded) as raised:
                await limiter.acquire(max_wait=0)

            assert (raised.value.decision.reason, raised.value.retry_after) == ("line", 2.0)
            # A better priority may.
            await limiter.acquire(max_wait=0, priority=-1)

        assert crowd.granted == {"large": 1.0}

    @pytest.mark.parametrize("shared", [False, True])
    async def test_permit(self, shared: bool) -> None:
        capacity = anyio.CapacityLimiter(2)
        limiter = RateLimiter("10/s", concurrency=capacity if shared else 2)
        async with limiter.permit(max_wait=0), limiter.permit(max_wait=0):
            for _ in range(3):
                with pytest.raises(LimitExceeded) as raised:
                    await limiter.permit(max_wait=0).__aenter__()

                assert raised.value.decision.reason == "concurrency"

            assert capacity.statistics().tasks_waiting == 0

        async with limiter.permit(max_wait=0):
            assert limiter.peek().remaining == 7

        assert capacity.borrowed_tokens == 0

    async def test_a_slot_that_somebody_else_waits_for(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        async with tasks() as task_group:
            await capacity.acquire_on_behalf_of("outsider")
            task_group.start_soon(capacity.acquire_on_behalf_of, "next")
            await wait_idle()
            with pytest.raises(LimitExceeded):
                await limiter.permit(max_wait=0).__aenter__()

            assert capacity.statistics().tasks_waiting == 1
            capacity.release_on_behalf_of("outsider")
            with pytest.raises(LimitExceeded):
                await limiter.permit(max_wait=0).__aenter__()

            await wait_idle()
            capacity.release_on_behalf_of("next")

        async with limiter.permit(max_wait=0):
            assert capacity.borrowed_tokens == 1

    async def test_it_is_a_checkpoint_like_any_other(self) -> None:
        limiter = RateLimiter("5/s")
        for cost in (1, 0):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await limiter.acquire(cost, max_wait=0)
                pytest.fail("it was no checkpoint")

            assert scope.cancelled_caught

        assert limiter.peek().remaining == 5

    async def test_with_fast_acquire_it_is_none(self) -> None:
        limiter = RateLimiter("5/s", fast_acquire=True)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire(max_wait=0)

        assert limiter.peek().remaining == 4


@pytest.mark.timing
class TestDeadline:
    async def test_refused_at_once_if_the_turn_comes_later(self) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        with anyio.move_on_after(0.75) as scope, pytest.raises(LimitExceeded) as raised:
            await limiter.acquire(max_wait="deadline")

        assert anyio.current_time() == 0.0
        assert raised.value.retry_after == 1.0
        assert not scope.cancelled_caught

    async def test_granted_if_the_turn_comes_before(self) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        with anyio.fail_after(1.25):
            await limiter.acquire(max_wait="deadline")

        assert anyio.current_time() == 1.0

    async def test_of_several_scopes_the_earliest_counts(self) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        for outer, inner in [(0.5, 9), (9, 0.5)]:
            with (
                anyio.move_on_after(outer),
                anyio.move_on_after(inner),
                pytest.raises(LimitExceeded),
            ):
                await limiter.acquire(max_wait="deadline")

        assert anyio.current_time() == 0.0

    async def test_without_a_deadline_it_waits_as_long_as_it_takes(self) -> None:
        limiter = RateLimiter("1/day")
        await limiter.acquire()
        await limiter.acquire(max_wait="deadline")
        assert anyio.current_time() == 86_400.0
        with anyio.CancelScope():
            await limiter.acquire(max_wait="deadline")

        assert anyio.current_time() == 2 * 86_400.0

    async def test_a_shield_hides_deadlines_from_outside(self) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        with anyio.move_on_after(0.5), anyio.CancelScope(shield=True):
            await limiter.acquire(max_wait="deadline")

        assert anyio.current_time() == 1.0
        with (
            anyio.move_on_after(5),
            anyio.move_on_after(0.5, shield=True),
            pytest.raises(LimitExceeded),
        ):
            await limiter.acquire(max_wait="deadline")

        assert anyio.current_time() == 1.0

    async def test_in_a_cancelled_scope_the_cancellation_is_what_comes(self) -> None:
        limiter = RateLimiter("1/s", concurrency=2)
        async with limiter:
            pass

        for _ in range(2):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await limiter.permit(max_wait="deadline").__aenter__()

            assert scope.cancelled_caught
            assert anyio.current_time() == 0.0
            assert limiter.statistics().tasks_waiting == 0

    async def test_when_the_deadline_comes_it_is_the_scope_that_ends_the_wait(self) -> None:
        limiter = RateLimiter("5/s", concurrency=1)
        async with limiter:
            with anyio.move_on_after(2) as scope:
                await limiter.permit(max_wait="deadline").__aenter__()

            assert scope.cancelled_caught
            with pytest.raises(TimeoutError), anyio.fail_after(1):
                await limiter.permit(max_wait="deadline").__aenter__()

        assert anyio.current_time() == 3.0
        assert limiter.peek(4).allowed
        assert limiter.statistics().tasks_waiting == 0

    async def test_a_deadline_that_is_put_off_meanwhile(self) -> None:
        limiter = RateLimiter(concurrency=1)
        async with tasks() as task_group, limiter:
            with anyio.move_on_after(2) as scope:
                task_group.start_soon(self.put_off, scope)
                await limiter.permit(max_wait="deadline").__aenter__()

            assert scope.cancelled_caught
            assert anyio.current_time() == 5.0

    async def put_off(self, scope: anyio.CancelScope) -> None:
        await anyio.sleep(1)
        scope.deadline += 3

    async def test_a_turn_that_is_due_now_needs_no_time(self) -> None:
        limiter = RateLimiter("2/s", fast_acquire=True)
        with anyio.move_on_after(0):
            await limiter.acquire(max_wait="deadline")

        assert limiter.peek().remaining == 1


class TestGivingUp:
    """What a caller leaves behind whose patience ends: nothing, and a line that goes on."""

    @pytest.mark.timing
    async def test_the_head_that_sleeps(self) -> None:
        limiter = RateLimiter("1/10s")
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join("first")
            await crowd.join("head", max_wait=10)
            await crowd.join_all("next", "last")
            await anyio.sleep(2)
            limiter.penalize(1)
            await anyio.sleep(1)
            assert limiter.statistics().tasks_waiting == 3

        assert crowd.refusals.at == {"head": 10.0}
        # The penalty is paid back at 12.0.
        assert crowd.granted == {"first": 0.0, "next": 12.0, "last": 22.0}

    @pytest.mark.timing
    async def test_the_second_in_line(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Impatient(limiter, task_group)
            await crowd.join_all("first", "head")
            await crowd.join("second", max_wait=2)
            await crowd.join("last")
            limiter.pause(3)

        assert crowd.refusals.at == {"second": 2.0}
        assert crowd.granted == {"first": 0.0, "head": 3.0, "last": 4.0}

    @pytest.mark.timing
    @pytest.mark.parametrize("freed", [1.0, 2.0, 3.0])
    async def test_the_one_who_seeks_a_shared_slot(self, freed: float) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter("9/10s", concurrency=capacity)
        refusals = Refusals()
        entered: dict[str, float] = {}

        async def enter(name: str, max_wait: float | None) -> None:
            async with limiter.permit(max_wait=max_wait):
                entered[name] = anyio.current_time()
                await anyio.sleep(1)

        async with tasks() as task_group:
            await capacity.acquire_on_behalf_of("outsider")
            task_group.start_soon(refusals.call, "seeker", partial(enter, "seeker", 2))
            await wait_idle()
            assert capacity.statistics().tasks_waiting == 1
            task_group.start_soon(enter, "next", None)
            await anyio.sleep(freed)
            capacity.release_on_behalf_of("outsider")

        # In one and the same instant, either may be first.
        through = "seeker" in entered
        assert through == (freed == 1.0) or freed == 2.0
        assert entered["next"] == freed + through
        assert refusals.at == ({} if through else {"seeker": 2.0})
        assert capacity.borrowed_tokens == 0
        assert capacity.statistics().tasks_waiting == 0
        assert limiter.peek().remaining == 9 - len(entered)

    @pytest.mark.timing
    async def test_a_crowd_at_once(self) -> None:
        limiter = RateLimiter("100/s", concurrency=1)
        refusals = Refusals()
        async with tasks() as task_group, limiter:
            for name in range(50):
                enter = limiter.permit(max_wait=2 + name % 3).__aenter__
                task_group.start_soon(refusals.call, name, enter)

            await anyio.sleep(10)

        assert refusals.at == {name: 2.0 + name % 3 for name in range(50)}
        async with limiter.permit(100, max_wait=0):
            assert limiter.statistics().tasks_waiting == 0

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("fast", [False, True], ids=["checkpoint", "fast"])
    @pytest.mark.parametrize("before", [0, 1, 2], ids=["head", "second", "third"])
    def test_cancelled_in_line(self, blow: Blow, fast: bool, before: int) -> None:
        """With patience for its turn, without patience for the pause that comes in between."""

        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter("1/s", fast_acquire=fast)
            refusals = Refusals()
            got: list[float] = []

            async def prey() -> None:
                await limiter.acquire(max_wait=before + 1)
                got.append(anyio.current_time())

            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                await limiter.acquire()
                await crowd.join_all(*range(before))
                task_group.start_soon(victim.run, refusals.call("victim", prey))
                await wait_idle()
                await crowd.join_all("x", "y")
                await anyio.sleep(before + 0.5)
                limiter.pause(2)

            assert got == []
            assert refusals.at in ({}, {"victim": before + 1.0})
            expected: dict[object, float] = {name: name + 1.0 for name in range(before)}
            expected |= {"x": before + 2.5, "y": before + 3.5}
            assert crowd.granted == expected
            await assert_whole(limiter, 1, 1.0)

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    @pytest.mark.parametrize("before", [0, 1], ids=["head", "second"])
    @pytest.mark.parametrize("freed", [1.0, 2.0, 3.0], ids=["before", "just then", "after"])
    def test_cancelled_while_waiting_for_a_slot(
        self, blow: Blow, shared: bool, before: int, freed: float
    ) -> None:
        async def scenario(victim: Victim) -> None:
            capacity = anyio.CapacityLimiter(1)
            limiter = RateLimiter("9/10s", concurrency=capacity if shared else 1)
            refusals = Refusals()
            entered: dict[object, float] = {}

            async def enter(name: object, max_wait: float | None = None) -> None:
                async with limiter.permit(max_wait=max_wait):
                    entered[name] = anyio.current_time()

            async with tasks() as task_group, limiter:
                for name in range(before):
                    task_group.start_soon(enter, name)
                    await wait_idle()

                call = refusals.call("victim", partial(enter, "victim", 2))
                task_group.start_soon(victim.run, call)
                await wait_idle()
                task_group.start_soon(enter, "next")
                await anyio.sleep(freed)

            entered.pop("victim", None)
            assert entered == dict.fromkeys([*range(before), "next"], freed)
            assert refusals.at in ({}, {"victim": 2.0})
            assert capacity.borrowed_tokens == 0
            assert capacity.statistics().tasks_waiting == 0
            assert limiter._gate.slots.holders == {}
            async with limiter.permit(max_wait=0):
                assert limiter.statistics().tasks_waiting == 0

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.parametrize("blow", BLOWS)
    def test_cancelled_without_waiting(self, blow: Blow) -> None:
        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter("2/s")
            got: list[float] = []

            async def prey() -> None:
                await limiter.acquire(2, max_wait=0)
                got.append(anyio.current_time())

            async with tasks() as task_group:
                task_group.start_soon(victim.run, prey())
                await checkpoint()
                await wait_idle()

            assert limiter.peek(2).allowed == (not got)
            await anyio.sleep(1)
            await assert_whole(limiter, 2, 1.0)

        assert sweep_with(blow, scenario) >= 2


async def assert_whole(limiter: RateLimiter, limit: int, window: float) -> None:
    """Check that nothing is held, and that after a window the full burst is there."""
    statistics = limiter.statistics()
    assert (statistics.tasks_waiting, statistics.borrowed_tokens) == (0, 0)
    await anyio.sleep(window)
    assert limiter.peek(limit).allowed
    limiter.acquire_nowait(limit)
    assert limiter.peek().retry_after == window


class TestBadBounds:
    @pytest.mark.parametrize("value", [-1, -1e-9, -math.inf, math.nan, -(10**400)])
    def test_out_of_range(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"max_wait must be at least 0, in seconds, not ") as e:
            check_max_wait(value)

        assert repr(value) in str(e.value)

    @pytest.mark.parametrize("value", ["soon", "", "Deadline", "5"])
    def test_another_text(self, value: Any) -> None:
        expected = f"max_wait must be seconds, 'deadline' or None, not {value!r}"
        with pytest.raises(ValueError, match=expected):
            check_max_wait(value)

    @pytest.mark.parametrize("value", [True, False, object(), b"deadline", [1], 1j])
    def test_no_number(self, value: Any) -> None:
        with pytest.raises(TypeError, match="max_wait must be a number of seconds, not ") as e:
            check_max_wait(value)

        assert repr(value) in str(e.value)

    @pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, math.inf, 10**400, "deadline", None])
    def test_good_ones(self, value: Any) -> None:
        kept = check_max_wait(value)
        assert kept == (math.inf if value == 10**400 else value)

    @pytest.mark.parametrize("value", [-1, math.nan, "soon", True, object()])
    @pytest.mark.parametrize("free", [True, False])
    async def test_callers_are_told_at_once(self, value: Any, free: bool) -> None:
        limiter = RateLimiter("1/h")
        held = RateLimiter("1/h", concurrency=1)
        if not free:
            await limiter.acquire()

        with pytest.raises((ValueError, TypeError), match="max_wait must be "):
            await limiter.acquire(max_wait=value)

        with pytest.raises((ValueError, TypeError), match="max_wait must be "):
            held.permit(max_wait=value)

        assert limiter.statistics().tasks_waiting == 0
        assert limiter.peek().remaining == int(free)


@pytest.mark.timing
@pytest.mark.parametrize(("digits", "granted"), [(1, True), (30, True), (10**6, False)])
async def test_a_turn_that_is_due_by_a_digit_too_late_is_waited_for(
    digits: int, granted: bool
) -> None:
    limiter = RateLimiter("1/10s")
    await limiter.acquire()
    outcome: list[bool] = []

    async def wait() -> None:
        try:
            await limiter.acquire(max_wait=10)
        except LimitExceeded:
            outcome.append(False)
        else:
            outcome.append(True)

    async with tasks() as task_group:
        task_group.start_soon(wait)
        await wait_idle()
        # As if the instant had been reckoned on another way than the forecast's.
        bucket = limiter._gate.buckets[0]
        assert isinstance(bucket, WindowBucket)
        bucket._entries[0] = (10 + digits * math.ulp(10.0), 1, 0.0)

    assert outcome == [granted]
