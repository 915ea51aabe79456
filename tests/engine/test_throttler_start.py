"""Runs in tasks of their own: `await task_group.start(throttler.run)`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from anythrottle import Throttler
from tests.engine.diary import Diary, Job

pytestmark = pytest.mark.timing


async def test_it_returns_when_the_run_is_under_way() -> None:
    diary = Diary()
    error = KeyError()
    throttler = Throttler(
        [diary.job("bad", seconds=2, errors=[error]), diary.job("good", seconds=3)],
        diary.consumer(),
    )
    with anyio.fail_after(100):
        async with anyio.create_task_group() as task_group:
            await task_group.start(throttler.run)
            assert anyio.current_time() == 0
            assert "running" in repr(throttler)
            with pytest.raises(anyio.BusyResourceError):
                await throttler.run()

            # It waits for what fails.
            outcome = await throttler.exceptions.receive()
            assert outcome.error is error
            assert anyio.current_time() == 2

    assert diary.consumed == ["good"]


async def test_a_job_added_then_is_done() -> None:
    diary = Diary()
    send, receive = anyio.create_memory_object_stream[Job](1)
    throttler = Throttler(receive, diary.consumer())
    with anyio.fail_after(100):
        async with receive, send, anyio.create_task_group() as task_group:
            await task_group.start(throttler.run)
            throttler.add(diary.job("added"))
            await anyio.sleep(1)
            assert diary.consumed == ["added"]
            throttler.stop()


async def test_an_empty_run_is_under_way_first() -> None:
    async with anyio.create_task_group() as task_group:
        await task_group.start(Throttler(Diary().jobs(0)).run)


async def test_what_ends_it_at_once_is_raised() -> None:
    throttler = Throttler(Diary().jobs(3, seconds=5))
    async with anyio.create_task_group() as task_group:
        await task_group.start(throttler.run)
        with pytest.raises(anyio.BusyResourceError):
            await task_group.start(throttler.run)

    await throttler.aclose()
    async with anyio.create_task_group() as task_group:
        with pytest.raises(anyio.ClosedResourceError):
            await task_group.start(throttler.run)


async def test_what_ends_it_later_ends_the_group() -> None:
    async def fail(result: object) -> None:
        raise OSError

    diary = Diary()
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the task group's block
        async with anyio.create_task_group() as task_group:
            await task_group.start(Throttler(diary.jobs(3), fail).run)
            await anyio.sleep(50)

    assert [type(error) for error in caught.value.exceptions] == [OSError]
    assert anyio.current_time() == 0


async def test_cancelling_the_group_cancels_it_and_nothing_starts_any_more() -> None:
    diary = Diary()
    throttler = Throttler(diary.jobs(9, seconds=2), diary.consumer(), concurrency=2)
    async with anyio.create_task_group() as task_group:
        await task_group.start(throttler.run)
        await anyio.sleep(3)
        task_group.cancel_scope.cancel()

    assert len(diary.who("cut off")) == 2
    assert len(diary.starts) == 4
    assert len(throttler.remaining()) == 7
    await throttler.run()
    assert sorted(diary.consumed, key=str) == list(range(9))


async def test_the_scope_around_start_does_not_reach_it_afterwards() -> None:
    diary = Diary()
    throttler = Throttler(diary.jobs(4, seconds=2), diary.consumer(), concurrency=1)
    async with anyio.create_task_group() as task_group:
        with anyio.CancelScope() as scope:
            await task_group.start(throttler.run)
            scope.cancel()
            with pytest.raises(anyio.get_cancelled_exc_class()):
                await anyio.lowlevel.checkpoint()

    assert diary.consumed == [0, 1, 2, 3]
    assert diary.who("cut off") == []


async def test_a_run_that_is_started_under_a_cancelled_scope() -> None:
    diary = Diary()
    throttler = Throttler(diary.jobs(4, seconds=2))
    async with anyio.create_task_group() as task_group:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await task_group.start(throttler.run)

    assert diary.starts == []
    assert len(throttler.remaining()) == 4


async def test_the_source_is_not_pulled_before() -> None:
    told: list[str] = []

    class Status(TaskStatus[Any]):
        def started(self, value: Any = None) -> None:
            told.append("started")

    async def source() -> AsyncIterator[Job]:
        told.append("pulled")
        yield diary.job("a")

    diary = Diary()
    throttler = Throttler(source())
    await throttler.run(task_status=Status())
    await throttler.aclose()
    assert told == ["started", "pulled"]
    assert diary.starts == ["a"]


async def test_an_error_of_the_status_ends_the_run() -> None:
    class Status(TaskStatus[Any]):
        def started(self, value: Any = None) -> None:
            raise ZeroDivisionError

    diary = Diary()
    throttler = Throttler(diary.jobs(3))
    with pytest.raises(ZeroDivisionError):
        await throttler.run(task_status=Status())

    assert len(throttler.remaining()) == 3
    await throttler.run()
    assert diary.starts == [0, 1, 2]
