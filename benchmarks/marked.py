"""What a server that counts exactly refuses, and how long the calls take, by how ours measure."""

import random
from collections import deque

import anyio

from anythrottle import RateLimiter, WindowTokenBucket, current_permit
from anythrottle.testing import virtual_backends

from .measuring import print_table

CALLS = 2000
LIMIT, WINDOW = 6, 10.0
#: How long the server takes, in seconds, and by which part of that its answer begins to come.
DURATIONS, MARKS = (0.5, 8.0), (0.1, 0.5)
SEED = 20261130
#: By how much a marked run may take longer than one that measures from the start.
AIM = 1.2


def draw() -> list[tuple[float, float, float]]:
    """Return for each call how long it takes, when it is marked, and when the server counts it."""
    chance = random.Random(SEED)  # noqa: S311 - the same each time
    calls: list[tuple[float, float, float]] = []
    for _ in range(CALLS):
        seconds = chance.uniform(*DURATIONS)
        mark = seconds * chance.uniform(*MARKS)
        calls.append((seconds, mark, chance.uniform(0, mark)))

    return calls


async def run(measure: str, *, marks: bool) -> tuple[float, int]:
    """Return how long all calls take, and how many the server refuses."""
    limiter = RateLimiter(WindowTokenBucket(LIMIT, WINDOW, measure=measure))  # type: ignore[arg-type]
    counted: list[float] = []

    async def call(seconds: float, mark: float, counts_at: float) -> None:
        await anyio.sleep(counts_at)
        counted.append(anyio.current_time())
        await anyio.sleep(mark - counts_at)
        if marks:
            current_permit().mark_counted()

        await anyio.sleep(seconds - mark)

    start = anyio.current_time()
    async with anyio.create_task_group() as task_group:
        for each in draw():
            task_group.start_soon(limiter.run, call, *each)

    return anyio.current_time() - start, refused(sorted(counted))


def refused(instants: list[float]) -> int:
    """Return how many of the calls an exact window refuses; those it refuses count for nothing."""
    passed: deque[float] = deque()
    refusals = 0
    for instant in instants:
        while passed and passed[0] <= instant - WINDOW:
            passed.popleft()

        if len(passed) < LIMIT:
            passed.append(instant)
        else:
            refusals += 1

    return refusals


def main() -> int:
    name, options = virtual_backends()[0]
    measured = {
        row: anyio.run(lambda: run(measure, marks=marks), backend=name, backend_options=options)  # noqa: B023 - run at once
        for row, measure, marks in (
            ("from the start", "start", False),
            ("from the end", "end", False),
            ("from the mark", "end", True),
        )
    }
    fastest = measured["from the start"][0]
    print_table(
        f"{CALLS} calls of {DURATIONS[0]} to {DURATIONS[1]} s, {LIMIT} per {WINDOW:g} s",
        ["measured", "seconds", "times from the start", f"refused of {CALLS}"],
        [
            [row, f"{seconds:.0f}", f"{seconds / fastest:.2f}", str(refusals)]
            for row, (seconds, refusals) in measured.items()
        ],
    )
    (marked, refusals), (end, _) = measured["from the mark"], measured["from the end"]
    return 0 if not refusals and marked < end and marked <= AIM * fastest else 1


if __name__ == "__main__":
    raise SystemExit(main())
