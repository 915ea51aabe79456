"""What is left to the garbage collector: nothing. On real clocks, and with the collector off."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from anythrottle import (
    CostTooHigh,
    RateLimiter,
    ThrottleException,
    Throttler,
    amap,
    amap_outcomes,
    create_front_stream,
    first,
    for_each,
)
from anythrottle._jobs import JobOf
from tests.cycles import Case, left_by
from tests.engine.mine import Mine

#: AnyIO's task group on asyncio leaves a cycle of its own for each task that was cancelled, with
#: the frame of what it has run. There is no more in it than these.
SHELLS = {"AsyncioLoop", "RunCancellation", "SourceReader", "Worker", "WorkerPool"}


async def call(item: object) -> object:
    await anyio.sleep(0)
    return item


async def fail(item: object) -> None:
    await anyio.sleep(0)
    raise KeyError(item)


async def job() -> int:
    await anyio.sleep(0)
    return 1


async def failing_job() -> None:
    await anyio.sleep(0)
    raise KeyError


async def consume(result: object) -> None:
    await anyio.sleep(0)


async def failing_consume(result: object) -> None:
    raise OSError


def jobs(count: int = 5) -> Iterator[Callable[[], Awaitable[int]]]:
    yield from itertools.repeat(job, count)


async def async_jobs() -> AsyncGenerator[Callable[[], Awaitable[int]]]:
    for each in jobs():
        yield each


async def items() -> AsyncGenerator[int]:
    for item in itertools.count():
        await anyio.sleep(0)
        yield item


async def never_run() -> None:
    Throttler([job])


async def run_to_its_end() -> None:
    await Throttler([job, job], consume).run()


async def run_over_a_generator() -> None:
    await Throttler(jobs(), consume).run()


async def run_over_an_async_generator() -> None:
    async with Throttler(async_jobs(), consume, limiter=RateLimiter("99/s")) as throttler:
        await throttler.run()


async def throttled() -> None:
    signals = [ThrottleException(retry_after=0)]

    async def once_more() -> None:
        if signals:
            raise signals.pop()

    await Throttler([once_more, job], consume).run()


async def whose_jobs_fail() -> None:
    await Throttler([failing_job, failing_job], consume).run()


async def whose_jobs_fail_and_are_read() -> None:
    throttler = Throttler([failing_job, failing_job], consume)
    await throttler.run()
    assert len([outcome async for outcome in throttler.exceptions]) == 2


async def run_twice() -> None:
    throttler = Throttler([job], consume)
    await throttler.run()
    throttler.add(job)
    await throttler.run()


async def amap_to_its_end() -> None:
    await amap(call, range(5), concurrency=2)


async def amap_with_a_limiter() -> None:
    await amap(call, jobs(), limiter=RateLimiter("99/s", concurrency=2))


async def for_each_to_its_end() -> None:
    await for_each(call, range(5))


async def outcomes_to_their_end() -> None:
    async with amap_outcomes(call, jobs()) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 5


async def first_without_success() -> None:
    with pytest.raises(ExceptionGroup):
        await first(fail, range(5))


async def a_front_stream() -> None:
    send, receive = create_front_stream[int](2)
    with send, receive:
        send.send_nowait(1)


async def a_front_stream_that_was_waited_at() -> None:
    send, receive = create_front_stream[int]()
    async with send, receive, anyio.create_task_group() as task_group:
        task_group.start_soon(receive.receive)
        await send.send(1)


async def under_a_limiter_of_ones_own() -> None:
    mine: Any = Mine(RateLimiter("99/s"))
    await Throttler(jobs(), consume, limiter=mine).run()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "case",
    [
        never_run,
        run_to_its_end,
        run_over_a_generator,
        run_over_an_async_generator,
        throttled,
        whose_jobs_fail,
        whose_jobs_fail_and_are_read,
        run_twice,
        amap_to_its_end,
        amap_with_a_limiter,
        for_each_to_its_end,
        outcomes_to_their_end,
        first_without_success,
        a_front_stream,
        a_front_stream_that_was_waited_at,
        under_a_limiter_of_ones_own,
    ],
)
def test_nothing_is_left(case: Case, backend: str) -> None:
    assert left_by(case, backend) == set()


async def whose_consumer_fails() -> None:
    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        await Throttler([job] * 5, failing_consume).run()


async def whose_source_fails() -> None:
    async def generate() -> AsyncGenerator[Callable[[], Awaitable[int]]]:
        yield job
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        await Throttler(generate(), consume).run()


async def whose_source_of_outcomes_fails() -> None:
    def generate() -> Iterator[int]:
        yield 0
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011, PT012 - it has no message
        async with amap_outcomes(call, generate()) as outcomes:
            async for _ in outcomes:
                pass


async def whose_cost_has_become_impossible() -> None:
    limiter = RateLimiter("5/s")

    async def lower(item: int) -> None:
        limiter.reconfigure("1/s")

    with pytest.raises(CostTooHigh):
        await for_each(lower, [0, 1], limiter=limiter, cost=2, concurrency=1)


async def cancelled() -> None:
    scope = anyio.CancelScope()

    async def cancel() -> None:
        scope.cancel()
        await anyio.sleep_forever()

    throttler: Throttler[JobOf[object], object] = Throttler([job, cancel, job, job], consume)
    with scope:
        await throttler.run()


async def cancelled_over_an_async_generator() -> None:
    scope = anyio.CancelScope()

    async def generate() -> AsyncGenerator[Callable[[], Awaitable[int]]]:
        for each in jobs():
            yield each

        scope.cancel()
        await anyio.sleep_forever()

    with scope:
        await Throttler(generate(), consume).run()


async def whose_call_fails() -> None:
    with pytest.raises(KeyError):
        await amap(fail, items(), concurrency=2)


async def with_a_winner() -> None:
    await first(call, items(), concurrency=2)


async def left_early() -> None:
    async with amap_outcomes(call, items(), concurrency=2) as outcomes:
        await anext(outcomes)


async def left_by_an_error() -> None:
    with pytest.raises(KeyError):  # noqa: PT012 - the block is what is tested
        async with amap_outcomes(call, items(), concurrency=2) as outcomes:
            await anext(outcomes)
            raise KeyError


async def left_by_cancellation() -> None:
    with anyio.CancelScope() as scope:
        async with amap_outcomes(call, items(), concurrency=2) as outcomes:
            await anext(outcomes)
            scope.cancel()
            await anyio.sleep_forever()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "case",
    [
        whose_consumer_fails,
        whose_source_fails,
        whose_source_of_outcomes_fails,
        whose_cost_has_become_impossible,
        cancelled,
        cancelled_over_an_async_generator,
        whose_call_fails,
        with_a_winner,
        left_early,
        left_by_an_error,
        left_by_cancellation,
    ],
)
def test_nothing_is_left_by_what_was_cut_off(case: Case, backend: str) -> None:
    assert left_by(case, backend) <= (SHELLS if backend == "asyncio" else set())
