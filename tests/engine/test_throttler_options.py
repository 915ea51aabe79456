"""The throttler's options: slots shared with others, costs by job, and jobs added to the front."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from typing import Any

import anyio
import pytest

from anythrottle import (
    Attempts,
    CostTooHigh,
    Failed,
    Granted,
    RateLimiter,
    ThrottleException,
    Throttler,
    amap,
    amap_outcomes,
    current_permit,
    for_each,
)
from anythrottle import first as first_of
from anythrottle._jobs import JobOf
from anythrottle.abc import Event
from anythrottle.testing import wait_idle
from tests.engine.diary import Diary, Job, failures, finish

pytestmark = pytest.mark.timing


@asynccontextmanager
async def running(*throttlers: Throttler[JobOf[object], object]) -> AsyncGenerator[None]:
    """Run throttlers to their end beside a block that begins when they have come to rest."""
    with anyio.fail_after(1000):
        async with anyio.create_task_group() as task_group:
            for throttler in throttlers:
                task_group.start_soon(finish, throttler)

            await wait_idle()
            yield


class TestSharedSlots:
    async def test_two_throttlers_share_them(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(3)
        throttlers = [
            Throttler(diary.jobs(10, seconds=1), diary.consumer(), concurrency=slots),
            Throttler(diary.jobs(5, seconds=1), limiter=RateLimiter(), concurrency=slots),
        ]
        async with running(*throttlers):
            assert slots.borrowed_tokens == 3

        assert diary.most_running == 3
        assert anyio.current_time() == 5
        assert slots.borrowed_tokens == 0

    async def test_with_tasks_that_know_nothing_of_throttlers(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        await slots.acquire_on_behalf_of("somebody")
        async with running(Throttler(diary.jobs(3, seconds=1), concurrency=slots)):
            await anyio.sleep(5)
            slots.release_on_behalf_of("somebody")
            await anyio.sleep(0.5)
            # First come, first served: the throttler waits for its next job's slot already.
            async with slots:
                await anyio.sleep(10)

        assert diary.when("start") == [5, 6, 17]

    async def test_more_slots_in_the_middle_of_the_run(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        async with running(Throttler(diary.jobs(9, seconds=2), concurrency=slots)):
            await anyio.sleep(1)
            assert len(diary.starts) == 1
            slots.total_tokens = 4
            await wait_idle()
            assert len(diary.starts) == 4

        assert diary.most_running == 4
        assert slots.borrowed_tokens == 0

    async def test_no_bound_at_all_in_the_middle_of_the_run(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        async with running(Throttler(diary.jobs(9, seconds=2), concurrency=slots)):
            slots.total_tokens = inf
            await wait_idle()
            assert diary.running == 9

    async def test_fewer_slots_in_the_middle_of_the_run(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(4)
        async with running(Throttler(diary.jobs(12, seconds=2), concurrency=slots)):
            await anyio.sleep(1)
            slots.total_tokens = 1
            # Nobody is cut off.
            assert diary.running == 4
            for _ in range(8):
                await anyio.sleep(2)
                await wait_idle()
                assert diary.running == 1

        assert anyio.current_time() == 18
        assert diary.who("cut off") == []

    async def test_no_slots_at_first(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(0)
        throttler = Throttler(diary.jobs(3, seconds=1), diary.consumer(), concurrency=slots)
        async with running(throttler):
            await anyio.sleep(50)
            assert diary.starts == []
            assert slots.statistics().tasks_waiting == 1
            slots.total_tokens = 2

        assert diary.when("start") == [50, 50, 51]
        assert set(diary.consumed) == {0, 1, 2}

    async def test_none_for_a_while(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        async with running(Throttler(diary.jobs(3, seconds=2), concurrency=slots)):
            slots.total_tokens = 0
            await anyio.sleep(50)
            assert diary.starts == [0]
            slots.total_tokens = 1

        assert diary.when("start") == [0, 50, 52]

    async def test_an_idle_throttler_holds_nothing(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        limiter = RateLimiter("1/10s")
        send, receive = anyio.create_memory_object_stream[Job](9)
        with receive:
            throttler = Throttler(receive, limiter=limiter, concurrency=slots)
            async with running(throttler):
                with send:
                    assert slots.borrowed_tokens == 0
                    assert slots.statistics().tasks_waiting == 0
                    for number in range(3):
                        send.send_nowait(diary.job(number, seconds=1))
                        await anyio.sleep(20)
                        assert slots.borrowed_tokens == 0
                        async with slots, limiter:
                            pass

                        await anyio.sleep(20)
                        assert slots.statistics().tasks_waiting == 0

        assert diary.when("start") == [0, 40, 80]

    async def test_nor_does_one_whose_jobs_are_delayed(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        job = diary.job("a", errors=[OSError()])
        async with running(
            Throttler([job], concurrency=slots, attempts=Attempts(retry_on=lambda _: 50))
        ):
            await anyio.sleep(10)
            assert slots.borrowed_tokens == 0

        assert diary.when("start") == [0, 50]

    async def test_nor_one_whose_consumer_is_slow(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(2)
        async with running(Throttler(diary.jobs(9), diary.consumer(50), concurrency=slots)):
            await anyio.sleep(10)
            assert len(diary.starts) < 6
            assert slots.borrowed_tokens == 0
            assert slots.statistics().tasks_waiting == 0

    async def test_a_slot_is_given_back_whatever_a_job_does(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(2)
        jobs = [
            diary.job("a", errors=[KeyError()]),
            diary.job("b", errors=[ThrottleException(retry_after=1)]),
            diary.job("c", errors=[ValueError()]),
            diary.job("d", seconds=90),
        ]
        throttler = Throttler(
            jobs,
            diary.consumer(),
            concurrency=slots,
            attempts=Attempts(retry_on=ValueError, timeout=5),
        )
        await finish(throttler)
        assert len(failures(throttler)) == 2
        assert slots.borrowed_tokens == 0

    async def test_stop_while_it_waits_for_a_slot(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        throttler = Throttler(diary.jobs(3), diary.consumer(), concurrency=slots)
        async with slots:
            async with running(throttler):
                await anyio.sleep(5)
                assert slots.statistics().tasks_waiting == 1
                throttler.stop()

            assert anyio.current_time() == 5
            assert slots.statistics().tasks_waiting == 0

        assert len(throttler.remaining()) == 3
        assert slots.borrowed_tokens == 0
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]

    async def test_stop_in_the_instant_that_it_gets_one(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        throttler = Throttler(diary.jobs(3), diary.consumer(), concurrency=slots)
        async with slots, anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await wait_idle()
            slots.total_tokens = 2
            throttler.stop()

        assert len(diary.starts) + len(throttler.remaining()) == 3
        assert slots.borrowed_tokens == 0
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]
        assert slots.borrowed_tokens == 0

    @pytest.mark.parametrize("at_once", [False, True])
    async def test_cancel_while_it_waits_for_a_slot(self, at_once: bool) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        throttler = Throttler(diary.jobs(3), diary.consumer(), concurrency=slots)
        async with slots:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(finish, throttler)
                await wait_idle()
                assert slots.statistics().tasks_waiting == 1
                if at_once:
                    slots.total_tokens = 2

                task_group.cancel_scope.cancel()

            assert slots.statistics().tasks_waiting == 0
            assert slots.borrowed_tokens == 1

        assert diary.consumed == []
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]
        assert slots.borrowed_tokens == 0

    async def test_who_waits_for_a_slot_starts_who_is_frontmost_then(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(1)
        throttler = Throttler(diary.jobs(2), concurrency=slots)
        async with slots, anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await wait_idle()
            throttler.add(diary.job("front"), front=True)
            slots.total_tokens = 2

        assert diary.starts == ["front", 0, 1]

    async def test_the_mappings_share_them_too(self) -> None:
        slots = anyio.CapacityLimiter(2)
        at_once = most = 0

        async def call(item: int) -> int:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await anyio.sleep(1)
            at_once -= 1
            return item

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(partial(for_each, call, range(4), concurrency=slots))
            task_group.start_soon(partial(amap, call, range(4), concurrency=slots))
            async with amap_outcomes(call, range(4), concurrency=slots, ordered=True) as outcomes:
                assert [outcome.item async for outcome in outcomes] == [0, 1, 2, 3]

        assert most == 2
        assert anyio.current_time() == 6
        assert slots.borrowed_tokens == 0

    async def test_whoever_waits_for_the_lead_holds_none(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(3)

        async def add() -> None:
            # Meanwhile somebody else waits for a job.
            await anyio.sleep(1)
            throttler.add(diary.job("added"))

        throttler: Throttler[JobOf[object], object] = Throttler(
            [add], limiter="1/10s", concurrency=slots
        )
        async with running(throttler):
            await anyio.sleep(5)
            # That of who waits for the turn.
            assert slots.borrowed_tokens == 1

        assert diary.when("start") == [10]
        assert slots.borrowed_tokens == 0

    async def test_nor_does_who_waits_for_room_after_a_turn_in_vain(self) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(2)
        dear = diary.job("dear")
        throttler = Throttler(
            diary.jobs(5, seconds=1),
            diary.consumer(50),
            limiter="4/10s",
            concurrency=slots,
            cost=lambda job: 2 if job is dear else 1,
        )
        async with running(throttler):
            await anyio.sleep(5)
            # One waits for its turn; when it came to that, there was room.
            assert slots.borrowed_tokens == 1
            throttler.add(dear, front=True)
            await anyio.sleep(10)
            # The turn was for another cost, and there is no room any more.
            assert slots.borrowed_tokens == 0

        assert diary.starts == [0, 1, 2, 3, "dear", 4]
        assert slots.borrowed_tokens == 0


def cost_by_name(costs: Mapping[object, Any]) -> Callable[[Any], Any]:
    """Return a function that tells the cost of a diary's job; an error is raised."""
    by_qualname = {f"job {name!r}": cost for name, cost in costs.items()}

    def cost(job: Any) -> Any:
        found = by_qualname.get(job.__qualname__, 1)
        if isinstance(found, BaseException):
            raise found

        return found

    return cost


class TestCost:
    async def test_a_number(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(6), limiter="10/5s", cost=4))
        assert diary.when("start") == [0, 0, 5, 5, 10, 10]

    async def test_nothing(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(6), limiter="1/5s", cost=0))
        assert diary.when("start") == [0] * 6

    async def test_of_the_throttler_s_own_window(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(4), time_window=5, per_time_window=4, cost=2))
        assert diary.when("start") == [0, 0, 5, 5]

    async def test_by_unit(self) -> None:
        diary = Diary()
        limiter = RateLimiter("100/s", "1000 tokens/min")
        await finish(Throttler(diary.jobs(3), limiter=limiter, cost={"tokens": 500}))
        assert diary.when("start") == [0, 0, 60]

    async def test_by_job(self) -> None:
        diary = Diary()
        cost = cost_by_name({0: 3, 1: 2, 2: 3, 3: 0, 4: 4})
        await finish(Throttler(diary.jobs(5), limiter="5/10s", cost=cost))
        assert diary.when("start") == [0, 0, 10, 10, 20]
        assert diary.starts == [0, 1, 2, 3, 4]

    async def test_it_is_asked_once_for_each_job(self) -> None:
        diary = Diary()
        asked: list[object] = []

        def cost(job: object) -> int:
            asked.append(job)
            return 1

        errors = [OSError(), ThrottleException(retry_after=1)]
        jobs = [diary.job("a", errors=errors), diary.job("b")]
        await finish(
            Throttler(jobs, limiter="1/10s", cost=cost, attempts=Attempts(retry_on=OSError))
        )
        assert sorted(asked, key=repr) == sorted(jobs, key=repr)

    async def test_of_a_replacement(self) -> None:
        diary = Diary()
        instead = diary.job("instead")
        job = diary.job("a", errors=[ThrottleException(instead, retry_after=1)])
        cost = cost_by_name({"a": 1, "instead": 5})
        await finish(Throttler([job, diary.job("b")], limiter="5/10s", concurrency=1, cost=cost))
        assert diary.starts == ["a", "instead", "b"]
        assert diary.when("start") == [0, 10, 20]

    async def test_a_job_can_correct_it(self) -> None:
        diary = Diary()

        async def job() -> None:
            diary.note("start", "a")
            permit = current_permit()
            assert permit is not None
            permit.settle(1)

        await finish(Throttler([job, *diary.jobs(2)], limiter="5/10s", cost=4, concurrency=1))
        assert diary.when("start") == [0, 0, 10]

    async def test_a_permit_for_another_cost_is_given_back(self) -> None:
        diary = Diary()
        limiter = RateLimiter("5/10s")
        cost = cost_by_name({0: 5, 1: 1, "small": 2, "large": 5})
        throttler = Throttler(diary.jobs(2), limiter=limiter, cost=cost)
        limiter.acquire_nowait(5)
        async with running(throttler):
            await anyio.sleep(5)
            throttler.add(diary.job("small"), front=True)

        assert diary.starts == ["small", 0, 1]
        # What the large one would have cost was not kept.
        assert diary.when("start") == [10, 20, 30]

    async def test_a_permit_for_a_smaller_cost_does_not_let_a_larger_job_pass(self) -> None:
        diary = Diary()
        limiter = RateLimiter("5/10s")
        cost = cost_by_name({0: 1, "large": 5})
        throttler = Throttler(diary.jobs(1), limiter=limiter, cost=cost)
        limiter.acquire_nowait(4)
        await anyio.sleep(5)
        limiter.acquire_nowait(1)
        async with running(throttler):
            throttler.add(diary.job("large"), front=True)

        assert diary.starts == ["large", 0]
        assert diary.when("start") == [15, 25]

    async def test_the_slot_is_kept_meanwhile_and_none_is_lost(self) -> None:
        diary = Diary()
        limiter = RateLimiter("5/10s", concurrency=2)
        slots = anyio.CapacityLimiter(2)
        cost = cost_by_name({0: 5, 1: 1, "small": 2})
        throttler = Throttler(diary.jobs(2), limiter=limiter, concurrency=slots, cost=cost)
        async with limiter.permit(5), running(throttler):
            await anyio.sleep(5)
            throttler.add(diary.job("small"), front=True)

        assert diary.starts == ["small", 0, 1]
        assert limiter.statistics().borrowed_tokens == 0
        assert slots.borrowed_tokens == 0

    async def test_equal_costs_need_no_other_permit(self) -> None:
        diary = Diary()
        cost = cost_by_name({0: 5, "as large": 5})
        limiter = RateLimiter("5/10s")
        throttler = Throttler(diary.jobs(1), limiter=limiter, cost=cost)
        limiter.acquire_nowait(5)
        async with running(throttler):
            throttler.add(diary.job("as large"), front=True)

        assert diary.starts == ["as large", 0]
        assert diary.when("start") == [10, 20]


class TestPriority:
    """That of a run's turns in a limiter that others use too."""

    async def interrupted(self, work: Callable[[RateLimiter], Any]) -> list[float]:
        """Let others call while work waits for its turns; return when these had theirs."""
        limiter = RateLimiter("1/10s")
        found: list[float] = []

        async def call() -> None:
            await limiter.run(anyio.sleep, 0)
            found.append(anyio.current_time())

        with anyio.fail_after(1000):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(work, limiter)
                await wait_idle()
                await anyio.sleep(5)
                for _ in range(2):
                    task_group.start_soon(call)

        assert anyio.current_time() == 40
        return found

    @pytest.mark.parametrize(("priority", "when"), [(1, [10, 20]), (0, [20, 30]), (-1, [30, 40])])
    async def test_of_a_throttler(self, priority: int, when: list[float]) -> None:
        diary = Diary()

        async def work(limiter: RateLimiter) -> None:
            await finish(Throttler(diary.jobs(3), limiter=limiter, priority=priority))

        assert await self.interrupted(work) == when
        assert diary.starts == [0, 1, 2]

    @pytest.mark.parametrize("function", [amap, for_each])
    async def test_of_its_kin(self, function: Any) -> None:
        async def work(limiter: RateLimiter) -> None:
            await function(call, range(3), limiter=limiter, priority=1)

        assert await self.interrupted(work) == [10, 20]

    async def test_of_outcomes_and_the_first(self) -> None:
        async def work(limiter: RateLimiter) -> None:
            options: dict[str, Any] = {"limiter": limiter, "priority": 1}
            async with amap_outcomes(call, range(2), **options) as outcomes:
                assert [outcome.item async for outcome in outcomes] == [0, 1]

            assert (await first_of(call, [2], **options)).item == 2

        assert await self.interrupted(work) == [10, 20]

    async def test_of_a_price_by_job_and_by_job_again(self) -> None:
        diary = Diary()

        async def work(limiter: RateLimiter) -> None:
            throttled = diary.job("a", errors=[ThrottleException(retry_after=0)])
            jobs = [throttled, diary.job("b")]
            await Throttler(jobs, limiter=limiter, priority=1, cost=lambda job: 1).run()

        assert await self.interrupted(work) == [10, 20]
        assert diary.starts == ["a", "a", "b"]

    async def test_without_a_limiter_of_others_it_changes_nothing(self) -> None:
        assert await amap(call, range(3), priority=-5) == [0, 1, 2]


class TestCostFunctionsThatInterfere:
    async def test_by_a_job_before_all_others(self) -> None:
        diary = Diary()
        limiter = RateLimiter("10/h")
        jobs = [diary.job("z"), diary.job("a")]
        dear = diary.job("dear")
        added: list[object] = []

        def cost(job: object) -> int:
            if job is jobs[1] and not added:
                added.append(job)
                throttler.add(dear, front=True)

            return 5 if job is dear else 1

        throttler = Throttler(jobs, limiter=limiter, cost=cost)
        await finish(throttler)
        assert diary.starts == ["z", "dear", "a"]
        assert limiter.peek().remaining == 3

    @pytest.mark.parametrize("others", [0, 1])
    async def test_by_a_job_before_the_one_that_it_refuses(self, others: int) -> None:
        diary = Diary()
        jobs = diary.jobs(2 + others)
        front = diary.job("front")
        asked: list[object] = []

        def cost(job: object) -> int:
            asked.append(job)
            if job is jobs[1]:
                if asked.count(job) == 1:
                    throttler.add(front, front=True)

                raise KeyError(asked.count(job))

            return 1

        throttler = Throttler(jobs, limiter="10/h", cost=cost)
        await finish(throttler)
        assert diary.starts == [0, "front", *range(2, 2 + others)]
        [(failed, error)] = failures(throttler)
        assert failed is jobs[1]
        assert repr(error) == "KeyError(2)"
        assert throttler.remaining() == []

    async def test_by_a_stop(self) -> None:
        diary = Diary()
        jobs = diary.jobs(3)

        def cost(job: object) -> int:
            if job is jobs[1]:
                throttler.stop()

            return 1

        throttler = Throttler(jobs, limiter="10/h", cost=cost)
        await finish(throttler)
        assert diary.starts == [0]
        assert throttler.remaining() == jobs[1:]

    async def test_by_a_stop_when_a_turn_has_come(self) -> None:
        diary = Diary()
        limiter = RateLimiter("1/10s")
        jobs = diary.jobs(1)
        last = diary.job("last")

        def cost(job: object) -> int:
            if job is last:
                throttler.stop()

            return 1

        throttler = Throttler(jobs, limiter=limiter, cost=cost)
        limiter.acquire_nowait()
        async with running(throttler):
            throttler.add(last, front=True)

        assert diary.starts == []
        assert throttler.remaining() == [last, *jobs]
        assert limiter.peek().allowed

    @pytest.mark.parametrize("cost", [1, lambda _: 1], ids=["fixed", "function"])
    async def test_nor_an_observer_that_stops_when_a_turn_is_granted(self, cost: Any) -> None:
        diary = Diary()
        granted = 0

        def observe(event: Event) -> None:
            nonlocal granted
            if isinstance(event, Granted):
                granted += 1
                if granted == 2:
                    throttler.stop()
                    limiter.pause(50)

        limiter = RateLimiter("10/h", concurrency=5, observer=observe)
        throttler = Throttler(diary.jobs(3), limiter=limiter, cost=cost)
        await finish(throttler)
        # Nobody waits for another turn.
        assert anyio.current_time() == 0
        assert diary.starts == [0]
        assert limiter.peek().remaining == 9
        assert limiter.statistics().borrowed_tokens == 0


class TestSlotsOfTheLimiterItself:
    @pytest.mark.parametrize("function", ["throttler", "amap"])
    async def test_are_refused_as_concurrency(self, function: str) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        told = r"concurrency=.* is that of the limiter too"
        if function == "throttler":
            with pytest.raises(ValueError, match=told):
                Throttler([], limiter=limiter, concurrency=capacity)
        else:
            with pytest.raises(ValueError, match=told):
                await amap(anyio.sleep, [], limiter=limiter, concurrency=capacity)

        Throttler([], limiter=limiter, concurrency=anyio.CapacityLimiter(1))


class TestBadCosts:
    @pytest.mark.parametrize("cost", [-1, 1.5, True, "1", None, [1]])
    @pytest.mark.parametrize("limiter", [None, "5/s"])
    def test_wrong_ones_at_once(self, cost: Any, limiter: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=r"cost"):
            Throttler([], limiter=limiter, cost=cost)

    def test_too_high_at_once(self) -> None:
        with pytest.raises(CostTooHigh):
            Throttler([], limiter="5/s", cost=6)

        with pytest.raises(CostTooHigh):
            Throttler([], per_time_window=5, cost=6)

    def test_a_unit_that_is_missing_at_once(self) -> None:
        limiter = RateLimiter("100/s", "1000 tokens/min")
        with pytest.raises(ValueError, match="tokens"):
            Throttler([], limiter=limiter)

        with pytest.raises(ValueError, match="bytes"):
            Throttler([], limiter=limiter, cost={"tokens": 1, "bytes": 1})

    @pytest.mark.parametrize(
        ("cost", "expected"),
        [(6, CostTooHigh), (-1, ValueError), ("1", TypeError), (KeyError("cost"), KeyError)],
        ids=str,
    )
    async def test_a_job_s_alone_is_its_error(self, cost: Any, expected: type[Exception]) -> None:
        diary = Diary()
        limiter = RateLimiter("5/s", concurrency=3)
        events: list[Event] = []
        throttler = Throttler(
            diary.jobs(3),
            diary.consumer(),
            limiter=limiter,
            cost=cost_by_name({1: cost}),
            observer=events.append,
        )
        await finish(throttler)
        outcome = throttler.exceptions.receive_nowait()
        assert isinstance(outcome.error, expected)
        assert (outcome.index, outcome.attempts) == (1, 0)
        assert diary.starts == diary.consumed == [0, 2]
        assert [event.index for event in events if isinstance(event, Failed)] == [1]
        assert limiter.statistics().borrowed_tokens == 0
        assert throttler.statistics().running == 0

    async def test_a_job_that_never_started_is_not_counted_as_started(self) -> None:
        diary = Diary()
        cost = cost_by_name({1: 6})
        throttler = Throttler(diary.jobs(3), limiter="5/s", cost=cost)
        statistics = await finish(throttler)
        failures(throttler)
        assert (statistics.started, statistics.done, statistics.failed) == (2, 2, 1)

    async def test_of_a_job_that_comes_to_the_front_meanwhile(self) -> None:
        diary = Diary()
        limiter = RateLimiter("1/10s", concurrency=2)
        error = KeyError("cost")
        cost = cost_by_name({"bad": error})
        throttler = Throttler(diary.jobs(2), diary.consumer(), limiter=limiter, cost=cost)
        bad = diary.job("bad")
        async with running(throttler):
            await anyio.sleep(5)
            throttler.add(bad, front=True)

        assert failures(throttler) == [(bad, error)]
        assert diary.consumed == [0, 1]
        assert diary.when("start") == [0, 10]
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.parametrize("by_job", [False, True])
    async def test_one_that_does_not_fit_any_more_costs_no_slot(self, by_job: bool) -> None:
        diary = Diary()
        limiter = RateLimiter("4/10s")
        slots = anyio.CapacityLimiter(3)
        throttler = Throttler(
            diary.jobs(3),
            diary.consumer(),
            limiter=limiter,
            concurrency=slots,
            cost=(lambda _: 4) if by_job else 4,
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(5)
            throttler.stop()

        limiter.reconfigure("3/10s")
        with suppress(CostTooHigh):
            await finish(throttler)

        assert diary.starts == [0]
        assert slots.borrowed_tokens == 0
        assert len(failures(throttler)) + len(throttler.remaining()) == 2

    async def test_others_get_to_run_while_one_after_the_other_fails(self) -> None:
        diary = Diary()

        def cost(job: object) -> int:
            raise KeyError

        throttler = Throttler(diary.jobs(2000), limiter="5/s", cost=cost)
        turns = 0
        async with anyio.create_task_group() as task_group:

            async def others() -> None:
                nonlocal turns
                while True:
                    await anyio.lowlevel.checkpoint()
                    turns += 1

            task_group.start_soon(others)
            await finish(throttler)
            task_group.cancel_scope.cancel()

        assert len(failures(throttler)) == 2000
        assert turns > 20


class TestAddToTheFront:
    async def test_before_all_others_and_the_latest_first(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2), diary.consumer(), concurrency=1)
        throttler.add(diary.job("added"))
        throttler.add(diary.job("front"), front=True)
        throttler.add(diary.job("frontmost"), front=True)
        throttler.add(diary.job("added later"))
        await finish(throttler)
        assert diary.starts == ["frontmost", "front", "added", "added later", 0, 1]

    async def test_remaining_has_them_in_that_order(self) -> None:
        diary = Diary()
        source = diary.jobs(2)
        front, frontmost, added = (diary.job(name) for name in ("front", "frontmost", "added"))
        throttler = Throttler(source)
        throttler.add(front, front=True)
        throttler.add(added)
        throttler.add(frontmost, front=True)
        assert throttler.remaining() == [frontmost, front, added, *source]
        await finish(throttler)

    async def test_before_those_that_were_put_back(self) -> None:
        diary = Diary()
        jobs = [diary.job("throttled", errors=[ThrottleException(retry_after=10)]), diary.job(1)]
        throttler = Throttler(jobs, concurrency=1)
        async with running(throttler):
            await anyio.sleep(5)
            throttler.add(diary.job("added"))
            throttler.add(diary.job("front"), front=True)

        assert diary.starts == ["throttled", "front", "throttled", "added", 1]
        assert diary.when("start") == [0, 10, 10, 10, 10]

    async def test_throttled_again_it_comes_back_to_its_place(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2), concurrency=1)
        throttler.add(diary.job("second", errors=[ThrottleException(retry_after=1)]), front=True)
        errors = [ThrottleException(retry_after=1), ThrottleException(retry_after=1)]
        throttler.add(diary.job("first", errors=errors), front=True)
        await finish(throttler)
        assert diary.starts == ["first"] * 3 + ["second"] * 2 + [0, 1]

    async def test_throttled_together_they_come_back_in_their_order(self) -> None:
        diary = Diary()
        throttle = ThrottleException(retry_after=5)
        jobs = [diary.job(n, seconds=1, errors=[throttle]) for n in range(2)]
        throttler = Throttler(jobs, concurrency=4)
        throttler.add(diary.job("front", seconds=1, errors=[throttle]), front=True)
        throttler.add(diary.job("frontmost", seconds=1, errors=[throttle]), front=True)
        await finish(throttler)
        assert diary.starts == ["frontmost", "front", 0, 1] * 2

    async def test_retried_and_cut_off_it_comes_back_to_its_place(self) -> None:
        diary = Diary()
        source = diary.jobs(2, seconds=9)
        front = diary.job("front", seconds=1, errors=[OSError()])
        throttler = Throttler(source, concurrency=3, attempts=Attempts(retry_on=lambda _: 20))
        throttler.add(front, front=True)
        with anyio.move_on_after(1.5):
            await throttler.run()

        assert throttler.remaining() == [front, *source]
        await finish(throttler)
        assert diary.starts == ["front", 0, 1] * 2

    async def test_into_an_idle_service(self) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Job]()
        with receive:
            throttler = Throttler(receive, diary.consumer())
            async with running(throttler):
                with send:
                    throttler.add(diary.job("front"), front=True)
                    await wait_idle()
                    assert diary.consumed == ["front"]

    async def test_from_inside_a_job(self) -> None:
        diary = Diary()

        async def add() -> object:
            throttler.add(diary.job("front"), front=True)
            return "adder"

        throttler = Throttler([add, *diary.jobs(2)], diary.consumer(), concurrency=1)
        await finish(throttler)
        assert diary.consumed == ["adder", "front", 0, 1]

    async def test_its_index_is_of_its_own(self) -> None:
        diary = Diary()
        throttler = Throttler([diary.job(n, errors=[KeyError()]) for n in range(2)])
        throttler.add(diary.job("front", errors=[KeyError()]), front=True)
        await finish(throttler)
        indexes = [throttler.exceptions.receive_nowait().index for _ in range(3)]
        assert sorted(indexes) == [0, 1, 2]

    def test_what_is_no_job(self) -> None:
        with pytest.raises(TypeError, match=r"^job must be an async function"):
            Throttler[JobOf[object], object]([]).add(5, front=True)  # type: ignore[arg-type]


async def job() -> None:
    pass


async def call(item: object) -> object:
    return item


class TestWrongValues:
    """Each is named at once, by the throttler and by all its kin."""

    OPTIONS = pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("concurrency", 0, ValueError),
            ("concurrency", -1, ValueError),
            ("concurrency", 1.5, TypeError),
            ("concurrency", True, TypeError),
            ("concurrency", inf, TypeError),
            ("concurrency", "5", TypeError),
            ("attempts", 3, TypeError),
            ("attempts", OSError, TypeError),
            ("attempts", Attempts, TypeError),
            ("cost", -1, ValueError),
            ("cost", 1.5, TypeError),
            ("cost", None, TypeError),
            ("priority", 1.0, TypeError),
            ("priority", True, TypeError),
            ("priority", None, TypeError),
            ("observer", 5, TypeError),
        ],
        ids=str,
    )

    @OPTIONS
    @pytest.mark.parametrize("limiter", [None, "5/s"])
    def test_of_a_throttler(self, name: str, value: Any, error: Any, limiter: Any) -> None:
        options: dict[str, Any] = {name: value}
        with pytest.raises(error, match=name) as caught:
            Throttler([job], limiter=limiter, **options)

        assert repr(value) in str(caught.value)

    @OPTIONS
    def test_of_amap_outcomes(self, name: str, value: Any, error: Any) -> None:
        options: dict[str, Any] = {name: value}
        with pytest.raises(error, match=name) as caught:
            amap_outcomes(call, [1], **options)

        assert repr(value) in str(caught.value)

    @OPTIONS
    @pytest.mark.parametrize("function", [amap, for_each, first_of])
    async def test_of_the_others(self, function: Any, name: str, value: Any, error: Any) -> None:
        options: dict[str, Any] = {name: value}
        with pytest.raises(error, match=name):
            await function(call, [1], **options)

    def test_front_is_by_keyword(self) -> None:
        with pytest.raises(TypeError):
            Throttler([job]).add(job, True)  # type: ignore[call-arg]
