"""The server's side of a shared limiter, judged by what its processes do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.stores.exchange import (
    Amounts,
    Charged,
    Push,
    Quota,
    Reply,
    Request,
    Rule,
    Tightened,
)
from anythrottle.stores.ledger import Ledger
from tests.properties import examples
from tests.stores.processes import (
    ORIGIN,
    SECOND,
    Call,
    Process,
    bucket,
    check_books,
    check_windows,
    end_window,
    fixed,
    slots,
    window,
)


@dataclass
class World:
    """Processes and a server, to which everything happens at random: late, twice, or never."""

    rules: tuple[Rule, ...]
    random: Random
    now: int = ORIGIN
    #: How often a process dies, gives up, or hears of a service's figures.
    rare: float = 0.006
    ledger: Ledger | None = None
    processes: list[Process] = field(default_factory=list[Process])
    dead: list[Process] = field(default_factory=list[Process])
    requests: list[tuple[Process, Request]] = field(default_factory=list)
    replies: list[tuple[Process, Request, Reply]] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list[Push])
    calls: list[Call] = field(default_factory=list[Call])

    def __post_init__(self) -> None:
        # A short one is over now and then, before its process has been heard.
        self.lease = self.random.choice([SECOND // 2, 4 * SECOND])
        for number in range(self.random.randint(1, 4)):
            self.join(f"p{number}")

    def join(self, name: str) -> None:
        grace = self.random.choice([0, 50_000, 100_000, 300_000])
        horizon = self.random.choice([0, 0, 5000, 100_000])
        if any(rule.holds for rule in self.rules):
            horizon = 0

        process = Process(name, self.rules, grace, horizon, lease=self.lease, renewed_at=self.now)
        self.processes.append(process)

    def step(self) -> None:
        actions = [
            *[self.pass_by, self.talk, self.start] * 4,
            *[self.send, self.deliver_request, self.deliver_reply, self.deliver_push] * 2,
            *[self.ask, self.ask, self.end, self.end, self.end],
        ]
        self.random.choice(actions)()
        if self.random.random() < self.rare:
            rare = [
                self.die,
                self.cancel,
                self.tighten,
                self.penalize,
                self.give_back,
                self.give_back,
            ]
            self.random.choice(rare)()

    def some(self) -> Process:
        return self.random.choice(self.processes)

    def pass_by(self) -> None:
        self.let_pass(self.random.choice([0, 1, 100, 10_000, 50_000, 200_000]))

    def let_pass(self, micros: int) -> None:
        until = self.now + micros
        for process in self.processes:
            over = process.renewed_at + process.lease
            if until > over:
                # It starts nothing more on what it holds, and its calls end in time.
                for call in process.running.copy():
                    process.end(call, max(self.now, min(over, until)))

        self.now = until

    def send(self) -> None:
        process = self.some()
        self.requests.append((process, process.request(self.now)))

    def deliver_request(self) -> None:
        if self.requests:
            process, request = take_one(self.requests, self.random)
            reply, pushes = self.exchange(request)
            self.replies.append((process, request, reply))
            self.pushes += pushes

    def talk(self) -> None:
        """Let a process exchange without any delay or loss."""
        process = self.some()
        request = process.request(self.now)
        reply, pushes = self.exchange(request)
        process.on_reply(request, reply, self.now)
        self.pushes += pushes

    def exchange(self, request: Request) -> tuple[Reply, list[Push]]:
        if self.ledger is None:
            self.ledger = Ledger(request, self.now)

        reply, pushes = self.ledger.exchange(request, self.now)
        check_books(self.ledger)
        return reply, pushes

    def deliver_reply(self) -> None:
        if self.replies:
            process, request, reply = take_one(self.replies, self.random)
            process.on_reply(request, reply, self.now)

    def deliver_push(self) -> None:
        if self.pushes:
            push = take_one(self.pushes, self.random)
            for process in self.processes:
                if push.node in (process.name, ""):
                    process.on_push(push, self.now)

    def start(self) -> None:
        process = self.some()
        while turns := [turn for turn in process.turns if process.may_start(turn, self.now)]:
            late = self.random.choice([0, 0, 10, 100_000])
            told = self.random.random() < 0.7
            turn = self.random.choice(turns)
            self.calls.append(process.start(turn, self.now, late=late, told=told))

    def ask(self) -> None:
        process = self.some()
        amounts = self.random.choice(costs(self.rules))
        process.line += [amounts] * self.random.choice([1, 1, 3])

    def end(self) -> None:
        process = self.some()
        if process.running:
            call = self.random.choice(process.running)
            process.end(call, self.now, late=self.random.choice([0, 0, 10]))

    def give_back(self) -> None:
        process = self.some()
        process.give_back(self.random.choice([1, 9]))
        # Those that cannot start any more stand first.
        process.turns.sort(key=lambda turn: turn.due)

    def cancel(self) -> None:
        self.some().line.clear()

    def die(self) -> None:
        if len(self.processes) > 1:
            process = self.some()
            self.processes.remove(process)
            for call in process.running:
                call.end = self.now

            self.join(f"q{self.now}-{len(self.calls)}-{self.random.random()}")

    def tighten(self) -> None:
        index = self.random.randrange(len(self.rules))
        reset = self.random.choice([-1, self.now + 300_000, self.now + 10 * SECOND])
        remaining = self.random.randrange(4)
        self.some().happenings.append(Tightened(index, remaining, reset))

    def penalize(self) -> None:
        amounts = self.random.choice(costs(self.rules))
        self.some().happenings.append(Charged(self.now, amounts, held=False))

    def exchange_quotas(self) -> tuple[Quota, ...]:
        return self.exchange(self.processes[0].request(self.now))[0].quotas

    def lose_state(self) -> None:
        """Let the server forget all, and all processes that knew it find that out."""
        self.ledger = None
        self.requests = [(process, request) for process, request in self.requests if request.epoch]
        knowing = [process for process in self.processes if process.epoch]
        for process in [*knowing, *knowing, *knowing]:
            self.let_pass(self.random.choice([0, 10_000]))
            if self.random.random() < 0.5:
                self.start()

            request = process.request(self.now)
            reply, pushes = self.exchange(request)
            process.on_reply(request, reply, self.now)
            self.pushes += pushes

    def settle(self) -> None:
        """End all calls, give all back, and let all be told and answered."""
        for process in self.processes:
            process.line.clear()
            process.give_back(len(process.turns))
            for call in process.running.copy():
                process.end(call, self.now)

        for _ in range(3):
            for process in self.processes:
                request = process.request(self.now)
                reply, _ = self.exchange(request)
                process.on_reply(request, reply, self.now)
                process.give_back(len(process.turns))


T = TypeVar("T")


def take_one(messages: list[T], random: Random) -> T:
    """Return any of the messages; it may be taken away, and others with it: they are lost."""
    message = random.choice(messages)
    if random.random() < 0.8:
        messages.remove(message)

    if len(messages) > 9:
        messages.pop(random.randrange(len(messages)))

    return message


def costs(rules: Sequence[Rule]) -> list[Amounts]:
    """Return what calls may be charged: a slot each, and up to 3 of the rest."""
    return [
        tuple(1 if rule.kind == "slots" else min(cost, int(rule.limit)) for rule in rules)
        for cost in (1, 1, 1, 3)
    ]


SETS = [
    [window(3)],
    [window(7, 0.5)],
    [end_window(3)],
    [window(4), window(9, 3)],
    [window(5), bucket(4, burst=3), slots(2)],
    [end_window(4), fixed(6, 2), slots(3)],
    [fixed(4, 1, offset=0), window(5)],
]


@pytest.mark.parametrize("rules", SETS)
class TestWhateverBecomesOfMessages:
    @examples(40)
    @given(st.integers(0, 2**32))
    def test_no_window_holds_more_than_its_limit(self, rules: list[Rule], seed: int) -> None:
        world = World(tuple(rules), Random(seed))  # noqa: S311 - to be the same each time
        for _ in range(700):
            world.step()
            for index, rule in enumerate(rules):
                if rule.kind == "slots":
                    running = [call for process in world.processes for call in process.running]
                    assert sum(call.amounts[index] for call in running) <= rule.limit

        check_windows(rules, world.calls)
        # Nothing leaks: once the dead are buried, and it has come back, all is there again.
        for _ in range(3):
            world.settle()
            world.let_pass(60 * SECOND)

        assert world.ledger is not None
        for state, quota in zip(world.ledger.rules, world.exchange_quotas(), strict=True):
            assert quota.remaining == math.floor(state.capacity)
            assert state.held == 0

    @examples(30)
    @given(st.integers(0, 2**32))
    def test_not_even_after_the_state_was_lost(self, rules: list[Rule], seed: int) -> None:
        # Of processes that are gone nobody can tell again what they were charged.
        world = World(tuple(rules), Random(seed), rare=0)  # noqa: S311 - to be the same each time
        for _ in range(4):
            for _ in range(200):
                world.step()

            world.lose_state()

        for _ in range(200):
            world.step()

        check_windows(rules, world.calls)
