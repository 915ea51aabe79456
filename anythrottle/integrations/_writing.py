"""Writes the fields ``RateLimit`` and ``RateLimit-Policy``, as the IETF's draft has them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import ceil, inf
from urllib.parse import quote

from .._policies.policy import Policy, PolicyState

#: How much later than needed a client is told to come, in milliseconds: its timer may fire up to a
#: millisecond early.
_LATE = 2

#: The greatest whole number of a structured field.
_MOST = 10**15 - 1

#: A limit that is not whole is told as a whole one, for a window up to so many times as long.
_MOST_WINDOWS = 1000

#: The characters of a String of a structured field; others in a unit are written as in a URL.
_PLAIN = "".join(map(chr, range(0x20, 0x7F)))


def write_fields(states: Sequence[PolicyState]) -> tuple[tuple[bytes, bytes], ...]:
    """
    Return the fields that tell a client what each policy has left; none if there is no policy.

    >>> from anythrottle import RateLimiter
    >>> for name, value in write_fields(RateLimiter("20/10s", "9k tokens/min").quotas()):
    ...     print(f"{name.decode()}: {value.decode()}")
    ratelimit-policy: "calls-0";q=20;w=10, "tokens-1";q=9000;w=60;qu="tokens"
    ratelimit: "calls-0";r=20, "tokens-1";r=9000

    They are those of draft-ietf-httpapi-ratelimit-headers-11: a window is rounded up, what is left
    is rounded down. ``t`` tells when there is more, rounded up and a little late, so that a client
    whose timer fires early is not refused; our own parameter ``anythrottle-t`` tells the same in
    milliseconds. Neither is there if nothing is missing, or if it depends on when a call ends. A
    limit that is not whole is told for a longer window; one that is infinity, not at all.

    :param states: what each policy has left, in their order
    """
    policies = tuple([state.policy for state in states])
    try:
        field, heads = _cached_heads(policies)
    except TypeError:
        # A policy of a user's own that has no hash.
        field, heads = _heads(policies)

    items: list[str] = []
    for index, state in enumerate(states):
        head, limit = heads[index]
        if head:
            items.append(head + _left(state, limit))

    if not items:
        return ()

    return (b"ratelimit-policy", field), (b"ratelimit", ", ".join(items).encode("ascii"))


def whole_seconds(seconds: float) -> int:
    """
    Return after how many whole seconds to come again, at least 1: rounded up, and a little late.

    :param seconds: after how many seconds there is something, at least 0; finite
    """
    return -(-_milliseconds(seconds) // 1000)


def policy_name(policy: Policy, index: int) -> str:
    """
    Return the name that a policy has in the fields.

    :param index: its place among all that are told
    """
    return f"{quote(policy.unit, safe=_PLAIN)}-{index}"


def _string(text: str) -> str:
    """Return a text as it stands between the quotes of a structured field."""
    return text.replace("\\", r"\\").replace('"', r"\"")


def _left(state: PolicyState, limit: int) -> str:
    """Return how much is left by one policy, and when there is more, as it stands behind ``r=``."""
    told = state.remaining if state.remaining < _MOST else _MOST  # noqa: FURB136 - half of min()
    after = state.retry_after
    if not after or state.remaining == limit or after == inf:
        return str(told)

    exact = _milliseconds(after)
    return f"{told};t={-(-exact // 1000)};anythrottle-t={exact}"


def _milliseconds(seconds: float) -> int:
    """Return after how many milliseconds to come again, at least 2."""
    exact = seconds * 1000 + _LATE
    return ceil(exact) if exact < _MOST else _MOST


def _heads(policies: tuple[Policy, ...]) -> tuple[bytes, tuple[tuple[str, int], ...]]:
    """
    Return ``RateLimit-Policy``, and for each policy the start of its item in ``RateLimit``.

    Its limit comes with that. The start is empty for a policy that is not told.
    """
    told: list[str] = []
    heads: list[tuple[str, int]] = []
    for index, policy in enumerate(policies):
        if policy.limit == inf:
            heads.append(("", 0))
            continue

        unit = _string(quote(policy.unit, safe=_PLAIN))
        name = f'"{_string(policy_name(policy, index))}"'
        limit, window = _whole_limit(policy)
        qu = "" if unit == "calls" else f';qu="{unit}"'
        told.append(f"{name};q={limit};w={window}{qu}")
        heads.append((f"{name};r=", limit))

    return ", ".join(told).encode("ascii"), tuple(heads)


_cached_heads = lru_cache(maxsize=128)(_heads)


def _whole_limit(policy: Policy) -> tuple[int, int]:
    """Return the least whole limit that means the same, and the seconds that it is for."""
    limit, window = policy.limit, policy.window
    if limit == int(limit):
        scaled, seconds = int(limit), ceil(min(window, _MOST))
    else:
        fraction = Fraction(limit).limit_denominator(_MOST_WINDOWS)
        scaled = max(fraction.numerator, 1)
        # Rounded before it is rounded up, because the product of 0.1 and 10 may be above 1.
        seconds = ceil(round(min(scaled / limit * window, _MOST), 9))

    return min(scaled, _MOST), min(max(seconds, 1), _MOST)
