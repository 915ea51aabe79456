"""What one tells a limiter, and asks it, from outside of its calls."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final, Literal, TypeAlias, final

import anyio

from .._events import (
    Observer,
    Paused,
    Reconfigured,
    Resumed,
    Tightened,
    check_observer,
    tell,
)
from .._policies.bucket import Bucket
from .._policies.checks import check_count, check_measure, check_seconds
from .._policies.policy import Cost, Decision, Policy, PolicyState
from .._policies.text import as_policy
from .base_limiter import BaseLimiter
from .cost import check_counted, named_amounts
from .gate import Gate
from .line import WaitLine
from .live import Live
from .succession import succeed


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """
    The state of a :class:`RateLimiter` at one instant.

    :ivar int tasks_waiting: how many tasks wait for their turn
    :ivar int borrowed_tokens: how many calls hold a slot (or a charge) while they run
    :ivar float total_tokens: how many may, at most: the concurrency; infinity without one
    :ivar int kept: how many of them go on, by :meth:`.abc.Permit.keep`, though their functions have
        returned
    :ivar float paused_for: for how many seconds the limiter is still paused

    """

    tasks_waiting: int
    borrowed_tokens: int
    total_tokens: float
    paused_for: float
    kept: int = 0


@final
class AsItIs:
    """The type of :data:`AS_IT_IS`."""

    def __repr__(self) -> str:
        return "<as it is>"


#: Stands for a setting that shall stay as it is.
AS_IT_IS: Final = AsItIs()

#: How many calls may run at once: a number, slots that are shared, or no bound.
Concurrency: TypeAlias = int | anyio.CapacityLimiter | None


class LimiterControls(Live, BaseLimiter):
    """
    The half of :class:`.RateLimiter` that waits for nothing.

    Its parameters are explained there.
    """

    __slots__ = ("_gate", "_line", "_measure", "_one", "_only")

    #: What a call of cost 1 charges, if an int will do.
    _one: tuple[int, ...] | None
    #: The bucket, if there is only one, of calls, and no more to ask or to tell.
    _only: Bucket | None

    def __init__(  # noqa: PLR0917 - one who calls it, with parameters explained there
        self,
        policies: tuple[Policy | str, ...],
        concurrency: Concurrency,
        max_waiting: int | None,
        name: str | None,
        observer: Observer | None,
        measure: Literal["start", "end"],
    ) -> None:
        #: How texts are measured that don't say.
        self._measure: Literal["start", "end"] = check_measure(measure)
        described = tuple(as_policy(policy, self._measure) for policy in policies)
        check_observer(observer)
        most = inf if max_waiting is None else check_count("max_waiting", max_waiting, least=0)
        self._gate = Gate(described, *_slots_of(concurrency))
        self._line = WaitLine(self._gate, name, max_waiting=most, observer=observer)
        self._prepare()

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
            seconds = self._default_pause()

        seconds = check_seconds("seconds", seconds, zero=True, infinite=True)
        now = self._line.clock.now()
        self._gate.paused_until = max(self._gate.paused_until, now + seconds)
        self._line.outlook.void()
        if self._line.observer is not None:
            tell(self._line.observer, Paused(self._line.name, self._gate.paused_until - now))

    def resume(self) -> None:
        """End any pause at once."""
        now = self._line.clock.now()
        paused = self._gate.paused_until > now
        if paused:
            # Not forgotten: what is due is due no earlier than this.
            self._gate.paused_until = now

        self._line.disturb(now)
        if paused and self._line.observer is not None:
            tell(self._line.observer, Resumed(self._line.name))

    def penalize(self, cost: Cost) -> None:
        """
        Charge something at once, due or not, that no call of this limiter was charged for.

        Say, what another process has used of the same budget. It may exceed the window, and then
        later calls wait until that is paid back.

        :param cost: how much: calls, 0 or more, or amounts by unit; units that are not named are
            not charged
        :raises TypeError: if ``cost`` is of the wrong type
        :raises ValueError: if ``cost`` is negative or names a unit that the limiter doesn't count

        """
        amounts = named_amounts(cost, self._gate.units)
        now = self._line.clock.now()
        self._line.catch_up(now)
        self._line.notice(now)
        self._gate.penalize(now, amounts)
        self._line.disturb(now)

    def tighten(
        self, *, remaining: int, reset_after: float | None = None, unit: str = "calls"
    ) -> None:
        """
        Take a server's figures: let at most ``remaining`` pass before its window is over.

        It only ever tightens, and each policy of the unit only within its own window: what is
        longer than that is for :meth:`pause`. What a permit settles or refunds later comes back
        on top, so settle a call first, and then hand on what its answer says.

        :param remaining: how much the server lets pass before the reset, 0 or more, in ``unit``
        :param reset_after: in how many seconds the server counts anew, 0 or more; ``None`` if
            that isn't known: then it is as if what is left above ``remaining`` had been charged
            just now
        :param unit: what ``remaining`` counts
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if a parameter is out of its range, or the limiter does not count
            ``unit``

        """
        check_count("remaining", remaining, least=0)
        if reset_after is not None:
            reset_after = check_seconds("reset_after", reset_after, zero=True, infinite=True)

        unit = check_counted(unit, self._gate.units)
        now = self._line.clock.now()
        self._line.catch_up(now)
        self._line.notice(now)
        for counted, bucket in zip(self._gate.units, self._gate.buckets, strict=True):
            if counted == unit:
                bucket.tighten(now, remaining, reset_after)

        self._line.disturb(now)
        if self._line.observer is not None:
            tell(self._line.observer, Tightened(self._line.name, unit, remaining, reset_after))

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

        Who waits with a cost that can never fit any more has the error raised that it would get
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
        now = line.clock.now()
        line.catch_up(now)
        line.notice(now)
        recalled = line.recall(now)
        try:
            buckets = succeed(gate, described, now, line.clock.utc)
            if slots is not None:
                if slots[1] is not gate.capacity:
                    line.stop_seeking()

                gate.set_slots(*slots)

            gate.set_policies(described, buckets)
            self._prepare()
            line.recount()
        finally:
            # Those who were called back too, should a policy of the user's own have failed.
            line.disturb(now)
            if gate.is_crowded():
                line.wake_all()

            for turn in recalled:
                # Who goes at once is not told of again: an observer may do this each time.
                turn.told = turn.told and turn.granted

        if line.observer is not None:
            tell(line.observer, Reconfigured(line.name, described))

    def peek(self, cost: Cost = 1) -> Decision:
        """
        Tell whether a call may go now, and if not, why and when. Asking changes nothing.

        :param cost: what the call would cost, 0 or more, or amounts by unit
        :raises TypeError: if ``cost`` is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        return self._line.outlook.decide(self._amounts(cost), self._line.clock.peek())

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies in force: they stay the same until :meth:`reconfigure`."""
        return self._gate.policies

    def quotas(self) -> tuple[PolicyState, ...]:
        """
        Return what each policy has left, in the order of :attr:`policies`.

        Say, for the headers of an answer. Those in line don't count, unlike with :meth:`peek`.
        Asking changes nothing, and costs little however often it is done.
        """
        return self._line.quotas()

    def statistics(self) -> RateLimiterStatistics:
        """Return the state at this instant."""
        now = self._line.clock.peek()
        return RateLimiterStatistics(
            tasks_waiting=len(self._line.queue),
            borrowed_tokens=self._gate.borrowed,
            total_tokens=self._gate.slots,
            paused_for=max(self._gate.paused_until - now, 0.0),
            kept=self._gate.kept,
        )

    def __repr__(self) -> str:
        statistics = self.statistics()
        name = "" if self._line.name is None else f" {self._line.name!r}"
        parts = [
            f"{p.limit} {p.unit}/{p.window:g}s{' end' if p.holds else ''}"
            for p in self._gate.policies
        ]
        if statistics.total_tokens < inf:
            parts.append(f"{statistics.borrowed_tokens}/{statistics.total_tokens:g} at once")

        if statistics.tasks_waiting:
            parts.append(f"{statistics.tasks_waiting} waiting")

        if statistics.paused_for:
            parts.append(f"paused for {statistics.paused_for:.3g}s")

        return f"<RateLimiter{name} {', '.join(parts) or 'without limit'}>"

    def _amounts(self, cost: Cost) -> tuple[int, ...]:
        if self._one is not None and type(cost) is int and cost == 1:
            return self._one

        return self._gate.amounts(cost)

    def _default_pause(self) -> float:
        return min((policy.window for policy in self._gate.policies), default=1.0)

    def idle_in(self) -> float:
        """
        Tell in how many seconds there is nothing left to remember, if nobody comes.

        :return: 0 if all is as new; infinity while calls run that hold something, or anybody waits
        """
        return inf if self._line.queue.blocks else self._gate.idle_in(self._line.clock.peek())

    def _prepare(self) -> None:
        """Look once what makes most calls short."""
        self._one = self._gate.amounts(1) if set(self._gate.units) <= {"calls"} else None
        silent = self._line.observer is None
        self._only = self._gate.only if silent and self._one is not None else None


def _slots_of(concurrency: Concurrency) -> tuple[float, anyio.CapacityLimiter | None]:
    """Return how many slots of its own a gate has, or those that it shares."""
    if isinstance(concurrency, anyio.CapacityLimiter):
        return inf, concurrency

    if concurrency is None:
        return inf, None

    return check_count("concurrency", concurrency, or_else="a CapacityLimiter"), None
