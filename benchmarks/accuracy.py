"""How much of the rate is attained, and the most that any window holds."""

import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from anythrottle import RateLimiter, TokenBucket, WindowTokenBucket

from .measuring import LOOPS, medians, print_table

RATES = (100, 1_000, 10_000)
PERIODS = (1.0, 0.1)
#: What is to be attained of the nominal rate, by rate and window.
AIMS = {(10_000, 1.0): 0.998, (10_000, 0.1): 0.985}
WINDOWS = 3
RUNS = 3
TASKS = 100


#: Makes the call that waits for a limit and a window.
Make = Callable[[int, float], Callable[[], Awaitable[object]]]


def ours(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    return RateLimiter(WindowTokenBucket(limit, window)).acquire


def throttler(limit: int, window: float) -> Callable[[], Awaitable[object]]:
    import throttler

    return throttler.Throttler(limit, window).__aenter__


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
    worst = 0
    held: deque[float] = deque()
    for instant in instants:
        held.append(instant)
        while held[0] <= instant - window:
            held.popleft()

        worst = max(worst, len(held))

    return {"attained": WINDOWS * window / took, "worst": worst / limit}


async def measure_smooth(make: Make, rate: int) -> dict[str, float]:
    instants = await grants(make, rate, 1.0, rate)
    return {"attained": (len(instants) - 1) / (instants[-1] - instants[0]) / rate}


def main() -> None:
    head = ("", "attained / nominal", "aim", "fullest window / limit", "aim")
    for loop in LOOPS:
        rows = []
        for rate in RATES:
            for window in PERIODS:
                limit = round(rate * window)
                for name, make in (OURS | (PEERS if loop == "asyncio" else {})).items():
                    found = medians(RUNS, loop, measure, make, limit, window)
                    attained, worst = (f"{found[figure]:.4f}" for figure in ("attained", "worst"))
                    aims = (AIMS.get((rate, window), ""), 1) if name in OURS else ("", "")
                    label = f"{limit} per {window:g} s, {name}"
                    rows.append((label, attained, str(aims[0]), worst, str(aims[1])))

        print_table(f"Rates on {loop}", head, rows)
        rows = []
        for name, make in (OURS_SMOOTH | (PEERS_SMOOTH if loop == "asyncio" else {})).items():
            found = medians(RUNS, loop, measure_smooth, make, 10_000)
            rows.append((name, f"{found['attained']:.4f}", "0.99" if name in OURS_SMOOTH else ""))

        print_table(f"10 000 per second, smoothly, on {loop}", ("", *head[1:3]), rows)


if __name__ == "__main__":
    main()
