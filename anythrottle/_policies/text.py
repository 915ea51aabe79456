"""Limits as text: ``"20/10s"``, ``"200k tokens/min"``, ``"10 per second"``."""

from __future__ import annotations

import re
from functools import lru_cache
from math import gcd
from typing import Literal

from .fixed_window import FixedWindow
from .policy import Policy
from .token_bucket import TokenBucket
from .window import WindowTokenBucket

#: What needs no look at its attributes, which is slow.
_OWN = (WindowTokenBucket, TokenBucket, FixedWindow)

#: The words for a time, and how many milliseconds each is.
_MILLISECONDS = {
    "ms": 1,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1000),
    **dict.fromkeys(("min", "minute", "minutes"), 60 * 1000),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600 * 1000),
    **dict.fromkeys(("d", "day", "days"), 86400 * 1000),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400 * 1000),
}

_SCALES = {"": 1, "k": 1000, "M": 1_000_000}

_FORM = re.compile(
    rf"""\s* (?P<amount> [0-9]+ (?:_[0-9]+)* (?:\.[0-9]+)? ) (?P<scale> [kM]? )
        (?: \s+ (?P<unit> [A-Za-z] [A-Za-z0-9_-]* ) )?
        (?: \s* / \s* | \s+ per \s+ )
        (?P<count> [0-9]+ (?:\.[0-9]+)? )?
        \s* (?P<period> {"|".join(_MILLISECONDS)} )
        (?: \s+ (?P<measure> start | end ) )? \s*""",
    re.VERBOSE,
)

_IN_RIGHT_CASE = {"K": "k", "m": "M"}

_MINUTES_OR_MONTHS = r"(?: / | \s per \s ) \s* (?: [0-9.]+ \s* )? m (?: o | onths? )? (?: \s | $ )"

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
        limit = _whole_amount(match)
        count, places = _decimal(match["count"] or "1")
        # One division of ints, which is rounded once: so 300 ms are 0.3 s.
        window = count * _MILLISECONDS[match["period"]] / (1000 * 10**places)
        return WindowTokenBucket(
            limit, window, measure=says or measure, unit=match["unit"] or "calls"
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

    if re.search(_MINUTES_OR_MONTHS, text, re.VERBOSE | re.IGNORECASE):
        return " (write 'min' for minutes; months differ in length, so write days: '30d')"

    match = re.fullmatch(_FORM.pattern, text, re.VERBOSE | re.IGNORECASE | re.ASCII)
    if match is None:
        return ""

    amount, scale = text[: match.start("scale")], match["scale"]
    unit_end = max(match.end("scale"), match.end("unit"))
    unit, rest = text[match.end("scale") : unit_end], text[unit_end:].lower()
    return f" (did you mean {amount + _IN_RIGHT_CASE.get(scale, scale) + unit + rest!r}?)"


def _decimal(number: str) -> tuple[int, int]:
    """Return a number without its point, and how many of its digits stand behind that."""
    whole, _, rest = number.partition(".")
    return int(whole + rest), len(rest)


def _whole_amount(match: re.Match[str]) -> int:
    """
    Return the amount that a text form names.

    :raises ValueError: if it isn't whole, with the same rate in whole amounts
    """
    digits, places = _decimal(match["amount"])
    parts: int = 10**places
    amount = digits * _SCALES[match["scale"]]
    if amount % parts == 0:
        return amount // parts

    common = gcd(amount, parts)
    count, places = _decimal(match["count"] or "1")
    whole, rest = divmod(count * (parts // common), 10**places)
    period = f"{whole}.{rest:0{places}}".rstrip("0").rstrip(".") + match["period"]
    unit = "" if match["unit"] is None else f" {match['unit']}"
    measure = "" if match["measure"] is None else f" {match['measure']}"
    same = f"{amount // common}{unit}/{period}{measure}"
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
