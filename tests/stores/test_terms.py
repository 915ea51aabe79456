"""What follows from the rules of a limiter."""

from __future__ import annotations

import pytest

from anythrottle.stores.exchange import Rule
from anythrottle.stores.terms import Terms

SECOND = 1_000_000

WINDOW = Rule("window", 20, 10 * SECOND, 0, "calls")

END = Rule("end", 20, 10 * SECOND, 0, "calls")

BUCKET = Rule("bucket", 20, 2 * SECOND, 5, "calls")

SLOTS = Rule("slots", 3, 0, 0, "calls")


def terms(*rules: Rule, leases: bool = False, lease: float = 30.0) -> Terms:
    return Terms(rules, lease=lease, deadline=1.0, leases=leases)


@pytest.mark.promise("S7")
@pytest.mark.parametrize(
    ("rules", "trip", "grace", "horizon"),
    [
        ((WINDOW,), 0.001, 0.1, 0.1),
        ((WINDOW,), 0.1, 0.4, 0.2),
        ((Rule("window", 1, SECOND // 10, 0, "calls"),), 0.001, 0.02, 0.01),
        ((Rule("window", 1, SECOND // 100, 0, "calls"),), 0.001, 0.02, 0.005),
        ((WINDOW, SLOTS), 0.001, 0.02, 0.0),
        ((END,), 0.1, 0.4, 0.0),
        ((), 0.001, 0.1, 0.1),
    ],
)
def test_grace_and_horizon(
    rules: tuple[Rule, ...], trip: float, grace: float, horizon: float
) -> None:
    found = terms(*rules).grace_and_horizon(trip)
    assert found == pytest.approx((grace * SECOND, horizon * SECOND))


@pytest.mark.promise("S17")
def test_in_leased_mode_grants_are_valid_for_a_tenth_of_the_window() -> None:
    assert terms(WINDOW, leases=True).grace_and_horizon(0.001)[0] == SECOND
    assert terms(WINDOW, BUCKET, leases=True).grace_and_horizon(0.001)[0] == SECOND // 5


def test_times() -> None:
    found = terms(WINDOW, BUCKET)
    assert not found.holds
    assert found.tells_starts
    assert found.patience == 0.5
    assert found.return_patience == 0.5
    assert found.spread == SECOND // 100
    assert (found.lease_micros, found.deadline_micros) == (30 * SECOND, SECOND)
    assert found.memory == 35
    assert terms(WINDOW, lease=3.0).memory == 15
    assert terms(WINDOW).return_patience == 1.0
    holds = terms(END, SLOTS)
    assert holds.holds
    assert not holds.tells_starts
    # Nobody else gets a slot before it is given back.
    assert holds.return_patience == 0.05
