"""What a limiter lets pass: its buckets, its slots and its pause, decided in one step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import final

import anyio

from .._policies.bucket import Bucket, WallClockBucket, complete, goes_by_utc
from .._policies.checks import unit_of
from .._policies.policy import Cost, Policy, seconds_until
from .cost import amounts_of, by_unit
from .holding import Slot
from .turn import Charge, KeptTurn, Turn

#: The end of a pause that there is not.
NEVER = -inf

#: More charges than a call has that is corrected now and then.
_MANY = 64


@final
class Gate:
    """
    The state of a limiter, with the time passed in.

    All or nothing: what is refused charges nothing.

    :param policies: the policies, each of which must agree
    :param slots: how many may hold a slot at once, infinity for no bound; ignored with ``capacity``
    :param capacity: a capacity limiter that the user brought, whose slots others may use too

    """

    __slots__ = (
        "__weakref__",
        "_slotless",
        "_slots",
        "buckets",
        "capacities",
        "capacity",
        "charged",
        "credits",
        "holds",
        "holds_charges",
        "only",
        "paused_until",
        "policies",
        "slow",
        "units",
        "utc_buckets",
    )

    policies: tuple[Policy, ...]
    #: What each of them counts.
    units: tuple[str, ...]
    buckets: list[Bucket]
    #: The most that can be charged at once, for each policy.
    capacities: list[float]
    #: Whether a charge is held while a call runs, and whether anything is.
    holds_charges: bool
    holds: bool
    #: The bucket, if it alone decides, and nothing is held.
    only: Bucket | None
    #: Whether it makes a difference to a bucket since when a charge has been due.
    credits: bool
    #: Whether the methods of a bucket may take their time.
    slow: bool
    #: Those which have to be told what UTC is.
    utc_buckets: list[WallClockBucket]

    def __init__(
        self,
        policies: tuple[Policy, ...],
        slots: float = inf,
        capacity: anyio.CapacityLimiter | None = None,
    ) -> None:
        self.paused_until = NEVER
        self.capacity: anyio.CapacityLimiter | None = None
        #: The turns that hold what they were charged, and a slot: granted, and not ended yet.
        self.charged: set[Turn] = set()
        #: Those of them for whom there was no slot when the slots were exchanged.
        self._slotless: set[Turn] = set()
        self.set_slots(slots, capacity)
        self.set_policies(policies, [complete(policy.bucket()) for policy in policies])

    def set_slots(self, slots: float, capacity: anyio.CapacityLimiter | None) -> None:
        """
        Bound how many may hold a slot from now on; :meth:`set_policies` is to be called next.

        Calls that run hold a slot of the new ones, as far as there are enough.
        """
        self._slots = slots
        if capacity is self.capacity:
            return

        self._slotless.clear()
        for turn in self.charged:
            self._return_slot_of(turn)

        self.capacity = capacity
        if capacity is not None:
            self._slotless = set(self.charged)
            self._fill_slotless()

    def set_policies(self, policies: tuple[Policy, ...], buckets: list[Bucket]) -> None:
        """Decide by these from now on."""
        self.policies = policies
        self.units = tuple(unit_of(policy.unit) for policy in policies)
        self.buckets = buckets
        self.capacities = [bucket.capacity for bucket in buckets]
        self.holds_charges = any(policy.holds for policy in policies)
        self.holds = self._slots < inf or self.capacity is not None or self.holds_charges
        self.only = buckets[0] if len(buckets) == 1 and not self.holds else None
        self.utc_buckets = [bucket for bucket in buckets if goes_by_utc(bucket)]
        self.slow = not all(bucket.quick for bucket in buckets)
        self.credits = any(bucket.uses_since for bucket in buckets)

    def amounts(self, cost: Cost) -> tuple[int, ...]:
        """Return what a cost charges to each policy; raises as :func:`amounts_of`."""
        return amounts_of(cost, self.units, self.capacities)

    def delay(self, amounts: Sequence[int], now: float) -> float:
        """
        Tell how long a turn has to wait.

        A capacity limiter's slots are not considered: :meth:`take` finds out.

        :return: seconds; 0 if it is due, infinity if not before something is let go

        """
        if len(self.charged) >= self._slots:
            return inf

        longest = 0.0 if self.paused_until <= now else seconds_until(now, self.paused_until)
        # Here and below by index where it is often: zip() would cost as much as a bucket.
        for index, bucket in enumerate(self.buckets):
            if amounts[index]:
                delay = bucket.delay(now, amounts[index])
                if delay > longest:
                    longest = delay

        return longest

    def due_since(self, amounts: Sequence[int], earliest: float, now: float) -> float:
        """
        Tell since when a turn that is due has been due by all the buckets.

        :param earliest: before which it could not have gone for other reasons
        :return: an instant, at most ``now``

        """
        if earliest >= now:
            return now

        since = earliest
        for bucket, amount in zip(self.buckets, amounts, strict=True):
            if amount:
                since = max(since, earliest + bucket.delay(earliest, amount))

        return min(since, now)

    def take(self, turn: Turn, now: float, since: float, spare: object = None) -> bool:
        """
        Charge a turn that is due; nothing is charged if a capacity limiter has no slot left.

        :param since: since when it has been due
        :param spare: on whose behalf a slot has been borrowed already, for this turn to have
        :return: whether the turn was charged

        """
        if spare is not None:
            turn.slot = spare
        elif self.capacity is not None and not self._borrow_slot(turn):
            return False

        # What is due is past any pause. Noted, so that the short way is open again.
        self.paused_until = NEVER
        amounts = turn.amounts
        for index, bucket in enumerate(self.buckets):
            if amounts[index]:
                bucket.take(now, amounts[index], since)

        self.charged.add(turn)
        turn.granted = True
        turn.due = since
        return True

    def pass_now(self, turn: Turn, now: float) -> bool:
        """
        Let the call of a turn begin if it is due; tell whether it has begun.

        The same as :meth:`delay`, :meth:`take` and :meth:`start` in one, for a turn that ends,
        while there is no pause, and no bucket is :attr:`slow`.
        """
        amounts = turn.amounts
        only = self.only
        if only is not None and (amount := amounts[0]) and only.take_free(amount):
            # Nearly always so: by half the calls.
            self.charged.add(turn)
            turn.granted = True
            turn.began = now
            turn.charges = [Charge(only, amount, only.start(now, amount), now)]
            return True

        if len(self.charged) >= self._slots:
            return False

        for index, bucket in enumerate(self.buckets):
            if amounts[index] and bucket.delay(now, amounts[index]) > 0:
                return False

        if self.capacity is not None and not self._borrow_slot(turn):
            return False

        self.charged.add(turn)
        turn.granted = True
        turn.began = now
        charges: list[Charge] = []
        for index, bucket in enumerate(self.buckets):
            if amount := amounts[index]:
                bucket.take(now, amount, now)
                charges.append(Charge(bucket, amount, bucket.start(now, amount), now))

        turn.charges = charges
        return True

    def start_slow(self, turn: Turn, now: float) -> None:
        """Let the call of a charged turn begin for buckets that may take their time."""
        turn.charges = [
            Charge(bucket, amount, bucket.start(now, amount), now)
            for bucket, amount in zip(self.buckets, turn.amounts, strict=True)
            if amount and not bucket.quick
        ]

    def start(self, turn: Turn, now: float) -> None:
        """Let the call of a charged turn begin, after :meth:`start_slow` if that is needed."""
        amounts = turn.amounts
        started = turn.charges
        turn.began = now
        if not turn.ends:
            self.charged.discard(turn)
            turn.granted = False
            for index, bucket in enumerate(self.buckets):
                if amounts[index] and (bucket.quick or not started):
                    bucket.start(now, amounts[index])
        else:
            turn.charges = started + [
                Charge(bucket, amounts[index], bucket.start(now, amounts[index]), now)
                for index, bucket in enumerate(self.buckets)
                if amounts[index] and (bucket.quick or not started)
            ]

    def release(self, turn: Turn, now: float) -> None:
        """Let the call of a started turn end: what it holds is let go."""
        if self.holds_charges:
            for charge in turn.charges:
                if charge.counted is None:
                    charge.receipt = charge.bucket.release(now, charge.amount, charge.receipt)

        self.let_go(turn)

    def keep(self, turn: Turn) -> KeptTurn:
        """Let another turn hold from now on what a turn holds whose call goes on."""
        kept = turn.kept()
        self.charged.remove(turn)
        self.charged.add(kept)
        if turn in self._slotless:
            self._slotless.remove(turn)
            self._slotless.add(kept)

        return kept

    def mark_counted(self, turn: Turn, now: float, units: Collection[str]) -> None:
        """
        Let the call of a turn that runs count from now on, in some units, as if it ended.

        What it is charged later is held until it ends, or is marked too.

        :param units: which units; all if there is none
        """
        cost = by_unit(turn.cost)
        if all(mark[1:] != (units, cost) for mark in turn.marks):
            turn.marks = [*turn.marks, (now, units, cost)]

        for policy, unit, bucket in zip(self.policies, self.units, self.buckets, strict=True):
            if not units or unit in units:
                for charge in turn.charges:
                    if charge.bucket is bucket and charge.counted is None:
                        charge.counted = now
                        if policy.holds:
                            receipt = bucket.release(now, charge.amount, charge.receipt)
                            charge.receipt = receipt

    def give_back(self, turn: Turn, now: float) -> None:
        """Undo the charge of a turn whose call has not begun, and let go its slot."""
        turn.told = False
        for bucket, amount in zip(self.buckets, turn.amounts, strict=True):
            if amount:
                bucket.give_back(now, amount, None)

        self.let_go(turn)

    def give_back_all(self, turns: Sequence[Turn], now: float) -> None:
        """
        Undo the charges of all the turns whose calls have not begun, and let go their slots.

        They are to be granted anew at once, if they still may be.
        """
        for index, bucket in enumerate(self.buckets):
            amounts = [turn.amounts[index] for turn in turns if turn.amounts[index]]
            if amounts:
                bucket.give_back_held(now, amounts)

        for turn in turns:
            self.let_go(turn)

    def settle(self, turn: Turn, now: float, unit: str, change: int) -> None:
        """
        Correct the charge of a turn whose call has begun; its slot stays.

        :param change: by how much; below zero, what is still out comes back, the latest first

        """
        count = len(turn.charges)
        if count > _MANY and count % _MANY < len(self.buckets):
            # Now and then: of those that have come back, nothing can be given back.
            turn.charges = _merged(turn.charges, now)

        for counted, bucket in zip(self.units, self.buckets, strict=True):
            if counted == unit and change > 0:
                turn.charges.append(self.charge(bucket, now, change, ended=not turn.granted))
            elif counted == unit:
                excess = -change
                for charge in reversed([c for c in turn.charges if c.bucket is bucket]):
                    part = min(excess, charge.amount)
                    if part:
                        bucket.give_back(now, part, charge.receipt)
                        charge.amount -= part
                        excess -= part

    @staticmethod
    def charge(bucket: Bucket, now: float, amount: int, *, ended: bool = True) -> Charge:
        """Charge an amount at once, due or not, to a call that runs or to none."""
        bucket.take(now, amount)
        receipt = bucket.start(now, amount)
        if ended:
            receipt = bucket.release(now, amount, receipt)

        return Charge(bucket, amount, receipt, now)

    def penalize(self, now: float, amounts: Mapping[str, int]) -> None:
        """Charge amounts by unit at once, due or not."""
        for unit, bucket in zip(self.units, self.buckets, strict=True):
            if amount := amounts.get(unit):
                self.charge(bucket, now, amount)

    def change_loops(self, shift: float) -> None:
        """Go over to another loop: its clock is ahead by ``shift``, and nobody holds anything."""
        self.paused_until += shift
        for bucket in self.buckets:
            bucket.forget_held()
            bucket.shift(shift)

        dead, self.charged = self.charged, set()
        self._slotless.clear()
        for turn in dead:
            # A capacity limiter of a loop that is closed cannot wake its waiters any more.
            with suppress(RuntimeError):
                self._return_slot_of(turn)

    def return_slot(self, slot: object) -> None:
        """Return a capacity limiter's slot that no turn has got."""
        assert self.capacity is not None
        self.capacity.release_on_behalf_of(slot)

    def hand_on(self, slot: object) -> object:
        """Give a slot that was borrowed to a call that runs without one, else return it."""
        if not self._slotless:
            return slot

        self._slotless.pop().slot = slot
        return None

    def full(self) -> bool:
        """Tell whether no slot could be had now."""
        if self.capacity is None:
            return self.is_crowded()

        statistics = self.capacity.statistics()
        return statistics.borrowed_tokens >= statistics.total_tokens or statistics.tasks_waiting > 0

    def is_crowded(self) -> bool:
        """Tell whether all its own slots are taken, or more, as there were more of them."""
        return self.capacity is None and len(self.charged) >= self._slots

    def starved(self, ahead: int) -> bool:
        """Tell whether there is no slot left for who comes after so many others."""
        if self.capacity is not None:
            return self.capacity.available_tokens <= ahead

        return len(self.charged) + ahead >= self._slots

    @property
    def borrowed(self) -> int:
        """How many hold a slot, or a charge, now."""
        return len(self.charged) if self.holds else 0

    @property
    def kept(self) -> int:
        """How many calls go on whose functions have returned."""
        return sum(isinstance(turn, KeptTurn) for turn in self.charged)

    @property
    def slots(self) -> float:
        """How many may hold a slot at once."""
        return self._slots if self.capacity is None else self.capacity.total_tokens

    def idle_in(self, now: float) -> float:
        """Tell in how many seconds there is nothing left to remember, if nobody comes."""
        if self.charged:
            return inf

        resets = (bucket.reset_after(now) for bucket in self.buckets)
        return max([seconds_until(now, self.paused_until), *resets])

    def _borrow_slot(self, turn: Turn) -> bool:
        """Borrow a slot that is shared for a turn; tell whether there was one."""
        self._fill_slotless()
        turn.slot = self._new_slot()
        return turn.slot is not None

    def _fill_slotless(self) -> None:
        while self._slotless and (slot := self._new_slot()) is not None:
            self._slotless.pop().slot = slot

    def _new_slot(self) -> object:
        assert self.capacity is not None
        slot = Slot(self.capacity)
        try:
            self.capacity.acquire_on_behalf_of_nowait(slot)
        except anyio.WouldBlock:
            return None

        return slot

    def _return_slot_of(self, turn: Turn) -> None:
        self._slotless.discard(turn)
        if turn.slot is not None:
            slot, turn.slot = turn.slot, None
            if self._slotless:
                self._slotless.pop().slot = slot
            else:
                self.return_slot(slot)

    def let_go(self, turn: Turn) -> None:
        """Let a turn hold nothing any more; what it was charged stays so."""
        turn.granted = False
        self.charged.discard(turn)
        if self.capacity is not None:
            self._return_slot_of(turn)


def _merged(charges: list[Charge], now: float) -> list[Charge]:
    """
    Return charges in which those that have come back are one for each bucket.

    A call that runs has to hold them too, should a policy come that measures from the end.
    """
    kept: list[Charge] = []
    merged: dict[tuple[int, bool], Charge] = {}
    for charge in charges:
        key = (id(charge.bucket), charge.counted is None)
        if charge.receipt > now:
            kept.append(charge)
        elif key in merged:
            into = merged[key]
            into.amount += charge.amount
            into.since = min(into.since, charge.since)
            if into.counted is not None and charge.counted is not None:
                into.counted = max(into.counted, charge.counted)
        else:
            merged[key] = charge

    return [*merged.values(), *kept]
