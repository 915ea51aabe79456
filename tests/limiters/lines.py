"""
Lines without tasks: those before a gate, and what happens to them, at instants of one's own.

What is told there is compared with the whole line simulated anew, for each question.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from anythrottle import FixedWindow, TokenBucket, WindowTokenBucket
from anythrottle._limiters.forecast import Forecasts
from anythrottle._limiters.local_gate import LocalGate
from anythrottle._limiters.queue import TurnQueue
from anythrottle._limiters.slots import Slots
from anythrottle._limiters.turn import Turn
from anythrottle._loops.clock import LoopClock
from anythrottle.abc import Policy


def has_passed(latest: float, instant: float) -> bool:
    """Return whether an instant comes after the latest one for a turn: not by rounding alone."""
    return instant - latest > 64 * math.ulp(instant)


def due_anew(
    gate: LocalGate,
    queue: TurnQueue,
    now: float,
    amounts: Sequence[int],
    priority: int,
    *,
    ended: bool = True,
) -> float:
    """Return when a newcomer would go: the whole line before it, simulated anew."""
    buckets = [bucket.ahead(now, ended=ended) for bucket in gate.buckets]
    instant = max(now, gate.paused_until)
    ahead = [(turn.amounts, turn.latest) for turn in queue.ahead_of(priority)]
    for each, latest in (*ahead, (amounts, math.inf)):
        charges = [pair for pair in zip(buckets, each, strict=True) if pair[1]]
        delays = [bucket.delay(instant, amount) for bucket, amount in charges]
        due = instant + max(delays, default=0)
        if has_passed(latest, due) and due < math.inf:
            # It gives up before.
            instant = max(instant, latest)
            continue

        instant = due
        if instant == math.inf:
            break

        for bucket, amount in charges:
            bucket.take(instant, amount)
            bucket.start(instant, amount)

    return instant


class Line:
    """A gate with those in line and their outlook. Calls end when they are told to."""

    def __init__(self, *policies: Policy) -> None:
        self.gate = LocalGate(policies, Slots(), LoopClock(lambda _: None, "the line"))
        self.queue = TurnQueue()
        self.outlook = Forecasts(self.gate, self.queue)
        self.now = 0.0
        self.running: list[Turn] = []
        self._arrivals = 0

    def newcomer(self, amounts: Sequence[int], priority: int) -> Turn:
        """Return a turn with the place of one that comes now."""
        self._arrivals += 1
        turn = Turn(1, tuple(amounts), ends=self.gate.holds)
        turn.place = (priority, self._arrivals)
        turn.came = self.now
        return turn

    def try_now(self, turn: Turn) -> bool:
        """Grant a newcomer that is due, if nobody goes before it."""
        if self.queue.count_ahead(turn.place[0]):
            return False

        if self.gate.delay(turn.amounts, self.now) > 0:
            return False

        self.outlook.invalidate()
        self._begin(turn, self.now)
        return True

    def join(self, turn: Turn) -> None:
        self.outlook.note_newcomer(turn)
        self.queue.add(turn)

    def leave(self, turn: Turn) -> None:
        self.queue.remove(turn)
        self.outlook.note_leaving(turn)
        self.serve()

    def end(self, turn: Turn) -> None:
        """Let a call end."""
        self.running.remove(turn)
        self.gate.release(turn, self.now)
        self.outlook.note_end()
        self.serve()

    def pause(self, seconds: float) -> None:
        self.gate.paused_until = max(self.gate.paused_until, self.now + seconds)
        self.outlook.invalidate()

    def serve(self, due: float = math.inf) -> None:
        """Grant all that are due; the head has been since ``due``."""
        since = min(due, self.now)
        late = self.now - since
        while (head := self.queue.head) is not None:
            if self.gate.delay(head.amounts, self.now) > 0:
                break

            since = self.gate.due_since(head.amounts, max(since, head.came), self.now)
            self.queue.pop()
            self._begin(head, since)

        self.outlook.note_grants(self.now, late)

    def sleep(self, seconds: float, late: Callable[[], float] = lambda: 0.0) -> None:
        """Let time pass, and those go that fall due, each by so much late."""
        until = self.now + seconds
        while (head := self.queue.head) is not None:
            due = self.now + self.gate.delay(head.amounts, self.now)
            hasty = min(self.queue.ahead_of(), key=lambda turn: turn.latest)
            in_time = not has_passed(hasty.latest, due)
            if (due if in_time else hasty.latest) > until:
                break

            if in_time:
                self.now = min(due + late(), until, max(hasty.latest, due))
                self.serve(due)
            else:
                self.now = max(self.now, hasty.latest)
                self.leave(hasty)

        self.now = until

    def due(self, amounts: Sequence[int], priority: int, *, ended: bool = True) -> float:
        """Return when a newcomer would go."""
        return due_anew(self.gate, self.queue, self.now, amounts, priority, ended=ended)

    def _begin(self, turn: Turn, since: float) -> None:
        self.gate.take(turn, self.now, since)
        self.gate.start(turn, self.now)
        if turn.granted:
            self.running.append(turn)


#: Instants and levels are such that sums are exact.
POLICIES: list[tuple[Policy, ...]] = [
    (WindowTokenBucket(1, 8),),
    (WindowTokenBucket(10, 8),),
    (WindowTokenBucket(1500, 8),),
    (TokenBucket(2, 4, burst=1),),
    (TokenBucket(2, 4, burst=6),),
    (FixedWindow(5, 8),),
    (FixedWindow(5, 8), TokenBucket(2, 4, burst=3, unit="tokens")),
    (WindowTokenBucket(6, 8), TokenBucket(1, 2, burst=4, unit="tokens")),
    (WindowTokenBucket(10, 8), WindowTokenBucket(30, 64), WindowTokenBucket(9, 2, unit="tokens")),
    (WindowTokenBucket(4, 2, measure="end"),),
]


def first_come() -> int:
    return 0


@dataclass
class Told:
    """What was told, beside the truth."""

    #: How many questions were asked.
    questions: int = 0
    #: How many of them who was told the truth might have missed: costs differ, many stand ahead.
    hard: int = 0
    #: How many of these were let in, though they could not make it.
    let_in: int = 0
    #: Of the refused, the wait they were told of, by the true one.
    waits: list[float] = field(default_factory=list)


class RandomLine(Line):
    """
    A line to which things happen at random.

    :param few: with how many ahead a newcomer is told the exact truth, whatever they cost

    """

    def __init__(self, seed: int, few: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - to be the same each time
        policies = self.random.choice(POLICIES)
        super().__init__(*policies)
        self.few = few
        self.told = Told()
        self.costs = self._draw_costs(policies)
        self.alike = all(cost == self.costs[0] for cost in self.costs)
        self.priorities: Callable[[], int] = self.random.choice(
            [
                first_come,
                lambda: self.random.choice([-1, 0, 0, 7]),
                lambda: self.random.randrange(10**6),
                lambda: self.random.randrange(10**6),
                lambda: self.random.choice([-1, 1, 0]) * self._arrivals,
            ]
        )
        self.punctual = self.random.random() < 0.7
        #: Whether turns give up. Where others may join before them, or calls go on for longer than
        #: they might, that is not foreseen.
        self.impatient = self.priorities is first_come and not self.gate.holds_charges

    def _draw_costs(self, policies: Sequence[Policy]) -> list[list[int]]:
        most = [min(int(policy.bucket().capacity), 50) for policy in policies]
        one = [min(each, 20) if each == 50 else 1 for each in most]
        least = int(len(policies) == 1)
        others = [[self.random.randint(least, each) for each in most] for _ in range(6)]
        return self.random.choice([[one], [one] * 30 + others[:1], others])

    def play(self, steps: int) -> Told:
        """Let so many things happen; check what newcomers are told."""
        join = self.random.choice([0.95, 0.8, 0.6])
        leave = join + self.random.choice([0.0, 0.02, 0.1])
        for _ in range(steps):
            drawn = self.random.random()
            if drawn < join:
                self.come()
            elif drawn < leave and len(self.queue):
                self.leave(self.random.choice(self.queue.ahead_of()))
            elif drawn > 0.995:
                self.pause(3.0)
            elif self.running and self.random.random() < 0.5:
                self.end(self.random.choice(self.running))
            else:
                self.sleep(self.random.choice([0.25, 1.0, 4.0]), self.lateness)

        return self.told

    def lateness(self) -> float:
        if self.punctual or self.random.random() < 0.8:
            return 0.0

        return self.random.choice([0.25, 1.0])

    def come(self) -> None:
        """Let a newcomer come, whose wait may be bounded."""
        turn = self.newcomer(self.random.choice(self.costs), self.priorities())
        if self.try_now(turn):
            return

        amounts, priority = turn.amounts, int(turn.place[0])
        due = self.due(amounts, priority)
        part = self.random.choice([0.5, 0.9, 0.99, 0.999, 1.001, 1.1, 2.0])
        guess = self.now + (due - self.now) * part
        latest = self.random.choice([math.inf, due, math.nextafter(due, 0), guess, guess])
        if latest < math.inf and self.is_refused(amounts, priority, latest, due):
            self.check_decision(amounts, priority)
        else:
            if self.impatient:
                turn.latest = latest

            self.join(turn)

    def is_refused(self, amounts: Sequence[int], priority: int, latest: float, due: float) -> bool:
        refused = self.outlook.is_hopeless(amounts, self.now, priority, latest)
        self.told.questions += 1
        if due <= latest:
            assert not refused, f"refused, though due at {due!r} <= {latest!r}"
        elif self.is_exact(priority):
            assert refused, f"let in, though due at {due!r} > {latest!r}"
        else:
            self.told.hard += 1
            self.told.let_in += not refused

        return refused

    def check_decision(self, amounts: Sequence[int], priority: int) -> None:
        decision = self.outlook.decide(amounts, self.now, priority)
        wait = self.due(amounts, priority, ended=False) - self.now
        if wait == math.inf or (self.punctual and self.is_exact(priority)):
            assert decision.retry_after == wait
        elif self.is_exact(priority):
            assert decision.retry_after == pytest.approx(wait, rel=0.01)
        else:
            self.told.waits.append(decision.retry_after / wait)

    def is_exact(self, priority: int) -> bool:
        """Return whether a newcomer is to be told the exact truth."""
        ahead = self.queue.count_ahead(priority)
        # If grants are late, or a charge is held longer than it might be, much of what was foreseen
        # is somewhat out, in a long line.
        in_order = self.alike and self.punctual and not self.gate.holds_charges
        return ahead <= self.few or in_order
