"""
What is promised of stores: errors, clocks, names, runs, and what is fetched ahead.

The processes are stores in this process, and so is the server; time is virtual.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import pytest

from anythrottle import (
    LimitExceeded,
    PolicyConflict,
    RateLimiter,
    StoreError,
    ThrottleException,
)
from anythrottle._events import StoreBack, StoreLost
from anythrottle.stores.memory import MemoryStore
from anythrottle.testing._backends import stall
from tests.limiters.tools import tasks
from tests.stores.branches import (
    Branch,
    all_starts,
    branches,
    crowd,
    free,
    most_in_a_window,
    server_with,
)

pytestmark = pytest.mark.timing


# S13


@pytest.mark.promise("S13")
async def test_without_an_answer_calls_fail_by_the_deadline_then_at_once() -> None:
    events: list[Any] = []
    server = server_with(delay=0.001)
    async with branches(1, "20/10s", server=server, observer=events.append) as (branch,):
        await branch.acquire()
        branch.store.network.down = True
        before = anyio.current_time()
        with pytest.raises(StoreError) as info:
            await branch.acquire()

        assert isinstance(info.value.__cause__, TimeoutError)
        assert info.value.name == "api"
        assert anyio.current_time() == pytest.approx(before + 1.0)
        before = anyio.current_time()
        for _ in range(3):
            with pytest.raises(StoreError):
                await branch.acquire()

            with pytest.raises(StoreError):
                await branch.limiter.peek()

        assert anyio.current_time() == before
        assert not branch.store.statistics().connected
        assert isinstance(branch.store.statistics().last_error, TimeoutError)
        await anyio.sleep(5)
        branch.store.network.down = False
        await anyio.sleep(2.1)
        assert branch.store.statistics().connected
        await branch.acquire()
        told = [event for event in events if isinstance(event, (StoreLost, StoreBack))]
        assert [type(event) for event in told] == [StoreLost, StoreBack]
        assert isinstance(told[1], StoreBack)
        assert told[1].seconds == pytest.approx(5, abs=2.1)


@pytest.mark.promise("S13")
async def test_a_broken_connection_is_tried_again_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = server_with(delay=0.001)
    tried: list[float] = []
    breaks = [True]
    carry_out = server.carry_out

    def broken(*args: Any) -> Any:
        tried.append(anyio.current_time())
        if breaks[0]:
            raise ConnectionError("broken")

        return carry_out(*args)

    monkeypatch.setattr(server, "carry_out", broken)
    async with branches(1, "20/10s", server=server) as (branch,):
        with pytest.raises(StoreError, match="broken"):
            await branch.acquire()

        assert 0.7 < anyio.current_time() <= 1.0
        gaps = [b - a for a, b in pairwise(tried)]
        assert gaps == pytest.approx([0.051, 0.101, 0.201, 0.401], abs=0.002)
        tried.clear()
        await anyio.sleep(8)
        gaps = [b - a for a, b in pairwise(tried)]
        assert gaps[-3:] == pytest.approx([1.0] * 3, abs=0.01)
        breaks[0] = False
        await anyio.sleep(1.1)
        breaks[0] = True
        async with tasks() as group:
            group.start_soon(branch.acquire)
            await anyio.sleep(0.3)
            breaks[0] = False

        assert len(branch.starts) == 1


@pytest.mark.promise("S13")
async def test_who_waits_is_told_too_once_an_exchange_fails() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "5/100s", server=server, lease_timeout=6.0) as made:
        await made[0].acquire(5)
        async with tasks() as group:
            group.start_soon(made[1].try_to)
            await anyio.sleep(0.1)
            made[1].store.network.down = True
            await anyio.sleep(3.5)

        assert [type(error) for error in made[1].errors] == [StoreError]


@pytest.mark.promise("S13")
async def test_with_open_calls_pass_uncharged_while_the_store_is_away() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "2/10s", server=server, on_store_error="open") as (branch,):
        await branch.acquire(2)
        branch.store.network.down = True
        async with tasks() as group:
            for _ in range(20):
                group.start_soon(branch.acquire)

        assert anyio.current_time() < 2
        with pytest.raises(StoreError):
            await branch.limiter.peek()

        async with branch.permit() as permit:
            permit.settle(5)
            permit.refund()
            permit.mark_counted()
            assert not permit.lost

        branch.store.network.down = False
        await anyio.sleep(2)
        with pytest.raises(LimitExceeded):
            await branch.acquire(max_wait=1)


@pytest.mark.promise("S13")
@pytest.mark.parametrize("way", ["acquire", "permit", "with", "run"])
async def test_with_a_limiter_calls_take_its_turns_while_the_store_is_away(way: str) -> None:
    server = server_with(delay=0.001)
    own = RateLimiter("3/10s")
    async with branches(1, "20/10s", server=server, on_store_error=own) as (branch,):

        async def go() -> None:
            if way == "acquire":
                await branch.limiter.acquire()
            elif way == "permit":
                async with branch.permit() as permit:
                    permit.settle(1)
            elif way == "with":
                async with branch.limiter:
                    pass
            else:
                await branch.limiter.run(anyio.sleep, 0)

        await go()
        assert own.peek().remaining == 3
        branch.store.network.down = True
        await go()
        assert 1 <= anyio.current_time() < 1.1
        before = anyio.current_time()
        await go()
        await go()
        assert anyio.current_time() == before
        assert own.peek().remaining == 0
        branch.store.network.down = False
        await anyio.sleep(2)
        await go()
        assert own.peek().remaining == 0


@pytest.mark.promise("S13")
async def test_what_was_waited_for_the_store_counts_as_waiting_for_the_other_limiter() -> None:
    server = server_with(delay=0.001)
    own = RateLimiter("1/10s")
    await own.acquire()
    async with branches(1, "20/10s", server=server, on_store_error=own) as (branch,):
        branch.store.network.down = True
        with pytest.raises(LimitExceeded):
            async with branch.permit(max_wait=9.5):
                pass

        # At once when even the earliest turn would be too late: the second has gone already.
        assert anyio.current_time() == pytest.approx(1.0)
        with pytest.raises(LimitExceeded):
            await branch.limiter.acquire(max_wait=8)

        await branch.limiter.acquire(max_wait=10)


@pytest.mark.promise("S13")
async def test_a_retry_of_a_throttled_job_is_insured_too() -> None:
    server = server_with(delay=0.001)
    own = RateLimiter("3/10s")
    calls: list[float] = []
    async with branches(1, "20/10s", server=server, on_store_error=own) as (branch,):

        async def job() -> str:
            calls.append(anyio.current_time())
            if len(calls) == 1:
                branch.store.network.down = True
                raise ThrottleException(retry_after=2)

            return "done"

        assert await branch.limiter.run(job) == "done"
        assert own.peek().remaining == 2


@pytest.mark.promise("S13")
async def test_what_is_in_stock_is_used_first() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "100/10s", server=server, read_ahead=50, deadline=0.1) as (branch,):
        await branch.acquire()
        await branch.acquire()
        await anyio.sleep(0.1)
        stock = branch.limiter.gate.dialogue.account.stock.total
        assert stock > 10
        branch.store.network.down = True
        branch.limiter.pause(0)
        await anyio.sleep(0.2)
        assert not branch.store.statistics().connected
        for _ in range(stock):
            await branch.acquire()

        with pytest.raises(StoreError):
            await branch.acquire()


# S15


@pytest.mark.promise("S15")
async def test_other_policies_under_a_name_are_a_conflict() -> None:
    server = server_with(delay=0.001)
    one, other = Branch(server, "20/10s"), Branch(server, "21/10s")
    async with one.store, other.store:
        await one.acquire()
        with pytest.raises(PolicyConflict) as info:
            await other.acquire()

        assert info.value.name == "api"
        assert (info.value.theirs, info.value.ours) == ("20/10s", "21/10s")
        with pytest.raises(PolicyConflict):
            await other.limiter.peek()

        with pytest.raises(PolicyConflict):
            await other.limiter.acquire()

        before = server.exchanges
        await anyio.sleep(100)
        assert server.exchanges <= before + 2
        await one.store.forget("api")
        await other.acquire()


@pytest.mark.promise("S15")
async def test_a_conflict_in_line() -> None:
    server = server_with(delay=0.001)
    one, other = Branch(server, "20/10s"), Branch(server, "1/10s")
    async with one.store, other.store:
        await other.acquire()
        async with tasks() as group:
            for _ in range(2):
                group.start_soon(other.try_to)

            await anyio.sleep(1)
            await other.store.forget("api")
            await one.acquire()

        assert [type(error) for error in other.errors] == [PolicyConflict] * 2


@pytest.mark.promise("S15")
async def test_a_conflict_within_a_store() -> None:
    store = MemoryStore()
    limiter = store.limiter("api", "20/10s")
    assert store.limiter("api", "20/10s") is limiter
    with pytest.raises(PolicyConflict, match=r"20/10s there; 21/10s, concurrency=3 here; take"):
        store.limiter("api", "21/10s", concurrency=3)

    with pytest.raises(ValueError, match="other settings"):
        store.limiter("api", "20/10s", max_waiting=3)


# S16


@pytest.mark.promise("S16")
@pytest.mark.parametrize("step", [-5.0, -0.3, -0.01])
async def test_a_server_clock_that_steps_back_makes_turns_later_by_that(step: float) -> None:
    server = server_with(delay=0.002)
    async with branches(2, "20/1s", server=server) as made, tasks() as group:
        group.start_soon(crowd, made, 12, 5)
        await anyio.sleep(2.5)
        server.ahead += step

    starts = all_starts(made)
    assert len(starts) >= 20 * (12 + step - 1.5)


@pytest.mark.promise("S16")
@pytest.mark.parametrize("step", [0.01, 0.3, 5.0])
async def test_a_server_clock_that_steps_ahead_lets_through_what_that_would_have(
    step: float,
) -> None:
    server = server_with(delay=0.002)
    async with branches(2, "20/1s", server=server) as made, tasks() as group:
        group.start_soon(crowd, made, 8, 5)
        await anyio.sleep(2.5)
        server.ahead += step

    starts = all_starts(made)
    assert 20 * 8 <= len(starts) <= 20 * (9 + step)
    if step < 1:
        assert most_in_a_window(starts, 1 - step) <= 20


# S17


@pytest.mark.promise("S17")
@pytest.mark.parametrize(("read_ahead", "most"), [(None, 15), (0, 101), (10, 25), (100, 4)])
async def test_reading_ahead_saves_exchanges(read_ahead: int | None, most: int) -> None:
    server = server_with(delay=0.001)
    async with branches(1, "200/1s", server=server, read_ahead=read_ahead) as (branch,):
        for _ in range(100):
            await branch.acquire()

        assert server.exchanges <= most
        assert (read_ahead == 0) == (server.exchanges >= 100)
        # What was of no use goes back.
        await anyio.sleep(1.5)
        assert await free(server, "200/1s") == 200


@pytest.mark.promise("S17", "S2")
@pytest.mark.parametrize("read_ahead", [None, 5])
async def test_who_leaves_wants_nothing_ahead_any_more(read_ahead: int | None) -> None:
    server = server_with(delay=0.001)
    async with branches(1, "5/10s", server=server, read_ahead=read_ahead) as (other,):
        async with branches(1, "5/10s", server=server, read_ahead=read_ahead) as (branch,):
            for _ in range(5):
                await branch.acquire()

        async with tasks() as group:
            for _ in range(5):
                group.start_soon(other.acquire)

            await anyio.sleep(11)
            assert len(other.starts) == 5
            group.cancel_scope.cancel()


@pytest.mark.promise("S17")
async def test_calls_now_and_then_fetch_nothing_ahead() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "200/1s", server=server) as (branch,):
        for _ in range(10):
            await branch.acquire()
            await anyio.sleep(0.05)
            assert branch.limiter.gate.dialogue.account.stock.total == 0

        assert server.exchanges == 10


@pytest.mark.promise("S17")
async def test_slots_are_never_read_ahead() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "200/1s", server=server, concurrency=5, read_ahead=5) as (branch,):
        for _ in range(10):
            await branch.call(0)

        await anyio.sleep(0.1)
        assert server.ledgers["api"].rules[1].held == 0


@pytest.mark.promise("S17", "S1")
@pytest.mark.parametrize("read_ahead", [None, 3, 10])
async def test_reading_ahead_is_exact(read_ahead: int | None) -> None:
    server = server_with(delay=0.002, jitter=0.002)
    async with branches(3, "30/1s", server=server, read_ahead=read_ahead) as made:
        async with tasks() as group:
            group.start_soon(crowd, made, 10, 3)
            for _ in range(6):
                await anyio.sleep(1.27)
                stall(0.2)

        starts = all_starts(made)
        assert most_in_a_window(starts, 1) <= 30
        assert len(starts) >= 0.8 * 300
        await anyio.sleep(3)
        assert await free(server, "30/1s") == 30
