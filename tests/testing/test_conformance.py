"""The suite for limiters: ours pass it, and each way to break a promise fails it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

import anyio
import pytest

from anythrottle import FixedWindow, PolicyState, RateLimiter, TokenBucket, WindowTokenBucket, abc
from anythrottle._limiters.current import as_current, current_permit
from anythrottle.testing import LimiterConformance
from tests.conftest import Run


@pytest.mark.timing
class TestRateLimiter(LimiterConformance):
    def make_limiter(
        self, limit: int, window: float, *, concurrency: int | None = None
    ) -> abc.Limiter:
        return RateLimiter(WindowTokenBucket(limit, window), concurrency=concurrency)


@pytest.mark.timing
class TestWithOtherPartsOfALimiter(LimiterConformance):
    """A shared capacity limiter, several policies, and no checkpoints."""

    def make_limiter(
        self, limit: int, window: float, *, concurrency: int | None = None
    ) -> abc.Limiter:
        slots = None if concurrency is None else anyio.CapacityLimiter(concurrency)
        policy = WindowTokenBucket(limit, window)
        return RateLimiter(policy, "1_000_000/ms", concurrency=slots, fast_acquire=True)


@pytest.mark.timing
class TestWhatNobodyNeedsToHave(LimiterConformance):
    """A limiter that tells nothing of its quotas, with permits that know nothing new."""

    settled = 0

    def make_limiter(
        self, limit: int, window: float, *, concurrency: int | None = None
    ) -> abc.Limiter:
        return Plain(limit, window, concurrency)  # type: ignore[return-value]

    async def settle_down(self) -> None:
        self.settled += 1
        await super().settle_down()

    async def test_it_waits_for_others_by_one_method(self) -> None:
        await self.test_first_come_first_served()
        assert self.settled > 10


class Wrapped:
    """A limiter around one of ours, to have its faults."""

    def __init__(self, limit: int, window: float, concurrency: int | None) -> None:
        self.inner = RateLimiter(WindowTokenBucket(limit, window), concurrency=concurrency)

    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.inner.permit(cost, **options)

    async def run(self, func: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        return await self.inner.run(func, *args, **options)

    def wrap(self, func: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        return self.inner.wrap(func)

    def pause(self, seconds: float | None = None) -> None:
        self.inner.pause(seconds)

    async def __aenter__(self) -> None:
        await self.inner.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.inner.__aexit__(exc_type, exc, traceback)


class Plain(Wrapped):
    @asynccontextmanager
    async def _permit(self, cost: Any, options: Any) -> AsyncGenerator[Any]:
        async with self.inner.permit(cost, **options) as permit:
            yield PlainPermit(permit)

    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self._permit(cost, options)

    async def run(self, func: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        async def call() -> Any:
            with as_current(PlainPermit(current_permit())):  # type: ignore[arg-type]
                return await func(*args)

        return await self.inner.run(call, **options)


class PlainPermit:
    def __init__(self, permit: Any) -> None:
        self.waited = permit.waited
        self.settle = permit.settle
        self.refund = permit.refund


class Lifo(Wrapped):
    number = 0

    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        self.number += 1
        return self.inner.permit(cost, **{**options, "priority": -self.number})


class WithoutPriorities(Wrapped):
    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.inner.permit(cost, **{**options, "priority": 0})


class SmallestFirst(Wrapped):
    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.inner.permit(cost, **{**options, "priority": cost})


class EveryCallCosts1(Wrapped):
    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.inner.permit(1, **options)


class NothingIsFree(Wrapped):
    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.inner.permit(cost or 1, **options)


class Patient(Wrapped):
    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.inner.permit(cost, **{**options, "max_wait": None})


class WithoutPause(Wrapped):
    def pause(self, seconds: float | None = None) -> None: ...


class ShorteningPause(Wrapped):
    def pause(self, seconds: float | None = None) -> None:
        self.inner.resume()
        self.inner.pause(seconds)


class PermitsOfOneKind(Wrapped):
    """Permits that neither settle nor refund."""

    @asynccontextmanager
    async def _permit(self, cost: Any, options: Any) -> AsyncGenerator[Any]:
        async with self.inner.permit(cost, **options):
            yield self

    waited = 0.0

    def settle(self, cost: Any) -> None: ...

    def refund(self) -> None: ...

    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self._permit(cost, options)


class ChargesWhoLeaves(Wrapped):
    @asynccontextmanager
    async def _permit(self, cost: Any, options: Any) -> AsyncGenerator[Any]:
        try:
            async with self.inner.permit(cost, **options) as permit:
                yield permit
        except anyio.get_cancelled_exc_class():
            self.inner.penalize(cost)
            raise

    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self._permit(cost, options)


class GetsStuckWhenOneLeaves(ChargesWhoLeaves):
    @asynccontextmanager
    async def _permit(self, cost: Any, options: Any) -> AsyncGenerator[Any]:
        try:
            async with self.inner.permit(cost, **options) as permit:
                yield permit
        except anyio.get_cancelled_exc_class():
            self.inner.pause(1e7)
            raise


class KeepsItsSlotAfterAnError(Wrapped):
    @asynccontextmanager
    async def _permit(self, cost: Any, options: Any) -> AsyncGenerator[Any]:
        permit = self.inner.permit(cost, **options)
        yield await permit.__aenter__()
        await permit.__aexit__(None, None, None)

    def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self._permit(cost, options)


class RunsOnce(Wrapped):
    async def run(self, func: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        async with self.inner:
            return await func(*args)


class KeepsItsSlotAfterAnErrorInRun(Wrapped):
    async def run(self, func: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        await self.inner.__aenter__()
        result = await func(*args)
        await self.inner.__aexit__(None, None, None)
        return result


class RunsForNothing(Wrapped):
    async def run(self, func: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        return await func(*args)


class RunsForEver(Wrapped):
    async def run(self, func: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        return await self.inner.run(func, *args, max_throttles=1000)


class DropsArguments(Wrapped):
    def wrap(self, func: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            return await self.inner.run(func, *args)

        return wrapped


class WithQuotas(Wrapped):
    """All that ours can tell, and be told."""

    @property
    def policies(self) -> tuple[abc.Policy, ...]:
        return self.inner.policies

    def quotas(self) -> tuple[PolicyState, ...]:
        return self.inner.quotas()

    def tighten(self, **figures: Any) -> None:
        self.inner.tighten(**figures)

    def penalize(self, cost: Any) -> None:
        self.inner.penalize(cost)

    def resume(self) -> None:
        self.inner.resume()

    def reconfigure(self, *policies: Any) -> None:
        self.inner.reconfigure(*policies)

    def idle_in(self) -> float:
        return self.inner.idle_in()


class QuotasOfAFullBucket(WithQuotas):
    def quotas(self) -> tuple[PolicyState, ...]:
        return RateLimiter(*self.policies).quotas()


class TightensNothing(WithQuotas):
    def tighten(self, **figures: Any) -> None: ...


class ForgivesPenalties(WithQuotas):
    def penalize(self, cost: Any) -> None: ...


class PausesOn(WithQuotas):
    def resume(self) -> None: ...


class StaysAsItIs(WithQuotas):
    def reconfigure(self, *policies: Any) -> None: ...


class IdleAtOnce(WithQuotas):
    def idle_in(self) -> float:
        return 0.0


class FaultyPermit:
    """Another permit, but for its faults."""

    def __init__(self, permit: Any) -> None:
        self.permit = permit

    def __getattr__(self, name: str) -> Any:
        return getattr(self.permit, name)


class Deaf(FaultyPermit):
    def throttled(self, retry_after: float | None = None) -> None: ...


class RefundsWhatWasCounted(FaultyPermit):
    def mark_counted(self, *units: str) -> None:
        self.permit.refund()


class KeepsAnywhere(FaultyPermit):
    def keep(self) -> None: ...


def with_permits(kind: type[FaultyPermit]) -> Callable[[int, float, int | None], Any]:
    class Faulty(Wrapped):
        @asynccontextmanager
        async def _permit(self, cost: Any, options: Any) -> AsyncGenerator[Any]:
            async with self.inner.permit(cost, **options) as permit:
                yield kind(permit)

        def permit(self, cost: Any = 1, **options: Any) -> AbstractAsyncContextManager[Any]:
            return self._permit(cost, options)

    return Faulty


class KeepsNothing(Wrapped):
    async def run(self, func: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        permit = await self.inner.run(func, *args, **options)
        permit.end()
        return permit


FAULTS: list[tuple[Callable[[int, float, int | None], Any], str]] = [
    (lambda *_: object(), "test_is_a_limiter"),
    (lambda _l, _w, slots: RateLimiter(concurrency=slots), "test_no_window_holds_more"),
    (lambda limit, window, _: RateLimiter(TokenBucket(limit, window)), "test_no_window_holds"),
    (lambda limit, window, _: RateLimiter(FixedWindow(limit, window)), "test_no_window_holds"),
    (
        lambda limit, window, _: RateLimiter(TokenBucket(limit, window, burst=1)),
        "test_a_full_burst_passes",
    ),
    (lambda limit, window, _: RateLimiter(WindowTokenBucket(limit, window)), "test_concurrency"),
    (Lifo, "test_first_come_first_served"),
    (WithoutPriorities, "test_a_lower_priority_goes_first"),
    (SmallestFirst, "test_small_costs_do_not_overtake"),
    (NothingIsFree, "test_a_call_that_costs_nothing"),
    (EveryCallCosts1, "test_costs_are_checked_at_once"),
    (Patient, "test_a_permit_that_must_not_wait"),
    (Patient, "test_waiting_has_a_bound"),
    (WithoutPause, "test_a_pause_holds_back"),
    (ShorteningPause, "test_a_pause_holds_back"),
    (PermitsOfOneKind, "test_a_refund_gives"),
    (PermitsOfOneKind, "test_a_charge_can_be_corrected"),
    (ChargesWhoLeaves, "test_who_is_cancelled_in_line"),
    (GetsStuckWhenOneLeaves, "test_the_line_goes_on"),
    (KeepsItsSlotAfterAnError, "test_an_error_in_the_call"),
    (RunsOnce, "test_a_throttled_call_pauses"),
    (RunsForNothing, "test_run_returns"),
    (KeepsItsSlotAfterAnErrorInRun, "test_run_passes_errors_on"),
    (RunsForEver, "test_attempts_have_a_bound"),
    (DropsArguments, "test_run_returns"),
    (QuotasOfAFullBucket, "test_quotas_tell"),
    (TightensNothing, "test_a_server_s_figures"),
    (ForgivesPenalties, "test_a_penalty"),
    (PausesOn, "test_a_pause_can_be_ended"),
    (StaysAsItIs, "test_another_limit_holds"),
    (IdleAtOnce, "test_it_is_idle_when"),
    (with_permits(Deaf), "test_a_permit_that_is_told"),
    (with_permits(RefundsWhatWasCounted), "test_a_call_that_was_counted"),
    (with_permits(KeepsAnywhere), "test_only_a_call_of_run"),
    (KeepsNothing, "test_a_kept_call"),
]


@pytest.mark.parametrize(
    ("make", "name"),
    FAULTS,
    ids=[f"{getattr(make, '__name__', make)}-{name[5:]}" for make, name in FAULTS],
)
def test_a_fault_is_found(run: Run, make: Callable[..., Any], name: str) -> None:
    class Suite(LimiterConformance):
        def make_limiter(
            self, limit: int, window: float, *, concurrency: int | None = None
        ) -> abc.Limiter:
            return make(limit, window, concurrency)  # type: ignore[no-any-return]

    (method,) = [method for method in dir(Suite) if method.startswith(name)]

    async def main() -> None:
        with anyio.fail_after(1e6):
            await getattr(Suite(), method)()

    with pytest.raises((AssertionError, TimeoutError, ExceptionGroup, TypeError, RuntimeError)):
        run(main)


def test_each_test_finds_some_fault() -> None:
    tests = {name for name in dir(LimiterConformance) if name.startswith("test_")}
    unproven = {test for test in tests if not any(test.startswith(name) for _, name in FAULTS)}
    assert not unproven
