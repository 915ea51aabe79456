"""What a job finds around it: context variables, its task, scopes; and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anythrottle import (
    JobInterrupted,
    RateLimiter,
    ThrottleException,
    Throttler,
    amap,
    amap_outcomes,
    current_permit,
    first,
    for_each,
)
from anythrottle.testing._virtual_loop import VirtualEventLoop

pytestmark = pytest.mark.timing

Func: TypeAlias = Callable[[int], Awaitable[object]]

#: Calls a function for a number of items, and returns (item, result, error) of each.
Way: TypeAlias = Callable[..., Awaitable[list[tuple[int, object, BaseException | None]]]]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
other: contextvars.ContextVar[str] = contextvars.ContextVar("other")


async def by_throttler(
    func: Func, count: int, *, concurrency: int = 1, limiter: RateLimiter | None = None
) -> list[tuple[int, object, BaseException | None]]:
    found: list[tuple[int, object, BaseException | None]] = []

    async def numbered(item: int) -> tuple[int, object]:
        return item, await func(item)

    async def consume(result: tuple[int, object]) -> None:
        found.append((*result, None))

    jobs = [partial(numbered, item) for item in range(count)]
    throttler = Throttler(jobs, consume, limiter=limiter or RateLimiter(), concurrency=concurrency)
    with anyio.fail_after(10_000):
        await throttler.run()

    async for outcome in throttler.exceptions:
        assert outcome.error is not None
        assert not isinstance(outcome.error, JobInterrupted)
        found.append((jobs.index(outcome.item), None, outcome.error))  # type: ignore[arg-type]

    return sorted(found, key=lambda each: each[0])


async def by_outcomes(
    func: Func, count: int, *, concurrency: int = 1, limiter: RateLimiter | None = None
) -> list[tuple[int, object, BaseException | None]]:
    with anyio.fail_after(10_000):
        async with amap_outcomes(
            func, range(count), concurrency=concurrency, limiter=limiter, ordered=True
        ) as outcomes:
            return [(each.item, each.result, each.error) async for each in outcomes]


@pytest.fixture(params=[by_throttler, by_outcomes])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


def results(found: Sequence[tuple[int, object, BaseException | None]]) -> list[object]:
    """Return the results, if there are no errors."""
    for _, _, error in found:
        if error is not None:
            raise error

    return [result for _, result, _ in found]


class TestContextVariables:
    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_of_the_caller_are_seen(self, way: Way, concurrency: int) -> None:
        async def job(item: int) -> str:
            await anyio.sleep(1)
            return variable.get()

        variable.set("the caller's")
        assert results(await way(job, 6, concurrency=concurrency)) == ["the caller's"] * 6

    @pytest.mark.parametrize("concurrency", [1, 3])
    @pytest.mark.parametrize("seconds", [0, 1])
    async def test_set_by_a_job_are_its_own(
        self, way: Way, concurrency: int, seconds: float
    ) -> None:
        """As if each job were a task of its own."""

        async def job(item: int) -> tuple[str, str]:
            before = variable.get()
            variable.set(f"job {item}'s")
            await anyio.sleep(seconds)
            return before, variable.get()

        variable.set("the caller's")
        assert results(await way(job, 6, concurrency=concurrency)) == [
            ("the caller's", f"job {item}'s") for item in range(6)
        ]
        assert variable.get() == "the caller's"

    async def test_that_had_no_value_have_none_again(self, way: Way) -> None:
        async def job(item: int) -> str:
            before = other.get("none")
            other.set(f"job {item}'s")
            await anyio.sleep(1)
            return before

        assert results(await way(job, 4, concurrency=2)) == ["none"] * 4

    async def test_of_a_job_that_fails_are_its_own_too(self, way: Way) -> None:
        seen: list[str] = []

        async def job(item: int) -> None:
            seen.append(variable.get())
            variable.set(f"job {item}'s")
            raise ValueError

        assert len(await way(job, 4)) == 4
        assert seen == ["nothing"] * 4

    async def test_of_an_attempt_are_not_seen_by_the_next_one(self, way: Way) -> None:
        seen: list[str] = []

        async def job(item: int) -> None:
            seen.append(variable.get())
            variable.set("an attempt's")
            if len(seen) == 1:
                raise ThrottleException(retry_after=1)

        assert len(await way(job, 1)) == 1
        assert seen == ["nothing", "nothing"]

    async def test_of_a_job_are_seen_by_the_tasks_that_it_starts(self, way: Way) -> None:
        seen: list[str] = []

        async def child() -> None:
            await checkpoint()
            seen.append(variable.get())

        async def job(item: int) -> None:
            variable.set(f"job {item}'s")
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(child)

        results(await way(job, 3))
        assert seen == [f"job {item}'s" for item in range(3)]

    async def test_tokens_of_a_job_are_good_within_it(self, way: Way) -> None:
        async def job(item: int) -> str:
            token = variable.set(f"job {item}'s")
            await anyio.sleep(1)
            variable.reset(token)
            return variable.get()

        variable.set("the caller's")
        assert results(await way(job, 4, concurrency=2)) == ["the caller's"] * 4

    async def test_changed_by_the_block_are_the_block_s_own(self) -> None:
        async def job(item: int) -> str:
            return variable.get()

        variable.set("the caller's")
        async with amap_outcomes(job, range(6), concurrency=1) as outcomes:
            seen: list[object] = []
            async for outcome in outcomes:
                variable.set("the block's")
                seen.append(outcome.value)
                await anyio.sleep(1)

        assert seen == ["the caller's"] * 6

    async def test_of_whoever_enters_count_not_of_whoever_calls(self) -> None:
        async def job(item: int) -> str:
            return variable.get()

        stream = amap_outcomes(job, [0])
        variable.set("when entered")
        async with stream as outcomes:
            assert (await anext(outcomes)).value == "when entered"

    async def test_the_permit_is_each_job_s_own(self, way: Way) -> None:
        async def job(item: int) -> int:
            before = id(current_permit())
            await anyio.sleep(1)
            assert id(current_permit()) == before
            return before

        found = await way(job, 3, concurrency=3, limiter=RateLimiter("1000/s"))
        assert len(set(results(found))) == 3
        with pytest.raises(RuntimeError, match="no permit here"):
            current_permit()


class TestTasks:
    async def test_have_a_name_that_tells_whose_they_are(self, way: Way) -> None:
        async def job(item: int) -> str | None:
            return anyio.get_current_task().name

        assert set(results(await way(job, 3, concurrency=2))) == {"anythrottle worker"}

    async def test_are_not_the_caller_s(self, way: Way) -> None:
        async def job(item: int) -> int:
            await anyio.sleep(1)
            return anyio.get_current_task().id

        found = results(await way(job, 3, concurrency=3))
        assert len({*found, anyio.get_current_task().id}) == 4

    async def test_scopes_of_a_job_are_its_own(self, way: Way) -> None:
        async def job(item: int) -> str:
            with anyio.move_on_after(1) as scope:
                await anyio.sleep(1000 if item == 1 else 0.5)

            await anyio.sleep(1)
            return "cut off" if scope.cancelled_caught else "whole"

        assert results(await way(job, 3)) == ["whole", "cut off", "whole"]

    async def test_the_deadline_is_the_caller_s(self, way: Way) -> None:
        async def job(item: int) -> float:
            return anyio.current_effective_deadline()

        with anyio.fail_after(100):
            assert results(await way(job, 2)) == [100, 100]

    async def test_task_groups_of_a_job_are_its_own(self, way: Way) -> None:
        async def fail() -> None:
            await anyio.sleep(1)
            raise ValueError

        async def job(item: int) -> int:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(anyio.sleep, 5)
                if item == 1:
                    task_group.start_soon(fail)

            return item

        found = await way(job, 3, concurrency=3)
        assert [result for _, result, _ in found] == [0, None, 2]
        error = found[1][2]
        assert isinstance(error, ExceptionGroup)
        assert [type(each) for each in error.exceptions] == [ValueError]

    async def test_a_job_that_cancels_a_task_group_of_its_own(self, way: Way) -> None:
        async def job(item: int) -> int:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(anyio.sleep, 1000)
                await anyio.sleep(1)
                task_group.cancel_scope.cancel()

            return item

        assert results(await way(job, 3)) == [0, 1, 2]


async def raise_stale_cancellation() -> None:
    """Raise the cancellation of a scope that was left long ago."""
    stale: BaseException | None = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as exc:
            stale = exc
            raise

    assert stale is not None
    raise stale


class TestCancellationsOfOthers:
    """A job that raises a cancellation which nobody has asked for has failed, and no more."""

    async def test_a_stale_one_is_the_job_s_error(self, way: Way) -> None:
        async def job(item: int) -> int:
            if item == 1:
                await raise_stale_cancellation()

            await anyio.sleep(1)
            return item

        found = await way(job, 4, concurrency=2)
        assert [result for _, result, _ in found] == [0, None, 2, 3]
        assert found[1][2] is not None

    async def test_its_value_does_not_end_the_block_in_silence(self) -> None:
        async def job(item: int) -> None:
            await raise_stale_cancellation()

        went_on = False
        with pytest.raises(RuntimeError, match="cancelled"):  # noqa: PT012 - the block is what is tested
            async with amap_outcomes(job, range(3)) as outcomes:
                async for outcome in outcomes:
                    _ = outcome.value

            went_on = True

        assert not went_on

    @pytest.mark.parametrize("function", [amap, for_each])
    async def test_it_does_not_end_the_caller_in_silence(
        self, function: Callable[..., Awaitable[object]]
    ) -> None:
        async def job(item: int) -> None:
            await raise_stale_cancellation()

        told: list[BaseException] = []

        async def caller() -> None:
            try:
                await function(job, range(3))
            except Exception as exc:  # noqa: BLE001 - any will do
                told.append(exc)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(caller)

        assert len(told) == 1

    async def test_first_goes_on(self) -> None:
        async def job(item: int) -> int:
            if item == 0:
                await raise_stale_cancellation()

            await anyio.sleep(1)
            return item

        assert (await first(job, range(2))).item == 1

    async def test_first_has_it_in_its_group(self) -> None:
        async def job(item: int) -> None:
            await raise_stale_cancellation()

        with pytest.raises(ExceptionGroup) as caught:
            await first(job, range(2))

        assert [str(error) for error in caught.value.exceptions] == [
            "job 0 was cancelled by other code",
            "job 1 was cancelled by other code",
        ]


class TestNativelyOnAsyncio:
    def run(self, main: Callable[[], Awaitable[object]]) -> Any:
        return anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})

    @pytest.mark.parametrize("how", ["itself", "from outside", "awaits", "raises"])
    @pytest.mark.parametrize("concurrency", [1, 2])
    def test_a_job_that_is_cancelled_has_failed_and_the_others_go_on(
        self, way: Way, how: str, concurrency: int
    ) -> None:
        async def job(item: int) -> int:
            if item == 1:
                task = asyncio.current_task()
                assert task is not None
                if how == "itself":
                    task.cancel()
                elif how == "from outside":
                    asyncio.get_running_loop().call_later(1, task.cancel)
                elif how == "raises":
                    raise asyncio.CancelledError
                else:
                    cancelled = asyncio.create_task(asyncio.sleep(10))
                    cancelled.cancel()
                    await cancelled

            await anyio.sleep(5)
            return item

        async def main() -> None:
            found = await way(job, 5, concurrency=concurrency)
            assert [result for _, result, _ in found] == [0, None, 2, 3, 4]
            error = found[1][2]
            assert error is not None
            assert asyncio.CancelledError in {type(error), type(error.__cause__)}

        self.run(main)

    @pytest.mark.parametrize("function", [amap, for_each])
    def test_amap_ends_with_an_error_and_its_caller_is_not_cancelled(
        self, function: Callable[..., Awaitable[object]]
    ) -> None:
        async def job(item: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(5)

        async def main() -> None:
            task = asyncio.ensure_future(function(job, range(2)))
            await asyncio.wait([task])
            assert not task.cancelled()
            assert isinstance(task.exception(), RuntimeError)

        self.run(main)

    def test_nothing_of_it_is_left_for_the_jobs_after_it(self, way: Way) -> None:
        cancelling: list[int] = []

        async def job(item: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            cancelling.append(task.cancelling())
            task.cancel()
            await asyncio.sleep(5)

        async def main() -> None:
            assert len(await way(job, 4)) == 4

        self.run(main)
        assert cancelling == [0, 0, 0, 0]

    def test_first_takes_another(self) -> None:
        async def job(item: int) -> int:
            task = asyncio.current_task()
            assert task is not None
            if item == 0:
                task.cancel()

            await asyncio.sleep(5)
            return item

        async def main() -> None:
            assert (await first(job, range(2))).item == 1

        self.run(main)
