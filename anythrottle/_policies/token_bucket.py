"""The token bucket: a steady flow, and a chosen burst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from math import ceil, floor, inf, log, nextafter, ulp
from typing import final

from .bucket import Bucket, LevelBucket
from .charge_log import ChargeLog
from .checks import check_amount, check_seconds, check_unit
from .policy import seconds_until

#: More than this is charged as this: so an int beyond any float can be a charge, and be undone.
_MOST = 2**1000

#: An amount that may come of nothing but roundings.
_TINY = 1e-6

#: How many charges are remembered, for a successor.
_LOGGED = 64


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """
    A steady flow of ``limit`` per ``per`` seconds, at most ``burst`` at once.

    Tokens flow into a bucket that holds ``burst`` of them; what would overflow is lost, and each
    call takes its cost out. A ``burst`` of 1 is smooth pacing: one call every ``per / limit``
    seconds. Any ``per`` seconds can hold up to ``burst + limit``: a full bucket, and what flows in
    meanwhile. If a server counts more strictly, use a :class:`~anythrottle.WindowTokenBucket`.

    A call that waits is credited from the instant it was due, so timers that are late cost no rate;
    ``burst`` bounds what gathers while none waits. After the event loop has been blocked, what
    has fallen due meanwhile therefore goes at once, on top of those ``burst + limit``.

    This is the token bucket of Turner, "New directions in communications (or which way to the
    information age?)", 1986. It keeps its level and the instant of it, like the continuous-state
    leaky bucket by which ITU-T I.371 defines the generic cell rate algorithm (GCRA).

    >>> TokenBucket(20, 10)
    TokenBucket(limit=20.0, per=10.0, burst=20.0, unit='calls')

    :param limit: how much flows in per ``per`` seconds, in ``unit``, above 0
    :param per: the time that ``limit`` is for, in seconds, above 0
    :param burst: the most that is there at once, in ``unit``, at least 1; ``None``: ``limit``, but
        at least 1. A call that costs more can never go
    :param unit: what is counted; any other than ``"calls"`` has to be named in each cost
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range

    """

    limit: float
    per: float
    _: KW_ONLY
    #: Always a number once it is made.
    burst: float | None = None
    unit: str = "calls"

    def __post_init__(self) -> None:
        limit = check_amount("limit", self.limit)
        burst = max(limit, 1.0) if self.burst is None else self.burst
        object.__setattr__(self, "limit", limit)
        object.__setattr__(self, "per", check_seconds("per", self.per))
        object.__setattr__(self, "burst", check_amount("burst", burst, least=1))
        object.__setattr__(self, "unit", check_unit(self.unit))

    @property
    def window(self) -> float:
        """The time that ``limit`` is for, in seconds."""
        return self.per

    @property
    def holds(self) -> bool:
        """Whether a charge is held for as long as its call runs: never."""
        return False

    def bucket(self) -> TokenBucketState:
        """Return a new, full bucket."""
        return TokenBucketState(self)


@final
class TokenBucketState(LevelBucket):
    """
    The state of a :class:`TokenBucket`.

    There were ``_level`` tokens at the instant ``_at``, and they have been flowing in since.
    Nothing flows in before it, should it be yet to come. The level is below zero while the bucket
    is in debt. An amount is due at an instant that depends on these two alone, not on when one
    asks: so a call that comes back then finds it due, however floats are rounded.
    """

    __slots__ = (
        "_at",
        "_burst",
        "_held",
        "_level",
        "_limit",
        "_log",
        "_per",
        "_reset_at",
        "_spare",
    )

    quick = True
    monotone = "always"

    def __init__(self, policy: TokenBucket) -> None:
        assert policy.burst is not None, "set by __post_init__()"
        self._limit = policy.limit
        self._per = policy.per
        self._burst = policy.burst
        self._level = policy.burst
        #: Full ever since. Whatever flows in since then, infinity too, leaves it full.
        self._at = -inf
        #: What has been taken by calls that have not begun, and is out of the level.
        self._held = 0
        #: When a server counts anew, as tighten() was told, and how much more than flows in by this
        #: rate may flow in until then.
        self._reset_at = -inf
        self._spare = 0.0
        self._log = ChargeLog(_LOGGED)

    @property
    def capacity(self) -> float:
        return self._burst

    def delay(self, now: float, cost: int) -> float:
        if cost <= self._level:
            return 0.0

        if cost > self._burst:
            return inf

        return seconds_until(now, self._due(cost))

    def take(self, now: float, cost: int, since: float | None = None) -> None:
        instant = now if since is None else min(since, now)
        self._level = self._level_at(instant) - min(cost, _MOST)
        self._at = max(self._at, instant)
        self._held += cost

    def start(self, now: float, cost: int) -> float:
        self._held -= cost
        self._log.note(now, cost)
        return max(now, self._due(self._burst))

    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        if receipt is None:
            self._held -= cost
            self._return(cost)
        elif receipt > now:
            back = min(cost, self._still_out(now, receipt))
            self._return(back)
            # Unless it was in debt, it took no longer than this to be full again.
            self._log.forget(floor(back), receipt - self._time(self._burst) - 8 * ulp(abs(receipt)))

    def give_back_held(self, now: float, costs: Sequence[int]) -> None:
        # What comes back stands above the burst until the next instant, if need be: it has gathered
        # while the calls waited.
        self._level = self._level_at(now) + self._held
        self._at = max(self._at, now)
        self._held = 0

    def tighten(self, now: float, remaining: int, reset_after: float | None) -> None:
        level = self._level_at(now)
        if remaining < level:
            self._log.note(now, ceil(level) - remaining)

        self._level = min(level, remaining)
        self._at = max(self._at, now)
        if reset_after is not None:
            reset_at = now + min(reset_after, self._per)
            self._hold_off(reset_at, min(remaining, _MOST) - self._level)

    def reset_after(self, now: float) -> float:
        # Full or not, nothing flows in before that instant, should tighten() have put it off.
        return seconds_until(now, self._due(self._burst))

    def history(self, now: float) -> list[tuple[float, int]]:
        return self._log.entries()

    def forgive(self, now: float, until: float) -> bool:
        left = self._level_at(max(now, until))
        if left >= 0:
            return False

        self._level -= left
        return True

    def unlikeness(self, old: Bucket) -> tuple[float, ...] | None:
        return self._unlikeness(old) if isinstance(old, TokenBucketState) else None

    def succeed(self, old: TokenBucketState, now: float, told: list[tuple[float, int]]) -> bool:
        # At the level that was reached there: what has flowed in stays, and no more.
        for instant, amount in told:
            self._log.note(instant, amount)

        # What comes back of calls that were granted and called back stands above the burst, for
        # these calls to take it again.
        level = max(old._level_at(now), old._level)
        owed = max(level - old._burst, 0.0)
        # What a server has said stays in force, for a window of this policy at most.
        last = now + self._per
        self._at = max(min(old._at, last), now)
        self._level = before = min(level - owed, self._burst)
        self.forgive(now, now + old.delay(now, 0))
        forgiven = self._level - before > _TINY
        if old._reset_at > now:
            flow = old._flow(max(old._reset_at - max(old._at, now), 0.0))
            allowed = max(level - owed + flow + old._spare, 0.0)
            self._hold_off(min(old._reset_at, last), allowed - self._level)

        self._level += owed
        return forgiven

    def receipt_of(self, old: TokenBucketState, now: float, receipt: float) -> float:
        # As much as was still out there is still out here.
        return now + self._time(old._still_out(now, receipt)) if receipt > now else receipt

    def shift(self, seconds: float) -> None:
        if self._at > -inf:
            # Rounded up, for nothing must flow in early.
            self._at = nextafter(self._at + seconds, inf)

        self._reset_at += seconds
        self._log.shift(seconds)

    def forget_held(self) -> None:
        self._return(self._held)
        self._held = 0

    def ahead(self, now: float, *, ended: bool = False) -> TokenBucketState:
        copy = object.__new__(type(self))
        copy._limit = self._limit
        copy._per = self._per
        copy._burst = self._burst
        copy._level = self._level
        copy._at = self._at
        copy._held = 0
        copy._reset_at = self._reset_at
        copy._spare = self._spare
        copy._log = ChargeLog(_LOGGED)
        return copy

    def _unlikeness(self, old: TokenBucketState) -> tuple[float, float]:
        # By their times first, so "per second" succeeds "per second" and "per day" "per day".
        return abs(log(old._per) - log(self._per)), abs(log(old._burst) - log(self._burst))

    def _due(self, amount: float) -> float:
        """Return the instant at which ``amount``, more than there is, will be there."""
        return self._at + self._time(amount - self._level)

    def _time(self, amount: float) -> float:
        """Return the seconds in which ``amount`` flows in."""
        # Divided first, so that `limit` takes `per` seconds exactly.
        return amount / self._limit * self._per

    def _flow(self, seconds: float) -> float:
        """Return how much flows in."""
        return seconds / self._per * self._limit

    def _hold_off(self, reset_at: float, missing: float) -> None:
        """Hold the flow off, so that ``missing`` has just flowed in at the instant ``reset_at``."""
        self._at = max(self._at, reset_at - self._time(max(missing, 0.0)))
        self._reset_at = reset_at
        self._spare = max(missing - self._flow(max(reset_at - self._at, 0.0)), 0.0)

    def _still_out(self, now: float, receipt: float) -> float:
        """Return how much more has to flow in until a charge that is out has come back."""
        # Rounded up, as receipt and now are rounded by more than a token is worth if the rate is
        # high: what is given back at once comes back in full.
        return self._flow(receipt - now + 8 * ulp(max(abs(receipt), abs(now))))

    def _level_at(self, instant: float) -> float:
        if instant <= self._at:
            return self._level

        return min(self._level + self._flow(instant - self._at), self._burst)

    def _return(self, amount: float) -> None:
        """Put back an amount that was charged."""
        self._level = min(self._level + min(amount, _MOST), self._burst)
