"""Which errors are worth another attempt, and when: the arithmetic, without an engine."""

from __future__ import annotations

import random
from functools import partial
from math import inf, nan
from typing import Any

import pytest

from anythrottle import Attempts
from anythrottle._engine.attempts import RetryOn
from anythrottle._engine.retrying import back_off, delay_before_next


@pytest.fixture
def highest(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Let chance draw the highest value, and note between what it has drawn."""
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    return drawn


class Retrying:
    """The decisions under one choice of attempts."""

    def __init__(self, attempts: Attempts) -> None:
        self.delay_before_next = partial(delay_before_next, attempts)


def retrying(retry_on: RetryOn | None, *, most: int | None = None) -> Retrying:
    return Retrying(Attempts(most, retry_on=retry_on))


class Odd(Exception):
    """An error of a type of its own."""


class Odder(Odd):
    """An error of a subtype."""


class TestBackOff:
    def test_the_bound_doubles_from_a_second_to_a_minute(
        self, highest: list[tuple[float, float]]
    ) -> None:
        bounds = [back_off(number) for number in range(1, 10)]
        assert bounds == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert [low for low, _ in highest] == [0] * 9

    @pytest.mark.parametrize("number", [1000, 1024, 1025, 1100, 10**6, 10**30])
    def test_any_number_of_attempts(self, highest: list[tuple[float, float]], number: int) -> None:
        assert back_off(number) == 60

    def test_it_is_spread_evenly_over_all_below_the_bound(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(random, "uniform", random.Random(1).uniform)  # noqa: S311
        drawn = sorted(back_off(3) for _ in range(2000))
        assert 0 <= drawn[0] < 0.1
        assert 3.9 < drawn[-1] <= 4
        for quarter in (1, 2, 3):
            assert abs(drawn[500 * quarter] - quarter) < 0.25

    def test_two_jobs_that_fail_together_do_not_come_back_together(self) -> None:
        assert len({back_off(1) for _ in range(10)}) > 1


class TestTypes:
    @pytest.mark.parametrize("retry_on", [Odd, (Odd,), (KeyError, Odd), Exception])
    def test_those_of_the_type_and_of_its_subtypes(
        self, highest: list[tuple[float, float]], retry_on: RetryOn
    ) -> None:
        how = retrying(retry_on)
        assert how.delay_before_next(Odd(), 1) == 1
        assert how.delay_before_next(Odder(), 2) == 2

    @pytest.mark.parametrize("retry_on", [Odder, (Odder,), (KeyError, TypeError), ()])
    def test_no_others(self, retry_on: RetryOn) -> None:
        assert retrying(retry_on).delay_before_next(Odd(), 1) is None

    def test_none_without_retry_on(self) -> None:
        assert retrying(None).delay_before_next(Odd(), 1) is None

    def test_the_bound_grows_with_the_attempts_of_the_job(
        self, highest: list[tuple[float, float]]
    ) -> None:
        how = retrying(Odd)
        assert [how.delay_before_next(Odd(), number) for number in (1, 4, 9)] == [
            1,
            8,
            60,
        ]

    @pytest.mark.parametrize("retry_on", [Exception, lambda error: True])
    def test_never_what_is_no_exception(self, retry_on: RetryOn) -> None:
        # A task of the job's own that was cancelled by other code, for instance.
        for error in (KeyboardInterrupt(), BaseException(), BaseExceptionGroup("", [SystemExit()])):
            assert retrying(retry_on).delay_before_next(error, 1) is None


class TestGroups:
    @pytest.mark.parametrize("retry_on", [Odd, (KeyError, Odd)])
    def test_one_of_nothing_but_such_errors(
        self, highest: list[tuple[float, float]], retry_on: RetryOn
    ) -> None:
        group = ExceptionGroup("outer", [Odd(), ExceptionGroup("inner", [Odder(), Odd()])])
        assert retrying(retry_on).delay_before_next(group, 1) == 1

    def test_one_with_another_error_deep_inside(self) -> None:
        group = ExceptionGroup("outer", [Odd(), ExceptionGroup("inner", [Odd(), KeyError()])])
        assert retrying(Odd).delay_before_next(group, 1) is None

    def test_one_of_several_types_that_all_count(self) -> None:
        group = ExceptionGroup("", [Odd(), KeyError()])
        assert retrying((Odd, KeyError)).delay_before_next(group, 1) is not None

    def test_one_with_what_is_no_exception(self) -> None:
        group = BaseExceptionGroup("", [Odd(), KeyboardInterrupt()])
        assert retrying(Odd).delay_before_next(group, 1) is None
        assert retrying(Exception).delay_before_next(group, 1) is None

    def test_groups_by_their_own_type(self) -> None:
        group = ExceptionGroup("", [KeyError()])
        assert retrying(ExceptionGroup).delay_before_next(group, 1) is not None
        assert retrying(ExceptionGroup).delay_before_next(KeyError(), 1) is None

    def test_of_no_types_at_all(self) -> None:
        assert retrying(()).delay_before_next(ExceptionGroup("", [Odd()]), 1) is None

    def test_a_function_judges_a_group_as_it_is(self) -> None:
        seen: list[Exception] = []

        def judge(error: Exception) -> bool:
            seen.append(error)
            return False

        group = ExceptionGroup("", [Odd()])
        assert retrying(judge).delay_before_next(group, 1) is None
        assert seen == [group]


class TestFunctions:
    def test_true_for_the_usual_back_off(self, highest: list[tuple[float, float]]) -> None:
        assert retrying(lambda _: True).delay_before_next(Odd(), 3) == 4

    def test_false_for_none(self) -> None:
        assert retrying(lambda _: False).delay_before_next(Odd(), 1) is None

    @pytest.mark.parametrize("seconds", [0, 0.0, 1, 2.5, 10**6])
    def test_the_seconds_after_which_to_go_again(
        self, highest: list[tuple[float, float]], seconds: float
    ) -> None:
        delay = retrying(lambda _: seconds).delay_before_next(Odd(), 5)
        assert delay == seconds
        assert delay is not None
        assert not isinstance(delay, bool)
        assert highest == []

    @pytest.mark.parametrize("answer", [None, "5", [1], 1j])
    def test_what_is_no_number(self, answer: Any) -> None:
        with pytest.raises(TypeError) as caught:
            retrying(lambda _: answer).delay_before_next(Odd(), 1)

        assert (
            str(caught.value)
            == f"what retry_on returns must be a number of seconds, not {answer!r}"
        )

    @pytest.mark.parametrize("answer", [-1, -0.001, nan, inf, -inf])
    def test_what_is_no_duration(self, answer: float) -> None:
        with pytest.raises(ValueError, match=r"^what retry_on returns must be at least 0 and fini"):
            retrying(lambda _: answer).delay_before_next(Odd(), 1)

    def test_its_own_error_is_let_through(self) -> None:
        with pytest.raises(ZeroDivisionError):
            retrying(lambda _: 1 / 0).delay_before_next(Odd(), 1)

    def test_a_class_s_instance_is_a_function_too(self) -> None:
        class Judge:
            def __call__(self, error: Exception) -> float:
                return 7.0

        assert retrying(Judge()).delay_before_next(Odd(), 1) == 7


class TestTheLastAttempt:
    def test_there_are_no_more_than_the_most(self) -> None:
        how = retrying(Odd, most=3)
        assert how.delay_before_next(Odd(), 2) is not None
        for number in (3, 4):
            error = Odd()
            assert how.delay_before_next(error, number) is None
            assert error.__notes__ == [f"It was the last of {number} attempts."]

    def test_the_only_one(self) -> None:
        error = Odd()
        assert retrying(Odd, most=1).delay_before_next(error, 1) is None
        assert error.__notes__ == ["It was the last of 1 attempt."]

    def test_an_error_that_would_not_be_tried_again_has_no_note(self) -> None:
        error = KeyError()
        assert retrying(Odd, most=1).delay_before_next(error, 1) is None
        assert not hasattr(error, "__notes__")

    def test_without_a_bound_there_is_no_last(self) -> None:
        error = Odd()
        assert retrying(Odd).delay_before_next(error, 10**9) is not None
        assert not hasattr(error, "__notes__")


class TestThrottles:
    def test_they_do_not_bound_errors(self, highest: list[tuple[float, float]]) -> None:
        how = Retrying(Attempts(max_throttles=1, retry_on=Odd))
        assert how.delay_before_next(Odd(), 10) == 60
