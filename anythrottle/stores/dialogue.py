"""What a process hears from the server about one limiter, and what follows from it."""

from __future__ import annotations

from math import inf
from typing import final

from .again import charged, held_by
from .claim import Claim
from .exchange import (
    NEVER,
    Amounts,
    Ended,
    Held,
    Micros,
    News,
    Push,
    Reply,
    Request,
    Tightened,
)
from .speaker import Speaker
from .stock import Lot


@final
class Dialogue(Speaker):
    """One limiter's side of the dialogue with the server."""

    def hear_reply(self, reply: Reply, sent: float, received: float) -> bool:
        """
        Note the answer to the request that is pending.

        :param sent: when it was sent, by the own clock
        :return: whether it is an answer to the turns in line, too
        """
        request = self.pending
        assert request is not None
        self.clock.note(sent, received, reply.news.now)
        if reply.status == "stale":
            # Too late to be carried out: it is sent again.
            return False

        self.pending = None
        if reply.status == "conflict":
            self._wanted.tell(())
            return False

        self._contact.note(sent, received)
        heard = set(request.received)
        self._received = [number for number in self._received if number not in heard]
        self.account.quotas = reply.quotas
        news = reply.news
        if reply.status == "lost":
            self._begin_anew(news, request, received)
            return False

        if reply.status == "buried":
            self.lose_all(news.now)
            self._let_go(held_by(request.happenings), received)

        if news.epoch != self._epoch:
            # A new state, in which nothing of the old one counts.
            self._begin_life(news)

        come = self.clock.when_surely(news.come)
        # News from before the request was sent are older for sure, even if a clock stepped back.
        newest = self._news_at <= sent or news.now >= self._news
        self._come = come if newest else min(self._come, come)
        self._hear(news, received, newest=newest)
        self.account.stock.note_all_seen(news.grants)
        # A grant that was over when it came says nothing of what is to be had.
        over = any(self.clock.still_before(g.due + g.grace) < received for g in news.grants)
        return not (self._withholds or over)

    def hear_push(self, push: Push, now: float) -> None:
        """Note news that came unasked."""
        news = push.news
        if news.now <= self._began:
            return

        if news.epoch != self._epoch:
            if self._epoch and not push.node:
                # The state is another one, which has to know what was charged.
                self.speak_by(-inf)

            return

        # Else newer news have overtaken these.
        newest = news.now >= self._news
        if push.node:
            self._hear(news, now, newest=newest)
            if news.come < NEVER:
                self._come = min(self.clock.when_surely(news.come), inf if newest else self._come)

            return

        if newest:
            self._hear_pause(news, now)

        if push.recall:
            # If it were given back, it would come on top of what the service's figures leave.
            self.account.drop(now)

    def miss(self) -> None:
        """Note that pushes may have been missed: what they said is asked for."""
        # No exchange is made for that at once: the pending one may bring all that is wanted.
        self._missed = True

    def surely_lapsed_at(self) -> float:
        """Return when the server has surely taken what the process held, if it hears nothing."""
        return self._contact.surely_lapsed_at()

    def has_lapsed(self, now: float) -> bool:
        """Return whether the lease is over, which :meth:`lapse` has not noted yet."""
        return self.terms.holds and self.is_lapsed(now) and self._lapsed != self._contact.sent

    def lapse(self, now: float) -> int:
        """
        Note that the lease is over; return how many calls held something.

        This goes for earlier grants too: those on their way must be neither used nor given back.
        """
        self._lapsed = self._contact.sent
        return self.lose_all(self.clock.latest(now))

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

    def first(self, amounts: Amounts, now: float) -> Lot | None:
        """Return the lot that a call would use; ``None`` if there is none."""
        if self.terms.holds and self.is_lapsed(now):
            return None

        return self.account.stock.first(amounts, now)

    def is_valid(self, claim: Claim, now: float) -> bool:
        """Return whether a claim still is good for a start."""
        return self.account.is_valid(claim, now) and not (self.terms.holds and self.is_lapsed(now))

    def change_loops(self, shift: float) -> None:
        """Go over to a loop whose clock is ahead by ``shift``: nothing is held there."""
        self._pauses.here += shift
        self._outbox.shift(shift)
        self.lose_all(self._began)

    def take_over(self, before: Dialogue) -> None:
        """Take over what was said before the store was entered."""
        unheard = before.pending.happenings if before.pending is not None else ()
        self._outbox.take_over(before._outbox, tuple(map(charged, unheard)))
        self._pauses.here = before._pauses.here

    def _hear(self, news: News, now: float, *, newest: bool) -> None:
        if newest:
            self._hear_pause(news, now)
            self.due = news.due
            self.account.waiting = news.waiting

        if news.served > 1:
            # One of them may have been this process.
            self._ahead.note_others(now)

        for grant in news.grants:
            self._received.append(grant.number)
            # The server passes over a process that waits and does not acknowledge its grants.
            acknowledged_by = self.clock.still_before(grant.due + grant.grace + self._horizon)
            self._acknowledge_by = min(self._acknowledge_by, acknowledged_by)
            if self.account.stock.add(grant, self.account.life, self.clock, now):
                self._wanted.get(grant)

    def _hear_pause(self, news: News, now: float) -> None:
        self._news, self._news_at = news.now, now
        paused = news.paused_until > news.now
        until = self.clock.when_surely(news.paused_until) if paused else -inf
        self._pauses.hear(until, all_told=not self._outbox.pauses and self.pending is None)

    def _begin_life(self, news: News) -> None:
        """Begin another life, with another state of the server's."""
        self._epoch = news.epoch
        self._began = news.now
        self._received.clear()
        self.account.adopt()
        if news.epoch == self._fresh_epoch():
            self._states += 1

    def _let_go(self, amounts: Amounts, now: float) -> None:
        """Give back what the server holds for calls that have lost what they held."""
        if any(amounts):
            self._outbox.tell(Ended(self.clock.latest(now), amounts), -inf)

    def _begin_anew(self, news: News, request: Request, now: float) -> None:
        """Report to the server what it has forgotten, because its state is another one."""
        tightened = [each for each in request.happenings if isinstance(each, Tightened)]
        self._outbox.begin_anew(news.now, tightened)
        if self.paused_until > now:
            self.pause(self.paused_until)

        held = self.account.held()
        if any(held):
            self._outbox.tell(Held(tuple(held)), -inf)

        self._wanted.tell(())
        self._begin_life(news)
        self._hear_pause(news, now)
