"""
What is promised of shared limiters, with the whole client.

The processes are stores in this process, and so is the server; time is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio.lowlevel import current_token

from anythrottle import (
    WindowTokenBucket,
)
from anythrottle.stores.memory import MemoryServer
from anythrottle.testing import wait_idle
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


# S1, S7


@pytest.mark.promise("S1", "S6", "S7")
@pytest.mark.parametrize("waiters", [1, 20])
async def test_all_windows_are_full_and_none_is_more_than_full(waiters: int) -> None:
    server = server_with(delay=0.004, jitter=0.004)
    async with branches(4, "50/1s", server=server) as made:
        await crowd(made, 10, waiters)

    starts = all_starts(made)
    assert most_in_a_window(starts, 1) == 50
    assert len(starts) >= 0.99 * 50 * 10
    # From the second window on, each has at least half its equal share.
    for branch in made:
        late = [at for at, _ in branch.starts if at > starts[0][0] + SECOND]
        assert len(late) >= 0.5 * (len(starts) - 50) / 4


@pytest.mark.promise("S1")
async def test_a_process_whose_messages_hang_starts_nothing_too_late() -> None:
    server = server_with(delay=0.002)
    async with branches(3, "20/1s", server=server) as made, tasks() as group:
        group.start_soon(crowd, made, 8, 5)
        for _ in range(4):
            await anyio.sleep(0.9)
            made[0].store.network.delay = 2.5
            await anyio.sleep(0.3)
            made[0].store.network.delay = 0.0

    assert most_in_a_window(all_starts(made), 1) == 20


@pytest.mark.promise("S1")
async def test_after_a_stall_of_the_loop_no_window_is_more_than_full() -> None:
    server = server_with(delay=0.002, jitter=0.003)
    async with branches(3, "20/1s", server=server) as made, tasks() as group:
        group.start_soon(crowd, made, 10, 5)
        for seconds in (0.05, 0.4, 0.99, 1.0, 2.5):
            await anyio.sleep(0.63)
            stall(seconds)

    assert most_in_a_window(all_starts(made), 1) <= 20


@pytest.mark.promise("S1")
async def test_a_grant_that_has_become_too_old_goes_back_and_is_asked_for_again() -> None:
    server = server_with(delay=0.1)
    async with branches(1, "5/1s", server=server) as (branch,):
        await branch.acquire()
        # The next reply takes so long that what it grants is not good any more.
        branch.store.network.delay = 0.6
        async with tasks() as group:
            group.start_soon(branch.acquire)
            await anyio.sleep(0.5)
            branch.store.network.delay = 0.0

        assert len(branch.starts) == 2
        await anyio.sleep(3)
        assert await free(server, "5/1s") == 5


# S2


@pytest.mark.promise("S2")
async def test_measured_from_the_end_no_window_holds_more_whenever_calls_are_counted() -> None:
    server = server_with(delay=0.003, jitter=0.004)
    policy = WindowTokenBucket(10, 1.0, measure="end")
    ends: list[tuple[int, int]] = []

    async def work(branch: Branch) -> None:
        while True:
            async with branch.permit():
                branch.starts.append((server.now(), 1))
                await anyio.sleep(0.3)
                ends.append((server.now(), 1))

    async with branches(3, policy, server=server) as made:
        with anyio.move_on_after(10):
            async with tasks() as group:
                for branch in made:
                    for _ in range(4):
                        group.start_soon(work, branch)

        starts = all_starts(made)
        assert most_in_a_window(starts, 1) <= 10
        assert most_in_a_window(ends, 1) <= 10
        # Of the calls, some are counted when they start, and the others when they end.
        assert len(starts) >= 60
        await anyio.sleep(3)
        assert await free(server, policy) == 10


# S4


@pytest.mark.promise("S4")
async def test_many_waiters_share_their_exchanges() -> None:
    server = server_with(delay=0.001)
    async with branches(8, "200/1s", server=server) as made:
        await crowd(made, 5, 100)

    assert server.exchanges <= 0.3 * len(all_starts(made))


@pytest.mark.promise("S4")
@pytest.mark.parametrize("count", [2, 16])
async def test_single_waiters_need_two_exchanges_at_most(count: int) -> None:
    server = server_with(delay=0.001)
    async with branches(count, "40/1s", server=server) as made:
        await crowd(made, 5, 1)

    assert server.exchanges <= 2 * len(all_starts(made))


@pytest.mark.promise("S4")
@pytest.mark.parametrize("read_ahead", [None, 0, 10])
async def test_who_is_idle_makes_no_exchange(read_ahead: int | None) -> None:
    server = server_with(delay=0.001)
    async with branches(2, "20/1s", server=server, read_ahead=read_ahead) as made:
        await crowd(made, 2, 5)
        await anyio.sleep(5)
        before = server.exchanges
        await anyio.sleep(1000)
        assert server.exchanges == before
        assert [branch.store.statistics().limiters for branch in made] == [0, 0]
        # It can begin at any time.
        await made[0].acquire()
        assert server.exchanges == before + 1


# S5


@pytest.mark.promise("S5")
async def test_grants_are_pushed_to_the_others() -> None:
    server = server_with(delay=0.001)
    async with branches(4, "10/1s", server=server) as made:
        await crowd(made, 5, 3)

    assert server.pushes > 10


@pytest.mark.promise("S5", "S9")
async def test_lost_pushes_cost_latency_and_no_token() -> None:
    server = server_with(delay=0.001)
    lost = server.publish
    server.publish = lambda name, push: None  # type: ignore[method-assign]
    async with branches(4, "20/1s", server=server) as made:
        await crowd(made, 10, 5)
        assert most_in_a_window(all_starts(made), 1) <= 20
        assert len(all_starts(made)) >= 100
        server.publish = lost  # type: ignore[method-assign]
        await anyio.sleep(3)
        assert await free(server, "20/1s") == 20


# S6


@pytest.mark.promise("S6")
async def test_priorities_order_a_processs_own_line_whatever_calls_cost() -> None:
    server = server_with(delay=0.001)
    order: list[str] = []
    async with branches(1, "10/1s", server=server, read_ahead=0) as (branch,):

        async def wait(name: str, cost: int, priority: int) -> None:
            await branch.acquire(cost, priority=priority)
            order.append(name)

        await branch.acquire(10)
        async with tasks() as group:
            group.start_soon(wait, "dear", 10, 1)
            await anyio.sleep(0.2)
            group.start_soon(wait, "cheap", 1, 0)
            await anyio.sleep(0.2)
            group.start_soon(wait, "cheaper", 2, -1)

    assert order == ["cheaper", "cheap", "dear"]
    begun = [at - branch.starts[0][0] for at, _ in branch.starts]
    # The cheap ones did not wait for what the dear one needs.
    assert begun[2] < 1.1 * SECOND < 2 * SECOND < begun[3] < 2.2 * SECOND


@pytest.mark.promise("S6")
async def test_a_large_cost_is_not_starved() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "10/1s", server=server) as made, tasks() as group:
        group.start_soon(crowd, made[:1], 6, 5)
        await anyio.sleep(0.5)
        await made[1].acquire(10)
        assert anyio.current_time() < 3


@pytest.mark.promise("S6")
async def test_what_is_in_stock_for_another_cost_does_not_hold_a_call_up() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "10/1s", server=server, read_ahead=8) as (branch,):
        await branch.acquire()
        await branch.acquire()
        for cost in (10, 1, 2, 3, 1):
            with anyio.fail_after(1.2):
                await branch.acquire(cost)


# S7


@pytest.mark.promise("S7", "S8")
async def test_who_gives_up_wastes_little() -> None:
    server = server_with(delay=0.002)
    started: list[tuple[int, int]] = []

    async def impatient(branch: Branch) -> None:
        while True:
            with anyio.move_on_after(0.3):
                await branch.acquire()
                started.append(branch.starts[-1])

    async with branches(3, "50/1s", server=server) as made:
        with anyio.move_on_after(10):
            async with tasks() as group:
                for branch in made:
                    for _ in range(20):
                        group.start_soon(impatient, branch)

    assert most_in_a_window(sorted(started), 1) <= 50
    assert len(started) >= 0.9 * 500


@pytest.mark.promise("S7")
async def test_after_a_kill_no_more_than_a_horizons_part_is_wasted() -> None:
    server = server_with(delay=0.002)
    async with branches(3, "50/1s", server=server) as made:
        async with tasks() as group:
            group.start_soon(crowd, made, 8, 20)
            await anyio.sleep(2.1)
            made[0].store.network.down = True

        alive = all_starts(made[1:])
        assert most_in_a_window(all_starts(made), 1) <= 50
        late = [at for at, _ in alive if 4 * SECOND <= at - alive[0][0] < 7 * SECOND]
        assert len(late) >= 0.9 * 150


# S8


@pytest.mark.promise("S8")
@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_a_cancelled_waiter_leaves_nothing_behind(kind: str) -> None:
    server = server_with(delay=0.01)
    async with branches(1, "10/60s", server=server, read_ahead=0) as (branch,):
        await branch.acquire()
        for moment in (0.0, 0.005, 0.01, 0.015, 0.02, 0.0200001, 0.025):
            await cancelled_after(moment, branch.acquire, kind)

        await anyio.sleep(2)
        used = len(branch.starts)
        assert await free(server, "10/60s") == 10 - used


async def cancelled_after(
    seconds: float, function: Callable[[], Coroutine[Any, Any, Any]], kind: str
) -> None:
    """Call a function, and cancel that after a while."""
    if kind == "native" and isinstance(current_token().native_token, asyncio.AbstractEventLoop):
        task = asyncio.ensure_future(function())
        await anyio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        return

    async with tasks() as group:
        group.start_soon(function)
        await anyio.sleep(seconds)
        group.cancel_scope.cancel()


@pytest.mark.promise("S8")
@pytest.mark.parametrize("options", [{"concurrency": 1}, {"concurrency": 2}])
async def test_a_cancelled_waiters_slot_goes_back_at_once(options: dict[str, int]) -> None:
    server = server_with(delay=0.01)
    async with branches(2, server=server, **options) as made:
        for moment in (0.0, 0.01, 0.0199, 0.02, 0.0201, 0.03):
            async with tasks() as group:
                for _ in range(3):
                    group.start_soon(made[0].call, 0.0)
                await anyio.sleep(moment)
                group.cancel_scope.cancel()

            with anyio.fail_after(0.2):
                await made[1].call(0.0)


@pytest.mark.promise("S8")
async def test_a_cancelled_waiters_grant_goes_to_the_next_in_line() -> None:
    server = server_with(delay=0.01)
    async with branches(1, "1/10s", server=server) as (branch,):
        async with tasks() as group:
            scope = anyio.CancelScope()

            async def first() -> None:
                with scope:
                    await branch.acquire()

            group.start_soon(first)
            await wait_idle()
            group.start_soon(branch.acquire)
            await anyio.sleep(0.0199)
            scope.cancel()

        assert anyio.current_time() < 0.1


# S9


@pytest.mark.promise("S9", "S1")
@pytest.mark.parametrize("seed", range(5))
async def test_lost_messages_charge_nothing_twice_and_lose_nothing(seed: int) -> None:
    server = MemoryServer(seed=seed)
    server.network.delay, server.network.jitter, server.network.loss = 0.002, 0.004, 0.1

    async with branches(3, "20/1s", server=server, deadline=0.1) as made:
        await crowd(made, 10, 5)
        server.network.loss = 0.0
        starts = all_starts(made)
        assert most_in_a_window(starts, 1) <= 20
        assert len(starts) >= 100
        await anyio.sleep(5)
        assert await free(server, "20/1s") == 20
        ledger = server.ledgers["api"]
        assert not any(node.inbox or node.wants for node in ledger.nodes.values())
