"""Where the jobs come from: any iterable or async iterable, advanced one job at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from inspect import isasyncgen
from itertools import islice
from typing import Generic, TypeVar, final

from anyio import EndOfStream, get_cancelled_exc_class

from .job import JobOf, check_job

T = TypeVar("T")


@final
class Source(Generic[T]):
    """
    The jobs that have not been pulled yet.

    :param jobs: an iterable or async iterable of jobs
    :raises TypeError: if it is neither

    """

    __slots__ = ("_iterator", "_jobs", "_pulled", "interrupted")

    def __init__(self, jobs: Iterable[JobOf[T]] | AsyncIterable[JobOf[T]]) -> None:
        if not isinstance(jobs, (Iterable, AsyncIterable)):
            raise TypeError(f"jobs must be an iterable or an async iterable, not {jobs!r}")

        self._jobs = jobs
        self._iterator: Iterator[JobOf[T]] | AsyncIterator[JobOf[T]] | None = None
        self._pulled = 0
        #: Whether the source is an async generator that was cut off inside its own step.
        self.interrupted = False

    async def pull(self) -> JobOf[T]:
        """
        Return the next job.

        :raises ~anyio.EndOfStream: if there is none
        :raises TypeError: if what comes is no job

        """
        if self._iterator is None:
            jobs = self._jobs
            self._iterator = aiter(jobs) if isinstance(jobs, AsyncIterable) else iter(jobs)

        try:
            if isinstance(self._iterator, Iterator):
                job = next(self._iterator)
            else:
                job = await anext(self._iterator)
        except (StopIteration, StopAsyncIteration):
            raise EndOfStream from None
        except get_cancelled_exc_class():
            iterator = self._iterator
            self.interrupted = isasyncgen(iterator) and iterator.ag_frame is None
            raise

        self._pulled += 1
        check_job(job, f"jobs[{self._pulled - 1}]")
        return job

    @property
    def jobs(self) -> object:
        """What the jobs come from."""
        return self._jobs

    def rest(self) -> list[JobOf[T]]:
        """Return what a sequence still has to give; of other sources the rest stays unread."""
        if isinstance(self._jobs, Sequence):
            return list(islice(self._jobs, self._pulled, None))

        return []
