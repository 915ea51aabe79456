"""Limits as text: ``"20/10s"``, ``"200_000 tokens/min"``."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from .fixed_window import FixedWindow
from .policy import Policy
from .token_bucket import TokenBucket
from .window import WindowTokenBucket

#: What needs no look at its attributes, which is slow.
_OWN = (WindowTokenBucket, TokenBucket, FixedWindow)

_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "day": Fraction(86400),
}

_FORM = re.compile(
    r"""\s* (?P<limit> [0-9]+ (?:_[0-9]+)* )
        (?: \s+ (?P<unit> [A-Za-z] [A-Za-z0-9_-]* ) )?
        \s* / \s*
        (?P<count> [0-9]+ (?:\.[0-9]+)? )?
        \s* (?P<period> ms | s | min | h | day ) \s*""",
    re.VERBOSE,
)

_HELP = (
    "write an amount, a unit if it isn't calls, a slash and a time in ms, s, min, h or day, "
    "such as '20/10s', '5/s' or '200_000 tokens/min'"
)


@lru_cache(maxsize=256)
def parse_policy(text: str) -> WindowTokenBucket:
    """
    Return the policy that a text form describes.

    >>> parse_policy("200_000 tokens/min")
    WindowTokenBucket(limit=200000, window=60.0, measure='start', unit='tokens')

    :param text: ``"amount/time"`` or ``"amount unit/time"``; the time is a unit of time (ms, s,
        min, h, day), with a number before it if it isn't 1
    :raises ValueError: if the text has another form or says zero

    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a limit: {_HELP}")

    count = match["count"] or "1"
    try:
        return WindowTokenBucket(
            int(match["limit"]),
            float(Fraction(count) * _SECONDS[match["period"]]),
            unit=match["unit"] or "calls",
        )
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"{text!r} is not a limit ({exc}): {_HELP}") from None


def as_policy(value: object) -> Policy:
    """
    Return a policy as it is, and for a text form the policy it describes.

    :raises TypeError: if it is neither
    :raises ValueError: if the text is not a limit

    """
    if isinstance(value, str):
        return parse_policy(value)

    if isinstance(value, _OWN):
        return value

    if isinstance(value, Policy) and not isinstance(value, type):
        return value

    raise TypeError(f"a policy must be a Policy or a text such as '20/10s', not {value!r}")
