"""
Runs the tasks of one run, from its begin to its end: the workers, and what pulls from the source.

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

#: After so many jobs a worker lets others run, because its jobs may not do so by themselves.
_JOBS_IN_A_ROW = 16


@final
class WorkerPool(Generic[I, T]):
    """
    The workers of one run; made in the task that runs them.

    :param backlog: the jobs
    :param sink: where they go when they have ended
    :param options: how the jobs are run
    :param run: the run
    :param resumable: whether another run may go on with the source and the jobs
    :param on_failure: is called whenever a job has ended with an error

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
            backlog,
            sink,
            admission,
            run,
            runner=self._runner,
            reader=self._reader,
            observer=options.observer,
        )
        self._lead = Lead(run.loop)
        self._workers = 0
        #: Whether a task of its own pulls from the source: from a sequence, the workers do.
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
        """Pull nothing more, now that the workers are gone; what is to be closed is closed."""
        self.run.note_end()
        self._reader.end()

    def let_go(self) -> None:
        """
        Break the reference cycles, now that the run is over.

        Tracebacks lead here, and AnyIO keeps some in cycles of its own.
        """
        if not self._resumable:
            # Replacements of throttled jobs, which will not be awaited.
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

                    # Other code has cancelled this task natively, and meant a job that is over.
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
                if jobs and not self._dispatcher.called_back:
                    # The consumer may be about to make room, or the source to give an item: to look
                    # again is cheaper than to be woken. A turn that was called back would lose its
                    # place meanwhile.
                    await self.run.loop.checkpoint()

                start = await self._next_start(me)
                if start is None:
                    return

            try:
                await self._runner.run(*start, None if self._admission.keeps_slots else me.slot)
            finally:
                if not self._admission.keeps_slots:
                    self._admission.return_slot(me)

            jobs += 1
            # A job may have cancelled this task natively, and have returned all the same; or that
            # of the run, which has to notice before more is started.
            if not jobs % _JOBS_IN_A_ROW or (
                task is not None and (task.cancelling() or self.run.cancellation.host_is_called())
            ):
                await self.run.loop.checkpoint()
                self.run.cancellation.forget(task)

    def _start_now(self, worker: Worker) -> Start[I, T] | None:
        """Start a job for a worker if it need not wait, and no leader waits for its turn."""
        lead = self._lead
        if lead.is_taken and self._backlog.change.waiting is None:
            return None

        start = self._dispatcher.try_start(worker)
        # One that has kept its slot from its last job on has a successor already.
        if start is not None and not (lead.is_taken or self._admission.keeps_slots):
            self._pass_lead_on()

        return start

    async def _next_start(self, me: Worker) -> Start[I, T] | None:
        """Wait for the lead, then until a job may start, and take it; ``None`` if there is none."""
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
            # If that was cut off, this worker begins anew and leads again, or the run ends.
            lead.is_taken = False

        self._pass_lead_on()
        return start

    def _pass_lead_on(self) -> None:
        """Have another worker take the lead, unless no job can start before one has ended."""
        if (
            self._lead.wake_successor()
            and self.run.phase is RUNNING
            and not self._admission.all_busy()
        ):
            self._add_worker()


async def run_to_end(
    pool: WorkerPool[I, T],
    meanwhile: Callable[[], Awaitable[None]] | None = None,
    on_begun: Callable[[], None] | None = None,
) -> None:
    """
    Run all that a pool has to do, in task groups of its own.

    :param meanwhile: what the caller's task does in the meantime
    :param on_begun: is called as soon as jobs may start
    :raises BaseException: what has ended the run, as it is: task groups are an inner matter

    """
    run = pool.run
    try:
        async with tasks_of(pool):
            if on_begun is not None:
                on_begun()

            if meanwhile is not None:
                await meanwhile()

        if run.failure is None and run.phase is Phase.CANCELLED:
            # While the task group was waiting for nothing but its workers.
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
    Run the tasks of a pool, until the jobs have ended and their source has been seen to.

    The workers are in a group of their own, which is cancelled when there is nothing more to
    do. The task that pulls from the source is in another around it, which nothing but the caller's
    own cancellation reaches: what a generator does when it is closed is not cut off.

    :raises BaseException: what else has ended the task groups, as it is

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

        # On Trio, Ctrl-C comes in a group of the task group's.
        raise bare(exc) from None
    finally:
        if thrown is not None and traceback is not None:
            # Not with the frame of this generator: since Python 3.12 that refers to the frames of
            # its callers, and one of these to the error, which would be a reference cycle.
            thrown.__traceback__ = traceback.tb_next

        del thrown, traceback


async def cancelled_by_others() -> NoReturn:
    """
    End a run whose tasks have been cancelled, but not by this engine.

    :raises RuntimeError: unless the caller is being cancelled

    """
    await checkpoint()
    raise RuntimeError("the tasks of the run were cancelled by somebody else")
