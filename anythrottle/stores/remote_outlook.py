"""What a process can foresee of a shared limiter: little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from .._limiters.turn import Turn
from .._policies.policy import Decision
from .remote_gate import RemoteGate


@final
class RemoteOutlook:
    """
    The :class:`.Outlook` of a shared limiter: others may come and go at any time.

    :param gate: the gate
    """

    __slots__ = ("_gate",)

    #: Never empty, so that newcomers are told of.
    tables: tuple[object, ...] = (None,)

    def __init__(self, gate: RemoteGate) -> None:
        self._gate = gate

    def invalidate(self) -> None:
        pass

    def note_newcomer(self, turn: Turn) -> None:
        self._gate.note_newcomer()

    def note_leaving(self, turn: Turn) -> None:
        self._gate.note_leaving(turn)

    def note_grants(self, now: float, late: float) -> None:
        pass

    def note_end(self) -> None:
        pass

    def is_hopeless(
        self, amounts: Sequence[int], now: float, priority: float, latest: float
    ) -> bool:
        return self._gate.paused_until > latest

    def decide(self, amounts: Sequence[int], now: float, priority: float = 0) -> Decision:
        return self._gate.decide(now)
