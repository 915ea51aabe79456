"""What a shared limiter may be made with, and the rules that come of it."""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

from .._policies.checks import check_count
from .._policies.fixed_window import FixedWindow
from .._policies.policy import Policy
from .._policies.token_bucket import TokenBucket
from .._policies.window import WindowTokenBucket
from ..abc import Limiter
from .exchange import Rule

#: The longest name.
_LONGEST = 200

#: The greatest limit: amounts up to this, and sums of some, are exact in the server's numbers.
_MOST = 2**48

#: The most policies: a server keeps keys for each of them, which are deleted by their names.
MOST_POLICIES: Final = 16

_MICRO = 1_000_000


def check_name(parameter: str, name: str) -> str:
    """
    Return a name, or raise an error if it is not one.

    :raises TypeError: if it is not a str
    :raises ValueError: if it is empty, too long, or has other characters than it may

    """
    if not isinstance(name, str):
        raise TypeError(f"{parameter} must be a str, not {name!r}")

    if not 1 <= len(name) <= _LONGEST or not name.isprintable() or set(name) & set(" {}"):
        raise ValueError(
            f"{parameter} must be 1 to {_LONGEST} printable characters without spaces and braces, "
            f"not {name!r}"
        )

    return name


def check_on_store_error(value: object) -> object:
    """
    Return what is to happen while the server does not answer, or raise an error if that is unknown.

    :raises TypeError: if it is neither a str nor a limiter
    :raises ValueError: if it is another str
    """
    if isinstance(value, str):
        if value not in ("raise", "open"):
            raise ValueError(f"on_store_error must be 'raise', 'open' or a limiter, not {value!r}")
    elif not isinstance(value, Limiter) or isinstance(value, type):
        raise TypeError(f"on_store_error must be 'raise', 'open' or a limiter, not {value!r}")

    return value


def rules_for(policies: tuple[Policy, ...], concurrency: int | None) -> tuple[Rule, ...]:
    """
    Return the rules by which a server keeps to policies, and to a concurrency.

    :raises TypeError: if a server cannot keep to a policy
    :raises ValueError: if there are more than 16 policies, if a limit or a window is too great, or
        ``concurrency`` below 1

    """
    if len(policies) > MOST_POLICIES:
        raise ValueError(
            f"a shared limiter takes at most {MOST_POLICIES} policies, not {len(policies)}"
        )

    rules = [_rule(policy) for policy in policies]
    if concurrency is not None:
        slots = check_count("concurrency", concurrency)
        rules.append(Rule("slots", slots, 0, 0, "calls"))

    return tuple(rules)


def _rule(policy: Policy) -> Rule:
    # Rounded up, so that no window is too short.
    window = ceil(policy.window * _MICRO)
    if policy.limit > _MOST or window > _MOST:
        raise ValueError(f"{policy!r} is too great for a server, which counts to {_MOST}")

    if isinstance(policy, WindowTokenBucket):
        kind: Literal["window", "end"] = "end" if policy.holds else "window"
        return Rule(kind, policy.limit, window, 0, policy.unit)

    if isinstance(policy, TokenBucket):
        assert policy.burst is not None, "set by __post_init__()"
        return Rule("bucket", policy.limit, window, policy.burst, policy.unit)

    if isinstance(policy, FixedWindow):
        offset = round(policy.offset * _MICRO) % window if policy.align == "utc" else -1
        return Rule("fixed", policy.limit, window, offset, policy.unit)

    raise TypeError(
        f"a shared limiter takes WindowTokenBucket, TokenBucket and FixedWindow, not {policy!r}: "
        f"a server cannot run rules of your own"
    )
