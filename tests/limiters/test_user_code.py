"""No code of a user's own runs between the instant from which on a call counts and its start."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import Granted, RateLimiter, WindowTokenBucket
from anythrottle._policies.window import WindowBucket
from anythrottle.abc import Event
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import permit_of, tasks
from tests.properties import examples

LIMIT, WINDOW = 3, 1.0


class SlowBucket:
    """A bucket of a user's own, each of whose methods makes the event loop stall."""

    def __init__(self, seconds: Callable[[], float], methods: set[str]) -> None:
        self._inner = WindowBucket(WindowTokenBucket(1000, 1.0))
        self._seconds = seconds
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def slow(*args: Any, **options: Any) -> Any:
            if name in self._methods:
                stall(self._seconds())

            return found(*args, **options)

        return slow


class SlowPolicy:
    """A policy of a user's own: so many calls that it never binds, but it takes its time."""

    limit, window, unit, holds = 1000, 1.0, "calls", False

    def __init__(self, seconds: Callable[[], float], *methods: str) -> None:
        self._seconds = seconds
        self._methods = set(methods or ("delay", "take", "start", "release", "give_back"))

    def bucket(self) -> Any:
        return SlowBucket(self._seconds, self._methods)


def assert_no_window_is_crowded(begun: list[float]) -> None:
    begun.sort()
    for first, one_too_many in zip(begun, begun[LIMIT:], strict=False):
        assert one_too_many - first >= WINDOW - 1e-9


class World:
    """Calls under a limiter whose observer, or whose policy, makes the event loop stall."""

    def __init__(self, stalls: list[float], how: str, measure: Any) -> None:
        self._stalls = itertools.cycle(stalls)
        self._how = how
        self._policy = WindowTokenBucket(LIMIT, WINDOW, measure=measure)
        self.begun: list[float] = []

    def seconds(self) -> float:
        return next(self._stalls)

    def observe(self, event: Event) -> None:
        stall(self.seconds())

    async def run(self, arrivals: list[float], *, slow_policy: bool, fast: bool) -> None:
        self._limiter = RateLimiter(
            self._policy,
            *([SlowPolicy(self.seconds)] if slow_policy else []),
            observer=None if slow_policy else self.observe,
            fast_acquire=fast,
        )
        async with tasks() as task_group:
            for arrival in arrivals:
                task_group.start_soon(self._call, arrival)

    async def _call(self, arrival: float) -> None:
        await anyio.sleep(arrival)
        limiter = self._limiter
        if self._how == "run":
            await limiter.run(self._begin)
        elif limiter._gate.holds:
            async with limiter.permit():
                await self._begin()
        elif self._how == "acquire":
            await limiter.acquire()
            await self._begin()
        else:
            with suppress(anyio.WouldBlock):
                limiter.acquire_nowait()
                await self._begin()

    async def _begin(self) -> None:
        self.begun.append(anyio.current_time())


@examples(40)
@given(
    stalls=st.lists(st.sampled_from([0.0, 0.1, 0.4, 1.5]), min_size=1, max_size=7),
    arrivals=st.lists(st.sampled_from([0, 0.2, 0.9]), max_size=12),
    how=st.sampled_from(["acquire", "run", "nowait"]),
    flags=st.tuples(st.booleans(), st.booleans()),
    measure=st.sampled_from(["start", "end"]),
)
def test_code_that_blocks_crowds_no_window(
    run: Run,
    *,
    stalls: list[float],
    arrivals: list[float],
    how: str,
    flags: tuple[bool, bool],
    measure: str,
) -> None:
    world = World(stalls, how, measure)
    run(world.run, arrivals, slow_policy=flags[0], fast=flags[1])
    assert_no_window_is_crowded(world.begun)


@pytest.mark.timing
@pytest.mark.parametrize("how", ["acquire", "run", "permit"])
async def test_buckets_of_a_user_s_own_start_first(how: str) -> None:
    """The first start takes a second and a half: the limit's own token is out from its end on."""
    stalls = iter([1.5])
    limiter = RateLimiter(
        WindowTokenBucket(LIMIT, WINDOW), SlowPolicy(lambda: next(stalls, 0.0), "start")
    )
    begun: list[float] = []

    async def begin() -> None:
        begun.append(anyio.current_time())

    async def call() -> None:
        if how == "run":
            await limiter.run(begin)
        elif how == "permit":
            async with limiter.permit():
                await begin()
        else:
            await limiter.acquire()
            await begin()

    async with tasks() as task_group:
        for _ in range(2 * LIMIT):
            task_group.start_soon(call)

    assert_no_window_is_crowded(begun)
    assert begun[-1] - begun[0] == WINDOW


@pytest.mark.timing
async def test_so_they_do_on_the_short_way() -> None:
    limiter = RateLimiter("1/10s", SlowPolicy(lambda: 1.5, "start"))
    permit = permit_of(limiter)
    assert permit.enter_now()
    assert limiter.quotas()[0].reset_after == 10.0
    permit.leave()


@pytest.mark.timing
class TestAnObserverAtAGrant:
    """It is told while the turn is held; then pause and possibility are looked at once more."""

    @pytest.mark.parametrize("fast", [False, True])
    async def test_what_it_pauses_does_not_begin(self, fast: bool) -> None:
        told: list[float] = []

        def observe(event: Event) -> None:
            if isinstance(event, Granted):
                told.append(anyio.current_time() - start)
                if len(told) == 1:
                    limiter.pause(5)

        limiter = RateLimiter("1/h", observer=observe, fast_acquire=fast)
        start = anyio.current_time()
        await limiter.acquire()
        assert anyio.current_time() - start == 5
        assert told == [0, 5]
        assert limiter.peek().remaining == 0

    def test_what_it_pauses_is_refused_if_it_may_not_wait(self) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, Granted):
                limiter.pause(5)

        limiter = RateLimiter("1/h", observer=observe)
        with pytest.raises(anyio.WouldBlock):
            limiter.acquire_nowait()

        limiter.resume()
        assert limiter.peek().remaining == 1
        assert limiter.statistics().tasks_waiting == 0

    @pytest.mark.parametrize("concurrency", [None, 1])
    async def test_what_it_makes_impossible_is_refused(self, concurrency: int | None) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, Granted):
                limiter.reconfigure("1/h")

        limiter = RateLimiter("5/h", observer=observe, concurrency=concurrency)
        with pytest.raises(ValueError, match="above the limit"):
            async with limiter.permit(2):
                pass

        assert limiter.peek().remaining == 1
        assert limiter.statistics().borrowed_tokens == 0

    async def test_a_scope_that_it_cancels(self) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, Granted):
                scope.cancel()

        limiter = RateLimiter("1/h", observer=observe)
        with anyio.CancelScope() as scope:
            await limiter.acquire()

        assert scope.cancelled_caught
        assert limiter.peek().remaining == 1


class Failing:
    """A policy of a user's own whose bucket fails from some instant on."""

    limit, window, unit, holds = 1, 10.0, "calls", False

    def bucket(self) -> Any:
        return FailingBucket(WindowTokenBucket(1, 10).bucket(), anyio.current_time() + 10)


class FailingBucket:
    def __init__(self, bucket: Any, since: float) -> None:
        self._bucket = bucket
        self._since = since

    def delay(self, now: float, cost: int) -> float:
        if now >= self._since:
            raise OSError

        return float(self._bucket.delay(now, cost))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bucket, name)


@pytest.mark.timing
async def test_the_head_is_told_of_an_error_that_it_meets_itself() -> None:
    limiter = RateLimiter(Failing())
    await limiter.acquire()
    start = anyio.current_time()
    with anyio.fail_after(100), pytest.raises(OSError):  # noqa: PT011 - it has no message
        await limiter.acquire()

    assert anyio.current_time() == start + 10
