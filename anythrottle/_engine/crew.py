"""
The tasks of one run: who runs the jobs, in which order.

Each worker runs one job at a time, and one worker at a time has the lead. It waits until there is
a job and room for its result, then for a slot, then until the limiter lets one pass, takes the
job that is frontmost at that instant, and passes the lead on before it runs it. So one task at
most is in the limiter's line, nothing is held while there is no job, and jobs start in their
order. Passed on, the lead is free: whoever comes first takes it, a worker that was woken for
that or one that has just ended its job, which so goes on without having had to wake anybody. If
all slots are in use, nobody is woken. The workers are made as they are needed.

No task here lets an error out: the first that ends the run is kept in ``failure``, and the task
group is cancelled.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Generic, TypeAlias, TypeVar, final

import anyio
from anyio.abc import TaskGroup

from .._events import Observer
from .._limiters.clock import RunClock
from ..abc import Limiter, Permit
from .admission import Admission, Worker, undo
from .backlog import Backlog
from .cancellation import RunCancellation
from .concurrency import Concurrency
from .cost_of import CostOf
from .job import Errand
from .outlet import Outlet
from .puller import Puller
from .retrying import Attempts
from .workbench import Workbench

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

#: The least that the leader waits for a delayed job, in seconds: timers may go off early.
_NAP = 0.001

#: While so many jobs are delayed, only those are started that have been before.
_MOST_DELAYED = 1000

#: After so many jobs a worker lets others run, as its jobs may not do so by themselves.
_JOBS_IN_A_ROW = 16

_logger = logging.getLogger("anythrottle")

#: A job that has been started, its permit as it was asked for, and what entering it gave.
_Start: TypeAlias = tuple[Errand[I, T], AbstractAsyncContextManager[Permit], Permit]


@final
class Crew(Generic[I, T]):
    """
    The tasks of one run; made in the task that runs them.

    :param backlog: the jobs
    :param outlet: where they go when they have ended
    :param limiter: what lets a job pass
    :param concurrency: how many jobs run at once at most, or slots that may be shared
    :param cost: what an attempt costs
    :param attempts: how a job is attempted
    :param clock: what the jobs are timed with
    :param observer: who is told what becomes of the jobs
    :param resumable: whether another run may go on with the source

    """

    _task_group: TaskGroup

    __slots__ = (
        "_admission",
        "_backlog",
        "_beginners",
        "_bounded",
        "_done",
        "_idle",
        "_keeps_slots",
        "_leader",
        "_outlet",
        "_over",
        "_puller",
        "_run",
        "_stopping",
        "_successor",
        "_task_group",
        "_waiting",
        "_workbench",
        "_workers",
        "cancellation",
        "failure",
        "finished",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        outlet: Outlet[I, T],
        *,
        limiter: Limiter,
        concurrency: Concurrency,
        cost: CostOf[I],
        attempts: Attempts,
        clock: RunClock,
        observer: Observer | None,
        resumable: bool,
    ) -> None:
        self._backlog = backlog
        self._outlet = outlet
        self._bounded = outlet.bounded
        self._admission = Admission(limiter, concurrency, cost)
        self._keeps_slots = self._admission.keeps_slots
        self._run = clock.run()
        self.cancellation = RunCancellation()
        self._workbench = Workbench(
            backlog,
            outlet,
            limiter,
            attempts,
            run=self._run,
            cancellation=self.cancellation,
            end_with=self.fail,
            observer=observer,
        )
        self._workers = 0
        #: How many workers have been made and have not begun yet.
        self._beginners = 0
        #: The workers that wait for the lead, the one that has been woken to take it, and the one
        #: that has it.
        self._idle: dict[Worker, None] = {}
        self._successor: Worker | None = None
        self._leader: Worker | None = None
        #: Whether the leader waits for news.
        self._waiting = False
        self._puller = Puller(
            backlog, outlet, self.cancellation, end_with=self.fail, resumable=resumable
        )
        self._stopping = False
        self._done = False
        #: Whether nothing will be started any more.
        self._over = False
        #: The error that has ended the run.
        self.failure: BaseException | None = None
        #: Whether all is done, or all that was to be done after :meth:`stop`.
        self.finished = False

    def begin(self, task_group: TaskGroup) -> None:
        """Start the tasks, in a task group whose scope is cancelled if the run fails."""
        self._task_group = task_group
        self._backlog.begin_run(self.nudge)
        if not self._backlog.source.is_sequence:
            task_group.start_soon(self._puller.pull, name="anythrottle source")

        self._add_worker()

    def stop(self) -> None:
        """Start nothing more; what runs goes on."""
        self._stopping = self._puller.stopping = True
        self.nudge()
        self._admission.stop_waiting()

    def cancel(self) -> None:
        """Start nothing more, and cancel what runs."""
        self._stopping = self._puller.stopping = True
        self._task_group.cancel_scope.cancel()

    def be_done(self) -> None:
        """Cancel what runs, for all that was wanted has been done: whatever fails now is late."""
        self._done = True
        self.cancel()

    def nudge(self) -> None:
        """Let the leader look again, should it wait for news."""
        if self._waiting and self._leader is not None:
            self._run.wake(self._leader)

    def fail(self, error: BaseException) -> None:
        """End the run with ``error``; any but the first is noted on the first, and logged."""
        if self._done and isinstance(error, Exception):
            _logger.error("error after all was done: %r", error, exc_info=error)
        elif self.failure is None:
            self.failure = error
            self.cancel()
        elif error is not self.failure:
            self.failure.add_note(f"While the run ended because of this, another error: {error!r}")
            _logger.error("another error while the run ended: %r", error, exc_info=error)

    def log_failure(self) -> None:
        """Log what would have ended the run, had it not been cancelled as well."""
        if self.failure is not None:
            _logger.error("error in a run that was cancelled", exc_info=self.failure)

    def _add_worker(self) -> None:
        self._workers += 1
        self._beginners += 1
        self._task_group.start_soon(self._work, name="anythrottle worker")

    async def _work(self) -> None:
        self._beginners -= 1
        me = Worker()
        task = self.cancellation.native_task()
        jobs = 0
        try:
            while True:
                try:
                    start = None if self._leader is not None else self._start_now(me)
                    if start is None:
                        start = await self._lead(me)
                        if start is None:
                            break

                    try:
                        await self._workbench.run(*start)
                    finally:
                        if not self._keeps_slots:
                            self._admission.return_slot(me)

                    jobs += 1
                    # A job may have cancelled this task natively, and have returned all the same.
                    if not jobs % _JOBS_IN_A_ROW or (task is not None and task.cancelling()):
                        await self._run.checkpoint()
                        self.cancellation.forget(task)
                except BaseException as exc:
                    if self.cancellation.caused(exc):
                        raise

                    if not isinstance(exc, anyio.get_cancelled_exc_class()):
                        self.fail(exc)
                        return

                    # Somebody has cancelled this task natively, and meant a job that is over.
                    self.cancellation.absorb(exc)
        finally:
            self._admission.return_slot(me)

        self._workers -= 1
        if not self._workers:
            self.finished = True
            self._puller.scope.cancel()
            self._outlet.end()

    def _start_now(self, me: Worker) -> _Start[I, T] | None:
        """While nobody has the lead, take the frontmost job if it may start at once."""
        errand = None if self._stopping else self._frontmost()
        if (
            errand is None
            or errand.cost is None
            or ((self._bounded or self._backlog.delayed) and not self._has_room(errand))
        ):
            return None

        had_slot = me.has_slot
        permit = self._admission.now(errand, me)
        if permit is None:
            return None

        # Whoever observes the limiter may have stopped the run, or put another job first.
        if self._stopping or not self._backlog.start(errand):
            permit.refund()
            permit.leave()
            return None

        if not had_slot:
            self._see_to_successor()

        return errand, permit, permit

    async def _lead(self, me: Worker) -> _Start[I, T] | None:
        """Wait for the lead, then until a job may start, and take it; ``None`` if there is none."""
        self._admission.return_slot(me)
        while self._leader is not None:
            await self._wait_for_lead(me)

        self._leader = me
        start = None
        try:
            if not self._over:
                start = await self._start_next(me)
                self._over = start is None
        finally:
            # If that was cut off, this worker goes on and takes it again, or the run ends.
            self._leader = None

        self._see_to_successor()
        return start

    async def _wait_for_lead(self, me: Worker) -> None:
        self._idle[me] = None
        try:
            await self._run.park(me)
        finally:
            if self._successor is me:
                self._successor = None
            else:
                del self._idle[me]

    def _see_to_successor(self) -> None:
        """
        See to it that somebody takes the lead, now that it is free.

        Who comes first has it. Nobody needs to come if nothing can be started before a job ends.
        """
        if self._successor is not None or self._beginners:
            return

        if self._over or not self._admission.all_busy():
            if self._idle:
                self._successor, _ = self._idle.popitem()
                self._run.wake(self._successor)
            elif not self._over:
                self._add_worker()

    async def _start_next(self, me: Worker) -> _Start[I, T] | None:
        """As the leader, wait until a job may start, and take it; ``None`` if there is none."""
        while not self._stopping:
            start = self._start_now(me)
            if start is not None:
                return start

            errand = self._frontmost()
            if errand is None or not self._has_room(errand):
                if errand is None and self._backlog.is_at_end():
                    return None

                self._admission.return_slot(me)
                await self._wait_for_news(me)
            elif errand.cost is None:
                # Whoever is asked for the cost may change what is frontmost.
                if not self._has_price(errand):
                    # There may be many such jobs.
                    await self._run.checkpoint()
            else:
                admitted = await self._admission.wait(errand, me)
                if admitted is None:
                    continue

                # It may have taken a while: what is frontmost now, and does it cost as much?
                frontmost = None if self._stopping else self._frontmost()
                if (
                    frontmost is not None
                    and self._has_price(frontmost)
                    and frontmost.cost == errand.cost
                    and not self._stopping
                    and self._backlog.start(frontmost)
                ):
                    return frontmost, *admitted

                await undo(admitted)

        return None

    def _frontmost(self) -> Errand[I, T] | None:
        """Return the job that is to start next; ``None`` if there is none yet, or no more."""
        try:
            errand = self._backlog.frontmost(self._run.time())
        except Exception as exc:  # noqa: BLE001 - the source's own
            self._puller.note_error(exc)
            return None

        if errand is not None and errand.cost is None:
            errand.cost = self._admission.fixed_cost

        return errand

    def _has_room(self, errand: Errand[I, T]) -> bool:
        """Tell whether the frontmost job may start, as far as memory goes."""
        if self._backlog.delayed >= _MOST_DELAYED and not errand.attempts:
            return False

        return self._outlet.has_room(
            errand.position if errand.position >= 0 else self._backlog.todo.next_position
        )

    def _has_price(self, errand: Errand[I, T]) -> bool:
        """Look what the frontmost job costs; if that cannot be told, it ends with an error."""
        try:
            self._admission.price(errand)
        except Exception as exc:  # noqa: BLE001 - it is that job's alone
            if self._backlog.drop(errand):
                self._workbench.fail(errand, exc)

            return False

        return True

    async def _wait_for_news(self, me: Worker) -> None:
        due = self._backlog.next_due
        self._waiting = True
        try:
            if due == inf:
                await self._run.park(me)
            else:
                await self._run.park_until(me, max(due, self._run.time() + _NAP))
        finally:
            self._waiting = False
