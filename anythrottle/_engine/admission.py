"""What a job needs before it may start: a slot, and a turn of the limiter."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeAlias, TypeVar, final

import anyio

from .._limiters.permit import TurnPermit
from .._policies.policy import Cost
from ..abc import Limiter, Permit
from .concurrency import Concurrency
from .cost_of import CostOf
from .job import Errand

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

#: A permit as it was asked for, what entering it gave, and on whose behalf a slot was borrowed.
Admitted: TypeAlias = tuple[AbstractAsyncContextManager[Permit], Permit, object]

#: Stands for a slot where there is no bound.
_NO_SLOT = object()


@final
class Admission(Generic[I]):
    """
    Lets the jobs of one run start; made in that run.

    One job at a time is let in. While it waits for its turn it holds a slot, but nothing is held
    longer than :meth:`wait` takes.

    :param limiter: what lets a job pass
    :param concurrency: how many jobs run at once at most, or slots that may be shared
    :param cost: what an attempt costs

    """

    __slots__ = ("_cost", "_limiter", "_scope", "_shared", "_slots")

    def __init__(self, limiter: Limiter, concurrency: Concurrency, cost: CostOf[I]) -> None:
        self._limiter = limiter
        #: Whether others may take slots, give them back, or change their number.
        self._shared = isinstance(concurrency, anyio.CapacityLimiter)
        self._slots = (
            anyio.CapacityLimiter(concurrency) if isinstance(concurrency, int) else concurrency
        )
        self._cost = cost
        #: The scope of whoever waits.
        self._scope: anyio.CancelScope | None = None

    def price(self, errand: Errand[I, T]) -> None:
        """
        See to it that it is known what a job costs, and that this is a cost that can be.

        :raises Exception: what the function that tells the cost has raised, or the limiter

        """
        if errand.cost is None:
            cost = self._cost(errand.item) if callable(self._cost) else self._cost
            self._limiter.permit(cost)
            errand.cost = cost

    @property
    def fixed_cost(self) -> Cost | None:
        """What each attempt costs, ``None`` if that depends on the item."""
        return None if callable(self._cost) else self._cost

    def now(self, errand: Errand[I, T]) -> Admitted | None:
        """Let a job in whose price is known if that needs no waiting."""
        slot = self._borrow_now()
        if slot is None:
            return None

        assert errand.cost is not None
        try:
            asked = self._limiter.permit(errand.cost)
            entered = isinstance(asked, TurnPermit) and asked.enter_now()
        except BaseException:
            self.return_slot(slot)
            raise

        if isinstance(asked, TurnPermit) and entered:
            return asked, asked, slot

        self.return_slot(slot)
        return None

    async def wait(self, errand: Errand[I, T]) -> Admitted | None:
        """Let a job in as soon as it may be; ``None`` if :meth:`stop_waiting` was called."""
        assert errand.cost is not None
        slot = await self._borrow()
        if slot is None:
            return None

        permit: Permit | None = None
        try:
            asked = self._limiter.permit(errand.cost)
            with anyio.CancelScope() as self._scope:
                permit = await asked.__aenter__()
        finally:
            self._scope = None
            if permit is None:
                self.return_slot(slot)

        return None if permit is None else (asked, permit, slot)

    def stop_waiting(self) -> None:
        """Let whoever waits give up."""
        if self._scope is not None:
            self._scope.cancel()

    async def undo(self, admitted: Admitted) -> None:
        """Take back what has been granted, and not been used."""
        asked, permit, slot = admitted
        try:
            permit.refund()
            await asked.__aexit__(None, None, None)
        finally:
            self.return_slot(slot)

    def all_busy(self) -> bool:
        """Tell whether nothing can start before one of the jobs that run has ended."""
        return not self._shared and self._slots is not None and self._slots.available_tokens <= 0

    def return_slot(self, slot: object) -> None:
        """Return a slot, for its job has ended."""
        if self._slots is not None:
            self._slots.release_on_behalf_of(slot)

    def _borrow_now(self) -> object:
        if self._slots is None:
            return _NO_SLOT

        slot = object()
        try:
            self._slots.acquire_on_behalf_of_nowait(slot)
        except anyio.WouldBlock:
            return None

        return slot

    async def _borrow(self) -> object:
        slot = self._borrow_now()
        if slot is None:
            assert self._slots is not None
            waiting = object()
            try:
                with anyio.CancelScope() as self._scope:
                    await self._slots.acquire_on_behalf_of(waiting)
                    slot = waiting
            finally:
                self._scope = None

        return slot
