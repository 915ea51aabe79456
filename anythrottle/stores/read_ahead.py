"""How many turns to fetch before they are needed."""

from __future__ import annotations

from math import inf
from typing import final

from .exchange import Amounts

#: How many are fetched ahead at most, unless the user says so.
_MOST = 1000

#: In how many round trips a turn must be used, on the average, for more to be fetched ahead.
_TRIPS = 2


@final
class ReadAhead:
    """
    How many turns to fetch ahead, by how many were used lately.

    The number doubles while all are used and no other process waits, and is halved when some went
    back. None are fetched once no call comes any more; nor while others wait and for one window
    after that, because a process that fetches ahead asks for more than others, and would get more.

    :param fixed: how many, if the user has said so; else ``None``
    :param window: the shortest window, in seconds

    :ivar amounts: what the last call was charged, for which they are fetched; empty before, and
        after the end
    """

    __slots__ = ("_alone_from", "_count", "_fixed", "_used", "_window", "amounts")

    def __init__(self, fixed: int | None, window: float) -> None:
        self._fixed = fixed
        self._window = window
        #: From when on no other process has waited for a window.
        self._alone_from = -inf
        self._count = 0
        self._used = 0
        self.amounts: Amounts = ()

    @property
    def count(self) -> int:
        """How many to keep in stock, while calls come."""
        return self._count if self._fixed is None else self._fixed

    def note_use(self, amounts: Amounts) -> None:
        """Note that a call has used a turn."""
        self._used += 1
        self.amounts = amounts

    def note_others(self, now: float) -> None:
        """Note that others wait too."""
        self._alone_from = now + self._window

    def note_waste(self) -> None:
        """Note that turns went back that were fetched for nothing."""
        self._count //= 2

    def end(self) -> None:
        """Note that no call comes any more."""
        self.amounts = ()

    def is_low(self, stock: int) -> bool:
        """Return whether more is to be fetched, with so many in stock."""
        return bool(self._used) and stock < self.count // 2

    def next(
        self, stock: int, now: float, *, others: bool, lasted: float, round_trip: float
    ) -> int:
        """
        Return how many to have in stock after the next exchange.

        :param stock: how many there are
        :param now: the present instant
        :param others: whether other processes wait
        :param lasted: how long ago the last exchange was, in seconds
        :param round_trip: how long one takes
        """
        used, self._used = self._used, 0
        if others:
            self.note_others(now)

        slow = self._fixed is None and lasted > used * _TRIPS * round_trip
        if not used or slow:
            # What is there may be used up, but nothing more is fetched.
            self._count = min(self._count, stock)
            return min(self.count, stock)

        if self._fixed is not None:
            return self._fixed

        if now < self._alone_from:
            self._count = 0
        elif used >= self._count:
            self._count = min(max(2 * self._count, used), _MOST)

        return self._count
