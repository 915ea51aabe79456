"""Rules of a shared limiter, written as its policies are."""

from __future__ import annotations

from .exchange import Micros, Rule
from .rule_states import rules_of

#: Times that texts of limits have, in microseconds, the longest first.
_TIMES = (
    ("day", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
)


def in_words(text: str) -> str:
    """
    Return rules as a user writes them; as they are kept, if they are of a kind not known here.

    >>> in_words("window:20:10000000:0:calls slots:5:0:0:calls")
    '20/10s, concurrency=5'

    :param text: as :func:`.rules_text` has it
    """
    try:
        words = [_words_of(rule) for rule in rules_of(text)]
    except ValueError:
        return text

    return ", ".join(words) or "no policies"


def _words_of(rule: Rule) -> str:
    limit, unit = f"{rule.limit:.17g}", rule.unit
    if rule.kind == "slots":
        return f"concurrency={limit}"

    counted = "" if unit == "calls" else f" {unit}"
    amount = f"{limit}{counted}/{_time(rule.window)}"
    if rule.kind == "window":
        return amount

    if rule.kind == "end":
        return f"{amount} end"

    if rule.kind == "bucket":
        return f"TokenBucket({amount}, burst={rule.extra:.17g})"

    align = "" if rule.extra < 0 else f", align='utc', offset={rule.extra / 1e6:.17g}"
    return f"FixedWindow({amount}{align})"


def _time(window: Micros) -> str:
    for name, length in _TIMES:
        if window % length == 0:
            count = window // length
            return name if count == 1 else f"{count}{name}"

    return f"{window / 1000:.17g}ms"
