"""What a server in this process forgets, as one elsewhere does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from anythrottle.stores.exchange import MARGIN, Micros, Paused, Request, Rule, Want
from anythrottle.stores.memory import MemoryServer
from tests.stores.processes import ORIGIN, SECOND, make_request, slots, window

LEASE = 2 * SECOND


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MemoryServer:
    server = MemoryServer()
    monkeypatch.setattr(server, "now", lambda: CLOCK[0])
    CLOCK[0] = ORIGIN
    return server


CLOCK: list[Micros] = [ORIGIN]


def ask(rule: Rule, number: int = 1, **changes: object) -> Request:
    return make_request([rule], "a", number, fresh=f"e{number}", lease=LEASE, **changes)


def test_what_nobody_uses_is_forgotten(server: MemoryServer) -> None:
    rule = window(2, 60)
    server.carry_out("api", ask(rule, wants=(Want((1,), 2),)))
    other = ask(window(3))
    CLOCK[0] += 60 * SECOND
    assert server.carry_out("api", other)[0].status == "conflict"
    # Who has other rules does not let it live on.
    CLOCK[0] += MARGIN
    assert server.carry_out("api", other)[0].status == "done"


@pytest.mark.parametrize("number", [1, 2])
def test_it_lives_on_while_it_is_used(server: MemoryServer, number: int) -> None:
    server.carry_out("api", ask(slots(3), wants=(Want((1,), 2),)))
    CLOCK[0] += LEASE + MARGIN - 1
    reply, _ = server.carry_out("api", ask(slots(3), number))
    assert reply.news.epoch == "e1"
    CLOCK[0] += LEASE + MARGIN
    reply, _ = server.carry_out("api", ask(slots(3), 3))
    assert reply.news.epoch == "e3"


def test_a_pause_is_not_forgotten(server: MemoryServer) -> None:
    server.carry_out("api", ask(window(1), happenings=(Paused(ORIGIN + 900 * SECOND),)))
    CLOCK[0] += 890 * SECOND
    reply, _ = server.carry_out("api", ask(window(1), 2))
    assert reply.news.paused_until == ORIGIN + 900 * SECOND


def test_what_was_given_up_begins_nothing(server: MemoryServer) -> None:
    late = replace(ask(window(1)), expires=ORIGIN - 1)
    assert server.carry_out("api", late)[0].status == "stale"
    assert server.ledgers == {}
    server.carry_out("api", ask(window(1)))
    assert server.carry_out("api", replace(late, number=2))[0].status == "stale"
    assert server.ledgers["api"].epoch == "e1"


def test_it_expires_in_whole_milliseconds(server: MemoryServer) -> None:
    CLOCK[0] += 1
    server.carry_out("api", ask(window(1)))
    lived = server.ledgers["api"].expires_at - CLOCK[0]
    assert math.remainder(lived, 1000) == 0
    assert lived >= LEASE + MARGIN
