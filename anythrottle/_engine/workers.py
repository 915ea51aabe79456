"""
Runs the tasks of one run, from its begin to its end: the workers, and the source reader.

Each worker runs one job after the other, and starts the next one itself if it need not wait.
Otherwise one worker at a time has the lead. It waits until there is a job and room for its result,
then for a slot, then until the limiter lets one pass, takes the job that is frontmost at that
instant, and passes the lead on before it runs it. So one task at most is in the limiter's line, and
jobs start in their order. The workers are made as they are needed, never more than there are slots;
if all of them run a job, none is woken.

No task here lets an error out: the first that ends the run is kept in its state, and the task group
is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Generic, NoReturn, final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from .admission import Admission, Worker
from .attempt import AttemptRunner
from .backlog import Backlog
from .cancellation import bare
from .dispatch import Dispatcher, Start
from .job_record import I, T
from .lead import Lead
from .options import JobOptions
from .run_state import RUNNING, Phase, RunState
from .sink import ResultSink
from .source_reader import SourceReader

#: After so many jobs a worker comes to a checkpoint, because its jobs may never do so.
_JOBS_IN_A_ROW = 16


@final
class WorkerPool(Generic[I, T]):
    """
    The workers of one run; made in the task that runs them.

    :param backlog: the jobs
    :param sink: takes the jobs that have ended
    :param options: how the jobs are run
    :param run: the run
    :param resumable: whether another run may go on with the source and the jobs
    :param on_failure: called whenever a job has failed, ``None`` for nothing

    """

    _task_group: TaskGroup

    __slots__ = (
        "_admission",
        "_backlog",
        "_dispatcher",
        "_lead",
        "_reader",
        "_resumable",
        "_runner",
        "_sink",
        "_task_group",
        "_workers",
        "pulls",
        "run",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        sink: ResultSink[I, T],
        options: JobOptions[I],
        run: RunState,
        *,
        resumable: bool,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._backlog = backlog
        self._sink = sink
        self.run = run
        self._resumable = resumable
        self._admission = admission = Admission(options, run)
        self._runner = AttemptRunner(backlog, sink, admission, run, options, on_failure=on_failure)
        self._reader = SourceReader(backlog, sink, run, resumable=resumable)
        self._dispatcher = Dispatcher(
            backlog, sink, admission, run, options, runner=self._runner, reader=self._reader
        )
        self._lead = Lead(run.loop)
        self._workers = 0
        #: Whether the source is pulled by a task of its own; a sequence is, by the workers.
        self.pulls = not backlog.source.is_sequence

    def begin(self, task_group: TaskGroup, source_group: TaskGroup | None) -> None:
        """
        Start the tasks.

        :param task_group: where the jobs run: its scope is cancelled when they are to end
        :param source_group: where the source is pulled from, if :attr:`pulls`

        """
        self._task_group = task_group
        self.run.task_scope = task_group.cancel_scope
        self._backlog.begin_run()
        if source_group is not None:
            source_group.start_soon(self._reader.pull, source_group, name="anythrottle source")

        self._add_worker()

    def end(self) -> None:
        """Pull nothing more, because the workers have ended; the reader then closes the source."""
        self.run.note_end()
        self._reader.end()

    def let_go(self) -> None:
        """
        Break the reference cycles, now that the run is over.

        Tracebacks lead here, and AnyIO keeps some in cycles of its own.
        """
        if not self._resumable:
            # Replacements of throttled jobs may be left, which will not be awaited.
            self._backlog.discard()

        self._runner.let_go()
        self._reader.let_go()
        del self._backlog, self._sink, self._admission, self.run
        del self._runner, self._dispatcher, self._reader, self._lead

    def _add_worker(self) -> None:
        self._workers += 1
        worker = Worker()
        self._lead.coming.add(worker)
        self._task_group.start_soon(self._work, worker, name="anythrottle worker")

    async def _work(self, me: Worker) -> None:
        try:
            while True:
                try:
                    await self._run_jobs(me)
                    break
                except BaseException as exc:
                    if self.run.cancellation.caused(exc):
                        # AnyIO keeps it in a reference cycle: not with all that was under way.
                        exc.__traceback__ = None
                        raise

                    if not self.run.cancellation.is_native(exc):
                        self.run.fail(exc)
                        return

                    # Other code has cancelled this task natively because of a job that is over.
                    self.run.cancellation.absorb(exc)
        finally:
            self._admission.return_slot(me)

        self._workers -= 1
        if not self._workers:
            self.run.finish()
            self._sink.end()

    async def _run_jobs(self, me: Worker) -> None:
        """Run one job after the other, until there are no more."""
        try:
            # Before it starts a job, and so perhaps another worker: a task can be cancelled only
            # once it has come to a checkpoint.
            await self.run.loop.checkpoint()
        finally:
            self._lead.coming.discard(me)

        task = self.run.cancellation.native_task()
        jobs = 0
        while True:
            start = self._start_now(me) if jobs else None
            if start is None:
                if jobs and self._dispatcher.is_short:
                    # The consumer may be about to make room, or the source to give an item: to look
                    # again is cheaper than to be woken.
                    await self._come_again(me)

                start = await self._next_start(me)
                if start is None:
                    return

            try:
                await self._runner.run(*start, None if self._admission.keeps_slots else me.slot)
            finally:
                if not self._admission.keeps_slots:
                    self._admission.return_slot(me)

            jobs += 1
            # A job may have cancelled this task natively and returned all the same; or it may have
            # cancelled the host of the run, which has to notice before more is started.
            if not jobs % _JOBS_IN_A_ROW or (
                task is not None and (task.cancelling() or self.run.cancellation.host_is_called())
            ):
                await self._come_again(me)
                self.run.cancellation.forget(task)
                # A worker that has passed the lead on meanwhile has left it to this one.
                jobs = 0

    async def _come_again(self, worker: Worker) -> None:
        """
        Come to a checkpoint on the way to the lead.

        Else a worker that starts a job meanwhile would make another one, and again the next time,
        although a single job may be all there is, and goes again and again.
        """
        self._lead.coming.add(worker)
        try:
            await self.run.loop.checkpoint()
        finally:
            self._lead.coming.discard(worker)

    def _start_now(self, worker: Worker) -> Start[I, T] | None:
        """Start a job for a worker if it need not wait, and no leader waits for its turn."""
        lead = self._lead
        if lead.is_taken and self._backlog.change.waiting is None:
            return None

        # If it starts, there is a leader, or one is coming, or all slots are taken.
        return self._dispatcher.try_start(worker)

    async def _next_start(self, me: Worker) -> Start[I, T] | None:
        """Wait for the lead, then for a job, and start it; return ``None`` if there are no more."""
        lead = self._lead
        while lead.is_taken:
            start = self._start_now(me)
            if start is not None:
                return start

            self._admission.release_if_shared(me)
            await lead.follow(me)

        lead.is_taken = True
        try:
            start = await self._dispatcher.next_start(me)
        finally:
            # If this was cut off, either the run ends, or this worker begins anew and leads again.
            lead.is_taken = False

        self._pass_lead_on()
        return start

    def _pass_lead_on(self) -> None:
        """Wake or make a worker to take the lead, unless no job can start before one has ended."""
        none_comes = self._lead.wake_successor()
        if none_comes and self.run.phase is RUNNING and not self._admission.all_busy():
            self._add_worker()


async def run_to_end(
    pool: WorkerPool[I, T],
    meanwhile: Callable[[], Awaitable[None]] | None = None,
    on_begun: Callable[[], None] | None = None,
) -> None:
    """
    Run all that a pool has to do, in task groups of its own.

    :param meanwhile: awaited by the caller's task in the meantime
    :param on_begun: called as soon as jobs may start
    :raises BaseException: the error that has ended the run, without the groups of task groups

    """
    run = pool.run
    try:
        async with tasks_of(pool):
            if on_begun is not None:
                on_begun()

            if meanwhile is not None:
                await meanwhile()

        if run.failure is None and run.phase is Phase.CANCELLED:
            # They were cancelled while the task group only waited for its workers.
            await cancelled_by_others()
    except BaseException:
        run.log_failure()
        raise
    finally:
        pool.let_go()

    run.raise_failure()


@asynccontextmanager
async def tasks_of(pool: WorkerPool[I, T]) -> AsyncGenerator[None]:
    """
    Run the tasks of a pool, until the jobs have ended and their source is closed or kept.

    The workers are in a task group of their own, which is cancelled to end them. The source reader
    is in another one around it, which only the caller's own cancellation reaches: what a generator
    does when it is closed is not cut off.

    :raises BaseException: another error that has ended the task groups, without their groups

    """
    thrown = traceback = None
    try:
        async with anyio.create_task_group() if pool.pulls else nullcontext() as source_group:
            try:
                async with anyio.create_task_group() as task_group:
                    pool.begin(task_group, source_group)
                    try:
                        yield
                    except BaseException as exc:
                        thrown, traceback = exc, exc.__traceback__
                        raise
            finally:
                pool.end()
    except BaseException as exc:
        if bare(exc) is exc:
            raise

        # On Trio, the task group raises Ctrl-C in an exception group.
        raise bare(exc) from None
    finally:
        if thrown is not None and traceback is not None:
            # Without the frame of this generator: since Python 3.12 it refers to the frames of its
            # callers, one of which refers to the error, which would be a reference cycle.
            thrown.__traceback__ = traceback.tb_next

        del thrown, traceback


async def cancelled_by_others() -> NoReturn:
    """
    Raise because the tasks of a run were cancelled, and not by this engine.

    :raises RuntimeError: unless the caller is being cancelled

    """
    await checkpoint()
    raise RuntimeError("the tasks of the run were cancelled by other code")
