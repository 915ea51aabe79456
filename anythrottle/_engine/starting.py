"""Which job starts next, and when: it has a slot and its turn, and its result has room."""

from __future__ import annotations

from asyncio import CancelledError
from math import inf
from typing import Generic, TypeAlias, TypeVar, final

from .._events import Observer, Started, tell
from .._limiters.permit import TurnPermit
from .._loops.event_loop import EventLoop
from ..abc import Permit
from .admission import Admission, Asked, Worker, undo
from .backlog import Backlog
from .job import Errand
from .outlet import Outlet
from .puller import Puller
from .run_state import RUNNING, RunState
from .workbench import Workbench

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

#: The least that one waits for a delayed job, in seconds: timers may go off early.
_NAP = 0.001

#: A job that has been started, and its permit: as it was asked for, and what entering it gave.
Start: TypeAlias = tuple[Errand[I, T], Asked, Permit]


@final
class Starter(Generic[I, T]):
    """
    Lets the jobs of one run start, each when it is frontmost.

    :param backlog: the jobs
    :param outlet: is asked whether there is room for a result
    :param admission: lets the jobs in
    :param run: the run
    :param workbench: lets a job end that cannot start
    :param puller: is told of an error of a sequence
    :param loop: the event loop
    :param observer: who is told that a job starts

    """

    __slots__ = (
        "_admission",
        "_backlog",
        "_bounded",
        "_cancellation",
        "_loop",
        "_observer",
        "_on_source_error",
        "_outlet",
        "_run",
        "_time",
        "_workbench",
        "called_back",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        outlet: Outlet[I, T],
        admission: Admission[I],
        run: RunState,
        *,
        workbench: Workbench[I, T],
        puller: Puller[I, T],
        loop: EventLoop,
        observer: Observer | None,
    ) -> None:
        self._backlog = backlog
        self._outlet = outlet
        self._bounded = outlet.bounded
        self._admission = admission
        self._loop = loop
        self._run = run
        self._cancellation = run.cancellation
        self._workbench = workbench
        #: For what :meth:`.Backlog.next_job` is to be given.
        self._time = loop.time
        self._on_source_error = puller.note_error
        self._observer = observer
        #: Whether :meth:`now` has just failed because the turn that it had was called back.
        self.called_back = False

    def now(self, worker: Worker) -> Start[I, T] | None:
        """
        Let a worker start the frontmost job, if that may be at once.

        :return: what to run; ``None`` if it may not be, or is to be found out by :meth:`next`

        """
        self.called_back = False
        if self._run.phase is not RUNNING:
            return None

        errand = self._backlog.next_job(self._time, self._on_source_error)
        if errand is None:
            return None

        if errand.cost is None:
            errand.cost = self._admission.fixed_cost
            if errand.cost is None:
                return None

        if self._bounded and not self._outlet.has_room(errand):
            return None

        try:
            permit = self._admission.now(errand, worker, begins=self._observer is None)
        except ValueError as exc:
            self._drop(errand, exc)
            permit = None

        if permit is None:
            return None

        held = permit if self._observer is not None and isinstance(permit, TurnPermit) else None
        started = False
        try:
            started = self._start(errand, permit, held)
        finally:
            if not started:
                self.called_back = held is not None and held.in_line
                permit.withdraw()

        return (errand, permit, permit) if started else None

    async def next(self, worker: Worker) -> Start[I, T] | None:
        """
        Let a worker start the frontmost job as soon as there is one and it may start.

        :return: what to run; ``None`` if nothing more is to be started

        """
        while self._run.phase is RUNNING:
            if self._cancellation.forbids_starts():
                await self._loop.checkpoint()

            start = self.now(worker)
            if start is not None:
                return start

            if self._run.phase is not RUNNING:
                return None

            errand = self._backlog.next_job(self._time, self._on_source_error)
            if errand is None or not self._outlet.has_room(errand):
                if errand is None and self._backlog.is_at_end():
                    self._run.exhaust()
                    return None

                self._admission.rest(worker)
                await self._wait_for_change(worker)
            elif errand.cost is None:
                # Whoever is asked for the cost may change what is frontmost.
                if not self._has_price(errand):
                    # There may be many such jobs.
                    await self._loop.checkpoint()
            else:
                start = await self._admit(errand, worker)
                if start is not None:
                    return start

                # There may be many that cannot be admitted.
                await self._loop.checkpoint()

        return None

    async def _admit(self, errand: Errand[I, T], worker: Worker) -> Start[I, T] | None:
        """Wait until the frontmost job may start, and start what is frontmost then."""
        called_back: TurnPermit | None = None
        while True:
            try:
                admitted = await self._admission.wait(errand, worker, called_back)
            except ValueError as exc:
                self._drop(errand, exc)
                return None

            if admitted is None:
                return None

            asked, permit = admitted
            frontmost = called_back = None
            try:
                # It may have taken a while: what is frontmost now, and does it cost as much?
                frontmost = self._start_like(errand, asked, permit)
                if isinstance(asked, TurnPermit) and asked.in_line and self._run.phase is RUNNING:
                    called_back = asked
            finally:
                if frontmost is None and called_back is None:
                    await undo(asked, permit)

            if called_back is None:
                return None if frontmost is None else (frontmost, asked, permit)

    def _start_like(
        self, errand: Errand[I, T], asked: Asked, permit: Permit
    ) -> Errand[I, T] | None:
        """Start what is frontmost, if it costs as much as a job that was admitted."""
        frontmost = None
        if self._run.phase is RUNNING:
            frontmost = self._backlog.next_job(self._time, self._on_source_error)

        if (
            frontmost is not None
            and self._has_price(frontmost)
            and frontmost.cost == errand.cost
            and self._start(frontmost, permit, asked if isinstance(asked, TurnPermit) else None)
        ):
            return frontmost

        return None

    def _start(self, errand: Errand[I, T], permit: Permit, held: TurnPermit | None) -> bool:
        """
        Start a job whose turn has come, if it is frontmost still, and nothing else forbids it.

        Observers and functions of a user's own may have stopped or cancelled the run, put another
        job first, or paused the limiter. After the last look nothing of theirs runs before the job.

        :param held: the permit, if its call has not begun

        """
        forbidden = self._cancellation.forbids_starts
        if self._run.phase is not RUNNING or forbidden() or not self._backlog.start(errand):
            return False

        waited = errand.waited + permit.waited
        begun = held is None and self._observer is None
        if not begun:
            try:
                if self._observer is not None:
                    position, item = errand.position, errand.item
                    tell(self._observer, Started(position, item, errand.attempts, waited))

                begun = (
                    self._run.phase is RUNNING
                    and not forbidden()
                    and (held is None or held.begin())
                )
            finally:
                if not begun:
                    self._backlog.call_back(errand)

        if begun:
            errand.waited = waited

        return begun

    def _has_price(self, errand: Errand[I, T]) -> bool:
        """Look what the frontmost job costs; if that cannot be told, it ends with an error."""
        try:
            self._admission.price(errand)
        except (Exception, CancelledError) as exc:  # noqa: BLE001 - it is that job's alone
            self._end(errand, exc)
            return False

        return True

    def _drop(self, errand: Errand[I, T], error: ValueError) -> None:
        """Let a job end whose cost has come to be impossible, unless no job can start any more."""
        if self._admission.fixed_cost is not None:
            raise error

        self._end(errand, error)

    def _end(self, errand: Errand[I, T], error: BaseException) -> None:
        """Let a job end with an error without having been started."""
        if self._backlog.drop(errand):
            self._workbench.fail(errand, error)

    async def _wait_for_change(self, worker: Worker) -> None:
        due = self._backlog.next_due
        change = self._backlog.change
        change.await_by(worker, self._loop)
        try:
            if due == inf:
                await self._loop.park(worker)
            else:
                await self._loop.park_until(worker, max(due, self._time() + _NAP))
        finally:
            change.forget(worker)
