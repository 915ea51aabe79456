"""By how much the memory grows over a million jobs."""

import resource
import sys

from anyio.lowlevel import checkpoint

from anythrottle import Throttler

from .measuring import LOOPS, Stopwatch, print_table, run_on

WARM_UP = 20_000
JOBS = 1_000_000
AIM = 10  # MB, the most


async def job() -> int:
    await checkpoint()
    return 1


async def consume(result: int) -> None:
    """Take a result."""


async def run(jobs: int) -> None:
    source = (job for _ in range(jobs))
    await Throttler(source, consume, per_time_window=10**9, concurrency=10).run()


def peak() -> float:
    """Return the most megabytes that this process has had."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    rows: list[tuple[object, ...]] = []
    for loop in LOOPS:
        run_on(loop, run, WARM_UP)
        before = peak()
        with Stopwatch() as watch:
            run_on(loop, run, JOBS)

        rows.append((loop, peak() - before, AIM, watch.wall))

    print_table("A million jobs from a generator", ("", "MB more", "aim", "s"), rows)


if __name__ == "__main__":
    main()
