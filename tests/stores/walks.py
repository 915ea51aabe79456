"""Random walks of processes that share a limiter, for the ledger and the script."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from anythrottle.stores.exchange import (
    Amounts,
    Charged,
    Ended,
    GivenBack,
    Grant,
    Happening,
    Held,
    Paused,
    Remembered,
    Reply,
    Request,
    Resumed,
    Rule,
    Started,
    Tightened,
    Want,
    rules_text,
)
from tests.stores.twins import COUNTED, Twins

SECOND = 1_000_000

#: An instant of the year 2026.
BEGINNING = 1_796_000_000 * SECOND

#: The processes that there may be.
NAMES = [f"node{i}" for i in range(40)]

#: Sets of rules, and the most that a call is charged by each rule.
RULES: dict[str, tuple[list[Rule], Amounts]] = {
    "none": ([], ()),
    "window": ([Rule("window", 10, SECOND, 0, "calls")], (3,)),
    "wide window": ([Rule("window", 60, SECOND, 0, "calls")], (1,)),
    "end": ([Rule("end", 8, SECOND, 0, "calls")], (3,)),
    "bucket": ([Rule("bucket", 7, SECOND, 5, "calls")], (3,)),
    "slow bucket": ([Rule("bucket", 0.3, SECOND, 2.5, "calls")], (2,)),
    "fast bucket": ([Rule("bucket", 5000, SECOND, 1, "calls")], (1,)),
    "fastest bucket": ([Rule("bucket", 70_000, SECOND, 3.5, "calls")], (2,)),
    "fast bucket and window": (
        [Rule("bucket", 9000, SECOND, 2, "calls"), Rule("window", 300, SECOND // 10, 0, "calls")],
        (1, 2),
    ),
    "fast buckets and fixed window": (
        [
            Rule("bucket", 6000, SECOND, 4, "calls"),
            Rule("bucket", 9000, SECOND, 3, "tokens"),
            Rule("fixed", 400, SECOND // 10, 0, "calls"),
        ],
        (1, 1, 1),
    ),
    "first": ([Rule("fixed", 9, SECOND, -1, "calls")], (4,)),
    "utc": ([Rule("fixed", 9, SECOND, 250_000, "calls")], (4,)),
    "slots": ([Rule("slots", 5, 0, 0, "slots")], (2,)),
    "many": ([Rule("window", 3000, SECOND // 10, 0, "calls")], (2,)),
    "merging": ([Rule("window", 10**9, 5000 * SECOND, 0, "calls")], (20,)),
    "calls and tokens": (
        [
            Rule("window", 12, SECOND, 0, "calls"),
            Rule("window", 1000, 2 * SECOND, 0, "tokens"),
            Rule("slots", 6, 0, 0, "slots"),
        ],
        (1, 300, 1),
    ),
    "one of each": (
        [
            Rule("end", 20, SECOND, 0, "calls"),
            Rule("bucket", 30, SECOND, 12.5, "tokens"),
            Rule("fixed", 50, 3 * SECOND, 0, "calls"),
            Rule("slots", 9, 0, 0, "slots"),
        ],
        (2, 12, 3, 1),
    ),
    "two fixed windows": (
        [
            Rule("fixed", 9, SECOND, 0, "calls"),
            Rule("fixed", 30, SECOND, 500_000, "tokens"),
        ],
        (2, 9),
    ),
    "first and window": (
        [Rule("fixed", 30, 2 * SECOND, -1, "calls"), Rule("window", 11.5, SECOND, 0, "calls")],
        (3, 2),
    ),
}


@dataclass
class Process:
    """What a process knows, more or less: it isn't meant to be right, but to say all there is."""

    name: str
    number: int = 0
    epoch: str = ""
    seen: set[int] = field(default_factory=set[int])
    received: list[int] = field(default_factory=list[int])
    stock: list[Grant] = field(default_factory=list[Grant])
    running: list[Grant] = field(default_factory=list[Grant])
    said: list[Request] = field(default_factory=list[Request])


class Walk:
    """A random walk of some processes."""

    def __init__(self, twins: Twins, rules: list[Rule], most: Amounts, seed: str) -> None:
        self.twins = twins
        self.rules = rules
        self.most = most
        self.random = random.Random(seed)  # noqa: S311
        self.now = BEGINNING + self.random.randrange(SECOND)
        self.processes = [Process(name) for name in NAMES[: self.random.choice([2, 3, 6, 40])]]
        self.names = count()
        # Some walks are dense, so that much is remembered at once; in some all is used ahead.
        self.pace = self.random.choice([1, 30, 1000])
        self.busy = self.chance(0.4)
        self.eventfulness = self.random.choice([0.0, 0.1, 0.5])
        self.wildness = self.random.choice([0.0, 0.02, 0.1])

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def wild(self) -> bool:
        return self.chance(self.wildness)

    def step(self) -> None:
        draw = self.random.randrange
        span = self.random.choice([0, 1, 2000, 20_000, 300_000, 3 * SECOND])
        self.now += draw(60_000) if self.busy else draw(span + 1) // self.pace
        if self.wild():
            self.now += self.random.choice([-draw(SECOND), draw(40 * SECOND)])

        if self.wild():
            self.disturb()

        process = self.random.choice(self.processes)
        if process.said and self.wild():
            request = self.random.choice(process.said[-3:])
        else:
            request = self.request(process)
            process.said.append(request)

        reply = self.twins.exchange(request, self.now)
        if not self.wild():
            self.learn(process, reply)

    def disturb(self) -> None:
        """Let something happen to the server, or to a process."""
        match self.random.randrange(5):
            case 0:
                self.twins.lose_all()
            case 1:
                self.twins.lose(self.random.choice(COUNTED))
            case 2:
                self.twins.save()
            case 3:
                self.twins.set_back()
            case _:
                process = self.random.choice(self.processes)
                self.processes[self.processes.index(process)] = Process(process.name)

    def request(self, process: Process) -> Request:
        draw = self.random.randrange
        process.number += 2 if self.wild() else 1
        received = process.received
        process.received = []
        return Request(
            rules=rules_text(self.rules) + ("-other" if self.rules and self.wild() else ""),
            node=process.name,
            number=process.number,
            epoch=process.epoch,
            fresh=f"epoch{next(self.names)}",
            expires=self.now + draw(-10, 1000) if self.wild() else self.now * draw(2),
            grace=self.random.choice([0, 1000, draw(1, 40_000)]),
            horizon=100_000 if self.busy else self.random.choice([0, 5000, draw(1, 100_001)]),
            lease=draw(SECOND // 2, 10 * SECOND),
            hold_back=draw(SECOND),
            alive=bool(process.epoch) and self.wild(),
            holds=bool(process.running) and self.chance(0.5),
            census=(draw(9), draw(9), draw(9)),
            count_all=self.chance(0.1),
            probe=self.amounts() if self.chance(0.3) else (),
            received=tuple(received),
            wants=self.wants(),
            happenings=tuple(self.happenings(process)),
        )

    def amounts(self) -> Amounts:
        amounts = tuple(self.random.randint(self.chance(0.9), most) for most in self.most)
        if self.chance(0.02):
            return tuple(amount * 10 for amount in amounts)

        return amounts if any(amounts) else self.most

    def wants(self) -> tuple[Want, ...]:
        alike = self.chance(0.5)
        size = 3 if self.busy else self.random.choice([0, 0, 1, 1, 2, 5])
        great = 10 ** self.random.choice([0, 0, 0, 1, 3])
        return tuple(
            Want(
                self.most if alike else self.amounts(),
                self.random.randint(1, 5) * great,
            )
            for _ in range(size)
        )

    def happenings(self, process: Process) -> Iterator[Happening]:
        draw = self.random.randrange
        while process.stock and self.chance(0.8):
            grant = process.stock.pop(draw(len(process.stock)))
            all_of_it = tuple(amount * grant.count for amount in grant.amounts)
            whole = replace(grant, amounts=all_of_it)
            if self.chance(0.3):
                yield GivenBack(all_of_it, grant.receipts)
            else:
                yield Started(grant.due + draw(grant.grace + 1), all_of_it, grant.receipts)
                process.running.append(whole)

        while process.running and self.chance(0.6):
            grant = process.running.pop(0)
            receipts = grant.receipts
            if self.chance(0.2):
                yield GivenBack(grant.amounts, receipts)
            elif self.chance(0.9):
                yield Ended(self.now - draw(2000), grant.amounts)

        while self.chance(self.eventfulness):
            yield self.event()

    def event(self) -> Happening:
        draw = self.random.randrange
        events: list[Happening] = [
            Charged(self.now - draw(2 * SECOND), self.amounts(), held=self.chance(0.5)),
            Paused(self.now + draw(SECOND)),
            Resumed(),
            Held(self.amounts()),
        ]
        if self.rules:
            rule = draw(len(self.rules))
            reset = self.now + draw(-1000, 3 * SECOND)
            events += [
                Tightened(rule, draw(3 * self.most[rule]), self.random.choice([-1, reset])),
                Remembered(rule, draw(self.most[rule] + 1), reset),
            ]

        return self.random.choice(events)

    def learn(self, process: Process, reply: Reply) -> None:
        if reply.status == "lost":
            process.seen.clear()
            process.stock.clear()

        if reply.status in ("done", "lost", "buried"):
            process.epoch = reply.news.epoch

        for grant in reply.news.grants:
            process.received.append(grant.number)
            if grant.number not in process.seen:
                process.seen.add(grant.number)
                process.stock.append(grant)
