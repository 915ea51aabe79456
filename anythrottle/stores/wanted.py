"""What a process wants, as far as it has told the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from .._limiters.queue import TurnQueue
from .exchange import Amounts, Grant, Want
from .stock import Stock

#: The longest part of the line that the server is told of, in turns and in runs of equal cost.
TOLD_TURNS, _TOLD_RUNS = 2000, 64


@final
class Wanted:
    """What the server knows to be wanted: how many calls of each kind, and of which kind first."""

    __slots__ = ("_front", "_told")

    def __init__(self) -> None:
        self._told: dict[Amounts, int] = {}
        self._front: Amounts | None = None

    @property
    def count(self) -> int:
        """How many calls want something."""
        return sum(self._told.values())

    def knows(self, front: Amounts) -> bool:
        """Return whether the server knows that a call of this kind is the next one."""
        return front in self._told if self._front is None else front == self._front

    def tell(self, wants: Sequence[Want]) -> None:
        """Note what the server is told."""
        self._told = by_amounts(wants)
        self._front = wants[0].amounts if wants else None

    def get(self, grant: Grant) -> None:
        """Note that some of it has been granted."""
        left = self._told.pop(grant.amounts, 0) - grant.count
        if left > 0:
            self._told[grant.amounts] = left
        elif self._front == grant.amounts:
            self._front = None


def wants_of(queue: TurnQueue) -> tuple[list[Want], int]:
    """
    Return what the turns in line want, from the front; of a long line, the first part.

    Return also how many turns the server is to be told of at most, by how costs vary in this line.
    """
    wants: list[Want] = []
    amounts: Amounts | None = None
    count = 0
    for turn in queue.ranked(0, TOLD_TURNS):
        if turn.amounts == amounts:
            count += 1
            continue

        if amounts is not None:
            wants.append(Want(amounts, count))
            if len(wants) == _TOLD_RUNS:
                return wants, sum(want.count for want in wants)

        amounts, count = tuple(turn.amounts), 1

    if amounts is not None:
        wants.append(Want(amounts, count))

    return wants, TOLD_TURNS


def by_amounts(wants: Sequence[Want]) -> dict[Amounts, int]:
    """Return how many calls want what."""
    counts: dict[Amounts, int] = {}
    for want in wants:
        counts[want.amounts] = counts.get(want.amounts, 0) + want.count

    return counts


def unmet(wants: Sequence[Want], stock: Stock) -> tuple[Want, ...]:
    """Return what is wanted on top of what is in stock."""
    there: dict[Amounts, int] = {}
    asked: list[Want] = []
    for want in wants:
        left = there.setdefault(want.amounts, stock.count(want.amounts))
        met = min(left, want.count)
        there[want.amounts] -= met
        if want.count > met:
            asked.append(Want(want.amounts, want.count - met))

    return tuple(asked)
