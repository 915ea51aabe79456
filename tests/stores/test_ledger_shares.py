"""How a ledger shares out what there is, to processes that all want more, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.stores.exchange import Amounts, Micros, Rule
from tests.properties import examples
from tests.stores.processes import (
    ORIGIN,
    SECOND,
    bucket,
    check_windows,
    end_window,
    fixed,
    slots,
    window,
)
from tests.stores.timed import TimedWorld

#: Rules, how long calls take, and how many calls there are in a second by that.
SETS: list[tuple[list[Rule], Micros, float]] = [
    ([window(40)], 0, 40),
    ([window(4, 0.1)], 0, 40),
    ([bucket(200, burst=1)], 0, 200),
    ([bucket(2, 0.1, burst=1)], 0, 20),
    ([fixed(40)], 0, 40),
    ([fixed(40, offset=0)], 0, 40),
    # What holds is counted from the end.
    ([end_window(40)], 20_000, 40 / 1.02),
    ([slots(16)], 50_000, 320),
    ([window(8, 0.2), bucket(30, burst=10), slots(30)], 5000, 30),
]


def all_of(rules: list[Rule], cost: int = 1) -> Amounts:
    return (cost,) * len(rules)


@pytest.mark.parametrize(("rules", "takes", "nominal"), SETS)
class TestSaturated:
    def test_all_that_is_due_is_used_and_no_more(
        self, rules: list[Rule], takes: Micros, nominal: float
    ) -> None:
        world = TimedWorld(rules, takes=takes)
        for _ in range(8):
            world.join([all_of(rules)])

        world.run(8)
        check_windows(rules, world.calls)
        # Of windows that begin with a burst, one more may be in the time that is looked at.
        assert 0.97 * 6 * nominal <= world.shares(2, 8).total() <= 6 * nominal + 41

    def test_each_process_gets_its_share(
        self, rules: list[Rule], takes: Micros, nominal: float
    ) -> None:
        world = TimedWorld(rules, takes=takes)
        for number in range(8):
            # Those that have many in line get no more than those that have few.
            world.join([all_of(rules)], waiters=100 if number % 2 else 10)

        world.run(8)
        check_windows(rules, world.calls)
        # After the first burst, over any 5 windows.
        for since in (1.0, 1.7, 2.6, 3.0):
            shares = world.shares(since, since + 5)
            assert min(shares.values()) >= shares.total() / 8 / 2

    @pytest.mark.untraced
    def test_what_a_dead_process_would_have_got_the_others_get(
        self, rules: list[Rule], takes: Micros, nominal: float
    ) -> None:
        if any(rule.holds for rule in rules):
            # What it holds is let go by the end of its lease.
            nominal *= 0.6

        world = TimedWorld(rules, takes=takes)
        sites = [world.join([all_of(rules)]) for _ in range(8)]
        world.run(2.03)
        sites[3].kill()
        world.run(4)
        check_windows(rules, world.calls)
        assert world.shares(4, 6).total() >= 0.97 * 2 * nominal
        assert world.ledger is not None
        assert "p3" not in world.ledger.queue
        # It is known as long as it may be alive.
        assert sum(grant.count for grant in world.ledger.nodes["p3"].inbox) <= 0.6 * nominal
        world.run(31)
        assert "p3" not in world.ledger.nodes

    @examples(4)
    @given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 1.0]))
    def test_pushes_that_are_lost_cost_time_alone(
        self, rules: list[Rule], takes: Micros, nominal: float, seed: int, lost: float
    ) -> None:
        world = TimedWorld(rules, takes=takes, lost=lost, seed=seed)
        for number in range(4):
            world.join([all_of(rules)], delay=100 * 3**number)

        world.run(5)
        check_windows(rules, world.calls)
        shortest = min((rule.window for rule in rules if rule.window), default=SECOND)
        if shortest == SECOND:
            assert world.shares(1, 5).total() >= 0.3 * 4 * nominal

        # Nobody is left behind.
        assert min(world.shares(1, 5).values()) >= 1


class TestTurns:
    def test_a_large_cost_at_the_head_is_waited_for(self) -> None:
        rules = [window(10)]
        world = TimedWorld(rules)
        small = [world.join([(1,)]) for _ in range(3)]
        large = world.join([(9,)], waiters=1)
        world.run(10)
        check_windows(rules, world.calls)
        # In turn with the others: it needs nearly all of a window each time.
        assert len(large.calls) >= 4
        assert all(len(site.calls) >= 8 for site in small)

    def test_calls_of_different_costs_share_what_there_is(self) -> None:
        rules = [window(60)]
        world = TimedWorld(rules)
        for wants in ([(1,)], [(1,), (3,)], [(2,)]):
            world.join([(amount,) for (amount,) in wants])

        world.run(8)
        amounts = dict.fromkeys(world.sites, 0)
        for call in world.calls:
            if call.start >= ORIGIN + SECOND:
                amounts[call.process] += call.amounts[0]

        assert sum(amounts.values()) >= 0.95 * 7 * 60
        assert min(amounts.values()) >= sum(amounts.values()) / 3 / 2

    def test_few_exchanges_serve_many(self) -> None:
        for rules in ([window(200)], [bucket(200, burst=1)], [fixed(200)]):
            world = TimedWorld(rules)
            for _ in range(8):
                world.join([(1,)])

            world.run(5)
            assert world.exchanges <= 0.35 * len(world.calls)

    def test_one_waiter_in_each_process(self) -> None:
        rules = [window(20)]
        world = TimedWorld(rules)
        for _ in range(16):
            world.join([(1,)], waiters=1)

        world.run(5)
        check_windows(rules, world.calls)
        assert len(world.calls) >= 0.97 * 100
        assert world.exchanges <= 2 * len(world.calls)

    def test_a_newcomer_has_its_turn(self) -> None:
        world = TimedWorld([window(20, 0.5)])
        for _ in range(3):
            world.join([(1,)])

        world.run(2)
        world.join([(1,)])
        world.run(6)
        shares = world.shares(3, 8)
        assert shares["p3"] >= shares.total() / 4 / 2
