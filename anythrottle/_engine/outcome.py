"""What became of one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

I_co = TypeVar("I_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[I_co, T_co]):
    """
    What became of one job.

    :ivar int index: the job's place in the order given, from 0 on
    :ivar item: the job, or the item that it was made for
    :ivar result: what it returned, ``None`` if it failed; :attr:`value` tells the two apart
    :ivar error: what it raised at last, ``None`` if it succeeded
    :ivar int attempts: how often it was started; a start that was cut off is not counted
    :ivar float waited: how long it has waited for its turns, in seconds
    :ivar float duration: how long its last attempt took, in seconds

    """

    index: int
    item: I_co
    result: T_co | None
    error: BaseException | None
    attempts: int
    waited: float
    duration: float

    @property
    def value(self) -> T_co:
        """
        What the job returned.

        :raises BaseException: the job's own error, if it failed

        """
        if self.error is not None:
            raise self.error

        return cast("T_co", self.result)
