"""The type of what :func:`.amap_outcomes` gives its block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from .outcome import Outcome
from .throttler_statistics import ThrottlerStatistics

I_co = TypeVar("I_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


class Outcomes(Protocol[I_co, T_co]):
    """The outcomes of calls, an async iterator of them as they come."""

    def __aiter__(self) -> AsyncIterator[Outcome[I_co, T_co]]: ...

    async def __anext__(self) -> Outcome[I_co, T_co]: ...

    def stop(self) -> None:
        """
        Start no more calls; those that run go on, and after their outcomes there are no more.

        Once all have ended, or the block was left, there is nothing to stop.
        """
        ...

    def statistics(self) -> ThrottlerStatistics:
        """Return the state at this instant: how many calls have ended, run, or wait."""
        ...
