"""What type checkers make of limiters. Checked, never run."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import assert_never, assert_type

import anyio

from anythrottle import (
    Abandoned,
    Cost,
    CostTooHigh,
    Decision,
    Ended,
    Failed,
    Finished,
    FixedWindow,
    Granted,
    LeaseExpired,
    LimitExceeded,
    Paused,
    RateLimiter,
    RateLimiterStatistics,
    Reconfigured,
    Refused,
    Resumed,
    Retried,
    Settled,
    Started,
    StoreBack,
    StoreLost,
    Throttled,
    ThrottleException,
    Tightened,
    TokenBucket,
    WindowTokenBucket,
    current_permit,
)
from anythrottle.abc import Bucket, Event, Limiter, Observer, Permit, Policy


async def fetch(page: int, /, size: float = 1.0) -> str:
    return f"{page}/{size}"


async def fetch_by_name(*, page: int) -> str:
    return str(page)


def fetch_sync(page: int) -> str:
    return str(page)


def observe(event: Event) -> None: ...


def construction() -> None:
    assert_type(RateLimiter(), RateLimiter)
    RateLimiter("20/10s")
    RateLimiter("20/10s", WindowTokenBucket(5, 1, measure="end", unit="tokens"), concurrency=5)
    RateLimiter(concurrency=anyio.CapacityLimiter(5), fast_acquire=True, name="api")
    RateLimiter(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter(concurrency="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter(TokenBucket(5, 1), FixedWindow(5, 1), "5/s", max_waiting=3, observer=observe)
    RateLimiter("20/10s", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter(max_waiting=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter(observer=fetch_sync)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter(observer="print")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


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


def other_policies() -> None:
    bucket = TokenBucket(2.5, 10, burst=1, unit="tokens")
    assert_type(bucket.limit, float)
    assert_type(bucket.per, float)
    assert_type(bucket.burst, float | None)
    assert_type(bucket.window, float)
    fixed = FixedWindow(20, 10, align="utc", offset=3600)
    assert_type(fixed.limit, int)
    assert_type(fixed.offset, float)
    all_of_them: list[Policy] = [bucket, fixed, WindowTokenBucket(1, 1)]
    assert_type(all_of_them[0].bucket(), Bucket)
    FixedWindow(20, 10, align="local")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FixedWindow(20.5, 10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TokenBucket(5, 1, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TokenBucket(5, 1, burst="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bucket.burst = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


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


async def being_patient(limiter: RateLimiter, by_contract: Limiter) -> None:
    await limiter.acquire(max_wait=0)
    await limiter.acquire(max_wait=1.5)
    await limiter.acquire(max_wait="deadline")
    await limiter.acquire(max_wait=None)
    async with limiter.permit(max_wait="deadline"), by_contract.permit(max_wait=0.5):
        pass

    await limiter.acquire(max_wait="dead line")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limiter.permit(max_wait="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    by_contract.permit(max_wait="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limiter.acquire_nowait(max_wait=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def entering(limiter: RateLimiter) -> None:
    async with limiter as nothing:
        assert_type(nothing, None)

    async with limiter.permit({"tokens": 5}, priority=1) as permit:
        assert_type(permit.waited, float)
        permit.refund()
        permit.settle(5)
        permit.settle({"tokens": 5})
        permit.settle("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        permit.settle({"tokens": 1.5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
        as_permit: Permit = permit
        as_permit.refund()

    assert_type(current_permit(), Permit)
    current_permit(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def running(limiter: RateLimiter) -> None:
    assert_type(await limiter.run(fetch, 1), str)
    assert_type(await limiter.run(fetch, 1, 2.5), str)
    assert_type(await limiter.run(partial(fetch_by_name, page=1)), str)
    assert_type(await limiter.run(fetch, 1, cost={"tokens": 5}, priority=-1, max_throttles=3), str)
    assert_type(await limiter.run(anyio.sleep, 1), None)
    await limiter.run(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 1, 2.5, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 1, size=2.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await limiter.run(fetch_by_name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch_sync, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 1, cost="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 1, priority=0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 1, max_throttles=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 1, max_wait="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 1, max_attempts=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await limiter.run(fetch, 1, max_wait=5, max_throttles=3), str)


async def wrapping(limiter: RateLimiter, by_contract: Limiter) -> None:
    wrapped = limiter.wrap(fetch)
    assert_type(await wrapped(1), str)
    assert_type(await wrapped(1, size=2.5), str)
    call: Coroutine[object, object, str] = wrapped(1)
    assert_type(await call, str)
    await wrapped()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await wrapped("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await wrapped(1, words=2.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    by_name = limiter.wrap(fetch_by_name)
    assert_type(await by_name(page=1), str)
    await by_name(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    limiter.wrap(fetch_sync)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limiter.wrap(fetch, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    decorated = limiter.wrap(cost={"tokens": 5}, priority=1, max_wait=5, max_throttles=3)(fetch)
    assert_type(await decorated(1, size=2.5), str)
    await decorated("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await by_contract.wrap(max_wait="deadline")(fetch)(1), str)
    assert_type(await by_contract.wrap(fetch)(1, size=2.5), str)

    class Client:
        @limiter.wrap
        async def get(self, page: int) -> bytes:
            return bytes(page)

    assert_type(await Client().get(1), bytes)
    await Client().get("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


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


def telling(limiter: RateLimiter) -> None:
    limiter.penalize(5)
    limiter.penalize({"tokens": 5})
    limiter.tighten(remaining=5)
    limiter.tighten(remaining=5, reset_after=1.5, unit="tokens")
    limiter.tighten(remaining=5, reset_after=None)
    limiter.reconfigure()
    limiter.reconfigure("5/s", TokenBucket(5, 1))
    limiter.reconfigure("5/s", concurrency=None)
    limiter.reconfigure(concurrency=5)
    limiter.reconfigure(concurrency=anyio.CapacityLimiter(5))
    limiter.penalize("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limiter.tighten()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    limiter.tighten(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    limiter.tighten(remaining=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limiter.reconfigure(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limiter.reconfigure(concurrency="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def observing(event: Event) -> None:  # noqa: C901, PLR0912, PLR0915 - a branch for each event
    observer: Observer = observe
    observer(event)
    events: list[Event] = []
    RateLimiter(observer=events.append)
    if isinstance(event, Granted | Abandoned):
        assert_type(event.name, str | None)
        assert_type(event.cost, int | Mapping[str, int])
        assert_type(event.waited, float)
        event.waited = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(event, Refused):
        assert_type(event.decision, Decision)
    elif isinstance(event, Paused):
        assert_type(event.seconds, float)
    elif isinstance(event, Resumed):
        assert_type(event.name, str | None)
    elif isinstance(event, Settled):
        assert_type((event.before, event.after), tuple[Mapping[str, int], Mapping[str, int]])
    elif isinstance(event, Tightened):
        assert_type((event.unit, event.remaining), tuple[str, int])
        assert_type(event.reset_after, float | None)
    elif isinstance(event, Reconfigured):
        assert_type(event.policies, tuple[Policy, ...])
    elif isinstance(event, Ended):
        assert_type(event.held, float)
    elif isinstance(event, StoreLost):
        assert_type(event.error, Exception)
    elif isinstance(event, StoreBack):
        assert_type(event.seconds, float)
    elif isinstance(event, LeaseExpired):
        assert_type(event.calls, int)
    elif isinstance(event, Throttled):
        assert_type(event.index, int | None)
        assert_type(event.attempts, int)
        assert_type(event.error, BaseException)
        assert_type(event.item, object)
    elif isinstance(event, Started):
        assert_type((event.index, event.item, event.waited), tuple[int, object, float])
    elif isinstance(event, Retried):
        assert_type((event.delay, event.error), tuple[float, BaseException])
    elif isinstance(event, Finished):
        assert_type(event.duration, float)
    elif isinstance(event, Failed):
        assert_type(event.error, BaseException)
    else:
        assert_never(event)


async def accepting(limiter: Limiter) -> None:
    async with limiter, limiter.permit(1, priority=0) as permit:
        assert_type(permit, Permit)

    limiter.pause(1.5)
    assert_type(await limiter.run(fetch, 1, 2.5, cost=3, max_throttles=2), str)
    await limiter.run(fetch, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wrapped: Callable[[int], Awaitable[str]] = limiter.wrap(fetch)
    await wrapped(1)
    limiter.resume()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def passing() -> None:
    await accepting(RateLimiter("5/s"))
    await accepting("5/s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(limit: LimitExceeded, cost: CostTooHigh, throttle: ThrottleException) -> None:
    assert_type(limit.retry_after, float)
    assert_type(limit.decision, Decision)
    assert_type((cost.cost, cost.limit, cost.unit), tuple[int, float, str])
    assert_type(throttle.retry_after, float | None)
    as_value_error: ValueError = cost
    as_would_block: anyio.WouldBlock = limit
    raise as_value_error from as_would_block
