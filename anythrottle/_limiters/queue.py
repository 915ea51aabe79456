"""The turns in line, in their order: a sorted list from which any turn may leave."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from math import inf
from operator import attrgetter
from typing import final

from .turn import Place, Turn

#: How many turns a block may hold.
_MOST = 1024

#: The blocks of a queue that no turn has joined. Never changed, so that one list serves for all.
_NO_BLOCKS: list[list[Turn]] = []

#: The place of a turn that has one.
place_of: Callable[[Turn], Place] = attrgetter("place")


@final
class TurnQueue:
    """
    Turns, ordered by their places.

    A sorted list in sorted blocks, as in Grant Jenks's *sortedcontainers*: a turn is found by
    bisection, and whatever joins or leaves moves no more than the pointers of its own block. How
    many stand before a place is the length of the blocks before it, and a bisection. So a turn
    costs the same wherever in the line it joins, leaves or is counted.
    """

    __slots__ = ("_size", "_starts", "blocks", "head", "popped")

    def __init__(self) -> None:
        #: The turn that is next.
        self.head: Turn | None = None
        #: None of the blocks is empty: so there are none if and only if no turn is in line.
        self.blocks: list[list[Turn]] = _NO_BLOCKS
        #: For each block but the first: a place that separates it from the block before.
        self._starts: tuple[tuple[float, float], ...] = ()
        self._size = 0
        #: How many turns were taken out as the head so far.
        self.popped = 0

    def __len__(self) -> int:
        return self._size

    def add(self, turn: Turn) -> None:
        """Put a turn in its place."""
        place = turn.place
        turn.in_line = True
        self._size += 1
        blocks = self.blocks
        if not blocks:
            self.blocks = [[turn]]
            self.head = turn
        elif place > blocks[-1][-1].place:
            # This is nearly always so; full blocks stay full.
            if len(blocks[-1]) < _MOST:
                blocks[-1].append(turn)
            else:
                blocks.append([turn])
                self._starts = (*self._starts, place)
        else:
            index = bisect_right(self._starts, place)
            insort(blocks[index], turn, key=place_of)
            self.head = blocks[0][0]
            if len(blocks[index]) > _MOST:
                self._split(index)

    def pop(self) -> None:
        """Take the head out."""
        self.popped += 1
        self._take_out(0, 0)

    def remove(self, turn: Turn) -> None:
        """Take any turn out."""
        index = bisect_right(self._starts, turn.place)
        block = self.blocks[index]
        position = bisect_left(block, turn.place, key=place_of)
        assert block[position] is turn
        self._take_out(index, position)

    def rank(self, place: tuple[float, float]) -> int:
        """Return how many turns stand at a place or before it."""
        blocks = self.blocks
        if not blocks or blocks[-1][-1].place <= place:
            return self._size

        index = bisect_right(self._starts, place)
        within = bisect_right(blocks[index], place, key=place_of)
        return sum(map(len, blocks[:index])) + within

    def ranked(self, start: int, stop: int) -> list[Turn]:
        """Return the turns that have ``start`` or more, but fewer than ``stop``, before them."""
        turns: list[Turn] = []
        for block in self.blocks:
            if stop <= 0:
                break

            if start < len(block):
                turns += block[max(start, 0) : stop]

            start -= len(block)
            stop -= len(block)

        return turns

    def ahead_of(self, priority: float = inf) -> list[Turn]:
        """Return the turns that go before a newcomer of a priority, the first one first."""
        return self.ranked(0, self.count_ahead(priority))

    def count_ahead(self, priority: float) -> int:
        """Return how many turns go before a newcomer of a priority."""
        return self.rank((priority, inf))

    def behind(self, place: tuple[float, float]) -> Iterator[Turn]:
        """Return the turns that stand behind a place, the last one first."""
        for block in reversed(self.blocks):
            for turn in reversed(block):
                if turn.place <= place:
                    return

                yield turn

    def clear(self) -> None:
        """Forget all turns."""
        self.blocks = _NO_BLOCKS
        self.head = None
        self._starts = ()
        self._size = 0

    def _take_out(self, index: int, position: int) -> None:
        block = self.blocks[index]
        block.pop(position).in_line = False
        self._size -= 1
        if not block:
            del self.blocks[index]
            # What separated it from a neighbour separates the two neighbours now.
            self._starts = self._starts[: max(index - 1, 0)] + self._starts[max(index, 1) :]

        self.head = self.blocks[0][0] if self.blocks else None

    def _split(self, index: int) -> None:
        block = self.blocks[index]
        half = block[_MOST // 2 :]
        del block[_MOST // 2 :]
        self.blocks.insert(index + 1, half)
        starts = self._starts
        self._starts = (*starts[:index], half[0].place, *starts[index:])
