"""What one value of a header says: an amount, a time until a reset, a pause."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from math import inf, isfinite

from .._retry_after import instant_of

#: No server means more than this, of seconds or of anything that is counted.
MOST = 10**15

#: Numbers below are seconds to come; those from here on are seconds since 1970.
_FIRST_EPOCH = 1e9

#: Numbers from here on are milliseconds since 1970.
_FIRST_EPOCH_MS = 1e11

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")

_SIGNED_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")

_USED_OF = re.compile(r"([0-9]+)(\.[0-9]*[1-9][0-9]*|\.0+)?\s*/\s*([0-9]+)(?:\.[0-9]+)?")

#: The units in which the language Go writes durations, and days.
_UNITS = {
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([dhmnsuµ]s?)")

_DURATION = re.compile(rf"(?:[0-9]+(?:\.[0-9]+)?(?:{'|'.join(sorted(_UNITS, key=len)[::-1])}))+")

#: An instant in the form of :rfc:`3339`; some services leave out the seconds, or that it is UTC.
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def amount_of(text: str) -> int | None:
    """
    Return the amount that a text tells, rounded down, from 0 to :data:`MOST`.

    ``None`` if it tells none.
    """
    if _NUMBER.fullmatch(text) is None:
        return None

    amount = int(text.partition(".")[0])
    return amount if amount <= MOST else None


def limit_of(text: str) -> int | None:
    """Return the limit that a text tells, at least 1, or ``None`` if it tells none."""
    return amount_of(text) or None


def used_of(text: str) -> tuple[int, int] | None:
    """
    Return how much is used, rounded up, and of which limit, by a text such as ``"32/40"``.

    ``None`` if it tells none.
    """
    match = _USED_OF.fullmatch(text)
    if match is None:
        return None

    whole, fraction, limit = match.groups()
    used = int(whole) + (fraction is not None and fraction.strip(".0") != "")
    return (used, int(limit)) if used <= MOST and 1 <= int(limit) <= MOST else None


def reset_of(text: str, now: Callable[[], float]) -> float | None:
    """
    Return in how many seconds a reset is, 0 if it is past, or ``None`` if a text tells none.

    The form follows from the shape: seconds to come, seconds or milliseconds since 1970, a duration
    such as ``6m0s``, an instant of :rfc:`3339`, an HTTP date.

    :param now: returns the server's time, in seconds since 1970; asked only if it is needed
    """
    if _NUMBER.fullmatch(text) is not None:
        number = float(text)
        if number < _FIRST_EPOCH:
            return number

        if number > MOST:
            return None

        return _until(number if number < _FIRST_EPOCH_MS else number / 1000, now)

    if _DURATION.fullmatch(text) is not None:
        seconds = sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
        return seconds if seconds <= MOST else None

    instant = _timestamp_of(text) if _TIMESTAMP.fullmatch(text) else date_of(text)
    return None if instant is None else _until(instant, now)


def pause_of(text: str, scale: float, now: Callable[[], float]) -> float | None:
    """
    Return for how many seconds a ``Retry-After`` asks to wait, or ``None`` if it can't be read.

    0 if that is past or negative; infinity if it is more than :data:`MOST`.

    :param scale: by what a number is multiplied to be seconds, above 0
    :param now: returns the server's time, in seconds since 1970; asked only if it is needed
    """
    if _SIGNED_NUMBER.fullmatch(text) is not None:
        seconds = float(text) * scale
        return inf if seconds > MOST else max(seconds, 0.0)

    instant = date_of(text)
    return None if instant is None else _until(instant, now)


@lru_cache(maxsize=16)
def date_of(text: str) -> float | None:
    """Return the instant that an HTTP date means, in seconds since 1970, or ``None``."""
    return instant_of(text)


def _timestamp_of(text: str) -> float | None:
    """Return the instant that a text of :rfc:`3339` means, or ``None`` if there is none."""
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError:
        return None

    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def _until(instant: float, now: Callable[[], float]) -> float | None:
    """Return the seconds until an instant, 0 if it is past; ``None`` by a clock out of range."""
    seconds = instant - now()
    return max(seconds, 0.0) if isfinite(seconds) and seconds <= MOST else None
