"""Until when a shared limiter is paused, as far as a process knows."""

from __future__ import annotations

from math import inf
from typing import final


@final
class Pauses:
    """
    Until when nothing may start: by what this process has said, and by what the server says.

    :ivar here: until when this process has paused, as long as the server may not have heard of it
    :ivar there: until when the server has
    """

    __slots__ = ("here", "there")

    def __init__(self) -> None:
        self.here = self.there = -inf

    @property
    def until(self) -> float:
        """Until when nothing may start, by the process's own clock."""
        return max(self.here, self.there)

    def pause(self, until: float) -> None:
        """Note a pause that this process makes; of overlapping ones, the later end holds."""
        self.here = max(self.here, until)

    def resume(self, now: float) -> bool:
        """Note that this process ends any pause; return whether there was one."""
        until = self.until
        # The instants are kept, because no call is credited for a pause.
        self.here = self.there = min(until, now)
        return until > now

    def hear(self, until: float, *, all_told: bool) -> None:
        """
        Note what the server says.

        :param until: until when it has paused, minus infinity if it has not
        :param all_told: whether it has heard of all pauses that this process has made
        """
        self.there = until
        if all_told:
            self.here = -inf
