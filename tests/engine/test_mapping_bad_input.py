"""Bad input for `amap` and its kin: a clear error, at once, and nothing pulled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf, nan
from typing import Any

import anyio
import pytest

from anythrottle import Attempts, CostTooHigh, RateLimiter, amap, amap_outcomes, first, for_each
from tests.engine.calls import Calls, Pulled

pytestmark = pytest.mark.timing


async def outcomes(*args: Any, **options: Any) -> None:
    # It is the call that raises, not the entering.
    amap_outcomes(*args, **options)


FUNCTIONS: list[Callable[..., Awaitable[object]]] = [amap, for_each, first, outcomes]


@pytest.fixture(params=FUNCTIONS, ids=lambda function: function.__name__)
def function(request: pytest.FixtureRequest) -> Callable[..., Awaitable[object]]:
    chosen: Callable[..., Awaitable[object]] = request.param
    return chosen


async def refuses(
    function: Callable[..., Awaitable[object]],
    error: type[Exception],
    message: str,
    **options: Any,
) -> None:
    """Check that an error is raised at once, with nothing pulled, called or waited for."""
    pulled, calls = Pulled(range(3)), Calls()
    with pytest.raises(error, match=message):
        await function(calls, pulled.generator(), **options)

    assert pulled.items == calls.starts == []
    assert anyio.current_time() == 0


class TestTypes:
    @pytest.mark.parametrize("func", [None, 1, "func", []])
    async def test_func(self, function: Callable[..., Awaitable[object]], func: object) -> None:
        with pytest.raises(TypeError, match=r"^func must be an async function of one argument"):
            await function(func, [1])

    async def test_func_that_was_called_already(
        self, function: Callable[..., Awaitable[object]]
    ) -> None:
        coroutine = anyio.sleep(0)
        with pytest.raises(TypeError, match=r"^func must be an async function of one argument"):
            await function(coroutine, [1])

        coroutine.close()

    @pytest.mark.parametrize("items", [None, 5, len])
    async def test_items(self, function: Callable[..., Awaitable[object]], items: object) -> None:
        with pytest.raises(TypeError, match=r"^items must be an iterable or an async iterable"):
            await function(Calls(), items)

    @pytest.mark.parametrize("limiter", [5, object(), RateLimiter, True, b"5/s"])
    async def test_limiter(
        self, function: Callable[..., Awaitable[object]], limiter: object
    ) -> None:
        await refuses(function, TypeError, "^limiter must be a limiter or a text", limiter=limiter)

    @pytest.mark.parametrize("value", [1.5, True, "5", nan, inf, [1], anyio.Semaphore])
    async def test_concurrency(
        self, function: Callable[..., Awaitable[object]], value: object
    ) -> None:
        message = "^concurrency must be an int or a CapacityLimiter, not "
        await refuses(function, TypeError, message, concurrency=value)

    @pytest.mark.parametrize("value", [3, "5", OSError, Attempts, {"max_attempts": 3}])
    async def test_attempts(
        self, function: Callable[..., Awaitable[object]], value: object
    ) -> None:
        await refuses(function, TypeError, "^attempts must be an Attempts, such", attempts=value)

    @pytest.mark.parametrize("value", [1.5, "5", nan, [1], None])
    async def test_cost(self, function: Callable[..., Awaitable[object]], value: object) -> None:
        await refuses(function, TypeError, "cost", cost=value, limiter="5/s")

    @pytest.mark.parametrize("value", [1, "print", []])
    async def test_observer(
        self, function: Callable[..., Awaitable[object]], value: object
    ) -> None:
        await refuses(function, TypeError, "^observer must be", observer=value)

    async def test_parameters_that_do_not_exist(
        self, function: Callable[..., Awaitable[object]]
    ) -> None:
        await refuses(function, TypeError, "time_window", time_window=5)
        for name in ("max_attempts", "retry_on", "timeout"):
            await refuses(function, TypeError, name, **{name: None})


class TestRanges:
    @pytest.mark.parametrize("value", [0, -1])
    async def test_concurrency(
        self, function: Callable[..., Awaitable[object]], value: int
    ) -> None:
        message = f"^concurrency must be at least 1, not {value}$"
        await refuses(function, ValueError, message, concurrency=value)

    @pytest.mark.parametrize("text", ["20 in 10s", "0/s", "20/0s", ""])
    async def test_limiter(self, function: Callable[..., Awaitable[object]], text: str) -> None:
        await refuses(function, ValueError, repr(text), limiter=text)

    @pytest.mark.parametrize("limiter", ["5/s", RateLimiter("5/s"), None])
    async def test_cost_below_0(
        self, function: Callable[..., Awaitable[object]], limiter: RateLimiter | str | None
    ) -> None:
        await refuses(function, ValueError, "cost", cost=-1, limiter=limiter)

    async def test_cost_too_high(self, function: Callable[..., Awaitable[object]]) -> None:
        await refuses(function, CostTooHigh, "^cost 6 ", cost=6, limiter="5/s")
        limiter = RateLimiter("5/s", "10 tokens/s")
        await refuses(function, CostTooHigh, "^cost 11 ", cost={"tokens": 11}, limiter=limiter)

    async def test_cost_of_an_unknown_unit(
        self, function: Callable[..., Awaitable[object]]
    ) -> None:
        await refuses(function, ValueError, "no such unit", cost={"no such unit": 1}, limiter="5/s")
