"""What the block of `amap_outcomes` is given: `stop()` and `statistics()`."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from anythrottle import (
    Outcome,
    RateLimiter,
    ThrottleException,
    ThrottlerStatistics,
    amap_outcomes,
)
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.engine.calls import Calls, raising

pytestmark = pytest.mark.timing


class TestStop:
    @pytest.mark.parametrize("ordered", [True, False])
    async def test_what_runs_goes_on_and_its_outcomes_come(self, ordered: bool) -> None:
        calls = Calls({0: 1, 1: 5, 2: 3, 3: 2})
        found: list[Outcome[object, object]] = []
        async with amap_outcomes(calls, range(99), concurrency=3, ordered=ordered) as outcomes:
            async for outcome in outcomes:
                found.append(outcome)
                outcomes.stop()

            assert outcomes.statistics().ended == "stopped"

        assert calls.cut_off == []
        # As it was stopped, the fourth had begun, or was about to.
        items = [outcome.item for outcome in found]
        assert sorted(items, key=str) == calls.starts
        assert items == sorted(items, key=str) if ordered else items[0] == 0
        assert len(items) <= 4
        assert anyio.current_time() == 5

    async def test_from_a_call(self) -> None:
        async def call(item: int) -> int:
            if item == 3:
                outcomes.stop()

            return item

        async with amap_outcomes(call, range(99), concurrency=1) as outcomes:
            assert [outcome.value async for outcome in outcomes] == [0, 1, 2, 3]

    async def test_before_anything_has_begun(self) -> None:
        calls = Calls()
        async with amap_outcomes(calls, range(99), concurrency=1) as outcomes:
            outcomes.stop()
            outcomes.stop()
            assert [outcome async for outcome in outcomes] == []

        assert calls.starts == []

    async def test_while_the_next_call_waits_for_its_turn(self) -> None:
        calls = Calls()
        async with (
            anyio.create_task_group() as task_group,
            amap_outcomes(calls, range(9), limiter="1/60s") as outcomes,
        ):
            await anext(outcomes)
            task_group.start_soon(self.stop_soon, outcomes)
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)

        assert anyio.current_time() == 5
        assert calls.starts == [0]

    @staticmethod
    async def stop_soon(outcomes: object) -> None:
        await anyio.sleep(5)
        outcomes.stop()  # type: ignore[attr-defined]

    async def test_an_endless_generator_is_closed(self) -> None:
        closed = False

        def items() -> Iterator[int]:
            nonlocal closed
            try:
                number = 0
                while True:
                    yield number
                    number += 1
            finally:
                closed = True

        async with amap_outcomes(Calls(), items(), concurrency=1) as outcomes:
            async for outcome in outcomes:
                if outcome.item == 5:
                    outcomes.stop()

        assert closed

    async def test_when_all_is_done_or_left(self) -> None:
        async with amap_outcomes(Calls(), range(3)) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 3
            outcomes.stop()
            assert outcomes.statistics().ended == "done"

        outcomes.stop()
        assert outcomes.statistics().ended == "done"
        async with amap_outcomes(Calls(5), range(3)) as left:
            pass

        left.stop()
        assert left.statistics().ended is None


class TestStatistics:
    async def test_at_each_step(self) -> None:
        calls = Calls({0: 1, 1: 1.5, 2: 2}, {1: [KeyError()]})
        async with amap_outcomes(calls, range(6), concurrency=2) as outcomes:
            assert outcomes.statistics() == ThrottlerStatistics(0, 0, 0, 0, 0)
            assert outcomes.statistics().queued == 6
            await wait_idle()
            assert outcomes.statistics() == ThrottlerStatistics(2, 2, 0, 0, 0)
            await anyio.sleep(1.75)
            # Two outcomes wait, and are counted: nothing starts before they are taken.
            assert outcomes.statistics() == ThrottlerStatistics(3, 1, 1, 1, 0)
            assert outcomes.statistics().per_second == 2 / 1.75
            assert outcomes.statistics().expected_in == 4 * 1.75 / 2
            assert outcomes.statistics().ended is None
            assert len([outcome async for outcome in outcomes]) == 6
            statistics = outcomes.statistics()
            assert statistics == ThrottlerStatistics(6, 0, 5, 1, 0)
            assert (statistics.queued, statistics.expected_in) == (0, 0)
            assert statistics.ended == "done"

        assert outcomes.statistics() == statistics
        assert outcomes.statistics().ended == "done"

    async def test_a_pause(self) -> None:
        limiter = RateLimiter("9/s")
        calls = Calls(1, {1: [ThrottleException(retry_after=10)]})
        async with amap_outcomes(calls, range(3), limiter=limiter, concurrency=1) as outcomes:
            await anext(outcomes)
            await anyio.sleep(4)
            statistics = outcomes.statistics()
            # One ended in 5 seconds, and two are left.
            assert (statistics.throttled, statistics.paused_for) == (1, 7)
            assert statistics.expected_in == 7 + 2 * 5
            assert len([outcome async for outcome in outcomes]) == 2

    async def test_a_block_that_was_left_early(self) -> None:
        seconds: dict[object, float] = {number: 9 if number else 1 for number in range(6)}
        calls = Calls(seconds)
        async with amap_outcomes(calls, range(6), concurrency=3) as outcomes:
            await anext(outcomes)
            assert outcomes.statistics().running >= 2

        statistics = outcomes.statistics()
        assert (statistics.running, statistics.done, statistics.ended) == (0, 1, None)
        assert statistics.queued == 5

    async def test_an_error_of_the_source(self) -> None:
        source = raising(OSError(), [1, 2])
        async with amap_outcomes(Calls(), source, concurrency=1) as outcomes:
            with pytest.raises(OSError):  # noqa: PT011 - the source's
                async for _ in outcomes:
                    pass

            assert outcomes.statistics().ended is None

        assert outcomes.statistics().done == 2

    async def test_an_error_of_the_run(self) -> None:
        calls = Calls(errors={0: [KeyError()]})
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
            async with amap_outcomes(
                calls, range(3), concurrency=1, halt=lambda run: 1 // 0 > 1
            ) as outcomes:
                async for _ in outcomes:
                    pass

        assert outcomes.statistics().ended is None

    async def test_a_halt(self) -> None:
        calls = Calls(errors={0: [KeyError()]})
        async with amap_outcomes(calls, range(3), concurrency=1, halt=lambda _: True) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 1
            assert outcomes.statistics().ended == "halted"

    def test_outside_of_the_event_loop(self, run: Run) -> None:
        async def main() -> object:
            await anyio.sleep(5)
            async with amap_outcomes(Calls(2), range(3), concurrency=1) as outcomes:
                assert len([outcome async for outcome in outcomes]) == 3

            return outcomes

        outcomes = run(main)
        for _ in range(2):
            statistics = outcomes.statistics()
            assert (statistics.done, statistics.ended) == (3, "done")
            assert statistics.per_second == pytest.approx(0.5, rel=0.1)

    async def test_it_cannot_be_asked_for_twice_what_it_is(self) -> None:
        async with amap_outcomes(Calls(), range(3)) as outcomes:
            assert [outcome.item async for outcome in outcomes] == [0, 1, 2]
            assert aiter(outcomes) is outcomes
