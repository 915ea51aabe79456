"""What each of many waiters costs, beside one that waits for an event of its own."""

import asyncio
import gc
import tracemalloc
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import cycle
from statistics import median

import anyio
import trio

from anythrottle import RateLimiter, WindowTokenBucket

from .measuring import LOOPS, Stopwatch, median_ratios, print_table, run_on

#: How many wait, and how often that is measured.
RUNS = {1_000: 9, 10_000: 3, 100_000: 3}
BATCH, PERIOD = 200, 0.01  # 20 000 per second
#: How many priorities they have, where they have many.
PRIORITIES = 1_000
#: The most CPU of ours, by the control's, and the most bytes on asyncio.
CPU_AIM, BYTES_AIM = 1.5, 1500

#: Makes the call that each waiter makes.
Make = Callable[[], Callable[[], Awaitable[object]]]


class Control:
    """Events, one for each waiter, set at the same pace."""

    def __init__(self, event: type[asyncio.Event] | type[trio.Event]) -> None:
        self.event = event
        self.events: deque[asyncio.Event | trio.Event] = deque()

    async def acquire(self) -> None:
        """Wait until it is this waiter's turn."""
        self.events.append(event := self.event())
        await event.wait()

    async def release(self) -> None:
        """Wake all waiters, at the pace."""
        while self.events:
            for _ in range(min(BATCH, len(self.events))):
                self.events.popleft().set()
            await anyio.sleep(PERIOD)


def limiter() -> Callable[..., Awaitable[object]]:
    return RateLimiter(WindowTokenBucket(BATCH, PERIOD)).acquire


def aiolimiter() -> Callable[[], Awaitable[object]]:
    import aiolimiter

    return aiolimiter.AsyncLimiter(BATCH, PERIOD).acquire


def asynciolimiter() -> Callable[[], Awaitable[object]]:
    import asynciolimiter

    return asynciolimiter.LeakyBucketLimiter(BATCH / PERIOD, capacity=BATCH).wait


def bounded() -> Callable[[], Awaitable[object]]:
    return partial(limiter(), max_wait=1000.0)


def ranked() -> Callable[[], Awaitable[object]]:
    call, numbers = limiter(), cycle(range(PRIORITIES))
    return lambda: call(max_wait=1000.0, priority=next(numbers) * 7919 % PRIORITIES)


OURS: dict[str, Make] = {"anythrottle": limiter}
#: Only some thousands of them: each has a timer of its own.
BOUNDED: dict[str, Make] = {
    "anythrottle, max_wait": bounded,
    f"anythrottle, max_wait, {PRIORITIES} priorities": ranked,
}
BOUNDED_COUNT = 10_000
PEERS: dict[str, Make] = {"aiolimiter": aiolimiter, "asynciolimiter, leaky": asynciolimiter}


async def spawn(
    loop: str,
    count: int,
    call: Callable[[], Awaitable[object]],
    release: Callable[[], Awaitable[object]],
) -> None:
    """Run ``count`` native tasks that wait (a task group's would cost more than the waiting)."""
    if loop == "trio":
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(call)
            # At the first, some of them may not have run yet: Trio shuffles tasks.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            await release()
    else:
        tasks = [asyncio.ensure_future(call()) for _ in range(count)]
        await asyncio.sleep(0)
        await release()
        await asyncio.gather(*tasks)


async def cpu_per_waiter(loop: str, count: int, makes: dict[str, Make]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("control", *makes):
        gc.collect()
        control = Control(trio.Event if loop == "trio" else asyncio.Event)
        call = control.acquire if name == "control" else makes[name]()
        with Stopwatch() as watch:
            await spawn(loop, count, call, control.release)

        found[name] = watch.cpu / count

    return found


async def bytes_per_waiter(loop: str, count: int, make: Make | None) -> float:
    """Return what a waiter takes with its task; without ``make``, one of the control."""
    control = Control(trio.Event if loop == "trio" else asyncio.Event)
    call = make() if make else control.acquire
    held = 0

    async def weigh() -> None:
        nonlocal held
        held, _ = tracemalloc.get_traced_memory()
        await control.release()

    tracemalloc.start()
    await spawn(loop, count, call, weigh)
    tracemalloc.stop()
    return held / count


def main() -> None:
    head = ("20 000 per second, native tasks", "us of CPU", "x control", "aim", "bytes", "aim")
    for loop in LOOPS:
        makes = OURS | (PEERS if loop == "asyncio" else {})
        weights = {
            name: run_on(loop, bytes_per_waiter, loop, 10_000, make)
            for name, make in {"control": None, **makes, **BOUNDED}.items()
        }
        rows: list[tuple[object, ...]] = []
        for count, repetitions in RUNS.items():
            these = makes | (BOUNDED if count == BOUNDED_COUNT else {})
            runs = [run_on(loop, cpu_per_waiter, loop, count, these) for _ in range(repetitions)]
            for name, ratio in median_ratios(runs, "control").items():
                micro = median(run[name] for run in runs) * 1e6
                weight = round(weights[name])
                cpu_aim = CPU_AIM if name in OURS else ""
                bytes_aim = BYTES_AIM if name in OURS and loop != "trio" else ""
                rows.append((f"{count} x {name}", micro, ratio, cpu_aim, weight, bytes_aim))

        print_table(f"What each of many waiters costs on {loop}", head, rows)


if __name__ == "__main__":
    main()
