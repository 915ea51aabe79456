"""What an ``acquire()`` costs that needn't wait, beside a bare checkpoint."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median

import anyio
from anyio.lowlevel import checkpoint

from anythrottle import FixedWindow, KeyedLimiter, RateLimiter, TokenBucket, WindowTokenBucket
from anythrottle.testing import virtual_backends

from .measuring import LOOPS, Stopwatch, median_ratios, print_table, run_on

CALLS = 20_000
RUNS = 7
AMPLE = 10**9
KEYS = 100_000
#: The most of ours, beside a bare checkpoint; if it is fast, beside aiolimiter.
AIM, FAST_AIM = "1.15 x checkpoint", "0.5 x aiolimiter"


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


async def in_and_out_of_permit(limiter: RateLimiter) -> None:
    async with limiter.permit():
        pass


async def in_and_out_settled(limiter: RateLimiter) -> None:
    async with limiter.permit({"tokens": 1}) as permit:
        permit.settle({"tokens": 2})


async def nothing() -> None:
    """Return at once."""


def ours() -> dict[str, Callable[[], Awaitable[object]]]:
    ample = WindowTokenBucket(AMPLE, 1.0)
    three = (ample, WindowTokenBucket(AMPLE, 60.0), TokenBucket(AMPLE, 1.0))
    two_units = RateLimiter(ample, WindowTokenBucket(AMPLE, 1.0, unit="tokens"))
    return {
        "bare checkpoint()": checkpoint,
        "acquire()": RateLimiter(ample).acquire,
        "acquire(), fast": RateLimiter(ample, fast_acquire=True).acquire,
        "async with": partial(in_and_out, RateLimiter(ample)),
        "async with, concurrency": partial(in_and_out, RateLimiter(ample, concurrency=AMPLE)),
        "acquire(), TokenBucket": RateLimiter(TokenBucket(AMPLE, 1.0)).acquire,
        "acquire(), FixedWindow": RateLimiter(FixedWindow(AMPLE, 1.0)).acquire,
        "acquire(), three policies": RateLimiter(*three).acquire,
        "permit()": partial(in_and_out_of_permit, RateLimiter(ample)),
        "permit(), two units, settled": partial(in_and_out_settled, two_units),
        "run()": partial(RateLimiter(ample).run, nothing),
    }


def peers() -> dict[str, Callable[[], Awaitable[object]]]:
    import aiolimiter
    import asynciolimiter
    import throttler

    leaky = asynciolimiter.LeakyBucketLimiter(AMPLE, capacity=AMPLE)
    return {
        "aiolimiter": aiolimiter.AsyncLimiter(AMPLE, 1.0).acquire,
        "asynciolimiter, leaky": leaky.wait,
        # It makes room for as many as it lets through.
        "throttler": throttler.Throttler(1_000, 1e-9).__aenter__,
        "asyncio.sleep(0)": partial(asyncio.sleep, 0),
    }


async def measure(loop: str) -> dict[str, float]:
    calls = ours() | ({} if loop == "trio" else peers())
    return {name: await seconds_per_call(call) for name, call in calls.items()}


async def keyed() -> dict[str, float]:
    """Measure a call for a key: with a new one, an old one, and as idle ones are dropped."""
    # Its own time is virtual: how fast the keys come decides not how many are idle.
    window = WindowTokenBucket(20, 3600.0)
    limiters = KeyedLimiter[int, RateLimiter](lambda _: RateLimiter(window), max_keys=KEYS)
    found: dict[str, float] = {}
    for name, first in (
        ("a new key", 0),
        ("a key that is known", 0),
        ("in place of idle ones", KEYS),
    ):
        if first:
            await anyio.sleep(window.window)

        with Stopwatch() as watch:
            for key in range(first, first + KEYS):
                limiters[key].acquire_nowait()

        found[name] = watch.wall / KEYS * 1e6

    return found


def main() -> None:
    rows: list[tuple[object, ...]] = []
    for loop in LOOPS:
        runs = [run_on(loop, measure, loop) for _ in range(RUNS)]
        ratios = median_ratios(runs, "bare checkpoint()")
        for name, ratio in ratios.items():
            micro = median(run[name] for run in runs) * 1e6
            beside: float | str = ""
            aim = AIM if name == "acquire()" else ""
            if name == "acquire(), fast" and loop != "trio":
                beside, aim = median_ratios(runs, "aiolimiter")[name], FAST_AIM

            rows.append((f"{loop}: {name}", micro, ratio, beside, aim))

    head = ("uncontended", "us", "x checkpoint", "x aiolimiter", "aim")
    print_table("What a call costs that needn't wait", head, rows)
    name, options = virtual_backends()[0]
    found = anyio.run(keyed, backend=name, backend_options=options)
    print_table(f"A KeyedLimiter of {KEYS} keys", ("acquire_nowait()", "us"), found.items())


if __name__ == "__main__":
    main()
