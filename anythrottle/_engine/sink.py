"""The base of the objects that take the jobs that have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

from .job_record import I, JobRecord, T


class ResultSink(ABC, Generic[I, T]):
    """
    Takes the jobs that have ended from the workers; no method waits.

    Unless a subclass says otherwise, there is always room, and an error of the source ends the run.
    """

    __slots__ = ()

    #: Whether there may be no room for a result.
    bounded = False

    def has_room(self, record: JobRecord[I, T]) -> bool:  # noqa: ARG002 - for subclasses
        """Return whether there is room for the result of the frontmost job."""
        return True

    @abstractmethod
    def succeed(self, record: JobRecord[I, T]) -> None:
        """Take a job that has succeeded, with its value, and finish it in the end."""

    @abstractmethod
    def fail(self, record: JobRecord[I, T], error: BaseException) -> None:
        """Take a job that has failed, and finish it in the end."""

    def survives(self, error: BaseException) -> bool:  # noqa: ARG002 - for subclasses
        """Take an error of the source; return whether the jobs that run go on to their ends."""
        return False

    def end(self) -> None:
        """Note that no more jobs end in this run."""
