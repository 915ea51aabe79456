"""What limits a throttler: a window, as its ancestor had it, or a limiter."""

from __future__ import annotations

from .._limiters.rate_limiter import RateLimiter, as_limiter
from .._policies.checks import check_count, check_seconds
from .._policies.window import WindowTokenBucket
from ..abc import Limiter


def limiter_of(
    limiter: Limiter | str | None, time_window: float | None, per_time_window: int | None
) -> Limiter:
    """
    Return a limiter as it is, or that of a window, by default 100 in a minute.

    :raises TypeError: if there are both, or a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range

    """
    if limiter is None:
        window = 60.0 if time_window is None else check_seconds("time_window", time_window)
        limit = 100 if per_time_window is None else check_count("per_time_window", per_time_window)
        # The workers' own checkpoint is enough.
        return RateLimiter(WindowTokenBucket(limit, window), fast_acquire=True)

    if time_window is not None or per_time_window is not None:
        raise TypeError(
            f"limiter={limiter!r} says how fast jobs may start: leave out "
            f"time_window={time_window!r} and per_time_window={per_time_window!r}"
        )

    return as_limiter(limiter)
