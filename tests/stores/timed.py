"""Processes that share a limiter in virtual time: each message takes its time, or is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random

from anythrottle.stores.exchange import Amounts, Micros, Push, Reply, Request, Rule
from anythrottle.stores.granting import SILENCE
from anythrottle.stores.ledger import Ledger
from tests.stores.processes import ORIGIN, SECOND, Call, Process, Turn, check_books


class Site:
    """A process with its way to the server, which does what it is to do in time."""

    def __init__(
        self, world: TimedWorld, process: Process, delay: Micros, wants: list[Amounts]
    ) -> None:
        self.world = world
        self.process = process
        self.delay = delay
        #: What its line is filled up with, again and again.
        self.wants = wants
        self.talks_at: Micros | None = None
        self.alive = True
        self.calls: list[Call] = []

    def talk_by(self, at: Micros) -> None:
        """See to it that it talks to the server at an instant, or before."""
        at = max(at, self.world.now)
        if self.talks_at is None or at < self.talks_at:
            self.talks_at = at
            self.world.at(at, self.talk)

    def talk(self) -> None:
        if not self.alive or self.talks_at is None or self.talks_at > self.world.now:
            return

        self.talks_at = None
        if self.process.outstanding is None:
            request = self.process.request(self.world.now)
            self.world.at(self.world.now + self.delay, lambda: self.arrive(request))

    def arrive(self, request: Request) -> None:
        reply = self.world.exchange(request)
        self.world.at(self.world.now + self.delay, lambda: self.on_reply(request, reply))

    def on_reply(self, request: Request, reply: Reply) -> None:
        if self.alive:
            assert reply.status == "done"
            self.process.on_reply(request, reply, self.world.now)
            self.use()

    def on_push(self, push: Push) -> None:
        if self.alive:
            self.process.on_push(push, self.world.now)
            self.use()

    def use(self) -> None:
        """Start what was granted, each when it is due, and tell of it soon."""
        for turn in self.process.turns:
            self.world.at(max(turn.due, self.world.now), lambda turn=turn: self.start(turn))  # type: ignore[misc]

        # Starts are told sooner, because others wait for windows to be free.
        if self.process.to_acknowledge or self.process.happenings:
            self.talk_by(self.world.now + max(3 * self.process.horizon // 2, SILENCE // 2))

        if self.process.line:
            self.talk_by(self.process.come)

    def start(self, turn: Turn) -> None:
        if not self.alive or turn not in self.process.turns:
            return

        if self.process.may_start(turn, self.world.now):
            call = self.process.start(turn, self.world.now)
            self.calls.append(call)
            self.process.line.append(self.wants[len(self.calls) % len(self.wants)])
            self.world.at(self.world.now + self.world.takes, lambda: self.end(call))
        else:
            self.process.turns.sort(key=lambda other: other is not turn)
            self.process.give_back(1)

            self.talk_by(self.world.now + self.process.horizon // 4)

        if any(rule.kind == "window" for rule in self.world.rules):
            self.talk_by(self.world.now + self.process.horizon // 4)

    def end(self, call: Call) -> None:
        if self.alive:
            self.process.end(call, self.world.now)
            if any(self.process.held_by(call.amounts)):
                self.talk_by(self.world.now)

    def kill(self) -> None:
        self.alive = False
        for call in self.process.running:
            call.end = self.world.now


class TimedWorld:
    """
    A server and its processes, all saturated.

    :param takes: how long calls take
    :param lost: which part of the pushes is lost
    """

    def __init__(
        self, rules: Sequence[Rule], *, takes: Micros = 0, lost: float = 0, seed: int = 1
    ) -> None:
        self.rules = tuple(rules)
        self.takes = takes
        self.lost = lost
        self.random = Random(seed)  # noqa: S311 - to be the same each time
        self.now = ORIGIN
        self.ledger: Ledger | None = None
        self.sites: dict[str, Site] = {}
        self.exchanges = 0
        self.events: list[tuple[Micros, int, Callable[[], object]]] = []
        self.count = 0

    def join(
        self, wants: list[Amounts], *, delay: Micros = 200, waiters: int = 100, after: Micros = 0
    ) -> Site:
        holds = any(rule.holds for rule in self.rules)
        shortest = min((rule.window for rule in self.rules if rule.window), default=SECOND)
        horizon = 0 if holds else min(max(shortest // 10, 5000), 100_000)
        name = f"p{len(self.sites)}"
        process = Process(name, self.rules, max(8 * delay, 2000), horizon)
        process.line = [wants[index % len(wants)] for index in range(waiters)]
        site = self.sites[name] = Site(self, process, delay, wants)
        site.talks_at = self.now + after
        self.at(site.talks_at, site.talk)
        return site

    def at(self, instant: Micros, do: Callable[[], object]) -> None:
        self.count += 1
        heappush(self.events, (instant, self.count, do))

    def run(self, seconds: float) -> None:
        until = self.now + round(seconds * SECOND)
        while self.events and self.events[0][0] <= until:
            self.now, _, do = heappop(self.events)
            do()

        self.now = until

    def exchange(self, request: Request) -> Reply:
        self.exchanges += 1
        if self.ledger is None:
            self.ledger = Ledger(request, self.now)

        reply, pushes = self.ledger.exchange(request, self.now)
        check_books(self.ledger)
        for push in pushes:
            site = self.sites[push.node]
            if self.random.random() >= self.lost:
                self.at(self.now + site.delay, lambda site=site, push=push: site.on_push(push))  # type: ignore[misc]

        return reply

    @property
    def calls(self) -> list[Call]:
        return [call for site in self.sites.values() for call in site.calls]

    def shares(self, since: float, until: float) -> Counter[str]:
        """Return how many calls of each process have started between two times."""
        first, last = (ORIGIN + round(seconds * SECOND) for seconds in (since, until))
        counts = Counter(dict.fromkeys(self.sites, 0))
        counts.update(call.process for call in self.calls if first <= call.start < last)
        return counts
