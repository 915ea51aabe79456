"""The limiter of this process: rates and concurrency in one object, for any number of tasks."""

from __future__ import annotations

from math import inf
from typing import Final, Literal, TypeAlias, final

import anyio

from .._events import Observer, Reconfigured, check_observer
from .._loops.clock import LoopClock
from .._policies.checks import check_count, check_measure
from .._policies.policy import Cost, Decision, Policy
from .._policies.text import as_policy
from ..abc import Limiter
from .carry_over import carry_over
from .forecast import Forecasts
from .line import WaitLine
from .line_limiter import LineLimiter
from .local_gate import LocalGate
from .queue import TurnQueue
from .scheduling import Scheduler
from .short_ways import take_now
from .slots import Slots
from .turn import Turn


@final
class AsItIs:
    """The type of :data:`AS_IT_IS`."""

    def __repr__(self) -> str:
        return "<as it is>"


#: Stands for a setting that shall stay as it is.
AS_IT_IS: Final = AsItIs()

#: How many calls may run at once: a number, slots that are shared, or no bound.
Concurrency: TypeAlias = int | anyio.CapacityLimiter | None


@final
class RateLimiter(LineLimiter):
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

    Turns are granted first come, first served within a priority, all or nothing. A call that is
    cancelled while it waits has taken nothing, and its place goes to the next.

    :param policies: what limits the rate: policies, or texts such as ``"20/10s"``; each must
        agree to each call
    :param concurrency: how many calls may run at once, at least 1, or a capacity limiter that
        is shared with others; ``None`` for no bound
    :param max_waiting: how many may wait in line, at least 0; of those that come on top, the last
        in line is refused, by priority and arrival. What goes again, and what a
        :class:`.Throttler` or its kin run, counts but is never refused. ``None`` for no bound
    :param fast_acquire: whether a turn that needn't be waited for is granted without a
        checkpoint; then a loop over such calls has to yield by itself
    :param name: how ``repr``, errors and events call the limiter
    :param observer: a function that is told of :type:`events <anythrottle.abc.Event>`
    :param measure: for texts that don't say: ``"start"`` if the window of a limit runs from the
        start of each call, ``"end"`` if from its end: for a server, which counts by its own clock,
        at some instant of the call
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a text is not a limit, ``concurrency`` is below 1, ``max_waiting``
        below 0, or ``measure`` another word

    """

    __slots__ = ("_gate", "_measure")

    _gate: LocalGate

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
        #: How texts are measured that don't say.
        self._measure: Literal["start", "end"] = check_measure(measure)
        described = tuple(as_policy(policy, self._measure) for policy in policies)
        check_observer(observer)
        most = inf if max_waiting is None else check_count("max_waiting", max_waiting, least=0)
        slots = Slots(*_slots_of(concurrency))

        def scheduler_of(clock: LoopClock) -> Scheduler:
            self._gate = gate = LocalGate(described, slots, clock)
            queue = TurnQueue()
            return Scheduler(gate, queue, Forecasts(gate, queue), most)

        super().__init__(WaitLine(scheduler_of, name, observer), fast=fast_acquire)

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
        amounts = self._amounts_without_hold(cost, "acquire_nowait")
        take_now(self._line, Turn(cost, amounts, ends=False))

    def reconfigure(
        self, *policies: Policy | str, concurrency: Concurrency | AsItIs = AS_IT_IS
    ) -> None:
        """
        Go on with other policies, or another concurrency.

        Nothing is forgotten: what was charged in a unit counts for the new policies of that unit.
        So a tighter limit holds at once. A looser one lets those in line go that are due by it.
        If more was charged than a new policy would have allowed, it is at its limit for now, and
        in debt for no longer than the one before it. A token bucket that takes the place of another
        one begins at the level of that: what has flowed in stays, and no more. A fixed window with
        another limit goes on with what is used.

        A call that waits with a cost which can never fit any more gets the error that it would get
        if it came now. Calls that run go on, and hold what the new limits want them to; a permit
        whose call has ended gives nothing back any more to a policy that has been replaced.

        :param policies: all the policies from now on; those left out hold no longer, and with none
            no rate is limited any more
        :param concurrency: how many calls may run at once from now on; left out, it stays as it is
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if a text is not a limit or ``concurrency`` is below 1

        """
        described = tuple(as_policy(policy, self._measure) for policy in policies)
        slots = None if isinstance(concurrency, AsItIs) else _slots_of(concurrency)
        line, gate = self._line, self._gate
        now = line.prepare()
        recalled = line.scheduler.recall(now)
        try:
            buckets = carry_over(gate, described, now)
            if slots is not None:
                if slots[1] is not gate.slots.shared:
                    line.stop_seeking()

                gate.slots.resize(*slots)

            gate.set_policies(described, buckets)
            line.recount()
        finally:
            # Also the turns that were called back, should a policy of the user's own have failed.
            line.serve_anew(now)
            if not gate.slots.may_have_one():
                line.wake_all()

            for turn in recalled:
                # A turn that goes at once is not told of again: the observer may reconfigure anew.
                turn.told = turn.told and turn.granted

        line.tell(Reconfigured, described)

    def peek(self, cost: Cost = 1) -> Decision:
        """
        Return whether a call may go now, and if not, why and when. Asking changes nothing.

        :param cost: what the call would cost, 0 or more, or amounts by unit
        :raises TypeError: if ``cost`` is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        line = self._line
        return line.scheduler.outlook.decide(self._gate.amounts(cost), line.clock.peek())

    def idle_in(self) -> float:
        """
        Return in how many seconds nothing is left to remember, if no call comes.

        :return: 0 if all is as new; infinity while any call waits, or runs and holds something
        """
        return inf if self._line.queue.head else self._gate.idle_in(self._line.clock.peek())


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
    """Return the known bound on how many calls of a limiter run: shared slots, or a number."""
    if not isinstance(limiter, RateLimiter):
        return inf

    gate = limiter._gate  # noqa: SLF001
    return gate.slots.total if gate.slots.shared is None else gate.slots.shared


def _slots_of(concurrency: Concurrency) -> tuple[float, anyio.CapacityLimiter | None]:
    """Return how many slots of its own a gate has, and the capacity limiter that it shares."""
    if isinstance(concurrency, anyio.CapacityLimiter):
        return inf, concurrency

    if concurrency is None:
        return inf, None

    return check_count("concurrency", concurrency, or_else="a CapacityLimiter"), None
