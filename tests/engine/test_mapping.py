"""`amap` and `for_each`: all results, or the first error."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import anyio
import pytest

from anythrottle import (
    LimitExceeded,
    amap,
    for_each,
)
from tests.engine.calls import Calls, Impatient, Pulled, of, raising, raising_async

pytestmark = pytest.mark.timing

#: Both raise the first error as it is.
BOTH: list[Callable[..., Awaitable[object]]] = [amap, for_each]
both = pytest.mark.parametrize("both", BOTH, ids=["amap", "for_each"])


class TestResults:
    async def test_come_in_the_order_of_the_items(self) -> None:
        calls = Calls({n: 5 - n for n in range(5)})
        assert await amap(calls, range(5), concurrency=5) == [of(n) for n in range(5)]
        assert calls.ends == [4, 3, 2, 1, 0]

    async def test_of_equal_and_falsy_items_are_results(self) -> None:
        async def same(item: object) -> object:
            return item

        items: list[object] = [0, None, "", 0, False, [], 0]
        assert await amap(same, items, concurrency=2) == items

    async def test_of_no_items_are_none(self) -> None:
        calls = Calls()
        assert await amap(calls, []) == []
        assert await amap(calls, iter(())) == []
        assert calls.starts == []

    async def test_are_not_kept_by_for_each(self) -> None:
        calls = Calls(1)
        await for_each(calls, range(5), concurrency=2)
        assert sorted(calls.ends, key=str) == list(range(5))

    async def test_of_a_hundred_thousand_calls_that_never_wait(self) -> None:
        async def same(item: int) -> int:
            return item

        assert await amap(same, range(20_000), concurrency=10) == list(range(20_000))

    async def test_other_tasks_have_their_turn_while_calls_never_wait(self) -> None:
        turns = 0
        over = False

        async def count_turns() -> None:
            nonlocal turns
            while not over:
                turns += 1
                await anyio.sleep(0)

        async def same(item: int) -> int:
            return item

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(count_turns)
            await amap(same, range(1000), concurrency=2)
            over = True

        assert turns >= 10


class Lazily(Sequence[object]):
    """A sequence that notes what it is asked for."""

    def __init__(self, pulled: Pulled, items: list[object]) -> None:
        self.pulled = pulled
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> object: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[object]: ...

    def __getitem__(self, index: int | slice) -> object:
        assert isinstance(index, int)
        self.pulled.note(self.items[index])
        return self.items[index]


class TestSources:
    @pytest.mark.parametrize(
        "items", [range(4), [0, 1, 2, 3], (0, 1, 2, 3), dict.fromkeys(range(4))]
    )
    async def test_iterables(self, items: Iterable[int]) -> None:
        assert await amap(Calls(1), items, concurrency=2) == [of(n) for n in range(4)]

    async def test_a_set_and_a_text(self) -> None:
        assert set(await amap(Calls(), {1, 2, 3})) == {of(1), of(2), of(3)}
        assert await amap(Calls(), "abc") == [of("a"), of("b"), of("c")]

    async def test_generators_sync_and_async(self) -> None:
        expected = [of(n) for n in range(4)]
        assert await amap(Calls(1), Pulled(range(4)).generator(), concurrency=2) == expected
        assert await amap(Calls(1), Pulled(range(4)).async_generator(), concurrency=2) == expected

    @pytest.mark.parametrize("concurrency", [1, 3, None])
    async def test_are_pulled_as_calls_start_one_ahead(self, concurrency: int | None) -> None:
        async def check(make: Callable[[Pulled], Any]) -> None:
            calls = Calls(1)
            pulled = Pulled(range(20), calls)
            await amap(calls, make(pulled), limiter="4/1s", concurrency=concurrency)
            assert pulled.items == calls.starts == list(range(20))
            assert pulled.most_ahead == 1

        await check(Pulled.generator)
        await check(Pulled.async_generator)
        await check(lambda pulled: Lazily(pulled, list(range(20))))

    async def test_one_is_ahead_while_the_calls_wait(self) -> None:
        calls = Calls(10)
        pulled = Pulled(itertools.count())
        with anyio.move_on_after(5):
            await amap(calls, pulled.generator(), concurrency=3)

        assert calls.starts == [0, 1, 2]
        assert pulled.items == [0, 1, 2, 3]

    async def test_are_pulled_by_the_same_task_which_runs_no_calls(self) -> None:
        callers: set[tuple[int, str | None]] = set()

        async def call(item: object) -> None:
            task = anyio.get_current_task()
            callers.add((task.id, task.name))
            await anyio.sleep(1)

        for make in Pulled.generator, Pulled.async_generator:
            pulled = Pulled(range(9))
            await for_each(call, make(pulled), concurrency=3)
            assert len(pulled.tasks) == 1
            assert not pulled.tasks & callers

    async def test_a_generator_may_keep_a_cancel_scope_open(self) -> None:
        """Which only the task that has entered it may leave."""

        async def scoped() -> AsyncIterator[int]:
            with anyio.CancelScope():
                for item in range(5):
                    await anyio.sleep(0.5)
                    yield item

        assert await amap(Calls(2), scoped(), concurrency=3) == [of(n) for n in range(5)]

    async def test_a_memory_object_stream_until_it_is_closed(self) -> None:
        send, receive = anyio.create_memory_object_stream[int]()
        calls = Calls(1)

        async def feed() -> None:
            async with send:
                for item in range(3):
                    await anyio.sleep(10)
                    await send.send(item)

        async with receive, anyio.create_task_group() as task_group:
            task_group.start_soon(feed)
            assert await amap(calls, receive, concurrency=2) == [of(n) for n in range(3)]
            # It is somebody else's to close.
            assert receive.statistics().open_receive_streams == 1

        assert calls.diary.when("start") == [10, 20, 30]

    async def test_a_memory_object_stream_that_is_closed_under_way(self) -> None:
        send, receive = anyio.create_memory_object_stream[int](9)
        with send:
            for item in range(9):
                send.send_nowait(item)

            async def close(item: int) -> None:
                await anyio.sleep(1)
                receive.close()

            with pytest.raises(anyio.ClosedResourceError):
                await amap(close, receive, concurrency=1)

    async def test_a_stream_that_breaks_under_way(self) -> None:
        calls = Calls(1)
        with pytest.raises(anyio.BrokenResourceError):
            await amap(calls, raising_async(anyio.BrokenResourceError(), [0, 1]), concurrency=5)

        # An error of the source ends it: who runs is cancelled.
        assert calls.ends == []
        assert sorted(calls.cut_off, key=str) == calls.starts

    @both
    async def test_an_error_of_the_source_ends_it_bare(
        self, both: Callable[..., Awaitable[object]]
    ) -> None:
        error = KeyError("source")
        calls = Calls({0: 1, 1: 100})
        pulled = Pulled(itertools.count())

        def source() -> Iterator[object]:
            yield 0
            yield 1
            raise error

        with pytest.raises(KeyError) as caught:
            await both(calls, source(), concurrency=2)

        assert caught.value is error
        assert set(calls.cut_off) >= {1}
        assert pulled.items == []

    async def test_an_error_of_a_sequence(self) -> None:
        class Broken(Lazily):
            def __getitem__(self, index: int | slice) -> Any:
                if index == 2:
                    raise IndexError("my own")

                return super().__getitem__(index)

        calls = Calls(10)
        with pytest.raises(IndexError, match="my own"):
            await amap(calls, Broken(Pulled([]), list(range(5))), concurrency=5)

        assert calls.starts == sorted(calls.cut_off, key=str) == [0, 1]

    async def test_an_iterable_that_cannot_be_iterated_over(self) -> None:
        class Bad:
            def __iter__(self) -> Iterator[int]:
                raise OSError("no iterator")

        with pytest.raises(OSError, match="no iterator"):
            await amap(Calls(), Bad())

    async def test_an_async_generator_is_closed_after_an_error(self) -> None:
        pulled = Pulled(itertools.count())
        with pytest.raises(ValueError, match="bad"):
            await amap(Calls(1, {3: [ValueError("bad")]}), pulled.async_generator(), concurrency=2)

        assert pulled.closed == 1


class TestErrors:
    @both
    async def test_the_first_is_raised_bare_and_the_others_are_cancelled(
        self, both: Callable[..., Awaitable[object]], caplog: pytest.LogCaptureFixture
    ) -> None:
        error = ValueError("first")
        calls = Calls({1: 1, 2: 2, 0: 3}, {1: [error], 2: [ValueError("never comes")]})
        pulled = Pulled(itertools.count())
        with pytest.raises(ValueError, match="first") as caught:
            await both(calls, pulled.generator(), concurrency=3)

        assert caught.value is error
        assert not hasattr(error, "__notes__")
        assert sorted(map(str, calls.cut_off)) == ["0", "2"]
        assert anyio.current_time() == 1
        before = list(pulled.items)
        await anyio.sleep(10)
        assert pulled.items == before
        assert calls.starts == [0, 1, 2]
        assert caplog.records == []

    @both
    async def test_later_ones_are_logged_and_noted(
        self, both: Callable[..., Awaitable[object]], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def call(item: int) -> None:
            if item == 0:
                await anyio.sleep(1)
                raise ValueError("first")

            try:
                await anyio.sleep(10)
            finally:
                raise OSError("cleanup", item)

        with pytest.raises(ValueError, match="first") as caught:
            await both(call, range(3), concurrency=3)

        notes = caught.value.__notes__
        assert len(notes) == 2
        assert all("another error: OSError('cleanup', " in note for note in notes)
        assert sorted(str(r.exc_info[1]) for r in caplog.records if r.exc_info) == [
            "[Errno cleanup] 1",
            "[Errno cleanup] 2",
        ]

    @both
    async def test_a_group_of_the_user_s_own_stays_as_it_is(
        self, both: Callable[..., Awaitable[object]]
    ) -> None:
        error = ExceptionGroup("mine", [KeyError(), OSError()])
        with pytest.raises(ExceptionGroup) as caught:
            await both(Calls(1, {1: [error]}), range(3))

        assert caught.value is error

    @both
    @pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
    async def test_ctrl_c_in_a_call_leaves_bare(
        self, both: Callable[..., Awaitable[object]], signal: type[BaseException]
    ) -> None:
        calls = Calls({0: 5, 1: 1}, {1: [signal("mine")]})
        with pytest.raises(signal, match="mine"):
            await both(calls, range(3), concurrency=2)

        assert calls.cut_off == [0]

    async def test_a_function_that_is_not_async(self) -> None:
        def double(item: int) -> int:
            return 2 * item

        with pytest.raises(TypeError, match=r"job 0, .* returned 0, which cannot be awaited"):
            await amap(double, range(3))  # type: ignore[arg-type]

    async def test_a_function_that_raises_before_it_can_be_awaited(self) -> None:
        def call(item: int) -> Awaitable[None]:
            raise OSError(item)

        with pytest.raises(OSError, match="0"):
            await amap(call, range(3))

    async def test_of_the_limiter(self) -> None:
        calls = Calls(5)
        with pytest.raises(LimitExceeded):
            await amap(calls, range(3), limiter=Impatient("1/10s"))

        assert calls.starts == calls.cut_off == [0]


async def test_raising_sources_are_sync_or_async() -> None:
    for source in (raising(KeyError("end"), [1]), raising_async(KeyError("end"), [1])):
        with pytest.raises(KeyError, match="end"):
            await amap(Calls(), source)
