"""What the benchmarks share: event loops, stopwatches, tables."""

import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from statistics import median
from typing import Any, Self, TypeVar

import anyio

T = TypeVar("T")

LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


def run_on(loop: str, function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run ``function`` on one of :data:`LOOPS`, without garbage of before."""
    gc.collect()
    return anyio.run(function, *args, **LOOPS[loop])


def medians(
    repetitions: int, loop: str, function: Callable[..., Awaitable[Mapping[str, float]]], *args: Any
) -> dict[str, float]:
    """Repeat what measures several things in one run, and return the median of each."""
    runs = [run_on(loop, function, *args) for _ in range(repetitions)]
    return {name: median(run[name] for run in runs) for name in runs[0]}


def median_ratios(runs: Iterable[Mapping[str, float]], control: str) -> dict[str, float]:
    """Return the median over the runs of each figure's ratio to the control's of the same run."""
    found = list(runs)
    return {name: median(run[name] / run[control] for run in found) for name in found[0]}


class Stopwatch:
    """Measures the seconds, and those of the processor, that a ``with`` block takes."""

    def __enter__(self) -> Self:
        self.cpu = time.process_time()
        self.wall = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu


def print_table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table whose first column is text, and flush."""
    lines = [[_text(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}\n")
    for line in lines:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]), flush=True)


def _text(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) and abs(cell) < 1000 else f"{cell}"
