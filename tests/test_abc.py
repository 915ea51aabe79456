"""What a user may implement or accept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, TypeVarTuple

import anyio
import pytest

from anythrottle import Cost, RateLimiter, WindowTokenBucket, abc
from anythrottle._policies.bucket import Bucket
from anythrottle._policies.policy import Policy
from anythrottle.testing import wait_idle

P = ParamSpec("P")
T = TypeVar("T")
PosArgsT = TypeVarTuple("PosArgsT")


class OwnPermit:
    waited = 0.0

    def settle(self, cost: Cost) -> None: ...

    def refund(self) -> None: ...

    def mark_counted(self, *units: str) -> None: ...

    def throttled(self, retry_after: float | None = None) -> None: ...

    def keep(self) -> None: ...

    def end(self) -> None: ...


class OwnLimiter:
    """Written by a user, with nothing of ours but the types."""

    def __init__(self) -> None:
        self.entered = 0
        self.paused: list[float | None] = []

    @asynccontextmanager
    async def _permit(self) -> AsyncIterator[abc.Permit]:
        async with self:
            yield OwnPermit()

    def permit(
        self,
        cost: Cost = 1,
        *,
        priority: int = 0,
        max_wait: float | Literal["deadline"] | None = None,
    ) -> AbstractAsyncContextManager[abc.Permit]:
        return self._permit()

    async def run(
        self,
        func: Callable[[*PosArgsT], Awaitable[T]],
        *args: *PosArgsT,
        cost: Cost = 1,
        priority: int = 0,
        max_wait: float | Literal["deadline"] | None = None,
        max_throttles: int | None = None,
    ) -> T:
        async with self:
            return await func(*args)

    def wrap(self, func: Any = None, /, **options: Any) -> Any:
        def decorate(func: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[object, object, T]]:
            async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
                return await self.run(partial(func, *args, **kwargs), **options)

            return wrapped

        return decorate if func is None else decorate(func)

    def pause(self, seconds: float | None = None) -> None:
        self.paused.append(seconds)

    async def __aenter__(self) -> None:
        self.entered += 1

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.entered -= 1


@dataclass(frozen=True)
class Halved:
    """A policy of a user: a window of half the limit."""

    limit: int
    window: float
    unit: str = "calls"
    holds: bool = False

    def bucket(self) -> Bucket:
        return WindowTokenBucket(self.limit // 2, self.window).bucket()


class TestAbc:
    def test_all(self) -> None:
        assert set(abc.__all__) == {
            *("Bucket", "Event", "Limiter", "Observer", "Permit", "Policy"),
            *("QuotaLimiter", "AdjustableLimiter", "Idle"),
            *("LevelBucket", "WallClockBucket"),
        }
        assert abc.Policy is Policy
        assert abc.Bucket is Bucket

    def test_a_rate_limiter_is_a_limiter(self) -> None:
        assert isinstance(RateLimiter(), abc.Limiter)

    def test_and_more(self) -> None:
        for kind in (abc.QuotaLimiter, abc.AdjustableLimiter, abc.Idle):
            assert isinstance(RateLimiter(), kind)
            assert not isinstance(OwnLimiter(), kind)

    def test_one_s_own_is_a_limiter(self) -> None:
        assert isinstance(OwnLimiter(), abc.Limiter)

    @pytest.mark.parametrize("value", [object(), "20/10s", OwnPermit()])
    def test_what_is_none(self, value: object) -> None:
        assert not isinstance(value, abc.Limiter)

    async def test_one_s_own_works_like_ours(self) -> None:
        for limiter in (OwnLimiter(), RateLimiter("5/s", concurrency=5)):
            await use(limiter)

    async def test_one_s_own_policy(self) -> None:
        limiter = RateLimiter(Halved(10, 3600))
        await limiter.acquire(5)
        assert limiter.peek().remaining == 0
        assert limiter.peek().policy == Halved(10, 3600)

    async def test_a_policy_that_fails_leaves_the_line_in_order(self) -> None:
        limiter = RateLimiter(Failing())
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await limiter.acquire()

            assert limiter.statistics().tasks_waiting == 0

    @pytest.mark.timing
    async def test_a_policy_that_fails_once_fails_one_call_and_the_line_goes_on(self) -> None:
        limiter = RateLimiter(FailingLater())
        ended: list[tuple[int, str]] = []

        async def call(cost: int) -> None:
            try:
                await limiter.acquire(cost)
            except ZeroDivisionError:
                ended.append((cost, "failed"))
            else:
                ended.append((cost, "granted"))

        async with anyio.create_task_group() as task_group:
            await limiter.acquire(3)
            for cost in (1, 2, 3):
                task_group.start_soon(call, cost)
                await wait_idle()

        assert ended == [(1, "granted"), (2, "failed"), (3, "granted")]


class FailingLaterBucket:
    """Fails when it is asked, after a while, for a cost of 2; all else is a window bucket's."""

    def __init__(self) -> None:
        self._bucket = WindowTokenBucket(3, 10).bucket()

    def delay(self, now: float, cost: int) -> float:
        return 1 / 0 if cost == 2 and now > 5 else self._bucket.delay(now, cost)

    def take_free(self, cost: int) -> bool:
        return False

    def __getattr__(self, name: str) -> object:
        return getattr(self._bucket, name)


@dataclass(frozen=True)
class FailingLater:
    limit: int = 3
    window: float = 10.0
    unit: str = "calls"
    holds: bool = False

    def bucket(self) -> Bucket:
        return FailingLaterBucket()  # type: ignore[return-value]


class FailingBucket:
    """Fails when it is asked; all else is a window bucket's."""

    def __init__(self) -> None:
        self._bucket = WindowTokenBucket(1, 1).bucket()

    def delay(self, now: float, cost: int) -> float:
        return 1 / 0

    def take_free(self, cost: int) -> bool:
        return False

    def __getattr__(self, name: str) -> object:
        return getattr(self._bucket, name)


@dataclass(frozen=True)
class Failing:
    limit: int = 1
    window: float = 1.0
    unit: str = "calls"
    holds: bool = False

    def bucket(self) -> Bucket:
        return FailingBucket()  # type: ignore[return-value]


async def use(limiter: abc.Limiter) -> None:
    async with limiter, limiter.permit(1, priority=0) as permit:
        assert permit.waited >= 0
        permit.refund()

    limiter.pause(0)
