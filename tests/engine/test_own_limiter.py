"""The engine under limiters of a user's own, and what it asks of the library's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from anythrottle import (
    CostTooHigh,
    FixedWindow,
    Granted,
    RateLimiter,
    ThrottleException,
    Throttler,
    amap,
)
from anythrottle.abc import Event, Permit
from tests.engine.diary import Diary, failures, finish
from tests.engine.mine import Mine
from tests.stopwatch import RealTime

pytestmark = pytest.mark.timing


async def test_its_permits_are_entered_and_left() -> None:
    diary = Diary()
    mine: Any = Mine(RateLimiter("2/10s", concurrency=1))
    errors = [ValueError()]
    jobs = [diary.job(0, seconds=1), diary.job(1, errors=errors), diary.job(2)]
    throttler = Throttler(jobs, diary.consumer(), limiter=mine)
    await finish(throttler)
    assert mine.told == ["entered", "left"] * 3
    assert diary.when("start") == [0, 1, 10]
    assert throttler.statistics().failed == 1


async def test_it_is_told_when_a_job_is_cut_off() -> None:
    mine: Any = Mine(RateLimiter(concurrency=2))
    with anyio.move_on_after(1):
        await amap(anyio.sleep, [10, 10, 10], limiter=mine)

    kind = anyio.get_cancelled_exc_class().__name__
    assert mine.told == ["entered", "entered", f"left by {kind}", f"left by {kind}"]
    assert mine.limiter.statistics().borrowed_tokens == 0


async def test_windows_that_go_by_utc_are_told_what_it_is(
    monkeypatch: pytest.MonkeyPatch, real_time: RealTime
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000_003.0)
    diary = Diary()
    limiter = RateLimiter(FixedWindow(2, 10, align="utc"))
    await finish(Throttler(diary.jobs(3), limiter=limiter))
    assert diary.when("start") == [0, 0, 7]


async def test_an_observer_that_ends_the_program_keeps_no_slot() -> None:
    granted = 0

    def observe(event: Event) -> None:
        nonlocal granted
        granted += isinstance(event, Granted)
        if granted == 2:
            raise KeyboardInterrupt

    limiter = RateLimiter("5/s", concurrency=1, observer=observe)
    async with limiter:
        pass

    slots = anyio.CapacityLimiter(1)
    diary = Diary()
    throttler = Throttler(diary.jobs(3), limiter=limiter, concurrency=slots)
    with pytest.raises(KeyboardInterrupt):
        await finish(throttler)

    assert limiter.statistics().borrowed_tokens == 0
    assert slots.borrowed_tokens == 0
    assert diary.starts == []
    assert len(throttler.remaining()) == 3


async def test_the_same_error_of_two_jobs_is_not_noted_on_itself() -> None:
    error = ValueError("shared")

    async def job(item: int) -> None:
        try:
            await anyio.sleep(item)
        finally:
            raise error

    with pytest.raises(ValueError, match="shared") as caught:
        await amap(job, [1, 2])

    assert caught.value is error
    assert not hasattr(error, "__notes__")


class Counting(Mine):
    """One that counts the permits it is asked for, and notes those that are entered."""

    def __init__(self, limiter: RateLimiter) -> None:
        super().__init__(limiter)
        self.asked: list[object] = []
        self.entered: list[object] = []

    @asynccontextmanager
    async def _permit(self, cost: object, options: Any) -> AsyncGenerator[Permit]:
        async with self.limiter.permit(cost, **options) as permit:  # type: ignore[arg-type]
            self.entered.append(cost)
            yield permit

    def permit(self, cost: object = 1, **options: Any) -> Any:
        # As it would be asked for.
        self.limiter.permit(cost, **options)  # type: ignore[arg-type]
        self.asked.append(cost)
        return self._permit(cost, options)


class TestOnePermitPerStart:
    @pytest.mark.parametrize("concurrency", [None, 1, 3])
    @pytest.mark.parametrize("limit", ["2/10s", "1000/s"])
    @pytest.mark.parametrize(
        "cost",
        [1, {"calls": 1}, lambda _: 1, lambda _: {"calls": 1}],
        ids=["int", "mapping", "function", "function of mappings"],
    )
    async def test_of_a_limiter_of_ones_own(
        self, cost: Any, limit: str, concurrency: int | None
    ) -> None:
        mine: Any = Counting(RateLimiter(limit))
        diary = Diary()
        jobs = diary.jobs(10, seconds=1)
        jobs[3] = diary.job(3, errors=[ThrottleException(retry_after=5)])
        throttler = Throttler(
            jobs, diary.consumer(2), limiter=mine, concurrency=concurrency, cost=cost
        )
        statistics = await finish(throttler)
        assert statistics.started == len(mine.entered) == 11
        assert len(mine.asked) == 11
        assert diary.starts == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]

    async def test_of_a_rate_limiter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = 0
        permit = RateLimiter.permit

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            return permit(*args, **options)

        monkeypatch.setattr(RateLimiter, "permit", counted)
        diary = Diary()
        await finish(Throttler(diary.jobs(20), limiter=RateLimiter("2/10s"), cost=lambda _: 1))
        assert asked == 20

    async def test_it_is_of_the_cost_of_the_job_that_starts(self) -> None:
        """Though other jobs have come to the front since it was asked for."""
        mine: Any = Counting(RateLimiter("10 tokens/10s"))
        costs = {0: 10, 1: 4, 2: 3, 3: 4}
        begun: list[tuple[int, float]] = []

        async def func(item: int) -> None:
            begun.append((item, anyio.current_time()))

        throttler: Throttler[int, None] = Throttler(
            [0, 1], func=func, limiter=mine, cost=lambda item: {"tokens": costs[item]}
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttler.run)
            await anyio.sleep(5)
            throttler.add(2, front=True)
            await anyio.sleep(1)
            throttler.add(3, front=True)

        assert begun == [(0, 0), (3, 10), (2, 10), (1, 20)]
        # One was granted as others had come to the front that cost less or more.
        assert len(mine.entered) - len(begun) <= 2
        remaining = mine.limiter.quotas()[0].remaining
        assert remaining == 10 - 4

    async def test_a_mapping_that_is_used_again_with_other_amounts(self) -> None:
        mine: Any = Counting(RateLimiter("10 tokens/10s"))
        cost = {"tokens": 6}
        diary = Diary()
        slots = anyio.CapacityLimiter(1)

        async def change() -> None:
            cost["tokens"] = 4

        jobs: list[Any] = [change, *diary.jobs(2)]
        await finish(Throttler(jobs, limiter=mine, cost=cost, concurrency=slots))
        assert diary.when("start") == [0, 10]

    async def test_the_limiter_has_become_another_one(self) -> None:
        for kind in RateLimiter, Counting:
            limiter = RateLimiter("1/10s")
            used: Any = limiter if kind is RateLimiter else Counting(limiter)
            diary = Diary()
            entered: list[float] = []

            async def consume(_: object, entered: list[float] = entered) -> None:
                entered.append(anyio.current_time())
                await anyio.sleep(3)

            began = anyio.current_time()
            jobs = diary.jobs(6)
            throttler = Throttler(jobs, consume, limiter=used, concurrency=1, cost=lambda _: 2)
            limiter.reconfigure("2/10s")
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(finish, throttler)
                await anyio.sleep(5)
                # While a job waits for its turn.
                limiter.reconfigure("4/10s")
                await anyio.sleep(6)
                # And while one may wait for room.
                limiter.reconfigure("4/20s")

            assert [start - began for start in diary.when("start")] == [0, 5, 10, 25, 30, 45], kind

    @pytest.mark.parametrize("own", [False, True])
    async def test_a_cost_that_has_become_impossible(self, own: bool) -> None:
        limiter = RateLimiter("4 tokens/10s")
        used: Any = Counting(limiter) if own else limiter
        diary = Diary()
        throttler = Throttler(diary.jobs(3), limiter=used, cost=lambda _: {"tokens": 3})
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(1)
            limiter.reconfigure("2 tokens/10s")

        assert diary.starts == [0]
        assert [type(error) for _, error in failures(throttler)] == [CostTooHigh] * 2
        assert limiter.statistics().tasks_waiting == 0

    @pytest.mark.parametrize("own", [False, True])
    async def test_a_run_that_is_cut_off_has_used_none(self, own: bool) -> None:
        limiter = RateLimiter("1/10s")
        used: Any = Counting(limiter) if own else limiter
        diary = Diary()
        throttler = Throttler(diary.jobs(4), limiter=used, concurrency=1)
        for _ in range(3):
            with anyio.move_on_after(1):
                await throttler.run()

        assert diary.starts == [0]
        assert limiter.statistics().tasks_waiting == 0
        await finish(throttler)
        assert diary.when("start") == [0, 10, 20, 30]
