"""What was granted to a process and has not been used yet."""

from __future__ import annotations

from collections import deque
from math import inf, nextafter
from typing import final

from .exchange import Amounts, Grant, Micros
from .server_clock import ServerClock

#: By how much sums of floats may differ, in seconds: less than the server's clock resolves.
ROUNDING = 5e-7


@final
class Segment:
    """
    Calls of one lot that have started shortly one after the other, told to the server together.

    :ivar first: when the first one started, by the server's clock, or later
    :ivar last: when the last one did, or later
    :ivar count: how many have not been told of
    :ivar closed: whether no more may join
    """

    __slots__ = ("closed", "count", "first", "last")

    def __init__(self, at: Micros) -> None:
        self.first = self.last = at
        self.count = 1
        self.closed = False


@final
class Lot:
    """
    A grant in stock.

    :ivar grant: the grant
    :ivar life: in which life of the process with the server it was granted
    :ivar left: how many calls it is still good for
    :ivar ready: the instant of the process's own clock from which on it may be used
    :ivar until: the instant until which it may
    :ivar segments: the calls that have started and that the server has not been told of
    """

    __slots__ = ("grant", "left", "life", "ready", "segments", "until")

    def __init__(self, grant: Grant, life: int, ready: float, until: float) -> None:
        self.grant = grant
        self.life = life
        self.left = grant.count
        self.ready = ready
        self.until = until
        self.segments: list[Segment] = []


@final
class Stock:
    """
    The grants of one limiter, by what their calls are charged.

    :ivar total: for how many calls there is something in stock
    """

    __slots__ = ("_floor", "_lots", "_seen", "total")

    def __init__(self) -> None:
        self._lots: dict[Amounts, deque[Lot]] = {}
        self.total = 0
        #: All grants up to this number have come.
        self._floor = 0
        #: Those above it that have come.
        self._seen: set[int] = set()

    def add(self, grant: Grant, life: int, clock: ServerClock, now: float) -> bool:
        """Put a grant in stock, unless it has come before; return whether it is new."""
        number = grant.number
        if number <= self._floor or number in self._seen:
            return False

        self._seen.add(number)
        # Not before the latest instant at which it may be due, nor after the earliest at which it
        # may be over.
        ready = clock.when_surely(grant.due)
        if ready - now < ROUNDING:
            # It was due when the server sent it.
            ready = min(ready, now)

        until = clock.still_before(grant.due + grant.grace)
        lots = self._lots.setdefault(grant.amounts, deque())
        lots.append(Lot(grant, life, ready, until))
        self.total += grant.count
        return True

    def note_all_seen(self, grants: tuple[Grant, ...]) -> None:
        """Note that the server has no other grants under way: smaller numbers have all come."""
        if grants:
            self._floor = max(self._floor, *(grant.number for grant in grants))
            self._seen = {number for number in self._seen if number > self._floor}

    def count(self, amounts: Amounts) -> int:
        """Return for how many calls of a kind there is something in stock."""
        return sum(lot.left for lot in self._lots.get(amounts, ()))

    def amount(self, index: int, now: float) -> tuple[int, float]:
        """Return how much of one rule there is in stock and due, and when there is more of it."""
        lots = [lot for lot in self._all() if lot.grant.amounts[index]]
        due = sum(lot.left * lot.grant.amounts[index] for lot in lots if lot.ready <= now)
        return due, min((lot.ready for lot in lots if lot.ready > now), default=inf)

    def first(self, amounts: Amounts, now: float) -> Lot | None:
        """Return the lot that a call of a kind would use: the first one that is not over."""
        for lot in self._lots.get(amounts, ()):
            if lot.until >= now:
                return lot

        return None

    def use(self, lot: Lot) -> None:
        """Take something for one call out of a lot."""
        lot.left -= 1
        self.total -= 1
        if not lot.left:
            lots = self._lots[lot.grant.amounts]
            lots.remove(lot)
            if not lots:
                del self._lots[lot.grant.amounts]

    def put_back(self, lot: Lot) -> None:
        """Put back what was taken for one call that did not start."""
        if not lot.left:
            lots = self._lots.setdefault(lot.grant.amounts, deque())
            lots.appendleft(lot)

        lot.left += 1
        self.total += 1

    def over_at(self) -> float:
        """Return from when on the first lot is over; infinity if there is none."""
        until = min((lot.until for lots in self._lots.values() for lot in lots), default=inf)
        # At the instant itself it still is good for a start.
        return nextafter(until, inf)

    def take_over(self, now: float) -> list[tuple[Lot, int]]:
        """Take out what is over; return the lots, and for how many calls each."""
        return self._take_out([lot for lot in self._all() if lot.until < now])

    def take_surplus(self, wanted: dict[Amounts, int]) -> list[tuple[Lot, int]]:
        """Take out what no call wants, the latest first; return the lots, and how many of each."""
        surplus: list[tuple[Lot, int]] = []
        for amounts, lots in list(self._lots.items()):
            excess = sum(lot.left for lot in lots) - wanted.get(amounts, 0)
            for lot in reversed(list(lots)):
                part = min(lot.left, excess)
                if part <= 0:
                    break

                excess -= part
                surplus.append((lot, part))

        for lot, part in surplus:
            lot.left -= part - 1
            self.total -= part - 1
            self.use(lot)

        return surplus

    def clear(self) -> None:
        """Forget all."""
        self._lots.clear()
        self._seen.clear()
        self._floor = 0
        self.total = 0

    def _all(self) -> list[Lot]:
        return [lot for lots in self._lots.values() for lot in lots]

    def _take_out(self, gone: list[Lot]) -> list[tuple[Lot, int]]:
        taken = [(lot, lot.left) for lot in gone]
        for lot, left in taken:
            lot.left = 1
            self.total -= left - 1
            self.use(lot)

        return taken
