"""What an error says of throttling, and what a throttled job does next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

from .._errors import ThrottleException, check_retry_after
from .._jobs import Job, JobOf, discard

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Throttle:
    """
    What an error says of throttling.

    :ivar retry_after: for how long to pause, in seconds; ``None`` for the limiter's own choice
    :ivar replacements: what shall run instead; only the first one does
    :ivar pure: whether the error says nothing else

    """

    retry_after: float | None
    replacements: list[Job]
    pure: bool


def throttle_in(error: BaseException) -> Throttle | None:
    """
    Return what an error, or a group of errors, says of throttling; ``None`` if nothing.

    A group of several signals counts as one: the longest pause that any of them asks for, and the
    first replacement.

    :raises BaseException: if the ``retry_after`` of a subclass is not valid, from ``error``
    """
    signals, pure = _signals_in(error)
    if not signals:
        return None

    replacements = [signal.task for signal in signals if signal.task is not None]
    longest = None
    try:
        for signal in signals:
            # The constructor checks it, but a derived class may not call that.
            pause = check_retry_after(signal.retry_after)
            if longest is None or (pause is not None and pause > longest):
                longest = pause
    except BaseException as exc:
        for unused in replacements:
            discard(unused)

        raise exc from error

    return Throttle(longest, replacements, pure)


def go_again(
    throttle: Throttle, error: BaseException, job: JobOf[T], attempts: int, most: float
) -> JobOf[T] | None:
    """
    Return what shall run after a throttled attempt; ``None`` if its error is the job's last.

    Replacements that will not run are closed.

    :param throttle: what ``error`` says of throttling
    :param job: the job that has raised it
    :param attempts: how often the job was throttled
    :param most: how often the job may be throttled

    """
    replacement = throttle.replacements[0] if throttle.replacements else job
    goes = False
    if throttle.pure and attempts >= most:
        note_last_throttle(error, attempts, throttle.retry_after)
    elif throttle.pure and replacement is job and not callable(job):
        error.add_note(
            "An awaitable cannot run again: pass a callable that makes it, or raise "
            "ThrottleException(task=...) with what shall run instead."
        )
    else:
        goes = throttle.pure

    for unused in throttle.replacements:
        if not goes or unused is not replacement:
            discard(unused)

    return cast("JobOf[T]", replacement) if goes else None


def note_last_throttle(error: BaseException, throttles: int, retry_after: float | None) -> None:
    """
    Note on the error of a job how often it was throttled, now that it does not go again.

    :param retry_after: the last pause that the service asked for, in seconds; ``None`` if none
    """
    times = "1 time" if throttles == 1 else f"{throttles} times"
    said = "no retry_after was given"
    if retry_after is not None:
        said = f"the last retry_after was {retry_after:g} s"

    error.add_note(f"It was throttled {times}; {said}.")


def _signals_in(error: BaseException) -> tuple[list[ThrottleException], bool]:
    """Return the throttle signals in an error or group, and whether there is nothing else in it."""
    if isinstance(error, ThrottleException):
        return [error], True

    if not isinstance(error, BaseExceptionGroup):
        return [], False

    group = cast("BaseExceptionGroup[BaseException]", error)
    found = [_signals_in(part) for part in group.exceptions]
    return [signal for signals, _ in found for signal in signals], all(pure for _, pure in found)
