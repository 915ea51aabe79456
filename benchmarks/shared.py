"""
Limits that several processes share over Valkey: how full windows get, and how often it is asked.

The processes are clients of their own, with connections of their own, in one event loop. More calls
wait in each than may go.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

import anyio
from valkey import Valkey

from anythrottle.stores.redis import RedisStore
from tests.stores.servers import HOST, server

from .exact_window import fullest
from .measuring import Stopwatch, print_table, run_on

PROCESSES, CALLERS = 4, 25
LIMIT, WINDOW, WINDOWS = 100, 1, 6

Acquire = Callable[[], Awaitable[object]]


@asynccontextmanager
async def ours(url: str) -> AsyncGenerator[Acquire]:
    store = RedisStore(url)
    limiter = store.limiter("service", f"{LIMIT}/{WINDOW}s")
    async with store:
        yield limiter.acquire


@asynccontextmanager
async def limits(url: str) -> AsyncGenerator[Acquire]:
    peer: Any = import_module("limits")
    storages: Any = import_module("limits.aio.storage")
    storage = storages.RedisStorage(f"async+{url}", implementation="redispy")
    strategy: Any = import_module("limits.aio.strategies").MovingWindowRateLimiter(storage)
    item = peer.RateLimitItemPerSecond(LIMIT, WINDOW)

    async def acquire() -> None:
        # It never waits, so this waits as it says.
        while not await strategy.hit(item, "service"):
            stats = await strategy.get_window_stats(item, "service")
            await anyio.sleep(max(stats.reset_time - time.time(), 0.001))

    yield acquire


@asynccontextmanager
async def throttled(url: str) -> AsyncGenerator[Acquire]:
    peer: Any = import_module("throttled.asyncio")
    throttle = peer.Throttled(
        key="service",
        timeout=1e9,
        using="gcra",
        quota=peer.per_duration(timedelta(seconds=WINDOW), LIMIT),
        store=peer.RedisStore(server=url),
    )
    yield throttle.limit


@asynccontextmanager
async def pyrate(url: str) -> AsyncGenerator[Acquire]:
    peer: Any = import_module("pyrate_limiter")
    redis: Any = import_module("redis.asyncio").Redis.from_url(url)
    rates = [peer.Rate(LIMIT, WINDOW * 1000)]
    limiter = peer.Limiter(await peer.RedisBucket.init(rates, redis, "service"))
    yield lambda: limiter.try_acquire_async("service")
    await redis.aclose()


CONTENDERS: dict[str, Callable[[str], AbstractAsyncContextManager[Acquire]]] = {
    "anythrottle": ours,
    "limits, moving window": limits,
    "throttled-py, GCRA": throttled,
    "pyrate-limiter": pyrate,
}


async def measure(
    connect: Callable[[str], AbstractAsyncContextManager[Acquire]], url: str, client: Any
) -> tuple[float, ...]:
    """Return the fullest window, what was attained, and what a call has cost."""
    starts: list[float] = []

    async def call(acquire: Acquire) -> None:
        while True:
            await acquire()
            starts.append(time.time())

    async with AsyncExitStack() as stack:
        acquires = [await stack.enter_async_context(connect(url)) for _ in range(PROCESSES)]
        asked = client.info("stats")["total_reads_processed"]
        with Stopwatch() as watch, anyio.move_on_after(WINDOWS * WINDOW):
            async with anyio.create_task_group() as tasks:
                for acquire in acquires:
                    for _ in range(CALLERS):
                        tasks.start_soon(call, acquire)

        asked = client.info("stats")["total_reads_processed"] - asked

    return (
        fullest(starts, WINDOW) / LIMIT,
        len(starts) / (LIMIT * WINDOWS),
        asked / len(starts),
        watch.cpu / len(starts) * 1e6,
    )


def main() -> None:
    rows: list[tuple[object, ...]] = []
    for name, connect in CONTENDERS.items():
        with server("valkey") as running, Valkey(HOST, running.port) as client:
            rows.append((name, *run_on("asyncio", measure, connect, running.url, client)))

    head = ("", "fullest window", "attained", "requests per call", "us of CPU per call")
    print_table(f"{PROCESSES} processes with {CALLERS} callers, {LIMIT}/{WINDOW}s", head, rows)


if __name__ == "__main__":
    main()
