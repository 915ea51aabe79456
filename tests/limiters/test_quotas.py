"""What each policy has left: for headers, and for errors."""

from __future__ import annotations

import pickle
from math import inf
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    FixedWindow,
    LimitExceeded,
    PolicyState,
    RateLimiter,
    TokenBucket,
    WindowTokenBucket,
)
from anythrottle.abc import Policy
from tests.conftest import Run
from tests.properties import examples

pytestmark = pytest.mark.timing

CALLS, TOKENS = WindowTokenBucket(3, 10), WindowTokenBucket(100, 60, unit="tokens")


def told(limiter: RateLimiter) -> list[tuple[int, float, float]]:
    return [(s.remaining, s.retry_after, s.reset_after) for s in limiter.quotas()]


async def test_of_each_policy() -> None:
    limiter = RateLimiter(CALLS, TOKENS)
    assert limiter.policies == (CALLS, TOKENS)
    assert limiter.quotas() == (PolicyState(CALLS, 3, 0, 0), PolicyState(TOKENS, 100, 0, 0))
    await limiter.acquire({"tokens": 30})
    await anyio.sleep(1)
    await limiter.acquire({"tokens": 10})
    assert limiter.quotas() == (PolicyState(CALLS, 1, 9, 10), PolicyState(TOKENS, 60, 59, 60))
    await anyio.sleep(9)
    assert told(limiter) == [(2, 1, 1), (60, 50, 51)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (TokenBucket(2, 10, burst=4), (2, 5, 10)),
        (FixedWindow(4, 10), (2, 10, 10)),
        (WindowTokenBucket(4, 10), (2, 10, 10)),
        (WindowTokenBucket(4, 10, measure="end"), (2, inf, 10)),
    ],
)
async def test_of_each_kind(policy: Policy, expected: tuple[int, float, float]) -> None:
    limiter = RateLimiter(policy)
    async with limiter.permit(2):
        assert told(limiter) == [expected]


async def test_by_utc() -> None:
    limiter = RateLimiter(FixedWindow(4, 10, align="utc"))
    await limiter.acquire()
    ((remaining, more, reset),) = told(limiter)
    assert remaining == 3
    assert 0 < more <= 10
    assert 0 < reset <= 10
    await anyio.sleep(more)
    assert told(limiter)[0][0] == 4


async def test_in_debt() -> None:
    limiter = RateLimiter("3/10s")
    await limiter.acquire(2)
    await anyio.sleep(1)
    limiter.penalize(3)
    assert told(limiter) == [(0, 10, 10)]


async def test_the_line_does_not_count() -> None:
    limiter = RateLimiter("3/10s")
    await limiter.acquire()
    limiter.pause(5)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(limiter.acquire, 3)
        await anyio.sleep(1)
        assert told(limiter) == [(2, 9, 9)]
        assert limiter.peek().retry_after > 9


async def test_without_a_policy() -> None:
    assert RateLimiter(concurrency=1).quotas() == ()
    assert RateLimiter().policies == ()


async def test_after_reconfiguration() -> None:
    limiter = RateLimiter(CALLS)
    await limiter.acquire()
    limiter.reconfigure("5/10s", "7/20s")
    assert [policy.limit for policy in limiter.policies] == [5, 7]
    assert [state.remaining for state in limiter.quotas()] == [4, 6]


class TestPermit:
    async def test_as_of_when_it_is_first_asked(self) -> None:
        limiter = RateLimiter("3/10s")
        permit: Any
        async with limiter.permit() as permit:
            assert permit.limiter is limiter
            await limiter.acquire()
            assert [state.remaining for state in permit.quotas] == [1]
            await limiter.acquire()
            assert [state.remaining for state in permit.quotas] == [1]


class TestLimitExceeded:
    async def test_it_has_them(self) -> None:
        limiter = RateLimiter("3/10s", "4/20s")
        await limiter.acquire(3)
        with pytest.raises(LimitExceeded) as raised:
            limiter.acquire_nowait()

        assert raised.value.quotas == limiter.quotas()
        assert pickle.loads(pickle.dumps(raised.value)).quotas == limiter.quotas()  # noqa: S301

    async def test_of_others_it_has_none(self) -> None:
        limiter = RateLimiter("3/10s")
        assert LimitExceeded(limiter.peek()).quotas == ()


def test_outside_of_a_run(run: Run) -> None:
    limiter = RateLimiter("3/h")
    assert told(limiter) == [(3, 0, 0)]
    run(limiter.acquire, 2)
    ((remaining, more, reset),) = told(limiter)
    assert remaining == 1
    assert 3590 < more == reset <= 3600


@examples(60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "penalize", "settle", "sleep", "tighten", "ask"]),
            st.integers(0, 3),
            st.sampled_from([0.0, 0.5, 1.0, 5.0, 10.0]),
        ),
        max_size=30,
    ),
    st.sampled_from(
        [WindowTokenBucket(3, 10), TokenBucket(3, 10, burst=3), FixedWindow(3, 10)],
    ),
)
def test_asking_changes_nothing(
    run: Run, script: list[tuple[str, int, float]], policy: Policy
) -> None:
    """One limiter is asked all the time, and its twin never: they do the same."""

    async def main() -> None:
        asked, twin = RateLimiter(policy), RateLimiter(policy)
        async with asked.permit(0) as one, twin.permit(0) as other:
            for verb, number, seconds in script:
                for limiter, permit in ((asked, one), (twin, other)):
                    if verb == "acquire" and limiter.peek(number).allowed:
                        limiter.acquire_nowait(number)
                    elif verb == "penalize":
                        limiter.penalize(number)
                    elif verb == "settle":
                        permit.settle(number)
                    elif verb == "tighten":
                        limiter.tighten(remaining=number, reset_after=seconds)

                if verb == "sleep":
                    await anyio.sleep(seconds)

                for state in asked.quotas():
                    decision = asked.peek(0)
                    assert state.remaining == decision.remaining
                    assert state.reset_after == decision.reset_after

                assert asked.peek(3) == twin.peek(3)

        assert asked.quotas() == twin.quotas()

    run(main)


async def test_more_can_be_had_exactly_then() -> None:
    limiter = RateLimiter("3/10s")
    for _ in range(3):
        await limiter.acquire()
        await anyio.sleep(0.7)

    for _ in range(3):
        (before,) = limiter.quotas()
        await anyio.sleep(before.retry_after)
        (after,) = limiter.quotas()
        assert after.remaining == before.remaining + 1

    assert told(limiter) == [(3, 0, 0)]


async def test_a_full_window_costs_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was charged is not gone through, however much that is."""
    limiter = RateLimiter("1000/10s")
    for _ in range(999):
        limiter.acquire_nowait()
        await anyio.sleep(0.001)

    bucket: Any = limiter._gate.buckets[0]
    seen = 0

    class Counting(type(bucket._entries)):  # type: ignore[misc]
        def __iter__(self) -> Any:
            nonlocal seen
            for entry in super().__iter__():
                seen += 1
                yield entry

    bucket._entries = Counting(bucket._entries)
    for _ in range(10):
        assert told(limiter)[0][0] == 1

    assert seen <= 40
