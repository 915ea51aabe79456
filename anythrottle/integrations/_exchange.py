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
from typing import Generic, Protocol, TypeVar, final

from .._errors import LimitExceeded, ThrottleException
from .._limiters.cost import by_unit
from .._limiters.current import current_permit
from .._limiters.max_wait import MaxWait
from .._policies.checks import unit_of
from .._policies.policy import Cost
from ..abc import AdjustableLimiter, Limiter, Permit, QuotaLimiter
from ._feedback import learn, limits_in, tighten
from ._held import HeldCall, Settle
from ._hosts import Hosts
from .headers import Figures, Profile, read_figures

A = TypeVar("A")

_logger = logging.getLogger("anythrottle")


class Wire(Protocol[A]):
    """One request, as its library sends it."""

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice is as once, by its method."""
        ...

    @property
    def replayable(self) -> bool:
        """Whether its body can be sent again."""
        ...

    @property
    def settles(self) -> bool:
        """Whether it is told from the whole answer what the call has cost."""
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
        """Close an answer that nobody gets."""
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
        """Let the call end as soon as the body of an answer has been read, or is closed."""
        ...

    def note(self, answer: A, waited: float, attempts: int, permit: Permit) -> None:
        """Note on an answer how it came about."""
        ...

    def turn_timeout(self, error: LimitExceeded) -> Exception:
        """Return the error of a request that has not got its turn, as the library has it."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """
    By what all exchanges of a client go.

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
    :param key: whose limiter the request is for
    :param rules: how it is done
    :param cost: what it costs
    :param max_wait: how long it waits for each turn at most

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
    ) -> None:
        self._wire = wire
        self._hosts = hosts
        self._key = key
        self._rules = rules
        self._cost = cost
        self._max_wait = max_wait
        self._sends = 0
        self._waited = 0.0
        #: The answer to a request that was refused, and goes again.
        self._refusal: A | None = None

    async def run(self, priority: int) -> A:
        """
        Return the answer, which holds what its call does until the body is over.

        :raises Exception: :meth:`Wire.turn_timeout`, if the first turn does not come in time
        :raises ~anythrottle.CostTooHigh: if a policy could never allow the cost

        """
        try:
            self._limiter, self._known = self._hosts.limiter_of(self._key)
            first = self._known.first
            if first is not None and not self._known.answered:
                # The first request goes alone, up to its headers; the others go by what they say.
                async with first.permit(max_wait=self._max_wait) as permit:
                    self._waited += permit.waited
                    if not self._known.answered:
                        return await self._go(priority)

            return await self._go(priority)
        except LimitExceeded as exc:
            raise self._wire.turn_timeout(exc) from exc

    async def _go(self, priority: int) -> A:
        try:
            return await self._limiter.run(
                self._send, cost=self._cost, priority=priority, max_wait=self._max_wait
            )
        except LimitExceeded:
            if self._refusal is None:
                raise

            return self._refusal

    async def _send(self) -> A:
        """Send the request, in its turn, and take the answer's headers."""
        permit = current_permit()
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
            if not (figures.refused and self._goes_again(figures, permit)):
                self._wire.note(answer, self._waited, self._sends, permit)
                self._hold(answer, permit, figures)
                return answer
        except BaseException:
            await self._wire.close(answer)
            raise

        self._refusal = await self._wire.drain(answer)
        self._wire.note(self._refusal, self._waited, self._sends, permit)
        raise ThrottleException(retry_after=self._pause(figures))

    def _read(self, answer: A, permit: Permit) -> Figures:
        """Read an answer's headers, and let the limiter go by them."""
        status, headers = self._wire.head(answer)
        figures = read_figures(status, headers, self._rules.profile, utc=time.time())
        if figures.malformed:
            self._hosts.log_malformed(self._key, figures.malformed)

        counted = _units(self._limiter)
        if not self._wire.settles:
            permit.mark_counted()
        elif "calls" in counted:
            permit.mark_counted("calls")

        known = self._known
        known.answered = True
        known.bucket = known.bucket or figures.bucket
        if figures.bucket in {None, known.bucket}:
            if known.first is not None:
                self._learn(figures, counted)

            tighten(self._limiter, figures.quotas, max_pause=self._rules.max_pause)

        return figures

    def _learn(self, figures: Figures, counted: set[str]) -> None:
        limits = limits_in(figures.quotas, counted | by_unit(self._cost).keys() | {"calls"})
        if any(limits) and limits != self._known.limits:
            assert isinstance(self._limiter, AdjustableLimiter)
            self._known.limits = limits
            learn(self._limiter, limits)

    def _goes_again(self, figures: Figures, permit: Permit) -> bool:
        """Return whether a refused request is sent again; if not, only the limiter is paused."""
        rules, wire, pause = self._rules, self._wire, self._pause(figures)
        if figures.everywhere:
            self._hosts.pause_all(min(pause, rules.max_pause))

        longest = rules.max_pause
        if isinstance(self._max_wait, (int, float)):
            longest = min(longest, self._max_wait)

        if (
            pause <= longest
            and self._sends < rules.max_throttles
            and wire.replayable
            and (figures.certain or wire.idempotent)
            and not figures.final
        ):
            return True

        if pause > rules.max_pause:
            _logger.warning(
                "%r has asked for a pause of %g s: it is %g s, max_pause",
                self._key,
                pause,
                rules.max_pause,
            )

        permit.throttled(min(pause, rules.max_pause))
        return False

    def _pause(self, figures: Figures) -> float:
        """Return for how long a refusal pauses, in seconds."""
        if figures.retry_after is not None:
            return figures.retry_after

        return self._rules.profile.first_pause * 2.0 ** (self._sends - 1)

    def _hold(self, answer: A, permit: Permit, figures: Figures) -> None:
        """Keep the call until the body of its answer is over."""
        call = HeldCall(permit, self._wire.settle_of(answer), self._after(figures))
        if self._wire.is_over(answer):
            call.settle(complete=True)
        else:
            permit.keep()
            self._wire.hold(answer, call)

    def _after(self, figures: Figures) -> Callable[[], None]:
        """Return what lets the limiter go by figures again, when the call has been settled."""
        limiter, clock, max_pause = self._limiter, self._hosts.clock, self._rules.max_pause
        quotas = figures.quotas if figures.bucket in {None, self._known.bucket} else ()
        told = clock.now()

        def again() -> None:
            tighten(limiter, quotas, max_pause=max_pause, since=clock.now() - told)

        return again


def _units(limiter: Limiter) -> set[str]:
    """Return what a limiter is known to count."""
    policies = limiter.policies if isinstance(limiter, QuotaLimiter) else ()
    return {unit_of(policy.unit) for policy in policies}
