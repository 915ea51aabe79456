"""
The server's side of a shared limiter: what has been charged, and which process is granted what.

This is the specification. It is a function of the state, a request and the server's time, so it can
be run with thousands of processes in virtual time; the scripts are its twin.

1. Grants are made in order: each for an instant that is not before the one granted last. A call may
   start within ``grace`` of that instant, and until its start is reported it counts as if it
   started at the last moment. So no window of the starts holds more than its limit: of the starts
   in a window, take the one that was granted last; all others were still counted then.
2. The processes that wait stand in a queue. Each request grants all that falls due within the
   horizon to them, in turn and in equal parts; what others than the caller get is pushed to them.
   A turn goes on, for calls of whatever cost, until its part is used, or what is next is not due.
   What flows into a bucket before a grant's instant goes with it, credited as if one by one.
3. One of them, the watcher, comes again when the next grant is near. If it does not come, the
   others stand in for it, one after the other.
4. A process that is silent for its lease is dead. What it holds counts from then on. One that does
   not acknowledge what it was granted is told again, and loses its place in the queue.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import final

from .exchange import (
    MARGIN,
    NEVER,
    Amounts,
    Charged,
    Ended,
    GivenBack,
    Grant,
    Happening,
    Held,
    Micros,
    News,
    Paused,
    Push,
    Remembered,
    Reply,
    Request,
    Resumed,
    Started,
    Status,
    Tightened,
    Want,
)
from .granting import Granting, Node

#: How much later than the watcher should have come the first process stands in for it.
STAND_IN: Micros = 50_000

#: How much later the next one comes, at least.
STAGGER: Micros = 5_000


@final
class Ledger(Granting):
    """
    The state of one shared limiter.

    :param request: the first request, which names the rules and the state
    :param now: the server's instant

    :ivar text: the rules, as :func:`.rules_text` has them
    :ivar epoch: the name of the state
    :ivar is_new: whether no process has been told yet that there is a new state
    :ivar served: how many processes waited before something was granted, in this exchange
    :ivar watcher: the process that comes again first, at ``watch_at``; empty for none
    :ivar expires_at: from when on the state does not matter any more, if no request comes before
    """

    def _begin(self, request: Request, now: Micros) -> None:
        """Begin with a new state."""
        super()._begin(request, now)
        self.text = request.rules
        self.epoch = request.fresh
        self.watcher = ""
        self.watch_at: Micros = NEVER
        self.is_new = True
        self.served = 0
        #: The end of the latest lease that there was.
        self.leased: Micros = 0
        self.expires_at = now

    def exchange(self, request: Request, now: Micros) -> tuple[Reply, list[Push]]:
        """
        Carry a request out.

        :return: the reply, and the news for other processes
        """
        self.served = 0
        if request.rules != self.text:
            return Reply("conflict", self._news(now), theirs=self.text), []

        if self._is_stale(request, now):
            return Reply("stale", self._news(now)), []

        self._bury_dead(now)
        if self._was_set_back(request):
            self._begin(request, now)

        status = self._status_of(request)
        node = self.nodes.setdefault(request.node, Node(0, 0, held=[0] * len(self.rules)))
        if status == "buried":
            node.buried = request.number

        recall = self._note(node, request, now, status)
        if self.is_new:
            # Processes that knew a former state have to tell what they were charged there.
            recall, self.is_new = bool(recall), False

        silent = self._pass_over_silent(now)
        self.served = len(self.queue)
        granted, due = self._serve(now)
        for rule in self.rules:
            rule.forget(now)

        pushes = self._pushes(request.node, granted, due, now)
        pushes += [self._reminder(name, due, now) for name in silent]
        if recall is not None:
            pushes.append(Push("", self._news(now), recall))

        self._live_on(now)
        return self._reply(status, request, node, due, now), pushes

    def _is_stale(self, request: Request, now: Micros) -> bool:
        """Return whether a request was given up, or overtaken."""
        if request.expires and now > request.expires:
            return True

        node = self.nodes.get(request.node)
        return node is not None and request.number < node.number

    def _was_set_back(self, request: Request) -> bool:
        """Return whether the state is an older one, from before the latest request of a process."""
        if request.epoch != self.epoch or not request.alive:
            return False

        node = self.nodes.get(request.node)
        return node is None or request.number > node.number + 1

    def _status_of(self, request: Request) -> Status:
        if request.epoch and request.epoch != self.epoch:
            return "lost"

        node = self.nodes.get(request.node)
        buried = request.holds if node is None else request.number == node.buried
        return "buried" if buried else "done"

    def _live_on(self, now: Micros) -> None:
        """Keep the state until it does not matter any more."""
        until = max(self.paused_until, self.held_back_until, self.leased)
        for rule in self.rules:
            until = max(until, rule.full_at(now), now + rule.window)

        # In whole milliseconds, as servers have it.
        self.expires_at = now + ceil((until - now + MARGIN) / 1000) * 1000

    def _bury_dead(self, now: Micros) -> None:
        """Drop the processes whose leases are over; what they held counts from now on."""
        dead = sorted((node.lease, name) for name, node in self.nodes.items() if node.lease < now)
        for _, name in dead:
            node = self.nodes.pop(name)
            if node.wants:
                self.queue.remove(name)

            for rule, held in zip(self.rules, node.held, strict=True):
                if held:
                    rule.count(held, now)

    def _pass_over_silent(self, now: Micros) -> list[str]:
        """Take processes that have not acknowledged their grants out of the queue; return them."""
        silent = sorted(
            (node.silent_at, name) for name, node in self.nodes.items() if node.silent_at < now
        )
        for _, name in silent:
            node = self.nodes[name]
            node.silent_at = NEVER
            self._want(name, node, [], now)

        return [name for _, name in silent]

    def _note(self, node: Node, request: Request, now: Micros, status: Status) -> bool | None:
        """
        Note what a process says.

        :return: whether others are to give back what they have in stock; ``None`` if nothing has
            happened that they have to know
        """
        node.lease = now + request.lease
        self.leased = max(self.leased, node.lease)
        node.grace, node.horizon = request.grace, request.horizon
        node.census = request.census
        news = None
        if status == "lost":
            # It will say anew what it holds and wants, and with what it has been charged.
            node.number = request.number
            node.inbox, node.silent_at = [], NEVER
            self._want(request.node, node, [], now)
            return None

        received = set(request.received)
        node.inbox = [grant for grant in node.inbox if grant.number not in received]
        node.silent_at = node.patience_from(max(node.inbox[0].due, now)) if node.inbox else NEVER
        if request.number > node.number:
            node.number = request.number
            for happening in request.happenings:
                told = self._apply(node, happening, now)
                news = told if news is None else news or bool(told)

        self._want(request.node, node, _unmet(request.wants, node.inbox), now)
        return news

    def _apply(self, node: Node, happening: Happening, now: Micros) -> bool | None:
        """Note what has happened; return as :meth:`_note` does."""
        match happening:
            case Paused(until):
                self.paused_until = max(self.paused_until, until)
                return False
            case Resumed():
                self.paused_until = min(self.paused_until, now)
                return False
            case Tightened(index, remaining, reset):
                self.rules[index].tighten(remaining, reset, now)
                return True
            case Remembered(index, amount, receipt):
                self.rules[index].remember(amount, receipt, now)
            case _:
                for index in range(len(self.rules)):
                    self._move(node, happening, index, now)

        return None

    def _move(
        self,
        node: Node,
        happening: Started | GivenBack | Ended | Charged | Held,
        index: int,
        now: Micros,
    ) -> None:
        """Note what has happened to what one rule has charged, or charges now."""
        rule, amount = self.rules[index], happening.amounts[index]
        if not amount:
            return

        match happening:
            case Started(at, _, receipts) if receipts[index]:
                rule.start(amount, at, receipts[index])
            case GivenBack(_, receipts) if receipts[index]:
                rule.give_back(amount, receipts[index], now)
            case GivenBack():
                self._hold(node, index, -min(amount, node.held[index]))
            case Ended(at):
                part = min(amount, node.held[index])
                if part:
                    node.held[index] -= part
                    rule.count(part, at)
            case Charged(at, _, held) if not (held and rule.holds):
                rule.charge_now(amount, at, now)
            case Charged() | Held():
                self._hold(node, index, amount)
            case _:
                # A start: what is held goes on being held.
                pass

    def _hold(self, node: Node, index: int, amount: int) -> None:
        node.held[index] += amount
        self.rules[index].held += amount

    def _pushes(
        self, caller: str, granted: dict[str, list[Grant]], due: Micros, now: Micros
    ) -> list[Push]:
        """Return the news for others; make one of those that wait the watcher, and tell it."""
        told = [name for name in granted if name != caller]
        if self.queue:
            horizon = self.nodes[self.queue[0]].horizon
            come = self._first_silence() if due == NEVER else max(due - horizon // 2, now + 1)
            overdue = now > self.watch_at + STAND_IN + horizon
            gone = self.watcher not in self.queue or overdue
            if caller in self.queue and (gone or self.watcher == caller or come < self.watch_at):
                self.watcher = caller
            elif gone:
                self.watcher = self.queue[0]

            if (
                self.watcher != caller
                and self.watcher not in told
                and (gone or come < self.watch_at)
            ):
                told.append(self.watcher)

            if self.watcher in (caller, *told):
                self.watch_at = come
        else:
            self.watcher, self.watch_at = "", NEVER

        return [
            Push(name, self._news(now, name, due, tuple(granted.get(name, ())))) for name in told
        ]

    def _reminder(self, name: str, due: Micros, now: Micros) -> Push:
        """Return the news for a process that has not acknowledged what it was granted."""
        news = self._news(now, name, due, tuple(self.nodes[name].inbox))
        return Push(name, replace(news, come=now))

    def _first_silence(self) -> Micros:
        """Return when a silent process may lose its place or what it holds, so that others go."""
        silences = [node.silent_at for node in self.nodes.values()]
        leases = [node.lease for node in self.nodes.values() if any(node.held)]
        return min(min((*silences, *leases), default=NEVER) + 1, NEVER)

    def _come(self, name: str, due: Micros) -> Micros:
        """Return when a process shall come again."""
        if name == self.watcher:
            return self.watch_at

        # Until a call ends, only the watcher has a reason to come.
        due = self.watch_at if due == NEVER else due
        if name not in self.queue or due == NEVER:
            return NEVER

        position = self.queue.index(name)
        horizon = self.nodes[name].horizon
        return due + STAND_IN + horizon + position * max(STAGGER, horizon // 4)

    def _news(
        self,
        now: Micros,
        name: str = "",
        due: Micros = NEVER,
        grants: tuple[Grant, ...] = (),
    ) -> News:
        until = max(self.paused_until, self.held_back_until)
        come = self._come(name, due) if name else NEVER
        return News(self.epoch, now, until, come, due, len(self.queue), grants, self.served)

    def _reply(
        self, status: Status, request: Request, node: Node, due: Micros, now: Micros
    ) -> Reply:
        news = self._news(now, request.node, due, tuple(node.inbox))
        quotas = tuple(rule.quota(now) for rule in self.rules)
        census = (0, 0, 0)
        if request.count_all:
            waiting, running, kept = zip(*(n.census for n in self.nodes.values()), strict=True)
            census = (sum(waiting), sum(running), sum(kept))

        probed = 0
        if request.probe:
            probed = self._earliest(request.probe, replace(node, grace=0), now, now)[1]

        return Reply(status, news, quotas, census, probed)


def _unmet(wants: tuple[Want, ...], inbox: list[Grant]) -> list[Want]:
    """Return what is wanted on top of the grants that are under way."""
    coming: dict[Amounts, int] = {}
    for grant in inbox:
        coming[grant.amounts] = coming.get(grant.amounts, 0) + grant.count

    unmet: list[Want] = []
    for want in wants:
        met = min(want.count, coming.get(want.amounts, 0))
        if met:
            coming[want.amounts] -= met

        if want.count > met:
            unmet.append(Want(want.amounts, want.count - met))

    return unmet
