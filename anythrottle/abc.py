"""What a user of anythrottle may implement, or accept from others."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, runtime_checkable

from ._policies.policy import Bucket, Cost, Policy

__all__ = ("Bucket", "Limiter", "Permit", "Policy")


class Permit(Protocol):
    """The permit of one call that runs."""

    @property
    def waited(self) -> float:
        """How long the call has waited for its turn, in seconds."""
        ...

    def refund(self) -> None:
        """Give the whole charge back; what the call holds is kept until it ends."""
        ...


@runtime_checkable
class Limiter(Protocol):
    """
    What engine, integrations and libraries accept as a limiter.

    :class:`~anythrottle.RateLimiter` is the one that comes with this library.
    """

    def permit(self, cost: Cost = 1, *, priority: int = 0) -> AbstractAsyncContextManager[Permit]:
        """Return the permit for one call: entering it waits for the turn."""
        ...

    def pause(self, seconds: float | None = None) -> None:
        """Let nobody pass for so many seconds, ``None`` for the limiter's own choice."""
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
