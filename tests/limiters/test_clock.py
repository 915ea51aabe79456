"""G8 and G9: one limiter in many runs, and clocks of every kind."""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count, pairwise
from typing import Any, TypeAlias

import anyio
import anyio.from_thread
import pytest

from anythrottle import (
    LimitExceeded,
    RateLimiter,
    WindowTokenBucket,
)
from anythrottle.testing import virtual_backends, wait_idle
from anythrottle.testing._backends import stall
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.conftest import Run
from tests.limiters.tools import Counts, Crowd, assert_exact, latest_start, tasks, turn_back
from tests.stopwatch import RealTime, Stopwatch

Backend: TypeAlias = tuple[str, dict[str, object]]

BACKENDS: dict[str, Backend] = {
    **{f"{name}-virtual": (name, options) for name, options in virtual_backends()},
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

REAL = ["asyncio", "uvloop", "trio"]

PAIRS = [
    pytest.param(BACKENDS[first], BACKENDS[second], id=f"{first} then {second}")
    for first in BACKENDS
    for second in BACKENDS
]


def run_on(backend: Backend, function: Callable[..., Any], *args: Any) -> Any:
    name, options = backend
    return anyio.run(partial(function, *args), backend=name, backend_options=options)


@pytest.fixture
def new_loop() -> Iterator[Callable[[], VirtualEventLoop]]:
    """Makes loops that the test may stop, leave, and close itself."""
    loops: list[VirtualEventLoop] = []

    def new_loop() -> VirtualEventLoop:
        loops.append(VirtualEventLoop())
        return loops[-1]

    yield new_loop
    for loop in loops:
        loop.close()


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.promise("G8")
class TestSeveralRuns:
    def test_limits_are_kept(self, first: Backend, second: Backend) -> None:
        limiter = RateLimiter("2/h")
        watch = Stopwatch()

        async def spend() -> None:
            await limiter.acquire(2)

        async def ask() -> None:
            assert watch.may_be_left(3600, limiter.peek().retry_after)
            with pytest.raises(LimitExceeded) as raised:
                limiter.acquire_nowait()

            assert watch.may_be_left(3600, raised.value.retry_after)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await limiter.acquire()

            assert watch.may_be_left(3600, limiter.peek().retry_after)

        run_on(first, spend)
        # Outside of any run, by real elapsed time.
        assert watch.may_be_left(3600, limiter.peek().retry_after)
        with pytest.raises(LimitExceeded):
            limiter.acquire_nowait()

        run_on(second, ask)

    def test_a_pause_is_kept(self, first: Backend, second: Backend) -> None:
        limiter = RateLimiter()
        watch = Stopwatch()

        async def pause() -> None:
            limiter.pause(3600)

        async def ask() -> float:
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait()

            return limiter.statistics().paused_for

        run_on(first, pause)
        assert watch.may_be_left(3600, limiter.statistics().paused_for)
        assert watch.may_be_left(3600, run_on(second, ask))

    def test_an_endless_pause_is_kept(self, first: Backend, second: Backend) -> None:
        limiter = RateLimiter()

        async def pause() -> None:
            limiter.pause(math.inf)

        async def resume() -> None:
            assert limiter.peek().retry_after == math.inf
            limiter.resume()
            await limiter.acquire()

        run_on(first, pause)
        run_on(second, resume)

    @pytest.mark.parametrize("shared", [False, True], ids=["int", "CapacityLimiter"])
    def test_what_a_dead_run_held_is_let_go(
        self, first: Backend, second: Backend, shared: bool
    ) -> None:
        capacity = anyio.CapacityLimiter(2)
        policy = WindowTokenBucket(3, 3600, measure="end")
        limiter = RateLimiter(policy, "1000/s", concurrency=capacity if shared else 2)

        async def hold() -> None:
            await limiter.permit().__aenter__()
            await limiter.__aenter__()

        async def use() -> None:
            async with limiter, limiter:
                assert limiter.statistics().borrowed_tokens == 2

            # What a dead run held has not started to count.
            assert limiter.peek().remaining == 1
            assert limiter.statistics().borrowed_tokens == 0
            assert capacity.borrowed_tokens == 0

        run_on(first, hold)
        run_on(second, use)

    def test_the_end_of_a_dead_call_changes_nothing(self, first: Backend, second: Backend) -> None:
        limiter = RateLimiter(concurrency=2)

        async def hold() -> Any:
            permit = limiter.permit()
            await permit.__aenter__()
            await limiter.__aenter__()
            return permit

        async def use(permit: Any) -> None:
            async with limiter, limiter:
                # A finalizer of the dead run comes late.
                await permit.__aexit__(None, None, None)
                permit.refund()
                assert limiter.statistics().borrowed_tokens == 2

            await limiter.__aexit__(None, None, None)
            assert limiter.statistics().borrowed_tokens == 0

        run_on(second, use, run_on(first, hold))

    def test_waiters_of_a_cancelled_run_are_forgotten(
        self, first: Backend, second: Backend
    ) -> None:
        limiter = RateLimiter("1/h")

        async def leave() -> None:
            async with anyio.create_task_group() as task_group:
                await limiter.acquire()
                for _ in range(3):
                    task_group.start_soon(limiter.acquire)

                await wait_idle()
                assert limiter.statistics().tasks_waiting == 3
                task_group.cancel_scope.cancel()

        async def use() -> None:
            assert limiter.statistics().tasks_waiting == 0
            assert limiter.peek().reason == "rate"
            with anyio.CancelScope() as scope:
                scope.cancel()
                await limiter.acquire()

        run_on(first, leave)
        run_on(second, use)

    def test_waits_go_on(self, first: Backend, second: Backend) -> None:
        """A limiter that waits in one run waits in the next, as if it were new."""
        limiter = RateLimiter(WindowTokenBucket(1, 0.005))

        async def use() -> int:
            granted = 0

            async def call() -> None:
                nonlocal granted
                await limiter.acquire()
                granted += 1

            async with anyio.create_task_group() as task_group:
                for _ in range(3):
                    task_group.start_soon(call)

            return granted

        assert run_on(first, use) == 3
        assert run_on(second, use) == 3
        assert run_on(first, use) == 3


@pytest.mark.promise("G8")
class TestAcrossRuns:
    def test_a_question_does_not_count_what_a_dead_run_held(self, run: Run) -> None:
        limiter = RateLimiter("5/h", concurrency=1)

        async def hold() -> None:
            await limiter.permit().__aenter__()

        async def ask() -> None:
            # It says what an acquire would find.
            assert limiter.peek().allowed
            assert limiter.statistics().borrowed_tokens == 0
            async with limiter:
                pass

        run(hold)
        run(ask)

    @pytest.mark.parametrize("first", REAL)
    @pytest.mark.parametrize("second", REAL)
    def test_no_window_is_crowded_by_a_change_of_runs(self, first: str, second: str) -> None:
        window = 0.02
        limiter = RateLimiter(WindowTokenBucket(1, window))
        grants: list[tuple[float, int]] = []

        async def use() -> None:
            for _ in range(2):
                await limiter.acquire()
                # From the grant to a reading of the clock, any time may pass.
                grants.append((latest_start(limiter), 1))
                assert grants[-1][0] <= time.monotonic()

        run_on(BACKENDS[first], use)
        run_on(BACKENDS[second], use)
        assert_exact(grants, 1, window)

    @pytest.mark.parametrize("first", REAL)
    @pytest.mark.parametrize("second", REAL)
    def test_a_stall_in_a_change_of_runs_makes_nothing_come_back_sooner(
        self, first: str, second: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter = RateLimiter("1/h")
        starts: list[float] = []
        real = time.monotonic
        looks = count()

        async def use() -> None:
            # As if the machine stood still for a second before each look at the clock.
            monkeypatch.setattr(time, "monotonic", lambda: real() + next(looks))
            limiter.peek()
            with suppress(LimitExceeded):
                limiter.acquire_nowait()

            starts.append(latest_start(limiter))

        run_on(BACKENDS[first], use)
        run_on(BACKENDS[second], use)
        assert starts[1] >= starts[0]

    def test_waiters_of_a_loop_that_is_gone_are_forgotten(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter("1/h")
        loop = new_loop()

        async def wait() -> None:
            await limiter.acquire()
            waiting.append(asyncio.ensure_future(limiter.acquire()))
            await asyncio.sleep(0)

        waiting: list[asyncio.Future[None]] = []
        loop.run_until_complete(wait())
        assert limiter.statistics().tasks_waiting == 1
        loop.close()
        # Its task never ends: nobody will ever cancel it.
        waiting[0]._log_destroy_pending = False  # type: ignore[attr-defined]

        async def use() -> None:
            await limiter.acquire()
            assert limiter.statistics().tasks_waiting == 0

        anyio.run(use, backend_options={"loop_factory": VirtualEventLoop})

    def test_waiters_of_a_loop_that_is_gone_do_not_stand_in_the_way_outside_of_one(
        self, real_time: RealTime
    ) -> None:
        limiter = RateLimiter("1/s")
        loop = asyncio.new_event_loop()
        waiting: list[asyncio.Future[None]] = []

        async def wait() -> None:
            await limiter.acquire()
            waiting.append(asyncio.ensure_future(limiter.acquire()))
            await asyncio.sleep(0)

        loop.run_until_complete(wait())
        loop.close()
        waiting[0]._log_destroy_pending = False  # type: ignore[attr-defined]
        real_time.now += 2
        assert limiter.peek().allowed
        limiter.acquire_nowait()

    def test_a_loop_that_is_stopped_and_goes_on_keeps_its_waiters(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter("1/h")
        loop = new_loop()
        granted: list[tuple[str, float]] = []

        async def call(name: str) -> None:
            await limiter.acquire()
            granted.append((name, loop.time()))

        async def start() -> list[asyncio.Task[None]]:
            calls = [asyncio.ensure_future(call(name)) for name in "abc"]
            await asyncio.sleep(1800)
            return calls

        async def more() -> None:
            assert limiter.statistics().tasks_waiting == 2
            await call("d")

        async def finish(calls: list[asyncio.Task[None]]) -> None:
            await asyncio.gather(*calls)

        calls = loop.run_until_complete(start())
        limiter.pause(0)
        loop.run_until_complete(more())
        loop.run_until_complete(finish(calls))
        assert granted == [("a", 0.0), ("b", 3600.0), ("c", 7200.0), ("d", 10800.0)]

    def test_who_waits_in_a_loop_that_was_left_waits_anew_when_it_goes_on(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter(concurrency=1)
        left, other = new_loop(), new_loop()
        ended: list[str] = []

        async def call(name: str) -> None:
            async with limiter.permit():
                await asyncio.sleep(1)
                ended.append(name)

        async def start() -> list[asyncio.Task[None]]:
            calls = [asyncio.create_task(call(name)) for name in "abc"]
            await asyncio.sleep(0.5)
            return calls

        async def finish(calls: list[asyncio.Task[None]]) -> None:
            async with asyncio.timeout(100):
                await asyncio.gather(*calls)

        calls = left.run_until_complete(start())
        other.run_until_complete(call("d"))
        left.run_until_complete(finish(calls))
        assert ended[0] == "d"
        assert sorted(ended) == ["a", "b", "c", "d"]
        assert limiter.statistics().borrowed_tokens == 0

    def test_who_waits_in_a_loop_that_was_left_can_be_cancelled_later(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter("2/h")
        left, other = new_loop(), new_loop()

        async def start() -> list[asyncio.Task[None]]:
            limiter.acquire_nowait()
            # One passes its checkpoint, the other waits.
            return [asyncio.create_task(limiter.acquire()) for _ in range(2)]

        async def use() -> None:
            assert limiter.statistics().tasks_waiting == 1
            await limiter.acquire()
            assert limiter.statistics().tasks_waiting == 0

        calls = left.run_until_complete(start())
        # What the loop that was left held is let go, and who waited there is forgotten.
        other.run_until_complete(use())
        for call in calls:
            call.cancel()

        left.run_until_complete(asyncio.wait(calls))
        assert all(call.cancelled() for call in calls)
        assert limiter.statistics().tasks_waiting == 0
        assert limiter.peek().remaining == 0

    @pytest.mark.parametrize("enter", ["acquire", "permit"])
    def test_who_goes_on_in_a_loop_that_was_left_makes_no_tokens(
        self, enter: str, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter("2/s")
        left, other = new_loop(), new_loop()

        async def call() -> None:
            if enter == "acquire":
                await limiter.acquire()
            else:
                await limiter.permit().__aenter__()

        async def start() -> asyncio.Task[None]:
            limiter.acquire_nowait(0)
            # It has been granted a turn, and passes its checkpoint.
            return asyncio.create_task(call())

        async def use() -> int | None:
            limiter.acquire_nowait(0)
            await asyncio.sleep(10)
            return limiter.peek(0).remaining

        granted = left.run_until_complete(start())
        other.run_until_complete(use())
        left.run_until_complete(asyncio.wait([granted]))
        # Whether it was refused or let pass is no matter here.
        granted.exception()
        assert other.run_until_complete(use()) == 2

    def test_a_slot_that_comes_in_a_loop_that_was_left_is_of_use_there(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        capacity = anyio.CapacityLimiter(1)
        limiter = RateLimiter(concurrency=capacity)
        left, other = new_loop(), new_loop()
        outsider = object()

        async def start() -> asyncio.Task[Any]:
            await capacity.acquire_on_behalf_of(outsider)
            task = asyncio.ensure_future(permit.__aenter__())
            await asyncio.sleep(1)
            assert capacity.statistics().tasks_waiting == 1
            return task

        async def use() -> None:
            limiter.pause(0)

        async def go_on(task: asyncio.Task[Any]) -> None:
            capacity.release_on_behalf_of(outsider)
            await asyncio.wait_for(task, 1)
            assert capacity.borrowed_tokens == 1
            await permit.__aexit__(None, None, None)
            assert capacity.borrowed_tokens == 0

        permit = limiter.permit()
        task = left.run_until_complete(start())
        other.run_until_complete(use())
        left.run_until_complete(go_on(task))

    def test_who_waits_in_a_stopped_loop_finds_another_limiter(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter("1/s")
        left, other = new_loop(), new_loop()

        async def start() -> asyncio.Future[None]:
            await limiter.acquire()
            task = asyncio.ensure_future(limiter.acquire())
            await asyncio.sleep(0.5)
            return task

        async def use() -> None:
            limiter.reconfigure("1/s", "3/10s")

        async def finish(task: asyncio.Future[None]) -> None:
            await asyncio.wait_for(task, 10)

        task = left.run_until_complete(start())
        other.run_until_complete(use())
        left.run_until_complete(finish(task))
        assert limiter.statistics().tasks_waiting == 0

    def test_resume_from_outside_of_a_stopped_loop(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter()
        loop = new_loop()

        async def start() -> asyncio.Future[None]:
            limiter.pause(math.inf)
            task = asyncio.ensure_future(limiter.acquire())
            await asyncio.sleep(1)
            return task

        async def finish(task: asyncio.Future[None]) -> None:
            await asyncio.wait_for(task, 1)

        task = loop.run_until_complete(start())
        limiter.resume()
        loop.run_until_complete(finish(task))

    def test_the_same_loop_goes_on_in_another_thread(
        self, new_loop: Callable[[], VirtualEventLoop]
    ) -> None:
        limiter = RateLimiter("1/s")
        loop = new_loop()
        granted: list[float] = []

        async def call() -> None:
            await limiter.acquire()
            granted.append(loop.time())

        def in_a_thread() -> None:
            loop.run_until_complete(call())

        loop.run_until_complete(call())
        for _ in range(2):
            thread = threading.Thread(target=in_a_thread)
            thread.start()
            thread.join()

        loop.run_until_complete(call())
        assert granted == [0.0, 1.0, 2.0, 3.0]

    @pytest.mark.parametrize("first", ["asyncio", "trio"])
    @pytest.mark.parametrize("second", ["asyncio", "trio"])
    @pytest.mark.parametrize("concurrency", [None, 1])
    def test_two_loops_at_the_same_time(
        self, first: str, second: str, concurrency: int | None
    ) -> None:
        limiter = RateLimiter("2/h", concurrency=concurrency, name="shared")

        async def intrude() -> None:
            for _ in range(2):
                with pytest.raises(RuntimeError, match="another event loop") as raised:
                    async with limiter:
                        pytest.fail("it was let in")

                assert "'shared'" in str(raised.value)

            if concurrency is None:
                with pytest.raises(RuntimeError, match="another event loop"):
                    await limiter.acquire()

                with pytest.raises(RuntimeError, match="another event loop"):
                    limiter.acquire_nowait()

            with pytest.raises(RuntimeError, match="another event loop"):
                limiter.pause()

        async def main() -> None:
            async with limiter:
                await anyio.to_thread.run_sync(partial(anyio.run, intrude, backend=second))
                assert limiter.statistics().borrowed_tokens == (0 if concurrency is None else 1)

            assert limiter.peek().remaining == 1

        anyio.run(main, backend=first)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_from_a_worker_thread(self, backend: str) -> None:
        limiter = RateLimiter("2/h")

        async def main() -> None:
            await limiter.acquire(0)

            def in_a_thread() -> None:
                anyio.from_thread.run(limiter.acquire)

            await anyio.to_thread.run_sync(in_a_thread)
            assert limiter.peek().remaining == 1

        anyio.run(main, backend=backend)


@pytest.mark.promise("G8")
class TestOutsideOfALoop:
    def test_works_by_real_elapsed_time(self, real_time: RealTime) -> None:
        limiter = RateLimiter("2/10s")
        limiter.acquire_nowait(2)
        real_time.now += 4
        with pytest.raises(LimitExceeded) as raised:
            limiter.acquire_nowait()

        assert raised.value.retry_after == 6
        assert not limiter.peek().allowed
        real_time.now += 6
        assert limiter.peek().allowed
        limiter.acquire_nowait()
        assert repr(limiter) == "<RateLimiter 2 calls/10s>"

    def test_pause(self) -> None:
        limiter = RateLimiter()
        watch = Stopwatch()
        limiter.pause(3600)
        assert watch.may_be_left(3600, limiter.statistics().paused_for)
        with pytest.raises(LimitExceeded) as raised:
            limiter.acquire_nowait()

        assert raised.value.decision.reason == "pause"
        limiter.resume()
        limiter.acquire_nowait()

    def test_what_was_spent_before_the_first_run_counts_in_it(self, run: Run) -> None:
        limiter = RateLimiter("1/h")
        watch = Stopwatch()
        limiter.acquire_nowait()

        async def main() -> float:
            with pytest.raises(LimitExceeded):
                limiter.acquire_nowait()

            begun = anyio.current_time()
            await limiter.acquire()
            return anyio.current_time() - begun

        assert watch.may_be_left(3600, run(main))

    def test_a_pause_from_before_the_first_run_counts_in_it(self, run: Run) -> None:
        limiter = RateLimiter()
        watch = Stopwatch()
        limiter.pause(3600)

        async def main() -> float:
            await limiter.acquire()
            return anyio.current_time()

        assert watch.may_be_left(3600, run(main))

    def test_constructing_touches_neither_clock_nor_loop(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> float:
            pytest.fail("the clock was read")

        monkeypatch.setattr(time, "monotonic", fail)
        monkeypatch.setattr(time, "time", fail)
        monkeypatch.setattr(asyncio, "get_event_loop", fail)
        limiter = RateLimiter("20/10s", concurrency=5)
        limiter.permit()
        monkeypatch.undo()
        assert limiter.peek().allowed


@pytest.mark.timing
@pytest.mark.promise("G9")
class TestAnyClock:
    async def test_at_0_nothing_is_long_ago(self) -> None:
        assert anyio.current_time() == 0.0
        limiter = RateLimiter("1/s")
        limiter.acquire_nowait()
        with pytest.raises(LimitExceeded):
            limiter.acquire_nowait()

        await limiter.acquire()
        assert anyio.current_time() == 1.0

    async def test_a_pause_that_ends_at_0(self) -> None:
        limiter = RateLimiter()
        limiter.pause(0)
        limiter.acquire_nowait()
        await limiter.acquire()
        assert anyio.current_time() == 0.0

    async def test_a_clock_that_stands_still(self) -> None:
        limiter = RateLimiter("100/s", fast_acquire=True)
        for _ in range(100):
            await limiter.acquire()

        assert anyio.current_time() == 0.0
        with pytest.raises(LimitExceeded):
            limiter.acquire_nowait()

    @pytest.mark.parametrize("leap", [1.0, 1e3, 1e9, 1e12])
    async def test_a_clock_that_jumps_ahead(self, leap: float) -> None:
        limiter = RateLimiter("2/10s")
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b", "c", "d", "e")
            stall(leap)
            crowd.task_group.start_soon(crowd._call, "f", 1, {})

        due = max(10.0, leap)
        assert list(crowd.granted.values()) == [0.0, 0.0, due, due, due + 10, due + 10]

    async def test_a_clock_that_goes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limiter = RateLimiter("2/10s")
        await anyio.sleep(100)
        await limiter.acquire(2)
        turn_back(60)
        counts = Counts(monkeypatch)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            await crowd.join_all("a", "b", "c")
            turn_back(30)

        assert crowd.granted == {"a": 110.0, "b": 110.0, "c": 120.0}
        assert counts.parks < 10

    async def test_a_clock_that_goes_back_and_forth_crowds_no_window(self) -> None:
        limiter = RateLimiter("1/s")
        await anyio.sleep(10)
        grants: list[tuple[float, int]] = []
        async with tasks():
            for number in range(20):
                await limiter.acquire()
                grants.append((anyio.current_time(), 1))
                turn_back(0.75) if number % 2 else stall(0.5)

        assert_exact(grants, 1, 1.0)

    @pytest.mark.parametrize("window", [1e-5, 1e-9, 5e-324])
    async def test_due_in_one_ulp(self, window: float, monkeypatch: pytest.MonkeyPatch) -> None:
        stall(1e12)
        limiter = RateLimiter(WindowTokenBucket(1, window))
        counts = Counts(monkeypatch)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for name in range(10):
                task_group.start_soon(crowd._call, name, 1, {})

        instants = list(crowd.granted.values())
        assert instants[0] == 1e12
        for earlier, later in pairwise(instants):
            assert later == math.nextafter(earlier, math.inf)

        assert counts.parks <= 30

    async def test_a_window_of_a_few_ulps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stall(1e15)
        limiter = RateLimiter("2/s")
        counts = Counts(monkeypatch)
        async with tasks() as task_group:
            crowd = Crowd(limiter, task_group)
            for name in range(6):
                task_group.start_soon(crowd._call, name, 1, {})

        assert [at - 1e15 for at in crowd.granted.values()] == [0, 0, 1, 1, 2, 2]
        assert counts.parks <= 18

    @pytest.mark.parametrize("coarse", [0.001, 0.02])
    def test_timers_that_fire_early_do_not_make_it_spin(
        self, coarse: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """asyncio runs what is due within its clock's resolution; uvloop's timers are early too."""
        window = 0.04
        grants: list[tuple[float, int]] = []
        counts = Counts(monkeypatch)

        class HastySelector(selectors.DefaultSelector):
            now = 0.0

            def select(self, timeout: float | None = None) -> Any:
                self.now += max(0.0, (timeout or 0.0) - coarse)
                return super().select(0)

        class CoarseLoop(asyncio.SelectorEventLoop):
            _clock_resolution: float

            def __init__(self) -> None:
                self.selector = HastySelector()
                super().__init__(self.selector)
                self._clock_resolution = coarse

            def time(self) -> float:
                self.selector.now += 1e-6
                return self.selector.now

        async def main() -> None:
            limiter = RateLimiter(WindowTokenBucket(1, window))
            for _ in range(3):
                await limiter.acquire()
                grants.append((latest_start(limiter), 1))

        anyio.run(main, backend_options={"loop_factory": CoarseLoop})
        assert_exact(grants, 1, window)
        assert counts.parks <= 2 * 20
        # What lasts no longer than timers are early is not waited for, but slept over.
        assert grants[-1][0] - grants[0][0] < 2 * (window + 2 * coarse)

    async def test_the_wall_clock_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time", lambda: pytest.fail("the wall clock was asked"))
        limiter = RateLimiter("1/s")
        await limiter.acquire()
        await limiter.acquire()
        assert anyio.current_time() == 1.0
