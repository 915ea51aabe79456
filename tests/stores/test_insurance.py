"""Where calls go while the store is away, and that they come back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from random import Random
from typing import Any

import anyio
import pytest

from anythrottle import (
    BaseLimiter,
    Cost,
    LimitExceeded,
    PolicyConflict,
    RateLimiter,
    StoreBack,
    ThrottleException,
    Throttler,
    amap,
)
from anythrottle.abc import Permit
from anythrottle.stores.insurance import InsuredPermit
from anythrottle.stores.memory import MemoryServer
from anythrottle.testing import wait_idle
from tests.limiters.tools import BLOWS, Blow, Victim, sweep_with, tasks
from tests.stores.branches import (
    SECOND,
    Branch,
    all_starts,
    branches,
    free,
    most_in_a_window,
    server_with,
)
from tests.sweep import Strike, striker

pytestmark = pytest.mark.promise("S13")

timing = pytest.mark.timing


class Stubborn(BaseLimiter):
    """A limiter whose turns come after a second, whatever happens meanwhile."""

    def __init__(self) -> None:
        self.limiter = RateLimiter(concurrency=1)

    @asynccontextmanager
    async def permit(
        self, cost: Cost = 1, *, priority: int = 0, max_wait: Any = None
    ) -> AsyncGenerator[Permit]:
        async with self.limiter.permit(cost) as permit:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

            yield permit

    def pause(self, seconds: float | None = None) -> None:
        self.limiter.pause(seconds)


async def closed(seconds: float = inf) -> RateLimiter:
    """Return a limiter that lets nothing pass for a while."""
    limiter = RateLimiter()
    limiter.pause(seconds)
    return limiter


async def go_away(branch: Branch, seconds: float = 3) -> None:
    """Cut a process off, for a while."""
    branch.store.network.down = True
    await anyio.sleep(seconds)
    branch.store.network.down = False


@timing
async def test_after_an_outage_the_shared_limit_is_the_only_one() -> None:
    server = server_with(delay=0.001)
    order: dict[Branch, list[tuple[int, int]]] = {}
    back: list[float] = []

    def note(event: object) -> None:
        if isinstance(event, StoreBack):
            back.append(server.now())

    async def call(branch: Branch, number: int) -> None:
        await branch.acquire()
        order[branch].append((server.now(), number))

    async with branches(0, server=server) as made:
        for _ in range(4):
            own = RateLimiter("5/10s")
            branch = Branch(server, "20/10s", on_store_error=own, observer=note)
            made.append(branch)
            order[branch] = []

        async with made[0].store, made[1].store, made[2].store, made[3].store, tasks() as group:
            for number in range(50):
                for branch in made:
                    group.start_soon(call, branch, number)
                    # In this order in line.
                    await wait_idle()

            await anyio.sleep(9)
            server.network.down = True
            await anyio.sleep(4)
            server.network.down = False
            await anyio.sleep(7)
            for number in range(50, 60):
                for branch in made:
                    group.start_soon(call, branch, number)

    starts = all_starts(made)
    assert len(starts) == 240
    assert len(back) == 4
    after = [start for start in starts if start[0] >= max(back)]
    assert len(after) == 200
    assert most_in_a_window(after, 10) == 20
    # As fast as the limit lets them, and no more than both limits at any time.
    assert after[-1][0] - after[0][0] < 91 * SECOND
    assert most_in_a_window(starts, 10) <= 40
    for began in order.values():
        # Those who start, or come, at the same instant do so in any order, on Trio.
        numbers = [min(number, 50) for at, number in sorted(began) if at >= max(back)]
        assert numbers == sorted(numbers)


@timing
@pytest.mark.parametrize("way", ["acquire", "permit", "with", "run", "wrap", "amap", "throttler"])
async def test_who_waits_comes_back_whichever_way_it_came(way: str) -> None:
    own = await closed()
    server = server_with(delay=0.001)
    async with branches(1, "2/10s", server=server, on_store_error=own) as (branch,):
        limiter = branch.limiter
        await limiter.acquire(2)
        begun: list[Any] = []

        async def note(item: int = 0) -> None:
            begun.append(anyio.current_time())

        async def go() -> None:
            if way == "acquire":
                await limiter.acquire()
                await note()
            elif way == "permit":
                async with limiter.permit() as permit:
                    assert permit.limiter is limiter
                    await note()
            elif way == "with":
                async with limiter:
                    await note()
            elif way == "run":
                await limiter.run(note)
            elif way == "wrap":
                await limiter.wrap(note)()
            elif way == "amap":
                await amap(note, [1], limiter=limiter)
            else:
                throttler = Throttler([note], limiter=limiter)
                await throttler.run()

        async with tasks() as group:
            group.start_soon(go)
            group.start_soon(go_away, branch)
            await anyio.sleep(2)
            assert not begun
            assert own.statistics().tasks_waiting == 1

        assert len(begun) == 1
        assert 9.9 < anyio.current_time() < 10.1
        own.resume()
        await anyio.sleep(20)
        assert await free(server, "2/10s") == 2
        assert branch.limiter.idle_in() == 0


@timing
async def test_who_waits_comes_back_before_newcomers_and_by_priority() -> None:
    own = await closed()
    server = server_with(delay=0.001)
    order: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, StoreBack):
            group.start_soon(call, "new")
            group.start_soon(call, "urgent", -1)

    async def call(name: str, priority: int = 0) -> None:
        await branch.acquire(priority=priority)
        order.append(name)

    branch = Branch(server, "1/10s", on_store_error=own, observer=listen)
    async with branch.store:
        await branch.acquire()
        async with tasks() as group:
            for name, priority in (("late", 1), ("one", 0), ("two", 0)):
                group.start_soon(call, name, priority)
                await wait_idle()

            await go_away(branch)

    assert order == ["urgent", "one", "two", "new", "late"]


@timing
async def test_who_has_a_turn_of_the_other_limiter_goes_on_with_it() -> None:
    own = RateLimiter("1/10s", concurrency=1)
    server = server_with(delay=0.001)
    async with branches(1, "5/10s", server=server, on_store_error=own) as (branch,):
        await branch.acquire(5)
        limiters: list[object] = []

        async def call() -> None:
            async with branch.permit() as permit:
                limiters.append(permit.limiter)
                await anyio.sleep(8)
                permit.settle(1)

        async with tasks() as group:
            group.start_soon(go_away, branch)
            group.start_soon(call)
            await anyio.sleep(1.5)
            assert limiters == [own]
            await anyio.sleep(4)
            assert branch.store.statistics().connected
            assert own.statistics().borrowed_tokens == 1

        assert own.statistics().borrowed_tokens == 0
        await anyio.sleep(100)
        assert await free(server, "5/10s") == 5


@timing
async def test_a_turn_of_the_other_limiter_that_comes_all_the_same_is_used() -> None:
    server = server_with(delay=0.001)
    own = Stubborn()
    async with branches(1, "5/10s", server=server, on_store_error=own) as (branch,):
        await branch.acquire(5)
        start = server.now()
        async with tasks() as group:
            group.start_soon(go_away, branch, 1.02)
            group.start_soon(branch.acquire)
            await anyio.sleep(0.5)
            group.start_soon(branch.acquire)

        # The second waited for the slot of the first, and not in vain.
        assert [(at - start) // SECOND for at, _ in branch.starts] == [0, 2, 10]
        assert own.limiter.statistics().borrowed_tokens == 0
        assert branch.limiter.statistics().tasks_waiting == 0
        await anyio.sleep(100)
        assert await free(server, "5/10s") == 5


@timing
@pytest.mark.parametrize("way", ["acquire", "permit"])
async def test_max_wait_is_one_for_all_waits(way: str) -> None:
    own = RateLimiter(concurrency=1)
    server = server_with(delay=0.001)
    async with branches(1, "1/20s", server=server, on_store_error=own) as (branch,):
        ended: dict[object, Any] = {}

        async def call(max_wait: Any) -> None:
            try:
                if way == "acquire":
                    await branch.limiter.acquire(max_wait=max_wait)
                else:
                    async with branch.permit(max_wait=max_wait):
                        pass

                ended[max_wait] = ("granted", anyio.current_time())
            except LimitExceeded:
                ended[max_wait] = ("refused", anyio.current_time())

        async def call_by_deadline() -> None:
            with anyio.fail_after(15):
                await call("deadline")

        async with own.permit(), tasks() as group:
            await branch.acquire()
            group.start_soon(go_away, branch)
            group.start_soon(call, 2)
            group.start_soon(call, 10)
            group.start_soon(call, 21)
            group.start_soon(call_by_deadline)

        # By the other limiter; and by the shared one as soon as it answers again.
        assert ended[2] == ("refused", pytest.approx(2, abs=0.01))
        assert ended[10] == ("refused", pytest.approx(3.5, abs=0.5))
        assert ended["deadline"] == ("refused", pytest.approx(3.5, abs=0.5))
        assert ended[21] == ("granted", pytest.approx(20, abs=0.1))


@timing
async def test_a_permit_tells_how_long_the_call_has_waited_in_all() -> None:
    server = server_with(delay=0.001)
    own = RateLimiter("1/10s")
    waited: dict[object, float] = {}
    async with branches(1, "1/10s", server=server, on_store_error=own) as (branch,):
        await branch.acquire()

        async def call() -> None:
            async with branch.permit() as permit:
                waited[permit.limiter] = permit.waited

        async with tasks() as group:
            group.start_soon(go_away, branch)
            await wait_idle()
            group.start_soon(call)
            group.start_soon(call)

    assert waited[own] == pytest.approx(1, abs=0.01)
    assert waited[branch.limiter] == pytest.approx(10, abs=0.1)


@timing
async def test_who_comes_back_to_a_conflict_is_told() -> None:
    server = MemoryServer()
    own = await closed()
    async with branches(1, "5/10s", server=server, on_store_error=own) as (branch,):
        await branch.acquire(5)
        async with tasks() as group:
            group.start_soon(go_away, branch, 30)
            group.start_soon(branch.try_to)
            await anyio.sleep(20)
            server.flush()
            async with branches(1, "6/10s", server=server) as (other,):
                await other.acquire()
                await anyio.sleep(12)

        assert [type(error) for error in branch.errors] == [PolicyConflict]


@timing
async def test_a_store_that_flaps_loses_nobody() -> None:
    server = server_with(delay=0.001, jitter=0.01)
    own = RateLimiter("2/10s")
    random = Random(5)  # noqa: S311
    async with branches(2, "10/10s", server=server, on_store_error=own, deadline=0.2) as made:
        ended: list[str] = []

        async def call(branch: Branch) -> None:
            way = random.choice(["acquire", "permit", "cancelled", "max_wait", "run"])
            with anyio.move_on_after(random.uniform(0, 20) if way == "cancelled" else inf):
                with suppress(LimitExceeded):
                    if way == "permit":
                        await branch.call(random.uniform(0, 3))
                    elif way == "run":
                        await branch.limiter.run(throttled_once())
                    else:
                        wait = random.uniform(0, 20) if way == "max_wait" else None
                        await branch.acquire(max_wait=wait)

            ended.append(way)

        def throttled_once() -> Any:
            pauses = [0.5]

            async def job() -> None:
                if pauses:
                    raise ThrottleException(retry_after=pauses.pop())

            return job

        async with tasks() as group:
            for _ in range(60):
                group.start_soon(call, random.choice(made))

            for _ in range(40):
                branch = random.choice(made)
                await go_away(branch, random.choice([0.1, 0.25, 0.5, 2]))
                await anyio.sleep(random.choice([0, 0.01, 0.1, 0.5, 1]))
                group.start_soon(call, branch)

        assert len(ended) == 100
        for limiter in (made[0].limiter, made[1].limiter, own):
            assert limiter.statistics().tasks_waiting == 0

        await anyio.sleep(100)
        assert await free(server, "10/10s") == 10
        assert [state.remaining for state in own.quotas()] == [2]


@timing
async def test_who_waits_for_the_other_limiter_when_the_store_is_left_has_its_turn() -> None:
    server = server_with(delay=0.001)
    own = RateLimiter("1/10s")
    processes = branches(1, "1/10s", server=server, on_store_error=own)
    async with tasks() as group, processes as (branch,):
        await branch.acquire()
        branch.store.network.down = True
        for _ in range(2):
            group.start_soon(branch.acquire)

        await anyio.sleep(5)
        assert len(branch.starts) == 2

    assert len(branch.starts) == 3


async def with_a_store_that_comes_back(
    way: str, victim: Victim, strike_all: Callable[[Strike], None]
) -> None:
    """The victim waits for the store, then for another limiter, and then for the store again."""
    server = server_with(delay=0.001)
    own = RateLimiter(concurrency=1)
    async with branches(1, "5/10s", server=server, on_store_error=own) as (branch,):
        await branch.acquire(5)
        ran: list[int] = []

        async def job() -> None:
            ran.append(1)
            if len(ran) == 1 and way == "again":
                raise ThrottleException(retry_after=0)

            await anyio.sleep(1)

        async def hold() -> None:
            async with own.permit():
                # Until just when the store is back, or for longer.
                await anyio.sleep(11)

        async with tasks() as group:
            if way == "again":
                await anyio.sleep(10)

            group.start_soon(hold)
            group.start_soon(go_away, branch)
            await wait_idle()
            if way in {"run", "again"}:
                await victim.run(branch.limiter.run(job))
            elif way == "amap":
                strike_all(victim._strike)
                await victim.run(amap(lambda _: job(), [1], limiter=branch.limiter))
            else:
                await victim.run(branch.limiter.acquire())

        await anyio.sleep(0.1)
        assert branch.limiter.statistics().tasks_waiting == 0
        assert own.statistics().tasks_waiting == own.statistics().borrowed_tokens == 0
        assert not branch.limiter.gate.slots.holders
        await anyio.sleep(1000)
        assert await free(server, "5/10s") == 5
        assert branch.limiter.gate.dialogue.account.stock.total == 0
        with anyio.fail_after(1):
            await branch.limiter.acquire(5, max_wait=0)
            async with own:
                pass


@pytest.mark.promise("S8")
@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("way", ["acquire", "run", "again", "amap"])
def test_a_cancellation_at_any_point_loses_no_turn(
    way: str, blow: Blow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An engine enters permits in a task of its own.
    strike_all = striker(monkeypatch, [(InsuredPermit, "__aenter__")])

    async def scenario(victim: Victim) -> None:
        await with_a_store_that_comes_back(way, victim, strike_all)

    assert sweep_with(blow, scenario) >= 4
