"""How many exchanges with one server are under way at once, and which one is next."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import final

import anyio

#: How many exchanges are under way at once with one server: enough for it to be always busy, few
#: enough for each to be answered soon.
PLACES = 32

#: The weight of the latest exchange in their mean duration.
_WEIGHT = 1 / 8


@final
class _Waiter:
    """An exchange in line, and what becomes of it."""

    __slots__ = ("admitted", "error", "told")

    def __init__(self) -> None:
        self.told = anyio.Event()
        self.admitted = False
        self.error: Exception | None = None


@final
class Turnstile:
    """
    Lets a number of exchanges begin, and the next one when one is over.

    Thousands at once would be in one another's way: each would wait for the answers to all that
    were sent before it, and for as long as this process takes to send them, while its deadline
    runs. So they wait here, before their deadline begins.

    There are two lines, each in order of arrival, which take turns: limiters that were served
    before do not stand behind a thousand new ones.

    :ivar heard_at: when the server has answered one last; minus infinity if it never has
    :ivar round_trip: how long an exchange has taken lately, in seconds; 0 if none has been answered
    """

    __slots__ = ("_free", "_lines", "_next", "heard_at", "round_trip")

    def __init__(self, places: int = PLACES) -> None:
        self._free = places
        #: The line of limiters that are new, and that of those that were served before.
        self._lines: tuple[deque[_Waiter], deque[_Waiter]] = (deque(), deque())
        self._next = True
        self.heard_at = -inf
        self.round_trip = 0.0

    async def enter(self, *, known: bool) -> Exception | None:
        """
        Take a place, as soon as there is one.

        :param known: whether the limiter was served before
        :return: ``None``, or why none is to be had
        """
        if self._free > 0:
            # No exchange waits while a place is free.
            self._free -= 1
            return None

        waiter = _Waiter()
        self._lines[known].append(waiter)
        try:
            await waiter.told.wait()
        except BaseException:
            if waiter.admitted:
                self.leave()
            elif waiter.error is None:
                self._lines[known].remove(waiter)

            raise

        return waiter.error

    def occupy(self) -> None:
        """Take a place, free or not, for an exchange that was given up and goes on."""
        self._free -= 1

    def leave(self) -> None:
        """Leave a place to the next one."""
        self._free += 1
        if self._free > 0 and any(self._lines):
            line = self._lines[self._next] or self._lines[not self._next]
            self._next = line is self._lines[False]
            waiter = line.popleft()
            self._free -= 1
            waiter.admitted = True
            waiter.told.set()

    def note_answer(self, sent: float, received: float) -> None:
        """Note that an exchange has been answered."""
        self.heard_at = received
        self.round_trip += (received - sent - self.round_trip) * (_WEIGHT if self.round_trip else 1)

    def refuse(self, error: Exception, since: float) -> None:
        """
        Refuse all in line because the server does not answer, unless it has answered since then.

        :param since: when the exchange began that it did not answer
        """
        if self.heard_at >= since:
            return

        for line in self._lines:
            for waiter in line:
                waiter.error = error
                waiter.told.set()

            line.clear()
