"""The checks of arguments."""

import math

import pytest

from anythrottle._policies.checks import check_count, check_seconds


class TestCheckCount:
    @pytest.mark.parametrize("value", [1, 2, 10**100])
    def test_returns_a_count(self, value: int) -> None:
        assert check_count("cost", value) == value

    @pytest.mark.parametrize("value", [True, False, 1.0, 1.5, "1", None, math.nan, [1]])
    def test_refuses_what_is_no_int(self, value: object) -> None:
        with pytest.raises(TypeError) as raised:
            check_count("cost", value)

        assert str(raised.value) == f"cost must be an int, not {value!r}"

    @pytest.mark.parametrize("value", [0, -1, -(10**100)])
    def test_refuses_what_is_below_1(self, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^cost must be at least 1, not {value}$"):
            check_count("cost", value)

    def test_another_least(self) -> None:
        assert check_count("cost", 0, least=0) == 0
        with pytest.raises(ValueError, match=r"^cost must be at least 0, not -1$"):
            check_count("cost", -1, least=0)


class TestCheckSeconds:
    @pytest.mark.parametrize("value", [1, 0.5, 5e-324, 1e308, 2**1023])
    def test_returns_a_float(self, value: float) -> None:
        seconds = check_seconds("window", value)
        assert seconds == value
        assert type(seconds) is float

    @pytest.mark.parametrize("value", [True, False, "1", None, 1j])
    def test_refuses_what_is_no_number(self, value: object) -> None:
        with pytest.raises(TypeError) as raised:
            check_seconds("window", value)

        assert str(raised.value) == f"window must be a number of seconds, not {value!r}"

    @pytest.mark.parametrize(
        "value", [0, 0.0, -0.0, -1, -5e-324, math.nan, math.inf, -math.inf, -(10**400)]
    )
    def test_refuses_what_is_out_of_range(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"^window must be above 0 and finite, in") as raised:
            check_seconds("window", value)

        assert repr(value) in str(raised.value)

    def test_refuses_an_int_beyond_any_float(self) -> None:
        with pytest.raises(ValueError, match=r"^window must be above 0 and finite"):
            check_seconds("window", 10**400)

    def test_zero_and_infinity_where_they_are_allowed(self) -> None:
        assert check_seconds("pause", 0, zero=True) == 0.0
        assert check_seconds("pause", math.inf, infinite=True) == math.inf
        assert check_seconds("pause", 10**400, infinite=True) == math.inf
        with pytest.raises(ValueError, match=r"^pause must be at least 0 and finite, in seconds"):
            check_seconds("pause", math.inf, zero=True)

        with pytest.raises(ValueError, match=r"^pause must be above 0, in seconds, not 0"):
            check_seconds("pause", 0, infinite=True)

        for value in (math.nan, -1.0, -math.inf):
            with pytest.raises(ValueError, match=r"^pause must be at least 0, in seconds, not"):
                check_seconds("pause", value, zero=True, infinite=True)
