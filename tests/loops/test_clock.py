"""The clock of the loop that runs, before, in and after a run of it."""

from __future__ import annotations

import asyncio
import gc
import time
from types import SimpleNamespace
from typing import ClassVar

import anyio
import pytest
from anyio import NoEventLoopError

from anythrottle._loops import clock
from anythrottle._loops.clock import LoopClock, loop_of, native_loop, weakly
from tests.conftest import Run
from tests.stopwatch import RealTime


class TestLoopClock:
    def test_outside_of_a_loop_it_is_the_real_clock(self) -> None:
        clock = LoopClock(lambda _: None, "owner")
        before = time.monotonic()
        assert before <= clock.now() <= clock.peek() <= time.monotonic()
        with pytest.raises(NoEventLoopError):
            clock.loop()

    def test_tells_its_owner_of_each_change_of_loops(self, run: Run) -> None:
        shifts: list[float] = []
        clock = LoopClock(shifts.append, "owner")

        async def main() -> None:
            before = len(shifts)
            assert clock.now() == 0.0
            assert clock.loop() is clock.latest
            await anyio.sleep(50)
            assert clock.now() == clock.peek() == 50.0
            assert len(shifts) == before + 1

        real = time.monotonic()
        run(main)
        assert shifts == [pytest.approx(-real, abs=time.monotonic() - real)]
        # Fifty seconds have passed for whoever remembers instants of the first run.
        assert clock.estimate() == pytest.approx(50.0, abs=time.monotonic() - real)
        run(main)
        assert shifts[1:] == [pytest.approx(-50.0, abs=time.monotonic() - real)]

    def test_a_question_leaves_a_loop_that_has_ended(self, run: Run) -> None:
        shifts: list[float] = []
        clock = LoopClock(shifts.append, "owner")

        async def main() -> None:
            assert clock.now() == 0.0

        before = time.monotonic()
        run(main)
        assert clock.latest is not None
        assert before <= clock.peek() <= time.monotonic()
        assert clock.latest is None
        assert sum(shifts) == pytest.approx(0.0, abs=time.monotonic() - before)

    def test_goes_on_after_a_loop(self, run: Run, real_time: RealTime) -> None:
        clock = LoopClock(lambda _: None, "owner")

        async def main() -> None:
            assert clock.now() == 0.0

        run(main)
        before = clock.now()
        real_time.now += 10.0
        assert clock.now() - before == 10.0


class TestWeakly:
    def test_it_calls_the_method_of_an_object_and_does_not_keep_it_alive(self) -> None:
        class Owner:
            shifts: ClassVar[list[float]] = []

            def shift(self, seconds: float) -> None:
                self.shifts.append(seconds)

        owner = Owner()
        call = weakly(owner.shift)
        call(1.5)
        del owner
        gc.collect()
        call(2.5)
        assert Owner.shifts == [1.5]


async def test_a_loop_that_anyio_does_not_see_has_no_cancel_scopes(
    anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if anyio_backend_name == "asyncio":
        seen = loop_of(native_loop())
        with anyio.CancelScope() as scope:
            scope.cancel()
            assert seen.is_cancelled()
            hidden = SimpleNamespace(native_token=object())
            monkeypatch.setattr(clock, "_here", SimpleNamespace(latest=lambda: None))
            monkeypatch.setattr(clock, "current_token", lambda: hidden)
            assert not loop_of(asyncio.get_running_loop()).is_cancelled()
