"""One job with all that is known of it on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast, final

from .._jobs import JobOf
from .._policies.policy import Cost
from .outcome import Draft, Outcome

I = TypeVar("I")  # noqa: E741 - an item, beside T for its result
T = TypeVar("T")


@final
@dataclass(slots=True, eq=False, repr=False)
class JobRecord(Generic[I, T]):
    """
    A job, and what has become of it so far; whichever part of the engine has it fills it in.

    :ivar item: what it was made for; a throttler's jobs are their own items
    :ivar job: the job, or the replacement that goes instead
    :ivar position: its place in the order of first starts; -1 before it is known
    :ivar rank: by which it is put back: its position, unless it was put before all others
    :ivar cost: what an attempt costs, ``None`` before it is known
    :ivar attempts: how often it was started
    :ivar errors: how many of its starts have ended with an error, and not been its last
    :ivar throttles: how many of its starts were throttled
    :ivar retry_after: what the service has said of these last, in seconds; ``None`` if nothing
    :ivar waited: how long it has waited for its turns, in seconds
    :ivar duration: how long the last attempt took, in seconds
    :ivar undelivered: whether it has ended, and what it has ended with is still to be delivered:
        :attr:`value`, unless there is an :attr:`error`
    :ivar error: what it has failed with, if it has ended so

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
        """Run another job instead from now on."""
        if self.item is self.job:
            # A throttler's: it is what remains to be done from now on.
            self.item = cast("I", job)

        self.job = job
        self.cost = None

    def __str__(self) -> str:
        return f"job {self.position}"

    def outcome(self, error: BaseException | None = None) -> Outcome[I, T]:
        """Return how the job has ended: with an error, or as it did by itself."""
        result = self.value if error is None else None
        draft: Draft[I, T] = Draft(
            self.position, self.item, result, error, self.attempts, self.waited, self.duration
        )
        draft.__class__ = Outcome  # type: ignore[assignment] # the same slots, frozen
        return draft  # type: ignore[return-value]
