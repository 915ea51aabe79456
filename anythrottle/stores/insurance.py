"""What takes the place of a shared limiter while its store does not answer."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import final

from .._errors import StoreError
from .._limiters.max_wait import MaxWait
from .._limiters.permit import TurnPermit
from .._loops.clock import LoopClock
from .._policies.policy import Cost
from ..abc import Limiter, Permit


@final
class InsuredPermit:
    """
    The permit of one call, of a shared limiter or, if its store does not answer, of another one.

    Entering it returns the permit of whichever that is.

    :param permit: the permit of the shared limiter
    :param insurance: the other limiter
    :param clock: the clock of the shared limiter
    """

    __slots__ = ("_ask_other", "_clock", "_insurance", "_max_wait", "_permit", "_used")

    def __init__(
        self,
        permit: TurnPermit,
        insurance: Limiter,
        clock: LoopClock,
        *,
        cost: Cost,
        priority: int,
        max_wait: MaxWait,
    ) -> None:
        self._permit = permit
        self._insurance = insurance
        self._clock = clock
        self._max_wait: MaxWait = max_wait
        self._ask_other = (cost, priority)
        self._used: AbstractAsyncContextManager[Permit] = permit

    async def __aenter__(self) -> Permit:
        began = self._clock.now()
        try:
            return await self._permit.__aenter__()
        except StoreError as error:
            if error.is_mistake:
                raise

            cost, priority = self._ask_other
            max_wait = remaining_wait(self._max_wait, self._clock.now() - began)
            self._used = self._insurance.permit(cost, priority=priority, max_wait=max_wait)

        return await self._used.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._used.__aexit__(exc_type, exc, traceback)

    def leave(self) -> None:
        """Give up a turn that stands in line already, and will not be used."""
        self._permit.leave()


def remaining_wait(max_wait: MaxWait, waited: float) -> MaxWait:
    """Return what is left of a bound for waiting."""
    if max_wait is None or max_wait == "deadline":
        return max_wait

    return max(max_wait - waited, 0.0)
