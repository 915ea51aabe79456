"""Calls that the limiter makes: `run` and `wrap`, and how those that are throttled go again."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import math
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    CostTooHigh,
    RateLimiter,
    RateLimiterStatistics,
    ThrottleException,
    WindowTokenBucket,
    current_permit,
)
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.limiters.tools import (
    BLOWS,
    Blow,
    Crowd,
    Victim,
    assert_exact,
    is_trio,
    sweep_with,
    tasks,
)
from tests.properties import examples

Measure = Literal["start", "end"]


async def answer() -> int:
    return 42


class Service:
    """Something to call, that notes when it was called, and throttles as it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, float]] = []
        self.running = 0
        self.most_running = 0

    @property
    def order(self) -> list[object]:
        return [name for name, _ in self.calls]

    @property
    def instants(self) -> list[float]:
        return [instant for _, instant in self.calls]

    def job(
        self,
        name: object = "job",
        *,
        errors: Iterable[BaseException] = (),
        seconds: float | None = None,
        refund: bool = False,
    ) -> Callable[[], Coroutine[Any, Any, object]]:
        """Make a function; each of its first calls raises one of ``errors``, if there are any."""
        to_raise = list(errors)

        async def job() -> object:
            self.calls.append((name, anyio.current_time()))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                if seconds is not None:
                    await anyio.sleep(seconds)
            finally:
                self.running -= 1

            if to_raise:
                if refund:
                    current_permit().refund()

                raise to_raise.pop(0)

            return name

        return job


async def assert_whole(limiter: RateLimiter) -> None:
    """Check that nobody waits, that nothing is held, and that the next call may go in the end."""
    statistics = limiter.statistics()
    assert (statistics.tasks_waiting, statistics.borrowed_tokens) == (0, 0)
    assert limiter._gate.charged == set()
    with anyio.fail_after(1000):
        assert await limiter.run(answer) == 42


class TestRun:
    @pytest.mark.parametrize("result", [42, None, 0, "", ()])
    async def test_returns_what_the_function_returns(self, result: object) -> None:
        async def function() -> object:
            await checkpoint()
            return result

        assert await RateLimiter("5/s").run(function) is result

    async def test_passes_its_arguments_on(self) -> None:
        async def function(*args: object) -> tuple[object, ...]:
            return args

        assert await RateLimiter().run(function) == ()
        assert await RateLimiter().run(function, 1, None, "three") == (1, None, "three")

    async def test_takes_whatever_can_be_called_and_awaited(self) -> None:
        class Client:
            async def fetch(self, page: int) -> int:
                return page

            async def __call__(self) -> int:
                return 42

        def sync() -> Awaitable[int]:
            return answer()

        limiter = RateLimiter("100/s", concurrency=1)
        assert await limiter.run(Client().fetch, 7) == 7
        assert await limiter.run(functools.partial(Client().fetch, page=8)) == 8
        assert await limiter.run(Client()) == 42
        assert await limiter.run(sync) == 42
        assert await limiter.run(lambda: answer()) == 42
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.timing
    async def test_waits_its_turn_before_it_calls(self) -> None:
        limiter = RateLimiter("1/10s")
        service = Service()
        begun = anyio.current_time()
        for name in "abc":
            assert await limiter.run(service.job(name)) == name

        assert service.calls == [("a", begun), ("b", begun + 10), ("c", begun + 20)]

    async def test_charges_its_cost(self) -> None:
        limiter = RateLimiter("10/h")
        await limiter.run(answer, cost=4)
        assert limiter.peek().remaining == 6
        await limiter.run(answer, cost=0)
        assert limiter.peek().remaining == 6
        await limiter.run(answer)
        assert limiter.peek().remaining == 5

    async def test_charges_a_cost_by_units(self) -> None:
        limiter = RateLimiter("10/h", "100 tokens/h")
        await limiter.run(answer, cost={"tokens": 30})
        assert limiter.peek({"tokens": 70}).allowed
        assert not limiter.peek({"tokens": 71}).allowed
        assert limiter.peek({"tokens": 0, "calls": 9}).allowed
        assert not limiter.peek({"tokens": 0, "calls": 10}).allowed

    @pytest.mark.timing
    async def test_goes_by_its_priority(self) -> None:
        limiter = RateLimiter("1/s")
        service = Service()
        await limiter.acquire()
        async with tasks() as task_group:
            for name, priority in [("a", 0), ("b", 1), ("c", -1), ("d", 0)]:
                task_group.start_soon(
                    functools.partial(limiter.run, service.job(name), priority=priority)
                )
                await wait_idle()

        assert service.order == ["c", "a", "d", "b"]

    async def test_holds_a_slot_just_while_the_function_runs(self) -> None:
        limiter = RateLimiter(concurrency=3)

        async def function() -> int:
            before = limiter.statistics().borrowed_tokens
            await checkpoint()
            assert limiter.statistics().borrowed_tokens == before
            return before

        assert await limiter.run(function) == 1
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.timing
    async def test_with_measure_end_the_charge_is_held_while_the_function_runs(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, 10, measure="end"))
        service = Service()
        begun = anyio.current_time()
        async with tasks() as task_group:
            for name in "ab":
                task_group.start_soon(limiter.run, service.job(name, seconds=3))
                await wait_idle()

            assert limiter.statistics().borrowed_tokens == 1

        assert service.calls == [("a", begun), ("b", begun + 13)]

    @pytest.mark.parametrize("error", [ValueError("mine"), KeyError(1), ExceptionGroup("", [OSError()])])
    async def test_other_errors_pass_bare(self, error: Exception) -> None:
        limiter = RateLimiter("5/h", concurrency=1)
        service = Service()
        with pytest.raises(type(error)) as caught:
            await limiter.run(service.job(errors=[error]))

        assert caught.value is error
        assert error.__cause__ is None
        assert not hasattr(error, "__notes__")
        assert len(service.calls) == 1
        assert limiter.peek().remaining == 4
        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)

    async def test_base_exceptions_pass_bare(self) -> None:
        class Stop(BaseException):
            pass

        limiter = RateLimiter(concurrency=1)
        with pytest.raises(Stop):
            await limiter.run(Service().job(errors=[Stop()]))

        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)

    async def test_a_function_that_returns_no_awaitable(self) -> None:
        limiter = RateLimiter("5/h", concurrency=1)
        not_async: Any = lambda: 5  # noqa: E731
        with pytest.raises(TypeError, match=r"returned 5, which cannot be awaited"):
            await limiter.run(not_async)

        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)
        assert limiter.peek().remaining == 4

    async def test_needs_no_limit(self) -> None:
        assert await RateLimiter().run(answer) == 42


class TestBadArguments:
    """They are named before anything is waited for, called or charged."""

    @staticmethod
    async def refused(limiter: RateLimiter, *args: Any, **options: Any) -> str:
        """Return what a call is refused with, in its first step."""
        calls: list[str] = []

        async def function() -> None:
            calls.append("called")

        before = limiter._line.arrivals, limiter.peek({"calls": 1, "tokens": 0})
        coroutine = limiter.run(*(args or (function,)), **options)
        with pytest.raises((TypeError, ValueError)) as caught:
            coroutine.send(None)

        assert calls == []
        assert (limiter._line.arrivals, limiter.peek({"calls": 1, "tokens": 0})) == before
        assert limiter.statistics().tasks_waiting == 0
        return f"{type(caught.value).__name__}: {caught.value}"

    @pytest.fixture
    def limiter(self) -> RateLimiter:
        # Whoever waits here waits for ever.
        limiter = RateLimiter("10/h", "100 tokens/h", concurrency=1)
        limiter.pause(math.inf)
        return limiter

    @pytest.mark.parametrize("func", [None, 5, "fetch", [answer]])
    async def test_func_that_cannot_be_called(self, limiter: RateLimiter, func: Any) -> None:
        message = await self.refused(limiter, func, cost={"tokens": 1})
        assert message == f"TypeError: func must be an async function, not {func!r}"

    async def test_func_that_is_a_coroutine(self, limiter: RateLimiter) -> None:
        coroutine = answer()
        message = await self.refused(limiter, coroutine, cost={"tokens": 1})
        assert message.startswith("TypeError: func must be an async function, not <coroutine")
        coroutine.close()

    @pytest.mark.parametrize(
        ("value", "error"),
        [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), ("2", TypeError)],
    )
    async def test_max_attempts(self, limiter: RateLimiter, value: Any, error: type) -> None:
        message = await self.refused(limiter, cost={"tokens": 1}, max_attempts=value)
        assert message.startswith(f"{error.__name__}: max_attempts ")
        assert repr(value) in message

    @pytest.mark.parametrize("value", [1.5, "1", None, True])
    async def test_priority(self, limiter: RateLimiter, value: Any) -> None:
        message = await self.refused(limiter, cost={"tokens": 1}, priority=value)
        assert message == f"TypeError: priority must be an int, not {value!r}"

    @pytest.mark.parametrize(
        ("cost", "message"),
        [
            (1, "ValueError: .*'calls', 'tokens'"),
            ({}, "ValueError: .*'calls', 'tokens'"),
            ({"tokens": 1, "bytes": 2}, "ValueError: .*'calls', 'tokens'"),
            ({"tokens": -1}, r"ValueError: cost\['tokens'\]"),
            ({"tokens": 1.5}, r"TypeError: cost\['tokens'\]"),
            (-1, "ValueError: cost"),
            (True, "TypeError: cost"),
            (None, "TypeError: cost"),
            ({"tokens": 101}, "CostTooHigh: cost 101 tokens is above the limit of 100"),
        ],
    )
    async def test_cost(self, limiter: RateLimiter, cost: Any, message: str) -> None:
        said = await self.refused(limiter, cost=cost)
        pytest.fail(said) if not _matches(message, said) else None

    async def test_cost_too_high_is_told_at_once(self) -> None:
        limiter = RateLimiter("1/h")
        await limiter.acquire()
        with anyio.fail_after(1), pytest.raises(CostTooHigh):
            await limiter.run(answer, cost=2)


def _matches(pattern: str, text: str) -> bool:
    return pytest.raises(BaseException, match=pattern) is not None and bool(
        __import__("re").match(pattern, text)
    )
