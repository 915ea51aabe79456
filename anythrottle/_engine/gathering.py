"""Result sinks for callers that wait for the end of all jobs, or for the first success."""

from __future__ import annotations

import logging
from typing import final

from .backlog import Backlog
from .job_record import I, JobRecord, T
from .outcome import Outcome, raisable
from .run_state import RunState
from .sink import ResultSink

_logger = logging.getLogger("anythrottle")


@final
class Gathering(ResultSink[I, T]):
    """
    A result sink that gathers the values of all jobs, and ends the run with the first error.

    :param backlog: the jobs
    :param run: the run
    :param keep: whether the values are kept

    """

    __slots__ = ("_backlog", "_keep", "_run", "_values")

    def __init__(self, backlog: Backlog[I, T], run: RunState, *, keep: bool = True) -> None:
        self._backlog = backlog
        self._run = run
        self._keep = keep
        self._values: dict[int, T] = {}

    def succeed(self, record: JobRecord[I, T]) -> None:
        self._backlog.finish(record)
        if self._keep:
            self._values[record.position] = record.value

    def fail(self, record: JobRecord[I, T], error: BaseException) -> None:
        self._backlog.finish(record)
        self._run.fail(raisable(error, str(record)))

    def values(self) -> list[T]:
        """Return the values of all jobs, in the order of their items."""
        return [self._values[position] for position in range(len(self._values))]


@final
class Race(ResultSink[I, T]):
    """
    A result sink that ends the run with the first success.

    :param backlog: the jobs
    :param run: the run

    """

    __slots__ = ("_backlog", "_errors", "_run", "_source_error", "_winner")

    def __init__(self, backlog: Backlog[I, T], run: RunState) -> None:
        self._backlog = backlog
        self._run = run
        self._winner: Outcome[I, T] | None = None
        self._errors: dict[int, Exception] = {}
        self._source_error: BaseException | None = None

    def succeed(self, record: JobRecord[I, T]) -> None:
        self._backlog.finish(record)
        if self._winner is None:
            self._winner = record.outcome()
            self._run.win()

    def fail(self, record: JobRecord[I, T], error: BaseException) -> None:
        self._backlog.finish(record)
        if self._winner is None:
            self._errors[record.position] = raisable(error, str(record))
        else:
            _logger.error("%s has failed while it was cancelled", record, exc_info=error)

    def survives(self, error: BaseException) -> bool:
        self._source_error = error
        return True

    def result(self) -> Outcome[I, T]:
        """Return the first success, or raise the errors that there were instead."""
        if self._winner is not None:
            return self._winner

        errors = [self._errors[position] for position in sorted(self._errors)]
        if self._source_error is not None:
            for error in errors:
                self._source_error.add_note(f"Before that, a job has failed: {error!r}")

            raise self._source_error

        if not errors:
            raise ValueError("items must not be empty: first() has nothing to return")

        raise ExceptionGroup("no job has succeeded", errors)
