"""
How long a server works on an exchange of a shared limiter, by its own account.

However many charges are remembered and processes known, it should take no more than 1.5 times as
long as with few of each; and at most 8 times as long as a bare GCRA script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from valkey import Valkey

from anythrottle.stores.exchange import (
    Amounts,
    Ended,
    Happening,
    Remembered,
    Reply,
    Request,
    Rule,
    Started,
    Want,
    rules_text,
)
from anythrottle.stores.lua import script
from anythrottle.stores.wire import reply_of, request_args
from tests.stores.servers import HOST, PROGRAMS, server

from .measuring import print_table

#: The script asks for the time as ever, but goes by what it is told.
SCRIPT = """
local function clock_of_benchmark()
    redis.call('TIME')
    return {0, table.remove(ARGV)}
end
""" + script().replace("redis.call('TIME')", "clock_of_benchmark()")

#: One key, one decision: the least that a limiter can do.
GCRA = """
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
if arrival - now > tolerance then
    return {0, arrival - now - tolerance}
end

arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', 10000)
return {1, 0}
"""

SECOND = 1_000_000
WINDOW = 10 * SECOND
BEGINNING = 1_796_000_000 * SECOND

#: How far ahead turns are granted to those that wait: in front of that, many charges come back.
HORIZON = WINDOW // 20

CALLS = 2000
ROUNDS = 1


class Size(NamedTuple):
    """How much the server knows."""

    charges: int
    processes: int

    def __str__(self) -> str:
        return f"{self.charges} charges, {self.processes} processes"


SIZES = [Size(10, 2), Size(1000, 256)]

#: Sets of rules, by the number of charges that they have room for.
RULES: dict[str, Callable[[int], list[Rule]]] = {
    "window": lambda charges: [Rule("window", charges, WINDOW, 0, "calls")],
    "end": lambda charges: [Rule("end", charges, WINDOW, 0, "calls")],
    "bucket": lambda charges: [Rule("bucket", charges, WINDOW, charges, "calls")],
    "two windows and slots": lambda charges: [
        Rule("window", charges, WINDOW, 0, "calls"),
        Rule("window", charges * 100, WINDOW, 0, "tokens"),
        Rule("slots", charges, 0, 0, "slots"),
    ],
}


class Run:
    """
    Processes that come in turn to a limiter that is full, each when one charge has come back.

    :param client: of a server that knows nothing of the limiter
    :param waiting: whether all of them wait, so that each exchange serves another process

    """

    def __init__(self, client: Any, rules: list[Rule], size: Size, *, waiting: bool) -> None:
        self.client = client
        self.rules = rules
        self.size = size
        self.waiting = waiting
        self.sha = client.script_load(SCRIPT)
        self.step = WINDOW // size.charges
        self.now = BEGINNING
        self.numbers = dict.fromkeys(range(size.processes), 0)
        self.epoch = ""
        self.unit: Amounts = tuple(100 if rule.unit == "tokens" else 1 for rule in rules)
        self.replies: dict[int, Reply] = {}

    def prepare(self) -> None:
        """Make all processes known, and the limiter full."""
        for node in self.numbers:
            self.exchange(node, wanted=0)

        charges = [
            Remembered(index, amount, self.now + self.step * (i + 1))
            for i in range(self.size.charges)
            for index, amount in enumerate(self.unit)
            if self.rules[index].kind != "slots"
        ]
        self.exchange(0, charges, wanted=0)
        for node in self.numbers:
            self.exchange(node, wanted=1000 * self.waiting)

    def exchange(self, node: int, happenings: Sequence[Happening] = (), *, wanted: int) -> None:
        """Let a process come, which says that the calls granted to it have started and ended."""
        known = self.replies.get(node)
        grants = known.news.grants if known else ()
        news: list[Happening] = list(happenings)
        for grant in grants:
            amounts = tuple(amount * grant.count for amount in grant.amounts)
            news += [Started(grant.due, amounts, grant.receipts), Ended(grant.due, amounts)]

        self.numbers[node] += 1
        request = Request(
            rules=rules_text(self.rules),
            node=f"process-{node:08}",
            number=self.numbers[node],
            epoch=self.epoch,
            fresh="epoch",
            expires=self.now + SECOND,
            grace=5000,
            horizon=HORIZON * self.waiting,
            lease=10_000 * SECOND,
            hold_back=0,
            alive=False,
            holds=False,
            census=(1, 1, 1),
            count_all=False,
            probe=(),
            received=tuple(grant.number for grant in grants),
            wants=(Want(self.unit, wanted),) if wanted else (),
            happenings=tuple(news),
        )
        flat = self.client.evalsha(self.sha, 1, "{bench:api}", *request_args(request), self.now)
        texts = [part.decode() if isinstance(part, bytes) else part for part in flat]
        reply = self.replies[node] = reply_of(texts)
        self.epoch = reply.news.epoch
        assert reply.status == "done"

    def calls(self) -> Iterator[None]:
        """Make an exchange at each step."""
        while True:
            for node in self.numbers:
                self.now += self.step + 5000 * (self.now == BEGINNING)
                self.exchange(node, wanted=1000 if self.waiting else 1)
                yield


def microseconds(client: Any, calls: Iterator[object]) -> float:
    """Return how long the server takes for a script, of so many."""
    for _ in range(CALLS // 10):
        next(calls)

    client.config_resetstat()
    for _ in range(CALLS):
        next(calls)

    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def bare(client: Any) -> Iterator[None]:
    sha = client.script_load(GCRA)
    while True:
        client.evalsha(sha, 1, "{bench:gcra}", 5000, SECOND)
        yield


def measure(client: Any) -> dict[str, dict[str, float]]:
    """Return the microseconds of each kind of exchange, for each size, and of a bare script."""
    found: dict[str, dict[str, float]] = {}
    for name, rules in RULES.items():
        for waiting in (False, True):
            row = found[f"{name}, {'all wait' if waiting else 'nobody waits'}"] = {}
            for size in SIZES:
                client.flushall()
                run = Run(client, rules(size.charges), size, waiting=waiting)
                run.prepare()
                row[str(size)] = microseconds(client, run.calls())

            row["bare GCRA"] = microseconds(client, bare(client))

    return found


def main() -> None:
    connect: Any = Valkey
    for kind in PROGRAMS:
        with server(kind) as running, connect(HOST, running.port) as client:
            runs = [measure(client) for _ in range(ROUNDS)]

        rows: list[tuple[object, ...]] = []
        for name, columns in runs[0].items():
            few, many, least = ([run[name][column] for run in runs] for column in columns)
            rows.append(
                (
                    name,
                    *(median(figures) for figures in (least, few, many)),
                    median(b / a for a, b in zip(few, many, strict=True)),
                    median(b / a for a, b in zip(least, many, strict=True)),
                )
            )

        head = ("", "bare GCRA", *map(str, SIZES), "times few", "times GCRA")
        print_table(f"What an exchange takes {kind}, in us by its own account", head, rows)


if __name__ == "__main__":
    main()
