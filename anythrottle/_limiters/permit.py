"""The permit of one call."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, final

from .gate import Turn
from .line import WaitLine


@final
class TurnPermit:
    """
    A :class:`~anythrottle.abc.Permit` that stands for a turn in line.

    Entering it waits for the turn; leaving it lets go whatever the call holds.
    """

    __slots__ = ("_entered", "_fast", "_line", "_priority", "_turn", "_waited")

    def __init__(
        self, line: WaitLine, amounts: Sequence[int], *, priority: int, fast: bool
    ) -> None:
        self._line = line
        self._turn = Turn(amounts)
        self._priority = priority
        self._fast = fast
        self._entered = False
        self._waited = 0.0

    @property
    def waited(self) -> float:
        """How long the call has waited for its turn, in seconds."""
        return self._waited

    def refund(self) -> None:
        """
        Give the whole charge back: what is still out comes back at once.

        The slot is kept until the call ends. A second time, it does nothing.

        :raises RuntimeError: if the call has not begun

        """
        if self._turn.receipts is None:
            raise RuntimeError("nothing has been charged yet: enter the permit first")

        self._line.refund(self._turn)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a permit is for one call: ask the limiter for another one")

        self._entered = True
        self._waited = await self._line.wait(self._turn, priority=self._priority, fast=self._fast)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._line.end(self._turn)

    def __repr__(self) -> str:
        if self._turn.receipts is None:
            state = "waiting" if self._entered else "new"
        else:
            state = "held" if self._turn.granted else "ended"

        return f"<Permit {state}>"
