"""
What a process has to tell the server about one limiter, what it has heard, and when to speak next.

It decides all of that with the time passed in, and awaits nothing: the courier carries it out. An
exchange is made at once when calls wait that the server does not know of, when something was let go
that others may wait for, and when the server said to come; else what there is to say waits for the
next one, for a quarter of the shortest window at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import final

from .._policies.charge_log import ChargeLog
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
    Remembered,
    Reply,
    Request,
    Resumed,
    Rule,
    Started,
    Tightened,
    Want,
    rules_text,
)
from .server_clock import DRIFT, ServerClock
from .stock import Lot, Segment, Stock

_MICRO = 1e6

#: The part of the shortest window by which starts that are told together may lie apart.
_SPREAD = 1 / 200

#: The part of the shortest window after which starts are told of.
_REPORT = 1 / 4

#: For how long the end of a call that nobody waits for may wait to be told, in seconds.
_LINGER = 0.05

#: How far ahead grants reach, at least and at most, in seconds, whatever the window.
_LEAST_HORIZON, _MOST_HORIZON = 0.005, 0.1

#: How many round trips the horizon, and the grace of a grant, are at least.
_HORIZON_TRIPS, _GRACE_TRIPS = 2, 4

#: How long a grant is valid at least, in seconds: event loops are late by that now and then.
_LEAST_GRACE = 0.02

#: How many grants are asked for ahead at most, unless the user says so.
_MOST_AHEAD = 1000

#: How many charges are remembered, should the server forget them.
_LOGGED = 256


@final
class _Local:
    """
    What happened at an instant of the process's own clock, or is to.

    :ivar make: makes of it what the server is told, given that instant by its clock
    """

    __slots__ = ("instant", "make")

    def __init__(self, instant: float, make: Callable[[Micros], Happening]) -> None:
        self.instant = instant
        self.make = make


#: What is told even to a server that has forgotten all else.
_LASTING = (_Local, Resumed, Tightened)


@final
class Dialogue:
    """
    One limiter's side of the dialogue with the server.

    :param rules: what must agree to each call
    :param node: the name of the process
    :param lease: for how long the process may be silent before it counts as dead, in seconds
    :param deadline: by when a request shall be answered, in seconds
    :param read_ahead: how many grants to keep in stock; ``None`` for as many as have been of use
    :param fresh: the name of the state, should the server have none

    :ivar clock: what is known of the server's clock
    :ivar stock: what was granted and not used
    :ivar life: counts the lives with the server: claims of an earlier one are void
    :ivar due: when the next grant to anybody is due, by the server's clock
    :ivar waiting: how many processes wait
    :ivar quotas: what each rule had left at the last reply, and when that was
    :ivar running: the claims of calls that hold something
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        node: str,
        *,
        lease: float,
        deadline: float,
        read_ahead: int | None,
        fresh: str,
    ) -> None:
        self.rules = rules
        self.node = node
        self.lease = lease
        self.deadline = deadline
        self._fresh = fresh
        self.text = rules_text(rules)
        self.holds = any(rule.holds for rule in rules)
        self._times_starts = any(rule.kind == "window" for rule in rules)
        #: Slots and what is held are never read ahead.
        self._read_ahead = 0 if self.holds else read_ahead
        windows = [rule.window for rule in rules if rule.window]
        self._shortest: Micros = min(windows, default=1_000_000)
        self.clock = ServerClock()
        self.stock = Stock()
        self.life = 0
        self.running: dict[Claim, None] = {}
        self.epoch = ""
        #: Until when the server has paused, and until when this process has: by its own clock.
        self._paused_there = self._paused_here = -inf
        self.due: Micros = 0
        self.waiting = 0
        self.quotas: tuple[Quota, ...] = ()
        self._logs = [ChargeLog(_LOGGED) for _ in rules]
        self.number = 0
        #: When something was heard last.
        self.heard_at = -inf
        #: The request that has not been answered.
        self.pending: Request | None = None
        self._outbox: list[Happening | _Local] = []
        #: Whether there is a pause, or the end of one, among that.
        self._pauses = False
        self._started: dict[Lot, None] = {}
        self._received: list[int] = []
        #: How many calls of each kind the server knows to be wanted.
        self._told: dict[Amounts, int] = {}
        self._come = inf
        #: When what there is to tell is to be told at the latest.
        self._tell_by = inf
        #: When the request was sent that was answered last.
        self._contact = -inf
        self._ahead = 0
        self._used = 0
        self._last_used: Amounts = ()

    # What the process does

    def claim(self, lot: Lot) -> Claim:
        """Take something for one call out of a lot."""
        self.stock.use(lot)
        return Claim(lot)

    def is_valid(self, claim: Claim, now: float) -> bool:
        """Return whether a claim still is good for a start."""
        return claim.life == self.life and now <= claim.lot.until and not self.is_lapsed(now)

    def start(self, claim: Claim, now: float) -> None:
        """Note that the call of a claim starts."""
        lot = claim.lot
        claim.started = True
        self._used += 1
        self._last_used = lot.grant.amounts
        at = self.clock.latest(now)
        segment = lot.segments[-1] if lot.segments else None
        if segment is None or segment.closed or at - segment.first > self._shortest * _SPREAD:
            segment = Segment(at)
            lot.segments.append(segment)
            self._started[lot] = None
            if self._times_starts:
                self.tell_within(now, self._shortest * _REPORT / _MICRO)
        else:
            segment.count += 1
            segment.last = max(segment.last, at)

        claim.segment = segment
        if self.holds:
            self.running[claim] = None

    def give_back(self, claim: Claim, now: float) -> None:
        """Note that a claim is not used: it goes to another call, or back."""
        if self.is_valid(claim, now):
            self.stock.put_back(claim.lot)
        else:
            self._return(claim.lot, 1, now)

    def end(self, claim: Claim, now: float) -> None:
        """Note that the call of a claim has ended."""
        if claim.started and self.holds:
            self.count(claim, now, [True] * len(self.rules))
            self.running.pop(claim, None)

    def count(self, claim: Claim, now: float, which: Sequence[bool]) -> None:
        """Note that what a call holds of some rules counts from now on."""
        at = self.clock.latest(now)
        amounts = claim.count(self.rules, at, which)
        if any(amounts) and claim.life == self.life and not claim.lost:
            receipts = tuple(at + rule.window for rule in self.rules)
            self._log_ends(amounts, receipts)
            self._tell(Ended(at, amounts), now, 0.0 if self._is_scarce() else _LINGER)

    def settle(self, claim: Claim, index: int, change: int, now: float) -> None:
        """Correct what one rule has charged to the call of a claim, which has started."""
        pieces = claim.pieces(self.rules)[index]
        known = claim.life == self.life and not claim.lost
        rule = self.rules[index]
        at = self.clock.latest(now)
        if change > 0:
            held = rule.holds and claim in self.running and all(piece.held for piece in pieces)
            pieces.append(Piece(change, 0 if held else self._receipt(rule, index, at, change)))
            amounts = self._only(index, change)
            self._log_ends(amounts, (at + rule.window,) * len(self.rules))
            self._tell(Charged(at, amounts, held), now, _LINGER)
            return

        excess = -change
        for piece in reversed(pieces):
            part = min(excess, piece.amount)
            if part:
                piece.amount -= part
                excess -= part
                receipts = self._only(index, piece.receipt_now(rule.window))
                if known:
                    self._tell(GivenBack(self._only(index, part), receipts), now, _LINGER)

    def penalize(self, amounts: Amounts, now: float) -> None:
        """Note that something is charged that no call was."""
        self.recall(now)
        self._tell(_Local(now, lambda at: Charged(at, amounts, held=False)), now, 0.0)

    def tighten(self, index: int, remaining: int, reset_after: float | None, now: float) -> None:
        """Note a service's figures for one rule."""
        self.recall(now)
        if reset_after is None:
            self._tell(Tightened(index, remaining, -1), now, 0.0)
        else:
            reset = now + reset_after
            self._tell(_Local(reset, lambda at: Tightened(index, remaining, at)), now, 0.0)

    @property
    def paused_until(self) -> float:
        """Until when nothing may start, by the process's own clock."""
        return max(self._paused_here, self._paused_there)

    def pause(self, until: float) -> None:
        """Note a pause; of overlapping ones, the later end holds."""
        self._paused_here = max(self._paused_here, until)
        self._outbox.append(_Local(until, Paused))
        self._pauses = True
        self._tell_by = -inf

    def resume(self, now: float) -> bool:
        """Note the end of any pause; return whether there was one."""
        paused = self.paused_until > now
        self._paused_here = self._paused_there = min(self.paused_until, now)
        self._outbox.append(Resumed())
        self._pauses = True
        self._tell_by = -inf
        return paused

    def recall(self, now: float) -> None:
        """Give back what is in stock, because it was granted by figures that hold no more."""
        for lot, count in self.stock.take_surplus({}):
            self._return(lot, count, now)

    # What it tells

    def next_at(self, now: float, needed: int) -> float:
        """
        Return when the next exchange is to be made.

        :param needed: how many calls wait
        """
        if self.pending is not None:
            return now

        told = sum(self._told.values())
        if 2 * told < needed - self.stock.total or told > 2 * max(needed, self._ahead):
            return now

        if self.stock.total < self._wanted_ahead() // 2 and not told and self._used:
            return now

        instant = self._tell_by
        if told:
            instant = min(instant, self._come, self._contact + self.lease / 3)

        if self.running:
            instant = min(instant, self._contact + self.lease / 3)

        return min(instant, self.stock.over_at()) if self.waiting else instant

    def tell_within(self, now: float, seconds: float) -> None:
        """Note that there is something to tell within so many seconds."""
        self._tell_by = min(self._tell_by, now + seconds)

    def request(
        self,
        now: float,
        wants: Sequence[Want],
        *,
        census: tuple[int, int, int] = (0, 0, 0),
        count_all: bool = False,
        probe: Amounts = (),
        leaves: bool = False,
    ) -> Request:
        """
        Return the request to be sent now; it is repeated until it is answered.

        :param wants: what the calls in line want, from the front
        :param census: how many calls wait, run and are kept
        :param leaves: whether nothing is wanted any more
        """
        if self.pending is None:
            self.pending = self._new_request(
                now, wants, census=census, count_all=count_all, probe=probe, leaves=leaves
            )

        if self.is_lapsed(now):
            # It may have been carried out long ago, and forgotten since.
            kept = tuple(
                happening
                for happening in self.pending.happenings
                if not isinstance(happening, (Started, GivenBack, Ended))
            )
            self.pending = replace(self.pending, happenings=kept)

        expires = 0
        if self.clock.known:
            expires = self.clock.latest(now + self.deadline)

        alive = not self.is_lapsed(now) and self._contact > -inf
        self.pending = replace(self.pending, expires=expires, alive=alive)
        return self.pending

    def _new_request(
        self,
        now: float,
        wants: Sequence[Want],
        *,
        census: tuple[int, int, int],
        count_all: bool,
        probe: Amounts,
        leaves: bool,
    ) -> Request:
        self.number += 1
        for lot, count in self.stock.take_over(now):
            self._ahead //= 2
            self._return(lot, count, now)

        ahead = 0 if leaves else self._adapt_ahead()
        if self._outbox and not self.clock.known:
            # First it is to hear what holds for those who wait, for which its clock has to be known.
            wants, ahead = (), 0

        asked = self._asked(wants, ahead, now)
        self._told = {}
        for want in asked:
            self._told[want.amounts] = self._told.get(want.amounts, 0) + want.count

        self._used = 0
        grace = max(_GRACE_TRIPS * self.clock.round_trip, _LEAST_GRACE)
        horizon = 0.0
        if not self.holds:
            shortest = self._shortest / _MICRO
            horizon = min(max(shortest / 10, _LEAST_HORIZON), _MOST_HORIZON)
            horizon = max(horizon, _HORIZON_TRIPS * self.clock.round_trip)
            leased = shortest / 10 if self._read_ahead else 0.0
            grace = max(grace, min(horizon, shortest / 10), leased)

        return Request(
            rules=self.text,
            node=self.node,
            number=self.number,
            epoch=self.epoch,
            fresh=self._fresh,
            expires=0,
            grace=int(grace * _MICRO),
            horizon=int(horizon * _MICRO),
            lease=int(self.lease * _MICRO),
            hold_back=int((self.deadline + grace + horizon) * _MICRO),
            alive=False,
            holds=bool(self.running),
            census=census,
            count_all=count_all,
            probe=probe,
            received=tuple(self._received),
            wants=asked,
            happenings=self._happenings(),
        )

    def _happenings(self) -> tuple[Happening, ...]:
        """Return what there is to tell, which is then told; nothing before the clock is known."""
        if not self.clock.known:
            return ()

        happenings = self._starts()
        happenings += [
            each.make(self.clock.latest(each.instant)) if isinstance(each, _Local) else each
            for each in self._outbox
        ]
        self._outbox = []
        self._pauses = False
        self._tell_by = inf
        return tuple(happenings)

    def _starts(self) -> list[Happening]:
        """Return what is to be told of calls that have started; remember what they were charged."""
        happenings: list[Happening] = []
        for lot in self._started:
            grant = lot.grant
            for segment in lot.segments:
                amounts = tuple(amount * segment.count for amount in grant.amounts)
                self._log(amounts, grant.receipts, segment.last)
                segment.closed = True
                if self._times_starts and lot.life == self.life:
                    happenings.append(Started(segment.last, amounts, grant.receipts))

            lot.segments.clear()

        self._started.clear()
        return happenings

    def _asked(self, wants: Sequence[Want], ahead: int, now: float) -> tuple[Want, ...]:
        """Return what to ask for, on top of what is in stock; give back what is of no use there."""
        if ahead and self._last_used:
            wants = [*wants, Want(self._last_used, ahead)]

        needed: dict[Amounts, int] = {}
        for want in wants:
            needed[want.amounts] = needed.get(want.amounts, 0) + want.count

        for lot, count in self.stock.take_surplus(needed):
            self._return(lot, count, now)

        there = {amounts: self.stock.count(amounts) for amounts in needed}
        asked: list[Want] = []
        for want in wants:
            met = min(there[want.amounts], want.count)
            there[want.amounts] -= met
            if want.count > met:
                asked.append(Want(want.amounts, want.count - met))

        return tuple(asked)

    def _wanted_ahead(self) -> int:
        return self._ahead if self._read_ahead is None else self._read_ahead

    def _adapt_ahead(self) -> int:
        """Return how many grants to ask for ahead of their use."""
        if not self._used:
            # Idle: what is in stock may be used up, but no more is fetched.
            self._ahead = min(self._ahead, self.stock.total)
            return self._ahead

        if self._read_ahead is not None:
            return self._read_ahead

        if self.waiting > bool(self._told):
            self._ahead = 0
        elif self._used >= self._ahead:
            self._ahead = min(max(2 * self._ahead, self._used), _MOST_AHEAD)

        return self._ahead

    # What it hears

    def hear_reply(self, reply: Reply, sent: float, received: float) -> None:
        """Note the answer to the request that is pending."""
        request = self.pending
        assert request is not None
        self.clock.note(sent, received, reply.news.now)
        self.heard_at = received
        if reply.status == "conflict":
            self.pending = None
            self._told = {}
            return

        if reply.status == "stale":
            # Given up too early; it is sent again, later.
            self._told = {}
            return

        self.pending = None
        self._contact = sent
        heard = set(request.received)
        self._received = [number for number in self._received if number not in heard]
        self.quotas = reply.quotas
        if reply.status == "lost":
            self._begin_anew(reply.news)
            return

        if reply.status == "buried":
            self.lose_all()

        self.epoch = reply.news.epoch
        self._hear(reply.news, received)
        self.stock.note_all_seen(reply.news.grants)
        self._come = self.clock.when_surely(reply.news.come)

    def hear_push(self, push: Push, now: float) -> None:
        """Note news that came unasked."""
        if push.news.epoch != self.epoch:
            return

        if push.node:
            self._hear(push.news, now)
            self._come = min(self._come, self.clock.when_surely(push.news.come))
            if push.news.come < NEVER:
                self._come = self.clock.when_surely(push.news.come)
        else:
            self._hear_pause(push.news)
            if push.recall:
                self.recall(now)

    def lacks_own(self, amounts: Sequence[int]) -> bool:
        """Return whether the calls of this process hold so much that an amount is not left."""
        held = [0] * len(self.rules)
        for claim in self.running:
            for index, amount in enumerate(claim.held(self.rules)):
                held[index] += amount

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

    def change_loops(self, shift: float) -> None:
        """Go over to a loop whose clock is ahead by ``shift``: nothing is held there."""
        self._paused_here += shift
        self._outbox = [
            _Local(each.instant + shift, each.make) if isinstance(each, _Local) else each
            for each in self._outbox
        ]
        self.lose_all()

    def take_over(self, before: Dialogue) -> None:
        """Take over what was said before anybody listened."""
        self._outbox = [each for each in before._outbox if isinstance(each, _LASTING)]
        self._pauses = before._pauses
        self._paused_here = before._paused_here
        if self._outbox:
            self._tell_by = -inf

    def is_lapsed(self, now: float) -> bool:
        """Return whether the server may have taken what the process holds."""
        return now > self._contact + self.lease * (1 - DRIFT) and self._contact > -inf

    def lose_all(self) -> list[Claim]:
        """Give up what the server has taken, or may have; return the calls that held something."""
        self.life += 1
        self.stock.clear()
        self._received.clear()
        self._started.clear()
        lost = list(self.running)
        self.running.clear()
        for claim in lost:
            claim.lost = True

        return lost

    def _hear(self, news: News, now: float) -> None:
        self._hear_pause(news)
        self.due = news.due
        self.waiting = news.waiting
        for grant in news.grants:
            self._received.append(grant.number)
            if self.stock.add(grant, self.life, self.clock, now):
                left = self._told.get(grant.amounts, 0) - grant.count
                if left > 0:
                    self._told[grant.amounts] = left
                else:
                    self._told.pop(grant.amounts, None)

    def _hear_pause(self, news: News) -> None:
        if not self._pauses and self.pending is None:
            # The server has heard of all pauses.
            self._paused_here = -inf

        self._paused_there = -inf
        if news.paused_until > news.now:
            self._paused_there = self.clock.when_surely(news.paused_until)

    def _begin_anew(self, news: News) -> None:
        """Tell the server what it has forgotten, because its state is another one."""
        self._starts()
        self.epoch = news.epoch
        self.life += 1
        self.stock.clear()
        self._received.clear()
        self._told = {}
        kept = [each for each in self._outbox if isinstance(each, _LASTING)]
        self._outbox = [
            Remembered(index, amount, int(receipt))
            for index, log in enumerate(self._logs)
            for receipt, amount in log.entries()
            if receipt > news.now
        ]
        held = [0] * len(self.rules)
        for claim in self.running:
            claim.life = self.life
            for index, amount in enumerate(claim.held(self.rules)):
                held[index] += amount

        if any(held):
            self._outbox.append(Held(tuple(held)))

        self._outbox += kept
        self._hear_pause(news)
        self._tell_by = -inf

    # Inner matters

    def _return(self, lot: Lot, count: int, now: float) -> None:
        if lot.life == self.life:
            amounts = tuple(amount * count for amount in lot.grant.amounts)
            soon = 0.0 if self.waiting else self._shortest * _REPORT / _MICRO
            self._tell(GivenBack(amounts, lot.grant.receipts), now, soon)

    def _tell(self, happening: Happening | _Local, now: float, within: float) -> None:
        self._outbox.append(happening)
        self.tell_within(now, within)

    def _is_scarce(self) -> bool:
        """Return whether others may wait for what a call lets go."""
        return self.waiting > 0 or any(
            rule.holds and 2 * quota.remaining <= rule.limit
            for rule, quota in zip(self.rules, self.quotas, strict=False)
        )

    def _only(self, index: int, amount: int) -> Amounts:
        return tuple(amount if i == index else 0 for i in range(len(self.rules)))

    def _receipt(self, rule: Rule, index: int, at: Micros, amount: int) -> Micros:
        """Return when a charge that is made now comes back, at the earliest."""
        if rule.kind == "bucket":
            return at + int(amount / rule.limit * rule.window)

        if rule.kind == "fixed":
            return self.quotas[index].more if self.quotas else at

        return at + rule.window

    def _log(self, amounts: Amounts, receipts: tuple[Micros, ...], at: Micros) -> None:
        """Remember what a call was charged, should the server forget it."""
        for index, rule in enumerate(self.rules):
            if rule.kind == "window":
                self._logs[index].note(at + rule.window, amounts[index])
            elif rule.kind == "bucket":
                refill = int(rule.extra / rule.limit * rule.window)
                self._logs[index].note(at + refill, amounts[index])
            elif rule.kind == "fixed":
                self._logs[index].note(receipts[index], amounts[index])

    def _log_ends(self, amounts: Amounts, receipts: tuple[Micros, ...]) -> None:
        for index, rule in enumerate(self.rules):
            if amounts[index] and rule.window:
                self._logs[index].note(receipts[index], amounts[index])
