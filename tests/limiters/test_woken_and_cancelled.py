"""G5: a task that was woken, and is cancelled before it resumes, has taken nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import anyio
import pytest

from anythrottle import RateLimiter, WindowTokenBucket
from anythrottle._loops.asyncio_loop import AsyncioLoop
from anythrottle._loops.clock import loop_of, native_loop
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop

pytestmark = pytest.mark.promise("G5")

Enter: TypeAlias = Callable[[RateLimiter, Callable[[], None]], Coroutine[Any, Any, None]]

#: How many wait, all of which are granted their turns in one step.
CROWD = 100


async def acquire(limiter: RateLimiter, begin: Callable[[], None]) -> None:
    if limiter._gate.holds:
        # It is for limiters that hold nothing.
        await permit(limiter, begin)
        return

    await limiter.acquire()
    begin()


async def permit(limiter: RateLimiter, begin: Callable[[], None]) -> None:
    async with limiter.permit():
        begin()


async def block(limiter: RateLimiter, begin: Callable[[], None]) -> None:
    async with limiter:
        begin()


async def run(limiter: RateLimiter, begin: Callable[[], None]) -> None:
    async def func() -> None:
        begin()

    await limiter.run(func)


ENTRIES = pytest.mark.parametrize("enter", [acquire, permit, block, run])

LIMITERS = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: RateLimiter(f"{CROWD}/10s"), id="plain"),
        pytest.param(lambda: RateLimiter(f"{CROWD}/10s", fast_acquire=True), id="fast"),
        pytest.param(lambda: RateLimiter(f"{CROWD}/10s", observer=lambda _: None), id="observed"),
        pytest.param(lambda: RateLimiter(f"{CROWD}/10s", concurrency=CROWD), id="slots"),
        pytest.param(
            lambda: RateLimiter(f"{CROWD}/10s", concurrency=anyio.CapacityLimiter(CROWD)),
            id="shared",
        ),
        pytest.param(
            lambda: RateLimiter(WindowTokenBucket(CROWD, 10, measure="end")), id="measured at end"
        ),
    ],
)


@pytest.mark.timing
@ENTRIES
@LIMITERS
class TestACrowdThatIsWokenAtOnce:
    async def test_its_scope_is_cancelled(self, make: Any, enter: Enter) -> None:
        limiter, begun = paused(make, enter)
        async with anyio.create_task_group() as task_group:
            for _ in range(CROWD):
                task_group.start_soon(enter, limiter, lambda: begun.append(1))

            await wait_idle()
            limiter.resume()
            task_group.cancel_scope.cancel()

        assert begun == []
        assert_untouched(limiter, 0)

    @pytest.mark.parametrize("number", [1, 50])
    async def test_one_of_its_group_fails(self, make: Any, enter: Enter, number: int) -> None:
        limiter, begun = paused(make, enter)

        def begin() -> None:
            begun.append(1)
            if len(begun) == number:
                raise ZeroDivisionError

        with pytest.RaisesGroup(ZeroDivisionError):
            async with anyio.create_task_group() as task_group:
                for _ in range(CROWD):
                    task_group.start_soon(enter, limiter, begin)

                await wait_idle()
                limiter.resume()

        assert len(begun) == number
        assert_untouched(limiter, number)

    async def test_others_go_on(self, make: Any, enter: Enter) -> None:
        """Every other one is cancelled: the turns of these go to those who come next."""
        limiter, begun = paused(make, enter)

        async def call() -> None:
            await enter(limiter, lambda: begun.append(1))

        start = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            scopes = [anyio.CancelScope() for _ in range(CROWD)]

            async def call_in(scope: anyio.CancelScope) -> None:
                with scope:
                    await call()

            for scope in scopes:
                task_group.start_soon(call_in, scope)

            await wait_idle()
            for _ in range(CROWD // 2):
                task_group.start_soon(call)

            await wait_idle()
            limiter.resume()
            for scope in scopes[::2]:
                scope.cancel()

        assert len(begun) == CROWD
        assert anyio.current_time() == start


@ENTRIES
@LIMITERS
def test_natively_it_is_the_same(make: Any, enter: Enter) -> None:
    async def main() -> None:
        limiter, begun = paused(make, enter)
        calls = [
            asyncio.ensure_future(enter(limiter, lambda: begun.append(1))) for _ in range(CROWD)
        ]
        await wait_idle()
        limiter.resume()
        for call in calls:
            call.cancel()

        await asyncio.wait(calls)
        assert begun == []
        assert_untouched(limiter, 0)

    anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})


@pytest.mark.timing
@pytest.mark.parametrize("observer", [None, lambda _: None], ids=["unobserved", "observed"])
async def test_a_fast_acquire_that_need_not_wait_does_not_look(observer: Any) -> None:
    limiter = RateLimiter("5/s", fast_acquire=True, observer=observer)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
        async with limiter:
            pass

    assert not scope.cancelled_caught
    assert limiter.peek().remaining == 3


@pytest.mark.timing
async def test_a_pause_that_begins_while_a_woken_task_looks() -> None:
    """Looking has let others run: pause and clock are read again."""
    limiter = RateLimiter("3/10s")
    limiter.pause()
    begun: list[float] = []
    start = anyio.current_time()

    async def fail() -> None:
        await limiter.acquire()
        limiter.pause(5)
        raise ZeroDivisionError

    async def call() -> None:
        await limiter.acquire()
        begun.append(anyio.current_time() - start)

    async def failing_group() -> None:
        with pytest.RaisesGroup(ZeroDivisionError):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(fail)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(failing_group)
        await wait_idle()
        task_group.start_soon(call)
        await wait_idle()
        limiter.resume()

    # On Trio, which shuffles them, it may have gone before.
    assert begun in ([5], [0])
    assert limiter.peek().remaining == 1


def paused(make: Any, enter: Enter) -> tuple[RateLimiter, list[int]]:
    """Return a limiter that is paused, and an empty list."""
    limiter: RateLimiter = make()
    limiter.pause(float("inf"))
    return limiter, []


def assert_untouched(limiter: RateLimiter, calls: int) -> None:
    """Only so many calls have been charged, and nothing is held or waited for."""
    assert limiter.peek().remaining == CROWD - calls
    statistics = limiter.statistics()
    assert (statistics.borrowed_tokens, statistics.tasks_waiting) == (0, 0)


@pytest.mark.timing
@ENTRIES
@LIMITERS
async def test_one_of_its_group_fails_while_others_pass_their_checkpoints(
    make: Any, enter: Enter
) -> None:
    limiter: RateLimiter = make()
    begun: list[int] = []

    def begin() -> None:
        begun.append(1)
        if len(begun) == 1:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with anyio.create_task_group() as task_group:
            for _ in range(CROWD):
                task_group.start_soon(enter, limiter, begin)

    # A fast one that needn't wait passes no checkpoint.
    assert len(begun) == (CROWD if limiter._fast else 1)


@pytest.mark.timing
@pytest.mark.parametrize("priority", range(8))
async def test_one_of_its_group_fails_that_has_come_on_the_short_way(priority: int) -> None:
    limiter = RateLimiter("9/10s")
    # It is open to those who come when the limiter knows in which run it is.
    await limiter.acquire()
    begun: list[int] = []

    async def fail() -> None:
        await limiter.acquire(priority=priority)
        begun.append(1)
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with anyio.create_task_group() as task_group:
            for _ in range(5):
                task_group.start_soon(fail)

    assert len(begun) == 1
    assert limiter.peek().remaining == 7


@pytest.mark.timing
@pytest.mark.parametrize("priority", range(8))
async def test_one_of_its_group_fails_that_has_a_permit(priority: int) -> None:
    limiter = RateLimiter("9/10s")
    begun: list[int] = []

    async def fail() -> None:
        async with limiter.permit(priority=priority):
            begun.append(1)
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with anyio.create_task_group() as task_group:
            for _ in range(5):
                task_group.start_soon(fail)

    assert len(begun) == 1
    assert limiter.peek().remaining == 8


@pytest.mark.timing
async def test_who_lets_others_go_fails_at_once() -> None:
    limiter = RateLimiter("9/10s")
    limiter.pause(float("inf"))
    begun: list[int] = []

    async def resume() -> None:
        limiter.resume()
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(acquire, limiter, lambda: begun.append(1))
            await wait_idle()
            task_group.start_soon(resume)

    assert begun == []
    assert limiter.peek().remaining == 9


@pytest.mark.timing
async def test_tasks_of_other_groups_look_one_after_the_other_and_go_on() -> None:
    limiter = RateLimiter("9/10s")
    limiter.pause(float("inf"))
    begun: list[int] = []

    async def fail() -> None:
        with pytest.RaisesGroup(ZeroDivisionError):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(run, limiter, divide)

    def divide() -> None:
        raise ZeroDivisionError

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(fail)
        await wait_idle()
        for _ in range(5):
            task_group.start_soon(acquire, limiter, lambda: begun.append(1))

        await wait_idle()
        limiter.resume()

    assert len(begun) == 5


async def test_tasks_of_other_groups_go_on_that_look_together() -> None:
    limiter = RateLimiter("9/10s")
    begun: list[int] = []

    def divide() -> None:
        raise ZeroDivisionError

    async with anyio.create_task_group() as others:
        with pytest.RaisesGroup(ZeroDivisionError):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(acquire, limiter, divide)
                for _ in range(5):
                    others.start_soon(acquire, limiter, lambda: begun.append(1))

    assert len(begun) == 5


async def test_a_run_that_anyio_does_not_see_has_no_deadline() -> None:
    loop = VirtualEventLoop()
    loop.close()
    assert AsyncioLoop(loop).deadline() == float("inf")


@pytest.mark.timing
async def test_nothing_is_suspected_on_trio() -> None:
    run = loop_of(native_loop())
    run.note_actor()
    assert not run.is_alarmed()
