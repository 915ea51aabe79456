"""What was granted and not used yet."""

from __future__ import annotations

from math import inf, nextafter

import pytest

from anythrottle.stores.exchange import Grant, Want
from anythrottle.stores.server_clock import ServerClock
from anythrottle.stores.stock import Stock
from anythrottle.stores.wanted import Wanted, by_amounts, unmet

SECOND = 1_000_000


def grant(number: int, count: int = 1, *, amounts: tuple[int, ...] = (1,), due: int = 0) -> Grant:
    return Grant(number, due, 100_000, amounts, (2 * SECOND,), count)


@pytest.fixture
def clock() -> ServerClock:
    clock = ServerClock()
    clock.note(0.0, 0.0, 0)
    return clock


@pytest.mark.promise("S9")
def test_a_grant_comes_in_once(clock: ServerClock) -> None:
    stock = Stock()
    assert stock.add(grant(3), 0, clock, 0.0)
    assert not stock.add(grant(3), 0, clock, 0.0)
    # A push that was overtaken by a reply.
    assert stock.add(grant(2), 0, clock, 0.0)
    stock.note_all_seen(())
    stock.note_all_seen((grant(2), grant(3)))
    assert not stock.add(grant(1), 0, clock, 0.0)
    assert stock.add(grant(4), 0, clock, 0.0)
    stock.note_all_seen((grant(2),))
    assert not stock.add(grant(4), 0, clock, 0.0)
    assert stock.total == 3
    stock.clear()
    assert stock.total == 0
    assert stock.add(grant(1), 0, clock, 0.0)


@pytest.mark.promise("S1")
def test_a_lot_is_good_from_when_it_is_surely_due_until_it_surely_is_not_over() -> None:
    clock = ServerClock()
    clock.note(0.0, 0.03, 10_000)
    stock = Stock()
    stock.add(grant(1, due=40_000), 0, clock, 0.03)
    lot = stock.first((1,), 0.03)
    assert lot is not None
    # The server's clock was at 10 ms some time in those 30 ms.
    assert lot.ready == pytest.approx(0.06, abs=1e-4)
    assert lot.until == pytest.approx(0.13, abs=1e-4)
    assert stock.first((1,), lot.until) is lot
    assert stock.over_at() == nextafter(lot.until, inf)
    assert stock.take_over(lot.until) == []
    assert stock.first((1,), stock.over_at()) is None
    assert stock.take_over(stock.over_at()) == [(lot, 1)]
    assert stock.over_at() == inf
    assert stock.total == 0


def test_what_was_due_when_it_was_sent_is_ready(clock: ServerClock) -> None:
    stock = Stock()
    stock.add(grant(1), 0, clock, 0.0)
    lot = stock.first((1,), 0.0)
    assert lot is not None
    assert lot.ready <= 0.0


def test_lots_are_used_up_and_put_back(clock: ServerClock) -> None:
    stock = Stock()
    stock.add(grant(1, 2), 0, clock, 0.0)
    stock.add(grant(2, 1, amounts=(5,)), 0, clock, 0.0)
    lot = stock.first((1,), 0.0)
    assert lot is not None
    stock.use(lot)
    stock.use(lot)
    assert stock.first((1,), 0.0) is None
    assert (stock.total, stock.count((1,)), stock.count((5,))) == (1, 0, 1)
    assert stock.amount(0, 0.0)[0] == 5
    stock.put_back(lot)
    stock.put_back(lot)
    assert stock.first((1,), 0.0) is lot
    assert (stock.total, stock.count((1,))) == (3, 2)


def test_the_latest_of_what_nobody_wants_is_taken_out(clock: ServerClock) -> None:
    stock = Stock()
    for number in (1, 2):
        stock.add(grant(number, 3), 0, clock, 0.0)

    stock.add(grant(3, 1, amounts=(5,)), 0, clock, 0.0)
    out = stock.take_surplus({(1,): 2})
    assert [(lot.grant.number, count) for lot, count in out] == [(2, 3), (1, 1), (3, 1)]
    assert (stock.total, stock.count((1,))) == (2, 2)
    assert stock.take_surplus({(1,): 2}) == []


def test_what_is_wanted_on_top_of_the_stock(clock: ServerClock) -> None:
    stock = Stock()
    stock.add(grant(1, 3), 0, clock, 0.0)
    wants = [Want((1,), 2), Want((5,), 1), Want((1,), 4)]
    assert unmet(wants, stock) == (Want((5,), 1), Want((1,), 3))
    assert by_amounts(wants) == {(1,): 6, (5,): 1}


@pytest.mark.promise("S6")
def test_what_the_server_knows_of_the_line() -> None:
    wanted = Wanted()
    assert not wanted.knows((1,))
    wanted.tell([Want((1,), 2), Want((5,), 2), Want((1,), 1)])
    assert wanted.count == 5
    assert wanted.knows((1,))
    # It is wanted, but not first.
    assert not wanted.knows((5,))
    wanted.get(grant(1, 2))
    assert (wanted.count, wanted.knows((1,)), wanted.knows((5,))) == (3, True, False)
    wanted.get(grant(2, 1))
    assert (wanted.count, wanted.knows((1,)), wanted.knows((5,))) == (2, False, True)
    wanted.get(grant(3, 7, amounts=(9,)))
    assert wanted.count == 2
    wanted.tell(())
    assert wanted.count == 0
