"""What a policy is, and what a decision says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nextafter
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from .._records import setters
from .bucket import Bucket

#: What a call costs: an amount of calls, or amounts by unit in which calls default to 1.
Cost: TypeAlias = int | Mapping[str, int]

#: Why a call may not go now.
Reason: TypeAlias = Literal["rate", "concurrency", "pause", "line"]


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
    :ivar retry_after: seconds until it may go if no other call comes; calls in line that go
        before it are counted. Infinity: not before something is let go or
        :meth:`~anythrottle.RateLimiter.resume` is called
    :ivar remaining: what the binding policy has left now, ``None`` without a policy
    :ivar reset_after: seconds until the binding policy's bucket is full again
    :ivar limit: the binding policy's limit, ``None`` without a policy
    :ivar policy: the policy that binds: the one that makes the call wait longest, else the one
        with the smallest part left, of equal parts the one with less; ``None`` if the limiter has
        no policy

    """

    allowed: bool
    reason: Reason | None
    retry_after: float
    remaining: int | None
    reset_after: float
    limit: float | None
    policy: Policy | None


@dataclass(frozen=True, slots=True, init=False)
class PolicyState:
    """
    What one policy of a limiter has left, regardless of the calls in line.

    :ivar policy: the policy
    :ivar remaining: how much could be taken now, in the policy's unit
    :ivar retry_after: seconds until more than that can be taken, if nothing is taken meanwhile: 0
        if nothing is missing, infinity if not before a call ends
    :ivar reset_after: seconds until nothing is missing any more, if the calls that run end now

    """

    policy: Policy
    remaining: int
    retry_after: float
    reset_after: float

    def __init__(
        self, policy: Policy, remaining: int, retry_after: float, reset_after: float
    ) -> None:
        _set_policy(self, policy)
        _set_remaining(self, remaining)
        _set_retry_after(self, retry_after)
        _set_reset_after(self, reset_after)


_set_policy, _set_remaining, _set_retry_after, _set_reset_after = setters(PolicyState)


def binding_of(delays: Sequence[float], left: Sequence[int], capacities: Sequence[float]) -> int:
    """
    Return the index of the policy that binds, as :class:`Decision` says; there must be one.

    :param delays: for how long each policy makes the call wait
    :param left: what each has left
    :param capacities: the most that each can have left
    """
    return min(range(len(left)), key=lambda i: (-delays[i], left[i] / capacities[i], left[i]))


def seconds_until(now: float, instant: float) -> float:
    """Return the delay until ``instant``, such that ``now + delay`` is not before it, or 0."""
    delay = instant - now
    if delay <= 0:
        return 0.0

    while now + delay < instant:
        delay = nextafter(delay, inf)

    return delay
