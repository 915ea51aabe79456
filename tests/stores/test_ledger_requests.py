"""What a ledger makes of single requests: once, and with news for whom they concern."""

from __future__ import annotations

import pytest

from anythrottle.stores.exchange import (
    NEVER,
    Charged,
    Ended,
    GivenBack,
    Grant,
    Held,
    Paused,
    Remembered,
    Resumed,
    Started,
    Tightened,
    Want,
)
from anythrottle.stores.ledger import Ledger
from tests.stores.asker import Asker, counts
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
