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

from .account import Account
from .again import charged, is_lasting
from .contact import Contact
from .exchange import (
    Amounts,
    Charged,
    Happening,
    Micros,
    Paused,
    Request,
    Resumed,
    Tightened,
    Want,
    rules_text,
)
from .outbox import Local, Outbox
from .pauses import Pauses
from .read_ahead import ReadAhead
from .server_clock import ServerClock
from .terms import Terms
from .wanted import Wanted, by_amounts, unmet

#: How long a want behind which there is no call may wait to be withdrawn, in seconds.
_LINGER = 0.05


class Speaker:
    """
    What one limiter of a process says to the server, and when.

    :param terms: what is agreed on: rules, lease, deadline
    :param node: the name of the process
    :param fresh: the name of the state, if the server has none
    :param read_ahead: how many grants to keep in stock; ``None`` for as many as have been of use

    :ivar clock: what is known of the server's clock
    :ivar account: what the calls of the process were charged, and hold
    :ivar due: when the next grant to any process is due, by the server's clock
    :ivar number: the number of the latest request
    :ivar pending: that request, until it is answered
    """

    def __init__(self, terms: Terms, node: str, fresh: str, read_ahead: int | None) -> None:
        self.terms = terms
        self.rules = terms.rules
        self.node = node
        self._fresh = fresh
        #: How many states have had a name from this process; the next name has this number.
        self._states = 0
        self.text = rules_text(terms.rules)
        self.clock = ServerClock()
        #: Slots and what is held are never read ahead.
        self._ahead = ReadAhead(0 if terms.holds else read_ahead, terms.shortest)
        self._outbox = Outbox(terms.rules, terms.spread)
        self.account = Account(terms, self.clock, self._outbox, self._ahead)
        self._pauses = Pauses()
        self.due: Micros = 0
        self.number = 0
        self.pending: Request | None = None
        self._epoch = ""
        #: Pushes that were sent up to this instant belong to an earlier life.
        self._began: Micros = 0
        #: When the request was sent whose lease was over when all was given up.
        self._lapsed = -inf
        #: The grants that have come and were not acknowledged.
        self._received: list[int] = []
        self._wanted = Wanted()
        #: Whether the pending request leaves out the turns in line, which wait for the next one.
        self._withholds = False
        #: Whether pushes may have been missed since the latest request.
        self._missed = False
        self._come = inf
        #: The instant of the latest news, and when they came.
        self._news: Micros = 0
        self._news_at = -inf
        #: By when what has come is to be acknowledged, if calls wait.
        self._acknowledge_by = inf
        #: How far ahead grants may reach, as the server was told.
        self._horizon: Micros = 0
        self._contact = Contact(terms.lease)

    # What happens to all calls

    def penalize(self, amounts: Amounts, now: float) -> None:
        """Note a charge that belongs to no call."""
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
        return self._pauses.until

    def pause(self, until: float) -> None:
        """Note a pause; of overlapping ones, the later end holds."""
        self._pauses.pause(until)
        self._outbox.tell(Local(until, Paused), -inf)
        self._outbox.pauses = True

    def resume(self, now: float) -> bool:
        """Note the end of any pause; return whether there was one."""
        paused = self._pauses.resume(now)
        self._outbox.tell(Resumed(), -inf)
        self._outbox.pauses = True
        return paused

    @property
    def others_wait(self) -> bool:
        """Whether other processes waited when the server was heard last."""
        return self.account.waiting > bool(self._wanted.count)

    # What it tells

    def fetch_no_more(self) -> None:
        """Note that the process leaves, and so wants nothing ahead, which others would wait for."""
        self._ahead.end()

    def has_last_words(self) -> bool:
        """
        Return whether the server has to hear something before the process leaves.

        If it hears of starts, their charges come back up to a grace sooner; but that is worth an
        exchange only while other processes wait.
        """
        wants = self.pending is not None or bool(self._wanted.count)
        return wants or self.holds_something() or self.account.waiting > 0

    def holds_something(self) -> bool:
        """Return whether there is something to give back, or to tell."""
        unheard = self.pending.happenings if self.pending is not None else ()
        return bool(unheard or self._outbox or self.account.stock.total or self.account.running)

    def speak_by(self, instant: float) -> None:
        """Note that an exchange is to be made by an instant."""
        self._outbox.speak_by(instant)

    def next_at(self, now: float, needed: int, met: int, front: Amounts | None) -> float:
        """
        Return when the next exchange is to be made.

        :param needed: how many calls wait
        :param met: for how many of them there is something in stock
        :param front: what the first one is charged; ``None`` if none waits
        """
        if self.pending is not None:
            return now

        stock = self.account.stock
        told = self._wanted.count
        short = 2 * told < needed - met
        if short or told > 2 * max(needed, self._ahead.count):
            return now

        if not (front is None or stock.count(front) or self._wanted.knows(front)):
            return now

        if self.terms.holds and stock.total > met:
            # No other process gets what is held until it is given back.
            return now

        if self._missed if told else self._ahead.is_low(stock.total):
            return now

        instant = self._outbox.due
        if told or self.account.running:
            instant = min(instant, self._contact.renew_at())

        if told and needed:
            instant = min(instant, self._come, self._acknowledge_by)
        elif told:
            # No call here waits for it, but it stands in the way of others.
            instant = min(instant, self._contact.heard + _LINGER)

        over = stock.over_at()
        if not (needed or self.account.waiting or self.terms.holds):
            # What is of no use any more need not go back at once: no process lacks it yet.
            over += self.terms.return_patience

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
        :param probe: the amounts of a call, to ask when it could go; empty for no such question
        """
        lapsed = self.is_lapsed(now)
        request = self.pending
        if request is None:
            asked = self._asked(wants, now)
            happenings: tuple[Happening, ...] = ()
            if not self._withholds:
                happenings = self._outbox.take(
                    self.clock, self.account.life, tells_starts=self.terms.tells_starts
                )

            self.number += 1
            self._missed = False
            request = self._new_request(asked, happenings, now)
            request = replace(request, census=census, count_all=count_all, probe=probe)
        else:
            # The happenings stay as they were told before, but the wants are those of now.
            request = replace(request, wants=self._asked(wants, now))
            if lapsed:
                # It may have been carried out, and the server may have forgotten that since.
                kept = tuple(charged(each) for each in request.happenings if is_lasting(each))
                request = replace(request, happenings=kept, holds=False)

        expires = self.clock.latest(now + self.terms.deadline) if self.clock.known else 0
        # A copy may come as late as it expires, and the server may have buried the process by then.
        alive = self._contact.sent > -inf and not self.is_lapsed(now + self.terms.deadline)
        self.pending = replace(request, expires=expires, alive=alive)
        return self.pending

    def _new_request(
        self, wants: tuple[Want, ...], happenings: tuple[Happening, ...], now: float
    ) -> Request:
        grace, horizon = self.terms.grace_and_horizon(self.clock.round_trip)
        self._horizon = horizon
        self._acknowledge_by = inf
        return Request(
            rules=self.text,
            node=self.node,
            number=self.number,
            # A state that was not needed any more may be gone: then it was not lost.
            epoch="" if now > self._contact.sent + self.terms.memory else self._epoch,
            fresh=self._fresh_epoch(),
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
            self.account.stock.total,
            now,
            others=self.others_wait,
            lasted=now - self._contact.heard,
            round_trip=self.clock.round_trip,
        )
        # The server is to hear of happenings before wants, and its clock must be known for them: so
        # this request only asks for the time.
        self._withholds = bool(self._outbox) and not self.clock.known
        if self._withholds:
            wants, ahead = (), 0

        if ahead and self._ahead.amounts:
            wants = [*wants, Want(self._ahead.amounts, ahead)]

        stock = self.account.stock
        self.account.return_lots(stock.take_surplus(by_amounts(wants)), now)
        asked = unmet(wants, stock)
        self._wanted.tell(asked)
        return asked

    def is_lapsed(self, now: float) -> bool:
        """Return whether the server may have taken what the process holds."""
        return self._contact.is_lapsed(now)

    def _fresh_epoch(self) -> str:
        """Return the name of the state if the server has none: a name that no former one had."""
        return f"{self._fresh}-{self._states}"
