"""Runs that give up: `halt`, and how a run has ended."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    SourceInterrupted,
    ThrottleException,
    Throttler,
    ThrottlerStatistics,
    amap_outcomes,
)
from anythrottle._jobs import JobOf
from anythrottle.abc import Event
from tests.engine.calls import Calls, every
from tests.engine.diary import Diary, Job, failures, finish

pytestmark = pytest.mark.timing


def failing(diary: Diary, count: int, *, seconds: float | None = None) -> list[Job]:
    return [diary.job(number, seconds=seconds, errors=[KeyError()]) for number in range(count)]


class Asked:
    """A `halt` that keeps what it was asked, and halts at so many failures."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.statistics: list[ThrottlerStatistics] = []

    def __call__(self, statistics: ThrottlerStatistics) -> bool:
        self.statistics.append(statistics)
        return statistics.failed >= self.most


class TestThrottler:
    async def test_after_so_many_failures_nothing_more_starts(self) -> None:
        diary = Diary()
        jobs = failing(diary, 20)
        asked = Asked(5)
        throttler = Throttler(jobs, diary.consumer(), concurrency=1, halt=asked)
        statistics = await finish(throttler)
        assert diary.starts == [0, 1, 2, 3, 4]
        assert (statistics.failed, statistics.ended) == (5, "halted")
        assert [each.failed for each in asked.statistics] == [1, 2, 3, 4, 5]
        assert all(each.ended is None for each in asked.statistics)
        assert len(failures(throttler)) == 5
        assert throttler.remaining() == jobs[5:]
        assert throttler.statistics().ended == "halted"

    async def test_what_runs_goes_on_to_its_end(self) -> None:
        diary = Diary()
        jobs = [diary.job("bad", seconds=1, errors=[KeyError()]), *diary.jobs(9, seconds=3)]
        throttler = Throttler(jobs, diary.consumer(), concurrency=3, halt=lambda run: True)
        await finish(throttler)
        assert anyio.current_time() == 3
        assert sorted(diary.consumed, key=str) == [0, 1]
        assert diary.who("cut off") == []
        assert len(failures(throttler)) == 1

    async def test_a_share_of_those_that_have_ended(self) -> None:
        def is_bad(run: ThrottlerStatistics) -> bool:
            ended = run.done + run.failed
            return ended >= 10 and run.failed > ended / 4

        diary = Diary()
        jobs = [
            diary.job(number, errors=[KeyError()] if number % 3 == 0 else [])
            for number in range(50)
        ]
        throttler = Throttler(jobs, concurrency=1, halt=is_bad)
        assert (await finish(throttler)).ended == "halted"
        assert len(diary.starts) == 10
        failures(throttler)

    async def test_it_is_asked_of_this_run_alone(self) -> None:
        diary = Diary()
        asked = Asked(3)
        throttler = Throttler(failing(diary, 8), concurrency=1, halt=asked)
        for starts in (3, 6):
            assert (await finish(throttler)).ended == "halted"
            assert len(diary.starts) == starts

        assert (await finish(throttler)).ended == "done"
        assert [each.failed for each in asked.statistics] == [1, 2, 3, 1, 2, 3, 1, 2]
        assert [each.started for each in asked.statistics] == [1, 2, 3, 1, 2, 3, 1, 2]
        assert throttler.statistics().failed == 8
        failures(throttler)

    async def test_so_are_its_other_counts(self) -> None:
        diary = Diary()
        throttle = ThrottleException(retry_after=1)
        errors: list[BaseException] = [throttle, OSError(), KeyError()]
        asked = Asked(1)
        jobs = [diary.job("good"), diary.job("bad", errors=errors)]
        throttler = Throttler(
            [*jobs, diary.job("good too"), diary.job("worse", errors=errors)],
            concurrency=1,
            attempts=Attempts(retry_on=lambda error: isinstance(error, OSError) and 0.0),
            halt=asked,
        )
        while (await finish(throttler)).ended == "halted":
            pass

        first, second = asked.statistics
        assert (first.failed, first.throttled, first.retried) == (1, 1, 1)
        assert (second.failed, second.throttled, second.retried) == (1, 1, 1)
        assert first.started + second.started == throttler.statistics().started
        failures(throttler)

    async def test_so_are_throttles_and_retries_of_which_there_were_others(self) -> None:
        diary = Diary()
        errors: list[BaseException] = [
            *[ThrottleException(retry_after=1) for _ in range(2)],
            *[OSError() for _ in range(2)],
            KeyError(),
        ]
        asked = Asked(1)
        throttler = Throttler(
            [diary.job(number, errors=errors) for number in range(3)],
            concurrency=1,
            attempts=Attempts(retry_on=lambda error: isinstance(error, OSError) and 0.0),
            halt=asked,
        )
        while (await finish(throttler)).ended == "halted":
            pass

        assert [(each.throttled, each.retried) for each in asked.statistics] == [(2, 2)] * 3
        failures(throttler)

    async def test_what_goes_again_is_no_failure(self) -> None:
        diary = Diary()
        errors: list[BaseException] = [ThrottleException(retry_after=1), OSError(), OSError()]
        asked = Asked(1)
        attempts = Attempts(3, retry_on=OSError)
        await finish(Throttler([diary.job(0, errors=errors)], attempts=attempts, halt=asked))
        assert asked.statistics == []

    async def test_a_cost_that_cannot_be_is_one(self) -> None:
        diary = Diary()
        throttler = Throttler(
            diary.jobs(5), limiter="5/s", cost=lambda job: 1 // 0, halt=lambda run: run.failed > 1
        )
        statistics = await finish(throttler)
        assert (statistics.failed, statistics.ended, diary.starts) == (2, "halted", [])
        failures(throttler)

    async def test_the_failure_can_be_read_and_the_observer_knows_it(self) -> None:
        diary = Diary()
        told: list[object] = []

        def halt(run: ThrottlerStatistics) -> bool:
            told.append(throttler.exceptions.receive_nowait().item)
            return False

        def observe(event: Event) -> None:
            told.append(type(event).__name__)

        jobs = failing(diary, 1)
        throttler = Throttler(jobs, halt=halt, observer=observe)
        await finish(throttler)
        assert told == ["Started", "Failed", jobs[0]]

    async def test_no_failure_is_asked_about_once_nothing_more_starts(self) -> None:
        diary = Diary()
        asked = Asked(1)
        throttler = Throttler(failing(diary, 9, seconds=1), concurrency=4, halt=asked)
        assert (await finish(throttler)).failed == 4
        assert len(asked.statistics) == 1
        failures(throttler)

    async def test_while_others_wait_for_the_limiter(self) -> None:
        diary = Diary()
        jobs = [diary.job("bad", seconds=1, errors=[KeyError()]), *diary.jobs(2)]
        throttler = Throttler(jobs, limiter="1/60s", halt=lambda run: True)
        await finish(throttler)
        assert anyio.current_time() == 1
        assert throttler.remaining() == jobs[1:]
        failures(throttler)

    async def test_while_it_waits_for_the_source(self) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Job](9)
        with send, receive:
            send.send_nowait(diary.job("bad", errors=[KeyError()]))
            throttler = Throttler(receive, halt=lambda run: True)
            assert (await finish(throttler)).ended == "halted"

        failures(throttler)

    async def test_without_it_the_run_goes_on(self) -> None:
        diary = Diary()
        throttler = Throttler(failing(diary, 50), halt=None)
        statistics = await finish(throttler)
        assert (statistics.failed, statistics.ended) == (50, "done")
        failures(throttler)


class TestErrorsOfItsOwn:
    async def test_end_the_run_bare(self) -> None:
        diary = Diary()
        jobs = [*failing(diary, 1), diary.job("long", seconds=50), diary.job("never")]
        throttler = Throttler(jobs, concurrency=2, halt=lambda run: run.failed / 0 > 1)
        with pytest.raises(ZeroDivisionError):
            await throttler.run()

        assert diary.who("cut off") in ([], ["long"])
        assert throttler.statistics().ended is None
        assert len(failures(throttler)) == 1
        assert throttler.remaining() == jobs[1:]

    @pytest.mark.parametrize("answer", [None, 1, "yes", 0.0])
    async def test_an_answer_that_is_none(self, answer: Any) -> None:
        throttler = Throttler(failing(Diary(), 3), halt=lambda run: answer)
        with pytest.raises(TypeError, match=r"^halt must return True or False, but .* returned "):
            await throttler.run()

        failures(throttler)

    async def test_an_async_function(self) -> None:
        async def halt(run: ThrottlerStatistics) -> bool:
            return True

        throttler = Throttler(failing(Diary(), 3), halt=halt)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^halt must return True or False"):
            await throttler.run()

        failures(throttler)

    async def test_a_cancellation_that_it_raises_is_no_cancellation_of_the_run(self) -> None:
        def halt(run: ThrottlerStatistics) -> bool:
            raise CancelledError

        throttler = Throttler(failing(Diary(), 3), halt=halt)
        with pytest.raises(RuntimeError, match=r"^halt was cancelled by other code$"):
            await throttler.run()

        failures(throttler)

    async def test_of_outcomes(self) -> None:
        calls = Calls(errors={0: [KeyError()]})
        with pytest.raises(ZeroDivisionError):
            await every(amap_outcomes(calls, range(9), concurrency=1, halt=lambda run: 1 // 0 > 1))

        assert calls.starts == [0]

    async def test_exit(self) -> None:
        def halt(run: ThrottlerStatistics) -> bool:
            raise SystemExit(3)

        throttler = Throttler(failing(Diary(), 3), halt=halt)
        with pytest.raises(SystemExit):
            await throttler.run()

        failures(throttler)


class TestOutcomes:
    @pytest.mark.parametrize("ordered", [True, False])
    async def test_they_end_with_those_of_the_calls_that_run(self, ordered: bool) -> None:
        calls = Calls({0: 2, 1: 1, 2: 5}, {1: [KeyError()]})
        asked = Asked(1)
        found = await every(
            amap_outcomes(calls, range(99), concurrency=3, ordered=ordered, halt=asked)
        )
        assert [outcome.item for outcome in found] == ([0, 1, 2] if ordered else [1, 0, 2])
        assert anyio.current_time() == 5
        assert calls.cut_off == []
        [statistics] = asked.statistics
        assert (statistics.started, statistics.done, statistics.failed) == (3, 0, 1)
        assert (statistics.running, statistics.queued) == (2, 96)

    async def test_how_many_have_succeeded(self) -> None:
        calls = Calls(errors={3: [KeyError()], 6: [KeyError()]})
        asked = Asked(2)
        found = await every(amap_outcomes(calls, range(99), concurrency=1, halt=asked))
        assert len(found) == 7
        assert [(each.done, each.failed) for each in asked.statistics] == [(3, 1), (5, 2)]

    async def test_an_endless_source(self) -> None:
        closed = False

        async def items() -> AsyncIterator[int]:
            nonlocal closed
            number = 0
            try:
                while True:
                    yield number
                    number += 1
            finally:
                closed = True

        calls = Calls(errors={5: [KeyError()]})
        found = await every(
            amap_outcomes(calls, items(), concurrency=1, halt=lambda run: run.failed > 0)
        )
        assert len(found) == 6
        assert closed


class TestHowARunHasEnded:
    async def test_done(self) -> None:
        throttler = Throttler(Diary().jobs(3))
        assert throttler.statistics().ended is None
        assert (await finish(throttler)).ended == "done"
        assert throttler.statistics().ended == "done"
        await throttler.aclose()
        assert throttler.statistics().ended == "done"

    async def test_stopped(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(9, seconds=2), concurrency=2)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(1)
            assert throttler.statistics().ended is None
            throttler.stop()
            assert throttler.statistics().ended is None

        assert throttler.statistics().ended == "stopped"
        await finish(throttler)
        assert throttler.statistics().ended == "done"

    async def test_whoever_comes_first_has_ended_it(self) -> None:
        for stop_first in (True, False):
            diary = Diary()
            throttler = Throttler(failing(diary, 9, seconds=2), concurrency=2, halt=Asked(1))
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(finish, throttler)
                await anyio.sleep(1)
                if stop_first:
                    throttler.stop()

                await anyio.sleep(1)
                throttler.stop()

            assert throttler.statistics().ended in (
                {"stopped"} if stop_first else {"stopped", "halted"}
            )
            failures(throttler)

    async def test_stop_when_all_is_done_but_for_the_consumer(self) -> None:
        # It might have added more.
        diary = Diary()
        throttler = Throttler(diary.jobs(2), diary.consumer(5))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(1)
            throttler.stop()

        assert throttler.statistics().ended == "stopped"
        assert diary.consumed == [0, 1]

    async def test_neither_if_it_was_cancelled(self) -> None:
        throttler = Throttler(Diary().jobs(9, seconds=2), concurrency=2)
        with anyio.move_on_after(1):
            await throttler.run()

        assert throttler.statistics().ended is None

    async def test_neither_if_it_has_failed(self) -> None:
        async def consume(result: object) -> None:
            raise OSError

        throttler = Throttler(Diary().jobs(9), consume)
        with pytest.raises(OSError):  # noqa: PT011 - the consumer's
            await throttler.run()

        assert throttler.statistics().ended is None

    async def test_nor_if_its_source_had_been_interrupted(self) -> None:
        async def source() -> AsyncIterator[Job]:
            yield Diary().job(0)
            await anyio.sleep(9)

        throttler = Throttler(source())
        with anyio.move_on_after(1):
            await throttler.run()

        with pytest.raises(SourceInterrupted):
            await throttler.run()

        assert throttler.statistics().ended is None

    async def test_it_makes_no_statistics_unequal(self) -> None:
        throttler: Throttler[JobOf[object], object] = Throttler([])
        before = throttler.statistics()
        assert await finish(throttler) == before


class TestWrongValues:
    @pytest.mark.parametrize("value", [5, True, "halt", [len]])
    @pytest.mark.parametrize(
        "make",
        [
            lambda halt: Throttler([], halt=halt),
            lambda halt: amap_outcomes(Calls(), [], halt=halt),
        ],
    )
    def test_are_named_at_once(self, make: Callable[[Any], object], value: object) -> None:
        with pytest.raises(TypeError) as caught:
            make(value)

        assert str(caught.value) == f"halt must be a function of ThrottlerStatistics, not {value!r}"
