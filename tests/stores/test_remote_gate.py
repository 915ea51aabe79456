"""The gate of a shared limiter."""

from __future__ import annotations

from math import inf
from typing import Any

import anyio
import pytest

from anythrottle import LimitExceeded, RateLimiter, WindowTokenBucket
from anythrottle._limiters.turn import Turn
from anythrottle.stores.memory import MemoryServer, MemoryStore
from tests.limiters.tools import tasks
from tests.stores.branches import branches, free, server_with

pytestmark = pytest.mark.timing


@pytest.mark.promise("S4")
async def test_a_line_whose_costs_vary_is_told_of_in_parts() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "100/1s", server=server, read_ahead=0) as (branch,):
        async with tasks() as group:
            for number in range(300):
                group.start_soon(branch.acquire, 1 + number % 2)

        assert len(branch.starts) == 300
        assert server.exchanges < 100


async def test_what_a_local_gate_can_and_this_one_need_not() -> None:
    gate = MemoryStore().limiter("api", "20/10s").gate
    turn = Turn(1, (1,), ends=False)
    assert gate.hold((1,), 0.0) == inf
    assert not gate.start_held((), (1,), 0.0)
    assert gate.due_since((1,), 0.0, 5.0) == 5.0
    gate.give_back_held((), (1,), 0.0)
    gate.start_slow(turn, 0.0)
    gate.notice(0.0)
    gate.mark_counted(turn, 0.0, ())
    gate.settle(turn, 0.0, "calls", 1)
    gate.give_back_all([turn], 0.0)


async def test_units_are_settled_and_tightened_each_by_itself() -> None:
    server = server_with(delay=0.001)
    policies = ("10/100s", "1000 tokens/100s")
    async with branches(1, *policies, server=server) as (branch,):
        async with branch.limiter.permit({"tokens": 600}) as permit:
            permit.settle({"tokens": 100})

        await anyio.sleep(0.1)
        await branch.limiter.peek({"tokens": 1})
        assert [quota.remaining for quota in branch.limiter.quotas()] == [9, 900]
        branch.limiter.tighten(remaining=50, unit="tokens")
        await anyio.sleep(0.1)
        assert [quota.remaining for quota in branch.limiter.quotas()] == [9, 50]
        branch.limiter.penalize({"tokens": 20})
        await anyio.sleep(0.1)
        assert [quota.remaining for quota in branch.limiter.quotas()] == [9, 30]


@pytest.mark.promise("S3")
async def test_policies_and_slots_are_one_decision() -> None:
    server = server_with(delay=0.001)
    policies = ("10/100s", WindowTokenBucket(2, 5.0))
    async with branches(2, *policies, server=server, concurrency=1) as made:
        async with tasks() as group:
            group.start_soon(made[0].call, 3.0)
            await anyio.sleep(0.1)
            with pytest.raises(LimitExceeded):
                await made[1].call(0, max_wait=1)

            # Nothing was charged while there was no slot.
            await made[1].limiter.peek()
            assert [quota.remaining for quota in made[1].limiter.quotas()] == [9, 1]

        await made[1].call(0)
        with pytest.raises(LimitExceeded):
            await made[0].call(0, max_wait=0)

        assert server.ledgers["api"].rules[2].held == 0
        assert [rule.quota(server.now()).remaining for rule in server.ledgers["api"].rules[:2]] == [
            8,
            0,
        ]


@pytest.mark.promise("S14")
async def test_what_the_server_keeps_does_not_grow() -> None:
    server = server_with(delay=0.001)
    for _ in range(60):
        async with branches(2, "50/1s", server=server, lease_timeout=2.0) as made:
            for branch in made:
                for _ in range(5):
                    await branch.acquire()

        await anyio.sleep(0.5)

    ledger: Any = server.ledgers["api"]
    assert len(ledger.nodes) <= 2 * 6
    assert len(ledger.rules[0].entries) <= 50
    assert not ledger.queue


async def test_decisions_say_what_holds_a_call_up() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "5/100s", server=server, concurrency=2) as made:
        async with made[0].limiter.permit(), made[0].limiter.permit():
            decision = await made[1].limiter.peek()
            assert decision.reason == "concurrency"
            assert decision.retry_after == inf

        made[0].limiter.pause(5)
        await anyio.sleep(0.1)
        decision = await made[1].limiter.peek()
        assert decision.reason == "pause"
        assert decision.retry_after == pytest.approx(4.9, abs=0.1)
        made[0].limiter.resume()
        for _ in range(3):
            await made[0].call(0)

        async with tasks() as group:
            group.start_soon(made[0].call, 0)
            await anyio.sleep(0.1)
            decision = await made[1].limiter.peek()
            assert decision.reason == "line"
            assert decision.retry_after == pytest.approx(99.7, abs=0.3)
            group.cancel_scope.cancel()

        assert await free(server, "5/100s", concurrency=2) == 0


async def test_a_limiter_without_an_answer_yet_claims_nothing() -> None:
    limiter = MemoryStore().limiter("api", "20/10s", "100/min", concurrency=2)
    assert [quota.remaining for quota in limiter.quotas()] == [20, 100]
    assert limiter.idle_in() == 0
    assert limiter.statistics().total_tokens == 2


async def test_a_limiter_that_is_in_use_is_not_idle() -> None:
    server = server_with(delay=0.001)
    async with branches(1, server=server, concurrency=2) as (branch,):
        async with branch.limiter.permit():
            assert branch.limiter.idle_in() == inf

        await anyio.sleep(1)
        assert 0 < branch.limiter.idle_in() <= 10
        branch.limiter.pause(100)
        await anyio.sleep(11)
        assert branch.limiter.idle_in() == pytest.approx(89, abs=0.1)
        await anyio.sleep(90)
        assert branch.limiter.idle_in() == 0


async def test_an_insurance_may_be_any_limiter() -> None:
    server = MemoryServer()
    store = MemoryStore(server, deadline=0.1)
    insurance = RateLimiter("20/10s")
    limiter = store.limiter("api", "20/10s", on_store_error=insurance)
    async with store:
        async with limiter.permit() as permit:
            assert permit.limiter is limiter
            assert not permit.lost

        server.network.down = True
        await anyio.sleep(10)
        async with limiter.permit() as permit:
            assert permit.limiter is insurance
            assert not permit.lost
