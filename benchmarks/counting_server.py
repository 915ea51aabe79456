"""Calls over sockets to a server on this machine that counts exactly, and refuses what is more."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from statistics import median

import anyio

from .contenders import Contender
from .exact_window import ExactWindow
from .turns import Turn

CALLS, LIMIT, WINDOW = 60, 20, 2.0
#: How long a call is on its way to the server, and its answer's body after the head, in seconds.
LATENCIES, BODIES = (0.005, 0.060), (0.02, 0.2)
#: The runs, which go side by side, and by how much one begins after the other: in a window of the
#: first one all have begun, and none makes its calls when another does.
SEEDS, APART = (1, 2, 3, 4, 5, 6, 7, 8, 9), 0.2

ACCEPTED, REFUSED = b"200\n", b"429\n"


@dataclass
class CountingServer:
    """
    Answers a line with the head of an answer at once, and its body later.

    What a network would delay, it delays itself before it counts: each call by another latency.
    """

    chance: random.Random
    window: ExactWindow = field(default_factory=lambda: ExactWindow(LIMIT, WINDOW))
    refused: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, which is one call."""
        await reader.readline()
        await asyncio.sleep(self.chance.uniform(*LATENCIES))
        now = time.monotonic()
        allowed = self.window.allows(now)
        if allowed:
            self.window.count(now)
        else:
            self.refused += 1

        writer.write(ACCEPTED if allowed else REFUSED)
        await writer.drain()
        if allowed:
            await asyncio.sleep(self.chance.uniform(*BODIES))
            writer.write(b"body\n")

        writer.close()
        await writer.wait_closed()


async def call(turn: Turn, address: tuple[str, int]) -> float:
    """Make a call, mark it once the head of its answer is there, and return when all of it is."""
    async with turn.take(1) as mark:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"call\n")
        await reader.readline()
        mark()
        await reader.read()
        answered = time.monotonic()
        writer.close()
        await writer.wait_closed()

    return answered


async def call_all(turn: Turn, seed: int) -> tuple[int, float]:
    """Return how many calls were refused, and how long it took until the last was answered."""
    server = CountingServer(random.Random(seed))  # noqa: S311 - the same each time
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=CALLS) as listening:
        address = listening.sockets[0].getsockname()
        start = time.monotonic()
        answered = await asyncio.gather(*(call(turn, address) for _ in range(CALLS)))
        return server.refused, max(answered) - start


async def call_later(turn: Turn, run: int) -> tuple[int, float]:
    await asyncio.sleep(run * APART)
    return await call_all(turn, SEEDS[run])


async def run_all(turns: list[Turn]) -> list[tuple[int, float]]:
    return await asyncio.gather(*(call_later(turn, run) for run, turn in enumerate(turns)))


def over_sockets(contender: Contender) -> dict[str, object]:
    """Measure in real time, on asyncio, with a limiter and a server for each run."""
    turns = [contender.calls(LIMIT, WINDOW) for _ in SEEDS]
    try:
        refusals, seconds = zip(*anyio.run(run_all, turns), strict=True)
    finally:
        for turn in turns:
            turn.close()

    return {"refused": sorted(refusals), "seconds": round(median(seconds), 2)}
