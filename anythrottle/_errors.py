"""
The errors of anythrottle.

Their tree::

    Exception
     +-- AnythrottleError
          +-- LimitExceeded        (also anyio.WouldBlock)
          +-- CostTooHigh          (also ValueError)
          +-- JobInterrupted
          +-- SourceInterrupted
          +-- StoreError
          |    +-- PolicyConflict
          |    +-- LeaseLost
          +-- ThrottleException    the signal that a job raises

Wrong arguments are plain ``ValueError`` and ``TypeError``. Each error keeps its fields in
``args`` and builds its message from them, so that it can be pickled.
"""

from __future__ import annotations

from math import inf
from typing import Literal, Self

from anyio import WouldBlock

from ._jobs import Job, is_job
from ._policies.checks import check_seconds
from ._policies.policy import Decision, PolicyState
from ._retry_after import parse_retry_after


def check_retry_after(value: object) -> float | None:
    """
    Return the length of a pause, in seconds, from a number or from the text of a header.

    :raises TypeError: if it is neither number nor str
    :raises ValueError: if a number is negative or NaN

    """
    if isinstance(value, str):
        return parse_retry_after(value)

    if value is None:
        return None

    return check_seconds("retry_after", value, zero=True, infinite=True)


class AnythrottleError(Exception):
    """The base of the errors that this library raises by itself."""


class LimitExceeded(AnythrottleError, WouldBlock):
    """
    Raised where a call would have to wait and may not.

    :ivar decision: why it would have to wait, and how long
    :ivar quotas: what each policy of the limiter has left; empty if the limiter cannot tell

    """

    def __init__(self, decision: Decision, quotas: tuple[PolicyState, ...] = ()) -> None:
        super().__init__(decision, quotas)
        self.decision = decision
        self.quotas = quotas

    @property
    def retry_after(self) -> float:
        """Seconds after which a call may go if no other comes; calls in line are counted."""
        return self.decision.retry_after

    def __str__(self) -> str:
        wait = self.retry_after
        when = f"in {wait:.3f} s"
        if wait == inf:
            paused = self.decision.reason == "pause"
            when = "when it is resumed" if paused else "when something is let go"

        return f"the limit is reached ({self.decision.reason}): try again {when}"


class CostTooHigh(AnythrottleError, ValueError):
    """
    Raised at once if a cost is above what a policy allows in all, so that the call could never go.

    :ivar cost: the amount asked for
    :ivar limit: the most that the policy allows
    :ivar unit: what both are counted in

    """

    def __init__(self, cost: int, limit: float, unit: str) -> None:
        super().__init__(cost, limit, unit)
        self.cost = cost
        self.limit = limit
        self.unit = unit

    def __str__(self) -> str:
        return (
            f"cost {self.cost} {self.unit} is above the limit of {self.limit}: it could never go; "
            f"split the call or raise the limit"
        )


class JobInterrupted(AnythrottleError):
    """
    The error of a job that was cut off midway and, being an awaitable, cannot run again.

    :ivar job: the awaitable; after pickling, its description

    """

    def __init__(self, job: object) -> None:
        super().__init__(job)
        self.job = job

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        # An awaitable cannot be pickled. What it was can.
        return type(self), (_described(self.job),)

    def __str__(self) -> str:
        return (
            f"{_described(self.job)} was cut off midway and cannot be awaited again; "
            f"pass a callable that makes the awaitable, and the job can be repeated"
        )


class SourceInterrupted(AnythrottleError):
    """
    Raised by a run whose source, an async generator, was cut off inside its own step before.

    Such a generator is finished, whatever it still had to give.

    :ivar source: the async generator; after pickling, its description

    """

    def __init__(self, source: object) -> None:
        super().__init__(source)
        self.source = source

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        # An async generator cannot be pickled. What it was can.
        return type(self), (_described(self.source),)

    def __str__(self) -> str:
        return (
            f"{_described(self.source)} was cut off inside its own step and has ended there, "
            f"perhaps early; feed jobs through a memory object stream where a run must be resumable"
        )


class StoreError(AnythrottleError):
    """
    Raised if the server of a shared limiter did not answer, or refused what was asked.

    What was raised by its client library is the ``__cause__``.

    :ivar name: the name of the limiter
    :ivar reason: what went wrong, and what to do about it
    :ivar is_mistake: whether it stays so until the program or its settings are changed, as with a
        wrong password; else it may pass by itself, as when the server does not answer
    :param mistake: ``"mistake"`` if that is so, else nothing

    """

    def __init__(self, name: str, reason: str, *mistake: Literal["mistake"]) -> None:
        # Not by super(): errors of HTTP clients that are this, too, are made in ways of their own.
        Exception.__init__(self, name, reason, *mistake)
        self.name = name
        self.reason = reason
        self.is_mistake = bool(mistake)

    def __str__(self) -> str:
        return f"the store does not serve limiter {self.name!r}: {self.reason}"


class PolicyConflict(StoreError):
    """
    Raised if other processes use the name of a shared limiter with other policies.

    Their order, and the concurrency, belong to them.

    :ivar name: the name of the limiter
    :ivar ours: the policies of this process, such as ``20/10s, concurrency=5``
    :ivar theirs: the policies of the others

    """

    def __init__(self, name: str, ours: str, theirs: str) -> None:
        super().__init__(name, f"its policies are {theirs} elsewhere, {ours} here", "mistake")
        # Not what the base was given: an error is made anew from what is in there.
        self.args = (name, ours, theirs)
        self.ours = ours
        self.theirs = theirs

    def __str__(self) -> str:
        return (
            f"limiter {self.name!r} is in use with other policies: {self.theirs} there; "
            f"{self.ours} here; take the same in all processes, in the same order and with the "
            f"same concurrency, or another name"
        )


class LeaseLost(StoreError):
    """
    Raised if a process was silent for too long, so that others may have got what its call held.

    :ivar name: the name of the limiter

    """

    def __init__(self, name: str) -> None:
        super().__init__(name, "what the call held was taken from it")
        self.args = (name,)

    def __str__(self) -> str:
        return (
            f"limiter {self.name!r} was not heard of in time, and others may have what the call "
            f"held: do not block the event loop, or take a longer lease_timeout"
        )


class ThrottleException(AnythrottleError):
    """
    Raise this from a job to say that the service asked for a pause.

    The job goes back to the front, and the whole limiter pauses. That holds for a job
    called by a limiter's ``run()`` or ``wrap``, a :class:`.Throttler`, :func:`.amap` or a related
    function. Raised inside ``async with limiter``, it pauses nothing: call ``permit.throttled()``
    there.

    :param task: the job to run instead of the one that raised, ``None`` for the same again
    :param retry_after: the length of the pause in seconds, 0 or more, or the text of a
        ``Retry-After`` header as it came (see :func:`.parse_retry_after`: what makes no sense
        counts as none); ``None`` for the default of the limiter or engine that runs the job
    :raises TypeError: if ``task`` is neither callable nor awaitable, or ``retry_after`` neither
        number nor str
    :raises ValueError: if ``retry_after`` is negative or NaN

    """

    # For subclasses that do not call this constructor.
    task: Job | None = None
    retry_after: float | None = None

    def __init__(self, task: Job | None = None, *, retry_after: float | str | None = None) -> None:
        if task is not None and not is_job(task):
            raise TypeError(
                f"task must be an async function without arguments, or an awaitable, not {task!r}; "
                f"how long to pause, in seconds, is retry_after"
            )

        super().__init__(task)
        self.task = task
        self.retry_after = check_retry_after(retry_after)

    def __str__(self) -> str:
        pause = "" if self.retry_after is None else f" for {self.retry_after:g} s"
        instead = "" if self.task is None else f", then run {self.task!r}"
        return f"throttled{pause}{instead}"

    def __repr__(self) -> str:
        parts = [] if self.task is None else [repr(self.task)]
        if self.retry_after is not None:
            parts.append(f"retry_after={self.retry_after!r}")

        return f"{type(self).__name__}({', '.join(parts)})"


def _described(what: object) -> str:
    return what if isinstance(what, str) else repr(what)
