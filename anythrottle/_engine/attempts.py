"""How often a job is tried, after what, and for how long each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias, cast

from .._policies.checks import check_count, check_seconds

#: Which errors are worth another attempt: those of a type or of several, or those for which a
#: function returns ``True``, or the seconds after which to go again.
RetryOn: TypeAlias = (
    type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool | float]
)


@dataclass(frozen=True, slots=True)
class Attempts:
    """
    How often a job is tried, after which errors, and for how long each time.

    It holds nothing, so one may be made once and shared by all calls:

    >>> import anyio, anythrottle
    >>> patient = anythrottle.Attempts(3, retry_on=OSError, timeout=10)
    >>> async def fetch(page):
    ...     return f"page {page}"
    >>> async def main():
    ...     return await anythrottle.amap(fetch, [1, 2], limiter="20/10s", attempts=patient)
    >>> anyio.run(main)
    ['page 1', 'page 2']

    Errors and throttles are counted apart. So here, a job may fail twice with an :exc:`OSError` or
    take too long, and goes again; the third time, that is its error. A job that raises
    :exc:`.ThrottleException` meanwhile goes again for as long as it takes, unless
    ``max_throttles`` bounds that. A start that was cut off because its run was cancelled counts
    for neither.

    A job that has come to either bound has failed with its last error. That has a note of how often
    it was tried, or how often it was throttled and what the last ``retry_after`` was.

    :param max_attempts: how many starts of one job may end with an error that is worth another
        attempt, at least 1: the last of them is the job's last; ``None`` for no bound
    :param max_throttles: how many starts of one job may be throttled, at least 1: the last of them
        is the job's last, so that with 1 it never goes again; ``None`` for no bound
    :param retry_on: which errors are worth another attempt: a type (``OSError`` includes
        ``TimeoutError``), or several in a tuple, or a function of an error that returns ``True`` or
        ``False``, or the seconds after which to go again, 0 or more; if it fails, so has the job.
        Else these are drawn from a bound that doubles with each error: 1 second at first, 60 at
        most. The job waits without a slot, and others go on. ``None`` for no errors
    :param timeout: how long an attempt may take, in seconds, above 0: then it is cancelled, and
        has ended with :exc:`TimeoutError`; ``None`` for no bound
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range, or there is a ``max_attempts`` without
        ``retry_on``, so that nothing would be tried again

    """

    max_attempts: int | None = None
    _: KW_ONLY
    max_throttles: int | None = None
    retry_on: RetryOn | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.max_attempts is not None:
            check_count("max_attempts", self.max_attempts)

        if self.max_throttles is not None:
            check_count("max_throttles", self.max_throttles)

        _check_retry_on(self.retry_on)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)

        if self.max_attempts is not None and self.retry_on is None:
            raise ValueError(
                f"max_attempts={self.max_attempts!r} needs a retry_on, such as retry_on=OSError: "
                f"without one, no error is worth another attempt; what bounds how often a job may "
                f"be throttled is max_throttles"
            )


def check_attempts(value: Attempts | None) -> Attempts:
    """
    Return what has been given as ``attempts``; ``None`` stands for one attempt, but for throttles.

    :raises TypeError: if it is something else

    """
    if value is None:
        return Attempts()

    if not isinstance(value, Attempts):
        raise TypeError(
            f"attempts must be an Attempts, such as Attempts(3, retry_on=OSError), not {value!r}"
        )

    return value


def _check_retry_on(value: object) -> None:
    if isinstance(value, tuple):
        is_right = all(map(_is_exception_type, cast("tuple[object, ...]", value)))
    elif isinstance(value, type):
        is_right = _is_exception_type(value)
    else:
        is_right = value is None or callable(value)

    if not is_right:
        raise TypeError(
            f"retry_on must be a type of Exception, a tuple of such types, or a function of an "
            f"error, not {value!r}"
        )


def _is_exception_type(value: object) -> bool:
    return isinstance(value, type) and Exception in value.__mro__
