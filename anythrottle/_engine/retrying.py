"""Which errors are worth another attempt, and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf
from typing import TypeAlias, cast, final

from .._policies.checks import check_count, check_seconds

#: Which errors are worth another attempt: those of a type or of several, or those for which a
#: function returns ``True``, or the seconds after which to go again.
RetryOn: TypeAlias = (
    type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool | float]
)

#: The longest back-off after the first attempt, and after any, in seconds.
_FIRST_BACK_OFF = 1.0
_LONGEST_BACK_OFF = 60.0


def back_off(failures: int) -> float:
    """
    Return how long to wait after so many failed attempts, in seconds.

    It is drawn evenly from all that lies below an exponentially growing bound: "full jitter" of
    Marc Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.

    """
    bound = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2.0 ** min(failures - 1, 1000))
    return random.uniform(0, bound)  # noqa: S311 - no secret


@final
class Attempts:
    """
    How a job is attempted.

    :param most: how often it is started at most, ``None`` for no bound
    :param timeout: how long an attempt may take, in seconds, ``None`` for no bound
    :param retry_on: which errors are worth another attempt, ``None`` for none

    """

    __slots__ = ("_retry_on", "most", "timeout")

    def __init__(self, most: int | None, timeout: float | None, retry_on: RetryOn | None) -> None:
        self.most = inf if most is None else check_count("max_attempts", most)
        self.timeout = None if timeout is None else check_seconds("timeout", timeout)
        self._retry_on = _check_retry_on(retry_on)

    def delay_before_next(self, error: BaseException, attempts: int, retries: int) -> float | None:
        """
        Tell after how many seconds to go again, now that an attempt has failed.

        :param attempts: how often the job was started
        :param retries: how often it has gone again because of an error: what was throttled does
            not make the back-off grow
        :return: ``None`` if the error is the job's last
        :raises Exception: what the function has raised that was given as ``retry_on``, or because
            of what it has returned

        """
        retry_on = self._retry_on
        if retry_on is None or not isinstance(error, Exception):
            return None

        if not isinstance(retry_on, (type, tuple)):
            answer = retry_on(error)
            if not isinstance(answer, bool):
                answer = check_seconds("what retry_on returns", answer, zero=True)
        else:
            types = cast("type[Exception] | tuple[type[Exception], ...]", retry_on)
            answer = isinstance(error, types) or _is_all(error, types)

        if answer is False:
            return None

        if attempts >= self.most:
            error.add_note(f"It was the last of {attempts} attempts.")
            return None

        return back_off(retries + 1) if answer is True else answer


def _is_all(error: Exception, types: type[Exception] | tuple[type[Exception], ...]) -> bool:
    """Tell whether nothing but errors of these types is in a group, as of a job's task group."""
    if not isinstance(error, ExceptionGroup):
        return False

    return cast("ExceptionGroup[Exception]", error).split(types)[1] is None


def _check_retry_on(value: RetryOn | None) -> RetryOn | None:
    given = cast("object", value)
    if isinstance(given, tuple):
        is_right = all(map(_is_exception_type, cast("tuple[object, ...]", given)))
    elif isinstance(given, type):
        is_right = _is_exception_type(given)
    else:
        is_right = given is None or callable(given)

    if not is_right:
        raise TypeError(
            f"retry_on must be a type of Exception, a tuple of such types, or a function of an "
            f"error, not {given!r}"
        )

    return value


def _is_exception_type(value: object) -> bool:
    return isinstance(value, type) and Exception in value.__mro__
