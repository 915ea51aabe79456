"""
One run of a throttler: who pulls the jobs, who runs them, who consumes the results.

A worker is a slot: there are at most ``concurrency`` of them, and each runs one job at a time.
One worker at a time has the lead. It waits until there is a job, then until the limiter lets one
pass, takes the job that is frontmost at that instant, and passes the lead on before it runs it.
So one task at most is in the limiter's line, nothing is held while there is no job, and jobs
start in their order. The workers are made as they are needed.

No task here lets an error out: the first that ends the run is kept in ``failure``, and the task
group is cancelled. What is under way then is sorted by :class:`.Backlog`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Generic, TypeVar, final

import anyio
from anyio.abc import TaskGroup

from .._events import Finished, Observer, Started, Throttled, tell
from .._limiters.clock import RunClock
from .._limiters.current import as_current
from .._limiters.throttle import go_again, throttle_in
from ..abc import Limiter
from .backlog import Backlog
from .cancellation import RunCancellation
from .job import Errand
from .source import SourceEnd

T = TypeVar("T")

_logger = logging.getLogger("anythrottle")


@final
class Crew(Generic[T]):
    """
    The tasks of one run; made in the task that runs them.

    :param backlog: the jobs
    :param limiter: what lets a job pass
    :param concurrency: how many jobs run at once at most, or infinity
    :param max_attempts: how often one job is started at most, or infinity
    :param consumer: what takes the results
    :param clock: what the jobs are timed with
    :param observer: who is told what becomes of the jobs

    """

    _task_group: TaskGroup

    __slots__ = (
        "_backlog",
        "_cancellation",
        "_clock",
        "_concurrency",
        "_consumer",
        "_delivering",
        "_idle",
        "_lead",
        "_leader",
        "_limiter",
        "_max_attempts",
        "_observer",
        "_puller",
        "_stopping",
        "_task_group",
        "_workers",
        "failure",
        "finished",
    )

    def __init__(
        self,
        backlog: Backlog[T],
        *,
        limiter: Limiter,
        concurrency: float,
        max_attempts: float,
        consumer: Callable[[T], Awaitable[object]] | None,
        clock: RunClock,
        observer: Observer | None,
    ) -> None:
        self._backlog = backlog
        self._limiter = limiter
        self._concurrency = concurrency
        self._max_attempts = max_attempts
        self._consumer = consumer
        self._clock = clock
        self._observer = observer
        self._cancellation = RunCancellation()
        self._workers = 0
        #: How many workers wait for the lead, and how many for the consumer.
        self._idle = 0
        self._delivering = 0
        self._lead = anyio.Lock()
        #: The scope of the worker that has the lead, and of the task that pulls.
        self._leader: anyio.CancelScope | None = None
        self._puller = anyio.CancelScope()
        self._stopping = False
        #: The error that has ended the run.
        self.failure: BaseException | None = None
        #: Whether all is done, or all that was to be done after :meth:`stop`.
        self.finished = False

    def begin(self, task_group: TaskGroup) -> None:
        """Start the tasks, in a task group that nobody else uses."""
        self._task_group = task_group
        self._backlog.begin_run()
        self._task_group.start_soon(self._pull, name="anythrottle source")
        self._add_worker()

    def stop(self) -> None:
        """Start nothing more; what runs goes on."""
        self._stopping = True
        if self._leader is not None:
            self._leader.cancel()

    async def consume(self) -> None:
        """Hand the results to the consumer, one at a time, until the last job has ended."""
        consumer = self._consumer
        while consumer is not None:
            try:
                _, errand = await self._backlog.processed.receive(self)
            except anyio.EndOfStream:
                return

            errand.received = True
            try:
                await _awaitable(consumer(errand.value), consumer)
            except BaseException as exc:
                if self._cancellation.caused(exc):
                    raise

                self._backlog.finish(errand)
                self.fail(exc)
                return

            self._backlog.finish(errand)

    def fail(self, error: BaseException) -> None:
        """End the run with ``error``; any but the first is noted on the first, and logged."""
        if self.failure is None:
            self.failure = error
            self._task_group.cancel_scope.cancel()
        else:
            self.failure.add_note(f"While the run ended because of this, another error: {error!r}")
            _logger.error("another error while the run ended: %r", error, exc_info=error)

    def log_failure(self) -> None:
        """Log what would have ended the run, had it not been cancelled as well."""
        if self.failure is not None:
            _logger.error("error in a run that was cancelled", exc_info=self.failure)

    async def _pull(self) -> None:
        """Offer the jobs of the source to the workers, one ahead; always in this task."""
        backlog = self._backlog
        with self._puller:
            try:
                while True:
                    if backlog.ahead is None:
                        if backlog.source.interrupted:
                            break

                        backlog.ahead = Errand(await backlog.source.pull())

                    await backlog.todo.send(backlog.ahead, self)
            except SourceEnd:
                pass
            except BaseException as exc:
                if self._cancellation.is_under_way():
                    backlog.source.note_cut_off()

                if self._cancellation.caused(exc):
                    raise

                self.fail(exc)
                return

            backlog.end_of_source()

    def _add_worker(self) -> None:
        self._workers += 1
        self._task_group.start_soon(self._work, name="anythrottle worker")

    async def _work(self) -> None:
        with anyio.CancelScope() as scope:
            more = True
            while more:
                try:
                    more = await self._lead_and_run(scope)
                except BaseException as exc:
                    if self._cancellation.caused(exc):
                        raise

                    if not isinstance(exc, anyio.get_cancelled_exc_class()):
                        self.fail(exc)
                        return

                    # Somebody has cancelled this task natively, and meant a job that is over.
                    self._cancellation.absorb(exc)

        self._workers -= 1
        if not self._workers:
            self.finished = True
            self._puller.cancel()
            self._backlog.end_of_jobs()

    async def _lead_and_run(self, scope: anyio.CancelScope) -> bool:
        """Wait for the lead, then for a turn, and run a job; tell whether there may be more."""
        backlog = self._backlog
        self._idle += 1
        try:
            await self._lead.acquire()
        finally:
            self._idle -= 1

        has_lead = True
        self._leader = scope
        try:
            if not self._stopping:
                await backlog.todo.ready()

            if self._stopping or backlog.todo.is_at_end():
                return False

            async with self._limiter.permit() as permit:
                if self._stopping:
                    permit.refund()
                    return False

                errand = backlog.start()
                has_lead = False
                self._pass_lead()
                self._see_to_successor()
                errand.waited += permit.waited
                with as_current(permit):
                    await self._attempt(errand)
        finally:
            if has_lead:
                self._pass_lead()

        await self._deliver(errand)
        return not self._stopping

    def _pass_lead(self) -> None:
        self._leader = None
        self._lead.release()

    def _see_to_successor(self) -> None:
        """Make another worker, if none waits for the lead and there may be one more."""
        if (
            not self._idle
            # As long as somebody waits for the consumer, more results would only wait as well.
            and not self._delivering
            and self._workers < self._concurrency
            and not self._stopping
        ):
            self._add_worker()

    async def _attempt(self, errand: Errand[T]) -> None:
        """Run a job once, and see to it that it is where it belongs before its slot is free."""
        if self._observer is not None:
            tell(
                self._observer,
                Started(errand.position, errand.job, errand.attempts, errand.waited),
            )

        began = self._clock.now()
        try:
            value = await errand.attempt()
        except BaseException as exc:
            errand.duration = self._clock.now() - began
            if self._cancellation.caused(exc):
                raise

            if isinstance(exc, (Exception, anyio.get_cancelled_exc_class())):
                self._cancellation.absorb(exc)
                self._sort_out(errand, exc)
            else:
                self.fail(exc)
        else:
            errand.duration = self._clock.now() - began
            self._backlog.succeed(errand, value)
            if self._consumer is None:
                self._backlog.finish(errand)

            if self._observer is not None:
                tell(
                    self._observer,
                    Finished(errand.position, errand.job, errand.attempts, errand.duration),
                )

    def _sort_out(self, errand: Errand[T], error: BaseException) -> None:
        """Put a job that was throttled back, collect the error of one that has failed."""
        refusal: BaseException | None = error
        throttle = throttle_in(error)
        if throttle is not None:
            self._limiter.pause(throttle.retry_after)
            _logger.info("job %d: %s", errand.position, error)
            job, refusal = go_again(
                throttle, error, errand.job, errand.attempts, self._max_attempts
            )
            if refusal is None:
                self._backlog.put_back(errand, job)
                if self._observer is not None:
                    throttled = Throttled(None, errand.position, errand.attempts, error)
                    tell(self._observer, throttled)

        if refusal is not None:
            self._backlog.fail(errand, refusal)

    async def _deliver(self, errand: Errand[T]) -> None:
        """Hand a result to the consumer, and wait while too many results wait for it."""
        if self._consumer is None or not errand.ended:
            return

        self._delivering += 1
        try:
            await self._backlog.processed.send(errand, self)
        except anyio.get_cancelled_exc_class() as exc:
            if self._cancellation.caused(exc):
                raise

            self._cancellation.absorb(exc)
            self._backlog.deliver(errand)
        finally:
            self._delivering -= 1


def _awaitable(result: Awaitable[object], consumer: object) -> Awaitable[object]:
    if not isawaitable(result):
        raise TypeError(
            f"consumer_fn must be an async function, but {consumer!r} returned {result!r}, "
            f"which cannot be awaited"
        )

    return result
