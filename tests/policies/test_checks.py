"""The checks of arguments."""

import math

import pytest

from anythrottle._policies.checks import (
    check_amount,
    check_count,
    check_offset,
    check_seconds,
    check_unit,
)


class TestCheckCount:
    @pytest.mark.parametrize("value", [1, 2, 10**100])
    def test_returns_a_count(self, value: int) -> None:
        assert check_count("cost", value) == value

    @pytest.mark.parametrize("value", [True, False, 1.0, 1.5, "1", None, math.nan, [1]])
    def test_refuses_what_is_no_int(self, value: object) -> None:
        with pytest.raises(TypeError) as raised:
            check_count("cost", value)

        assert str(raised.value) == f"cost must be an int, not {value!r}"

    def test_says_what_else_it_could_have_been(self) -> None:
        with pytest.raises(TypeError, match=r"^cost must be an int or infinity, not 1\.5$"):
            check_count("cost", 1.5, or_else="infinity")

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


class TestCheckOffset:
    @pytest.mark.parametrize("value", [0, -1, 0.5, -1e308, 2**1023])
    def test_returns_a_float(self, value: float) -> None:
        seconds = check_offset("offset", value)
        assert seconds == value
        assert type(seconds) is float

    @pytest.mark.parametrize("value", [True, False, "1", None, 1j])
    def test_refuses_what_is_no_number(self, value: object) -> None:
        with pytest.raises(TypeError) as raised:
            check_offset("offset", value)

        assert str(raised.value) == f"offset must be a number of seconds, not {value!r}"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)])
    def test_refuses_what_is_not_finite(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"^offset must be finite, in seconds, not") as raised:
            check_offset("offset", value)

        assert repr(value) in str(raised.value)


class TestCheckAmount:
    @pytest.mark.parametrize("value", [1, 0.5, 5e-324, 1e308, 2**1023])
    def test_returns_a_float(self, value: float) -> None:
        amount = check_amount("limit", value)
        assert amount == value
        assert type(amount) is float

    @pytest.mark.parametrize("value", [True, False, "1", None, 1j])
    def test_refuses_what_is_no_number(self, value: object) -> None:
        with pytest.raises(TypeError) as raised:
            check_amount("limit", value)

        assert str(raised.value) == f"limit must be a number, not {value!r}"

    @pytest.mark.parametrize(
        "value", [0, 0.0, -0.0, -1, -5e-324, math.nan, math.inf, -math.inf, 10**400, -(10**400)]
    )
    def test_refuses_what_is_out_of_range(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"^limit must be above 0 and finite, not") as raised:
            check_amount("limit", value)

        assert repr(value) in str(raised.value)

    def test_a_least_amount(self) -> None:
        assert check_amount("burst", 1, least=1) == 1.0
        for value in (0.999, 0, -1, math.nan, math.inf):
            with pytest.raises(ValueError, match=r"^burst must be at least 1 and finite") as raised:
                check_amount("burst", value, least=1)

            assert repr(value) in str(raised.value)


class TestCheckUnit:
    def test_returns_a_name(self) -> None:
        assert check_unit("tokens") == "tokens"

    @pytest.mark.parametrize("word", ["call", "calls", "req", "request", "requests"])
    def test_what_means_calls_is_calls(self, word: str) -> None:
        assert check_unit(word) == "calls"

    @pytest.mark.parametrize("value", [5, None, b"calls", True])
    def test_refuses_what_is_no_str(self, value: object) -> None:
        with pytest.raises(TypeError) as raised:
            check_unit(value)

        assert str(raised.value) == f"unit must be a str, not {value!r}"

    def test_refuses_an_empty_one(self) -> None:
        with pytest.raises(ValueError, match=r"^unit must not be empty$"):
            check_unit("")
