"""How much of the rate is attained, and the most that any window holds."""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import product

import anyio

from anythrottle import RateLimiter, TokenBucket, WindowTokenBucket

from .measuring import LOOPS, medians, print_table

RATES = (100, 1_000, 10_000)
PERIODS = (1.0, 0.1)
#: What is to be attained of the nominal rate, by rate and window.
AIMS = {(10_000, 1.0): 0.998, (10_000, 0.1): 0.985}
#: What a smooth limiter is to attain, at this rate.
SMOOTH_RATE, SMOOTH_AIM = 10_000, 0.99
WINDOWS = 2
TASKS = 100
#: How often ours are measured, and how often peers, which are slow to measure and far off.
RUNS, PEER_RUNS = 3, 1

#: Makes the call that waits for a limit and a window.
Make = Callable[[int, float], Callable[[], Awaitable[object]]]


def ours(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    return RateLimiter(WindowTokenBucket(limit, window)).acquire


def throttler(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import throttler

    enter: Callable[[], Awaitable[object]] = throttler.Throttler(limit, window).__aenter__
    return enter


def aiolimiter(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import aiolimiter

    return aiolimiter.AsyncLimiter(limit, window).acquire


def asynciolimiter(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import asynciolimiter

    return asynciolimiter.LeakyBucketLimiter(limit / window, capacity=limit).wait


OURS: dict[str, Make] = {"anythrottle": ours}
PEERS: dict[str, Make] = {
    "throttler": throttler,
    "aiolimiter": aiolimiter,
    "asynciolimiter, leaky": asynciolimiter,
}


def smooth(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    return RateLimiter(TokenBucket(limit, window, burst=1)).acquire


def aiolimiter_smooth(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    return aiolimiter(1, window / limit)


OURS_SMOOTH: dict[str, Make] = {"anythrottle, TokenBucket, burst 1": smooth}
PEERS_SMOOTH: dict[str, Make] = {"aiolimiter(1, 1/rate)": aiolimiter_smooth}


async def grants(make: Make, limit: int, window: float, count: int) -> list[float]:
    """Return when each of so many calls was granted."""
    acquire = make(limit, window)
    instants: list[float] = []
    left = count

    async def work() -> None:
        nonlocal left
        while left:
            left -= 1
            await acquire()
            instants.append(time.monotonic())

    async with anyio.create_task_group() as task_group:
        for _ in range(TASKS):
            task_group.start_soon(work)

    return sorted(instants)


async def measure(make: Make, limit: int, window: float) -> dict[str, float]:
    instants = await grants(make, limit, window, limit * (WINDOWS + 1))
    # The calls of the last window came so many windows after those of the first.
    pairs = list(zip(instants, instants[limit * WINDOWS :], strict=False))
    took = sum(later - earlier for earlier, later in pairs) / len(pairs)
    # A call that is interrupted between its turn and its look at the clock seems to come later: on
    # a busy machine, one call too many may be seen now and then, with any limiter.
    worst = 0
    held: deque[float] = deque()
    for instant in instants:
        held.append(instant)
        while held[0] <= instant - window:
            held.popleft()

        worst = max(worst, len(held))

    return {"attained": WINDOWS * window / took, "worst": worst / limit}


async def measure_smooth(make: Make, rate: int, count: int) -> dict[str, float]:
    instants = await grants(make, rate, 1.0, count)
    return {"attained": (len(instants) - 1) / (instants[-1] - instants[0]) / rate}


def rates(loop: str) -> Iterator[tuple[str, ...]]:
    """Measure each rate with each window."""
    makes = OURS | ({} if loop == "trio" else PEERS)
    for rate, window, name in product(RATES, PERIODS, makes):
        limit = round(rate * window)
        mine = name in OURS
        found = medians(RUNS if mine else PEER_RUNS, loop, measure, makes[name], limit, window)
        attained, worst = (f"{found[figure]:.4f}" for figure in ("attained", "worst"))
        aims = (str(AIMS.get((rate, window), "")), "1") if mine else ("", "")
        yield f"{limit} per {window:g} s, {name}", attained, aims[0], worst, aims[1]


def smooth_rates(loop: str) -> Iterator[tuple[str, ...]]:
    """Measure the smooth rate, over a second or two."""
    makes = OURS_SMOOTH | ({} if loop == "trio" else PEERS_SMOOTH)
    for name, make in makes.items():
        # The peers attain less than a tenth.
        repetitions, count, aim = (
            (RUNS, SMOOTH_RATE, f"{SMOOTH_AIM}")
            if name in OURS_SMOOTH
            else (PEER_RUNS, SMOOTH_RATE // 5, "")
        )
        found = medians(repetitions, loop, measure_smooth, make, SMOOTH_RATE, count)
        yield name, f"{found['attained']:.4f}", aim


def main() -> None:
    head = ("", "attained / nominal", "aim", "fullest window / limit", "aim")
    for loop in LOOPS:
        print_table(f"Rates on {loop}", head, rates(loop))
        title = f"{SMOOTH_RATE} per second, smoothly, on {loop}"
        print_table(title, head[:3], smooth_rates(loop))


if __name__ == "__main__":
    main()
