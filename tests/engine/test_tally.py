"""How many jobs end per second: the arithmetic, with the time passed in."""

from __future__ import annotations

import pytest

from anythrottle._engine.tally import Tally


class Throughput:
    """A tally of a run that has begun at an instant, told when its jobs end."""

    def __init__(self, began: float) -> None:
        self._now = began
        self.tally = Tally()
        self.tally.begin_run(lambda: self._now)
        self.per_second = self.tally.per_second
        self.shift = self.tally.shift

    def note(self, now: float) -> None:
        self._now = now
        self.tally.note_end()


def pace_of(ends: list[float], *, began: float = 0.0) -> Throughput:
    throughput = Throughput(began)
    for end in ends:
        throughput.note(end)

    return throughput


class TestAtFirst:
    def test_nothing_has_ended(self) -> None:
        assert Throughput(5.0).per_second(5.0) == 0
        assert Throughput(5.0).per_second(8.0) == 0

    def test_only_the_time_since_the_run_began_counts(self) -> None:
        throughput = pace_of([101, 102, 104], began=100)
        assert throughput.per_second(104) == 3 / 4
        assert throughput.per_second(106) == 3 / 6

    def test_who_ended_in_the_instant_that_it_began_counts_as_well(self) -> None:
        throughput = pace_of([5.0, 5.0, 7.0], began=5.0)
        assert throughput.per_second(9.0) == 3 / 4
        assert throughput.per_second(15.5) == 3 / 10.5

    def test_no_time_has_passed(self) -> None:
        assert pace_of([5.0], began=5.0).per_second(5.0) == 0


def test_it_goes_over_to_another_clock() -> None:
    throughput = pace_of([float(number) for number in range(1, 31)])
    few = pace_of([1, 2, 3])
    for each, now, found in [(throughput, 30, 1), (throughput, 35, 10 / 15), (few, 5, 3 / 5)]:
        assert each.per_second(now) == found
        each.shift(-1000)
        assert each.per_second(now - 1000) == found
        each.shift(1000)


class TestOfLate:
    def test_the_last_ten_seconds(self) -> None:
        throughput = pace_of([float(number) for number in range(1, 101)])
        assert throughput.per_second(100) == 1
        assert throughput.per_second(100.5) == 1

    def test_it_follows_a_change(self) -> None:
        slow = [float(number) for number in range(1, 21)]
        fast = [20 + number / 4 for number in range(1, 41)]
        throughput = pace_of(slow + fast)
        assert throughput.per_second(30) == 4

    def test_it_decays_when_nothing_ends(self) -> None:
        throughput = pace_of([float(number) for number in range(1, 21)])
        found = [throughput.per_second(20 + number) for number in (0, 1, 5, 10, 90, 990)]
        # The last ten, since the one before them.
        assert found == [1, 10 / 11, 10 / 15, 10 / 20, 10 / 100, 10 / 1000]

    def test_asking_changes_nothing(self) -> None:
        throughput = pace_of([1, 2, 3])
        assert [throughput.per_second(5) for _ in range(3)] == [3 / 5] * 3
        assert throughput.per_second(500) == 3 / 500
        assert throughput.per_second(5) == 3 / 5


class TestSlowJobs:
    """However long they take, the last ten tell of the throughput."""

    @pytest.mark.parametrize("seconds", [3.0, 10.0, 11.0, 60.0, 3600.0])
    def test_one_after_the_other(self, seconds: float) -> None:
        throughput = Throughput(0.0)
        for number in range(1, 100):
            throughput.note(number * seconds)
            assert throughput.per_second(number * seconds) == pytest.approx(1 / seconds)
            # Between two ends it is known as well.
            later = throughput.per_second((number + 0.9) * seconds)
            assert 0.5 / seconds <= later <= 1 / seconds

    def test_several_at_once(self) -> None:
        throughput = pace_of([number // 5 * 60.0 + 60 for number in range(50)])
        assert throughput.per_second(600) == pytest.approx(5 / 60)

    def test_it_follows_a_change(self) -> None:
        throughput = pace_of([number * 100.0 for number in range(1, 50)])
        for number in range(1, 11):
            throughput.note(4900 + number * 20.0)

        assert throughput.per_second(5100) == 1 / 20

    def test_memory_is_bounded(self) -> None:
        throughput = pace_of([number * 100.0 for number in range(1, 5000)])
        assert len(throughput.tally._ends) <= 11

    def test_when_many_end_in_ten_seconds_of_a_minute(self) -> None:
        throughput = pace_of([n * 60 + number / 10 for n in range(5) for number in range(1, 101)])
        assert throughput.per_second(250) == 10
        # In the long run it is 1.67.
        assert 0.8 < throughput.per_second(299) < throughput.per_second(265) < 2


class TestMany:
    def test_who_ends_a_grain_later_has_ended_apart(self) -> None:
        throughput = pace_of([0.0] * 10 + [0.02] * 10)
        # Of the last ten seconds, the latter alone.
        assert throughput.per_second(10.01) == 1.0

    @pytest.mark.parametrize("rate", [10, 20, 30, 100, 1000])
    def test_a_steady_rate(self, rate: int) -> None:
        throughput = pace_of([number / rate for number in range(1, 30 * rate + 1)])
        assert throughput.per_second(30) == pytest.approx(rate, rel=0.02)

    def test_memory_is_bounded(self) -> None:
        throughput = pace_of([number / 1000 for number in range(5000)])
        assert len(throughput.tally._ends) <= 1000

    @pytest.mark.parametrize("count", [199, 200, 201, 1000])
    def test_a_burst_in_one_instant(self, count: int) -> None:
        throughput = pace_of([4.0] * count)
        assert throughput.per_second(4) == pytest.approx(count / 4)
        assert throughput.per_second(8) == pytest.approx(count / 8)
        assert throughput.per_second(40) == pytest.approx(count / 40)

    def test_a_burst_is_not_forgotten_because_it_was_large(self) -> None:
        # 1000 calls at the begin of each window of 10 s: that is 100 per second.
        throughput = pace_of([10 + number / 1000 for number in range(1000)])
        assert throughput.per_second(19.5) == pytest.approx(100, rel=0.05)
