"""Checks of arguments, each with an error that names the parameter and the value."""

from __future__ import annotations

from math import isinf, isnan


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """
    Return ``value`` if it is an int of at least ``least``.

    :raises TypeError: if it is no int (a bool is none)
    :raises ValueError: if it is too small

    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")

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

    try:
        seconds = float(value)
    except OverflowError:
        seconds = float("inf") if value > 0 else float("-inf")

    at_fault = isnan(seconds) or seconds < 0 or (isinf(seconds) and not infinite)
    if at_fault or (seconds == 0 and not zero):
        bounds = ("at least 0" if zero else "above 0") + ("" if infinite else " and finite")
        raise ValueError(f"{name} must be {bounds}, in seconds, not {value!r}")

    return seconds
