"""
How far it is from a call to what it does: the calls of the package's own functions on the way.

They are counted, not timed, so the figures are the same each time; another Python's may differ a
little. A coroutine that goes on after it has waited counts once more. Beside the calls stand the
files that they are in, and how often a call is in another file than the one before: so often a
reader turns the page.

``python -m benchmarks.ways waits`` lists the calls on each way that has that word in its title.
"""

import gc
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import anyio

import anythrottle
from anythrottle import RateLimiter, ThrottleException, Throttler, amap
from anythrottle.testing import virtual_backends
from benchmarks.measuring import print_table

PACKAGE = Path(anythrottle.__file__).parent

#: The virtual clock is not on the way.
BESIDE = PACKAGE / "testing"


class Count(NamedTuple):
    """What is on a way."""

    calls: int
    files: int
    changes: int


class Counter:
    """Notes the calls of the package's functions in a ``with`` block."""

    def __init__(self) -> None:
        #: The files and functions, in the order of their calls.
        self._calls: list[tuple[str, str]] = []
        self._files: dict[str, bool] = {}

    def __enter__(self) -> Self:
        self._before = sys.getprofile()
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        # A real clock is read without a function of ours.
        if event == "call" and self._is_ours(name) and frame.f_code.co_name != "_virtual_time":
            self._calls.append((name, frame.f_code.co_qualname))

    def _is_ours(self, name: str) -> bool:
        if name not in self._files:
            path = Path(name)
            self._files[name] = PACKAGE in path.parents and BESIDE not in path.parents

        return self._files[name]

    def count(self) -> Count:
        """Return what has been noted."""
        names = [name for name, _ in self._calls]
        changes = sum(one != other for one, other in pairwise(names))
        return Count(len(names), len(set(names)), changes)

    def functions(self) -> list[str]:
        """Return the calls in their order, each as its file and function."""
        return [f"{Path(name).relative_to(PACKAGE)}: {function}" for name, function in self._calls]


async def acquire(counter: Counter) -> None:
    limiter = RateLimiter("20/10s")
    await limiter.acquire()
    with counter:
        await limiter.acquire()


async def acquire_that_waits(counter: Counter) -> None:
    limiter = RateLimiter("1/10s")
    await limiter.acquire()
    with counter:
        await limiter.acquire()


async def permit(counter: Counter) -> None:
    limiter = RateLimiter("20/10s", "1000 tokens/10s", concurrency=5)
    async with limiter.permit({"tokens": 10}):
        pass

    with counter:
        async with limiter.permit({"tokens": 10}) as permit:
            permit.settle({"tokens": 5})


async def block(counter: Counter) -> None:
    limiter = RateLimiter("20/10s")
    with counter:
        async with limiter:
            pass


async def throttled_job(counter: Counter) -> None:
    answers: list[Exception | None] = [ThrottleException(retry_after=1), None]

    async def job() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    throttler = Throttler([job])
    with counter:
        await throttler.run()


async def two_items(counter: Counter) -> None:
    async def double(number: int) -> int:
        return 2 * number

    with counter:
        await amap(double, [1, 2], limiter="20/10s")


class Way(NamedTuple):
    """A way, and the most that it should come to."""

    title: str
    go: Callable[[Counter], Awaitable[None]]
    aim: str = ""


WAYS = [
    Way("acquire(), nothing in the way", acquire),
    Way("acquire() that waits 10 s", acquire_that_waits, "45 calls, 8 files"),
    Way("permit, two units and slots, settled", permit),
    Way("async with limiter, first use", block),
    Way("Throttler, one job, throttled once", throttled_job, "300 calls"),
    Way("amap, two items", two_items),
]


def go(way: Callable[[Counter], Awaitable[None]]) -> Counter:
    """Go a way on asyncio and a virtual clock, for the second time; return what was counted."""
    options: dict[str, Any] = dict(virtual_backends())["asyncio"]
    first, second = Counter(), Counter()
    gc.collect()
    gc.disable()
    try:
        for counter in (first, second):
            anyio.run(way, counter, backend="asyncio", backend_options=options)
    finally:
        gc.enable()

    return second


def main() -> None:
    if words := sys.argv[1:]:
        for way in WAYS:
            if any(word in way.title for word in words):
                print(f"\n{way.title}\n", *go(way.go).functions(), sep="\n")

        return

    rows = [(way.title, *go(way.go).count(), way.aim) for way in WAYS]
    print_table(
        "Calls of the package's functions on the way, on asyncio",
        ["", "calls", "files", "changes of file", "at most"],
        rows,
    )


if __name__ == "__main__":
    main()
