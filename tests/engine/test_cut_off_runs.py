"""A throttler's run that was cut off where it stood: its loop is closed, or went on in a parent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from anythrottle import JobInterrupted, Throttler
from anythrottle._jobs import JobOf
from anythrottle._loops import process
from anythrottle._loops.process import Process
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.conftest import Run


class Jobs:
    """Jobs that return their names, the last of them when it may."""

    def __init__(self) -> None:
        self.may_end = False
        self.results: list[str] = []

    def named(self, name: str) -> Callable[[], Awaitable[str]]:
        async def job() -> str:
            if name == "c" and not self.may_end:
                await anyio.sleep_forever()

            return name

        return job

    async def consume(self, result: str) -> None:
        self.results.append(result)


class TestClosedLoop:
    def test_the_next_run_carries_on(self, run: Run) -> None:
        jobs = Jobs()
        throttler: Throttler[JobOf[str], str] = Throttler(
            map(jobs.named, "abcd"), jobs.consume, concurrency=2, per_time_window=100
        )
        loop = VirtualEventLoop()
        running = loop.create_task(throttler.run())
        loop.run_until_complete(wait_idle())
        assert jobs.results == ["a", "b", "d"]
        assert "running" in repr(throttler)
        loop.close()
        running._log_destroy_pending = False  # type: ignore[attr-defined]
        # Where it was, it is now; and it can be asked outside of any loop.
        assert throttler.statistics().running == 0
        assert "idle" in repr(throttler)
        assert len(throttler.remaining()) == 1
        jobs.may_end = True
        assert run(throttler.run).done == 4
        assert jobs.results == ["a", "b", "d", "c"]

    def test_an_awaitable_that_was_cut_off_is_collected(self, run: Run) -> None:
        jobs = Jobs()
        cut_off = jobs.named("c")()
        throttler: Throttler[JobOf[str], str] = Throttler([cut_off], jobs.consume)
        loop = VirtualEventLoop()
        running = loop.create_task(throttler.run())
        loop.run_until_complete(wait_idle())
        loop.close()
        running._log_destroy_pending = False  # type: ignore[attr-defined]

        async def main() -> None:
            assert (await throttler.run()).failed == 1
            assert isinstance((await throttler.exceptions.receive()).error, JobInterrupted)

        run(main)

    def test_a_loop_that_only_stands_still_is_still_busy(self, run: Run) -> None:
        jobs = Jobs()
        throttler: Throttler[JobOf[str], str] = Throttler(map(jobs.named, "abcd"), jobs.consume)
        loop = VirtualEventLoop()
        running = loop.create_task(throttler.run())
        loop.run_until_complete(wait_idle())
        with pytest.raises(anyio.BusyResourceError):
            run(throttler.run)

        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(running)

        loop.close()


async def test_in_a_forked_child_the_parents_run_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as one process can be both: the parent's run goes on beside."""
    monkeypatch.setattr(process, "_current", Process())
    jobs = Jobs()
    throttler: Throttler[JobOf[str], str] = Throttler(
        map(jobs.named, "abcd"), jobs.consume, concurrency=2
    )
    with anyio.fail_after(60):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttler.run)
            await wait_idle()
            process._enter_child()
            process._current.inherited = None
            jobs.may_end = True
            assert (await throttler.run()).done == 4
            task_group.cancel_scope.cancel()

    assert jobs.results == ["a", "b", "d", "c"]
    assert throttler.remaining() == []
