"""The engine under limiters of a user's own, and what it asks of the library's."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anythrottle import FixedWindow, Granted, RateLimiter, Throttler, amap
from anythrottle.abc import Event
from tests.engine.diary import Diary, finish
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
