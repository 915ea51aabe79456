"""What a limiter of one's own gets from its base; and what ours do by the same code."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from inspect import CORO_CLOSED, getcoroutinestate
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anythrottle import (
    BaseLimiter,
    Ended,
    LimitExceeded,
    RateLimiter,
    ThrottleException,
    current_permit,
    for_each,
)
from anythrottle._limiters.permit import TurnPermit
from anythrottle.abc import Limiter, Permit
from anythrottle.testing import LimiterConformance, wait_idle
from tests.conftest import Run

pytestmark = pytest.mark.timing


class Wrapping(BaseLimiter):
    """Written by a user, around a limiter of ours; its base is not initialised."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter
        self.paused: list[float | None] = []

    def permit(
        self, cost: Any = 1, *, priority: int = 0, max_wait: Any = None
    ) -> AbstractAsyncContextManager[Permit]:
        return self.limiter.permit(cost, priority=priority, max_wait=max_wait)

    def pause(self, seconds: float | None = None) -> None:
        self.paused.append(seconds)
        self.limiter.pause(seconds)


class Bare:
    """A permit that knows neither ``throttled`` nor what else is new."""

    waited = 0.0

    def settle(self, cost: object) -> None: ...

    def refund(self) -> None: ...


class Unlimited(BaseLimiter):
    """Written by a user, with permits of its own."""

    def __init__(self) -> None:
        self.paused: list[float | None] = []
        self.asked: list[tuple[object, int, object]] = []
        self.left: list[BaseException | None] = []

    def permit(
        self, cost: Any = 1, *, priority: int = 0, max_wait: Any = None
    ) -> AbstractAsyncContextManager[Permit]:
        self.asked.append((cost, priority, max_wait))
        return self._permit()

    @asynccontextmanager
    async def _permit(self) -> AsyncIterator[Any]:
        try:
            yield Bare()
        except BaseException as exc:
            self.left.append(exc)
            raise
        else:
            self.left.append(None)

    def pause(self, seconds: float | None = None) -> None:
        self.paused.append(seconds)


class TestConformance(LimiterConformance):
    def make_limiter(
        self, limit: int, window: float, *, concurrency: int | None = None
    ) -> BaseLimiter:
        return Wrapping(RateLimiter(f"{limit}/{window}s", concurrency=concurrency))

    async def test_a_throttled_call_pauses_the_limiter_and_goes_again_first(self) -> None:
        """Not before those who are in line already: its base does what it can."""


def test_it_is_a_limiter() -> None:
    assert isinstance(Unlimited(), Limiter)


def test_without_permit_there_is_none() -> None:
    class Half(BaseLimiter):
        def pause(self, seconds: float | None = None) -> None: ...

    with pytest.raises(TypeError, match="permit"):
        Half()  # type: ignore[abstract]


class TestThrottled:
    async def test_a_permit_of_ours_is_told(self) -> None:
        """Not the limiter that it came by: that may pause in another way."""
        limiter = Wrapping(RateLimiter("9/s"))
        start = anyio.current_time()

        async def once() -> None:
            if anyio.current_time() == start:
                raise ThrottleException(retry_after=5)

        await limiter.run(once)
        assert anyio.current_time() == start + 5
        assert limiter.paused == []

    async def test_of_another_one_the_limiter_pauses(self) -> None:
        limiter = Unlimited()
        throttled = [ThrottleException(retry_after=5), ThrottleException()]

        async def job() -> str:
            if throttled:
                raise throttled.pop(0)

            return "done"

        assert await limiter.run(job, cost=2, max_wait=7) == "done"
        assert limiter.paused == [5, None]
        first, *others = limiter.asked
        assert first == (2, 0, 7)
        assert [(cost, max_wait) for cost, _, max_wait in others] == [(2, 7)] * 2
        assert all(priority < -(10**9) for _, priority, _ in others)

    async def test_a_permit_is_left_with_the_error(self) -> None:
        limiter = Unlimited()
        error = ThrottleException()
        throttled = [error]

        async def job() -> None:
            if throttled:
                raise throttled.pop()

        await limiter.run(job)
        assert limiter.left == [error, None]

    async def test_by_hand(self) -> None:
        limiter = RateLimiter("9/10s")
        async with limiter.permit() as permit:
            permit.throttled(3)
            assert limiter.statistics().paused_for == 3
            permit.throttled()
            assert limiter.statistics().paused_for == 10
            with pytest.raises(ValueError, match="seconds"):
                permit.throttled(-1)

    @pytest.mark.parametrize("pauses", [1, 3])
    async def test_without_a_limiter_it_is_the_run_that_pauses(self, pauses: int) -> None:
        begun: list[float] = []
        start = anyio.current_time()

        async def call(item: int) -> None:
            begun.append(anyio.current_time() - start)
            if item < pauses:
                current_permit().throttled(5)

        await for_each(call, range(4), concurrency=1)
        assert begun == [min(item, pauses) * 5 for item in range(4)]

    async def test_and_no_other_one(self) -> None:
        start = anyio.current_time()
        left: list[Permit] = []

        async def call(_: int) -> None:
            left.append(current_permit())
            current_permit().throttled(5)

        await for_each(call, [1])
        await for_each(call, [1])
        gc.collect()
        # The runs are over, and there is nothing to pause.
        left[0].throttled(5)
        assert anyio.current_time() == start

    async def test_a_pause_that_is_told_while_others_run(self) -> None:
        """By a permit that has waited, too."""
        begun: list[tuple[int, float]] = []
        start = anyio.current_time()

        async def call(item: int) -> None:
            begun.append((item, anyio.current_time() - start))
            if item in {0, 2}:
                current_permit().throttled(5)

            await anyio.sleep(1)

        await for_each(call, range(5), concurrency=2)
        assert sorted(begun) == [(0, 0), (1, 5), (2, 5), (3, 10), (4, 10)]


class TestMaxWait:
    async def test_the_first_turn(self) -> None:
        limiter = RateLimiter("1/10s")
        await limiter.acquire()
        start = anyio.current_time()
        with pytest.raises(LimitExceeded) as raised:
            await limiter.run(anyio.sleep, 0, max_wait=9)

        assert raised.value.__cause__ is None
        await limiter.run(anyio.sleep, 0, max_wait=10)
        assert anyio.current_time() == start + 10

    @pytest.mark.parametrize("limit", ["9/s", "1/20s"])
    async def test_a_later_turn_is_refused_at_once(self, limit: str) -> None:
        limiter = RateLimiter(limit)
        start = anyio.current_time()
        error = ThrottleException(retry_after=20)

        async def throttled() -> None:
            raise error

        with pytest.raises(LimitExceeded) as raised:
            await limiter.run(throttled, max_wait=10)

        assert raised.value.__cause__ is error
        assert raised.value.retry_after == 20
        assert anyio.current_time() == start
        assert limiter.statistics().tasks_waiting == 0

    async def test_then_the_others_go_on(self) -> None:
        limiter = RateLimiter("2/10s", concurrency=1)
        start = anyio.current_time()
        begun: list[float] = []

        async def throttled() -> None:
            await anyio.sleep(1)
            raise ThrottleException(retry_after=20)

        async def other() -> None:
            begun.append(anyio.current_time() - start)

        async def run() -> None:
            with pytest.raises(LimitExceeded):
                await limiter.run(throttled, max_wait=5)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(run)
            await wait_idle()
            task_group.start_soon(limiter.run, other)

        assert begun == [21]

    async def test_a_later_turn_that_comes_in_time(self) -> None:
        limiter = RateLimiter("9/s")
        start = anyio.current_time()
        attempts: list[float] = []

        async def throttled() -> None:
            attempts.append(anyio.current_time() - start)
            if len(attempts) < 3:
                raise ThrottleException(retry_after=8)

        await limiter.run(throttled, max_wait=10)
        assert attempts == [0, 8, 16]

    async def test_an_error_of_the_function_is_its_own(self) -> None:
        limiter, inner = RateLimiter("9/s"), RateLimiter("1/s")
        throttled = [ThrottleException(retry_after=0)]

        async def job() -> None:
            if throttled:
                raise throttled.pop()

            inner.acquire_nowait()
            inner.acquire_nowait()

        with pytest.raises(LimitExceeded) as raised:
            await limiter.run(job)

        assert raised.value.__cause__ is None


class TestWrapWithOptions:
    async def test_they_are_those_of_run(self) -> None:
        limiter = Unlimited()
        error = ThrottleException(retry_after=0)

        @limiter.wrap(cost={"tokens": 5}, priority=3, max_wait=7, max_throttles=2)
        async def job(*args: int, **kwargs: str) -> None:
            """Say what it is."""
            assert (args, kwargs) == ((1, 2), {"name": "a"})
            raise error

        with pytest.raises(ThrottleException):
            await job(1, 2, name="a")

        assert job.__name__ == "job"
        assert limiter.asked[0] == ({"tokens": 5}, 3, 7)
        assert len(limiter.asked) == 2

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"cost": -1}, ValueError),
            ({"cost": "5"}, TypeError),
            ({"priority": 0.5}, TypeError),
            ({"max_wait": -1}, ValueError),
            ({"max_throttles": 0}, ValueError),
        ],
    )
    def test_they_are_checked_at_once(self, options: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=next(iter(options))):
            RateLimiter().wrap(**options)


class TestBlock:
    async def test_of_one_s_own(self) -> None:
        limiter = Wrapping(RateLimiter(concurrency=2))
        async with limiter, limiter:
            assert limiter.limiter.statistics().borrowed_tokens == 2

        assert limiter.limiter.statistics().borrowed_tokens == 0

    async def test_a_task_leaves_by_its_own_permit(self) -> None:
        limiter = Unlimited()
        errors = [ZeroDivisionError(), KeyError()]

        async def call(number: int) -> None:
            with pytest.raises(type(errors[number])):  # noqa: PT012 - the block is what is tested
                async with limiter:
                    await anyio.sleep(number)
                    raise errors[number]

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(call, 1)
            await wait_idle()
            task_group.start_soon(call, 0)

        assert limiter.left == errors

    async def test_one_task_for_another(self) -> None:
        limiter = Wrapping(RateLimiter(concurrency=1))
        await limiter.__aenter__()

        async def leave() -> None:
            await limiter.__aexit__(None, None, None)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(leave)

        await limiter.__aexit__(None, None, None)
        assert limiter.limiter.statistics().borrowed_tokens == 0

    def test_in_one_run_after_another(self, run: Run) -> None:
        limiter = Wrapping(RateLimiter(concurrency=1))

        async def enter() -> None:
            await limiter.__aenter__()

        async def block() -> None:
            await limiter.__aexit__(None, None, None)
            async with limiter:
                assert limiter.limiter.statistics().borrowed_tokens == 1

            assert limiter.limiter.statistics().borrowed_tokens == 0

        run(enter)
        run(block)
        run(block)


class TestEngine:
    async def test_it_tells_the_permit(self) -> None:
        """Before its slot is free, and not the limiter that it came by."""
        limiter = Wrapping(RateLimiter("9/s", concurrency=1))
        start = anyio.current_time()
        begun: list[tuple[int, float]] = []

        async def call(item: int) -> None:
            begun.append((item, anyio.current_time() - start))
            if len(begun) == 1:
                raise ThrottleException(retry_after=5)

        await for_each(call, [1, 2], limiter=limiter)
        assert begun == [(1, 0), (1, 5), (2, 5)]
        assert limiter.paused == []

    async def test_of_another_permit_the_limiter_pauses(self) -> None:
        limiter = Unlimited()
        throttled = [ThrottleException(retry_after=5)]

        async def call(_: int) -> None:
            if throttled:
                raise throttled.pop()

        await for_each(call, [1], limiter=limiter)
        assert limiter.paused == [5]


async def test_a_permit_that_swallows_the_error() -> None:
    class Swallowing(Unlimited):
        @asynccontextmanager
        async def _permit(self) -> AsyncIterator[Any]:
            with suppress(KeyError):
                yield Bare()

    calls: list[int] = []

    async def job() -> None:
        calls.append(1)
        raise KeyError

    with pytest.raises(RuntimeError, match="has swallowed the error") as raised:
        await Swallowing().run(job)

    assert calls == [1]
    assert raised.value.__cause__ is None


async def test_a_kept_call_ends_if_its_permit_cannot_be_left() -> None:
    inner = RateLimiter(concurrency=1)

    class Slow(Unlimited):
        @asynccontextmanager
        async def _permit(self) -> AsyncIterator[Any]:
            async with inner.permit() as permit:
                permit.may_be_kept = True
                yield permit

            await anyio.sleep(1)

    async def job() -> None:
        current_permit().keep()

    with anyio.move_on_after(0.5) as scope:
        await Slow().run(job)

    assert scope.cancelled_caught
    assert inner.statistics().borrowed_tokens == 0


async def test_max_wait_of_a_later_turn_does_not_count_who_goes_again_behind_it() -> None:
    limiter = RateLimiter("1/10s")
    start = anyio.current_time()
    begun: dict[str, list[float]] = {"a": [], "b": []}

    async def call(name: str, seconds: float) -> None:
        begun[name].append(anyio.current_time() - start)
        if len(begun[name]) == 1:
            await anyio.sleep(seconds)
            raise ThrottleException(retry_after=0)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(partial(limiter.run, call, "a", 12, max_wait=10))
        await anyio.sleep(9)
        task_group.start_soon(limiter.run, call, "b", 1)

    assert begun == {"a": [0, 20], "b": [10, 30]}


async def test_a_wrapped_permit_goes_again_by_priority() -> None:
    """Handed on to ours, a permit that is not ours stands in line as any other."""

    class HandsOn(Unlimited):
        def permit_again(self, permit: Permit, cost: Any) -> Any:
            return RateLimiter("9/s").permit_again(permit, cost)

    limiter = HandsOn()
    throttled = [ThrottleException()]

    async def job() -> None:
        if throttled:
            raise throttled.pop()

    await limiter.run(job)
    assert [priority < 0 for _, priority, _ in limiter.asked] == [False, True]


async def test_nor_does_a_permit_of_another_limiter_stand_in_its_line() -> None:
    ours, other = RateLimiter("9/s"), RateLimiter("9/s")
    async with other.permit() as permit:
        assert ours.permit_again(permit, 1) is None
        not_entered = ours.permit()
        assert isinstance(not_entered, TurnPermit)
        assert ours.permit_again(not_entered, 1) is None, "it has no place yet"

    assert ours.statistics().tasks_waiting == 0


async def test_an_exit_between_two_attempts_leaves_nobody_in_line() -> None:
    def leave(event: object) -> None:
        if isinstance(event, Ended):
            raise SystemExit(3)

    limiter = RateLimiter("9/s", concurrency=1, observer=leave)

    async def throttled() -> None:
        raise ThrottleException(retry_after=1)

    with pytest.raises(SystemExit):
        await limiter.run(throttled)

    assert limiter.statistics().tasks_waiting == 0
    assert limiter.statistics().borrowed_tokens == 0


async def test_a_replacement_is_closed_if_it_cannot_go() -> None:
    class Broken(Unlimited):
        def permit_again(self, permit: Permit, cost: Any) -> Any:
            raise ZeroDivisionError

    async def replacement() -> None: ...

    coroutine = replacement()

    async def throttled() -> None:
        raise ThrottleException(coroutine)

    with pytest.raises(ZeroDivisionError):
        await Broken().run(throttled)

    assert getcoroutinestate(coroutine) == CORO_CLOSED


async def test_a_call_that_is_throttled_for_ever_lets_others_run() -> None:
    """Though neither the permit nor the call ever waits."""
    calls = 0

    async def throttled() -> None:
        nonlocal calls
        calls += 1
        assert calls < 99
        raise ThrottleException(retry_after=0)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(Wrapping(RateLimiter(fast_acquire=True)).run, throttled)
        for _ in range(9):
            await checkpoint()

        task_group.cancel_scope.cancel()

    assert 1 < calls < 99


def test_the_repr_says_what_is_measured_from_the_end() -> None:
    limiter = RateLimiter("20/10s end", "100 tokens/min")
    assert repr(limiter) == "<RateLimiter 20 calls/10s end, 100 tokens/60s>"


class TestOutsideOfATask:
    async def test_an_exit_is_of_no_use(self, anyio_backend_name: str) -> None:
        if anyio_backend_name != "asyncio":
            # On Trio, no code of a user's own runs outside of a task.
            return

        limiter = RateLimiter(concurrency=1)
        done = anyio.Event()

        def leave() -> None:
            with pytest.raises(StopIteration):
                limiter.__aexit__(None, None, None).send(None)

            done.set()

        async with limiter:
            asyncio.get_running_loop().call_soon(leave)
            await done.wait()
            assert limiter.statistics().borrowed_tokens == 1

        assert limiter.statistics().borrowed_tokens == 0
