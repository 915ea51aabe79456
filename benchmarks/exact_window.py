"""What a server that counts exactly sees: how full its windows are, and what it refuses."""

from collections import deque
from collections.abc import Iterable

#: By how much windows are shorter than they are called, in seconds: what is late or early by the
#: rounding of a clock's reading is no fault.
ROUNDING = 1e-6


class ExactWindow:
    """Lets ``limit`` through in any ``window`` seconds; what it refuses does not count."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._held: deque[tuple[float, int]] = deque()
        self._sum = 0

    def allows(self, now: float, amount: int = 1) -> bool:
        """Return whether so much may pass at this instant, no earlier than the last one."""
        while self._held and self._held[0][0] <= now - self.window + ROUNDING:
            self._sum -= self._held.popleft()[1]

        return self._sum + amount <= self.limit

    def count(self, now: float, amount: int = 1) -> None:
        """Count what has passed."""
        self._held.append((now, amount))
        self._sum += amount


def fullest(instants: Iterable[float], window: float) -> int:
    """Return the most that any window holds, wherever it starts."""
    most = 0
    held: deque[float] = deque()
    for instant in sorted(instants):
        held.append(instant)
        while held[0] <= instant - window + ROUNDING:
            held.popleft()

        most = max(most, len(held))

    return most
