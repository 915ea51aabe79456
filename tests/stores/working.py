"""Real processes that share limits: started, disturbed and judged by what they tell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.stores import worker
from tests.stores.worker import Task

#: For how long something may take on a slow machine, in seconds.
PATIENCE = 90.0

#: By how much instants may differ that are rounded to microseconds, by servers and by us.
_ROUNDING = 50


class Working:
    """A worker's process, and what it tells."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        told = folder / f"{time.time_ns()}.jsonl"
        self._lines: list[dict[str, Any]] = []
        self._rest = b""
        with told.open("wb") as out:
            self._told = told.open("rb")
            self.process = subprocess.Popen(
                [sys.executable, "-m", worker.__name__, json.dumps(asdict(task))],
                stdin=subprocess.PIPE,
                stdout=out,
                cwd=Path(__file__).parents[2],
            )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it has told: of a process that was killed, but for half a line."""
        *lines, self._rest = (self._rest + self._told.read()).split(b"\n")
        self._lines += map(json.loads, lines)
        return self._lines

    def starts(self, name: str = "api") -> list[int]:
        """Return when its calls of a limiter were about to start, in microseconds."""
        return [line["at"] for line in self.lines if line.get("start") == name]

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "the worker has ended"
        return any("ready" in line for line in self.lines)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it, if it has not ended, and close what leads to it."""
        self.kill()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

        self._told.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def state(self) -> dict[str, int]:
        """Return what the worker says of its size."""
        before = sum("memory" in line for line in self.lines)
        self.tell("state")
        wait_until(lambda: sum("memory" in line for line in self.lines) > before)
        return [line for line in self.lines if "memory" in line][-1]

    def end(self) -> None:
        """Let it leave its store, and wait until it has ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

        assert self.process.wait(PATIENCE) == 0


class Crowd:
    """
    Processes that work on the same limits.

    :ivar all: all that there were
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.all: list[Working] = []

    def join(self, *tasks: Task) -> list[Working]:
        """Start processes, and wait until they work."""
        new = [Working(task, self._folder) for task in tasks]
        self.all += new
        for each in new:
            wait_until(each.is_ready)

        return new

    def starts(self, name: str = "api") -> list[int]:
        """Return when calls of all processes started, in order."""
        return sorted(at for each in self.all for at in each.starts(name))

    def wait_for(self, more: int, name: str = "api") -> None:
        """Wait until so many more calls have started."""
        count = len(self.starts(name)) + more
        wait_until(lambda: len(self.starts(name)) >= count)

    def end(self) -> None:
        """Let all end that are still there."""
        for each in self.all:
            if each.process.poll() is None:
                each.end()


@contextmanager
def crowd(folder: Path) -> Iterator[Crowd]:
    """Let processes work, and kill those that are left."""
    crowd = Crowd(folder)
    try:
        yield crowd
    finally:
        for each in crowd.all:
            each.close()


def wait_until(true: Callable[[], object], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def worst_window(starts: list[int], window: float) -> int:
    """
    Return how many calls have started at most in a window, by the earliest that they can have.

    Each is told with an instant between the grant and the last look before the start. So of calls
    of which the limit allows one less, the one that was granted last cannot be told earlier than a
    window after the start of one of the others, let alone after what is told of that.
    """
    length = int(window * 1_000_000) - _ROUNDING
    worst = first = 0
    for number, at in enumerate(starts):
        while starts[first] <= at - length:
            first += 1

        worst = max(worst, number + 1 - first)

    return worst
