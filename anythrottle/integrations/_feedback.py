"""What a limiter does with the figures that a server tells it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import inf
from typing import TypeAlias

from .._limiters.cost import by_unit
from .._limiters.line_limiter import LineLimiter
from .._limiters.rate_limiter import RateLimiter
from .._policies.checks import unit_of
from .._policies.policy import Cost
from .._policies.window import WindowTokenBucket
from ..abc import AdjustableLimiter, Limiter, QuotaLimiter
from .headers import Quota

#: The unit by which a server tells how many calls may run at once.
_CONCURRENCY = "concurrent-requests"

#: Limiters that tell their policies; our own first, because checking a protocol costs microseconds.
_TELLS = (LineLimiter, QuotaLimiter)

#: What a server has told of its limits: unit, limit and window of each; and how many at once.
Limits: TypeAlias = tuple[frozenset[tuple[str, int, float]], int | None]


def tighten(
    limiter: Limiter, quotas: Collection[Quota], *, max_pause: float, since: float = 0.0
) -> None:
    """
    Tighten a limiter by what a server has told: at most so much within so many seconds.

    Figures for units that the limiter does not count are ignored. A limiter without policies
    pauses, if no call is left.

    :param max_pause: for how many seconds it pauses at most
    :param since: how many seconds ago that was told

    """
    if not quotas:
        return

    told = limiter if isinstance(limiter, _TELLS) else None
    policies = () if told is None else told.policies
    for quota in quotas:
        windows = [policy.window for policy in policies if unit_of(policy.unit) == quota.unit]
        # Units that are not counted are ignored; without a policy, calls can be paused.
        if quota.remaining is None or not (windows or (quota.unit == "calls" and not policies)):
            continue

        rest = _rest(quota.reset_after, max(windows, default=inf), since)
        if rest is not None and rest <= 0:
            continue

        if windows and told is not None:
            told.tighten(remaining=quota.remaining, reset_after=rest, unit=quota.unit)

        # A policy withholds for no longer than its own window.
        if quota.remaining == 0 and rest is not None and rest > max(windows, default=0.0):
            limiter.pause(min(rest, max_pause))


def _rest(reset_after: float | None, longest: float, since: float) -> float | None:
    """
    Return for how long a figure still holds, in seconds; ``None`` if that is unknown.

    :param longest: for how long a figure holds at most that does not say
    :param since: how many seconds ago it was told
    """
    if reset_after is not None:
        return reset_after - since

    return longest - since if since and longest < inf else None


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
    """Make a server's limits a limiter's policies for their units."""
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


def units_of(limiter: Limiter) -> frozenset[str]:
    """Return the units that a limiter counts, as far as it tells."""
    policies = limiter.policies if isinstance(limiter, _TELLS) else ()
    return frozenset(unit_of(policy.unit) for policy in policies)


def counted_part(cost: Cost, limiter: Limiter) -> Cost:
    """
    Return a cost without the units that a limiter, whose limits were learned, does not count.

    When the cost was written, it was unknown which units the server tells of.
    """
    units = units_of(limiter)
    if isinstance(cost, int) or not units:
        return cost

    return {unit: amount for unit, amount in by_unit(cost).items() if unit in units}
