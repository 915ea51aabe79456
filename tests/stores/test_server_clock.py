"""Bounds of the server's clock."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.stores.exchange import NEVER
from anythrottle.stores.server_clock import DRIFT, ServerClock
from tests.properties import examples

MICRO = 1_000_000


def test_an_exchange_gives_bounds() -> None:
    clock = ServerClock()
    assert not clock.known
    clock.note(1.0, 1.5, 100 * MICRO)
    assert clock.known
    assert clock.round_trip == 0.5
    assert clock.earliest(1.5) == 100 * MICRO
    assert clock.latest(1.5) == pytest.approx(100.5 * MICRO, abs=2)
    # Both widen with time.
    assert clock.earliest(11.5) == pytest.approx((110 - 10 * DRIFT) * MICRO, abs=2)
    assert clock.latest(11.5) == pytest.approx((110.5 + 10 * DRIFT) * MICRO, abs=2)


def test_the_tightest_bounds_hold() -> None:
    clock = ServerClock()
    clock.note(1.0, 1.5, 100 * MICRO)
    clock.note(2.0, 2.1, round(101.02 * MICRO))
    assert clock.earliest(2.1) == pytest.approx(101.02 * MICRO, abs=2)
    assert clock.latest(2.1) == pytest.approx(101.1 * MICRO, abs=140)
    assert clock.round_trip == pytest.approx(0.5 - 0.4 / 8)


@pytest.mark.promise("S16")
@pytest.mark.parametrize("step", [-50, 50])
def test_after_a_step_the_latest_exchange_alone_counts(step: int) -> None:
    clock = ServerClock()
    clock.note(1.0, 1.1, 100 * MICRO)
    clock.note(2.0, 2.1, (101 + step) * MICRO)
    assert clock.earliest(2.1) == (101 + step) * MICRO
    assert clock.latest(2.1) == pytest.approx((101.1 + step) * MICRO, abs=2)


def test_what_never_comes() -> None:
    clock = ServerClock()
    clock.note(1.0, 1.5, 100 * MICRO)
    assert clock.latest(inf) == NEVER
    assert clock.latest(1e12) == NEVER
    assert clock.when_surely(NEVER) == inf
    assert clock.still_before(NEVER) == inf


@pytest.mark.promise("S1")
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10
    ),
    st.floats(-DRIFT, DRIFT),
    st.floats(0, 1000),
    st.floats(0, 1000),
)
@examples(200)
def test_the_bounds_are_right_whatever_the_drift(
    exchanges: list[tuple[float, float, float]], drift: float, instant: float, later: float
) -> None:
    def server(now: float) -> float:
        return 5000.0 + now * (1 + drift * 0.999)

    clock = ServerClock()
    now = 0.0
    for gap, out, back in exchanges:
        sent = now + gap
        now = sent + out + back
        clock.note(sent, now, int(server(sent + out) * MICRO))

    now += instant
    assert clock.earliest(now) <= server(now) * MICRO + 1
    assert clock.latest(now) >= server(now) * MICRO - 1
    goal = int(server(now + later) * MICRO)
    surely = clock.when_surely(goal)
    assert server(surely) * MICRO >= goal - 2
    before = clock.still_before(goal)
    assert server(before) * MICRO <= goal + 1
    assert before <= surely
