"""When those in line will go: by rank while all cost the same, else by turn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from anythrottle import FixedWindow, TokenBucket, WindowTokenBucket
from anythrottle._limiters.timetable import Forecast, Timetable
from anythrottle._limiters.turn import Turn
from anythrottle.abc import Policy
from tests.limiters.lines import Line

POLICIES = [
    WindowTokenBucket(3, 8),
    WindowTokenBucket(3, 8, measure="end"),
    TokenBucket(3, 8, burst=5),
    FixedWindow(3, 8),
    FixedWindow(3, 8, align="utc"),
]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[int]]:
    """What the turns cost that were simulated so far."""
    found: list[Sequence[int]] = []
    add = Forecast.add

    def noted(forecast: Forecast, amounts: Sequence[int]) -> list[float]:
        found.append(amounts)
        return add(forecast, amounts)

    monkeypatch.setattr(Forecast, "add", noted)
    return found


class TestForecast:
    @pytest.mark.parametrize("policy", POLICIES, ids=str)
    def test_a_copy_goes_its_own_way(self, policy: Policy) -> None:
        gate = Line(policy).gate
        original = Forecast.of(gate, 1.0)
        original.add((2,))
        copy, other = original.copy(), original.copy()
        for _ in range(5):
            copy.add((3,))

        assert other.answer((2,)) == original.answer((2,))
        original.add((2,))
        other.add((2,))
        assert original.instant == other.instant
        # Nor has the gate's own bucket noticed.
        assert gate.buckets[0].remaining(1.0) >= 3

    @pytest.mark.parametrize(
        ("latest", "instants"),
        [(math.inf, [8, 16, 24]), (16, [8, 16, 24]), (15, [8, 15, 16]), (4, [8, 8, 16])],
    )
    def test_who_gives_up_takes_nothing_and_is_in_the_way_until_then(
        self, latest: float, instants: list[float]
    ) -> None:
        line = Line(WindowTokenBucket(1, 8))
        line.try_now(line.newcomer((1,), 0))
        forecast = Forecast.of(line.gate, 0.0)
        found = []
        for until in (math.inf, latest, math.inf):
            turn = line.newcomer((1,), 0)
            turn.latest = until
            forecast.pass_by(turn)
            found.append(forecast.instant)

        assert found == instants

    def test_without_policies_all_go_at_once_or_when_the_pause_ends(self) -> None:
        line = Line()
        forecast = Forecast.of(line.gate, 5.0)
        assert forecast.answer(()) == (5.0, [], 0, 0)
        line.pause(9)
        forecast = Forecast.of(line.gate, 5.0)
        assert forecast.add(()) == []
        assert forecast.answer(()) == (9.0, [], 0, 0)


class LineOfSome(Line):
    """A line of so many, whose tokens are all taken."""

    def __init__(self, number: int, *policies: Policy, costs: Sequence[int] = (1,)) -> None:
        super().__init__(*(policies or [WindowTokenBucket(1, 1)]))
        everything = [int(bucket.capacity) for bucket in self.gate.buckets]
        assert self.try_now(self.newcomer(everything, 0))
        for index in range(number):
            self.put(costs[index % len(costs)])

    def put(self, cost: int = 1, priority: int = 0) -> Turn:
        turn = self.newcomer([cost] * len(self.gate.buckets), priority)
        self.join(turn)
        return turn

    def table(self, *, marked: bool = True) -> Timetable:
        """Return a new timetable, in the outlook's place."""
        table = Timetable(self.gate, self.queue, self.now, ended=True, marked=marked)
        self.outlook.tables = {False: table}
        return table

    def ask(self, table: Timetable, amounts: Sequence[int], priority: int = 0) -> float | None:
        answer = table.answer(amounts, priority, self.queue.count_ahead(priority))
        return None if answer is None else answer.due


class TestWhileAllCostTheSame:
    def test_who_joins_in_between_or_leaves_changes_nothing(
        self, steps: list[Sequence[int]]
    ) -> None:
        line = LineOfSome(200)
        table = line.table()
        assert line.ask(table, (1,)) == 201.0
        assert len(steps) == 201
        for _ in range(10):
            line.put(priority=-1)

        assert line.ask(table, (1,), -1) == 11.0
        for turn in line.queue.ahead_of()[20:30]:
            line.leave(turn)

        assert line.ask(table, (1,)) == 201.0
        assert line.ask(table, (1,), -1) == 11.0
        line.sleep(20)
        assert line.ask(table, (1,)) == 201.0
        assert len(steps) == 201

    def test_no_mark_is_needed_for_one_that_costs_the_same(self) -> None:
        line = LineOfSome(200)
        line.put(priority=7)
        table = line.table(marked=False)
        assert line.ask(table, (1,), 7) == 202.0
        assert line.ask(table, (1,)) == 201.0

    def test_what_each_of_several_buckets_makes_it_wait_is_kept_for_the_last(self) -> None:
        line = LineOfSome(100, WindowTokenBucket(1, 2), WindowTokenBucket(200, 64))
        line.put(priority=7)
        table = line.table(marked=False)
        answer = table.answer((1, 1), 7, 101)
        assert answer is not None
        assert answer == table.answer((1, 1), 7, 101)
        assert answer.delays == [2.0, 0.0]
        # For the one before it, there is no state to start from.
        assert table.answer((1, 1), 0, 100) is None
        marked = line.table().answer((1, 1), 0, 100)
        assert marked is not None
        assert marked.due == line.due((1, 1), 0)

    @pytest.mark.parametrize("marked", [False, True])
    def test_another_cost_in_the_middle_needs_a_mark(
        self, marked: bool, steps: list[Sequence[int]]
    ) -> None:
        line = LineOfSome(200, WindowTokenBucket(3, 8))
        line.put(priority=7)
        table = line.table(marked=marked)
        assert line.ask(table, (2,), 7) == line.due((2,), 7)
        steps.clear()
        assert line.ask(table, (2,)) == (line.due((2,), 0) if marked else None)
        assert len(steps) < 40

    def test_it_is_of_no_use_when_all_have_gone_that_were_simulated(self) -> None:
        line = LineOfSome(10)
        table = line.table()
        line.ask(table, (1,), -1)
        table.answer((1,), 0, 3)
        for _ in range(50):
            line.put()

        line.sleep(4)
        assert table.covered == 0
        assert line.ask(table, (1,)) is None

    def test_another_one_is_made_when_more_have_gone_than_were_simulated(
        self, steps: list[Sequence[int]]
    ) -> None:
        line = LineOfSome(400)
        table = line.table()
        table.answer((1,), 0, 3)
        line.sleep(10)
        assert table.covered < 0
        steps.clear()
        for _ in range(3):
            assert line.outlook.is_hopeless((1,), 10.0, 0, 400.5)
            assert not line.outlook.is_hopeless((1,), 10.0, 0, 401.0)

        assert len(steps) == 391

    def test_what_has_gone_is_forgotten(self) -> None:
        line = LineOfSome(100)
        table = line.table()
        for _ in range(1000):
            line.put()
            assert line.ask(table, (1,)) == line.now + 102.0
            line.sleep(1)

        assert table.covered == 101
        assert len(table._instants) < 300
        assert len(table._marks) < 12

    @pytest.mark.parametrize("priority", [0, 7])
    def test_nothing_is_simulated_behind_what_nobody_knows(self, priority: int) -> None:
        line = LineOfSome(100)
        line.put(priority=7)
        line.pause(math.inf)
        table = line.table()
        assert line.ask(table, (1,), priority) == math.inf
        assert table._count == 0


class TestWhenCostsDiffer:
    def test_the_states_are_kept_when_another_cost_joins(self, steps: list[Sequence[int]]) -> None:
        line = LineOfSome(200, WindowTokenBucket(3, 8))
        table = line.table()
        table.answer((2,), 0, 200)
        line.sleep(40)
        steps.clear()
        line.put(2, priority=7)
        assert line.ask(table, (3,), 7) == line.due((3,), 7)
        assert len(steps) == 1
        # From what was marked as a rank, to be found by its place from now on.
        line.leave(line.queue.ahead_of()[120])
        line.put(2, priority=-1)
        answer = table.answer((1,), 0, 198 - 1)
        assert answer is not None
        assert (answer.inserted, answer.left) == (1, 1)

    @pytest.mark.parametrize("windows", [0, 1, 14, 25])
    def test_by_the_states_that_are_kept_each_in_the_middle_is_answered_truly(
        self, windows: int, steps: list[Sequence[int]]
    ) -> None:
        line = LineOfSome(0, WindowTokenBucket(3, 8))
        for number in range(200):
            line.put(priority=number)

        table = line.table()
        table.answer((2,), 200, 200)
        line.sleep(8 * windows)
        line.put(2, priority=300)
        # The first state of use is marked where nobody of those who have gone stands behind it.
        first = (3 * windows // 32 + 1) * 32
        steps.clear()
        for number in range(first - 1, 200):
            for cost in (1, 3):
                assert line.ask(table, (cost,), number) == line.due((cost,), number)
                assert len(steps) < 32
                steps.clear()

        assert line.ask(table, (1,), first - 2) is None

    @pytest.mark.parametrize("windows", [0, 1, 14])
    @pytest.mark.parametrize("number", [60, 191, 192, 193, 194])
    def test_nor_is_any_false_however_many_were_simulated_and_have_gone(
        self, number: int, windows: int
    ) -> None:
        line = LineOfSome(0, WindowTokenBucket(3, 8))
        for priority in range(number):
            line.put(priority=priority)

        table = line.table()
        table.answer((2,), number, number)
        line.sleep(8 * windows)
        # From here on costs differ, and more states are marked.
        for priority in range(number, number + 70):
            line.put(2, priority=priority)

        for priority in (number + 70, *range(0, number + 70, 3)):
            assert line.ask(table, (1,), priority) in (None, line.due((1,), priority))

    def test_it_is_of_no_use_if_the_newcomer_itself_was_simulated(self) -> None:
        line = LineOfSome(100)
        table = line.table()
        line.ask(table, (1,))
        assert table.covered == 101
        assert not table.note_newcomer(line.newcomer((0,), 0))

    def test_those_who_join_in_between_are_counted_from_there_on(self) -> None:
        line = LineOfSome(200, WindowTokenBucket(3, 8), costs=(1, 2))
        line.put(priority=9)
        table = line.table()
        assert line.ask(table, (1,), 9) == line.due((1,), 9)
        line.put(2, priority=5)
        exact = table.answer((1,), 0, 200)
        assert exact is not None
        assert exact == (line.due((1,), 0), exact.delays, 0, 0)
        behind = table.answer((1,), 9, 202)
        assert behind is not None
        assert behind.inserted == 1
        assert behind.due <= line.due((1,), 9)

    def test_those_who_leave_are_counted_from_there_on(self) -> None:
        line = LineOfSome(200, WindowTokenBucket(3, 8), costs=(1, 2))
        leaver = line.put(3, priority=5)
        line.put(priority=9)
        table = line.table()
        line.ask(table, (1,), 9)
        line.leave(leaver)
        exact = table.answer((1,), 0, 200)
        assert exact is not None
        assert exact == (line.due((1,), 0), exact.delays, 0, 0)
        behind = table.answer((1,), 9, 201)
        assert behind is not None
        assert behind.left == 1
        assert behind.due >= line.due((1,), 9)

    def test_who_joins_and_leaves_behind_what_was_simulated_counts_not(self) -> None:
        line = LineOfSome(200, WindowTokenBucket(3, 8), costs=(1, 2))
        table = line.table()
        table.answer((1,), 0, 100)
        line.put(3, priority=5)
        line.leave(line.queue.ahead_of()[150])
        assert table.answer((1,), 5, 200) == (line.due((1,), 5), [8.0], 0, 0)

    def test_states_are_marked_where_many_have_joined(self, steps: list[Sequence[int]]) -> None:
        line = LineOfSome(200, WindowTokenBucket(3, 8), costs=(1, 2))
        line.put(priority=9)
        table = line.table()
        line.ask(table, (1,), 9)
        for _ in range(200):
            line.put(2, priority=5)
            steps.clear()
            assert line.ask(table, (1,), 5) == line.due((1,), 5)
            assert len(steps) <= 64

    def test_no_state_is_left_to_start_from_when_it_has_gone(self) -> None:
        line = LineOfSome(200, WindowTokenBucket(3, 8), costs=(1, 2))
        line.put(priority=9)
        table = line.table()
        line.ask(table, (1,), 9)
        line.sleep(100)
        assert table.answer((1,), -1, 1) is None
        # Before the next one that was marked, too.
        assert table.answer((1,), 0, 200 - 50) is not None

    def test_what_has_gone_is_forgotten(self) -> None:
        line = LineOfSome(100, costs=(0, 1))
        table = line.table()
        for _ in range(1000):
            line.put()
            line.put(0)
            assert line.ask(table, (1,)) == line.due((1,), 0)
            line.sleep(1)

        assert len(table._marks) == len(table._places) < 12
        assert table._instants == []

    def test_nothing_is_simulated_behind_what_nobody_knows(self) -> None:
        line = LineOfSome(100, WindowTokenBucket(3, 8, measure="end"), costs=(1, 2))
        line.put(priority=7)
        table = Timetable(line.gate, line.queue, 0.0, ended=False, marked=True)
        assert line.ask(table, (1,), 7) == math.inf
        assert table._count < 5
        assert line.ask(table, (1,)) == math.inf
