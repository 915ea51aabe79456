"""One job on its way through a throttler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import CORO_CREATED, getcoroutinestate, isawaitable, iscoroutine
from typing import Generic, TypeAlias, TypeVar, cast, final

from .._errors import ThrottleException
from .outcome import Outcome

T = TypeVar("T")

#: A job whose result is a ``T``: a zero-argument async callable, or an awaitable.
JobOf: TypeAlias = Callable[[], Awaitable[T]] | Awaitable[T]


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
        job = self.job
        if not callable(job):
            return await job

        awaitable = job()
        if not isawaitable(awaitable):
            raise TypeError(
                f"job {self.position}, {job!r}, returned {awaitable!r}, which cannot be awaited: "
                f"a job must be an async function without arguments, or an awaitable"
            )

        return await awaitable

    def outcome(self, error: BaseException) -> Outcome[JobOf[T], T]:
        """Return how the job has failed."""
        return Outcome(
            self.position, self.job, None, error, self.attempts, self.waited, self.duration
        )


def check_job(job: object, name: str) -> None:
    """
    Raise if ``job`` cannot be one.

    :raises TypeError: if it is neither callable nor awaitable

    """
    if not callable(job) and not isawaitable(job):
        raise TypeError(
            f"{name} must be an async function without arguments, or an awaitable, not {job!r}"
        )


def discard(job: object) -> None:
    """Close a coroutine that nobody will await, so that Python doesn't complain that nobody has."""
    if iscoroutine(job) and getcoroutinestate(job) == CORO_CREATED:
        job.close()


def throttles_in(error: BaseException) -> tuple[list[ThrottleException], bool]:
    """Return the throttle signals in an error or group of errors, and whether it is all of them."""
    if isinstance(error, ThrottleException):
        return [error], True

    if not isinstance(error, BaseExceptionGroup):
        return [], False

    group = cast("BaseExceptionGroup[BaseException]", error)
    found = [throttles_in(part) for part in group.exceptions]
    return [signal for signals, _ in found for signal in signals], all(pure for _, pure in found)
