"""One job on its way through a throttler."""

from __future__ import annotations

from typing import Generic, TypeVar, final

from .._limiters.throttle import JobOf, awaitable_of
from .outcome import Outcome

T = TypeVar("T")


@final
class Errand(Generic[T]):
    """
    A job with what is known of it.

    :ivar job: the job, or the replacement that goes instead
    :ivar position: its place in the order of first starts; -1 before it is known
    :ivar attempts: how often it was started
    :ivar waited: how long it has waited for its turns, in seconds
    :ivar duration: how long the last attempt took, in seconds
    :ivar ended: whether it has succeeded: then :attr:`value` is what it returned
    :ivar received: whether the result has come to the consumer

    """

    __slots__ = (
        "attempts",
        "duration",
        "ended",
        "job",
        "position",
        "received",
        "value",
        "waited",
    )

    value: T

    def __init__(self, job: JobOf[T], position: int = -1) -> None:
        self.job = job
        self.position = position
        self.attempts = 0
        self.waited = 0.0
        self.duration = 0.0
        self.ended = False
        self.received = False

    async def attempt(self) -> T:
        """
        Call or await the job once.

        :raises TypeError: if a callable returns what cannot be awaited

        """
        return await awaitable_of(self.job, f"job {self.position}")

    def outcome(self, error: BaseException) -> Outcome[JobOf[T], T]:
        """Return how the job has failed."""
        return Outcome(
            self.position, self.job, None, error, self.attempts, self.waited, self.duration
        )
