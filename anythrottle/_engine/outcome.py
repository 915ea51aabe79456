"""The public record of what became of one job."""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from .._records import setters
from .cancellation import is_cancellation

I_co = TypeVar("I_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, init=False)
class Outcome(Generic[I_co, T_co]):
    """
    What became of one job.

    :ivar int index: the job's place in the order given, from 0 on
    :ivar item: the job, or the item that it was made for
    :ivar result: what it returned, ``None`` if it failed; :attr:`value` distinguishes the two
    :ivar error: the error of its last attempt, ``None`` if it succeeded
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

    def __init__(  # noqa: PLR0917 - in the order of the fields
        self,
        index: int,
        item: I_co,
        result: T_co | None,
        error: BaseException | None,
        attempts: int,
        waited: float,
        duration: float,
    ) -> None:
        _set_index(self, index)
        _set_item(self, item)
        _set_result(self, result)
        _set_error(self, error)
        _set_attempts(self, attempts)
        _set_waited(self, waited)
        _set_duration(self, duration)

    @property
    def value(self) -> T_co:
        """
        What the job returned.

        :raises Exception: the job's own error, if it failed; for a cancellation, which would seem
            to be the reader's, a :exc:`RuntimeError` with it as its cause

        """
        if self.error is not None:
            raise raisable(self.error, f"job {self.index}")

        return cast("T_co", self.result)


_set_index, _set_item, _set_result, _set_error, _set_attempts, _set_waited, _set_duration = setters(
    Outcome
)


def raisable(error: BaseException, job: str) -> Exception:
    """Return what to raise for a job's error, so that it does not look like a cancellation."""
    if isinstance(error, Exception):
        return error

    told = RuntimeError(f"{job} was cancelled by other code")
    told.__cause__ = error
    return told


def uncancelled(error: BaseException, what: str) -> BaseException:
    """
    Return the error, or what to raise instead of a cancellation that is not the run's.

    :param what: what has raised it

    """
    foreign = isinstance(error, CancelledError) or is_cancellation(error)
    return raisable(error, what) if foreign else error
