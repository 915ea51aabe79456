"""Errands, and the plain functions around them."""

import gc
import inspect
import warnings
from collections.abc import Generator

import pytest

from anythrottle import ThrottleException
from anythrottle._engine.job import Errand, JobOf, check_job, discard, throttles_in


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


@pytest.mark.parametrize("job", [None, 0, "job", [answer], {}])
def test_check_job_refuses_and_names(job: object) -> None:
    with pytest.raises(TypeError, match=r"^jobs\[3\] must be an async function .* not "):
        check_job(job, "jobs[3]")


def test_check_job_accepts() -> None:
    coroutine = answer()
    jobs: list[JobOf[int]] = [answer, coroutine, Awaitable42(), AsyncCallable()]
    for job in jobs:
        check_job(job, "job")

    coroutine.close()


class TestDiscard:
    def test_a_coroutine_that_was_never_awaited_complains_no_more(self) -> None:
        coroutine = answer()
        discard(coroutine)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del coroutine
            gc.collect()

    @pytest.mark.parametrize("other", [answer, None, 42, Awaitable42()])
    def test_leaves_anything_else_alone(self, other: object) -> None:
        discard(other)

    async def test_leaves_one_that_has_begun_alone(self) -> None:
        log: list[str] = []

        async def outer() -> None:
            discard(inner)
            log.append("went on")

        inner = outer()
        await inner
        assert log == ["went on"]


class TestThrottlesIn:
    def test_a_signal(self) -> None:
        signal = ThrottleException()
        assert throttles_in(signal) == ([signal], True)

    def test_another_error(self) -> None:
        assert throttles_in(ValueError()) == ([], False)

    def test_a_pure_group_nested(self) -> None:
        signals = [ThrottleException() for _ in range(3)]
        group = ExceptionGroup("", [signals[0], ExceptionGroup("", signals[1:])])
        assert throttles_in(group) == (signals, True)

    def test_a_mixed_group(self) -> None:
        signal = ThrottleException()
        group = ExceptionGroup("", [ExceptionGroup("", [ValueError()]), signal])
        assert throttles_in(group) == ([signal], False)

    def test_a_group_with_other_base_exceptions(self) -> None:
        signal = ThrottleException()
        group = BaseExceptionGroup("", [signal, KeyboardInterrupt()])
        assert throttles_in(group) == ([signal], False)
