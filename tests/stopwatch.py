"""Real time in tests: it is measured, or stands still, so that no machine is too slow."""

from __future__ import annotations

import time

#: By how much a reading may be off after a change of clocks, in seconds.
ROUNDING = 0.001


class RealTime:
    """Stands in for ``time.monotonic()``: stands still, and is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stopwatch:
    """Tells how much real time has passed since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def may_be_left(self, of: float, seconds: float) -> bool:
        """Whether what began after the stopwatch and lasts ``of`` seconds may have these left."""
        return of - self.elapsed - ROUNDING <= seconds <= of + ROUNDING
