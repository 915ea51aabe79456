"""Slots: of jobs that wait for what they hold themselves, through engines and limiters alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest

from anythrottle import (
    RateLimiter,
    Throttler,
    WindowTokenBucket,
    amap,
    amap_outcomes,
    first,
    for_each,
)
from anythrottle._limiters.holding import _waiting
from anythrottle.testing import wait_idle

pytestmark = pytest.mark.timing

NEVER = "a job waits for the limiter that runs it.*a slot could never come"

Job: TypeAlias = Callable[[], Awaitable[object]]
Options: TypeAlias = dict[str, Any]


async def by(function: Any, job: Job, options: Options) -> None:
    await function(lambda _: job(), [0], **options)


async def by_outcomes(job: Job, options: Options) -> None:
    async with amap_outcomes(lambda _: job(), [0], **options) as outcomes:
        async for outcome in outcomes:
            outcome.value  # noqa: B018 - raises its error


async def by_throttler(job: Job, options: Options) -> None:
    throttler = Throttler([job], **{"limiter": RateLimiter(), **options})
    await throttler.run()
    async for outcome in throttler.exceptions:
        outcome.value  # noqa: B018 - raises its error


async def by_limiter(job: Job, options: Options) -> None:
    await (options.get("limiter") or RateLimiter(**options)).run(job)


async def by_child(job: Job, options: Options) -> None:
    """Run it in a task that the caller waits for."""
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(by_limiter, job, options)


async def by_grandchild(job: Job, options: Options) -> None:
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(by_child, job, options)


WAYS: dict[str, Callable[[Job, Options], Coroutine[Any, Any, None]]] = {
    "amap": partial(by, amap),
    "for_each": partial(by, for_each),
    "first": partial(by, first),
    "amap_outcomes": by_outcomes,
    "Throttler": by_throttler,
    "limiter": by_limiter,
    "child": by_child,
    "grandchild": by_grandchild,
}


def one_limiter(limiter: RateLimiter) -> tuple[Options, Options]:
    return {"limiter": limiter}, {"limiter": limiter}


def slots_in(*of_limiter: bool) -> tuple[Options, Options]:
    """Make options for two that share a slot: of a limiter or of the run itself."""
    slots = anyio.CapacityLimiter(1)
    outer, inner = (
        {"limiter": RateLimiter(concurrency=slots)} if limited else {"concurrency": slots}
        for limited in of_limiter
    )
    return outer, inner


#: What the outer and the inner one share: there is one of it.
SHARED: dict[str, Callable[[], tuple[Options, Options]]] = {
    "slots": lambda: one_limiter(RateLimiter(concurrency=1)),
    "shared slots": lambda: one_limiter(RateLimiter(concurrency=anyio.CapacityLimiter(1))),
    "end": lambda: one_limiter(RateLimiter(WindowTokenBucket(1, 10, measure="end"))),
    "two runs": lambda: slots_in(False, False),
    "run, limiter": lambda: slots_in(False, True),
    "limiter, run": lambda: slots_in(True, False),
    "two limiters": lambda: slots_in(True, True),
}


class Nested:
    """A job that runs another one, and keeps the error that this has raised."""

    def __init__(self, way: str, options: Options) -> None:
        self.ran = 0
        self.errors: list[BaseException] = []
        self._way = WAYS[way]
        self._options = options

    async def __call__(self) -> None:
        try:
            await self._way(self._inner, self._options)
        except BaseException as exc:
            self.errors.append(exc)
            raise

    async def _inner(self) -> None:
        self.ran += 1


def anybody_waits() -> bool:
    """Return whether any task counts as waiting inside of a job."""
    return any(_waiting.values())


def bare(error: BaseException) -> BaseException:
    """Return the error of a task group's only task."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions

    return error


@pytest.mark.parametrize("inner", WAYS)
@pytest.mark.parametrize("outer", [way for way in WAYS if "child" not in way])
async def test_a_slot_that_could_never_come(outer: str, inner: str) -> None:
    for shared, make in SHARED.items():
        outer_options, inner_options = make()
        job = Nested(inner, inner_options)
        with anyio.fail_after(1000), suppress(RuntimeError, ExceptionGroup):
            await WAYS[outer](job, outer_options)

        (error,) = job.errors
        # Groups there are only of task groups that the job has made by itself.
        assert isinstance(error, ExceptionGroup) == ("child" in inner), shared
        with pytest.raises(RuntimeError, match=NEVER):
            raise bare(error)

        assert (job.ran, anybody_waits()) == (0, False), shared
        # Nothing of it is left.
        with anyio.fail_after(1000):
            await WAYS[outer](wait_idle, outer_options)
            await job()

        assert job.ran == 1, shared


@pytest.mark.parametrize("outer", ["amap", "Throttler", "limiter"])
@pytest.mark.parametrize("inner", ["amap", "Throttler", "limiter", "child"])
class TestNoFalseAlarm:
    """A slot that will be free, sooner or later."""

    async def test_another_slot(self, outer: str, inner: str) -> None:
        for options in {"concurrency": 1}, {"limiter": RateLimiter(concurrency=1)}:
            job = Nested(inner, options)
            await WAYS[outer](job, {"limiter": RateLimiter(concurrency=1)})
            assert (job.ran, job.errors) == (1, [])

    async def test_one_that_is_left(self, outer: str, inner: str) -> None:
        for slots in 2, anyio.CapacityLimiter(2):
            options = {"limiter": RateLimiter(concurrency=slots)}
            job = Nested(inner, options)
            with anyio.fail_after(1000):
                await WAYS[outer](job, options)

            assert (job.ran, job.errors) == (1, [])

    @pytest.mark.parametrize("plain", ["amap", "limiter"])
    async def test_one_that_a_plain_job_holds(self, outer: str, inner: str, plain: str) -> None:
        for slots in 2, anyio.CapacityLimiter(2):
            options = {"limiter": RateLimiter(concurrency=slots)}
            job = Nested(inner, options)
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(WAYS[plain], partial(anyio.sleep, 5), options)
                await wait_idle()
                task_group.start_soon(WAYS[outer], job, options)
                await anyio.sleep(4)
                assert (job.ran, anybody_waits()) == (0, True)
                await anyio.sleep(2)
                assert (job.ran, anybody_waits()) == (1, False)

            assert job.errors == []

    async def test_one_that_is_waited_for_in_vain(self, outer: str, inner: str) -> None:
        """Whoever gives up does not count any more."""
        slots = anyio.CapacityLimiter(2)
        options = {"limiter": RateLimiter(concurrency=slots)}
        job = Nested(inner, options)

        async def give_up() -> None:
            with anyio.move_on_after(1):
                await job()

            await anyio.sleep(1)

        async with anyio.create_task_group() as task_group, slots:
            task_group.start_soon(WAYS[outer], give_up, options)
            await wait_idle()
            assert anybody_waits()
            await anyio.sleep(1.5)
            assert not anybody_waits()


async def test_jobs_that_hold_all_the_slots_one_gives_in() -> None:
    for shared in False, True:
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(3) if shared else 3)
        job = Nested("amap", {"limiter": limiter})

        async def nested(job: Nested = job) -> None:
            await wait_idle()
            await job()

        throttler = Throttler([nested] * 3, limiter=limiter)
        with anyio.fail_after(1000):
            statistics = await throttler.run()

        assert (statistics.done, statistics.failed, job.ran) == (2, 1, 2)
        assert throttler.exceptions.receive_nowait().error is job.errors[0]
        assert not anybody_waits()


async def test_a_task_that_a_job_has_left_behind_waits_inside_of_none() -> None:
    """Though the worker that has run it runs the next one."""
    slots = anyio.CapacityLimiter(1)
    ran: list[float] = []

    async def job(item: int) -> None:
        if item == 0:
            task_group.start_soon(later)
        else:
            await anyio.sleep(5)

    async def later() -> None:
        await anyio.sleep(1)
        await amap(part, [0], concurrency=slots)

    async def part(_: int) -> None:
        ran.append(anyio.current_time())

    async with anyio.create_task_group() as task_group:
        await for_each(job, [0, 1], concurrency=slots)

    assert ran == [5]
