"""The result sink that hands outcomes over, as they come or in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Self, final

import anyio

from .._limiters.live import Live
from .._loops.event_loop import Parked
from .backlog import Backlog
from .job_record import I, JobRecord, T
from .outcome import Outcome
from .run_state import RunState
from .sink import ResultSink
from .tally import Tally
from .throttler_statistics import Ended, ThrottlerStatistics

_logger = logging.getLogger("anythrottle")


@final
class OutcomeFeed(Live, Parked, ResultSink[I, T]):
    """
    A result sink that is an async iterator of outcomes; parked while a task waits for the next.

    :param backlog: the jobs
    :param run: the run
    :param tally: counts the calls that have ended
    :param statistics: returns the state at this instant, given how the run has ended
    :param most_waiting: returns how many outcomes may wait, or be held back for the order
    :param ordered: whether the outcomes come in the order of the items

    """

    __slots__ = (
        "_backlog",
        "_ended",
        "_error",
        "_how",
        "_left",
        "_most_waiting",
        "_next",
        "_ordered",
        "_run",
        "_statistics",
        "_tally",
        "_waited_for",
        "_waiting",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        run: RunState,
        tally: Tally,
        statistics: Callable[[Ended | None], ThrottlerStatistics],
        *,
        most_waiting: Callable[[], float],
        ordered: bool,
    ) -> None:
        self.parked = None
        self._backlog = backlog
        self._run = run
        self._tally = tally
        self._statistics = statistics
        #: How the run has ended, if it has by itself.
        self._how: Ended | None = None
        self._most_waiting = most_waiting
        self._ordered = ordered
        #: Outcomes that have not been taken; by position, if they have to come in order.
        self._waiting: deque[Outcome[I, T]] | dict[int, Outcome[I, T]] = {} if ordered else deque()
        #: The position of the next outcome, if they have to come in order.
        self._next = 0
        self._waited_for = False
        self._ended = False
        self._left = False
        self._error: BaseException | None = None

    bounded = True

    def has_room(self, record: JobRecord[I, T]) -> bool:
        if not self._ordered:
            return len(self._waiting) < self._most_waiting()

        known = record.position >= 0
        position = record.position if known else self._backlog.positions
        return position <= self._next + self._most_waiting()

    def succeed(self, record: JobRecord[I, T]) -> None:
        self._backlog.finish(record)
        self._tally.note_end()
        self._tally.done += 1
        self._put(record.outcome())

    def fail(self, record: JobRecord[I, T], error: BaseException) -> None:
        self._backlog.finish(record)
        self._tally.note_end()
        self._tally.failed += 1
        self._put(record.outcome(error))

    def survives(self, error: BaseException) -> bool:
        self._error = error
        return True

    def end(self) -> None:
        self._ended = True
        if not (self._left or self._error or self._run.failure):
            self._how = self._run.how

        self._run.loop.wake(self)

    def leave(self) -> None:
        """Note that no outcomes will be asked for any more."""
        self._left = True
        self._run.loop.wake(self)

    def stop(self) -> None:
        """Start no more calls; those that run go on, and their outcomes are still to come."""
        if not self._left:
            self._run.stop()

    def statistics(self) -> ThrottlerStatistics:
        """Return the state at this instant."""
        return self._statistics(self._how)

    def end_block(self) -> None:
        """Put back the jobs that were cut off, and log the errors whose outcomes were not taken."""
        self._backlog.end_run()
        if self._error is not None:
            _logger.error("the source has failed", exc_info=self._error)

        waiting = self._waiting
        for outcome in waiting.values() if isinstance(waiting, dict) else waiting:
            if outcome.error is not None:
                _logger.error(
                    "job %d has failed, and its outcome was never asked for",
                    outcome.index,
                    exc_info=outcome.error,
                )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[I, T]:
        if self._waited_for:
            raise anyio.BusyResourceError("waiting for an outcome")

        while True:
            if self._left:
                raise anyio.ClosedResourceError

            outcome = self._take()
            if outcome is not None:
                # There is room for one more.
                self._run.change.tell()
                return outcome

            if self._ended:
                if self._error is not None:
                    error, self._error = self._error, None
                    try:
                        raise error
                    finally:
                        # Its traceback leads here.
                        del error

                raise StopAsyncIteration

            self._waited_for = True
            try:
                await self._run.loop.park(self)
            finally:
                self._waited_for = False

    def _put(self, outcome: Outcome[I, T]) -> None:
        if isinstance(self._waiting, dict):
            self._waiting[outcome.index] = outcome
        else:
            self._waiting.append(outcome)

        if self._waited_for:
            self._run.loop.wake(self)

    def _take(self) -> Outcome[I, T] | None:
        if isinstance(self._waiting, dict):
            if self._ended and self._waiting:
                # Jobs that were put back will not end any more.
                self._next = min(self._waiting)

            outcome = self._waiting.pop(self._next, None)
            self._next += outcome is not None
            return outcome

        return self._waiting.popleft() if self._waiting else None
