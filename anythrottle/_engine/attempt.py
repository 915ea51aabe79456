"""Runs one attempt of a job, and decides what follows from how it ends."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import replace
from math import inf
from typing import Generic, final

import anyio

from .._events import Failed, Finished, Observer, Retried, Throttled, tell
from .._jobs import awaitable_of
from .._limiters.base_limiter import tell_throttled
from .._limiters.current import make_current
from .._limiters.holding import hold_here
from .._limiters.permit import TurnPermit
from .._limiters.slots import Slot
from .._limiters.throttling import Throttle, go_again, throttle_in
from ..abc import Permit
from .admission import Admission, Asked, leave
from .backlog import Backlog
from .cancellation import without_cancellations
from .context import run_in_context
from .job_record import I, JobRecord, T
from .options import JobOptions
from .retrying import delay_before_next
from .run_state import RunState
from .sink import ResultSink

_logger = logging.getLogger("anythrottle")


@final
class AttemptRunner(Generic[I, T]):
    """
    Runs the jobs of one run, one attempt at a time.

    :param backlog: takes a job that is to go again
    :param sink: takes a job that has ended
    :param admission: has the limiter, which pauses if a job was throttled
    :param run: the run
    :param options: how a job is attempted, and the observer
    :param on_failure: is called when a job has ended with an error

    """

    __slots__ = (
        "_admission",
        "_attempts",
        "_backlog",
        "_context",
        "_free_context",
        "_most_throttles",
        "_observer",
        "_on_failure",
        "_run",
        "_sink",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        sink: ResultSink[I, T],
        admission: Admission[I],
        run: RunState,
        options: JobOptions[I],
        *,
        on_failure: Callable[[], None] | None,
    ) -> None:
        self._backlog = backlog
        self._sink = sink
        self._admission = admission
        self._attempts = options.attempts
        most = options.attempts.max_throttles
        self._most_throttles = inf if most is None else most
        self._run = run
        self._on_failure = on_failure
        self._observer = options.observer
        #: Each attempt runs in a copy of this context.
        self._context = copy_context()
        #: The same, for attempts that share one permit.
        self._free_context = self._context.copy()
        if admission.free is not None:
            self._free_context.run(make_current, admission.free)

    def let_go(self) -> None:
        """Break the reference cycles: the tracebacks of jobs' errors lead here."""
        del self._backlog, self._sink, self._run, self._on_failure

    async def run(
        self, record: JobRecord[I, T], asked: Asked, permit: Permit, slot: Slot | None
    ) -> None:
        """
        Run a started job once, and leave its permit, whatever happens.

        :param asked: the permit as the limiter has returned it
        :param permit: what entering it gave
        :param slot: the slot that the job holds, if slots are shared with others

        """
        try:
            time = self._run.loop.time
            began = time()
            try:
                is_free = permit is self._admission.free
                context = (self._free_context if is_free else self._context).copy()
                if slot is not None:
                    context.run(hold_here, slot)

                awaitable = (
                    context.run(awaitable_of, record.job, record)
                    if is_free
                    else context.run(_call, record, permit)
                )
                timeout = self._attempts.timeout
                if timeout is None:
                    value = await run_in_context(awaitable, context)
                else:
                    with anyio.fail_after(timeout):
                        value = await run_in_context(awaitable, context)
            except BaseException as exc:
                record.duration = time() - began
                if self._run.cancellation.caused(exc):
                    raise

                self._take_error(record, permit, exc)
            else:
                record.duration = time() - began
                self._take_value(record, value)
        except BaseException as exc:
            await leave(asked, exc)
            raise

        # As leave() does, but without a coroutine where none is needed.
        if isinstance(asked, TurnPermit):
            asked.leave()
        elif asked is not self._admission.free:
            await leave(asked, None)

    def fail(self, record: JobRecord[I, T], error: BaseException) -> None:
        """End a started job with an error."""
        self._backlog.running -= 1
        self._sink.fail(record, error)
        if self._observer is not None:
            tell_of_failure(self._observer, record, error)

        if self._on_failure is not None:
            self._on_failure()

    def _take_value(self, record: JobRecord[I, T], value: T) -> None:
        """End a job with the value that it has returned."""
        record.value = value
        record.undelivered = True
        self._backlog.running -= 1
        self._sink.succeed(record)
        if self._observer is not None:
            position, attempts = record.position, record.attempts
            tell(self._observer, Finished(position, record.item, attempts, record.duration))

    def _take_error(self, record: JobRecord[I, T], permit: Permit, error: BaseException) -> None:
        """End the run if a job has raised what is no error of its own, else handle the error."""
        error = without_cancellations(error)
        if isinstance(error, (Exception, anyio.get_cancelled_exc_class())):
            self._run.cancellation.absorb(error)
            self._sort_out(record, permit, error)
        else:
            self._run.fail(error)

    def _sort_out(self, record: JobRecord[I, T], permit: Permit, error: BaseException) -> None:
        """Put a job that has raised an error back, or end it with that error."""
        delay = None
        try:
            throttle = throttle_in(error)
            if throttle is None:
                delay = delay_before_next(self._attempts, error, record.errors + 1)
        except (Exception, CancelledError) as exc:  # noqa: BLE001 - a wrong signal, or retry_on's own
            self.fail(record, exc)
            return

        if throttle is not None:
            self._obey(throttle, record, permit, error)
            return

        if delay is not None and not callable(record.job):
            error.add_note("An awaitable cannot run again: pass a callable that makes it.")
            delay = None

        if delay is None:
            self.fail(record, error)
            return

        _logger.info("%s: again in %g s, after %r", record, delay, error)
        self._backlog.delay(record, self._run.loop.time() + delay)
        if self._observer is not None:
            again = Retried(record.position, record.item, record.attempts, delay, error)
            tell(self._observer, again)

    def _obey(
        self, throttle: Throttle, record: JobRecord[I, T], permit: Permit, error: BaseException
    ) -> None:
        """Pause, and put a throttled job back to the front if it may go again; else end it."""
        tell_throttled(permit, self._admission.limiter, throttle.retry_after)
        self._admission.turned_away = True
        _logger.info("%s: %s", record, error)
        record.throttles += 1
        if throttle.retry_after is None:
            # The last that the service has said may be from an earlier attempt.
            throttle = replace(throttle, retry_after=record.retry_after)

        record.retry_after = throttle.retry_after
        job = go_again(throttle, error, record.job, record.throttles, self._most_throttles)
        if job is None:
            self.fail(record, error)
            return

        item = record.item
        if job is not record.job:
            record.replace(job)

        self._backlog.put_back(record)
        if self._observer is not None:
            position, attempts = record.position, record.attempts
            tell(self._observer, Throttled(None, position, attempts, error, item))


def _call(record: JobRecord[I, T], permit: Permit) -> Awaitable[T]:
    """Return what to await for a job, called in its own context."""
    make_current(permit)
    return awaitable_of(record.job, record)


def tell_of_failure(observer: Observer, record: JobRecord[I, T], error: BaseException) -> None:
    """Notify an observer that a job has ended with an error."""
    tell(observer, Failed(record.position, record.item, record.attempts, record.duration, error))
