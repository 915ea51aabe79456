"""Limits as text: ``"20/10s"``, ``"200k tokens/min"``, ``"10 per second"``."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from .fixed_window import FixedWindow
from .policy import Policy
from .token_bucket import TokenBucket
from .window import WindowTokenBucket

#: What needs no look at its attributes, which is slow.
_OWN = (WindowTokenBucket, TokenBucket, FixedWindow)

#: The words for a time, and how many seconds each is.
_SECONDS = {
    "ms": Fraction(1, 1000),
    **dict.fromkeys(("s", "sec", "second", "seconds"), Fraction(1)),
    **dict.fromkeys(("min", "minute", "minutes"), Fraction(60)),
    **dict.fromkeys(("h", "hr", "hour", "hours"), Fraction(3600)),
    **dict.fromkeys(("d", "day", "days"), Fraction(86400)),
    **dict.fromkeys(("w", "week", "weeks"), Fraction(7 * 86400)),
}

_SCALES = {"": 1, "k": 1000, "M": 1_000_000}

_FORM = re.compile(
    rf"""\s* (?P<amount> [0-9]+ (?:_[0-9]+)* (?:\.[0-9]+)? ) (?P<scale> [kM]? )
        (?: \s+ (?P<unit> [A-Za-z] [A-Za-z0-9_-]* ) )?
        (?: \s* / \s* | \s+ per \s+ )
        (?P<count> [0-9]+ (?:\.[0-9]+)? )?
        \s* (?P<period> {"|".join(_SECONDS)} )
        (?: \s+ (?P<measure> start | end ) )? \s*""",
    re.VERBOSE,
)

_IN_ANY_CASE = re.compile(_FORM.pattern, re.VERBOSE | re.IGNORECASE | re.ASCII)

_IN_RIGHT_CASE = {"K": "k", "m": "M"}

_MINUTES_OR_MONTHS = re.compile(
    r"(?: / | \s per \s ) \s* (?: [0-9.]+ \s* )? m (?: o | onths? )? (?: \s | $ )",
    re.VERBOSE | re.IGNORECASE,
)

_HELP = (
    "write a whole amount, a unit if it isn't calls, a slash and a time in ms, s, min, h, day or "
    "week, such as '20/10s', '5/s' or '200k tokens/min', and 'end' behind it if the window is to "
    "run from the end of each call: '20/10s end'"
)


@lru_cache(maxsize=256)
def parse_policy(text: str, measure: Literal["start", "end"] = "start") -> WindowTokenBucket:
    """
    Return the policy that a text form describes.

    >>> parse_policy("200k tokens/min")
    WindowTokenBucket(limit=200000, window=60.0, measure='start', unit='tokens')

    >>> parse_policy("20 requests per 10 seconds end")
    WindowTokenBucket(limit=20, window=10.0, measure='end', unit='calls')

    :param text: ``"amount/time"`` or ``"amount unit/time"``, or with ``per`` for the slash; the
        amount is whole, and may end with ``k`` (a thousand) or ``M`` (a million); the time is a
        unit of time (ms, s, min, h, day or week, or what else they are called), with a number
        before it if it isn't 1; ``start`` or ``end`` behind that says how it is measured
    :param measure: how, for a text that doesn't say
    :raises ValueError: if the text has another form, or says zero or a fraction

    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a limit{_hint(text)}: {_HELP}")

    says: Literal["start", "end"] | None = match["measure"]  # type: ignore[assignment]
    try:
        amount = Fraction(match["amount"]) * _SCALES[match["scale"]]
        window = Fraction(match["count"] or 1) * _SECONDS[match["period"]]
        _check_whole(amount, match)
        return WindowTokenBucket(
            int(amount), float(window), measure=says or measure, unit=match["unit"] or "calls"
        )
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"{text!r} is not a limit ({exc}): {_HELP}") from None


def _hint(text: str) -> str:
    """Return what a text that has another form is likely to mean, in brackets; else nothing."""
    parts = [part.strip() for part in re.split("[,;]", text)]
    if all(map(_FORM.fullmatch, parts)):
        return f" (several limits are several arguments: {', '.join(map(repr, parts))})"

    if _FORM.fullmatch(underscored := text.replace(",", "_")):
        return f" (did you mean {underscored!r}?)"

    if _MINUTES_OR_MONTHS.search(text):
        return " (write 'min' for minutes; months differ in length, so write days: '30d')"

    match = _IN_ANY_CASE.fullmatch(text)
    if match is None:
        return ""

    amount, scale = text[: match.start("scale")], match["scale"]
    unit_end = max(match.end("scale"), match.end("unit"))
    unit, rest = text[match.end("scale") : unit_end], text[unit_end:].lower()
    return f" (did you mean {amount + _IN_RIGHT_CASE.get(scale, scale) + unit + rest!r}?)"


def _check_whole(amount: Fraction, match: re.Match[str]) -> None:
    """
    Raise if an amount is not whole.

    :raises ValueError: if it isn't, with the same rate in whole amounts
    """
    if amount.denominator > 1:
        count = Fraction(match["count"] or 1) * amount.denominator
        # Both are decimal fractions, and so is what comes of them.
        digits = f"{Decimal(count.numerator) / Decimal(count.denominator):f}"
        unit = "" if match["unit"] is None else f" {match['unit']}"
        measure = "" if match["measure"] is None else f" {match['measure']}"
        same = f"{amount.numerator}{unit}/{digits}{match['period']}{measure}"
        raise ValueError(f"its amount is not whole; the same rate is {same!r}")


def as_policy(value: object, measure: Literal["start", "end"] = "start") -> Policy:
    """
    Return a policy as it is, and for a text form the policy it describes.

    :param measure: how a text that doesn't say is measured
    :raises TypeError: if it is neither
    :raises ValueError: if the text is not a limit

    """
    if isinstance(value, str):
        return parse_policy(value, measure)

    if isinstance(value, _OWN):
        return value

    if isinstance(value, Policy) and not isinstance(value, type):
        return value

    raise TypeError(f"a policy must be a Policy or a text such as '20/10s', not {value!r}")
