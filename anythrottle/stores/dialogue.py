"""
What a process says to the server about one limiter, and when it speaks next.

It decides all of that with the time passed in, and awaits nothing: the courier carries it out. An
exchange is made at once when calls wait that the server does not know of, when something was let go
that others may wait for, and when the server said to come; else what there is to say waits for the
next one, for a quarter of the shortest window at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import final

from .claim import Claim, Piece
from .exchange import (
    NEVER,
    Amounts,
    Charged,
    Ended,
    GivenBack,
    Happening,
    Held,
    Micros,
    News,
    Paused,
    Push,
    Quota,
    Reply,
    Request,
    Resumed,
    Started,
    Tightened,
    Want,
    rules_text,
)
from .outbox import Local, Outbox
from .read_ahead import ReadAhead
from .server_clock import DRIFT, ServerClock
from .stock import Lot, Stock
from .terms import Terms

#: For how long something that nobody waits for may wait to be told, in seconds.
_LINGER = 0.05

#: What must not be told twice, should the server have forgotten that it was told.
_FRAGILE = (Started, GivenBack, Ended)


@final
class Dialogue:
    """
    One limiter's side of the dialogue with the server.

    :param terms: what is agreed on: rules, lease, deadline
    :param node: the name of the process
    :param fresh: the name of the state, should the server have none
    :param read_ahead: how many grants to keep in stock; ``None`` for as many as have been of use

    :ivar clock: what is known of the server's clock
    :ivar stock: what was granted and not used
    :ivar life: counts the lives with the server: claims of an earlier one are void
    :ivar due: when the next grant to anybody is due, by the server's clock
    :ivar waiting: how many processes wait
    :ivar quotas: what each rule had left at the last reply
    :ivar running: the claims of calls that hold something
    :ivar number: the number of the latest request
    :ivar pending: that request, until it is answered
    """

    def __init__(self, terms: Terms, node: str, fresh: str, read_ahead: int | None) -> None:
        self.terms = terms
        self.rules = terms.rules
        self.node = node
        self._fresh = fresh
        self.text = rules_text(terms.rules)
        self.clock = ServerClock()
        self.stock = Stock()
        #: Slots and what is held are never read ahead.
        self._ahead = ReadAhead(0 if terms.holds else read_ahead)
        self._outbox = Outbox(terms.rules, terms.spread)
        self.life = 0
        self.running: dict[Claim, None] = {}
        #: Until when the server has paused, and until when this process has: by its own clock.
        self._paused_there = self._paused_here = -inf
        self.due: Micros = 0
        self.waiting = 0
        self.quotas: tuple[Quota, ...] = ()
        self.number = 0
        self.pending: Request | None = None
        self._epoch = ""
        #: By when a push must have been sent to belong to an earlier life.
        self._began: Micros = 0
        #: The grants that have come and were not acknowledged.
        self._received: list[int] = []
        #: How many calls of each kind the server knows to be wanted.
        self._told: dict[Amounts, int] = {}
        self._come = inf
        #: When the request was sent that was answered last, and when its answer came.
        self._contact = self._heard = -inf

    # What the process does

    def claim(self, lot: Lot) -> Claim:
        """Take something for one call out of a lot."""
        self.stock.use(lot)
        return Claim(lot)

    def is_valid(self, claim: Claim, now: float) -> bool:
        """Return whether a claim still is good for a start."""
        if claim.life != self.life or now > claim.lot.until:
            return False

        return not (self.terms.holds and self.is_lapsed(now))

    def start(self, claim: Claim, now: float) -> None:
        """Note that the call of a claim starts."""
        lot = claim.lot
        claim.started = True
        self._ahead.note_use(lot.grant.amounts)
        claim.segment, new = self._outbox.note_start(lot, self.clock.latest(now))
        if new and self.terms.tells_starts:
            self.speak_by(now + self.terms.patience)

        if self.terms.holds:
            self.running[claim] = None

    def give_back(self, claim: Claim, now: float) -> None:
        """Note that a claim is not used: it goes to another call, or back."""
        if self.is_valid(claim, now):
            self.stock.put_back(claim.lot)
        else:
            self._return([(claim.lot, 1)], now)

    def end(self, claim: Claim, now: float) -> None:
        """Note that the call of a claim has ended."""
        if claim in self.running:
            self.count(claim, now, [True] * len(self.rules))
            del self.running[claim]

    def count(self, claim: Claim, now: float, which: Sequence[bool]) -> None:
        """Note that what a call holds of some rules counts from now on."""
        at = self.clock.latest(now)
        amounts = claim.count(self.rules, at, which)
        if any(amounts) and self._knows(claim):
            self._remember(amounts, at)
            self._outbox.tell(Ended(at, amounts), now + (0.0 if self._is_scarce() else _LINGER))

    def settle(self, claim: Claim, index: int, change: int, now: float) -> None:
        """Correct what one rule has charged to the call of a claim, which has started."""
        pieces = claim.pieces(self.rules)[index]
        rule = self.rules[index]
        if change > 0:
            at = self.clock.latest(now)
            held = rule.holds and claim in self.running and all(piece.held for piece in pieces)
            pieces.append(Piece(change, 0 if held else self._receipt(index, at, change)))
            amounts = self._only(index, change)
            self._remember(amounts, at)
            self._outbox.tell(Charged(at, amounts, held), now + _LINGER)
            return

        excess = -change
        for piece in reversed(pieces):
            part = min(excess, piece.amount)
            if part:
                piece.amount -= part
                excess -= part
                receipts = self._only(index, piece.receipt_now(rule.window))
                if self._knows(claim):
                    given_back = GivenBack(self._only(index, part), receipts)
                    self._outbox.tell(given_back, now + _LINGER)

    def penalize(self, amounts: Amounts, now: float) -> None:
        """Note that something is charged that no call was."""
        self.recall(now)
        self._outbox.tell(Local(now, lambda at: Charged(at, amounts, held=False)), now)

    def tighten(self, index: int, remaining: int, reset_after: float | None, now: float) -> None:
        """Note a service's figures for one rule."""
        self.recall(now)
        if reset_after is None:
            self._outbox.tell(Tightened(index, remaining, -1), now)
        else:
            reset = Local(now + reset_after, lambda at: Tightened(index, remaining, at))
            self._outbox.tell(reset, now)

    @property
    def paused_until(self) -> float:
        """Until when nothing may start, by the process's own clock."""
        return max(self._paused_here, self._paused_there)

    def pause(self, until: float) -> None:
        """Note a pause; of overlapping ones, the later end holds."""
        self._paused_here = max(self._paused_here, until)
        self._outbox.tell(Local(until, Paused), -inf)
        self._outbox.pauses = True

    def resume(self, now: float) -> bool:
        """Note the end of any pause; return whether there was one."""
        paused = self.paused_until > now
        # The instants are kept: nobody is credited for a pause.
        self._paused_here = self._paused_there = min(self.paused_until, now)
        self._outbox.tell(Resumed(), -inf)
        self._outbox.pauses = True
        return paused

    def recall(self, now: float) -> None:
        """Give back what is in stock, because it was granted by figures that hold no more."""
        self._return(self.stock.take_surplus({}), now)

    def lacks_own(self, amounts: Sequence[int]) -> bool:
        """Return whether the calls of this process hold so much that an amount is not left."""
        held = self._held()
        return any(
            rule.holds and held[index] + amounts[index] > rule.limit
            for index, rule in enumerate(self.rules)
        )

    def lacks_slots(self) -> bool:
        """Return whether there was no slot left when the server was heard last."""
        return bool(self.quotas) and any(
            rule.kind == "slots" and not quota.remaining
            for rule, quota in zip(self.rules, self.quotas, strict=True)
        )

    # What it tells

    def speak_by(self, instant: float) -> None:
        """Note that an exchange is to be made by an instant."""
        self._outbox.due = min(self._outbox.due, instant)

    def next_at(self, now: float, needed: int) -> float:
        """
        Return when the next exchange is to be made.

        :param needed: how many calls wait
        """
        if self.pending is not None:
            return now

        told = sum(self._told.values())
        short = 2 * told < needed - self.stock.total
        if short or told > 2 * max(needed, self._ahead.count):
            return now

        if not told and self._ahead.is_low(self.stock.total):
            return now

        instant = self._outbox.due
        if told or self.running:
            instant = min(instant, self._contact + self.terms.lease / 3)

        if told:
            instant = min(instant, self._come)

        return min(instant, self.stock.over_at()) if self.waiting else instant

    def request(
        self,
        now: float,
        wants: Sequence[Want],
        *,
        census: tuple[int, int, int] = (0, 0, 0),
        count_all: bool = False,
        probe: Amounts = (),
    ) -> Request:
        """
        Return the request to be sent now; it is repeated until it is answered.

        :param wants: what the calls in line want, from the front
        :param census: how many calls wait, run and are kept
        :param count_all: whether the censuses of all processes are asked for
        :param probe: what a call would be charged that asks when it could go; empty for none
        """
        lapsed = self.is_lapsed(now)
        request = self.pending
        if request is None:
            asked = self._asked(wants, now)
            happenings: tuple[Happening, ...] = ()
            if self.clock.known:
                happenings = self._outbox.take(
                    self.clock, self.life, tells_starts=self.terms.tells_starts
                )

            self.number += 1
            request = self._new_request(asked, happenings)
            request = replace(request, census=census, count_all=count_all, probe=probe)
        elif lapsed:
            # It may have been carried out, and the server may have forgotten that since.
            kept = [each for each in request.happenings if not isinstance(each, _FRAGILE)]
            request = replace(request, happenings=tuple(kept), holds=False)

        expires = self.clock.latest(now + self.terms.deadline) if self.clock.known else 0
        alive = self._contact > -inf and not lapsed
        self.pending = replace(request, expires=expires, alive=alive)
        return self.pending

    def _new_request(self, wants: tuple[Want, ...], happenings: tuple[Happening, ...]) -> Request:
        grace, horizon = self.terms.grace_and_horizon(self.clock.round_trip)
        return Request(
            rules=self.text,
            node=self.node,
            number=self.number,
            epoch=self._epoch,
            fresh=self._fresh,
            expires=0,
            grace=grace,
            horizon=horizon,
            lease=self.terms.lease_micros,
            hold_back=self.terms.deadline_micros + grace + horizon,
            alive=False,
            holds=bool(self.running),
            census=(0, 0, 0),
            count_all=False,
            probe=(),
            received=tuple(self._received),
            wants=wants,
            happenings=happenings,
        )

    def _asked(self, wants: Sequence[Want], now: float) -> tuple[Want, ...]:
        """Return what to ask for, on top of what is in stock; give back what is of no use there."""
        over = self.stock.take_over(now)
        if over:
            self._ahead.note_waste()
            self._return(over, now)

        ahead = self._ahead.next(self.stock.total, others=self.waiting > bool(self._told))
        if self._outbox and not self.clock.known:
            # The server is to hear first what holds for those who wait, for which its clock has to
            # be known.
            wants, ahead = (), 0

        if ahead:
            wants = [*wants, Want(self._ahead.amounts, ahead)]

        needed = _by_amounts(wants)
        self._return(self.stock.take_surplus(needed), now)
        there = {amounts: self.stock.count(amounts) for amounts in needed}
        asked: list[Want] = []
        for want in wants:
            met = min(there[want.amounts], want.count)
            there[want.amounts] -= met
            if want.count > met:
                asked.append(Want(want.amounts, want.count - met))

        self._told = _by_amounts(asked)
        return tuple(asked)

    # What it hears

    def hear_reply(self, reply: Reply, sent: float, received: float) -> None:
        """Note the answer to the request that is pending, sent at an instant of the own clock."""
        request = self.pending
        assert request is not None
        self.clock.note(sent, received, reply.news.now)
        if reply.status == "stale":
            # Too late to be carried out: it is sent again.
            return

        self.pending = None
        if reply.status == "conflict":
            self._told = {}
            return

        self._contact, self._heard = sent, received
        heard = set(request.received)
        self._received = [number for number in self._received if number not in heard]
        self.quotas = reply.quotas
        if reply.status == "lost":
            self._begin_anew(reply.news)
            return

        if reply.status == "buried":
            self.lose_all(reply.news.now)

        self._epoch = reply.news.epoch
        self._hear(reply.news, received)
        self.stock.note_all_seen(reply.news.grants)
        self._come = self.clock.when_surely(reply.news.come)

    def hear_push(self, push: Push, now: float) -> None:
        """Note news that came unasked."""
        news = push.news
        if news.epoch != self._epoch or news.now <= self._began:
            return

        if not push.node:
            self._hear_pause(news)
            if push.recall:
                self.recall(now)

            return

        self._hear(news, now)
        if news.come < NEVER:
            self._come = self.clock.when_surely(news.come)

    def is_lapsed(self, now: float) -> bool:
        """Return whether the server may have taken what the process holds."""
        return now > self._contact + self.terms.lease * (1 - DRIFT) and self._contact > -inf

    def surely_lapsed_at(self) -> float:
        """Return when the server has surely taken what the process held, if it hears nothing."""
        return self._heard + self.terms.lease * (1 + DRIFT)

    def lose_all(self, now: Micros) -> int:
        """
        Give up what the server has taken, or may have.

        :param now: when, by the server's clock
        :return: how many calls held something
        """
        self.life += 1
        self._began = now
        self.stock.clear()
        self._received.clear()
        for claim in self.running:
            claim.lost = True

        lost = len(self.running)
        self.running.clear()
        return lost

    def change_loops(self, shift: float) -> None:
        """Go over to a loop whose clock is ahead by ``shift``: nothing is held there."""
        self._paused_here += shift
        self._outbox.shift(shift)
        self.lose_all(self._began)

    def take_over(self, before: Dialogue) -> None:
        """Take over what was said before anybody listened."""
        self._outbox.take_over(before._outbox)
        self._paused_here = before._paused_here

    def _hear(self, news: News, now: float) -> None:
        self._hear_pause(news)
        self.due = news.due
        self.waiting = news.waiting
        for grant in news.grants:
            self._received.append(grant.number)
            if self.stock.add(grant, self.life, self.clock, now):
                left = self._told.pop(grant.amounts, 0) - grant.count
                if left > 0:
                    self._told[grant.amounts] = left

    def _hear_pause(self, news: News) -> None:
        if not self._outbox.pauses and self.pending is None:
            # The server has heard of all pauses.
            self._paused_here = -inf

        self._paused_there = -inf
        if news.paused_until > news.now:
            self._paused_there = self.clock.when_surely(news.paused_until)

    def _begin_anew(self, news: News) -> None:
        """Tell the server what it has forgotten, because its state is another one."""
        self._epoch = news.epoch
        self.life += 1
        self._began = news.now
        self.stock.clear()
        self._received.clear()
        self._told = {}
        self._outbox.begin_anew(news.now)
        held = self._held()
        if any(held):
            self._outbox.tell(Held(tuple(held)), -inf)

        for claim in self.running:
            claim.life = self.life

        self._hear_pause(news)

    # Inner matters

    def _return(self, lots: Sequence[tuple[Lot, int]], now: float) -> None:
        for lot, count in lots:
            if lot.life == self.life:
                amounts = tuple(amount * count for amount in lot.grant.amounts)
                patience = 0.0 if self.waiting else self.terms.patience
                self._outbox.tell(GivenBack(amounts, lot.grant.receipts), now + patience)

    def _knows(self, claim: Claim) -> bool:
        """Return whether the server knows of a call."""
        return claim.life == self.life and not claim.lost

    def _held(self) -> list[int]:
        """Return how much of each rule the calls of this process hold."""
        held = [0] * len(self.rules)
        for claim in self.running:
            for index, amount in enumerate(claim.held(self.rules)):
                held[index] += amount

        return held

    def _is_scarce(self) -> bool:
        """Return whether others may wait for what a call lets go."""
        return self.waiting > 0 or any(
            rule.holds and 2 * quota.remaining <= rule.limit
            for rule, quota in zip(self.rules, self.quotas, strict=False)
        )

    def _only(self, index: int, amount: int) -> Amounts:
        return tuple(amount if i == index else 0 for i in range(len(self.rules)))

    def _receipt(self, index: int, at: Micros, amount: int) -> Micros:
        """Return when a charge that is made now comes back, at the earliest."""
        rule = self.rules[index]
        if rule.kind == "fixed":
            return self.quotas[index].more if self.quotas else at

        passes = rule.window * amount / rule.limit if rule.kind == "bucket" else rule.window
        return at + int(passes)

    def _remember(self, amounts: Amounts, at: Micros) -> None:
        """Remember what counts from an instant on, should the server forget it."""
        for index, amount in enumerate(amounts):
            if amount and self.rules[index].window:
                self._outbox.remember(index, at + self.rules[index].window, amount)


def _by_amounts(wants: Sequence[Want]) -> dict[Amounts, int]:
    """Return how many calls want what."""
    counts: dict[Amounts, int] = {}
    for want in wants:
        counts[want.amounts] = counts.get(want.amounts, 0) + want.count

    return counts
