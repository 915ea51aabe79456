"""The exact window: no window of its length, wherever it starts, holds more than the limit."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import inf, nextafter
from typing import Literal, final

from .bucket import Bucket
from .charge_log import ChargeLog
from .checks import check_count, check_measure, check_seconds, check_unit
from .policy import seconds_until

#: How many charges are remembered one by one; beyond, neighbours are merged.
_EXACT_ENTRIES = 1000

#: The part of the window by which merging may delay a return.
_GRAIN = 1 / 1000

#: How many charges that have come back are remembered, for a successor with a longer memory.
_PAST_ENTRIES = 16

#: A charge that is out: the instant at which it comes back, the amount, the instant it counts from.
_Entry = tuple[float, int, float]


@dataclass(frozen=True, slots=True)
class WindowTokenBucket:
    """
    At most ``limit`` in any ``window`` seconds, wherever the window starts.

    A token counts from the instant the call may begin and comes back ``window`` seconds later.
    So a full burst is allowed, and after it the bucket refills in the same rhythm. This is the
    "sliding window log" of the literature, kept in bounded memory: beyond about a thousand
    charges, neighbours are merged so that they come back *later* by at most a thousandth of the
    window, never earlier.

    With ``measure="end"`` a token comes back ``window`` seconds after the call *ended*. Whatever
    instant within the call the server counts it at, no window of the server's own clock then
    holds more than ``limit``.

    >>> WindowTokenBucket(20, 10)
    WindowTokenBucket(limit=20, window=10.0, measure='start', unit='calls')

    :param limit: the most that is charged in one window, in ``unit``, at least 1
    :param window: the length of the window in seconds, above 0
    :param measure: ``"start"``: the window runs from the call's start; ``"end"``: from its end
    :param unit: what is counted; any other than ``"calls"`` (or ``"requests"``, which is the same)
        has to be named in each cost
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range

    """

    limit: int
    window: float
    _: KW_ONLY
    measure: Literal["start", "end"] = "start"
    unit: str = "calls"

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        object.__setattr__(self, "window", check_seconds("window", self.window))
        check_measure(self.measure)
        object.__setattr__(self, "unit", check_unit(self.unit))

    @property
    def holds(self) -> bool:
        """Whether a charge is held for as long as its call runs."""
        return self.measure == "end"

    def bucket(self) -> WindowBucket:
        """Return a new, full bucket."""
        return EndWindowBucket(self) if self.holds else WindowBucket(self)


class WindowBucket(Bucket):
    """
    The state of a :class:`WindowTokenBucket`.

    Invariant: the limit is what is free, plus what is held, plus the sum of the entries. Entries
    stand in the order in which they come back; one that is due is free when that is next noted.
    What is free is below zero while the bucket is in debt.
    """

    __slots__ = ("_entries", "_free", "_limit", "_merge_until", "_out", "_past", "_window")

    quick = True
    uses_since = False
    exact_history = True
    monotone = "always"

    def __init__(self, policy: WindowTokenBucket) -> None:
        self._limit = policy.limit
        self._window = policy.window
        self._free = policy.limit
        # A list: the smallest deque is ten times as big, and a long one is shifted in no time.
        self._entries: list[_Entry] = []
        #: The sum of the entries.
        self._out = 0
        #: Up to which instant the last entry's return may be moved, to merge later charges in it.
        self._merge_until = -inf
        #: What has come back.
        self._past: ChargeLog | None = None

    @property
    def capacity(self) -> float:
        return self._limit

    def delay(self, now: float, cost: int) -> float:
        missing = cost - self._free
        if missing <= 0:
            return 0.0

        for back_at, amount, _ in self._entries:
            missing -= amount
            if missing <= 0:
                return 0.0 if back_at <= now else seconds_until(now, back_at)

        return inf

    def take_free(self, cost: int) -> bool:
        free = self._free - cost
        if free < 0:
            return False

        self._free = free
        return True

    def take(self, now: float, cost: int, since: float | None = None) -> None:
        if self._entries and self._entries[0][0] <= now:
            self._note_returns(now)

        self._free -= cost

    def start(self, now: float, cost: int) -> float:
        entries = self._entries
        if entries and entries[0][0] <= now:
            self._note_returns(now)

        window = self._window
        back_at = now + window
        if back_at - now < window:
            # The sum was rounded down: measured afterwards, the window must not be too short.
            back_at = nextafter(back_at, inf)

        self._out += cost
        if entries:
            last, amount, instant = entries[-1]
            if back_at <= last:
                # The same instant; or a clock that went back, for which later is the safe side.
                entries[-1] = (last, amount + cost, max(instant, now))
                return last

            if back_at <= self._merge_until and len(entries) >= _EXACT_ENTRIES:
                entries[-1] = (back_at, amount + cost, now)
                return back_at

        entries.append((back_at, cost, now))
        self._merge_until = back_at + window * _GRAIN
        return back_at

    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        self._note_returns(now)
        if receipt is None or receipt == inf:
            self._free += cost
            return

        if receipt <= now:
            return

        # Its return may have been moved, by merging or by tighten(), but never to an earlier one.
        for index, (back_at, amount, instant) in enumerate(self._entries):
            if back_at >= receipt:
                part = min(amount, cost)
                self._entries[index] = (back_at, amount - part, instant)
                self._free += part
                self._out -= part
                cost -= part
                if not cost:
                    break

    def tighten(self, now: float, remaining: int, reset_after: float | None) -> None:
        self._note_returns(now)
        withheld = max(self._free - remaining, 0)
        #: What may still come back before the reset.
        spare = max(remaining - self._free, 0)
        self._free -= withheld
        if reset_after is None:
            if withheld:
                WindowBucket.start(self, now, withheld)

            return

        self._out += withheld
        reset_at = now + min(reset_after, self._window)
        early: list[_Entry] = []
        later = [entry for entry in self._entries if entry[0] > reset_at]
        for back_at, amount, instant in self._entries[: len(self._entries) - len(later)]:
            part = min(amount, spare)
            spare -= part
            withheld += amount - part
            early.append((back_at, part, instant))

        if withheld:
            early.append((reset_at, withheld, now))

        self._entries = early + later

    def remaining(self, now: float) -> int:
        free = self._free
        for back_at, amount, _ in self._entries:
            if back_at > now:
                break

            free += amount

        return max(free, 0)

    def reset_after(self, now: float) -> float:
        last = self._entries[-1][0] if self._entries else now
        if self._held():
            last = max(last, now + self._window)

        return seconds_until(now, last)

    def left(self, now: float) -> tuple[int, float, float]:
        if self._entries and self._free >= 0:
            back_at, amount, _ = self._entries[0]
            if amount and back_at > now:
                # The common case, at a third of the cost.
                return self._free, seconds_until(now, back_at), self.reset_after(now)

        return super().left(now)

    def drop_due(self, now: float) -> None:
        if self._entries and self._entries[0][0] <= now:
            self._note_returns(now)

    def history(self, now: float) -> list[tuple[float, int]]:
        entries = [(instant, amount) for _, amount, instant in self._entries if amount]
        return entries if self._past is None else self._past.entries() + entries

    def shift(self, seconds: float) -> None:
        self._entries = [_shifted(entry, seconds) for entry in self._entries]
        if self._past is not None:
            self._past.shift(seconds)

        self._merge_until += seconds

    def forget_held(self) -> None:
        self._free += self._held()

    def ahead(self, now: float, *, ended: bool = False) -> WindowBucket:
        copy = object.__new__(WindowBucket if ended else type(self))
        copy._limit = self._limit
        copy._window = self._window
        copy._free = self._free
        copy._entries = self._entries.copy()
        copy._out = self._out
        copy._merge_until = self._merge_until
        copy._past = None
        held = copy._held()
        if held:
            copy.start(now, held)

        return copy

    def _held(self) -> int:
        return self._limit - self._free - self._out

    def _note_returns(self, now: float) -> None:
        count = 0
        for back_at, amount, instant in self._entries:
            if back_at > now:
                break

            count += 1
            self._free += amount
            self._out -= amount
            if amount:
                if self._past is None:
                    self._past = ChargeLog(_PAST_ENTRIES)

                self._past.note(instant, amount)

        del self._entries[:count]


def _shifted(entry: _Entry, seconds: float) -> _Entry:
    """Return an entry by a clock that is ahead; rounded up, lest a token comes back early."""
    back_at, amount, instant = entry
    return nextafter(back_at + seconds, inf), amount, nextafter(instant + seconds, inf)


@final
class EndWindowBucket(WindowBucket):
    """The state of a :class:`WindowTokenBucket` that measures from the end of the call."""

    __slots__ = ()

    def start(self, now: float, cost: int) -> float:
        return inf

    def release(self, now: float, cost: int, receipt: float) -> float:
        return super().start(now, cost) if receipt == inf else receipt
