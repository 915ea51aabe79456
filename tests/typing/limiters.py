"""What type checkers make of limiters. Checked, never run."""

from collections.abc import Mapping
from typing import assert_type

import anyio

from anythrottle import (
    Cost,
    CostTooHigh,
    Decision,
    LimitExceeded,
    RateLimiter,
    RateLimiterStatistics,
    ThrottleException,
    WindowTokenBucket,
)
from anythrottle.abc import Bucket, Limiter, Permit, Policy


def construction() -> None:
    assert_type(RateLimiter(), RateLimiter)
    RateLimiter("20/10s")
    RateLimiter("20/10s", WindowTokenBucket(5, 1, measure="end", unit="tokens"), concurrency=5)
    RateLimiter(concurrency=anyio.CapacityLimiter(5), fast_acquire=True, name="api")
    RateLimiter(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter(concurrency="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter("20/10s", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def policies() -> None:
    policy = WindowTokenBucket(20, 10)
    assert_type(policy.limit, int)
    assert_type(policy.window, float)
    assert_type(policy.unit, str)
    assert_type(policy.holds, bool)
    as_policy: Policy = policy
    as_bucket: Bucket = as_policy.bucket()
    assert_type(as_bucket.delay(0.0, 1), float)
    policy.limit = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    WindowTokenBucket(20, 10, measure="middle")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def acquiring(limiter: RateLimiter) -> None:
    cost: Cost = {"tokens": 850}
    by_mapping: Mapping[str, int] = {"tokens": 1}
    await limiter.acquire()
    await limiter.acquire(5, priority=-1)
    await limiter.acquire(cost)
    limiter.acquire_nowait(by_mapping)
    await limiter.acquire("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.acquire({"tokens": 1.5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await limiter.acquire(1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def entering(limiter: RateLimiter) -> None:
    async with limiter as nothing:
        assert_type(nothing, None)

    async with limiter.permit({"tokens": 5}, priority=1) as permit:
        assert_type(permit.waited, float)
        permit.refund()
        as_permit: Permit = permit
        as_permit.refund()


def asking(limiter: RateLimiter) -> None:
    decision = limiter.peek({"tokens": 5})
    assert_type(decision, Decision)
    assert_type(decision.allowed, bool)
    assert_type(decision.retry_after, float)
    assert_type(decision.remaining, int | None)
    assert_type(decision.policy, Policy | None)
    if decision.reason == "queue":  # type: ignore[comparison-overlap]  # pyright: ignore[reportUnnecessaryComparison]
        return

    statistics = limiter.statistics()
    assert_type(statistics, RateLimiterStatistics)
    assert_type(statistics.tasks_waiting, int)
    assert_type(statistics.total_tokens, float)


def pausing(limiter: RateLimiter) -> None:
    limiter.pause()
    limiter.pause(5)
    limiter.pause(None)
    limiter.resume()


async def accepting(limiter: Limiter) -> None:
    async with limiter, limiter.permit(1, priority=0) as permit:
        assert_type(permit, Permit)

    limiter.pause(1.5)


async def passing() -> None:
    await accepting(RateLimiter("5/s"))
    await accepting("5/s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(limit: LimitExceeded, cost: CostTooHigh, throttle: ThrottleException) -> None:
    assert_type(limit.retry_after, float)
    assert_type(limit.decision, Decision)
    assert_type((cost.cost, cost.limit, cost.unit), tuple[int, int, str])
    assert_type(throttle.retry_after, float | None)
    as_value_error: ValueError = cost
    as_would_block: anyio.WouldBlock = limit
    raise as_value_error from as_would_block
