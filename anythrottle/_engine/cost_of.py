"""What an attempt costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from .._limiters.cost import by_unit
from .._limiters.rate_limiter import RateLimiter
from .._policies.policy import Cost
from ..abc import Limiter

I = TypeVar("I")  # noqa: E741 - an item

#: The same for each job, or a function that tells it of an item.
CostOf: TypeAlias = Cost | Callable[[I], Cost]


def check_cost(cost: CostOf[I], limiter: Limiter | None) -> None:
    """
    Raise at once what each job would be refused with: if a cost is none, or does not fit.

    Of limiters of a user's own, the first job tells.
    """
    if callable(cost):
        return

    if limiter is None:
        by_unit(cost)
    elif isinstance(limiter, RateLimiter):
        limiter.permit(cost)
