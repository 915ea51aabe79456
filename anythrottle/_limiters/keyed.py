"""A limiter for each key, as many as are of use."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from heapq import heappop, heappush
from math import inf, nextafter
from typing import Generic, TypeVar, cast, final

from .._errors import LimitExceeded
from .._loops.clock import LoopClock, weakly
from .._policies.checks import check_count
from .._policies.policy import Decision, seconds_until
from ..abc import Idle, Limiter, QuotaLimiter
from .live import Live

K = TypeVar("K", bound=Hashable)
L = TypeVar("L", bound=Limiter)

#: For how many seconds a limiter is left alone if it does not know when it will be idle.
_LEFT_ALONE = 1.0

#: How many idle keys are dropped for each that is made: more than one, so that they grow fewer.
_DROPS = 2


@final
class KeyedLimiter(Live, Generic[K, L]):
    """
    A limiter of its own for each key: each user, host or tenant.

    >>> import anyio, anythrottle
    >>> per_host = anythrottle.KeyedLimiter(lambda host: anythrottle.RateLimiter("20/10s"))
    >>> async def main():
    ...     async with per_host["example.org"]:
    ...         return len(per_host)
    >>> anyio.run(main)
    1

    ``keyed[key]`` is made when it is first asked for, and stays the same object while anyone
    holds it. ``in``, ``len`` and iteration make none.

    A key is dropped, when there is need for its place or as others are made, only if its buckets
    are full again, it is not paused, and nothing refers to it. So dropping a key forgives nothing,
    and one key never delays another. What a call costs here does not grow with the number of keys.
    What is made anew is as ``make`` says, though a dropped limiter may have been reconfigured.
    A permit holds its limiter, and so does a cycle of references that it is part of, say with its
    own observer: such a key is not dropped.

    :param make: a function that makes the limiter for a key: any that can be referred to weakly,
        and can tell when it is :class:`idle <.abc.Idle>`
    :param max_keys: how many keys there may be at once, at least 1
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if ``max_keys`` is below 1

    """

    __slots__ = ("__weakref__", "_checks", "_clock", "_limiters", "_make", "_max_keys", "_next")

    def __init__(self, make: Callable[[K], L], *, max_keys: int = 10_000) -> None:
        if not callable(make):
            raise TypeError(f"make must be a function of a key, not {make!r}")

        self._make = make
        self._max_keys = check_count("max_keys", max_keys)
        self._clock = LoopClock(weakly(self._shift), "the keyed limiter")
        self._limiters: dict[K, L] = {}
        #: The heap of the next check of each key, whether it is idle: instant, number, key.
        self._checks: list[tuple[float, int, K]] = []
        self._next = 0

    def __getitem__(self, key: K) -> L:
        """
        Return the limiter for a key.

        :raises ~anythrottle.LimitExceeded: if it has to be made, and there are as many keys as
            there may be, all of them busy
        :raises TypeError: if what has been made is no limiter, or none that can be dropped

        """
        limiter = self._limiters.get(key)
        return self._new(key) if limiter is None else limiter

    def __contains__(self, key: object) -> bool:
        return key in self._limiters

    def __len__(self) -> int:
        return len(self._limiters)

    def __iter__(self) -> Iterator[K]:
        return iter(self._limiters)

    def made(self) -> Iterator[L]:
        """
        Return the limiters that there are, none of them made for that; from any thread.

        One at a time, and not held longer, because what is held cannot be dropped meanwhile.
        """
        # The keys are copied in one step, as others may come and go.
        for key in list(self._limiters):
            limiter = self._limiters.get(key)
            if limiter is not None:
                yield limiter

    def __repr__(self) -> str:
        return f"<KeyedLimiter {len(self)} of {self._max_keys} keys>"

    def _new(self, key: K) -> L:
        now = self._clock.now()
        for _ in range(_DROPS):
            self._drop_one(now)

        while len(self._limiters) >= self._max_keys:
            if not self._drop_one(now):
                raise LimitExceeded(self._refusal(now))

        limiter = self._make(key)
        _check_made(limiter, key)

        if key in self._limiters:
            # The factory has asked for the key itself, and so it was made meanwhile.
            return self._limiters[key]

        self._limiters[key] = limiter
        self._check_at(now, key)
        return limiter

    def _drop_one(self, now: float) -> bool:
        """Check the next key, and drop it if it is idle; return whether one was to be checked."""
        if not self._checks or self._checks[0][0] > now:
            return False

        _, _, key = heappop(self._checks)
        # That it has this method was checked when it was made.
        idle_in = cast("Idle", self._limiters[key]).idle_in()
        if idle_in > 0 or not self._let_go(key):
            # In use. If it is unknown for how long, check again after as long as a pause takes.
            wait = _patience(self._limiters[key]) if idle_in in {0, inf} else idle_in
            self._check_at(max(now + wait, nextafter(now, inf)), key)

        return True

    def _let_go(self, key: K) -> bool:
        """Forget a key unless its limiter is in use; return whether it was forgotten."""
        reference = weakref.ref(self._limiters.pop(key))
        # A reference elsewhere keeps the limiter alive: then it has to be found again.
        limiter = reference()
        if limiter is not None:
            self._limiters[key] = limiter

        return limiter is None

    def _check_at(self, instant: float, key: K) -> None:
        self._next += 1
        heappush(self._checks, (instant, self._next, key))

    def _refusal(self, now: float) -> Decision:
        retry_after = seconds_until(now, self._checks[0][0])
        return Decision(
            allowed=False,
            reason="concurrency",
            retry_after=retry_after,
            remaining=0,
            reset_after=retry_after,
            limit=self._max_keys,
            policy=None,
        )

    def _shift(self, seconds: float) -> None:
        # All are moved by the same, so it is still a heap.
        self._checks = [(at + seconds, number, key) for at, number, key in self._checks]


def _check_made(limiter: object, key: object) -> None:
    """
    Raise unless something is a limiter that can be found idle, and dropped.

    :raises TypeError: if it is not
    """
    if not isinstance(limiter, Limiter) or isinstance(limiter, type):
        raise TypeError(f"make must return a limiter, not {limiter!r}, for key {key!r}")

    if not isinstance(limiter, Idle):
        raise TypeError(
            f"make must return a limiter that has idle_in(), as anythrottle.abc.Idle says, not "
            f"{limiter!r}, for key {key!r}"
        )

    try:
        weakref.ref(limiter)
    except TypeError:
        raise TypeError(
            f"make must return a limiter that can be referred to weakly (if it has __slots__, add "
            f"'__weakref__'), not {limiter!r}, for key {key!r}"
        ) from None


def _patience(limiter: object) -> float:
    """Return for how long a limiter is left alone if it cannot say when it will be idle."""
    policies = limiter.policies if isinstance(limiter, QuotaLimiter) else ()
    return min((policy.window for policy in policies), default=_LEFT_ALONE)
