"""
A soak of shared limits: processes on both event loops, and all that may go wrong, for a while.

    python -m tests.soak [seconds]

Every few seconds something happens: a process is killed, stands still or joins, the server is
flushed, loses its scripts, connections or data, or stands still itself. Meanwhile calls are
cancelled and limiters paused. At the end no window may hold more than its limit, no limiter more
calls than its slots, and no process may have grown.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.stores import servers
from tests.stores.servers import PROGRAMS, Server
from tests.stores.worker import Task
from tests.stores.working import Crowd, Working, crowd, wait_until, worst_window

SECONDS = 600

#: The limiters, and what each worker does with them.
LIMIT, WINDOW = 40, 1.0
NAMES = ("one", "two", "three")
SLOTS, HOLD, LEASE = 6, 0.05, 4.0

#: How much larger a process may be in the end than it was at first, and how many files more.
GROWTH, MORE_FILES, MORE_TASKS = 1.3, 8, 8


class Soak:
    """What happens, and what is made of it."""

    def __init__(self, server: Server, there: Crowd, chance: random.Random) -> None:
        self.server = server
        self.there = there
        self.chance = chance
        self.started = 0
        self.happened: dict[str, int] = {}
        #: What each process has said of its size, in order.
        self.states: dict[Working, list[dict[str, int]]] = {}
        for slots in (False, False, False, True, True):
            self.join(slots=slots)

        #: One on each loop is left alone, to see whether it grows.
        self.lasting = self.there.all[:2]
        #: When a process has gone last: what it was charged, the server alone knows.
        self.gone = -WINDOW

    @property
    def working(self) -> list[Working]:
        """The processes that are there and may be disturbed."""
        return [each for each in self.there.all[2:] if each.process.poll() is None]

    def join(self, *, slots: bool) -> None:
        self.started += 1
        task = Task(
            self.server.url,
            ("asyncio", "trio")[self.started % 2],
            seed=self.started,
            names=NAMES,
            policies=(f"{LIMIT}/{WINDOW:g}s",),
            waiters=18,
            pause=0.3,
            patience=(0.1, 0.5, 3600),
        )
        if slots:
            task = replace(
                task,
                names=("slots",),
                policies=(),
                waiters=8,
                pause=0,
                concurrency=SLOTS,
                hold=HOLD,
                lease_timeout=LEASE,
            )

        self.there.join(task)

    def replace(self, end: Callable[[Working], None]) -> None:
        """Let a process end, and another one join."""
        each = self.chance.choice(self.working)
        end(each)
        self.gone = time.monotonic()
        self.join(slots=each.task.concurrency is not None)

    def kill(self) -> None:
        self.replace(Working.kill)

    def leave(self) -> None:
        self.replace(Working.end)

    def stand_still(self) -> None:
        each = self.chance.choice(self.working)
        each.stop()
        time.sleep(self.chance.uniform(0.1, 3 * WINDOW))
        each.cont()

    def flush(self) -> None:
        # Of what processes were charged that have gone since, nobody would know.
        time.sleep(max(0.0, self.gone + 1.5 * WINDOW - time.monotonic()))
        self.server.flush()

    def flush_scripts(self) -> None:
        self.server.ask("SCRIPT", "FLUSH")

    def restart(self) -> None:
        time.sleep(max(0.0, self.gone + 1.5 * WINDOW - time.monotonic()))
        self.server.restart()

    def stall_server(self) -> None:
        self.server.stop()
        time.sleep(self.chance.uniform(0.1, 3))
        self.server.cont()

    def cut(self) -> None:
        for kind in ("normal", "pubsub"):
            self.server.ask("CLIENT", "KILL", "TYPE", kind)

    def disturb(self) -> None:
        """Let something happen, and see that calls go on after it."""
        ways: list[Callable[[], None]] = [
            *(self.kill, self.stand_still, self.leave, self.flush),
            *(self.flush_scripts, self.restart, self.stall_server, self.cut),
        ]
        way = self.chance.choice(ways)
        self.happened[way.__name__] = self.happened.get(way.__name__, 0) + 1
        before = {name: len(self.there.starts(name)) for name in (*NAMES, "slots")}
        way()
        for name, count in before.items():
            wait_until(lambda name=name, count=count: len(self.there.starts(name)) > count)  # type: ignore[misc]

    def note_states(self) -> None:
        for each in self.lasting:
            self.states.setdefault(each, []).append(each.state())

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        # What was imported and filled once is no growth.
        time.sleep(min(20, seconds / 5))
        while time.monotonic() < end:
            self.note_states()
            self.disturb()
            time.sleep(self.chance.uniform(0, 2))

        # Calm, as at the beginning.
        time.sleep(5)
        for _ in range(3):
            self.note_states()
            time.sleep(0.5)

        self.there.end()

    def faults(self) -> list[str]:
        """Return what is wrong."""
        faults: list[str] = []
        for name in NAMES:
            starts = self.there.starts(name)
            worst = worst_window(starts, WINDOW)
            print(f"{name}: {len(starts)} calls, worst window {worst} of {LIMIT}")
            if worst > LIMIT:
                faults.append(f"{name}: {worst} calls in a window, of {LIMIT}")

        most = most_at_once(self.there.all)
        print(f"slots: {len(self.there.starts('slots'))} calls, {most} at once of {SLOTS}")
        if most > SLOTS:
            faults.append(f"slots: {most} calls at once, of {SLOTS}")

        for each, states in self.states.items():
            faults += growth(each.task.backend, states)

        return faults


def growth(backend: str, states: list[dict[str, int]]) -> list[str]:
    """Return in what a process has grown: in the end, as against the beginning."""
    part = max(len(states) // 4, 1)
    faults: list[str] = []
    most = {"memory": (GROWTH, 0), "files": (1, MORE_FILES), "tasks": (1, MORE_TASKS)}
    for what, (times, more) in most.items():
        first = median(state[what] for state in states[:part])
        last = median(state[what] for state in states[-part:])
        print(f"{backend}: {what} {first:g} at first, {last:g} in the end")
        if last > times * first + more:
            faults.append(f"{backend}: {what} grew from {first:g} to {last:g}")

    return faults


def most_at_once(processes: list[Working]) -> int:
    """Return how many calls that hold slots ran at once for sure, of those that ended in time."""
    changes: list[tuple[int, int]] = []
    for each in processes:
        began: dict[int, int] = {}
        for line in each.lines:
            if line.get("start") == "slots":
                began[line["call"]] = line["by"]
            elif line.get("end") == "slots":
                since = began[line["call"]]
                # Else the process stood still, and others may have got its slots.
                if line["at"] - since < LEASE * 1e6 / 2:
                    changes += [(since, 1), (line["at"], -1)]

    most = running = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)

    return most


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    faults: list[str] = []
    for kind in PROGRAMS:
        seed = random.SystemRandom().randrange(10**6)
        print(f"{kind}, seed {seed}", flush=True)
        with (
            servers.server(kind) as server,
            TemporaryDirectory() as folder,
            crowd(Path(folder)) as there,
        ):
            soak = Soak(server, there, random.Random(seed))  # noqa: S311 - what happens, no secret
            soak.run(seconds / len(PROGRAMS))
            print(soak.happened)
            faults += soak.faults()

    for fault in faults:
        print(f"FAULT {fault}")

    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
