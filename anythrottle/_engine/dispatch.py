"""Starts the next job as soon as it has a slot and its turn, and its result has room."""

from __future__ import annotations

from asyncio import CancelledError
from math import inf
from typing import Generic, TypeAlias, final

from .._events import Started, tell
from .._limiters.permit import TurnPermit
from ..abc import Permit
from .admission import Admission, Asked, Worker, undo
from .attempt import AttemptRunner
from .backlog import Backlog
from .job_record import I, JobRecord, T
from .options import JobOptions
from .run_state import RUNNING, RunState
from .sink import ResultSink
from .source_reader import SourceReader

#: The shortest wait for a delayed job, in seconds, because timers may go off early.
_NAP = 0.001

#: A started job and its permit: as the limiter has returned it, and what entering it gave.
Start: TypeAlias = tuple[JobRecord[I, T], Asked, Permit]


@final
class Dispatcher(Generic[I, T]):
    """
    Starts the jobs of one run, always the frontmost one.

    :param backlog: the jobs
    :param sink: says whether there is room for a result
    :param admission: admits the jobs
    :param run: the run
    :param options: the observer, which is notified when a job starts
    :param runner: ends a job that cannot start
    :param reader: handles an error of a sequence

    """

    __slots__ = (
        "_admission",
        "_backlog",
        "_costs_differ",
        "_observer",
        "_on_source_error",
        "_run",
        "_runner",
        "_sink",
        "_time",
        "is_short",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        sink: ResultSink[I, T],
        admission: Admission[I],
        run: RunState,
        options: JobOptions[I],
        *,
        runner: AttemptRunner[I, T],
        reader: SourceReader[I, T],
    ) -> None:
        self._backlog = backlog
        self._sink = sink
        self._admission = admission
        self._run = run
        self._runner = runner
        #: The arguments of :meth:`.Backlog.next_job`.
        self._time = run.loop.time
        self._on_source_error = reader.note_source_error
        self._observer = options.observer
        #: Whether a function returns what each job costs.
        self._costs_differ = admission.fixed_cost is None
        #: Whether the last :meth:`try_start` found no job or no room, though there may be soon.
        self.is_short = False

    def try_start(self, worker: Worker) -> Start[I, T] | None:
        """
        Start the frontmost job for a worker, if it need not wait.

        :return: what to run; ``None`` if it must wait, or only :meth:`next_start` can find its cost

        """
        self.is_short = False
        if self._run.phase is not RUNNING or self._admission.turned_away:
            return None

        record = self._backlog.next_job(self._time, self._on_source_error)
        if record is None:
            self.is_short = not self._backlog.is_at_end()
            return None

        if self._sink.bounded and not self._sink.has_room(record):
            self.is_short = True
            return None

        if record.cost is None and self._costs_differ:
            return None

        return self._start_at_once(record, worker)

    def _start_at_once(self, record: JobRecord[I, T], worker: Worker) -> Start[I, T] | None:
        """Start a job if it need not wait; its cost is known, and its result has room."""
        observed = self._observer is not None
        try:
            permit = self._admission.try_enter(record, worker, begins=not observed)
        except ValueError as exc:
            if self._admission.fixed_cost is not None:
                raise  # of all jobs

            self._end(record, exc)
            permit = None

        if permit is None:
            return None

        held = permit if observed and isinstance(permit, TurnPermit) else None
        started = False
        try:
            started = self._start(record, permit, held)
        finally:
            if not started:
                permit.withdraw()

        return (record, permit, permit) if started else None

    async def next_start(self, worker: Worker) -> Start[I, T] | None:
        """
        Start the frontmost job for a worker, as soon as there is one and it may start.

        :return: what to run; ``None`` if nothing more is to be started

        """
        while self._run.phase is RUNNING:
            if self._run.cancellation.forbids_starts():
                await self._run.loop.checkpoint()

            record = self._backlog.next_job(self._time, self._on_source_error)
            if record is None or (self._sink.bounded and not self._sink.has_room(record)):
                if record is None and self._backlog.is_at_end():
                    self._run.exhaust()
                    return None

                self._admission.release_if_shared(worker)
                await self._wait_for_change(worker)
            elif record.cost is None and self._costs_differ:
                # The user's function may put another job to the front.
                if not self._finds_cost(record):
                    # There may be many such jobs.
                    await self._run.loop.checkpoint()
            else:
                start = None
                if not self._admission.turned_away:
                    start = self._start_at_once(record, worker)

                start = start or await self._admit(record, worker)
                if start is not None:
                    return start

                # There may be many that cannot be admitted.
                await self._run.loop.checkpoint()

        return None

    async def _admit(self, record: JobRecord[I, T], worker: Worker) -> Start[I, T] | None:
        """Wait until a job may start, and start what is frontmost then, if it costs as much."""
        called_back: TurnPermit | None = None
        while self._run.phase is RUNNING:
            try:
                admitted = await self._admission.enter(record, worker, called_back)
            except ValueError as exc:
                if self._admission.fixed_cost is not None:
                    raise  # of all jobs

                self._end(record, exc)
                return None

            if admitted is None:
                return None

            asked, permit = admitted
            frontmost = called_back = None
            try:
                # Meanwhile another job may have become the frontmost one.
                frontmost = self._start_like(record, asked, permit)
                if isinstance(asked, TurnPermit) and asked.in_line and self._run.phase is RUNNING:
                    called_back = asked
            finally:
                if frontmost is None and called_back is None:
                    await undo(asked, permit)

            if frontmost is not None:
                return frontmost, asked, permit

            if called_back is None:
                return None

        return None

    def _start_like(
        self, record: JobRecord[I, T], asked: Asked, permit: Permit
    ) -> JobRecord[I, T] | None:
        """Start the frontmost job and return it, if it costs as much as the one admitted."""
        frontmost = None
        if self._run.phase is RUNNING:
            frontmost = self._backlog.next_job(self._time, self._on_source_error)

        if (
            frontmost is not None
            and (not self._costs_differ or self._finds_cost(frontmost))
            and frontmost.cost == record.cost
            and self._start(frontmost, permit, asked if isinstance(asked, TurnPermit) else None)
        ):
            return frontmost

        return None

    def _start(self, record: JobRecord[I, T], permit: Permit, held: TurnPermit | None) -> bool:
        """
        Start a job whose turn has come, if it still is frontmost and nothing forbids it.

        The user's observers and functions may have stopped or cancelled the run, put another job
        first, or paused the limiter. After the last check, none of them runs before the job.

        :param held: the permit, if its call has not begun
        :return: whether it was started

        """
        forbidden = self._run.cancellation.forbids_starts
        if self._run.phase is not RUNNING or forbidden() or not self._backlog.start(record):
            return False

        waited = record.waited + permit.waited
        begun = False
        try:
            if self._observer is not None:
                position, item = record.position, record.item
                tell(self._observer, Started(position, item, record.attempts, waited))
                if self._run.phase is not RUNNING or forbidden():
                    return False

            begun = held is None or held.begin()
        finally:
            if not begun:
                self._backlog.call_back(record)

        if begun:
            record.waited = waited

        return begun

    def _finds_cost(self, record: JobRecord[I, T]) -> bool:
        """Find the cost of the frontmost job, or else end the job; return whether it is known."""
        if record.cost is not None or not self._costs_differ:
            return True

        try:
            self._admission.find_cost(record)
        except (Exception, CancelledError) as exc:  # noqa: BLE001 - it is that job's alone
            self._end(record, exc)
            return False

        return True

    def _end(self, record: JobRecord[I, T], error: BaseException) -> None:
        """End a job that cannot start with an error, if it still is the frontmost one."""
        if self._backlog.drop(record):
            self._runner.fail(record, error)

    async def _wait_for_change(self, worker: Worker) -> None:
        due = self._backlog.next_due
        change = self._backlog.change
        change.await_by(worker, self._run.loop)
        try:
            if due == inf:
                await self._run.loop.park(worker)
            else:
                await self._run.loop.park_until(worker, max(due, self._time() + _NAP))
        finally:
            change.forget(worker)
