"""A coroutine in a context of its own behaves as if it were awaited."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from anythrottle import RateLimiter, Throttler, amap
from anythrottle._engine.context import run_in_context
from anythrottle._jobs import JobOf
from tests.engine.diary import failures, finish

variable = ContextVar("variable", default="nothing")


async def test_what_it_sets_stays_in_its_context() -> None:
    async def job() -> str:
        before = variable.get()
        variable.set("mine")
        await anyio.lowlevel.checkpoint()
        return f"{before}, {variable.get()}"

    context = copy_context()
    context.run(variable.set, "given")
    assert await run_in_context(job(), context) == "given, mine"
    assert variable.get() == "nothing"
    assert context[variable] == "mine"


@pytest.mark.timing
async def test_so_does_what_it_sets_after_an_error_was_thrown_in() -> None:
    async def job() -> str:
        with anyio.move_on_after(1):
            try:
                await anyio.sleep_forever()
            finally:
                before = variable.get()
                variable.set("mine")

        return f"{before}, {variable.get()}"

    context = copy_context()
    context.run(variable.set, "given")
    assert await run_in_context(job(), context) == "given, mine"
    assert variable.get() == "nothing"
    assert context[variable] == "mine"


@pytest.mark.timing
async def test_a_coroutine_that_is_awaited_already_is_left_alone() -> None:
    async def work() -> str:
        await anyio.sleep(1)
        return "done"

    coroutine = work()
    throttler: Throttler[JobOf[str], str] = Throttler(
        [coroutine, coroutine], limiter=RateLimiter(), concurrency=2
    )
    statistics = await finish(throttler)  # type: ignore[arg-type]
    assert (statistics.done, statistics.failed) == (1, 1)
    [(_, error)] = failures(throttler)  # type: ignore[arg-type]
    assert "awaited already" in str(error)


async def test_nor_can_it_be_awaited_again() -> None:
    async def work() -> None: ...

    coroutine = work()
    await coroutine
    with pytest.raises(RuntimeError, match="already awaited"):
        await run_in_context(coroutine, copy_context())


async def test_what_it_has_handled_is_no_context_of_what_it_raises() -> None:
    async def job() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(1)

        raise ValueError

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it has no message
        await run_in_context(job(), copy_context())

    assert caught.value.__context__ is None


def test_a_native_cancellation_that_was_swallowed_is_not_the_next_job_s() -> None:
    counts: list[int] = []

    async def job(item: int) -> str:
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        if item == 0:
            task.cancel()
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                return "swallowed"

        return "fine"

    async def main() -> Any:
        return await amap(job, range(3), concurrency=1)

    assert asyncio.run(main()) == ["swallowed", "fine", "fine"]
    assert counts == [0, 0, 0]
