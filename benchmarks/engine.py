"""What each of many jobs costs, beside peers and a bare pool of workers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from statistics import median

import aiometer
import anyio
from anyio.lowlevel import checkpoint

import anythrottle
from anythrottle import RateLimiter, Throttler

from .measuring import LOOPS, Stopwatch, median_ratios, print_table, run_on

JOBS = 5_000
RUNS = 7
#: The most of ours, beside aiometer.amap (with a rate if ours has one) and beside bare workers.
AIM = "0.4 x aiometer, 3 x bare"
#: A rate that is never reached.
NO_BOUND = "1_000_000_000/s"

Contestant = Callable[[int], Awaitable[None]]


async def job(item: int) -> int:
    await checkpoint()
    return item


def jobs() -> Iterator[Callable[[], Awaitable[int]]]:
    return (partial(job, item) for item in range(JOBS))


async def throttled(at_once: int, *, lazily: bool = False) -> None:
    """Run the jobs as the ancestor would, with a window that is never full."""
    got = 0

    async def consume(_: int) -> None:
        nonlocal got
        got += 1

    todo = jobs() if lazily else list(jobs())
    await Throttler(todo, consume, per_time_window=10**9, concurrency=at_once).run()
    assert got == JOBS


async def throttled_without_results(at_once: int) -> None:
    await Throttler(list(jobs()), limiter=RateLimiter(), concurrency=at_once).run()


async def our_amap(at_once: int, limiter: str | None = None, *, lazily: bool = False) -> None:
    items = (item for item in range(JOBS)) if lazily else range(JOBS)
    got = await anythrottle.amap(job, items, concurrency=at_once, limiter=limiter)
    assert len(got) == JOBS


async def our_outcomes(at_once: int, limiter: str | None = None) -> None:
    got = 0
    async with anythrottle.amap_outcomes(
        job, range(JOBS), concurrency=at_once, limiter=limiter
    ) as outcomes:
        async for outcome in outcomes:
            got += outcome.value >= 0

    assert got == JOBS


async def our_for_each(at_once: int) -> None:
    await anythrottle.for_each(job, range(JOBS), concurrency=at_once)


async def aiometer_amap(at_once: int, per_second: float | None = None) -> None:
    got = 0
    async with aiometer.amap(
        job, range(JOBS), max_at_once=at_once, max_per_second=per_second
    ) as results:
        async for _ in results:
            got += 1

    assert got == JOBS


async def aiometer_run_all(at_once: int) -> None:
    todo = [partial(job, item) for item in range(JOBS)]
    assert len(await aiometer.run_all(todo, max_at_once=at_once)) == JOBS


async def aiometer_run_on_each(at_once: int) -> None:
    run = aiometer.run_on_each(job, range(JOBS), max_at_once=at_once)  # pyright: ignore[reportUnknownMemberType] - its own gap
    await run


async def anyio_amap(_: int) -> None:
    """Run AnyIO's own, which has no bound."""
    assert len(await anyio.amap(job, range(JOBS))) == JOBS


async def task_group_and_semaphore(at_once: int) -> None:
    semaphore = asyncio.Semaphore(at_once)

    async def guarded(item: int) -> int:
        async with semaphore:
            return await job(item)

    async with asyncio.TaskGroup() as task_group:
        tasks = [task_group.create_task(guarded(item)) for item in range(JOBS)]

    assert len([task.result() for task in tasks]) == JOBS


async def pooled(at_once: int) -> None:
    """Workers that share an iterator, and a stream for the results: what one writes by hand."""
    items = iter(range(JOBS))
    send, receive = anyio.create_memory_object_stream[int](at_once)

    async def work() -> None:
        for item in items:
            await send.send(await job(item))

    async def work_all() -> None:
        async with send, anyio.create_task_group() as workers:
            for _ in range(at_once):
                workers.start_soon(work)

    got = 0
    async with anyio.create_task_group() as task_group, receive:
        task_group.start_soon(work_all)
        async for _ in receive:
            got += 1

    assert got == JOBS


async def bare(at_once: int) -> None:
    """Workers that share an iterator and a list."""
    items = iter(range(JOBS))
    got: list[int] = []

    async def work() -> None:
        for item in items:
            got.append(await job(item))  # noqa: PERF401 - the iterator is shared

    async with anyio.create_task_group() as task_group:
        for _ in range(at_once):
            task_group.start_soon(work)

    assert len(got) == JOBS


OURS: dict[str, Contestant] = {
    "amap": our_amap,
    "amap, a generator": partial(our_amap, lazily=True),
    "amap, with a rate": partial(our_amap, limiter=NO_BOUND),
    "amap_outcomes": our_outcomes,
    "amap_outcomes, with a rate": partial(our_outcomes, limiter=NO_BOUND),
    "for_each": our_for_each,
    "Throttler, with a rate": throttled,
    "Throttler, a generator, with a rate": partial(throttled, lazily=True),
    "Throttler, no results": throttled_without_results,
}
PEERS: dict[str, Contestant] = {
    "aiometer.amap": aiometer_amap,
    "aiometer.run_all": aiometer_run_all,
    "aiometer.run_on_each": aiometer_run_on_each,
    "anyio.amap, unbounded": anyio_amap,
    "pool by hand": pooled,
    "bare workers, a list": bare,
}
#: On uvloop, aiometer sleeps for a millisecond between two calls, whatever the rate.
NOT_ON_UVLOOP: dict[str, Contestant] = {
    "aiometer.amap, with a rate": partial(aiometer_amap, per_second=1e9)
}
NOT_ON_TRIO: dict[str, Contestant] = {"asyncio.TaskGroup, semaphore": task_group_and_semaphore}


async def measure(contestants: dict[str, Contestant], at_once: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, contestant in contestants.items():
        with Stopwatch() as watch:
            await contestant(at_once)

        found[name] = watch.wall / JOBS

    return found


def main() -> None:
    rows: list[tuple[object, ...]] = []
    for loop in LOOPS:
        contestants = OURS | PEERS
        if loop != "uvloop":
            contestants |= NOT_ON_UVLOOP

        if loop != "trio":
            contestants |= NOT_ON_TRIO

        for at_once in (10, 100):
            runs = [run_on(loop, partial(measure, contestants, at_once)) for _ in range(RUNS)]
            beside_bare = median_ratios(runs, "bare workers, a list")
            beside_plain = median_ratios(runs, "aiometer.amap")
            rated = "aiometer.amap, with a rate"
            beside_rated = median_ratios(runs, rated) if rated in contestants else {}
            for name, ratio in beside_plain.items():
                micro = median(run[name] for run in runs) * 1e6
                aim = AIM if name in OURS else ""
                label = f"{loop}: {at_once} at once, {name}"
                like = beside_rated.get(name, "-") if "with a rate" in name else ratio
                rows.append((label, micro, ratio, like, beside_bare[name], aim))

    head = ("", "us", "x aiometer.amap", "x its like", "x bare", "aim")
    print_table("What a job costs", head, rows)


if __name__ == "__main__":
    main()
