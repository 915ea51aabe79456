"""The throttler with `outcome_fn`: one function is told of every outcome."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anythrottle import Attempts, JobInterrupted, Outcome, Throttler, ThrottlerStatistics
from tests.engine.diary import Diary, Job

pytestmark = pytest.mark.timing


class Told:
    """An `outcome_fn` that keeps what it was told, when it is done with it."""

    def __init__(self, seconds: float | None = None) -> None:
        self.outcomes: list[Outcome[Any, Any]] = []
        self.calls = 0
        self.seconds = seconds

    async def __call__(self, outcome: Outcome[Any, Any]) -> None:
        self.calls += 1
        if self.seconds is not None:
            await anyio.sleep(self.seconds)

        self.outcomes.append(outcome)

    @property
    def found(self) -> list[tuple[int, type[BaseException] | None]]:
        return [
            (each.index, None if each.error is None else type(each.error)) for each in self.outcomes
        ]


def three(diary: Diary, seconds: float | None = None) -> list[Job]:
    return [
        diary.job("a", seconds=seconds),
        diary.job("b", seconds=seconds, errors=[KeyError("b")]),
        diary.job("c", seconds=seconds),
    ]


async def finish(throttler: Throttler[Any, Any]) -> ThrottlerStatistics:
    with anyio.fail_after(1000):
        return await throttler.run()


class TestOutcomes:
    async def test_it_is_told_of_successes_and_failures(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        told = Told()
        jobs = three(Diary(), seconds=1)
        throttler = Throttler(jobs, outcome_fn=told, concurrency=1)
        statistics = await finish(throttler)
        assert told.found == [(0, None), (1, KeyError), (2, None)]
        assert [outcome.item for outcome in told.outcomes] == jobs
        assert told.outcomes[0].value == "a"
        assert [outcome.duration for outcome in told.outcomes] == [1, 1, 1]
        assert (statistics.done, statistics.failed) == (2, 1)
        # They have been read.
        assert not caplog.records
        with pytest.raises(anyio.EndOfStream):
            throttler.exceptions.receive_nowait()

        assert throttler.remaining() == []

    async def test_with_a_function(self) -> None:
        async def divide(item: int) -> float:
            return 12 / item

        told = Told()
        await finish(Throttler([3, 0, 4], func=divide, outcome_fn=told, concurrency=1))
        assert [outcome.item for outcome in told.outcomes] == [3, 0, 4]
        assert told.outcomes[2].value == 3
        with pytest.raises(ZeroDivisionError):
            _ = told.outcomes[1].value

    async def test_one_after_the_other_as_they_come(self) -> None:
        told = Told(2)
        diary = Diary()
        jobs = [diary.job(number, errors=[KeyError()]) for number in range(6)]
        throttler = Throttler(jobs, outcome_fn=told, concurrency=2)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(1)
            # Failures wait for it as results do: jobs wait then.
            assert len(diary.starts) <= 5

        assert anyio.current_time() == 12
        assert len(told.outcomes) == 6

    async def test_the_last_of_several_attempts(self) -> None:
        told = Told()
        job = Diary().job("a", errors=[OSError(), OSError()])
        attempts = Attempts(2, retry_on=lambda _: 0)
        await finish(Throttler([job], outcome_fn=told, attempts=attempts))
        [outcome] = told.outcomes
        assert outcome.attempts == 2
        assert isinstance(outcome.error, OSError)

    async def test_failures_before_a_start(self) -> None:
        told = Told()
        diary = Diary()
        await finish(Throttler(diary.jobs(2), outcome_fn=told, cost=lambda _: 1 // 0))
        assert told.found == [(0, ZeroDivisionError), (1, ZeroDivisionError)]

    async def test_halt_is_asked_when_it_fails_not_when_it_is_told(self) -> None:
        told = Told(5)
        diary = Diary()
        jobs = [diary.job(number, errors=[KeyError()]) for number in range(9)]
        halt_at: list[float] = []

        def halt(run: ThrottlerStatistics) -> bool:
            halt_at.append(anyio.current_time())
            return run.failed >= 2

        throttler = Throttler(jobs, outcome_fn=told, concurrency=1, halt=halt)
        assert (await finish(throttler)).ended == "halted"
        assert halt_at == [0, 0]
        assert told.found == [(0, KeyError), (1, KeyError)]


class TestRunsThatEndEarly:
    async def test_what_it_was_not_told_is_kept(self) -> None:
        told = Told(3)
        diary = Diary()
        jobs = three(diary)
        throttler = Throttler(jobs, outcome_fn=told, concurrency=1)
        with anyio.move_on_after(2):
            await throttler.run()

        assert told.outcomes == []
        assert throttler.remaining() == jobs
        assert throttler.statistics().failed == 1
        assert throttler.statistics().done == 0
        await finish(throttler)
        # No job ran again, and the call that was cut off is repeated.
        assert diary.starts == ["a", "b", "c"]
        assert sorted(told.found) == [(0, None), (1, KeyError), (2, None)]
        assert told.calls == 4
        statistics = throttler.statistics()
        assert (statistics.done, statistics.failed) == (2, 1)
        assert throttler.remaining() == []

    async def test_a_failure_that_was_with_it(self) -> None:
        told = Told(3)
        job = Diary().job("a", errors=[KeyError()])
        throttler = Throttler([job], outcome_fn=told)
        with anyio.move_on_after(2):
            await throttler.run()

        assert throttler.remaining() == [job]
        await finish(throttler)
        assert told.found == [(0, KeyError)]
        assert told.calls == 2

    async def test_an_awaitable_that_was_cut_off(self, caplog: pytest.LogCaptureFixture) -> None:
        told = Told()
        coroutine = Diary().job("a", seconds=9)()
        throttler = Throttler([coroutine], outcome_fn=told)
        with anyio.move_on_after(2):
            await throttler.run()

        # It is told of that in the next run.
        assert throttler.remaining() == [coroutine]
        assert throttler.statistics().failed == 1
        await finish(throttler)
        assert told.found == [(0, JobInterrupted)]
        assert throttler.remaining() == []
        assert not caplog.records

    async def test_its_own_error_ends_the_run_and_it_was_told(self) -> None:
        async def fail(outcome: Outcome[Any, Any]) -> None:
            if outcome.error is not None:
                raise OSError

        jobs = three(Diary())
        throttler = Throttler(jobs, outcome_fn=fail, concurrency=1)
        with pytest.raises(OSError):  # noqa: PT011 - its own
            await throttler.run()

        assert jobs[1] not in throttler.remaining()
        assert throttler.statistics().done == 1

    async def test_a_cancellation_that_it_raises_is_named(self) -> None:
        async def fail(outcome: Outcome[Any, Any]) -> None:
            raise anyio.get_cancelled_exc_class()

        async def fail_on_trio(outcome: Outcome[Any, Any]) -> None:
            import asyncio

            raise asyncio.CancelledError

        throttler = Throttler(three(Diary()), outcome_fn=fail_on_trio)
        with pytest.raises(RuntimeError, match=r"^outcome_fn was cancelled by other code"):
            await throttler.run()

    @pytest.mark.parametrize("quarters", range(16))
    async def test_each_job_is_in_one_place(self, quarters: int) -> None:
        told = Told(0.5)
        diary = Diary()
        jobs: list[Any] = [*three(diary, seconds=1), *three(diary, seconds=0.75), diary.job("d")()]
        throttler: Throttler[Any, Any] = Throttler(jobs, outcome_fn=told, concurrency=2)
        for _ in range(2):
            with anyio.move_on_after(quarters / 4 + 1 / 64):
                await throttler.run()

            stock = [*(outcome.item for outcome in told.outcomes), *throttler.remaining()]
            assert len(stock) == 7
            assert set(map(id, stock)) == set(map(id, jobs))

        await finish(throttler)
        assert len(told.outcomes) == 7


class TestBadInput:
    def test_together_with_consumer_fn(self) -> None:
        async def consume(result: object) -> None: ...

        with pytest.raises(TypeError) as caught:
            Throttler(Diary().jobs(1), consume, outcome_fn=Told())

        assert "outcome_fn=" in str(caught.value)
        assert f"consumer_fn={consume!r}" in str(caught.value)

    @pytest.mark.parametrize("function", [5, print, "print", list])
    def test_what_is_no_async_function(self, function: Any) -> None:
        with pytest.raises(TypeError, match=r"^outcome_fn must be an async function of one argum"):
            Throttler(Diary().jobs(1), outcome_fn=function)

    async def test_what_turns_out_to_be_none(self) -> None:
        throttler: Throttler[Any, Any] = Throttler(Diary().jobs(1), outcome_fn=lambda _: 5)  # type: ignore[arg-type,return-value]
        with pytest.raises(TypeError, match=r"^outcome_fn must be an async function, but "):
            await throttler.run()
