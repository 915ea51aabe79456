"""The state of a fixed window."""

from __future__ import annotations

from math import inf, nextafter

from .bucket import Bucket, LevelBucket, Monotone
from .charge_log import ChargeLog
from .policy import seconds_until

#: More windows in a row than this are as good as infinitely many; their number is still a float.
MOST_WINDOWS = 2**1000

#: How many charges are remembered, for a successor.
_LOGGED = 64


class FixedWindowBucket(LevelBucket):
    """
    The state of a :class:`.FixedWindow` whose windows start at their first call.

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
        "_log",
        "_not_before",
        "_start",
        "_used",
        "_window",
    )

    quick = True
    uses_since = False
    # Windows that open with a call may, by other policies, open at other instants.
    monotone: Monotone = "alone"

    #: What a successor goes on with: what is used in which window.
    carried: tuple[str, ...] = (
        *("_charged_at", "_end", "_foreign", "_latest"),
        *("_not_before", "_start", "_used"),
    )

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._used = 0
        self._end = -inf
        #: When the window started, by the reckoning of then.
        self._start = -inf
        self._held = 0
        #: When something was charged last.
        self._charged_at = -inf
        #: Before which instant the window must not end, as a server has said.
        self._not_before = -inf
        #: The latest receipt of all, and the latest of those from windows that have ended.
        self._latest = self._foreign = -inf
        self._log = ChargeLog(_LOGGED)

    @property
    def capacity(self) -> float:
        return self._limit

    @property
    def windows(self) -> tuple[object, ...]:
        """The kind and length of the windows, whatever their limit."""
        return type(self), self._window

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
        # A window ignores `since`: calls count from when they begin.
        self._held += cost

    def start(self, now: float, cost: int) -> float:
        self._held -= cost
        self._open(now)
        self._charge(now, cost)
        self._latest = max(self._latest, self._end)
        return self._end

    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        if receipt is None:
            self._held -= cost
        elif self._is_of_this_window(now, receipt):
            self._used -= cost
            self._log.forget(cost, self._start)

    def tighten(self, now: float, remaining: int, reset_after: float | None) -> None:
        self._roll(now)
        room = self._limit - self._held
        free = room - self._used
        reset_at = now if reset_after is None else now + min(reset_after, self._window)
        end = self._end if now < self._end else self._end_from(now)
        # Ending before the reset would also admit the next window's quota, which is right only if
        # the server leaves enough for it.
        next_room = room - max(self._used - self._limit, 0)
        if self._end_from(end) < reset_at:
            # The end was put off, so that the one after it, at a set time, is near.
            next_room += room

        early = end < reset_at and max(min(free, remaining), 0) + next_room > remaining
        if free > remaining or early:
            self._open(now)
            self._charge(now, max(free - remaining, 0))

        if early:
            self._end = self._not_before = reset_at

    def remaining(self, now: float) -> int:
        return max(self._limit - self._held - self._used_at(now), 0)

    def reset_after(self, now: float) -> float:
        # Copied only if that makes a difference.
        ahead = self.ahead(now) if self._held else self
        return seconds_until(now, ahead.full_at(now))

    def history(self, now: float) -> list[tuple[float, int]]:
        return self._log.entries()

    def forgive(self, now: float, until: float) -> bool:
        excess = self._used_at(max(now, until)) - self._limit
        if excess <= 0:
            return False

        self._used -= excess
        return True

    def unlikeness(self, old: Bucket) -> tuple[float, ...] | None:
        if isinstance(old, FixedWindowBucket) and old.windows == self.windows:
            return ()

        return None

    def succeed(self, old: FixedWindowBucket, now: float, told: list[tuple[float, int]]) -> bool:
        # Goes on with the window that is under way, and with what has been used in it.
        for instant, amount in told:
            self._log.note(instant, amount)

        # At the edges that have passed, the old limit's worth was left behind.
        old._roll(now)
        for name in self.carried:
            setattr(self, name, getattr(old, name))

        return self.forgive(now, now + old.delay(now, 0))

    def shift(self, seconds: float) -> None:
        self._end = _moved(self._end, seconds)
        self._start = _moved(self._start, seconds)
        self._charged_at = _moved(self._charged_at, seconds)
        self._not_before = _moved(self._not_before, seconds)
        self._latest = _moved(self._latest, seconds)
        self._foreign = _moved(self._foreign, seconds)
        self._log.shift(seconds)

    def forget_held(self) -> None:
        self._held = 0

    def ahead(self, now: float, *, ended: bool = False) -> FixedWindowBucket:
        copy = object.__new__(type(self))
        copy._become(self, now)
        return copy

    def full_at(self, now: float) -> float:
        """Return the instant, maybe past, at which all but what is held is there again."""
        # What a server has said counts on, though nothing may be used.
        if not self._used_at(now):
            return self._not_before

        return max(self._edge(-(-self._used // self._limit)), self._not_before)

    def _become(self, origin: FixedWindowBucket, now: float) -> None:
        """Take over the state of ``origin``, as it would be if what is held there began now."""
        for name in FixedWindowBucket.__slots__:
            setattr(self, name, getattr(origin, name))

        self._log = ChargeLog(_LOGGED)
        if self._held:
            # This class's start(): the parts that a subclass adds have been advanced already.
            FixedWindowBucket.start(self, now, self._held)

    def _charge(self, now: float, amount: int) -> None:
        self._used += amount
        self._charged_at = max(self._charged_at, now)
        if amount:
            self._log.note(now, amount)

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
        return _later(self._end, min(number - 1, MOST_WINDOWS) * self._window)

    def _end_from(self, now: float) -> float:
        """Return the end of a window that is opened now."""
        return _later(now, self._window)

    def _roll(self, now: float) -> None:
        """Note which window it is now; after the end of one, another follows only to carry debt."""
        passed = self._edges_passed(now)
        if not passed:
            return

        self._foreign = self._latest
        self._used = max(self._used - passed * self._limit, 0)
        if self._used:
            self._charged_at = max(self._charged_at, self._edge(passed))
            self._start = self._edge(passed)
            self._end = self._edge(passed + 1)
        else:
            self._end = -inf

    def _open(self, now: float) -> None:
        """Open a window, unless one is under way."""
        self._roll(now)
        if self._end <= now:
            self._end = self._end_from(now)
            self._start = self._end - self._window

    def _is_of_this_window(self, now: float, receipt: float) -> bool:
        # The window's end may have been moved since. Receipts never get earlier, except where a
        # wall clock that was set forward makes windows short: then it is safe to find one foreign.
        # While there is no window, all receipts are foreign.
        self._roll(now)
        return receipt > self._foreign


def _later(instant: float, seconds: float) -> float:
    """Return the instant ``seconds`` later, from which the difference is never less than that."""
    later = instant + seconds
    return nextafter(later, inf) if later - instant < seconds else later


def _moved(instant: float, seconds: float) -> float:
    """Return an instant by another clock, rounded up; minus infinity, for never, stays."""
    return nextafter(instant + seconds, inf) if instant > -inf else instant
