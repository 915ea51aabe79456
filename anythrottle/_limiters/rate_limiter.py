"""The limiter: rates and concurrency in one object, for any number of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import final

import anyio

from .._errors import LimitExceeded
from .._policies.checks import check_count, check_seconds
from .._policies.policy import Cost, Decision, Policy
from .._policies.text import as_policy
from ..abc import Limiter, Permit
from .clock import RunClock
from .cost import amounts_of
from .gate import NEVER, Gate, Turn
from .line import WaitLine
from .permit import TurnPermit


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """
    The state of a :class:`RateLimiter` at one instant.

    :ivar int tasks_waiting: how many tasks wait for their turn
    :ivar int borrowed_tokens: how many calls hold a slot (or a charge) while they run
    :ivar float total_tokens: how many may, at most: the concurrency; infinity without one
    :ivar float paused_for: for how many seconds the limiter is still paused

    """

    tasks_waiting: int
    borrowed_tokens: int
    total_tokens: float
    paused_for: float


@final
class RateLimiter:
    """
    Lets calls pass in order, when all its policies and its concurrency allow it.

    At most 20 calls in any 10 seconds, 5 at a time:

    >>> import anyio, anythrottle
    >>> limiter = anythrottle.RateLimiter("20/10s", concurrency=5)
    >>> async def main():
    ...     async with limiter:
    ...         return "called"
    >>> anyio.run(main)
    'called'

    One limiter can be shared by any number of tasks, and be a global: making it touches neither
    clock nor event loop, and it may be used in one ``anyio.run`` after another, on either
    backend. It is not thread-safe: from a worker thread use ``anyio.from_thread``.

    A limiter *holds* something while a call runs if it has a ``concurrency`` or a policy with
    ``measure="end"``. Then the call has to be inside of ``async with``; :meth:`acquire` is for
    limiters that hold nothing. ``RateLimiter()`` limits nothing, but can be paused.

    Turns are granted first come, first served within a priority, all or nothing. Whoever is
    cancelled while it waits has taken nothing, and its place goes to the next.

    :param policies: what limits the rate: policies, or texts such as ``"20/10s"``; each must
        agree to each call
    :param concurrency: how many calls may run at once, at least 1, or a capacity limiter that
        is shared with others; ``None`` for no bound
    :param fast_acquire: whether a turn that needn't be waited for is granted without a
        checkpoint; then whoever loops over it has to yield by itself
    :param name: how ``repr`` and errors call the limiter
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a text is not a limit or ``concurrency`` is below 1

    """

    __slots__ = (
        "__weakref__",
        "_anonymous",
        "_clock",
        "_fast",
        "_gate",
        "_line",
        "_name",
        "_one",
        "_only",
    )

    def __init__(
        self,
        *policies: Policy | str,
        concurrency: int | anyio.CapacityLimiter | None = None,
        fast_acquire: bool = False,
        name: str | None = None,
    ) -> None:
        described = tuple(as_policy(policy) for policy in policies)
        if concurrency is None:
            self._gate = Gate(described)
        elif isinstance(concurrency, anyio.CapacityLimiter):
            self._gate = Gate(described, capacity=concurrency)
        else:
            self._gate = Gate(described, check_count("concurrency", concurrency))

        self._clock = RunClock(
            self._forget_run, "the limiter" if name is None else f"the limiter {name!r}"
        )
        self._line = WaitLine(self._gate, self._clock)
        self._fast = fast_acquire
        self._name = name
        #: The turns of those who are inside of ``async with limiter``, all alike.
        self._anonymous: list[Turn] = []
        units = {policy.unit for policy in described}
        #: What a call of cost 1 charges, if an int will do.
        self._one = amounts_of(1, described) if units <= {"calls"} else None
        #: The bucket, if there is only one, of calls, and no more to ask.
        self._only = None if self._one is None else self._gate.only

    async def acquire(self, cost: Cost = 1, *, priority: int = 0) -> None:
        """
        Wait for a turn.

        It counts from the instant this returns. For limiters that hold something, use
        :meth:`permit`.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :raises RuntimeError: if the limiter holds something while a call runs, or is in use in
            another event loop at the same time
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        arrival = None
        # Most often there is room, nobody is in line and nothing is paused: a short way for that.
        bucket = self._only
        if (
            bucket is not None
            and type(cost) is int
            and cost > 0
            and type(priority) is int
            and (run := self._line.enter_free()) is not None
            and bucket.take_free(cost)
        ):
            if not self._fast:
                arrival = self._line.arrivals
                try:
                    await run.checkpoint()
                except BaseException:
                    self._line.leave_free(run, bucket, cost)
                    raise

            if self._gate.paused_until == NEVER and run is self._clock.latest:
                now = run.time()
                bucket.start(now, cost)
                if self._line.turns:
                    self._line.note_start(now)

                return

            self._line.leave_free(run, bucket, cost)

        await self._line.wait(
            Turn(self._amounts_without_hold(cost, "acquire")),
            priority=_check_priority(priority),
            fast=self._fast or arrival is not None,
            arrival=arrival,
        )

    def acquire_nowait(self, cost: Cost = 1) -> None:
        """
        Take a turn that is due now, without waiting; works outside of an event loop too.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :raises ~anythrottle.LimitExceeded: if the call would have to wait
        :raises RuntimeError: if the limiter holds something while a call runs
        :raises TypeError: if ``cost`` is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        turn = Turn(self._amounts_without_hold(cost, "acquire_nowait"))
        now = self._clock.now()
        if not self._line.try_now(turn, now):
            raise LimitExceeded(self._decide(turn.amounts, now))

        self._gate.start(turn, now)

    def permit(self, cost: Cost = 1, *, priority: int = 0) -> AbstractAsyncContextManager[Permit]:
        """
        Return the permit for one call, to be entered.

        >>> import anyio, anythrottle
        >>> limiter = anythrottle.RateLimiter("500/min", "200_000 tokens/min", concurrency=8)
        >>> async def main():
        ...     async with limiter.permit({"tokens": 850}) as permit:
        ...         return permit.waited < 1
        >>> anyio.run(main)
        True

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        return TurnPermit(
            self._line,
            self._amounts(cost),
            priority=_check_priority(priority),
            fast=self._fast,
        )

    async def __aenter__(self) -> None:
        turn = Turn(self._amounts(1))
        await self._line.wait(turn, priority=0, fast=self._fast)
        if self._gate.holds:
            self._anonymous.append(turn)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # They are all alike, so any of them will do. A call of a run that is over has none here.
        if self._anonymous and self._clock.is_here(self._anonymous[-1].run):
            self._line.end(self._anonymous.pop())

    def pause(self, seconds: float | None = None) -> None:
        """
        Let nobody pass for a while, those included who have been granted a turn just now.

        Calls that run go on. Of overlapping pauses, the later end holds.

        :param seconds: how long, 0 or more, infinity for until :meth:`resume`; ``None`` for the
            shortest window of the policies, 1 second if there is none
        :raises TypeError: if ``seconds`` is no number
        :raises ValueError: if ``seconds`` is negative or NaN

        """
        if seconds is None:
            seconds = min((policy.window for policy in self._gate.policies), default=1.0)

        seconds = check_seconds("seconds", seconds, zero=True, infinite=True)
        until = self._clock.now() + seconds
        self._gate.paused_until = max(self._gate.paused_until, until)

    def resume(self) -> None:
        """End any pause at once."""
        now = self._clock.now()
        self._gate.paused_until = NEVER
        self._line.serve(now)

    def peek(self, cost: Cost = 1) -> Decision:
        """
        Tell whether a call may go now, and if not, why and when. Asking changes nothing.

        :param cost: what the call would cost, 0 or more, or amounts by unit
        :raises TypeError: if ``cost`` is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        return self._decide(self._amounts(cost), self._clock.glance())

    def statistics(self) -> RateLimiterStatistics:
        """Return the state at this instant."""
        now = self._clock.glance()
        return RateLimiterStatistics(
            tasks_waiting=len(self._line),
            borrowed_tokens=self._gate.borrowed,
            total_tokens=self._gate.slots,
            paused_for=max(self._gate.paused_until - now, 0.0),
        )

    def __repr__(self) -> str:
        statistics = self.statistics()
        name = "" if self._name is None else f" {self._name!r}"
        parts = [f"{p.limit} {p.unit}/{p.window:g}s" for p in self._gate.policies]
        if statistics.total_tokens < inf:
            parts.append(f"{statistics.borrowed_tokens}/{statistics.total_tokens:g} at once")

        if statistics.tasks_waiting:
            parts.append(f"{statistics.tasks_waiting} waiting")

        if statistics.paused_for:
            parts.append(f"paused for {statistics.paused_for:.3g}s")

        return f"<RateLimiter{name} {', '.join(parts) or 'without limit'}>"

    def _decide(self, amounts: Sequence[int], now: float) -> Decision:
        ahead = [turn.amounts for turn in self._line.ahead_of(0)]
        return self._gate.decide(amounts, now, ahead)

    def _amounts(self, cost: Cost) -> tuple[int, ...]:
        if self._one is not None and type(cost) is int and cost == 1:
            return self._one

        return amounts_of(cost, self._gate.policies)

    def _amounts_without_hold(self, cost: Cost, verb: str) -> tuple[int, ...]:
        if self._gate.holds:
            raise RuntimeError(
                f"{verb}() is for limiters that hold nothing while a call runs; {self!r} does: "
                f"use 'async with limiter.permit(cost):'"
            )

        return self._amounts(cost)

    def _forget_run(self, shift: float) -> None:
        self._anonymous.clear()
        self._line.forget()
        self._gate.forget_run(shift)


def _check_priority(priority: int) -> int:
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"priority must be an int, not {priority!r}")

    return priority


def as_limiter(value: Limiter | str) -> Limiter:
    """
    Return a limiter as it is, and for a text form a limiter with the policy it describes.

    :raises TypeError: if it is neither
    :raises ValueError: if the text is not a limit

    """
    if isinstance(value, str):
        return RateLimiter(value)

    if isinstance(value, Limiter) and not isinstance(value, type):
        return value

    raise TypeError(f"limiter must be a limiter or a text such as '20/10s', not {value!r}")
