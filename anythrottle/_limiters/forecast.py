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

#: Of how many in line one may have left or come in between before a forecast has to be renewed.
_FEW = 64

#: For how many priorities forecasts are kept.
_MOST = 16


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

    __slots__ = ("buckets", "inserted", "instant", "late", "left", "made")

    def __init__(
        self, gate: Gate, now: float, ahead: Iterable[Turn] = (), *, ended: bool = False
    ) -> None:
        self.buckets: list[Bucket] = [b.ahead(now, ended=ended) for b in gate.buckets]
        self.made = now
        #: When the last one of those in line will go.
        self.instant = max(now, gate.paused_until)
        #: What has changed since: how many have been put in between, and have left, and by how
        #: much grants were late, in all.
        self.inserted = self.left = 0
        self.late = 0.0
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
                bucket.start(self.instant, amount)

    def is_of_use(self, waiting: int) -> bool:
        """Tell whether few enough of those in line have left or come in between."""
        return (self.inserted + self.left) * _FEW <= waiting


@final
class Outlook:
    """
    Tells newcomers what they would meet.

    Forecasts are kept, one for each priority that is asked for. Turns that join at the end and are
    granted at the front are what they foresee; anything else makes them void. In a long line some
    may leave, or come in between, before a forecast is made anew: so many that it is wrong by a
    small part of the line at most. So each of many who ask costs little more than those who have
    come since.

    :param gate: what decides
    :param queue: those in line
    :param utc: what tells UTC

    """

    __slots__ = ("_forecasts", "_gate", "_queue", "utc")

    def __init__(self, gate: Gate, queue: TurnQueue, utc: UtcReader) -> None:
        self._gate = gate
        self._queue = queue
        #: By the priority of who asks, and whether calls that hold their charge end at once.
        self._forecasts: dict[tuple[float, bool], Forecast] = {}
        self.utc = utc

    def read_utc(self, now: float) -> None:
        """Tell the buckets that go by UTC what it is, now that nobody is in line."""
        for bucket in self._gate.utc_buckets:
            bucket.set_utc(now, self.utc.read(now))

    def void(self) -> None:
        """Forget the forecasts: something has happened that nobody could foresee."""
        if self._forecasts:
            self._forecasts = {}

    def forget_run(self) -> None:
        """Go over to another run, with another clock."""
        self.void()
        self.utc.forget()

    def note_newcomer(self, turn: Turn) -> None:
        """Note that a turn, the latest to have come, joins those in line."""
        assert turn.place is not None
        for (priority, _), forecast in self._forecasts.items():
            if turn.place[0] == priority:
                forecast.add(turn)
            elif turn.place[0] < priority:
                forecast.inserted += 1

    def note_leaving(self, turn: Turn) -> None:
        """Note that a turn leaves those in line."""
        assert turn.place is not None
        for (priority, _), forecast in self._forecasts.items():
            forecast.left += turn.place[0] <= priority

    def note_grants(self, now: float, late: float) -> None:
        """Note that turns have been granted at the front, by so many seconds late."""
        if not self._forecasts:
            return

        if not self._queue.heap:
            self._forecasts = {}

        if late:
            for key, forecast in list(self._forecasts.items()):
                forecast.late += late
                if forecast.late > _TOLERANCE * (forecast.instant - now):
                    del self._forecasts[key]

    def note_end(self) -> None:
        """Note that a call has ended, and by that has let its charge go."""
        for key in [key for key in self._forecasts if not key[1]]:
            del self._forecasts[key]

    def is_hopeless(
        self, amounts: Sequence[int], now: float, priority: float, latest: float
    ) -> bool:
        """
        Tell whether a newcomer cannot go by the instant ``latest``, if none of those ahead leaves.

        Slots, and what calls hold while they run, may be let go at any time.
        """
        forecast = self._kept(priority, ended=True)
        if forecast is not None:
            due = forecast.due(amounts)
            # It can be later by as much as calls have gone on since that was made.
            if due + self._age(forecast, now) <= latest:
                return False

            # As some have left, it may be sooner.
            if due > latest and not forecast.left:
                return True

        return self._renewed(priority, now, ended=True).due(amounts) > latest

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
            forecast = self._without_line(now)

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

    def _expected(self, priority: float, now: float) -> Forecast:
        """Return the forecast for somebody who comes now."""
        forecast = self._kept(priority, ended=False)
        if forecast is None or self._age(forecast, now) > _TOLERANCE * (forecast.instant - now):
            return self._renewed(priority, now, ended=False)

        return forecast

    def _kept(self, priority: float, *, ended: bool) -> Forecast | None:
        forecast = self._forecasts.get((priority, ended and self._gate.holds_charges))
        if forecast is not None and forecast.is_of_use(len(self._queue)):
            return forecast

        return None

    def _age(self, forecast: Forecast, now: float) -> float:
        # While nobody knows when a slot or a charge will be let go, all moves on with time.
        moves = self._gate.holds_charges or self._gate.full()
        return now - forecast.made if moves else 0.0

    def _renewed(self, priority: float, now: float, *, ended: bool) -> Forecast:
        ahead = self._queue.ahead_of(priority)
        forecast = Forecast(self._gate, now, ahead, ended=ended)
        if ahead:
            if len(self._forecasts) >= _MOST:
                self._forecasts = {}

            self._forecasts[priority, ended and self._gate.holds_charges] = forecast

        return forecast

    def _without_line(self, now: float) -> Forecast:
        forecast = Forecast(self._gate, now)
        for bucket in forecast.buckets:
            if not len(self._queue) and isinstance(bucket, UtcWindowBucket):
                bucket.set_utc(now, self.utc.read(now))

        return forecast
