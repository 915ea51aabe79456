"""What a process knows of the server's clock: bounds, from the exchanges."""

from __future__ import annotations

from math import ceil, floor, inf
from typing import final

from .exchange import NEVER, Micros

#: By how much two clocks may drift apart.
DRIFT = 200e-6

#: How much one round trip counts in their mean.
_WEIGHT = 1 / 8

_MICRO = 1e6


@final
class ServerClock:
    """
    Bounds of the server's time, at instants of the process's own clock in seconds.

    The server has read its clock between the sending of a request and the arrival of its reply, so
    each exchange gives a lower and an upper bound of how far it is ahead; the tightest ones hold,
    and widen with time, because clocks drift. This is Marzullo's intersection, "Maintaining the
    time in a distributed system", 1984, with one source. If the bounds exclude one another, a clock
    has stepped, and the latest exchange alone counts.

    :ivar round_trip: the mean duration of an exchange, in seconds
    :ivar known: whether there has been an exchange
    """

    __slots__ = ("_at", "_high", "_low", "known", "round_trip")

    def __init__(self) -> None:
        self.known = False
        self.round_trip = 0.0
        #: By how many microseconds the server is ahead, at the instant ``_at``.
        self._low = -inf
        self._high = inf
        self._at = 0.0

    def note(self, sent: float, received: float, server: Micros) -> None:
        """Note that the server's clock was read between two instants."""
        trip = received - sent
        self.round_trip += (trip - self.round_trip) * (_WEIGHT if self.known else 1)
        low = server - received * _MICRO
        # The server cuts off what is less than a microsecond.
        high = server + 1 - sent * _MICRO
        widened = DRIFT * max(received - self._at, 0.0) * _MICRO
        before_low, before_high = self._low - widened, self._high + widened
        if self.known and before_low <= high and low <= before_high:
            low, high = max(low, before_low), min(high, before_high)

        self._low, self._high, self._at = low, high, received
        self.known = True

    def earliest(self, instant: float) -> Micros:
        """Return the least that the server's clock can show at an instant."""
        widened = DRIFT * abs(instant - self._at) * _MICRO
        return floor(instant * _MICRO + self._low - widened)

    def latest(self, instant: float) -> Micros:
        """Return the most that the server's clock can show at an instant."""
        if instant == inf:
            return NEVER

        widened = DRIFT * abs(instant - self._at) * _MICRO
        return min(ceil(instant * _MICRO + self._high + widened), NEVER)

    def when_surely(self, server: Micros) -> float:
        """Return the earliest instant at which the server's clock has surely come so far."""
        if server >= NEVER:
            return inf

        instant = (server - self._low) / _MICRO
        return instant + DRIFT * 1.001 * abs(instant - self._at)

    def still_before(self, server: Micros) -> float:
        """Return the latest instant at which the server's clock has surely not come further."""
        if server >= NEVER:
            return inf

        instant = (server - 1 - self._high) / _MICRO
        return instant - DRIFT * 1.001 * abs(instant - self._at)
