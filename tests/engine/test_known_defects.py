"""
Defects seen in the ancestor and in peers, each of which we must not have.

One test for each, named after it; most promise has tests of its own elsewhere.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
import trio
from anyio.lowlevel import current_token

from anythrottle import RateLimiter, SourceInterrupted, ThrottleException, Throttler
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.conftest import Run
from tests.engine.diary import Diary, Job, failures, finish, most_in_any_window

pytestmark = pytest.mark.timing


class TestTheAncestor:
    async def test_hangs_when_the_last_job_fails(self) -> None:
        diary = Diary()
        throttler = Throttler(
            [diary.job(0), diary.job(1, seconds=1, errors=[ValueError()])], diary.consumer()
        )
        await finish(throttler)
        assert len(failures(throttler)) == 1

    async def test_hangs_when_the_only_job_fails(self) -> None:
        throttler = Throttler([Diary().job(0, errors=[ValueError()])], Diary().consumer())
        await finish(throttler)
        assert len(failures(throttler)) == 1

    async def test_swallows_the_consumer_s_errors(self) -> None:
        async def consume(result: object) -> None:
            raise ArithmeticError("mine")

        with pytest.raises(ArithmeticError, match="mine"):
            await finish(Throttler(Diary().jobs(3), consume))

    async def test_skips_falsy_jobs(self) -> None:
        class Falsy:
            def __bool__(self) -> bool:
                return False

            async def __call__(self) -> str:
                return "ran"

        diary = Diary()
        await finish(Throttler([Falsy()], diary.consumer()))
        assert diary.consumed == ["ran"]

    async def test_skips_falsy_results(self) -> None:
        diary = Diary()
        await finish(Throttler([diary.job("", result=0)], diary.consumer()))
        assert diary.consumed == [0]

    async def test_starts_in_an_arbitrary_order(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(200, seconds=1), per_time_window=200, concurrency=40))
        assert diary.starts == list(range(200))

    async def test_starts_a_job_of_the_same_batch_during_the_back_off(self) -> None:
        diary = Diary()
        jobs = [diary.job("bad", errors=[ThrottleException()]), *diary.jobs(19)]
        await finish(Throttler(jobs, time_window=10, per_time_window=20, concurrency=5))
        assert [at for at in diary.when("start") if 0 < at < 10] == []
        assert diary.starts[:2] == ["bad", "bad"]
        assert diary.when("start")[:3] == [0, 10, 10]

    @pytest.mark.parametrize("jobs", [0, 1, 2])
    async def test_raises_value_error_if_there_are_fewer_jobs_than_the_window(
        self, jobs: int
    ) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(jobs), diary.consumer(), per_time_window=3))
        assert diary.consumed == list(range(jobs))

    async def test_loses_a_replacement_of_the_last_job(self) -> None:
        diary = Diary()
        signal = ThrottleException(diary.job("replacement"))
        await finish(Throttler([diary.job("last", errors=[signal])], diary.consumer()))
        assert diary.consumed == ["replacement"]


class TestPeers:
    async def test_a_retry_keeps_its_slot_while_it_waits(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=1)
        throttler = Throttler(
            [diary.job(0, errors=[ThrottleException(retry_after=60)])], limiter=limiter
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(30)
            assert limiter.statistics().borrowed_tokens == 0

    async def test_a_pause_is_not_seen_by_those_already_queued(self) -> None:
        diary = Diary()
        limiter = RateLimiter("1/10s")
        queued = Throttler([diary.job("a0"), diary.job("a1")], limiter=limiter)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, queued)
            await anyio.sleep(5)
            limiter.pause(100)

        assert diary.when("start") == [0, 105]

    @pytest.mark.parametrize("retry_after", [6.0, 3600.0, 86_400.0])
    async def test_retry_after_is_clamped_silently(self, retry_after: float) -> None:
        diary = Diary()
        job = diary.job(0, errors=[ThrottleException(retry_after=retry_after)])
        await finish(Throttler([job]), within=100_000)
        assert diary.when("start") == [0, retry_after]

    async def test_the_source_is_pulled_after_the_consumer_has_failed(self) -> None:
        diary = Diary()
        pulled_after = 0
        failed = False

        def generate() -> Iterator[Job]:
            nonlocal pulled_after
            for job in diary.jobs(50, seconds=1):
                pulled_after += failed
                yield job

        async def consume(result: object) -> None:
            nonlocal failed
            failed = True
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await finish(Throttler(generate(), consume, concurrency=2))

        await anyio.sleep(100)
        # The task that pulls may have been about to, in the same instant.
        assert pulled_after <= 1

    async def test_the_limit_breaks_when_the_consumer_is_slower_than_the_jobs(self) -> None:
        diary = Diary()
        throttler = Throttler(
            diary.jobs(30, seconds=1), diary.consumer(3), time_window=5, per_time_window=2
        )
        await finish(throttler)
        assert diary.most_running <= 5
        assert most_in_any_window(diary.when("start"), 5) == 2

    async def test_the_source_is_not_pulled_while_one_slot_is_busy(self) -> None:
        diary = Diary()
        jobs = iter([diary.job("long", seconds=100), *diary.jobs(5, seconds=1)])
        await finish(Throttler(jobs, concurrency=2))
        assert diary.when("end")[:5] == [1, 2, 3, 4, 5]

    async def test_never_catches_up_after_a_late_wake(self) -> None:
        from anythrottle.testing._backends import stall

        diary = Diary()

        async def stalling() -> None:
            stall(10.0)

        await finish(Throttler([stalling, *diary.jobs(10)], limiter="2/1s", concurrency=2))
        # Two of the eleven started at the beginning.
        assert anyio.current_time() <= 10.0 + 5.0

    def test_hangs_or_breaks_in_a_second_event_loop_run(self, run: Run) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2), diary.consumer())
        run(throttler.run)
        throttler.add(diary.job("second run"))
        run(throttler.run)
        assert diary.consumed == [0, 1, "second run"]

    async def test_needs_len(self) -> None:
        diary = Diary()
        await finish(Throttler((job for job in diary.jobs(3)), diary.consumer()))
        assert diary.consumed == [0, 1, 2]


async def test_an_item_handed_to_a_receiver_that_is_cancelled_is_lost() -> None:
    """Seen in AnyIO's memory object streams, under the consumer of a run."""
    diary = Diary()
    throttler = Throttler(diary.jobs(3, seconds=5), diary.consumer(), concurrency=1)
    for _ in range(3):
        with anyio.move_on_after(5):
            await throttler.run()

    await finish(throttler)
    assert sorted(diary.consumed, key=str) == [0, 1, 2]


async def test_an_empty_task_group_swallows_a_cancellation() -> None:
    """After a cancel, the workers die first: the owner must not return as if done."""
    diary = Diary()
    throttler = Throttler(diary.jobs(3, seconds=5))
    ended = False
    with anyio.move_on_after(2) as scope:
        await throttler.run()
        ended = True

    assert scope.cancelled_caught
    assert not ended
    gc.collect()


def logged_errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [repr(record.exc_info[1]) for record in caplog.records if record.exc_info]


class TestOwnPast:
    """What this library has done wrong itself."""

    async def test_a_source_s_own_end_of_stream_is_its_error(self) -> None:
        diary = Diary()

        def jobs() -> Iterator[Job]:
            yield diary.job(0)
            raise anyio.EndOfStream

        with pytest.raises(anyio.EndOfStream):
            await finish(Throttler(jobs()))

    async def test_a_generator_that_is_cut_off_and_raises_something_else(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        diary = Diary()

        async def jobs() -> AsyncIterator[Job]:
            yield diary.job(0)
            try:
                await anyio.sleep(100)
            finally:
                raise ValueError("cleanup")

        throttler = Throttler(jobs(), diary.consumer())
        with anyio.move_on_after(1):
            await throttler.run()

        assert logged_errors(caplog) == ["ValueError('cleanup')"]
        with pytest.raises(SourceInterrupted):
            await finish(throttler)

    async def test_a_generator_with_several_tasks_that_is_cut_off(self) -> None:
        diary = Diary()

        async def jobs() -> AsyncIterator[Job]:
            yield diary.job(0)
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(anyio.sleep, 100)
                task_group.start_soon(anyio.sleep, 100)
                await anyio.sleep(100)

        throttler = Throttler(jobs(), diary.consumer())
        with anyio.move_on_after(1):
            await throttler.run()

        with pytest.raises(SourceInterrupted):
            await finish(throttler)

    async def test_a_consumer_s_error_in_a_run_that_is_cancelled_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def consume(result: object) -> None:
            try:
                await anyio.sleep(100)
            finally:
                raise ValueError("cleanup")

        throttler = Throttler(Diary().jobs(1), consume)
        with anyio.move_on_after(1):
            await throttler.run()

        assert logged_errors(caplog) == ["ValueError('cleanup')"]

    def test_ctrl_c_comes_in_a_group(self, run: Run) -> None:
        diary = Diary()
        struck: list[bool] = []

        async def interrupted() -> str:
            if not struck:
                struck.append(True)
                # From the loop's own side, so that it strikes the main task, which is the run.
                token = current_token().native_token
                assert isinstance(token, asyncio.AbstractEventLoop | trio.lowlevel.TrioToken)
                soon = token.call_soon if hasattr(token, "call_soon") else token.run_sync_soon
                soon(signal.raise_signal, signal.SIGINT)
                await anyio.sleep(5)

            return "done"

        throttler = Throttler([diary.job(0), interrupted, diary.job(1)], diary.consumer())
        with pytest.raises(KeyboardInterrupt):
            run(throttler.run)

        assert interrupted in throttler.remaining()
        run(throttler.run)
        assert sorted(diary.consumed, key=str) == [0, 1, "done"]

    def test_a_worker_is_cancelled_natively_while_its_result_waits(self) -> None:
        diary = Diary()

        async def watched() -> str:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(1, task.cancel)
            return "watched"

        async def main() -> None:
            jobs = [diary.job(0), diary.job(1), watched]
            await finish(Throttler(jobs, diary.consumer(10), concurrency=1))

        anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})
        assert sorted(diary.consumed, key=str) == [0, 1, "watched"]

    @pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 2.5])
    def test_a_worker_is_cancelled_natively_after_its_job(self, seconds: float) -> None:
        diary = Diary()

        async def job() -> str:
            task = asyncio.current_task()
            assert task is not None
            if seconds:
                asyncio.get_running_loop().call_later(seconds, task.cancel)
            else:
                task.cancel()

            return "watched"

        async def main() -> None:
            jobs = [job, diary.job(1, seconds=1), job, diary.job(3), diary.job(4)]
            throttler = Throttler(
                jobs, diary.consumer(1), time_window=1, per_time_window=2, concurrency=2
            )
            await finish(throttler)
            assert len(diary.consumed) + len(failures(throttler)) == 5

        anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})
        assert len(diary.consumed) == len(set(diary.consumed)) + diary.consumed.count("watched") - 1
