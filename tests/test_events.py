"""What an observer of a limiter is told, when, and what becomes of an observer that fails."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import pickle
import sys
from functools import partial
from typing import Any, get_args

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anythrottle
from anythrottle import (
    Abandoned,
    CostTooHigh,
    Decision,
    Ended,
    Failed,
    Finished,
    Granted,
    LeaseExpired,
    LimitExceeded,
    Paused,
    RateLimiter,
    RateLimiterStatistics,
    Reconfigured,
    Refused,
    Resumed,
    Retried,
    Settled,
    Started,
    StoreBack,
    StoreLost,
    Throttled,
    ThrottleException,
    Tightened,
    WindowTokenBucket,
    observe_all,
)
from anythrottle.abc import Event
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.limiters.tools import BLOWS, Blow, Victim, sweep_with, tasks
from tests.properties import examples

RECORDS: list[type] = [
    *(Granted, Refused, Abandoned, Paused, Resumed),
    *(Settled, Tightened, Reconfigured, Ended),
    *(StoreLost, StoreBack, LeaseExpired),
    *(Throttled, Started, Retried, Finished, Failed),
]


async def answer() -> int:
    return 42


class Witness:
    """
    An observer that notes what it is told, and how the limiter was just then.

    Unless it listens to all, corrections and ends are nothing to it.
    """

    def __init__(self, *, to_all: bool = False) -> None:
        self.to_all = to_all
        self.limiter: RateLimiter | None = None
        self.events: list[Event] = []
        self.instants: list[float] = []
        self.statistics: list[RateLimiterStatistics] = []
        self.remaining: list[float | None] = []

    def __call__(self, event: Event) -> None:
        if not self.to_all and isinstance(event, (Ended, Settled, Tightened, Reconfigured)):
            return

        self.events.append(event)
        if self.limiter is not None:
            self.instants.append(anyio.current_time())
            self.statistics.append(self.limiter.statistics())
            self.remaining.append(self.limiter.peek().remaining)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def watch(self, *policies: Any, **options: Any) -> RateLimiter:
        """Make a limiter to observe."""
        self.limiter = RateLimiter(*policies, observer=self, **options)
        return self.limiter


@pytest.fixture
def witness() -> Witness:
    return Witness()


class TestRecords:
    def test_these_are_all(self) -> None:
        assert set(get_args(Event)) == set(RECORDS)

    @pytest.mark.parametrize("record", RECORDS)
    def test_are_frozen_values_with_public_names(self, record: Any) -> None:
        names = [field.name for field in dataclasses.fields(record)]
        event = record(*range(len(names)))
        assert event == record(*range(len(names)))
        assert hash(event) == hash(record(*range(len(names))))
        assert not hasattr(event, "__dict__")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, names[0], "changed")

        assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301
        assert copy.copy(event) == event
        assert repr(event).startswith(f"{record.__name__}(")
        assert getattr(anythrottle, record.__name__) is record

    @pytest.mark.parametrize("record", RECORDS)
    def test_document_each_field(self, record: Any) -> None:
        for field in dataclasses.fields(record):
            assert f":ivar {field.name}:" in record.__doc__


@pytest.mark.timing
class TestCorrections:
    async def test_of_a_charge(self) -> None:
        witness = Witness(to_all=True)
        limiter = RateLimiter("9/10s", "100 tokens/min", name="llm", observer=witness)
        async with limiter.permit({"tokens": 30}) as permit:
            witness.events.clear()
            permit.settle({"tokens": 40})
            permit.settle({"requests": 2})
            permit.settle({"tokens": 40})

        permit.refund()
        permit.refund()
        assert witness.events == [
            Settled("llm", {"tokens": 30, "calls": 1}, {"tokens": 40, "calls": 1}),
            Settled("llm", {"tokens": 40, "calls": 1}, {"tokens": 40, "calls": 2}),
            Settled("llm", {"tokens": 40, "calls": 2}, {"tokens": 0, "calls": 0}),
        ]
        assert [state.remaining for state in limiter.quotas()] == [9, 100]

    async def test_by_a_server_s_figures(self) -> None:
        witness = Witness(to_all=True)
        limiter = witness.watch("9/10s")
        limiter.tighten(remaining=3, reset_after=5, unit="requests")
        limiter.tighten(remaining=2)
        assert witness.events == [Tightened(None, "calls", 3, 5), Tightened(None, "calls", 2, None)]
        assert witness.remaining == [3, 2]

    async def test_of_the_limiter(self) -> None:
        witness = Witness(to_all=True)
        limiter = witness.watch("9/10s")
        limiter.reconfigure("5/10s", concurrency=3)
        assert witness.events == [Reconfigured(None, (WindowTokenBucket(5, 10),))]
        assert witness.remaining == [5]
        assert witness.statistics[0].total_tokens == 3


@pytest.mark.timing
class TestEnded:
    @pytest.mark.parametrize(
        "options", [{"concurrency": 1}, {"measure": "end"}, {"concurrency": 1, "measure": "end"}]
    )
    async def test_how_long_it_has_held_what_it_held(self, options: Any) -> None:
        witness = Witness(to_all=True)
        limiter = witness.watch("9/10s", name="api", **options)
        for way in (limiter, limiter.permit(2)):
            async with way:
                await anyio.sleep(3)

        await limiter.run(anyio.sleep, 4)
        ends = [event for event in witness.events if isinstance(event, Ended)]
        assert ends == [Ended("api", 3), Ended("api", 3), Ended("api", 4)]
        assert witness.statistics[-1].borrowed_tokens == 0

    async def test_not_of_what_holds_nothing(self) -> None:
        witness = Witness(to_all=True)
        limiter = witness.watch("1/10s")
        async with tasks() as task_group, limiter:
            task_group.start_soon(limiter.acquire)
            await wait_idle()

        assert witness.kinds == ["Granted", "Granted"]

    async def test_of_what_is_kept_at_its_end(self) -> None:
        witness = Witness(to_all=True)
        limiter = witness.watch(concurrency=1)

        async def keep() -> Any:
            await anyio.sleep(1)
            anythrottle.current_permit().keep()
            return anythrottle.current_permit()

        permit = await limiter.run(keep)
        await anyio.sleep(5)
        assert witness.kinds == ["Granted"]
        permit.end()
        permit.end()
        assert witness.events[1:] == [Ended(None, 6)]

    async def test_not_of_a_call_that_has_not_begun(self) -> None:
        witness = Witness(to_all=True)
        limiter = witness.watch(concurrency=1)
        async with limiter:
            with anyio.move_on_after(1):
                await limiter.run(answer)

        assert witness.kinds == ["Granted", "Abandoned", "Ended"]


class TestObserverParameter:
    @pytest.mark.parametrize("observer", [5, "print", [print]])
    def test_what_cannot_be_called(self, observer: Any) -> None:
        with pytest.raises(TypeError) as caught:
            RateLimiter(observer=observer)

        assert str(caught.value) == f"observer must be a function of one argument, not {observer!r}"

    def test_what_can(self) -> None:
        RateLimiter(observer=None)
        RateLimiter(observer=print)
        RateLimiter(observer=Witness())
        RateLimiter(observer=lambda event: None)


@pytest.mark.timing
class TestGranted:
    async def test_acquire(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", name="api")
        await limiter.acquire(4)
        await limiter.acquire(3)
        assert witness.events == [Granted("api", 4, 0.0), Granted("api", 3, 10.0)]
        assert witness.remaining == [1, 2]
        assert [at - witness.instants[0] for at in witness.instants] == [0, 10]

    async def test_acquire_without_a_checkpoint(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", fast_acquire=True)
        await limiter.acquire()
        assert witness.events == [Granted(None, 1, 0.0)]

    async def test_acquire_nowait(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s")
        limiter.acquire_nowait(2)
        assert witness.events == [Granted(None, 2, 0.0)]
        assert witness.remaining == [3]

    def test_acquire_nowait_outside_of_an_event_loop(self) -> None:
        events: list[Event] = []
        RateLimiter("5/10s", observer=events.append).acquire_nowait()
        assert events == [Granted(None, 1, 0.0)]

    async def test_permit(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", "100 tokens/h", concurrency=2)
        witness.limiter = None
        async with limiter.permit({"tokens": 30}) as permit:
            assert witness.events == [Granted(None, {"tokens": 30}, 0.0)]
            # It tells of the cost as it was said, whatever it becomes.
            permit.settle({"tokens": 7})
            assert witness.events == [Granted(None, {"tokens": 30}, 0.0)]

        assert len(witness.events) == 1

    async def test_async_with(self, witness: Witness) -> None:
        limiter = witness.watch("1/10s", concurrency=3)
        async with limiter, limiter:
            assert witness.events == [Granted(None, 1, 0.0), Granted(None, 1, 10.0)]
            assert [seen.borrowed_tokens for seen in witness.statistics] == [1, 2]

        assert len(witness.events) == 2

    async def test_run_and_wrap(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", concurrency=1)
        await limiter.run(answer, cost=5)
        await limiter.wrap(answer)()
        assert witness.events == [Granted(None, 5, 0.0), Granted(None, 1, 10.0)]
        assert [seen.borrowed_tokens for seen in witness.statistics] == [1, 1]

    async def test_waited_counts_from_the_arrival(self, witness: Witness) -> None:
        limiter = witness.watch("1/10s")
        async with tasks() as task_group:
            for _ in range(3):
                await anyio.sleep(1)
                task_group.start_soon(limiter.acquire)

        assert witness.events == [Granted(None, 1, waited) for waited in (0.0, 9.0, 18.0)]
        assert [seen.tasks_waiting for seen in witness.statistics] == [0, 1, 0]

    async def test_a_pause_before_it_has_resumed_counts_too(self, witness: Witness) -> None:
        limiter = witness.watch()
        async with tasks() as task_group:
            task_group.start_soon(limiter.acquire)
            limiter.pause(4)

        # On Trio, the pause may begin before it comes.
        assert Granted(None, 1, 4.0) in witness.events
        assert sorted(witness.kinds) == ["Granted", "Paused"]

    async def test_in_the_order_of_the_grants(self, witness: Witness) -> None:
        limiter = witness.watch("10/h", concurrency=1)
        async with tasks() as task_group, limiter:
            for cost, priority in [(1, 5), (2, -5), (3, 0)]:
                task_group.start_soon(hold, limiter, cost, priority)
                await wait_idle()

        costs = [event.cost for event in witness.events if isinstance(event, Granted)]
        assert costs == [1, 2, 3, 1]


async def hold(limiter: RateLimiter, cost: int, priority: int) -> None:
    async with limiter.permit(cost, priority=priority):
        await anyio.sleep(1)


def rate_decision(retry_after: float, remaining: int) -> Decision:
    policy = WindowTokenBucket(5, 10.0)
    return Decision(False, "rate", retry_after, remaining, retry_after, 5, policy)


@pytest.mark.timing
class TestRefused:
    async def test_acquire_nowait(self, witness: Witness) -> None:
        limiter = witness.watch(WindowTokenBucket(5, 10.0), name="api")
        limiter.acquire_nowait(3)
        await anyio.sleep(4)
        with pytest.raises(LimitExceeded) as caught:
            limiter.acquire_nowait(3)

        assert witness.events[1:] == [Refused("api", 3, rate_decision(6.0, 2))]
        assert caught.value.decision == rate_decision(6.0, 2)
        assert witness.remaining == [2, 2]

    @pytest.mark.parametrize("max_wait", [0, 5.5])
    async def test_max_wait_at_once(self, witness: Witness, max_wait: float) -> None:
        limiter = witness.watch(WindowTokenBucket(5, 10.0))
        await limiter.acquire(5)
        await anyio.sleep(4)
        for call in (limiter.acquire, partial(enter, limiter)):
            with pytest.raises(LimitExceeded):
                await call(2, max_wait=max_wait)

        assert witness.events[1:] == [Refused(None, 2, rate_decision(6.0, 0))] * 2
        assert [at - witness.instants[0] for at in witness.instants] == [0, 4, 4]
        assert {seen.tasks_waiting for seen in witness.statistics} == {0}

    async def test_max_wait_later(self, witness: Witness) -> None:
        limiter = witness.watch("10/h", concurrency=1)
        async with limiter:
            with pytest.raises(LimitExceeded) as caught:
                async with limiter.permit(2, max_wait=7):
                    pass

        refused = witness.events[1]
        assert refused == Refused(None, 2, caught.value.decision)
        assert caught.value.decision.reason == "concurrency"
        assert witness.kinds == ["Granted", "Refused"]
        assert witness.instants[1] - witness.instants[0] == 7
        # It has left the line by then, and was not charged.
        assert witness.statistics[1] == RateLimiterStatistics(0, 1, 1, 0.0)
        assert witness.remaining[1] == 9

    async def test_a_deadline(self, witness: Witness) -> None:
        limiter = witness.watch(WindowTokenBucket(5, 10.0))
        await limiter.acquire(5)
        with anyio.fail_after(9), pytest.raises(LimitExceeded):
            await limiter.acquire(max_wait="deadline")

        assert witness.events[1:] == [Refused(None, 1, rate_decision(10.0, 0))]

    async def test_a_line_that_is_full(self, witness: Witness) -> None:
        limiter = witness.watch("1/10s", max_waiting=1)
        await limiter.acquire()
        async with tasks() as task_group:
            task_group.start_soon(limiter.acquire)
            await wait_idle()
            with pytest.raises(LimitExceeded) as caught:
                await limiter.acquire()

            assert witness.events[1:] == [Refused(None, 1, caught.value.decision)]
            assert caught.value.decision.reason == "line"
            assert caught.value.retry_after == 20
            assert witness.statistics[1].tasks_waiting == 1

        assert witness.kinds == ["Granted", "Refused", "Granted"]

    async def test_a_pause(self, witness: Witness) -> None:
        limiter = witness.watch()
        limiter.pause(3)
        with pytest.raises(LimitExceeded):
            limiter.acquire_nowait()

        refused = witness.events[1]
        assert isinstance(refused, Refused)
        assert (refused.decision.reason, refused.decision.retry_after) == ("pause", 3)

    async def test_wrong_calls_are_none(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", concurrency=1)
        with pytest.raises(CostTooHigh):
            async with limiter.permit(6):
                pass

        with pytest.raises(RuntimeError):
            await limiter.acquire()

        with pytest.raises(RuntimeError, match="a slot could never come"):
            await limiter.run(limiter.run, answer)

        assert witness.kinds == ["Granted"]


async def enter(limiter: RateLimiter, cost: int, max_wait: float) -> None:
    async with limiter.permit(cost, max_wait=max_wait):
        pass


@pytest.mark.timing
class TestAbandoned:
    async def test_cancelled_in_line(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", name="api")
        await limiter.acquire(5)
        with anyio.move_on_after(4):
            await limiter.acquire(3)

        assert witness.events == [Granted("api", 5, 0.0), Abandoned("api", 3, 4.0)]
        # It has left the line by then.
        assert witness.statistics[1].tasks_waiting == 0

    async def test_cancelled_in_line_behind_others(self, witness: Witness) -> None:
        limiter = witness.watch("1/10s")
        async with tasks() as task_group:
            await limiter.acquire()
            task_group.start_soon(limiter.acquire)
            await wait_idle()
            with anyio.move_on_after(4):
                await limiter.acquire()

            assert witness.events[1:] == [Abandoned(None, 1, 4.0)]
            assert witness.statistics[1].tasks_waiting == 1

        assert witness.kinds == ["Granted", "Abandoned", "Granted"]

    async def test_cancelled_after_the_grant(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", concurrency=1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            # It is granted, and cancelled at the checkpoint that it passes.
            async with limiter.permit(3):
                pytest.fail("not cancelled")

        assert witness.events == [Abandoned(None, 3, 0.0)]
        # What it was granted has been given back by then.
        assert witness.remaining == [5]
        assert witness.statistics == [RateLimiterStatistics(0, 0, 1, 0.0)]

    async def test_a_call_of_run_that_waits_to_go_again(self, witness: Witness) -> None:
        limiter = witness.watch(concurrency=1)

        async def job() -> None:
            raise ThrottleException(retry_after=9)

        with anyio.move_on_after(4):
            await limiter.run(job)

        assert witness.kinds == ["Granted", "Paused", "Throttled", "Abandoned"]
        assert witness.events[-1] == Abandoned(None, 1, 4.0)

    async def test_a_call_that_is_cut_off_while_it_runs_is_none(self, witness: Witness) -> None:
        limiter = witness.watch(concurrency=1)
        with anyio.move_on_after(4):
            await limiter.run(anyio.sleep, 10)

        assert witness.kinds == ["Granted"]

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("before", [0, 1, 2], ids=["free", "head", "second"])
    def test_wherever_it_is_cancelled_it_is_told_of_once(self, blow: Blow, before: int) -> None:
        outcomes: set[str] = set()

        async def scenario(victim: Victim) -> None:
            witness = Witness()
            limiter = witness.watch("20/h", concurrency=1)
            begun = anyio.current_time()
            ended: list[float] = []

            async def call(cost: int) -> None:
                try:
                    async with limiter.permit(cost):
                        ended.append(math.inf)
                        await anyio.sleep(1)
                except anyio.get_cancelled_exc_class():
                    ended.append(anyio.current_time() - begun)
                    raise

            async with tasks() as task_group:
                for _ in range(before):
                    task_group.start_soon(hold, limiter, 1, 0)
                    await wait_idle()

                task_group.start_soon(victim.run, call(7))
                await wait_idle()
                task_group.start_soon(hold, limiter, 2, 0)

            told = [event for event in witness.events if getattr(event, "cost", 0) == 7]
            if not ended:
                # Cancelled before its first step.
                assert told == []
            elif ended[0] == math.inf:
                assert told == [Granted(None, 7, float(before))]
            else:
                assert told == [Abandoned(None, 7, ended[0])]

            outcomes.update(type(event).__name__ for event in told)
            assert witness.events[-1] == Granted(None, 2, witness.instants[-1] - begun)

        assert sweep_with(blow, scenario) >= 2
        # A scope that is cancelled once the task is woken takes effect inside of the call.
        assert outcomes == {"Granted", "Abandoned"} or (blow.when_woken and not blow.native)

    @pytest.mark.promise("G5")
    @pytest.mark.parametrize("blow", BLOWS)
    def test_on_the_short_way_too_and_then_it_has_taken_nothing(self, blow: Blow) -> None:
        outcomes: set[str] = set()

        async def scenario(victim: Victim) -> None:
            witness = Witness()
            limiter = witness.watch("20/h")
            begun: list[int] = []

            async def call() -> None:
                await limiter.acquire(7)
                begun.append(7)
                await anyio.sleep(1)

            async with tasks() as task_group:
                task_group.start_soon(victim.run, call())

            told = {type(event).__name__ for event in witness.events}
            assert len(witness.events) == len(told)
            if begun:
                assert told == {"Granted"}
            else:
                # Cancelled before its first step, it was none.
                assert told <= {"Abandoned"}

            assert limiter.peek().remaining == (13 if begun else 20)
            outcomes.update(told)

        assert sweep_with(blow, scenario) >= 2
        assert outcomes == {"Granted", "Abandoned"} or (blow.when_woken and not blow.native)


@pytest.mark.timing
class TestPausedAndResumed:
    async def test_a_pause(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s", name="api")
        limiter.pause(3)
        assert witness.events == [Paused("api", 3.0)]
        assert witness.statistics[0].paused_for == 3

    async def test_a_pause_of_the_limiter_s_own_length(self, witness: Witness) -> None:
        witness.watch("5/10s", "100/h").pause()
        assert witness.events == [Paused(None, 10.0)]

    async def test_tells_of_the_end_that_holds(self, witness: Witness) -> None:
        limiter = witness.watch()
        limiter.pause(10)
        await anyio.sleep(4)
        limiter.pause(3)
        limiter.pause(7)
        assert witness.events == [Paused(None, 10.0), Paused(None, 6.0), Paused(None, 7.0)]
        assert [seen.paused_for for seen in witness.statistics] == [10, 6, 7]

    async def test_a_pause_that_is_over_does_not_count(self, witness: Witness) -> None:
        limiter = witness.watch()
        limiter.pause(1)
        await anyio.sleep(4)
        limiter.pause(3)
        assert witness.events == [Paused(None, 1.0), Paused(None, 3.0)]

    async def test_until_it_is_resumed(self, witness: Witness) -> None:
        limiter = witness.watch(name="api")
        limiter.pause(math.inf)
        await anyio.sleep(5)
        limiter.resume()
        assert witness.events == [Paused("api", math.inf), Resumed("api")]
        assert [seen.paused_for for seen in witness.statistics] == [math.inf, 0]

    async def test_nothing_to_resume_is_nothing_to_tell(self, witness: Witness) -> None:
        limiter = witness.watch()
        limiter.resume()
        limiter.pause(1)
        await anyio.sleep(2)
        limiter.resume()
        assert witness.events == [Paused(None, 1.0)]

    async def test_resumed_comes_before_those_that_go_on(self, witness: Witness) -> None:
        limiter = witness.watch()
        limiter.pause(math.inf)
        async with tasks() as task_group:
            task_group.start_soon(limiter.acquire)
            await anyio.sleep(5)
            limiter.resume()

        assert witness.events[1:] == [Resumed(None), Granted(None, 1, 5.0)]

    async def test_a_pause_that_ends_by_itself_is_not_told_of(self, witness: Witness) -> None:
        limiter = witness.watch()
        limiter.pause(2)
        await limiter.acquire()
        assert witness.events == [Paused(None, 2.0), Granted(None, 1, 2.0)]

    async def test_wrong_arguments_are_not_told_of(self, witness: Witness) -> None:
        limiter = witness.watch()
        with pytest.raises(ValueError, match="seconds"):
            limiter.pause(-1)

        assert witness.events == []

    async def test_questions_and_other_controls_are_not_told_of(self, witness: Witness) -> None:
        limiter = witness.watch("5/10s")
        limiter.peek()
        limiter.statistics()
        repr(limiter)
        limiter.penalize(1)
        limiter.tighten(remaining=3)
        limiter.reconfigure("6/10s")
        assert witness.events == []


@pytest.mark.timing
class TestThrottled:
    async def test_each_throttle_of_a_call(self, witness: Witness) -> None:
        limiter = witness.watch("50/10s", concurrency=1, name="api")
        errors: list[BaseException] = [
            ThrottleException(retry_after=3),
            ExceptionGroup("", [ThrottleException(retry_after=4), ThrottleException()]),
        ]
        left = list(errors)

        async def job() -> None:
            await anyio.sleep(1)
            if left:
                raise left.pop(0)

        await limiter.run(job, cost=2)
        assert witness.events == [
            Granted("api", 2, 0.0),
            Paused("api", 3.0),
            Throttled("api", None, 1, errors[0]),
            Granted("api", 2, 3.0),
            Paused("api", 4.0),
            Throttled("api", None, 2, errors[1]),
            Granted("api", 2, 4.0),
        ]
        assert [at - witness.instants[0] for at in witness.instants] == [0, 1, 1, 4, 5, 5, 9]
        # The pause has begun by then, and before the slot is free.
        throttled = witness.statistics[2]
        assert (throttled.paused_for, throttled.borrowed_tokens) == (3, 1)

    async def test_one_that_does_not_go_again_is_none(self, witness: Witness) -> None:
        limiter = witness.watch()
        for error in (
            ThrottleException(),
            ExceptionGroup("", [ThrottleException(), ValueError()]),
        ):

            async def job(error: Exception = error) -> None:
                raise error

            limiter.resume()
            witness.events.clear()
            most = 1 if error.args == (None,) else None
            with pytest.raises((ThrottleException, ExceptionGroup)):
                await limiter.run(job, max_throttles=most)

            assert witness.events == [Granted(None, 1, 0.0), Paused(None, 1.0)]

    async def test_a_throttle_that_is_raised_in_a_permit_is_none(self, witness: Witness) -> None:
        limiter = witness.watch()
        with pytest.raises(ThrottleException):
            async with limiter.permit():
                raise ThrottleException

        assert witness.kinds == ["Granted"]


#: What happens in the script below, in that order.
SCRIPT = [
    *("Granted", "Refused", "Refused", "Abandoned", "Refused", "Ended", "Paused", "Resumed"),
    *("Granted", "Paused", "Throttled", "Ended", "Granted", "Ended"),
]


async def perform(limiter: RateLimiter) -> list[float]:
    """Let each kind of event happen, and tell when what came to an end."""
    begun = anyio.current_time()
    ended: list[float] = []

    def end() -> None:
        ended.append(anyio.current_time() - begun)

    async with limiter.permit(2):
        with pytest.raises(LimitExceeded):
            async with limiter.permit(max_wait=0):
                pass

        end()
        with pytest.raises(LimitExceeded):
            async with limiter.permit(max_wait=4):
                pass

        end()
        with anyio.move_on_after(5):
            async with limiter:
                pass

        with pytest.raises(LimitExceeded):
            async with limiter.permit(max_wait=1):
                pass

        end()

    limiter.pause(100)
    limiter.resume()
    attempts: list[float] = []

    async def job() -> None:
        attempts.append(anyio.current_time())
        if len(attempts) == 1:
            raise ThrottleException(retry_after=6)

    await limiter.run(job)
    end()
    assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)
    assert limiter.peek().remaining == 6
    return ended


@pytest.mark.timing
class TestObserversThatFail:
    async def test_are_logged_and_harm_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        told: list[Event] = []

        def fail(event: Event) -> None:
            told.append(event)
            raise ZeroDivisionError(f"at {event}")

        assert await perform(RateLimiter("10/h", concurrency=1, observer=fail)) == [0, 4, 10, 16]
        assert [type(event).__name__ for event in told] == SCRIPT
        assert len(caplog.records) == len(told)
        for record, event in zip(caplog.records, told, strict=True):
            assert (record.name, record.levelno) == ("anythrottle", logging.ERROR)
            assert "observer" in record.message
            assert repr(event) in record.message
            assert record.exc_info is not None
            assert isinstance(record.exc_info[1], ZeroDivisionError)

    async def test_acquire_and_acquire_nowait(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(event: Event) -> None:
            raise ZeroDivisionError

        limiter = RateLimiter("2/10s", observer=fail)
        limiter.acquire_nowait()
        await limiter.acquire()
        with pytest.raises(LimitExceeded):
            limiter.acquire_nowait()

        with pytest.raises(LimitExceeded):
            await limiter.acquire(max_wait=1)

        with anyio.move_on_after(1):
            await limiter.acquire()

        await limiter.acquire(2)
        assert len(caplog.records) == 6
        assert limiter.peek().remaining == 0

    async def test_a_limiter_without_observer_does_just_the_same(self) -> None:
        assert await perform(RateLimiter("10/h", concurrency=1)) == [0, 4, 10, 16]

    async def test_one_that_listens_changes_nothing(self) -> None:
        witness = Witness()
        assert await perform(witness.watch("10/h", concurrency=1)) == [0, 4, 10, 16]
        assert witness.kinds == [kind for kind in SCRIPT if kind != "Ended"]

    async def test_exits_are_not_swallowed(self, caplog: pytest.LogCaptureFixture) -> None:
        class Stop(BaseException):
            pass

        def stop(event: Event) -> None:
            raise Stop

        with pytest.raises(Stop):
            RateLimiter(observer=stop).pause()

        assert caplog.records == []


@pytest.mark.timing
class TestObserversThatCallBack:
    async def test_pause_at_a_grant(self) -> None:
        """Who is told of was called back, and is told of again when it goes."""
        begun = anyio.current_time()
        granted: list[float] = []
        entered: list[float] = []

        def observe(event: Event) -> None:
            if isinstance(event, Granted):
                granted.append(anyio.current_time() - begun)
                if len(granted) in {1, 3}:
                    limiter.pause(5)

        async def call() -> None:
            await limiter.acquire()
            entered.append(anyio.current_time() - begun)

        limiter = RateLimiter("10/h", observer=observe)
        async with tasks() as task_group:
            for _ in range(3):
                task_group.start_soon(call)

        assert granted == [0, 5, 5, 10, 10]
        assert entered == [5, 10, 10]
        assert limiter.peek().remaining == 7

    async def test_take_a_turn_at_a_grant(self, witness: Witness) -> None:
        def observe(event: Event) -> None:
            witness(event)
            if isinstance(event, Granted) and event.cost == 1:
                limiter.acquire_nowait(2)

        limiter = RateLimiter("10/h", observer=observe)
        await limiter.acquire()
        assert witness.events == [Granted(None, 1, 0.0), Granted(None, 2, 0.0)]
        assert limiter.peek().remaining == 7

    async def test_take_a_turn_that_is_refused(self) -> None:
        refused: list[Event] = []

        def observe(event: Event) -> None:
            if isinstance(event, Refused):
                refused.append(event)
            else:
                with pytest.raises(LimitExceeded):
                    limiter.acquire_nowait()

        limiter = RateLimiter("1/h", observer=observe)
        await limiter.acquire()
        assert len(refused) == 1

    async def test_resume_at_a_pause(self) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, Paused):
                limiter.resume()

        limiter = RateLimiter(observer=observe)
        limiter.pause(math.inf)
        with anyio.fail_after(1):
            await limiter.acquire()

    async def test_use_what_an_abandoned_call_has_left(self) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, Abandoned):
                limiter.acquire_nowait(5)

        limiter = RateLimiter("5/h", observer=observe)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire(5)

        assert limiter.peek().remaining == 0

    async def test_reconfigure_when_a_call_is_throttled(self) -> None:
        starts: list[float] = []

        def observe(event: Event) -> None:
            if isinstance(event, Throttled):
                limiter.reconfigure("1/100s")

        limiter = RateLimiter("10/s", observer=observe)

        async def job() -> None:
            starts.append(anyio.current_time())
            if len(starts) == 1:
                raise ThrottleException(retry_after=5)

        await limiter.run(job)
        assert starts[1] - starts[0] == 100


@pytest.mark.timing
class TestWithoutObserver:
    async def test_no_record_is_built(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: object) -> None:
            raise AssertionError("a record was built")

        names = {record.__name__ for record in RECORDS} | {"tell"}
        patched = set()
        for module in list(sys.modules.values()):
            if module.__name__.startswith("anythrottle._"):
                for name in names & set(vars(module)):
                    monkeypatch.setattr(module, name, fail)
                    patched.add(name)

        assert patched == names
        assert await perform(RateLimiter("10/h", concurrency=1)) == [0, 4, 10, 16]


#: Calls: arrival, cost, seconds in the call, patience of its scope, and max_wait.
calls = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(1, 3),
        st.integers(0, 8),
        st.one_of(st.just(math.inf), st.integers(0, 25)),
        st.one_of(st.none(), st.integers(0, 25), st.just("deadline")),
    ),
    max_size=12,
)


class TestEachCallIsToldOf:
    @examples(80)
    @given(
        script=calls, slots=st.sampled_from([None, 1, 2]), max_waiting=st.sampled_from([None, 0, 2])
    )
    def test_once_and_truly(
        self, run: Run, script: list[Any], slots: int | None, max_waiting: int | None
    ) -> None:
        told: list[Event] = []

        async def main() -> list[tuple[str, float]]:
            limiter = RateLimiter(
                "3/10s", concurrency=slots, max_waiting=max_waiting, observer=told.append
            )
            outcomes: list[tuple[str, float]] = []

            async def call(number: int) -> None:
                arrival, cost, seconds, patience, max_wait = script[number]
                await anyio.sleep(arrival + number / 64)
                came = anyio.current_time()
                outcome = "Abandoned", float(patience)
                with anyio.move_on_after(patience):
                    try:
                        async with limiter.permit(cost, max_wait=max_wait):
                            outcome = "Granted", anyio.current_time() - came
                            await anyio.sleep(seconds)
                    except LimitExceeded:
                        outcome = "Refused", 0.0

                outcomes.append(outcome)

            async with tasks() as task_group:
                for number in range(len(script)):
                    task_group.start_soon(call, number)

            return outcomes

        outcomes = run(main)
        ends = [event for event in told if isinstance(event, Ended)]
        seen = [
            (type(event).__name__, getattr(event, "waited", 0.0))
            for event in told
            if event not in ends
        ]
        if ends:
            assert len(ends) == sum(kind == "Granted" for kind, _ in outcomes)

        assert sorted(seen) == sorted(outcomes)


@pytest.mark.timing
@pytest.mark.parametrize("policy", ["5/s", WindowTokenBucket(5, 1, measure="end")], ids=str)
async def test_an_observer_that_ends_the_program_gives_no_token_away(policy: Any) -> None:
    told: list[Event] = []

    def observe(event: Event) -> None:
        told.append(event)
        if isinstance(event, Granted):
            raise SystemExit

    limiter = RateLimiter(policy, concurrency=3, observer=observe)
    for _ in range(3):
        with pytest.raises(SystemExit):
            await limiter.permit().__aenter__()

    # No call has begun: none is charged.
    assert [type(event) for event in told] == [Granted, Abandoned] * 3
    assert limiter.statistics().borrowed_tokens == 0
    assert limiter.peek().remaining == 5


class TestObserveAll:
    def test_each_is_told_in_order(self) -> None:
        told: list[tuple[str, Event]] = []
        observer = observe_all(
            *(lambda event, name=name: told.append((name, event)) for name in ("a", "b", "c"))
        )
        event = Resumed("x")
        observer(event)
        assert told == [("a", event), ("b", event), ("c", event)]

    def test_one_that_fails_is_logged_and_keeps_nothing_from_the_others(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[Event] = []

        def fail(event: Event) -> None:
            raise ValueError("mine")

        event = Resumed("x")
        observe_all(fail, told.append, fail, told.append)(event)
        assert told == [event, event]
        assert [record.message for record in caplog.records] == [
            f"observer {fail!r} has failed on {event!r}"
        ] * 2

    def test_an_interrupt_passes_through(self) -> None:
        def interrupt(event: Event) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            observe_all(interrupt)(Resumed("x"))

    def test_none_is_told_nothing(self) -> None:
        observe_all()(Resumed("x"))

    @pytest.mark.timing
    async def test_a_limiter_has_several(self) -> None:
        witnesses = [Witness(), Witness()]
        limiter = RateLimiter("9/s", observer=observe_all(*witnesses))
        await limiter.acquire()
        assert witnesses[0].events == witnesses[1].events == [Granted(None, 1, 0.0)]

    @pytest.mark.parametrize("wrong", [None, 5, [print]], ids=repr)
    def test_what_cannot_be_called(self, wrong: Any) -> None:
        with pytest.raises(TypeError) as caught:
            observe_all(print, wrong)

        assert str(caught.value) == f"observers must be functions of one argument, not {wrong!r}"
