"""What a process says to the server, and hears, without a loop; the server is a ledger."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from anythrottle.stores.again import charged, held_by, is_lasting
from anythrottle.stores.dialogue import Dialogue
from anythrottle.stores.exchange import (
    NEVER,
    Charged,
    Ended,
    GivenBack,
    News,
    Paused,
    Push,
    Reply,
    Rule,
    Started,
    Want,
)
from anythrottle.stores.ledger import Ledger
from anythrottle.stores.terms import Terms

SECOND = 1_000_000

WINDOW = Rule("window", 10, SECOND, 0, "calls")

END = Rule("end", 10, SECOND, 0, "calls")


class Talk:
    """A dialogue, and the server that it is with, whose clock shows the same."""

    def __init__(self, *rules: Rule, lease: float = 3.0, read_ahead: int | None = 0) -> None:
        terms = Terms(rules, lease=lease, deadline=1.0, leases=False)
        self.dialogue = Dialogue(terms, "node", "fresh", read_ahead)
        self.ledger: Ledger | None = None
        self.wants: list[Want] = []

    def exchange(self, now: float) -> Reply:
        request = self.dialogue.request(now, self.wants)
        reply = self.carry_out(request, now)
        self.dialogue.hear_reply(reply, now, now)
        return reply

    def carry_out(self, request: Any, now: float) -> Reply:
        instant = round(now * SECOND)
        if self.ledger is None:
            self.ledger = Ledger(request, instant)

        return self.ledger.exchange(request, instant)[0]

    def start(self, now: float, amounts: tuple[int, ...] = (1,)) -> Any:
        lot = self.dialogue.first(amounts, now)
        assert lot is not None
        claim = self.dialogue.account.claim(lot)
        self.dialogue.account.start(claim, now)
        self.wants = []
        return claim


@pytest.mark.promise("S9", "S10")
def test_a_request_that_is_repeated_after_the_lease_tells_only_what_still_holds() -> None:
    talk = Talk(END)
    talk.wants = [Want((1,), 1)]
    talk.exchange(1.0)
    claim = talk.start(1.0)
    talk.dialogue.account.settle(claim, 0, 2, 1.1)
    talk.dialogue.pause(20.0)
    request = talk.dialogue.request(1.2, ())
    assert Charged(pytest.approx(1.1 * SECOND, abs=500), (2,), held=True) in request.happenings  # type: ignore[arg-type]
    assert talk.dialogue.is_lapsed(5.0)
    assert talk.dialogue.lose_all(5 * SECOND) == 1
    again = talk.dialogue.request(5.0, ())
    assert again.number == request.number
    assert not again.holds
    assert not again.alive
    kinds = [type(each) for each in again.happenings]
    assert kinds == [Charged, Paused]
    # What it would hold is held by nobody.
    assert all(not each.held for each in again.happenings if isinstance(each, Charged))
    reply = talk.carry_out(again, 5.0)
    talk.dialogue.hear_reply(reply, 5.0, 5.0)
    assert talk.ledger is not None
    assert talk.ledger.rules[0].held == 0


@pytest.mark.promise("S10")
def test_what_was_charged_to_a_call_that_is_taken_is_not_held_for_ever() -> None:
    talk = Talk(END, lease=1.5)
    talk.wants = [Want((1,), 1)]
    talk.exchange(1.0)
    claim = talk.start(1.0)
    talk.dialogue.account.settle(claim, 0, 2, 1.1)
    assert talk.ledger is not None
    # The server's clock steps ahead, and buries the process.
    talk.ledger._bury_dead(100 * SECOND)
    reply = talk.exchange(1.6)
    assert reply.status == "buried"
    assert claim.lost
    assert talk.ledger.rules[0].held == 2
    talk.exchange(1.7)
    assert talk.ledger.rules[0].held == 0


def test_a_claim_of_an_earlier_life_is_void() -> None:
    talk = Talk(END)
    talk.wants = [Want((1,), 3)]
    talk.exchange(1.0)
    lot = talk.dialogue.first((1,), 1.0)
    assert lot is not None
    unused, claim = talk.dialogue.account.claim(lot), talk.start(1.0)
    talk.dialogue.lose_all(SECOND)
    assert claim.lost
    assert not talk.dialogue.is_valid(unused, 1.0)
    talk.dialogue.account.give_back(unused, 1.0)
    talk.dialogue.account.settle(claim, 0, -1, 1.0)
    talk.dialogue.account.end(claim, 1.0)
    assert talk.dialogue.request(1.0, ()).happenings == ()


@pytest.mark.promise("S1")
def test_a_claim_that_is_too_old_goes_back() -> None:
    talk = Talk(WINDOW)
    talk.wants = [Want((1,), 1)]
    talk.exchange(1.0)
    lot = talk.dialogue.first((1,), 1.0)
    assert lot is not None
    claim = talk.dialogue.account.claim(lot)
    assert talk.dialogue.is_valid(claim, lot.until)
    late = lot.until + 1e-6
    assert not talk.dialogue.is_valid(claim, late)
    talk.dialogue.account.give_back(claim, late)
    assert talk.dialogue.first((1,), 1.0) is None
    assert talk.dialogue.request(late, ()).happenings == (GivenBack((1,), lot.grant.receipts),)


def test_a_stale_answer_is_none() -> None:
    talk = Talk(WINDOW)
    talk.exchange(1.0)
    talk.wants = [Want((1,), 1)]
    request = talk.dialogue.request(1.1, talk.wants)
    stale = Reply("stale", News(request.epoch, 2 * SECOND, 0, NEVER, NEVER, 0, ()))
    assert not talk.dialogue.hear_reply(stale, 1.1, 1.1)
    assert talk.dialogue.next_at(1.1, 1, 0, (1,)) == 1.1
    # It is sent again, with an expiry by the clock that is known now.
    again = talk.dialogue.request(1.1, talk.wants)
    assert again.number == request.number
    assert again.expires > request.expires


@pytest.mark.promise("S5")
def test_what_may_have_been_missed_is_asked_for_while_calls_wait() -> None:
    talk = Talk(WINDOW)
    talk.exchange(1.0)
    talk.dialogue.miss()
    assert talk.dialogue.next_at(1.0, 0, 0, None) == inf
    talk.wants = [Want((1,), 20)]
    talk.exchange(1.1)
    talk.dialogue.miss()
    assert talk.dialogue.next_at(1.1, 20, 10, (1,)) <= 1.1


@pytest.mark.promise("S5")
def test_pushes_of_other_states_and_lives_are_not_heard() -> None:
    talk = Talk(WINDOW)
    talk.exchange(1.0)
    news = News("fresh-0", 2 * SECOND, 9 * SECOND, NEVER, NEVER, 0, ())
    talk.dialogue.hear_push(Push("", replace(news, epoch="other")), 2.0)
    talk.dialogue.hear_push(Push("", replace(news, now=SECOND)), 2.0)
    assert talk.dialogue.paused_until == -inf
    talk.dialogue.hear_push(Push("", news), 2.0)
    assert talk.dialogue.paused_until == pytest.approx(9.0, abs=0.01)
    # An older one, which was overtaken.
    talk.dialogue.hear_push(Push("node", replace(news, now=news.now - 1, paused_until=0)), 2.0)
    assert talk.dialogue.paused_until > 8
    talk.dialogue.hear_push(Push("node", replace(news, paused_until=0, come=3 * SECOND)), 2.0)
    assert talk.dialogue.paused_until == -inf


def test_what_may_be_told_again() -> None:
    assert is_lasting(Paused(5))
    assert not is_lasting(Started(5, (1,), (7,)))
    assert charged(Paused(5)) == Paused(5)
    assert charged(Charged(5, (1,), held=True)) == Charged(5, (1,), held=False)
    assert held_by([Ended(1, (5,)), Charged(5, (3,), held=True), Ended(1, (1,))]) == (2,)
    assert held_by([Charged(5, (3,), held=True), Charged(5, (2,), held=True)]) == (5,)
    assert held_by([Charged(5, (3,), held=False), Paused(3)]) == ()


@pytest.mark.promise("S11")
def test_when_figures_change_what_is_in_stock_is_not_given_back_but_what_is_held() -> None:
    slots = Rule("slots", 5, 0, 0, "calls")
    talk = Talk(WINDOW, slots)
    talk.wants = [Want((2, 1), 2)]
    talk.exchange(1.0)
    assert talk.dialogue.account.stock.total == 2
    news = News("fresh-0", SECOND + 1, 0, NEVER, NEVER, 0, ())
    talk.dialogue.hear_push(Push("", news, recall=True), 1.0)
    assert talk.dialogue.account.stock.total == 0
    (back,) = talk.dialogue.request(1.0, ()).happenings
    assert isinstance(back, GivenBack)
    assert back.amounts == (0, 2)
