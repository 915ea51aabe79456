"""UTC by a loop's clock."""

from __future__ import annotations

import time
from typing import final

#: By how much a wall clock that has not been set may have drifted from the real one, in seconds.
_DRIFT = 0.5


@final
class UtcReader:
    """
    Returns what UTC is at an instant of a loop's clock.

    That is what the wall clock says, which may have been set since the last time. Only where the
    loop's clock is a virtual one, and the wall clock has gone on in real time, UTC goes on with the
    loop's clock: an hour that passes there in a millisecond has passed for UTC as well.
    """

    __slots__ = ("_instant", "_real", "_wall")

    def __init__(self) -> None:
        #: What the virtual, the real and the wall clock said when UTC was set last.
        self._instant: float | None = None
        self._real = self._wall = 0.0

    def read(self, now: float, *, real_clock: bool) -> float:
        """
        Return UTC at ``now``, in seconds since the epoch.

        :param now: the time by the loop's clock
        :param real_clock: whether that clock is ``time.monotonic()``
        """
        wall, real = time.time(), time.monotonic()
        if real_clock:
            # The thread may have been held up since it read ``now``.
            return wall - (real - now)

        passed = real - self._real
        if self._instant is None or abs(wall - self._wall - passed) > _DRIFT:
            self._instant, self._real, self._wall = now, real, wall

        return self._wall + (now - self._instant)
