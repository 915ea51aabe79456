"""Those in line, in their order: a priority queue from which anyone may leave."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import final

from .turn import Place, Turn

#: How many that have left may stay in the heap.
_FEW = 32


@final
class TurnQueue:
    """Turns, ordered by their places."""

    __slots__ = ("_gone", "heap", "worst")

    def __init__(self) -> None:
        #: Empty only if nobody is there; the other way round, ask :meth:`first`.
        self.heap: list[tuple[Place, Turn]] = []
        #: How many in the heap have left; they stay there until they come up.
        self._gone = 0
        #: The worst priority that somebody here may have.
        self.worst = -inf

    def __len__(self) -> int:
        return len(self.heap) - self._gone

    def add(self, turn: Turn) -> None:
        """Let a turn come in."""
        assert turn.place is not None
        turn.in_line = True
        if turn.place[0] > self.worst:
            self.worst = turn.place[0]

        heappush(self.heap, (turn.place, turn))

    def first(self) -> Turn | None:
        """Return the one that is next."""
        heap = self.heap
        while heap and not heap[0][1].in_line:
            heappop(heap)
            self._gone -= 1

        if heap:
            return heap[0][1]

        self.worst = -inf
        return None

    def pop(self) -> None:
        """Let the one that :meth:`first` has returned go."""
        heappop(self.heap)[1].in_line = False

    def remove(self, turn: Turn) -> None:
        """Let any of them go."""
        turn.in_line = False
        self._gone += 1
        if self._gone > _FEW and self._gone > len(self.heap) / 2:
            self.heap = [entry for entry in self.heap if entry[1].in_line]
            heapify(self.heap)
            self._gone = 0

    def ahead_of(self, priority: float = inf) -> list[Turn]:
        """Return those that go before a newcomer, the first one first."""
        ahead = [entry for entry in self.heap if entry[1].in_line and entry[0][0] <= priority]
        return [turn for _, turn in sorted(ahead, key=_place)]

    def count_ahead(self, priority: float) -> int:
        """Return how many go before a newcomer."""
        return len(self) if priority >= self.worst else len(self.ahead_of(priority))

    def clear(self) -> None:
        """Forget all."""
        self.heap = []
        self._gone = 0
        self.worst = -inf


def _place(entry: tuple[Place, Turn]) -> Place:
    return entry[0]
