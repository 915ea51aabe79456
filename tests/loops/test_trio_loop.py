"""Native wake-ups on Trio: what is special there."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import trio

from anythrottle import RateLimiter
from anythrottle._loops.clock import native_loop
from anythrottle._loops.event_loop import Parked
from anythrottle._loops.trio_loop import TrioLoop
from anythrottle.testing._virtual_trio import VirtualClock

GUEST_RUN = """
import asyncio, anyio, anythrottle, trio

limiter = anythrottle.RateLimiter("5/h")

async def guest():
    CALL

async def host():
    await limiter.acquire()
    done = asyncio.get_running_loop().create_future()
    trio.lowlevel.start_guest_run(
        guest,
        run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
        done_callback=done.set_result,
    )
    print(await done)

anyio.run(host)
"""


class TestTrioRun:
    def test_knows_its_own_token_only(self) -> None:
        async def main() -> tuple[TrioLoop, object]:
            run, token = TrioLoop(trio.lowlevel.current_trio_token()), native_loop()
            assert run.goes_on_here(token)
            return run, token

        first, token = trio.run(main)
        second, _ = trio.run(main)
        assert not second.goes_on_here(token)
        assert first.is_over()

    def test_a_wake_from_outside_the_run(self) -> None:
        """As from the host's side of a guest run: an event loop on top of another one."""

        async def main() -> bool:
            run, who = TrioLoop(trio.lowlevel.current_trio_token()), Parked()
            who.parked = None

            def wake_from_outside() -> None:
                assert not run.is_current()
                run.wake(who)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    trio.to_thread.run_sync, wake_when_parked, who, wake_from_outside
                )
                return await run.park_until(who, math.inf)

        def wake_when_parked(who: Parked, wake: object) -> None:
            while who.parked is None:
                pass

            assert callable(wake)
            wake()

        assert trio.run(main)

    def test_waits_for_as_long_by_trios_own_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rest: list[float] = []

        async def park(run: TrioLoop, who: Parked) -> None:
            rest.append(trio.current_effective_deadline() - trio.current_time())

        async def main() -> None:
            run = TrioLoop(trio.lowlevel.current_trio_token())
            await run.park_until(Parked(), run.time() + 1e6)

        monkeypatch.setattr(TrioLoop, "park", park)
        trio.run(main)
        assert rest == [pytest.approx(1e6, rel=1e-3)]

    def test_a_wake_after_the_run(self) -> None:
        who = Parked()

        async def main() -> TrioLoop:
            who.parked = trio.lowlevel.current_task()
            return TrioLoop(trio.lowlevel.current_trio_token())

        run = trio.run(main)
        run.wake(who)

    @pytest.mark.parametrize(
        "call", ["limiter.acquire_nowait()", "await limiter.acquire(5)", "await limiter.acquire()"]
    )
    def test_a_guest_run_is_another_loop_than_its_host(self, call: str) -> None:
        """Trio on top of asyncio, in one thread: two event loops at the same time."""
        # In a process of its own, which breaks if Trio is handed a future of asyncio.
        program = GUEST_RUN.replace("CALL", call)
        ended = subprocess.run(
            [sys.executable, "-c", program], check=False, capture_output=True, text=True
        )
        assert "in use in another event loop" in ended.stdout, ended.stdout + ended.stderr

    def test_questions_post_nothing_to_the_run(self) -> None:
        async def main() -> int:
            limiter = RateLimiter("5/s")
            await limiter.acquire()
            for _ in range(100):
                limiter.peek()
                limiter.statistics()
                repr(limiter)

            return trio.lowlevel.current_statistics().run_sync_soon_queue_size

        assert trio.run(main) == 0

    @pytest.mark.parametrize("clock", [None, VirtualClock()], ids=["real", "virtual"])
    def test_takes_a_token_of_trio_only(self, clock: trio.abc.Clock | None) -> None:
        async def main() -> None:
            with pytest.raises(AssertionError):
                TrioLoop(object())

        trio.run(main, clock=clock)
