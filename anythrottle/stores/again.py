"""What of what has happened may be told again, to a server that may have forgotten it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .exchange import Amounts, Charged, Ended, GivenBack, Happening, Started

#: What must not be told twice, nor to a server that has taken what it is about. (What was charged
#: may be: too much is the safe side.)
FRAGILE = (Started, GivenBack, Ended)


def is_lasting(happening: Happening) -> bool:
    """Return whether something may be told again even if it may have been heard and forgotten."""
    return not isinstance(happening, FRAGILE)


def charged(happening: Happening) -> Happening:
    """Return what is to be told instead if nothing is held any more."""
    return replace(happening, held=False) if isinstance(happening, Charged) else happening


def held_by(happenings: Sequence[Happening]) -> Amounts:
    """Return what a process holds that held nothing before what has happened."""
    held: list[int] = []
    for each in happenings:
        if isinstance(each, Charged) and each.held:
            held = held or [0] * len(each.amounts)
            held = [a + b for a, b in zip(held, each.amounts, strict=True)]
        elif isinstance(each, Ended) and held:
            held = [max(a - b, 0) for a, b in zip(held, each.amounts, strict=True)]

    return tuple(held)
