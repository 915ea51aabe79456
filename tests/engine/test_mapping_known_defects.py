"""
Defects seen in peers of `amap` and its kin, each of which we must not have.

One test for each, named after it.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import anyio
import pytest

from anythrottle import amap, amap_outcomes, first
from tests.engine.calls import Calls, Pulled, every

pytestmark = pytest.mark.timing


class TestPMap:
    @pytest.mark.parametrize("ordered", [False, True])
    async def test_76_the_limit_breaks_if_more_results_may_wait_than_calls_run(
        self, *, ordered: bool
    ) -> None:
        """It ran as many at once as might wait."""
        calls = Calls(1)
        async with amap_outcomes(
            calls, itertools.count(), concurrency=3, limiter="200/1s", ordered=ordered
        ) as outcomes:
            for _ in range(30):
                await anext(outcomes)
                await anyio.sleep(0.7)

            # Room for many results, all of a sudden.
            for _ in range(6):
                await anext(outcomes)

            await anyio.sleep(10)

        assert calls.diary.most_running == 3

    async def test_78_the_source_is_not_pulled_while_one_slot_is_busy(self) -> None:
        calls = Calls({0: 100, 1: 1, 2: 1, 3: 1, 4: 1})
        pulled = Pulled(range(5))
        async with amap_outcomes(calls, pulled.async_generator(), concurrency=2) as outcomes:
            found = [(outcome.item, anyio.current_time()) async for outcome in outcomes]

        assert found == [(1, 1), (2, 2), (3, 3), (4, 4), (0, 100)]

    async def test_78_nor_while_it_takes_its_time(self) -> None:
        """Each item is waited for alone, and not until a slot is free again."""

        async def source() -> AsyncIterator[int]:
            for item in range(4):
                await anyio.sleep(1)
                yield item

        calls = Calls(10)
        await amap(calls, source(), concurrency=4)
        assert calls.diary.when("start") == [1, 2, 3, 4]

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_94_the_source_is_pulled_after_the_consumer_has_left(
        self, *, ordered: bool
    ) -> None:
        for make in Pulled.generator, Pulled.async_generator:
            pulled = Pulled(itertools.count())
            before = 0
            async with amap_outcomes(
                Calls(1), make(pulled), concurrency=2, ordered=ordered
            ) as outcomes:
                async for _ in outcomes:
                    before = len(pulled.items)
                    break

            # A step may have been under way.
            after = len(pulled.items)
            assert 0 < before <= after <= before + (make is Pulled.async_generator)
            await anyio.sleep(1000)
            assert len(pulled.items) == after

    async def test_94_nor_after_a_call_has_failed(self) -> None:
        pulled = Pulled(itertools.count())
        with pytest.raises(ValueError, match="bad"):
            await amap(Calls(1, {5: [ValueError("bad")]}), pulled.generator(), concurrency=2)

        before = len(pulled.items)
        assert before <= 8
        await anyio.sleep(1000)
        assert len(pulled.items) == before


class TestAiometer:
    async def test_first_waits_for_the_losers(self) -> None:
        calls = Calls({0: 1, 1: 1000})
        assert (await first(calls, range(2))).item == 0
        assert anyio.current_time() == 1
        assert calls.cut_off == [1]

    async def test_a_break_out_of_the_loop_lets_an_error_come_in_a_group(self) -> None:
        async def leave() -> None:
            async with amap_outcomes(Calls(1), range(9), concurrency=2) as outcomes:
                async for _ in outcomes:
                    raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await leave()

    async def test_never_catches_up_after_a_late_wake(self) -> None:
        from anythrottle.testing._backends import stall

        async def call(item: int) -> None:
            if item == 0:
                stall(10.0)

        await amap(call, range(21), limiter="2/1s")
        # Two of them at the beginning, and 19 from then on.
        assert anyio.current_time() <= 10.0 + 10.0

    async def test_all_items_are_read_at_once(self) -> None:
        found = await every(
            amap_outcomes(Calls(1), itertools.islice(itertools.count(), 50), concurrency=5)
        )
        assert len(found) == 50
