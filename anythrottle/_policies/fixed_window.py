"""The fixed window: quotas that reset at set times."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from .checks import check_count, check_offset, check_seconds, check_unit
from .fixed_window_bucket import FixedWindowBucket
from .utc_window_bucket import UtcWindowBucket


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """
    At most ``limit`` in each of the windows of ``window`` seconds that follow one another.

    With ``align="first"`` a window starts at the first call after the last window has ended. With
    ``align="utc"`` windows start on the multiples of ``window`` in UTC, counted in seconds since
    the epoch, plus ``offset``. So a quota per day, reset at 08:00 UTC, is
    ``FixedWindow(1000, 86400, align="utc", offset=8 * 3600)``.

    This is the "fixed window counter" of the literature. The whole limit may pass just before the
    edge of a window and again just after it: any ``window`` seconds can hold up to ``2 * limit``.
    More than that never passes, even if the wall clock is set forward or back: that by itself
    resets no count. Where a server counts more strictly, use a
    :class:`~anythrottle.WindowTokenBucket`.

    >>> FixedWindow(20, 10)
    FixedWindow(limit=20, window=10.0, align='first', offset=0.0, unit='calls')

    :param limit: the most that is charged in one window, in ``unit``, at least 1
    :param window: the length of the window in seconds, above 0
    :param align: ``"first"``: a window starts at its first call; ``"utc"``: at set times of UTC
    :param offset: by how much windows start later than the multiples of ``window``, in seconds,
        or earlier if it is negative; for ``align="utc"`` only
    :param unit: what is counted; any other than ``"calls"`` has to be named in each cost
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range, or there is an ``offset`` without
        ``align="utc"``

    """

    limit: int
    window: float
    _: KW_ONLY
    align: Literal["first", "utc"] = "first"
    offset: float = 0.0
    unit: str = "calls"

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        object.__setattr__(self, "window", check_seconds("window", self.window))
        if self.align not in ("first", "utc"):
            raise ValueError(f"align must be 'first' or 'utc', not {self.align!r}")

        object.__setattr__(self, "offset", check_offset("offset", self.offset))
        if self.offset and self.align != "utc":
            raise ValueError(f"offset must be 0 unless align is 'utc', not {self.offset!r}")

        object.__setattr__(self, "unit", check_unit(self.unit))

    @property
    def holds(self) -> bool:
        """Whether a charge is held for as long as its call runs: never."""
        return False

    def bucket(self) -> FixedWindowBucket:
        """Return a new, full bucket."""
        if self.align == "utc":
            return UtcWindowBucket(self.limit, self.window, self.offset)

        return FixedWindowBucket(self.limit, self.window)
