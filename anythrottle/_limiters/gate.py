"""What the line needs to know of a limiter."""

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

    All or nothing: what is refused charges nothing. What a turn was charged it holds, with a slot,
    until its call begins, or ends.
    """

    slots: Slots
    policies: tuple[Policy, ...]
    units: tuple[str, ...]
    paused_until: float
    """Until when nobody passes: :data:`NEVER` if nothing is known to be in the way."""
    holds_charges: bool
    """Whether a charge is held while a call runs."""
    holds: bool
    """Whether anything is: a charge, or a slot."""
    credits: bool
    """Whether it makes a difference since when a turn has been due."""
    slow: bool
    """Whether the methods may take their time, as they call code of a user's own."""

    has_short_way: bool
    """Whether calls may pass without a turn, by :meth:`hold`, while there is no pause."""
    buckets: tuple[Bucket, ...]
    """What such calls hold something in: other ones once the policies are exchanged."""
    only: Bucket | None
    """The bucket that alone decides on such calls, and counts calls: it may be asked itself."""

    def pause_until(self, instant: float) -> None:
        """Let nobody pass before an instant; of overlapping pauses, the later end holds."""
        ...

    def resume(self, now: float) -> bool:
        """End any pause; return whether there was one."""
        ...

    def penalize(self, now: float, amounts: Mapping[str, int]) -> None:
        """Charge amounts by unit at once, due or not."""
        ...

    def tighten(self, now: float, remaining: int, reset_after: float | None, unit: str) -> None:
        """Let at most so much of a unit be taken before a server counts anew."""
        ...

    def amounts(self, cost: Cost) -> tuple[int, ...]:
        """Return what a cost charges to each policy; raises as :func:`amounts_of`."""
        ...

    def notice(self, now: float) -> None:
        """Notice what else has changed by ``now``, such as UTC, while nobody is in line."""
        ...

    def delay(self, amounts: Sequence[int], now: float) -> float:
        """
        Return how long a turn has to wait.

        Shared slots are not considered: :meth:`take` finds out.

        :return: seconds; 0 if it is due, infinity if not before something is let go, or comes

        """
        ...

    def due_since(self, amounts: Sequence[int], earliest: float, now: float) -> float:
        """
        Return since when a turn that is due has been due.

        :param earliest: before which it could not have gone for other reasons
        :return: an instant, at most ``now``

        """
        ...

    def take(self, turn: Turn, now: float, since: float, spare: object = None) -> bool:
        """
        Charge a turn that is due; nothing is charged if there is no shared slot left.

        :param since: since when it has been due
        :param spare: what a shared slot has been borrowed for already, for this turn to have
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
        """Return whether the call of a turn that was charged may begin by now."""
        ...

    def hold(self, amounts: Sequence[int], now: float) -> float:
        """
        Hold what a call costs in :attr:`buckets` if it is due; no pause is under way.

        A short way: :meth:`delay` and :meth:`take` in one, for a call without a turn.

        :return: what :meth:`delay` returns: 0 if it is held
        """
        ...

    def start_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> bool:
        """
        Let the call begin if it still may; return whether it has begun.

        :param held: the buckets in which it is held
        """
        ...

    def give_back_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> None:
        """Give back what is held for a call that does not begin."""
        ...

    def start_slow(self, turn: Turn, now: float) -> None:
        """Let the call of a charged turn begin, as far as that may take its time."""
        ...

    def start(self, turn: Turn, now: float) -> None:
        """Let the call of a charged turn begin, after :meth:`start_slow` if that is needed."""
        ...

    def release(self, turn: Turn, now: float) -> None:
        """Let the call of a started turn end: what it holds is let go."""
        ...

    def mark_counted(self, turn: Turn, now: float, units: Collection[str]) -> None:
        """
        Let a call that runs count from now on, in some units, as if it ended.

        :param units: which units; all if there is none
        """
        ...

    def give_back(self, turn: Turn, now: float) -> None:
        """Undo the charge of a turn whose call has not begun, and let go its slot."""
        ...

    def give_back_all(self, turns: Sequence[Turn], now: float) -> None:
        """Undo the charges of all turns whose calls have not begun, which go again if they may."""
        ...

    def settle(self, turn: Turn, now: float, unit: str, change: int) -> None:
        """
        Correct the charge of a turn whose call has begun; its slot stays.

        :param change: by how much; below zero, what is still out comes back, the latest first

        """
        ...

    def quotas(self, now: float, *, here: bool) -> tuple[PolicyState, ...]:
        """
        Return what each policy has left.

        :param here: whether ``now`` is told by the clock that all will go by which comes next
        """
        ...

    def change_loops(self, shift: float) -> None:
        """Go over to another loop: its clock is ahead by ``shift``, and nothing is held."""
        ...


class Outlook(Protocol):
    """Foresees when turns will go, as far as its gate lets it; it comes with that."""

    @property
    def tables(self) -> Collection[object]:
        """What has been foreseen. While that is nothing, no note need be taken of what happens."""
        ...

    def invalidate(self) -> None:
        """Forget what was foreseen: something has happened that could not be."""
        ...

    def note_newcomer(self, turn: Turn) -> None:
        """Note that a turn is about to join those in line."""
        ...

    def note_leaving(self, turn: Turn) -> None:
        """Note that a turn has left those in line."""
        ...

    def note_grants(self, now: float, late: float) -> None:
        """Note that turns have been granted at the front, so many seconds late."""
        ...

    def note_end(self) -> None:
        """Note that a call has ended, and by that has let its charge go."""
        ...

    def is_hopeless(
        self, amounts: Sequence[int], now: float, priority: float, latest: float
    ) -> bool:
        """Return whether a newcomer surely cannot go by the instant ``latest``."""
        ...

    def decide(self, amounts: Sequence[int], now: float, priority: float = 0) -> Decision:
        """Return what a newcomer would meet."""
        ...
