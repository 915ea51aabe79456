"""The rules of a shared limiter, as the server counts, by their kinds."""

from __future__ import annotations

from typing import cast
from urllib.parse import unquote

from .bucket_state import BucketState
from .exchange import Kind, Rule
from .fixed_state import FixedState
from .rule_state import ANY_NUMBER, RuleState, SlotState
from .window_state import EndState, WindowState

__all__ = (
    "ANY_NUMBER",
    "BucketState",
    "FixedState",
    "RuleState",
    "WindowState",
    "rules_of",
    "state_of",
)

_STATES: dict[str, type[RuleState]] = {
    "window": WindowState,
    "end": EndState,
    "bucket": BucketState,
    "fixed": FixedState,
    "slots": SlotState,
}


def state_of(rule: Rule) -> RuleState:
    """Return the state of a rule under which nothing was charged yet."""
    return _STATES[rule.kind](rule)


def rules_of(text: str) -> list[Rule]:
    """Return the rules that :func:`.rules_text` has written."""
    rules: list[Rule] = []
    for part in text.split():
        kind, limit, window, extra, unit = part.split(":")
        rule = Rule(cast("Kind", kind), float(limit), int(window), float(extra), unquote(unit))
        rules.append(rule)

    return rules
