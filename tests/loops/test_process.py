"""G8: in a forked child, the parent's run counts as ended."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio import NoEventLoopError

from anythrottle import RateLimiter
from anythrottle._loops import process
from anythrottle._loops.clock import LoopClock, loop_of, native_loop
from anythrottle._loops.event_loop import Parked
from anythrottle._loops.process import Process
from anythrottle.testing import wait_idle
from tests.forking import PARENTS
from tests.limiters.tools import is_trio, tasks

pytestmark = pytest.mark.promise("G8")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("parent", PARENTS)
def test_programs_that_fork(parent: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.forking", parent],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Does what is done in a forked child, for what begins in the test."""
    monkeypatch.setattr(process, "_current", Process())
    return process._enter_child


class TestRun:
    async def test_that_of_the_parent_has_ended(self, fork: Callable[[], None]) -> None:
        loop = native_loop()
        run = loop_of(loop)
        assert run.is_current()
        assert run.goes_on_here(loop)
        fork()
        assert not run.is_current()
        assert not run.is_here()
        assert not run.goes_on_here(loop)
        assert run.is_over()
        assert run.has_ended()

    async def test_another_one_may_go_on(self, fork: Callable[[], None]) -> None:
        fork()
        process._current.inherited = None
        run = loop_of(native_loop())
        assert run.is_current()
        assert run.is_here()
        assert not run.is_over()
        assert not run.has_ended()
        fork()
        assert not run.is_current()

    async def test_nobody_is_woken_who_waits_in_the_parent(
        self, fork: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, who = loop_of(native_loop()), Parked()
        woken = False

        async def park() -> None:
            nonlocal woken
            await run.park(who)
            woken = True

        async with tasks() as task_group:
            task_group.start_soon(park)
            await wait_idle()
            fork()
            run.wake(who)
            run.wake(who)
            await wait_idle()
            task_group.cancel_scope.cancel()

        assert not woken


class TestCurrentLoop:
    async def test_a_loop_of_trio_that_is_inherited_is_none(self, fork: Callable[[], None]) -> None:
        loop = native_loop()
        fork()
        if is_trio():
            with pytest.raises(NoEventLoopError):
                native_loop()
        else:
            # Only asyncio can know whether its loop is one that was inherited.
            assert native_loop() is loop

    async def test_on_top_of_one_there_may_be_a_loop_of_asyncio(
        self, fork: Callable[[], None]
    ) -> None:
        loop = native_loop()
        process._current.inherited = loop
        if is_trio():
            with pytest.raises(NoEventLoopError):
                native_loop()
        else:
            assert native_loop() is asyncio.get_running_loop() is loop

    async def test_without_trio_there_is_none_to_inherit(
        self, fork: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "trio.lowlevel")
            fork()

        assert process._current.inherited is None

    def test_outside_of_a_loop(self) -> None:
        with pytest.raises(NoEventLoopError):
            native_loop()


class TestRunClock:
    async def test_goes_over_to_the_real_clock(self, fork: Callable[[], None]) -> None:
        shifts: list[float] = []
        clock = LoopClock(shifts.append, "owner")
        clock.loop()
        fork()
        clock.peek()
        assert len(shifts) == 2
        assert (clock.latest is None) == is_trio()


class TestRateLimiter:
    async def test_what_is_held_is_let_go_and_who_waits_is_forgotten(
        self, fork: Callable[[], None]
    ) -> None:
        limiter = RateLimiter("9/h", concurrency=1)
        async with tasks() as task_group:
            await limiter.permit().__aenter__()
            task_group.start_soon(limiter.permit().__aenter__)
            await wait_idle()
            assert limiter.statistics().tasks_waiting == 1
            fork()
            assert limiter.statistics().tasks_waiting == 0
            assert limiter.statistics().borrowed_tokens == 0
            assert limiter.peek().remaining == 8
            task_group.cancel_scope.cancel()


async def test_a_loop_that_nothing_was_forked_from_is_used_as_ever() -> None:
    before = process.current_process()
    with anyio.fail_after(60):
        await RateLimiter("9/h", concurrency=1).run(anyio.sleep, 0)

    assert process.current_process() is before
    assert not before.left
