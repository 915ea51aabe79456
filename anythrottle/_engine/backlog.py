"""
Keeps the jobs of a throttler, `amap()` or a related function, each in one place until it is done.

No ``await`` stands in this file, so each method moves a job from one place to another in one
step. A job that was pulled or added and is not done is in exactly one of these places:

- ``todo``: put back or added;
- ``ahead``: pulled, and to be started when ``todo`` is empty;
- delayed: to be put back at a later instant;
- ``started``: started, and not done yet.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import Generic, cast, final

from .._jobs import JobOf, check_job, discard
from .change import Change
from .job_record import I, JobRecord, T
from .source import Source, SourceEnd

#: While so many jobs are delayed, only those may start that have been started before.
_MOST_DELAYED = 1000


@final
class Backlog(Generic[I, T]):
    """
    The jobs that are not done, over all runs.

    :param items: what the jobs are made of
    :param func: the function that each job calls with its item; ``None`` if the items are the jobs
    :param name: the name of the parameter that the items were given as

    """

    __slots__ = (
        "_by_due",
        "_func",
        "_handed_out",
        "_name",
        "_open",
        "_put_first",
        "ahead",
        "ahead_taken",
        "change",
        "positions",
        "retried",
        "running",
        "source",
        "started",
        "starts",
        "throttled",
        "todo",
    )

    def __init__(
        self,
        items: Iterable[I] | AsyncIterable[I],
        func: Callable[[I], Awaitable[T]] | None,
        name: str,
    ) -> None:
        self._func = func
        self._name = name
        self._handed_out = False
        self.source = Source(items, name)
        #: The job that was pulled last, until it starts; the source reader sets it, too.
        self.ahead: JobRecord[I, T] | None = None
        #: Notified when that job has been taken.
        self.ahead_taken = Change()
        #: Notified when there may be a job to start, or room for its result, or no more jobs.
        self.change = Change()
        #: A heap of (its rank, the job); no two jobs have the same rank.
        self.todo: list[tuple[int, JobRecord[I, T]]] = []
        #: A heap of (when to put it back, its rank, the job).
        self._by_due: list[tuple[float, int, JobRecord[I, T]]] = []
        self.started: dict[JobRecord[I, T], None] = {}
        #: Whether jobs may still come from the source in this run.
        self._open = False
        #: How many jobs were added before all others so far.
        self._put_first = 0
        #: How many jobs have got their position so far.
        self.positions = 0
        #: How many jobs run; the attempt runner counts down those that end.
        self.running = 0
        self.starts = 0
        self.throttled = 0
        self.retried = 0

    def begin_run(self) -> None:
        """Begin a run: jobs may come from the source again."""
        self._open = True

    def end_of_source(self) -> None:
        """Note that no more jobs come from the source in this run."""
        self._open = False
        self.change.tell()

    def record(self, item: I) -> JobRecord[I, T]:
        """Return the job for an item that has just been pulled."""
        return JobRecord(item, self._job_for(item, self._name, self.source.pulled - 1))

    def add(self, item: I, *, front: bool) -> None:
        """
        Put the job for an item before all others, or before anything more from the source.

        :raises TypeError: if the item is to be a job itself, and cannot be one

        """
        record = JobRecord(item, self._job_for(item, "job", None))
        record.position = record.rank = self.positions
        self.positions += 1
        if front:
            self._put_first += 1
            record.rank = -self._put_first

        heappush(self.todo, (record.rank, record))
        self.change.tell()

    def next_job(
        self, time: Callable[[], float], on_source_error: Callable[[BaseException], None]
    ) -> JobRecord[I, T] | None:
        """
        Return the job that is to start next, the frontmost one.

        Delayed jobs that are due are put back first. If nothing is at the front then, the next job
        is pulled from a sequence, or the source comes to its end. A second call returns the same
        job, unless another one has come to the front.

        :param time: returns the time; only called if jobs are delayed
        :param on_source_error: called with an error of the sequence
        :return: ``None`` if there is no job yet or no more, or if too many are delayed

        """
        if self._by_due:
            self._put_back_due(time())

        source = self.source
        record = self.ahead
        if self.todo:
            record = self.todo[0][1]
        elif record is None and self._open and source.is_sequence:
            try:
                item = source.pull_nowait()
                self.ahead = record = JobRecord(
                    item, self._job_for(item, self._name, source.pulled - 1)
                )
            except SourceEnd:
                self.end_of_source()
            except (Exception, CancelledError) as exc:  # noqa: BLE001 - the source's own
                on_source_error(exc)

        return None if self._by_due and self._is_one_too_many(record) else record

    @property
    def delayed(self) -> int:
        """How many jobs are delayed."""
        return len(self._by_due)

    @property
    def next_due(self) -> float:
        """The instant at which the first of the delayed jobs may start."""
        return self._by_due[0][0] if self._by_due else inf

    def is_at_end(self) -> bool:
        """
        Return whether there is nothing to start, and never will be in this run.

        A running job may be put back or add others, and the consumer of its result may add some.
        """
        return not (self._open or self.started or self._by_due or self.todo)

    def start(self, record: JobRecord[I, T]) -> bool:
        """Take a job to run it, if it still is the frontmost one; return whether it was."""
        if self.todo:
            if record is not self.todo[0][1]:
                return False

            heappop(self.todo)
        elif record is self.ahead:
            self.ahead = None
            record.position = record.rank = self.positions
            self.positions += 1
            if self.ahead_taken.waiting is not None:
                self.ahead_taken.tell()
        else:
            return False

        record.attempts += 1
        self.started[record] = None
        self.starts += 1
        self.running += 1
        return True

    def drop(self, record: JobRecord[I, T]) -> bool:
        """Take a job that cannot run, if it still is the frontmost one; return whether it was."""
        if not self.start(record):
            return False

        record.attempts -= 1
        self.starts -= 1
        return True

    def call_back(self, record: JobRecord[I, T]) -> None:
        """Put a job that was started but has not begun back to the front."""
        record.attempts -= 1
        self.starts -= 1
        self._put_back(record)

    def put_back(self, record: JobRecord[I, T]) -> None:
        """Put a throttled job back to the front."""
        self.throttled += 1
        self._put_back(record)

    def _put_back(self, record: JobRecord[I, T]) -> None:
        self.running -= 1
        heappush(self.todo, (record.rank, record))
        self.finish(record)
        self.change.tell()

    def delay(self, record: JobRecord[I, T], until: float) -> None:
        """Take a running job back, to start it again, but not before ``until``."""
        self.retried += 1
        record.errors += 1
        self.running -= 1
        heappush(self._by_due, (until, record.rank, record))
        self.finish(record)
        self.change.tell()

    def finish(self, record: JobRecord[I, T]) -> None:
        """Remove a started job that is done."""
        del self.started[record]
        if not self._open and self.is_at_end():
            self.change.tell()

    def end_run(self) -> list[JobRecord[I, T]]:
        """
        Put the jobs that a run has left under way where the next run finds them.

        :return: the jobs that were cut off and cannot go again; they are not done yet

        """
        lost: list[JobRecord[I, T]] = []
        for record in list(self.started):
            if record.undelivered:
                continue

            record.attempts -= 1
            if self._func is not None:
                # It may be a replacement, and how far that came is unknown.
                discard(record.job)
                record.job = self._job_for(record.item, self._name, None)

            if callable(record.job):
                del self.started[record]
                heappush(self.todo, (record.rank, record))
            else:
                lost.append(record)

        self._put_back_due(inf)
        self._open = False
        self.running = 0
        # The event loop may be no more.
        self.change.waiting = self.ahead_taken.waiting = None
        return lost

    @property
    def queued(self) -> int | None:
        """How many jobs wait to be started, without the delayed ones; ``None`` if it is unknown."""
        left = self.source.left
        return None if left is None else len(self.todo) + (self.ahead is not None) + left

    def remaining(self) -> list[I]:
        """Return the items of the jobs that are not done, front first."""
        self._handed_out = True
        return [record.item for record in self._unfinished()] + self.source.rest()

    def discard(self) -> None:
        """Close the coroutines that will not be awaited, unless the user has got them."""
        if not self._handed_out or self._func is not None:
            for record in self._unfinished():
                discard(record.job)

    async def close(self) -> None:
        """Discard the jobs that are not done, and close the source; nothing can be started then."""
        self.discard()
        if self._func is None and not self._handed_out:
            for item in self.source.rest_at_hand():
                discard(item)

        await self.source.close()

    def _job_for(self, item: I, name: str, index: int | None) -> JobOf[T]:
        """Return the job for an item, or raise if it cannot be one; the error uses the name."""
        if self._func is None:
            return check_job(cast("JobOf[T]", item), name, index)

        return partial(self._func, item)

    def _put_back_due(self, now: float) -> None:
        """Put the jobs that are due now back to the front."""
        while self._by_due and self._by_due[0][0] <= now:
            _, rank, record = heappop(self._by_due)
            heappush(self.todo, (rank, record))

    def _is_one_too_many(self, record: JobRecord[I, T] | None) -> bool:
        """Return whether a job must not start yet, because memory has to stay bounded."""
        return len(self._by_due) >= _MOST_DELAYED and record is not None and not record.attempts

    def _unfinished(self) -> list[JobRecord[I, T]]:
        todo = [record for _, record in self.todo]
        delayed = [record for _, _, record in self._by_due]
        known = sorted([*self.started, *todo, *delayed], key=lambda record: record.rank)
        return known if self.ahead is None else [*known, self.ahead]
