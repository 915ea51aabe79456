"""Counts how many jobs have ended, over all runs, and how fast they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import final

#: How far the measurement looks back, in seconds, if many jobs have ended since then.
_SECONDS = 10.0

#: How many are many. If fewer have ended, the last so many count, however long ago that was.
_MANY = 10

#: Jobs that end within so many seconds are counted as if they had ended together.
_GRAIN = 0.02


@final
class Tally:
    """
    Counts the jobs that have ended; the sinks count :attr:`done` and :attr:`failed` up.

    :ivar done: how many results were consumed or dropped
    :ivar failed: how many jobs have ended with an error

    """

    __slots__ = ("_count", "_ends", "_grain_ends", "_since", "_time", "done", "failed")

    #: [an instant of this run, how many jobs have ended then or soon after]
    _ends: deque[list[float]]
    #: Until when they are counted as if they had ended with the last of these.
    _grain_ends: float
    #: How many these are.
    _count: float
    #: When the last job before these has ended; if there was none, when the run has begun.
    _since: float
    _time: Callable[[], float]

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0
        # No time has passed before the first run.
        self._begin(inf)

    def begin_run(self, time: Callable[[], float]) -> None:
        """
        Measure anew, because another run begins.

        :param time: returns the time in that run

        """
        self._time = time
        self._begin(time())

    def _begin(self, now: float) -> None:
        self._ends = deque()
        self._grain_ends = -inf
        self._count = 0.0
        self._since = now

    def note_end(self) -> None:
        """Note that a job has succeeded or failed."""
        now = self._time()
        ends = self._ends
        self._count += 1
        if now < self._grain_ends:
            ends[-1][1] += 1
            return

        ends.append([now, 1])
        self._grain_ends = now + _GRAIN
        while ends[0][0] <= now - _SECONDS and self._count - ends[0][1] >= _MANY:
            self._since, count = ends.popleft()
            self._count -= count

    def shift(self, seconds: float) -> None:
        """Move all instants to another clock."""
        self._since += seconds
        self._grain_ends += seconds
        for end in self._ends:
            end[0] += seconds

    def per_second(self, now: float) -> float:
        """Return how many jobs have ended per second of late."""
        since = max(now - _SECONDS, self._since)
        count = sum(count for end, count in self._ends if end > now - _SECONDS)
        if count < _MANY:
            since, count = self._since, self._count

        return count / (now - since) if now > since else 0.0
