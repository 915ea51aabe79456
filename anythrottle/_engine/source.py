"""Where the jobs come from: any iterable or async iterable, advanced one job at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from inspect import isasyncgen
from itertools import islice
from typing import Generic, TypeVar, final

from .._limiters.throttle import JobOf, check_job

T = TypeVar("T")


class SourceEnd(Exception):
    """The source has no more jobs. An exception of our own: a source may raise any other."""


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

        :raises SourceEnd: if there is none
        :raises TypeError: if what comes is no job

        """
        jobs = self._jobs
        if isinstance(jobs, Sequence):
            if self._pulled >= len(jobs):
                raise SourceEnd

            job: JobOf[T] = jobs[self._pulled]
        else:
            job = await self._step(jobs)

        self._pulled += 1
        check_job(job, f"jobs[{self._pulled - 1}]")
        return job

    def note_cut_off(self) -> None:
        """Look what has become of the source, if a step of it was cut off."""
        self.interrupted = isasyncgen(self._iterator) and self._iterator.ag_frame is None

    @property
    def jobs(self) -> object:
        """What the jobs come from."""
        return self._jobs

    def rest(self) -> list[JobOf[T]]:
        """Return what a sequence still has to give; of other sources the rest stays unread."""
        if isinstance(self._jobs, Sequence):
            return list(islice(self._jobs, self._pulled, None))

        return []

    async def _step(self, jobs: Iterable[JobOf[T]] | AsyncIterable[JobOf[T]]) -> JobOf[T]:
        if self._iterator is None:
            self._iterator = aiter(jobs) if isinstance(jobs, AsyncIterable) else iter(jobs)

        try:
            if isinstance(self._iterator, AsyncIterator):
                return await anext(self._iterator)

            job: JobOf[T] = next(self._iterator)
        except (StopIteration, StopAsyncIteration):
            raise SourceEnd from None
        else:
            return job
