"""How jobs are run: the options that a throttler and all its kin have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Self, TypeVar, final

from .._events import Observer, check_observer
from .._limiters.rate_limiter import as_limiter
from ..abc import Limiter
from .attempts import Attempts, check_attempts
from .concurrency import Concurrency, check_concurrency
from .cost_of import CostOf, check_cost

I = TypeVar("I")  # noqa: E741 - an item


@final
@dataclass(frozen=True, slots=True)
class JobOptions(Generic[I]):
    """
    What holds for all jobs of a throttler, or of a call of one of its kin; checked.

    :ivar limiter: what lets a job pass, ``None`` for no limit
    :ivar concurrency: how many jobs run at once at most, or slots that may be shared
    :ivar cost: what a start of a job costs, or a function that tells it of an item
    :ivar priority: that of the jobs' turns among others that use the limiter: lower goes first
    :ivar attempts: how often a job is tried
    :ivar observer: who is told what becomes of the jobs

    """

    limiter: Limiter | None
    concurrency: Concurrency
    cost: CostOf[I]
    priority: int
    attempts: Attempts
    observer: Observer | None

    @classmethod
    def checked(
        cls,
        *,
        limiter: Limiter | str | None,
        concurrency: Concurrency,
        cost: CostOf[I],
        priority: int,
        attempts: Attempts | None,
        observer: Observer | None,
    ) -> Self:
        """
        Return the options that these parameters are.

        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if a parameter is out of its range

        """
        known = None if limiter is None else as_limiter(limiter)
        check_concurrency(concurrency, known)
        check_cost(cost, known)
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TypeError(f"priority must be an int, not {priority!r}")

        check_observer(observer)
        return cls(known, concurrency, cost, priority, check_attempts(attempts), observer)
