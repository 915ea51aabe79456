"""Measures how many jobs end per second now."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import final

#: How far back is looked, in seconds, if many jobs have ended since then.
_SECONDS = 10.0

#: So many are many. If there are fewer, the last so many count, however long ago they have ended.
_MANY = 10

#: Jobs that end within so many seconds are counted as if they had ended together.
_GRAIN = 0.02


@final
class Throughput:
    """
    The number of jobs that have ended of late, in one run.

    :param now: when the run has begun

    """

    __slots__ = ("_count", "_ends", "_grain_ends", "_since")

    def __init__(self, now: float) -> None:
        #: [an instant, how many have ended then or soon after]
        self._ends: deque[list[float]] = deque()
        #: Until when they are counted as if they had ended with the last of these.
        self._grain_ends = -inf
        #: How many these are.
        self._count = 0.0
        #: When the last has ended that is not among these, or else the run has begun.
        self._since = now

    def note(self, now: float) -> None:
        """Note that a job has ended."""
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
        self._ends = deque([end + seconds, count] for end, count in self._ends)

    def per_second(self, now: float) -> float:
        """Return how many jobs have ended per second, of late."""
        since = max(now - _SECONDS, self._since)
        count = sum(count for end, count in self._ends if end > now - _SECONDS)
        if count < _MANY:
            since, count = self._since, self._count

        return count / (now - since) if now > since else 0.0


def expected_in(paused_for: float, jobs: int | None, per_second: float) -> float | None:
    """
    Return in how many seconds all will be done at this throughput, ``None`` if that is unknown.

    :param paused_for: in how many seconds it may go on
    :param jobs: how many are left, ``None`` if unknown

    """
    if jobs == 0:
        return 0.0

    return None if jobs is None or per_second <= 0 else paused_for + jobs / per_second
