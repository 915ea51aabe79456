"""UTC by a loop's clock, and quotas that reset at set times while the wall clock is set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FixedWindow, LimitExceeded, RateLimiter
from anythrottle._loops import utc
from anythrottle._loops.clock import LoopClock
from anythrottle._loops.utc import UtcReader
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.limiters.tools import Crowd, tasks
from tests.limiters.worlds import MIDNIGHT, wall_clock
from tests.properties import examples


class Clocks:
    """What the wall clock and the real one show, as the reader is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = MIDNIGHT
        self.real = 500.0
        fake = SimpleNamespace(time=lambda: self.wall, monotonic=lambda: self.real)
        monkeypatch.setattr(utc, "time", fake)

    def pass_by(self, seconds: float) -> None:
        """Let real time pass; the wall clock goes with it."""
        self.wall += seconds
        self.real += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


async def _use(clock: LoopClock) -> None:
    clock.now()


def reader_of(*, real: bool) -> Callable[[float], float]:
    """Return what reads UTC by a clock that is the real one, or a virtual one."""
    return partial(UtcReader().read, real_clock=real)


class TestOnTheRealClock:
    """The loop's clock and the real one are the same."""

    def test_it_is_what_the_wall_clock_says(self, clocks: Clocks) -> None:
        reader = reader_of(real=True)
        for _ in range(5):
            assert reader(clocks.real) == clocks.wall
            clocks.pass_by(1234.5)

    @pytest.mark.parametrize("change", [3600.0, -3600.0, 1.0, -1.0, 0.25, -0.25])
    def test_it_follows_when_that_is_set(self, clocks: Clocks, change: float) -> None:
        reader = reader_of(real=True)
        reader(clocks.real)
        clocks.pass_by(10)
        clocks.wall += change
        for _ in range(3):
            assert reader(clocks.real) == clocks.wall
            clocks.pass_by(10)

    def test_it_follows_a_clock_that_is_slewed(self, clocks: Clocks) -> None:
        reader = reader_of(real=True)
        for _ in range(50):
            assert reader(clocks.real) == clocks.wall
            clocks.pass_by(60)
            clocks.wall += 0.03

    def test_a_reading_of_the_loops_clock_that_is_a_little_old_does_no_harm(
        self, clocks: Clocks
    ) -> None:
        reader = reader_of(real=True)
        reader(clocks.real)
        clocks.pass_by(100)
        # As if the thread had been held up between the two readings.
        assert reader(clocks.real - 0.25) == clocks.wall - 0.25
        assert reader(clocks.real) == clocks.wall


class TestOnAVirtualClock:
    def test_it_goes_on_virtually_where_the_wall_clock_does_not(self, clocks: Clocks) -> None:
        reader = reader_of(real=False)
        begun = reader(0.0)
        assert begun == clocks.wall
        clocks.pass_by(0.002)
        assert reader(3600.0) == begun + 3600.0
        clocks.pass_by(0.002)
        # However small the step is.
        assert reader(3600.25) == begun + 3600.25

    def test_it_stands_still_at_once(self, clocks: Clocks) -> None:
        reader = reader_of(real=False)
        begun = reader(5.0)
        for _ in range(10):
            # Less than any two readings of one clock may be apart.
            clocks.pass_by(0.0005)
            assert reader(5.0) == begun

        assert reader(5.0005) == begun + 0.0005

    def test_it_stands_still_while_the_virtual_clock_does(self, clocks: Clocks) -> None:
        reader = reader_of(real=False)
        begun = reader(5.0)
        clocks.pass_by(40)
        assert reader(5.0) == begun
        assert reader(6.0) == begun + 1

    @pytest.mark.parametrize("step", [86_400.0, 0.75, 0.25, 0.0625])
    def test_a_patched_wall_clock_that_goes_with_it_is_followed(
        self, clocks: Clocks, step: float
    ) -> None:
        reader = reader_of(real=False)
        for number in range(5):
            clocks.wall = MIDNIGHT + number * step
            clocks.real += 0.0009765625
            assert reader(number * step) == clocks.wall

    def test_a_patched_wall_clock_that_is_set_is_followed(self, clocks: Clocks) -> None:
        reader = reader_of(real=False)
        reader(10.0)
        clocks.wall = 0.0
        assert reader(11.0) == 0.0
        assert reader(12.0) == 1.0

    @pytest.mark.parametrize(("drift", "followed"), [(0.5, False), (-0.5, False), (0.5625, True)])
    def test_a_wall_clock_that_drifts_by_half_a_second_was_not_set(
        self, clocks: Clocks, drift: float, followed: bool
    ) -> None:
        reader = reader_of(real=False)
        begun = reader(0.0)
        clocks.pass_by(100)
        clocks.wall += drift
        assert reader(1000.0) == (clocks.wall if followed else begun + 1000.0)

    def test_it_agrees_with_the_wall_clock_in_a_new_loop(self, clocks: Clocks, run: Run) -> None:
        clock = LoopClock(lambda _: None, "the owner")

        async def main(passed: float) -> None:
            clock.loop()
            begun = clocks.wall
            assert clock.utc(passed) == begun
            assert clock.utc(passed + 86_400.0) == begun + 86_400.0

        run(main, 0.0)
        clocks.pass_by(5)
        run(main, 3.0)


def wait_for(limiter: RateLimiter, cost: int = 1) -> float:
    """Take a turn, or tell after how many seconds there is one."""
    try:
        limiter.acquire_nowait(cost)
    except LimitExceeded as exc:
        told = exc.decision
    else:
        return 0.0

    assert told == limiter.peek(cost)
    return told.retry_after


def allowed(limiter: RateLimiter) -> int:
    """Tell how many would be let in now, one after the other."""
    remaining = limiter.peek().remaining
    assert remaining is not None
    return remaining


@pytest.mark.timing
class TestQuotasOfUtc:
    async def test_an_edge_comes_no_nearer_while_a_virtual_clock_stands_still(
        self, clocks: Clocks
    ) -> None:
        limiter = RateLimiter(FixedWindow(1, 10, align="utc"))
        limiter.acquire_nowait()
        for _ in range(3):
            clocks.pass_by(0.0009)
            assert limiter.peek().retry_after == 10.0

        await anyio.sleep(9.9995)
        assert wait_for(limiter) == pytest.approx(0.0005, abs=1e-9)

    async def test_utc_is_not_read_anew_while_others_wait(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter = RateLimiter(FixedWindow(1, 10, align="utc"))
        wall = 1004.0
        monkeypatch.setattr(time, "time", lambda: wall)
        limiter.acquire_nowait()
        async with tasks() as task_group:
            task_group.start_soon(partial(limiter.acquire, priority=1))
            await wait_idle()
            wall += 3
            assert limiter.peek().retry_after == 6.0
            await limiter.acquire(max_wait=6)
            task_group.cancel_scope.cancel()

    @pytest.mark.parametrize("offset", [0.0, 2.0, -3.0, 25.0])
    async def test_all_is_there_again_at_each_edge(self, offset: float) -> None:
        with wall_clock(MIDNIGHT + 4):
            begun = anyio.current_time()
            limiter = RateLimiter(FixedWindow(2, 10, align="utc", offset=offset))
            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                await crowd.join_all(*range(7))

        first = (offset - 4) % 10
        edges = [0.0, first, first + 10, first + 20]
        assert list(crowd.granted.values()) == [begun + edges[n // 2] for n in range(7)]

    async def test_what_is_used_right_before_an_edge_does_not_count_after_it(self) -> None:
        with wall_clock(MIDNIGHT + 9.5):
            limiter = RateLimiter(FixedWindow(3, 10, align="utc"))
            await limiter.acquire(3)
            with pytest.raises(LimitExceeded) as raised:
                limiter.acquire_nowait()

            assert raised.value.retry_after == 0.5
            await anyio.sleep(0.5)
            limiter.acquire_nowait(3)
            assert limiter.peek().retry_after == 10.0

    async def test_a_day_passes_for_utc_when_it_does_for_a_virtual_clock(self) -> None:
        # Nothing is patched here: the wall clock hardly moves.
        limiter = RateLimiter(FixedWindow(1, 86_400, align="utc"))
        await limiter.acquire()
        first = limiter.peek().retry_after
        assert 0 < first <= 86_400
        await anyio.sleep(first)
        await limiter.acquire()
        # Wall clocks count from 1970 on: what is left of their digits is less than a microsecond.
        assert limiter.peek().retry_after == pytest.approx(86_400, abs=1e-5)
        await anyio.sleep(86_400 * 30.5)
        await limiter.acquire()
        assert limiter.peek().retry_after == pytest.approx(43_200, abs=1e-5)

    async def test_a_wall_clock_set_forward_past_an_edge_opens_a_new_window(self) -> None:
        with wall_clock(MIDNIGHT + 1) as clock:
            limiter = RateLimiter(FixedWindow(2, 10, align="utc"))
            await limiter.acquire(2)
            await anyio.sleep(1)
            clock.set(MIDNIGHT + 18)
            # By the old reckoning the window ends in 8 s, by the new one in 2.
            assert wait_for(limiter) == 2.0
            await anyio.sleep(2)
            limiter.acquire_nowait(2)
            assert wait_for(limiter) == 10.0

    async def test_a_wall_clock_set_back_resets_no_count(self) -> None:
        with wall_clock(MIDNIGHT + 21) as clock:
            limiter = RateLimiter(FixedWindow(2, 10, align="utc"))
            await limiter.acquire(2)
            clock.set(MIDNIGHT + 13)
            assert wait_for(limiter) == 7.0
            await anyio.sleep(6.5)
            assert wait_for(limiter) == 0.5
            await anyio.sleep(0.5)
            limiter.acquire_nowait(2)

    async def test_those_in_line_keep_to_the_edge_that_they_were_told(self) -> None:
        with wall_clock(MIDNIGHT + 1) as clock:
            begun = anyio.current_time()
            limiter = RateLimiter(FixedWindow(1, 10, align="utc"))
            async with tasks() as task_group:
                crowd = Crowd(limiter, task_group)
                await crowd.join_all("now", "next")
                clock.set(MIDNIGHT + 5000)
                await crowd.join("after")

        assert crowd.granted == {"now": begun, "next": begun + 9, "after": begun + 19}

    async def test_who_asks_is_told_by_the_wall_clock_as_it_is_set_now(self) -> None:
        with wall_clock(MIDNIGHT + 1) as clock:
            limiter = RateLimiter(FixedWindow(1, 10, align="utc"))
            await limiter.acquire()
            assert limiter.peek().retry_after == 9.0
            clock.set(MIDNIGHT + 8)
            assert limiter.peek().retry_after == 2.0
            clock.set(MIDNIGHT + 5)
            assert limiter.peek().retry_after == 5.0

    async def test_asking_does_not_move_an_edge(self) -> None:
        async def answers(ask: Callable[[RateLimiter], object]) -> list[float]:
            waits = []
            with wall_clock(MIDNIGHT + 1) as clock:
                limiter = RateLimiter(FixedWindow(1, 10, align="utc"))
                await limiter.acquire()
                for wall in (8.25, 3.5, 14.0, 2.0, 7.0, 1.0):
                    await anyio.sleep(1)
                    clock.set(MIDNIGHT + wall)
                    ask(limiter)
                    await anyio.sleep(1)
                    waits.append(wait_for(limiter))

            return waits

        asked = await answers(RateLimiter.peek)
        assert asked == await answers(repr)
        assert any(asked)

    @examples(150)
    @given(st.data())
    def test_however_the_wall_clock_is_set_while_nobody_waits(
        self, run: Run, data: st.DataObject
    ) -> None:
        limit = data.draw(st.integers(1, 4), "limit")
        window = 8.0
        offset = data.draw(st.sampled_from([0.0, 0.0, 3.0, -1.5]), "offset")
        quarters = st.integers(0, 48).map(lambda n: n / 4)
        settings = st.integers(-80, 80).map(lambda n: n / 4)
        acts = st.one_of(
            st.tuples(st.just("call"), st.integers(1, limit)),
            st.tuples(st.just("sleep"), quarters),
            st.tuples(st.just("set"), settings),
        )
        script = data.draw(st.lists(acts, max_size=30), "script")

        async def main() -> None:
            #: When, how much, and in which visit of the wall clock to a window.
            grants: list[tuple[float, int, int]] = []
            visits = [math.nan]
            with wall_clock(MIDNIGHT + 1.25) as clock:
                limiter = RateLimiter(FixedWindow(limit, window, align="utc", offset=offset))
                for what, value in script:
                    if what == "sleep":
                        await anyio.sleep(value)
                    elif what == "set":
                        before = allowed(limiter)
                        clock.set(clock.now() + value)
                        assert allowed(limiter) <= before, "a setting has let something go"

                    index = (clock.now() - offset) // window
                    if visits[-1] != index:
                        visits.append(index)

                    if what == "call" and wait_for(limiter, int(value)) == 0.0:
                        grants.append((anyio.current_time(), int(value), len(visits)))

            for visit in {visit for _, _, visit in grants}:
                assert sum(cost for _, cost, which in grants if which == visit) <= limit

            for start, _, _ in grants:
                held = sum(cost for at, cost, _ in grants if start <= at < start + window)
                assert held <= 2 * limit

        run(main)

    @examples(60)
    @given(st.data())
    def test_without_a_setting_each_window_of_utc_lets_all_of_the_limit_go(
        self, run: Run, data: st.DataObject
    ) -> None:
        limit = data.draw(st.integers(1, 4), "limit")
        window, wall = 8.0, data.draw(st.integers(0, 80), "begin") / 4
        gaps = st.integers(0, 40).map(lambda n: n / 4)
        calls = data.draw(st.lists(st.tuples(gaps, st.integers(1, limit)), max_size=20), "calls")

        async def main() -> None:
            with wall_clock(MIDNIGHT + wall):
                begun = anyio.current_time()
                limiter = RateLimiter(FixedWindow(limit, window, align="utc"))
                arrivals = []
                async with tasks() as task_group:
                    crowd = Crowd(limiter, task_group)
                    for number, (gap, cost) in enumerate(calls):
                        await anyio.sleep(gap)
                        arrivals.append((anyio.current_time() - begun + wall, cost))
                        await crowd.join(number, cost)

            # Each goes in the first window that has room, and nobody before who came before.
            used: dict[float, int] = {}
            at = 0.0
            for number, (arrival, cost) in enumerate(arrivals):
                at = max(at, arrival)
                while used.get(at // window, 0) + cost > limit:
                    at = (at // window + 1) * window

                used[at // window] = used.get(at // window, 0) + cost
                assert crowd.granted[number] - begun + wall == at

        run(main)


class TestOnRealLoops:
    @pytest.mark.parametrize(
        ("backend", "options"),
        [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
        ids=["asyncio", "uvloop", "trio"],
    )
    def test_it_is_noticed_at_once_that_the_wall_clock_was_set(
        self, backend: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change = 0.0
        begun = time.monotonic()

        def wall() -> float:
            return MIDNIGHT + change + (time.monotonic() - begun)

        async def main() -> None:
            nonlocal change
            limiter = RateLimiter(FixedWindow(1, 86_400, align="utc"))
            await limiter.acquire()
            for set_to in (0.0, 0.25, 3600.0, 3599.75, 0.0):
                change = set_to
                before = time.monotonic() - begun
                wait = limiter.peek().retry_after
                after = time.monotonic() - begun
                # To the rounding of wall clocks, the edge is where it is at that instant.
                assert before - 1e-5 <= 86_400 - change - wait <= after + 1e-5

        monkeypatch.setattr(time, "time", wall)
        anyio.run(main, backend=backend, backend_options=options)


class TestOverRuns:
    def test_a_quota_holds_over_runs_by_real_elapsed_time(self, run: Run) -> None:
        limiter = RateLimiter(FixedWindow(1, 86_400.0 * 365_000, align="utc"))

        async def main() -> float:
            try:
                await limiter.acquire(max_wait=0)
            except LimitExceeded as exc:
                return exc.retry_after

            await wait_idle()
            return limiter.peek().retry_after

        first = run(main)
        assert first > 0
        for _ in range(3):
            assert run(main) == pytest.approx(first, abs=60)
