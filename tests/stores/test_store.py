"""A store's life: entered, used, left, and entered again; and what it makes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from math import inf
from typing import Any

import anyio
import pytest
from anyio.lowlevel import current_token

from anythrottle import (
    FixedWindow,
    KeyedLimiter,
    LimitExceeded,
    RateLimiter,
    StoreError,
    ThrottleException,
    Throttler,
    TokenBucket,
    WindowTokenBucket,
    amap,
)
from anythrottle._events import Granted
from anythrottle.stores.memory import MemoryServer, MemoryStore
from anythrottle.testing import virtual_backends, wait_idle
from tests.conftest import Run
from tests.limiters.tools import tasks
from tests.stores.branches import Branch, branches, free, server_with

pytestmark = pytest.mark.timing


async def test_a_limiter_whose_store_is_not_entered_says_so() -> None:
    branch = Branch(MemoryServer(), "20/10s", on_store_error=RateLimiter())
    for act in (
        branch.acquire,
        branch.limiter.peek,
        branch.limiter.shared_statistics,
        lambda: branch.store.forget("api"),
        lambda: branch.call(0),
    ):
        with pytest.raises(RuntimeError, match="async with"):
            await act()

    async with branch.store:
        await branch.acquire()

    with pytest.raises(RuntimeError, match="async with"):
        await branch.acquire()

    assert not branch.store.statistics().connected


async def test_entering_a_store_twice_is_an_error() -> None:
    store = MemoryStore()
    async with store:
        with pytest.raises(RuntimeError, match="entered already"):
            async with store:
                pass

        await store.limiter("api", "20/10s").acquire()


async def test_who_waits_when_the_store_is_left_gets_an_error() -> None:
    server = server_with(delay=0.001)
    branch = Branch(server, "5/100s")
    async with tasks() as group, branch.store:
        await branch.acquire(5)
        for _ in range(3):
            group.start_soon(branch.try_to)

        await anyio.sleep(1)

    assert [type(error) for error in branch.errors] == [StoreError] * 3
    assert "left" in str(branch.errors[0])
    assert anyio.current_time() < 1.1


async def test_who_asks_when_the_store_is_left_gets_an_error() -> None:
    server = server_with(delay=0.5)
    branch = Branch(server, "5/100s")
    errors: list[Exception] = []

    async def ask() -> None:
        try:
            await branch.limiter.peek()
        except StoreError as exc:
            errors.append(exc)

    async with tasks() as group, branch.store:
        group.start_soon(ask)
        await anyio.sleep(0.1)

    assert len(errors) == 1


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.01, 0.015, 0.02, 0.03])
@pytest.mark.parametrize("options", [{}, {"concurrency": 3}])
async def test_leaving_a_store_gives_back_what_is_not_used(
    moment: float, options: dict[str, int]
) -> None:
    server = server_with(delay=0.005)
    branch = Branch(server, "10/100s", **options)
    with anyio.CancelScope() as scope:
        async with branch.store, tasks() as group:
            for _ in range(3):
                group.start_soon(branch.call, 0)

            await anyio.sleep(moment)
            scope.cancel()

    used = len(branch.starts)
    # What was given up before it arrived has begun nothing.
    if options and server.ledgers:
        assert server.ledgers["api"].rules[1].held == 0

    assert await free(server, "10/100s", **options) == 10 - used


async def test_read_ahead_goes_back_when_the_store_is_left() -> None:
    server = server_with(delay=0.001)
    branch = Branch(server, "100/100s", read_ahead=50)
    async with branch.store:
        await branch.acquire()
        await branch.acquire()
        await anyio.sleep(0.1)
        assert branch.limiter.gate.dialogue.account.stock.total > 20

    assert await free(server, "100/100s") == 98


async def test_leaving_a_store_whose_server_is_away_takes_no_longer_than_the_deadline() -> None:
    branch = Branch(server_with(delay=0.001), "10/100s")
    async with branch.store:
        await branch.acquire()
        branch.store.network.down = True

    assert anyio.current_time() <= 1.1


async def test_a_bodys_error_leaves_the_store_bare() -> None:
    branch = Branch(server_with(delay=0.001), "10/100s")
    error = KeyError("of the body")

    async def main() -> None:
        async with branch.store:
            await branch.acquire()
            raise error

    with pytest.raises(KeyError) as info:
        await main()

    assert info.value is error
    assert info.value.__cause__ is None
    async with branch.store:
        await branch.acquire()


async def test_a_store_is_cancelled_with_its_block() -> None:
    branch = Branch(server_with(delay=0.001), "1/100s")
    with anyio.move_on_after(5) as scope:
        async with branch.store:
            await branch.acquire()
            await branch.acquire()

    assert scope.cancelled_caught
    assert anyio.current_time() < 5.1


def test_a_store_is_cancelled_natively_with_its_task() -> None:
    async def main() -> None:
        branch = Branch(server_with(delay=0.001), "1/100s")

        async def stay() -> None:
            async with branch.store:
                await branch.acquire()
                await branch.acquire()

        task = asyncio.ensure_future(stay())
        await anyio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        async with branch.store:
            assert (await branch.limiter.peek()).remaining == 0

    backend, options = virtual_backends()[0]
    assert backend == "asyncio"
    anyio.run(main, backend=backend, backend_options=options)


@pytest.mark.parametrize("other", [False, True])
def test_a_store_may_be_entered_again_in_a_later_run(run: Run, other: bool) -> None:
    server = MemoryServer()
    branch = Branch(server, "5/3600s", concurrency=2)
    later = run
    if other:

        def later(function: Any) -> Any:
            name, options = next(each for each in virtual_backends() if each[0] != current[0])
            return anyio.run(function, backend=name, backend_options=options)

    current: list[str] = []
    kept: list[Any] = []

    async def first() -> None:
        native = current_token().native_token
        current.append("asyncio" if isinstance(native, asyncio.AbstractEventLoop) else "trio")
        async with branch.store:
            await branch.call(0)
            await branch.call(0)
            # What is held when a run ends is let go.
            permit = branch.permit()
            await permit.__aenter__()
            kept.append(permit)

    async def second() -> None:
        async with branch.store:
            assert branch.limiter.statistics().borrowed_tokens == 0
            assert (await branch.limiter.peek()).remaining == 2
            await branch.call(0)
            assert (await branch.limiter.peek()).remaining == 1
            await kept[0].__aexit__(None, None, None)

    run(first)
    later(second)


async def test_a_store_may_be_entered_again_in_one_run() -> None:
    branch = Branch(server_with(delay=0.001), "5/100s")
    for left in (4, 3, 2):
        async with branch.store:
            await branch.acquire()
            assert (await branch.limiter.peek()).remaining == left

        await anyio.sleep(1)


async def test_a_pause_lasts_from_one_entering_to_the_next() -> None:
    branch = Branch(server_with(delay=0.001), "5/1s")
    async with branch.store:
        await branch.acquire()
        branch.limiter.pause(10)

    branch.limiter.tighten(remaining=0)
    async with branch.store:
        await branch.acquire()

    assert anyio.current_time() >= 10


@pytest.mark.parametrize("name", ["", "a b", "a{b", "a}b", "x" * 201, "a\nb", "\x7f"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="name must be 1 to 200"):
        MemoryStore().limiter(name, "20/10s")


def test_bad_parameters() -> None:
    store: Any = MemoryStore()
    options: dict[str, Any]
    for options in (
        {"concurrency": 0},
        {"max_waiting": -1},
        {"read_ahead": -1},
        {"lease_timeout": 0},
        {"on_store_error": "close"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            store.limiter("api", "20/10s", **options)

    for options in (
        {"concurrency": 1.5},
        {"max_waiting": "1"},
        {"read_ahead": True},
        {"lease_timeout": "1"},
        {"on_store_error": 3},
        {"on_store_error": RateLimiter},
        {"observer": 3},
    ):
        with pytest.raises(TypeError):
            store.limiter("api", "20/10s", **options)

    with pytest.raises(TypeError, match="name must be a str"):
        store.limiter(3, "20/10s")

    with pytest.raises(TypeError, match="rules of your own"):
        store.limiter("api", _Own())

    with pytest.raises(ValueError, match="too great"):
        store.limiter("api", WindowTokenBucket(2**49, 1))

    with pytest.raises(ValueError, match="at most 16 policies, not 17"):
        store.limiter("api", *(f"{limit}/s" for limit in range(1, 18)))

    with pytest.raises(ValueError, match="deadline"):
        MemoryStore(deadline=0)


class _Own:
    limit = 1
    window = 1.0
    unit = "calls"
    holds = False

    def bucket(self) -> Any:
        return WindowTokenBucket(1, 1).bucket()


@pytest.mark.parametrize(
    "policy",
    [
        WindowTokenBucket(10, 100),
        WindowTokenBucket(10, 100, measure="end"),
        TokenBucket(10, 100),
        FixedWindow(10, 100),
        FixedWindow(10, 100, align="utc", offset=3),
    ],
    ids=["window", "end", "bucket", "fixed", "utc"],
)
@pytest.mark.parametrize("concurrency", [None, 3])
async def test_charges_are_settled_whatever_the_rule(policy: Any, concurrency: int | None) -> None:
    server = server_with(delay=0.001)
    async with branches(1, policy, server=server, concurrency=concurrency) as (branch,):

        async def left() -> int | None:
            await anyio.sleep(0.1)
            remaining = await free(server, policy, concurrency=concurrency)
            assert (await branch.limiter.peek()).remaining == (0 if concurrency == 1 else remaining)
            return remaining

        async with branch.permit(2) as permit:
            assert await left() == 8
            permit.settle(6)
            assert await left() == 4
            permit.settle(3)
            assert await left() == 7
            permit.mark_counted()
            assert await left() == 7
            permit.settle(4)
            assert await left() == 6

        assert await left() == 6
        permit.settle(1)
        assert await left() == 9
        permit.settle(5)
        assert await left() == 5
        permit.refund()
        assert await left() == 10
        permit.refund()
        assert await left() == 10
        if concurrency:
            assert server.ledgers["api"].rules[1].held == 0


async def test_without_policies_a_shared_limiter_pauses() -> None:
    server = server_with(delay=0.001)
    async with branches(2, server=server) as made:
        for branch in made:
            await branch.acquire()

        assert (await made[0].limiter.peek()).allowed
        made[0].limiter.pause(5)
        await anyio.sleep(0.1)
        await made[1].acquire()
        assert anyio.current_time() >= 5


async def test_cost_0_waits_for_pauses_alone() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "1/100s", server=server) as (branch,):
        await branch.acquire()
        await branch.acquire(0)
        assert anyio.current_time() < 1


@pytest.mark.parametrize("max_wait", [0, 0.001])
async def test_max_wait_0_waits_for_one_answer(max_wait: float) -> None:
    server = server_with(delay=0.1)
    async with branches(1, "2/100s", server=server) as (branch,):
        if max_wait:
            # The answer included: it cannot come in time.
            with pytest.raises(LimitExceeded):
                await branch.acquire(max_wait=max_wait)

            return

        await branch.acquire(max_wait=0)
        await branch.acquire(max_wait=0)
        before = anyio.current_time()
        with pytest.raises(LimitExceeded) as info:
            await branch.acquire(max_wait=0)

        assert info.value.decision.reason == "rate"
        assert info.value.retry_after == pytest.approx(99.8, abs=0.3)
        assert anyio.current_time() == pytest.approx(before + 0.2, abs=0.01)
        before = anyio.current_time()
        with pytest.raises(LimitExceeded):
            await branch.acquire(max_wait=50)

        assert anyio.current_time() == pytest.approx(before + 0.2, abs=0.01)
        with anyio.fail_after(50):
            with pytest.raises(LimitExceeded):
                await branch.acquire(max_wait="deadline")

        await branch.acquire(max_wait=150)


async def test_max_wait_0_is_not_kept_waiting_if_it_is_called_back() -> None:
    def pause(event: object) -> None:
        if isinstance(event, Granted):
            branch.limiter.pause(50)

    server = server_with(delay=0.001)
    async with branches(1, "2/100s", server=server, observer=pause) as (branch,):
        with anyio.fail_after(1), pytest.raises(LimitExceeded):
            await branch.acquire(max_wait=0)


@pytest.mark.parametrize("options", [{"concurrency": 6}, {}])
async def test_who_was_granted_what_it_has_waited_for_waits_no_more(options: Any) -> None:
    policies = () if options else (WindowTokenBucket(6, 100, measure="end"),)
    server = server_with(delay=0.001)
    async with branches(3, *policies, server=server, **options) as made, tasks() as group:
        for branch in made[:2]:
            for _ in range(6):
                group.start_soon(branch.call, 3)

        await anyio.sleep(0.5)
        # Neither of them has spoken since one was granted all that there is.
        shared = await made[2].limiter.shared_statistics()
        assert (shared.tasks_waiting, shared.borrowed_tokens) == (6, 6)
        group.cancel_scope.cancel()


async def test_statistics_of_all_processes() -> None:
    server = server_with(delay=0.001)
    async with branches(2, server=server, concurrency=2) as made:
        async with tasks() as group:
            group.start_soon(made[0].call, 1)
            group.start_soon(made[1].call, 1)
            await anyio.sleep(0.1)
            group.start_soon(made[1].call, 1)
            await anyio.sleep(0.1)
            shared = await made[0].limiter.shared_statistics()
            assert (shared.borrowed_tokens, shared.total_tokens) == (2, 2)
            assert shared.tasks_waiting == 1
            own = made[0].limiter.statistics()
            assert (own.borrowed_tokens, own.tasks_waiting) == (1, 0)
            made[0].limiter.pause(inf)
            await anyio.sleep(0.1)
            shared = await made[1].limiter.shared_statistics()
            assert shared.paused_for == inf
            made[0].limiter.resume()

        store = made[0].store.statistics()
        assert store.connected
        assert store.exchanges > 0
        assert store.failures == 0
        assert store.round_trip == pytest.approx(0.002, abs=0.001)
        assert "api" in repr(made[0].limiter)


async def test_a_question_costs_one_exchange_and_charges_nothing() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "5/100s", server=server) as (branch,):
        for asked in range(1, 6):
            decision = await branch.limiter.peek(3)
            assert decision.allowed
            assert decision.remaining == 5
            assert server.exchanges == asked

        await branch.acquire(4)
        decision = await branch.limiter.peek(3)
        assert not decision.allowed
        assert decision.reason == "rate"
        assert decision.retry_after == pytest.approx(100, abs=0.2)
        (quota,) = branch.limiter.quotas()
        assert quota.remaining == 1


async def test_a_cancelled_question_leaves_nothing_behind() -> None:
    server = server_with(delay=0.1)
    async with branches(1, "5/100s", server=server) as (branch,):
        with anyio.move_on_after(0.05):
            await branch.limiter.peek()

        assert (await branch.limiter.peek()).remaining == 5


async def test_keys_are_dropped_when_nobody_uses_them() -> None:
    server = server_with(delay=0.001)
    store = MemoryStore(server)
    async with store:
        keyed: KeyedLimiter[int, Any] = KeyedLimiter(
            lambda key: store.limiter(f"key-{key}", "5/1s"), max_keys=10
        )
        gc.collect()
        gc.disable()
        try:
            for key in range(10):
                await keyed[key].acquire()

            with pytest.raises(LimitExceeded):
                keyed[10]

            await anyio.sleep(12)
            assert keyed[0].idle_in() == 0
            before = server.exchanges
            for key in range(10, 100):
                await keyed[key].acquire()
                await anyio.sleep(12)

            assert len(keyed) <= 10
            assert len(store._limiters) <= 10
            assert store.statistics().limiters <= 1
            assert server.exchanges - before <= 90 * 2
        finally:
            gc.enable()


@pytest.mark.parametrize("how", ["cancelled", "asked in vain", "refused", "settled", "failed"])
async def test_nothing_keeps_a_limiter_alive(how: str) -> None:  # noqa: PLR0915
    server = server_with(delay=0.001)
    store = MemoryStore(server, deadline=0.1)
    async with store:
        gc.collect()
        gc.disable()
        try:
            limiter = store.limiter("api", "1/1s", concurrency=1)
            async with limiter.permit() as permit:
                permit.settle(0)
                if how == "cancelled":
                    with anyio.move_on_after(0.1):
                        async with limiter.permit(max_wait=100):
                            pass
                elif how == "asked in vain":
                    try:
                        async with limiter.permit(max_wait=0):
                            pass
                    except LimitExceeded:
                        pass
                elif how == "refused":
                    with anyio.move_on_after(0.1):
                        await limiter.peek()
                elif how == "failed":
                    store.network.down = True
                    try:
                        async with limiter.permit():
                            pass
                    except StoreError:
                        pass

                    store.network.down = False
                    await anyio.sleep(3)

            await anyio.sleep(0.5)
            reference = weakref.ref(limiter)
            del limiter, permit
            await wait_idle()
            assert reference() is None
            await anyio.sleep(15)
            assert store.statistics().limiters == 0
        finally:
            gc.enable()


async def test_an_idle_courier_goes_and_loses_neither_numbers_nor_pauses() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "5/1s", server=server) as made:
        for _ in range(3):
            for branch in made:
                await branch.acquire()

            await anyio.sleep(15)
            assert [branch.store.statistics().limiters for branch in made] == [0, 0]
            assert [branch.store.statistics().connected for branch in made] == [True, True]

        made[0].limiter.pause(5)
        await anyio.sleep(1)
        before = anyio.current_time()
        await made[1].acquire()
        assert anyio.current_time() - before == pytest.approx(4, abs=0.2)
        assert made[1].store.statistics().exchanges >= 4


async def test_asking_just_when_a_courier_goes() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "5/1s", server=server) as (branch,):
        await branch.acquire()
        heard = anyio.current_time()
        for offset in (-1e-9, 0.0, 1e-9):
            await anyio.sleep_until(heard + 10 + offset)
            with anyio.fail_after(0.1):
                await branch.acquire()

            heard = anyio.current_time()


async def test_an_engine_on_a_shared_limiter() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "50/1s", server=server, concurrency=5) as made:
        results: list[int] = []

        async def job(number: int) -> int:
            await anyio.sleep(0.01)
            return number

        async def go(branch: Branch) -> None:
            results.extend(await amap(job, range(100), limiter=branch.limiter))

        async with tasks() as group:
            for branch in made:
                group.start_soon(go, branch)

        assert len(results) == 200
        assert 3 <= anyio.current_time() < 4.5
        await anyio.sleep(1)
        assert server.ledgers["api"].rules[1].held == 0


async def test_a_throttled_job_pauses_all_and_goes_first() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "50/1s", server=server) as made:
        calls: list[float] = []

        async def job() -> str:
            calls.append(anyio.current_time())
            if len(calls) == 1:
                raise ThrottleException(retry_after=5)

            return "done"

        assert await made[0].limiter.run(job) == "done"
        assert calls[1] - calls[0] == pytest.approx(5, abs=0.1)
        made[0].limiter.resume()
        throttler = Throttler([job, job], limiter=made[1].limiter)
        await throttler.run()
        assert len(calls) == 4


async def test_a_job_within_a_job_fails_only_if_its_own_process_holds_all() -> None:
    server = server_with(delay=0.001)
    async with branches(2, server=server, concurrency=2) as made:
        limiter = made[0].limiter

        async def deep(levels: int) -> None:
            if levels:
                await limiter.run(deep, levels - 1)

        async with tasks() as group:
            group.start_soon(made[1].call, 1.0)
            await anyio.sleep(0.1)
            # The other slot is another process's, which will let it go.
            await deep(2)
            assert anyio.current_time() >= 1
            with pytest.raises(RuntimeError):
                await deep(3)


async def test_keep_and_end() -> None:
    server = server_with(delay=0.001)
    async with branches(1, server=server, concurrency=1, lease_timeout=3.0) as (branch,):
        permits: list[Any] = []

        async def open_stream() -> None:
            from anythrottle import current_permit

            permit = current_permit()
            assert permit is not None
            permit.keep()
            permits.append(permit)

        await branch.limiter.run(open_stream)
        await anyio.sleep(20)
        assert branch.limiter.statistics().kept == 1
        assert (await branch.limiter.shared_statistics()).kept == 1
        assert not permits[0].lost
        with pytest.raises(LimitExceeded):
            await branch.call(0, max_wait=1)

        permits[0].end()
        await branch.call(0, max_wait=1)
        assert branch.limiter.statistics().kept == 0


async def test_max_waiting_bounds_a_processs_own_line() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "1/1s", server=server, max_waiting=1) as (branch,):
        await branch.acquire()
        async with tasks() as group:
            for _ in range(3):
                group.start_soon(branch.try_to)

        assert [type(error) for error in branch.errors] == [LimitExceeded] * 2


async def test_forget_lets_a_name_start_afresh() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "5/100s", server=server) as (branch,):
        await branch.acquire(5)

    async with MemoryStore(server) as store:
        await store.forget("api")
        await store.limiter("api", "6/100s").acquire(6, max_wait=1)
        with pytest.raises(ValueError, match="name"):
            await store.forget("a b")
