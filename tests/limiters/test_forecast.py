"""What callers are told who may not wait: true answers, at little cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

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
from anythrottle._limiters.forecast import Forecast, Outlook
from anythrottle.abc import Policy
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
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
        kept, fresh = line.outlook, Outlook(self.limiter._gate, line.queue, line.outlook.utc)
        for cost in {1, self.most}:
            amounts = self.limiter._gate.amounts(cost)
            for priority in (0, 1, -1):
                expected = fresh.decide(amounts, now, priority)
                assert kept.decide(amounts, now, priority) == expected
                due = max(fresh._renewed(priority, now, ended=True).due(amounts), now)
                assert not kept.is_hopeless(amounts, now, priority, due)
                assert (
                    kept.is_hopeless(amounts, now, priority, math.nextafter(due, 0)) or due == now
                )
                fresh.void()

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
                fresh = Outlook(line.gate, line.queue, line.outlook.utc).decide((1,), now)
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

        def counted(*args: Any) -> None:
            nonlocal count
            count += 1
            add(*args)

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
            limiter._line.max_waiting = number
            for _ in range(number):
                task_group.start_soon(limiter.acquire)

            await wait_idle()
            for _ in range(number):
                with pytest.raises(LimitExceeded):
                    await limiter.acquire()

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

        # One in so many puts the forecasts for those who come after it out of use.
        few = self.additions(run, monkeypatch, 200, scene)
        many = self.additions(run, monkeypatch, 800, scene)
        assert many <= 100 * 800
        assert few <= 100 * 200

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
