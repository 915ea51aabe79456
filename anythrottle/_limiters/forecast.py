"""What is to be expected by who comes next: a line, thought through to its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import final

from .._policies.policy import Bucket, Decision, Reason, seconds_until
from .._policies.utc_window_bucket import UtcWindowBucket
from .gate import Gate
from .queue import TurnQueue
from .turn import Turn
from .utc import UtcReader

#: By how much of what is still to be waited grants may be late before a forecast has to be renewed.
_TOLERANCE = 0.01


@final
class Forecast:
    """
    The buckets of a gate as they will be when those in line have passed.

    Slots are left out: nobody knows how long calls take.

    :param gate: the gate
    :param now: the present instant
    :param ahead: those in line, the first one first
    :param ended: whether to think that calls end as soon as they can; else nobody knows when

    """

    __slots__ = ("_ended", "buckets", "instant")

    def __init__(
        self, gate: Gate, now: float, ahead: Iterable[Turn] = (), *, ended: bool = False
    ) -> None:
        self._ended = ended
        self.buckets: list[Bucket] = [b.ahead(now, ended=ended) for b in gate.buckets]
        #: When the last one of those in line will go.
        self.instant = max(now, gate.paused_until)
        for turn in ahead:
            self.add(turn)

    def delays(self, amounts: Sequence[int]) -> list[float]:
        """Return for how long each bucket will make wait who comes next, from ``instant`` on."""
        charges = zip(self.buckets, amounts, strict=True)
        return [bucket.delay(self.instant, amount) if amount else 0.0 for bucket, amount in charges]

    def due(self, amounts: Sequence[int]) -> float:
        """Return the instant at which who comes next may go; infinity if nobody knows."""
        return self.instant + max(self.delays(amounts), default=0.0)

    def add(self, turn: Turn) -> None:
        """Let one more turn pass."""
        self.instant = self.due(turn.amounts)
        for bucket, amount in zip(self.buckets, turn.amounts, strict=True):
            if amount and self.instant < inf:
                bucket.take(self.instant, amount)
                receipt = bucket.start(self.instant, amount)
                if self._ended:
                    bucket.release(self.instant, amount, receipt)


@final
class Outlook:
    """
    Tells newcomers what they would meet.

    The forecast for all in line is kept while turns join at the end and are granted at the front;
    whatever else happens makes it void. So each of many who ask costs no more than those who have
    come since.

    :param gate: what decides
    :param queue: those in line

    """

    __slots__ = ("_forecast", "_gate", "_late", "_queue", "utc")

    def __init__(self, gate: Gate, queue: TurnQueue) -> None:
        self._gate = gate
        self._queue = queue
        self._forecast: Forecast | None = None
        #: By how much grants have been late since that was made, in all.
        self._late = 0.0
        self.utc = UtcReader()

    def read_utc(self, now: float) -> None:
        """Tell the buckets that go by UTC what it is, now that nobody is in line."""
        for bucket in self._gate.utc_buckets:
            bucket.set_utc(now, self.utc.read(now))

    def void(self) -> None:
        """Forget the forecast: something has happened that nobody could foresee."""
        self._forecast = None

    def forget_run(self) -> None:
        """Go over to another run, with another clock."""
        self._forecast = None
        self.utc.forget()

    def note_newcomer(self, turn: Turn) -> None:
        """Note that a turn, the latest to have come, joins those in line."""
        if self._forecast is not None:
            assert turn.place is not None
            if turn.place[0] >= self._queue.worst:
                self._forecast.add(turn)
            else:
                self._forecast = None

    def note_grants(self, now: float, late: float) -> None:
        """Note that turns have been granted at the front, by so many seconds late."""
        if self._forecast is not None:
            self._late += late
            if not self._queue.heap or self._late > _TOLERANCE * (self._forecast.instant - now):
                self._forecast = None

    def earliest(self, amounts: Sequence[int], now: float, priority: float) -> float:
        """
        Return the earliest instant at which a newcomer may go, if none of those ahead leaves.

        Slots, and what calls hold while they run, may be let go at any time.
        """
        return self._expected(priority, now, ended=True).due(amounts)

    def decide(self, amounts: Sequence[int], now: float, priority: float = 0) -> Decision:
        """Tell what a newcomer would meet."""
        gate = self._gate
        ahead = self._queue.count_ahead(priority)
        full = gate.full()
        starved = full or gate.starved(ahead)
        if ahead and not starved:
            forecast = self._expected(priority, now)
        else:
            # Who has to wait for a slot has to wait for nobody knows how long.
            forecast = self._without_line(now, idle=not ahead)

        delays = forecast.delays(amounts)
        longest = max(delays, default=0.0)
        reason: Reason | None = None
        if gate.paused_until > now:
            reason = "pause"
        elif ahead:
            reason = "line"
        elif full:
            reason = "concurrency"
        elif longest > 0:
            reason = "rate"

        wait = inf if starved else seconds_until(now, forecast.instant + longest)
        if not gate.policies:
            return Decision(reason is None, reason, wait, None, 0.0, None, None)

        buckets = gate.buckets if ahead else forecast.buckets
        left = [bucket.remaining(now) for bucket in buckets]
        shares = [rest / capacity for rest, capacity in zip(left, gate.capacities, strict=True)]
        binding = min(range(len(left)), key=lambda index: (-delays[index], shares[index]))
        policy = gate.policies[binding]
        reset = buckets[binding].reset_after(now)
        return Decision(reason is None, reason, wait, left[binding], reset, policy.limit, policy)

    def _expected(self, priority: float, now: float, *, ended: bool = False) -> Forecast:
        """Return the forecast for somebody who comes now."""
        last = priority >= self._queue.worst
        if last and self._forecast is not None:
            return self._forecast

        forecast = Forecast(self._gate, now, self._queue.ahead_of(priority), ended=ended)
        # When a call that holds its charge will have ended is anew unknown at each instant.
        if last and self._queue.heap and not self._gate.holds_charges:
            self._forecast = forecast
            self._late = 0.0

        return forecast

    def _without_line(self, now: float, *, idle: bool) -> Forecast:
        forecast = Forecast(self._gate, now)
        for bucket in forecast.buckets:
            if idle and isinstance(bucket, UtcWindowBucket):
                bucket.set_utc(now, self.utc.read(now))

        return forecast
