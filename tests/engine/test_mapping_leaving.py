"""Leaving `amap_outcomes`, early or late, one way or another."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from anythrottle import (
    Outcome,
    RateLimiter,
    amap_outcomes,
)
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.calls import Calls, Impatient, Pulled, every

pytestmark = pytest.mark.timing

in_any_order = pytest.mark.parametrize("ordered", [False, True])


class Scene:
    """Two calls under way, two outcomes taken, a source with more."""

    def __init__(self, *, ordered: bool, make: Callable[[Pulled], Any]) -> None:
        self.calls = Calls({0: 1, 1: 1, 2: 1000, 3: 1000})
        self.pulled = Pulled(itertools.count())
        self.limiter = RateLimiter("50/1s", concurrency=9)
        self.capacity = anyio.CapacityLimiter(2)
        self.stream = amap_outcomes(
            self.calls,
            make(self.pulled),
            limiter=self.limiter,
            concurrency=self.capacity,
            ordered=ordered,
        )

    async def take_two(self, outcomes: AsyncIterator[Outcome[object, object]]) -> None:
        found = [(await anext(outcomes)).item for _ in range(2)]
        assert sorted(found, key=str) == [0, 1]
        await anyio.sleep(5)

    async def check_left(self) -> None:
        """Check that all has ended at once, and nothing goes on."""
        assert anyio.current_time() == 6
        assert self.calls.starts == [0, 1, 2, 3]
        assert sorted(self.calls.cut_off, key=str) == [2, 3]
        assert self.pulled.items == [0, 1, 2, 3, 4]
        assert self.capacity.borrowed_tokens == 0
        assert self.limiter.statistics().borrowed_tokens == 0
        assert self.limiter.statistics().tasks_waiting == 0
        await anyio.sleep(5000)
        assert len(self.calls.starts) == 4
        assert len(self.pulled.items) == 5
        gc.collect()


async def leave_by_break(scene: Scene) -> None:
    async with scene.stream as outcomes:
        while True:
            await scene.take_two(outcomes)
            break


async def leave_by_return(scene: Scene) -> None:
    async with scene.stream as outcomes:
        return await scene.take_two(outcomes)


async def leave_by_error(scene: Scene) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:  # noqa: PT012 - the block is what is tested
        async with scene.stream as outcomes:
            await scene.take_two(outcomes)
            raise error

    assert caught.value is error


async def leave_by_cancellation(scene: Scene) -> None:
    with anyio.CancelScope() as scope:
        async with scene.stream as outcomes:
            await scene.take_two(outcomes)
            scope.cancel()
            await anext(outcomes)

    assert scope.cancelled_caught


async def leave_by_deadline(scene: Scene) -> None:
    with anyio.move_on_after(6) as scope:
        async with scene.stream as outcomes:
            async for _ in outcomes:
                pass

    assert scope.cancelled_caught


async def leave_by_closing_a_generator_around(scene: Scene) -> None:
    async def around() -> AsyncIterator[int]:
        async with scene.stream as outcomes:
            await scene.take_two(outcomes)
            yield 0
            await anyio.sleep(1000)

    generator = around()
    assert await anext(generator) == 0
    await generator.aclose()  # type: ignore[attr-defined]


@in_any_order
@pytest.mark.parametrize("make", [Pulled.generator, Pulled.async_generator])
@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_return,
        leave_by_error,
        leave_by_cancellation,
        leave_by_deadline,
        leave_by_closing_a_generator_around,
    ],
)
async def test_leaving_early(
    leave: Callable[[Scene], Awaitable[None]], make: Callable[[Pulled], Any], *, ordered: bool
) -> None:
    scene = Scene(ordered=ordered, make=make)
    await leave(scene)
    assert scene.pulled.closed == 1
    await scene.check_left()


@in_any_order
@pytest.mark.parametrize("make", [Pulled.generator, Pulled.async_generator])
def test_leaving_early_by_a_native_cancellation(
    make: Callable[[Pulled], Any], *, ordered: bool
) -> None:
    async def main() -> None:
        scene = Scene(ordered=ordered, make=make)

        async def take() -> None:
            async with scene.stream as outcomes:
                async for _ in outcomes:
                    pass

        task = asyncio.create_task(take())
        await asyncio.sleep(6)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert scene.pulled.closed == 1
        await scene.check_left()

    anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})


class TestLeaving:
    async def test_at_once_starts_nothing(self) -> None:
        calls = Calls(1)
        async with amap_outcomes(calls, Pulled(range(9)).async_generator()):
            pass

        await anyio.sleep(10)
        assert calls.starts == []

    async def test_never_entered_pulls_nothing(self) -> None:
        pulled = Pulled(range(9))
        stream = amap_outcomes(Calls(), pulled.generator())
        await anyio.sleep(10)
        del stream
        gc.collect()
        assert pulled.items == []

    @pytest.mark.parametrize(
        "error",
        [
            ExceptionGroup("mine", [KeyError(), ExceptionGroup("inner", [OSError()])]),
            BaseExceptionGroup("mine", [KeyboardInterrupt()]),
            KeyboardInterrupt("mine"),
            SystemExit(3),
            StopAsyncIteration("mine"),
            StopIteration("mine"),
            RuntimeError("mine"),
        ],
        ids=repr,
    )
    async def test_by_any_error_it_leaves_as_it_is(self, error: BaseException) -> None:
        calls = Calls(1000)

        async def body() -> None:
            async with amap_outcomes(calls, range(9), concurrency=2):
                await anyio.sleep(1)
                raise error

        caught: BaseException | None = None
        try:
            await body()
        except RuntimeError as exc:
            # A coroutine cannot raise StopIteration itself.
            caught = exc.__cause__ if isinstance(error, StopIteration) else exc
        except BaseException as exc:  # noqa: BLE001 - any
            caught = exc

        assert caught is error
        assert not hasattr(error, "__notes__")
        assert sorted(calls.cut_off, key=str) == [0, 1]

    async def test_by_asking_for_one_too_many(self) -> None:
        with pytest.raises(StopAsyncIteration):  # noqa: PT012 - the block is what is tested
            async with amap_outcomes(Calls(), [0]) as outcomes:
                await anext(outcomes)
                await anext(outcomes)

    async def test_by_the_error_of_an_outcome(self) -> None:
        error = OSError("job")
        with pytest.raises(OSError, match="job") as caught:  # noqa: PT012 - the block is what is tested
            calls = Calls(1, {1: [error]})
            async with amap_outcomes(calls, itertools.count(), concurrency=2) as outcomes:
                async for outcome in outcomes:
                    _ = outcome.value

        assert caught.value is error

    async def test_calls_that_fail_meanwhile_are_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with amap_outcomes(fail_when_cut_off, range(2)):
            await anyio.sleep(1)

        assert failures_logged(caplog) == ["cleanup 0", "cleanup 1"]

    async def test_by_cancellation_too(self, caplog: pytest.LogCaptureFixture) -> None:
        # So many that some of them know of it before the block does, in whatever order.
        with anyio.move_on_after(1):
            async with amap_outcomes(fail_when_cut_off, range(20)) as outcomes:
                await anext(outcomes)

        assert failures_logged(caplog) == sorted(f"cleanup {item}" for item in range(20))

    async def test_by_an_error_too(self, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(KeyError) as caught:  # noqa: PT012 - the block is what is tested
            async with amap_outcomes(fail_when_cut_off, range(2)):
                await anyio.sleep(1)
                raise KeyError

        assert caught.value.__context__ is None
        assert failures_logged(caplog) == ["cleanup 0", "cleanup 1"]

    async def test_waits_for_calls_that_shield_themselves(self) -> None:
        ended: list[int] = []

        async def call(item: int) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)
                ended.append(item)

        async with amap_outcomes(call, range(2)):
            await anyio.sleep(1)

        assert sorted(ended) == [0, 1]
        assert anyio.current_time() == 10

    async def test_ctrl_c_in_a_call_leaves_bare(self) -> None:
        calls = Calls({0: 1, 1: 100}, {0: [KeyboardInterrupt("job")]})
        with pytest.raises(KeyboardInterrupt, match="job"):
            await every(amap_outcomes(calls, range(2), concurrency=2))

        assert calls.cut_off == [1]
        assert anyio.current_time() == 1

    async def test_an_error_of_the_limiter_leaves_bare(self) -> None:
        calls = Calls(100)
        with pytest.raises(anyio.WouldBlock):
            await every(amap_outcomes(calls, range(3), limiter=Impatient("1/10s")))

        assert calls.starts == calls.cut_off == [0]


async def fail_when_cut_off(item: int) -> None:
    try:
        await anyio.sleep(100)
    finally:
        raise ValueError(f"cleanup {item}")


def failures_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return sorted(str(record.exc_info[1]) for record in caplog.records if record.exc_info)


class TestGeneratorsThatFailWhenTheyAreClosed:
    """Their error is told, and hides no other."""

    @staticmethod
    async def source() -> AsyncIterator[int]:
        try:
            for item in itertools.count():
                yield item
        finally:
            raise ValueError("cleanup")

    async def test_after_a_break_it_is_bare(self) -> None:
        with pytest.raises(ValueError, match="cleanup"):
            async with amap_outcomes(Calls(1), self.source(), concurrency=1) as outcomes:
                await anext(outcomes)

    async def test_after_an_error_of_the_body_s_it_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012 - the block is what is tested
            async with amap_outcomes(Calls(1), self.source(), concurrency=1) as outcomes:
                await anext(outcomes)
                raise KeyError("mine")

        assert failures_logged(caplog) == ["cleanup"]

    async def test_after_a_cancellation_it_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with anyio.move_on_after(2) as scope:
            async with amap_outcomes(Calls(5), self.source(), concurrency=1) as outcomes:
                await anext(outcomes)

        assert scope.cancelled_caught
        assert failures_logged(caplog) == ["cleanup"]


async def test_nothing_is_held_by_generators_that_have_not_begun() -> None:
    def source() -> Iterator[int]:
        raise AssertionError("pulled")
        yield 0

    with anyio.CancelScope() as scope:
        scope.cancel()
        async with amap_outcomes(Calls(), source()) as outcomes:
            await anyio.sleep(1)
            await anext(outcomes)

    assert scope.cancelled_caught
