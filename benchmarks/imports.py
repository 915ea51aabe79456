"""
How long it takes to import the library, after asyncio and AnyIO, with the bytecode cached.

The root package imports a module when a name of it is first used, so what a program pays depends
on the names that it imports. About 6 ms of it are modules of AnyIO that ``anyio.run`` needs anyway.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .measuring import print_table

RUNS = 15

#: What is imported, and the most milliseconds that it should take.
STATEMENTS = {
    "import anythrottle": "20",
    "from anythrottle import RateLimiter": "",
    "from anythrottle import Throttler": "",
    "from anythrottle import *": "",
}

PROGRAM = """
import time
start = time.perf_counter()
import asyncio, anyio, anyio.lowlevel
between = time.perf_counter()
{statement}
print(between - start, time.perf_counter() - between)
"""


def seconds_of(statement: str, cache: str) -> tuple[float, float]:
    """Return the seconds that a new process takes to import AnyIO, and then by a statement."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    result = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", PROGRAM.format(statement=statement)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    anyio, ours = map(float, result.stdout.split())
    return anyio, ours


def measure(runs: int) -> dict[str, tuple[float, float]]:
    """Return, for each statement, the least seconds of AnyIO and of it: noise only adds to them."""
    found: dict[str, list[tuple[float, float]]] = {statement: [] for statement in STATEMENTS}
    with tempfile.TemporaryDirectory() as cache:
        seconds_of("from anythrottle import *", cache)
        for _ in range(runs):
            for statement, figures in found.items():
                figures.append(seconds_of(statement, cache))

    least = min(anyio for figures in found.values() for anyio, _ in figures)
    return {
        statement: (least, min(ours for _, ours in figures)) for statement, figures in found.items()
    }


def main() -> None:
    rows = [
        (statement, ours * 1e3, ours / anyio, STATEMENTS[statement])
        for statement, (anyio, ours) in measure(RUNS).items()
    ]
    head = ("", "ms", "x asyncio and anyio", "at most")
    print_table("What an import takes after that of asyncio and anyio", head, rows)


if __name__ == "__main__":
    main()
