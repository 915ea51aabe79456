"""An async function to be called for items, which keeps a diary; and sources that do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import anyio

from anythrottle import BaseLimiter, Cost, Outcome, RateLimiter
from anythrottle.abc import Permit
from tests.engine.diary import Diary, Job

Stream: TypeAlias = AbstractAsyncContextManager[AsyncIterator[Outcome[object, object]]]


class Calls:
    """
    What to call for each item; returns :func:`of` the item.

    :param seconds: how long a call takes, or by item; calls of other items take none
    :param errors: what the first attempts for an item raise
    """

    def __init__(
        self,
        seconds: float | Mapping[object, float] | None = None,
        errors: Mapping[object, Iterable[BaseException]] | None = None,
    ) -> None:
        self.diary = Diary()
        self._seconds = seconds
        self._errors = errors or {}
        self._jobs: dict[object, Job] = {}

    async def __call__(self, item: object) -> object:
        job = self._jobs.get(item)
        if job is None:
            seconds = self._seconds
            if isinstance(seconds, Mapping):
                seconds = seconds.get(item)

            errors = self._errors.get(item, ())
            job = self.diary.job(item, seconds=seconds, errors=errors, result=of(item))
            self._jobs[item] = job

        return await job()

    @property
    def starts(self) -> list[object]:
        """For whom it was called, in that order."""
        return self.diary.starts

    @property
    def ends(self) -> list[object]:
        return self.diary.who("end")

    @property
    def cut_off(self) -> list[object]:
        return self.diary.who("cut off")


def of(item: object) -> object:
    """Return what a call returns: each item has another, and none is its own."""
    return ("of", item)


class Pulled:
    """Sources that note what is pulled from them, when, and by which task."""

    def __init__(self, items: Iterable[object], calls: Calls | None = None) -> None:
        self._items = items
        self._calls = calls
        self.items: list[object] = []
        self.tasks: set[tuple[int, str | None]] = set()
        self.closed = 0
        #: How many more were pulled than had been started, at the most.
        self.most_ahead = 0

    def note(self, item: object) -> None:
        self.items.append(item)
        task = anyio.get_current_task()
        # An id may be that of another task later.
        self.tasks.add((task.id, task.name))
        if self._calls is not None:
            self.most_ahead = max(self.most_ahead, len(self.items) - len(self._calls.starts))

    def generator(self) -> Iterator[object]:
        try:
            for item in self._items:
                self.note(item)
                yield item
        finally:
            self.closed += 1

    async def async_generator(self) -> AsyncIterator[object]:
        try:
            for item in self._items:
                await anyio.sleep(0)
                self.note(item)
                yield item
        finally:
            self.closed += 1


async def every(stream: Stream, *, within: float = 1000.0) -> list[Outcome[object, object]]:
    """Take all outcomes, and fail if that hangs."""
    with anyio.fail_after(within):
        async with stream as outcomes:
            return [outcome async for outcome in outcomes]


def raising(error: BaseException, after: Iterable[object] = ()) -> Iterator[object]:
    """Make a source that gives some items, and then raises."""
    yield from after
    raise error


async def raising_async(
    error: BaseException, after: Iterable[object] = ()
) -> AsyncIterator[object]:
    for item in after:
        yield item

    raise error


class Impatient(BaseLimiter):
    """A limiter of a user's own, which refuses every call that would have to wait."""

    def __init__(self, limit: str) -> None:
        self._limiter = RateLimiter(limit)

    def permit(
        self, cost: Cost = 1, *, priority: int = 0, max_wait: Any = None
    ) -> AbstractAsyncContextManager[Permit]:
        return self._limiter.permit(cost, priority=priority, max_wait=0)

    def pause(self, seconds: float | None = None) -> None:
        self._limiter.pause(seconds)
