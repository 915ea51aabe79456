"""One job with all that is known of it on its way through the engine."""

from __future__ import annotations

from typing import Generic, TypeVar, cast, final

from .._jobs import JobOf
from .._policies.policy import Cost
from .outcome import Draft, Outcome

I = TypeVar("I")  # noqa: E741 - an item, beside T for its result
T = TypeVar("T")


@final
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

    __slots__ = (
        "attempts",
        "cost",
        "duration",
        "error",
        "errors",
        "item",
        "job",
        "position",
        "rank",
        "retry_after",
        "throttles",
        "undelivered",
        "value",
        "waited",
    )

    value: T

    def __init__(self, item: I, job: JobOf[T], position: int = -1) -> None:
        self.item = item
        self.job = job
        self.position = self.rank = position
        self.cost: Cost | None = None
        self.attempts = self.errors = self.throttles = 0
        self.retry_after: float | None = None
        self.waited = 0.0
        self.duration = 0.0
        self.undelivered = False
        self.error: BaseException | None = None

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
        draft: Draft[I, T] = Draft()
        draft.index = self.position
        draft.item = self.item
        draft.result = self.value if error is None else None
        draft.error = error
        draft.attempts = self.attempts
        draft.waited = self.waited
        draft.duration = self.duration
        draft.__class__ = Outcome  # type: ignore[assignment] # the same slots, frozen
        return draft  # type: ignore[return-value]
