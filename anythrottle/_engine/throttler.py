"""The throttler: runs jobs under a limiter, losing none."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar, final, overload

import anyio
from anyio.abc import TaskStatus

from .._events import Observer
from .._jobs import JobOf
from .._limiters.live import Live
from ..abc import Limiter
from .attempts import Attempts
from .backlog import Backlog
from .consuming import consumer_of
from .front_stream import FrontReceiveStream
from .halting import Halt, check_halt
from .options import CostOf, JobOptions, limiter_of
from .outcome import Outcome
from .run_logging import check_handler, check_level, logging_during_run
from .runs import Runs
from .throttler_statistics import ThrottlerStatistics

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")
J = TypeVar("J")
R = TypeVar("R")


@final
class Throttler(Live, Generic[I, T]):
    """
    Runs jobs at the pace a service allows, passes the results on, and keeps what is not done.

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

    Or one function for many items, which may come as a stream:

    >>> async def fetch(page):
    ...     return f"page {page}"
    >>> throttler = anythrottle.Throttler([1, 2], consume, func=fetch, limiter="20/10s")
    >>> anyio.run(throttler.run).done
    page 1
    page 2
    2

    Jobs start in the order given. A job that raises :exc:`.ThrottleException` goes back to the
    front, and the limiter pauses. Other errors are collected in :attr:`exceptions`, and the run
    goes on. If :meth:`run` is cancelled, what it has not finished is kept, and the next
    :meth:`run` continues with it:

    - A callable that was cut off midway is called again: at least once, perhaps twice. So is
      ``func``, even if the replacement of a job that was throttled went in its place.
    - An awaitable cannot be: it has failed with :exc:`.JobInterrupted`. Prefer callables.
    - What the consumer has not had is kept, and its job does not run again. A consumer call that
      was cut off is repeated; one that raised has consumed, and its error has a note of the job.
    - An async generator as source that was cut off inside its own step has ended there; the next
      run raises :exc:`.SourceInterrupted` when it has done what it has. Where a run must be
      resumable, feed the jobs through a memory object stream.

    So a run never closes the source; :meth:`aclose` does, and so does ``async with`` a throttler.

    A job must not wait for the limiter that runs it: its call has been paid for.

    :param jobs: an iterable or async iterable of jobs: async functions without arguments, or
        awaitables; with ``func``, of items of any kind. It is advanced only as jobs start, one
        ahead, and never again once it has ended: what a list is given after that, no run looks at
    :param consumer_fn: an async function that takes a result, awaited for one after the other;
        while it is slow, jobs wait: no more results are kept than run at once, by ``concurrency``
        or the limiter's own (else 100). ``None``: results are counted and dropped.
    :param func: an async function of one argument that is called with each item. Items are data
        then: they are never called, awaited or closed, and outcomes, events, :meth:`add` and
        :meth:`remaining` use them
    :param outcome_fn: an async function that takes an :class:`.Outcome`, in place of
        ``consumer_fn``: it takes failures too, which then are not in :attr:`exceptions`
    :param time_window: the length of the window in seconds, above 0; 60 by default
    :param per_time_window: how many jobs start in any one window, at least 1; 100 by default
    :param limiter: what the jobs wait for, instead of the two before: a limiter, which may be
        shared, or a text such as ``"20/10s"``
    :param concurrency: how many jobs run at once, at least 1, or a capacity limiter that is
        shared with others; 5 by default. With ``limiter``, ``None``, the default, leaves that to
        the limiter.
    :param cost: what each start of a job costs by the limiter, or a function that returns it for a
        job, or item; if that fails, or what it returns can never fit, the job has failed.
        :func:`.current_permit` can correct it
    :param priority: of the jobs' turns among others that use the limiter: lower goes first
    :param attempts: how often a job is tried, after which errors, and for how long each time;
        ``None`` for once, and again for as long as it is throttled
    :param halt: a function of the :class:`.ThrottlerStatistics` of the run under way that is asked
        after each failure: if it returns ``True``, the run ends as by :meth:`stop`; if it fails,
        with its error. ``lambda run: run.failed >= 5`` gives up after 5 failures.
        ``None``: however many jobs fail, the run goes on
    :param observer: a function that is called with :type:`events <anythrottle.abc.Event>`: what
        becomes of the jobs
    :param log_handler: attached to the library's logger (``"anythrottle"``) during a run
    :param log_level: the level of that logger during a run
    :raises TypeError: if a parameter is of the wrong type, ``limiter`` comes together with a
        window, or ``consumer_fn`` with ``outcome_fn``
    :raises ValueError: if a parameter is out of its range

    """

    _runs: Runs[I, T]
    _exceptions: FrontReceiveStream[Outcome[I, T]]

    __slots__ = ("__weakref__", "_exceptions", "_log_handler", "_log_level", "_runs")

    @overload
    def __init__(
        self: Throttler[JobOf[R], R],
        jobs: Iterable[JobOf[R]] | AsyncIterable[JobOf[R]],
        /,
        consumer_fn: Callable[[R], Awaitable[object]] | None = None,
        *,
        func: None = None,
        outcome_fn: Callable[[Outcome[JobOf[R], R]], Awaitable[object]] | None = None,
        time_window: float = 60.0,
        per_time_window: int = 100,
        concurrency: int | anyio.CapacityLimiter = 5,
        cost: CostOf[JobOf[R]] = 1,
        priority: int = 0,
        attempts: Attempts | None = None,
        halt: Halt | None = None,
        observer: Observer | None = None,
        log_handler: logging.Handler | None = None,
        log_level: int | str | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self: Throttler[JobOf[R], R],
        jobs: Iterable[JobOf[R]] | AsyncIterable[JobOf[R]],
        /,
        consumer_fn: Callable[[R], Awaitable[object]] | None = None,
        *,
        func: None = None,
        outcome_fn: Callable[[Outcome[JobOf[R], R]], Awaitable[object]] | None = None,
        limiter: Limiter | str,
        concurrency: int | anyio.CapacityLimiter | None = None,
        cost: CostOf[JobOf[R]] = 1,
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
        items: Iterable[I] | AsyncIterable[I],
        /,
        consumer_fn: Callable[[T], Awaitable[object]] | None = None,
        *,
        func: Callable[[I], Awaitable[T]],
        outcome_fn: Callable[[Outcome[I, T]], Awaitable[object]] | None = None,
        time_window: float = 60.0,
        per_time_window: int = 100,
        concurrency: int | anyio.CapacityLimiter = 5,
        cost: CostOf[I] = 1,
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
        items: Iterable[I] | AsyncIterable[I],
        /,
        consumer_fn: Callable[[T], Awaitable[object]] | None = None,
        *,
        func: Callable[[I], Awaitable[T]],
        outcome_fn: Callable[[Outcome[I, T]], Awaitable[object]] | None = None,
        limiter: Limiter | str,
        concurrency: int | anyio.CapacityLimiter | None = None,
        cost: CostOf[I] = 1,
        priority: int = 0,
        attempts: Attempts | None = None,
        halt: Halt | None = None,
        observer: Observer | None = None,
        log_handler: logging.Handler | None = None,
        log_level: int | str | None = None,
    ) -> None: ...

    def __init__(
        self: Throttler[J, R],
        jobs: Iterable[J] | AsyncIterable[J],
        /,
        consumer_fn: Callable[[R], Awaitable[object]] | None = None,
        *,
        func: Callable[[J], Awaitable[R]] | None = None,
        outcome_fn: Callable[[Outcome[J, R]], Awaitable[object]] | None = None,
        time_window: float | None = None,
        per_time_window: int | None = None,
        limiter: Limiter | str | None = None,
        concurrency: int | anyio.CapacityLimiter | None = None,
        cost: CostOf[J] = 1,
        priority: int = 0,
        attempts: Attempts | None = None,
        halt: Halt | None = None,
        observer: Observer | None = None,
        log_handler: logging.Handler | None = None,
        log_level: int | str | None = None,
    ) -> None:
        if func is not None and not callable(func):
            raise TypeError(f"func must be an async function of one argument, not {func!r}")

        consumer = consumer_of(consumer_fn, outcome_fn)
        if limiter is None and concurrency is None:
            concurrency = 5

        limiter = limiter_of(limiter, time_window, per_time_window)
        options = JobOptions[J].checked(limiter, concurrency, cost, priority, attempts, observer)
        check_halt(halt)
        self._log_handler = check_handler(log_handler)
        self._log_level = check_level(log_level)
        backlog: Backlog[J, R] = Backlog(jobs, func, "jobs" if func is None else "items")
        self._runs = Runs(backlog, options, consumer, halt)
        self._exceptions = FrontReceiveStream(self._runs.results.failures, warns=False)

    @property
    def exceptions(self) -> FrontReceiveStream[Outcome[I, T]]:
        """
        The jobs that have failed, as a stream of :class:`.Outcome`.

        It is unbounded. A task may read it before the first :meth:`run`, and waits. It is at its
        end when it is empty and a run, or :meth:`aclose`, has ended it; the next call of
        :meth:`run` opens it again.
        """
        return self._exceptions

    async def run(
        self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> ThrottlerStatistics:
        """
        Run until the source has ended, all jobs are done and the consumer has had all results.

        After it was cancelled, has failed or was stopped, it may be called again, and continues.
        ``await task_group.start(throttler.run)`` runs it in a task of its own, and returns when
        :attr:`exceptions` is open for what fails in it, and the first job may start.

        :param task_status: what :meth:`TaskGroup.start() <anyio.abc.TaskGroup.start>` passes
        :return: the statistics at the end
        :raises ~anyio.BusyResourceError: if a run is under way already
        :raises ~anyio.ClosedResourceError: if :meth:`aclose` was called
        :raises ~anythrottle.SourceInterrupted: if an earlier run has cut off the source, an
            async generator, inside its own step
        :raises BaseException: an error of the consumer, of the source (also that what it gave is no
            job) or of the limiter, as it is; a cancellation that one of them raises by itself, as
            the cause of a :exc:`RuntimeError`. Further errors are noted on it.

        """
        self._runs.check_open()
        self._runs.check_idle()
        with logging_during_run(self._log_handler, self._log_level):
            await self._runs.run(task_status.started)

        return self.statistics()

    def add(self, job: I, /, *, front: bool = False) -> None:
        """
        Add a job, before or during a run, from inside a job too.

        It comes after the jobs that were put back, and before anything more from the source. A run
        that has nothing left to do ends all the same.

        :param job: an async function without arguments, or an awaitable; with ``func``, an item
        :param front: whether it starts before all others, those that were put back included
        :raises TypeError: if it is neither callable nor awaitable, and there is no ``func``
        :raises ~anyio.ClosedResourceError: if :meth:`aclose` was called

        """
        self._runs.check_open()
        self._runs.backlog.add(job, front=front)

    def stop(self) -> None:
        """
        Start nothing more; the run ends when the jobs that run have ended.

        A source that is still in its own step then is cut off, which ends an async generator.
        Without a run under way, there is nothing to stop.
        """
        self._runs.stop()

    async def aclose(self) -> None:
        """
        Close the source, if it is a generator, and give up what remains.

        Then nothing can be run or added any more. Failures can still be read, up to the end of
        :attr:`exceptions`, and :meth:`remaining` and :meth:`statistics` still answer. Awaitables
        that remain and have not begun are closed, unless :meth:`remaining` has returned them
        before; items, if there is a ``func``, are left as they are.

        :raises ~anyio.BusyResourceError: if a run is under way
        :raises BaseException: an error that the source has raised as it was closed; it is closed
            all the same

        """
        self._runs.check_idle()
        if not self._runs.closed:
            await self._runs.close()

    def remaining(self) -> list[I]:
        """
        Return the jobs that were pulled or added and are not finished, front first.

        With ``func``, these are their items. A job that has ended counts as well, as long as the
        consumer has not had its result, and so does all the rest of a source that is a sequence; of
        other sources the rest stays unread.
        """
        return self._runs.backlog.remaining()

    def statistics(self) -> ThrottlerStatistics:
        """Return the state at this instant."""
        return self._runs.statistics()

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
        runs = self._runs
        state = "closed" if runs.closed else "running" if runs.current is not None else "idle"
        return (
            f"<Throttler {state}: {statistics.running} running, {statistics.done} done, "
            f"{statistics.failed} failed>"
        )

    def __del__(self) -> None:
        # Nothing to discard if the constructor has refused its arguments.
        runs = getattr(self, "_runs", None)
        if runs is not None:
            runs.backlog.discard()
