from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from anythrottle.stores import window_state
from anythrottle.stores.exchange import (
    Paused,
    Request,
    Rule,
    Want,
    rules_text,
)
from anythrottle.stores.granting import MOST_GRANTS
from anythrottle.stores.lua import script
from anythrottle.stores.wire import reply_of, request_args
from tests.stores.servers import Cluster, Server
from tests.stores.twins import Twins
from tests.stores.walks import BEGINNING, NAMES, RULES, SECOND, Walk

#: How many walks are made on each server with each set of rules, and of how many steps.
WALKS = int(os.environ.get("ANYTHROTTLE_WALKS", "1"))
STEPS = 100


@pytest.fixture(params=[None, 12], ids=["exact", "merged"])
def twins(
    server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Twins]:
    exact = request.param or window_state.EXACT_ENTRIES
    monkeypatch.setattr(window_state, "EXACT_ENTRIES", exact)
    server.flush()
    twins = Twins(server.port, "test:api", NAMES, exact)
    yield twins
    twins.close()


@pytest.mark.parametrize("walk", range(WALKS))
@pytest.mark.parametrize("rules", RULES)
def test_the_script_does_what_the_ledger_does(twins: Twins, rules: str, walk: int) -> None:
    steps = Walk(twins, *RULES[rules], f"{rules} {walk}")
    for _ in range(STEPS):
        steps.step()

    twins.check_that_all_expires()


def request(rules: list[Rule], node: str = "node0", number: int = 1, **parts: Any) -> Request:
    first = Request(
        rules=rules_text(rules),
        node=node,
        number=number,
        epoch="",
        fresh="epoch",
        expires=0,
        grace=1000,
        horizon=5000,
        lease=SECOND,
        hold_back=0,
        alive=False,
        holds=False,
        census=(0, 0, 0),
        count_all=False,
        probe=(),
        received=(),
        wants=(),
        happenings=(),
    )
    return replace(first, **parts)


def test_windows_that_never_agree_keep_no_server_busy(twins: Twins) -> None:
    rules = [
        Rule("fixed", 9, SECOND // 10, 0, "calls"),
        Rule("fixed", 9, SECOND // 10, SECOND // 20, "tokens"),
    ]
    wants = (Want((1, 1), 1),)
    # More than half of each window is its last part: then those are left out of account.
    reply = twins.exchange(request(rules, grace=60_000, wants=wants), BEGINNING)
    assert reply.news.grants[0].due == BEGINNING


def test_an_exchange_ends_after_many_grants(twins: Twins) -> None:
    rules = [Rule("window", 10**6, SECOND, 0, "calls")]
    wants = (Want((1,), 1), Want((2,), 1)) * MOST_GRANTS
    reply = twins.exchange(request(rules, wants=wants), BEGINNING)
    assert len(reply.news.grants) == MOST_GRANTS
    assert reply.news.come == BEGINNING + 1


def test_what_flows_in_fast_goes_together(twins: Twins) -> None:
    rules = [Rule("bucket", 10**5, SECOND, 1, "calls")]
    wants = (Want((1,), 10**5),)
    for number in range(1, 9):
        for node in NAMES[:3]:
            now = BEGINNING + number * SECOND // 3
            said = request(rules, node, number, wants=wants, horizon=SECOND // 100)
            assert len(twins.exchange(said, now).news.grants) <= MOST_GRANTS


def test_one_exchange_serves_and_buries_many(twins: Twins) -> None:
    rules = [Rule("window", 10**6, SECOND, 0, "calls"), Rule("slots", 90, 0, 0, "slots")]
    whole = request(rules, happenings=(Paused(BEGINNING + 5000),), wants=(Want((1, 1), 2),))
    for i, name in enumerate(NAMES):
        twins.exchange(replace(whole, node=name), BEGINNING + i)

    reply = twins.exchange(replace(whole, number=2, happenings=()), BEGINNING + 5000)
    assert reply.news.waiting == 0
    reply = twins.exchange(request(rules, "node1", 2), BEGINNING + 3 * SECOND)
    assert reply.quotas[1].remaining == 90


def test_no_rules_are_others_than_some(twins: Twins) -> None:
    some = [Rule("window", 5, SECOND, 0, "calls")]
    first = twins.exchange(request([], wants=(Want((), 3),)), BEGINNING)
    assert [(grant.amounts, grant.count) for grant in first.news.grants] == [((), 3)]
    assert twins.exchange(request(some, "node1"), BEGINNING + 1).status == "conflict"
    twins.lose_all()
    twins.exchange(request(some), BEGINNING + 2)
    theirs = twins.exchange(request([], "node1"), BEGINNING + 3)
    assert (theirs.status, theirs.theirs) == ("conflict", rules_text(some))


RUNNING = [rules for rules, _ in RULES.values()]


@pytest.mark.parametrize("rules", RUNNING, ids=RULES)
def test_all_keys_expire(server: Server, rules: list[Rule]) -> None:
    server.flush()
    sha = server.ask("SCRIPT", "LOAD", script())
    wants = (Want((1,) * len(rules), 1000),)
    for number in range(1, 4):
        for node in ("one", "two"):
            said = request(rules, node, number, wants=wants)
            assert server.ask("EVALSHA", sha, 1, "{test:api}", *request_args(said))[0] == b"done"
            keys = server.ask("KEYS", "*")
            assert {b"{test:api}", b"{test:api}:n", b"{test:api}:a"} <= set(keys)
            longest = max([1000, *(rule.window // 1000 for rule in rules)])
            for key in keys:
                assert longest < server.ask("PTTL", key)


def test_it_goes_by_the_time_of_the_server(server: Server) -> None:
    server.flush()
    seconds, micros = map(int, server.ask("TIME"))
    said = request(RULES["window"][0], wants=(Want((1,), 1),))
    flat = server.ask("EVAL", script(), 1, "{test:api}", *request_args(said))
    reply = reply_of([part.decode() if isinstance(part, bytes) else part for part in flat])
    assert 0 <= reply.news.now - (seconds * SECOND + micros) < 60 * SECOND
    assert reply.news.grants[0].due == reply.news.now


def test_a_cluster_carries_it_out_and_tells_of_it(cluster: Cluster) -> None:
    key = "{test:api}"
    keeper = cluster.keeper(cluster.servers[0].ask("CLUSTER", "KEYSLOT", key))
    twins = Twins(keeper.port, "test:api", NAMES, window_state.EXACT_ENTRIES)
    rules, _ = RULES["window"]
    wants = (Want((1,), 9),)
    for number in range(1, 9):
        for node in NAMES[:3]:
            now = BEGINNING + number * SECOND // 3
            twins.exchange(request(rules, node, number, wants=wants), now)

    assert twins.heard
    twins.close()
