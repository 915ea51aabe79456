"""`amap_outcomes`: outcomes as they come, or in order."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    CostTooHigh,
    Failed,
    Finished,
    Outcome,
    RateLimiter,
    Retried,
    Started,
    ThrottleException,
    amap_outcomes,
)
from anythrottle.abc import Event
from anythrottle.testing import wait_idle
from tests.engine.calls import Calls, Pulled, every, of, raising, raising_async

pytestmark = pytest.mark.timing

in_any_order = pytest.mark.parametrize("ordered", [False, True])


def number_itself(item: object) -> int:
    assert isinstance(item, int)
    return item


class TestOutcomes:
    async def test_belong_to_their_items(self) -> None:
        error = OSError()
        calls = Calls({"a": 3, "b": 1, "c": 2}, {"b": [error]})
        async with amap_outcomes(calls, "abc", concurrency=3) as outcomes:
            found = [outcome async for outcome in outcomes]

        assert found == [
            Outcome(1, "b", None, error, 1, 0.0, 1.0),
            Outcome(2, "c", of("c"), None, 1, 0.0, 2.0),
            Outcome(0, "a", of("a"), None, 1, 0.0, 3.0),
        ]
        assert [outcome.value for outcome in found[1:]] == [of("c"), of("a")]
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the one above
            _ = found[0].value

        assert caught.value is error

    async def test_come_as_soon_as_they_are_there(self) -> None:
        calls = Calls({n: n for n in range(6)})
        async with amap_outcomes(calls, range(6)) as outcomes:
            async for outcome in outcomes:
                assert anyio.current_time() == outcome.item

    async def test_tell_how_long_it_has_waited_and_how_often_it_was_tried(self) -> None:
        calls = Calls(3, {1: [ThrottleException(retry_after=20)]})
        (first, second) = await every(
            amap_outcomes(calls, range(2), limiter="1/10s", concurrency=1, ordered=True)
        )
        assert (first.waited, first.attempts, first.duration) == (0, 1, 3)
        # From 3 to 10, and from 13 to 33.
        assert (second.waited, second.attempts, second.duration) == (27, 2, 3)

    @in_any_order
    async def test_of_no_items_are_none(self, *, ordered: bool) -> None:
        sources: list[Any] = [[], iter(()), Pulled([]).async_generator()]
        for items in sources:
            assert await every(amap_outcomes(Calls(), items, ordered=ordered)) == []

    @in_any_order
    async def test_errors_are_outcomes_and_the_others_go_on(self, *, ordered: bool) -> None:
        calls = Calls(1, {n: [ValueError(n)] for n in range(0, 20, 2)})
        found = await every(amap_outcomes(calls, range(20), concurrency=3, ordered=ordered))
        assert sorted(outcome.index for outcome in found) == list(range(20))
        for outcome in found:
            assert outcome.index == outcome.item
            assert (outcome.error is None) == (outcome.index % 2 == 1)

    async def test_a_group_of_the_user_s_own_is_an_outcome_as_it_is(self) -> None:
        error = ExceptionGroup("mine", [KeyError()])
        (outcome,) = await every(amap_outcomes(Calls(1, {0: [error]}), [0]))
        assert outcome.error is error

    async def test_are_for_one_task_at_a_time(self) -> None:
        async with amap_outcomes(Calls(10), [0]) as outcomes, anyio.create_task_group() as group:
            group.start_soon(anext, outcomes)
            await anyio.sleep(1)
            with pytest.raises(anyio.BusyResourceError, match="waiting for an outcome"):
                await anext(outcomes)

    async def test_end_for_good(self) -> None:
        async with amap_outcomes(Calls(), [0]) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 1
            assert [outcome async for outcome in outcomes] == []

    async def test_there_are_none_after_the_block(self) -> None:
        async with amap_outcomes(Calls(), range(3)) as outcomes:
            await wait_idle()

        with pytest.raises(anyio.ClosedResourceError):
            await anext(outcomes)

    async def test_a_wait_that_was_cancelled_loses_nothing(self) -> None:
        found: list[object] = []
        async with amap_outcomes(Calls(3), range(4), concurrency=1) as outcomes:
            while len(found) < 4:
                with anyio.move_on_after(1):
                    found.append((await anext(outcomes)).item)

        assert found == [0, 1, 2, 3]

    async def test_a_wait_that_is_cancelled_as_the_outcome_comes_loses_nothing(self) -> None:
        found: list[object] = []
        scope = anyio.CancelScope()

        async def call(item: int) -> int:
            await anyio.sleep(1)
            scope.cancel()
            return item

        async with amap_outcomes(call, range(4), concurrency=1) as outcomes:
            while len(found) < 4:
                with anyio.CancelScope() as scope:
                    found.append((await anext(outcomes)).item)

                await anyio.sleep(0.5)

        assert found == [0, 1, 2, 3]

    async def test_another_task_that_waits_for_one_is_told_of_the_end(self) -> None:
        told: list[BaseException] = []

        async def wait(outcomes: AsyncIterator[object]) -> None:
            try:
                await anext(outcomes)
            except anyio.ClosedResourceError as exc:
                told.append(exc)

        with anyio.fail_after(100):
            async with (
                anyio.create_task_group() as group,
                amap_outcomes(Calls(99), [0]) as outcomes,
            ):
                group.start_soon(wait, outcomes)
                await anyio.sleep(1)

        assert len(told) == 1


async def test_each_block_is_entered_once() -> None:
    calls = Calls()
    block = amap_outcomes(calls, [0])
    async with block as outcomes:
        with pytest.raises(RuntimeError, match="call it again for each block"):
            await block.__aenter__()

        assert [outcome.index async for outcome in outcomes] == [0]

    with pytest.raises(RuntimeError, match="call it again for each block"):
        async with block:
            raise AssertionError

    assert calls.starts == [0]


class TestSources:
    @in_any_order
    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_are_pulled_as_calls_start_one_ahead(
        self, concurrency: int, *, ordered: bool
    ) -> None:
        for make in Pulled.generator, Pulled.async_generator:
            calls = Calls({n: n % 3 for n in range(20)})
            pulled = Pulled(range(20), calls)
            found = await every(
                amap_outcomes(calls, make(pulled), concurrency=concurrency, ordered=ordered)
            )
            assert len(found) == 20
            assert pulled.items == calls.starts == list(range(20))
            assert pulled.most_ahead == 1

    @in_any_order
    async def test_endless_ones(self, *, ordered: bool) -> None:
        for make in Pulled.generator, Pulled.async_generator:
            pulled = Pulled(itertools.count())
            found: list[object] = []
            async with amap_outcomes(
                Calls(1), make(pulled), concurrency=2, ordered=ordered
            ) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome.item)
                    if len(found) == 10:
                        break

            assert sorted(map(str, found)) == sorted(map(str, range(10)))
            assert len(pulled.items) <= 10 + 2 + 1

    async def test_a_memory_object_stream_while_it_lasts(self) -> None:
        send, receive = anyio.create_memory_object_stream[int]()
        async with receive, amap_outcomes(Calls(1), receive, concurrency=2) as outcomes:
            for item in range(5):
                await send.send(item)
                assert (await anext(outcomes)).item == item

            send.close()
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)

        assert anyio.current_time() == 5

    @in_any_order
    @pytest.mark.parametrize("make", [raising, raising_async])
    async def test_an_error_comes_after_the_outcomes_before_it(
        self, make: Callable[[BaseException, Any], Any], *, ordered: bool
    ) -> None:
        error = OSError("source")
        calls = Calls({n: n + 1 for n in range(4)})
        found: list[object] = []

        async def take_all() -> None:
            source = make(error, range(4))
            async with amap_outcomes(calls, source, concurrency=9, ordered=ordered) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome.item)  # noqa: PERF401 - an error comes midway

        with pytest.raises(OSError, match="source") as caught:
            await take_all()

        assert caught.value is error
        assert found == calls.ends == [0, 1, 2, 3]

    async def test_after_its_error_there_is_no_more(self) -> None:
        async with amap_outcomes(Calls(), raising(KeyError("source"), [0])) as outcomes:
            assert (await anext(outcomes)).item == 0
            with pytest.raises(KeyError):
                await anext(outcomes)

            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)

    async def test_an_error_of_a_sequence(self) -> None:
        class Broken(list[int]):
            def __getitem__(self, index: Any) -> Any:
                if index == 2:
                    raise LookupError("my own")

                return super().__getitem__(index)

        found: list[object] = []
        async with amap_outcomes(Calls(1), Broken(range(5)), concurrency=9) as outcomes:
            for _ in range(2):
                found.append((await anext(outcomes)).item)  # noqa: PERF401 - an error comes midway

            with pytest.raises(LookupError, match="my own"):
                await anext(outcomes)

        assert sorted(found, key=str) == [0, 1]

    @pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
    async def test_ctrl_c_in_the_source_leaves_bare_at_once(
        self, signal: type[BaseException]
    ) -> None:
        calls = Calls(100)
        with pytest.raises(signal, match="source"):
            await every(amap_outcomes(calls, raising(signal("source"), [0])))

        assert calls.cut_off == calls.starts
        assert anyio.current_time() == 0


class TestOrdered:
    async def test_what_was_put_back_holds_back_nothing_after_a_stop(self) -> None:
        async def call(item: int) -> int:
            if item == 0:
                raise OSError

            await anyio.sleep(2)
            return item

        found: list[int] = []
        later = Attempts(retry_on=lambda _: 5.0)
        async with amap_outcomes(
            call, range(3), concurrency=3, ordered=True, attempts=later
        ) as outcomes:
            await anyio.sleep(1)
            outcomes.stop()
            found += [outcome.value async for outcome in outcomes]

        assert found == [1, 2]

    async def test_nor_after_a_halt(self) -> None:
        async def call(item: int) -> int:
            await anyio.sleep(item or 0.5)
            if item == 0:
                raise ThrottleException(retry_after=5)

            if item == 1:
                raise KeyError(item)

            return item

        async with amap_outcomes(
            call, range(3), concurrency=3, ordered=True, halt=lambda _: True
        ) as outcomes:
            found = [outcome.index async for outcome in outcomes]

        assert found == [1, 2]

    async def test_come_in_the_order_of_the_items(self) -> None:
        calls = Calls({n: (7 * n) % 5 for n in range(30)})
        found = await every(amap_outcomes(calls, range(30), concurrency=5, ordered=True))
        assert [outcome.index for outcome in found] == list(range(30))
        assert calls.ends != list(range(30))

    @pytest.mark.parametrize(
        ("concurrency", "held_back"),
        [(1, 0), (2, 2), (5, 5), (None, 100), ("capacity", 3)],
    )
    async def test_no_more_are_held_back_than_run_at_once(
        self, concurrency: int | str | None, held_back: int
    ) -> None:
        slots = anyio.CapacityLimiter(3) if isinstance(concurrency, str) else concurrency
        calls = Calls({0: 1000})
        async with amap_outcomes(
            calls, itertools.count(), concurrency=slots, ordered=True
        ) as outcomes:
            await anyio.sleep(500)
            # With one slot only the first can run.
            assert calls.ends == list(range(1, held_back + 1))
            assert (await anext(outcomes)).item == 0
            assert anyio.current_time() == 1000
            await wait_idle()
            # All that is held back may be taken now: each makes room for one more.
            assert calls.starts[-1] == 1 + max(held_back, 1)

    async def test_more_tokens_hold_back_more(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        calls = Calls({0: 1000, 1: 10})
        async with amap_outcomes(
            calls, itertools.count(), concurrency=capacity, ordered=True
        ) as outcomes:
            await anyio.sleep(5)
            capacity.total_tokens = 4
            await anyio.sleep(500)
            assert calls.starts == [0, 1, 2, 3, 4]
            assert (await anext(outcomes)).item == 0

    async def test_one_that_was_throttled_is_waited_for(self) -> None:
        calls = Calls({0: 0.5, 1: 1}, {0: [ThrottleException(retry_after=50)]})
        found = await every(amap_outcomes(calls, range(9), concurrency=2, ordered=True))
        assert [outcome.index for outcome in found] == list(range(9))
        assert calls.starts[:3] == [0, 1, 0]

    async def test_one_that_is_tried_again_later_is_waited_for(self) -> None:
        calls = Calls(errors={0: [OSError()]})
        async with amap_outcomes(
            calls,
            range(9),
            concurrency=2,
            ordered=True,
            attempts=Attempts(retry_on=lambda error: 50.0),
        ) as outcomes:
            await anyio.sleep(40)
            assert calls.starts == [0, 1, 2]
            assert [outcome.index async for outcome in outcomes] == list(range(9))

    async def test_one_whose_cost_fails_has_its_place(self) -> None:
        found = await every(
            amap_outcomes(Calls(1), [1, 9, 2], limiter="4/10s", cost=number_itself, ordered=True)
        )
        assert [outcome.item for outcome in found] == [1, 9, 2]
        assert isinstance(found[1].error, CostTooHigh)


class TestSlowConsumers:
    """As many outcomes may wait as calls run at once, and those that run then come on top."""

    @pytest.mark.parametrize("concurrency", [1, 2, 5, "capacity"])
    async def test_hold_the_calls_and_the_source_back(self, concurrency: int | str) -> None:
        slots = anyio.CapacityLimiter(3) if isinstance(concurrency, str) else concurrency
        most = 3 if isinstance(concurrency, str) else int(concurrency)
        calls = Calls(1)
        pulled = Pulled(itertools.count(), calls)
        async with amap_outcomes(calls, pulled.generator(), concurrency=slots) as outcomes:
            for taken in range(20):
                await anyio.sleep(100)
                # When the last place was taken, all but one of the calls may have been under way;
                # and one may have been waiting for a slot that others may have.
                limit = 2 * most - isinstance(slots, int)
                assert taken + most <= len(calls.starts) <= taken + limit
                assert len(pulled.items) == len(calls.starts) + 1
                await anext(outcomes)

    @pytest.mark.parametrize("concurrency", [1, 2, 5])
    async def test_hold_a_sequence_back(self, concurrency: int) -> None:
        calls = Calls(1)
        async with amap_outcomes(calls, range(1000), concurrency=concurrency) as outcomes:
            await anyio.sleep(100)
            assert len(calls.ends) == len(calls.starts) == 2 * concurrency - 1
            await anext(outcomes)

    @pytest.mark.parametrize("concurrency", [1, 2, 5])
    async def test_hold_back_calls_that_never_wait(self, concurrency: int) -> None:
        calls = Calls()
        async with amap_outcomes(calls, itertools.count(), concurrency=concurrency) as outcomes:
            await anyio.sleep(10)
            assert len(calls.starts) == concurrency
            await anext(outcomes)
            await anyio.sleep(10)
            assert len(calls.starts) == concurrency + 1

    async def test_a_hundred_may_wait_if_concurrency_has_no_bound(self) -> None:
        calls = Calls()
        async with amap_outcomes(calls, itertools.count()) as outcomes:
            await anyio.sleep(10)
            assert len(calls.starts) == 100
            await anext(outcomes)

    async def test_a_hundred_may_wait_if_the_capacity_has_no_bound(self) -> None:
        calls = Calls()
        capacity = anyio.CapacityLimiter(float("inf"))
        async with amap_outcomes(calls, itertools.count(), concurrency=capacity) as outcomes:
            await anyio.sleep(10)
            assert len(calls.starts) == 100
            await anext(outcomes)

    @pytest.mark.parametrize("concurrency", [1, 2, 5, None])
    async def test_hold_the_source_back_in_order_too(self, concurrency: int | None) -> None:
        calls = Calls(1)
        pulled = Pulled(itertools.count())
        held_back = 100 if concurrency is None else concurrency
        async with amap_outcomes(
            calls, pulled.generator(), concurrency=concurrency, ordered=True
        ) as outcomes:
            await anyio.sleep(200)
            # The next one and those behind it.
            assert len(calls.ends) == held_back + 1
            assert len(pulled.items) == held_back + 2
            await anext(outcomes)
            await anyio.sleep(100)
            assert len(calls.ends) == held_back + 2

    async def test_hold_nothing_meanwhile(self) -> None:
        capacity, limiter = anyio.CapacityLimiter(2), RateLimiter("9/1s", concurrency=2)
        async with amap_outcomes(
            Calls(1), itertools.count(), concurrency=capacity, limiter=limiter
        ):
            await anyio.sleep(100)
            assert capacity.borrowed_tokens == 0
            assert limiter.statistics().borrowed_tokens == 0
            assert limiter.peek().remaining == 9


class TestOneItemAlone:
    """What concerns one item alone is in its outcome."""

    @in_any_order
    async def test_a_cost_function_that_fails(self, *, ordered: bool) -> None:
        calls = Calls(1)
        found = await every(
            amap_outcomes(
                calls,
                [2, 0, 1, 9, "x"],
                limiter="4/10s",
                concurrency=2,
                cost=lambda item: 4 // item if item != 9 else 9,  # type: ignore[operator]
                ordered=ordered,
            )
        )
        by_item = {outcome.item: outcome for outcome in found}
        assert calls.starts == [2, 1]
        for item, kind in {0: ZeroDivisionError, 9: CostTooHigh, "x": TypeError}.items():
            outcome = by_item[item]
            assert isinstance(outcome.error, kind)
            assert (outcome.attempts, outcome.waited, outcome.duration) == (0, 0, 0)

        assert by_item[2].value == of(2)
        assert by_item[1].value == of(1)
        assert sorted(outcome.index for outcome in found) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("wrong", [-1, 1.5, "1", {"no such unit": 1}, None])
    async def test_a_cost_function_that_returns_nonsense(self, wrong: Any) -> None:
        limiter = RateLimiter("4/10s", concurrency=1)
        found = await every(
            amap_outcomes(
                Calls(1), [0, 1], limiter=limiter, cost=lambda item: wrong if item == 0 else 1
            )
        )
        assert [outcome.item for outcome in found] == [0, 1]
        assert isinstance(found[0].error, TypeError | ValueError)
        assert found[1].value == of(1)
        assert limiter.statistics().borrowed_tokens == 0

    async def test_a_cost_function_that_fails_at_a_replacement(self) -> None:
        """While somebody else's turn is waited for, too."""

        async def replacement() -> str:
            return "replacement"

        asked: list[object] = []

        def cost(item: object) -> int:
            asked.append(item)
            if asked.count(0) > 1 and item == 0:
                raise ValueError("second time")

            return 1

        limiter = RateLimiter("2/10s", concurrency=3)
        calls = Calls(1, {0: [ThrottleException(replacement, retry_after=0)]})
        found = await every(amap_outcomes(calls, range(4), limiter=limiter, cost=cost))
        by_item = {outcome.item: outcome for outcome in found}
        assert str(by_item[0].error) == "second time"
        assert [by_item[n].value for n in (1, 2, 3)] == [of(1), of(2), of(3)]
        assert limiter.statistics().borrowed_tokens == 0

    async def test_max_throttles(self) -> None:
        errors = [ThrottleException(retry_after=1) for _ in range(3)]
        calls = Calls(errors={1: errors})
        found = await every(
            amap_outcomes(
                calls, range(3), concurrency=1, attempts=Attempts(max_throttles=2), ordered=True
            )
        )
        assert [outcome.attempts for outcome in found] == [1, 2, 1]
        assert found[1].error is errors[1]
        assert found[2].value == of(2)

    async def test_a_timeout(self) -> None:
        calls = Calls({1: 10})
        found = await every(
            amap_outcomes(calls, range(3), attempts=Attempts(timeout=5), ordered=True)
        )
        assert isinstance(found[1].error, TimeoutError)
        assert [outcome.duration for outcome in found] == [0, 5, 0]


async def test_an_observer_is_told_of_items() -> None:
    events: list[Event] = []
    error, again = OSError(), KeyError()
    calls = Calls(1, {"a": [error], "b": [again]})
    await every(
        amap_outcomes(
            calls,
            Pulled("ab").generator(),
            concurrency=1,
            attempts=Attempts(retry_on=lambda error: 5.0 if error is again else False),
            observer=events.append,
        )
    )
    assert events == [
        Started(0, "a", 1, 0.0),
        Failed(0, "a", 1, 1.0, error),
        Started(1, "b", 1, 0.0),
        Retried(1, "b", 1, 5.0, again),
        Started(1, "b", 2, 0.0),
        Finished(1, "b", 2, 1.0),
    ]


@pytest.mark.parametrize("ordered", [False, True])
async def test_the_limiter_s_own_concurrency_bounds_the_look_ahead(ordered: bool) -> None:
    calls = Calls({0: 50})
    limiter = RateLimiter(concurrency=3)
    async with amap_outcomes(calls, range(200), limiter=limiter, ordered=ordered):
        await anyio.sleep(10)
        # Those that have ended and are held back, and those that run.
        assert len(calls.starts) == (4 if ordered else 3 + 1)
