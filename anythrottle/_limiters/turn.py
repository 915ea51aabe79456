"""One call's way through a limiter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import TypeAlias, final

from .._loops.event_loop import EventLoop, Parked
from .._policies.bucket import Bucket
from .._policies.policy import Cost

#: A place in line: the priority, then the order of arrival.
Place: TypeAlias = tuple[float, int]

#: The place of a turn that has none yet.
NOWHERE: Place = (inf, 0)

#: The charges of a call that has not begun. Never changed, so that one list serves for all.
_NOTHING: list[Charge] = []

#: When a call was marked as counted, in which units (none: in all), and what it cost then, by unit.
Mark: TypeAlias = tuple[float, Collection[str], Mapping[str, int]]

#: The priority of calls that go again: before all others.
FRONT = -inf


@final
class Charge:
    """
    What the call of a turn has been charged to one bucket.

    :ivar bucket: the bucket
    :ivar amount: how much of the charge has not been given back
    :ivar receipt: what the bucket gave for it
    :ivar since: the instant from which on it counts, unless it is held
    :ivar counted: when its server had counted it for sure, if the call was marked as counted

    """

    __slots__ = ("amount", "bucket", "counted", "receipt", "since")

    def __init__(
        self,
        bucket: Bucket,
        amount: int,
        receipt: float,
        since: float,
        counted: float | None = None,
    ) -> None:
        self.bucket = bucket
        self.amount = amount
        self.receipt = receipt
        self.since = since
        self.counted = counted


class Turn(Parked):
    """
    A turn: its place in line, then what it was granted.

    :ivar cost: what the call costs, as its caller has said or later corrected
    :ivar amounts: what that is for each policy in order
    :ivar ends: whether the limiter is told when the call has ended
    :ivar loop: the event loop in which the turn waits
    :ivar place: its place in line, from its arrival on; :data:`NOWHERE` before
    :ivar in_line: whether it is in line
    :ivar came: when it came; once it is granted, when that was
    :ivar due: once it is granted, when it fell due: earlier than that, if timers were late
    :ivar told: whether the observer has been told that it is granted
    :ivar give_up: the instant at which it will not wait any longer, by itself
    :ivar latest: the instant after which it is not to be granted any more: it will have given up,
        or its scope will have ended
    :ivar granted: whether it has been charged and holds that, and a slot
    :ivar slot: on whose behalf a slot of a capacity limiter was borrowed
    :ivar began: when the call has begun; infinity before
    :ivar task_id: AnyIO's id of the task that has begun the call, if it holds something
    :ivar charges: what the call was charged, if the limiter is told of its end
    :ivar marks: when and how the call was marked as counted
    :ivar may_be_shed: whether it is refused if another turn comes that goes before it, and too many
        wait
    :ivar error: why it can never be granted, if it cannot since the limiter was reconfigured

    """

    __slots__ = (
        "amounts",
        "began",
        "came",
        "charges",
        "cost",
        "due",
        "ends",
        "error",
        "give_up",
        "granted",
        "in_line",
        "latest",
        "loop",
        "marks",
        "may_be_shed",
        "place",
        "slot",
        "task_id",
        "told",
    )

    def __init__(self, cost: Cost, amounts: Sequence[int], *, ends: bool) -> None:
        self.parked = None
        # A copy, because its owner may use the mapping again, with other amounts.
        self.cost: Cost = cost if isinstance(cost, int) else dict(cost)
        self.amounts = amounts
        self.ends = ends
        self.loop: EventLoop | None = None
        self.place = NOWHERE
        self.in_line = False
        self.came = -inf
        self.due = inf
        self.told = False
        self.give_up = self.latest = inf
        self.granted = False
        self.slot: object = None
        self.began = inf
        self.task_id = 0
        self.charges: list[Charge] = _NOTHING
        self.marks: Sequence[Mark] = ()
        self.error: Exception | None = None
        self.may_be_shed = False

    def wake(self) -> None:
        """Wake the task that waits, if there is one."""
        if self.parked is not None:
            assert self.loop is not None
            self.loop.wake(self)

    def kept(self) -> KeptTurn:
        """Return a turn that takes over what this one holds."""
        kept = KeptTurn(self.cost, self.amounts, ends=True)
        kept.loop = self.loop
        kept.began = self.began
        kept.charges = self.charges
        kept.marks = self.marks
        kept.granted, self.granted = self.granted, False
        kept.slot, self.slot = self.slot, None
        return kept

    def counted(self, unit: str) -> list[tuple[float, int]]:
        """Return when how much of the call, in a unit, had been counted by its server for sure."""
        parts: list[tuple[float, int]] = []
        counted = 0
        for instant, units, cost in self.marks:
            amount = cost.get(unit, 1 if unit == "calls" else 0)
            if amount > counted and (not units or unit in units):
                parts.append((instant, amount - counted))
                counted = amount

        return parts


@final
class KeptTurn(Turn):
    """
    The turn of a call that goes on after its function has returned.

    It is all that a limiter knows of such a call, because the permit belongs to the code that is to
    end it.
    """

    __slots__ = ()
