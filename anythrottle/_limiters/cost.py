"""What a call costs, for each policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .._errors import CostTooHigh
from .._policies.checks import check_count
from .._policies.policy import Cost, Policy


def by_unit(cost: Cost) -> dict[str, int]:
    """
    Return the amounts of a cost by unit; an int is calls.

    :raises TypeError: if ``cost`` is neither an int nor a mapping of units to ints
    :raises ValueError: if an amount is negative

    """
    if isinstance(cost, Mapping):
        return {unit: check_count(f"cost[{unit!r}]", cost[unit], least=0) for unit in cost}

    return {"calls": check_count("cost", cost, least=0, or_else="a mapping of units to ints")}


def amounts_of(
    cost: Cost, policies: Sequence[Policy], capacities: Sequence[float]
) -> tuple[int, ...]:
    """
    Return the amount that ``cost`` charges to each policy, in their order.

    Limits never fail open: every unit but calls that is counted must be named, and nothing else
    may be. Without a policy nothing is counted, so any cost will do.

    :param capacities: the most that can be charged to each policy at once
    :raises TypeError: if ``cost`` is neither an int nor a mapping of units to ints
    :raises ValueError: if an amount is negative, or a unit is missing or unknown
    :raises ~anythrottle.CostTooHigh: if a policy could never allow it

    """
    amounts = by_unit(cost)
    if not policies:
        return ()

    units = {policy.unit for policy in policies}
    if isinstance(cost, Mapping) and "calls" in units:
        amounts.setdefault("calls", 1)

    if units != amounts.keys():
        raise ValueError(
            f"cost {cost!r} does not fit this limiter, which counts {_listed(units)}: name each of "
            f"its units, and no other, in a mapping (calls default to 1)"
        )

    for policy, capacity in zip(policies, capacities, strict=True):
        if amounts[policy.unit] > capacity:
            raise CostTooHigh(amounts[policy.unit], capacity, policy.unit)

    return tuple(amounts[policy.unit] for policy in policies)


def named_amounts(
    cost: Cost, policies: Sequence[Policy], known: Collection[str] = ()
) -> dict[str, int]:
    """
    Return the amounts that a correction or a penalty names: those of some units, or of all.

    :param known: units that may be named though no policy counts them any more
    :raises TypeError: if ``cost`` is neither an int nor a mapping of units to ints
    :raises ValueError: if an amount is negative, or a unit is not counted

    """
    amounts = by_unit(cost)
    if policies:
        for unit in amounts:
            if unit not in known:
                check_unit(unit, policies)

    return amounts


def check_unit(unit: str, policies: Sequence[Policy]) -> None:
    """
    Raise if no policy counts a unit.

    :raises ValueError: if none does

    """
    units = {policy.unit for policy in policies}
    if unit not in units:
        raise ValueError(
            f"unit {unit!r} is not counted by this limiter, which counts {_listed(units)}"
        )


def _listed(units: set[str]) -> str:
    return ", ".join(repr(unit) for unit in sorted(units)) or "nothing"
