"""How often a job is tried: the value, and what it refuses."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from math import inf, nan
from typing import Any

import pytest

from anythrottle import Attempts


class TestTheValue:
    def test_what_is_kept(self) -> None:
        attempts = Attempts(3, max_throttles=5, retry_on=OSError, timeout=2)
        assert attempts.max_attempts == 3
        assert attempts.max_throttles == 5
        assert attempts.retry_on is OSError
        assert attempts.timeout == 2

    def test_by_default_nothing_bounds_or_is_tried_again(self) -> None:
        attempts = Attempts()
        assert attempts.max_attempts is attempts.max_throttles is None
        assert attempts.retry_on is None
        assert attempts.timeout is None

    def test_only_the_first_parameter_goes_without_its_name(self) -> None:
        with pytest.raises(TypeError):
            Attempts(3, 5, retry_on=OSError)  # type: ignore[call-arg]

    def test_it_is_frozen(self) -> None:
        attempts = Attempts()
        with pytest.raises(FrozenInstanceError):
            attempts.timeout = 5  # type: ignore[misc]

    def test_two_of_the_same_are_equal(self) -> None:
        attempts = Attempts(3, retry_on=OSError)
        assert attempts == Attempts(3, retry_on=OSError)
        assert hash(attempts) == hash(Attempts(3, retry_on=OSError))
        assert attempts != Attempts(3, retry_on=ValueError)
        assert pickle.loads(pickle.dumps(attempts)) == attempts  # noqa: S301 - our own

    def test_its_description_makes_another(self) -> None:
        text = "Attempts(max_attempts=3, max_throttles=None, retry_on=<class 'OSError'>, timeout=5)"
        assert repr(Attempts(3, retry_on=OSError, timeout=5)) == text

    def test_a_function_is_not_bound_to_it(self) -> None:
        def judge(error: Exception) -> bool:
            return True

        assert Attempts(retry_on=judge).retry_on is judge


class TestNothingToTryAgain:
    @pytest.mark.parametrize("options", [{}, {"timeout": 5}, {"max_throttles": 5}])
    def test_a_bound_of_attempts_needs_errors_to_try_again_after(self, options: Any) -> None:
        with pytest.raises(ValueError, match=r"^max_attempts=3 needs a retry_on, such as"):
            Attempts(3, **options)

    @pytest.mark.parametrize("retry_on", [OSError, (OSError,), (), lambda error: False])
    def test_which_may_be_any(self, retry_on: Any) -> None:
        assert Attempts(1, retry_on=retry_on).max_attempts == 1


class TestBadInput:
    @pytest.mark.parametrize("name", ["max_attempts", "max_throttles"])
    @pytest.mark.parametrize("value", [True, 1.0, "3", inf, [1]])
    def test_counts_of_the_wrong_type(self, name: str, value: Any) -> None:
        with pytest.raises(TypeError, match=rf"^{name} must be an int, not "):
            Attempts(**{name: value})

    @pytest.mark.parametrize("name", ["max_attempts", "max_throttles"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_counts_out_of_range(self, name: str, value: int) -> None:
        options: Any = {name: value}
        with pytest.raises(ValueError, match=rf"^{name} must be at least 1, not {value}$"):
            Attempts(retry_on=OSError, **options)

    @pytest.mark.parametrize("timeout", ["1", True, [1]])
    def test_timeouts_of_the_wrong_type(self, timeout: Any) -> None:
        with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, not "):
            Attempts(timeout=timeout)

    @pytest.mark.parametrize("timeout", [0, -1, nan, inf])
    def test_timeouts_out_of_range(self, timeout: float) -> None:
        with pytest.raises(ValueError, match=r"^timeout must be above 0 and finite, in seconds"):
            Attempts(timeout=timeout)

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
            Attempts(retry_on=retry_on)

        assert str(caught.value) == (
            f"retry_on must be a type of Exception, a tuple of such types, or a function of an "
            f"error, not {retry_on!r}"
        )
