"""Carries charges over to the buckets of a limiter that is reconfigured."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from math import inf
from operator import itemgetter
from typing import TypeAlias

from .._policies.bucket import Bucket, LevelBucket, complete, goes_by_utc, has_level
from .._policies.checks import unit_of
from .._policies.policy import Policy
from .cost import by_unit
from .local_gate import LocalGate
from .turn import Charge, Turn

#: A policy and its bucket.
_Pair: TypeAlias = tuple[Policy, Bucket]

#: What each running call is charged from now on.
_Charges: TypeAlias = dict[Turn, list[Charge]]


def carry_over(gate: LocalGate, policies: tuple[Policy, ...], now: float) -> list[Bucket]:
    """
    Return the buckets for new policies, with what has been charged so far.

    A policy that was there before keeps its bucket. Any other is charged what an old policy of the
    same unit remembers, of several the one with the longest window. A token bucket in the place of
    another one begins at its level, and a fixed window with another limit goes on with its count.
    The charges of running calls go over to the new buckets; no turn may be granted whose call has
    not begun.
    """
    old = list(zip(gate.policies, gate.buckets, strict=True))
    new = _pairs(old, policies)
    charges: _Charges = {turn: [] for turn in gate.slots.holders}
    levels = _levels(old, new)
    for index, (policy, bucket) in enumerate(new):
        if new[index] in old:
            for turn, carried in charges.items():
                carried += [charge for charge in turn.charges if charge.bucket is bucket]

            continue

        if goes_by_utc(bucket):
            bucket.set_utc(now, gate.clock.utc(now))

        unit = unit_of(policy.unit)
        predecessors = [pair for pair in old if unit_of(pair[0].unit) == unit]
        if predecessors:
            predecessor = max(predecessors, key=partial(_memory, bucket))
            _carry_over_to(predecessor, (policy, bucket), charges, now, levels.get(index))
        else:
            _charge_running((policy, bucket), charges, now)

    for turn, carried in charges.items():
        turn.charges = carried

    return [bucket for _, bucket in new]


def _pairs(old: list[_Pair], policies: tuple[Policy, ...]) -> list[_Pair]:
    """Return policies with their buckets, old ones where a policy was there before."""
    pairs: list[_Pair] = []
    for policy in policies:
        kept = (pair for pair in old if pair[0] == policy and pair not in pairs)
        pairs.append(next(kept, None) or (policy, complete(policy.bucket())))

    return pairs


def _levels(old: list[_Pair], new: list[_Pair]) -> dict[int, LevelBucket]:
    """
    Return, by the index of a new bucket, the old one at whose level it begins.

    That is one of the same unit which is dropped, and which no other new one succeeds: a policy
    that comes in addition has no level to begin at. Of several, the most alike belong together.
    """
    candidates: list[tuple[tuple[float, ...], int, LevelBucket]] = []
    for index, after in enumerate(new):
        for before in old:
            (policy, level), (successor, heir) = before, after
            if before not in new and after not in old and has_level(level) and has_level(heir):
                unlike = heir.unlikeness(level)
                if unlike is not None and unit_of(policy.unit) == unit_of(successor.unit):
                    candidates.append((unlike, index, level))

    levels: dict[int, LevelBucket] = {}
    for _, index, level in sorted(candidates, key=itemgetter(0)):
        if index not in levels and level not in levels.values():
            levels[index] = level

    return levels


def _carry_over_to(
    old: _Pair, new: _Pair, charges: _Charges, now: float, level: LevelBucket | None
) -> None:
    """
    Charge a new bucket with what an old one remembers, and for the running calls.

    :param level: the bucket at whose level the new one begins, whatever it remembers
    """
    bucket = new[1]
    running = _running(charges, old[1])
    told = _told(old, new, [charge for _, charge in running], now)
    if level is not None:
        assert has_level(bucket)
        forgiven = bucket.succeed(level, now, told)
        for turn, charge in _running(charges, level):
            # Nothing can be given back of what has been forgiven.
            receipt = -inf if forgiven else bucket.receipt_of(level, now, charge.receipt)
            since = _counts_from(charge, old[0], new[0], now)
            charges[turn].append(Charge(bucket, charge.amount, receipt, since, charge.counted))

        return

    instants = [instant for instant, _ in told]
    receipts = _replay(told, bucket, now + old[1].delay(now, 0))
    for turn, charge in running:
        since = _counts_from(charge, old[0], new[0], now)
        if new[0].holds and charge.counted is None:
            bucket.take(now, charge.amount)
            receipt = bucket.start(now, charge.amount)
        else:
            index = bisect_left(instants, since)
            receipt = receipts[index] if index < len(receipts) else -inf

        charges[turn].append(Charge(bucket, charge.amount, receipt, since, charge.counted))


def _counts_from(charge: Charge, old: Policy, new: Policy, now: float) -> float:
    """Return from when on a charge of a running call counts in its new bucket."""
    if charge.counted is not None and (old.holds or new.holds):
        return charge.counted

    return now if old.holds else charge.since


def _running(charges: _Charges, bucket: Bucket) -> list[tuple[Turn, Charge]]:
    """Return what an old bucket has charged the running calls."""
    return [
        (turn, charge)
        for turn in charges
        for charge in turn.charges
        if charge.bucket is bucket and charge.amount
    ]


def _told(old: _Pair, new: _Pair, running: list[Charge], now: float) -> list[tuple[float, int]]:
    """Return when how much was charged to an old bucket that is not held, for a new one."""
    told = sorted(old[1].history(now))
    if old[0].holds and not new[0].holds:
        # What has been held until now counts from now on.
        told += [(now, charge.amount) for charge in running if charge.counted is None]
    elif new[0].holds and not old[0].holds:
        # From now on it is held, instead; or it counts from its mark.
        told = _without(running, told)
        told += [(each.counted, each.amount) for each in running if each.counted is not None]
        told.sort()

    return told


def _without(charges: list[Charge], told: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return what a bucket remembers, in order, without some of its charges."""
    instants = [instant for instant, _ in told]
    amounts = [amount for _, amount in told]
    for charge in charges:
        amount = charge.amount
        # A charge that was merged with others was merged with later ones.
        for index in range(bisect_left(instants, charge.since), len(told)):
            part = min(amounts[index], amount)
            amounts[index] -= part
            amount -= part
            if not amount:
                break

    return [(instant, amount) for instant, amount in zip(instants, amounts, strict=True) if amount]


def _replay(told: list[tuple[float, int]], bucket: Bucket, until: float) -> list[float]:
    """
    Charge a bucket as if its policy had been in force before, and return the receipts.

    The policy may not have allowed all of that. But no call shall wait now because none had to wait
    then: such an excess leaves the bucket empty, or in debt until the old one would have been.

    :param until: the end of the other bucket's debt
    """
    receipts: list[float] = []
    for instant, amount in told:
        bucket.take(instant, amount)
        receipts.append(bucket.release(instant, amount, bucket.start(instant, amount)))
        if bucket.forgive(instant, until):
            # Nothing can be given back of what has been forgiven already.
            receipts = [-inf] * len(receipts)

    return receipts


def _charge_running(new: _Pair, charges: _Charges, now: float) -> None:
    """Charge a bucket, of a unit that was not counted before, for the running calls."""
    policy, bucket = new
    unit = unit_of(policy.unit)
    parts: list[tuple[float, int, Turn, float | None]] = []
    for turn in charges:
        rest = by_unit(turn.cost).get(unit, 1 if unit == "calls" else 0)
        for mark, amount in turn.counted(unit):
            instant = mark if policy.holds else turn.began
            parts.append((instant, min(amount, rest), turn, mark))
            rest -= min(amount, rest)

        parts.append((now if policy.holds else turn.began, rest, turn, None))

    for instant, amount, turn, counted in sorted(parts, key=itemgetter(0)):
        if amount:
            bucket.take(instant, amount)
            receipt = bucket.start(instant, amount)
            if policy.holds and counted is not None:
                receipt = bucket.release(counted, amount, receipt)

            charges[turn].append(Charge(bucket, amount, receipt, instant, counted))


def _memory(successor: Bucket, pair: _Pair) -> tuple[bool, bool, float]:
    # A bucket of the same kind has measured what the successor measures. An exact window remembers
    # its latest charges one by one; others merge them.
    bucket = pair[1]
    exact = bucket.exact_history
    return exact and type(bucket) is type(successor), exact, pair[0].window
