"""What the observers that measure have in common: one series of metrics for each limiter's name."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

from .._events import (
    Abandoned,
    Ended,
    Event,
    Failed,
    Finished,
    Granted,
    LeaseExpired,
    Observer,
    Paused,
    Refused,
    Retried,
    Started,
    StoreBack,
    StoreLost,
    Throttled,
)
from .._limiters.cost import by_unit
from .._limiters.live import Live
from ..abc import Limiter
from ._watched import Watchable, Watched, check_name

K = TypeVar("K", bound=Hashable)
L = TypeVar("L", bound=Limiter)

#: How many names are taken from events: as each has metrics of its own, they must not be keys.
MOST_NAMES: Final = 100

#: The name that stands for all names beyond these.
OTHERS: Final = "(others)"

#: The upper bounds, in seconds, of the buckets of histograms: from what is no wait to an hour.
BOUNDS: Final = (0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

#: The events that are of a job, and have no limiter's name.
_OF_JOBS: Final = (Started, Finished, Failed, Retried)

_logger = logging.getLogger("anythrottle")


class Series(ABC):
    """The metrics of one name. It is an observer, which asks no event for its name."""

    __slots__ = ()

    def __call__(self, event: Event) -> None:
        """Measure what an event tells of."""
        match event:
            case Granted():
                self.granted(event.cost, event.waited)
            case Ended():
                self.ended(event.held)
            case Refused():
                self.refused(event.decision.reason or "none")
            case Paused():
                self.paused(event.seconds)
            case StoreLost() | StoreBack():
                self.store_changed(lost=isinstance(event, StoreLost))
            case LeaseExpired():
                self.lease_expired(event.calls)
            case Abandoned():
                self.abandoned()
            case Throttled():
                self.throttled()
            case _:
                pass

    @abstractmethod
    def granted(self, cost: int | Mapping[str, int], waited: float) -> None:
        """Count a grant, and what it costs, and measure its wait."""

    @abstractmethod
    def ended(self, held: float) -> None:
        """Measure for how long a call has held something."""

    @abstractmethod
    def refused(self, reason: str) -> None:
        """Count a refusal."""

    @abstractmethod
    def abandoned(self) -> None:
        """Count a call that was given up before it began."""

    @abstractmethod
    def throttled(self) -> None:
        """Count a call that the service has refused."""

    @abstractmethod
    def paused(self, seconds: float) -> None:
        """Count a pause, and measure it if it is finite."""

    @abstractmethod
    def store_changed(self, *, lost: bool) -> None:
        """Note that the store does not answer any more, which is counted, or answers again."""

    @abstractmethod
    def lease_expired(self, calls: int) -> None:
        """Count the calls that have lost what they held."""


class MetricsObserver(Live, ABC):
    """An observer that measures: one for all limiters."""

    __slots__ = ("_named", "_others", "_taken", "_watched")

    def __init__(self) -> None:
        self._watched = Watched()
        #: The metrics by their name: one that was given, or was taken from an event.
        self._named: dict[str | None, Series] = {}
        #: How many names were taken from events.
        self._taken = 0
        self._others: Series | None = None

    def __call__(self, event: Event) -> None:
        """
        Measure what an event tells of.

        :param event: any event; of those of a :class:`.Throttler`, only
            :class:`~anythrottle.Throttled` is counted, without a name

        """
        if not isinstance(event, _OF_JOBS):
            (self._named.get(event.name) or self._series_of(event.name))(event)

    def named(self, name: str) -> Observer:
        """
        Return an observer that counts all its limiters as one, whatever their own names are.

        It is for the limiters of a :class:`.KeyedLimiter`, whose own names are the keys. The same
        name gives the same observer.

        :param name: what to call all of them
        :raises TypeError: if ``name`` is no str

        """
        return self._series_named(check_name(name))

    def watch(self, limiter: Watchable[K, L], *, name: str | None = None) -> None:
        """
        Show, from now on, how many calls of a limiter wait and how many are active.

        Calls are active while they hold something: a slot, or a charge by ``measure="end"``. The
        limiter is not kept alive by this. Several of one name are shown as one.

        :param limiter: a :class:`.RateLimiter`, a limiter of a store, or a :class:`.KeyedLimiter`,
            all of whose limiters are shown as one
        :param name: what to call it; ``None`` for the limiter's own name. A keyed limiter has none,
            and those of its limiters may be keys, so it is the empty one
        :raises TypeError: if a parameter is of the wrong type

        """
        self._watched.add(limiter, name)

    @abstractmethod
    def _new_series(self, name: str) -> Series:
        """Return new metrics for a name."""

    def _series_named(self, name: str) -> Series:
        """Return the metrics of a name, given by the program or taken from an event."""
        if name not in self._named:
            self._named[name] = self._new_series(name)

        return self._named[name]

    def _series_of(self, name: str | None) -> Series:
        """Return the metrics of a name that an event has, and that was not met before."""
        if self._taken < MOST_NAMES:
            self._taken += 1
            series = self._named[name] = self._series_named(name or "")
            return series

        if self._others is None:
            _logger.warning(
                "limiters have more than %d names: what has another one is measured as %r; give "
                "the limiters of a KeyedLimiter one name, or an observer by named()",
                MOST_NAMES,
                OTHERS,
            )
            self._others = self._series_named(OTHERS)

        return self._others


def amounts_of(cost: int | Mapping[str, int]) -> Mapping[str, int]:
    """Return the amounts of a grant by unit: each is one call, unless it says otherwise."""
    return {"calls": 1, **by_unit(cost)}
