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
from math import inf, nextafter
from typing import final

from .account import Account
from .claim import Claim
from .exchange import (
    NEVER,
    Amounts,
    Charged,
    Happening,
    Held,
    Micros,
    News,
    Paused,
    Push,
    Reply,
    Request,
    Resumed,
    Tightened,
    Want,
    rules_text,
)
from .outbox import FRAGILE, Local, Outbox
from .read_ahead import ReadAhead
from .server_clock import DRIFT, ServerClock
from .terms import Terms

#: For how long something that nobody waits for may wait to be told, in seconds.
_LINGER = 0.05


@final
class Dialogue:
    """
    One limiter's side of the dialogue with the server.

    :param terms: what is agreed on: rules, lease, deadline
    :param node: the name of the process
    :param fresh: the name of the state, should the server have none
    :param read_ahead: how many grants to keep in stock; ``None`` for as many as have been of use

    :ivar clock: what is known of the server's clock
    :ivar account: what the calls of the process were charged, and hold
    :ivar due: when the next grant to anybody is due, by the server's clock
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
        #: Slots and what is held are never read ahead.
        self._ahead = ReadAhead(0 if terms.holds else read_ahead)
        self._outbox = Outbox(terms.rules, terms.spread)
        self.account = Account(terms, self.clock, self._outbox, self._ahead)
        #: Until when the server has paused, and until when this process has: by its own clock.
        self._paused_there = self._paused_here = -inf
        self.due: Micros = 0
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
        #: By when what has come is to be acknowledged, if calls wait.
        self._acknowledge_by = inf
        #: How far ahead grants may reach, as the server was told.
        self._horizon: Micros = 0
        #: When the request was sent that was answered last, and when its answer came.
        self._contact = self._heard = -inf

    # What happens to all calls

    def penalize(self, amounts: Amounts, now: float) -> None:
        """Note that something is charged that no call was."""
        self.account.recall(now)
        self._outbox.tell(Local(now, lambda at: Charged(at, amounts, held=False)), now)

    def tighten(self, index: int, remaining: int, reset_after: float | None, now: float) -> None:
        """Note a service's figures for one rule."""
        self.account.recall(now)
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

    # What it tells

    def speak_by(self, instant: float) -> None:
        """Note that an exchange is to be made by an instant."""
        self._outbox.speak_by(instant)

    def next_at(self, now: float, needed: int) -> float:
        """
        Return when the next exchange is to be made.

        :param needed: how many calls wait
        """
        if self.pending is not None:
            return now

        told = sum(self._told.values())
        short = 2 * told < needed - self.account.stock.total
        if short or told > 2 * max(needed, self._ahead.count):
            return now

        if not told and self._ahead.is_low(self.account.stock.total):
            return now

        instant = self._outbox.due
        if told or self.account.running:
            instant = min(instant, self._contact + self.terms.lease / 3)

        if told:
            instant = min(instant, self._come, self._acknowledge_by)

        # Just then it is still good.
        over = nextafter(self.account.stock.over_at(), inf)
        if not (needed or self.account.waiting or self.terms.holds):
            # What is of no use any more is missing to nobody yet.
            over += self.terms.patience

        return min(instant, over)

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
                    self.clock, self.account.life, tells_starts=self.terms.tells_starts
                )

            self.number += 1
            request = self._new_request(asked, happenings)
            request = replace(request, census=census, count_all=count_all, probe=probe)
        elif lapsed:
            # It may have been carried out, and the server may have forgotten that since.
            kept = [each for each in request.happenings if not isinstance(each, FRAGILE)]
            request = replace(request, happenings=tuple(kept), holds=False)

        expires = self.clock.latest(now + self.terms.deadline) if self.clock.known else 0
        # A copy that comes late, but before it expires, must not ask for more than is known there.
        alive = self._contact > -inf and not self.is_lapsed(now + self.terms.deadline)
        self.pending = replace(request, expires=expires, alive=alive)
        return self.pending

    def _new_request(self, wants: tuple[Want, ...], happenings: tuple[Happening, ...]) -> Request:
        grace, horizon = self.terms.grace_and_horizon(self.clock.round_trip)
        self._horizon = horizon
        self._acknowledge_by = inf
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
            holds=bool(self.account.running),
            census=(0, 0, 0),
            count_all=False,
            probe=(),
            received=tuple(self._received),
            wants=wants,
            happenings=happenings,
        )

    def _asked(self, wants: Sequence[Want], now: float) -> tuple[Want, ...]:
        """Return what to ask for, on top of what is in stock; give back what is of no use there."""
        over = self.account.stock.take_over(now)
        if over:
            self._ahead.note_waste()
            self.account.return_lots(over, now)

        ahead = self._ahead.next(
            self.account.stock.total, others=self.account.waiting > bool(self._told)
        )
        if self._outbox and not self.clock.known:
            # The server is to hear first what holds for those who wait, for which its clock has to
            # be known.
            wants, ahead = (), 0

        if ahead:
            wants = [*wants, Want(self._ahead.amounts, ahead)]

        needed = _by_amounts(wants)
        self.account.return_lots(self.account.stock.take_surplus(needed), now)
        there = {amounts: self.account.stock.count(amounts) for amounts in needed}
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
        self.account.quotas = reply.quotas
        if reply.status == "lost":
            self._begin_anew(reply.news)
            return

        if reply.status == "buried":
            self.lose_all(reply.news.now)

        self._epoch = reply.news.epoch
        self._hear(reply.news, received)
        self.account.stock.note_all_seen(reply.news.grants)
        self._come = self.clock.when_surely(reply.news.come)

    def hear_push(self, push: Push, now: float) -> None:
        """Note news that came unasked."""
        news = push.news
        if news.epoch != self._epoch or news.now <= self._began:
            return

        if not push.node:
            self._hear_pause(news)
            if push.recall:
                self.account.recall(now)

            return

        self._hear(news, now)
        if news.come < NEVER:
            self._come = self.clock.when_surely(news.come)

    def miss(self) -> None:
        """Note that pushes may have been missed: what they said is asked for."""
        if self._told:
            self.speak_by(-inf)

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
        self._began = now
        self._received.clear()
        self._outbox.forget_fragile()
        return self.account.lose()

    def is_valid(self, claim: Claim, now: float) -> bool:
        """Return whether a claim still is good for a start."""
        return self.account.is_valid(claim, now) and not (self.terms.holds and self.is_lapsed(now))

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
        self.account.waiting = news.waiting
        for grant in news.grants:
            self._received.append(grant.number)
            # Who waits and does not acknowledge what it was granted is passed over.
            acknowledged_by = self.clock.still_before(grant.due + grant.grace + self._horizon)
            self._acknowledge_by = min(self._acknowledge_by, acknowledged_by)
            if self.account.stock.add(grant, self.account.life, self.clock, now):
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
        self._began = news.now
        self._received.clear()
        self._told = {}
        self._outbox.begin_anew(news.now)
        held = self.account.held()
        if any(held):
            self._outbox.tell(Held(tuple(held)), -inf)

        self.account.adopt()
        self._hear_pause(news)


def _by_amounts(wants: Sequence[Want]) -> dict[Amounts, int]:
    """Return how many calls want what."""
    counts: dict[Amounts, int] = {}
    for want in wants:
        counts[want.amounts] = counts.get(want.amounts, 0) + want.count

    return counts
