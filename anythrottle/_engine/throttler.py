"""The throttler: runs jobs under a limiter, losing none."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutinefunction, unwrap
from math import inf
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Generic, TypeVar, final, overload

import anyio
from anyio.lowlevel import checkpoint

from .._errors import SourceInterrupted
from .._events import Observer, check_observer
from .._limiters.clock import RunClock
from .._limiters.rate_limiter import RateLimiter, as_limiter
from .._limiters.throttle import JobOf
from .._policies.checks import check_count, check_seconds
from .._policies.window import WindowTokenBucket
from ..abc import Limiter
from .backlog import Backlog
from .cancellation import bare
from .crew import Crew
from .front_stream import FrontReceiveStream
from .outcome import Outcome
from .run_logging import logging_during_run

T = TypeVar("T")

_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, MethodDescriptorType)

#: What an annotation names if it promises an awaitable.
_AWAITABLE = re.compile("Awaitable|Coroutine|Future|Task|Any|object")

#: How many results may wait for the consumer if there is no concurrency to go by.
_RESULTS_WAITING = 100


@dataclass(frozen=True, slots=True)
class ThrottlerStatistics:
    """
    The state of a :class:`Throttler` at one instant, over all its runs.

    :ivar int started: how often a job was started, again included
    :ivar int running: how many jobs run now
    :ivar int done: how many results the consumer has had, or were dropped without one
    :ivar int failed: how many jobs have ended with an error
    :ivar int throttled: how often a job went back to the front because it was throttled

    """

    started: int
    running: int
    done: int
    failed: int
    throttled: int


@final
class Throttler(Generic[T]):
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

    A job must not wait for the limiter that runs it: its call has been paid for.

    :param jobs: an iterable or async iterable of jobs: async functions without arguments, or
        awaitables. It is advanced only as jobs start, one ahead.
    :param consumer_fn: an async function that takes a result, awaited for one after the other;
        while it is slow, jobs wait. ``None``: results are counted and dropped.
    :param time_window: the length of the window in seconds, above 0; 60 by default
    :param per_time_window: how many jobs start in any one window, at least 1; 100 by default
    :param limiter: what lets jobs pass, instead of the two before: a limiter, which may be
        shared, or a text such as ``"20/10s"``
    :param concurrency: how many jobs run at once, at least 1; 5 by default. With ``limiter``,
        ``None``, the default, leaves that to the limiter.
    :param max_attempts: how often one job is started, at least 1, before its throttling is
        collected as its error; ``None`` for no bound
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
        "_concurrency",
        "_consumer",
        "_crew",
        "_exceptions",
        "_limiter",
        "_log_handler",
        "_log_level",
        "_max_attempts",
        "_observer",
    )

    @overload
    def __init__(
        self,
        jobs: Iterable[JobOf[T]] | AsyncIterable[JobOf[T]],
        consumer_fn: Callable[[T], Awaitable[object]] | None = None,
        *,
        time_window: float = 60.0,
        per_time_window: int = 100,
        concurrency: int = 5,
        max_attempts: int | None = None,
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
        concurrency: int | None = None,
        max_attempts: int | None = None,
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
        concurrency: int | None = None,
        max_attempts: int | None = None,
        observer: Observer | None = None,
        log_handler: logging.Handler | None = None,
        log_level: int | str | None = None,
    ) -> None:
        if consumer_fn is not None:
            _check_consumer(consumer_fn)

        if limiter is None:
            self._limiter = _window_limiter(time_window, per_time_window)
            concurrency = 5 if concurrency is None else concurrency
        elif time_window is not None or per_time_window is not None:
            raise TypeError(
                f"limiter={limiter!r} says how fast jobs may start: leave out "
                f"time_window={time_window!r} and per_time_window={per_time_window!r}"
            )
        else:
            self._limiter = as_limiter(limiter)

        self._concurrency = _count_or_infinity("concurrency", concurrency)
        self._max_attempts = _count_or_infinity("max_attempts", max_attempts)
        self._consumer = consumer_fn
        self._log_handler = _check_handler(log_handler)
        self._log_level = _check_level(log_level)
        check_observer(observer)
        self._observer = observer
        self._crew: Crew[T] | None = None
        self._clock = RunClock(_nothing, "the throttler")
        self._backlog: Backlog[T] = Backlog(
            jobs, _RESULTS_WAITING if self._concurrency == inf else self._concurrency, observer
        )
        self._exceptions = FrontReceiveStream(self._backlog.failures, warns=False)

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
        :raises ~anythrottle.SourceInterrupted: if an earlier run has cut off the source, an
            async generator, inside its own step
        :raises BaseException: an error of the consumer or of the source, as it is. Further errors
            are noted on it.

        """
        if self._crew is not None:
            raise anyio.BusyResourceError("running")

        source = self._backlog.source
        interrupted_before = source.interrupted
        crew = self._crew = self._new_crew()
        with logging_during_run(self._log_handler, self._log_level):
            try:
                async with anyio.create_task_group() as task_group:
                    crew.begin(task_group)
                    await crew.consume()
            except BaseException as exc:
                crew.log_failure()
                if bare(exc) is exc:
                    raise

                # On Trio, Ctrl-C comes in a group of the task group's.
                raise bare(exc) from None
            finally:
                self._crew = None
                self._backlog.end_run()

        if crew.failure is not None:
            raise crew.failure

        if not crew.finished:
            # Cancelled, while the task group was waiting for nothing but its workers.
            await checkpoint()

        if interrupted_before:
            raise SourceInterrupted(source.jobs)

        return self.statistics()

    def add(self, job: JobOf[T]) -> None:
        """
        Add a job, before or during a run, from inside a job too.

        It comes after those that were put back, and before anything more from the source. A run
        that has nothing left to do ends all the same.

        :param job: an async function without arguments, or an awaitable
        :raises TypeError: if it is neither

        """
        self._backlog.add(job)

    def stop(self) -> None:
        """
        Start nothing more; the run ends when the jobs that run have ended.

        A source that is in its own step by then is cut off, which ends an async generator.
        Without a run under way, there is nothing to stop.
        """
        if self._crew is not None:
            self._crew.stop()

    def remaining(self) -> list[JobOf[T]]:
        """
        Return the jobs that were pulled or added and are not finished, front first.

        A job whose result the consumer has not had counts as well, and of a source that is a
        sequence all the rest; of other sources the rest stays unread.
        """
        return self._backlog.remaining()

    def statistics(self) -> ThrottlerStatistics:
        """Return the state at this instant."""
        backlog = self._backlog
        return ThrottlerStatistics(
            started=backlog.starts,
            running=backlog.running,
            done=backlog.done,
            failed=backlog.failed,
            throttled=backlog.throttled,
        )

    def __repr__(self) -> str:
        state = "idle" if self._crew is None else "running"
        statistics = self.statistics()
        return (
            f"<Throttler {state}: {statistics.running} running, {statistics.done} done, "
            f"{statistics.failed} failed>"
        )

    def __del__(self) -> None:
        # Nothing to discard if the constructor has refused its arguments.
        backlog = getattr(self, "_backlog", None)
        if backlog is not None:
            backlog.discard()

    def _new_crew(self) -> Crew[T]:
        return Crew(
            self._backlog,
            limiter=self._limiter,
            concurrency=self._concurrency,
            max_attempts=self._max_attempts,
            consumer=self._consumer,
            clock=self._clock,
            observer=self._observer,
        )


def _window_limiter(time_window: float | None, per_time_window: int | None) -> Limiter:
    window = 60.0 if time_window is None else check_seconds("time_window", time_window)
    limit = 100 if per_time_window is None else check_count("per_time_window", per_time_window)
    # The workers' own checkpoint is enough.
    return RateLimiter(WindowTokenBucket(limit, window), fast_acquire=True)


def _count_or_infinity(name: str, value: int | None) -> float:
    return inf if value is None else check_count(name, value)


def _check_handler(handler: object) -> logging.Handler | None:
    if handler is not None and not isinstance(handler, logging.Handler):
        raise TypeError(f"log_handler must be a logging.Handler, not {handler!r}")

    return handler


def _check_level(level: object) -> int | None:
    if isinstance(level, str):
        levels = logging.getLevelNamesMapping()
        if level not in levels:
            raise ValueError(f"log_level must be one of {', '.join(levels)}, not {level!r}")

        return levels[level]

    return None if level is None else check_count("log_level", level, least=0)


def _check_consumer(consumer: object) -> None:
    """Raise if a consumer is certainly not async; of others, the first call tells."""
    function = consumer
    while isinstance(function, partial):
        function = function.func

    if callable(function):
        function = unwrap(function)

    if not isinstance(function, _FUNCTIONS) and not isinstance(function, type):
        # An object that can be called: its class tells how.
        function = type(function).__call__ if callable(function) else None

    certain = not callable(function) or isinstance(
        function, (BuiltinFunctionType, MethodDescriptorType, type)
    )
    if isinstance(function, (FunctionType, MethodType)) and not iscoroutinefunction(function):
        # A lambda, or a function that declares so, may well return an awaitable.
        declared = str(function.__annotations__.get("return"))
        certain = function.__name__ != "<lambda>" and not _AWAITABLE.search(declared)

    if certain:
        raise TypeError(f"consumer_fn must be an async function of one argument, not {consumer!r}")


def _nothing(shift: float) -> None:
    """Shift nothing: a throttler keeps no instants."""
