"""What a call costs, for each policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._errors import CostTooHigh
from .._policies.checks import check_count
from .._policies.policy import Cost, Policy


def amounts_of(cost: Cost, policies: Sequence[Policy]) -> tuple[int, ...]:
    """
    Return the amount that ``cost`` charges to each policy, in their order.

    Limits never fail open: every unit but calls that is counted must be named, and nothing else
    may be. Without a policy nothing is counted, so any cost will do.

    :raises TypeError: if ``cost`` is neither an int nor a mapping of units to ints
    :raises ValueError: if an amount is negative, or a unit is missing or unknown
    :raises ~anythrottle.CostTooHigh: if a policy could never allow it

    """
    if isinstance(cost, Mapping):
        by_unit = {unit: check_count(f"cost[{unit!r}]", cost[unit], least=0) for unit in cost}
    else:
        by_unit = {"calls": check_count("cost", cost, least=0)}

    if not policies:
        return ()

    units = {policy.unit for policy in policies}
    if isinstance(cost, Mapping) and "calls" in units:
        by_unit.setdefault("calls", 1)

    if units != by_unit.keys():
        wanted = ", ".join(repr(unit) for unit in sorted(units))
        raise ValueError(
            f"cost {cost!r} does not fit this limiter, which counts {wanted}: name each of its "
            f"units, and no other, in a mapping (calls default to 1)"
        )

    for policy in policies:
        if by_unit[policy.unit] > policy.limit:
            raise CostTooHigh(by_unit[policy.unit], policy.limit, policy.unit)

    return tuple(by_unit[policy.unit] for policy in policies)
