"""What a limiter does with the figures that a server tells it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

from .._limiters.rate_limiter import RateLimiter
from .._policies.checks import unit_of
from .._policies.policy import Policy
from .._policies.window import WindowTokenBucket
from ..abc import AdjustableLimiter, Limiter, QuotaLimiter
from .headers import Quota

#: The unit by which a server tells how many calls may run at once.
_CONCURRENCY = "concurrent-requests"

#: What a server has told of its limits: unit, limit and window of each; and how many at once.
Limits: TypeAlias = tuple[frozenset[tuple[str, int, float]], int | None]


def tighten(
    limiter: Limiter, quotas: Iterable[Quota], *, max_pause: float, since: float = 0.0
) -> None:
    """
    Let a limiter go by what a server has told: at most so much within so many seconds.

    What is told of units that the limiter does not count is ignored. A limiter without policies
    pauses, if no call is left.

    :param max_pause: for how many seconds it pauses at most
    :param since: how many seconds ago that was told

    """
    policies: tuple[Policy, ...] = ()
    if isinstance(limiter, QuotaLimiter):
        policies = limiter.policies

    for quota in quotas:
        remaining, reset_after = quota.remaining, quota.reset_after
        if remaining is None or (reset_after is not None and reset_after <= since):
            continue

        windows = [policy.window for policy in policies if unit_of(policy.unit) == quota.unit]
        if windows and isinstance(limiter, QuotaLimiter):
            reset = None if reset_after is None else reset_after - since
            limiter.tighten(remaining=remaining, reset_after=reset, unit=quota.unit)
        elif policies or quota.unit != "calls":
            continue

        if remaining == 0 and reset_after is not None:
            # A policy withholds for no longer than its own window.
            rest = reset_after - since
            if rest > max(windows, default=0.0):
                limiter.pause(min(rest, max_pause))


def limits_in(quotas: Iterable[Quota], units: Collection[str]) -> Limits:
    """
    Return what quotas tell of a server's limits, as far as it can be learned.

    :param units: what the limiter counts, or the request costs: nothing else could be charged
    """
    limits: set[tuple[str, int, float]] = set()
    concurrency: int | None = None
    for quota in quotas:
        if quota.limit is None or quota.limit < 1:
            continue

        if quota.unit == _CONCURRENCY:
            concurrency = quota.limit
        elif quota.window is not None and quota.unit in units:
            limits.add((quota.unit, quota.limit, quota.window))

    return frozenset(limits), concurrency


def learn(limiter: AdjustableLimiter, limits: Limits) -> None:
    """Let a server's limits be a limiter's policies for their units."""
    rates, concurrency = limits
    units = {unit for unit, *_ in rates}
    policies = [policy for policy in limiter.policies if unit_of(policy.unit) not in units]
    policies += [
        WindowTokenBucket(limit, window, measure="end", unit=unit)
        for unit, limit, window in sorted(rates)
    ]
    if concurrency is not None and isinstance(limiter, RateLimiter):
        limiter.reconfigure(*policies, concurrency=concurrency)
    elif rates:
        limiter.reconfigure(*policies)
