"""What the line needs to know of a limiter: its gate, and what that foresees."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from .._policies.bucket import Bucket
from .._policies.policy import Cost, Decision, Policy, PolicyState
from .slots import Slots
from .turn import Turn

#: The end of a pause that there is not.
NEVER = float("-inf")


class Gate(Protocol):
    """
    Decides whether a turn may pass, with the time passed in. It never waits.

    All or nothing: a turn that is refused is charged nothing. A turn holds what it was charged,
    with a slot, until its call begins, or ends.
    """

    slots: Slots
    policies: tuple[Policy, ...]
    units: tuple[str, ...]
    holds_charges: bool
    """Whether a charge is held while a call runs."""
    holds: bool
    """Whether anything is held while a call runs: a charge, or a slot."""
    counts_ends: bool
    """Whether it has to know of each end of a call, even if no turn waits for it."""
    credits: bool
    """Whether it matters since when a turn has been due."""
    slow: bool
    """Whether the methods may take their time, because they call code of a user's own."""

    answers_later: bool
    """Whether only an answer that is yet to come says if a turn can go by some instant.

    So nothing that is let go here lets the head go."""

    has_short_way: bool
    """Whether calls may pass without a turn, by :meth:`hold`, while there is no pause."""
    buckets: tuple[Bucket, ...]
    """What such calls hold something in: other buckets once the policies are exchanged."""
    only: Bucket | None
    """The bucket that alone decides on such calls, and counts calls: it may be asked directly."""

    @property
    def paused_until(self) -> float:
        """Until when no turn passes: :data:`NEVER` if no pause is known."""
        ...

    def pause_until(self, instant: float) -> None:
        """Hold up all turns until an instant; of overlapping pauses, the later end holds."""

    def resume(self, now: float) -> bool:
        """End any pause; return whether there was one."""
        ...

    def penalize(self, now: float, amounts: Mapping[str, int]) -> None:
        """Charge amounts by unit at once, due or not."""

    def tighten(self, now: float, remaining: int, reset_after: float | None, unit: str) -> None:
        """Allow at most ``remaining`` of a unit before a server counts anew."""

    def amounts(self, cost: Cost) -> tuple[int, ...]:
        """Return what a cost charges to each policy; raises as :func:`amounts_of`."""
        ...

    def notice(self, now: float) -> None:
        """Notice what else has changed by ``now``, such as UTC, while the line is empty."""

    def delay(self, amounts: Sequence[int], now: float) -> float:
        """
        Return how long a turn has to wait.

        Shared slots are not considered: :meth:`take` finds out.

        :return: seconds; 0 if the turn is due, infinity if not before something is let go, or comes

        """
        ...

    def is_stuck(self, amounts: Sequence[int], now: float) -> bool:
        """Return whether a turn cannot go before something is let go that is held here."""
        ...

    def await_answer(self, turn: Turn, latest: float) -> None:
        """Note that a turn in line is to be refused if the answer says it cannot go by then."""

    def due_since(self, amounts: Sequence[int], earliest: float, now: float) -> float:
        """
        Return since when a turn that is due has been due.

        :param earliest: the instant before which it could not go for other reasons
        :return: an instant, at most ``now``

        """
        ...

    def take(self, turn: Turn, now: float, since: float, spare: object = None) -> bool:
        """
        Charge a turn that is due; nothing is charged if there is no shared slot left.

        :param since: since when the turn has been due
        :param spare: what a shared slot has been borrowed for already, on behalf of this turn
        :return: whether the turn was charged

        """
        ...

    def take_if_due(self, turn: Turn, now: float) -> float:
        """
        Charge a turn if it is due at once: :meth:`delay` and :meth:`take` in one.

        :return: what :meth:`delay` returns; the turn says whether it was granted
        """
        ...

    def may_start(self, turn: Turn, now: float) -> bool:
        """Return whether the call of a turn that was charged may begin now."""
        ...

    def hold(self, amounts: Sequence[int], now: float) -> float:
        """
        Hold what a call costs in :attr:`buckets`, if it is due, while no pause is under way.

        A short way: :meth:`delay` and :meth:`take` in one, for a call without a turn.

        :return: what :meth:`delay` returns: 0 if it is held
        """
        ...

    def start_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> bool:
        """
        Begin a call without a turn if it still may; return whether it has begun.

        :param held: the buckets in which its cost is held
        """
        ...

    def give_back_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> None:
        """Give back what is held for a call that does not begin."""

    def start_slow(self, turn: Turn, now: float) -> None:
        """Begin the call of a charged turn in those buckets that may take their time."""

    def start(self, turn: Turn, now: float) -> None:
        """Begin the call of a charged turn, after :meth:`start_slow` if the gate is slow."""

    def release(self, turn: Turn, now: float) -> None:
        """End the call of a started turn: what it holds is let go."""

    def mark_counted(self, turn: Turn, now: float, units: Collection[str]) -> None:
        """
        Count a running call from now on, in some units, as if it ended.

        :param units: which units; all if none is named
        """

    def give_back(self, turn: Turn, now: float) -> None:
        """Undo the charge of a turn whose call has not begun, and let its slot go."""

    def give_back_all(self, turns: Sequence[Turn], now: float) -> None:
        """Undo the charges of all turns whose calls have not begun; they go again if they may."""

    def settle(self, turn: Turn, now: float, unit: str, change: int) -> None:
        """
        Correct the charge of a turn whose call has begun; its slot stays.

        :param change: by how much; below zero, what is still out comes back, the latest first

        """

    def quotas(self, now: float, *, here: bool) -> tuple[PolicyState, ...]:
        """
        Return what each policy has left.

        :param here: whether ``now`` is of the clock by which all that comes next will go; then what
            has come back may be dropped
        """
        ...

    def change_loops(self, shift: float) -> None:
        """Go over to another loop, whose clock is ahead by ``shift``: nothing is held any more."""


class Outlook(Protocol):
    """Foresees when turns will go, as far as its gate allows; it comes with the gate."""

    @property
    def tables(self) -> Collection[object]:
        """What has been foreseen. While it is empty, nothing that happens need be noted."""
        ...

    def invalidate(self) -> None:
        """Forget what was foreseen: something has happened that could not be."""

    def note_newcomer(self, turn: Turn) -> None:
        """Note that a turn is about to join those in line."""

    def note_leaving(self, turn: Turn) -> None:
        """Note that a turn has left those in line."""

    def note_grants(self, now: float, late: float) -> None:
        """Note that turns have been granted at the front, ``late`` seconds after they were due."""

    def note_end(self) -> None:
        """Note that a call has ended, and so has let its charge go."""

    def is_hopeless(
        self, amounts: Sequence[int], now: float, priority: float, latest: float
    ) -> bool:
        """Return whether a newcomer surely cannot go by the instant ``latest``."""
        ...

    def decide(self, amounts: Sequence[int], now: float, priority: float = 0) -> Decision:
        """Return whether a newcomer could go now; if not, why, and when it could."""
        ...
