"""What a policy is, what its bucket can do, and what a decision tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nextafter
from typing import Literal, Protocol, TypeAlias, runtime_checkable

#: What a call costs: an amount of calls, or amounts by unit in which calls default to 1.
Cost: TypeAlias = int | Mapping[str, int]

#: Why a call may not go now.
Reason: TypeAlias = Literal["rate", "concurrency", "pause", "line"]


class Bucket(Protocol):
    """
    The state of one policy. It decides with the time passed in, and never waits.

    A charge has up to three stations: :meth:`take` holds it, :meth:`start` says that the call
    begins, :meth:`release` that it has ended. What is held counts at every instant, so nothing
    that happens between the stations can crowd a window. Times are seconds of any one clock.

    Charges that nobody has asked :meth:`delay` for (a correction, a penalty) may drive the bucket
    into debt; then whoever comes later waits until that is paid back.
    """

    @property
    def capacity(self) -> float:
        """The most that can be charged at once."""
        ...

    def delay(self, now: float, cost: int) -> float:
        """
        Tell how long ``cost`` has to wait. Asking changes nothing.

        :return: seconds: 0 if it may go now, infinity if not before something is given back or
            released, else it is due exactly at ``now + delay`` if nobody comes in between

        """
        ...

    def take_free(self, cost: int) -> bool:
        """Hold ``cost`` if there is room for it whatever the time is; tell whether it was held."""
        ...

    def take(self, now: float, cost: int, since: float | None = None) -> None:
        """
        Hold ``cost``, which :meth:`delay` has found to be due, or which has to be held anyway.

        :param since: the instant at which it has fallen due, if that was before ``now``: who
            waited may be credited from then on, as a timer that is late shall cost no rate

        """
        ...

    def start(self, now: float, cost: int) -> float:
        """
        Let the call that holds ``cost`` begin.

        :return: the receipt for :meth:`give_back`: the instant at which the charge comes back

        """
        ...

    def release(self, now: float, cost: int, receipt: float) -> float:
        """
        Let the call that was charged ``cost`` end.

        :param receipt: what :meth:`start` returned
        :return: the receipt from now on

        """
        ...

    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        """
        Undo a charge: what is still out comes back at once, what has come back stays so.

        :param receipt: the latest receipt; ``None`` for a call that has not begun

        """
        ...

    def tighten(self, now: float, remaining: int, reset_after: float | None) -> None:
        """
        Let at most ``remaining`` be taken before ``reset_after`` seconds have passed.

        It only ever tightens: where less is left already, that stays so.

        :param reset_after: seconds; more than the policy's window counts as the window. ``None``:
            as if what is left above ``remaining`` had been charged just now

        """
        ...

    def remaining(self, now: float) -> int:
        """Tell how much could be taken at this instant, 0 or more."""
        ...

    def reset_after(self, now: float) -> float:
        """Tell in how many seconds the bucket is full again, if nothing more is taken."""
        ...

    def history(self, now: float) -> list[tuple[float, int]]:
        """
        Return what a successor has to know: when how much was charged, the earliest first.

        Calls that have begun count, not what is held, and those whose charge has come back count
        too. Instants may be later than they were, never earlier.

        """
        ...

    def forgive(self, now: float, until: float) -> bool:
        """
        See to it that no debt is left after the instant ``until``; tell whether there would be.

        A policy under which a debt cannot outlast the window in which it was made forgives nothing.

        """
        ...

    def shift(self, seconds: float) -> None:
        """Move every instant that is remembered: the clock has been exchanged."""
        ...

    def forget_held(self) -> None:
        """Let go all that is held: whoever held it is no more."""
        ...

    def ahead(self, now: float, *, ended: bool = False) -> Bucket:
        """
        Return a copy to think ahead with, as if the calls that are due to begin began now.

        :param ended: whether to think that the calls which run end now, too

        """
        ...


@runtime_checkable
class Policy(Protocol):
    """A limit, described: a frozen value that makes the buckets which keep to it."""

    @property
    def limit(self) -> float:
        """How much may pass per :attr:`window`, in :attr:`unit`."""
        ...

    @property
    def window(self) -> float:
        """The time that :attr:`limit` is for, in seconds."""
        ...

    @property
    def unit(self) -> str:
        """What is counted: ``"calls"``, or a unit that each cost has to name."""
        ...

    @property
    def holds(self) -> bool:
        """Whether a charge is held for as long as its call runs."""
        ...

    def bucket(self) -> Bucket:
        """Return a new, full bucket."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The answer to "may a call go now, and if not, when?".

    :ivar allowed: whether it may go now
    :ivar reason: why it may not: ``"pause"``, ``"line"`` (others are waiting), ``"concurrency"``
        or ``"rate"``; ``None`` if it may
    :ivar retry_after: seconds until it may go if nobody else comes; those in line who go before
        it are counted.
        Infinity: not before something is let go or :meth:`~anythrottle.RateLimiter.resume` is
        called
    :ivar remaining: what the binding policy has left now, ``None`` without a policy
    :ivar reset_after: seconds until the binding policy's bucket is full again
    :ivar limit: the binding policy's limit, ``None`` without a policy
    :ivar policy: the policy that binds: the one that makes the call wait longest, else the one
        with the least left; ``None`` if the limiter has no policy

    """

    allowed: bool
    reason: Reason | None
    retry_after: float
    remaining: int | None
    reset_after: float
    limit: float | None
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class PolicyState:
    """
    What one policy of a limiter has left, whoever waits in line.

    :ivar policy: the policy
    :ivar remaining: how much could be taken now, in the policy's unit
    :ivar retry_after: seconds until more than that can be taken, if nobody takes anything: 0 if
        nothing is missing, infinity if not before a call ends
    :ivar reset_after: seconds until nothing is missing any more, if the calls that run end now

    """

    policy: Policy
    remaining: int
    retry_after: float
    reset_after: float


def seconds_until(now: float, instant: float) -> float:
    """Return the delay until ``instant``, such that ``now + delay`` is not before it, or 0."""
    delay = max(instant - now, 0.0)
    while now + delay < instant:
        delay = nextafter(delay, inf)

    return delay
