"""The statistics of a throttler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .._limiters.rate_limiter import RateLimiter
from .._loops.clock import LoopClock
from ..abc import Limiter
from .backlog import Backlog
from .job_record import I, T
from .tally import Tally

#: How a run has ended.
Ended: TypeAlias = Literal["done", "stopped", "halted"]


@dataclass(frozen=True, slots=True)
class ThrottlerStatistics:
    """
    The state of a :class:`Throttler` at one instant, over all its runs.

    The state of a block of :func:`.amap_outcomes` has the same fields.

    Two states are equal if their counts of what has become of the jobs are equal.

    :ivar int started: how often a job was started, repeated starts included
    :ivar int running: how many jobs run now
    :ivar int done: how many results the consumer has had, or were dropped because there is none; of
        :func:`.amap_outcomes`, how many calls have succeeded
    :ivar int failed: how many jobs have ended with an error
    :ivar int throttled: how often a job went back to the front because it was throttled
    :ivar int retried: how often a job was to be tried again because of ``retry_on``
    :ivar int delayed: how many jobs wait until they may be tried again
    :ivar queued: how many jobs wait to be started, apart from those; ``None`` if it is
        unknown how many the source has
    :ivar float per_second: how many jobs have ended per second of late, in this run: in the last
        10 seconds, or if fewer than 10 jobs have ended in these, since as many have
    :ivar float paused_for: in how many seconds from now the limiter's pause ends, infinity if it is
        paused until it is resumed; 0 if it is not paused, or that is unknown
    :ivar expected_in: in how many seconds from now all will be done if it goes on at this pace;
        ``None`` if that is unknown
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
    paused_for: float = field(default=0.0, compare=False)
    expected_in: float | None = field(default=None, compare=False)
    ended: Ended | None = field(default=None, compare=False)


def statistics_of(
    backlog: Backlog[I, T],
    tally: Tally,
    limiter: Limiter | None,
    clock: LoopClock,
    ended: Ended | None = None,
) -> ThrottlerStatistics:
    """Return the state of the throttler with these parts, at this instant."""
    per_second = tally.per_second(clock.peek())
    paused_for = limiter.statistics().paused_for if isinstance(limiter, RateLimiter) else 0.0
    queued, delayed, running = backlog.queued, backlog.delayed, backlog.running
    left = None if queued is None else queued + delayed + running
    return ThrottlerStatistics(
        started=backlog.starts,
        running=running,
        done=tally.done,
        failed=tally.failed,
        throttled=backlog.throttled,
        retried=backlog.retried,
        delayed=delayed,
        queued=queued,
        per_second=per_second,
        paused_for=paused_for,
        expected_in=_expected_in(paused_for, left, per_second),
        ended=ended,
    )


def _expected_in(paused_for: float, jobs: int | None, per_second: float) -> float | None:
    """
    Return in how many seconds all jobs will be done at this pace, ``None`` if that is unknown.

    :param paused_for: in how many seconds they may go on
    :param jobs: how many are left, ``None`` if unknown

    """
    if jobs == 0:
        return 0.0

    return None if jobs is None or per_second <= 0 else paused_for + jobs / per_second
