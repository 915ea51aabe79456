"""
The scheduler alone, without an event loop: an ordinary loop runs it, over a heap of what happens.

What it grants is compared with :class:`Plain`, which goes from one quarter of a second to the next
and looks through all that there is, each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate, cycle
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FixedWindow, TokenBucket, WindowTokenBucket
from anythrottle._limiters.forecast import Forecasts
from anythrottle._limiters.local_gate import LocalGate
from anythrottle._limiters.queue import TurnQueue
from anythrottle._limiters.scheduling import Scheduler
from anythrottle._limiters.slots import Slots
from anythrottle._limiters.turn import FRONT, Turn
from anythrottle._loops.clock import LoopClock
from anythrottle._policies.policy import Cost
from anythrottle._policies.window import WindowBucket
from anythrottle.abc import Policy
from tests.limiters.tools import assert_exact
from tests.properties import examples

#: In what the plain reference counts time: sums are exact.
QUARTER = 0.25


class Call(NamedTuple):
    """A call of a script; times are in quarters of a second."""

    #: How long it comes after the one before.
    gap: int
    cost: int
    priority: int
    #: How long it runs.
    seconds: int
    #: How long it stays in line at most, unless it is for ever.
    patience: int | None
    #: For how long all is paused when it comes, before it asks for its turn.
    pause: int


@dataclass(frozen=True)
class Rules:
    policies: tuple[Policy, ...]
    slots: float
    max_waiting: float


@dataclass
class Happened:
    """What became of each call, by its number: when it went, was refused, or gave up."""

    went: dict[int, float] = field(default_factory=dict)
    refused: dict[int, float] = field(default_factory=dict)
    gave_up: dict[int, float] = field(default_factory=dict)


def scheduler_of(
    *policies: Policy, slots: Slots | None = None, most: float = math.inf
) -> Scheduler:
    gate = LocalGate(policies, slots or Slots(), LoopClock(lambda _: None, "the scheduler"))
    queue = TurnQueue()
    return Scheduler(gate, queue, Forecasts(gate, queue), most)


def newcomer(scheduler: Scheduler, now: float, cost: Cost = 1, priority: float = 0) -> Turn:
    """Return a turn with the place of one that comes now."""
    turn = Turn(cost, scheduler.gate.amounts(cost), ends=True)
    turn.place = scheduler.new_place(priority)
    turn.came = now
    return turn


def joined(scheduler: Scheduler, now: float, cost: Cost = 1, priority: float = 0) -> Turn:
    """Return a turn that could not go at once, and stands in line."""
    turn = newcomer(scheduler, now, cost, priority)
    assert not scheduler.try_now(turn, now)
    scheduler.join(turn)
    return turn


class PlainLoop:
    """Runs a scheduler: a heap of what is to happen, and a number for the time."""

    # What happens in one instant, in this order.
    END, LOOK, GIVE_UP, COME = range(4)

    def __init__(self, rules: Rules, script: list[Call], late: Sequence[int] = (0,)) -> None:
        """
        Make a loop for a script.

        :param late: by how many quarters of a second timers are late, over and over again
        """
        self.scheduler = scheduler_of(
            *rules.policies, slots=Slots(rules.slots), most=rules.max_waiting
        )
        self.late = cycle(late)
        self.script = script
        self.now = 0.0
        self.heap: list[tuple[float, int, int]] = []
        self.turns: dict[int, Turn] = {}
        self.number_of: dict[Turn, int] = {}
        self.ends: dict[int, float] = {}
        self.happened = Happened()

    def run(self) -> Happened:
        """Let all happen."""
        instant = 0.0
        for number, call in enumerate(self.script):
            instant += call.gap * QUARTER
            heappush(self.heap, (instant, self.COME, number))

        handlers = [self.end, self.look, self.give_up, self.come]
        while self.heap:
            self.now, what, number = heappop(self.heap)
            handlers[what](number)

        return self.happened

    def come(self, number: int) -> None:
        call = self.script[number]
        scheduler, now = self.scheduler, self.now
        self.catch_up()
        if call.pause:
            scheduler.gate.pause_until(now + call.pause * QUARTER)
            scheduler.outlook.invalidate()
            self.serve()

        turn = newcomer(scheduler, now, call.cost, call.priority)
        self.turns[number] = turn
        self.number_of[turn] = number
        if scheduler.try_now(turn, now):
            self.begin(turn)
            return

        refused = scheduler.one_too_many(turn, now, math.inf, newcomer=True)
        if refused is not None:
            self.happened.refused[self.number_of[refused]] = now
            if refused is turn:
                return

            scheduler.dismiss(refused, ValueError("one too many"))

        scheduler.join(turn)
        if call.patience is not None:
            heappush(self.heap, (now + call.patience * QUARTER, self.GIVE_UP, number))

        self.serve()

    def end(self, number: int) -> None:
        self.scheduler.end(self.turns[number], self.now)
        self.serve()

    def give_up(self, number: int) -> None:
        self.catch_up()
        turn = self.turns[number]
        if turn.in_line:
            assert self.scheduler.leave(turn, self.now)
            self.happened.gave_up[number] = self.now
            self.serve()

    def look(self, _: int) -> None:
        self.catch_up()

    def catch_up(self) -> None:
        if self.scheduler.due <= self.now:
            self.serve()

    def serve(self) -> None:
        """Grant all that are due, and look again when there is something to be seen."""
        scheduler, now = self.scheduler, self.now
        woken, due = scheduler.grant_due(now)
        places = [turn.place for turn in woken]
        assert places == sorted(places), "who goes first is woken first"
        assert all(turn.granted and turn.error is None for turn in woken)
        assert scheduler.grant_due(now) == ([], due), "all that are due are granted"
        for turn in woken:
            self.begin(turn)

        if woken:
            # What calls hold before they begin comes back at a time that is known now.
            self.serve()
            return

        head = scheduler.queue.head
        if head is None:
            assert due == math.inf
        else:
            assert due == now + scheduler.gate.delay(head.amounts, now) > now
            if due < math.inf:
                look = due + next(self.late) * QUARTER
                heappush(self.heap, (look, self.LOOK, -1))

    def begin(self, turn: Turn) -> None:
        ahead = self.scheduler.queue.rank(turn.place)
        assert not ahead, "nobody waits who goes before"
        self.scheduler.start(turn, self.now)
        number = self.number_of[turn]
        self.happened.went[number] = self.now
        self.ends[number] = self.now + self.script[number].seconds * QUARTER
        heappush(self.heap, (self.ends[number], self.END, number))


class Plain:
    """What has to happen, in plain lists, at each quarter of a second."""

    def __init__(self, rules: Rules, script: list[Call]) -> None:
        self.rules = rules
        self.script = script
        self.now = 0
        self.paused_until = 0
        #: Numbers of those in line, in their order.
        self.line: list[int] = []
        self.came: dict[int, int] = {}
        self.began: dict[int, int] = {}
        self.happened = Happened()

    def run(self) -> Happened:
        coming = list(range(len(self.script)))
        last = 0
        while coming or self.line:
            self.settle()
            for number in sorted(self.line):
                patience = self.script[number].patience
                given_up = patience is not None and self.now == self.came[number] + patience
                if given_up and number in self.line:
                    self.line.remove(number)
                    self.happened.gave_up[number] = self.now * QUARTER
                    self.settle()

            while coming and last + self.script[coming[0]].gap == self.now:
                last = self.now
                self.come(coming.pop(0))

            self.now += 1

        return self.happened

    def come(self, number: int) -> None:
        self.came[number] = self.now
        self.paused_until = max(self.paused_until, self.now + self.script[number].pause)
        self.line = sorted(
            [*self.line, number], key=lambda each: (self.script[each].priority, each)
        )
        self.settle()
        if len(self.line) > self.rules.max_waiting:
            self.happened.refused[self.line.pop()] = self.now * QUARTER

        self.settle()

    def settle(self) -> None:
        while self.line and self.fits(self.script[self.line[0]].cost):
            number = self.line.pop(0)
            self.began[number] = self.now
            self.happened.went[number] = self.now * QUARTER

    def fits(self, cost: int) -> bool:
        running = [number for number in self.began if self.end_of(number) > self.now]
        return (
            self.paused_until <= self.now
            and len(running) < self.rules.slots
            and all(self.counted(policy) + cost <= policy.limit for policy in self.rules.policies)
        )

    def end_of(self, number: int) -> int:
        return self.began[number] + self.script[number].seconds

    def counted(self, policy: Policy) -> int:
        window = round(policy.window / QUARTER)
        since = self.end_of if policy.holds else self.began.__getitem__
        return sum(
            self.script[number].cost for number in self.began if since(number) + window > self.now
        )


windows = st.builds(
    WindowTokenBucket,
    st.integers(3, 6),
    st.integers(1, 20).map(lambda quarters: quarters * QUARTER),
    measure=st.sampled_from(["start", "end"]),
)

rules_drawn = st.builds(
    Rules,
    st.lists(windows, min_size=1, max_size=2).map(tuple),
    st.sampled_from([math.inf, 1, 2]),
    st.sampled_from([math.inf, 0, 2]),
)

scripts = st.lists(
    st.builds(
        Call,
        gap=st.sampled_from([0, 0, 0, 1, 2, 9]),
        cost=st.integers(0, 3),
        priority=st.sampled_from([0, 0, 0, -1, 1]),
        seconds=st.sampled_from([0, 1, 3, 10]),
        patience=st.sampled_from([None, None, 1, 2, 7]),
        pause=st.sampled_from([0] * 8 + [1, 6]),
    ),
    max_size=25,
)


class OddBucket:
    """A bucket whose delay is of a user's own."""

    def __init__(self, delay: Callable[[int], float]) -> None:
        self._inner = WindowBucket(WindowTokenBucket(3, 10.0))
        self._delay = delay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def delay(self, now: float, amount: int) -> float:
        return self._delay(amount)


class OddPolicy:
    limit, window, unit, holds = 3, 10.0, "calls", False

    def __init__(self, delay: Callable[[int], float]) -> None:
        self._delay = delay

    def bucket(self) -> Any:
        return OddBucket(self._delay)


class TestAPlainLoop:
    @pytest.mark.promise("G3", "G4")
    @examples(120)
    @given(rules_drawn, scripts)
    def test_all_goes_as_the_plain_reference_says(self, rules: Rules, script: list[Call]) -> None:
        loop = PlainLoop(rules, script)
        assert loop.run() == Plain(rules, script).run()
        happened = loop.happened
        went, others = happened.went, [*happened.refused, *happened.gave_up]
        assert sorted([*went, *others]) == list(range(len(script))), "nobody is forgotten"
        assert not loop.scheduler.queue.blocks
        assert not loop.scheduler.gate.slots.holders
        for policy in rules.policies:
            counted = loop.ends if policy.holds else went
            grants = [(counted[number], script[number].cost) for number in went]
            assert_exact(grants, round(policy.limit), policy.window)

    def test_an_hour_is_over_at_once(self) -> None:
        rules = Rules((WindowTokenBucket(3, 60.0),), math.inf, math.inf)
        script = [Call(0, 1, 0, 0, None, 0)] * 180
        assert PlainLoop(rules, script).run().went[179] == 59 * 60.0


class TestWhenToLookAgain:
    def test_nobody_waits(self) -> None:
        assert scheduler_of().grant_due(5.0) == ([], math.inf)

    def test_the_head_is_due(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0))
        first = newcomer(scheduler, 1.0)
        assert scheduler.try_now(first, 1.0)
        second = joined(scheduler, 1.0)
        # What is held before its call has begun comes back nobody knows when.
        assert scheduler.grant_due(1.0) == ([], math.inf)
        scheduler.start(first, 1.0)
        assert scheduler.grant_due(1.0) == ([], 11.0)
        assert scheduler.grant_due(math.nextafter(11.0, 0)) == ([], 11.0)
        assert scheduler.grant_due(11.0) == ([second], math.inf)

    def test_a_pause_is_in_the_way(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0))
        scheduler.gate.pause_until(4.0)
        turn = joined(scheduler, 1.0)
        assert scheduler.grant_due(1.0) == ([], 4.0)
        assert scheduler.gate.resume(2.0)
        assert scheduler.grant_due(2.0) == ([turn], math.inf)

    def test_a_slot_is_missing(self) -> None:
        scheduler = scheduler_of(slots=Slots(1))
        first = newcomer(scheduler, 0.0)
        assert scheduler.try_now(first, 0.0)
        scheduler.start(first, 0.0)
        second = joined(scheduler, 0.0)
        assert scheduler.grant_due(0.0) == ([], math.inf)
        assert not scheduler.wants_slot, "a limiter's own slots are let go here"
        scheduler.end(first, 3.0)
        assert scheduler.grant_due(3.0) == ([second], math.inf)

    def test_a_delay_too_short_for_the_clock(self) -> None:
        scheduler = scheduler_of(OddPolicy(lambda _: 1e-9))
        joined(scheduler, 1e9)
        assert scheduler.grant_due(1e9) == ([], math.nextafter(1e9, math.inf))


def plain_flow(burst: int, calls: Sequence[tuple[float, int]]) -> list[float]:
    """Return when each call is due, of a token a second and so many at once."""
    dues: list[float] = []
    level, at = float(burst), 0.0
    for came, cost in calls:
        due = max(at, came)
        level = min(level + due - at, burst)
        due += max(cost - level, 0.0)
        level, at = max(level - cost, 0.0), due
        dues.append(due)

    return dues


class TestLate:
    @pytest.mark.promise("G3")
    @examples(60)
    @given(
        st.integers(1, 4),
        st.lists(
            st.tuples(st.sampled_from([0, 0, 1, 2, 9, 30]), st.integers(0, 3)),
            min_size=1,
            max_size=25,
        ),
        st.lists(st.sampled_from([0, 0, 1, 2, 5, 20]), min_size=1, max_size=9),
    )
    def test_timers_that_are_late_cost_no_rate(
        self, burst: int, calls: list[tuple[int, int]], late: list[int]
    ) -> None:
        script = [Call(gap, 1 + cost % burst, 0, 0, None, 0) for gap, cost in calls]
        loop = PlainLoop(
            Rules((TokenBucket(4, 4.0, burst=burst),), math.inf, math.inf), script, late
        )
        went = loop.run().went
        came = [instant * QUARTER for instant in accumulate(call.gap for call in script)]
        expected = plain_flow(
            burst, [(at, call.cost) for at, call in zip(came, script, strict=True)]
        )
        dues = [loop.turns[number].due for number in range(len(script))]
        assert dues == pytest.approx(expected)
        for number, due in enumerate(dues):
            assert -1e-9 <= went[number] - due <= max(late) * QUARTER + 1e-9

    def test_all_that_fell_due_meanwhile_go_at_once_each_as_of_when_it_was_due(self) -> None:
        scheduler = scheduler_of(TokenBucket(1, 1.0, burst=1))
        first = newcomer(scheduler, 0.0)
        assert scheduler.try_now(first, 0.0)
        scheduler.start(first, 0.0)
        turns = [joined(scheduler, 0.0) for _ in range(4)]
        assert scheduler.grant_due(0.0) == ([], 1.0)
        assert scheduler.grant_due(3.5) == (turns[:3], 4.0)
        assert [turn.due for turn in turns[:3]] == [1.0, 2.0, 3.0]

    def test_a_pause_is_credited_to_nobody(self) -> None:
        scheduler = scheduler_of(TokenBucket(1, 1.0, burst=1))
        first = newcomer(scheduler, 0.0)
        assert scheduler.try_now(first, 0.0)
        scheduler.start(first, 0.0)
        turns = [joined(scheduler, 0.0) for _ in range(3)]
        scheduler.gate.pause_until(3.0)
        assert scheduler.grant_due(0.0) == ([], 3.0)
        assert scheduler.grant_due(3.5) == (turns[:1], 4.0)


class TestWhoGoesFirst:
    def test_a_newcomer_does_not_barge(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(3, 10.0))
        first = newcomer(scheduler, 0.0, 2)
        assert scheduler.try_now(first, 0.0)
        joined(scheduler, 0.0, 2)
        assert not scheduler.try_now(newcomer(scheduler, 0.0, 1), 0.0), "though there is room"
        assert scheduler.try_now(newcomer(scheduler, 0.0, 1, priority=-1), 0.0)

    def test_who_goes_again_goes_before_all(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0))
        scheduler.gate.pause_until(1.0)
        usual = joined(scheduler, 0.0, priority=-5)
        again = newcomer(scheduler, 0.0, priority=FRONT)
        scheduler.rejoin(again)
        assert scheduler.grant_due(1.0) == ([again], math.inf)
        assert usual.in_line

    def test_who_goes_again_and_is_too_late_is_refused(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0))
        scheduler.gate.pause_until(1.0)
        again = newcomer(scheduler, 0.0, priority=FRONT)
        scheduler.rejoin(newcomer(scheduler, 0.0, priority=FRONT))
        for latest in (-1.0, 0.0):
            assert scheduler.one_too_many(again, 0.0, latest, newcomer=False) is again

        assert scheduler.one_too_many(again, 0.0, 0.5, newcomer=False) is None

    def test_those_behind_a_call_that_begins_late_are_later(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0))
        first = newcomer(scheduler, 0.0)
        assert scheduler.try_now(first, 0.0)
        scheduler.start(first, 0.0)
        second, _ = (joined(scheduler, 0.0) for _ in range(2))
        assert scheduler.grant_due(10.0) == ([second], math.inf)
        last = newcomer(scheduler, 10.0)
        assert scheduler.decide(last, 10.0).retry_after == 20.0
        scheduler.start(second, 20.0)
        assert scheduler.decide(last, 20.0).retry_after == 20.0

    def test_so_are_those_of_a_line_that_is_too_long_to_be_simulated_anew(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0))
        first = newcomer(scheduler, 0.0)
        assert scheduler.try_now(first, 0.0)
        scheduler.start(first, 0.0)
        second, *_ = (joined(scheduler, 0.0) for _ in range(400))
        assert scheduler.grant_due(10.0) == ([second], math.inf)
        last = newcomer(scheduler, 10.0)
        assert scheduler.decide(last, 10.0).retry_after == 4000.0
        scheduler.start(second, 100.0)
        assert scheduler.decide(last, 100.0).retry_after == 4000.0


class TestUndone:
    """What is granted to a turn whose call does not begin."""

    def held(self) -> tuple[Scheduler, Turn, Turn]:
        scheduler = scheduler_of(TokenBucket(1, 1.0, burst=1))
        first = newcomer(scheduler, 0.0)
        assert scheduler.try_now(first, 0.0)
        scheduler.start(first, 0.0)
        second, third = (joined(scheduler, 0.0) for _ in range(2))
        assert scheduler.grant_due(0.0) == ([], 1.0)
        assert scheduler.grant_due(1.5) == ([second], 2.0)
        return scheduler, second, third

    @pytest.mark.promise("G5")
    def test_it_goes_to_the_next_as_of_when_it_was_due(self) -> None:
        scheduler, second, third = self.held()
        assert scheduler.leave(second, 1.5)
        assert not second.granted
        assert scheduler.grant_due(1.5) == ([third], math.inf)
        assert third.due == 1.0

    def test_called_back_it_is_in_its_place(self) -> None:
        scheduler, second, third = self.held()
        scheduler.gate.pause_until(9.0)
        scheduler.call_back(second, 1.5)
        assert scheduler.queue.ahead_of() == [second, third]
        assert scheduler.grant_due(1.5) == ([], 9.0)
        assert scheduler.grant_due(9.0) == ([second], 10.0)

    def test_all_are_recalled_but_those_that_run(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(3, 10.0), slots=Slots(3))
        turns = [newcomer(scheduler, 0.0) for _ in range(3)]
        assert all(scheduler.try_now(turn, 0.0) for turn in turns)
        scheduler.start(turns[1], 0.0)
        assert scheduler.recall(0.0) == [turns[0], turns[2]]
        assert scheduler.queue.ahead_of() == [turns[0], turns[2]]
        assert list(scheduler.gate.slots.holders) == [turns[1]]
        assert scheduler.grant_due(0.0) == ([turns[0], turns[2]], math.inf)

    def test_who_has_never_been_there(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0))
        assert not scheduler.leave(newcomer(scheduler, 0.0), 0.0)


class TestDismissed:
    def test_an_error_of_a_policy_is_for_the_head_and_the_next_goes(self) -> None:
        scheduler = scheduler_of(OddPolicy(lambda amount: 0 / (2 - amount)))
        bad, good = newcomer(scheduler, 0.0, 2), newcomer(scheduler, 0.0, 1)
        scheduler.join(bad)
        scheduler.join(good)
        assert scheduler.grant_due(0.0) == ([bad, good], math.inf)
        assert isinstance(bad.error, ZeroDivisionError)
        assert not bad.granted
        assert not bad.in_line
        assert good.granted

    def test_who_can_never_go_any_more(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(3, 10.0))
        scheduler.gate.pause_until(1.0)
        large, small = joined(scheduler, 0.0, 3), joined(scheduler, 0.0, 1)
        gate = scheduler.gate
        assert isinstance(gate, LocalGate)
        policies = (FixedWindow(2, 10.0),)
        gate.set_policies(policies, [policies[0].bucket()])
        assert scheduler.recount() == [large]
        assert isinstance(large.error, ValueError)
        assert scheduler.queue.ahead_of() == [small]

    def test_another_loop_forgets_who_waits(self) -> None:
        scheduler = scheduler_of(WindowTokenBucket(1, 10.0), slots=Slots(1))
        first = newcomer(scheduler, 0.0)
        assert scheduler.try_now(first, 0.0)
        scheduler.start(first, 0.0)
        second = joined(scheduler, 0.0)
        assert scheduler.change_loops(100.0) == [second]
        assert not scheduler.queue.blocks
        third = joined(scheduler, 105.0)
        # The limit is kept, by the other loop's clock; the slot is let go.
        woken, due = scheduler.grant_due(105.0)
        assert not woken
        assert due == pytest.approx(110.0)
        assert scheduler.grant_due(due) == ([third], math.inf)


class TestSharedSlots:
    async def test_one_is_wanted_and_is_given_to_the_head(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        scheduler = scheduler_of(slots=Slots(shared=capacity))
        outsider, borrowed = object(), object()
        capacity.acquire_on_behalf_of_nowait(outsider)
        turn = joined(scheduler, 0.0)
        assert scheduler.grant_due(0.0) == ([], math.inf)
        assert scheduler.wants_slot
        capacity.release_on_behalf_of(outsider)
        capacity.acquire_on_behalf_of_nowait(borrowed)
        assert scheduler.grant_due(1.0, borrowed) == ([turn], math.inf)
        assert not scheduler.wants_slot
        assert turn.slot is borrowed

    @pytest.mark.promise("G6")
    async def test_one_that_comes_during_a_pause_goes_back(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        scheduler = scheduler_of(slots=Slots(shared=capacity))
        scheduler.gate.pause_until(5.0)
        joined(scheduler, 0.0)
        borrowed = object()
        capacity.acquire_on_behalf_of_nowait(borrowed)
        assert scheduler.grant_due(1.0, borrowed) == ([], 5.0)
        assert capacity.borrowed_tokens == 0
