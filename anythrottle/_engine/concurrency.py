"""How many jobs run at once."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeAlias

import anyio

from .._limiters.rate_limiter import takes_slots_of
from .._policies.checks import check_count
from ..abc import Limiter

#: A number, slots that may be shared, or no bound.
Concurrency: TypeAlias = int | anyio.CapacityLimiter | None

#: How many results may wait if there is no concurrency to go by.
_RESULTS_WAITING = 100


def check_concurrency(value: Concurrency, limiter: Limiter | None) -> Concurrency:
    """
    Return what has been given as ``concurrency``.

    :raises TypeError: if it can be none
    :raises ValueError: if it is below 1, or the limiter's own: each job would take two slots of it

    """
    if isinstance(value, anyio.CapacityLimiter):
        if takes_slots_of(limiter, value):
            raise ValueError(
                f"concurrency={value!r} is that of the limiter too, which takes a slot for each "
                f"job: leave it out here"
            )

        return value

    if value is None:
        return value

    return check_count("concurrency", value)


def results_waiting(concurrency: Concurrency) -> Callable[[], float]:
    """Return what tells how many results may wait to be consumed: as many as run at once."""
    if isinstance(concurrency, anyio.CapacityLimiter):
        slots = concurrency

        def as_many_as_slots() -> float:
            total = slots.total_tokens
            return _RESULTS_WAITING if total == inf else max(total, 1)

        return as_many_as_slots

    most = _RESULTS_WAITING if concurrency is None else concurrency
    return lambda: most
