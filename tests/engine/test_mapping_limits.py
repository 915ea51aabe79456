"""What limits `amap` and its kin: limiter, concurrency, cost, throttling; and who is told."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    CostTooHigh,
    Failed,
    Finished,
    RateLimiter,
    Started,
    Throttled,
    ThrottleException,
    amap,
    amap_outcomes,
    current_permit,
    first,
    for_each,
)
from anythrottle.abc import Event
from anythrottle.testing import wait_idle
from tests.engine.calls import Calls, of
from tests.engine.diary import most_in_any_window

pytestmark = pytest.mark.timing

#: Both raise the first error as it is.
BOTH: list[Callable[..., Awaitable[object]]] = [amap, for_each]
both = pytest.mark.parametrize("both", BOTH, ids=["amap", "for_each"])


class TestLimiter:
    @pytest.mark.parametrize("make", [str, RateLimiter])
    async def test_is_an_object_or_a_text(self, make: Callable[[str], RateLimiter | str]) -> None:
        calls = Calls(1)
        await amap(calls, range(8), limiter=make("3/10s"))
        assert calls.diary.when("start") == [0, 0, 0, 10, 10, 10, 20, 20]

    async def test_none_starts_all_at_once(self) -> None:
        calls = Calls(1)
        await amap(calls, range(300))
        assert set(calls.diary.when("start")) == {0}
        assert calls.diary.most_running == 300

    async def test_may_be_shared(self) -> None:
        limiter = RateLimiter("3/10s")
        calls, others = Calls(), Calls()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(lambda: amap(calls, range(10), limiter=limiter))
            task_group.start_soon(lambda: for_each(others, range(10), limiter=limiter))

        starts = [*calls.diary.when("start"), *others.diary.when("start")]
        assert most_in_any_window(starts, 10) == 3
        assert max(starts) == 60
        # Neither has made the other wait for its end.
        for each in calls, others:
            assert {10, 20, 30, 40} <= set(each.diary.when("start"))

    async def test_with_slots_of_its_own(self) -> None:
        limiter = RateLimiter("4/1s", concurrency=2)
        calls = Calls(3)
        await amap(calls, range(6), limiter=limiter)
        assert calls.diary.most_running == 2
        assert calls.diary.when("start") == [0, 0, 3, 3, 6, 6]
        assert limiter.statistics().borrowed_tokens == 0

    async def test_calls_that_run_hold_slots_if_it_gets_some(self) -> None:
        limiter = RateLimiter("100/1s")
        calls = Calls(10)
        with anyio.fail_after(1000):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(lambda: amap(calls, range(5), limiter=limiter, concurrency=3))
                await anyio.sleep(5)
                limiter.reconfigure("100/1s", concurrency=1)
                assert limiter.statistics().borrowed_tokens == 3

        assert calls.diary.when("start") == [0, 0, 0, 10, 20]
        assert limiter.statistics().borrowed_tokens == 0

    async def test_together_with_concurrency(self) -> None:
        calls = Calls(4)
        await amap(calls, range(6), limiter="3/10s", concurrency=2)
        assert calls.diary.when("start") == [0, 0, 4, 10, 10, 14]
        assert calls.diary.most_running == 2

    async def test_a_call_that_enters_it_where_a_slot_could_never_come(self) -> None:
        limiter = RateLimiter(concurrency=2)

        async def call(item: int) -> None:
            await anyio.sleep(1)
            async with limiter:
                pass

        with anyio.fail_after(100), pytest.raises(RuntimeError, match="a slot could never come"):
            await amap(call, range(4), limiter=limiter)

        assert limiter.statistics().borrowed_tokens == 0
        assert limiter.statistics().tasks_waiting == 0

    async def test_a_call_that_enters_it_where_there_are_no_slots_pays_twice(self) -> None:
        limiter = RateLimiter("2/10s")
        times: list[float] = []

        async def call(item: int) -> None:
            async with limiter:
                times.append(anyio.current_time())

        with anyio.fail_after(100):
            await amap(call, range(3), limiter=limiter, concurrency=1)

        assert times == [0, 10, 20]


class TestConcurrency:
    @pytest.mark.parametrize("concurrency", [1, 2, 7])
    async def test_is_a_number(self, concurrency: int) -> None:
        calls = Calls(1)
        await amap(calls, range(14), concurrency=concurrency)
        assert calls.diary.most_running == concurrency
        assert anyio.current_time() == 14 / concurrency

    @pytest.mark.parametrize("lazy", [False, True])
    async def test_is_a_capacity_limiter_that_is_shared(self, *, lazy: bool) -> None:
        capacity = anyio.CapacityLimiter(3)
        calls = Calls(1)

        async def run(items: range) -> None:
            assert await amap(calls, iter(items) if lazy else items, concurrency=capacity) == [
                of(n) for n in items
            ]

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(run, range(15))
            task_group.start_soon(run, range(100, 115))

        assert calls.diary.most_running == 3
        assert anyio.current_time() == 10
        assert capacity.borrowed_tokens == 0
        # The two take turns.
        assert {str(n)[:1] for n in calls.starts[:15] if int(str(n)) >= 100} == {"1"}

    async def test_slots_that_somebody_else_holds(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        calls = Calls(1)
        async with anyio.create_task_group() as task_group, capacity:
            task_group.start_soon(lambda: amap(calls, range(6), concurrency=capacity))
            await anyio.sleep(2.5)
            assert calls.starts == [0, 1, 2]

        assert calls.diary.when("start") == [0, 1, 2, 2.5, 3, 3.5]

    async def test_more_tokens_count_at_once(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        calls = Calls(10)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(lambda: amap(calls, range(6), concurrency=capacity))
            await anyio.sleep(5)
            capacity.total_tokens = 4

        assert calls.diary.when("start") == [0, 5, 5, 5, 10, 15]

    async def test_fewer_tokens_count_as_soon_as_calls_have_ended(self) -> None:
        capacity = anyio.CapacityLimiter(3)
        calls = Calls(10)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(lambda: amap(calls, range(6), concurrency=capacity))
            await anyio.sleep(5)
            capacity.total_tokens = 1

        assert calls.diary.when("start") == [0, 0, 0, 10, 20, 30]
        assert capacity.borrowed_tokens == 0

    async def test_no_slot_is_held_while_there_is_no_item(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        send, receive = anyio.create_memory_object_stream[int]()
        async with receive, anyio.create_task_group() as task_group:
            task_group.start_soon(lambda: amap(Calls(), receive, concurrency=capacity))
            await wait_idle()
            assert capacity.borrowed_tokens == 0
            await send.send(0)
            await wait_idle()
            assert capacity.borrowed_tokens == 0
            send.close()


class TestCost:
    async def test_is_a_number(self) -> None:
        calls = Calls()
        await amap(calls, range(5), limiter="4/10s", cost=2)
        assert calls.diary.when("start") == [0, 0, 10, 10, 20]

    async def test_is_nothing(self) -> None:
        calls = Calls()
        limiter = RateLimiter("1/10s")
        await amap(calls, range(5), limiter=limiter, cost=0)
        assert calls.diary.when("start") == [0] * 5
        assert limiter.peek().remaining == 1

    async def test_is_a_mapping(self) -> None:
        limiter = RateLimiter("10/1s", "100 tokens/10s")
        calls = Calls()
        await amap(calls, range(3), limiter=limiter, cost={"tokens": 60})
        assert calls.diary.when("start") == [0, 10, 20]

    async def test_is_a_function_of_the_item(self) -> None:
        calls = Calls()
        await amap(calls, [1, 3, 4, 2, 2], limiter="4/10s", cost=lambda item: item)
        assert calls.diary.when("start") == [0, 0, 10, 20, 20]

    async def test_that_returns_mappings_which_calls_correct(self) -> None:
        limiter = RateLimiter("100/1s", "100 tokens/10s")
        times: list[float] = []

        async def call(item: int) -> None:
            times.append(anyio.current_time())
            current_permit().settle({"tokens": item // 2})

        await amap(call, [100, 50, 50], limiter=limiter, cost=lambda item: {"tokens": item})
        # 100 at first, of which 50 are given back at once; then 50, of which 25 are; 25 are left.
        assert times == [0, 0, 10]

    @both
    async def test_a_function_that_fails(self, both: Callable[..., Awaitable[object]]) -> None:
        calls = Calls(1)
        with pytest.raises(ZeroDivisionError):
            await both(calls, [1, 0, 2], limiter="4/10s", concurrency=3, cost=lambda n: 2 // n)

        assert calls.cut_off == calls.starts == [1]

    async def test_one_that_can_never_fit(self) -> None:
        calls = Calls(1)
        with pytest.raises(CostTooHigh):
            await amap(calls, [1, 5], limiter="4/10s", cost=lambda item: item)

        assert calls.cut_off == [1]

    async def test_of_one_that_goes_first_is_not_that_of_who_has_waited(self) -> None:
        calls = Calls({3: 1}, {3: [ThrottleException(retry_after=0)]})
        await amap(calls, [3, 2], limiter="4/10s", cost=lambda item: item)
        # When the turn came that was asked for at a cost of 2, the other one was at the front.
        assert calls.starts == [3, 3, 2]
        assert calls.diary.when("start") == [0, 10, 20]

    async def test_of_a_replacement_that_goes_first_is_the_same(self) -> None:
        limiter = RateLimiter("5/10s")
        seen: list[tuple[float, str, int | None]] = []

        async def replacement() -> None:
            seen.append((anyio.current_time(), "replacement", limiter.peek().remaining))

        async def call(item: int) -> None:
            seen.append((anyio.current_time(), str(item), limiter.peek().remaining))
            if not item:
                await anyio.sleep(1)
                raise ThrottleException(replacement, retry_after=0)

        await amap(call, range(2), limiter=limiter, cost=4, concurrency=2)
        assert seen == [(0, "0", 1), (10, "replacement", 1), (20, "1", 1)]

    async def test_is_paid_again_at_each_attempt(self) -> None:
        calls = Calls(errors={0: [ThrottleException(retry_after=0)]})
        await amap(calls, range(2), limiter="4/10s", cost=2)
        assert calls.diary.when("start") == [0, 0, 10]


class TestThrottling:
    async def test_goes_first_after_the_pause_in_its_order(self) -> None:
        throttled: dict[object, list[BaseException]] = {
            n: [ThrottleException(retry_after=20)] for n in (0, 1)
        }
        calls = Calls(1, throttled)
        assert await amap(calls, range(4), limiter="9/1s", concurrency=2) == [
            of(n) for n in range(4)
        ]
        assert calls.starts == [0, 1, 0, 1, 2, 3]
        assert calls.diary.when("start") == [0, 0, 21, 21, 22, 22]

    async def test_pauses_for_the_limiter_s_own_time(self) -> None:
        limiter = RateLimiter("2/10s")
        calls = Calls(errors={0: [ThrottleException()]})
        await amap(calls, range(2), limiter=limiter, concurrency=1)
        assert calls.diary.when("start") == [0, 10, 10]

    async def test_a_replacement_gives_the_result(self) -> None:
        async def replacement() -> str:
            return "replacement"

        calls = Calls(errors={1: [ThrottleException(replacement, retry_after=1)]})
        assert await amap(calls, range(3), concurrency=1) == [of(0), "replacement", of(2)]
        assert calls.starts == [0, 1, 2]

    async def test_max_throttles(self) -> None:
        errors = [ThrottleException(retry_after=1) for _ in range(3)]
        calls = Calls(errors={0: errors})
        with pytest.raises(ThrottleException) as caught:
            await amap(calls, range(3), concurrency=1, attempts=Attempts(max_throttles=3))

        assert caught.value is errors[2]
        assert calls.starts == [0, 0, 0]


class TestReplacementsThatNeverBegan:
    @pytest.mark.parametrize("kind", ["amap", "for_each", "outcomes", "first"])
    async def test_are_closed_at_the_end(self, kind: str) -> None:
        replacement: Any = Calls()("instead")
        calls = Calls({0: 1, 1: 2}, {0: [ThrottleException(replacement, retry_after=9)]})
        if kind == "outcomes":
            async with amap_outcomes(calls, range(2)) as outcomes:
                async for outcome in outcomes:
                    assert outcome.item == 1
                    break
        elif kind == "first":
            assert (await first(calls, range(2))).item == 1
        else:
            with anyio.move_on_after(3):
                await (amap if kind == "amap" else for_each)(calls, range(2))

        assert inspect.getcoroutinestate(replacement) == inspect.CORO_CLOSED


class TestWithoutLimit:
    async def test_the_permit_has_nothing_to_correct(self) -> None:
        async def correct(item: int) -> float:
            permit = current_permit()
            permit.settle(3)
            permit.settle({"tokens": 4})
            permit.refund()
            assert repr(permit) == "<Permit without limit>"
            return permit.waited

        assert await amap(correct, range(2)) == [0, 0]

    @pytest.mark.parametrize(
        ("cost", "expected", "message"),
        [
            (-1, ValueError, "cost must be at least 0, not -1"),
            ("1", TypeError, "cost must be an int or a mapping of units to ints, not '1'"),
            ({"tokens": -2}, ValueError, "cost\\['tokens'\\] must be at least 0, not -2"),
        ],
    )
    async def test_a_correction_may_be_wrong_all_the_same(
        self, cost: Any, expected: type[Exception], message: str
    ) -> None:
        async def correct(item: int) -> None:
            with pytest.raises(expected, match=message):
                current_permit().settle(cost)

        await for_each(correct, range(2))

    @pytest.mark.parametrize("cost", [-1, "1", {"tokens": -2}])
    async def test_a_cost_may_be_wrong_all_the_same(self, cost: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="cost"):
            await for_each(Calls(), range(2), cost=cost)

        with pytest.raises((TypeError, ValueError), match="cost"):
            await for_each(Calls(), range(2), cost=lambda _: cost)

    async def test_a_pause_holds_all_up_and_is_over(self) -> None:
        waited: list[tuple[int, float, float]] = []

        async def note(item: int) -> None:
            waited.append((item, anyio.current_time(), current_permit().waited))
            if item in {1, 4} and waited.count((item, anyio.current_time(), 0.0)):
                raise ThrottleException(retry_after=10)

            await anyio.sleep(1)

        await for_each(note, range(7), concurrency=2)
        assert [(item, when) for item, when, _ in waited] == [
            (0, 0),
            (1, 0),
            (1, 10),
            (2, 10),
            (3, 11),
            (4, 11),
            (4, 21),
            (5, 21),
            (6, 22),
        ]
        # Whoever is frontmost waits for its turn; the others for the lead.
        assert [item for item, _, seconds in waited if seconds] == [1, 4]


class TestObserver:
    async def test_is_told_of_each_item(self) -> None:
        events: list[Event] = []
        signal, error = ThrottleException(retry_after=1), OSError()
        calls = Calls(2, {"a": [signal], "c": [error]})
        with pytest.raises(OSError):  # noqa: PT011 - the one above
            await amap(calls, ["a", "b", "c"], concurrency=1, observer=events.append)

        assert events == [
            Started(0, "a", 1, 0.0),
            Throttled(None, 0, 1, signal, "a"),
            Started(0, "a", 2, 1.0),
            Finished(0, "a", 2, 2.0),
            Started(1, "b", 1, 0.0),
            Finished(1, "b", 1, 2.0),
            Started(2, "c", 1, 0.0),
            Failed(2, "c", 1, 2.0, error),
        ]

    async def test_of_an_item_whose_cost_fails(self) -> None:
        events: list[Event] = []
        with pytest.raises(CostTooHigh) as caught:
            await amap(
                Calls(), [9], limiter="4/10s", cost=lambda item: item, observer=events.append
            )

        assert events == [Failed(0, 9, 0, 0.0, caught.value)]

    async def test_what_it_raises_harms_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        def observer(event: Event) -> None:
            raise OSError("observer")

        assert await amap(Calls(1), range(2), observer=observer) == [of(0), of(1)]
        assert len(caplog.records) == 4
