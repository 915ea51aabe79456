"""When a process has been in contact with the server, and what follows for its lease."""

from __future__ import annotations

from math import inf
from typing import final

from .server_clock import DRIFT


@final
class Contact:
    """
    The latest exchange that was answered.

    :param lease: for how long the process may be silent before it counts as dead, in seconds

    :ivar sent: when its request was sent; minus infinity if there was none
    :ivar heard: when its answer came
    """

    __slots__ = ("_lease", "heard", "sent")

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self.sent = self.heard = -inf

    def note(self, sent: float, heard: float) -> None:
        """Note an exchange."""
        self.sent, self.heard = sent, heard

    def is_lapsed(self, now: float) -> bool:
        """Return whether the server may have taken what the process holds."""
        return now > self.sent + self._lease * (1 - DRIFT) and self.sent > -inf

    def surely_lapsed_at(self) -> float:
        """Return when the server has surely taken what the process held, if it hears nothing."""
        return self.heard + self._lease * (1 + DRIFT)

    def renew_at(self) -> float:
        """Return when the process speaks up if there is nothing to say."""
        return self.sent + self._lease / 3
