"""
The server's side of a shared limiter: what has been charged, and which process is granted what.

This is the specification. It is a function of the state, a request and the server's time, so it can
be run with thousands of processes in virtual time; the scripts are its twin.

1. Grants are made in order: each for an instant that is not before the one granted last. A call may
   start within ``grace`` of that instant, and until its start is reported it counts as if it
   started at the last moment. So no window of the starts holds more than its limit: of the starts
   in a window, take the one that was granted last; all others were still counted then.
2. The processes that wait stand in a queue. Whoever comes, all that falls due within the horizon is
   granted to them in turn, each an equal part; what others than the caller get is pushed to them.
   A turn goes on, for calls of whatever cost, until its part is used, or what is next is not due.
   What flows into a bucket before a grant's instant goes with it, credited as if one by one.
3. One of them, the watcher, comes again when the next grant is near. The others stand in for it,
   one after the other, should it not come.
4. A process that is silent for its lease is dead. What it holds counts from then on. One that does
   not even acknowledge what it was granted is told again, and loses its place in the queue.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import floor
from typing import final

from .exchange import (
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
from .ledger_rules import ANY_NUMBER, BucketState, FixedState, rules_of, state_of

#: By how much the first of those that stand in comes after the watcher should have.
STAND_IN: Micros = 50_000

#: How much later the next one comes, at least.
STAGGER: Micros = 5_000

#: After how many grants an exchange ends; the watcher comes at once for what is due yet.
MOST_GRANTS = 100

#: How long calls wait for those behind them if a bucket would let them go one after the other.
GATHER: Micros = 1000

#: For how long a process may leave what it was granted unacknowledged, on top of the grace and of
#: twice the horizon.
SILENCE: Micros = 50_000

#: How often rules are asked for an instant to which all agree.
PASSES = 8


@final
@dataclass(slots=True)
class Node:
    """
    A process, as the server knows it.

    :ivar number: the number of its latest request
    :ivar buried: the number of the request that it was told so by, -1 for none
    :ivar lease: until when it is alive, if it says nothing more
    :ivar grace: for how long its grants shall be valid
    :ivar horizon: how far ahead they may reach
    :ivar silent_at: when it surely has not noticed what it was granted, unless it acknowledges
    :ivar came: since when it has been waiting
    :ivar held: what it holds, for each rule
    :ivar census: how many of its calls wait, run and are kept
    :ivar inbox: the grants that it has not acknowledged
    :ivar wants: what it waits for, from the front
    """

    number: int
    lease: Micros
    buried: int = -1
    grace: Micros = 0
    horizon: Micros = 0
    silent_at: Micros = NEVER
    came: Micros = 0
    held: list[int] = field(default_factory=list[int])
    census: tuple[int, int, int] = (0, 0, 0)
    inbox: list[Grant] = field(default_factory=list[Grant])
    wants: list[Want] = field(default_factory=list[Want])

    def patience_from(self, due: Micros) -> Micros:
        """Return when it surely has not noticed a grant."""
        return due + self.grace + 2 * self.horizon + SILENCE


@final
class Ledger:
    """
    The state of one shared limiter.

    :param request: the first request, which names the rules and the state
    :param now: the server's instant

    :ivar nodes: the processes that are alive
    :ivar queue: those that wait, the next one first
    :ivar last: the latest instant that was granted
    :ivar due_since: since when the next call has been due, or will be; :data:`.NEVER` if nobody
        waits, or for the end of a call
    :ivar granted: the number of the latest grant
    :ivar watcher: who comes again first, and when; empty for nobody
    """

    def __init__(self, request: Request, now: Micros) -> None:
        self._begin(request, now)

    def _begin(self, request: Request, now: Micros) -> None:
        """Begin with a new state."""
        self.text = request.rules
        self.epoch = request.fresh
        self.rules = [state_of(rule) for rule in rules_of(request.rules)]
        self.nodes: dict[str, Node] = {}
        self.queue: list[str] = []
        self.paused_until: Micros = 0
        # Whoever knew a former state has made grants that may start yet, or be told of.
        self.held_back_until = now + request.hold_back if request.epoch else 0
        self.last: Micros = 0
        self.due_since: Micros = NEVER
        self.granted = 0
        self.watcher = ""
        self.watch_at: Micros = NEVER

    def exchange(self, request: Request, now: Micros) -> tuple[Reply, list[Push]]:
        """
        Carry a request out.

        :return: the reply, and the news for other processes
        """
        if request.rules != self.text:
            return Reply("conflict", self._news(now), theirs=self.text), []

        if request.expires and now > request.expires:
            return Reply("stale", self._news(now)), []

        node = self.nodes.get(request.node)
        if node is not None and request.number < node.number:
            return Reply("stale", self._news(now)), []

        self._bury_dead(now)
        node = self.nodes.get(request.node)
        if self._was_set_back(request, node):
            self._begin(request, now)
            node = None

        status = self._status_of(request, node)
        if node is None:
            node = Node(0, 0, held=[0] * len(self.rules))
            self.nodes[request.node] = node

        if status == "buried":
            node.buried = request.number

        recall = self._note(node, request, now, status)
        silent = self._pass_over_silent(now)
        granted, due = self._serve(now)
        for rule in self.rules:
            rule.forget(now)

        pushes = self._pushes(request.node, granted, due, now)
        pushes += [self._reminder(name, due, now) for name in silent]
        if recall is not None:
            pushes.append(Push("", self._news(now), recall))

        return self._reply(status, request, node, due, now), pushes

    def _was_set_back(self, request: Request, node: Node | None) -> bool:
        """Return whether the state is an older one, from before the latest request of a process."""
        if request.epoch != self.epoch or not request.alive:
            return False

        return node is None or request.number > node.number + 1

    def _status_of(self, request: Request, node: Node | None) -> Status:
        if request.epoch and request.epoch != self.epoch:
            return "lost"

        buried = request.holds if node is None else request.number == node.buried
        return "buried" if buried else "done"

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
        """Let those wait no more that have not noticed what they were granted; return who it is."""
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

    def _want(self, name: str, node: Node, wants: list[Want], now: Micros) -> None:
        """Note what a process wants; it joins the queue, or leaves it, by that."""
        if wants and not node.wants:
            node.came = now
            self.queue.append(name)
        elif node.wants and not wants:
            self.queue.remove(name)

        node.wants = wants

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

    def _serve(self, now: Micros) -> tuple[dict[str, list[Grant]], Micros]:
        """
        Grant what is due within the horizon, in turn.

        :return: what was granted to whom, and when the next process is due
        """
        granted: dict[str, list[Grant]] = {}
        # How many have a turn yet, and which part of this turn is used.
        turns, used = 0, 0.0
        made, at = 0, 0
        # What held the next call up until now is credited to no call.
        self.due_since = min(self.due_since, now)
        while self.queue:
            name = self.queue[0]
            node = self.nodes[name]
            want = node.wants[0]
            since = max(node.came, self.due_since)
            since, instant = self._earliest(want.amounts, node, since, now)
            due = instant <= now + node.horizon and made < MOST_GRANTS
            if not (due or used):
                self.due_since = since
                return granted, instant

            count = 0
            if due:
                if not turns or instant > at:
                    # What falls due at one instant is shared by all that wait.
                    turns, at = len(self.queue), instant

                latest = min(instant + GATHER, now + node.horizon) if instant > now else instant
                part = self._part(want.amounts, (since, instant), latest, turns)
                count = min(floor((1 - used) * part + 0.5), want.count)
                used += count / part

            if count:
                self.due_since = since
                instant = at = self._last_of(want.amounts, count, since, instant)
                made += 1
                grant = self._grant(node, count, (since, instant), now)
                granted.setdefault(name, []).append(grant)

            if not count or used >= 1 or not node.wants:
                turns, used = turns - 1, 0.0
                del self.queue[0]
                if node.wants:
                    self.queue.append(name)

        self.due_since = NEVER
        return granted, NEVER

    def _earliest(
        self, amounts: Amounts, node: Node, since: Micros, now: Micros
    ) -> tuple[Micros, Micros]:
        """
        Return since when a call has been due, or will be, and the instant that it can have.

        :param since: before which it could not go for other reasons
        """
        since = max(since, self.paused_until, self.held_back_until)
        since = self._agreed(amounts, since, node.grace, buckets=True)
        if since == NEVER:
            return NEVER, NEVER

        return since, self._agreed(amounts, max(since, now, self.last), node.grace, buckets=False)

    def _agreed(self, amounts: Amounts, instant: Micros, grace: Micros, *, buckets: bool) -> Micros:
        """
        Return the first instant, not before another one, to which all rules agree.

        Only the edges of fixed windows may make an instant unfit that was fit before. If they leave
        no room between them, they are left out of account.
        """
        agreed = instant
        for _ in range(PASSES):
            before = agreed
            for rule, amount in zip(self.rules, amounts, strict=True):
                if amount and agreed < NEVER and (buckets or not isinstance(rule, BucketState)):
                    agreed = rule.earliest(amount, agreed, grace)

            if agreed in (before, NEVER):
                return agreed

        return self._agreed(amounts, instant, 0, buckets=buckets)

    def _part(
        self, amounts: Amounts, when: tuple[Micros, Micros], latest: Micros, turns: int
    ) -> int:
        """
        Return how many calls, alike, are a turn's part of what is there.

        :param when: since when the first one has been due, and its instant
        :param latest: the instant that the last one may have, should they go one by one
        """
        since, instant = when
        there = self._fits(amounts, since, instant, instant)
        if there == 1 and since == instant < latest and not self._has_edges(amounts):
            return self._fits(amounts, since, instant, latest)

        return -(-there // turns)

    def _fits(self, amounts: Amounts, since: Micros, instant: Micros, latest: Micros) -> int:
        """Return how many calls, alike, may go at an instant, or until the latest: at least 1."""
        # What overflows while calls wait for several buckets is hard to tell.
        until = latest if self._bucket_of(amounts) else since
        there = ANY_NUMBER
        for rule, amount in zip(self.rules, amounts, strict=True):
            if amount and isinstance(rule, BucketState):
                there = min(there, rule.fits_until(amount, since, until))
            elif amount:
                there = min(there, rule.fits(amount, instant))

        return max(there, 1)

    def _bucket_of(self, amounts: Amounts) -> tuple[BucketState, int] | None:
        """Return the one bucket that charges a call, and how much; ``None`` if it isn't one."""
        buckets = [
            (rule, amount)
            for rule, amount in zip(self.rules, amounts, strict=True)
            if amount and isinstance(rule, BucketState)
        ]
        return buckets[0] if len(buckets) == 1 else None

    def _has_edges(self, amounts: Amounts) -> bool:
        """Return whether a later instant may be unfit though an earlier one was fit."""
        return any(
            amount and isinstance(rule, FixedState)
            for rule, amount in zip(self.rules, amounts, strict=True)
        )

    def _last_of(self, amounts: Amounts, count: int, since: Micros, instant: Micros) -> Micros:
        """Return the instant at which the last of so many calls can go."""
        found = self._bucket_of(amounts)
        if count == 1 or not found:
            return instant

        bucket, amount = found
        return max(instant, bucket.due_from(amount * count, since))

    def _grant(self, node: Node, count: int, when: tuple[Micros, Micros], now: Micros) -> Grant:
        """
        Grant a process so many calls of those that it wants first.

        :param when: since when they have been due, and their instant
        """
        since, instant = when
        want = node.wants[0]
        amounts = want.amounts
        if count < want.count:
            node.wants[0] = Want(amounts, want.count - count)
        else:
            del node.wants[0]

        receipts: list[Micros] = []
        for index, (rule, amount) in enumerate(zip(self.rules, amounts, strict=True)):
            receipt = 0
            if amount:
                at = since if isinstance(rule, BucketState) else instant
                # Not before: what has come back tells since when this call has been due.
                rule.forget(now)
                receipt = rule.charge(amount * count, at, node.grace)

            if amount and rule.holds:
                node.held[index] += amount * count

            receipts.append(receipt)

        self.last = max(self.last, instant)
        self.granted += 1
        grant = Grant(self.granted, instant, node.grace, amounts, tuple(receipts), count)
        node.inbox.append(grant)
        node.silent_at = min(node.silent_at, node.patience_from(instant))
        return grant

    def _pushes(
        self, caller: str, granted: dict[str, list[Grant]], due: Micros, now: Micros
    ) -> list[Push]:
        """Return the news for others, and see to it that somebody watches the clock."""
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
        """Return the news for a process that has not noticed what it was granted."""
        news = self._news(now, name, due, tuple(self.nodes[name].inbox))
        return Push(name, replace(news, come=now))

    def _first_silence(self) -> Micros:
        """Return when something may be let go of which its process says nothing."""
        silences = [node.silent_at for node in self.nodes.values()]
        leases = [node.lease for node in self.nodes.values() if any(node.held)]
        return min(min((*silences, *leases), default=NEVER) + 1, NEVER)

    def _come(self, name: str, due: Micros) -> Micros:
        """Return when a process shall come again."""
        if name == self.watcher:
            return self.watch_at

        # Until a call ends, nobody but the watcher has a reason to come.
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
        return News(self.epoch, now, until, come, due, len(self.queue), grants)

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
