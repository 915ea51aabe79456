"""The base of what takes the jobs of a run that have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

from .job_record import I, JobRecord, T


class ResultSink(ABC, Generic[I, T]):
    """
    Takes the jobs that have ended from the workers; nothing here waits.

    By itself it always has room, and lets the run end if the source fails.
    """

    __slots__ = ()

    #: Whether there may be no room for a result.
    bounded = False

    def has_room(self, record: JobRecord[I, T]) -> bool:  # noqa: ARG002 - for subclasses
        """Return whether the frontmost job may be started now, as far as results go."""
        return True

    @abstractmethod
    def succeed(self, record: JobRecord[I, T]) -> None:
        """Take a job that has ended well, with its value, and be done with it sooner or later."""

    @abstractmethod
    def fail(self, record: JobRecord[I, T], error: BaseException) -> None:
        """Take a job that has ended with an error, and be done with it sooner or later."""

    def survives(self, error: BaseException) -> bool:  # noqa: ARG002 - for subclasses
        """Take an error of the source; return whether the jobs that run go on to their end."""
        return False

    def end(self) -> None:
        """Note that no more jobs end in this run."""
