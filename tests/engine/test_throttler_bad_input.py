"""Bad input: a clear error, at once, and nothing lost."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from math import inf, nan
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pytest

from anythrottle import RateLimiter, Throttler
from anythrottle._jobs import JobOf
from anythrottle.testing import wait_idle
from tests.engine.diary import Diary, failures, finish


async def job() -> int:
    return 1


def construct(**options: Any) -> Throttler[Any, Any]:
    return Throttler([job], **options)


def without_address(value: object) -> str:
    """Return an id that is the same in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


class TestLimiterOrWindow:
    @pytest.mark.parametrize(
        "window",
        [
            {"time_window": 10},
            {"per_time_window": 10},
            {"time_window": 60.0, "per_time_window": 100},
            {"time_window": 0},
        ],
    )
    @pytest.mark.parametrize("limiter", ["5/s", RateLimiter()])
    def test_not_both(self, window: dict[str, float], limiter: object) -> None:
        with pytest.raises(TypeError, match=r"limiter=.* leave out time_window"):
            construct(limiter=limiter, **window)

    @pytest.mark.parametrize("limiter", [5, object(), RateLimiter, True, b"5/s"])
    def test_neither_limiter_nor_text(self, limiter: object) -> None:
        with pytest.raises(TypeError, match="limiter must be a limiter or a text such as"):
            construct(limiter=limiter)

    @pytest.mark.parametrize("text", ["20 in 10s", "0/s", "20/0s", ""])
    def test_a_bad_text(self, text: str) -> None:
        with pytest.raises(ValueError, match=repr(text)):
            construct(limiter=text)


class TestNumbers:
    @pytest.mark.parametrize("name", ["concurrency", "per_time_window"])
    @pytest.mark.parametrize("value", [1.5, True, False, "5", nan, inf, [1]])
    def test_counts_of_the_wrong_type(self, name: str, value: object) -> None:
        kind = "an int or a CapacityLimiter" if name == "concurrency" else "an int"
        with pytest.raises(TypeError, match=f"^{name} must be {kind}, not "):
            construct(**{name: value})

    @pytest.mark.parametrize("name", ["concurrency", "per_time_window"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_counts_out_of_range(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, not {value}$"):
            construct(**{name: value})

    @pytest.mark.parametrize("value", [0, -1])
    def test_concurrency_beside_a_limiter(self, value: int) -> None:
        with pytest.raises(ValueError, match=r"^concurrency must be at least 1"):
            construct(limiter="5/s", concurrency=value)

    @pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, nan, inf, -inf])
    def test_windows_out_of_range(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"^time_window must be above 0 and finite"):
            construct(time_window=value)

    @pytest.mark.parametrize("value", ["10", True, [1], 1j])
    def test_windows_of_the_wrong_type(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"^time_window must be a number of seconds"):
            construct(time_window=value)


def sync_consumer(result: object) -> None:
    pass


def unannotated(result):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    pass


class SyncMethods:
    def consume(self, result: object) -> None:
        pass


def sync_with_a_result(result: object) -> int:
    return 1


class SyncCallable:
    def __call__(self, result: object) -> None:
        pass


class AsyncCallable:
    async def __call__(self, result: object) -> None:
        pass


async def asynchronous(result: object, more: int = 0) -> None:
    pass


@wraps(sync_consumer)
async def async_around_sync(result: object) -> None:
    sync_consumer(result)


@wraps(asynchronous)
def sync_around_async(result: object) -> object:
    return asynchronous(result, 1)


def declared(result: object) -> Awaitable[None]:
    return asynchronous(result)


class TestConsumer:
    @pytest.mark.parametrize(
        "consumer",
        [
            5,
            "consume",
            [],
            str,
            print,
            list.append,
            [].append,
            sync_consumer,
            sync_with_a_result,
            unannotated,
            SyncCallable(),
            SyncMethods().consume,
            partial(sync_consumer),
        ],
        ids=without_address,
    )
    def test_not_an_async_function(self, consumer: object) -> None:
        with pytest.raises(TypeError, match="consumer_fn must be an async function of one arg"):
            construct(consumer_fn=consumer)

    @pytest.mark.parametrize(
        "consumer",
        [
            asynchronous,
            partial(asynchronous, more=1),
            declared,
            lambda result: asynchronous(result, 1),
            AsyncCallable(),
            AsyncCallable().__call__,
            pytest.param(AsyncMock(), id="mock"),
            async_around_sync,
            partial(async_around_sync),
            partial(declared),
            sync_around_async,
        ],
        ids=without_address,
    )
    async def test_async_in_every_form(self, consumer: Any) -> None:
        await finish(Throttler([job], consumer))

    async def test_one_that_turns_out_not_to_be(self) -> None:
        throttler: Throttler[Any, Any] = Throttler([job], lambda _: 5)  # type: ignore[arg-type,return-value]
        with pytest.raises(TypeError, match=r"consumer_fn must be an async function, but "):
            await finish(throttler)

        # Even so, it has had the result.
        assert not throttler.remaining()


class TestJobs:
    @pytest.mark.parametrize("jobs", [None, 5, job])
    def test_not_iterable(self, jobs: Any) -> None:
        with pytest.raises(TypeError, match="jobs must be an iterable or an async iterable"):
            Throttler(jobs)

    @pytest.mark.parametrize("bad", [None, 0, "job", [job]], ids=without_address)
    async def test_what_is_no_job_is_named_by_its_position_and_none_before_it_is_lost(
        self, bad: object
    ) -> None:
        diary = Diary()
        before = diary.jobs(3)
        after = diary.job("after")
        jobs: list[Any] = [*before, bad, after]
        throttler: Throttler[JobOf[object], object] = Throttler(
            jobs, diary.consumer(), concurrency=1
        )
        with pytest.raises(TypeError, match=r"^jobs\[3\] must be an async function .*, or an aw"):
            await finish(throttler)

        done = len(diary.consumed)
        assert diary.consumed == list(range(done))
        assert throttler.remaining() == [*before[done:], after]
        await finish(throttler)
        assert diary.consumed == [0, 1, 2, "after"]

    async def test_a_callable_that_returns_no_awaitable(self) -> None:
        diary = Diary()
        jobs: list[Any] = [diary.job(0), lambda: 5, int, diary.job(3)]
        throttler: Throttler[JobOf[object], object] = Throttler(
            jobs, diary.consumer(), limiter="9/s"
        )
        await finish(throttler)
        assert sorted(diary.consumed, key=str) == [0, 3]
        found = [error for _, error in failures(throttler)]
        assert [type(error) for error in found] == [TypeError, TypeError]
        assert str(found[0]).startswith("job 1, ")
        assert str(found[1]).startswith("job 2, ")
        assert "cannot be awaited" in str(found[0])

    async def test_a_callable_that_wants_arguments(self) -> None:
        async def needs(argument: object) -> None: ...

        jobs: list[Any] = [needs]
        throttler: Throttler[Any, Any] = Throttler(jobs)
        await finish(throttler)
        ((item, error),) = failures(throttler)
        assert [item] == jobs
        assert isinstance(error, TypeError)


class TestLogging:
    @pytest.mark.parametrize("handler", [5, "stderr", logging.StreamHandler])
    def test_a_handler_that_is_none(self, handler: object) -> None:
        with pytest.raises(TypeError, match=r"log_handler must be a logging\.Handler, not "):
            construct(log_handler=handler)

    @pytest.mark.parametrize("level", [1.5, True, []])
    def test_a_level_of_the_wrong_type(self, level: object) -> None:
        with pytest.raises(TypeError, match="log_level must be an int or its name, not "):
            construct(log_level=level)

    def test_a_level_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="log_level must be at least 0"):
            construct(log_level=-1)

    def test_a_level_that_does_not_exist(self) -> None:
        with pytest.raises(ValueError, match=r"log_level must be one of .*WARNING.*, not 'LOUD'"):
            construct(log_level="LOUD")

    def test_levels_by_name_and_number(self) -> None:
        for level in ("DEBUG", 0, 10, logging.ERROR, None):
            construct(log_level=level)


class TestBusy:
    async def test_run_while_it_runs(self) -> None:
        async def again() -> None:
            with pytest.raises(anyio.BusyResourceError):
                await throttler.run()

        diary = Diary()
        throttler: Throttler[JobOf[object], object] = Throttler(
            [again, diary.job(1)], diary.consumer()
        )
        await finish(throttler)
        assert 1 in diary.consumed
        # It's free again.
        await finish(throttler)

    async def test_the_first_run_goes_on(self) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Callable[[], Awaitable[object]]](1)
        with receive:
            throttler = Throttler(receive, diary.consumer())
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(throttler.run)
                await wait_idle()
                for _ in range(3):
                    with pytest.raises(anyio.BusyResourceError):
                        await throttler.run()

                send.send_nowait(diary.job(0))
                send.close()

        assert diary.consumed == [0]


def test_a_refused_constructor_leaves_no_trace() -> None:
    coroutine = job()
    with pytest.raises(ValueError, match="concurrency"):
        Throttler([coroutine], concurrency=0)

    # It was not taken over.
    coroutine.close()
