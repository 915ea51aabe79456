"""What becomes of an attempt that says something wrong."""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from math import nan
from typing import Any

import anyio
import pytest

from anythrottle import RateLimiter, ThrottleException, Throttler, amap, amap_outcomes

pytestmark = pytest.mark.timing


class Wrong(ThrottleException):
    """One that has not let its constructor check what it says."""

    def __init__(self, retry_after: object, task: Any = None) -> None:
        super().__init__(task)
        self.says = retry_after

    @property
    def retry_after(self) -> Any:
        if isinstance(self.says, BaseException):
            raise self.says

        return self.says

    @retry_after.setter
    def retry_after(self, value: object) -> None:
        pass


Call = Callable[[int], Awaitable[int]]


async def by_throttler(call: Call, limiter: RateLimiter) -> list[object]:
    found: list[object] = []

    async def consume(result: int) -> None:
        found.append(result)

    jobs = [lambda item=item: call(item) for item in range(3)]
    throttler = Throttler(jobs, consume, limiter=limiter)
    await throttler.run()
    return [*found, *[outcome.error async for outcome in throttler.exceptions]]


async def by_outcomes(call: Call, limiter: RateLimiter) -> list[object]:
    async with amap_outcomes(call, range(3), limiter=limiter) as outcomes:
        found = [outcome async for outcome in outcomes]

    values: list[object] = [outcome.value for outcome in found if outcome.error is None]
    return [*values, *[outcome.error for outcome in found if outcome.error is not None]]


async def by_limiter(call: Call, limiter: RateLimiter) -> list[object]:
    values: list[object] = []
    errors: list[object] = []
    for item in range(3):
        try:
            values.append(await limiter.run(call, item))
        except BaseException as exc:  # noqa: BLE001
            errors.append(exc)

    return values + errors


WAYS: list[Callable[[Call, RateLimiter], Coroutine[Any, Any, list[object]]]] = [
    by_throttler,
    by_outcomes,
    by_limiter,
]


@pytest.mark.parametrize("way", WAYS)
class TestAWrongRetryAfter:
    @pytest.mark.parametrize(
        "wrong", [-1, nan, True, b"soon", b"-1", KeyError(7), CancelledError()]
    )
    @pytest.mark.parametrize("in_group", [False, True])
    async def test_is_the_error_of_its_job_alone(
        self, way: Any, wrong: object, in_group: bool
    ) -> None:
        async def answer() -> int:
            raise AssertionError

        replacements = [answer(), answer()]

        async def call(item: int) -> int:
            if item != 1:
                return item

            error: Exception = Wrong(wrong, replacements[0])
            if in_group:
                right = ThrottleException(replacements[1], retry_after=60)
                error = ExceptionGroup("", [error, ExceptionGroup("", [right])])

            raise error

        limiter = RateLimiter("10/s", concurrency=1)
        with anyio.fail_after(10):
            first, second, error = await way(call, limiter)

        assert (first, second) == (0, 2)
        if isinstance(wrong, BaseException):
            assert error is wrong
        else:
            assert isinstance(error, TypeError | ValueError)
            assert str(error).startswith("retry_after must be ")
            assert str(error).endswith(f"not {wrong!r}")

        # It is not clear for how long, so there is no pause.
        assert anyio.current_time() == 0
        assert limiter.statistics().borrowed_tokens == 0
        if not in_group:
            replacements.pop().close()

        states = [inspect.getcoroutinestate(replacement) for replacement in replacements]
        assert set(states) == {inspect.CORO_CLOSED}


async def test_amap_raises_it_bare() -> None:
    async def call(item: int) -> None:
        raise Wrong(-1)

    with pytest.raises(ValueError, match=r"retry_after must be at least 0.*not -1") as caught:
        await amap(call, range(3))

    assert isinstance(caught.value.__cause__, Wrong)
