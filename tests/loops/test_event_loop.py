"""Native wake-ups on asyncio, and what they have in common with Trio's."""

from __future__ import annotations

import asyncio
import math
import time

import anyio
import pytest

from anythrottle._loops.clock import loop_of, native_loop
from anythrottle._loops.event_loop import EventLoop, Parked
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests import conftest
from tests.limiters.tools import tasks, turn_back


def sleeper() -> Parked:
    parked = Parked()
    parked.parked = None
    return parked


def this_loop() -> EventLoop:
    return loop_of(native_loop())


async def park(run: EventLoop, who: Parked) -> None:
    await run.park(who)


class TestParking:
    @pytest.mark.parametrize("times", [1, 3])
    async def test_a_wake_ends_a_park(self, times: int) -> None:
        run, who = this_loop(), sleeper()
        async with tasks() as task_group:
            task_group.start_soon(park, run, who)
            await wait_idle()
            assert who.parked is not None
            for _ in range(times):
                run.wake(who)

            assert who.parked is None

    async def test_to_wake_who_is_not_parked_is_nothing(self) -> None:
        run, who = this_loop(), sleeper()
        run.wake(who)
        async with tasks() as task_group:
            task_group.start_soon(park, run, who)
            await wait_idle()
            assert who.parked is not None
            run.wake(who)

    async def test_to_wake_who_was_cancelled_is_nothing(self) -> None:
        run, who = this_loop(), sleeper()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run.park(who)

        assert scope.cancelled_caught
        run.wake(who)

    @pytest.mark.timing
    async def test_until_an_instant(self) -> None:
        run, who = this_loop(), sleeper()
        assert not await run.park_until(who, 2.5)
        assert run.time() == anyio.current_time() == 2.5
        # Too late to be woken; too late to matter.
        run.wake(who)
        assert not await run.park_until(who, 2.0)
        assert run.time() == 2.5

    @pytest.mark.timing
    @pytest.mark.parametrize("instant", [5.0, math.inf])
    async def test_a_wake_before_the_instant(self, instant: float) -> None:
        run, who = this_loop(), sleeper()
        woken: list[bool] = []

        async def parked() -> None:
            woken.append(await run.park_until(who, instant))

        async with tasks() as task_group:
            task_group.start_soon(parked)
            await anyio.sleep(1)
            run.wake(who)

        assert woken == [True]
        # No timer was left behind.
        assert run.time() == 1.0

    async def test_knows_whether_it_is_current(self) -> None:
        run = this_loop()
        assert run.is_current()
        assert not run.is_over()
        assert run.goes_on_here(native_loop())
        assert not await anyio.to_thread.run_sync(run.is_current)
        assert not await anyio.to_thread.run_sync(run.is_over)

    def test_knows_when_it_is_over(self, run: conftest.Run) -> None:
        async def main() -> EventLoop:
            return this_loop()

        first = run(main)
        assert not first.is_current()
        assert first.is_over()
        who = sleeper()
        first.wake(who)

        async def later() -> tuple[bool, bool, bool]:
            return first.is_current(), first.is_over(), first.goes_on_here(native_loop())

        assert run(later) == (False, True, False)

    @pytest.mark.timing
    async def test_remembers_how_far_it_was_behind_the_real_clock(self) -> None:
        run = this_loop()
        await anyio.sleep(1000)
        before = time.monotonic()
        assert run.time() == 1000.0
        assert before <= run.behind + 1000.0 <= time.monotonic()
        turn_back(10)
        assert run.time() == 990.0

    @pytest.mark.parametrize(
        ("backend", "options"),
        [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
        ids=["asyncio", "uvloop", "trio"],
    )
    def test_a_real_clock_is_read_in_full(self, backend: str, options: dict[str, object]) -> None:
        async def main() -> None:
            run, who = this_loop(), sleeper()
            # Mostly, they are not even milliseconds apart, and yet they differ.
            readings = {run.time() for _ in range(1000)}
            assert len(readings) > 100
            assert run.behind == 0.0
            before = time.monotonic()
            assert before <= run.time() <= time.monotonic()
            while run.time() < before + 0.003:
                await run.park_until(who, before + 0.003)

            assert time.monotonic() - before < 900

        anyio.run(main, backend=backend, backend_options=options)


class TestPosts:
    async def test_a_function_is_called_in_the_loop(self) -> None:
        run, called = this_loop(), anyio.Event()
        here: list[bool] = []

        def note() -> None:
            here.append(run.is_current())
            called.set()

        run.post(note)
        assert not here
        await called.wait()
        called = anyio.Event()
        await anyio.to_thread.run_sync(run.post, note)
        await called.wait()
        assert here == [True, True]

    def test_after_the_run_it_is_not(self, run: conftest.Run) -> None:
        async def main() -> EventLoop:
            return this_loop()

        called: list[int] = []
        run(main).post(lambda: called.append(1))
        run(main)
        assert not called

    def test_nor_in_a_child_process(
        self, run: conftest.Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def main() -> None:
            loop = this_loop()
            with monkeypatch.context() as patch:
                patch.setattr(loop._process, "left", True)
                loop.post(lambda: called.append(1))

            await wait_idle()

        called: list[int] = []
        run(main)
        assert not called


class TestAsyncioLoop:
    def test_a_waiter_of_a_closed_loop_is_left_alone(self) -> None:
        loop = VirtualEventLoop()
        who = sleeper()

        async def main() -> EventLoop:
            who.parked = loop.create_future()
            return this_loop()

        run = loop.run_until_complete(main())
        loop.close()
        run.wake(who)
        assert who.parked is None

    def test_a_natively_cancelled_waiter(self) -> None:
        async def main() -> None:
            run, who = this_loop(), sleeper()
            task = asyncio.ensure_future(run.park_until(who, math.inf))
            await asyncio.sleep(0)
            task.cancel()
            # Cancelled, but it has not resumed: there is nobody to wake any more.
            run.wake(who)
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

    def test_the_one_that_was_noted_last_is_suspected(self) -> None:
        async def main() -> None:
            run = this_loop()

            async def act(*, fails: bool) -> None:
                run.note_actor()
                if fails:
                    raise ZeroDivisionError

            actors = [asyncio.create_task(act(fails=fails)) for fails in (False, True)]
            await asyncio.wait(actors)
            assert run.is_alarmed()
            # Who comes then does not make it forget.
            await act(fails=False)
            assert run.is_alarmed()
            assert isinstance(actors[1].exception(), ZeroDivisionError)

        asyncio.run(main())

    def test_a_wake_leaves_no_timer_behind(self) -> None:
        loop = VirtualEventLoop()

        async def main() -> None:
            run, who = this_loop(), sleeper()
            loop.call_soon(run.wake, who)
            assert await run.park_until(who, 1e6)
            assert all(timer.cancelled() for timer in loop._scheduled)

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    def test_a_timer_and_a_wake_in_one_instant(self) -> None:
        async def main() -> None:
            run, who = this_loop(), sleeper()
            for first in ("timer", "wake"):
                instant = run.time() + 1.0
                task = asyncio.ensure_future(run.park_until(who, instant))
                if first == "wake":
                    asyncio.get_running_loop().call_at(instant, run.wake, who)

                await asyncio.sleep(0)
                if first == "timer":
                    asyncio.get_running_loop().call_at(instant, run.wake, who)

                assert await task == (first == "wake")
                assert run.time() == instant

        with asyncio.Runner(loop_factory=VirtualEventLoop) as runner:
            runner.run(main())
