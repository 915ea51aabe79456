"""Decides whether a job that has failed goes again, and when."""

from __future__ import annotations

import random
from typing import cast

from .._policies.checks import check_seconds
from .attempts import Attempts

#: The longest back-off after the first attempt, and after any, in seconds.
_FIRST_BACK_OFF = 1.0
_LONGEST_BACK_OFF = 60.0


def back_off(failures: int) -> float:
    """
    Return how long to wait after so many failed attempts, in seconds.

    It is drawn evenly from 0 to an exponentially growing bound: "full jitter" of
    Marc Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.

    """
    bound = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2.0 ** min(failures - 1, 1000))
    return random.uniform(0, bound)  # noqa: S311 - no secret


def delay_before_next(attempts: Attempts, error: BaseException, errors: int) -> float | None:
    """
    Return after how many seconds a job goes again, one attempt at which has failed.

    :param attempts: how often the job is tried, and after what
    :param errors: how many attempts at the job have failed, this one included, and without those
        that were throttled: these do not make the back-off grow
    :return: ``None`` if the error is the job's last
    :raises Exception: an error of the function that was given as ``retry_on``, or one because of
        what it has returned

    """
    retry_on = attempts.retry_on
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

    if attempts.max_attempts is not None and errors >= attempts.max_attempts:
        times = "1 attempt" if errors == 1 else f"{errors} attempts"
        error.add_note(f"It was the last of {times}.")
        return None

    return back_off(errors) if answer is True else answer


def _is_all(error: Exception, types: type[Exception] | tuple[type[Exception], ...]) -> bool:
    """Return whether an error is a group that holds errors of these types and no others."""
    if not isinstance(error, ExceptionGroup):
        return False

    return cast("ExceptionGroup[Exception]", error).split(types)[1] is None
