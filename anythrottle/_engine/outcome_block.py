"""The ``async with`` block of :func:`.amap_outcomes`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, final

from .cancellation import is_cancellation
from .job_record import I, T
from .outcome_feed import OutcomeFeed
from .outcomes import Outcomes
from .workers import WorkerPool, cancelled_by_others, tasks_of


@final
class OutcomeBlock(AbstractAsyncContextManager[Outcomes[I, T]], Generic[I, T]):
    """
    Runs jobs while the block lasts, in which their outcomes are iterated over.

    :param begin: returns the iterator of the outcomes and the pool that runs the jobs; called in
        the task that enters the block

    """

    __slots__ = ("_begin", "_feed", "_pool", "_tasks")

    def __init__(self, begin: Callable[[], tuple[OutcomeFeed[I, T], WorkerPool[I, T]]]) -> None:
        self._begin: Callable[[], tuple[OutcomeFeed[I, T], WorkerPool[I, T]]] | None = begin

    async def __aenter__(self) -> Outcomes[I, T]:
        if self._begin is None:
            raise RuntimeError(
                "this amap_outcomes() has been entered before: call it again for each block"
            )

        begin, self._begin = self._begin, None
        self._feed, self._pool = begin()
        self._tasks = tasks_of(self._pool)
        await self._tasks.__aenter__()
        return self._feed

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        feed, pool = self._feed, self._pool
        run = pool.run
        cut_off = exc is not None and is_cancellation(exc) and run.cancellation.is_under_way()
        feed.leave()
        run.cancel()
        # An error that the block has raised leaves it unchanged, and cancels nothing else.
        given = (exc_type, exc, traceback) if cut_off else (None, None, None)
        try:
            swallowed = await self._tasks.__aexit__(*given)
            if swallowed and run.failure is None:
                await cancelled_by_others()
        except BaseException:
            if exc is None or cut_off or isinstance(exc, GeneratorExit):
                run.log_failure()
                raise

            # This error has come after that of the block.
            swallowed = False
        finally:
            feed.end_block()
            pool.let_go()

        if exc is not None and not swallowed:
            run.log_failure()
        else:
            run.raise_failure()

        return False
