"""Errands, and the plain functions around them."""

from collections.abc import Generator

import pytest

from anythrottle._engine.job import Errand


async def answer() -> int:
    return 42


class Awaitable42:
    def __await__(self) -> Generator[None, None, int]:
        return answer().__await__()


class AsyncCallable:
    async def __call__(self) -> int:
        return 42


class TestAttempt:
    @pytest.mark.parametrize(
        "make", [lambda: answer, answer, Awaitable42, AsyncCallable, lambda: Awaitable42]
    )
    async def test_calls_or_awaits(self, make: object) -> None:
        assert callable(make)
        errand: Errand[int] = Errand(make())
        assert await errand.attempt() == 42

    async def test_a_callable_can_be_attempted_again(self) -> None:
        errand = Errand(answer)
        assert [await errand.attempt(), await errand.attempt()] == [42, 42]

    async def test_a_callable_that_returns_no_awaitable(self) -> None:
        errand: Errand[int] = Errand(lambda: 42, 7)  # type: ignore[arg-type, return-value]
        with pytest.raises(TypeError, match=r"job 7, <function .*>, returned 42, .*async function"):
            await errand.attempt()

    async def test_a_sync_generator_is_no_awaitable(self) -> None:
        errand: Errand[int] = Errand(lambda: iter([1]), 0)  # type: ignore[arg-type, return-value]
        with pytest.raises(TypeError, match="cannot be awaited"):
            await errand.attempt()


def test_outcome_tells_all_that_is_known() -> None:
    errand = Errand(answer, 5)
    errand.attempts, errand.waited, errand.duration = 2, 1.5, 0.25
    error = ValueError()
    outcome = errand.outcome(error)
    assert (outcome.index, outcome.item, outcome.error) == (5, answer, error)
    assert (outcome.attempts, outcome.waited, outcome.duration) == (2, 1.5, 0.25)
