"""How much of the rate is attained, and the most that any window holds."""

import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from anythrottle import RateLimiter, WindowTokenBucket

from .measuring import LOOPS, medians, print_table

RATES = ((100, 1.0), (1_000, 1.0), (10_000, 1.0), (1_000, 0.1))
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


OURS: dict[str, Make] = {"anythrottle": ours}
PEERS: dict[str, Make] = {"throttler": throttler, "aiolimiter": aiolimiter}


async def grants(make: Make, limit: int, window: float) -> list[float]:
    """Return when each of the calls of some windows was granted."""
    acquire = make(limit, window)
    instants: list[float] = []
    left = limit * (WINDOWS + 1)

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
    instants = await grants(make, limit, window)
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


def main() -> None:
    head = ("", "attained / nominal", "fullest window / limit")
    for loop in LOOPS:
        rows = []
        for limit, window in RATES:
            for name, make in (OURS | (PEERS if loop == "asyncio" else {})).items():
                found = medians(RUNS, loop, measure, make, limit, window)
                cells = [f"{found[figure]:.4f}" for figure in ("attained", "worst")]
                rows.append((f"{limit} per {window:g} s, {name}", *cells))

        print_table(f"Rates on {loop}", head, rows)


if __name__ == "__main__":
    main()
