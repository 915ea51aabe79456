"""Which errors are worth another attempt, and when: the arithmetic, without an engine."""

from __future__ import annotations

import random
from math import inf, nan
from typing import Any

import pytest

from anythrottle._engine.retrying import Attempts, RetryOn, back_off


@pytest.fixture
def highest(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Let chance draw the highest value, and note between what it has drawn."""
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    return drawn


def attempts(
    retry_on: RetryOn | None, *, most: int | None = None, timeout: float | None = None
) -> Attempts:
    return Attempts(most, timeout, retry_on)


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
        how = attempts(retry_on)
        assert how.delay_before_next(Odd(), 1, 0) == 1
        assert how.delay_before_next(Odder(), 2, 1) == 2

    @pytest.mark.parametrize("retry_on", [Odder, (Odder,), (KeyError, TypeError), ()])
    def test_no_others(self, retry_on: RetryOn) -> None:
        assert attempts(retry_on).delay_before_next(Odd(), 1, 0) is None

    def test_none_without_retry_on(self) -> None:
        assert attempts(None).delay_before_next(Odd(), 1, 0) is None

    def test_the_bound_grows_with_the_attempts_of_the_job(
        self, highest: list[tuple[float, float]]
    ) -> None:
        how = attempts(Odd)
        assert [how.delay_before_next(Odd(), number, number - 1) for number in (1, 4, 9)] == [
            1,
            8,
            60,
        ]

    @pytest.mark.parametrize("retry_on", [Exception, lambda error: True])
    def test_never_what_is_no_exception(self, retry_on: RetryOn) -> None:
        # A task of the job's own that was cancelled by somebody else, for instance.
        for error in (KeyboardInterrupt(), BaseException(), BaseExceptionGroup("", [SystemExit()])):
            assert attempts(retry_on).delay_before_next(error, 1, 0) is None


class TestGroups:
    @pytest.mark.parametrize("retry_on", [Odd, (KeyError, Odd)])
    def test_one_of_nothing_but_such_errors(
        self, highest: list[tuple[float, float]], retry_on: RetryOn
    ) -> None:
        group = ExceptionGroup("outer", [Odd(), ExceptionGroup("inner", [Odder(), Odd()])])
        assert attempts(retry_on).delay_before_next(group, 1, 0) == 1

    def test_one_with_another_error_deep_inside(self) -> None:
        group = ExceptionGroup("outer", [Odd(), ExceptionGroup("inner", [Odd(), KeyError()])])
        assert attempts(Odd).delay_before_next(group, 1, 0) is None

    def test_one_of_several_types_that_all_count(self) -> None:
        group = ExceptionGroup("", [Odd(), KeyError()])
        assert attempts((Odd, KeyError)).delay_before_next(group, 1, 0) is not None

    def test_one_with_what_is_no_exception(self) -> None:
        group = BaseExceptionGroup("", [Odd(), KeyboardInterrupt()])
        assert attempts(Odd).delay_before_next(group, 1, 0) is None
        assert attempts(Exception).delay_before_next(group, 1, 0) is None

    def test_groups_by_their_own_type(self) -> None:
        group = ExceptionGroup("", [KeyError()])
        assert attempts(ExceptionGroup).delay_before_next(group, 1, 0) is not None
        assert attempts(ExceptionGroup).delay_before_next(KeyError(), 1, 0) is None

    def test_of_no_types_at_all(self) -> None:
        assert attempts(()).delay_before_next(ExceptionGroup("", [Odd()]), 1, 0) is None

    def test_a_function_judges_a_group_as_it_is(self) -> None:
        seen: list[Exception] = []

        def judge(error: Exception) -> bool:
            seen.append(error)
            return False

        group = ExceptionGroup("", [Odd()])
        assert attempts(judge).delay_before_next(group, 1, 0) is None
        assert seen == [group]


class TestFunctions:
    def test_true_for_the_usual_back_off(self, highest: list[tuple[float, float]]) -> None:
        assert attempts(lambda _: True).delay_before_next(Odd(), 3, 2) == 4

    def test_false_for_none(self) -> None:
        assert attempts(lambda _: False).delay_before_next(Odd(), 1, 0) is None

    @pytest.mark.parametrize("seconds", [0, 0.0, 1, 2.5, 10**6])
    def test_the_seconds_after_which_to_go_again(
        self, highest: list[tuple[float, float]], seconds: float
    ) -> None:
        delay = attempts(lambda _: seconds).delay_before_next(Odd(), 5, 4)
        assert delay == seconds
        assert delay is not None
        assert not isinstance(delay, bool)
        assert highest == []

    @pytest.mark.parametrize("answer", [None, "5", [1], 1j])
    def test_what_is_no_number(self, answer: Any) -> None:
        with pytest.raises(TypeError) as caught:
            attempts(lambda _: answer).delay_before_next(Odd(), 1, 0)

        assert (
            str(caught.value)
            == f"what retry_on returns must be a number of seconds, not {answer!r}"
        )

    @pytest.mark.parametrize("answer", [-1, -0.001, nan, inf, -inf])
    def test_what_is_no_duration(self, answer: float) -> None:
        with pytest.raises(ValueError, match=r"^what retry_on returns must be at least 0 and fini"):
            attempts(lambda _: answer).delay_before_next(Odd(), 1, 0)

    def test_its_own_error_is_let_through(self) -> None:
        with pytest.raises(ZeroDivisionError):
            attempts(lambda _: 1 / 0).delay_before_next(Odd(), 1, 0)

    def test_a_class_s_instance_is_a_function_too(self) -> None:
        class Judge:
            def __call__(self, error: Exception) -> float:
                return 7.0

        assert attempts(Judge()).delay_before_next(Odd(), 1, 0) == 7


class TestTheLastAttempt:
    def test_there_are_no_more_than_the_most(self) -> None:
        how = attempts(Odd, most=3)
        assert how.delay_before_next(Odd(), 2, 1) is not None
        for number in (3, 4):
            error = Odd()
            assert how.delay_before_next(error, number, number - 1) is None
            assert error.__notes__ == [f"It was the last of {number} attempts."]

    def test_an_error_that_would_not_be_tried_again_has_no_note(self) -> None:
        error = KeyError()
        assert attempts(Odd, most=1).delay_before_next(error, 1, 0) is None
        assert not hasattr(error, "__notes__")

    def test_without_a_bound_there_is_no_last(self) -> None:
        error = Odd()
        assert attempts(Odd).delay_before_next(error, 10**9, 10**9 - 1) is not None
        assert not hasattr(error, "__notes__")


class TestBadInput:
    @pytest.mark.parametrize("most", [True, 1.0, "3", inf])
    def test_most_attempts_of_the_wrong_type(self, most: Any) -> None:
        with pytest.raises(TypeError, match=r"^max_attempts must be an int, not "):
            attempts(None, most=most)

    @pytest.mark.parametrize("most", [0, -1])
    def test_most_attempts_out_of_range(self, most: int) -> None:
        with pytest.raises(ValueError, match=rf"^max_attempts must be at least 1, not {most}$"):
            attempts(None, most=most)

    @pytest.mark.parametrize("timeout", ["1", True, [1]])
    def test_timeouts_of_the_wrong_type(self, timeout: Any) -> None:
        with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, not "):
            attempts(None, timeout=timeout)

    @pytest.mark.parametrize("timeout", [0, -1, nan, inf])
    def test_timeouts_out_of_range(self, timeout: float) -> None:
        with pytest.raises(ValueError, match=r"^timeout must be above 0 and finite, in seconds"):
            attempts(None, timeout=timeout)

    @pytest.mark.parametrize(
        "retry_on",
        [
            5,
            True,
            "ValueError",
            [ValueError],
            int,
            BaseException,
            KeyboardInterrupt,
            (ValueError, int),
            (ValueError, SystemExit),
            (ValueError, None),
            (ValueError, (KeyError,)),
            (len,),
            ValueError("an instance"),
        ],
        ids=repr,
    )
    def test_what_tells_no_errors(self, retry_on: Any) -> None:
        with pytest.raises(TypeError) as caught:
            attempts(retry_on)

        assert str(caught.value) == (
            f"retry_on must be a type of Exception, a tuple of such types, or a function of an "
            f"error, not {retry_on!r}"
        )

    def test_what_is_kept(self) -> None:
        how = attempts(Odd, most=3, timeout=2)
        assert (how.most, how.timeout) == (3, 2.0)
        assert (attempts(None).most, attempts(None).timeout) == (inf, None)
