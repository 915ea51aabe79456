"""What a throttler tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import anyio

from .._limiters.clock import RunClock
from .._limiters.rate_limiter import RateLimiter
from ..abc import Limiter
from .backlog import Backlog
from .pace import expected_end
from .tally import Tally

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

#: How a run has ended.
Ended: TypeAlias = Literal["done", "stopped", "halted"]


@dataclass(frozen=True, slots=True)
class ThrottlerStatistics:
    """
    The state of a :class:`Throttler` at one instant, over all its runs.

    Two of them are equal if the counts of what has become of the jobs are.

    :ivar int started: how often a job was started, again included
    :ivar int running: how many jobs run now
    :ivar int done: how many results the consumer has had, or were dropped without one
    :ivar int failed: how many jobs have ended with an error
    :ivar int throttled: how often a job went back to the front because it was throttled
    :ivar int retried: how often a job was to be tried again because of ``retry_on``
    :ivar int delayed: how many jobs wait until they may be tried again
    :ivar queued: how many jobs wait to be started, apart from those; ``None`` if the source
        cannot tell how many it has
    :ivar float per_second: how many jobs have ended per second of late, in this run: in the last
        10 seconds, or if fewer than 10 jobs have ended in these, since as many have
    :ivar paused_until: when the limiter's pause ends, by the event loop's clock; ``None`` if it
        is not paused, or cannot tell
    :ivar expected_end: when all will be done if it goes on at this pace, by that clock; ``None``
        if that cannot be told
    :ivar ended: how the last run has ended: ``"done"``, with all done; ``"stopped"`` or
        ``"halted"``, before that; ``None`` if there was none, while it runs, or if it was cancelled
        or has raised an error

    """

    started: int
    running: int
    done: int
    failed: int
    throttled: int
    retried: int = 0
    delayed: int = 0
    queued: int | None = field(default=None, compare=False)
    per_second: float = field(default=0.0, compare=False)
    paused_until: float | None = field(default=None, compare=False)
    expected_end: float | None = field(default=None, compare=False)
    ended: Ended | None = field(default=None, compare=False)


def statistics_of(
    backlog: Backlog[I, T],
    tally: Tally,
    limiter: Limiter | None,
    clock: RunClock,
    ended: Ended | None = None,
) -> ThrottlerStatistics:
    """Return the state of a throttler that has these parts, at this instant."""
    glance = clock.glance()
    per_second = tally.per_second(glance)
    try:
        # Where the loop's clock is the real one, it has another origin than the run's own.
        now = anyio.current_time()
    except RuntimeError:
        now = glance

    paused_for = limiter.statistics().paused_for if isinstance(limiter, RateLimiter) else 0.0
    left = backlog.queued
    if left is not None:
        left += backlog.delayed + backlog.running

    return ThrottlerStatistics(
        started=backlog.starts,
        running=backlog.running,
        done=tally.done,
        failed=tally.failed,
        throttled=backlog.throttled,
        retried=backlog.retried,
        delayed=backlog.delayed,
        queued=backlog.queued,
        per_second=per_second,
        paused_until=now + paused_for if paused_for > 0 else None,
        expected_end=expected_end(now + paused_for, left, per_second),
        ended=ended,
    )
