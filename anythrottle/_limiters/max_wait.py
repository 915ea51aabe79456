"""How long a call is ready to wait, and with which priority."""

from __future__ import annotations

from math import inf, ulp
from typing import Literal, TypeAlias

import anyio

from .._policies.checks import check_seconds

#: Seconds, the deadline of the enclosing cancel scope, or as long as it takes.
MaxWait: TypeAlias = float | Literal["deadline"] | None

#: By how many units in the last place an instant may be off when it is computed in another way.
_ROUNDING = 64


def check_max_wait(max_wait: MaxWait) -> MaxWait:
    """
    Return a bound for waiting, or raise if it is none.

    :raises TypeError: if it is of another type
    :raises ValueError: if it is another text, negative or NaN

    """
    if max_wait is None:
        return None

    if isinstance(max_wait, str):
        if max_wait != "deadline":
            raise ValueError(f"max_wait must be seconds, 'deadline' or None, not {max_wait!r}")

        return max_wait

    return check_seconds("max_wait", max_wait, zero=True, infinite=True)


def check_priority(priority: int) -> None:
    """
    Raise unless a priority is one.

    :raises TypeError: if it is no int
    """
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"priority must be an int, not {priority!r}")


def is_after(instant: float, latest: float) -> bool:
    """Return whether an instant comes after the latest one for a turn, not by rounding alone."""
    return instant - latest > _ROUNDING * ulp(latest)


def latest_turn(max_wait: float | Literal["deadline"], now: float) -> tuple[float, float]:
    """
    Return the latest instant for a turn, and the one at which to stop waiting.

    :param now: the present instant, by the clock that is waited by

    """
    if max_wait != "deadline":
        return now + max_wait, now + max_wait

    deadline = anyio.current_effective_deadline()
    # A scope that is cancelled already is noticed at the next checkpoint; and when the deadline
    # comes, the scope ends the wait.
    latest = inf if deadline == -inf else now + (deadline - anyio.current_time())
    return latest, inf
