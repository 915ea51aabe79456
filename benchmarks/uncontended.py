"""What an ``acquire()`` costs that needn't wait, beside a bare checkpoint."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median

from anyio.lowlevel import checkpoint

from anythrottle import RateLimiter, WindowTokenBucket

from .measuring import LOOPS, Stopwatch, median_ratios, print_table, run_on

CALLS = 20_000
RUNS = 9
AMPLE = 10**9


async def seconds_per_call(call: Callable[[], Awaitable[object]]) -> float:
    for _ in range(CALLS // 10):
        await call()

    with Stopwatch() as watch:
        for _ in range(CALLS):
            await call()

    return watch.wall / CALLS


async def in_and_out(limiter: RateLimiter) -> None:
    async with limiter:
        pass


def ours() -> dict[str, Callable[[], Awaitable[object]]]:
    ample = WindowTokenBucket(AMPLE, 1.0)
    return {
        "bare checkpoint()": checkpoint,
        "acquire()": RateLimiter(ample).acquire,
        "acquire(), fast": RateLimiter(ample, fast_acquire=True).acquire,
        "async with": partial(in_and_out, RateLimiter(ample)),
        "async with, concurrency": partial(in_and_out, RateLimiter(ample, concurrency=AMPLE)),
    }


def peers() -> dict[str, Callable[[], Awaitable[object]]]:
    import aiolimiter
    import asynciolimiter

    leaky = asynciolimiter.LeakyBucketLimiter(AMPLE, capacity=AMPLE)
    return {
        "aiolimiter": aiolimiter.AsyncLimiter(AMPLE, 1.0).acquire,
        "asynciolimiter, leaky": leaky.wait,
        "asyncio.sleep(0)": partial(asyncio.sleep, 0),
    }


async def measure(loop: str) -> dict[str, float]:
    calls = ours() | ({} if loop == "trio" else peers())
    return {name: await seconds_per_call(call) for name, call in calls.items()}


def main() -> None:
    rows = []
    for loop in LOOPS:
        runs = [run_on(loop, measure, loop) for _ in range(RUNS)]
        ratios = median_ratios(runs, "bare checkpoint()")
        for name, ratio in ratios.items():
            micro = median(run[name] for run in runs) * 1e6
            beside: float | str = ""
            if name == "acquire(), fast" and loop != "trio":
                beside = median_ratios(runs, "aiolimiter")[name]

            rows.append((f"{loop}: {name}", micro, ratio, beside))

    head = ("uncontended", "us", "x checkpoint", "x aiolimiter")
    print_table("What a call costs that needn't wait", head, rows)


if __name__ == "__main__":
    main()
