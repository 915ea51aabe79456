"""Counts how many jobs have ended, over all runs, and how fast they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from .throughput import Throughput


@final
class Tally:
    """
    Counts the jobs that have ended; the sinks count :attr:`done` and :attr:`failed` up.

    :ivar done: how many results have been had, or were dropped
    :ivar failed: how many jobs have ended with an error

    """

    __slots__ = ("_throughput", "_time", "done", "failed")

    _time: Callable[[], float]

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0
        self._throughput: Throughput | None = None

    def begin_run(self, time: Callable[[], float]) -> None:
        """
        Measure the throughput of another run from now on.

        :param time: tells what time it is in that run

        """
        self._time = time
        self._throughput = Throughput(time())

    def note_end(self) -> None:
        """Note that a job has ended, well or not."""
        # One for each job: no more is looked up than need be.
        throughput = self._throughput
        if throughput is not None:
            throughput.note(self._time())

    def shift(self, seconds: float) -> None:
        """Move all instants to another clock."""
        if self._throughput is not None:
            self._throughput.shift(seconds)

    def per_second(self, now: float) -> float:
        """Return how many jobs have ended per second, of late."""
        return 0.0 if self._throughput is None else self._throughput.per_second(now)
