"""
Limits that are shared over a server, beside others: what a turn costs, and how well they are kept.

All of one table is measured in one run, in turns: figures per second depend on what else the
machine does, ratios hardly. The server is Valkey, on this machine.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

import anyio
import coredis
from anyio.lowlevel import checkpoint

from anythrottle import amap
from anythrottle.stores.redis import RedisStore
from tests.stores import servers
from tests.stores.servers import HOST, Server
from tests.stores.worker import Task
from tests.stores.working import Crowd, crowd, worst_window

from .measuring import Stopwatch, print_table, run_on
from .scripts import GCRA

#: How many tasks take turns at once.
TASKS = (1, 16, 128)
LOOPS = ("asyncio", "trio")

#: For how long each is measured, in seconds, and how often.
SECONDS, ROUNDS = 0.5, 3

#: A limit that is never reached.
AMPLE = 10_000_000

#: How many connections clients of redis-py have: with one for each task they are slower.
CONNECTIONS = 16

#: How many jobs ``amap`` is given.
JOBS = 5000

#: Takes one turn.
Acquire: TypeAlias = Callable[[], Awaitable[object]]


@asynccontextmanager
async def ours(port: int, read_ahead: int | None) -> AsyncGenerator[Acquire]:
    async with RedisStore(f"redis://{HOST}:{port}") as store:
        yield store.limiter(f"ours-{read_ahead}", f"{AMPLE}/s", read_ahead=read_ahead).acquire


def pool(port: int) -> Any:
    """Return a pool of redis-py, in which tasks wait for a connection that is free."""
    peer: Any = import_module("redis.asyncio")
    return peer.BlockingConnectionPool(
        host=HOST, port=port, max_connections=CONNECTIONS, timeout=None
    )


@asynccontextmanager
async def limits(port: int, strategy: str) -> AsyncGenerator[Acquire]:
    peer: Any = import_module("limits")
    storages: Any = import_module("limits.aio.storage")
    storage = storages.RedisStorage(
        f"async+redis://{HOST}:{port}", implementation="redispy", connection_pool=pool(port)
    )
    limiter: Any = getattr(import_module("limits.aio.strategies"), strategy)(storage)
    item = peer.RateLimitItemPerSecond(AMPLE)

    async def acquire() -> None:
        while not await limiter.hit(item, "bench", strategy):
            await checkpoint()

    yield acquire


@asynccontextmanager
async def throttled(port: int) -> AsyncGenerator[Acquire]:
    peer: Any = import_module("throttled.asyncio")
    store = peer.RedisStore(
        server=f"redis://{HOST}:{port}/0",
        options={
            "CONNECTION_POOL_CLASS": "redis.asyncio.BlockingConnectionPool",
            "CONNECTION_POOL_KWARGS": {"max_connections": CONNECTIONS, "timeout": None},
        },
    )
    quota = peer.per_duration(timedelta(seconds=1), AMPLE)
    limiter = peer.Throttled(key="bench", using="gcra", quota=quota, store=store, timeout=10)
    yield limiter.limit


@asynccontextmanager
async def pyrate(port: int) -> AsyncGenerator[Acquire]:
    peer: Any = import_module("pyrate_limiter")
    redis: Any = import_module("redis.asyncio")
    async with redis.Redis(connection_pool=pool(port)) as client:
        bucket = await peer.RedisBucket.init([peer.Rate(AMPLE, 1000)], client, "bench:pyrate")
        limiter = peer.Limiter(bucket)
        try:
            yield lambda: limiter.try_acquire_async("bench")
        finally:
            limiter.close()


@asynccontextmanager
async def bare_coredis(port: int) -> AsyncGenerator[Acquire]:
    async with coredis.Redis(HOST, port) as client:
        sha = await client.script_load(GCRA)
        yield lambda: client.evalsha(sha, keys=["bench:coredis"], args=[0, 1_000_000])


@asynccontextmanager
async def bare_glide(port: int) -> AsyncGenerator[Acquire]:
    peer: Any = import_module("glide")
    settings = peer.GlideClientConfiguration([peer.NodeAddress(HOST, port)])
    client = await peer.GlideClient.create(settings)
    script = peer.Script(GCRA)
    yield lambda: client.invoke_script(script, keys=["bench:glide"], args=["0", "1000000"])
    await client.close()


class Contender(NamedTuple):
    """
    What is compared.

    :ivar loops: the event loops that it runs on
    :ivar make: returns, entered, what takes a turn
    :ivar read_ahead: whether it is ours, and fetches turns ahead
    :ivar is_ours: whether it is ours
    """

    loops: tuple[str, ...]
    make: Callable[[int], AbstractAsyncContextManager[Acquire]]
    read_ahead: bool = False
    is_ours: bool = False


CONTENDERS: dict[str, Contender] = {
    "anythrottle": Contender(LOOPS, partial(ours, read_ahead=None), read_ahead=True, is_ours=True),
    "anythrottle, read_ahead=200": Contender(
        LOOPS, partial(ours, read_ahead=200), read_ahead=True, is_ours=True
    ),
    "anythrottle, read_ahead=0": Contender(LOOPS, partial(ours, read_ahead=0), is_ours=True),
    "limits, fixed window": Contender(
        ("asyncio",), partial(limits, strategy="FixedWindowRateLimiter")
    ),
    "limits, moving window": Contender(
        ("asyncio",), partial(limits, strategy="MovingWindowRateLimiter")
    ),
    "throttled-py, GCRA": Contender(("asyncio",), throttled),
    "pyrate-limiter": Contender(("asyncio",), pyrate),
    "coredis, a bare GCRA script": Contender(LOOPS, bare_coredis),
    "valkey-glide, a bare GCRA script": Contender(LOOPS, bare_glide),
}

#: Those that are limiters: of the others, a call is one exchange and no more.
PEERS = ("limits, fixed window", "limits, moving window", "throttled-py, GCRA", "pyrate-limiter")


async def throughput(acquire: Acquire, tasks: int) -> tuple[float, float]:
    """Return the turns per second, and microseconds of this process's CPU for each."""
    count = 0
    end = time.perf_counter() + SECONDS

    async def take() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await acquire()
            count += 1

    with Stopwatch() as watch:
        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(take)

    return count / watch.wall, watch.cpu / count * 1e6


async def measure(make: Callable[[int], Any], port: int) -> list[tuple[float, float]]:
    async with make(port) as acquire:
        await acquire()
        return [await throughput(acquire, tasks) for tasks in TASKS]


def print_turns(server: Server) -> None:
    """Print what a turn costs, by the number of tasks and the loop."""
    for loop in LOOPS:
        found: dict[str, list[list[tuple[float, float]]]] = {}
        there = {name: each for name, each in CONTENDERS.items() if loop in each.loops}
        for _ in range(ROUNDS):
            for name, contender in there.items():
                server.flush()
                try:
                    run = run_on(loop, measure, contender.make, server.port)
                except ImportError as error:
                    print(f"{name} is left out: {error}")
                    continue

                found.setdefault(name, []).append(run)

        rows: list[tuple[object, ...]] = []
        for name, runs in found.items():
            row: list[object] = [name]
            for number, _ in enumerate(TASKS):
                row.append(round(median(run[number][0] for run in runs)))
                row.append(round(median(run[number][1] for run in runs)))
                peers = [
                    max(found[peer][i][number][0] for peer in PEERS if peer in found)
                    for i in range(len(runs))
                    if any(peer in found for peer in PEERS)
                ]
                ratios = [run[number][0] / best for run, best in zip(runs, peers, strict=False)]
                row.append(f"{median(ratios):.2f}" if ratios and there[name].is_ours else "")

            rows.append(tuple(row))

        head = ["turns that needn't be waited for"]
        for tasks in TASKS:
            head += [f"{tasks} tasks: per s", "us CPU", "x best peer"]

        print_table(f"On {loop}", head, rows)

    print(
        "\nAims: with read-ahead 6 x the best peer or 20 000 per second, at each number of tasks,"
        "\non each loop; without it 4 x the best peer at 128 tasks; CPU <= 20 us on asyncio, 25 us"
        "\non Trio. The peers are the limiters, not the bare scripts."
    )


async def nothing(item: int) -> None:
    """Do nothing: the limiter is measured."""


async def jobs(port: int, read_ahead: int | None) -> tuple[float, float]:
    """Return the microseconds of CPU, and the exchanges, of a job of ``amap``."""
    async with RedisStore(f"redis://{HOST}:{port}") as store:
        limiter = store.limiter("jobs", f"{AMPLE}/s", read_ahead=read_ahead)
        await limiter.acquire()
        before = store.statistics().exchanges
        with Stopwatch() as watch:
            await amap(nothing, range(JOBS), limiter=limiter, concurrency=100)

        exchanges = store.statistics().exchanges - before
        return watch.cpu / JOBS * 1e6, exchanges / JOBS


def print_jobs(server: Server) -> None:
    """Print what a job of ``amap`` costs on a shared limiter."""
    rows: list[tuple[object, ...]] = []
    for loop in LOOPS:
        for read_ahead in (None, 200, 0):
            server.flush()
            runs = [run_on(loop, jobs, server.port, read_ahead) for _ in range(ROUNDS)]
            cpu, exchanges = (median(column) for column in zip(*runs, strict=True))
            aim = "" if read_ahead == 0 else "30 us"
            rows.append((f"{loop}, read_ahead={read_ahead}", cpu, exchanges, aim))

    head = (f"{JOBS} jobs, 100 at once", "us CPU a job", "exchanges a job", "aim")
    print_table("amap() on a shared limiter", head, rows)


def calls_of_script(server: Server) -> int:
    """Return how often the server has carried out a script."""
    told = server.ask("INFO", "commandstats").get("cmdstat_evalsha")
    return int(told["calls"]) if told else 0


#: How many phases of the windows what was attained is taken from.
PHASES = 20


class Kept(NamedTuple):
    """How a limit was kept, that of so many in a window of so many seconds."""

    limit: int
    window: float
    starts: list[list[int]]
    calls: int

    def whole_windows(self, phase: float = 0.0) -> list[list[int]]:
        """
        Return how many calls each process has started in each window, after the first burst.

        :param phase: how much later they begin, in windows
        """
        length = int(self.window * 1e6)
        begin = min(min(each, default=2**62) for each in self.starts) + int((1 + phase) * length)
        end = max(max(each, default=0) for each in self.starts)
        return [
            [sum(at <= start < at + length for start in each) for each in self.starts]
            for at in range(begin, end - length + 1, length)
        ]

    def row(self) -> tuple[object, ...]:
        """Return the figures of a table's row."""
        windows = self.whole_windows()
        everything = sorted(start for each in self.starts for start in each)
        # Calls come in bursts, and at one phase of the windows an edge may cut through the first of
        # them: so the mean over some phases.
        phases = [self.whole_windows(number / PHASES) for number in range(PHASES)]
        attained = mean(sum(map(sum, each)) / (self.limit * len(each)) for each in phases)
        shares = [
            sum(window[number] for window in windows[first : first + 5])
            * len(self.starts)
            / sum(map(sum, windows[first : first + 5]))
            for first in range(max(len(windows) - 4, 1))
            for number in range(len(self.starts))
        ]
        least = min(shares)
        middle = median(shares)
        return (
            f"{worst_window(everything, self.window)} of {self.limit}",
            f"{attained:.3f}",
            f"{self.calls / len(everything):.2f}",
            f"{least:.2f}",
            f"{middle:.2f}",
        )


def keep(server: Server, processes: int, windows: int, **parts: Any) -> Kept:
    """Let processes take turns at "200/1s" for so many windows, and the first burst."""
    limit, window = 200, 1.0
    server.flush()

    def join(there: Crowd) -> None:
        tasks = [
            Task(server.url, LOOPS[number % 2], policies=(f"{limit}/{window:g}s",), **parts)
            for number in range(processes)
        ]
        there.join(*tasks)

    with TemporaryDirectory() as folder, crowd(Path(folder)) as there:
        before = calls_of_script(server)
        join(there)
        time.sleep((windows + 2) * window)
        there.end()
        # those that came before all had joined tell nothing of shares
        late = max(min(each.starts()) for each in there.all)
        calls = calls_of_script(server) - before
        starts = [each.starts() for each in there.all]
        return Kept(limit, window, [[at for at in each if at >= late] for each in starts], calls)


def print_kept(server: Server) -> None:
    """Print how a limit is kept by processes, half of them on each loop."""
    runs = {
        "8 processes x 100 waiters": keep(server, 8, 10, waiters=100),
        "4 processes x 50 waiters": keep(server, 4, 10, waiters=50),
        "4 processes x 50, all give up after 0.3 windows": keep(
            server, 4, 10, waiters=50, patience=(0.3,)
        ),
    }
    rows = [(name, *kept.row()) for name, kept in runs.items()]
    rows.append(("aims", "200 of 200", ">= 0.99, giving up 0.9", "<= 0.30", ">= 0.50", ">= 0.80"))
    head = ("200/1s", "worst window", "attained", "calls a grant", "least share", "median")
    print_table("How a limit is kept by processes", head, rows)


def main() -> None:
    with servers.server("valkey") as server:
        print_turns(server)
        print_jobs(server)
        print_kept(server)


if __name__ == "__main__":
    main()
