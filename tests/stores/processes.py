"""Processes that share a limiter, and what becomes of their messages: without any waiting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from anythrottle.stores.exchange import (
    Amounts,
    Ended,
    GivenBack,
    Grant,
    Happening,
    Held,
    Micros,
    News,
    Push,
    Remembered,
    Reply,
    Request,
    Rule,
    Started,
    Want,
    rules_text,
)
from anythrottle.stores.ledger import Ledger

SECOND: Micros = 1_000_000

#: A server's instant at which all begins.
ORIGIN: Micros = 1_790_000_000 * SECOND

CALLS = "calls"


def window(limit: int, seconds: float = 1.0) -> Rule:
    return Rule("window", limit, round(seconds * SECOND), 0, CALLS)


def end_window(limit: int, seconds: float = 1.0) -> Rule:
    return Rule("end", limit, round(seconds * SECOND), 0, CALLS)


def bucket(limit: float, seconds: float = 1.0, *, burst: float = 1) -> Rule:
    return Rule("bucket", limit, round(seconds * SECOND), burst, CALLS)


def fixed(limit: int, seconds: float = 1.0, *, offset: Micros = -1) -> Rule:
    return Rule("fixed", limit, round(seconds * SECOND), offset, CALLS)


def slots(limit: int) -> Rule:
    return Rule("slots", limit, 0, 0, CALLS)


def make_request(rules: Sequence[Rule], node: str, number: int, **changes: object) -> Request:
    """Return a request that says and wants nothing, but for what is named."""
    plain = Request(
        rules=rules_text(rules),
        node=node,
        number=number,
        epoch="",
        fresh=f"{node}-{number}",
        expires=0,
        grace=0,
        horizon=0,
        lease=30 * SECOND,
        hold_back=2 * SECOND,
        alive=False,
        holds=False,
        census=(0, 0, 0),
        count_all=False,
        probe=(),
        received=(),
        wants=(),
        happenings=(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def wants_of(line: Iterable[Amounts]) -> tuple[Want, ...]:
    """Return what calls in line want, neighbours that want the same together."""
    return tuple(Want(amounts, len(list(group))) for amounts, group in groupby(line))


def times(amounts: Amounts, count: int) -> Amounts:
    return tuple(amount * count for amount in amounts)


@dataclass
class Turn:
    """A call that was granted, and may start."""

    due: Micros
    grace: Micros
    amounts: Amounts
    receipts: tuple[Micros, ...]


@dataclass(eq=False)
class Call:
    """A call that has started."""

    process: str
    amounts: Amounts
    start: Micros
    end: Micros | None = None


@dataclass
class Process:
    """
    What a process does about the limiter, step by step.

    It sends a request again until it is answered; it takes each grant once, starts calls while they
    are valid, and tells of that, or not.
    """

    name: str
    rules: tuple[Rule, ...]
    grace: Micros = 0
    horizon: Micros = 0
    lease: Micros = 30 * SECOND
    hold_back: Micros = 2 * SECOND
    #: For how long a request is worth being carried out.
    patience: Micros = SECOND // 4
    number: int = 0
    epoch: str = ""
    outstanding: Request | None = None
    come: Micros = ORIGIN
    paused_until: Micros = 0
    line: list[Amounts] = field(default_factory=list[Amounts])
    turns: list[Turn] = field(default_factory=list[Turn])
    seen: set[int] = field(default_factory=set[int])
    to_acknowledge: list[int] = field(default_factory=list[int])
    happenings: list[Happening] = field(default_factory=list[Happening])
    running: list[Call] = field(default_factory=list[Call])
    #: For each rule: the amounts that were charged, with their receipts.
    log: list[tuple[int, int, Micros]] = field(default_factory=list[tuple[int, int, Micros]])
    #: When it first sent the request that it repeats, and the latest one that was answered.
    sent_at: Micros = ORIGIN
    renewed_at: Micros = ORIGIN
    #: Older news are of before it was buried, maybe.
    news_from: Micros = 0
    buried: int = 0

    def request(self, now: Micros) -> Request:
        """Return what it sends now: the request that was not answered, or a new one."""
        if self.outstanding is None:
            self.number += 1
            self.sent_at = now
            happenings, self.happenings = tuple(self.happenings), []
            holds = any(self.holding())
        else:
            happenings, holds = self.outstanding.happenings, self.outstanding.holds

        coming = [turn.amounts for turn in self.turns]
        wanted: list[Amounts] = []
        for amounts in self.line:
            if amounts in coming:
                coming.remove(amounts)
            else:
                wanted.append(amounts)

        expires = now + self.patience
        self.outstanding = make_request(
            self.rules,
            self.name,
            self.number,
            epoch=self.epoch,
            expires=expires,
            alive=bool(self.epoch) and expires <= self.renewed_at + self.lease,
            grace=self.grace,
            horizon=self.horizon,
            lease=self.lease,
            hold_back=self.hold_back,
            holds=holds,
            received=tuple(self.to_acknowledge),
            wants=wants_of(wanted),
            happenings=happenings,
        )
        return self.outstanding

    def on_reply(self, request: Request, reply: Reply, now: Micros) -> None:
        outstanding = self.outstanding
        if outstanding is None or request.number != outstanding.number or reply.status == "stale":
            return

        if not self.leased(now):
            self.news_from = reply.news.now

        self.outstanding = None
        self.renewed_at = self.sent_at
        self.to_acknowledge = [n for n in self.to_acknowledge if n not in request.received]
        if reply.status == "lost":
            self.restore(reply.news.epoch, now)
        elif reply.status == "buried":
            self.lose_what_is_held(now)

        self.epoch = reply.news.epoch
        self.on_news(reply.news)

    def on_push(self, push: Push, now: Micros) -> None:
        if push.news.epoch != self.epoch or push.news.now < self.news_from or not self.leased(now):
            return

        if push.node:
            self.on_news(push.news)
        else:
            self.paused_until = push.news.paused_until
            if push.recall:
                self.give_back(len(self.turns))

    def on_news(self, news: News) -> None:
        self.paused_until = news.paused_until
        self.come = news.come
        for grant in news.grants:
            if grant.number not in self.seen:
                self.seen.add(grant.number)
                self.take(grant)

            if grant.number not in self.to_acknowledge:
                self.to_acknowledge.append(grant.number)

    def take(self, grant: Grant) -> None:
        assert len(grant.amounts) == len(grant.receipts) == len(self.rules)
        self.turns += [Turn(grant.due, grant.grace, grant.amounts, grant.receipts)] * grant.count

    def may_start(self, turn: Turn, now: Micros) -> bool:
        return (
            turn.amounts in self.line
            and turn.due <= now <= turn.due + turn.grace
            and now >= self.paused_until
            and (self.leased(now) or not any(self.held_by(turn.amounts)))
        )

    def start(self, turn: Turn, now: Micros, *, late: Micros = 0, told: bool = True) -> Call:
        """
        Start a call.

        :param late: by how much its start is told to be later than it was
        :param told: whether it is told
        """
        assert self.may_start(turn, now)
        self.turns.remove(turn)
        self.line.remove(turn.amounts)
        at = now + late
        if told:
            self.happenings.append(Started(at, turn.amounts, turn.receipts))

        for index, (amount, receipt) in enumerate(zip(turn.amounts, turn.receipts, strict=True)):
            if receipt:
                rule = self.rules[index]
                back_at = min(at + rule.window, receipt) if rule.kind == "window" else receipt
                self.log.append((index, amount, back_at))

        call = Call(self.name, turn.amounts, now)
        self.running.append(call)
        return call

    def end(self, call: Call, now: Micros, *, late: Micros = 0) -> None:
        self.running.remove(call)
        call.end = now
        if any(self.held_by(call.amounts)):
            self.happenings.append(Ended(now + late, self.held_by(call.amounts)))

        for index, rule in enumerate(self.rules):
            if rule.kind == "end":
                self.log.append((index, call.amounts[index], now + late + rule.window))

    def give_back(self, count: int) -> None:
        """Give turns back that are not used."""
        for turn in self.turns[:count]:
            self.happenings.append(GivenBack(turn.amounts, turn.receipts))

        del self.turns[:count]

    def held_by(self, amounts: Amounts) -> Amounts:
        return tuple(
            amount if rule.holds else 0 for rule, amount in zip(self.rules, amounts, strict=True)
        )

    def holding(self) -> Amounts:
        """Return what it believes to hold."""
        held = [0] * len(self.rules)
        amounts = [call.amounts for call in self.running] + [turn.amounts for turn in self.turns]
        for each in amounts:
            for index, amount in enumerate(self.held_by(each)):
                held[index] += amount

        return tuple(held)

    def restore(self, epoch: str, now: Micros) -> None:
        """Tell again what the server has forgotten."""
        self.epoch = epoch
        self.seen.clear()
        self.to_acknowledge.clear()
        charges = [
            *self.log,
            *(
                (index, amount, receipt)
                for turn in self.turns
                for index, (amount, receipt) in enumerate(
                    zip(turn.amounts, turn.receipts, strict=True)
                )
            ),
        ]
        self.happenings = [
            Remembered(index, amount, receipt)
            for index, amount, receipt in charges
            if amount and receipt > now
        ]
        if any(self.holding()):
            self.happenings.append(Held(self.holding()))

    def leased(self, now: Micros) -> bool:
        """Return whether the server cannot have buried it."""
        return now <= self.renewed_at + self.lease

    def lose_what_is_held(self, now: Micros) -> None:
        """What it held was taken from it: its calls end, and it has nothing of that to tell."""
        self.buried += 1
        for call in self.running:
            call.end = now

        self.running.clear()
        self.turns = [turn for turn in self.turns if not any(self.held_by(turn.amounts))]
        self.happenings = [
            happening
            for happening in self.happenings
            if not isinstance(happening, Ended)
            and not (isinstance(happening, GivenBack) and any(self.held_by(happening.amounts)))
        ]


def check_books(ledger: Ledger) -> None:
    """Check that what rules count is what processes hold and what was charged, no more, no less."""
    for index, rule in enumerate(ledger.rules):
        held = sum(node.held[index] for node in ledger.nodes.values())
        assert rule.held == held
        assert all(node.held[index] >= 0 for node in ledger.nodes.values())

    waiting = {name for name, node in ledger.nodes.items() if node.wants}
    assert sorted(ledger.queue) == sorted(waiting)
    assert bool(ledger.queue) == bool(ledger.watcher)
    assert not ledger.watcher or ledger.watcher in ledger.queue


def check_windows(rules: Sequence[Rule], calls: Sequence[Call]) -> None:
    """Check that no window holds more than its limit, however instants within calls are chosen."""
    for index, rule in enumerate(rules):
        if rule.kind == "window":
            check_window(rule, [(call.start, call.start, call.amounts[index]) for call in calls])
        elif rule.kind == "end":
            spans = [
                (call.start, call.end if call.end is not None else 2**62, call.amounts[index])
                for call in calls
            ]
            check_window(rule, spans)


def check_window(rule: Rule, spans: Sequence[tuple[Micros, Micros, int]]) -> None:
    for _, begin, _ in spans:
        # The window that begins at the last instant of a call: which others may be in it?
        inside = sum(
            amount for start, end, amount in spans if start < begin + rule.window and end >= begin
        )
        assert inside <= rule.limit
