"""
One exchange of a throttled client: a turn, a request, an answer.

The answer's headers decide whether the request goes again, or the answer is held until its body is
over. No HTTP library is known here: a :class:`Wire` is what there has to be of one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar, final

from .._errors import LimitExceeded, PolicyConflict, StoreError, ThrottleException
from .._limiters.base_limiter import tell_throttled
from .._limiters.cost import by_unit
from .._limiters.current import current_permit
from .._limiters.max_wait import MaxWait, latest_turn
from .._policies.policy import Cost
from ..abc import AdjustableLimiter, Permit
from ._feedback import counted_part, learn, limits_in, tighten, units_of
from ._held import HeldCall, Settle
from ._hosts import Hosts
from .headers import Figures, Profile, read_figures

A = TypeVar("A")

_logger = logging.getLogger("anythrottle")

#: How much of a refused answer's body is read before it is closed, in bytes, and for how long.
DRAINED = 64 * 2**10
DRAINING = 1.0

#: Methods of which a second request changes nothing (RFC 9110, section 9.2.2).
IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})


class Wire(Protocol[A]):
    """One request, as its library sends it."""

    @property
    def idempotent(self) -> bool:
        """Whether, by its method, sending it twice does no more than sending it once."""
        ...

    @property
    def replayable(self) -> bool:
        """Whether its body can be sent again."""
        ...

    @property
    def settles(self) -> bool:
        """Whether the whole answer tells what the call has cost."""
        ...

    async def send(self) -> A:
        """Send it; return the answer, at its headers."""
        ...

    def never_left(self, error: BaseException) -> bool:
        """Return whether an error of :meth:`send` says that nothing has reached the server."""
        ...

    def head(self, answer: A) -> tuple[int, Iterable[tuple[str, str]]]:
        """Return an answer's status and headers."""
        ...

    async def close(self, answer: A) -> None:
        """Close an answer that is not returned."""
        ...

    async def drain(self, answer: A) -> A:
        """Read a small body, and close the answer; return the same, without a connection."""
        ...

    def is_over(self, answer: A) -> bool:
        """Return whether an answer is closed, or was read before it came here."""
        ...

    def settle_of(self, answer: A) -> Settle | None:
        """Return what tells from the whole body of an answer what the call has cost."""
        ...

    def hold(self, answer: A, call: HeldCall) -> None:
        """End the call as soon as the body of an answer has been read, or is closed."""
        ...

    def note(self, answer: A, waited: float, attempts: int, permit: Permit) -> None:
        """Note on an answer how it came about."""
        ...

    def turn_timeout(self, error: LimitExceeded) -> Exception:
        """Return the library's error for a request that has not got its turn."""
        ...

    def store_away(self, error: StoreError) -> Exception:
        """Return the library's error for a request that a store gives no turn."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The rules that all exchanges of a client follow.

    :ivar profile: how the server tells its figures
    :ivar max_throttles: how often a request is sent at most
    :ivar max_pause: how long a pause is waited for at most, in seconds

    """

    profile: Profile
    max_throttles: int
    max_pause: float


@final
class Exchange(Generic[A]):
    """
    One request and its answer.

    :param wire: the request
    :param hosts: the limiters of the client
    :param key: the key of its limiter
    :param rules: the rules that it follows
    :param cost: what it costs
    :param max_wait: how long it waits for each turn at most
    :param host: what the server is called in the log; ``None`` for its key

    """

    def __init__(
        self,
        wire: Wire[A],
        hosts: Hosts,
        key: Hashable,
        rules: Rules,
        *,
        cost: Cost,
        max_wait: MaxWait,
        host: str | None = None,
    ) -> None:
        self._wire = wire
        self._hosts = hosts
        self._key = key
        self._rules = rules
        self._cost = cost
        self._max_wait: MaxWait = max_wait
        self._host = key if host is None else host
        self._sends = 0
        self._waited = 0.0
        #: Whether the request has its turn, so that an error is its own, and not the limiter's.
        self._has_turn = False
        #: The answer that has refused the request, which goes again.
        self._refusal: A | None = None
        #: The answer that is to be returned.
        self._answer: A | None = None

    async def run(self, priority: int) -> A:
        """
        Return the answer, which holds what its call does until the body is over.

        :raises Exception: :meth:`Wire.turn_timeout`, if the first turn does not come in time;
            :meth:`Wire.store_away`, if the store that is to give it does not answer
        :raises ~anythrottle.PolicyConflict: if others share the limiter with other policies
        :raises ~anythrottle.CostTooHigh: if a policy could never allow the cost
        :raises RuntimeError: if another event loop uses the client at the same time

        """
        try:
            # Raises if another loop uses the client at the same time, before anything is sent.
            self._loop = self._hosts.clock.loop()
            self._limiter, self._known = self._hosts.limiter_of(self._key)
            first = self._known.first
            if first is None:
                return await self._go(priority)

            # The first request goes alone, until its answer's headers say how the others may go.
            async with first.permit(priority=priority, max_wait=self._max_wait) as permit:
                self._waited += permit.waited
                return await self._go(priority)
        except (LimitExceeded, StoreError) as exc:
            if self._has_turn or isinstance(exc, PolicyConflict):
                raise

            if isinstance(exc, StoreError):
                raise self._wire.store_away(exc) from exc.__cause__

            raise self._wire.turn_timeout(exc) from exc

    async def _go(self, priority: int) -> A:
        try:
            return await self._limiter.run(
                self._send,
                cost=self._countable(self._cost),
                priority=priority,
                max_wait=self._max_wait,
                # The exchange counts its own; but a client inside of it may be throttled, too.
                max_throttles=self._rules.max_throttles,
            )
        except BaseException as exc:
            if self._answer is not None:
                # The error comes from a user's own limiter, which waits when a call leaves it.
                await self._wire.close(self._answer)
            elif (
                self._refusal is not None
                and not self._has_turn
                and isinstance(exc, (LimitExceeded, StoreError, ValueError))
            ):
                # There is no second turn in time, or none while a store is away, or none for that
                # cost by limits just learned.
                return self._refusal

            raise

    async def _send(self) -> A:
        """Send the request, in its turn, and take the answer's headers."""
        permit = current_permit()
        self._has_turn = True
        self._sends += 1
        self._waited += permit.waited
        try:
            answer = await self._wire.send()
        except BaseException as exc:
            if self._wire.never_left(exc):
                permit.refund()

            raise

        try:
            figures = self._read(answer, permit)
            pause, told = self._pause_of(figures), self._hosts.clock.now()
            again = figures.refused and self._goes_again(figures, pause)
            if figures.refused:
                self._obey(figures, pause, permit, again=again)

            self._take_figures(figures)
            self._wire.note(answer, self._waited, self._sends, permit)
            if not again:
                self._hold(answer, permit, figures)
                self._answer = answer
                return answer
        except BaseException:
            await self._wire.close(answer)
            raise

        self._refusal = await self._wire.drain(answer)
        self._has_turn = False
        rest = pause - (self._hosts.clock.now() - told)
        raise ThrottleException(retry_after=max(rest, 0.0))

    def _read(self, answer: A, permit: Permit) -> Figures:
        """Return what an answer's headers tell; the server has counted the call by now."""
        status, headers = self._wire.head(answer)
        figures = read_figures(status, headers, self._rules.profile, utc=time.time())
        if figures.malformed:
            self._hosts.log_malformed(self._host, figures.malformed)

        self._mark(permit)
        return figures

    def _take_figures(self, figures: Figures) -> None:
        """Tighten the limiter, or exchange its limits, by what the server has told."""
        known = self._known
        known.bucket = known.bucket or figures.bucket
        if figures.quotas and figures.bucket in {None, known.bucket}:
            if known.learns:
                self._learn(figures)

            tighten(self._limiter, figures.quotas, max_pause=self._rules.max_pause)

        known.note_answer()

    def _mark(self, permit: Permit) -> None:
        """Mark the call as counted by the server, in all units that it is not settled in."""
        if not self._wire.settles:
            permit.mark_counted()
            return

        units = units_of(self._limiter)
        # Policies that are about to be learned find the call marked.
        if "calls" in units or (not units and self._known.learns):
            permit.mark_counted("calls")

    def _obey(self, figures: Figures, pause: float, permit: Permit, *, again: bool) -> None:
        """
        Pause the limiter; if the server has done nothing, charge the call with nothing but itself.

        In this order, so that what is given back is not granted, because of the pause, before the
        figures that came with the refusal have tightened the limiter.

        :param again: whether the request is sent again; then the limiter's run tells its permit
        """
        most = self._rules.max_pause
        _logger.info("%r has refused a request: all pause for %.3g s", self._host, pause)
        if figures.everywhere:
            self._hosts.pause_all(min(pause, most))

        if again:
            # At once, because the body is drained before the limiter's run() is told.
            self._limiter.pause(pause)
        else:
            if pause > most and figures.retry_after is not None:
                _logger.warning(
                    "%r has asked for a pause of %g s: it is %g s, max_pause",
                    self._host,
                    pause,
                    most,
                )

            tell_throttled(permit, self._limiter, min(pause, most))

        units = units_of(self._limiter) - {"calls"}
        if units and figures.certain and self._wire.settles:
            permit.settle(dict.fromkeys(units, 0))

    def _learn(self, figures: Figures) -> None:
        units = {*units_of(self._limiter), *by_unit(self._cost), "calls"}
        limits = limits_in(figures.quotas, units)
        if any(limits) and limits != self._known.limits:
            assert isinstance(self._limiter, AdjustableLimiter)
            self._known.limits = limits
            learn(self._limiter, limits)

    def _goes_again(self, figures: Figures, pause: float) -> bool:
        """Return whether a refused request is sent again."""
        rules, wire = self._rules, self._wire
        return (
            pause <= min(rules.max_pause, self._patience())
            and self._sends < rules.max_throttles
            and wire.replayable
            and (figures.certain or wire.idempotent)
            and not figures.final
        )

    def _patience(self) -> float:
        """Return for how many seconds the request waits for its next turn at most."""
        return inf if self._max_wait is None else latest_turn(self._max_wait, 0.0)[0]

    def _pause_of(self, figures: Figures) -> float:
        """Return for how long a refusal pauses, in seconds."""
        if figures.retry_after is not None:
            return figures.retry_after

        # So many doublings are for ever; 1024 would raise an error.
        return self._rules.profile.first_pause * 2.0 ** min(self._sends - 1, 500)

    def _hold(self, answer: A, permit: Permit, figures: Figures) -> None:
        """Keep the call until the body of its answer is over."""
        settle = self._wire.settle_of(answer)
        after = _nothing
        if settle is not None:
            settle = self._counted_settle(settle)
            after = self._after(figures)

        call = HeldCall(self._loop, permit, settle, after)
        if self._wire.is_over(answer):
            call.settle(complete=True)
        else:
            permit.keep()
            self._wire.hold(answer, call)

    def _after(self, figures: Figures) -> Callable[[], None]:
        """Return what tightens the limiter by the figures again, once the call is settled."""
        limiter, clock, max_pause = self._limiter, self._hosts.clock, self._rules.max_pause
        quotas = figures.quotas if figures.bucket in {None, self._known.bucket} else ()
        told = clock.now()

        def again() -> None:
            tighten(limiter, quotas, max_pause=max_pause, since=clock.now() - told)

        return again

    def _counted_settle(self, settle: Settle) -> Settle:
        """Return ``settle`` with its costs in the units that are counted, if those are learned."""

        def counted(body: bytes) -> Cost | None:
            cost = settle(body)
            return None if cost is None else self._countable(cost)

        return counted if self._known.learns else settle

    def _countable(self, cost: Cost) -> Cost:
        """Return a cost in the units that are counted, if those have been learned."""
        return cost if self._known.limits is None else counted_part(cost, self._limiter)


def _nothing() -> None:
    """Do nothing."""
