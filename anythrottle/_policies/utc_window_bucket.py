"""The state of a fixed window that goes by UTC, which may jump."""

from __future__ import annotations

from math import inf, nextafter, ulp
from typing import final

from .bucket import Monotone, WallClockBucket
from .fixed_window_bucket import MOST_WINDOWS, FixedWindowBucket
from .window import WindowBucket, WindowTokenBucket

#: By which part of a window clocks may disagree about an edge without its being two.
_JITTER = 1 / 100


@final
class UtcWindowBucket(FixedWindowBucket, WallClockBucket):
    """
    The state of a :class:`.FixedWindow` whose windows start at set times of UTC.

    The bucket has to be told what UTC is; until then the clock is taken to show it. As that may
    jump, windows may turn out short, but no span of a window's length ever holds more than twice
    the limit: a guard watches over that.
    """

    __slots__ = ("_base", "_guard", "_offset")

    monotone: Monotone = "always"

    # The edges are what they are by one reckoning.
    carried = (*FixedWindowBucket.carried, "_base")

    def __init__(self, limit: int, window: float, offset: float) -> None:
        super().__init__(limit, window)
        self._offset = offset
        self._guard = WindowBucket(WindowTokenBucket(2 * limit, window))
        #: The instant of one of the edges. All others are computed from it, so that each of them
        #: is always the same float.
        self._base = -(-self._offset % self._window)

    @property
    def windows(self) -> tuple[object, ...]:
        return *super().windows, self._offset

    def set_utc(self, now: float, utc: float) -> None:
        # However the wall clock may have been set, that by itself resets no count: what is used is
        # carried over into the window that contains `now` by the new reckoning.
        self._roll(now)
        self._base = now - (utc - self._offset) % self._window
        if now < self._end:
            edge = self._end_from(now)
            if self._charged_at < edge - self._window:
                # Nothing was used in this window, by the new reckoning. So an edge that has just
                # passed by one clock, and is just to come by the other, costs no whole window.
                edge = min(edge, self._end)
            elif edge - self._start < self._window * _JITTER:
                # The edge at which this window started is to come again: it has been noted.
                edge += self._window

            self._end = max(edge, self._not_before)

    def delay(self, now: float, cost: int) -> float:
        return max(super().delay(now, cost), self._guard.delay(now, cost))

    def take_free(self, cost: int) -> bool:
        # The clock has to be asked, as the wall clock may say that it is another window.
        return False

    def take(self, now: float, cost: int, since: float | None = None) -> None:
        super().take(now, cost)
        self._guard.take(now, cost)

    def start(self, now: float, cost: int) -> float:
        self._guard.start(now, cost)
        return super().start(now, cost)

    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        super().give_back(now, cost, receipt)
        if receipt is None:
            self._guard.give_back(now, cost, None)
        elif self._is_of_this_window(now, receipt):
            # In the guard the charge is out for longer. If another one that comes back before it
            # is given back in its place, that is the safe side.
            slack = 4 * ulp(max(abs(now), abs(receipt), self._window))
            self._guard.give_back(now, cost, receipt - slack)

    def remaining(self, now: float) -> int:
        return min(super().remaining(now), self._guard.remaining(now))

    def reset_after(self, now: float) -> float:
        guard = self._guard.ahead(now) if self._held else self._guard
        return max(super().reset_after(now), guard.delay(now, self._limit))

    def succeed(self, old: FixedWindowBucket, now: float, told: list[tuple[float, int]]) -> bool:
        for instant, amount in told:
            self._guard.take(instant, amount)
            self._guard.start(instant, amount)

        return super().succeed(old, now, told)

    def shift(self, seconds: float) -> None:
        super().shift(seconds)
        self._base += seconds
        self._guard.shift(seconds)

    def forget_held(self) -> None:
        super().forget_held()
        self._guard.forget_held()

    def _become(self, origin: FixedWindowBucket, now: float) -> None:
        for name in UtcWindowBucket.__slots__:
            setattr(self, name, getattr(origin, name))

        self._guard = self._guard.ahead(now)
        super()._become(origin, now)

    def _edge(self, number: int) -> float:
        if number == 1:
            return self._end

        number = min(number - 1, MOST_WINDOWS)
        return self._base + (self._index(self._end) + number) * self._window

    def _end_from(self, now: float) -> float:
        edge = self._base + (self._index(now) + 1) * self._window
        # Not so if the window is shorter than the clock's resolution, as floats go.
        return edge if now < edge < inf else nextafter(now, inf)

    def _index(self, instant: float) -> float:
        """Return the number of the latest edge that is not after ``instant``."""
        index = (instant - self._base) // self._window
        if self._base + index * self._window > instant:
            index -= 1
        elif self._base + (index + 1) * self._window <= instant:
            index += 1

        return index
