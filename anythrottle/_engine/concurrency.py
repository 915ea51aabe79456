"""How many jobs run at once."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeAlias

import anyio

from .._limiters.rate_limiter import slots_of
from .._policies.checks import check_count
from ..abc import Limiter

#: A number, slots that may be shared, or no bound.
Concurrency: TypeAlias = int | anyio.CapacityLimiter | None

#: How many results may wait if nothing bounds how many jobs run at once.
_RESULTS_WAITING = 100


def check_concurrency(value: Concurrency, limiter: Limiter | None) -> Concurrency:
    """
    Return what has been given as ``concurrency``.

    :raises TypeError: if it can be none
    :raises ValueError: if it is below 1, or the limiter's own: each job would take two slots of it

    """
    if isinstance(value, anyio.CapacityLimiter):
        if slots_of(limiter) is value:
            raise ValueError(
                f"concurrency={value!r} is that of the limiter too, which takes a slot for each "
                f"job: leave it out here"
            )

        return value

    if value is None:
        return value

    return check_count("concurrency", value, or_else="a CapacityLimiter")


def results_waiting(concurrency: Concurrency, limiter: Limiter | None) -> Callable[[], float]:
    """
    Return what tells how many results may wait to be consumed: as many as run at once.

    The limiter's own concurrency counts if there is no other.
    """
    if isinstance(concurrency, int):
        return lambda: concurrency

    def as_many_as_run() -> float:
        # Asked each time, as it may change during a run.
        slots = slots_of(limiter) if concurrency is None else concurrency
        total = slots.total_tokens if isinstance(slots, anyio.CapacityLimiter) else slots
        return _RESULTS_WAITING if total == inf else max(total, 1)

    return as_many_as_run
