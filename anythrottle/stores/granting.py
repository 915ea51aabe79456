"""Grants what falls due to the processes that wait, in turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import final

from .agreement import Agreement
from .exchange import NEVER, Amounts, Grant, Micros, Request, Want
from .rule_states import BucketState, rules_of, state_of

#: After how many grants an exchange ends; the watcher comes at once for what is still due.
MOST_GRANTS = 100

#: How long calls wait for those behind them if a bucket would let them go one after the other.
GATHER: Micros = 1000

#: For how long a process may leave what it was granted unacknowledged, on top of the grace and of
#: twice the horizon.
SILENCE: Micros = 50_000


@final
@dataclass(slots=True)
class Node:
    """
    A process, as the server knows it.

    :ivar number: the number of its latest request
    :ivar buried: the number of the request whose reply said that what the process held is lost, -1
        for none
    :ivar lease: until when it is alive, if it says nothing more
    :ivar grace: for how long its grants shall be valid
    :ivar horizon: how far ahead they may reach
    :ivar silent_at: when it counts as silent, unless it acknowledges what it was granted
    :ivar came: since when it has been waiting
    :ivar held: what it holds, for each rule
    :ivar census: how many of its calls wait, run and are kept: as it has told, and as follows from
        what it was granted since
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
        """Return until when it may leave a grant unacknowledged that is due at an instant."""
        return due + self.grace + 2 * self.horizon + SILENCE


@final
@dataclass(slots=True)
class Turns:
    """
    How far the turns of an exchange have come.

    :ivar left: how many of the processes that share what falls due at an instant have a turn yet
    :ivar at: that instant
    :ivar used: which part of this turn is used
    :ivar made: how many grants were made
    """

    left: int = 0
    at: Micros = 0
    used: float = 0.0
    made: int = 0


class Granting:
    """
    The part of a ledger that makes grants.

    :param request: the first request, which names the rules and the state
    :param now: the server's instant

    :ivar nodes: the processes that are alive
    :ivar queue: the processes that wait, the next one first
    :ivar last: the latest instant that was granted
    :ivar due_since: since when the next call has been due, or will be; :data:`.NEVER` if no process
        waits, or if it waits for the end of a call
    :ivar granted: the number of the latest grant
    """

    def __init__(self, request: Request, now: Micros) -> None:
        self._begin(request, now)

    def _begin(self, request: Request, now: Micros) -> None:
        """Begin with a new state."""
        self.rules = [state_of(rule) for rule in rules_of(request.rules)]
        self.agreement = Agreement(self.rules)
        self.nodes: dict[str, Node] = {}
        self.queue: list[str] = []
        self.paused_until: Micros = 0
        # If there was a former state, calls that it granted may still start, or be told of.
        self.held_back_until = now + request.hold_back if request.epoch else 0
        self.last: Micros = 0
        self.due_since: Micros = NEVER
        self.granted = 0

    def _want(self, name: str, node: Node, wants: list[Want], now: Micros) -> None:
        """Note what a process wants; it joins or leaves the queue accordingly."""
        if wants and not node.wants:
            node.came = now
            self.queue.append(name)
        elif node.wants and not wants:
            self.queue.remove(name)

        node.wants = wants

    def _serve(self, now: Micros) -> tuple[dict[str, list[Grant]], Micros]:
        """
        Grant what is due within the horizon, in turn.

        :return: what each process was granted, and when the next one is due
        """
        granted: dict[str, list[Grant]] = {}
        turns = Turns()
        # No call is credited for the time in which the next one was held up.
        self.due_since = min(self.due_since, now)
        while self.queue:
            name = self.queue[0]
            node = self.nodes[name]
            want = node.wants[0]
            since = max(node.came, self.due_since)
            since, instant = self._earliest(want.amounts, node, since, now)
            due = instant <= now + node.horizon and turns.made < MOST_GRANTS
            if not (due or turns.used):
                self.due_since = since
                return granted, instant

            count = self._share(turns, node, (since, instant), now) if due else 0
            if count:
                self.due_since = since
                instant = turns.at = self.agreement.last_of(want.amounts, count, since, instant)
                turns.made += 1
                grant = self._grant(node, count, (since, instant), now)
                granted.setdefault(name, []).append(grant)

            if not count or turns.used >= 1 or not node.wants:
                turns.left, turns.used = turns.left - 1, 0.0
                del self.queue[0]
                if node.wants:
                    self.queue.append(name)

        self.due_since = NEVER
        return granted, NEVER

    def _share(self, turns: Turns, node: Node, when: tuple[Micros, Micros], now: Micros) -> int:
        """
        Return how many of the calls that it wants first a process is granted in its turn.

        :param when: since when they have been due, and their instant
        """
        _, instant = when
        if not turns.left or instant > turns.at:
            # All processes that wait share what falls due at one instant.
            turns.left, turns.at = len(self.queue), instant

        want = node.wants[0]
        latest = min(instant + GATHER, now + node.horizon) if instant > now else instant
        part = self.agreement.part(want.amounts, when, latest, turns.left)
        count = min(floor((1 - turns.used) * part + 0.5), want.count)
        turns.used += count / part
        return count

    def _earliest(
        self, amounts: Amounts, node: Node, since: Micros, now: Micros
    ) -> tuple[Micros, Micros]:
        """
        Return since when a call has been due, or will be, and the instant that it can have.

        :param since: the instant before which it could not go for other reasons
        """
        since = max(since, self.paused_until, self.held_back_until)
        since = self.agreement.first(amounts, since, node.grace, buckets=True)
        if since == NEVER:
            return NEVER, NEVER

        return since, self.agreement.first(
            amounts, max(since, now, self.last), node.grace, buckets=False
        )

    def _grant(self, node: Node, count: int, when: tuple[Micros, Micros], now: Micros) -> Grant:
        """
        Grant a process so many of the calls that it wants first.

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
                # Not earlier, because entries that have come back tell since when it has been due.
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
        # An estimate, which holds until the process speaks again.
        waiting, running, kept = node.census
        begin = count if any(rule.holds for rule in self.rules) else 0
        node.census = (max(waiting - count, 0), running + begin, kept)
        return grant
