"""Virtual time through AnyIO, on both backends."""

import math
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from operator import itemgetter

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.testing import virtual_backends, wait_idle
from anythrottle.testing._backends import stall

Backend = tuple[str, dict[str, object]]


@pytest.fixture(params=virtual_backends(), ids=itemgetter(0))
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.param
    return backend


@pytest.fixture(params=["asyncio", "trio"])
def real_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


class TestVirtualBackends:
    def test_names(self) -> None:
        assert [name for name, _ in virtual_backends()] == ["asyncio", "trio"]

    def test_each_run_has_a_new_clock(self, anyio_backend: Backend) -> None:
        name, options = anyio_backend

        async def main() -> tuple[float, float]:
            start = anyio.current_time()
            await anyio.sleep(5.0)
            return start, anyio.current_time()

        runs = [anyio.run(main, backend=name, backend_options=options) for _ in range(3)]
        assert runs == [(0.0, 5.0)] * 3

    @pytest.mark.parametrize("seconds", [5.0, 6.0])
    async def test_each_test_has_a_new_clock(self, seconds: float) -> None:
        assert anyio.current_time() == 0.0
        await anyio.sleep(seconds)
        assert anyio.current_time() == seconds

    @given(st.floats(0.0, 1e9))
    async def test_each_hypothesis_example_has_a_new_clock(self, seconds: float) -> None:
        assert anyio.current_time() == 0.0
        await anyio.sleep(seconds)
        assert anyio.current_time() == seconds

    @pytest.fixture
    async def after_an_hour(self) -> AsyncGenerator[float]:
        await anyio.sleep(3600)
        yield anyio.current_time()
        await anyio.sleep(3600)
        assert anyio.current_time() == 7201.0

    async def test_async_fixtures_share_their_test_s_clock(self, after_an_hour: float) -> None:
        assert anyio.current_time() == after_an_hour == 3600.0
        await anyio.sleep(1.0)

    async def test_sleeps_add_up_as_floats_do(self) -> None:
        expected = 0.0
        for _ in range(30):
            expected += 0.1
            await anyio.sleep(0.1)
            assert anyio.current_time() == expected

    async def test_a_sleep_never_ends_early_or_late(self) -> None:
        # Where now + (deadline - now) is not the deadline, in floats.
        await anyio.sleep(0.1)
        await anyio.sleep_until(0.3)
        assert anyio.current_time() == 0.3
        await anyio.sleep_until(1.0)
        assert anyio.current_time() == 1.0
        await anyio.sleep_until(0.5)
        assert anyio.current_time() == 1.0

    async def test_tasks_wake_in_the_order_of_their_timers(self) -> None:
        woken: list[tuple[float, float]] = []

        async def sleeper(seconds: float) -> None:
            await anyio.sleep(seconds)
            woken.append((seconds, anyio.current_time()))

        seconds = [3.0, 1.0, math.nextafter(1.0, 2.0), 2.0, 0.5]
        async with anyio.create_task_group() as task_group:
            for each in seconds:
                task_group.start_soon(sleeper, each)

        assert woken == [(each, each) for each in sorted(seconds)]

    async def test_time_outs(self) -> None:
        with anyio.move_on_after(1.5) as scope:
            await anyio.sleep_forever()

        assert scope.cancelled_caught
        assert anyio.current_time() == 1.5
        with anyio.move_on_after(1.0) as scope:
            await anyio.sleep(0.25)

        assert not scope.cancelled_caught
        # The time-out that was left unused is not jumped to.
        await anyio.sleep(10.0)
        assert anyio.current_time() == 11.75

    async def test_a_shielded_sleep_in_a_cancelled_scope_ends(self) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5.0)

        assert anyio.current_time() == 5.0

    async def test_a_million_seconds_pass_in_next_to_no_time(self) -> None:
        began = time.monotonic()
        for _ in range(100):
            await anyio.sleep(10_000)

        assert anyio.current_time() == 1_000_000
        # At the most in the 15 minutes that a test has.
        assert time.monotonic() - began < 900

    async def test_threads_are_waited_for_while_no_timer_is_pending(self) -> None:
        assert await anyio.to_thread.run_sync(lambda: 42) == 42
        assert anyio.current_time() == 0.0

    def test_without_trio_there_is_asyncio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "anythrottle.testing._virtual_trio", raising=False)
        monkeypatch.setitem(sys.modules, "trio", None)
        assert [name for name, _ in virtual_backends()] == ["asyncio"]

    def test_trio_is_never_left_out_for_another_reason(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "anythrottle.testing._virtual_trio", None)
        with pytest.raises(ModuleNotFoundError, match="_virtual_trio"):
            virtual_backends()

    def test_importing_needs_neither_trio_nor_pytest(self) -> None:
        program = "import anythrottle.testing, sys; assert not {'trio', 'pytest'} & {*sys.modules}"
        subprocess.run([sys.executable, "-c", program], check=True)


class TestWaitIdle:
    async def test_does_not_move_the_clock(self) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(anyio.sleep, 1e-9)
            for _ in range(3):
                await wait_idle()
                assert anyio.current_time() == 0.0

        assert anyio.current_time() == 1e-9

    async def test_waits_for_chains_of_wake_ups(self) -> None:
        links = [anyio.Event() for _ in range(20)]
        woken: list[int] = []

        async def link(number: int) -> None:
            await links[number].wait()
            woken.append(number)
            if number:
                links[number - 1].set()

        async with anyio.create_task_group() as task_group:
            for number in range(20):
                task_group.start_soon(link, number)

            await wait_idle()
            assert woken == []
            links[-1].set()
            await wait_idle()
            assert woken == list(reversed(range(20)))

    async def test_waits_for_tasks_that_only_pass_checkpoints(self) -> None:
        passed = 0

        async def walker() -> None:
            nonlocal passed
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
                passed += 1

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(walker)
            await wait_idle()
            assert passed == 50

    async def test_a_task_that_is_due_is_not_blocked(self) -> None:
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await anyio.sleep(seconds)
            woken.append(seconds)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(sleeper, 1.0)
            task_group.start_soon(sleeper, 2.0)
            await wait_idle()
            stall(1.0)
            await wait_idle()
            assert woken == [1.0]
            assert anyio.current_time() == 1.0

    async def test_several_callers_return_together(self) -> None:
        returned: list[float] = []

        async def caller() -> None:
            await wait_idle()
            returned.append(anyio.current_time())

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(anyio.sleep, 1.0)
            for _ in range(3):
                task_group.start_soon(caller)

            await wait_idle()
            await anyio.sleep(0.5)
            assert returned == [0.0, 0.0, 0.0]

    async def test_without_other_tasks(self) -> None:
        await wait_idle()
        assert anyio.current_time() == 0.0

    async def test_can_be_cancelled(self) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await wait_idle()

        assert scope.cancelled_caught

    async def test_a_cancelled_caller_leaves_nothing_behind(self) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(wait_idle)
            await anyio.lowlevel.checkpoint()
            task_group.cancel_scope.cancel()

        await anyio.sleep(1.0)
        assert anyio.current_time() == 1.0

    def test_on_a_real_clock(self, real_backend: str) -> None:
        async def main() -> None:
            woken = False

            async def other() -> None:
                nonlocal woken
                await anyio.lowlevel.checkpoint()
                woken = True

            async with anyio.create_task_group() as task_group:
                task_group.start_soon(other)
                await wait_idle()
                assert woken

        anyio.run(main, backend=real_backend)


class TestStall:
    async def test_lets_nothing_run_and_what_is_due_runs_late(self) -> None:
        woken: list[tuple[float, float]] = []

        async def sleeper(seconds: float) -> None:
            await anyio.sleep(seconds)
            woken.append((seconds, anyio.current_time()))

        async with anyio.create_task_group() as task_group:
            for seconds in (1.0, 2.0, 4.0):
                task_group.start_soon(sleeper, seconds)

            await wait_idle()
            stall(2.5)
            assert anyio.current_time() == 2.5
            assert woken == []

        assert sorted(woken) == [(1.0, 2.5), (2.0, 2.5), (4.0, 4.0)]

    async def test_refuses_going_back(self) -> None:
        with pytest.raises(ValueError, match="seconds must be a finite number, 0 or more, not -1"):
            stall(-1)

    def test_refuses_a_real_clock(self, real_backend: str) -> None:
        async def main() -> None:
            with pytest.raises(RuntimeError, match=r"only a virtual clock .* virtual_backends\(\)"):
                stall(1.0)

        anyio.run(main, backend=real_backend)

    def test_needs_an_event_loop(self) -> None:
        with pytest.raises(RuntimeError):
            stall(1.0)
