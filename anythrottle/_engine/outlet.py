"""What becomes of the jobs that have ended."""

from __future__ import annotations

from typing import Protocol, TypeVar

from .job import Errand

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")


class Outlet(Protocol[I, T]):
    """Where a crew leaves the jobs that have ended. Nothing here waits."""

    @property
    def bounded(self) -> bool:
        """Whether there may be no room for a result."""
        ...

    def has_room(self, errand: Errand[I, T]) -> bool:
        """Tell whether the frontmost job may be started now, as far as results go."""
        ...

    def succeed(self, errand: Errand[I, T]) -> None:
        """Take a job that has ended well, with its value, and be done with it sooner or later."""
        ...

    def fail(self, errand: Errand[I, T], error: BaseException) -> None:
        """Take a job that has ended with an error, and be done with it sooner or later."""
        ...

    def end_with(self, error: BaseException) -> bool:
        """Take an error of the source; tell whether the jobs that run may go on to their end."""
        ...

    def end(self) -> None:
        """Take note that no more jobs end in this run."""
        ...
