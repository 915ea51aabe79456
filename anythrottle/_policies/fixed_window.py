"""The fixed window: quotas that reset at set times."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import inf, nextafter, ulp
from typing import Literal, final

from .checks import check_count, check_offset, check_seconds, check_unit
from .policy import seconds_until
from .window import WindowBucket, WindowTokenBucket

#: More windows in a row than this are as good as infinitely many; their number is still a float.
_MOST_WINDOWS = 2**1000


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """
    At most ``limit`` in each of the windows of ``window`` seconds that follow one another.

    With ``align="first"`` a window starts at the first call after the last window has ended. With
    ``align="utc"`` windows start on the multiples of ``window`` in UTC, counted in seconds since
    the epoch, plus ``offset``. So a quota per day, reset at 08:00 UTC, is
    ``FixedWindow(1000, 86400, align="utc", offset=8 * 3600)``.

    This is the "fixed window counter" of the literature. The whole limit may pass just before the
    edge of a window and again just after it: any ``window`` seconds can hold up to ``2 * limit``.
    More than that never passes, even if the wall clock is set forward or back: that by itself
    resets no count. Where a server counts more strictly, use a
    :class:`~anythrottle.WindowTokenBucket`.

    >>> FixedWindow(20, 10)
    FixedWindow(limit=20, window=10.0, align='first', offset=0.0, unit='calls')

    :param limit: the most that is charged in one window, in ``unit``, at least 1
    :param window: the length of the window in seconds, above 0
    :param align: ``"first"``: a window starts at its first call; ``"utc"``: at set times of UTC
    :param offset: by how much windows start later than the multiples of ``window``, in seconds,
        or earlier if it is negative; for ``align="utc"`` only
    :param unit: what is counted; any other than ``"calls"`` has to be named in each cost
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range, or there is an ``offset`` without
        ``align="utc"``

    """

    limit: int
    window: float
    _: KW_ONLY
    align: Literal["first", "utc"] = "first"
    offset: float = 0.0
    unit: str = "calls"

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        object.__setattr__(self, "window", check_seconds("window", self.window))
        if self.align not in ("first", "utc"):
            raise ValueError(f"align must be 'first' or 'utc', not {self.align!r}")

        object.__setattr__(self, "offset", check_offset("offset", self.offset))
        if self.offset and self.align != "utc":
            raise ValueError(f"offset must be 0 unless align is 'utc', not {self.offset!r}")

        check_unit(self.unit)

    @property
    def holds(self) -> bool:
        """Whether a charge is held for as long as its call runs: never."""
        return False

    def bucket(self) -> FixedWindowBucket:
        """Return a new, full bucket."""
        return UtcWindowBucket(self) if self.align == "utc" else FixedWindowBucket(self)


class FixedWindowBucket:
    """
    The state of a :class:`FixedWindow` whose windows start at their first call.

    ``_used`` has been charged in the window that ends at ``_end``, the latest that was noted. What
    is held is charged to no window yet, so it counts in each. What was charged beyond the limit is
    carried on: windows follow without a gap, and each takes over as much as the limit, until
    nothing is left.
    """

    __slots__ = (
        "_charged_at",
        "_end",
        "_foreign",
        "_held",
        "_latest",
        "_limit",
        "_not_before",
        "_used",
        "_window",
    )

    def __init__(self, policy: FixedWindow) -> None:
        self._limit = policy.limit
        self._window = policy.window
        self._used = 0
        self._end = -inf
        self._held = 0
        #: When something was charged last.
        self._charged_at = -inf
        #: Before which instant the window must not end, as a server has said.
        self._not_before = -inf
        #: The latest receipt of all, and the latest of those from windows that have ended.
        self._latest = self._foreign = -inf

    @property
    def capacity(self) -> float:
        return self._limit

    def delay(self, now: float, cost: int) -> float:
        room = self._limit - self._held - cost
        if room < 0:
            return inf

        if self._used_at(now) <= room:
            return 0.0

        # At each edge the limit's worth of what is used is left behind.
        edges = -((room - self._used) // self._limit)
        return seconds_until(now, self._edge(edges))

    def take_free(self, cost: int) -> bool:
        # As if the latest window had not ended, though it may have.
        if self._held + self._used + cost > self._limit:
            return False

        self._held += cost
        return True

    def take(self, now: float, cost: int, since: float | None = None) -> None:
        # Since when it has been due is nothing to a window: calls count from when they begin.
        self._held += cost

    def start(self, now: float, cost: int) -> float:
        self._held -= cost
        self._open(now)
        self._used += cost
        self._charged_at = max(self._charged_at, now)
        self._latest = max(self._latest, self._end)
        return self._end

    def release(self, now: float, cost: int, receipt: float) -> float:
        return receipt

    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        if receipt is None:
            self._held -= cost
        elif self._is_of_this_window(now, receipt):
            self._used -= cost

    def tighten(self, now: float, remaining: int, reset_after: float | None) -> None:
        self._roll(now)
        room = self._limit - self._held
        free = room - self._used
        reset_at = now if reset_after is None else now + min(reset_after, self._window)
        end = self._end if now < self._end else self._end_from(now)
        # An end before the reset would let a whole limit more go; where the server leaves enough
        # for that, too, it may.
        early = end < reset_at and min(free, remaining) + room > remaining
        if free > remaining or early:
            self._open(now)
            self._used += max(free - remaining, 0)
            self._charged_at = max(self._charged_at, now)

        if early:
            self._end = self._not_before = reset_at

    def remaining(self, now: float) -> int:
        return max(self._limit - self._held - self._used_at(now), 0)

    def reset_after(self, now: float) -> float:
        return seconds_until(now, self.ahead(now).full_at(now))

    def history(self, now: float) -> list[tuple[float, int]]:
        used = self._used_at(now)
        if not used:
            return []

        passed = self._edges_passed(now)
        return [(max(self._charged_at, self._edge(passed)) if passed else self._charged_at, used)]

    def shift(self, seconds: float) -> None:
        self._end = _moved(self._end, seconds)
        self._charged_at = _moved(self._charged_at, seconds)
        self._not_before = _moved(self._not_before, seconds)
        self._latest = _moved(self._latest, seconds)
        self._foreign = _moved(self._foreign, seconds)

    def forget_held(self) -> None:
        self._held = 0

    def ahead(self, now: float, *, ended: bool = False) -> FixedWindowBucket:
        copy = object.__new__(type(self))
        copy._become(self, now)
        return copy

    def full_at(self, now: float) -> float:
        """Return the instant at which it is full again but for what is held, maybe a past one."""
        # What a server has said counts on, though nothing may be used.
        if not self._used_at(now):
            return self._not_before

        return max(self._edge(-(-self._used // self._limit)), self._not_before)

    def _become(self, origin: FixedWindowBucket, now: float) -> None:
        """Be as another one would be if what it holds began now."""
        for name in FixedWindowBucket.__slots__:
            setattr(self, name, getattr(origin, name))

        if self._held:
            # Of its own, without the parts that another kind may have: these are ahead already.
            FixedWindowBucket.start(self, now, self._held)

    def _used_at(self, now: float) -> int:
        return max(self._used - self._edges_passed(now) * self._limit, 0)

    def _edges_passed(self, now: float) -> int:
        """Return how many edges there have been, up to the one at which nothing was left."""
        if now < self._end:
            return 0

        # Found by comparing instants, so that an edge is one for delay() and for this alike.
        least, most = 1, -(-self._used // self._limit)
        while least < most:
            middle = (least + most + 1) // 2
            if self._edge(middle) <= now:
                least = middle
            else:
                most = middle - 1

        return least

    def _edge(self, number: int) -> float:
        """Return the end of the latest window, number 1, or of one that is to follow it."""
        return _later(self._end, min(number - 1, _MOST_WINDOWS) * self._window)

    def _end_from(self, now: float) -> float:
        """Return the end of a window that is opened now."""
        return _later(now, self._window)

    def _roll(self, now: float) -> None:
        """Note which window it is now; there is one, beyond its end, only while debt is left."""
        passed = self._edges_passed(now)
        if not passed:
            return

        self._foreign = self._latest
        self._used = max(self._used - passed * self._limit, 0)
        if self._used:
            self._charged_at = max(self._charged_at, self._edge(passed))
            self._end = self._edge(passed + 1)
        else:
            self._end = -inf

    def _open(self, now: float) -> None:
        """Let there be a window now."""
        self._roll(now)
        if self._end <= now:
            self._end = self._end_from(now)

    def _is_of_this_window(self, now: float, receipt: float) -> bool:
        # Its window's end may have been moved since. Receipts never get earlier, but where a wall
        # clock that was set forward makes windows short: then it is safe to find it foreign.
        self._roll(now)
        return now < self._end and receipt > self._foreign


@final
class UtcWindowBucket(FixedWindowBucket):
    """
    The state of a :class:`FixedWindow` whose windows start at set times of UTC.

    What UTC is, it has to be told; until then the clock is taken to show it. As that may jump,
    windows may turn out short, but no span of a window's length ever holds more than twice the
    limit: a guard watches over that.
    """

    __slots__ = ("_base", "_guard", "_offset")

    def __init__(self, policy: FixedWindow) -> None:
        super().__init__(policy)
        self._offset = policy.offset
        self._guard = WindowBucket(WindowTokenBucket(2 * policy.limit, policy.window))
        #: The instant of one of the edges. All others are computed from it, so that each of them
        #: is always the same float.
        self._base = -(-self._offset % self._window)

    def set_utc(self, now: float, utc: float) -> None:
        """
        Tell that at the instant ``now`` UTC is ``utc``, in seconds since the epoch.

        However the wall clock may have been set, that by itself resets no count: what is used is
        carried over into the window that contains ``now`` by the new reckoning.

        """
        self._roll(now)
        self._base = now - (utc - self._offset) % self._window
        if now < self._end:
            edge = self._end_from(now)
            if self._charged_at < edge - self._window:
                # Nothing was used in this window, by the new reckoning. So an edge that has just
                # passed by one clock, and is just to come by the other, costs no whole window.
                edge = min(edge, self._end)

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
        guarded = self._guard.ahead(now).delay(now, self._limit)
        return max(super().reset_after(now), guarded)

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

        number = min(number - 1, _MOST_WINDOWS)
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


def _later(instant: float, seconds: float) -> float:
    """Return an instant from which it has been so long, however one computes that."""
    later = instant + seconds
    return nextafter(later, inf) if later - instant < seconds else later


def _moved(instant: float, seconds: float) -> float:
    """Return an instant by another clock, rounded up; one that never was stays so."""
    return nextafter(instant + seconds, inf) if instant > -inf else instant
