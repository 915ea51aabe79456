"""The runs of a throttler, one at a time, and what is kept from one to the next."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, final

import anyio

from .._errors import JobInterrupted, SourceInterrupted
from .._loops.clock import LoopClock, weakly
from .attempt import tell_of_failure
from .backlog import Backlog
from .cancellation import RunCancellation
from .consuming import Consumer, consume
from .halting import Halt, asking
from .job_record import I, T
from .options import JobOptions, results_waiting
from .outcome import uncancelled
from .run_state import RunState
from .tally import Tally
from .throttler_results import ThrottlerResults
from .throttler_statistics import Ended, ThrottlerStatistics, statistics_of
from .workers import WorkerPool, run_to_end


@final
class Runs(Generic[I, T]):
    """
    Runs jobs, and continues where an earlier run has left them.

    :param backlog: the jobs
    :param options: how they are run
    :param consumer: takes what becomes of them, ``None`` for none
    :param halt: ends a run after a failure, ``None`` for never

    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_consumer",
        "_ended",
        "_halt",
        "_options",
        "_statistics",
        "_tally",
        "backlog",
        "closed",
        "current",
        "results",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        options: JobOptions[I],
        consumer: Consumer[I, T] | None,
        halt: Halt | None,
    ) -> None:
        self.backlog = backlog
        self._options = options
        self._consumer = consumer
        self._halt = halt
        self._tally = Tally()
        self.results = ThrottlerResults(
            backlog,
            self._tally,
            consumed=consumer is not None,
            takes_failures=consumer is not None and consumer.takes_failures,
            most_waiting=results_waiting(options.concurrency, options.limiter),
        )
        self._clock = LoopClock(weakly(self._shift), "the throttler")
        # A method would put this object in a reference cycle with its run.
        self._statistics = partial(
            statistics_of, backlog, self._tally, options.limiter, self._clock
        )
        #: The run that is under way.
        self.current: RunState | None = None
        #: How the last run has ended.
        self._ended: Ended | None = None
        #: Whether nothing is to be run any more.
        self.closed = False

    def check_open(self) -> None:
        """
        Raise if it has been closed.

        :raises ~anyio.ClosedResourceError: if so

        """
        if self.closed:
            raise anyio.ClosedResourceError

    def check_idle(self) -> None:
        """
        Raise if a run is under way.

        :raises ~anyio.BusyResourceError: if so

        """
        if self.current is not None:
            # It does not count if its loop has ended, or was the parent process's.
            self._clock.peek()

        if self.current is not None:
            raise anyio.BusyResourceError("running")

    async def run(self, on_begun: Callable[[], None]) -> None:
        """
        Run until everything is done, or until something ends the run before.

        :param on_begun: called as soon as jobs may start

        """
        source = self.backlog.source
        interrupted_before = source.interrupted
        consumer = self._consumer
        run = RunState(self.backlog.change, self._clock.loop(), host_waits=consumer is None)
        self._ended = None
        self._tally.begin_run(run.loop.time)
        ask = asking(self._halt, run, self._statistics)
        pool = WorkerPool(
            self.backlog, self.results, self._options, run, resumable=True, on_failure=ask
        )
        consuming = None if consumer is None else partial(consume, self.results, consumer, run)
        self.current = run
        try:
            self.results.begin_run()
            await run_to_end(pool, consuming, on_begun)
        finally:
            self._end_run(run)

        if interrupted_before:
            raise SourceInterrupted(source.items)

        self._ended = run.how

    def stop(self) -> None:
        """Start nothing more in the run that is under way, if there is one."""
        if self.current is not None:
            self.current.stop()

    async def close(self) -> None:
        """
        Close the source, and run nothing any more; not to be called while a run is under way.

        :raises BaseException: an error that the source has raised as it was closed

        """
        self.closed = True
        self.results.close()
        cancellation = RunCancellation(self._clock.loop())
        try:
            await self.backlog.close()
        except BaseException as exc:  # noqa: BLE001 - it is raised, or what stands for it
            error = uncancelled(exc, "the source")
            try:
                if error is exc or cancellation.caused(exc):
                    raise

                raise error from exc
            finally:
                # Its traceback leads here.
                del error

    def statistics(self) -> ThrottlerStatistics:
        """Return the state at this instant."""
        return self._statistics(self._ended)

    def _shift(self, seconds: float) -> None:
        """Change to another event loop's clock; a run in the earlier loop has ended."""
        if self.current is not None:
            self._end_run(self.current)

        self._tally.shift(seconds)

    def _end_run(self, run: RunState) -> None:
        if self.current is not run:
            # It was ended before, because its loop had ended or was the parent process's.
            return

        self.current = None
        lost = [(record, JobInterrupted(record.job)) for record in self.backlog.end_run()]
        for record, interrupted in lost:
            self.results.fail(record, interrupted)

        self.results.end_run()
        if self._options.observer is not None:
            for record, interrupted in lost:
                tell_of_failure(self._options.observer, record, interrupted)
