"""In which order a ledger serves the processes that wait, and what their calls are credited."""

from __future__ import annotations

import pytest

from anythrottle.stores import granting
from anythrottle.stores.agreement import Agreement
from anythrottle.stores.exchange import (
    NEVER,
    Charged,
    Ended,
    GivenBack,
    Micros,
    Paused,
    Reply,
    Resumed,
    Rule,
    Want,
)
from anythrottle.stores.granting import GATHER, SILENCE
from anythrottle.stores.ledger import STAND_IN
from tests.stores.asker import Asker, counts
from tests.stores.processes import (
    ORIGIN,
    SECOND,
    bucket,
    fixed,
    slots,
    window,
)

LEASE = 30 * SECOND


class TestQueue:
    def test_who_waits_is_served_whoever_comes(self) -> None:
        asker = Asker(window(4), horizon=1000)
        asker.ask("a", 9)
        asker.ask("a", 5, received=(1,))
        asker.ask("b", 9)
        asker.ask("c", 1)
        asker.now += SECOND - 1000
        reply = asker.ask("d", 1)
        # In turn, an equal part for each, before it is due.
        pushed = {push.node: counts(Reply("done", push.news)) for push in asker.pushes}
        assert pushed == {"a": [1], "b": [1], "c": [1]}
        assert counts(reply) == [1]
        assert [grant.due for grant in reply.news.grants] == [ORIGIN + SECOND]
        assert asker.ledger.queue == ["a", "b"]

    def test_grants_are_made_in_order(self) -> None:
        asker = Asker(fixed(2), horizon=SECOND // 10)
        asker.ask("a", 3)
        asker.ask("a", 1, received=(1,))
        asker.now += SECOND - 50
        # The next window has been granted from; one that looks less far ahead goes no earlier.
        asker.ask("b", 0, GivenBack((1,), (ORIGIN + SECOND,)))
        asker.ask("c", 1, horizon=0)
        assert asker.ledger.queue == ["c"]
        asker.now += 50
        assert counts(asker.ask("c", 1)) == [1]

    def test_nothing_is_granted_for_the_past(self) -> None:
        asker = Asker(bucket(1000, burst=1))
        asker.ask("a", 9)
        asker.now += 5000
        reply = asker.ask("a", 9)
        # What has fallen due meanwhile is there, but may only start now.
        assert [grant.due for grant in reply.news.grants] == [ORIGIN, asker.now]
        assert counts(reply) == [1, 5]

    def test_one_of_those_that_wait_watches_the_clock(self) -> None:
        asker = Asker(window(1), horizon=1000)
        asker.ask("a", 1)
        due = ORIGIN + SECOND
        assert asker.ask("a", 1, received=(1,)).news.come == due - 500
        # The others stand in for it, one after the other.
        for place, node in enumerate("bcd", 1):
            come = asker.ask(node, 1).news.come
            assert come == due + STAND_IN + 1000 + place * 5000
            assert asker.pushes == []

        assert asker.ledger.watcher == "a"

    def test_when_the_watcher_leaves_the_head_is_told(self) -> None:
        asker = Asker(window(1), horizon=1000)
        for node in "abc":
            asker.ask(node, 1)

        asker.ask("b", 0)
        assert asker.pushed_to() == ["c"]
        assert asker.pushes[0].news.come == ORIGIN + SECOND - 500
        asker.ask("c", 0)
        assert asker.pushes == []
        assert asker.ledger.watcher == ""

    def test_when_the_watcher_does_not_come_another_one_watches(self) -> None:
        asker = Asker(window(1), horizon=1000)
        for node in "aabc":
            asker.ask(node, 1, received=(1,))

        asker.ask("d", 0, Paused(ORIGIN + 5 * SECOND))
        asker.now += SECOND + STAND_IN + 501
        asker.ask("e")
        # Whoever comes finds that out: the head is told once more.
        assert asker.pushed_to() == ["a"]
        asker.now += 5 * SECOND - STAND_IN
        asker.ask("e", received=())
        asker.ledger.watch_at = asker.now - 10 * SECOND
        asker.ask("c", 1, Charged(ORIGIN, (9,), held=False))
        assert asker.ledger.watcher == "c"

    def test_who_is_to_come_earlier_is_told(self) -> None:
        asker = Asker(window(1), horizon=1000)
        asker.ask("a", 1)
        asker.ask("b", 1)
        receipt = ORIGIN + SECOND
        asker.ask("a", 0, Paused(ORIGIN + 2 * SECOND))
        asker.ask("b", 1)
        assert asker.ledger.watch_at == ORIGIN + 2 * SECOND - 500
        asker.ask("a", 0, Charged(ORIGIN - 500_000, (1,), held=False), GivenBack((1,), (receipt,)))
        assert asker.pushed_to() == []
        asker.ask("a", 0, Resumed())
        assert asker.pushed_to() == ["b", ""]
        assert asker.pushes[0].news.come == ORIGIN + SECOND // 2 - 500

    def test_who_waits_for_the_end_of_calls_is_handed_the_slot(self) -> None:
        asker = Asker(slots(1))
        asker.ask("a", 1)
        asker.ask("a", received=(1,))
        for node in "bc":
            asker.ask(node, 1)

        reply = asker.ask("d", 1)
        death = ORIGIN + LEASE + 1
        # Nobody comes before a process may have died that holds a slot, and then one.
        assert asker.ledger.watcher == "b"
        assert asker.ledger.watch_at == death
        assert reply.news.due == NEVER
        assert reply.news.come == death + STAND_IN + 2 * 5000
        asker.ask("a", 0, Ended(ORIGIN, (1,)))
        assert asker.pushed_to() == ["b", "c"]
        assert counts(Reply("done", asker.pushes[0].news)) == [1]

    def test_where_nothing_is_held_nobody_needs_to_watch(self) -> None:
        asker = Asker(window(3))
        reply = asker.ask("a", wants=(Want((4,), 1),))
        assert (reply.news.due, reply.news.come) == (NEVER, NEVER)

    def test_who_notices_nothing_is_reminded_and_passed_over(self) -> None:
        asker = Asker(slots(2), grace=100)
        asker.ask("a", 2)
        asker.ask("a", received=(1,))
        asker.ask("b", 5)
        asker.ask("a", 0, Ended(ORIGIN, (1,)))
        (push,) = asker.pushes
        assert counts(Reply("done", push.news)) == [1]
        asker.ask("c", 1)
        silent_at = ORIGIN + 100 + SILENCE
        assert (asker.ledger.watcher, asker.ledger.watch_at) == ("b", silent_at + 1)
        asker.now = silent_at
        asker.ask("d")
        assert asker.ledger.queue == ["b", "c"]
        asker.now += 1
        asker.ask("d")
        assert asker.ledger.queue == ["c"]
        reminder = asker.pushes[-1]
        assert (reminder.node, reminder.news.come) == ("b", asker.now)
        assert counts(Reply("done", reminder.news)) == [1]
        # Once.
        asker.now += SECOND
        asker.ask("d")
        assert "b" not in asker.pushed_to()
        # When it comes it is told once more, and has its time again.
        reply = asker.ask("b", 5)
        assert counts(reply) == [1]
        assert asker.ledger.queue == ["c", "b"]
        asker.now += 100 + SILENCE
        asker.ask("d")
        assert asker.ledger.queue == ["c", "b"]

    def test_calls_of_many_costs_have_their_part_of_a_turn(self) -> None:
        asker = Asker(window(40))
        asker.ask("x", 40)
        mixed = tuple(Want((1 + index % 2,), 1) for index in range(40))
        asker.ask("a", wants=mixed)
        asker.ask("b", 40)
        asker.now += SECOND
        asker.ask("x")
        amounts = {
            push.node: sum(grant.amounts[0] * grant.count for grant in push.news.grants)
            for push in asker.pushes
        }
        assert amounts["a"] + amounts["b"] == 40
        assert 15 <= amounts["a"] <= 25

    def test_who_has_used_a_part_of_a_turn_is_not_waited_for(self) -> None:
        asker = Asker(window(10))
        asker.ask("x", 10)
        asker.ask("a", wants=(Want((1,), 1), Want((10,), 1)))
        asker.ask("b", 9)
        asker.now += SECOND
        asker.ask("x")
        assert {push.node: counts(Reply("done", push.news)) for push in asker.pushes} == {
            "a": [1],
            "b": [9],
        }
        assert asker.ledger.queue == ["a"]


class TestCredit:
    def test_no_call_is_credited_for_what_others_held_up(self) -> None:
        asker = Asker(bucket(10, burst=2), slots(1))
        asker.ask("a", 1)
        asker.ask("a", received=(1,))
        asker.ask("b", 9)
        asker.now += 25 * SECOND
        asker.ask("a", 0, Ended(asker.now, (0, 1)))
        # The slot is free again at once, but all that has gathered is a burst.
        for left in (8, 7):
            asker.ask("b", left, Ended(asker.now, (0, 1)), received=range(99))

        assert asker.ledger.granted == 1 + 2
        assert asker.ask("b", 7).news.due == asker.now + SECOND // 10

    def test_one_that_waits_for_the_bucket_is_credited_since_it_was_due(self) -> None:
        asker = Asker(bucket(10, burst=1))
        asker.ask("a", 9)
        asker.now += 250_000
        reply = asker.ask("a", 9, received=(1,))
        assert counts(reply) == [2]
        assert reply.news.due == ORIGIN + 300_000


class TestFlow:
    """Calls that a bucket lets go one after the other, within a moment, go together."""

    def test_what_flows_in_within_a_moment_goes_together(self) -> None:
        asker = Asker(bucket(100_000, burst=1), horizon=SECOND // 10)
        reply = asker.ask("a", 10_000)
        # The first one is there; then one, and what flows in behind it within a millisecond.
        interval, made = 10, 1
        assert counts(reply) == [1] + [1 + GATHER // interval] * 99
        for grant in reply.news.grants[1:]:
            made += grant.count
            assert grant.due == ORIGIN + (made - 1) * interval

        assert made == 10_000
        assert reply.news.due == NEVER

    def test_nobody_waits_for_calls_behind_that_are_due_later(self) -> None:
        asker = Asker(bucket(999, burst=1), horizon=SECOND // 10)
        assert set(counts(asker.ask("a", 50))) == {1}

    def test_processes_take_turns(self) -> None:
        asker = Asker(bucket(100_000, burst=1), horizon=SECOND // 100)
        asker.ask("a", 0, Paused(ORIGIN + SECOND))
        for node in "abcd":
            asker.ask(node, 1000)

        asker.ask("a", 1000, Resumed())
        granted = {
            node: sum(grant.count for grant in known.inbox)
            for node, known in asker.ledger.nodes.items()
        }
        assert sum(granted.values()) == 1 + 1000
        assert max(granted.values()) - min(granted.values()) <= 1 + GATHER // 10

    @pytest.mark.untraced
    @pytest.mark.parametrize("rate", [700, 3000, 33_333, 100_000])
    @pytest.mark.parametrize("burst", [1, 2.5, 40])
    @pytest.mark.parametrize("limit", [None, 250])
    def test_it_is_as_if_they_were_granted_one_by_one(
        self, monkeypatch: pytest.MonkeyPatch, rate: int, burst: float, limit: int | None
    ) -> None:
        rules = [bucket(rate, burst=burst)]
        if limit is not None:
            rules.append(window(limit, 0.1))

        monkeypatch.setattr(granting, "MOST_GRANTS", 10**6)
        together = instants(*rules)
        monkeypatch.setattr(Agreement, "_bucket_of", lambda *_: None)
        alone = instants(*rules)
        assert len(together) == len(alone)
        # Floats may round by as much as that.
        assert all(-1 <= a - b <= GATHER + 1 for a, b in zip(together, alone, strict=True))


def instants(*rules: Rule) -> list[Micros]:
    """Return the instants of the calls of a process that comes early, or late."""
    asker = Asker(*rules, horizon=SECOND // 50)
    found: list[Micros] = []
    received: tuple[int, ...] = ()
    for step in [0, 100, 19_000, 20_000, 1000, 150_000, 10_000, 3, 60_000]:
        asker.now += step
        reply = asker.ask("a", 10**6, received=received)
        received = tuple(grant.number for grant in reply.news.grants)
        found += [grant.due for grant in reply.news.grants for _ in range(grant.count)]

    return found
