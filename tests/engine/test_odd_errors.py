"""
Errors that look like a cancellation and are none, and errors of what is called in between.

A cancelled future raises ``CancelledError`` wherever its result is asked for, without anybody
being cancelled; a nursery of Trio's raises cancellations and errors in one group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    CostTooHigh,
    RateLimiter,
    Started,
    ThrottleException,
    Throttler,
    amap,
    amap_outcomes,
    first,
)
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.calls import every
from tests.engine.diary import Diary, failures, finish

pytestmark = pytest.mark.timing


def cancelled(_: object = None) -> Any:
    raise asyncio.CancelledError


async def echo(item: object) -> object:
    await anyio.sleep(1)
    return item


class TestCancelledErrorsOfFunctions:
    async def test_of_a_cost(self) -> None:
        found = await every(
            amap_outcomes(echo, range(3), cost=lambda item: cancelled() if item == 1 else 1)
        )
        assert sorted(outcome.index for outcome in found) == [0, 1, 2]
        (failed,) = (outcome for outcome in found if outcome.error is not None)
        assert failed.index == 1
        assert isinstance(failed.error, asyncio.CancelledError)
        with pytest.raises(RuntimeError, match="job 1 was cancelled by other code"):
            assert failed.value

    async def test_of_retry_on(self) -> None:
        diary = Diary()
        jobs = [diary.job("a", errors=[OSError()]), diary.job("b", seconds=1)]
        throttler = Throttler(jobs, diary.consumer(), attempts=Attempts(retry_on=cancelled))
        await finish(throttler)
        assert diary.consumed == ["b"]
        assert [type(error) for _, error in failures(throttler)] == [asyncio.CancelledError]

    async def test_of_an_observer(self, caplog: pytest.LogCaptureFixture) -> None:
        assert await amap(echo, range(2), observer=cancelled) == [0, 1]
        assert "observer" in caplog.text


def on_asyncio(main: Callable[[], Awaitable[Any]]) -> Any:
    options = {"loop_factory": VirtualEventLoop}
    return anyio.run(main, backend="asyncio", backend_options=options)


async def a_timeout_of_one_s_own(scoped: bool) -> None:
    """Run into a timeout at 1 s, and clean up until 10 s."""
    if scoped:
        with anyio.move_on_after(1):
            try:
                await anyio.sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(9)
    else:
        try:
            async with asyncio.timeout(1):
                try:
                    await anyio.sleep(100)
                finally:
                    await asyncio.sleep(9)
        except TimeoutError:
            pass


@pytest.mark.parametrize("scoped", [True, False])
class TestWhileTheHostCleansUp:
    """The body or the consumer does, after a timeout of its own: the run is not cancelled."""

    @staticmethod
    async def call(item: int) -> int:
        await anyio.sleep(item)
        if item == 5:
            dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            dead.cancel()
            await dead

        return item

    def test_outcomes(self, scoped: bool) -> None:
        async def main() -> None:
            found = []
            async with amap_outcomes(self.call, [0, 5, 6, 6], concurrency=2) as outcomes:
                async for outcome in outcomes:
                    found.append((outcome.item, type(outcome.error)))
                    if outcome.item == 0:
                        await a_timeout_of_one_s_own(scoped)

            none = type(None)
            assert found == [(0, none), (5, asyncio.CancelledError), (6, none), (6, none)]

        on_asyncio(main)

    def test_a_throttler(self, scoped: bool) -> None:
        async def main() -> None:
            consumed = []

            async def consume(result: int) -> None:
                if result == 0:
                    await a_timeout_of_one_s_own(scoped)

                consumed.append(result)

            jobs = [partial(self.call, item) for item in (0, 5, 6, 6)]
            throttler = Throttler(jobs, consume, concurrency=2)
            with anyio.fail_after(100):
                await throttler.run()

            assert consumed == [0, 6, 6]
            outcome = throttler.exceptions.receive_nowait()
            assert outcome.item is jobs[1]
            assert isinstance(outcome.error, asyncio.CancelledError)

        on_asyncio(main)

    def test_workers_that_are_cancelled_meanwhile_are_not_passed_over(self, scoped: bool) -> None:
        async def main() -> None:
            async with amap_outcomes(echo, [0, 5, 6, 6], concurrency=2) as outcomes:
                await anext(outcomes)
                with anyio.move_on_after(1):
                    try:
                        await anyio.sleep(100)
                    finally:
                        for task in asyncio.all_tasks():
                            if task.get_name() == "anythrottle worker":
                                task.cancel()

                        with anyio.CancelScope(shield=True):
                            await anyio.sleep(1)

                async for _ in outcomes:
                    pass

        with pytest.raises(RuntimeError, match="cancelled by other code"):
            on_asyncio(main)


async def cut_off_badly(kind: str) -> str:
    if kind == "wins":
        return await win()

    async def clean_up() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("clean up")

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(anyio.sleep_forever)
        task_group.start_soon(clean_up)

    raise AssertionError


async def win() -> str:
    await anyio.sleep(1)
    return "won"


class TestErrorsInTheCompanyOfCancellations:
    async def test_a_loser_s_does_not_replace_the_winner(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        outcome = await first(cut_off_badly, ["loses", "wins"], concurrency=2)
        assert outcome.value == "won"
        assert "clean up" in caplog.text

    async def test_one_of_what_is_left_does_not_come_out_of_the_block(self) -> None:
        async with amap_outcomes(cut_off_badly, ["loses", "wins"], concurrency=2) as outcomes:
            async for outcome in outcomes:
                assert outcome.value == "won"
                break

    async def test_a_job_that_fails_when_it_is_cut_off_has_failed(self) -> None:
        throttler = Throttler([partial(cut_off_badly, "loses")])
        with anyio.move_on_after(1):
            await throttler.run()

        outcome = throttler.exceptions.receive_nowait()
        assert isinstance(outcome.error, ExceptionGroup)
        assert isinstance(outcome.error.exceptions[0], KeyError)
        assert throttler.remaining() == []

    async def test_the_body_s_own_nursery_does_not_hide_the_run_s_error(self) -> None:
        async def fail(_: int) -> None:
            await anyio.sleep(1)
            raise SystemExit(3)

        async def two_that_wait() -> None:
            if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
                await anyio.sleep_forever()

            import trio

            async with trio.open_nursery() as nursery:
                nursery.start_soon(anyio.sleep_forever)
                nursery.start_soon(anyio.sleep_forever)

        with pytest.raises(SystemExit) as caught:
            async with amap_outcomes(fail, [0]):
                await two_that_wait()

        assert caught.value.code == 3


class TestACostThatHasBecomeImpossible:
    """By a change of the limiter, after it was told."""

    @staticmethod
    def costs(big: object) -> Callable[[object], dict[str, int]]:
        return lambda job: {"tokens": 5 if job is big else 1}

    async def test_of_who_is_about_to_start(self) -> None:
        diary = Diary()
        limiter = RateLimiter("5 tokens/s")
        jobs = diary.jobs(4)
        throttler = Throttler(jobs, diary.consumer(), limiter=limiter, cost=self.costs(jobs[2]))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(0.5)
            limiter.reconfigure("2 tokens/s")

        assert diary.consumed == [0, 1, 3]
        ((job, error),) = failures(throttler)
        assert job is jobs[2]
        assert isinstance(error, CostTooHigh)
        assert limiter.statistics().tasks_waiting == 0

    async def test_of_who_has_no_room_yet(self) -> None:
        diary = Diary()
        limiter = RateLimiter("5 tokens/s")
        jobs = diary.jobs(3)
        options: dict[str, Any] = {"cost": self.costs(jobs[2]), "concurrency": 1}
        throttler = Throttler(jobs, diary.consumer(5), limiter=limiter, **options)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(3)
            limiter.reconfigure("2 tokens/s")

        assert diary.consumed == [0, 1]
        assert [type(error) for _, error in failures(throttler)] == [CostTooHigh]

    async def test_a_cost_of_all_jobs_ends_the_run_and_they_remain(self) -> None:
        diary = Diary()
        limiter = RateLimiter("5 tokens/s")
        jobs = diary.jobs(3, seconds=0.1)
        throttler = Throttler(jobs, diary.consumer(), limiter=limiter, cost={"tokens": 5})
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(anyio.sleep, 0)
            limiter_changes = partial(change_after, 0.5, limiter)
            task_group.start_soon(limiter_changes)
            with pytest.raises(CostTooHigh):
                await finish(throttler)

        assert throttler.remaining() == jobs[1:]
        limiter.reconfigure("5 tokens/s")
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]


async def change_after(seconds: float, limiter: RateLimiter) -> None:
    await anyio.sleep(seconds)
    limiter.reconfigure("2 tokens/s")


async def test_what_was_granted_is_given_back_if_the_cost_ends_the_run() -> None:
    diary = Diary()
    limiter = RateLimiter("1/s", concurrency=1)
    last = diary.job("last")

    def cost(job: object) -> int:
        if job is last:
            raise SystemExit(4)

        return 1

    throttler = Throttler(diary.jobs(2), limiter=limiter, cost=cost)

    async def add_later() -> None:
        await anyio.sleep(0.5)
        throttler.add(last, front=True)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(add_later)
        with pytest.raises(SystemExit):
            await finish(throttler)

    assert limiter.statistics().borrowed_tokens == 0
    assert limiter.peek().allowed
    assert len(throttler.remaining()) == 2


async def test_a_signal_derived_without_its_constructor_is_one() -> None:
    class TooManyRequests(ThrottleException):
        def __init__(self, status: int) -> None:
            self.status = status

    diary = Diary()
    job = diary.job("a", errors=[TooManyRequests(429)])
    await finish(Throttler([job], diary.consumer(), limiter="1/5s"))
    assert diary.when("start") == [0, 5]
    assert diary.consumed == ["a"]


async def test_all_that_was_interrupted_is_kept_although_the_observer_ends_it() -> None:
    def observe(event: object) -> None:
        if not isinstance(event, Started):
            raise KeyboardInterrupt

    coroutines: list[Any] = [echo(number) for number in range(3)]
    throttler = Throttler(coroutines, concurrency=3, observer=observe)
    with pytest.raises(KeyboardInterrupt), anyio.move_on_after(0.5):
        await throttler.run()

    assert [job for job, _ in failures(throttler)] == coroutines
    with pytest.raises(anyio.EndOfStream):
        throttler.exceptions.receive_nowait()
