"""Checks of arguments, each with an error that names the parameter and the value."""

from __future__ import annotations

from math import inf, isfinite, isinf, isnan
from typing import Literal

#: The words for the unit that a cost need not name.
_CALLS: dict[str, str] = dict.fromkeys(("call", "calls", "req", "request", "requests"), "calls")


def check_count(name: str, value: object, *, least: int = 1, or_else: str | None = None) -> int:
    """
    Return ``value`` if it is an int of at least ``least``.

    :param or_else: what else it could be, which the caller has found that it is not
    :raises TypeError: if it is no int (a bool is none)
    :raises ValueError: if it is too small

    """
    if not isinstance(value, int) or isinstance(value, bool):
        kind = "an int" if or_else is None else f"an int or {or_else}"
        raise TypeError(f"{name} must be {kind}, not {value!r}")

    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")

    return value


def check_seconds(name: str, value: object, *, zero: bool = False, infinite: bool = False) -> float:
    """
    Return ``value`` as a float if it is a duration in seconds.

    :param zero: whether zero is allowed
    :param infinite: whether infinity is allowed
    :raises TypeError: if it is no number (a bool is none)
    :raises ValueError: if it is NaN, negative, or zero or infinite where that is not allowed

    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")

    seconds = _as_float(value)
    at_fault = isnan(seconds) or seconds < 0 or (isinf(seconds) and not infinite)
    if at_fault or (seconds == 0 and not zero):
        bounds = ("at least 0" if zero else "above 0") + ("" if infinite else " and finite")
        raise ValueError(f"{name} must be {bounds}, in seconds, not {value!r}")

    return seconds


def check_offset(name: str, value: object) -> float:
    """
    Return ``value`` as a float if it is a number of seconds, forward or back.

    :raises TypeError: if it is no number (a bool is none)
    :raises ValueError: if it is NaN or infinite

    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")

    seconds = _as_float(value)
    if not isfinite(seconds):
        raise ValueError(f"{name} must be finite, in seconds, not {value!r}")

    return seconds


def check_amount(name: str, value: object, *, least: float | None = None) -> float:
    """
    Return ``value`` as a float if it is an amount, whole or not.

    :param least: the least that is allowed; ``None`` for anything above 0
    :raises TypeError: if it is no number (a bool is none)
    :raises ValueError: if it is NaN, infinite or too small

    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r}")

    amount = _as_float(value)
    if not isfinite(amount) or (amount <= 0 if least is None else amount < least):
        bound = "above 0" if least is None else f"at least {least}"
        raise ValueError(f"{name} must be {bound} and finite, not {value!r}")

    return amount


def check_unit(value: object) -> str:
    """
    Return ``value`` if it can name what a policy counts; what means calls becomes ``"calls"``.

    :raises TypeError: if it is no str
    :raises ValueError: if it is empty

    """
    if not isinstance(value, str):
        raise TypeError(f"unit must be a str, not {value!r}")

    if not value:
        raise ValueError("unit must not be empty")

    return unit_of(value)


def unit_of(name: str) -> str:
    """Return the unit that a word names: ``"calls"`` for any word that means them."""
    return _CALLS.get(name, name)


def check_measure(value: object) -> Literal["start", "end"]:
    """
    Return ``value`` if it says from when on a window runs.

    :raises ValueError: if it is neither ``"start"`` nor ``"end"``

    """
    if value == "start":
        return "start"

    if value == "end":
        return "end"

    raise ValueError(f"measure must be 'start' or 'end', not {value!r}")


def _as_float(value: float) -> float:
    """Return an int or float as a float; beyond any float there is infinity."""
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf
