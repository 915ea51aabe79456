"""What the policies let through while more calls wait than may go, by plain arithmetic."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import repeat

from anythrottle.abc import Policy


@dataclass(frozen=True)
class Call:
    """
    One call.

    :ivar begun: when it was let through, in seconds
    :ivar ended: when it was over, in seconds

    """

    begun: float
    ended: float


def full_demand(
    policy: Policy, start: float, stop: float, durations: Iterator[float] | None = None
) -> list[Call]:
    """
    Return the calls that pass while, at each instant, more of them wait than may go.

    :param policy: what lets them through
    :param start: when the first ones come, in seconds
    :param stop: when to look no longer, in seconds
    :param durations: how long the calls take, in seconds; ``None``: no time

    """
    bucket = policy.bucket()
    durations = durations or repeat(0.0)
    calls: list[Call] = []
    #: When those that run end, and what they have been given at their start.
    running: list[tuple[float, float]] = []
    now = start
    while now < stop:
        due = now + bucket.delay(now, 1)
        if running and running[0][0] <= due:
            now, receipt = heappop(running)
            bucket.release(now, 1, receipt)
        elif due > now:
            now = due
        else:
            bucket.take(now, 1)
            calls.append(Call(now, now + next(durations)))
            heappush(running, (calls[-1].ended, bucket.start(now, 1)))

    return calls


def worst_window(instants: list[float], window: float) -> tuple[int, float]:
    """
    Return the most that any window holds, and where the first of those windows starts.

    A window holds its first instant, and not the one at which it ends. Some fullest window starts
    with a call.
    """
    instants = sorted(instants)
    counts = [
        bisect_left(instants, instant + window) - index for index, instant in enumerate(instants)
    ]
    most = max(counts)
    return most, instants[counts.index(most)]


def trailing_counts(instants: list[float], window: float) -> list[tuple[float, int]]:
    """Return how many calls the last ``window`` seconds hold, wherever that changes."""
    changes: dict[float, int] = {}
    for instant in instants:
        changes[instant] = changes.get(instant, 0) + 1
        changes[instant + window] = changes.get(instant + window, 0) - 1

    count = 0
    counts = []
    for instant in sorted(changes):
        count += changes[instant]
        counts.append((instant, count))

    return counts
