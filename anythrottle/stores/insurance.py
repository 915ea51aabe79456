"""What takes the place of a shared limiter while its store does not answer."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import final

import anyio

from .._errors import StoreError
from .._limiters.calls import stand_again
from .._limiters.line import WaitLine
from .._limiters.max_wait import MaxWait
from .._limiters.permit import TurnPermit
from .._limiters.turn import Place
from .._loops.clock import LoopClock
from .._loops.event_loop import EventLoop
from ..abc import Limiter, Permit


@final
class Insurance:
    """
    The limiter that stands in for a shared one, and the calls that wait there meanwhile.

    :param limiter: the limiter that stands in
    :param line: the line of the shared limiter

    :ivar moved: the calls that wait for a turn of the limiter that stands in
    """

    __slots__ = ("limiter", "line", "moved")

    def __init__(self, limiter: Limiter, line: WaitLine) -> None:
        self.limiter = limiter
        self.line = line
        self.moved: dict[InsuredPermit, None] = {}

    def call_back(self) -> None:
        """
        Put the calls that wait here back in the shared line, each in its old place.

        It is for when the store answers again. All stand in line before this returns, so that no
        newcomer gets ahead of them.
        """
        latest = self.line.clock.latest
        back = sorted((e for e in self.moved if e.loop is latest), key=lambda each: each.place)
        for each in back:
            del self.moved[each]
            each.come_back()


@final
class InsuredPermit:
    """
    The permit of one call, of a shared limiter or, if its store does not answer, of another one.

    Entering it returns the permit of the limiter that gave the turn. A call that still waits for
    the other one when the store answers again is called back, and waits for the shared limiter.

    :param permit: the permit of the shared limiter
    :param insurance: the other limiter
    :param priority: the priority among the calls of the other limiter
    """

    __slots__ = (
        "_again",
        "_began",
        "_insurance",
        "_max_wait",
        "_permit",
        "_priority",
        "_scope",
        "_used",
    )

    def __init__(
        self,
        permit: TurnPermit,
        insurance: Insurance,
        *,
        priority: int,
    ) -> None:
        self._permit = permit
        self._insurance = insurance
        self._max_wait: MaxWait = permit.max_wait
        self._priority = priority
        self._used: AbstractAsyncContextManager[Permit] = permit
        self._began = 0.0
        #: The scope within which the call waits for the other limiter, once it does.
        self._scope: anyio.CancelScope | None = None
        #: The permit of the shared limiter that a call is called back to.
        self._again: TurnPermit | None = None

    @property
    def loop(self) -> EventLoop | None:
        """The event loop in which the call waits."""
        return self._permit.loop

    @property
    def place(self) -> Place:
        """Its place in the line of the shared limiter."""
        return self._permit.place

    async def __aenter__(self) -> Permit:
        self._began = self._clock.now()
        entered = await self._enter()
        if isinstance(entered, TurnPermit) and self._scope is not None:
            entered.note_waited(self._clock.now() - self._began)

        return entered

    async def _enter(self) -> Permit:
        """Enter a permit of the limiter that gives a turn."""
        while True:
            try:
                return await self._permit.__aenter__()
            except StoreError as error:
                if error.is_mistake:
                    raise

                # The store is still away: it is not tried again before this task goes on.

            other = self._insurance.limiter.permit(
                self._permit.cost, priority=self._priority, max_wait=self._left()
            )
            entered = await self._enter_other(other)
            if entered is not None:
                return entered

    async def _enter_other(self, other: AbstractAsyncContextManager[Permit]) -> Permit | None:
        """Enter the other limiter's permit; return it, or ``None`` if the call is called back."""
        moved = self._insurance.moved
        self._scope = scope = anyio.CancelScope()
        self._used = other
        moved[self] = None
        try:
            with scope:
                return await other.__aenter__()

            assert self._again is not None, "nothing else cancels the scope"
            self._used = self._permit = self._again
            self._again = None
            return None
        finally:
            moved.pop(self, None)
            if self._again is not None:
                # The call has got a turn there after all, or was cancelled or refused.
                self._again.leave()
                self._again = None

    def come_back(self) -> None:
        """Stand in the line of the shared limiter again, and wait for the other one no longer."""
        assert self._scope is not None, "only who waits for the other limiter is called back"
        permit, line = self._permit, self._insurance.line
        self._again = again = type(permit)(
            permit.limiter, line, permit.cost, permit.place[0], self._left(), fast=False
        )
        again.place = permit.place
        stand_again(line, again)
        self._scope.cancel()

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

    @property
    def _clock(self) -> LoopClock:
        return self._insurance.line.clock

    def _left(self) -> MaxWait:
        """Return what is left of the bound for waiting, which all of its waits share."""
        return remaining_wait(self._max_wait, self._clock.now() - self._began)


def remaining_wait(max_wait: MaxWait, waited: float) -> MaxWait:
    """Return what is left of a bound for waiting."""
    if max_wait is None or max_wait == "deadline":
        return max_wait

    return max(max_wait - waited, 0.0)
