"""Rules are told as they are written."""

from __future__ import annotations

import pytest

from anythrottle import FixedWindow, TokenBucket
from anythrottle._policies.text import as_policy
from anythrottle.abc import Policy
from anythrottle.stores.exchange import rules_text
from anythrottle.stores.rule_words import in_words
from anythrottle.stores.settings import rules_for

TEXTS = ["20/10s", "5/s", "200000 tokens/min", "3/90s", "2/h end", "1/day", "9/7day", "8/300ms"]


@pytest.mark.parametrize("text", [*TEXTS, "8/0.5ms"])
def test_a_text_is_told_as_it_is(text: str) -> None:
    assert in_words(rules_text(rules_for((as_policy(text),), None))) == text


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (TokenBucket(7, 1, burst=2.5), "TokenBucket(7/s, burst=2.5)"),
        (TokenBucket(7, 60, unit="tokens"), "TokenBucket(7 tokens/min, burst=7)"),
        (FixedWindow(9, 3600), "FixedWindow(9/h)"),
        (
            FixedWindow(9, 86400, align="utc", offset=8 * 3600),
            "FixedWindow(9/day, align='utc', offset=28800)",
        ),
    ],
)
def test_other_policies(policy: Policy, told: str) -> None:
    assert in_words(rules_text(rules_for((policy,), None))) == told


def test_all_of_a_limiter_in_their_order() -> None:
    policies = (as_policy("20/10s"), as_policy("5/s"))
    assert in_words(rules_text(rules_for(policies, 5))) == "20/10s, 5/s, concurrency=5"
    assert in_words(rules_text(rules_for(policies[::-1], None))) == "5/s, 20/10s"
    assert in_words("") == "no policies"


def test_what_is_not_known_is_told_as_it_is_kept() -> None:
    assert in_words("window:20 new") == "window:20 new"
