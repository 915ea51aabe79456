"""
What is promised of shared limiters should processes, servers and networks fail.

The processes are stores in this process, and so is the server; time is virtual.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import Any

import anyio
import pytest

from anythrottle import (
    LeaseLost,
    LimitExceeded,
    StoreError,
    WindowTokenBucket,
)
from anythrottle._events import LeaseExpired
from anythrottle.testing._backends import stall
from tests.limiters.tools import tasks
from tests.stores.branches import (
    SECOND,
    Branch,
    all_starts,
    branches,
    crowd,
    free,
    most_in_a_window,
    server_with,
)

pytestmark = pytest.mark.timing


# S10


@pytest.mark.promise("S10")
async def test_a_process_that_holds_something_renews_every_third_of_its_lease() -> None:
    server = server_with(delay=0.001)
    async with branches(2, server=server, concurrency=1, lease_timeout=3.0) as made:
        async with tasks() as group:
            group.start_soon(made[0].call, 30.0)
            await anyio.sleep(0.1)
            before = server.exchanges
            await anyio.sleep(29)
            assert 28 <= server.exchanges - before <= 30
            with pytest.raises(LimitExceeded):
                await made[1].call(0, max_wait=0.5)

            await made[1].call(0)

        assert 30 < anyio.current_time() < 30.1


@pytest.mark.promise("S10")
async def test_the_slots_of_a_dead_process_are_free_after_its_lease() -> None:
    server = server_with(delay=0.001)
    processes = branches(2, server=server, concurrency=1, lease_timeout=3.0)
    async with processes as made, tasks() as group:
        group.start_soon(made[0].call, 60.0)
        await anyio.sleep(0.1)
        made[0].store.network.down = True
        await made[1].call(0)
        assert 2 < anyio.current_time() < 3.6
        group.cancel_scope.cancel()


@pytest.mark.promise("S10", "S2")
async def test_what_a_dead_process_held_counts_from_its_end() -> None:
    server = server_with(delay=0.001)
    policy = WindowTokenBucket(1, 5.0, measure="end")
    async with branches(2, policy, server=server, lease_timeout=3.0) as made, tasks() as group:
        group.start_soon(made[0].call, 60.0)
        await anyio.sleep(0.1)
        made[0].store.network.down = True
        await made[1].call(0)
        assert 7 < anyio.current_time() < 8.7
        group.cancel_scope.cancel()


@pytest.mark.promise("S10")
@pytest.mark.parametrize("strict", [False, True])
async def test_a_call_that_has_lost_its_slot_is_told(
    strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[object] = []
    server = server_with(delay=0.001)
    async with branches(
        1, server=server, concurrency=1, lease_timeout=3.0, observer=events.append
    ) as (branch,):
        error = None
        try:
            async with branch.permit(strict=strict) as permit:
                assert not permit.lost
                branch.store.network.down = True
                await anyio.sleep(6)
                assert permit.lost
        except LeaseLost as exc:
            error = exc

        assert (error is not None) == strict
        assert ("was not heard of in time" in caplog.text) != strict
        lapsed = [event for event in events if isinstance(event, LeaseExpired)]
        assert [(event.name, event.calls) for event in lapsed] == [("api", 1)]
        branch.store.network.down = False
        with anyio.fail_after(2):
            while True:
                try:
                    await branch.call(0)
                    break
                except StoreError:
                    await anyio.sleep(0.1)

        assert await free(server, concurrency=1) is None
        assert server.ledgers["api"].rules[0].held == 0


@pytest.mark.promise("S10")
async def test_a_process_that_was_stalled_knows_at_once_that_it_has_lost_its_slots() -> None:
    server = server_with(delay=0.001)
    async with branches(1, server=server, concurrency=2, lease_timeout=3.0) as (branch,):
        permit = branch.permit(strict=True)
        await permit.__aenter__()
        stall(3.5)
        assert permit.lost
        with pytest.raises(LeaseLost):
            await permit.__aexit__(None, None, None)

        await anyio.sleep(1)
        assert server.ledgers["api"].rules[0].held == 0


@pytest.mark.promise("S10")
@pytest.mark.parametrize("gap", [0.0, 0.0005, 0.001, 0.002, 0.003])
async def test_what_was_granted_before_a_stall_does_not_start_after_the_lease(gap: float) -> None:
    server = server_with(delay=0.001)
    async with branches(2, server=server, concurrency=1, lease_timeout=1.0) as made:
        await made[0].call(0)
        await made[1].call(0)
        running: list[Any] = []

        async def work(branch: Branch) -> None:
            with suppress(StoreError):
                async with branch.permit() as permit:
                    running.append(permit)
                    assert sum(not each.lost for each in running) == 1
                    await anyio.sleep(0.5)
                    running.remove(permit)

        async with tasks() as group:
            group.start_soon(work, made[0])
            await anyio.sleep(gap)
            stall(1.5)
            group.start_soon(work, made[1])

        assert not running


@pytest.mark.promise("S10")
async def test_concurrency_is_never_exceeded_among_the_living() -> None:
    server = server_with(delay=0.002, jitter=0.01)
    at_once: list[int] = []
    running: dict[Any, bool] = {}

    async def work(branch: Branch) -> None:
        while True:
            try:
                async with branch.permit() as permit:
                    running[permit] = True
                    at_once.append(sum(not each.lost for each in running))
                    await anyio.sleep(0.05)
                    del running[permit]
            except StoreError:
                await anyio.sleep(0.05)

    async with branches(3, server=server, concurrency=3, lease_timeout=0.5, deadline=0.2) as made:
        with anyio.move_on_after(20):
            async with tasks() as group:
                for branch in made:
                    for _ in range(3):
                        group.start_soon(work, branch)

                for turn in range(40):
                    branch = made[turn % 3]
                    await anyio.sleep(0.3)
                    branch.store.network.down = True
                    await anyio.sleep(0.1 * (turn % 9))
                    branch.store.network.down = False

        assert max(at_once) == 3
        assert len(at_once) > 300
        running.clear()
        await anyio.sleep(2)
        await free(server, concurrency=3)
        assert server.ledgers["api"].rules[0].held == 0


# S11


@pytest.mark.promise("S11")
async def test_a_pause_holds_here_at_once_and_elsewhere_soon() -> None:
    server = server_with(delay=0.01)
    async with branches(2, "100/1s", server=server) as made:
        await made[0].acquire()
        await made[1].acquire()
        made[0].limiter.pause(5)
        with pytest.raises(LimitExceeded):
            await made[0].acquire(max_wait=1)

        await anyio.sleep(0.05)
        assert made[1].limiter.statistics().paused_for == pytest.approx(4.95, abs=0.03)
        with pytest.raises(LimitExceeded):
            await made[1].acquire(max_wait=1)

        async with tasks() as group:
            for branch in made:
                group.start_soon(branch.acquire)

        assert 5 <= anyio.current_time() < 5.2
        made[1].limiter.pause()
        made[1].limiter.pause(inf)
        await anyio.sleep(0.05)
        assert made[0].limiter.statistics().paused_for == inf
        made[0].limiter.resume()
        await anyio.sleep(0.05)
        assert made[1].limiter.statistics().paused_for == 0


@pytest.mark.promise("S11")
@pytest.mark.parametrize("gap", [0.0, 0.005, 0.01, 0.015, 0.02, 0.03])
async def test_a_reply_under_way_does_not_end_a_pause(gap: float) -> None:
    server = server_with(delay=0.01)
    async with branches(1, "5/1s", server=server, read_ahead=0) as (branch,):
        await branch.acquire()
        async with tasks() as group:
            group.start_soon(branch.acquire)
            await anyio.sleep(gap)
            started = len(branch.starts)
            branch.limiter.pause(3)
            paused = anyio.current_time()
            for _ in range(100):
                group.start_soon(branch.acquire)
                await anyio.sleep(0.001)
                assert len(branch.starts) == started
                assert branch.limiter.statistics().paused_for > 2

        assert most_in_a_window(all_starts([branch]), 1) == 5
        assert (
            branch.starts[started][0] >= server.now() - (anyio.current_time() - paused - 3) * SECOND
        )


@pytest.mark.promise("S11")
async def test_a_push_that_was_overtaken_does_not_end_a_pause() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "5/1s", server=server) as made:
        await made[1].acquire()
        await made[0].acquire()
        made[0].store.network.delay = 0.2
        made[1].limiter.pause(1)
        made[1].limiter.resume()
        await anyio.sleep(0.1)
        made[0].store.network.delay = 0.0
        made[0].limiter.pause(10)
        await anyio.sleep(1)
        assert made[0].limiter.statistics().paused_for > 8


@pytest.mark.promise("S11")
async def test_what_is_said_before_the_store_is_entered_holds_from_then_on() -> None:
    server = server_with(delay=0.01)
    branch = Branch(server, "10/5s")
    branch.limiter.penalize(3)
    branch.limiter.tighten(remaining=4, reset_after=5)
    branch.limiter.pause(2)
    async with branch.store:
        assert branch.limiter.statistics().paused_for == pytest.approx(2, abs=0.5)
        for _ in range(4):
            await branch.acquire(max_wait=3)

        assert 1.5 < anyio.current_time() < 2.2
        with pytest.raises(LimitExceeded):
            await branch.acquire(max_wait=0)


@pytest.mark.promise("S11")
async def test_what_is_said_before_the_first_exchange_is_heard_before_what_is_wanted() -> None:
    server = server_with(delay=0.01)
    async with branches(1, "10/5s", server=server) as (branch,):
        branch.limiter.penalize(8)
        # One answer is waited for, and it is one that knows of this.
        await branch.acquire(max_wait=0)
        await branch.acquire(max_wait=0)
        with pytest.raises(LimitExceeded):
            await branch.acquire(max_wait=0)


@pytest.mark.promise("S11")
async def test_what_is_said_while_the_store_is_away_is_kept() -> None:
    server = server_with(delay=0.01)
    async with branches(2, "10/60s", server=server) as made:
        await made[0].acquire()
        await made[1].acquire()
        server.network.down = True
        await made[0].try_to()
        made[0].limiter.penalize(5)
        made[0].limiter.pause(4)
        await anyio.sleep(1)
        assert made[0].limiter.statistics().paused_for > 2.9
        server.network.down = False
        await anyio.sleep(2.5)
        assert made[1].limiter.statistics().paused_for == pytest.approx(4 - 3.5, abs=0.05)
        await anyio.sleep(1)
        assert (await made[1].limiter.peek()).remaining == 3


@pytest.mark.promise("S11")
# What was granted to others before a penalty may start.
@pytest.mark.parametrize(("kind", "who"), [("tighten", 0), ("tighten", 1), ("penalize", 0)])
async def test_what_is_in_stock_is_not_used_when_the_figures_change(kind: str, who: int) -> None:
    server = server_with(delay=0.001)
    async with branches(2, "100/10s", server=server, read_ahead=50) as made:
        await made[0].acquire()
        await made[0].acquire()
        await made[1].acquire()
        if kind == "tighten":
            made[who].limiter.tighten(remaining=0, reset_after=5)
        else:
            made[who].limiter.penalize(100)

        await anyio.sleep(0.05)
        with pytest.raises(LimitExceeded):
            await made[0].acquire(max_wait=0)

        assert (await made[0].limiter.peek()).remaining == 0


# S12


@pytest.mark.promise("S12", "S1")
@pytest.mark.parametrize("moment", [0.0, 0.13, 0.5, 0.501, 0.77])
async def test_after_a_flush_no_window_is_more_than_full(moment: float) -> None:
    server = server_with(delay=0.002, jitter=0.001)
    async with branches(3, "20/1s", server=server) as made:
        async with tasks() as group:
            group.start_soon(crowd, made, 9, 5)
            await anyio.sleep(2 + moment)
            server.flush()
            await anyio.sleep(3)
            server.flush()

        starts = all_starts(made)
        assert most_in_a_window(starts, 1) == 20
        # After a while it goes on.
        assert len([at for at, _ in starts if at > starts[-1][0] - 2 * SECOND]) > 25
        await anyio.sleep(3)
        assert await free(server, "20/1s") == 20


@pytest.mark.promise("S12")
async def test_after_a_flush_slots_are_told_of_again() -> None:
    server = server_with(delay=0.002)
    async with branches(2, server=server, concurrency=2, lease_timeout=3.0) as made:
        async with tasks() as group:
            group.start_soon(made[0].call, 10.0)
            await anyio.sleep(0.1)
            server.flush()
            await anyio.sleep(2)
            assert server.ledgers["api"].rules[0].held == 1
            await made[1].call(0)
            async with made[1].limiter.permit():
                with pytest.raises(LimitExceeded):
                    await made[1].call(0, max_wait=1)

        await anyio.sleep(1)
        assert server.ledgers["api"].rules[0].held == 0


@pytest.mark.promise("S12", "S11")
@pytest.mark.parametrize("seconds", [20.0, inf])
async def test_after_a_flush_a_pause_holds_still(seconds: float) -> None:
    server = server_with(delay=0.002)
    async with branches(2, "20/1s", server=server) as made:
        await made[0].acquire()
        await made[1].acquire()
        made[0].limiter.pause(seconds)
        await anyio.sleep(1)
        server.flush()
        for branch in made:
            await branch.limiter.peek()
            with pytest.raises(LimitExceeded):
                await branch.acquire(max_wait=5)

        await anyio.sleep(1)
        assert server.ledgers["api"].paused_until > server.now() + SECOND


@pytest.mark.promise("S12", "S11")
async def test_what_was_said_to_a_state_that_was_lost_is_said_again() -> None:
    server = server_with(delay=0.002)
    async with branches(1, "20/10s", server=server) as (branch,):
        await branch.acquire()
        server.flush()
        branch.limiter.penalize(5)
        branch.limiter.tighten(remaining=10, reset_after=9)
        branch.limiter.pause(3)
        await anyio.sleep(5)
        decision = await branch.limiter.peek()
        assert decision.remaining == 10
        branch.limiter.penalize(4)
        await anyio.sleep(0.1)
        server.flush()
        assert (await branch.limiter.peek()).remaining == 10


@pytest.mark.promise("S12")
async def test_a_state_that_nobody_needed_any_more_was_not_lost() -> None:
    server = server_with(delay=0.002)
    async with branches(1, "20/1s", server=server, lease_timeout=3.0) as (branch,):
        await branch.acquire()
        await anyio.sleep(60)
        # As keys do that have expired.
        server.flush()
        before = anyio.current_time()
        await branch.acquire()
        assert anyio.current_time() < before + 0.1


@pytest.mark.promise("S10")
async def test_a_lease_that_is_over_takes_grants_with_it_though_no_call_has_begun() -> None:
    async with branches(1, server=server_with(delay=0.001), concurrency=1, lease_timeout=1.0) as (
        branch,
    ):
        await branch.call(0)
        dialogue = branch.limiter.gate.dialogue
        life = dialogue.account.life
        await anyio.sleep(3)
        await branch.call(0)
        assert dialogue.account.life == life + 1
        # Once for each lease.
        await branch.call(0)
        assert dialogue.account.life == life + 1
