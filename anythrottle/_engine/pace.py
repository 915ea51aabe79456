"""How many jobs end per second now."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import final

#: How far back is looked, in seconds.
_SECONDS = 10.0

#: Jobs that end within so many seconds are counted as if they had ended together.
_GRAIN = 0.02


@final
class Pace:
    """
    How many jobs have ended of late, in one run.

    :param now: when the run has begun

    """

    __slots__ = ("_began", "_ends")

    def __init__(self, now: float) -> None:
        self._began = now
        #: (an instant, how many have ended then or soon after)
        self._ends: deque[tuple[float, int]] = deque()

    def note(self, now: float) -> None:
        """Note that a job has ended."""
        ends = self._ends
        if ends and now < ends[-1][0] + _GRAIN:
            instant, count = ends[-1]
            ends[-1] = (instant, count + 1)
            return

        ends.append((now, 1))
        while ends[0][0] < now - _SECONDS:
            ends.popleft()

    def shift(self, seconds: float) -> None:
        """Move all instants to another clock."""
        self._began += seconds
        self._ends = deque((end + seconds, count) for end, count in self._ends)

    def per_second(self, now: float) -> float:
        """Return how many jobs have ended per second, of late."""
        seconds = min(now - self._began, _SECONDS)
        if seconds <= 0:
            return 0.0

        # Who has ended just when the ten seconds begin belongs to those before.
        since = now - seconds if seconds == _SECONDS else -inf
        return sum(count for end, count in self._ends if end > since) / seconds


def expected_end(begins: float, jobs: int | None, per_second: float) -> float | None:
    """
    Return when all will be done at this pace, ``None`` if that cannot be told.

    :param begins: when it may go on
    :param jobs: how many are left, ``None`` if nobody knows

    """
    if jobs is None or not (jobs == 0 or per_second > 0):
        return None

    return begins + jobs / per_second if jobs else begins
