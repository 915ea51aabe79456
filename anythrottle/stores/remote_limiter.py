"""A limiter that is shared by many processes, whatever the store."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractAsyncContextManager
from math import inf
from types import TracebackType
from typing import ClassVar, Protocol, cast, final

from .._errors import LeaseLost
from .._events import Observer
from .._limiters.base_limiter import BaseLimiter
from .._limiters.controls import RateLimiterStatistics
from .._limiters.line import WaitLine
from .._limiters.line_limiter import LineLimiter
from .._limiters.max_wait import MaxWait, check_max_wait
from .._limiters.permit import TurnPermit
from .._limiters.queue import TurnQueue
from .._limiters.scheduling import Scheduler
from .._limiters.slots import Slots
from .._loops.clock import LoopClock
from .._policies.policy import Cost, Decision, Policy
from ..abc import Limiter, Permit
from .claim import Claim
from .dialogue import Dialogue
from .exchange import NEVER, Amounts, Reply
from .insurance import Insurance, InsuredPermit
from .remote_gate import Owner, RemoteGate
from .remote_outlook import RemoteOutlook, decide

_logger = logging.getLogger("anythrottle")


class RemoteOwner(Owner, Protocol):
    """What a shared limiter wants of its store."""

    async def answer(self, gate: RemoteGate, probe: Amounts, *, count_all: bool) -> Reply:
        """Return the server's answer to a question about a limiter."""
        ...


class RemotePermit(TurnPermit):
    """The permit of one call of a shared limiter."""

    __slots__ = ()

    #: Whether leaving it raises if the call has lost what it held.
    strict = False

    @property
    def lost(self) -> bool:
        """Whether others may have what the call holds, because this process was silent too long."""
        turn = self._kept or self
        gate = self._line.gate
        assert isinstance(gate, RemoteGate)
        return isinstance(turn.slot, Claim) and gate.has_lost(turn.slot, self._line.clock.peek())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = self.lost
        await super().__aexit__(exc_type, exc, traceback)
        if lost:
            error = LeaseLost(self._line.name or "")
            if self.strict and exc is None:
                raise error

            _logger.warning("%s", error)


@final
class StrictPermit(RemotePermit):
    """A permit whose block ends with an error if the call has lost what it held."""

    __slots__ = ()

    strict = True


class RemoteRateLimiter(LineLimiter):
    """
    The part of shared limiters that does not depend on the store.

    A store's ``limiter()`` makes it. It is used as a :class:`.RateLimiter` is, while the store is
    entered, but for three things: :meth:`peek` asks the server, and so has to be awaited;
    ``permit(max_wait=0)``, which waits for one answer, stands for ``acquire_nowait()``; and its
    policies cannot be exchanged, because they are those of all processes.
    """

    __slots__ = ("_gate", "_insurance", "_owner")

    permit_type: ClassVar[type[TurnPermit]] = RemotePermit

    _gate: RemoteGate

    def __init__(
        self,
        owner: RemoteOwner,
        name: str,
        policies: tuple[Policy, ...],
        *,
        concurrency: int | None,
        max_waiting: int | None,
        dialogue: Dialogue,
        insurance: Limiter | None,
        observer: Observer | None,
    ) -> None:
        self._owner = owner
        slots = Slots(inf if concurrency is None else concurrency)
        queue = TurnQueue()
        self._gate = gate = RemoteGate(policies, slots, queue, dialogue, name=name, owner=owner)

        def scheduler_of(clock: LoopClock) -> Scheduler:  # noqa: ARG001 - of the server's clock
            most = inf if max_waiting is None else max_waiting
            return Scheduler(gate, queue, RemoteOutlook(gate), most)

        line = WaitLine(scheduler_of, name, observer)
        super().__init__(line, fast=False)
        self._insurance = None if insurance is None else Insurance(insurance, line)

    @property
    def gate(self) -> RemoteGate:
        """Its gate."""
        return self._gate

    @property
    def line(self) -> WaitLine:
        """Its line."""
        return self._line

    @property
    def insurance(self) -> Insurance | None:
        """What stands in for it while the store does not answer, if anything does."""
        return self._insurance

    @property
    def name(self) -> str:
        """The name that it has in all processes."""
        assert self._line.name is not None
        return self._line.name

    async def acquire(self, cost: Cost = 1, *, priority: int = 0, max_wait: MaxWait = None) -> None:
        """
        Wait for a turn, as :meth:`.RateLimiter.acquire` does.

        :raises ~anythrottle.StoreError: if the store does not answer
        """
        if self._insurance is None:
            await super().acquire(cost, priority=priority, max_wait=max_wait)
            return

        self._amounts_without_hold(cost, "acquire")
        async with self.permit(cost, priority=priority, max_wait=max_wait):
            pass

    def permit(
        self,
        cost: Cost = 1,
        *,
        priority: int = 0,
        max_wait: MaxWait = None,
        strict: bool = False,
    ) -> AbstractAsyncContextManager[TurnPermit]:
        """
        Return the permit for one call, to be entered, as :meth:`.RateLimiter.permit` does.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first, among the calls of this process
        :param max_wait: for how many seconds to wait at most, 0 or more: 0 for one answer of the
            server, though other answers may come before; ``"deadline"`` for until the deadline of
            the enclosing cancel scope; ``None`` for as long as it takes
        :param strict: whether leaving the permit raises :exc:`.LeaseLost` if this process was
            silent for so long that others may have got what the call held; else that is logged
        :raises ~anythrottle.StoreError: on entering, if the store does not answer and there is no
            limiter for that; else the permit is one of that limiter
        """
        permit = super().permit(cost, priority=priority, max_wait=max_wait)
        if strict:
            permit = StrictPermit(
                self, self._line, cost, priority, check_max_wait(max_wait), fast=False
            )

        assert isinstance(permit, TurnPermit)
        if self._insurance is None:
            return permit

        insured = InsuredPermit(permit, self._insurance, priority=priority)
        # While the store is away, the caller gets what the other limiter hands out.
        return cast("AbstractAsyncContextManager[TurnPermit]", insured)

    def permit_again(self, permit: Permit, cost: Cost) -> TurnPermit | InsuredPermit | None:  # type: ignore[override]
        again = super().permit_again(permit, cost)
        if again is None or self._insurance is None:
            return again

        return InsuredPermit(again, self._insurance, priority=-sys.maxsize)

    async def __aenter__(self) -> None:
        if self._insurance is None:
            await super().__aenter__()
        else:
            await BaseLimiter.__aenter__(self)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._insurance is None:
            await super().__aexit__(exc_type, exc, traceback)
        else:
            await BaseLimiter.__aexit__(self, exc_type, exc, traceback)

    async def peek(self, cost: Cost = 1) -> Decision:
        """
        Ask the server whether a call may go now, and if not, why and when.

        :param cost: what the call would cost, 0 or more, or amounts by unit
        :raises ~anythrottle.StoreError: if the store does not answer
        """
        amounts = self._gate.amounts(cost)
        reply = await self._owner.answer(self._gate, amounts, count_all=False)
        now = self._line.clock.peek()
        return decide(self._gate, amounts, now, reply.probed)

    async def shared_statistics(self) -> RateLimiterStatistics:
        """
        Return the statistics of all processes together, as each has told the server last.

        :raises ~anythrottle.StoreError: if the store does not answer
        """
        reply = await self._owner.answer(self._gate, (), count_all=True)
        waiting, running, kept = reply.census
        return RateLimiterStatistics(
            tasks_waiting=waiting,
            borrowed_tokens=running,
            total_tokens=self._gate.slots.total,
            paused_for=max(reply.news.paused_until - reply.news.now, 0) / 1e6
            if reply.news.paused_until < NEVER
            else inf,
            kept=kept,
        )

    def idle_in(self) -> float:
        """
        Return in how many seconds this process no longer uses the limiter, infinity if unknown.

        What was charged does not count: the server remembers it.
        """
        return self._gate.idle_in(self._line.clock.peek())
