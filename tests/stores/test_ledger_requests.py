"""What a ledger makes of single requests: once, in order, and with news for whom they concern."""

from __future__ import annotations

import pytest

from anythrottle.stores.exchange import (
    NEVER,
    Amounts,
    Charged,
    Ended,
    GivenBack,
    Grant,
    Happening,
    Held,
    Micros,
    Paused,
    Push,
    Remembered,
    Reply,
    Resumed,
    Rule,
    Started,
    Tightened,
    Want,
)
from anythrottle.stores.ledger import SILENCE, STAND_IN, Ledger
from tests.stores.processes import (
    ORIGIN,
    SECOND,
    bucket,
    end_window,
    fixed,
    make_request,
    slots,
    window,
)

LEASE = 30 * SECOND


class Asker:
    """A ledger, and processes that ask one after the other."""

    def __init__(self, *rules: Rule, horizon: Micros = 0, grace: Micros = 0) -> None:
        self.rules = rules
        self.horizon = horizon
        self.grace = grace
        self.now = ORIGIN
        self.numbers: dict[str, int] = {}
        self.pushes: list[Push] = []
        self.ledger = Ledger(make_request(rules, "a", 1, fresh="e1"), self.now)

    def ask(self, node: str, count: int = 0, *happenings: Happening, **changes: object) -> Reply:
        """Ask for calls that cost 1 of all; what is pushed meanwhile is noted."""
        self.numbers[node] = self.numbers.get(node, 0) + 1
        return self.say(node, count, *happenings, **changes)

    def say(self, node: str, count: int = 0, *happenings: Happening, **changes: object) -> Reply:
        """Say the same as before, or what is named, by the same number."""
        amounts: Amounts = (1,) * len(self.rules)
        plain = make_request(
            self.rules,
            node,
            self.numbers[node],
            grace=self.grace,
            horizon=self.horizon,
            epoch="e1",
            wants=(Want(amounts, count),) if count else (),
            happenings=happenings,
        )
        fields = {name: getattr(plain, name) for name in plain.__slots__} | changes
        del fields["rules"], fields["node"], fields["number"]
        request = make_request(self.rules, node, self.numbers[node], **fields)
        reply, self.pushes = self.ledger.exchange(request, self.now)
        return reply

    def pushed_to(self) -> list[str]:
        return [push.node for push in self.pushes]


def counts(reply: Reply) -> list[int]:
    return [grant.count for grant in reply.news.grants]


class TestOnce:
    def test_a_request_that_is_repeated_is_carried_out_once(self) -> None:
        asker = Asker(window(10))
        happening = Charged(ORIGIN, (2,), held=False)
        first = asker.ask("a", 3, happening)
        again = asker.say("a", 3, happening)
        assert again == first
        assert first.quotas[0].remaining == 5
        assert [grant.number for grant in first.news.grants] == [1]

    def test_what_is_on_its_way_counts_as_granted(self) -> None:
        asker = Asker(window(3))
        asker.ask("a", 3)
        asker.ask("a", received=(1,))
        asker.ask("b", 3)
        asker.now += SECOND
        asker.ask("c")
        (push,) = asker.pushes
        assert (push.node, push.news.grants[0].count) == ("b", 3)
        # It has not seen that yet, and so it says that it wants 3, and then one more.
        reply = asker.ask("b", 3)
        assert counts(reply) == [3]
        assert asker.ledger.queue == []
        reply = asker.ask("b", 4)
        assert counts(reply) == [3]
        assert asker.ledger.nodes["b"].wants == [Want((1,), 1)]

    def test_others_may_be_wanted_as_well(self) -> None:
        asker = Asker(window(3))
        asker.ask("a", wants=(Want((1,), 1), Want((2,), 2)))
        asker.ask("a", wants=(Want((2,), 2), Want((1,), 3)))
        # One of each is on its way.
        assert asker.ledger.nodes["a"].wants == [Want((2,), 1), Want((1,), 2)]

    def test_what_has_come_is_not_sent_again(self) -> None:
        asker = Asker(window(9))
        for number in (1, 2, 3):
            assert asker.ask("a", 1, received=range(1, number)).news.grants[0].number == number

        assert counts(asker.ask("a", received=(2,))) == [1]
        assert counts(asker.ask("a", received=(2, 9, 3))) == []

    def test_a_request_that_was_overtaken_does_nothing(self) -> None:
        asker = Asker(window(9))
        asker.ask("a", 1)
        asker.ask("a", 2)
        asker.numbers["a"] = 1
        reply = asker.say("a", 5, Charged(ORIGIN, (9,), held=False))
        assert (reply.status, reply.news.grants) == ("stale", ())
        asker.numbers["a"] = 2
        assert asker.ask("a").quotas[0].remaining == 7

    def test_a_request_that_was_given_up_does_nothing(self) -> None:
        asker = Asker(window(9))
        asker.ask("a")
        asker.now += 100
        assert asker.ask("a", 1, expires=ORIGIN + 99).status == "stale"
        assert asker.say("a", 1, expires=ORIGIN + 100).status == "done"
        assert asker.say("a", 1, expires=0).status == "done"

    def test_one_of_a_lost_state_that_was_overtaken_neither(self) -> None:
        asker = Asker(window(9))
        asker.ask("a", epoch="e0")
        asker.ask("a", 12)
        asker.numbers["a"] = 1
        assert asker.say("a", epoch="e0").status == "stale"
        asker.numbers["a"] = 2
        # It still waits, and what it was granted is still on its way.
        assert asker.ledger.queue == ["a"]
        assert counts(asker.ask("a", 12, alive=True)) == [9]
        assert asker.ledger.epoch == "e1"

    def test_one_of_a_process_whose_lease_is_over_neither(self) -> None:
        asker = Asker(slots(2))
        asker.ask("a", 2)
        asker.ask("a")
        asker.now += LEASE + 1
        asker.numbers["a"] = 1
        assert asker.say("a", 2).status == "stale"


class TestConflict:
    def test_others_have_other_rules(self) -> None:
        asker = Asker(window(9))
        asker.ask("a")
        other = make_request([window(8)], "b", 1, wants=(Want((1,), 1),))
        reply, pushes = asker.ledger.exchange(other, ORIGIN)
        assert (reply.status, reply.theirs, pushes) == ("conflict", str(window(9)), [])
        assert list(asker.ledger.nodes) == ["a"]


class TestLostState:
    def test_who_knew_the_former_one_begins_the_new_one_held_back(self) -> None:
        rules = [window(3)]
        first = make_request(rules, "a", 7, epoch="e0", fresh="e1", wants=(Want((1,), 1),))
        ledger = Ledger(first, ORIGIN)
        reply, _ = ledger.exchange(first, ORIGIN)
        assert (reply.status, reply.news.epoch, reply.news.grants) == ("lost", "e1", ())
        assert reply.news.paused_until == ORIGIN + first.hold_back
        told = make_request(
            rules,
            "a",
            8,
            epoch="e1",
            wants=(Want((1,), 3),),
            happenings=(Remembered(0, 2, ORIGIN + 9 * SECOND), Remembered(0, 1, ORIGIN)),
        )
        reply, _ = ledger.exchange(told, ORIGIN + 5)
        assert (reply.status, reply.news.due) == ("done", ORIGIN + first.hold_back)
        reply, _ = ledger.exchange(told, ORIGIN + first.hold_back)
        assert counts(reply) == [1]
        assert reply.news.due == ORIGIN + first.hold_back + SECOND
        reply, _ = ledger.exchange(told, ORIGIN + 9 * SECOND - 1)
        assert counts(reply) == [1, 1]
        assert reply.quotas[0].more == ORIGIN + 9 * SECOND

    def test_a_newcomer_is_not_held_back(self) -> None:
        asker = Asker(window(3))
        reply = asker.ask("a", 3, epoch="")
        assert (reply.status, counts(reply), reply.news.paused_until) == ("done", [3], 0)

    def test_what_a_process_holds_is_held_again(self) -> None:
        asker = Asker(slots(3), end_window(3))
        assert asker.ask("a", holds=True, epoch="e0").status == "lost"
        assert asker.ask("a", 0, Held((2, 2)), holds=True).status == "done"
        assert asker.ask("b").quotas[0].remaining == 1
        asker.ask("a", 0, Ended(ORIGIN + 5, (2, 2)))
        assert [quota.remaining for quota in asker.ask("b").quotas] == [3, 1]

    def test_it_wants_nothing_until_it_has_told_all(self) -> None:
        asker = Asker(window(1))
        asker.ask("a", 1)
        asker.ask("b", 1)
        assert asker.ask("b", 1, epoch="e0").status == "lost"
        assert asker.ledger.queue == []
        assert (asker.ledger.watcher, asker.ledger.watch_at) == ("", NEVER)

    @pytest.mark.parametrize("known", [True, False])
    def test_a_state_that_was_set_back_is_as_good_as_lost(self, known: bool) -> None:
        asker = Asker(window(9))
        asker.ask("b")
        if known:
            asker.ask("a")

        asker.numbers["a"] = 4
        reply = asker.ask("a", 3, alive=True, fresh="e2")
        assert (reply.status, reply.news.epoch, reply.news.grants) == ("lost", "e2", ())
        assert reply.news.paused_until == ORIGIN + 2 * SECOND
        assert asker.ask("b").status == "lost"

    @pytest.mark.parametrize("known", [True, False])
    def test_it_is_not_if_the_lease_may_have_been_over(self, known: bool) -> None:
        asker = Asker(window(9))
        asker.ask("b")
        if known:
            asker.ask("a")

        asker.numbers["a"] = 4
        assert asker.ask("a", 3, fresh="e2").status == "done"
        assert asker.ask("a", alive=True, fresh="e2").status == "done"
        assert asker.ledger.epoch == "e1"


class TestLeases:
    def test_what_the_dead_held_counts_from_then(self) -> None:
        asker = Asker(slots(2), end_window(2))
        asker.ask("a", 2)
        asker.now += LEASE
        reply = asker.ask("b", 1)
        # It may still be alive.
        assert (reply.news.due, reply.news.come) == (NEVER, asker.now + 1)
        asker.now += 1
        reply = asker.ask("b", 1)
        assert reply.news.due == asker.now + SECOND
        asker.now += SECOND
        assert counts(asker.ask("b", 1)) == [1]

    def test_it_is_told_as_often_as_it_asks(self) -> None:
        asker = Asker(slots(2))
        asker.ask("a", 2)
        asker.now += LEASE + 1
        reply = asker.ask("a", 1, Ended(ORIGIN, (1,)), holds=True)
        assert (reply.status, counts(reply)) == ("buried", [1])
        assert asker.say("a", 1, Ended(ORIGIN, (1,)), holds=True).status == "buried"
        # That one has ended was known: it ends nothing else.
        assert asker.ledger.rules[0].held == 1
        assert asker.ask("a", holds=True).status == "done"

    def test_one_that_holds_nothing_has_lost_nothing(self) -> None:
        asker = Asker(slots(2))
        asker.ask("a")
        asker.now += LEASE + 1
        assert asker.ask("a").status == "done"

    def test_the_dead_wait_no_more(self) -> None:
        asker = Asker(window(1))
        asker.ask("a", 1)
        asker.ask("b", 1)
        asker.now += LEASE + 1
        asker.ask("c")
        assert (asker.ledger.queue, list(asker.ledger.nodes)) == ([], ["c"])

    def test_more_is_never_ended_than_is_held(self) -> None:
        asker = Asker(slots(3), end_window(3))
        asker.ask("a", 1)
        asker.ask("b", 1)
        asker.ask("a", 0, Ended(ORIGIN, (3, 3)), GivenBack((2, 2), (0, 0)))
        assert [rule.held for rule in asker.ledger.rules] == [1, 1]
        asker.ask("b", 0, GivenBack((3, 3), (0, 0)))
        assert [rule.held for rule in asker.ledger.rules] == [0, 0]


class TestHappenings:
    def test_a_start_counts_from_when_it_was(self) -> None:
        asker = Asker(window(1), end_window(9), slots(9), grace=500)
        reply = asker.ask("a", 1)
        assert reply.news.grants == (
            Grant(1, ORIGIN, 500, (1, 1, 1), (ORIGIN + SECOND + 500, 0, 0), 1),
        )
        started = Started(ORIGIN + 100, (1, 1, 1), reply.news.grants[0].receipts)
        reply = asker.ask("a", 1, started, received=(1,))
        assert reply.news.due == ORIGIN + SECOND + 100
        assert reply.quotas[2].remaining == 8

    def test_a_grant_that_is_given_back_is_there_for_others(self) -> None:
        asker = Asker(window(2), slots(2), bucket(2, burst=2), fixed(2))
        receipts = asker.ask("a", 2).news.grants[0].receipts
        asker.ask("b", 2)
        asker.ask("a", 0, GivenBack((2, 2, 2, 2), receipts), received=(1,))
        (push,) = asker.pushes
        assert (push.node, [grant.count for grant in push.news.grants]) == ("b", [2])

    def test_what_is_charged_at_once_may_be_a_debt(self) -> None:
        asker = Asker(window(2), bucket(2, burst=2), slots(2))
        asker.ask("a", 0, Charged(ORIGIN, (3, 3, 1), held=True))
        assert [quota.remaining for quota in asker.ask("a").quotas] == [0, 0, 1]

    def test_what_a_running_call_costs_more_is_held_with_the_rest(self) -> None:
        asker = Asker(end_window(9))
        asker.ask("a", 1)
        asker.ask("a", 0, Charged(ORIGIN, (2,), held=True))
        assert asker.ledger.nodes["a"].held == [3]
        asker.ask("a", 0, Charged(ORIGIN, (4,), held=False))
        assert asker.ledger.nodes["a"].held == [3]
        assert asker.ask("a").quotas[0].remaining == 2

    def test_rules_to_which_nothing_is_charged_are_left_alone(self) -> None:
        asker = Asker(window(2), slots(1))
        free = (Want((0, 0), 7), Want((1, 0), 2))
        reply = asker.ask("a", wants=free)
        assert [(grant.count, grant.receipts) for grant in reply.news.grants] == [
            (7, (0, 0)),
            (2, (ORIGIN + SECOND, 0)),
        ]
        asker.ask("a", 0, GivenBack((1, 0), (ORIGIN + SECOND, 0)))
        assert [quota.remaining for quota in asker.ask("a").quotas] == [1, 1]

    def test_a_pause_holds_all_up_and_all_are_told(self) -> None:
        asker = Asker(window(9))
        asker.ask("a", 0, Paused(ORIGIN + 500))
        (push,) = asker.pushes
        assert (push.node, push.recall, push.news.paused_until) == ("", False, ORIGIN + 500)
        # The later end holds.
        asker.ask("b", 0, Paused(ORIGIN + 300))
        reply = asker.ask("b", 1)
        assert (reply.news.paused_until, reply.news.due) == (ORIGIN + 500, ORIGIN + 500)
        asker.now += 100
        reply = asker.ask("c", 0, Resumed())
        assert asker.pushed_to() == ["b", ""]
        assert reply.news.paused_until == asker.now
        # Resuming where there is no pause makes none.
        asker.now += 100
        assert asker.ask("c", 0, Resumed()).news.paused_until == asker.now - 100

    def test_figures_call_back_what_was_granted(self) -> None:
        asker = Asker(window(9), slots(9))
        tightened = Tightened(0, 3, ORIGIN + 500)
        reply = asker.ask("a", 0, Paused(ORIGIN + 5), tightened, Paused(ORIGIN + 6))
        assert reply.quotas[0].remaining == 3
        assert [(push.node, push.recall) for push in asker.pushes] == [("", True)]
        asker.ask("a", 0, Charged(ORIGIN, (1, 0), held=False))
        assert asker.pushes == []


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
        assert [grant.due for grant in reply.news.grants] == [ORIGIN] + [asker.now] * 5

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
        assert counts(reply) == [1, 1]
        assert reply.news.due == ORIGIN + 300_000


class TestAnswers:
    def test_the_censuses_of_all_are_summed_up(self) -> None:
        asker = Asker(slots(2))
        asker.ask("a", census=(1, 2, 3))
        asker.ask("b", census=(10, 20, 30))
        assert asker.ask("c").census == (0, 0, 0)
        assert asker.ask("c", census=(100, 0, 0), count_all=True).census == (111, 22, 33)

    def test_a_probe_tells_when_a_call_could_go_if_nobody_waited(self) -> None:
        asker = Asker(window(2), fixed(9), grace=SECOND // 2)
        assert asker.ask("a").probed == 0
        assert asker.ask("a", probe=(1, 1)).probed == ORIGIN
        asker.ask("a", 2, grace=0)
        asker.ask("b", 5)
        asker.now += SECOND - 100
        # Of the end of a window it is told the truth, as it has no grace.
        assert asker.ask("c", probe=(2, 1)).probed == ORIGIN + SECOND
        assert asker.ask("c", probe=(0, 1)).probed == asker.now
        assert asker.ask("c", probe=(3, 1)).probed == NEVER
        # Nothing is charged.
        assert asker.ask("c").quotas[1].remaining == 7

    def test_edges_that_leave_no_room_between_them_are_not_waited_for(self) -> None:
        half = SECOND // 2
        asker = Asker(fixed(9, offset=0), fixed(9, offset=half), grace=SECOND * 6 // 10)
        reply = asker.ask("a", 1)
        assert reply.news.grants or reply.news.due < ORIGIN + 10 * SECOND
