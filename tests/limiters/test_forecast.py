"""What callers are told who may not wait: true answers, at little cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    Decision,
    FixedWindow,
    LimitExceeded,
    RateLimiter,
    TokenBucket,
    WindowTokenBucket,
)
from anythrottle._limiters import forecast, timetable
from anythrottle._limiters import queue as queue_module
from anythrottle._limiters.forecast import Forecasts
from anythrottle._limiters.timetable import Forecast
from anythrottle._policies.window import WindowBucket
from anythrottle.abc import Policy
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.lines import Line, RandomLine, due_anew
from tests.limiters.tools import Crowd, tasks
from tests.limiters.worlds import Story, draw_world, play, wall_clock
from tests.properties import examples

#: After how many seconds those let go who stay. All that is in line has gone long before.
LONG = 4096.0


async def refusal(limiter: RateLimiter, *args: Any, **options: Any) -> Decision | None:
    """Ask for a turn that is due; return why there is none."""
    try:
        async with limiter.permit(*args, max_wait=0, **options):
            return None
    except LimitExceeded as exc:
        return exc.decision


class TestTheTruth:
    """Refused until then, granted exactly then if nobody else comes."""

    @examples(150)
    @given(st.data())
    def test_who_waits_all_the_same_is_granted_exactly_then(
        self, run: Run, data: st.DataObject
    ) -> None:
        world = draw_world(data, holding=data.draw(st.booleans(), "holding"))
        answers: list[Decision] = []

        async def caller(story: Story) -> None:
            limiter = story.limiter
            if world.priority == 0:
                answers.append(limiter.peek(world.cost))
                if not limiter._gate.holds and not answers[0].allowed:
                    with pytest.raises(LimitExceeded) as raised:
                        limiter.acquire_nowait(world.cost)

                    answers.append(raised.value.decision)

            decision = await refusal(limiter, world.cost, priority=world.priority)
            if decision is not None:
                answers.append(decision)

        run(play, world, caller, stay=LONG)
        twin = run(play, world, Story.call, stay=LONG)
        waited = twin.granted["caller"] - twin.came
        if not answers:
            assert waited == 0.0
            return

        decision = answers[0]
        assert all(answer == decision for answer in answers)
        assert decision.allowed == (waited == 0.0)
        if decision.retry_after == math.inf:
            # Somebody stays, or is in line and may stay.
            assert world.concurrency or any(policy.holds for policy in world.policies)
        else:
            assert decision.retry_after == waited

    @examples(100)
    @given(st.data())
    def test_who_comes_back_is_granted_exactly_then_and_not_before(
        self, run: Run, data: st.DataObject
    ) -> None:
        world = draw_world(data, holding=data.draw(st.booleans(), "holding"))
        outcomes: dict[str, Decision | None] = {}

        async def caller(story: Story) -> None:
            async def ask(when: str) -> None:
                await wait_idle()
                outcomes[when] = await refusal(story.limiter, world.cost, priority=world.priority)

            behind = story.limiter.statistics().tasks_waiting
            behind -= story.limiter._line.queue.count_ahead(world.priority)
            first = await refusal(story.limiter, world.cost, priority=world.priority)
            # Those who would be passed may go meanwhile, and take what is there.
            if first is None or first.retry_after == math.inf or behind:
                return

            due = story.came + first.retry_after
            await anyio.sleep_until(due - 0.0625)
            if due - 0.0625 > story.came:
                await ask("before")

            await anyio.sleep_until(due)
            await ask("then")

        run(play, world, caller, stay=LONG)
        assert outcomes.get("then") is None
        if "before" in outcomes:
            before = outcomes["before"]
            assert before is not None
            assert before.retry_after == 0.0625

    @pytest.mark.timing
    @pytest.mark.parametrize(
        ("policy", "due"),
        [
            (WindowTokenBucket(2, 8), [8, 8, 16, 16, 24]),
            (TokenBucket(2, 8, burst=2), [4, 8, 12, 16, 20]),
            (FixedWindow(2, 8), [8, 8, 16, 16, 24]),
            (FixedWindow(2, 8, align="utc"), [5, 5, 13, 13, 21]),
        ],
        ids=["window", "token bucket", "fixed", "utc"],
    )
    async def test_those_in_line_are_counted(self, policy: Policy, due: list[int]) -> None:
        with wall_clock(3.0):
            limiter = RateLimiter(policy)
            await limiter.acquire(2)
            await anyio.sleep(1)
            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                for number, instant in enumerate(due):
                    decision = limiter.peek()
                    assert decision == await refusal(limiter)
                    assert decision.reason == ("line" if number else "rate")
                    assert decision.retry_after == instant - 1.0
                    assert (decision.remaining, decision.policy) == (0, policy)
                    await crowd.join(number)

        assert list(crowd.granted.values()) == due

    @pytest.mark.timing
    async def test_the_reason_is_what_stands_first_in_the_way(self) -> None:
        limiter = RateLimiter("2/s", concurrency=1)
        reasons = []
        async with tasks() as task_group:
            async with limiter.permit(2):
                reasons.append((await refused(limiter)).reason)
                task_group.start_soon(enter, limiter)
                await wait_idle()
                reasons.append((await refused(limiter)).reason)
                limiter.pause(0.5)
                reasons.append((await refused(limiter)).reason)
                await anyio.sleep(0.5)
                reasons.append((await refused(limiter)).reason)

            reasons.append((await refused(limiter)).reason)

        limiter.penalize(1)
        reasons.append((await refused(limiter)).reason)
        assert reasons == ["concurrency", "line", "pause", "line", "line", "rate"]

    @pytest.mark.timing
    @pytest.mark.parametrize("shared", [False, True])
    async def test_those_in_line_will_have_the_slots_that_are_left(self, shared: bool) -> None:
        capacity = anyio.CapacityLimiter(2)
        limiter = RateLimiter(concurrency=capacity if shared else 2)
        limiter.pause(5)
        answers = []
        async with tasks() as task_group:
            for _ in range(3):
                answers.append((await refused(limiter)).retry_after)
                task_group.start_soon(limiter.permit().__aenter__)
                await wait_idle()

            task_group.cancel_scope.cancel()

        assert answers == [5.0, 5.0, math.inf]

    @pytest.mark.timing
    async def test_what_is_held_until_its_end_is_counted_for_those_in_line(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, 8, measure="end"))
        limiter.pause(4)
        entered: list[float] = []

        async def call(max_wait: float) -> None:
            async with limiter.permit(max_wait=max_wait):
                entered.append(anyio.current_time())

        async with tasks() as task_group:
            task_group.start_soon(call, 100)
            await wait_idle()
            # The one in line goes at 4, for nobody knows how long; at once perhaps.
            assert limiter.peek().retry_after == math.inf
            with pytest.raises(LimitExceeded):
                await call(11.875)

            assert anyio.current_time() == 0.0
            await call(12)

        assert entered == [4.0, 12.0]


async def refused(limiter: RateLimiter) -> Decision:
    decision = await refusal(limiter)
    assert decision is not None
    assert decision == limiter.peek()
    return decision


class Script:
    """
    Lets all kinds of things happen to a limiter, and asks after each one.

    The answers are compared with those of an outlook that has just been made, and so has nothing
    kept.
    """

    def __init__(self, data: Any, limiter: RateLimiter, task_group: TaskGroup) -> None:
        self.data = data
        self.limiter = limiter
        self.task_group = task_group
        self.inside: list[tuple[Any, anyio.Event]] = []
        self.scopes: list[anyio.CancelScope] = []
        gate = limiter._gate
        self.most = min([int(most) for most in gate.capacities])

    def draw(self, strategy: st.SearchStrategy[Any], label: str | None = None) -> Any:
        return self.data.draw(strategy, label)

    async def call(self, cost: int, options: dict[str, Any], leave: anyio.Event) -> None:
        with anyio.CancelScope() as scope:
            self.scopes.append(scope)
            try:
                async with self.limiter.permit(cost, **options) as permit:
                    self.inside.append((permit, leave))
                    await leave.wait()
            except LimitExceeded:
                pass

    async def step(self) -> None:
        act = self.draw(st.sampled_from(self.ACTS), "act")
        await getattr(self, act)()
        await wait_idle()

    ACTS = (
        *["join"] * 6,
        *["sleep"] * 4,
        *["exit"] * 3,
        "leave",
        "pause",
        "resume",
        "penalize",
        "settle",
        "tighten",
        "nowait",
    )

    async def join(self) -> None:
        options = {
            "priority": self.draw(st.sampled_from([0, 0, 0, 0, -1, 1])),
            "max_wait": self.draw(st.sampled_from([None, 0, 1, 20, 500, 500])),
        }
        leave = anyio.Event()
        if self.draw(st.booleans(), "at once"):
            leave.set()

        cost = self.draw(st.integers(0, self.most), "cost")
        self.task_group.start_soon(self.call, cost, options, leave)

    async def sleep(self) -> None:
        await anyio.sleep(self.draw(st.sampled_from([0.125, 0.5, 1.0, 4.0, 9.0]), "seconds"))

    async def exit(self) -> None:
        if self.inside:
            self.inside.pop(0)[1].set()

    async def leave(self) -> None:
        if self.scopes:
            self.draw(st.sampled_from(self.scopes)).cancel()

    async def pause(self) -> None:
        self.limiter.pause(self.draw(st.sampled_from([0.5, 6.0])))

    async def resume(self) -> None:
        self.limiter.resume()

    async def penalize(self) -> None:
        self.limiter.penalize(self.draw(st.integers(1, 3)))

    async def tighten(self) -> None:
        self.limiter.tighten(remaining=self.draw(st.integers(0, 2)), reset_after=2.0)

    async def settle(self) -> None:
        if self.inside:
            self.inside[-1][0].settle(self.draw(st.integers(0, 5)))

    async def nowait(self) -> None:
        await refusal(self.limiter, self.draw(st.integers(0, self.most)))

    def compare(self) -> None:
        line = self.limiter._line
        now = line.clock.now()
        kept, fresh = line.scheduler.outlook, Forecasts(self.limiter._gate, line.queue)
        for cost in {1, self.most}:
            amounts = self.limiter._gate.amounts(cost)
            for priority in (0, 1, -1):
                expected = fresh.decide(amounts, now, priority)
                assert kept.decide(amounts, now, priority) == expected
                gate, queue = self.limiter._gate, line.queue
                due = max(due_anew(gate, queue, now, amounts, priority), now)
                assert not kept.is_hopeless(amounts, now, priority, due)
                assert (
                    kept.is_hopeless(amounts, now, priority, math.nextafter(due, 0)) or due == now
                )
                fresh.invalidate()

            assert self.limiter.peek(cost) == fresh.decide(amounts, now)

    async def finish(self) -> None:
        self.limiter.resume()
        for _, leave in self.inside:
            leave.set()

        self.task_group.cancel_scope.cancel()


class TestWhatIsKept:
    """A forecast that is kept says what one says that is made anew."""

    @examples(120)
    @given(st.data())
    def test_at_every_step(self, run: Run, data: st.DataObject) -> None:
        world = draw_world(data, holding=data.draw(st.booleans(), "holding"))

        async def main() -> None:
            limiter = world.limiter()
            with wall_clock():
                async with tasks() as task_group:
                    script = Script(data, limiter, task_group)
                    for _ in range(data.draw(st.integers(1, 25), "steps")):
                        await script.step()
                        script.compare()

                    await script.finish()

        run(main)

    @pytest.mark.timing
    async def test_a_line_that_has_waited_for_a_slot_is_later_than_was_thought(self) -> None:
        limiter = RateLimiter("1/10s", concurrency=15)
        go = anyio.Event()

        async def call(cost: int, max_wait: float | None) -> None:
            async with limiter.permit(cost, max_wait=max_wait):
                if cost == 0:
                    await go.wait()

        async with tasks() as task_group:
            for _ in range(15):
                task_group.start_soon(call, 0, None)

            await wait_idle()
            for _ in range(10):
                task_group.start_soon(call, 1, 10_000)
                await wait_idle()

            # Nobody knows when there will be a slot; then they go, each ten seconds.
            await anyio.sleep(50)
            go.set()
            await wait_idle()
            assert limiter.statistics().tasks_waiting == 9
            assert limiter.peek().retry_after == 100.0
            await anyio.sleep(10)
            assert limiter.peek().retry_after == 90.0

    @pytest.mark.timing
    async def test_a_better_priority_that_passes_a_large_head_is_counted(self) -> None:
        limiter = RateLimiter("10/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join("first", 5)
            await anyio.sleep(1)
            await crowd.join("large", 10)
            assert limiter.peek().retry_after == 19.0
            await crowd.join("small", 3, priority=-1)
            assert limiter.peek().retry_after == 20.0

        assert crowd.granted["large"] == 11.0

    @pytest.mark.timing
    async def test_while_the_head_waits_for_a_slot_the_earliest_turn_moves_on(self) -> None:
        limiter = RateLimiter("1/10s", concurrency=1)
        async with tasks() as task_group, limiter.permit(0):
            for _ in range(2):
                task_group.start_soon(partial(enter, limiter, max_wait=1000))
                await wait_idle()

            await anyio.sleep(50)
            with pytest.raises(LimitExceeded):
                # They will go at 50 and 60 at the earliest, so this one at 70.
                await enter(limiter, max_wait=19.875)

            assert anyio.current_time() == 50.0
            task_group.start_soon(partial(enter, limiter, max_wait=20))
            await wait_idle()
            assert limiter.statistics().tasks_waiting == 3

        assert anyio.current_time() == 70.0

    @pytest.mark.timing
    @pytest.mark.parametrize("when", ["before the grant", "before it begins"])
    async def test_after_stalls_it_is_off_by_a_hundredth_at_most(self, when: str) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(1000))
            limiter.peek()
            for _ in range(40):
                if when == "before the grant":
                    await anyio.sleep(0.5)
                    stall(1.5)
                else:
                    await anyio.sleep(0.75)
                    stall(0.5)
                    # Grants the next one its turn, which then begins late.
                    limiter._line.serve(anyio.current_time())
                    stall(1)

                await wait_idle()
                now = anyio.current_time()
                line = limiter._line
                fresh = Forecasts(limiter._gate, line.queue).decide((1,), now)
                kept = limiter.peek()
                assert kept.retry_after == pytest.approx(fresh.retry_after, rel=0.01)

            task_group.cancel_scope.cancel()


async def enter(limiter: RateLimiter, **options: Any) -> None:
    async with limiter.permit(**options):
        pass


class TestCost:
    """Of many who ask, each costs no more than those who have come since the one before."""

    def additions(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, number: int, scene: Callable[..., Any]
    ) -> int:
        """Count for how many turns a scene with so many tasks has thought ahead."""
        count = 0
        add = Forecast.add

        def counted(*args: Any) -> list[float]:
            nonlocal count
            count += 1
            return add(*args)

        async def main() -> None:
            limiter = RateLimiter("100/s")
            async with tasks() as task_group:
                await limiter.acquire(100)
                await scene(limiter, task_group, number)

        with monkeypatch.context() as patch:
            patch.setattr(Forecast, "add", counted)
            run(main)

        return count

    def assert_linear(self, run: Run, patch: pytest.MonkeyPatch, scene: Callable[..., Any]) -> None:
        few = self.additions(run, patch, 150, scene)
        many = self.additions(run, patch, 600, scene)
        assert many <= 6 * few + 600, "four times as many cost far more than four times as much"

    def test_many_with_a_bound(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            for _ in range(number):
                task_group.start_soon(partial(limiter.acquire, max_wait=1e6))

        self.assert_linear(run, monkeypatch, scene)

    def test_many_who_come_while_others_go(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            for _ in range(number // 25):
                for _ in range(30):
                    task_group.start_soon(partial(limiter.acquire, max_wait=1e6))

                await anyio.sleep(0.25)

        self.assert_linear(run, monkeypatch, scene)

    def test_many_who_ask(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            for _ in range(number):
                task_group.start_soon(limiter.acquire)

            await wait_idle()
            for _ in range(number):
                limiter.peek()
                with pytest.raises(LimitExceeded):
                    limiter.acquire_nowait()

        self.assert_linear(run, monkeypatch, scene)

    @pytest.mark.parametrize("max_wait", [0, 0.5])
    def test_many_who_are_refused_at_once(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, max_wait: float
    ) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            for _ in range(number):
                task_group.start_soon(limiter.acquire)

            await wait_idle()
            for _ in range(number):
                with pytest.raises(LimitExceeded):
                    await limiter.acquire(max_wait=max_wait)

        self.assert_linear(run, monkeypatch, scene)

    def test_many_for_whom_there_is_no_room(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            limiter._line.scheduler.max_waiting = number
            for _ in range(number):
                task_group.start_soon(limiter.acquire)

            await wait_idle()
            for _ in range(number):
                with pytest.raises(LimitExceeded):
                    await limiter.acquire()

        self.assert_linear(run, monkeypatch, scene)

    @pytest.mark.parametrize("options", [{}, {"max_wait": 1e6}], ids=["", "with a bound"])
    def test_many_who_go_before_all_others(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            limiter._line.scheduler.max_waiting = number

            async def come(priority: int) -> None:
                with suppress(LimitExceeded):
                    await limiter.acquire(priority=priority, **options)

            for priority in range(2 * number):
                task_group.start_soon(come, -priority)

            await wait_idle()

        self.assert_linear(run, monkeypatch, scene)

    @pytest.mark.parametrize("shared", [False, True])
    def test_many_with_a_bound_who_wait_for_a_slot(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, shared: bool
    ) -> None:
        async def scene(_: RateLimiter, task_group: TaskGroup, number: int) -> None:
            slots = anyio.CapacityLimiter(1) if shared else 1
            limiter = RateLimiter("1000/s", concurrency=slots)
            async with limiter:
                for _number in range(number):
                    bounded = limiter.permit(max_wait=1e6).__aenter__
                    task_group.start_soon(bounded)
                    await anyio.sleep(1e-6)

                task_group.cancel_scope.cancel()

        self.assert_linear(run, monkeypatch, scene)

    def test_many_with_a_bound_who_wait_for_calls_to_end(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scene(_: RateLimiter, task_group: TaskGroup, number: int) -> None:
            limiter = RateLimiter(WindowTokenBucket(2, 10, measure="end"))
            async with limiter, limiter:
                for _number in range(number):
                    task_group.start_soon(limiter.permit(max_wait=1e6).__aenter__)
                    await anyio.sleep(1e-6)
                    limiter.peek()

                task_group.cancel_scope.cancel()

        self.assert_linear(run, monkeypatch, scene)

    def test_many_of_several_priorities(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            for index in range(number):
                bounded = partial(limiter.acquire, max_wait=1e6, priority=index % 3)
                task_group.start_soon(bounded)
                await anyio.sleep(1e-6)

        self.assert_linear(run, monkeypatch, scene)

    def test_many_of_as_many_priorities(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            for index in range(number):
                priority = index * 7919 % number
                task_group.start_soon(partial(limiter.acquire, max_wait=1e6, priority=priority))
                # Trio shuffles those that start at once, and what it costs depends on their order.
                await anyio.sleep(1e-6)

        self.assert_linear(run, monkeypatch, scene)

    def test_many_who_give_up(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scene(limiter: RateLimiter, task_group: TaskGroup, number: int) -> None:
            async def impatient(seconds: float) -> None:
                with pytest.raises(LimitExceeded):
                    await limiter.acquire(max_wait=1000 + seconds)

            for index in range(number):
                task_group.start_soon(impatient, index)

            await wait_idle()
            limiter.pause(5000)

        assert self.additions(run, monkeypatch, 800, scene) <= 100 * 800


@contextmanager
def small_numbers(few: int) -> Iterator[None]:
    """Make a line of a dozen a long one."""
    with (
        mock.patch.object(forecast, "_FEW", few),
        mock.patch.object(forecast, "_PAID", 4),
        mock.patch.object(timetable, "_GAP", 4),
        mock.patch.object(queue_module, "_MOST", 8),
    ):
        yield


class TestAgainstTheLineSimulatedAnew:
    """
    Nobody is refused at once who could make it; and everybody else is.

    The latter if all costs are equal or few stand ahead. In a long line, in which costs differ, it
    may be seen too late.
    """

    @examples(200)
    @given(st.integers(0, 2**32))
    def test_with_small_numbers(self, seed: int) -> None:
        with small_numbers(6):
            RandomLine(seed, 6).play(80)

    def test_as_it_is(self) -> None:
        told = [RandomLine(seed, 64).play(250) for seed in range(40)]
        hard = sum(each.hard for each in told)
        assert hard > 100
        assert sum(each.let_in for each in told) < hard / 20
        waits = [wait for each in told for wait in each.waits]
        assert len(waits) > 100
        assert min(waits) > 0.95
        assert max(waits) < 1.1

    def test_who_gives_up_because_another_one_has_joined_before_it(self) -> None:
        line = Line(WindowTokenBucket(1, 8))
        assert line.try_now(line.newcomer((1,), 0))
        for latest in (8.5, 16.5, math.inf):
            turn = line.newcomer((1,), 0)
            turn.latest = latest
            assert not line.outlook.is_hopeless((1,), 0.0, 0, latest)
            line.join(turn)

        assert line.outlook.is_hopeless((1,), 0.0, 0, 31.5)
        line.join(line.newcomer((1,), -1))
        # It goes at 8, the first is gone then, and the others go when they would have gone.
        assert line.due((1,), 0) == 32.0
        assert not line.outlook.is_hopeless((1,), 0.0, 0, 32.5)
        assert line.outlook.is_hopeless((1,), 0.0, 0, 31.5)


class TestPoliciesThatAreNotSteady:
    """If some turns go later, those behind them may go earlier for it."""

    def line(self) -> Line:
        line = Line(
            FixedWindow(2, 10),
            FixedWindow(1, 12, align="utc", unit="tests"),
            TokenBucket(1, 1, burst=16, unit="tokens"),
        )
        assert line.try_now(line.newcomer((0, 1, 16), 0))
        # Opens a window of calls, at once.
        line.join(line.newcomer((1, 0, 0), 1))
        # Goes at 12, when there is a test, and opens the next one.
        line.join(line.newcomer((1, 1, 0), 2))
        for _ in range(80):
            line.join(line.newcomer((0, 0, 0), 2))

        assert line.due((2, 0, 0), 3) == 22.0
        assert line.outlook.is_hopeless((2, 0, 0), 0.0, 3, 21.0)
        return line

    def assert_it_has_changed(self, line: Line) -> None:
        # The first window is that from 5 to 15 now, in which the next one goes as well.
        assert line.due((2, 0, 0), 3) == 15.0
        assert not line.outlook.is_hopeless((2, 0, 0), line.now, 3, 21.0)

    def test_nobody_is_refused_for_a_turn_that_has_joined(self) -> None:
        line = self.line()
        line.join(line.newcomer((0, 0, 5), 0))
        self.assert_it_has_changed(line)

    def test_nobody_is_refused_for_a_delay(self) -> None:
        line = self.line()
        line.now = 5.0
        line.serve(due=0.0)
        self.assert_it_has_changed(line)


class TestLittleIsOff:
    """What is told without simulating the line anew, as that has not been paid for."""

    def line(self, policy: Policy, costs: Sequence[int], number: int = 400) -> Line:
        """Return a line of so many, whose costs go round, and a timetable of which is kept."""
        line = Line(policy)
        line.try_now(line.newcomer((int(policy.bucket().capacity),), 0))
        for index in range(number):
            line.join(line.newcomer((costs[index % len(costs)],), 5))

        return line

    @pytest.mark.parametrize(
        "policy",
        [WindowTokenBucket(3, 8), TokenBucket(3, 8), FixedWindow(3, 8)],
        ids=["window", "token bucket", "fixed"],
    )
    def test_who_is_far_too_late_is_refused_though_others_have_joined(self, policy: Policy) -> None:
        line = self.line(policy, [1, 2])
        due = line.due((1,), 9)
        assert line.outlook.is_hopeless((1,), 0.0, 9, 0.99 * due)
        line.join(line.newcomer((2,), 0))
        with self.nothing_simulated():
            assert line.outlook.is_hopeless((1,), 0.0, 9, 0.99 * due)
            assert not line.outlook.is_hopeless((1,), 0.0, 9, 1.01 * due)

    def test_while_slots_are_left_nothing_moves_on(self) -> None:
        line = self.line(WindowTokenBucket(1, 1), [1])
        line.gate.slots.resize(10_000, None)
        line.gate.set_policies(line.gate.policies, line.gate.buckets)
        assert line.outlook.is_hopeless((1,), 0.0, 5, 400.5)
        line.sleep(10)
        with self.nothing_simulated():
            assert line.outlook.is_hopeless((1,), 10.0, 5, 400.5)
            assert not line.outlook.is_hopeless((1,), 10.0, 5, 401.0)

    def test_who_was_late_when_the_timetable_was_made_is_so_since_then(self) -> None:
        line = self.line(WindowTokenBucket(1, 1), [1])
        line.now = 50.0
        assert line.outlook.decide((1,), 50.0, 5).retry_after == 400.0
        line.now = 60.0
        line.serve(due=1.0)
        with self.nothing_simulated():
            assert line.outlook.decide((1,), 60.0, 5).retry_after == 400.0

    def test_one_of_very_many_is_left_out_of_account_even_if_more_was_paid_for(self) -> None:
        line = self.line(WindowTokenBucket(3, 8), [1, 2])
        line.outlook.decide((1,), 0.0, 9)
        line.join(line.newcomer((2,), 0))
        due = line.due((1,), 9)
        with self.nothing_simulated():
            for _ in range(100):
                assert due <= line.outlook.decide((1,), 0.0, 9).retry_after <= 1.01 * due

    def test_a_short_wait_is_off_by_no_more_than_its_part(self) -> None:
        line = self.line(WindowTokenBucket(1, 0.125), [1], 4)
        assert line.outlook.decide((1,), 0.0, 5).retry_after == 0.625
        line.now = 0.140625
        line.serve(due=0.125)
        # That is a few hundredths.
        assert line.outlook.decide((1,), line.now, 5).retry_after == 0.5

    def test_in_the_instant_in_which_all_are_due_nobody_need_wait(self) -> None:
        line = self.line(WindowTokenBucket(1, 1), [1], 4)
        assert line.outlook.decide((1,), 0.0, 5).retry_after == 5.0
        line.now = 5.0
        with self.nothing_simulated():
            assert line.outlook.decide((1,), 5.0, 5).retry_after == 0.0

    def test_who_has_left_does_not_outweigh_who_has_joined(self) -> None:
        line = self.line(WindowTokenBucket(3, 8), [1, 2], 100)
        for _ in range(5):
            line.outlook.decide((1,), 0.0, 9)

        line.join(line.newcomer((3,), 0))
        line.leave(line.queue.ahead_of()[50])
        assert line.outlook.decide((1,), 0.0, 9).retry_after == line.due((1,), 9)

    @contextmanager
    def nothing_simulated(self) -> Iterator[None]:
        with mock.patch.object(Forecasts, "_simulated", side_effect=AssertionError):
            yield


class CountingBucket(WindowBucket):
    """Counts how often anything is taken, from copies as well."""

    __slots__ = ()

    taken = 0

    def take(self, now: float, cost: int, since: float | None = None) -> None:
        CountingBucket.taken += 1
        super().take(now, cost, since)

    def ahead(self, now: float, *, ended: bool = False) -> WindowBucket:
        return super().ahead(now)


@dataclass(frozen=True)
class CountingPolicy:
    """An exact window whose bucket counts."""

    limit: int
    window: float
    unit: str = "calls"
    holds: bool = False

    def bucket(self) -> CountingBucket:
        return CountingBucket(WindowTokenBucket(self.limit, self.window))


class TestCostOfManyPriorities:
    """What each of N turns costs is bounded, however many priorities they have."""

    #: How patient the caller of each number is.
    PATIENCE: ClassVar[dict[str, Callable[[int], float]]] = {
        "all wait": lambda _: 1e6,
        "a fifth refused": lambda number: 1e6 if number % 5 else 0.5,
        "of any length": lambda number: number * 13 % 100 * 3.0,
    }

    #: The priority of the caller of each number, which comes as the so maniest.
    PRIORITIES: ClassVar[dict[str, Callable[[int, int], int]]] = {
        "scattered": lambda _, number: number,
        "from both sides": lambda index, _: index if index % 2 else -index,
        "two": lambda index, _: index % 2,
    }

    def taken(
        self,
        count: int,
        most: int,
        patience: Callable[[int], float],
        priority: Callable[[int, int], int],
    ) -> float:
        """Return how often each caller has taken anything from the bucket, or a copy of it."""
        CountingBucket.taken = 0
        line = Line(CountingPolicy(20, 1))
        line.try_now(line.newcomer((20,), 0))
        for index in range(count):
            # Once each number.
            number = index * 7919 % count
            turn = line.newcomer((number % most + 1,), priority(index, number))
            urgency = priority(index, number)
            if line.outlook.is_hopeless(turn.amounts, 0.0, urgency, patience(number)):
                line.outlook.decide(turn.amounts, 0.0, urgency)
                continue

            line.join(turn)
            if index % 10 == 1:
                line.leave(line.queue.ahead_of()[number % len(line.queue)])

        line.sleep(1e6)
        return CountingBucket.taken / count

    @pytest.mark.untraced
    @pytest.mark.parametrize("patience", PATIENCE)
    @pytest.mark.parametrize(
        ("priority", "counts"),
        [
            ("scattered", [200, 800, 3200]),
            ("from both sides", [200, 800]),
            ("two", [200, 800]),
        ],
    )
    @pytest.mark.parametrize(("most", "bound"), [(1, 3), (10, 80)], ids=["equal", "differ"])
    def test_it_is_bounded(
        self, most: int, bound: int, priority: str, counts: list[int], patience: str
    ) -> None:
        choice = (self.PATIENCE[patience], self.PRIORITIES[priority])
        each = [self.taken(count, most, *choice) for count in counts]
        assert max(each) < bound, f"{each} for each of {counts}"


@pytest.mark.timing
class TestLongLines:
    """In a long line a forecast may be a little off, but nobody is refused for that."""

    async def test_who_can_go_because_another_one_has_left_is_let_in(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(101))
            with pytest.raises(LimitExceeded):
                await limiter.acquire(max_wait=100)

            await crowd.leave(50)
            await limiter.acquire(max_wait=100)
            assert anyio.current_time() == 100.0

    async def test_of_many_priorities_each_is_answered_truly(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await limiter.acquire()
            for number in range(40):
                await crowd.join(number, priority=number)
                for priority in (0, number, 100):
                    with pytest.raises(LimitExceeded) as raised:
                        await limiter.acquire(priority=priority, max_wait=0)

                    assert raised.value.retry_after == 2 + min(priority, number)

            task_group.cancel_scope.cancel()
