"""The gate of a limiter that is shared: it decides from what the server has granted ahead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import floor, inf
from typing import Protocol, final

from .._limiters.cost import amounts_of
from .._limiters.line import WaitLine
from .._limiters.queue import TurnQueue
from .._limiters.slots import Slots
from .._limiters.turn import Turn
from .._policies.bucket import Bucket
from .._policies.checks import unit_of
from .._policies.policy import Cost, Policy, PolicyState, seconds_until
from .claim import Claim
from .dialogue import Dialogue
from .exchange import Amounts, Micros, Want
from .stock import ROUNDING
from .wanted import TOLD_TURNS, unmet, wants_of


class Owner(Protocol):
    """What a gate wants of its store."""

    def ask(self, gate: RemoteGate) -> None:
        """Make the courier look at once whether an exchange is to be made."""

    def idle_in(self, gate: RemoteGate, now: float) -> float:
        """Return in how many seconds its courier goes if there is nothing to do; 0 without one."""
        ...


@final
class RemoteGate:
    """
    A :class:`.Gate` over the stock of a dialogue with the server.

    It never waits. Where there is nothing in stock it answers "not before something comes", and
    makes the courier ask for more.

    :param policies: the policies, each of which must agree to a call
    :param slots: the slots that this process holds
    :param queue: the turns in line
    :param dialogue: what is said to the server, and what it has said
    :param name: the limiter's name
    :param owner: the store, whose courier talks to the server

    :ivar refusal: makes the error of a call that would have to wait; ``None`` while the server
        answers
    :ivar is_lost: whether the server does not answer
    :ivar open: whether calls pass uncharged that would have to wait
    :ivar askers: the turns that wait for an answer, each with its latest instant, and the number of
        the request that the answer has to follow
    """

    __slots__ = (
        "_most",
        "_one",
        "_owner",
        "askers",
        "capacities",
        "counts_ends",
        "dialogue",
        "holds",
        "holds_charges",
        "is_lost",
        "name",
        "open",
        "policies",
        "queue",
        "refusal",
        "slots",
        "units",
    )

    answers_later = True
    credits = False
    slow = False
    has_short_way = False
    buckets: tuple[Bucket, ...] = ()
    only: Bucket | None = None

    def __init__(
        self,
        policies: tuple[Policy, ...],
        slots: Slots,
        queue: TurnQueue,
        dialogue: Dialogue,
        *,
        name: str,
        owner: Owner,
    ) -> None:
        self.policies = policies
        self.slots = slots
        self.queue = queue
        self.dialogue = dialogue
        self.name = name
        self._owner = owner
        self.units = tuple(unit_of(policy.unit) for policy in policies)
        self.capacities = tuple(policy.bucket().capacity for policy in policies)
        self.holds_charges = any(policy.holds for policy in policies)
        self.counts_ends = self.holds = dialogue.terms.holds
        #: How many turns the server is told of at most, by how much costs vary in line.
        self._most = TOLD_TURNS
        self.refusal: Callable[[], Exception] | None = None
        self.is_lost = False
        self.open = False
        self.askers: dict[Turn, tuple[float, int]] = {}
        #: What a cost of 1 comes to, if each policy counts calls.
        self._one: Amounts | None = None
        if all(unit == "calls" for unit in self.units):
            self._one = self.amounts(1)

    def _ask(self) -> None:
        """Make the courier look at once whether an exchange is to be made."""
        self._owner.ask(self)

    @property
    def paused_until(self) -> float:
        """Until when no turn passes."""
        return self.dialogue.paused_until

    def pause_until(self, instant: float) -> None:
        self.dialogue.pause(instant)
        self._ask()

    def resume(self, now: float) -> bool:
        paused = self.dialogue.resume(now)
        self._ask()
        return paused

    def penalize(self, now: float, amounts: Mapping[str, int]) -> None:
        charged = [amounts.get(unit, 0) for unit in self.units]
        self.dialogue.penalize(self._in_full(charged, slot=0), now)
        self._ask()

    def tighten(self, now: float, remaining: int, reset_after: float | None, unit: str) -> None:
        for index, counted in enumerate(self.units):
            if counted == unit:
                self.dialogue.tighten(index, remaining, reset_after, now)

        self._ask()

    def amounts(self, cost: Cost) -> tuple[int, ...]:
        if self._one is not None and type(cost) is int and cost == 1:
            return self._one

        return self._in_full(amounts_of(cost, self.units, self.capacities), slot=1)

    def notice(self, now: float) -> None:
        pass

    def next_at(self, now: float) -> float:
        """Return when the next exchange is to be made."""
        head = self.queue.head
        needed = self.wanted()
        if head is None:
            return self.dialogue.next_at(now, needed, 0, None)

        stock = self.dialogue.account.stock
        front = tuple(head.amounts)
        met = min(stock.total, needed)
        if met and stock.count(front) < stock.total:
            met = needed - sum(want.count for want in unmet(self.wants(), stock))

        return self.dialogue.next_at(now, needed, met, front)

    def await_answer(self, turn: Turn, latest: float) -> None:
        """Note that a turn must go by an instant, and ask the server whether it can."""
        self.askers[turn] = (latest, self.dialogue.number)
        self.dialogue.speak_by(-inf)
        self._ask()

    def hopeless(self, now: float, number: int) -> list[Turn]:
        """
        Return the turns that must go sooner than they can, by an answer that has just come.

        :param number: that of the request
        """
        # What is in stock may be due sooner than the next grant; and when a call ends is unknown.
        due = self.dialogue.clock.when_surely(self.dialogue.due)
        due = now if self.dialogue.account.stock.total or due == inf else due
        return [
            turn
            for turn, (latest, before) in self.askers.items()
            if number > before and (latest <= now or latest < due)
        ]

    def is_stuck(self, amounts: Sequence[int], now: float) -> bool:
        """Return whether a turn cannot go before a call of this process lets something go."""
        return self.dialogue.account.lacks_own(amounts) and self.delay(amounts, now) == inf

    def delay(self, amounts: Sequence[int], now: float) -> float:
        lot = self.dialogue.first(tuple(amounts), now)
        if lot is None:
            if self.refusal is not None:
                raise self.refusal()

            if not self.open:
                self._ask()
                return inf

            ready = now
        else:
            ready = lot.ready

        return seconds_until(now, max(ready, self.paused_until))

    def due_since(self, amounts: Sequence[int], earliest: float, now: float) -> float:
        return now

    def take(self, turn: Turn, now: float, since: float, spare: object = None) -> bool:
        lot = self.dialogue.first(tuple(turn.amounts), now)
        asked = self.askers.pop(turn, None)
        if asked is not None and asked[0] <= now:
            # It has its answer: if it is called back, it has waited for as long as it may.
            turn.give_up = asked[0]

        turn.slot = None if lot is None else self.dialogue.account.claim(lot)
        self.slots.take(turn)
        turn.due = now
        return True

    def take_if_due(self, turn: Turn, now: float) -> float:
        delay = self.delay(turn.amounts, now)
        if delay <= 0:
            self.take(turn, now, now)

        return delay

    def may_start(self, turn: Turn, now: float) -> bool:
        if self.paused_until > now:
            return False

        claim = turn.slot
        if not isinstance(claim, Claim) or self.dialogue.is_valid(claim, now):
            return True

        if turn.give_up <= now:
            # The answer let it go, but this process was too busy to start it: ask for another one.
            self.await_answer(turn, turn.give_up)
            turn.give_up = inf

        return False

    def has_lost(self, claim: Claim, now: float) -> bool:
        """Return whether others may have got what the call of a claim holds."""
        runs = claim in self.dialogue.account.running
        return claim.lost or (runs and self.dialogue.is_lapsed(now))

    def hold(self, amounts: Sequence[int], now: float) -> float:
        return inf

    def start_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> bool:
        return False

    def give_back_held(self, held: tuple[Bucket, ...], amounts: Sequence[int], now: float) -> None:
        pass

    def start_slow(self, turn: Turn, now: float) -> None:
        pass

    def start(self, turn: Turn, now: float) -> None:
        turn.began = now
        if isinstance(turn.slot, Claim) and self.dialogue.account.start(turn.slot, now):
            self._ask()

        if not turn.ends:
            self.slots.let_go(turn)

    def release(self, turn: Turn, now: float) -> None:
        if isinstance(turn.slot, Claim):
            self.dialogue.account.end(turn.slot, now)
            self._ask()

        self.slots.let_go(turn)

    def mark_counted(self, turn: Turn, now: float, units: Collection[str]) -> None:
        if isinstance(turn.slot, Claim):
            which = [not units or unit in units for unit in self.units]
            # The slot stays until the call ends.
            which += [False] * (len(self.dialogue.rules) - len(which))
            self.dialogue.account.count(turn.slot, now, which)
            self._ask()

    def give_back(self, turn: Turn, now: float) -> None:
        turn.told = False
        claim, turn.slot = turn.slot, None
        if isinstance(claim, Claim):
            self.dialogue.account.give_back(claim, now)
            self._ask()

        self.slots.let_go(turn)

    def give_back_all(self, turns: Sequence[Turn], now: float) -> None:
        for turn in turns:
            self.give_back(turn, now)

    def settle(self, turn: Turn, now: float, unit: str, change: int) -> None:
        if isinstance(turn.slot, Claim):
            for index, counted in enumerate(self.units):
                if counted == unit:
                    self.dialogue.account.settle(turn.slot, index, change, now)

            self._ask()

    def quotas(self, now: float, *, here: bool) -> tuple[PolicyState, ...]:
        dialogue = self.dialogue
        if not dialogue.account.quotas:
            return tuple(PolicyState(p, floor(p.limit), 0.0, 0.0) for p in self.policies)

        states: list[PolicyState] = []
        # The last quota is that of the slots, which no policy has: it is left out.
        for index, (policy, quota) in enumerate(
            zip(self.policies, dialogue.account.quotas, strict=False)
        ):
            # What is in stock was taken from the server, but by no call yet.
            due, more_at = dialogue.account.stock.amount(index, now)
            more = min(self.wait_until(quota.more, now), seconds_until(now, more_at))
            full = self.wait_until(quota.full, now)
            states.append(PolicyState(policy, quota.remaining + due, more, full))

        return tuple(states)

    def change_loops(self, shift: float) -> None:
        self.askers.clear()
        for turn in self.slots.holders:
            turn.slot = None

        self.slots.forget_holders()
        self.dialogue.change_loops(shift)

    def idle_in(self, now: float) -> float:
        """Return in how many seconds this process will have no use for it; infinity if unknown."""
        if self.slots.holders or self.queue.head is not None or self.next_at(now) < inf:
            return inf

        # What was charged is remembered by the server.
        return max(seconds_until(now, self.paused_until), self._owner.idle_in(self, now))

    def enter(self, dialogue: Dialogue) -> None:
        """Begin a dialogue, because the store was entered; what was said before goes with it."""
        dialogue.take_over(self.dialogue)
        self.dialogue = dialogue
        self.refusal = None
        self.is_lost = self.open = False

    def leave(self, refusal: Callable[[], Exception], line: WaitLine) -> None:
        """Close the gate: calls that wait get an error."""
        self.refusal = refusal
        self.is_lost = self.open = False
        if self.queue.head is not None:
            self.dialogue.account.recall(line.clock.estimate())
            line.serve_anew(line.clock.estimate())

    def wants(self) -> list[Want]:
        """Return what the turns in line want, from the front; of a long line, the first part."""
        wants, self._most = wants_of(self.queue)
        return wants

    def wanted(self) -> int:
        """Return how many turns wait, of those that the server is told of."""
        return min(len(self.queue), self._most)

    def note_newcomer(self) -> None:
        """Note that a turn is about to join the line."""
        self._ask()

    def note_leaving(self, turn: Turn) -> None:
        """Note that a turn has left the line without a grant."""
        self.askers.pop(turn, None)
        self._ask()

    def wait_until(self, instant: Micros, now: float) -> float:
        """Return the seconds until an instant of the server's clock."""
        wait = self.dialogue.clock.when_surely(instant) - now
        return wait if wait > ROUNDING else 0.0

    def _in_full(self, amounts: Sequence[int], slot: int) -> tuple[int, ...]:
        """Return amounts for each rule: for the policies, and the slots if there are any."""
        return (*amounts, slot) if len(self.dialogue.rules) > len(self.units) else tuple(amounts)
