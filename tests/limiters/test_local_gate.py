"""G6, the decision in one step: several policies, slots and a pause, all or nothing; and peek."""

from __future__ import annotations

import math
import time
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import Decision, FixedWindow, LimitExceeded, RateLimiter, WindowTokenBucket
from anythrottle._limiters.turn import Turn
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import Crowd, permit_of, set_clock, tasks
from tests.properties import examples


def test_a_pause_that_ends_in_this_instant_is_over() -> None:
    gate = RateLimiter("5/s")._gate
    gate.pause_until(5.0)
    assert not gate.resume(5.0)
    assert gate.paused_until == 5.0
    assert gate.resume(4.0)
    assert gate.paused_until == 4.0


def test_who_was_granted_may_begin_in_the_instant_in_which_a_pause_ends() -> None:
    gate = RateLimiter("5/s")._gate
    turn = Turn(1, gate.amounts(1), ends=False)
    gate.pause_until(5.0)
    assert [gate.may_start(turn, now) for now in (4.9, 5.0)] == [False, True]


@pytest.mark.parametrize("policies", [["5/s"], ["5/s", "50/min"]])
def test_who_is_granted_at_once_is_due_then(policies: list[str]) -> None:
    gate = RateLimiter(*policies)._gate
    turn = Turn(5, gate.amounts(5), ends=False)
    assert gate.take_if_due(turn, 7.0) == 0.0
    assert (turn.granted, turn.due) == (True, 7.0)


@pytest.mark.timing
@pytest.mark.promise("G6")
class TestAllOrNothing:
    async def test_a_refusal_charges_no_policy(self) -> None:
        limiter = RateLimiter("5/s", "6/10s", "100 tokens/min")
        cost = {"calls": 4, "tokens": 10}
        limiter.acquire_nowait(cost)
        for _ in range(5):
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait(cost)

        await anyio.sleep(1)
        # The first policy alone would agree now.
        for _ in range(5):
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait(cost)

        limiter.acquire_nowait({"calls": 2, "tokens": 90})
        assert [bucket.remaining(1.0) for bucket in limiter._gate.buckets] == [3, 0, 0]

    async def test_each_policy_must_agree(self) -> None:
        limiter = RateLimiter("2/s", "3/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(5))

        assert list(crowd.granted.values()) == [0.0, 0.0, 1.0, 10.0, 10.0]

    async def test_a_slot_alone_and_tokens_alone_hold_up_the_same_call(self) -> None:
        limiter = RateLimiter("2/10s", concurrency=1)
        log: list[tuple[float, int | None]] = []

        async def call() -> None:
            async with limiter:
                log.append((anyio.current_time(), limiter.peek().remaining))
                await anyio.sleep(3)

        async with tasks() as task_group:
            for _ in range(4):
                task_group.start_soon(call)

        assert log == [(0.0, 1), (3.0, 0), (10.0, 0), (13.0, 0)]

    async def test_waiting_for_a_slot_charges_no_tokens(self) -> None:
        limiter = RateLimiter("5/h", concurrency=1)
        async with tasks() as task_group, limiter:
            for _ in range(3):
                task_group.start_soon(limiter.permit(1).__aenter__)

            await wait_idle()
            assert limiter.peek().remaining == 4
            task_group.cancel_scope.cancel()

        assert limiter.peek().remaining == 4


@pytest.mark.timing
@pytest.mark.promise("G6")
class TestSharedCapacity:
    async def test_no_slot_is_held_while_waiting_for_tokens(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter("1/10s", concurrency=capacity)
        async with limiter:
            pass

        async with tasks() as task_group:
            permit = permit_of(limiter)
            task_group.start_soon(permit.__aenter__)
            for _ in range(9):
                await anyio.sleep(1)
                # Another user of the same slots has not to wait.
                other = object()
                capacity.acquire_on_behalf_of_nowait(other)
                capacity.release_on_behalf_of(other)

        assert permit.waited == 10.0
        assert capacity.borrowed_tokens == 1
        await permit.__aexit__(None, None, None)
        assert capacity.borrowed_tokens == 0

    async def test_no_slot_is_held_during_a_pause(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        limiter.pause(10)
        async with tasks() as task_group:
            permit = permit_of(limiter)
            task_group.start_soon(permit.__aenter__)
            await anyio.sleep(5)
            assert capacity.borrowed_tokens == 0
            assert capacity.statistics().tasks_waiting == 0

        assert permit.waited == 10.0

    async def test_a_slot_that_comes_during_a_pause_goes_back(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        outsider = object()
        await capacity.acquire_on_behalf_of(outsider)
        async with tasks() as task_group:
            permit = permit_of(limiter)
            task_group.start_soon(permit.__aenter__)
            await wait_idle()
            assert capacity.statistics().tasks_waiting == 1
            limiter.pause(10)
            await anyio.sleep(2)
            capacity.release_on_behalf_of(outsider)
            await wait_idle()
            assert capacity.borrowed_tokens == 0

        assert permit.waited == 10.0
        assert capacity.borrowed_tokens == 1

    async def test_a_slot_that_comes_while_tokens_are_out_goes_back(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter("1/10s", concurrency=capacity)
        outsider = object()
        await capacity.acquire_on_behalf_of(outsider)
        async with tasks() as task_group:
            waiting = permit_of(limiter)
            task_group.start_soon(waiting.__aenter__)
            await wait_idle()
            # The tokens go elsewhere while the slot is sought.
            limiter._gate.buckets[0].take(0.0, 1)
            limiter._gate.buckets[0].start(0.0, 1)
            await anyio.sleep(2)
            capacity.release_on_behalf_of(outsider)
            await wait_idle()
            assert capacity.borrowed_tokens == 0

        assert waiting.waited == 10.0

    async def test_the_capacity_limiter_s_own_order_holds(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        entered: list[str] = []

        async def ours(name: str) -> None:
            async with limiter:
                entered.append(name)
                await anyio.sleep(1)

        async def another(name: str) -> None:
            async with capacity:
                entered.append(name)
                await anyio.sleep(1)

        async with tasks() as task_group:
            for call, name in [
                (another, "a"),
                (another, "b"),
                (ours, "c"),
                (another, "d"),
                (ours, "e"),
                (another, "f"),
            ]:
                task_group.start_soon(call, name)
                await wait_idle()

        # One of ours stands in that line for all of them.
        assert entered == ["a", "b", "c", "d", "f", "e"]
        assert anyio.current_time() == 6.0

    async def test_a_grant_does_not_barge_past_others_in_the_capacity_limiter(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        outsider, other = object(), object()
        await capacity.acquire_on_behalf_of(outsider)
        async with tasks() as task_group:
            task_group.start_soon(capacity.acquire_on_behalf_of, other)
            await wait_idle()
            permit = permit_of(limiter)
            task_group.start_soon(permit.__aenter__)
            await wait_idle()
            capacity.release_on_behalf_of(outsider)
            await anyio.sleep(5)
            assert permit.waited == 0.0
            capacity.release_on_behalf_of(other)

        assert permit.waited == 5.0

    async def test_when_it_has_fewer_slots_than_are_borrowed_none_is_left(self) -> None:
        capacity = anyio.CapacityLimiter(3)
        limiter = RateLimiter("9/s", concurrency=capacity)
        async with limiter, limiter:
            decision = limiter.peek()
            assert (decision.allowed, decision.reason, decision.retry_after) == (True, None, 0.0)
            capacity.total_tokens = 1
            decision = limiter.peek()
            assert (decision.allowed, decision.reason) == (False, "concurrency")
            assert decision.retry_after == math.inf

    async def test_each_grant_borrows_on_behalf_of_a_fresh_object(self) -> None:
        capacity = anyio.CapacityLimiter(5)
        limiter = RateLimiter(concurrency=capacity)
        async with limiter, limiter, limiter.permit(), limiter:
            # One task, many slots, and none of them its own.
            borrowers = capacity.statistics().borrowers
            assert len(set(map(id, borrowers))) == 4
            async with capacity:
                assert capacity.borrowed_tokens == 5

        assert capacity.borrowed_tokens == 0

    async def test_two_limiters_share_slots(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        limiters = [RateLimiter(concurrency=capacity), RateLimiter("100/s", concurrency=capacity)]
        running = most = 0

        async def call(limiter: RateLimiter) -> None:
            nonlocal running, most
            async with limiter:
                running += 1
                most = max(most, running)
                await anyio.sleep(1)
                running -= 1

        async with tasks() as task_group:
            for number in range(12):
                task_group.start_soon(call, limiters[number % 2])

        assert most == 2
        assert anyio.current_time() == 6.0

    async def test_more_slots_help_those_who_wait(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        entered: list[float] = []

        async def call() -> None:
            async with limiter:
                entered.append(anyio.current_time())
                await anyio.sleep(10)

        async with tasks() as task_group:
            for _ in range(5):
                task_group.start_soon(call)

            await anyio.sleep(1)
            capacity.total_tokens = 4

        assert entered == [0.0, 1.0, 1.0, 1.0, 10.0]


@pytest.mark.timing
class TestPeek:
    async def test_nothing_to_limit(self) -> None:
        limiter = RateLimiter()
        assert limiter.peek() == Decision(True, None, 0.0, None, 0.0, None, None)
        limiter.pause(5)
        assert limiter.peek() == Decision(False, "pause", 5.0, None, 0.0, None, None)
        limiter.pause(math.inf)
        assert limiter.peek().retry_after == math.inf

    async def test_rate(self) -> None:
        policy = WindowTokenBucket(5, 10)
        limiter = RateLimiter(policy)
        assert limiter.peek() == Decision(True, None, 0.0, 5, 0.0, 5, policy)
        limiter.acquire_nowait(3)
        await anyio.sleep(4)
        assert limiter.peek(2) == Decision(True, None, 0.0, 2, 6.0, 5, policy)
        assert limiter.peek(3) == Decision(False, "rate", 6.0, 2, 6.0, 5, policy)

    async def test_the_binding_policy_is_the_one_that_makes_wait_longest(self) -> None:
        short, long = WindowTokenBucket(2, 1), WindowTokenBucket(4, 60)
        limiter = RateLimiter(short, long)
        assert limiter.peek().policy is short
        limiter.acquire_nowait(2)
        assert limiter.peek().policy is short
        await anyio.sleep(1)
        limiter.acquire_nowait(2)
        assert limiter.peek() == Decision(False, "rate", 59.0, 0, 60.0, 4, long)
        await anyio.sleep(1)
        assert limiter.peek(0).policy is long

    async def test_by_what_utc_has_become(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time", lambda: 1_000_000_002.0)
        limiter = RateLimiter(FixedWindow(4, 10, align="utc"))
        await limiter.acquire()
        assert limiter.peek().reset_after == 8.0
        monkeypatch.setattr(time, "time", lambda: 1_000_000_007.0)
        assert limiter.peek().reset_after == 3.0

    async def test_concurrency(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        for concurrency in (1, capacity):
            limiter = RateLimiter(concurrency=concurrency)
            async with limiter:
                decision = limiter.peek()
                assert decision == Decision(False, "concurrency", math.inf, None, 0.0, None, None)

            assert limiter.peek().allowed

    async def test_slots_that_others_have(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        async with capacity:
            assert limiter.peek().reason == "concurrency"

        assert limiter.peek().allowed

    async def test_line(self) -> None:
        limiter = RateLimiter("1/s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all(*range(4))
            decision = limiter.peek()
            assert (decision.allowed, decision.reason, decision.retry_after) == (False, "line", 4.0)
            task_group.cancel_scope.cancel()

    async def test_those_in_line_for_slots_are_counted(self) -> None:
        limiter = RateLimiter(concurrency=2)
        async with tasks() as task_group:
            limiter.pause(5)
            task_group.start_soon(limiter.permit().__aenter__)
            await wait_idle()
            assert limiter.peek().retry_after == 5.0
            task_group.start_soon(limiter.permit().__aenter__)
            await wait_idle()
            assert limiter.peek().retry_after == math.inf
            assert limiter.peek().reason == "pause"

    async def test_what_is_held_until_its_call_ends(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, 10, measure="end"))
        async with limiter:
            assert limiter.peek().retry_after == math.inf
            assert limiter.peek().reason == "rate"

        assert limiter.peek().retry_after == 10.0

    async def test_is_finite_while_a_grant_has_not_resumed(self) -> None:
        limiter = RateLimiter("1/s")
        await limiter.acquire(0)
        answers: list[float] = []

        async def asker() -> None:
            answers.append(limiter.peek().retry_after)

        async with tasks() as task_group:
            task_group.start_soon(asker)
            task_group.start_soon(limiter.acquire)
            task_group.start_soon(asker)

        # It will begin about now, so its token will be back in a second.
        assert set(answers) <= {0.0, 1.0}

    async def test_a_refusal_never_says_that_it_is_allowed(self) -> None:
        limiter = RateLimiter("1/s")
        # The clock moves on while it is asked.
        set_clock(limiter, 0.0, 0.9, 1.1)
        limiter.acquire_nowait()
        with pytest.raises(LimitExceeded) as raised:
            limiter.acquire_nowait()

        assert not raised.value.decision.allowed
        assert raised.value.retry_after > 0

    async def test_changes_nothing(self) -> None:
        limiter = RateLimiter("3/10s", concurrency=2)
        async with tasks() as task_group, limiter.permit(2):
            await anyio.sleep(1)
            permit = permit_of(limiter, 2)
            task_group.start_soon(permit.__aenter__)
            await wait_idle()
            before = limiter.peek(), limiter.statistics(), repr(limiter)
            for _ in range(10):
                limiter.peek(3)
                limiter.statistics()
                repr(limiter)

            assert (limiter.peek(), limiter.statistics(), repr(limiter)) == before

        assert permit.waited == 9.0

    @examples(80)
    @given(st.data())
    def test_retry_after_is_true(self, run: Run, data: st.DataObject) -> None:
        """Refused until then, granted exactly then if nobody else comes."""
        limit = data.draw(st.integers(1, 5), "limit")
        window = data.draw(st.sampled_from([1.0, 0.1, 1 / 3, 10.0]), "window")
        second = data.draw(st.integers(1, 8), "second limit")
        costs = st.lists(st.integers(0, min(limit, second)), max_size=6)
        past = data.draw(st.lists(st.tuples(st.floats(0, 1), costs), max_size=4), "past")
        pause = data.draw(st.sampled_from([0.0, 0.0, 0.4, 5.0]), "pause")
        late = data.draw(st.sampled_from([0.0, 0.0, 0.7, 3.3]), "stall")
        cost = data.draw(st.integers(0, min(limit, second)), "cost")

        async def main() -> None:
            limiter = RateLimiter(WindowTokenBucket(limit, window), WindowTokenBucket(second, 2.5))
            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                for gap, burst in past:
                    await anyio.sleep(gap)
                    for number, each in enumerate(burst):
                        await crowd.join((gap, number), each)

                if pause:
                    limiter.pause(pause)

                stall(late)
                await wait_idle()
                now = anyio.current_time()
                decision = limiter.peek(cost)
                assert decision.retry_after < math.inf
                assert decision.allowed == (decision.retry_after == 0.0)
                assert decision.allowed == (decision.reason is None)
                in_line = limiter.statistics().tasks_waiting
                if not decision.allowed:
                    with pytest.raises(LimitExceeded) as raised:
                        limiter.acquire_nowait(cost)

                    assert raised.value.decision == decision

                await crowd.join("newcomer", cost)
                due = now + decision.retry_after
                if not in_line and due > now:
                    await anyio.sleep_until(math.nextafter(due, 0) if due > now else now)
                    assert "newcomer" not in crowd.granted

            # Delays that are added up one by one may be rounded otherwise.
            tolerance = 4 * math.ulp(due) if in_line else 0.0
            assert abs(crowd.granted["newcomer"] - due) <= tolerance

        run(main)

    @examples(40)
    @given(st.data())
    def test_asking_at_any_time_changes_no_grant(self, run: Run, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 3), "limit")
        calls = data.draw(
            st.lists(st.tuples(st.floats(0, 1), st.integers(0, limit)), max_size=15), "calls"
        )

        async def main(ask: bool) -> Any:
            limiter = RateLimiter(WindowTokenBucket(limit, 1.0))

            def question() -> None:
                if ask:
                    limiter.peek(limit)
                    limiter.statistics()
                    repr(limiter)

            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                for number, (gap, cost) in enumerate(calls):
                    await anyio.sleep(gap)
                    question()
                    await crowd.join(number, cost)
                    question()

            return crowd.granted

        assert run(main, False) == run(main, True)
