"""
Which job is where.

No ``await`` stands in this file, so each method moves a job from one place to another in one
step. A job that was pulled or added is in exactly one of these places:

- ``ahead``: pulled, and offered to the todo stream;
- the todo stream: at its front, put back or added;
- ``_started``: started, and not yet done with; if it has ended, its result is in the processed
  stream or with the consumer;
- done with: consumed, or in the failures.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Iterable
from math import inf
from typing import Generic, TypeVar, final

from .._errors import JobInterrupted
from .._events import Failed, Observer, tell
from .._limiters.throttle import JobOf, check_job, discard
from .front_state import FrontState
from .job import Errand
from .outcome import Outcome
from .source import Source

T = TypeVar("T")

_logger = logging.getLogger("anythrottle")


@final
class Backlog(Generic[T]):
    """
    The jobs of a throttler, over all its runs.

    :param jobs: where the jobs come from
    :param results_waiting: how many results may wait for the consumer before jobs have to
    :param observer: who is told what has failed

    """

    __slots__ = (
        "_handed_out",
        "_observer",
        "_started",
        "ahead",
        "done",
        "failed",
        "failures",
        "processed",
        "running",
        "source",
        "starts",
        "throttled",
        "todo",
    )

    def __init__(
        self,
        jobs: Iterable[JobOf[T]] | AsyncIterable[JobOf[T]],
        results_waiting: float,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._handed_out = False
        self.source = Source(jobs)
        #: The job that was pulled last, until the todo stream has taken it.
        self.ahead: Errand[T] | None = None
        self.todo: FrontState[Errand[T]] = FrontState(0)
        self.processed: FrontState[Errand[T]] = FrontState(results_waiting)
        self.failures: FrontState[Outcome[JobOf[T], T]] = FrontState(inf)
        self.todo.open_receivers = self.processed.open_receivers = 1
        self._started: dict[Errand[T], None] = {}
        self.running = 0
        self.starts = 0
        self.done = 0
        self.failed = 0
        self.throttled = 0

    def begin_run(self) -> None:
        """Open the streams: jobs may come from the source, results and failures from the jobs."""
        # The consumer may add jobs: there may be more as long as it has not had all results.
        self.todo.open_senders = 1 + len(self._started)
        self.processed.open_senders = 1
        self.failures.open_senders = 1

    def end_of_source(self) -> None:
        """Note that no more jobs come from the source in this run."""
        self.todo.open_senders -= 1
        self.todo.end_if_drained()

    def end_of_jobs(self) -> None:
        """Note that no more results come in this run."""
        self.processed.open_senders = 0
        self.processed.end_if_drained()

    def add(self, job: JobOf[T]) -> None:
        """Let ``job`` come after what was put back and before anything from the source."""
        check_job(job, "job")
        errand = Errand(job, self.todo.new_position())
        self.todo.put_back(errand, errand.position)

    def start(self) -> Errand[T]:
        """Take the frontmost job, to be run."""
        position, errand = self.todo.receive_nowait()
        if errand is self.ahead:
            self.ahead = None

        errand.position = position
        errand.attempts += 1
        self._started[errand] = None
        self.starts += 1
        self.running += 1
        # It may be put back, or be followed by one that is added: the stream is not at its end.
        self.todo.open_senders += 1
        return errand

    def put_back(self, errand: Errand[T], job: JobOf[T]) -> None:
        """Put a job that runs, or the one to take its place, back to the front."""
        errand.job = job
        self.throttled += 1
        self.running -= 1
        self.todo.put_back(errand, errand.position)
        self._leave(errand)

    def succeed(self, errand: Errand[T], value: T) -> None:
        """Note that a job that runs has ended well."""
        errand.value = value
        errand.ended = True
        self.running -= 1

    def deliver(self, errand: Errand[T]) -> None:
        """Put a result in the processed stream, room or not, unless it has been sent."""
        if not errand.received and errand not in self.processed.items():
            self.processed.put_back(errand, errand.position)

    def fail(self, errand: Errand[T], error: BaseException) -> None:
        """Collect the error of a job that runs."""
        self.running -= 1
        self._collect(errand, error)
        self._leave(errand)

    def finish(self, errand: Errand[T]) -> None:
        """Note that the consumer has had a job's result."""
        self.done += 1
        self._leave(errand)

    def end_run(self) -> None:
        """Bring what a run has left under way to where the next run finds it."""
        waiting = set(self.processed.items())
        for errand in list(self._started):
            if errand.ended:
                errand.received = False
                if errand not in waiting:
                    self.processed.put_back(errand, errand.position)

                continue

            del self._started[errand]
            errand.attempts -= 1
            if callable(errand.job):
                self.todo.put_back(errand, errand.position)
            else:
                self._collect(errand, JobInterrupted(errand.job))

        self.running = 0
        self.todo.open_senders = self.processed.open_senders = self.failures.open_senders = 0
        self.failures.end_if_drained()
        if len(self.failures):
            _logger.warning(
                "%d failed jobs have not been read from the throttler's exceptions",
                len(self.failures),
            )

    def remaining(self) -> list[JobOf[T]]:
        """Return the jobs that are not done with, front first."""
        self._handed_out = True
        return [errand.job for errand in self._unfinished()] + self.source.rest()

    def discard(self) -> None:
        """Close the coroutines that will not be awaited, unless somebody else has them now."""
        if not self._handed_out:
            for errand in self._unfinished():
                discard(errand.job)

    def _unfinished(self) -> list[Errand[T]]:
        known = sorted([*self._started, *self.todo.items()], key=_position)
        return known if self.ahead is None else [*known, self.ahead]

    def _collect(self, errand: Errand[T], error: BaseException) -> None:
        self.failed += 1
        if self.failures.open_receivers:
            self.failures.send_nowait(errand.outcome(error))
        else:
            _logger.error(
                "job %d has failed, and exceptions is closed", errand.position, exc_info=error
            )

        if self._observer is not None:
            failed = Failed(errand.position, errand.job, errand.attempts, errand.duration, error)
            tell(self._observer, failed)

    def _leave(self, errand: Errand[T]) -> None:
        del self._started[errand]
        self.todo.open_senders -= 1
        self.todo.end_if_drained()


def _position(errand: Errand[T]) -> int:
    return errand.position
