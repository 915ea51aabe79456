"""
The tasks of one run: who runs the jobs, in which order.

Each worker runs one job after the other, and starts the next one itself if it may start at once.
Else one worker at a time has the lead. It waits until there is a job and room for its result, then
for a slot, then until the limiter lets one pass, takes the job that is frontmost at that instant,
and passes the lead on before it runs it. So one task at most is in the limiter's line, and jobs
start in their order. Passed on, the lead is free: whoever comes first takes it, a worker that was
woken for that or one that has just ended its job, which so goes on without having had to wake
anybody. The workers are made as they are needed, never more than there are slots; if all of them
run a job, nobody is woken.

No task here lets an error out: the first that ends the run is kept in ``failure``, and the task
group is cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, Literal, TypeVar, final

from anyio.abc import TaskGroup

from .._loops.clock import LoopClock
from .admission import Admission, Worker
from .backlog import Backlog
from .cancellation import RunCancellation
from .options import JobOptions
from .outcome import uncancelled
from .outlet import Outlet
from .puller import Puller
from .starting import Start, Starter
from .throttler_statistics import Ended
from .workbench import Workbench

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

#: After so many jobs a worker lets others run, as its jobs may not do so by themselves.
_JOBS_IN_A_ROW = 16

_logger = logging.getLogger("anythrottle")


@final
class Crew(Generic[I, T]):
    """
    The tasks of one run; made in the task that runs them.

    :param backlog: the jobs
    :param outlet: where they go when they have ended
    :param options: how the jobs are run
    :param clock: what the jobs are timed with
    :param resumable: whether another run may go on with the source and the jobs

    """

    _task_group: TaskGroup

    __slots__ = (
        "_admission",
        "_backlog",
        "_beginners",
        "_done",
        "_idle",
        "_keeps_slots",
        "_leader",
        "_loop",
        "_outlet",
        "_over",
        "_puller",
        "_resumable",
        "_starter",
        "_stopped",
        "_successor",
        "_task_group",
        "_workbench",
        "_workers",
        "cancellation",
        "failure",
        "finished",
        "nudge",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        outlet: Outlet[I, T],
        options: JobOptions[I],
        clock: LoopClock,
        *,
        resumable: bool,
    ) -> None:
        self._backlog = backlog
        self._outlet = outlet
        self._resumable = resumable
        self._admission = Admission(options)
        #: Kept at hand, for each job asks.
        self._keeps_slots = self._admission.keeps_slots
        self._loop = clock.loop()
        # Without results that somebody takes, the run's own task has nothing to do but wait.
        self.cancellation = RunCancellation(self._loop, host_waits=not outlet.bounded)
        self._workbench = Workbench(
            backlog,
            outlet,
            self._admission,
            options.attempts,
            loop=self._loop,
            cancellation=self.cancellation,
            end_with=self.fail,
            observer=options.observer,
        )
        #: Why nothing more was started, if not all was done.
        self._stopped: Literal["stopped", "halted"] | None = None
        self._workers = 0
        #: How many workers have been made and have not begun yet.
        self._beginners = 0
        #: The workers that wait for the lead, the one that has been woken to take it, and the one
        #: that has it.
        self._idle: dict[Worker, None] = {}
        self._successor: Worker | None = None
        self._leader: Worker | None = None
        self._starter = Starter(
            backlog,
            outlet,
            self._admission,
            loop=self._loop,
            cancellation=self.cancellation,
            observer=options.observer,
            refuse=self._workbench.fail,
        )
        #: Lets the leader look again, should it wait for news.
        self.nudge = self._starter.nudge
        self._puller = Puller(
            backlog,
            outlet,
            self.cancellation,
            loop=self._loop,
            on_pulled=self._starter.nudge,
            end_with=self.fail,
            resumable=resumable,
        )
        self._done = False
        #: Whether nothing will be started any more.
        self._over = False
        #: The error that has ended the run.
        self.failure: BaseException | None = None
        #: Whether all is done, or all that was to be done after :meth:`stop`.
        self.finished = False

    @property
    def pulls(self) -> bool:
        """Whether a task of its own pulls from the source: from a sequence, the workers do."""
        return not self._backlog.source.is_sequence

    def on_failure(self, call: Callable[[], None]) -> None:
        """Let something be called whenever a job has ended with an error."""
        self._workbench.on_failure = call

    def begin(self, task_group: TaskGroup, source_group: TaskGroup | None) -> None:
        """
        Start the tasks.

        :param task_group: where the jobs run: its scope is cancelled when they are to end
        :param source_group: where the source is pulled from, if :attr:`pulls`

        """
        self._task_group = task_group
        self._backlog.begin_run(self.nudge, self._puller.note_error)
        if source_group is not None:
            source_group.start_soon(self._puller.pull, source_group, name="anythrottle source")

        self._add_worker()

    def end_pulling(self) -> None:
        """Pull nothing more, now that the jobs have ended; what is to be closed is closed."""
        self._puller.end()

    @property
    def is_ending(self) -> bool:
        """Whether it ends before all is done, or because all is that was wanted."""
        return self._done or self._stopped is not None or self.failure is not None

    @property
    def ended(self) -> Ended:
        """How it has ended, if it has by itself."""
        return self._stopped or "done"

    def stop(self, why: Literal["stopped", "halted"] = "stopped") -> None:
        """Start nothing more; what runs goes on."""
        self._stopped = self._stopped or why
        self._puller.stopping = True
        self._starter.stop()

    def cancel(self) -> None:
        """Start nothing more, and cancel what runs."""
        self._puller.stopping = self._starter.stopping = True
        self._task_group.cancel_scope.cancel()

    def be_done(self) -> None:
        """Cancel what runs, for all that was wanted has been done: whatever fails now is late."""
        self._done = self.finished = True
        self.cancel()

    def fail(self, error: BaseException, what: str = "something in the run") -> None:
        """
        End the run with an error; any but the first is noted on the first, and logged.

        :param error: not what the cancellation of the run has caused: if it is a cancellation all
            the same, it becomes a :exc:`RuntimeError`
        :param what: what has raised it

        """
        error = uncancelled(error, what)
        if self._done and isinstance(error, Exception):
            _logger.error("error after all was done: %r", error, exc_info=error)
        elif self.failure is None:
            self.failure = error
            self.cancel()
        elif error is not self.failure:
            self.failure.add_note(f"While the run ended because of this, another error: {error!r}")
            _logger.error("another error while the run ended: %r", error, exc_info=error)

    def let_go(self) -> None:
        """
        Break the reference cycles, now that the run is over; only :attr:`failure` is left.

        Tracebacks lead here, too, and AnyIO keeps some in cycles of its own.
        """
        if not self._resumable:
            # Replacements of throttled jobs that nobody will await.
            self._backlog.discard()

        self._backlog.let_go()
        self._workbench.let_go()
        self._puller.let_go()
        del self._backlog, self._outlet, self._admission
        del self._workbench, self._starter, self._puller, self.nudge

    def raise_failure(self) -> None:
        """Raise what has ended the run, if that was an error."""
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback leads here.
                del failure

    def log_failure(self) -> None:
        """Log what would have ended the run, had it not been cancelled as well."""
        failure, self.failure = self.failure, None
        if failure is not None:
            _logger.error("error in a run that was cancelled", exc_info=failure)

    def _add_worker(self) -> None:
        self._workers += 1
        self._beginners += 1
        self._task_group.start_soon(self._work, name="anythrottle worker")

    async def _work(self) -> None:
        me = Worker()
        begun = False
        try:
            while True:
                try:
                    if not begun:
                        begun = True
                        await self._begin_work()

                    await self._run_jobs(me)
                    break
                except BaseException as exc:
                    if self.cancellation.caused(exc):
                        # AnyIO keeps it in a reference cycle: not with all that was under way.
                        exc.__traceback__ = None
                        raise

                    if not self.cancellation.is_native(exc):
                        self.fail(exc)
                        return

                    # Somebody has cancelled this task natively, and meant a job that is over.
                    self.cancellation.absorb(exc)
        finally:
            self._admission.return_slot(me)

        self._workers -= 1
        if not self._workers:
            self.finished = True
            self._outlet.end()

    async def _begin_work(self) -> None:
        # Before it starts a job, and so perhaps another worker: a task can be cancelled only once
        # it has come to a checkpoint.
        try:
            await self._loop.checkpoint()
        finally:
            self._beginners -= 1

    async def _run_jobs(self, me: Worker) -> None:
        """Run one job after the other, until there are no more."""
        task = self.cancellation.native_task()
        jobs = 0
        while True:
            start = self._start_now(me, goes_on=jobs > 0)
            if start is None and jobs and not self._starter.called_back:
                # The consumer may be about to make room, or the source to give an item: to look
                # again is cheaper than to be woken. A turn that was called back would lose its
                # place meanwhile.
                await self._loop.checkpoint()
                start = self._start_now(me, goes_on=True)

            if start is None:
                start = await self._lead(me)
                if start is None:
                    return

            try:
                await self._workbench.run(*start, None if self._keeps_slots else me.slot)
            finally:
                if not self._keeps_slots:
                    self._admission.return_slot(me)

            jobs += 1
            # A job may have cancelled this task natively, and have returned all the same; or that
            # of the run, which has to notice before more is started.
            if not jobs % _JOBS_IN_A_ROW or (
                task is not None and (task.cancelling() or self.cancellation.host_is_called())
            ):
                await self._loop.checkpoint()
                self.cancellation.forget(task)

    def _start_now(self, worker: Worker, *, goes_on: bool) -> Start[I, T] | None:
        """
        Let a worker start a job at once, unless somebody leads that waits for more than news.

        :param goes_on: whether it has just ended one: then others are seen to already, unless it
            has given its slot back

        """
        if self._over or (self._leader is not None and not self._starter.waits_for_news):
            return None

        start = self._starter.now(worker)
        if start is not None and self._leader is None and not (goes_on and self._keeps_slots):
            self._see_to_successor()

        return start

    async def _lead(self, me: Worker) -> Start[I, T] | None:
        """Wait for the lead, then until a job may start, and take it; ``None`` if there is none."""
        while self._leader is not None:
            self._admission.rest(me)
            await self._wait_for_lead(me)

        self._leader = me
        start = None
        try:
            if not self._over:
                start = await self._starter.next(me)
                self._over = start is None
        finally:
            # If that was cut off, this worker begins anew and sees to others, or the run ends.
            self._leader = None

        self._see_to_successor()
        return start

    async def _wait_for_lead(self, me: Worker) -> None:
        self._idle[me] = None
        try:
            await self._loop.park(me)
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

        if self._idle:
            self._successor, _ = self._idle.popitem()
            self._loop.wake(self._successor)
        elif not (self._over or self._admission.all_busy()):
            self._add_worker()
