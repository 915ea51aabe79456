"""Calls that the limiter makes: `run` and `wrap`, and how those that are throttled go again."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import math
import re
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    CostTooHigh,
    RateLimiter,
    RateLimiterStatistics,
    ThrottleException,
    TokenBucket,
    WindowTokenBucket,
    current_permit,
)
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import (
    BLOWS,
    Blow,
    Crowd,
    Victim,
    assert_exact,
    sweep_with,
    tasks,
)
from tests.properties import examples

Measure = Literal["start", "end"]


async def answer() -> int:
    return 42


class Service:
    """Something to call, that notes when it was called, and throttles as it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, float]] = []
        self.running = 0
        self.most_running = 0

    @property
    def order(self) -> list[object]:
        return [name for name, _ in self.calls]

    @property
    def instants(self) -> list[float]:
        return [instant for _, instant in self.calls]

    def job(
        self,
        name: object = "job",
        *,
        errors: Iterable[BaseException] = (),
        seconds: float | None = None,
        refund: bool = False,
    ) -> Callable[[], Coroutine[Any, Any, object]]:
        """Make a function; each of its first calls raises one of ``errors``, if there are any."""
        to_raise = list(errors)

        async def job() -> object:
            self.calls.append((name, anyio.current_time()))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                if seconds is not None:
                    await anyio.sleep(seconds)
            finally:
                self.running -= 1

            if to_raise:
                if refund:
                    current_permit().refund()

                raise to_raise.pop(0)

            return name

        return job


async def assert_whole(limiter: RateLimiter) -> None:
    """Check that nobody waits, that nothing is held, and that the next call may go in the end."""
    statistics = limiter.statistics()
    assert (statistics.tasks_waiting, statistics.borrowed_tokens) == (0, 0)
    assert limiter._gate.slots.holders == {}
    with anyio.fail_after(1000):
        assert await limiter.run(answer) == 42


class TestRun:
    @pytest.mark.parametrize("result", [42, None, 0, "", ()])
    async def test_returns_what_the_function_returns(self, result: object) -> None:
        async def function() -> object:
            await checkpoint()
            return result

        assert await RateLimiter("5/s").run(function) is result

    async def test_passes_its_arguments_on(self) -> None:
        async def function(*args: object) -> tuple[object, ...]:
            return args

        assert await RateLimiter().run(function) == ()
        assert await RateLimiter().run(function, 1, None, "three") == (1, None, "three")

    async def test_takes_whatever_can_be_called_and_awaited(self) -> None:
        class Client:
            async def fetch(self, page: int) -> int:
                return page

            async def __call__(self) -> int:
                return 42

        def sync() -> Awaitable[int]:
            return answer()

        limiter = RateLimiter("100/s", concurrency=1)
        assert await limiter.run(Client().fetch, 7) == 7
        assert await limiter.run(functools.partial(Client().fetch, page=8)) == 8
        assert await limiter.run(Client()) == 42
        assert await limiter.run(sync) == 42
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.timing
    async def test_waits_its_turn_before_it_calls(self) -> None:
        limiter = RateLimiter("1/10s")
        service = Service()
        begun = anyio.current_time()
        for name in "abc":
            assert await limiter.run(service.job(name)) == name

        assert service.calls == [("a", begun), ("b", begun + 10), ("c", begun + 20)]

    async def test_charges_its_cost(self) -> None:
        limiter = RateLimiter("10/h")
        await limiter.run(answer, cost=4)
        assert limiter.peek().remaining == 6
        await limiter.run(answer, cost=0)
        assert limiter.peek().remaining == 6
        await limiter.run(answer)
        assert limiter.peek().remaining == 5

    async def test_charges_a_cost_by_units(self) -> None:
        limiter = RateLimiter("10/h", "100 tokens/h")
        await limiter.run(answer, cost={"tokens": 30})
        assert limiter.peek({"tokens": 70}).allowed
        assert not limiter.peek({"tokens": 71}).allowed
        assert limiter.peek({"tokens": 0, "calls": 9}).allowed
        assert not limiter.peek({"tokens": 0, "calls": 10}).allowed

    @pytest.mark.timing
    async def test_goes_by_its_priority(self) -> None:
        limiter = RateLimiter("1/s")
        service = Service()
        await limiter.acquire()
        async with tasks() as task_group:
            for name, priority in [("a", 0), ("b", 1), ("c", -1), ("d", 0)]:
                task_group.start_soon(
                    functools.partial(limiter.run, service.job(name), priority=priority)
                )
                await wait_idle()

        assert service.order == ["c", "a", "d", "b"]

    async def test_holds_a_slot_just_while_the_function_runs(self) -> None:
        limiter = RateLimiter(concurrency=3)

        async def function() -> int:
            before = limiter.statistics().borrowed_tokens
            await checkpoint()
            assert limiter.statistics().borrowed_tokens == before
            return before

        assert await limiter.run(function) == 1
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.timing
    async def test_with_measure_end_the_charge_is_held_while_the_function_runs(self) -> None:
        limiter = RateLimiter(WindowTokenBucket(1, 10, measure="end"))
        service = Service()
        begun = anyio.current_time()
        async with tasks() as task_group:
            for name in "ab":
                task_group.start_soon(limiter.run, service.job(name, seconds=3))
                await wait_idle()

            assert limiter.statistics().borrowed_tokens == 1

        assert service.calls == [("a", begun), ("b", begun + 13)]

    @pytest.mark.parametrize(
        "error", [ValueError("mine"), KeyError(1), ExceptionGroup("", [OSError()])]
    )
    async def test_other_errors_pass_bare(self, error: Exception) -> None:
        limiter = RateLimiter("5/h", concurrency=1)
        service = Service()
        with pytest.raises(type(error)) as caught:
            await limiter.run(service.job(errors=[error]))

        assert caught.value is error
        assert error.__cause__ is None
        assert not hasattr(error, "__notes__")
        assert len(service.calls) == 1
        assert limiter.peek().remaining == 4
        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)

    async def test_base_exceptions_pass_bare(self) -> None:
        class Stop(BaseException):
            pass

        limiter = RateLimiter(concurrency=1)
        with pytest.raises(Stop):
            await limiter.run(Service().job(errors=[Stop()]))

        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)

    async def test_a_function_that_returns_no_awaitable(self) -> None:
        limiter = RateLimiter("5/h", concurrency=1)
        not_async: Any = lambda: 5  # noqa: E731
        with pytest.raises(TypeError, match=r"returned 5, which cannot be awaited"):
            await limiter.run(not_async)

        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)
        assert limiter.peek().remaining == 4

    async def test_needs_no_limit(self) -> None:
        assert await RateLimiter().run(answer) == 42


class TestBadArguments:
    """They are named before anything is waited for, called or charged."""

    @staticmethod
    async def refused(limiter: RateLimiter, *args: Any, **options: Any) -> str:
        """Return what a call is refused with, in its first step."""
        calls: list[str] = []

        async def function() -> None:
            calls.append("called")

        before = limiter._line.scheduler.arrivals, limiter.peek({"calls": 1, "tokens": 0})
        coroutine = limiter.run(*(args or (function,)), **options)
        try:
            with pytest.raises((TypeError, ValueError)) as caught:
                coroutine.send(None)
        finally:
            coroutine.close()

        assert calls == []
        assert (limiter._line.scheduler.arrivals, limiter.peek({"calls": 1, "tokens": 0})) == before
        assert limiter.statistics().tasks_waiting == 0
        return f"{type(caught.value).__name__}: {caught.value}"

    @pytest.fixture
    def limiter(self) -> RateLimiter:
        # Whoever waits here waits for ever.
        limiter = RateLimiter("10/h", "100 tokens/h", concurrency=1)
        limiter.pause(math.inf)
        return limiter

    @pytest.mark.parametrize("func", [None, 5, "fetch", [answer]])
    async def test_func_that_cannot_be_called(self, limiter: RateLimiter, func: Any) -> None:
        message = await self.refused(limiter, func, cost={"tokens": 1})
        assert message == f"TypeError: func must be an async function, not {func!r}"

    async def test_func_that_is_a_coroutine(self, limiter: RateLimiter) -> None:
        coroutine = answer()
        message = await self.refused(limiter, coroutine, cost={"tokens": 1})
        assert message.startswith("TypeError: func must be an async function, not <coroutine")
        coroutine.close()

    @pytest.mark.parametrize(
        ("value", "error"),
        [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), ("2", TypeError)],
    )
    async def test_max_throttles(self, limiter: RateLimiter, value: Any, error: type) -> None:
        message = await self.refused(limiter, cost={"tokens": 1}, max_throttles=value)
        assert message.startswith(f"{error.__name__}: max_throttles ")
        assert repr(value) in message

    @pytest.mark.parametrize("value", [1.5, "1", None, True])
    async def test_priority(self, limiter: RateLimiter, value: Any) -> None:
        message = await self.refused(limiter, cost={"tokens": 1}, priority=value)
        assert message == f"TypeError: priority must be an int, not {value!r}"

    @pytest.mark.parametrize(
        ("cost", "message"),
        [
            (1, "ValueError: .*'calls', 'tokens'"),
            ({}, "ValueError: .*'calls', 'tokens'"),
            ({"tokens": 1, "bytes": 2}, "ValueError: .*'calls', 'tokens'"),
            ({"tokens": -1}, r"ValueError: cost\['tokens'\]"),
            ({"tokens": 1.5}, r"TypeError: cost\['tokens'\]"),
            (-1, "ValueError: cost"),
            (True, "TypeError: cost"),
            (None, "TypeError: cost"),
            ({"tokens": 101}, "CostTooHigh: cost 101 tokens is above the limit of 100"),
        ],
    )
    async def test_cost(self, limiter: RateLimiter, cost: Any, message: str) -> None:
        assert re.match(message, await self.refused(limiter, cost=cost))

    async def test_cost_too_high_is_told_at_once(self) -> None:
        limiter = RateLimiter("1/h")
        await limiter.acquire()
        with anyio.fail_after(1000), pytest.raises(CostTooHigh):
            await limiter.run(answer, cost=2)


@pytest.mark.timing
class TestThrottled:
    async def test_the_limiter_pauses_and_the_call_goes_again(self) -> None:
        limiter = RateLimiter()
        service = Service()
        begun = anyio.current_time()
        job = service.job(
            "a", errors=[ThrottleException(retry_after=3), ThrottleException(retry_after=4)]
        )
        assert await limiter.run(job) == "a"
        assert service.instants == [begun, begun + 3, begun + 7]

    async def test_with_the_same_arguments(self) -> None:
        calls: list[tuple[object, ...]] = []

        async def function(*args: object) -> str:
            calls.append(args)
            if len(calls) == 1:
                raise ThrottleException(retry_after=1)

            return "done"

        assert await RateLimiter().run(function, 1, "two") == "done"
        assert calls == [(1, "two")] * 2

    async def test_a_function_that_throttles_before_it_returns_an_awaitable(self) -> None:
        calls: list[float] = []

        def function() -> Awaitable[int]:
            calls.append(anyio.current_time())
            if len(calls) == 1:
                raise ThrottleException(retry_after=1)

            return answer()

        assert await RateLimiter().run(function) == 42
        assert calls[1] - calls[0] == 1

    @pytest.mark.parametrize(
        ("policies", "pause"), [((), 1), (("5/10s",), 10), (("5/10s", "50/min"), 10)]
    )
    async def test_without_a_time_of_its_own_the_limiter_pauses_as_it_does(
        self, policies: tuple[str, ...], pause: float
    ) -> None:
        limiter = RateLimiter(*policies)
        service = Service()
        await limiter.run(service.job(errors=[ThrottleException()]))
        assert service.instants[1] - service.instants[0] == pause

    @pytest.mark.parametrize(("earlier", "retry_after", "pause"), [(9, 3, 9), (3, 9, 9)])
    async def test_of_two_pauses_the_later_end_holds(
        self, earlier: float, retry_after: float, pause: float
    ) -> None:
        limiter = RateLimiter()
        calls: list[float] = []

        async def function() -> None:
            calls.append(anyio.current_time())
            if len(calls) == 1:
                limiter.pause(earlier)
                raise ThrottleException(retry_after=retry_after)

        await limiter.run(function)
        assert calls[1] - calls[0] == pause

    async def test_infinity_is_until_the_limiter_is_resumed(self) -> None:
        limiter = RateLimiter(concurrency=1)
        service = Service()
        begun = anyio.current_time()
        async with tasks() as task_group:
            task_group.start_soon(
                limiter.run, service.job(errors=[ThrottleException(retry_after=math.inf)])
            )
            await anyio.sleep(1e6)
            assert service.instants == [begun]
            limiter.resume()

        assert service.instants == [begun, begun + 1e6]

    @pytest.mark.parametrize("kind", ["int", "CapacityLimiter", "measure end"])
    async def test_nothing_is_held_during_the_pause(self, kind: str) -> None:
        capacity = anyio.CapacityLimiter(2)
        limiter = {
            "int": RateLimiter(concurrency=2),
            "CapacityLimiter": RateLimiter(concurrency=capacity),
            "measure end": RateLimiter(WindowTokenBucket(2, 5, measure="end")),
        }[kind]
        service = Service()
        begun = anyio.current_time()
        async with tasks() as task_group:
            for name in "ab":
                throttled = ThrottleException(retry_after=10)
                task_group.start_soon(limiter.run, service.job(name, errors=[throttled], seconds=2))

            await wait_idle()
            # Those two wait for a slot until then.
            for name in "cd":
                task_group.start_soon(limiter.run, service.job(name, seconds=2))

            await anyio.sleep(1)
            assert limiter.statistics().borrowed_tokens == 2
            for at in (2.5, 7.0, 11.5):
                await anyio.sleep(begun + at - anyio.current_time())
                assert limiter.statistics().borrowed_tokens == 0
                assert limiter.statistics().tasks_waiting == 4
                assert capacity.borrowed_tokens == 0
                if kind == "CapacityLimiter":
                    # Strangers may use the slots meanwhile.
                    capacity.acquire_on_behalf_of_nowait("stranger")
                    capacity.release_on_behalf_of("stranger")

        assert sorted(service.instants[:4]) == [begun, begun, begun + 12, begun + 12]
        assert set(service.order[:2]) == set(service.order[2:4]) == {"a", "b"}
        assert capacity.borrowed_tokens == 0

    async def test_other_calls_that_run_go_on(self) -> None:
        limiter = RateLimiter(concurrency=2)
        service = Service()
        begun = anyio.current_time()
        ended: list[float] = []

        async def other() -> None:
            await limiter.run(service.job("other", seconds=5))
            ended.append(anyio.current_time() - begun)

        async with tasks() as task_group:
            task_group.start_soon(other)
            await wait_idle()
            throttled = ThrottleException(retry_after=10)
            task_group.start_soon(limiter.run, service.job(errors=[throttled], seconds=1))

        assert ended == [5]
        assert service.instants[-1] == begun + 11

    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    @pytest.mark.parametrize("retry_after", [1e-9, 5])
    async def test_it_goes_before_all_others(self, shared: bool, retry_after: float) -> None:
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(1) if shared else 1)
        service = Service()
        async with tasks() as task_group:
            throttled = [ThrottleException(retry_after=retry_after) for _ in range(3)]
            job = service.job("late", errors=throttled, seconds=1)
            task_group.start_soon(limiter.run, service.job("first", seconds=1))
            await wait_idle()
            task_group.start_soon(limiter.run, service.job("older", seconds=1))
            await wait_idle()
            task_group.start_soon(functools.partial(limiter.run, job, priority=-5))
            await wait_idle()
            task_group.start_soon(
                functools.partial(limiter.run, service.job("better", seconds=1), priority=-(10**9))
            )
            await anyio.sleep(1.5)
            # "better" runs, "late" is next: then this one comes too.
            task_group.start_soon(
                functools.partial(limiter.run, service.job("best", seconds=1), priority=-(10**12))
            )

        assert service.order == ["first", "better", "best", *["late"] * 4, "older"]

    async def test_without_a_pause_it_goes_before_all_others_too(self) -> None:
        limiter = RateLimiter(concurrency=1)
        service = Service()
        async with tasks() as task_group:
            job = service.job("a", errors=[ThrottleException(retry_after=0)], seconds=1)
            task_group.start_soon(limiter.run, job)
            await wait_idle()
            task_group.start_soon(limiter.run, service.job("b", seconds=1))

        assert service.order == ["a", "a", "b"]

    async def test_a_line_that_is_full_does_not_refuse_it(self) -> None:
        limiter = RateLimiter(concurrency=1, max_waiting=1)
        service = Service()
        async with tasks() as task_group:
            job = service.job("a", errors=[ThrottleException(retry_after=3)], seconds=1)
            task_group.start_soon(limiter.run, job)
            await wait_idle()
            task_group.start_soon(limiter.run, service.job("b", seconds=1))

        assert service.order == ["a", "a", "b"]

    async def test_several_go_again_in_their_original_order(self) -> None:
        limiter = RateLimiter("1/s", concurrency=5)
        service = Service()
        async with tasks() as task_group:
            # They start at 0, 1, 2 and 3, and are throttled at 7, 6, 5 and 4.
            for name, seconds in [("a", 7), ("b", 5), ("c", 3), ("d", 1)]:
                throttled = ThrottleException(retry_after=20)
                job = service.job(name, errors=[throttled], seconds=seconds)
                task_group.start_soon(limiter.run, job)
                await wait_idle()

            await anyio.sleep(4.5)
            task_group.start_soon(functools.partial(limiter.run, service.job("x"), priority=-9))

        assert service.order == [*"abcd", *"abcd", "x"]
        starts = [instant - service.instants[0] for instant in service.instants]
        assert starts == [0, 1, 2, 3, 27, 28, 29, 30, 31]

    @pytest.mark.parametrize("refund", [False, True], ids=["charged", "refunded"])
    @pytest.mark.parametrize("measure", ["start", "end"])
    async def test_the_attempt_stays_charged_unless_it_was_refunded(
        self, refund: bool, measure: Measure
    ) -> None:
        limiter = RateLimiter(WindowTokenBucket(10, 100, measure=measure))
        service = Service()
        throttled = ThrottleException(retry_after=1)
        job = service.job(errors=[throttled], refund=refund)
        await limiter.run(job, cost=4)
        assert limiter.peek().remaining == (6 if refund else 2)

    async def test_a_charged_attempt_delays_the_next_one(self) -> None:
        limiter = RateLimiter("1/10s")
        service = Service()
        begun = anyio.current_time()
        await limiter.run(service.job(errors=[ThrottleException(retry_after=3)]))
        await limiter.run(service.job(errors=[ThrottleException(retry_after=3)], refund=True))
        assert [instant - begun for instant in service.instants] == [0, 10, 20, 23]

    async def test_it_has_no_credit_for_the_time_before_it_was_throttled(self) -> None:
        limiter = RateLimiter(TokenBucket(1, 4, burst=1), concurrency=2)
        starts: list[tuple[str, float]] = []

        async def first() -> None:
            starts.append(("a", anyio.current_time()))
            if len(starts) == 1:
                await anyio.sleep_until(2)
                stall(7)
                raise ThrottleException(retry_after=0)

        async def second() -> None:
            starts.append(("b", anyio.current_time()))

        async with tasks() as task_group:
            task_group.start_soon(limiter.run, first)
            await anyio.sleep_until(1)
            task_group.start_soon(limiter.run, second)

        # A token was due for "b" at 4, but "a", which is back at 9, takes it; the next is due 4 s
        # after that one was taken.
        assert starts == [("a", 0), ("a", 9), ("b", 13)]

    @examples(60)
    @given(st.data())
    def test_against_a_plain_reference(self, run: Run, data: st.DataObject) -> None:
        window = data.draw(st.integers(1, 10), "window")
        count = data.draw(st.integers(1, 6), "count")
        attempts = st.tuples(st.integers(1, 5), st.booleans(), st.integers(1, 15))
        plans = [
            (
                # No two instants are ever the same.
                data.draw(st.integers(0, 20), "arrival") + index / 64,
                data.draw(st.integers(-1, 1), "priority"),
                # Those that are throttled: how long they take, refunded or not, pause.
                data.draw(st.lists(attempts, max_size=3), "throttled"),
            )
            for index in range(count)
        ]

        async def main() -> list[tuple[int, float]]:
            limiter = RateLimiter(WindowTokenBucket(1, window), concurrency=1)
            begun = anyio.current_time()
            starts: list[tuple[int, float]] = []

            async def call(index: int) -> None:
                arrival, priority, throttled = plans[index]
                left = list(throttled)

                async def job() -> None:
                    starts.append((index, anyio.current_time() - begun))
                    if left:
                        seconds, refund, pause = left.pop(0)
                        await anyio.sleep(seconds)
                        if refund:
                            current_permit().refund()

                        raise ThrottleException(retry_after=pause)

                    await anyio.sleep(2)

                await anyio.sleep(arrival)
                await limiter.run(job, priority=priority)

            async with tasks() as task_group:
                for index in range(count):
                    task_group.start_soon(call, index)

            return starts

        assert run(main) == plain_retries(window, plans)


def plain_retries(
    window: float, plans: list[tuple[float, int, list[tuple[int, bool, int]]]]
) -> list[tuple[int, float]]:
    """Return who has to start when, one at a time and one in each window, again included."""
    places = sorted(range(len(plans)), key=lambda index: plans[index][0])
    #: By call: since when it waits, and its place.
    waiting = {
        index: (plans[index][0], (float(plans[index][1]), places.index(index)))
        for index in range(len(plans))
    }
    left = {index: list(plans[index][2]) for index in range(len(plans))}
    starts: list[tuple[int, float]] = []
    free = -math.inf
    while waiting:
        at = max(free, min(since for since, _ in waiting.values()))
        index = min((place, index) for index, (since, place) in waiting.items() if since <= at)[1]
        starts.append((index, at))
        _, place = waiting.pop(index)
        if left[index]:
            seconds, refund, pause = left[index].pop(0)
            free = max(at + seconds + pause, -math.inf if refund else at + window)
            waiting[index] = (at + seconds, (-math.inf, place[1]))
        else:
            free = max(at + 2, at + window)

    return starts


@pytest.mark.timing
class TestPauseBeforeTheSlotIsFree:
    """Nobody starts between the end of a throttled call and the pause, wherever others stand."""

    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    @pytest.mark.parametrize("fast", [False, True], ids=["checkpoint", "fast"])
    @pytest.mark.parametrize("slots", [1, 2, 5])
    async def test_nobody_starts_in_between(self, slots: int, shared: bool, fast: bool) -> None:
        concurrency = anyio.CapacityLimiter(slots) if shared else slots
        limiter = RateLimiter("100/s", concurrency=concurrency, fast_acquire=fast)
        log: list[tuple[str, float]] = []
        begun = anyio.current_time()

        def note(event: str) -> None:
            log.append((event, anyio.current_time() - begun))

        async def job() -> None:
            note("start")
            if ("throttle", 0) not in log:
                for _ in range(4):
                    await checkpoint()

                note("throttle")
                raise ThrottleException(retry_after=50)

        async def newcomer(yields: int) -> None:
            for _ in range(yields):
                await checkpoint()

            async with limiter:
                note("start")
                await checkpoint()

        async with tasks() as task_group:
            task_group.start_soon(limiter.run, job)
            # They come at each of its steps, and after it.
            for yields in range(12):
                task_group.start_soon(newcomer, yields)

            await wait_idle()
            assert limiter.statistics().paused_for == 50
            assert limiter.statistics().borrowed_tokens == 0

        after = log[log.index(("throttle", 0)) + 1 :]
        assert {instant for _, instant in after} == {50}
        assert len(log) == 15

    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    async def test_who_waits_for_that_slot_gets_it_after_the_pause(self, shared: bool) -> None:
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(1) if shared else 1)
        service = Service()
        begun = anyio.current_time()
        async with tasks() as task_group:
            # It is refused, so that nothing goes again.
            task_group.start_soon(
                _expect_throttle,
                functools.partial(
                    limiter.run,
                    service.job("a", errors=[ThrottleException(retry_after=7)], seconds=1),
                    max_throttles=1,
                ),
            )
            await wait_idle()
            task_group.start_soon(limiter.run, service.job("b"))

        assert service.calls == [("a", begun), ("b", begun + 8)]


async def _expect_throttle(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ThrottleException):
        await call()


@pytest.mark.timing
class TestMaxAttempts:
    async def test_then_the_exception_itself_is_raised_with_a_note(self) -> None:
        limiter = RateLimiter(concurrency=1)
        errors = [ThrottleException(retry_after=2) for _ in range(5)]
        service = Service()
        with pytest.raises(ThrottleException) as caught:
            await limiter.run(service.job(errors=errors), max_throttles=3)

        assert caught.value is errors[2]
        assert caught.value.__notes__ == ["It was throttled 3 times; the last retry_after was 2 s."]
        assert len(service.calls) == 3
        # The last one has paused the limiter too, and holds nothing.
        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 2.0)

    async def test_1_is_once(self) -> None:
        service = Service()
        with pytest.raises(ThrottleException):
            await RateLimiter().run(service.job(errors=[ThrottleException()]), max_throttles=1)

        assert len(service.calls) == 1

    async def test_a_success_at_the_last_attempt_is_one(self) -> None:
        service = Service()
        errors = [ThrottleException(), ThrottleException()]
        assert await RateLimiter().run(service.job(errors=errors), max_throttles=3) == "job"

    async def test_a_group_is_raised_as_it_is(self) -> None:
        group = ExceptionGroup("all", [ThrottleException(), ThrottleException()])
        with pytest.raises(ExceptionGroup) as caught:
            await RateLimiter().run(Service().job(errors=[group]), max_throttles=1)

        assert caught.value is group
        assert group.__notes__ == ["It was throttled 1 time; no retry_after was given."]

    async def test_by_default_there_is_no_bound(self) -> None:
        service = Service()
        errors = [ThrottleException(retry_after=1) for _ in range(200)]
        await RateLimiter().run(service.job(errors=errors))
        assert len(service.calls) == 201


@pytest.fixture
def no_complaint() -> Any:
    """Fail if Python complains of a coroutine that was never awaited."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()

    assert [str(warning.message) for warning in caught] == []


@pytest.mark.timing
@pytest.mark.usefixtures("no_complaint")
class TestReplacement:
    async def test_a_callable_runs_instead(self) -> None:
        limiter = RateLimiter(concurrency=1)
        service = Service()
        instead = service.job("instead", errors=[ThrottleException(retry_after=2)])
        throttled = ThrottleException(instead, retry_after=3)
        assert await limiter.run(service.job("first", errors=[throttled])) == "instead"
        assert service.order == ["first", "instead", "instead"]
        assert [instant - service.instants[0] for instant in service.instants] == [0, 3, 5]

    async def test_a_coroutine_runs_instead(self) -> None:
        service = Service()
        coroutine = service.job("instead")()
        job = service.job("first", errors=[ThrottleException(coroutine)])
        assert await RateLimiter().run(job) == "instead"
        assert service.order == ["first", "instead"]
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED

    async def test_an_awaitable_runs_instead(self) -> None:
        class Later:
            def __await__(self) -> Any:
                return answer().__await__()

        assert await RateLimiter().run(Service().job(errors=[ThrottleException(Later())])) == 42

    async def test_a_coroutine_that_is_throttled_cannot_run_again(self) -> None:
        limiter = RateLimiter()
        service = Service()
        error = ThrottleException(retry_after=4)
        coroutine = service.job("instead", errors=[error])()
        with pytest.raises(ThrottleException) as caught:
            await limiter.run(service.job("first", errors=[ThrottleException(coroutine)]))

        assert caught.value is error
        assert "pass a callable" in error.__notes__[0]
        assert limiter.statistics().paused_for == 4

    async def test_one_that_is_refused_is_closed(self) -> None:
        coroutine = answer()
        job = Service().job(errors=[ThrottleException(coroutine)])
        with pytest.raises(ThrottleException):
            await RateLimiter().run(job, max_throttles=1)

        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED

    async def test_of_a_group_the_first_runs_and_the_others_are_closed(self) -> None:
        service = Service()
        coroutines = [service.job(name)() for name in "abc"]
        group = ExceptionGroup("", [ThrottleException(coroutine) for coroutine in coroutines])
        assert await RateLimiter().run(service.job("first", errors=[group])) == "a"
        assert service.order == ["first", "a"]
        states = {inspect.getcoroutinestate(coroutine) for coroutine in coroutines}
        assert states == {inspect.CORO_CLOSED}

    async def test_those_of_a_mixed_group_are_closed(self) -> None:
        coroutine = answer()
        group = ExceptionGroup("", [ThrottleException(coroutine), ValueError()])
        with pytest.raises(ExceptionGroup):
            await RateLimiter().run(Service().job(errors=[group]))

        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED

    async def test_one_that_waits_when_the_call_is_cancelled_is_closed(self) -> None:
        limiter = RateLimiter(concurrency=1)
        coroutine = answer()
        job = Service().job(errors=[ThrottleException(coroutine, retry_after=10)])
        with anyio.move_on_after(5) as scope:
            await limiter.run(job)

        assert scope.cancelled_caught
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 5.0)

    async def test_one_that_waits_when_its_cost_becomes_too_high_is_closed(self) -> None:
        limiter = RateLimiter("5/s")
        coroutine = answer()
        job = Service().job(errors=[ThrottleException(coroutine, retry_after=10)])
        async with tasks() as task_group:
            task_group.start_soon(
                _expect_cost_too_high, functools.partial(limiter.run, job, cost=5)
            )
            await wait_idle()
            limiter.reconfigure("4/s")

        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def _expect_cost_too_high(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(CostTooHigh):
        await call()


@pytest.mark.timing
class TestGroups:
    async def test_one_of_nothing_but_signals_is_one_throttle(self) -> None:
        limiter = RateLimiter()
        signals = [
            ThrottleException(retry_after=3),
            ExceptionGroup("", [ThrottleException(), ThrottleException(retry_after=8)]),
            ThrottleException(retry_after=5),
        ]
        service = Service()
        assert await limiter.run(service.job(errors=[ExceptionGroup("", signals)])) == "job"
        assert service.instants[1] - service.instants[0] == 8

    async def test_one_that_names_no_time_pauses_as_the_limiter_does(self) -> None:
        service = Service()
        group = ExceptionGroup("", [ThrottleException(), ThrottleException()])
        await RateLimiter("5/7s").run(service.job(errors=[group]))
        assert service.instants[1] - service.instants[0] == 7

    async def test_one_of_a_task_group_of_the_job(self) -> None:
        limiter = RateLimiter(concurrency=1)
        calls: list[float] = []

        async def part(retry_after: float) -> None:
            if len(calls) == 1:
                raise ThrottleException(retry_after=retry_after)

        async def job() -> str:
            calls.append(anyio.current_time())
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(part, 6)

            return "done"

        assert await limiter.run(job) == "done"
        assert calls[1] - calls[0] == 6

    async def test_a_mixed_one_pauses_and_is_raised(self) -> None:
        limiter = RateLimiter("5/h", concurrency=1)
        group = ExceptionGroup("", [ValueError(), ThrottleException(retry_after=6)])
        service = Service()
        with pytest.raises(ExceptionGroup) as caught:
            await limiter.run(service.job(errors=[group]))

        assert caught.value is group
        assert not hasattr(group, "__notes__")
        assert len(service.calls) == 1
        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 6.0)

    async def test_one_with_an_exit_is_mixed(self) -> None:
        class Stop(BaseException):
            pass

        limiter = RateLimiter(concurrency=1)
        group = BaseExceptionGroup("", [Stop(), ThrottleException(retry_after=6)])
        with pytest.raises(BaseExceptionGroup) as caught:
            await limiter.run(Service().job(errors=[group]))

        assert caught.value is group
        assert limiter.statistics().paused_for == 6


@pytest.mark.promise("G5")
class TestCancellation:
    """G5: cancelled at every suspension there is, in line and in the call, the limiter is whole."""

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    @pytest.mark.parametrize("measure", ["start", "end"])
    def test_a_call_that_is_throttled_and_goes_again(
        self, blow: Blow, shared: bool, measure: Measure
    ) -> None:
        async def scenario(victim: Victim) -> None:
            capacity = anyio.CapacityLimiter(1)
            limiter = RateLimiter(
                WindowTokenBucket(3, 10, measure=measure), concurrency=capacity if shared else 1
            )
            service = Service()
            begun = anyio.current_time()
            throttled = [ThrottleException(retry_after=5), ThrottleException(retry_after=5)]
            job = service.job("victim", errors=throttled, seconds=1)
            async with tasks() as task_group:
                task_group.start_soon(limiter.run, service.job("first", seconds=1))
                await wait_idle()
                task_group.start_soon(victim.run, limiter.run(job))
                await wait_idle()
                for name in "xy":
                    task_group.start_soon(limiter.run, service.job(name, seconds=1))
                    await wait_idle()

            assert service.most_running == 1
            assert [name for name in service.order if name != "victim"] == ["first", "x", "y"]
            # All the attempts of the victim go before the others.
            last = "".join("v" if name == "victim" else "." for name in service.order)
            assert re.fullmatch(r"\.v*\.\.", last)
            assert_exact([(instant, 1) for instant in service.instants], 3, 10)
            assert anyio.current_time() - begun <= 40
            assert capacity.borrowed_tokens == 0
            assert capacity.statistics().tasks_waiting == 0
            await assert_whole(limiter)

        assert sweep_with(blow, scenario) >= 5

    @pytest.mark.parametrize("blow", BLOWS)
    @pytest.mark.parametrize("fast", [False, True], ids=["checkpoint", "fast"])
    def test_its_replacement_never_leaks(self, blow: Blow, fast: bool, no_complaint: None) -> None:
        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter("3/10s", concurrency=1, fast_acquire=fast)
            service = Service()
            replacement: list[Coroutine[Any, Any, object]] = []

            async def job() -> object:
                await checkpoint()
                replacement.append(service.job("instead", seconds=1)())
                raise ThrottleException(replacement[0], retry_after=5)

            async with tasks() as task_group:
                task_group.start_soon(victim.run, limiter.run(job))
                await wait_idle()
                task_group.start_soon(limiter.run, service.job("x"))

            assert all(
                inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
                for coroutine in replacement
            )
            assert service.order[-1] == "x"
            await assert_whole(limiter)

        assert sweep_with(blow, scenario) >= 3

    @pytest.mark.parametrize("blow", BLOWS)
    def test_a_wrapped_call(self, blow: Blow) -> None:
        async def scenario(victim: Victim) -> None:
            limiter = RateLimiter(concurrency=1)
            ended: list[str] = []

            @limiter.wrap
            async def call(name: str) -> None:
                await anyio.sleep(1)
                ended.append(name)

            async with tasks() as task_group:
                task_group.start_soon(victim.run, call("victim"))
                await wait_idle()
                task_group.start_soon(call, "x")

            assert ended[-1] == "x"
            await assert_whole(limiter)

        assert sweep_with(blow, scenario) >= 2

    @pytest.mark.timing
    async def test_one_that_goes_again_leaves_its_place_to_the_next(self) -> None:
        limiter = RateLimiter(concurrency=1)
        service = Service()
        begun = anyio.current_time()
        async with tasks() as task_group:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(
                        limiter.run, service.job("a", errors=[ThrottleException(retry_after=9)])
                    )
                    await wait_idle()
                    task_group.start_soon(limiter.run, service.job("b"))
                    await anyio.sleep(3)
                    scope.cancel()

            assert limiter.statistics().tasks_waiting == 1

        # The pause goes on: it is the service that has asked for it.
        assert service.calls == [("a", begun), ("b", begun + 9)]

    async def test_a_cancelled_error_that_the_function_raises_by_itself(self) -> None:
        limiter = RateLimiter("5/h", concurrency=1)
        # On Trio, it's an error like any other.
        error = asyncio.CancelledError("mine")
        service = Service()
        with pytest.raises(asyncio.CancelledError) as caught:
            await limiter.run(service.job(errors=[error]))

        assert caught.value is error
        assert len(service.calls) == 1
        assert limiter.statistics() == RateLimiterStatistics(0, 0, 1, 0.0)
        assert limiter.peek().remaining == 4


class TestWrap:
    async def test_calls_under_the_limiter(self) -> None:
        limiter = RateLimiter("5/h", concurrency=1)

        @limiter.wrap
        async def fetch(page: int, *, size: int = 10) -> tuple[int, int]:
            assert limiter.statistics().borrowed_tokens == 1
            return page, size

        assert await fetch(7) == (7, 10)
        assert await fetch(page=8, size=3) == (8, 3)
        assert limiter.peek().remaining == 3
        assert limiter.statistics().borrowed_tokens == 0

    async def test_parameters_may_have_any_names(self) -> None:
        @RateLimiter().wrap
        async def function(
            func: int, cost: int, priority: int, max_throttles: int, self: int
        ) -> int:
            return func + cost + priority + max_throttles + self

        assert await function(func=1, cost=2, priority=3, max_throttles=4, self=5) == 15

    def test_looks_like_the_function(self) -> None:
        async def fetch(page: int, *, size: int = 10) -> str:
            """Fetch a page."""
            return f"{page}/{size}"

        fetch.extra = "kept"  # type: ignore[attr-defined]
        wrapped = RateLimiter().wrap(fetch)
        assert (wrapped.__name__, wrapped.__doc__) == ("fetch", "Fetch a page.")
        assert wrapped.__qualname__ == fetch.__qualname__
        assert wrapped.__module__ == __name__
        assert inspect.signature(wrapped) == inspect.signature(fetch)
        assert inspect.unwrap(wrapped) is fetch
        assert inspect.iscoroutinefunction(wrapped)
        assert wrapped.extra == "kept"  # type: ignore[attr-defined]

    async def test_methods(self) -> None:
        limiter = RateLimiter("5/h")

        class Client:
            def __init__(self, name: str) -> None:
                self.name = name

            @limiter.wrap
            async def fetch(self, page: int) -> str:
                return f"{self.name}/{page}"

            @staticmethod
            @limiter.wrap
            async def add(a: int, b: int) -> int:
                return a + b

            @classmethod
            @limiter.wrap
            async def called(cls) -> str:
                return cls.__name__

        assert await Client("a").fetch(1) == "a/1"
        assert await limiter.wrap(Client("b").fetch)(2) == "b/2"
        assert await Client.add(1, 2) == 3
        assert await Client("c").called() == "Client"
        # Wrapped twice is charged twice.
        assert limiter.peek().remaining == 0

    async def test_one_without_metadata(self) -> None:
        assert await RateLimiter().wrap(functools.partial(answer))() == 42

    @pytest.mark.timing
    async def test_goes_again_with_the_same_arguments(self) -> None:
        calls: list[tuple[int, int, float]] = []

        @RateLimiter(concurrency=1).wrap
        async def fetch(page: int, *, size: int) -> str:
            calls.append((page, size, anyio.current_time()))
            if len(calls) < 3:
                raise ThrottleException(retry_after=4)

            return "done"

        begun = anyio.current_time()
        assert await fetch(1, size=2) == "done"
        assert calls == [(1, 2, begun), (1, 2, begun + 4), (1, 2, begun + 8)]

    @pytest.mark.timing
    async def test_one_for_all_of_its_calls(self) -> None:
        limiter = RateLimiter("1/s")
        service = Service()
        wrapped = limiter.wrap(service.job())
        begun = anyio.current_time()
        async with tasks() as task_group:
            for _ in range(4):
                task_group.start_soon(wrapped)

        assert service.instants == [begun, begun + 1, begun + 2, begun + 3]

    @pytest.mark.parametrize("func", [5, "fetch"])
    def test_what_cannot_be_called(self, func: Any) -> None:
        with pytest.raises(TypeError, match=f"^func must be an async function, not {func!r}$"):
            RateLimiter().wrap(func)

    def test_works_in_one_run_after_another(self, run: Run) -> None:
        limiter = RateLimiter("2/h", concurrency=1)
        fetch = limiter.wrap(answer)
        assert [run(fetch), run(fetch)] == [42, 42]
        assert not limiter.peek().allowed


@pytest.mark.timing
async def test_beside_calls_of_every_other_kind() -> None:
    limiter = RateLimiter("1/s")
    service = Service()
    begun = anyio.current_time()
    async with tasks() as task_group:
        crowd = Crowd(limiter, task_group)
        task_group.start_soon(limiter.run, service.job("a"))
        await wait_idle()
        await crowd.join("b")
        task_group.start_soon(limiter.wrap(service.job("c")))
        await wait_idle()
        await crowd.join("d")

    assert service.calls == [("a", begun), ("c", begun + 2)]
    assert crowd.granted == {"b": begun + 1, "d": begun + 3}
