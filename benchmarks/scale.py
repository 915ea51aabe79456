"""
Thousands of processes that share one limiter, in virtual time.

What is run is what runs in earnest: the dialogue of each process, and the ledger of the server.
Between them are messages that take their time and overtake one another, clocks that differ and
drift, pushes that are lost, and processes that are stopped now and then, every other one of them.
The server carries out one request after the other, so it may be short of time, too.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import NamedTuple, TypeAlias

from anythrottle.stores.dialogue import Dialogue
from anythrottle.stores.exchange import Push, Reply, Request, Rule, Want
from anythrottle.stores.ledger import Ledger
from anythrottle.stores.terms import Terms

from .exact_window import fullest
from .measuring import print_table

PROCESSES = 10, 200, 1000, 3000
#: Of tokens; ``None`` for as many as have been of use.
READ_AHEAD = 0, None, 5, 20

LIMIT, WINDOW = 2000, 10.0
RULE = Rule("window", LIMIT, int(WINDOW * 1_000_000), 0, "calls")

#: How many windows a run lasts, besides the first one.
WINDOWS = 5

#: The load: callers of each process that call again at once, or calls that come at random, at so
#: many times the limit.
CALLERS, LOAD = 2, 0.8

#: How long a message is under way, and how long the server takes for a request, in seconds.
UNDER_WAY, SERVICE = (0.0002, 0.002), 0.0001

#: The share of pushes that are lost.
LOSS = 0.001

#: By how much clocks are wrong: in seconds, and in seconds a second.
OFFSET, DRIFT = 1e6, 1e-4

#: How long a process runs until it is stopped, on the mean, and how long it is, at most.
RUNS, STOPPED = 30.0, 3.0

SEED = 1

Action: TypeAlias = Callable[[], None]


class Found(NamedTuple):
    """
    What a run has shown, its first window left out but for how full it was.

    :ivar worst: the most that any window held, in limits
    :ivar attained: how much was let through, in limits
    :ivar per_grant: how many exchanges there were for each call that began
    :ivar wait: how long calls have waited, in seconds, on the mean
    :ivar share: the least part of an equal share that a process got which was never stopped

    """

    worst: float
    attained: float
    per_grant: float
    wait: float
    share: float


class Simulation:
    """
    A server, its processes, and all that is to happen.

    :param processes: how many there are
    :param read_ahead: how many tokens each may fetch ahead
    :param overloaded: whether callers call again at once, or calls come at random

    :ivar now: the server's time, in seconds
    """

    def __init__(self, processes: int, read_ahead: int | None, *, overloaded: bool) -> None:
        self.now = 0.0
        self.random = random.Random(SEED)  # noqa: S311 - no secret
        self.exchanges = 0
        self.starts: list[float] = []
        self.waits: list[float] = []
        self._ledger: Ledger | None = None
        self._free_at = 0.0
        self._order = count()
        self._agenda: list[tuple[float, int, Action]] = []
        self.processes = {
            f"p{i:05}": Process(self, f"p{i:05}", read_ahead) for i in range(processes)
        }
        for i, process in enumerate(self.processes.values()):
            if overloaded:
                self.at(self.random.random(), process.call_always)
            else:
                self.at(self.now, process.call_at_random)

            if i % 2:
                self.at(self.random.expovariate(1 / RUNS), process.stop)

    def at(self, instant: float, action: Action) -> None:
        """Have something done at an instant."""
        heappush(self._agenda, (instant, next(self._order), action))

    def send(self, process: Process, request: Request) -> None:
        """Let a request reach the server."""
        self.at(self.now + self._under_way(), lambda: self._accept(process, request))

    def _accept(self, process: Process, request: Request) -> None:
        self._free_at = max(self._free_at, self.now) + SERVICE
        self.at(self._free_at, lambda: self._carry_out(process, request))

    def _carry_out(self, process: Process, request: Request) -> None:
        now = int(self.now * 1_000_000)
        if self._ledger is None:
            self._ledger = Ledger(request, now)

        self.exchanges += 1
        reply, pushes = self._ledger.exchange(request, now)
        self.at(self.now + self._under_way(), lambda: process.hear_reply(reply))
        for push in pushes:
            if self.random.random() >= LOSS:
                self._push(push)

    def _push(self, push: Push) -> None:
        process = self.processes[push.node]
        self.at(self.now + self._under_way(), lambda: process.hear_push(push))

    def _under_way(self) -> float:
        return self.random.uniform(*UNDER_WAY)

    def run(self, seconds: float) -> None:
        """Let everything happen that is to happen until an instant."""
        while self._agenda[0][0] < seconds:
            self.now, _, action = heappop(self._agenda)
            action()


class Process:
    """A process: callers, and the courier that talks to the server for them."""

    def __init__(self, simulation: Simulation, name: str, read_ahead: int | None) -> None:
        terms = Terms((RULE,), lease=30.0, deadline=1.0, leases=bool(read_ahead))
        self.simulation = simulation
        self.dialogue = Dialogue(terms, name, f"{name}-state", read_ahead)
        self.line: deque[float] = deque()
        self.started: list[float] = []
        self._offset = simulation.random.uniform(-OFFSET, OFFSET)
        self._rate = 1 + simulation.random.uniform(-DRIFT, DRIFT)
        self._always = False
        #: When the request that is under way was sent, by its own clock.
        self._sent: float | None = None
        self._wakes_at = inf
        self._stopped_until = 0.0
        self.was_stopped = False

    def clock(self) -> float:
        """Return what its own clock shows."""
        return self.simulation.now * self._rate + self._offset

    def call_always(self) -> None:
        """Have callers that call again at once."""
        self._always = True
        self.line.extend([self.simulation.now] * CALLERS)
        self.look()

    def call_at_random(self) -> None:
        """Have calls come, at random."""
        if self.simulation.now > 0:
            self.line.append(self.simulation.now)
            self.look()

        rate = LOAD * LIMIT / WINDOW / len(self.simulation.processes)
        pause = self.simulation.random.expovariate(rate)
        self.simulation.at(self.simulation.now + pause, self.call_at_random)

    def stop(self) -> None:
        """Be stopped for a while."""
        simulation = self.simulation
        self.was_stopped = True
        self._stopped_until = simulation.now + simulation.random.random() * STOPPED
        simulation.at(self._stopped_until, self.look)
        simulation.at(self._stopped_until + simulation.random.expovariate(1 / RUNS), self.stop)

    def hear_reply(self, reply: Reply) -> None:
        """Hear the server's reply."""
        if self._is_stopped(lambda: self.hear_reply(reply)):
            return

        assert self._sent is not None
        self.dialogue.hear_reply(reply, self._sent, self.clock())
        self._sent = None
        self.look()

    def hear_push(self, push: Push) -> None:
        """Hear news that come unasked."""
        if not self._is_stopped(lambda: self.hear_push(push)):
            self.dialogue.hear_push(push, self.clock())
            self.look()

    def look(self) -> None:
        """Start what may start, and say what there is to say."""
        simulation = self.simulation
        if simulation.now < self._stopped_until:
            return

        until = self._start_all()
        now = self.clock()
        if self._sent is None:
            needed = len(self.line)
            met = min(self.dialogue.account.stock.count((1,)), needed)
            due = self.dialogue.next_at(now, needed, met, (1,) if needed else None)
            if due <= now:
                self._sent = now
                wants = [Want((1,), len(self.line))] if self.line else []
                simulation.send(self, self.dialogue.request(now, wants))
            else:
                until = min(until, due)

        if until < inf:
            self._wake_at(simulation.now + max(until - now, 1e-6) / self._rate)

    def _is_stopped(self, action: Action) -> bool:
        """Return whether it is stopped; if so, something is done later."""
        stopped = self.simulation.now < self._stopped_until
        if stopped:
            self.simulation.at(self._stopped_until, action)

        return stopped

    def _start_all(self) -> float:
        """Start what may start; return when the next one may."""
        now = self.clock()
        account = self.dialogue.account
        while self.line:
            lot = account.stock.first((1,), now)
            if lot is None:
                return inf

            if lot.ready > now:
                return lot.ready

            account.start(account.claim(lot), now)
            instant = self.simulation.now
            self.started.append(instant)
            self.simulation.starts.append(instant)
            self.simulation.waits.append(instant - self.line.popleft())
            if self._always:
                self.line.append(instant)

        return inf

    def _wake_at(self, instant: float) -> None:
        simulation = self.simulation
        if self._wakes_at <= simulation.now or instant < self._wakes_at:
            self._wakes_at = instant
            simulation.at(instant, self._wake)

    def _wake(self) -> None:
        if self.simulation.now >= self._wakes_at:
            self._wakes_at = inf
            self.look()


def measure(processes: int, read_ahead: int | None, *, overloaded: bool) -> Found:
    """Run a simulation."""
    simulation = Simulation(processes, read_ahead, overloaded=overloaded)
    simulation.run(WINDOW)
    warm = len(simulation.starts)
    exchanges = simulation.exchanges
    simulation.run(WINDOW * (1 + WINDOWS))
    starts = len(simulation.starts) - warm
    waits = simulation.waits[warm:]
    shares = [
        sum(instant >= WINDOW for instant in process.started) * processes / starts
        for process in simulation.processes.values()
        if not process.was_stopped
    ]
    return Found(
        fullest(simulation.starts, WINDOW) / LIMIT,
        starts / (LIMIT * WINDOWS),
        (simulation.exchanges - exchanges) / starts,
        sum(waits) / len(waits),
        min(shares),
    )


def main() -> int:
    worst = 0.0
    for overloaded in (True, False):
        rows: list[tuple[object, ...]] = []
        for processes in PROCESSES:
            for read_ahead in READ_AHEAD:
                began = time.perf_counter()
                found = measure(processes, read_ahead, overloaded=overloaded)
                worst = max(worst, found.worst)
                name = "by use" if read_ahead is None else f"{read_ahead}"
                rows.append((f"{processes} processes, {name}", *found, time.perf_counter() - began))

        load = f"{CALLERS} callers in each, always" if overloaded else f"{LOAD:.0%} of the limit"
        print_table(
            f"{LIMIT} calls in {WINDOW:g} s, shared: {load}",
            (
                "read ahead",
                "worst window",
                "attained",
                "exchanges/grant",
                "mean wait",
                "least share",
                "took",
            ),
            rows,
        )

    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
