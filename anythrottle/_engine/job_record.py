"""One job with all that is known of it on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast, final

from .._jobs import JobOf
from .._policies.policy import Cost
from .outcome import Outcome

I = TypeVar("I")  # noqa: E741 - an item, beside T for its result
T = TypeVar("T")


@final
@dataclass(slots=True, eq=False, repr=False)
class JobRecord(Generic[I, T]):
    """
    A job, and what has become of it so far; the part of the engine that has it fills it in.

    :ivar item: the item that it was made for; without a ``func``, the job itself
    :ivar job: the job, or the replacement that goes instead
    :ivar position: its place in the order of first starts; -1 before it is known
    :ivar rank: its place when it is put back: its position, unless it was put before all others
    :ivar cost: what an attempt costs; ``None`` before it is known, or if all jobs cost the same
    :ivar attempts: how often it was started
    :ivar errors: how many of its starts have ended with an error, and were not its last
    :ivar throttles: how many of its starts were throttled
    :ivar retry_after: the last that the service has asked for, in seconds; ``None`` if it never has
    :ivar waited: how long it has waited for its turns, in seconds
    :ivar duration: how long the last attempt took, in seconds
    :ivar undelivered: whether it has ended, and its :attr:`value` or :attr:`error` is still to be
        delivered
    :ivar error: the error with which it has failed, if it has

    """

    item: I
    job: JobOf[T]
    position: int = -1
    rank: int = -1
    cost: Cost | None = None
    attempts: int = 0
    errors: int = 0
    throttles: int = 0
    retry_after: float | None = None
    waited: float = 0.0
    duration: float = 0.0
    undelivered: bool = False
    value: T = field(init=False)
    error: BaseException | None = None

    def replace(self, job: JobOf[T]) -> None:
        """Replace the job by another one from now on."""
        if self.item is self.job:
            # The item is the job itself, so that what remains to be done is the new one.
            self.item = cast("I", job)

        self.job = job
        self.cost = None

    def __str__(self) -> str:
        return f"job {self.position}"

    def outcome(self, error: BaseException | None = None) -> Outcome[I, T]:
        """Return the outcome of the job: a failure if there is an error, else a success."""
        result = self.value if error is None else None
        return Outcome(
            self.position, self.item, result, error, self.attempts, self.waited, self.duration
        )
