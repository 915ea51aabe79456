"""The permit of the job that runs, and jobs that wait for the limiter that runs them."""

from __future__ import annotations

import contextvars
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anythrottle import (
    LimitExceeded,
    RateLimiter,
    RateLimiterStatistics,
    ThrottleException,
    Throttler,
    WindowTokenBucket,
    current_permit,
)
from anythrottle._jobs import JobOf
from anythrottle._limiters.current import current_permits
from anythrottle.abc import Permit
from anythrottle.testing import wait_idle
from tests.limiters.tools import tasks

#: What the limiter says to a job that would wait for ever.
NEVER = "a job waits for the limiter that runs it.*a slot could never come"


def assert_none() -> None:
    with pytest.raises(RuntimeError, match="no permit here"):
        current_permit()


async def same() -> Permit:
    return current_permit()


class TestCurrentPermit:
    def test_outside_of_any_loop_there_is_none(self) -> None:
        assert_none()

    async def test_outside_of_a_job_the_error_says_who_has_one(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            current_permit()

        for word in [
            "RateLimiter.run()",
            "RateLimiter.wrap()",
            "Throttler",
            "'async with limiter.permit() as permit'",
        ]:
            assert word in str(caught.value)

    @pytest.mark.timing
    async def test_is_that_of_the_call(self) -> None:
        limiter = RateLimiter("1/10s", concurrency=1)
        await limiter.run(same)

        async def job() -> None:
            permit = current_permit()
            assert repr(permit) == "<Permit held>"
            assert permit.waited == 10
            await checkpoint()
            assert current_permit() is permit

        await limiter.run(job)
        assert_none()

    async def test_each_call_has_its_own(self) -> None:
        limiter = RateLimiter("5/h")
        first, second = await limiter.run(same), await limiter.run(same)
        assert first is not second

    async def test_it_can_be_settled(self) -> None:
        limiter = RateLimiter("10/h", "1000 tokens/h")

        async def job() -> None:
            current_permit().settle({"tokens": 300})

        await limiter.run(job, cost={"tokens": 500})
        assert limiter.peek({"tokens": 700}).allowed
        assert not limiter.peek({"tokens": 701}).allowed
        assert limiter.peek({"tokens": 0, "calls": 9}).allowed

    async def test_it_can_be_refunded(self) -> None:
        limiter = RateLimiter("10/h", concurrency=1)

        async def job() -> None:
            assert limiter.peek().remaining == 6
            current_permit().refund()
            assert limiter.peek().remaining == 10
            assert limiter.statistics().borrowed_tokens == 1

        await limiter.run(job, cost=4)
        assert limiter.peek().remaining == 10

    async def test_the_innermost_one_counts(self) -> None:
        outer, inner = RateLimiter("10/h"), RateLimiter("10/h")

        async def inner_job() -> Permit:
            permit = current_permit()
            permit.refund()
            return permit

        async def outer_job() -> None:
            permit = current_permit()
            assert await inner.run(inner_job) is not permit
            assert current_permit() is permit
            assert await inner.wrap(inner_job)() is not permit
            assert current_permit() is permit

        await outer.run(outer_job)
        assert outer.peek().remaining == 9
        assert inner.peek().remaining == 10

    async def test_the_outer_one_is_back_after_an_error(self) -> None:
        limiter = RateLimiter()

        async def fail() -> None:
            raise ValueError

        async def job() -> None:
            permit = current_permit()
            with pytest.raises(ValueError):  # noqa: PT011
                await limiter.run(fail)

            assert current_permit() is permit

        await limiter.run(job)
        with pytest.raises(ValueError):  # noqa: PT011
            await limiter.run(fail)

        assert_none()

    async def test_the_outer_one_is_back_after_a_cancellation(self) -> None:
        limiter = RateLimiter()

        async def job() -> None:
            permit = current_permit()
            with anyio.CancelScope() as scope:

                async def cancelled() -> None:
                    assert current_permit() is not permit
                    scope.cancel()
                    await checkpoint()

                await limiter.run(cancelled)

            assert scope.cancelled_caught
            assert current_permit() is permit

        await limiter.run(job)
        assert_none()

    @pytest.mark.timing
    async def test_each_attempt_has_its_own(self) -> None:
        permits: list[Permit] = []

        async def job() -> None:
            permits.append(current_permit())
            if len(permits) < 3:
                raise ThrottleException(retry_after=2)

        await RateLimiter(concurrency=1).run(job)
        assert len(set(map(id, permits))) == 3
        assert [permit.waited for permit in permits] == [0, 2, 2]
        assert_none()

    @pytest.mark.timing
    async def test_a_replacement_has_one(self) -> None:
        limiter = RateLimiter("10/h")

        async def instead() -> None:
            current_permit().refund()

        async def job() -> None:
            raise ThrottleException(instead(), retry_after=1)

        await limiter.run(job)
        assert limiter.peek().remaining == 9

    async def test_while_the_next_attempt_waits_there_is_none_of_its_own(self) -> None:
        seen: list[int] = []

        def observe(event: object) -> None:
            seen.append(len(list(current_permits())))

        async def job() -> None:
            seen.append(len(list(current_permits())))
            if len(seen) == 2:
                raise ThrottleException(retry_after=0)

        await RateLimiter(observer=observe).run(job)
        # Granted; the job; paused and throttled; granted; the job.
        assert seen == [0, 1, 0, 0, 0, 1]

    async def test_is_not_set_by_a_permit_that_one_enters(self) -> None:
        limiter = RateLimiter("10/h")
        async with limiter.permit():
            assert_none()

        async with limiter:
            assert_none()

        async def job() -> None:
            permit = current_permit()
            async with limiter.permit() as another:
                assert current_permit() is permit is not another

        await limiter.run(job)

    async def test_jobs_that_run_at_the_same_time_have_their_own(self) -> None:
        limiter = RateLimiter("10/h")
        seen: dict[int, set[int]] = {}

        async def job(number: int) -> None:
            seen[number] = set()
            for _ in range(5):
                seen[number].add(id(current_permit()))
                await checkpoint()

        async with tasks() as task_group:
            for number in range(3):
                task_group.start_soon(limiter.run, job, number)

        assert [len(ids) for ids in seen.values()] == [1, 1, 1]
        assert len(set.union(*seen.values())) == 3

    async def test_tasks_that_the_job_starts_inherit_it(self) -> None:
        limiter = RateLimiter("10/h")
        seen: list[Permit] = []

        async def part() -> None:
            await checkpoint()
            seen.append(current_permit())
            await limiter.run(same)
            assert current_permit() is seen[0]

        async def job() -> Permit:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(part)
                task_group.start_soon(part)

            return current_permit()

        permit = await limiter.run(job)
        assert seen == [permit, permit]
        permit.refund()
        assert limiter.peek().remaining == 8

    async def test_a_task_that_outlives_the_job_can_still_settle(self) -> None:
        limiter = RateLimiter("10/h", concurrency=1)
        go = anyio.Event()

        async def part() -> None:
            await go.wait()
            current_permit().settle(5)

        async with tasks() as task_group:

            async def job() -> None:
                task_group.start_soon(part)

            await limiter.run(job)
            assert limiter.peek().remaining == 9
            go.set()

        assert limiter.peek().remaining == 5

    async def test_a_call_that_is_thrown_away_in_another_context(self) -> None:
        limiter = RateLimiter(concurrency=1, fast_acquire=True)

        @types.coroutine
        def suspend() -> Generator[None, None, None]:
            yield

        async def job() -> None:
            await suspend()

        call = limiter.run(job)
        contextvars.copy_context().run(call.send, None)
        assert limiter.statistics().borrowed_tokens == 1
        # As the garbage collector does to tasks of a loop that was closed.
        call.close()
        assert limiter.statistics().borrowed_tokens == 0
        assert_none()

    async def test_worker_threads_inherit_it(self) -> None:
        async def job() -> bool:
            return await anyio.to_thread.run_sync(current_permit) is current_permit()

        assert await RateLimiter().run(job)

    async def test_a_wrapped_function_has_one(self) -> None:
        limiter = RateLimiter("10/h")

        @limiter.wrap
        async def fetch(tokens: int) -> None:
            current_permit().settle(tokens)

        await fetch(4)
        assert limiter.peek().remaining == 6
        assert_none()


@pytest.mark.timing
class TestInAThrottler:
    async def test_jobs_can_settle_and_refund(self) -> None:
        limiter = RateLimiter("10/h", concurrency=2)

        async def settle() -> None:
            await checkpoint()
            current_permit().settle(3)

        async def refund() -> None:
            current_permit().refund()

        async def plain() -> None:
            await checkpoint()

        await Throttler([settle, refund, plain], limiter=limiter).run()
        assert limiter.peek().remaining == 6

    async def test_a_refund_lets_the_next_job_start_earlier(self) -> None:
        starts: list[float] = []

        async def job() -> None:
            starts.append(anyio.current_time())
            if len(starts) < 3:
                current_permit().refund()

        await Throttler([job] * 4, limiter="1/10s").run()
        assert [at - starts[0] for at in starts] == [0, 0, 0, 10]

    async def test_a_throttled_attempt_can_be_refunded(self) -> None:
        limiter = RateLimiter("10/h")
        attempts: list[float] = []

        async def job() -> None:
            attempts.append(anyio.current_time())
            if len(attempts) == 1:
                current_permit().refund()
                raise ThrottleException(retry_after=1)

        await Throttler([job], limiter=limiter).run()
        assert limiter.peek().remaining == 9

    async def test_each_job_has_just_its_own(self) -> None:
        stacks: list[list[Permit]] = []

        async def job() -> None:
            stacks.append(list(current_permits()))
            await anyio.sleep(1)

        # More workers are made by those who run.
        await Throttler([job] * 20, limiter="100/s", concurrency=4).run()
        assert {len(stack) for stack in stacks} == {1}
        assert len({id(stack[0]) for stack in stacks}) == 20

    async def test_its_permit_tells_how_long_the_job_has_waited(self) -> None:
        waited: list[float] = []

        async def job() -> None:
            waited.append(current_permit().waited)

        await Throttler([job] * 3, limiter="1/10s").run()
        assert waited == [0, 10, 10]

    async def test_source_and_consumer_have_none(self) -> None:
        consumed: list[object] = []

        async def jobs() -> AsyncIterator[Callable[[], Awaitable[Permit]]]:
            for _ in range(3):
                assert_none()
                yield same

        async def consume(permit: Permit) -> None:
            consumed.append(permit)
            assert_none()

        await Throttler(jobs(), consume, limiter="100/s", concurrency=2).run()
        assert len(consumed) == 3

    async def test_an_awaitable_that_was_made_outside_has_one_when_it_runs(self) -> None:
        limiter = RateLimiter("10/h")

        async def job() -> None:
            current_permit().refund()

        throttler = Throttler([job()], limiter=limiter)
        assert (await throttler.run()).failed == 0
        assert limiter.peek().remaining == 10


#: The ways into a limiter.
Enter = Callable[[RateLimiter], Coroutine[Any, Any, None]]


async def by_run(limiter: RateLimiter) -> None:
    await limiter.run(checkpoint)


async def by_wrap(limiter: RateLimiter) -> None:
    await limiter.wrap(checkpoint)()


async def by_permit(limiter: RateLimiter) -> None:
    async with limiter.permit(priority=-5):
        pass


async def by_async_with(limiter: RateLimiter) -> None:
    async with limiter:
        pass


ENTRANCES = [by_run, by_wrap, by_permit, by_async_with]


@pytest.mark.timing
class TestOwnLimiter:
    """A job that waits for the limiter that runs it, when a slot could never come."""

    @pytest.mark.parametrize("enter", ENTRANCES)
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    async def test_its_only_slot(self, enter: Enter, shared: bool) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter("10/h", concurrency=capacity if shared else 1)
        for call in (partial(limiter.run, enter, limiter), partial(limiter.wrap(enter), limiter)):
            with pytest.raises(RuntimeError, match=NEVER) as caught:
                await call()

            assert "call it without the limiter inside of the job" in str(caught.value)
            assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)
            assert capacity.borrowed_tokens == 0

        # Both of the jobs were charged, but not what they asked for.
        assert limiter.peek().remaining == 8
        await enter(limiter)

    @pytest.mark.parametrize("enter", ENTRANCES)
    async def test_a_job_that_catches_the_error_goes_on(self, enter: Enter) -> None:
        limiter = RateLimiter(concurrency=1)

        async def job() -> str:
            with pytest.raises(RuntimeError, match=NEVER):
                await enter(limiter)

            return "went on"

        assert await limiter.run(job) == "went on"

    async def test_all_its_slots_taken_by_one_task(self) -> None:
        limiter = RateLimiter(concurrency=3)
        depth: list[int] = []

        async def job() -> None:
            depth.append(len(depth))
            await limiter.run(job)

        with pytest.raises(RuntimeError, match=NEVER):
            await limiter.run(job)

        assert depth == [0, 1, 2]
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    @pytest.mark.parametrize("slots", [1, 2, 5])
    async def test_all_its_slots_held_by_jobs_that_wait(self, slots: int, shared: bool) -> None:
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(slots) if shared else slots)
        ended: list[str] = []

        async def job() -> None:
            # All of them hold a slot by then.
            await anyio.sleep(1)
            await limiter.run(checkpoint)

        async def call() -> None:
            try:
                await limiter.run(job)
            except RuntimeError as exc:
                ended.append(str(exc)[:11])
            else:
                ended.append("done")

        async with anyio.create_task_group() as task_group:
            for _ in range(slots):
                task_group.start_soon(call)

        # The last one had to give in, and its slot was enough for the rest.
        assert ended == ["a job waits", *["done"] * (slots - 1)]
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.parametrize("enter", ENTRANCES)
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    async def test_the_job_of_a_throttler(self, enter: Enter, shared: bool) -> None:
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(1) if shared else 1)
        done: list[str] = []

        async def consume(result: object) -> None:
            done.append("done")

        throttler: Throttler[JobOf[object], object] = Throttler(
            [partial(enter, limiter), checkpoint, partial(enter, limiter)], consume, limiter=limiter
        )
        statistics = await throttler.run()

        assert (statistics.done, statistics.failed) == (1, 2)
        for index in (0, 2):
            outcome = await throttler.exceptions.receive()
            assert outcome.index == index
            with pytest.raises(RuntimeError, match=NEVER):
                outcome.value  # noqa: B018

        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)

    async def test_jobs_of_a_throttler_that_hold_all_the_slots(self) -> None:
        limiter = RateLimiter(concurrency=3)

        async def job() -> None:
            await anyio.sleep(1)
            await limiter.run(checkpoint)

        throttler = Throttler([job] * 9, limiter=limiter)
        statistics = await throttler.run()

        assert statistics.done + statistics.failed == 9
        assert statistics.failed >= 1
        async for outcome in throttler.exceptions:
            assert "a slot could never come" in str(outcome.error)

        assert limiter.statistics() == RateLimiterStatistics(0, 0, 3, 0.0)


@pytest.mark.timing
class TestNoFalseAlarm:
    @pytest.mark.parametrize("enter", ENTRANCES)
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    async def test_a_task_that_the_job_has_started_elsewhere(
        self, enter: Enter, shared: bool
    ) -> None:
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(1) if shared else 1)
        ended: list[float] = []
        begun = anyio.current_time()

        async def part() -> None:
            await enter(limiter)
            ended.append(anyio.current_time() - begun)

        async with anyio.create_task_group() as task_group:

            async def job() -> None:
                # It has the job's permit as its current one too, and does not hold the job up.
                task_group.start_soon(part)
                await anyio.sleep(5)

            task_group.start_soon(limiter.run, job)

        assert ended == [5]

    @pytest.mark.parametrize("enter", ENTRANCES)
    async def test_a_task_of_the_job_s_context_after_the_job(self, enter: Enter) -> None:
        limiter = RateLimiter(concurrency=1)
        context: list[contextvars.Context] = []

        async def job() -> None:
            context.append(contextvars.copy_context())

        await limiter.run(job)
        holding = anyio.Event()

        async def hold() -> None:
            async with limiter:
                holding.set()
                await anyio.sleep(3)

        async with anyio.create_task_group() as task_group:

            def start() -> None:
                task_group.start_soon(enter, limiter)

            task_group.start_soon(hold)
            await holding.wait()
            context[0].run(start)

    @pytest.mark.parametrize("enter", ENTRANCES)
    @pytest.mark.parametrize("other", ["async with", "permit", "run"])
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    async def test_a_slot_that_another_call_will_free(
        self, enter: Enter, other: str, shared: bool
    ) -> None:
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(2) if shared else 2)
        ended: list[float] = []
        begun = anyio.current_time()

        async def hold() -> None:
            await anyio.sleep(5)

        async def another() -> None:
            if other == "run":
                await limiter.run(hold)
                return

            manager: AbstractAsyncContextManager[object] = (
                limiter if other == "async with" else limiter.permit()
            )
            async with manager:
                await hold()

        async def job() -> None:
            await wait_idle()
            await enter(limiter)
            ended.append(anyio.current_time() - begun)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(another)
            await wait_idle()
            task_group.start_soon(limiter.run, job)

        assert ended == [5]

    async def test_jobs_that_wait_beside_one_that_does_not(self) -> None:
        limiter = RateLimiter(concurrency=3)
        ended: list[str] = []

        async def waits(name: str) -> None:
            await wait_idle()
            await limiter.run(checkpoint)
            ended.append(name)

        async def works() -> None:
            await anyio.sleep(5)
            ended.append("works")

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, works)
            task_group.start_soon(limiter.run, waits, "a")
            task_group.start_soon(limiter.run, waits, "b")

        assert ended[0] == "works"
        assert sorted(ended[1:]) == ["a", "b"]

    async def test_one_that_waits_for_a_pause_with_a_slot_to_be_had(self) -> None:
        limiter = RateLimiter(concurrency=2)
        begun = anyio.current_time()

        async def job() -> float:
            limiter.pause(4)
            await limiter.run(checkpoint)
            return anyio.current_time() - begun

        assert await limiter.run(job) == 4

    async def test_a_slot_that_was_granted_to_a_call_that_has_not_begun(self) -> None:
        limiter = RateLimiter(concurrency=2)
        ended: list[str] = []

        async def call(name: str) -> None:
            async with limiter:
                ended.append(name)

        async with anyio.create_task_group() as task_group:

            async def job() -> None:
                async with limiter.permit():
                    for name in "xy":
                        task_group.start_soon(call, name)
                        await wait_idle()

                # That slot is x's by now, and y is in line.
                await limiter.run(checkpoint)
                ended.append("job")

            await limiter.run(job)

        assert ended == ["x", "y", "job"]

    @pytest.mark.parametrize("enter", ENTRANCES)
    async def test_a_limiter_without_slots(self, enter: Enter) -> None:
        limiter = RateLimiter(WindowTokenBucket(2, 10, measure="end"), "1/3s")
        begun = anyio.current_time()

        async def job() -> float:
            await enter(limiter)
            return anyio.current_time() - begun

        assert await limiter.run(job) == 3

    @pytest.mark.parametrize("enter", ENTRANCES)
    async def test_two_limiters(self, enter: Enter) -> None:
        outer, inner = RateLimiter(concurrency=1), RateLimiter(concurrency=1)
        begun = anyio.current_time()

        async def hold() -> None:
            await anyio.sleep(5)

        async def job() -> float:
            await wait_idle()
            # Somebody else's call will free it.
            await enter(inner)
            return anyio.current_time() - begun

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(inner.run, hold)
            assert await outer.run(job) == 5

    @pytest.mark.parametrize("enter", ENTRANCES)
    async def test_slots_that_are_shared_with_strangers(self, enter: Enter) -> None:
        capacity = anyio.CapacityLimiter(2)
        limiter = RateLimiter(concurrency=capacity)
        begun = anyio.current_time()

        async def stranger() -> None:
            async with capacity:
                await anyio.sleep(5)

        async def job() -> float:
            await wait_idle()
            await enter(limiter)
            return anyio.current_time() - begun

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(stranger)
            assert await limiter.run(job) == 5

        assert capacity.borrowed_tokens == 0

    async def test_a_job_of_a_throttler_beside_others(self) -> None:
        limiter = RateLimiter(concurrency=2)

        async def waits() -> None:
            await wait_idle()
            await limiter.run(checkpoint)

        async def works() -> None:
            await anyio.sleep(5)

        statistics = await Throttler([works, waits], limiter=limiter).run()
        assert (statistics.done, statistics.failed) == (2, 0)

    @pytest.mark.parametrize("max_wait", [0, 5, "deadline"])
    async def test_one_that_will_not_wait_for_ever(self, max_wait: Any) -> None:
        limiter = RateLimiter(concurrency=1)
        begun = anyio.current_time()

        async def job() -> tuple[str, float]:
            outcome = "given up"
            with anyio.move_on_after(9):
                try:
                    async with limiter.permit(max_wait=max_wait):
                        pass
                except LimitExceeded:
                    outcome = "refused"

            return outcome, anyio.current_time() - begun

        refused = isinstance(max_wait, int)
        assert await limiter.run(job) == (("refused", max_wait) if refused else ("given up", 9))

    @pytest.mark.parametrize("max_wait", ["deadline", 5])
    async def test_a_slot_that_is_freed_when_another_job_has_waited_long_enough(
        self, max_wait: Any
    ) -> None:
        limiter = RateLimiter(concurrency=2)
        ended: list[tuple[str, float]] = []
        begun = anyio.current_time()

        async def impatient() -> None:
            await wait_idle()
            with anyio.move_on_after(9), suppress(LimitExceeded):
                async with limiter.permit(max_wait=max_wait):
                    pytest.fail("there was a slot")

            ended.append(("impatient", anyio.current_time() - begun))

        async def patient() -> None:
            await anyio.sleep(1)
            await limiter.run(checkpoint)
            ended.append(("patient", anyio.current_time() - begun))

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(limiter.run, impatient)
            task_group.start_soon(limiter.run, patient)

        at = 5 if max_wait == 5 else 9
        assert ended == [("impatient", at), ("patient", at)]


@pytest.mark.timing
async def test_a_job_that_enters_twice_and_holds_all_slots_is_found() -> None:
    limiter = RateLimiter(concurrency=2)

    async def job() -> None:
        async with limiter, limiter:
            pytest.fail("there was a slot")

    with anyio.fail_after(1e6), pytest.raises(RuntimeError, match="a slot could never come"):
        await limiter.run(job)

    assert limiter.statistics().borrowed_tokens == 0
