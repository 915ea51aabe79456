"""The protocol of policies, decisions, and the arithmetic they share."""

import math
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle import WindowTokenBucket
from anythrottle._policies.policy import Decision, Policy, binding_of, seconds_until
from tests.properties import examples

instants = st.floats(-1e15, 1e15)


class TestSecondsUntil:
    @examples(200)
    @given(instants, instants)
    @example(0.1, 0.3)
    @example(1e12, math.nextafter(1e12, math.inf))
    @example(-1e12, 0.3)
    @example(274877906945.8553, 274877906946.9)
    def test_leads_to_the_instant_and_hardly_beyond(self, now: float, instant: float) -> None:
        delay = seconds_until(now, instant)
        assert delay >= 0
        assert now + delay >= instant
        if instant > now:
            ulp = math.ulp(max(abs(now), abs(instant)))
            assert now + delay - instant <= 2 * ulp

    def test_what_is_past_is_due(self) -> None:
        assert seconds_until(2.0, 1.0) == 0.0
        assert seconds_until(2.0, 2.0) == 0.0
        assert seconds_until(2.0, -math.inf) == 0.0

    def test_never(self) -> None:
        assert seconds_until(2.0, math.inf) == math.inf

    def test_a_rounded_difference_is_made_up_for(self) -> None:
        now, instant = 1.014495849609375, 1e16
        assert now + seconds_until(now, instant) >= instant
        # Here the plain difference falls short.
        now, instant = -0.1, 0.30000000000000004
        assert now + seconds_until(now, instant) >= instant


class TestDecision:
    def test_is_frozen(self) -> None:
        decision = Decision(True, None, 0.0, 1, 0.0, 1, None)
        with pytest.raises(FrozenInstanceError):
            decision.allowed = False  # type: ignore[misc]

        assert not hasattr(decision, "__dict__")

    def test_fields_in_the_order_of_the_contract(self) -> None:
        assert [field.name for field in fields(Decision)] == [
            "allowed",
            "reason",
            "retry_after",
            "remaining",
            "reset_after",
            "limit",
            "policy",
        ]


class TestPolicy:
    def test_is_recognised_at_run_time(self) -> None:
        assert isinstance(WindowTokenBucket(1, 1), Policy)
        assert not isinstance("20/10s", Policy)


@pytest.mark.parametrize(
    ("delays", "left", "capacities", "binding"),
    [
        ([0.0, 2.0, 1.0], [1, 5, 5], [9, 9, 9], 1),
        # of those that make it wait as long, the one with the least part left
        ([0.0, 0.0], [5, 3], [10, 4], 0),
        ([3.0, 3.0], [7, 5], [8, 10], 1),
        # then the one with the least left, then the first
        ([0.0, 0.0], [4, 2], [8, 4], 1),
        ([0.0, 0.0], [2, 2], [4, 4], 0),
        ([0.0, 0.0], [0, 0], [100, 4], 0),
    ],
)
def test_the_policy_that_binds(
    delays: list[float], left: list[int], capacities: list[float], binding: int
) -> None:
    assert binding_of(delays, left, capacities) == binding
