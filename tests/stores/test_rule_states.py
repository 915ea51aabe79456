"""What the rules of a shared limiter do, one by one."""

from __future__ import annotations

from typing import cast

from anythrottle.stores.exchange import NEVER, Quota, Rule
from anythrottle.stores.rule_states import (
    BucketState,
    FixedState,
    RuleState,
    WindowState,
    state_of,
)
from anythrottle.stores.window_state import EXACT_ENTRIES

#: Seconds of the buckets are microseconds of the rules, so floats are as exact as integers.
SECOND = 2**20

#: An instant that is no edge of a window.
ORIGIN = 1700 * SECOND + 12_345


def window_rule(limit: int, window: int = SECOND) -> WindowState:
    return cast("WindowState", state_of(Rule("window", limit, window, 0, "calls")))


def end_rule(limit: int, window: int = SECOND) -> WindowState:
    return cast("WindowState", state_of(Rule("end", limit, window, 0, "calls")))


def bucket_rule(limit: float, burst: float, window: int = SECOND) -> BucketState:
    return cast("BucketState", state_of(Rule("bucket", limit, window, burst, "calls")))


def fixed_rule(limit: int, offset: int = -1, window: int = SECOND) -> FixedState:
    return cast("FixedState", state_of(Rule("fixed", limit, window, offset, "calls")))


def slot_rule(limit: int) -> RuleState:
    return state_of(Rule("slots", limit, 0, 0, "calls"))


class TestWindow:
    def test_a_charge_counts_until_the_last_start_that_it_may_have(self) -> None:
        rule = window_rule(2)
        assert rule.charge(2, 100, 30) == 100 + 30 + SECOND
        assert rule.earliest(1, 100, 5) == 130 + SECOND
        assert rule.fits(1, 129 + SECOND) == 0
        assert rule.fits(1, 130 + SECOND) == 2
        # The last, or an earlier one that is reported: never a later one.
        rule.start(1, 110, 130 + SECOND)
        assert rule.entries == [(110 + SECOND, 1), (130 + SECOND, 1)]
        rule.start(1, 200, 130 + SECOND)
        assert rule.entries == [(110 + SECOND, 1), (130 + SECOND, 1)]
        rule.forget(110 + SECOND)
        assert rule.used == 1
        assert rule.quota(110 + SECOND) == Quota(1, 130 + SECOND, 130 + SECOND)

    def test_a_start_that_is_reported_after_its_return_changes_nothing(self) -> None:
        rule = window_rule(2)
        receipt = rule.charge(1, 100, 30)
        rule.charge(1, 200, 30)
        rule.forget(receipt)
        rule.start(1, 100, receipt)
        assert rule.entries == [(230 + SECOND, 1)]

    def test_what_a_service_has_tightened_no_start_loosens(self) -> None:
        rule = window_rule(2)
        receipt = rule.charge(2, 100, 30)
        rule.tighten(0, 150 + SECOND, 200)
        rule.start(2, 100, receipt)
        assert rule.earliest(1, 200, 0) == 150 + SECOND
        # Given back it comes back all the same, as its call has not been counted there.
        rule.give_back(1, receipt, 200)
        assert rule.earliest(1, 200, 0) == 200
        rule.give_back(5, receipt, 200)
        assert rule.used == 0

    def test_what_has_come_back_is_not_given_back(self) -> None:
        rule = window_rule(2)
        receipt = rule.charge(1, 100, 0)
        rule.charge(1, 200, 0)
        rule.give_back(1, receipt, receipt)
        rule.forget(receipt)
        assert rule.used == 1

    def test_beyond_a_thousand_charges_ends_are_rounded_later(self) -> None:
        rule = window_rule(10**6, 1_000_000)
        end = 0
        for number in range(EXACT_ENTRIES + 500):
            end = rule.charge(1, ORIGIN + number * 7, 0)
            late = end - (ORIGIN + number * 7 + 1_000_000)
            assert 0 <= late < (1 if number < EXACT_ENTRIES else 1000)

        assert len(rule.entries) <= EXACT_ENTRIES + 5
        assert rule.used == sum(amount for _, amount in rule.entries) == EXACT_ENTRIES + 500
        assert rule.entries == sorted(rule.entries)
        # What was rounded is found.
        rule.give_back(1, end, ORIGIN)
        rule.start(1, ORIGIN, end)
        assert rule.used == EXACT_ENTRIES + 499

    def test_a_reset_in_the_past_is_the_next_instant(self) -> None:
        rule = window_rule(4)
        rule.charge(4, 100, 0)
        rule.tighten(0, 50, 200)
        assert rule.earliest(1, 200, 0) == 100 + SECOND
        rule = window_rule(4)
        rule.tighten(1, 50, 200)
        assert rule.quota(200) == Quota(1, 201, 201)

    def test_what_was_forgotten_is_charged_anew(self) -> None:
        rule = window_rule(4)
        rule.remember(3, 500, 200)
        rule.remember(3, 200, 200)
        assert rule.entries == [(500, 3)]


class TestWindowFromTheEnd:
    def test_what_runs_is_held(self) -> None:
        rule = end_rule(2)
        assert rule.charge(2, 100, 30) == 0
        assert rule.earliest(1, 10**9, 0) == NEVER
        assert rule.quota(100) == Quota(0, NEVER, 100 + SECOND)
        # A start is nothing to it.
        rule.start(1, 100, 0)
        assert rule.entries == []
        rule.count(1, 500)
        assert (rule.held, rule.entries) == (1, [(500 + SECOND, 1)])
        assert rule.earliest(1, 600, 0) == 500 + SECOND
        rule.count(0, 900)
        assert rule.entries == [(500 + SECOND, 1)]

    def test_a_charge_at_once_counts_from_its_instant(self) -> None:
        rule = end_rule(2)
        rule.charge_now(1, 100, 200)
        assert rule.entries == [(100 + SECOND, 1)]


class TestBucket:
    def test_what_flows_in_is_there_at_the_same_instant_whoever_asks(self) -> None:
        rule = bucket_rule(4, 2)
        assert rule.charge(2, ORIGIN, 99) == ORIGIN + SECOND // 2
        assert rule.earliest(1, ORIGIN, 0) == ORIGIN + SECOND // 4
        assert rule.earliest(1, ORIGIN + SECOND // 4, 0) == ORIGIN + SECOND // 4
        assert rule.earliest(3, ORIGIN, 0) == NEVER
        # Two calls ahead of it: each is charged at the instant at which it is due.
        rule.charge(1, ORIGIN + SECOND // 4, 0)
        assert rule.fits(1, ORIGIN) == 0
        assert rule.earliest(1, ORIGIN, 0) == ORIGIN + SECOND // 2
        assert rule.full_at(ORIGIN) == ORIGIN + 3 * SECOND // 4

    def test_a_refund_is_what_is_out_yet(self) -> None:
        rule = bucket_rule(4, 4)
        receipt = rule.charge(4, ORIGIN, 0)
        rule.give_back(4, receipt, ORIGIN + SECOND // 2)
        assert rule.fits(1, ORIGIN + SECOND // 2) == 4
        rule.give_back(4, receipt, receipt)
        assert rule.fits(1, receipt) == 4

    def test_what_was_forgotten_counts_whole(self) -> None:
        rule = bucket_rule(4, 4)
        rule.remember(3, ORIGIN + 1, ORIGIN)
        rule.remember(3, ORIGIN, ORIGIN)
        assert rule.fits(1, ORIGIN) == 1

    def test_what_takes_longer_than_there_are_instants_never_comes(self) -> None:
        rule = bucket_rule(1e-9, 1, 10**12)
        rule.charge(1, ORIGIN, 0)
        assert rule.earliest(1, ORIGIN, 0) == NEVER
        assert rule.full_at(ORIGIN) == NEVER

    def test_a_rate_beyond_all_bounds(self) -> None:
        assert bucket_rule(1e15, 1e15).fits(1, ORIGIN) == 2**31

    def test_flows_are_held_off_until_the_reset(self) -> None:
        rule = bucket_rule(4, 4)
        rule.tighten(1, ORIGIN + SECOND, ORIGIN)
        assert rule.quota(ORIGIN).remaining == 1
        assert rule.earliest(2, ORIGIN, 0) == ORIGIN + SECOND + SECOND // 4


class TestFixedWindow:
    def test_no_call_may_start_beyond_the_edge(self) -> None:
        rule = fixed_rule(2, 0)
        edge = 10 * SECOND
        assert rule.earliest(1, edge - 100, 100) == edge - 100
        assert rule.earliest(1, edge - 99, 100) == edge
        assert rule.earliest(1, edge - 99, 0) == edge - 99
        # But for those that may start at any time anyway.
        assert rule.earliest(1, edge - 99, SECOND) == edge - 99
        assert rule.charge(1, edge, 100) == edge + SECOND
        assert rule.earliest(1, edge + SECOND - 50, 100) == edge + SECOND

    def test_a_window_that_opens_with_a_call_is_as_late_as_that_may_be(self) -> None:
        rule = fixed_rule(2)
        assert rule.earliest(1, ORIGIN, 100) == ORIGIN
        assert rule.charge(1, ORIGIN, 100) == ORIGIN + SECOND + 100
        assert rule.earliest(1, ORIGIN + SECOND + 1, 100) == ORIGIN + SECOND + 100
        assert rule.earliest(1, ORIGIN + SECOND, 100) == ORIGIN + SECOND

    def test_a_window_that_follows_to_carry_a_debt_has_an_edge_too(self) -> None:
        rule = fixed_rule(2)
        rule.charge_now(3, ORIGIN, ORIGIN)
        edge = ORIGIN + 2 * SECOND
        assert rule.earliest(1, edge - 50, 100) == edge
        assert rule.earliest(1, edge - 100, 100) == edge - 100
        assert rule.earliest(3, ORIGIN, 0) == NEVER
        assert rule.charge(1, edge - 100, 100) == edge
        assert rule.full_at(edge - 100) == edge

    def test_windows_at_set_times_stay_there(self) -> None:
        rule = fixed_rule(2, 0)
        start = 10 * SECOND
        rule.charge(2, start, 0)
        rule.tighten(0, start + SECOND * 3 // 2, start + SECOND * 3 // 4)
        rule.charge_now(3, start, start + SECOND * 3 // 4)
        # 5 of 2: one window that ends later, two that carry what is left.
        assert rule.end == start + SECOND * 3 // 2
        assert rule.full_at(start + SECOND) == start + 3 * SECOND
        assert rule.earliest(1, start + SECOND, 0) == start + 2 * SECOND
        assert rule.quota(start + 3 * SECOND) == Quota(2, *[start + 3 * SECOND] * 2)

    def test_edges_that_would_admit_more_than_remains_are_put_off(self) -> None:
        rule = fixed_rule(2, 0)
        start = 10 * SECOND
        rule.charge(2, start, 0)
        rule.tighten(0, start + SECOND * 3 // 2, start + SECOND * 3 // 4)
        now, reset = start + SECOND * 6 // 5, start + SECOND * 11 // 5
        # Two edges come before the reset, at 3/2 and at 2: 4 calls, and 3 remain.
        rule.tighten(3, reset, now)
        assert rule.earliest(1, now, 0) == reset

    def test_what_is_of_another_window_is_not_given_back(self) -> None:
        rule = fixed_rule(2)
        first = rule.charge(2, ORIGIN, 0)
        # An end that was put off makes no receipt foreign.
        rule.tighten(0, ORIGIN + SECOND * 3 // 2, ORIGIN + SECOND * 3 // 4)
        end = rule.end
        rule.give_back(1, first, ORIGIN + SECOND)
        assert rule.quota(ORIGIN + SECOND).remaining == 1
        rule.give_back(1, first, end)
        rule.charge(2, end, 0)
        for late in (first, end):
            rule.give_back(1, late, end + 1)

        assert rule.quota(end + 1).remaining == 0
        rule.give_back(9, end + SECOND, end + 1)
        assert rule.quota(end + 1).remaining == 2

    def test_what_was_forgotten_is_charged_anew(self) -> None:
        rule = fixed_rule(4)
        rule.remember(1, ORIGIN + 500, ORIGIN)
        rule.remember(2, ORIGIN + 600, ORIGIN)
        rule.remember(1, ORIGIN, ORIGIN)
        assert (rule.used, rule.end) == (3, ORIGIN + 600)
        assert rule.earliest(2, ORIGIN, 0) == ORIGIN + 600


class TestSlots:
    def test_are_held_and_nothing_else(self) -> None:
        rule = slot_rule(3)
        assert rule.charge(2, 100, 5) == 0
        assert rule.earliest(1, 100, 5) == 100
        assert rule.earliest(2, 100, 5) == NEVER
        assert rule.fits(1, 100) == 1
        assert rule.quota(100) == Quota(1, NEVER, 100)
        rule.count(1, 200)
        assert rule.quota(100).remaining == 2
        # What concerns other rules is nothing to it.
        rule.charge_now(1, 100, 100)
        rule.start(1, 100, 0)
        rule.give_back(1, 500, 100)
        rule.tighten(0, 500, 100)
        rule.remember(1, 500, 100)
        rule.forget(10**9)
        assert rule.quota(100).remaining == 2
        rule.held += 9
        assert rule.quota(100).remaining == 0
