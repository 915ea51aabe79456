"""The result sink of a throttler: keeps results until they are consumed, and failures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import final

from .backlog import Backlog
from .front_state import FrontState
from .job_record import I, JobRecord, T
from .outcome import Outcome
from .sink import ResultSink
from .tally import Tally

_logger = logging.getLogger("anythrottle")


@final
class ThrottlerResults(ResultSink[I, T]):
    """
    The result sink of a throttler, over all its runs.

    :param backlog: the jobs
    :param tally: counts the jobs that have ended
    :param consumed: whether there is a consumer; else results are dropped
    :param takes_failures: whether the consumer takes failures as well
    :param most_waiting: returns how many results may wait for it, before jobs have to

    """

    __slots__ = (
        "_backlog",
        "_most_waiting",
        "_takes_failures",
        "_tally",
        "bounded",
        "failures",
        "processed",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        tally: Tally,
        *,
        consumed: bool,
        takes_failures: bool = False,
        most_waiting: Callable[[], float],
    ) -> None:
        self._backlog = backlog
        self._tally = tally
        self.bounded = consumed
        self._takes_failures = takes_failures
        self._most_waiting = most_waiting
        self.processed: FrontState[JobRecord[I, T]] = FrontState(inf)
        self.failures: FrontState[Outcome[I, T]] = FrontState(inf)
        self.processed.open_receivers = 1
        # A task may read them before the first run.
        self.failures.open_senders = 1

    def close(self) -> None:
        """End the stream of failures, until another run begins."""
        self.failures.open_senders = 0
        self.failures.end_if_drained()

    def begin_run(self) -> None:
        """Open the streams of results and failures."""
        self.processed.open_senders = self.failures.open_senders = 1

    def has_room(self, record: JobRecord[I, T]) -> bool:  # noqa: ARG002 - ResultSink's
        return len(self.processed) < self._most_waiting()

    def succeed(self, record: JobRecord[I, T]) -> None:
        self._tally.note_end()
        if self.bounded:
            self.processed.send_nowait(record)
        else:
            self.finish(record)

    def finish(self, record: JobRecord[I, T]) -> None:
        """Note that a job is done: its result or failure is consumed, or its result is dropped."""
        if record.error is None:
            self._tally.done += 1

        self._backlog.finish(record)

    def fail(self, record: JobRecord[I, T], error: BaseException) -> None:
        self._tally.note_end()
        self._tally.failed += 1
        if self._takes_failures:
            record.error = error
            record.undelivered = True
            self.processed.send_nowait(record)
            return

        if self.failures.open_receivers:
            self.failures.send_nowait(record.outcome(error))
        else:
            _logger.error("%s has failed, and exceptions is closed", record, exc_info=error)

        self._backlog.finish(record)

    def end(self) -> None:
        self.processed.open_senders = 0
        self.processed.end_if_drained()

    def end_run(self) -> None:
        """Put back the results that the consumer was given and has not finished."""
        if self._backlog.started:
            waiting = set(self.processed.items())
            for record in self._backlog.started:
                if record not in waiting:
                    self.processed.put_back(record, record.position)

        self.close()
        if unread := len(self.failures):
            what = "failed job has" if unread == 1 else "failed jobs have"
            _logger.warning("%d %s not been read from the throttler's exceptions", unread, what)
