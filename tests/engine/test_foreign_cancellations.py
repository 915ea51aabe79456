"""
A cancellation that was raised, though nobody has cancelled the run, is an error.

A cancelled future raises ``CancelledError`` wherever its result is asked for, and a cancellation
that was caught can be raised once more at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Never

import anyio
import pytest

from anythrottle import RateLimiter, SourceInterrupted, Throttler, amap, amap_outcomes, first
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.calls import Calls
from tests.engine.diary import Diary, Job, finish

pytestmark = pytest.mark.timing


async def ask_a_cancelled_future() -> Never:
    """Raise what asyncio raises then; on Trio, it is an error like any other."""
    await anyio.sleep(0)
    raise asyncio.CancelledError


async def raise_an_old_one() -> Never:
    """Raise the event loop's own cancellation, which nobody is there for any more."""
    old: BaseException | None = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except BaseException as exc:  # noqa: BLE001 - it is a cancellation
            old = exc

    assert old is not None
    raise old


async def raise_a_group() -> Never:
    """Raise several in a group, as a nursery of Trio's own does."""
    error = anyio.get_cancelled_exc_class()
    if error is asyncio.CancelledError:
        raise BaseExceptionGroup("both", [error(), error()])

    try:
        await raise_an_old_one()
    except BaseException as exc:  # noqa: BLE001 - it is a cancellation
        raise BaseExceptionGroup("both", [exc, exc]) from None


Foreign = Callable[[], Awaitable[Never]]

foreign_ones = pytest.mark.parametrize(
    "foreign", [ask_a_cancelled_future, raise_an_old_one, raise_a_group]
)


def check(error: BaseException, match: str) -> None:
    assert isinstance(error, RuntimeError)
    assert match in str(error)
    assert error.__cause__ is not None
    assert not isinstance(error.__cause__, Exception)


@foreign_ones
class TestOfAThrottler:
    async def test_its_consumer(self, foreign: Foreign) -> None:
        diary = Diary()

        async def consume(result: object) -> None:
            await foreign()

        throttler = Throttler(diary.jobs(3, seconds=1), consume, concurrency=1)
        with pytest.raises(RuntimeError) as caught:
            await finish(throttler)

        check(caught.value, "consumer_fn was cancelled by other code")
        assert "which had the result of job 0" in caught.value.__notes__[0]
        # What has raised has consumed.
        assert throttler.statistics().done == 1
        assert len(throttler.remaining()) == 2

    async def test_its_source(self, foreign: Foreign) -> None:
        diary = Diary()

        async def generate() -> AsyncGenerator[Job]:
            yield diary.job(0, seconds=1)
            await foreign()

        throttler = Throttler(generate(), diary.consumer())
        with pytest.raises(RuntimeError) as caught:
            await finish(throttler)

        check(caught.value, "the source was cancelled by other code")
        # It has failed by itself, and was not cut off.
        await finish(throttler)
        assert diary.consumed == [0]

    async def test_its_source_when_it_is_closed(self, foreign: Foreign) -> None:
        async def generate() -> AsyncGenerator[Job]:
            try:
                yield Diary().job(0)
            finally:
                await foreign()

        items = generate()
        await anext(items)
        with pytest.raises(RuntimeError) as caught:
            await Throttler(items).aclose()

        check(caught.value, "the source was cancelled by other code")

    async def test_its_limiter(self, foreign: Foreign) -> None:
        limiter: Any = Refusing(foreign)
        throttler = Throttler(Diary().jobs(3), limiter=limiter)
        with pytest.raises(RuntimeError) as caught:
            await finish(throttler)

        check(caught.value, "was cancelled by other code")
        assert len(throttler.remaining()) == 3

    async def test_goes_through_a_task_group(self, foreign: Foreign) -> None:
        """Which would swallow a cancellation, and let the program go on."""

        async def consume(result: object) -> None:
            await foreign()

        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(Throttler(Diary().jobs(3), consume).run)

        check(caught.value.exceptions[0], "consumer_fn was cancelled by other code")


@pytest.mark.parametrize("foreign", [ask_a_cancelled_future, raise_an_old_one])
async def test_one_of_a_source_that_is_cut_off_hides_no_error(foreign: Foreign) -> None:
    async def generate() -> AsyncGenerator[Job]:
        try:
            yield Diary().job(0)
            await anyio.sleep(100)
        finally:
            await foreign()

    async def consume(result: object) -> None:
        await anyio.sleep(1)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await finish(Throttler(generate(), consume))


class Refusing:
    """A limiter whose permits cannot be entered."""

    def __init__(self, refuse: Foreign) -> None:
        self._refuse = refuse

    def permit(self, cost: object = 1, *, priority: int = 0) -> Refusing:
        return self

    async def run(self, func: object, *args: object) -> None: ...

    def wrap(self, func: object) -> None: ...

    def pause(self, seconds: float | None = None) -> None: ...

    async def __aenter__(self) -> None:
        await self._refuse()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@foreign_ones
class TestOfItsKin:
    @staticmethod
    async def source(foreign: Foreign) -> AsyncIterator[int]:
        yield 0
        await foreign()

    @staticmethod
    async def bad_at_its_end(foreign: Foreign) -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
            yield 2
        finally:
            await foreign()

    async def test_the_source_of_amap(self, foreign: Foreign) -> None:
        with pytest.raises(RuntimeError) as caught:
            await amap(Calls(1), self.source(foreign))

        check(caught.value, "the source was cancelled by other code")

    async def test_the_source_of_first(self, foreign: Foreign) -> None:
        assert (await first(Calls(1), self.source(foreign))).item == 0
        calls = Calls(1, {0: [OSError()]})
        with pytest.raises(RuntimeError) as caught:
            await first(calls, self.source(foreign))

        check(caught.value, "the source was cancelled by other code")

    async def test_the_source_of_amap_outcomes_comes_after_the_outcomes(
        self, foreign: Foreign
    ) -> None:
        found: list[object] = []
        with pytest.raises(RuntimeError) as caught:  # noqa: PT012 - the block is what is tested
            async with amap_outcomes(Calls(1), self.source(foreign)) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome.item)  # noqa: PERF401 - before the error

        check(caught.value, "the source was cancelled by other code")
        assert found == [0]

    async def test_a_source_that_is_closed(self, foreign: Foreign) -> None:
        with pytest.raises(RuntimeError) as caught:
            async with amap_outcomes(
                Calls(1), self.bad_at_its_end(foreign), concurrency=1
            ) as outcomes:
                await anext(outcomes)

        check(caught.value, "the source was cancelled by other code")

    async def test_the_limiter(self, foreign: Foreign) -> None:
        limiter: Any = Refusing(foreign)
        for function in amap, first:
            with pytest.raises(RuntimeError) as caught:
                await function(Calls(), [0], limiter=limiter)

            check(caught.value, "was cancelled by other code")

    async def test_an_error_of_the_block_s_own_leaves_it_as_it_is(self, foreign: Foreign) -> None:
        """And is no reason to cut off what the source does at its end."""
        released: list[float] = []

        async def generate() -> AsyncGenerator[int]:
            try:
                yield 0
                yield 1
                yield 2
            finally:
                await anyio.sleep(3)
                released.append(anyio.current_time())

        caught: BaseException | None = None
        try:
            async with amap_outcomes(Calls(1), generate(), concurrency=1) as outcomes:
                await anext(outcomes)
                await foreign()
        except BaseException as exc:  # noqa: BLE001 - a cancellation
            caught = exc

        assert caught is not None
        assert not isinstance(caught, Exception)
        assert released == [4]


class TestOfASequence:
    class Odd(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise asyncio.CancelledError

            return super().__getitem__(index)

    async def test_of_amap(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            await amap(Calls(1), self.Odd([0, 1, 2]))

        check(caught.value, "the source was cancelled by other code")

    async def test_of_amap_outcomes(self) -> None:
        found: list[object] = []
        with pytest.raises(RuntimeError) as caught:  # noqa: PT012 - the block is what is tested
            async with amap_outcomes(Calls(1), self.Odd([0, 1, 2])) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome.item)  # noqa: PERF401 - before the error

        check(caught.value, "the source was cancelled by other code")
        assert found == [0]

    async def test_of_a_throttler(self) -> None:
        diary = Diary()
        throttler = Throttler(self.Odd(diary.jobs(3)), diary.consumer())
        for _ in range(2):
            with pytest.raises(RuntimeError) as caught:
                await finish(throttler)

            check(caught.value, "the source was cancelled by other code")

    async def test_of_an_iterator(self) -> None:
        def generate() -> Iterator[int]:
            yield 0
            raise asyncio.CancelledError

        with pytest.raises(RuntimeError) as caught:
            await amap(Calls(1), generate())

        check(caught.value, "the source was cancelled by other code")


class TestNativelyOnAsyncio:
    @staticmethod
    def run(main: Callable[[], Awaitable[None]]) -> None:
        anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})

    def test_a_future_that_was_cancelled(self) -> None:
        async def consume(result: object) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        async def main() -> None:
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(Throttler(Diary().jobs(3), consume).run())

            check(caught.value.exceptions[0], "consumer_fn was cancelled by other code")

        self.run(main)

    def test_somebody_cancels_the_task_that_pulls(self) -> None:
        """The source has been cut off, but not by the run."""
        diary = Diary()

        async def generate() -> AsyncGenerator[Job]:
            yield diary.job(0)
            await asyncio.sleep(100)
            yield diary.job(1)

        async def main() -> None:
            throttler = Throttler(generate(), diary.consumer())

            async def run() -> None:
                with pytest.raises(RuntimeError) as caught:
                    await throttler.run()

                check(caught.value, "the source was cancelled by other code")

            task = asyncio.create_task(run())
            await wait_idle()
            self.cancel_the_source()
            await task
            with pytest.raises(SourceInterrupted):
                await throttler.run()

        self.run(main)

    def test_somebody_cancels_it_while_it_waits_and_it_closes_all_the_same(self) -> None:
        released: list[float] = []

        async def generate() -> AsyncGenerator[int]:
            try:
                for item in range(9):
                    yield item
            finally:
                await asyncio.sleep(3)
                released.append(anyio.current_time())

        async def main() -> None:
            task = asyncio.create_task(amap(Calls(10), generate(), concurrency=1))
            await wait_idle()
            self.cancel_the_source()
            with pytest.raises(RuntimeError):
                await task

            assert released == [3]

        self.run(main)

    @staticmethod
    def cancel_the_source() -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == "anythrottle source":
                task.cancel()

    def test_a_cancellation_of_the_run_stays_one(self) -> None:
        async def main() -> None:
            throttler = Throttler(Diary().jobs(3, seconds=9), limiter=RateLimiter())
            task = asyncio.create_task(throttler.run())
            await wait_idle()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        self.run(main)
