"""What a call costs, for each policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .._errors import CostTooHigh
from .._policies.checks import check_count, unit_of
from .._policies.policy import Cost


def by_unit(cost: Cost) -> dict[str, int]:
    """
    Return the amounts of a cost by unit; an int is calls.

    :raises TypeError: if ``cost`` is neither an int nor a mapping of units to ints
    :raises ValueError: if an amount is negative, or calls are named twice, in different words

    """
    if isinstance(cost, Mapping):
        amounts: dict[str, int] = {}
        for unit, amount in cost.items():
            if type(amount) is not int or amount < 0:
                # Only then, because the text of an error costs more than all the rest.
                check_count(f"cost[{unit!r}]", amount, least=0)

            amounts[unit_of(unit)] = amount

        if len(amounts) < len(cost):
            raise ValueError(f"cost {cost!r} names calls twice: requests are calls")

        return amounts

    return {"calls": check_count("cost", cost, least=0, or_else="a mapping of units to ints")}


def amounts_of(cost: Cost, units: Sequence[str], capacities: Sequence[float]) -> tuple[int, ...]:
    """
    Return the amount that ``cost`` charges to each policy, in their order.

    Limits never fail open: every unit but calls that is counted must be named, and nothing else
    may be. Without a policy nothing is counted, so any cost will do.

    :param units: what each policy counts
    :param capacities: the most that can be charged to each policy at once
    :raises TypeError: if ``cost`` is neither an int nor a mapping of units to ints
    :raises ValueError: if an amount is negative, or a unit is missing or unknown
    :raises ~anythrottle.CostTooHigh: if a policy could never allow it

    """
    amounts = by_unit(cost)
    if not units:
        return ()

    if isinstance(cost, Mapping) and "calls" in units:
        amounts.setdefault("calls", 1)

    if amounts.keys() != set(units):
        raise ValueError(
            f"cost {cost!r} does not fit this limiter, which counts {_listed(units)}: name each of "
            f"its units, and no other, in a mapping (calls default to 1)"
        )

    charged = [amounts[unit] for unit in units]
    for index, capacity in enumerate(capacities):
        if charged[index] > capacity:
            raise CostTooHigh(charged[index], capacity, units[index])

    return tuple(charged)


def named_amounts(cost: Cost, units: Sequence[str], known: Collection[str] = ()) -> dict[str, int]:
    """
    Return the amounts that a correction or a penalty names: those of some units, or of all.

    :param units: what the policies count
    :param known: units that may be named though no policy counts them any more
    :raises TypeError: if ``cost`` is neither an int nor a mapping of units to ints
    :raises ValueError: if an amount is negative, or a unit is not counted

    """
    amounts = by_unit(cost)
    if units:
        for unit in amounts:
            if unit not in known:
                check_counted(unit, units)

    return amounts


def check_counted(unit: str, units: Sequence[str]) -> str:
    """
    Return a unit that is counted, by the name that policies have for it.

    :param units: what the policies count
    :raises ValueError: if none counts it

    """
    if (counted := unit_of(unit)) not in units:
        raise ValueError(
            f"unit {unit!r} is not counted by this limiter, which counts {_listed(units)}"
        )

    return counted


def _listed(units: Sequence[str]) -> str:
    return ", ".join(repr(unit) for unit in sorted(set(units))) or "nothing"
