"""What a process can foresee of a shared limiter: little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from .._limiters.turn import Turn
from .._policies.policy import Decision, Reason, binding_of
from .exchange import NEVER, Micros
from .remote_gate import RemoteGate


@final
class RemoteOutlook:
    """
    The :class:`.Outlook` of a shared limiter: others may come and go at any time.

    :param gate: the gate
    """

    __slots__ = ("_gate",)

    #: Never empty, so that the scheduler tells of newcomers.
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
        return decide(self._gate, amounts, now)


def decide(
    gate: RemoteGate, amounts: Sequence[int], now: float, due: Micros | None = None
) -> Decision:
    """
    Return why a turn has to wait, and how long, as far as the server has said.

    :param gate: the gate
    :param amounts: what the turn costs, for each policy
    :param due: when it is due, if the server was asked; ``None`` for when the next grant is due
    """
    dialogue = gate.dialogue
    states = gate.quotas(now, here=True)
    left = [state.remaining for state in states]
    delays = [
        state.retry_after if state.remaining < amount else 0.0
        # Amounts end with that of the slots, which are no policy.
        for state, amount in zip(states, amounts, strict=False)
    ]
    binding = states[binding_of(delays, left, gate.capacities)] if states else None
    if due is not None:
        wait = gate.wait_until(max(due, 0), now)
    elif (lot := dialogue.first(tuple(amounts), now)) is not None:
        # It was granted ahead, and is due soon.
        wait = max(lot.ready - now, 0.0)
    elif dialogue.due < NEVER or dialogue.account.lacks_slots():
        wait = gate.wait_until(max(dialogue.due, 0), now)
    else:
        # No process waits for a grant, so there is none that would be the next one.
        wait = max(delays, default=0.0)

    # The turn that is refused may be in line itself.
    waits = dialogue.others_wait or len(gate.queue) > (due is None)
    if due is not None and waits:
        wait = max(wait, gate.wait_until(dialogue.due, now))
    reason: Reason = "rate"
    if gate.paused_until > now:
        reason, wait = "pause", max(wait, gate.paused_until - now)
    elif dialogue.account.lacks_slots():
        reason = "concurrency"
    elif waits:
        reason = "line"

    allowed = due is not None and wait <= 0 and not waits
    return Decision(
        allowed=allowed,
        reason=None if allowed else reason,
        retry_after=wait,
        remaining=None if binding is None else binding.remaining,
        reset_after=0.0 if binding is None else binding.reset_after,
        limit=None if binding is None else binding.policy.limit,
        policy=None if binding is None else binding.policy,
    )
