"""The gate of a limiter in this process: its buckets, its slots and its pause, in one decision."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import final

from .._loops.clock import LoopClock
from .._policies.bucket import Bucket, complete, goes_by_utc
from .._policies.checks import unit_of
from .._policies.policy import Cost, Policy, PolicyState, seconds_until
from .cost import amounts_of, by_unit
from .gate import NEVER
from .slots import Slots
from .turn import Charge, Turn

_CALLS = ("calls",)
_ONE = (1,)

#: More charges than a call has that is corrected now and then.
_MANY = 64


@final
class LocalGate:
    """
    A :class:`.Gate` with buckets of its own.

    :param policies: the policies, each of which must agree to a call
    :param slots: the slots
    :param clock: the limiter's clock, which knows UTC too

    """

    __slots__ = (
        "_one",
        "buckets",
        "clock",
        "counts_ends",
        "credits",
        "has_short_way",
        "holds",
        "holds_charges",
        "only",
        "paused_until",
        "policies",
        "single",
        "slots",
        "slow",
        "units",
        "utc_buckets",
    )

    answers_later = False

    def __init__(self, policies: tuple[Policy, ...], slots: Slots, clock: LoopClock) -> None:
        self.paused_until = NEVER
        self.slots = slots
        self.clock = clock
        self.set_policies(policies, [complete(policy.bucket()) for policy in policies])

    def set_policies(self, policies: tuple[Policy, ...], buckets: Sequence[Bucket]) -> None:
        """Decide by these policies from now on, and by what the slots have become."""
        self.policies = policies
        units = tuple(unit_of(policy.unit) for policy in policies)
        # The same tuple for most limiters, of which there may be many.
        self.units = _CALLS if units == _CALLS else units
        self.buckets = tuple(buckets)
        #: The buckets that have to be told what UTC is.
        self.utc_buckets = tuple(bucket for bucket in buckets if goes_by_utc(bucket))
        self.holds_charges = any(policy.holds for policy in policies)
        self.counts_ends = self.holds_charges
        self.holds = self.slots.bounded or self.holds_charges
        self.credits = any(bucket.uses_since for bucket in buckets)
        self.slow = not all(bucket.quick for bucket in buckets)
        #: The bucket, if there is only one, and it is no slow one.
        self.single = buckets[0] if len(buckets) == 1 and not self.slow else None
        self.has_short_way = not (self.holds or self.slow)
        self.only = self.single if self.has_short_way and self.units == _CALLS else None
        #: What a cost of 1 comes to, if each policy counts calls.
        self._one: tuple[int, ...] | None = None
        if all(unit == "calls" for unit in self.units):
            one = amounts_of(1, self.units, self.capacities)
            self._one = _ONE if one == _ONE else one

    @property
    def capacities(self) -> tuple[float, ...]:
        """The most that can be charged at once, for each policy; not kept, to save memory."""
        return tuple([bucket.capacity for bucket in self.buckets])

    def pause_until(self, instant: float) -> None:
        self.paused_until = max(self.paused_until, instant)

    def resume(self, now: float) -> bool:
        paused = self.paused_until > now
        if paused:
            # The instant is kept: what is due is due no earlier than this.
            self.paused_until = now

        return paused

    def amounts(self, cost: Cost) -> tuple[int, ...]:
        if self._one is not None and type(cost) is int and cost == 1:
            return self._one

        return amounts_of(cost, self.units, self.capacities)

    def notice(self, now: float) -> None:
        for bucket in self.utc_buckets:
            bucket.set_utc(now, self.clock.utc(now))

    def delay(self, amounts: Sequence[int], now: float) -> float:
        if self.holds and not self.slots.may_have_one():
            return inf

        longest = 0.0 if self.paused_until <= now else seconds_until(now, self.paused_until)
        # By index here and on other hot ways: zip() costs as much as a bucket does.
        for index, bucket in enumerate(self.buckets):
            if amounts[index]:
                delay = bucket.delay(now, amounts[index])
                if delay > longest:
                    longest = delay

        return longest

    def is_stuck(self, amounts: Sequence[int], now: float) -> bool:
        return self.paused_until < inf and self.delay(amounts, now) == inf

    def await_answer(self, turn: Turn, latest: float) -> None:
        """Do nothing: all that is to be known is known."""

    def due_since(self, amounts: Sequence[int], earliest: float, now: float) -> float:
        if earliest >= now:
            return now

        since = earliest
        for bucket, amount in zip(self.buckets, amounts, strict=True):
            if amount:
                since = max(since, earliest + bucket.delay(earliest, amount))

        return min(since, now)

    def take(self, turn: Turn, now: float, since: float, spare: object = None) -> bool:
        if not self.slots.take(turn, spare):
            return False

        # A turn that is due is past any pause. Forgetting that opens the short way again.
        self.paused_until = NEVER
        amounts = turn.amounts
        for index, bucket in enumerate(self.buckets):
            if amounts[index]:
                bucket.take(now, amounts[index], since)

        turn.due = since
        return True

    def take_if_due(self, turn: Turn, now: float) -> float:
        single, slots = self.single, self.slots
        if (
            single is None
            or slots.shared is not None
            or self.paused_until > now
            or (self.holds and not slots.may_have_one())
            or not single.take_free(turn.amounts[0])
        ):
            delay = self.delay(turn.amounts, now)
            if delay <= 0:
                self.take(turn, now, now)

            return delay

        # The common case; saves half of the function calls.
        slots.holders[turn] = None
        self.paused_until = NEVER
        turn.granted = True
        turn.due = now
        return 0.0

    def may_start(self, turn: Turn, now: float) -> bool:  # noqa: ARG002 - all turns alike
        return self.paused_until <= now

    def hold(self, amounts: Sequence[int], now: float) -> float:
        if self.utc_buckets:
            self.notice(now)

        delay = self.delay(amounts, now)
        if delay <= 0:
            for index, bucket in enumerate(self.buckets):
                if amounts[index]:
                    bucket.take(now, amounts[index], now)

        return delay

    def start_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> bool:
        if held is not self.buckets or self.paused_until != NEVER:
            return False

        if self.only is not None:
            if amounts[0]:
                self.only.start(now, amounts[0])

            return True

        for index, bucket in enumerate(self.buckets):
            if amounts[index]:
                bucket.start(now, amounts[index])

        return True

    def give_back_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> None:
        for bucket, amount in zip(held, amounts, strict=True):
            # Buckets that have been replaced count no more.
            if amount and any(each is bucket for each in self.buckets):
                bucket.give_back(now, amount, None)

    def start_slow(self, turn: Turn, now: float) -> None:
        turn.charges = [
            Charge(bucket, amount, bucket.start(now, amount), now)
            for bucket, amount in zip(self.buckets, turn.amounts, strict=True)
            if amount and not bucket.quick
        ]

    def start(self, turn: Turn, now: float) -> None:
        turn.began = now
        amounts, started = turn.amounts, turn.charges
        if not turn.ends:
            self.slots.let_go(turn)

        if self.single is not None and turn.ends and amounts[0] and not started:
            # The common case, at half the cost.
            bucket, amount = self.single, amounts[0]
            turn.charges = [Charge(bucket, amount, bucket.start(now, amount), now)]
            return

        charges = started.copy()
        for index, bucket in enumerate(self.buckets):
            amount = amounts[index]
            if amount and (bucket.quick or not started):
                receipt = bucket.start(now, amount)
                if turn.ends:
                    charges.append(Charge(bucket, amount, receipt, now))

        turn.charges = charges

    def release(self, turn: Turn, now: float) -> None:
        if self.holds_charges:
            for charge in turn.charges:
                if charge.counted is None:
                    charge.receipt = charge.bucket.release(now, charge.amount, charge.receipt)

        self.slots.let_go(turn)

    def mark_counted(self, turn: Turn, now: float, units: Collection[str]) -> None:
        # What the call is charged later is held until it ends, or is marked too.
        cost = by_unit(turn.cost)
        if all(mark[1:] != (units, cost) for mark in turn.marks):
            turn.marks = [*turn.marks, (now, units, cost)]

        for policy, unit, bucket in zip(self.policies, self.units, self.buckets, strict=True):
            if not units or unit in units:
                for charge in turn.charges:
                    if charge.bucket is bucket and charge.counted is None:
                        charge.counted = now
                        if policy.holds:
                            charge.receipt = bucket.release(now, charge.amount, charge.receipt)

    def give_back(self, turn: Turn, now: float) -> None:
        turn.told = False
        self.give_back_held(self.buckets, turn.amounts, now)
        self.slots.let_go(turn)

    def give_back_all(self, turns: Sequence[Turn], now: float) -> None:
        for index, bucket in enumerate(self.buckets):
            amounts = [turn.amounts[index] for turn in turns if turn.amounts[index]]
            if amounts:
                bucket.give_back_held(now, amounts)

        for turn in turns:
            self.slots.let_go(turn)

    def settle(self, turn: Turn, now: float, unit: str, change: int) -> None:
        count = len(turn.charges)
        if count > _MANY and count % _MANY < len(self.buckets):
            # Now and then: nothing can be given back of charges that have come back.
            turn.charges = _merged(turn.charges, now)

        for counted, bucket in zip(self.units, self.buckets, strict=True):
            if counted == unit and change > 0:
                turn.charges.append(_charged(bucket, now, change, ended=not turn.granted))
            elif counted == unit:
                excess = -change
                for charge in reversed([c for c in turn.charges if c.bucket is bucket]):
                    part = min(excess, charge.amount)
                    if part:
                        bucket.give_back(now, part, charge.receipt)
                        charge.amount -= part
                        excess -= part

    def penalize(self, now: float, amounts: Mapping[str, int]) -> None:
        for unit, bucket in zip(self.units, self.buckets, strict=True):
            if amount := amounts.get(unit):
                _charged(bucket, now, amount)

    def tighten(self, now: float, remaining: int, reset_after: float | None, unit: str) -> None:
        for counted, bucket in zip(self.units, self.buckets, strict=True):
            if counted == unit:
                bucket.tighten(now, remaining, reset_after)

    def quotas(self, now: float, *, here: bool) -> tuple[PolicyState, ...]:
        states: list[PolicyState] = []
        for index, bucket in enumerate(self.buckets):
            if here:
                # What has come back is dropped, so that asking often costs little.
                bucket.drop_due(now)

            asked = bucket
            if self.utc_buckets and goes_by_utc(bucket):
                # A copy, because a question changes nothing.
                asked = bucket.ahead(now)
                assert goes_by_utc(asked)
                asked.set_utc(now, self.clock.utc(now))

            states.append(PolicyState(self.policies[index], *asked.left(now)))

        return tuple(states)

    def change_loops(self, shift: float) -> None:
        self.paused_until += shift
        for bucket in self.buckets:
            bucket.forget_held()
            bucket.shift(shift)

        self.slots.forget_holders()

    def idle_in(self, now: float) -> float:
        """Return in how many seconds nothing is left to remember, if no call comes."""
        if self.slots.holders:
            return inf

        resets = (bucket.reset_after(now) for bucket in self.buckets)
        return max([seconds_until(now, self.paused_until), *resets])


def _charged(bucket: Bucket, now: float, amount: int, *, ended: bool = True) -> Charge:
    """Charge an amount at once, due or not, to a running call or to none; return the charge."""
    bucket.take(now, amount)
    receipt = bucket.start(now, amount)
    if ended:
        receipt = bucket.release(now, amount, receipt)

    return Charge(bucket, amount, receipt, now)


def _merged(charges: list[Charge], now: float) -> list[Charge]:
    """
    Return the charges, with those that have come back merged into one for each bucket.

    A running call has to hold those too, should a policy come that measures from the end.
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
