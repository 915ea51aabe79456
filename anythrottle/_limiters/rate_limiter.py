"""The limiter: rates and concurrency in one object, for any number of tasks."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from math import inf
from types import TracebackType
from typing import Literal, ParamSpec, TypeVar, TypeVarTuple, final

import anyio

from .._events import Observer, Throttled, tell
from .._loops.event_loop import EventLoop
from .._policies.policy import Cost, Policy
from ..abc import Limiter, Permit
from .controls import Concurrency, LimiterControls
from .patience import Patience, check_patience, check_priority
from .permit import TurnPermit
from .turn import FRONT, Turn
from .turnstile import HOLDS

P = ParamSpec("P")
T = TypeVar("T")
PosArgsT = TypeVarTuple("PosArgsT")


@final
class RateLimiter(LimiterControls):
    """
    Lets calls pass in order, when all its policies and its concurrency allow it.

    At most 20 calls in any 10 seconds of a service's own, 5 at a time:

    >>> import anyio, anythrottle
    >>> limiter = anythrottle.RateLimiter("20/10s end", concurrency=5)
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

    ``async with limiter`` hands out no permit: for one, write ``async with limiter.permit() as
    permit``. A :exc:`.ThrottleException` that leaves either block is an error like any other.
    :meth:`run` and :meth:`wrap` pause and go again; in a block, tell ``permit.throttled()``.

    Turns are granted first come, first served within a priority, all or nothing. Whoever is
    cancelled while it waits has taken nothing, and its place goes to the next.

    :param policies: what limits the rate: policies, or texts such as ``"20/10s"``; each must
        agree to each call
    :param concurrency: how many calls may run at once, at least 1, or a capacity limiter that
        is shared with others; ``None`` for no bound
    :param max_waiting: how many may wait in line, at least 0; of those that come on top, the last
        in line is refused, by priority and arrival. What goes again, and what a
        :class:`.Throttler` or its kin run, counts but is never refused. ``None`` for no bound
    :param fast_acquire: whether a turn that needn't be waited for is granted without a
        checkpoint; then whoever loops over it has to yield by itself
    :param name: how ``repr``, errors and events call the limiter
    :param observer: a function that is told of :type:`events <anythrottle.abc.Event>`
    :param measure: for texts that don't say: ``"start"`` if the window of a limit runs from the
        start of each call, ``"end"`` if from its end: for a server, which counts by its own clock,
        at some instant of the call
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a text is not a limit, ``concurrency`` is below 1, ``max_waiting``
        below 0, or ``measure`` another word

    """

    __slots__ = ("_anonymous", "_fast", "_inside_of")

    def __init__(
        self,
        *policies: Policy | str,
        concurrency: Concurrency = None,
        max_waiting: int | None = None,
        fast_acquire: bool = False,
        name: str | None = None,
        observer: Observer | None = None,
        measure: Literal["start", "end"] = "start",
    ) -> None:
        super().__init__(policies, concurrency, max_waiting, name, observer, measure)
        self._fast = fast_acquire
        #: The turns of those who are inside of ``async with limiter``, by task; and in which loop.
        self._anonymous: dict[object, list[Turn]] = {}
        self._inside_of: EventLoop | None = None

    async def acquire(
        self, cost: Cost = 1, *, priority: int = 0, max_wait: Patience = None
    ) -> None:
        """
        Wait for a turn.

        It counts from the instant this returns. For limiters that hold something, use
        :meth:`permit`.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :param max_wait: for how many seconds to wait at most, 0 or more; ``"deadline"`` for until
            the deadline of the enclosing cancel scope; ``None`` for as long as it takes
        :raises ~anythrottle.LimitExceeded: if the turn could not come before ``max_wait`` is over
            (then at once), has not come by then, or if too many are waiting
        :raises RuntimeError: if the limiter holds something while a call runs, or is in use in
            another event loop at the same time
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units, or
            ``max_wait`` is out of its range
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        line = self._line
        arrival = None
        # Most often there is room, nobody is in line and nothing is paused: a short way for that.
        bucket = self._only
        if (
            bucket is not None
            and type(cost) is int
            and cost > 0
            and type(priority) is int
            and max_wait is None
            and (loop := line.enter_free()) is not None
            and bucket.take_free(cost)
        ):
            if self._fast:
                bucket.start(loop.time(), cost)
                return

            arrival = line.arrivals
            try:
                await loop.checkpoint()
                if loop.suspect is not None and loop.is_alarmed():
                    await loop.look()
            except BaseException:
                line.leave_free(loop, bucket, cost)
                raise

            if line.may_start(loop, bucket):
                if line.arrivals != arrival:
                    # Others may be at the same point, and of the same task group.
                    loop.note_actor()

                now = loop.time()
                bucket.start(now, cost)
                if line.queue.blocks:
                    line.note_start(now)

                return

            line.leave_free(loop, bucket, cost)

        turn = self._turn_without_hold(cost, "acquire")
        if type(priority) is not int:
            check_priority(priority)

        turn.place = line.new_place(priority) if arrival is None else (priority, arrival)
        await line.wait(
            turn,
            fast=self._fast or arrival is not None,
            max_wait=None if max_wait is None else check_patience(max_wait),
            newcomer=arrival is None,
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
        turn = self._turn_without_hold(cost, "acquire_nowait")
        self._line.take_now(turn)

    def permit(
        self, cost: Cost = 1, *, priority: int = 0, max_wait: Patience = None
    ) -> AbstractAsyncContextManager[TurnPermit]:
        """
        Return the permit for one call, to be entered.

        >>> import anyio, anythrottle
        >>> limiter = anythrottle.RateLimiter("500/min", "200_000 tokens/min", concurrency=8)
        >>> async def main():
        ...     async with limiter.permit({"tokens": 850}) as permit:
        ...         permit.settle({"tokens": 700})
        ...         return permit.waited < 1
        >>> anyio.run(main)
        True

        Entering it raises :exc:`.LimitExceeded` as :meth:`acquire` does.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :param max_wait: for how many seconds to wait at most, 0 or more: 0 for a permit that
            doesn't wait; ``"deadline"`` for until the deadline of the enclosing cancel scope;
            ``None`` for as long as it takes
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units, or
            ``max_wait`` is out of its range
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        if max_wait is not None:
            max_wait = check_patience(max_wait)

        if type(priority) is not int:
            # Any other needs a closer look, which costs a call.
            check_priority(priority)

        return self._permit(cost, priority, max_wait)

    def permit_again(self, permit: Permit, cost: Cost) -> TurnPermit | None:
        """
        Return the permit for a call that goes again: in line already, before all others.

        :param permit: the permit that it runs under as yet
        :param cost: what it costs, 0 or more, or amounts by unit
        :return: the permit; ``None`` if ``permit`` is none that this limiter has granted
        """
        if not isinstance(permit, TurnPermit) or permit.limiter is not self or permit.place is None:
            return None

        # Not fast: else a function that is throttled each time would never let others run.
        again = self._permit(cost, FRONT, permit.max_wait, fast=False)
        again.place = (FRONT, permit.place[1])
        self._line.rejoin(again)
        return again

    async def __aenter__(self) -> None:
        turn = Turn(1, self._amounts(1), ends=True)
        turn.place = self._line.new_place(0)
        await self._line.wait(turn, fast=self._fast)
        assert turn.loop is not None
        if self._inside_of is not turn.loop:
            # Those of an earlier loop were inside when it ended, and will not come out again.
            self._anonymous.clear()
            self._inside_of = turn.loop

        self._anonymous.setdefault(turn.loop.task(), []).append(turn)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A call of a loop that is over has no turn here.
        loop = self._inside_of
        if loop is None or not self._anonymous or not self._line.clock.is_here(loop):
            return

        # The task's own; or, if another one has come in, any: they are all alike.
        task = loop.task()
        if task not in self._anonymous:
            task = next(iter(self._anonymous))

        turns = self._anonymous[task]
        self._line.end(turns.pop())
        if not turns:
            del self._anonymous[task]

    def _permit(
        self, cost: Cost, priority: float, max_wait: Patience = None, *, fast: bool | None = None
    ) -> TurnPermit:
        amounts = self._amounts(cost)
        fast = self._fast if fast is None else fast
        return TurnPermit(self, self._line, cost, amounts, priority, max_wait, fast=fast)

    def _turn_without_hold(self, cost: Cost, verb: str) -> Turn:
        if self._gate.holds:
            raise RuntimeError(HOLDS.format(verb=verb, limiter=repr(self)))

        return Turn(cost, self._amounts(cost), ends=False)

    def _note_throttled(self, throttles: int, error: BaseException) -> None:
        if self._line.observer is not None:
            tell(self._line.observer, Throttled(self._line.name, None, throttles, error))


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

    raise TypeError(
        f"limiter must be a limiter or a text such as '20/10s', not {value!r}; policies go into a "
        f"RateLimiter"
    )


def slots_of(limiter: Limiter | None) -> anyio.CapacityLimiter | float:
    """Return what is known to bound how many calls of a limiter run: shared slots, or a number."""
    if not isinstance(limiter, RateLimiter):
        return inf

    gate = limiter._gate  # noqa: SLF001
    return gate.slots if gate.capacity is None else gate.capacity
