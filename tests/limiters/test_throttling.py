"""Jobs, and what an error says of throttling."""

import gc
import inspect
import warnings
from collections.abc import Generator

import pytest

from anythrottle import ThrottleException
from anythrottle._jobs import JobOf, awaitable_of, check_job, discard
from anythrottle._limiters.throttling import Throttle, go_again, throttle_in


async def answer() -> int:
    return 42


class Awaitable42:
    def __await__(self) -> Generator[None, None, int]:
        return answer().__await__()


class AsyncCallable:
    async def __call__(self) -> int:
        return 42


@pytest.mark.parametrize("job", [None, 0, "job", [answer], {}])
def test_check_job_refuses_and_names(job: object) -> None:
    with pytest.raises(TypeError, match=r"^jobs\[3\] must be an async function .* not ") as caught:
        check_job(job, "jobs[3]")  # type: ignore[arg-type]

    assert str(caught.value).endswith("; to call one function with each item, pass it as func=")


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


class TestThrottleIn:
    def test_a_signal(self) -> None:
        assert throttle_in(ThrottleException()) == Throttle(None, [], True)
        assert throttle_in(ThrottleException(answer, retry_after=5)) == Throttle(5, [answer], True)

    def test_another_error(self) -> None:
        assert throttle_in(ValueError()) is None
        assert throttle_in(ExceptionGroup("", [ValueError()])) is None

    def test_a_pure_group_nested(self) -> None:
        other = AsyncCallable()
        signals = [
            ThrottleException(retry_after=3),
            ThrottleException(other),
            ThrottleException(answer, retry_after=7),
        ]
        group = ExceptionGroup("", [signals[0], ExceptionGroup("", signals[1:])])
        assert throttle_in(group) == Throttle(7, [other, answer], True)

    def test_a_mixed_group(self) -> None:
        signal = ThrottleException(retry_after=2)
        group = ExceptionGroup("", [ExceptionGroup("", [ValueError()]), signal])
        assert throttle_in(group) == Throttle(2, [], False)

    def test_a_group_with_other_base_exceptions(self) -> None:
        group = BaseExceptionGroup("", [ThrottleException(), KeyboardInterrupt()])
        assert throttle_in(group) == Throttle(None, [], False)


class TestGoAgain:
    ERROR = ThrottleException()

    def test_the_same_job(self) -> None:
        assert go_again(Throttle(None, [], True), self.ERROR, answer, 1, 2) is answer

    def test_the_first_replacement_and_the_others_are_closed(self) -> None:
        first, second = answer(), answer()
        throttle = Throttle(None, [first, second], True)
        assert go_again(throttle, self.ERROR, answer, 1, 2) is first
        assert inspect.getcoroutinestate(first) == inspect.CORO_CREATED
        assert inspect.getcoroutinestate(second) == inspect.CORO_CLOSED
        first.close()

    def test_a_replacement_that_is_named_twice_is_not_closed(self) -> None:
        replacement = answer()
        throttle = Throttle(None, [replacement, replacement], True)
        assert go_again(throttle, self.ERROR, answer, 1, 2) is replacement
        assert inspect.getcoroutinestate(replacement) == inspect.CORO_CREATED
        replacement.close()

    def test_no_more_attempts(self) -> None:
        error = ThrottleException()
        replacement = answer()
        throttle = Throttle(None, [replacement], True)
        assert go_again(throttle, error, answer, 2, 2) is None
        assert error.__notes__ == ["It was throttled 2 times; no retry_after was given."]
        assert inspect.getcoroutinestate(replacement) == inspect.CORO_CLOSED

    def test_an_awaitable_cannot_run_again(self) -> None:
        error = ThrottleException()
        assert go_again(Throttle(None, [], True), error, Awaitable42(), 1, 2) is None
        assert "pass a callable" in error.__notes__[0]

    def test_a_mixed_error_is_one(self) -> None:
        replacement = answer()
        throttle = Throttle(None, [replacement], False)
        assert go_again(throttle, self.ERROR, answer, 1, 2) is None
        assert inspect.getcoroutinestate(replacement) == inspect.CORO_CLOSED


def test_awaitable_of_names_what_is_none() -> None:
    with pytest.raises(TypeError, match=r"^the function, <.*>, returned 5, which cannot be"):
        awaitable_of(lambda: 5, "the function")  # type: ignore[arg-type, return-value, unused-awaitable]
