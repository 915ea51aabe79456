"""The throttler with a function: its items are data, which it never calls, awaits or closes."""

from __future__ import annotations

import gc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    Failed,
    Finished,
    RateLimiter,
    Started,
    Throttled,
    ThrottleException,
    Throttler,
)
from anythrottle.abc import Event
from tests.engine.calls import Calls, of
from tests.engine.diary import Diary, doubled

pytestmark = pytest.mark.timing

Items = Throttler[object, object]


async def finish(throttler: Items) -> Any:
    with anyio.fail_after(1000):
        return await throttler.run()


def failures(throttler: Items) -> list[tuple[object, BaseException | None]]:
    found: list[tuple[object, BaseException | None]] = []
    while True:
        try:
            outcome = throttler.exceptions.receive_nowait()
        except (anyio.WouldBlock, anyio.EndOfStream):
            return found

        found.append((outcome.item, outcome.error))


class Untouchable:
    """An item that nobody may call, await or close, though one could."""

    def __call__(self) -> None:
        raise AssertionError("it was called")

    def __await__(self) -> Any:
        raise AssertionError("it was awaited")

    def close(self) -> None:
        raise AssertionError("it was closed")


class TestItems:
    async def test_the_function_is_called_with_each(self) -> None:
        calls = Calls()
        diary = Diary()
        throttler: Items = Throttler([3, None, "a"], diary.consumer(), func=calls)
        statistics = await finish(throttler)
        assert calls.starts == [3, None, "a"]
        assert set(diary.consumed) == {of(3), of("a"), of(None)}
        assert statistics.done == 3

    @pytest.mark.parametrize("limited", [True, False])
    async def test_with_either_way_to_say_how_fast(self, limited: bool) -> None:
        options: Any = (
            {"limiter": "2/10s"} if limited else {"time_window": 10, "per_time_window": 2}
        )
        calls = Calls()
        throttler: Items = Throttler(range(5), func=calls, **options)
        await finish(throttler)
        assert calls.diary.when("start") == [0, 0, 10, 10, 20]

    async def test_what_could_be_a_job_is_left_as_it_is(self) -> None:
        async def coroutine_function() -> None:
            raise AssertionError("it was called")

        coroutine = coroutine_function()
        items = [Untouchable(), coroutine, coroutine_function, len, Untouchable()]
        seen: list[object] = []

        async def look(item: object) -> None:
            seen.append(item)

        throttler: Items = Throttler(items, func=look, concurrency=1)
        await finish(throttler)
        assert seen == items
        throttler.add(coroutine)
        throttler.add(items[0])
        await throttler.aclose()
        del throttler
        gc.collect()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
        coroutine.close()

    async def test_what_remains_is_not_closed_either(self) -> None:
        async def job() -> None: ...

        coroutines = [job() for _ in range(3)]
        throttler: Items = Throttler(coroutines, func=Calls())
        throttler.add(coroutines[0], front=True)
        async with throttler:
            pass

        states = {inspect.getcoroutinestate(coroutine) for coroutine in coroutines}
        assert states == {inspect.CORO_CREATED}
        for coroutine in coroutines:
            coroutine.close()

    async def test_a_stream_of_data_makes_a_service(self) -> None:
        calls = Calls(1)
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[object](9)
        async with receive, anyio.create_task_group() as task_group:
            throttler: Items = Throttler(receive, diary.consumer(), func=calls, limiter="1/s")
            task_group.start_soon(finish, throttler)
            async with send:
                for item in "abc":
                    await send.send(item)
                    await anyio.sleep(5)

        assert diary.consumed == [of("a"), of("b"), of("c")]

    async def test_failures_are_of_items(self) -> None:
        error = KeyError()
        calls = Calls(errors={"b": [error]})
        throttler: Items = Throttler("abc", func=calls)
        await finish(throttler)
        assert failures(throttler) == [("b", error)]

    async def test_so_is_what_remains_or_is_added(self) -> None:
        calls = Calls(2)
        throttler: Items = Throttler(["a", "b", "c", "d"], func=calls, concurrency=2)
        throttler.add("first", front=True)
        throttler.add("second")
        assert throttler.remaining() == ["first", "second", "a", "b", "c", "d"]
        with anyio.move_on_after(3):
            await throttler.run()

        assert calls.starts == ["first", "second", "a", "b"]
        assert throttler.remaining() == ["a", "b", "c", "d"]
        await finish(throttler)
        assert calls.starts == ["first", "second", "a", "b", "a", "b", "c", "d"]
        assert throttler.remaining() == []

    async def test_so_are_costs_and_events(self) -> None:
        events: list[Event] = []
        calls = Calls()
        throttler: Items = Throttler(
            [1, 3],
            func=calls,
            limiter="3/10s",
            cost=lambda item: item,  # type: ignore[arg-type,return-value]
            observer=events.append,
        )
        await finish(throttler)
        assert calls.diary.when("start") == [0, 10]
        assert events == [
            Started(0, 1, 1, 0.0),
            Finished(0, 1, 1, 0.0),
            Started(1, 3, 1, 10.0),
            Finished(1, 3, 1, 0.0),
        ]

    async def test_attempts(self) -> None:
        calls = Calls(errors={"a": [OSError(), ThrottleException(retry_after=2), OSError()]})
        attempts = Attempts(3, retry_on=lambda _: 1)
        throttler: Items = Throttler("ab", func=calls, attempts=attempts, concurrency=1)
        statistics = await finish(throttler)
        assert (statistics.done, statistics.retried, statistics.throttled) == (2, 2, 1)

    async def test_a_function_that_is_not_async_after_all(self) -> None:
        throttler: Items = Throttler([5], func=lambda item: item)  # type: ignore[arg-type,return-value]
        await finish(throttler)
        [(item, error)] = failures(throttler)
        assert item == 5
        assert isinstance(error, TypeError)
        assert "cannot be awaited" in str(error)

    async def test_a_function_that_is_none_means_jobs(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(3), diary.consumer(), func=None)
        await throttler.run()
        assert sorted(diary.consumed, key=str) == [0, 1, 2]

    async def test_no_awaitable_is_lost(self) -> None:
        events: list[Event] = []

        async def wait(item: object) -> None:
            await anyio.sleep(5)

        throttler: Items = Throttler([1, 2], func=wait, observer=events.append)
        with anyio.move_on_after(3):
            await throttler.run()

        assert throttler.remaining() == [1, 2]
        assert not any(isinstance(event, Failed) for event in events)

    async def test_an_interrupted_generator_of_items(self) -> None:
        async def source() -> AsyncIterator[int]:
            yield 1
            yield 2

        calls = Calls()
        throttler: Items = Throttler(source(), func=calls)
        await finish(throttler)
        await throttler.aclose()
        assert calls.starts == [1, 2]


def throttled_by(replacements: Iterable[Any]) -> Callable[[object], Awaitable[object]]:
    """Return a function that is throttled once for each replacement, and then returns."""
    left = list(replacements)

    async def call(item: object) -> object:
        await anyio.sleep(2)
        if left:
            raise ThrottleException(left.pop(0), retry_after=1)

        return of(item)

    return call


class TestReplacements:
    async def test_one_runs_in_the_item_s_place(self) -> None:
        diary = Diary()
        instead = diary.job("instead")
        throttler: Items = Throttler(["a"], diary.consumer(), func=throttled_by([instead]))
        await finish(throttler)
        assert diary.consumed == ["instead"]

    async def test_events_name_the_item(self) -> None:
        events: list[Event] = []
        instead = Diary().job("instead")
        func = throttled_by([instead])
        await finish(Throttler(["a"], func=func, limiter="9/s", observer=events.append))
        named = [event.item for event in events if isinstance(event, (Started, Throttled))]
        assert named == ["a", "a", "a"]

    async def test_its_failure_is_the_item_s(self) -> None:
        error = KeyError()
        instead = Diary().job("instead", errors=[error])
        throttler: Items = Throttler(["a"], func=throttled_by([instead]))
        await finish(throttler)
        assert failures(throttler) == [("a", error)]

    async def test_it_stays_the_item_s_until_it_has_ended(self) -> None:
        diary = Diary()
        throttle = ThrottleException(retry_after=1)
        instead = diary.job("instead", errors=[throttle, OSError()])
        throttler: Items = Throttler(
            ["a"],
            diary.consumer(),
            func=throttled_by([instead]),
            attempts=Attempts(retry_on=lambda _: 1),
        )
        await finish(throttler)
        assert diary.starts == ["instead"] * 3
        assert diary.consumed == ["instead"]

    async def test_it_stays_so_over_runs_while_it_waits(self) -> None:
        diary = Diary()
        instead = diary.job("instead")
        throttler: Items = Throttler(["a"], diary.consumer(), func=throttled_by([instead]))
        with anyio.move_on_after(2.5):
            await throttler.run()

        assert throttler.remaining() == ["a"]
        await finish(throttler)
        assert diary.consumed == ["instead"]

    @pytest.mark.parametrize("called", [True, False])
    async def test_after_a_cut_off_the_function_is_called_again(self, called: bool) -> None:
        diary = Diary()
        instead: Any = diary.job("instead", seconds=9)
        replacement = instead() if called else instead
        events: list[Event] = []
        throttler: Items = Throttler(
            ["a"], diary.consumer(), func=throttled_by([replacement]), observer=events.append
        )
        with anyio.move_on_after(5):
            await throttler.run()

        assert diary.who("cut off") == ["instead"]
        assert throttler.remaining() == ["a"]
        await finish(throttler)
        assert diary.consumed == [of("a")]
        assert not any(isinstance(event, Failed) for event in events)
        assert failures(throttler) == []

    async def test_one_that_never_began_is_closed(self) -> None:
        diary = Diary()
        instead: Any = diary.job("instead")()
        throttler: Items = Throttler(["a"], func=throttled_by([instead]))
        with anyio.move_on_after(2.5):
            await throttler.run()

        assert throttler.remaining() == ["a"]
        assert inspect.getcoroutinestate(instead) == inspect.CORO_CREATED
        await throttler.aclose()
        assert inspect.getcoroutinestate(instead) == inspect.CORO_CLOSED

    async def test_so_it_is_if_the_throttler_is_forgotten(self) -> None:
        diary = Diary()
        instead: Any = diary.job("instead")()
        throttler: Items = Throttler(["a"], func=throttled_by([instead]))
        with anyio.move_on_after(2.5):
            await throttler.run()

        throttler.remaining()
        del throttler
        gc.collect()
        assert inspect.getcoroutinestate(instead) == inspect.CORO_CLOSED

    async def test_a_refused_one_is_closed(self) -> None:
        instead: Any = Diary().job("instead")()
        attempts = Attempts(max_throttles=1)
        throttler: Items = Throttler(["a"], func=throttled_by([instead]), attempts=attempts)
        await finish(throttler)
        assert inspect.getcoroutinestate(instead) == inspect.CORO_CLOSED
        assert len(failures(throttler)) == 1

    async def test_an_awaitable_one_that_is_throttled_cannot_go_again(self) -> None:
        diary = Diary()
        throttle = ThrottleException(retry_after=1)
        instead: Any = diary.job("instead", errors=[throttle])()
        throttler: Items = Throttler(["a"], func=throttled_by([instead]))
        await finish(throttler)
        assert failures(throttler) == [("a", throttle)]


class TestEveryInstant:
    @pytest.mark.parametrize("quarters", range(28))
    async def test_each_item_is_in_one_place(self, quarters: int) -> None:
        diary = Diary()
        plan: dict[str, list[BaseException]] = {
            "a": [ThrottleException(diary.job("instead", seconds=1), retry_after=1)],
            "b": [OSError()],
            "c": [KeyError()],
        }

        async def call(item: str) -> str:
            await anyio.sleep(1)
            if plan.get(item):
                raise plan[item].pop()

            return item

        consumed: list[str] = []
        failed: list[object] = []

        async def consume(result: object) -> None:
            await anyio.sleep(0.5)
            consumed.append("a" if result == "instead" else str(result))

        throttler: Any = Throttler(
            "abcdef",
            consume,
            func=call,
            limiter=RateLimiter("3/s"),
            concurrency=2,
            attempts=Attempts(retry_on=lambda error: isinstance(error, OSError) and 1.0),
        )
        for _ in range(2):
            with anyio.move_on_after(quarters / 4 + 1 / 64):
                await throttler.run()

            failed += [item for item, _ in failures(throttler)]
            stock = [*consumed, *failed, *throttler.remaining()]
            assert doubled(stock) == []
            assert sorted(map(str, stock)) == list("abcdef")

        await finish(throttler)
        failed += [item for item, _ in failures(throttler)]
        assert failed == ["c"]
        assert sorted(consumed) == list("abdef")


class TestBadInput:
    @pytest.mark.parametrize("func", [5, "print", [len]])
    def test_a_function_that_is_none(self, func: Any) -> None:
        with pytest.raises(TypeError, match=r"^func must be an async function of one argument, "):
            Throttler([1], func=func)

    @pytest.mark.parametrize("items", [None, 5, len])
    def test_items_that_are_none(self, items: Any) -> None:
        with pytest.raises(TypeError, match=r"^items must be an iterable or an async iterable"):
            Throttler(items, func=Calls())

    def test_the_first_parameter_has_no_name(self) -> None:
        with pytest.raises(TypeError):
            Throttler(jobs=[])  # type: ignore[call-overload]

        with pytest.raises(TypeError):
            Throttler(items=[], func=Calls())  # type: ignore[call-overload]
