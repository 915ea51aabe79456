"""Which happenings may be told again, to a server that may have forgotten them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .exchange import Amounts, Charged, Ended, GivenBack, Happening, Started

#: Happenings that must not be told twice, nor to a server that has taken what they are about. (A
#: charge may be: to count too much is safe.)
FRAGILE = (Started, GivenBack, Ended)


def is_lasting(happening: Happening) -> bool:
    """Return whether something may be told again even if it may have been heard and forgotten."""
    return not isinstance(happening, FRAGILE)


def charged(happening: Happening) -> Happening:
    """Return what is to be told instead if nothing is held any more."""
    return replace(happening, held=False) if isinstance(happening, Charged) else happening


def held_by(happenings: Sequence[Happening]) -> Amounts:
    """Return what a process holds after some happenings, if it held nothing before."""
    held: list[int] = []
    for each in happenings:
        if isinstance(each, Charged) and each.held:
            held = held or [0] * len(each.amounts)
            held = [a + b for a, b in zip(held, each.amounts, strict=True)]
        elif isinstance(each, Ended) and held:
            held = [max(a - b, 0) for a, b in zip(held, each.amounts, strict=True)]

    return tuple(held)
