"""The interfaces that a user of anythrottle may implement, or accept from others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Literal, ParamSpec, Protocol, TypeVar, TypeVarTuple, overload, runtime_checkable

from ._events import Event, Observer
from ._policies.bucket import Bucket, LevelBucket, WallClockBucket
from ._policies.policy import Cost, Policy, PolicyState

__all__ = (
    "AdjustableLimiter",
    "Bucket",
    "Event",
    "Idle",
    "LevelBucket",
    "Limiter",
    "Observer",
    "Permit",
    "Policy",
    "QuotaLimiter",
    "WallClockBucket",
)

P = ParamSpec("P")
T = TypeVar("T")
PosArgsT = TypeVarTuple("PosArgsT")


class Permit(Protocol):
    """The permit of one call that runs."""

    @property
    def waited(self) -> float:
        """How long the call has waited for its turn, in seconds."""
        ...

    def settle(self, cost: Cost) -> None:
        """Correct the charge to what the call has really cost; units not named stay as they are."""
        ...

    def refund(self) -> None:
        """Give the whole charge back; what the call holds is kept until it ends."""
        ...

    def mark_counted(self, *units: str) -> None:
        """Note that the server has counted the call by now, in these units, or in all."""
        ...

    def throttled(self, retry_after: float | None = None) -> None:
        """Pause the limiter for so many seconds, because the service has refused the call."""
        ...

    def keep(self) -> None:
        """Keep the call going after its function has returned, until :meth:`end`."""
        ...

    def end(self) -> None:
        """End a call that is kept."""
        ...


@runtime_checkable
class Limiter(Protocol):
    """
    The interface of limiters, as engine, integrations and libraries accept them.

    :class:`~anythrottle.RateLimiter` is the one that comes with this library, and its methods say
    in full what each of these promises. :class:`~anythrottle.testing.LimiterConformance` tests
    whether another one keeps it.
    """

    def permit(
        self,
        cost: Cost = 1,
        *,
        priority: int = 0,
        max_wait: float | Literal["deadline"] | None = None,
    ) -> AbstractAsyncContextManager[Permit]:
        """
        Return the permit for one call: entering it waits for the turn.

        A permit may be dropped without having been entered, so it must not hold anything before.
        An engine asks for one for each start of a job, and may enter it some time later.
        """
        ...

    async def run(
        self,
        func: Callable[[*PosArgsT], Awaitable[T]],
        *args: *PosArgsT,
        cost: Cost = 1,
        priority: int = 0,
        max_wait: float | Literal["deadline"] | None = None,
        max_throttles: int | None = None,
    ) -> T:
        """Wait for a turn and call a function, again if it was throttled."""
        ...

    @overload
    def wrap(
        self, func: Callable[P, Awaitable[T]], /
    ) -> Callable[P, Coroutine[object, object, T]]: ...

    @overload
    def wrap(
        self,
        /,
        *,
        cost: Cost = 1,
        priority: int = 0,
        max_wait: float | Literal["deadline"] | None = None,
        max_throttles: int | None = None,
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[object, object, T]]]: ...

    def pause(self, seconds: float | None = None) -> None:
        """Stop calls from passing for so many seconds, ``None`` for the limiter's own choice."""
        ...

    async def __aenter__(self) -> None:
        """Wait for the turn of a call of cost 1."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the call."""
        ...


@runtime_checkable
class QuotaLimiter(Limiter, Protocol):
    """A limiter that knows what is left, and can take over the figures of others."""

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies in force."""
        ...

    def quotas(self) -> tuple[PolicyState, ...]:
        """Return what each policy has left, in their order; asking changes nothing."""
        ...

    def tighten(
        self, *, remaining: int, reset_after: float | None = None, unit: str = "calls"
    ) -> None:
        """Take over a server's figures: at most so much may pass before its window is over."""
        ...

    def penalize(self, cost: Cost) -> None:
        """Charge at once what no call of this limiter was charged for."""
        ...

    def resume(self) -> None:
        """End any pause at once."""
        ...


@runtime_checkable
class AdjustableLimiter(QuotaLimiter, Protocol):
    """A limiter whose limits can be exchanged while it is in use."""

    def reconfigure(self, *policies: Policy | str) -> None:
        """Go on with other policies; what was charged counts for them."""
        ...


@runtime_checkable
class Idle(Protocol):
    """An object that knows when it will have nothing left to remember."""

    def idle_in(self) -> float:
        """
        Return the seconds after which there is nothing to remember, if no call comes.

        :return: 0 if that is so now; infinity if that is unknown, so that it is asked again later
        """
        ...
