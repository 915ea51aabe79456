"""The ``async with`` block of :func:`.amap_outcomes`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, TypeVar, final

from .cancellation import is_cancellation
from .outcome_feed import OutcomeFeed
from .outcomes import Outcomes
from .running import cancelled_by_others, tasks_of

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")


@final
class OutcomeBlock(AbstractAsyncContextManager[Outcomes[I, T]], Generic[I, T]):
    """
    Runs jobs from its begin to its end, while their outcomes are iterated over.

    :param begin: returns what the outcomes come out of; called in the task that enters the block

    """

    __slots__ = ("_begin", "_feed", "_tasks")

    def __init__(self, begin: Callable[[], OutcomeFeed[I, T]]) -> None:
        self._begin: Callable[[], OutcomeFeed[I, T]] | None = begin

    async def __aenter__(self) -> Outcomes[I, T]:
        if self._begin is None:
            raise RuntimeError(
                "this amap_outcomes() has been entered before: call it again for each block"
            )

        begin, self._begin = self._begin, None
        self._feed = feed = begin()
        self._tasks = tasks_of(feed.crew)
        await self._tasks.__aenter__()
        return feed

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        feed = self._feed
        crew = feed.crew
        cut_off = exc is not None and is_cancellation(exc) and crew.cancellation.is_under_way()
        feed.leave()
        crew.cancel()
        # An error of the block's own is to leave it as it is, and not to cancel anything else.
        given = (exc_type, exc, traceback) if cut_off else (None, None, None)
        try:
            swallowed = await self._tasks.__aexit__(*given)
            if swallowed and crew.failure is None:
                await cancelled_by_others()
        except BaseException:
            if exc is None or cut_off or isinstance(exc, GeneratorExit):
                crew.log_failure()
                raise

            # It has come after the error of the block's own.
            swallowed = False
        finally:
            feed.end_block()
            crew.let_go()

        if exc is not None and not swallowed:
            crew.log_failure()
        else:
            crew.raise_failure()

        return False
