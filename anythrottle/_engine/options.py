"""The options of a throttler, `amap()` and related functions: how jobs are run, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Generic, Self, TypeAlias, TypeVar, final

import anyio

from .._events import Observer, check_observer
from .._limiters.cost import by_unit
from .._limiters.rate_limiter import RateLimiter, as_limiter, slots_of
from .._policies.checks import check_count, check_seconds
from .._policies.policy import Cost
from .._policies.window import WindowTokenBucket
from ..abc import Limiter
from .attempts import Attempts, check_attempts

I = TypeVar("I")  # noqa: E741 - an item

#: A number, slots that may be shared, or no bound.
Concurrency: TypeAlias = int | anyio.CapacityLimiter | None

#: How many results may wait if nothing bounds how many jobs run at once.
_RESULTS_WAITING = 100

#: The cost of each job, or a function that returns it for an item.
CostOf: TypeAlias = Cost | Callable[[I], Cost]


@final
@dataclass(frozen=True, slots=True)
class JobOptions(Generic[I]):
    """
    The options that hold for all jobs of a throttler, or of one call of `amap()` or the like.

    :ivar limiter: the limiter that the jobs wait for, ``None`` for no limit
    :ivar concurrency: how many jobs run at once at most, or slots that may be shared
    :ivar cost: what a start of a job costs, or a function that returns it for an item
    :ivar priority: that of the jobs' turns among others that use the limiter: lower goes first
    :ivar attempts: how often a job is tried
    :ivar observer: is notified of what becomes of the jobs

    """

    limiter: Limiter | None
    concurrency: Concurrency
    cost: CostOf[I]
    priority: int
    attempts: Attempts
    observer: Observer | None

    @classmethod
    def checked(  # noqa: PLR0917 - in the order of the fields
        cls,
        limiter: Limiter | str | None,
        concurrency: Concurrency,
        cost: CostOf[I],
        priority: int,
        attempts: Attempts | None,
        observer: Observer | None,
    ) -> Self:
        """
        Return the options that these parameters make.

        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if a parameter is out of its range

        """
        known = None if limiter is None else as_limiter(limiter)
        _check_concurrency(concurrency, known)
        _check_cost(cost, known)
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TypeError(f"priority must be an int, not {priority!r}")

        check_observer(observer)
        return cls(known, concurrency, cost, priority, check_attempts(attempts), observer)


def limiter_of(
    limiter: Limiter | str | None, time_window: float | None, per_time_window: int | None
) -> Limiter:
    """
    Return the limiter, or one for the window, by default 100 in a minute.

    :raises TypeError: if both are given, or a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range

    """
    if limiter is None:
        window = 60.0 if time_window is None else check_seconds("time_window", time_window)
        limit = 100 if per_time_window is None else check_count("per_time_window", per_time_window)
        # Its own checkpoint is not needed: the workers have one.
        return RateLimiter(WindowTokenBucket(limit, window), fast_acquire=True)

    if time_window is not None or per_time_window is not None:
        raise TypeError(
            f"limiter={limiter!r} says how fast jobs may start: leave out "
            f"time_window={time_window!r} and per_time_window={per_time_window!r}"
        )

    return as_limiter(limiter)


def _check_concurrency(value: Concurrency, limiter: Limiter | None) -> None:
    """
    Check a value given as ``concurrency``.

    :raises TypeError: if it cannot be one
    :raises ValueError: if it is below 1, or the limiter's own: each job would take two slots of it

    """
    if isinstance(value, anyio.CapacityLimiter):
        if slots_of(limiter) is value:
            raise ValueError(
                f"concurrency={value!r} is that of the limiter too, which takes a slot for each "
                f"job: leave it out here"
            )
    elif value is not None:
        check_count("concurrency", value, or_else="a CapacityLimiter")


def results_waiting(concurrency: Concurrency, limiter: Limiter | None) -> Callable[[], float]:
    """
    Return a function that returns how many results may wait: as many as jobs run at once.

    The limiter's own concurrency counts if there is no other.
    """
    if isinstance(concurrency, int):
        return lambda: concurrency

    def as_many_as_run() -> float:
        # Read each time, because it may change during a run.
        slots = slots_of(limiter) if concurrency is None else concurrency
        total = slots.total_tokens if isinstance(slots, anyio.CapacityLimiter) else slots
        return _RESULTS_WAITING if total == inf else max(total, 1)

    return as_many_as_run


def _check_cost(cost: CostOf[I], limiter: Limiter | None) -> None:
    """
    Raise at once the error that each job would be refused with, for a wrong or too high cost.

    With a limiter of the user's own, the first job will show it.
    """
    if callable(cost):
        return

    if limiter is None:
        by_unit(cost)
    elif isinstance(limiter, RateLimiter):
        limiter.permit(cost)
