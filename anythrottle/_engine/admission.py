"""Gives a job what it needs before it may start: a slot, and a turn of the limiter."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeAlias, final

import anyio

from .._limiters.holding import borrowers_of, slots_here, waiting_inside
from .._limiters.permit import FreePermit, TurnPermit
from .._limiters.rate_limiter import RateLimiter
from .._limiters.slots import Slot
from .._loops.event_loop import Parked
from .._policies.policy import Cost
from ..abc import Limiter, Permit
from .job_record import I, JobRecord, T
from .options import JobOptions
from .run_state import RunState

#: A permit of this library's own, which has been entered without having had to wait.
ReadyPermit: TypeAlias = TurnPermit | FreePermit

#: A permit as the limiter has returned it.
_Unentered: TypeAlias = AbstractAsyncContextManager[Permit]

#: The same, or one that is ready.
Asked: TypeAlias = ReadyPermit | _Unentered


@final
class Worker(Parked):
    """
    A task that runs jobs; parked while it waits for the lead, or with the lead for a change.

    :ivar slot: the borrower in whose name it borrows a slot: a new one each time, because tasks
        that a job has left behind may still wait inside of an earlier one
    :ivar has_slot: whether it has borrowed a slot

    """

    __slots__ = ("has_slot", "slot")

    def __init__(self) -> None:
        self.parked = None
        self.slot: Slot | None = None
        self.has_slot = False


@final
class Admission(Generic[I]):
    """
    Admits the jobs of one run, one worker at a time; made in that run.

    A worker holds a slot while it waits for the turn of its job.

    :param options: how the jobs are run
    :param run: the run

    """

    __slots__ = (
        "_options",
        "_run",
        "_slots",
        "_unused",
        "_unused_cost",
        "fixed_cost",
        "free",
        "keeps_slots",
        "limiter",
        "turned_away",
    )

    def __init__(self, options: JobOptions[I], run: RunState) -> None:
        limiter, slots, cost = options.limiter, options.concurrency, options.cost
        #: The permit of all jobs, if nothing can hold them up but a pause of this run's own.
        self.free: FreePermit | None = None
        if limiter is None:
            self.free = FreePermit()
            limiter = RateLimiter(observer=self.free.note)
            self.free.belong_to(limiter)

        self.limiter: Limiter = limiter
        self._options = options
        self._slots = anyio.CapacityLimiter(slots) if isinstance(slots, int) else slots
        #: Whether a worker keeps its slot from one job to the next: no other run waits for it, and
        #: the number of slots stays the same.
        self.keeps_slots = isinstance(slots, int)
        #: What each attempt costs; ``None`` if that depends on the item: then the record has it.
        self.fixed_cost: Cost | None = None if callable(cost) else cost
        self._run = run
        #: A permit that has not been entered, and what it costs: it serves the next start that
        #: costs as much, whichever job that is.
        self._unused: _Unentered | None = None
        self._unused_cost: Cost | None = None
        #: Whether the next turn is to be waited for: the last one was not due at once, or a job was
        #: throttled since; set by the attempt runner, too.
        self.turned_away = False

    def find_cost(self, record: JobRecord[I, T]) -> None:
        """
        Compute and validate what a job costs, by the function that was given as the cost.

        :raises Exception: an error of the function that returns the cost, or of the limiter

        """
        cost_of = self._options.cost
        assert callable(cost_of)
        cost = cost_of(record.item)
        # Asked even if an unused permit costs the same: True is no valid cost, but equals 1.
        self._keep(self.limiter.permit(cost, priority=self._options.priority), cost)
        self.turned_away = False
        record.cost = cost

    def try_enter(
        self, record: JobRecord[I, T], worker: Worker, *, begins: bool
    ) -> ReadyPermit | None:
        """
        Admit a job whose cost is known, if it need not wait.

        If it must wait, the worker may have borrowed a slot all the same.

        :param begins: whether the call of the job begins; else its turn is only held
        :return: its permit; ``None`` if it must wait

        """
        if not (worker.has_slot or self._borrow_now(worker)):
            return None

        free = self.free
        if free is not None and free.is_open:
            return free

        cost = self.fixed_cost if record.cost is None else record.cost
        assert cost is not None
        asked = self._permit(cost)
        if not (isinstance(asked, TurnPermit) and asked.enter_now(begins=begins)):
            self._keep(asked, cost)
            self.turned_away = True
            return None

        if free is not None:
            # It was granted, so no pause is under way any more.
            free.is_open = True

        return asked

    async def enter(
        self, record: JobRecord[I, T], worker: Worker, called_back: TurnPermit | None = None
    ) -> tuple[Asked, Permit] | None:
        """
        Wait until a job may be admitted; a turn of this library's own limiters is only held then.

        :param called_back: a permit whose turn was called back, to be held again
        :return: the permit as the limiter has returned it, and what entering it gave; ``None`` if
            nothing more is to be started

        """
        cost = self.fixed_cost if record.cost is None else record.cost
        assert cost is not None
        try:
            with anyio.CancelScope() as self._run.entering:
                # A job that has just become due has not tried to borrow a slot yet.
                if not (worker.has_slot or self._borrow_now(worker)):
                    await self._borrow(worker)

                asked = called_back or self._permit(cost)
                if isinstance(asked, TurnPermit):
                    await asked.hold()
                    return asked, asked

                return asked, await asked.__aenter__()
        finally:
            self._run.entering = None

        return None

    def all_busy(self) -> bool:
        """Return whether nothing can start before one of the running jobs has ended."""
        return self.keeps_slots and self._slots is not None and self._slots.available_tokens <= 0

    def release_if_shared(self, worker: Worker) -> None:
        """Return the slot of a worker that runs nothing now, if other runs may need it."""
        if not self.keeps_slots:
            self.return_slot(worker)

    def return_slot(self, worker: Worker) -> None:
        """Return the slot of a worker, if it has one."""
        if worker.has_slot:
            worker.has_slot = False
            if self._slots is not None:
                slot, worker.slot = worker.slot, None
                self._slots.release_on_behalf_of(slot)

    def _permit(self, cost: Cost) -> _Unentered:
        """Return a permit of this cost: the one that is unused, or else a new one."""
        self.turned_away = False
        unused = self._unused
        if unused is not None and self._unused_cost == cost:
            self._unused = None
            return unused

        return self.limiter.permit(cost, priority=self._options.priority)

    def _keep(self, asked: _Unentered, cost: Cost) -> None:
        """Keep a permit that has not been entered: it holds nothing."""
        self._unused = asked
        # A copy, because its owner may use the mapping again, with other amounts.
        self._unused_cost = dict(cost) if isinstance(cost, Mapping) else cost

    def _borrow_now(self, worker: Worker) -> bool:
        if self._slots is not None:
            if worker.slot is None:
                worker.slot = Slot(self._slots)

            try:
                self._slots.acquire_on_behalf_of_nowait(worker.slot)
            except anyio.WouldBlock:
                return False

        worker.has_slot = True
        return True

    async def _borrow(self, worker: Worker) -> None:
        """Wait for a slot and borrow it; raise if there could never be one."""
        slots = self._slots
        assert slots is not None
        held = slots_here(slots)
        with waiting_inside(slots, held, borrowers_of(slots) if held else ()):
            await slots.acquire_on_behalf_of(worker.slot)

        worker.has_slot = True


async def undo(asked: Asked, permit: Permit) -> None:
    """Take back a turn that was granted and has not been used."""
    if isinstance(asked, (TurnPermit, FreePermit)):
        asked.withdraw()
    else:
        permit.refund()
        await leave(asked, None)


async def leave(asked: Asked, error: BaseException | None) -> None:
    """End a call."""
    if isinstance(asked, (TurnPermit, FreePermit)):
        asked.leave()
    elif error is None:
        await asked.__aexit__(None, None, None)
    else:
        await asked.__aexit__(type(error), error, error.__traceback__)
