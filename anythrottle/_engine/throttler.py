"""The throttler: runs jobs under a limiter, losing none."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar, final, overload

import anyio

from .._errors import JobInterrupted, SourceInterrupted
from .._events import Observer
from .._limiters.clock import RunClock, weakly
from .._limiters.live import Live
from .._limiters.throttle import JobOf, check_job
from ..abc import Limiter
from .attempts import Attempts
from .backlog import Backlog
from .cancellation import RunCancellation
from .concurrency import results_waiting
from .consuming import check_consumer, consume
from .cost_of import CostOf
from .crew import Crew
from .deliveries import Deliveries
from .front_stream import FrontReceiveStream
from .halting import Halt, check_halt, let_halt
from .job import Errand
from .limiter_option import limiter_of
from .options import JobOptions
from .outcome import Outcome, uncancelled
from .run_logging import check_handler, check_level, logging_during_run
from .running import run_to_end
from .tally import Tally
from .throttler_statistics import Ended, ThrottlerStatistics, statistics_of
from .workbench import tell_of_failure

T = TypeVar("T")


@final
class Throttler(Live, Generic[T]):
    """
    Runs jobs at the pace a service allows, hands over the results, and loses nothing.

    At most 20 starts in any 10 seconds, 5 jobs at a time:

    >>> import anyio, anythrottle
    >>> async def job():
    ...     return "answer"
    >>> async def consume(result):
    ...     print(result)
    >>> throttler = anythrottle.Throttler(
    ...     [job, job], consume, time_window=10, per_time_window=20, concurrency=5
    ... )
    >>> anyio.run(throttler.run).done
    answer
    answer
    2

    Jobs start in the order given. A job that raises :exc:`.ThrottleException` goes back to the
    front, and the limiter pauses. Other errors are collected in :attr:`exceptions`, and the run
    goes on. If :meth:`run` is cancelled, what it has not finished is kept, and the next
    :meth:`run` carries on:

    - A callable that was cut off midway is called again: at least once, perhaps twice.
    - An awaitable cannot be: it is collected as :exc:`.JobInterrupted`. Prefer callables.
    - A result that the consumer has not had is kept, and its job does not run again. A consumer
      call that was cut off is repeated.
    - An async generator as source that was cut off inside its own step has ended there; the next
      run raises :exc:`.SourceInterrupted` when it has done what it has. Where a run must be
      resumable, feed the jobs through a memory object stream.

    So no run closes the source. :meth:`aclose` does, or ``async with`` a throttler.

    A job must not wait for the limiter that runs it: its call has been paid for.

    :param jobs: an iterable or async iterable of jobs: async functions without arguments, or
        awaitables. It is advanced only as jobs start, one ahead, and never again once it has ended:
        what a list is given after that, no run looks at
    :param consumer_fn: an async function that takes a result, awaited for one after the other;
        while it is slow, jobs wait: no more results are kept than run at once, by ``concurrency``
        or the limiter's own (else 100). ``None``: results are counted and dropped.
    :param time_window: the length of the window in seconds, above 0; 60 by default
    :param per_time_window: how many jobs start in any one window, at least 1; 100 by default
    :param limiter: what lets jobs pass, instead of the two before: a limiter, which may be
        shared, or a text such as ``"20/10s"``
    :param concurrency: how many jobs run at once, at least 1, or a capacity limiter that is
        shared with others; 5 by default. With ``limiter``, ``None``, the default, leaves that to
        the limiter.
    :param cost: what each start of a job costs by the limiter, or a function that tells it of a
        job; if it fails, or that can never fit, so has the job. :func:`.current_permit` corrects it
    :param priority: that of the jobs' turns among others that use the limiter: lower goes first
    :param attempts: how often a job is tried, after which errors, and for how long each time;
        ``None`` for once, and again for as long as it is throttled
    :param halt: a function of the :class:`.ThrottlerStatistics` of the run under way that is asked
        after each failure: if it returns ``True``, the run ends as by :meth:`stop`; if it fails,
        with its error. ``lambda run: run.failed >= 5`` gives up after 5 failures.
        ``None``: however many jobs fail, the run goes on
    :param observer: a function that is told of :data:`events <anythrottle.abc.Event>`: what
        becomes of the jobs
    :param log_handler: attached to the library's logger (``"anythrottle"``) while it runs
    :param log_level: the level of that logger while it runs
    :raises TypeError: if a parameter is of the wrong type, or ``limiter`` comes together with a
        window
    :raises ValueError: if a parameter is out of its range

    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_clock",
        "_closed",
        "_consumer",
        "_crew",
        "_deliveries",
        "_ended",
        "_exceptions",
        "_halt",
        "_log_handler",
        "_log_level",
        "_options",
        "_tally",
    )

    @overload
    def __init__(
        self,
        jobs: Iterable[JobOf[T]] | AsyncIterable[JobOf[T]],
        consumer_fn: Callable[[T], Awaitable[object]] | None = None,
        *,
        time_window: float = 60.0,
        per_time_window: int = 100,
        concurrency: int | anyio.CapacityLimiter = 5,
        cost: CostOf[JobOf[T]] = 1,
        priority: int = 0,
        attempts: Attempts | None = None,
        halt: Halt | None = None,
        observer: Observer | None = None,
        log_handler: logging.Handler | None = None,
        log_level: int | str | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        jobs: Iterable[JobOf[T]] | AsyncIterable[JobOf[T]],
        consumer_fn: Callable[[T], Awaitable[object]] | None = None,
        *,
        limiter: Limiter | str,
        concurrency: int | anyio.CapacityLimiter | None = None,
        cost: CostOf[JobOf[T]] = 1,
        priority: int = 0,
        attempts: Attempts | None = None,
        halt: Halt | None = None,
        observer: Observer | None = None,
        log_handler: logging.Handler | None = None,
        log_level: int | str | None = None,
    ) -> None: ...

    def __init__(
        self,
        jobs: Iterable[JobOf[T]] | AsyncIterable[JobOf[T]],
        consumer_fn: Callable[[T], Awaitable[object]] | None = None,
        *,
        time_window: float | None = None,
        per_time_window: int | None = None,
        limiter: Limiter | str | None = None,
        concurrency: int | anyio.CapacityLimiter | None = None,
        cost: CostOf[JobOf[T]] = 1,
        priority: int = 0,
        attempts: Attempts | None = None,
        halt: Halt | None = None,
        observer: Observer | None = None,
        log_handler: logging.Handler | None = None,
        log_level: int | str | None = None,
    ) -> None:
        if consumer_fn is not None:
            check_consumer(consumer_fn)

        known = limiter_of(limiter, time_window, per_time_window)
        self._options = JobOptions[JobOf[T]].checked(
            limiter=known,
            concurrency=5 if limiter is None and concurrency is None else concurrency,
            cost=cost,
            priority=priority,
            attempts=attempts,
            observer=observer,
        )
        check_halt(halt)
        self._halt = halt
        self._consumer = consumer_fn
        self._log_handler = check_handler(log_handler)
        self._log_level = check_level(log_level)
        self._crew: Crew[JobOf[T], T] | None = None
        self._closed = False
        self._clock = RunClock(weakly(self._shift), "the throttler")
        self._ended: Ended | None = None
        self._tally = Tally()
        self._backlog: Backlog[JobOf[T], T] = Backlog(jobs, check_job, "jobs")
        self._deliveries = Deliveries(
            self._backlog,
            self._tally,
            consumed=consumer_fn is not None,
            most_waiting=results_waiting(self._options.concurrency, known),
        )
        self._exceptions = FrontReceiveStream(self._deliveries.failures, warns=False)

    @property
    def exceptions(self) -> FrontReceiveStream[Outcome[JobOf[T], T]]:
        """
        The jobs that have failed, as a stream of :class:`.Outcome`.

        It is open from the start, unbounded, and at its end when it is empty and no run is under
        way: read it during a run, or afterwards.
        """
        return self._exceptions

    async def run(self) -> ThrottlerStatistics:
        """
        Run until the source has ended, all jobs are done and the consumer has had all results.

        May be called again after it was cancelled, has failed or was stopped, and carries on.

        :return: the statistics at the end
        :raises ~anyio.BusyResourceError: if a run is under way already
        :raises ~anyio.ClosedResourceError: if :meth:`aclose` was called
        :raises ~anythrottle.SourceInterrupted: if an earlier run has cut off the source, an
            async generator, inside its own step
        :raises BaseException: an error of the consumer, the source (that it gave what is no job,
            too) or the limiter, as it is; a cancellation that one of them raises by itself, as the
            cause of a :exc:`RuntimeError`. Further errors are noted on it.

        """
        if self._closed:
            raise anyio.ClosedResourceError

        self._check_idle()
        source = self._backlog.source
        interrupted_before = source.interrupted
        crew = self._crew = self._new_crew()
        with logging_during_run(self._log_handler, self._log_level):
            try:
                self._deliveries.begin_run()
                await run_to_end(crew, self._consuming(crew))
            finally:
                if self._crew is crew:
                    self._end_run()

        if interrupted_before:
            raise SourceInterrupted(source.items)

        self._ended = crew.ended
        return self.statistics()

    def add(self, job: JobOf[T], *, front: bool = False) -> None:
        """
        Add a job, before or during a run, from inside a job too.

        It comes after those that were put back, and before anything more from the source. A run
        that has nothing left to do ends all the same.

        :param job: an async function without arguments, or an awaitable
        :param front: whether it is to start before all others, those that were put back included
        :raises TypeError: if it is neither callable nor awaitable
        :raises ~anyio.ClosedResourceError: if :meth:`aclose` was called

        """
        if self._closed:
            raise anyio.ClosedResourceError

        self._backlog.add(Errand(job, check_job(job, "job")), front=front)

    def stop(self) -> None:
        """
        Start nothing more; the run ends when the jobs that run have ended.

        A source that is still in its own step then is cut off, which ends an async generator.
        Without a run under way, there is nothing to stop.
        """
        if self._crew is not None:
            self._crew.stop()

    async def aclose(self) -> None:
        """
        Close the source, if it is a generator, and give up what remains.

        Then nothing can be run or added any more. What has failed can still be read, and
        :meth:`remaining` and :meth:`statistics` be asked. Awaitables among what remains that have
        not begun are closed, unless :meth:`remaining` has handed them out before.

        :raises ~anyio.BusyResourceError: if a run is under way
        :raises BaseException: what the source has raised as it was closed; it is closed all the
            same

        """
        self._check_idle()
        if self._closed:
            return

        self._closed = True
        cancellation = RunCancellation(self._clock.run())
        try:
            await self._backlog.close()
        except BaseException as exc:
            error = uncancelled(exc, "the source")
            if error is exc or cancellation.caused(exc):
                raise

            raise error from exc

    def remaining(self) -> list[JobOf[T]]:
        """
        Return the jobs that were pulled or added and are not finished, front first.

        A job whose result the consumer has not had counts as well, and of a source that is a
        sequence all the rest; of other sources the rest stays unread.
        """
        return self._backlog.remaining()

    def statistics(self) -> ThrottlerStatistics:
        """Return the state at this instant."""
        return statistics_of(
            self._backlog, self._tally, self._options.limiter, self._clock, self._ended
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        statistics = self.statistics()
        state = "closed" if self._closed else "idle" if self._crew is None else "running"
        return (
            f"<Throttler {state}: {statistics.running} running, {statistics.done} done, "
            f"{statistics.failed} failed>"
        )

    def __del__(self) -> None:
        # Nothing to discard if the constructor has refused its arguments.
        backlog = getattr(self, "_backlog", None)
        if backlog is not None:
            backlog.discard()

    def _new_crew(self) -> Crew[JobOf[T], T]:
        self._ended = None
        self._tally.begin_run(self._clock.run().time)
        # Not by a method of this object, which would then be in a cycle with the crew.
        statistics = partial(
            statistics_of, self._backlog, self._tally, self._options.limiter, self._clock
        )
        crew = Crew(self._backlog, self._deliveries, self._options, self._clock, resumable=True)
        let_halt(crew, self._halt, statistics)
        return crew

    def _consuming(self, crew: Crew[JobOf[T], T]) -> Callable[[], Awaitable[None]] | None:
        consumer = self._consumer
        return None if consumer is None else partial(consume, self._deliveries, consumer, crew)

    def _check_idle(self) -> None:
        # A run whose loop is no more, or was the parent process's, is not under way.
        self._clock.glance()
        if self._crew is not None:
            raise anyio.BusyResourceError("running")

    def _shift(self, seconds: float) -> None:
        """Go over to another run's clock."""
        if self._crew is not None:
            self._end_run()

        self._tally.shift(seconds)

    def _end_run(self) -> None:
        self._crew = None
        lost = [(errand, JobInterrupted(errand.job)) for errand in self._backlog.end_run()]
        for errand, interrupted in lost:
            self._deliveries.fail(errand, interrupted)

        self._deliveries.end_run()
        if self._options.observer is not None:
            for errand, interrupted in lost:
                tell_of_failure(self._options.observer, errand, interrupted)
