"""What a limiter lets pass: its buckets, its slots and its pause, decided in one step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import final

import anyio

from .._policies.policy import Bucket, Decision, Policy, Reason, seconds_until
from .parking import Parked, Run

#: The end of a pause that there is not.
NEVER = -inf


@final
class Turn(Parked):
    """
    One call's way through a limiter: its place in line, then what it was granted.

    :ivar amounts: what it costs, for each policy in order
    :ivar key: its place in line, if it is there: the priority, then the order of arrival
    :ivar run: the event loop run in which it waits
    :ivar granted: whether it has been charged; if so it holds a slot too
    :ivar slot: on whose behalf a slot of a capacity limiter was borrowed
    :ivar receipts: what each bucket gave when the call began; ``None`` before

    """

    __slots__ = ("amounts", "granted", "key", "receipts", "run", "slot")

    def __init__(self, amounts: Sequence[int]) -> None:
        self.parked = None
        self.amounts = amounts
        self.run: Run | None = None
        self.key: tuple[int, int] | None = None
        self.granted = False
        self.slot: object = None
        self.receipts: list[float] | None = None


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
        "_borrowed",
        "_borrowers",
        "_buckets",
        "_slots",
        "capacity",
        "holds",
        "only",
        "paused_until",
        "policies",
    )

    def __init__(
        self,
        policies: tuple[Policy, ...],
        slots: float = inf,
        capacity: anyio.CapacityLimiter | None = None,
    ) -> None:
        self.policies = policies
        self.capacity = capacity
        self.paused_until = NEVER
        self._buckets: list[Bucket] = [policy.bucket() for policy in policies]
        self._slots = slots
        self._borrowed = 0
        #: On whose behalf slots of ``capacity`` are borrowed.
        self._borrowers: set[object] = set()
        #: Whether something is held while a call runs.
        self.holds = slots < inf or capacity is not None or any(p.holds for p in policies)
        #: The bucket, if it alone decides, and nothing is held.
        self.only = self._buckets[0] if len(policies) == 1 and not self.holds else None

    def delay(self, amounts: Sequence[int], now: float) -> float:
        """
        Tell how long a turn has to wait.

        A capacity limiter's slots are not considered: :meth:`take` finds out.

        :return: seconds; 0 if it is due, infinity if not before something is let go

        """
        if self._borrowed >= self._slots:
            return inf

        longest = 0.0 if self.paused_until <= now else seconds_until(now, self.paused_until)
        for bucket, amount in zip(self._buckets, amounts, strict=True):
            if amount:
                delay = bucket.delay(now, amount)
                if delay > longest:
                    longest = delay

        return longest

    def take(self, turn: Turn, now: float, spare: object = None) -> bool:
        """
        Charge a turn that is due; nothing is charged if a capacity limiter has no slot left.

        :param spare: on whose behalf a slot has been borrowed already, for this turn to have
        :return: whether the turn was charged

        """
        if self.capacity is not None:
            slot = object() if spare is None else spare
            if spare is None:
                try:
                    self.capacity.acquire_on_behalf_of_nowait(slot)
                except anyio.WouldBlock:
                    return False

            turn.slot = slot
            self._borrowers.add(slot)

        if self.holds:
            self._borrowed += 1

        # What is due is past any pause. Noted, so that the short way is open again.
        self.paused_until = NEVER
        for bucket, amount in zip(self._buckets, turn.amounts, strict=True):
            if amount:
                bucket.take(now, amount)

        turn.granted = True
        return True

    def start(self, turn: Turn, now: float) -> None:
        """Let the call of a charged turn begin."""
        turn.receipts = [
            bucket.start(now, amount) if amount else now
            for bucket, amount in zip(self._buckets, turn.amounts, strict=True)
        ]

    def release(self, turn: Turn, now: float) -> None:
        """Let the call of a started turn end: what it holds is let go."""
        assert turn.receipts is not None
        turn.receipts = [
            bucket.release(now, amount, receipt) if amount else receipt
            for bucket, amount, receipt in zip(
                self._buckets, turn.amounts, turn.receipts, strict=True
            )
        ]
        self._let_go(turn)

    def give_back(self, turn: Turn, now: float) -> None:
        """Undo the charge of a turn whose call has not begun, and let go its slot."""
        self.refund(turn, now)
        self._let_go(turn)

    def refund(self, turn: Turn, now: float) -> None:
        """Give back all that is still out of a turn's charge; its slot stays."""
        for index, (bucket, amount) in enumerate(zip(self._buckets, turn.amounts, strict=True)):
            if amount:
                receipt = None if turn.receipts is None else turn.receipts[index]
                bucket.give_back(now, amount, receipt)

        if turn.receipts is not None:
            turn.amounts = (0,) * len(self._buckets)

    def forget_run(self, shift: float) -> None:
        """Go over to another run: its clock is ahead by ``shift``, and nobody holds anything."""
        self.paused_until += shift
        for bucket in self._buckets:
            bucket.forget_held()
            bucket.shift(shift)

        self._borrowed = 0
        borrowers, self._borrowers = self._borrowers, set()
        for slot in borrowers:
            # A capacity limiter of a loop that is closed cannot wake its waiters any more.
            with suppress(RuntimeError):
                self.return_slot(slot)

    def return_slot(self, slot: object) -> None:
        """Return a capacity limiter's slot that no turn has got."""
        assert self.capacity is not None
        self.capacity.release_on_behalf_of(slot)

    def full(self) -> bool:
        """Tell whether no slot could be had now."""
        if self.capacity is None:
            return self._borrowed >= self._slots

        statistics = self.capacity.statistics()
        return statistics.borrowed_tokens >= statistics.total_tokens or statistics.tasks_waiting > 0

    @property
    def borrowed(self) -> int:
        """How many hold a slot now."""
        return self._borrowed

    @property
    def slots(self) -> float:
        """How many may hold a slot at once."""
        return self._slots if self.capacity is None else self.capacity.total_tokens

    def decide(
        self, amounts: Sequence[int], now: float, ahead: Sequence[Sequence[int]]
    ) -> Decision:
        """
        Tell what a newcomer would meet.

        :param amounts: what it costs, for each policy in order
        :param ahead: what those cost who go before it, in their order

        """
        paused = self.paused_until > now
        full = self.full()
        buckets, instant = self._after(ahead, now)
        delays = [b.delay(instant, a) if a else 0.0 for b, a in zip(buckets, amounts, strict=True)]
        longest = max(delays, default=0.0)
        reason: Reason | None = None
        if paused:
            reason = "pause"
        elif ahead:
            reason = "line"
        elif full:
            reason = "concurrency"
        elif longest > 0:
            reason = "rate"

        starved = self.holds and self._borrowed + len(ahead) >= self._slots
        wait = inf if full or starved else seconds_until(now, instant + longest)
        if not self.policies:
            return Decision(reason is None, reason, wait, None, 0.0, None, None)

        left = [bucket.remaining(now) for bucket in self._buckets]
        _, _, binding = min(
            (-delay, remaining / policy.limit, index)
            for index, (delay, remaining, policy) in enumerate(
                zip(delays, left, self.policies, strict=True)
            )
        )
        policy = self.policies[binding]
        reset_after = self._buckets[binding].reset_after(now)
        return Decision(
            reason is None, reason, wait, left[binding], reset_after, policy.limit, policy
        )

    def _after(self, ahead: Sequence[Sequence[int]], now: float) -> tuple[list[Bucket], float]:
        """Return the buckets, and the instant, once those ahead have been served."""
        buckets = [bucket.ahead(now) for bucket in self._buckets]
        instant = max(now, self.paused_until)
        for amounts in ahead:
            charges = [(b, a) for b, a in zip(buckets, amounts, strict=True) if a]
            instant += max((b.delay(instant, a) for b, a in charges), default=0.0)
            for bucket, amount in charges:
                bucket.take(instant, amount)
                bucket.start(instant, amount)

        return buckets, instant

    def _let_go(self, turn: Turn) -> None:
        turn.granted = False
        if self.holds:
            self._borrowed -= 1

        if turn.slot is not None:
            slot, turn.slot = turn.slot, None
            self._borrowers.discard(slot)
            self.return_slot(slot)
