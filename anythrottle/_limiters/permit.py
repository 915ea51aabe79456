"""The permit of one call."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from math import inf
from types import TracebackType
from typing import Self, final

from .._events import Event, Paused, Settled, tell
from .._policies.checks import check_unit, unit_of
from .._policies.policy import Cost, PolicyState
from ..abc import Limiter
from .calls import begin_call, end_call, keep_call, mark_call, settle_call
from .cost import by_unit, check_counted, named_amounts
from .line import WaitLine
from .live import Live
from .max_wait import MaxWait
from .short_ways import enter_now
from .turn import NOWHERE, Turn


@final
class FreePermit:
    """
    A :class:`~anythrottle.abc.Permit` of calls that nothing limits but the pauses of their run.

    One serves for all calls of a run. It observes the run's own limiter, but does not hold it.

    :ivar is_open: whether no pause may be under way

    """

    __slots__ = ("_limiter", "is_open")

    waited = 0.0

    def __init__(self) -> None:
        self.is_open = True

    def belong_to(self, limiter: Limiter) -> None:
        """Set the limiter that it observes, and that it pauses."""
        self._limiter = weakref.ref(limiter)

    def note(self, event: Event) -> None:
        """Note an event of the run's limiter."""
        if isinstance(event, Paused):
            self.is_open = False

    def settle(self, cost: Cost) -> None:
        # There is nothing to correct, but a wrong cost is an error here too.
        by_unit(cost)

    def refund(self) -> None:
        pass

    def mark_counted(self, *units: str) -> None:
        for unit in units:
            check_unit(unit)

    def leave(self) -> None:
        pass

    def throttled(self, retry_after: float | None = None) -> None:
        limiter = self._limiter()
        # Else the run is over, and there is nothing to pause.
        if limiter is not None:
            limiter.pause(retry_after)

    def keep(self) -> None:
        raise RuntimeError("keep() is for the function that a limiter's run() or wrap() calls")

    def end(self) -> None:
        raise RuntimeError("the call was not kept: it ends by itself")

    def withdraw(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<Permit without limit>"


class TurnPermit(Live, Turn):
    """
    A turn that is a :class:`~anythrottle.abc.Permit` as well.

    Entering it waits for the turn; leaving it lets go what the call holds.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_entered",
        "_fast",
        "_keeps",
        "_kept",
        "_line",
        "_policies",
        "_priority",
        "_quotas",
        "_waited",
        "limiter",
        "max_wait",
        "may_be_kept",
    )

    def __init__(
        self,
        limiter: Limiter,
        line: WaitLine,
        cost: Cost,
        priority: float,
        max_wait: MaxWait,
        *,
        fast: bool,
    ) -> None:
        # Not by super(), which costs: there is a permit for each call.
        Turn.__init__(self, cost, line.gate.amounts(cost), ends=True)
        #: Kept alive (see KeyedLimiter) while a permit of it exists.
        self.limiter = limiter
        self._line = line
        self._policies = line.gate.policies
        self._priority = priority
        self.max_wait: MaxWait = max_wait
        self._fast = fast
        self._entered = False
        self._waited = 0.0
        #: Whether the call may be kept: it runs within ``run`` or ``wrap``.
        self.may_be_kept = False
        #: Whether the call was asked to go on after its function has returned, and to end.
        self._keeps = self._ended = False
        #: What the call holds after that.
        self._kept: Turn | None = None
        self._quotas: tuple[PolicyState, ...] | None = None

    @property
    def waited(self) -> float:
        """How long the call has waited for its turn, in seconds."""
        return self._waited

    @property
    def quotas(self) -> tuple[PolicyState, ...]:
        """What each policy of the limiter had left when this was first asked."""
        if self._quotas is None:
            self._quotas = self._line.quotas()

        return self._quotas

    @property
    def lost(self) -> bool:
        """Whether others may have got what the call holds: never, unless the limiter is shared."""
        return False

    def note_waited(self, seconds: float) -> None:
        """Note for how long the call has waited, which was not for this turn alone."""
        self._waited = seconds

    def settle(self, cost: Cost) -> None:
        """
        Correct what the call is charged to what it has really cost.

        If that is more, the difference is charged at this instant, into debt if need be, and
        later calls wait. If it is less, what is still out of the difference comes back at once,
        and what had come back already stays so. This may be called any number of times, during
        the call and after it; each time the charge becomes what is said.

        :param cost: what the call has cost, 0 or more, or amounts by unit; units that are not
            named stay as they are
        :raises RuntimeError: if the call has not begun
        :raises TypeError: if ``cost`` is of the wrong type
        :raises ValueError: if ``cost`` is negative or names a unit that the limiter doesn't count

        """
        self._check_begun()
        turn = self._kept or self
        before = by_unit(turn.cost)
        amounts = named_amounts(cost, self._line.gate.units, self._known_units(before))
        before.setdefault("calls", 1)
        changes = {unit: amount - before.get(unit, 0) for unit, amount in amounts.items()}
        settle_call(self._line, turn, {unit: change for unit, change in changes.items() if change})
        turn.cost = after = before | amounts
        if self._line.observer is not None and after != before:
            tell(self._line.observer, Settled(self._line.name, before, after))

    def refund(self) -> None:
        """
        Give the whole charge back: what is still out comes back at once.

        The slot is kept until the call ends. A second time, it does nothing.

        :raises RuntimeError: if the call has not begun

        """
        self.settle(dict.fromkeys(self._line.gate.units, 0))

    def mark_counted(self, *units: str) -> None:
        """
        Say that the server has counted the call by now: its answer has begun to come, say.

        With ``measure="end"``, what the call is charged so far counts from this instant instead of
        its end, so that others may go sooner, and still not a single window of the server's own
        holds more than the limit. The slot stays until the end. What :meth:`settle` adds later is
        held until the end, or until it is marked as well; else twice is as once. Under other
        policies nothing changes, nor after the call's end.

        :param units: in which units it has been counted; in all if none is named
        :raises RuntimeError: if the call has not begun
        :raises TypeError: if a unit is no str
        :raises ValueError: if the limiter doesn't count a unit

        """
        self._check_begun()
        turn = self._kept or self
        counted = self._line.gate.units
        known = self._known_units(by_unit(turn.cost))
        names = [check_unit(unit) for unit in units]
        if counted:
            names = [n if n in known else check_counted(n, counted) for n in names]

        mark_call(self._line, turn, names)

    def throttled(self, retry_after: float | None = None) -> None:
        """
        Say that the call was refused: the limiter pauses.

        :param retry_after: for how long, in seconds, 0 or more; ``None`` for the limiter's own
            choice, as :meth:`.RateLimiter.pause` says
        :raises TypeError: if ``retry_after`` is no number
        :raises ValueError: if ``retry_after`` is negative or NaN

        """
        self.limiter.pause(retry_after)

    def keep(self) -> None:
        """
        Keep the call going after its function has returned, until :meth:`end`.

        For a function that returns what it has begun: a stream, say. If it raises, is throttled or
        cancelled, the call ends with it all the same. Nothing else ends a call that is kept.

        :raises RuntimeError: unless the function runs that :meth:`.RateLimiter.run`, or a function
            made by :meth:`.RateLimiter.wrap`, has called under this permit
        """
        if not self.may_be_kept:
            raise RuntimeError(
                "keep() is for the function that a limiter's run() or wrap() calls, as long as it "
                "runs: elsewhere, hold the permit by 'async with'"
            )

        self._keeps = True

    def end(self) -> None:
        """
        End a call that is kept; it may be called from any task. A second time, it does nothing.

        :raises RuntimeError: if the call was not kept
        """
        if not self._keeps:
            raise RuntimeError("the call was not kept: it ends by itself, or call keep() before")

        self._ended = True
        if self._kept is not None:
            end_call(self._line, self._kept)

    def end_if_kept(self) -> None:
        """End a call that is kept, but whose result is lost."""
        if self._keeps:
            self.end()

    def enter_now(self, *, begins: bool = True) -> bool:
        """
        Enter the permit if its turn is due at once, without a checkpoint.

        :param begins: whether the call begins; else the turn is only held, for :meth:`begin`
        :return: whether the permit was entered; if not, it still can be by ``async with``
        """
        if self._entered or self._line.gate.policies is not self._policies:
            return False

        self._entered = enter_now(self._line, self, self._priority, begins=begins)
        return self._entered

    def begin(self) -> bool:
        """
        Begin the call, now that the turn is held.

        :return: whether the call has begun; if not, the turn was called back: :meth:`hold` it again
        """
        return begin_call(self._line, self)

    def withdraw(self) -> None:
        """Give a turn back that has been granted, and not been used."""
        if self.began < inf:
            self.refund()

        self.leave()

    def leave(self) -> None:
        """Leave the permit: the call has ended, or will not begin."""
        end_call(self._line, self)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a permit is for one call: ask the limiter for another one")

        newcomer = self._arrive()
        self._waited += await self._line.wait(
            self, fast=self._fast, max_wait=self.max_wait, newcomer=newcomer
        )
        return self

    async def hold(self) -> None:
        """
        Wait until the turn is granted; then it is only held, for :meth:`begin`.

        The turns of an engine are neither refused nor shed because too many wait.
        """
        self._arrive()
        self._waited += await self._line.wait(
            self, fast=self._fast, max_wait=self.max_wait, newcomer=False, begins=False
        )

    def _arrive(self) -> bool:
        """Take a place in line; return whether the turn had none so far."""
        gate = self._line.gate
        if gate.policies is not self._policies:
            # The limiter has been reconfigured since the permit was asked for.
            self.amounts = gate.amounts(self.cost)

        self._entered = True
        if self.place is not NOWHERE:
            return False

        self.place = self._line.scheduler.new_place(self._priority)
        return True

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.may_be_kept = False
        if self._keeps and not self._ended and exc_type is None:
            self._kept = keep_call(self._line, self)
        else:
            self.leave()

    def _known_units(self, cost: Mapping[str, int]) -> Collection[str]:
        """Return the units that may be named though no policy may count them any more."""
        if self._line.gate.policies is self._policies:
            return cost

        return {*cost, *(unit_of(policy.unit) for policy in self._policies)}

    def _check_begun(self) -> None:
        if self.began == inf:
            raise RuntimeError("nothing has been charged yet: enter the permit first")

    def __repr__(self) -> str:
        if self.began == inf:
            state = "waiting" if self._entered else "new"
        else:
            held = (self._kept or self).granted
            state = "ended" if not held else "held" if self._kept is None else "kept"

        return f"<Permit {state}>"
