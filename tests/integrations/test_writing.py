"""The fields ``RateLimit`` and ``RateLimit-Policy`` are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FixedWindow, PolicyState, RateLimiter, TokenBucket, WindowTokenBucket
from anythrottle.abc import Bucket, Policy
from anythrottle.integrations._writing import whole_seconds
from anythrottle.integrations.headers import Quota, read_figures, write_fields
from tests.properties import examples


@dataclass
class Own:
    """A policy of a user's own; it has no hash, as it is not frozen."""

    limit: float = 5
    window: float = 2
    unit: str = "calls"
    holds: bool = False

    def bucket(self) -> Bucket:
        raise NotImplementedError


def told(*states: PolicyState) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in write_fields(states)}


def policy_field(*policies: Policy) -> str:
    return told(*(PolicyState(policy, 1, 0, 0) for policy in policies))["ratelimit-policy"]


def state_field(remaining: int, retry_after: float, policy: Policy | None = None) -> str:
    state = PolicyState(policy or WindowTokenBucket(20, 10), remaining, retry_after, 99)
    return told(state)["ratelimit"]


class TestPolicies:
    @pytest.mark.parametrize(
        ("policy", "items"),
        [
            (WindowTokenBucket(20, 10), "q=20;w=10"),
            (WindowTokenBucket(20, 10, measure="end"), "q=20;w=10"),
            (FixedWindow(20, 86400), "q=20;w=86400"),
            (WindowTokenBucket(20, 0.25), "q=20;w=1"),
            (WindowTokenBucket(20, 1.000001), "q=20;w=2"),
            # A burst is no part of the limit.
            (TokenBucket(20, 10, burst=50), "q=20;w=10"),
            (TokenBucket(2.5, 1), "q=5;w=2"),
            (TokenBucket(0.1, 1), "q=1;w=10"),
            (TokenBucket(0.1, 0.1), "q=1;w=1"),
            (TokenBucket(1 / 3, 1), "q=1;w=3"),
            (TokenBucket(2 / 3, 60), "q=2;w=180"),
            (TokenBucket(1e-6, 1), "q=1;w=1000000"),
            (TokenBucket(1e300, 1e300), "q=999999999999999;w=999999999999999"),
            (TokenBucket(5e-324, 1e300), "q=1;w=999999999999999"),
            (WindowTokenBucket(10**400, 1), "q=999999999999999;w=1"),
            (Own(5, inf), "q=5;w=999999999999999"),
            (Own(), "q=5;w=2"),
            (Own(0), "q=0;w=2"),
        ],
    )
    def test_limit_and_window(self, policy: Policy, items: str) -> None:
        assert policy_field(policy) == f'"calls-0";{items}'

    def test_names_and_units(self) -> None:
        policies = (
            WindowTokenBucket(20, 10),
            WindowTokenBucket(9, 60, unit="tokens"),
            WindowTokenBucket(8, 1),
            WindowTokenBucket(7, 1, unit='größe "x\\y"'),
            WindowTokenBucket(6, 1, unit=" ~\x1f\x7f"),
        )
        assert policy_field(*policies) == (
            '"calls-0";q=20;w=10, "tokens-1";q=9;w=60;qu="tokens", "calls-2";q=8;w=1, '
            r'"gr%C3%B6%C3%9Fe \"x\\y\"-3";q=7;w=1;qu="gr%C3%B6%C3%9Fe \"x\\y\"", '
            '" ~%1F%7F-4";q=6;w=1;qu=" ~%1F%7F"'
        )

    def test_a_policy_without_a_limit_is_not_told(self) -> None:
        states = [PolicyState(Own(limit), 1, 0, 0) for limit in (inf, 5)]
        assert told(*states) == {
            "ratelimit-policy": '"calls-1";q=5;w=2',
            "ratelimit": '"calls-1";r=1',
        }
        assert write_fields(states[:1]) == ()

    def test_nothing_without_policies(self) -> None:
        assert write_fields(()) == ()


class TestStates:
    @pytest.mark.parametrize(
        ("retry_after", "seconds", "milliseconds"),
        [
            (3.2, 4, 3202),
            (1, 2, 1002),
            (0.998, 1, 1000),
            (0.9981, 2, 1001),
            (1e-9, 1, 3),
            (5e-324, 1, 2),
            (1e6, 10**6 + 1, 10**9 + 2),
            (1e300, 10**12, 10**15 - 1),
            (1.7e308, 10**12, 10**15 - 1),
        ],
    )
    def test_when_there_is_more(self, retry_after: float, seconds: int, milliseconds: int) -> None:
        field = f'"calls-0";r=7;t={seconds};anythrottle-t={milliseconds}'
        assert state_field(7, retry_after) == field
        assert whole_seconds(retry_after) == seconds

    @pytest.mark.parametrize(("remaining", "retry_after"), [(7, inf), (7, 0), (20, 5), (20, 0)])
    def test_when_is_not_known_or_nothing_is_missing(
        self, remaining: int, retry_after: float
    ) -> None:
        assert state_field(remaining, retry_after) == f'"calls-0";r={remaining}'

    def test_more_than_the_limit_is_left(self) -> None:
        bucket = TokenBucket(20, 10, burst=50)
        assert state_field(30, 0.5, bucket) == '"calls-0";r=30;t=1;anythrottle-t=502'

    def test_more_than_can_be_written(self) -> None:
        for retry_after in (0, inf):
            assert state_field(10**400, retry_after) == '"calls-0";r=999999999999999'

        field = '"calls-0";r=999999999999999;t=1;anythrottle-t=502'
        assert state_field(10**400, 0.5) == field

    def test_of_a_policy_without_hash(self) -> None:
        assert state_field(3, 0.5, Own()) == '"calls-0";r=3;t=1;anythrottle-t=502'

    def test_at_least_a_second(self) -> None:
        assert whole_seconds(0) == 1

    @pytest.mark.timing
    async def test_of_a_limiter(self) -> None:
        limiter = RateLimiter("2/10s", "9/min", TokenBucket(4, 2))
        async with limiter:
            pass

        assert told(*limiter.quotas()) == {
            "ratelimit-policy": '"calls-0";q=2;w=10, "calls-1";q=9;w=60, "calls-2";q=4;w=2',
            "ratelimit": (
                '"calls-0";r=1;t=11;anythrottle-t=10002, '
                '"calls-1";r=8;t=61;anythrottle-t=60002, '
                '"calls-2";r=3;t=1;anythrottle-t=502'
            ),
        }


UNITS = st.one_of(st.just("calls"), st.sampled_from(["tokens", "größe"]), st.text(min_size=1))

POLICIES: st.SearchStrategy[Any] = st.one_of(
    st.builds(WindowTokenBucket, st.integers(1, 10**17), st.floats(1e-3, 1e17), unit=UNITS),
    st.builds(TokenBucket, st.floats(1e-9, 1e17), st.floats(1e-3, 1e17), unit=UNITS),
    st.builds(Own, st.sampled_from([1, 2.5, inf]), st.floats(1e-3, 1e17), UNITS),
)

STATES = st.builds(
    PolicyState,
    POLICIES,
    st.integers(0, 10**17),
    st.one_of(st.just(0.0), st.just(inf), st.floats(0, 1e12, exclude_min=True)),
    st.just(9.0),
)


@examples(300)
@given(st.lists(STATES, max_size=4))
def test_what_is_written_is_read(states: Sequence[PolicyState]) -> None:
    fields = told(*states)
    # whatever the units are called, these are structured fields, and headers
    for text in fields.values():
        assert text.isascii()
        assert text.isprintable()
        assert isinstance(http_sf.parse(text.encode(), tltype="list"), list)

    figures = read_figures(200, fields.items(), utc=0)
    finite = [state for state in states if state.policy.limit < inf]
    long = any(len(text) > 1024 for text in fields.values())
    assert long or (figures.malformed == () and len(figures.quotas) == len(finite))
    if not long:
        for state, quota in zip(finite, figures.quotas, strict=True):
            compare(state, quota)


def compare(state: PolicyState, quota: Quota) -> None:
    """See that a client is told what it can rely on: no more than there is, and not too early."""
    policy = state.policy
    assert quota.remaining is not None
    assert quota.remaining == min(state.remaining, 10**15 - 1)
    assert quota.limit is not None
    assert quota.window is not None
    if quota.reset_after is None:
        known = state.retry_after < inf
        assert not known or not state.retry_after or quota.remaining == quota.limit
    else:
        assert quota.reset_after >= min(state.retry_after, 1e12 - 1)
        assert quota.reset_after <= max(state.retry_after + 0.003001, 0.002)
        assert ceil(quota.reset_after) <= 10**12

    if policy.limit <= 1e14 and policy.window <= 1e9 and policy.window / policy.limit <= 1e9:
        # The rate is not above that of the policy, but for a rounding of a thousandth.
        rate = policy.limit / policy.window
        assert quota.limit / quota.window <= rate * 1.001
