"""
Many new keys of one store at once, each asked for a turn that is to be had at once.

A limiter that is in use goes on meanwhile.
"""

from __future__ import annotations

import time

import anyio

from anythrottle import KeyedLimiter, StoreError
from anythrottle.stores.redis import RedisRateLimiter, RedisStore
from tests.stores.servers import server

from .measuring import Stopwatch, print_table, run_on

SIZES = 300, 1000, 3000


async def burst(url: str, size: int) -> tuple[float, float, int, float]:
    """Return how long it takes, how much of the processor, how many fail, what one in use waits."""
    failed = 0
    worst = 0.0

    async def use(limiter: RedisRateLimiter) -> None:
        nonlocal failed
        try:
            async with limiter.permit(max_wait=0):
                pass
        except StoreError:
            failed += 1

    async def go_on(limiter: RedisRateLimiter) -> None:
        nonlocal worst
        while True:
            began = time.perf_counter()
            await limiter.acquire()
            worst = max(worst, time.perf_counter() - began)
            await anyio.sleep(0.01)

    watch = Stopwatch()
    async with RedisStore(url) as store, anyio.create_task_group() as others:
        used = store.limiter("used", "100_000/s", read_ahead=0)
        await used.acquire()
        keyed: KeyedLimiter[int, RedisRateLimiter] = KeyedLimiter(
            lambda key: store.limiter(f"user:{key}", "2/h")
        )
        others.start_soon(go_on, used)
        with watch:
            async with anyio.create_task_group() as tasks:
                for key in range(size):
                    tasks.start_soon(use, keyed[key])

        others.cancel_scope.cancel()

    return watch.wall, watch.cpu, failed, worst


def main() -> None:
    rows: list[tuple[object, ...]] = []
    with server("valkey") as running:
        for loop in ("asyncio", "trio"):
            for size in SIZES:
                running.flush()
                took, worked, failed, worst = run_on(loop, burst, running.url, size)
                rows.append(
                    (loop, size, f"{took:.2f}", f"{worked:.2f}", failed, f"{worst * 1e3:.0f}")
                )

    head = ("loop", "new keys", "seconds", "of the processor", "failed", "ms for one in use")
    print_table("New keys at once, on Valkey", head, rows)


if __name__ == "__main__":
    main()
