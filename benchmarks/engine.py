"""What a throttler adds to each job, beside a peer and a bare pool of workers."""

from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median

import aiometer
import anyio
from anyio.lowlevel import checkpoint

from anythrottle import RateLimiter, Throttler

from .measuring import LOOPS, Stopwatch, median_ratios, print_table, run_on

JOBS = 5_000
RUNS = 7
#: The most of ours, with results and 10 at once, beside aiometer.amap.
AIM = 0.4


async def job() -> int:
    await checkpoint()
    return 1


async def throttled(at_once: int) -> None:
    """Run the jobs as the ancestor would, with a window that is never full."""
    got = 0

    async def consume(result: int) -> None:
        nonlocal got
        got += result

    await Throttler(
        (job for _ in range(JOBS)), consume, per_time_window=10**9, concurrency=at_once
    ).run()
    assert got == JOBS


async def throttled_without_results(at_once: int) -> None:
    limiter = RateLimiter(concurrency=at_once, fast_acquire=True)
    await Throttler((job for _ in range(JOBS)), limiter=limiter).run()


async def amapped(at_once: int) -> None:
    got = 0
    async with aiometer.amap(lambda _: job(), range(JOBS), max_at_once=at_once) as results:
        async for result in results:
            got += result

    assert got == JOBS


async def pooled(at_once: int) -> None:
    """Workers that share an iterator, and a stream for the results: what one writes by hand."""
    jobs = iter(range(JOBS))
    send, receive = anyio.create_memory_object_stream[int](at_once)

    async def work() -> None:
        for _ in jobs:
            await send.send(await job())

    async def work_all() -> None:
        async with send, anyio.create_task_group() as workers:
            for _ in range(at_once):
                workers.start_soon(work)

    got = 0
    async with anyio.create_task_group() as task_group, receive:
        task_group.start_soon(work_all)
        async for result in receive:
            got += result

    assert got == JOBS


async def bare(at_once: int) -> None:
    """Workers that share an iterator, and drop the results."""
    jobs = iter(range(JOBS))

    async def work() -> None:
        for _ in jobs:
            await job()

    async with anyio.create_task_group() as task_group:
        for _ in range(at_once):
            task_group.start_soon(work)


CONTESTANTS: dict[str, Callable[[int], Awaitable[None]]] = {
    "aiometer.amap": amapped,
    "Throttler": throttled,
    "Throttler, no results": throttled_without_results,
    "pool by hand": pooled,
    "bare workers, no results": bare,
}


async def measure(at_once: int) -> dict[str, float]:
    found = {}
    for name, contestant in CONTESTANTS.items():
        with Stopwatch() as watch:
            await contestant(at_once)

        found[name] = watch.wall / JOBS

    return found


def main() -> None:
    rows = []
    for loop in LOOPS:
        for at_once in (10, 100):
            runs = [run_on(loop, partial(measure, at_once)) for _ in range(RUNS)]
            for name, ratio in median_ratios(runs, "aiometer.amap").items():
                micro = median(run[name] for run in runs) * 1e6
                aim = AIM if (name, at_once) == ("Throttler", 10) else ""
                rows.append((f"{loop}: {at_once} at once, {name}", micro, ratio, aim))

    print_table("What a job costs", ("", "us", "x aiometer.amap", "aim"), rows)


if __name__ == "__main__":
    main()
