"""The virtual event loop of asyncio, seen through asyncio alone."""

import asyncio
import math
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle.testing._virtual_loop import VirtualEventLoop

#: Only a test that has failed ever waits this long, in real seconds.
FAR_TOO_LONG = 900.0

#: In floats, first + (second - first) is later than second.
ROUNDED_UP = [1.014495849609375, 274877906945.8553]

instants = st.floats(0.0, 1e12)
T = TypeVar("T")


def run(
    main: Callable[[VirtualEventLoop], Coroutine[object, object, T]], *, debug: bool = False
) -> T:
    loop = VirtualEventLoop()
    with asyncio.Runner(debug=debug, loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))


class IdleSpy:
    """Counts the times that the loop found nothing to do, and tells a thread of the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nothing_left = threading.Event()
        self.count = 0
        find_something = VirtualEventLoop._pass_idle_time

        def spy(loop: VirtualEventLoop) -> bool:
            found = find_something(loop)
            if not found:
                self.count += 1
                self.nothing_left.set()

            return found

        monkeypatch.setattr(VirtualEventLoop, "_pass_idle_time", spy)

    def wait(self) -> bool:
        """Wait, in a worker thread, until the loop has nothing left to do."""
        return self.nothing_left.wait(FAR_TOO_LONG)


@pytest.fixture
def idle_spy(monkeypatch: pytest.MonkeyPatch) -> IdleSpy:
    return IdleSpy(monkeypatch)


def run_timers(whens: list[float], *, start: float = 0.0) -> list[tuple[float, float]]:
    """Set timers and return, for each that ran, the clock's reading and when it was due."""

    async def main(loop: VirtualEventLoop) -> list[tuple[float, float]]:
        ran: list[tuple[float, float]] = []
        all_ran = loop.create_future()

        def note(when: float) -> None:
            ran.append((loop.time(), when))
            if len(ran) == len(whens):
                all_ran.set_result(None)

        loop.advance(start)
        for when in whens:
            loop.call_at(when, note, when)

        await all_ran
        return ran

    return run(main)


@given(st.lists(instants, min_size=1))
@example(ROUNDED_UP)
def test_each_timer_runs_in_order_and_exactly_when_it_is_due(whens: list[float]) -> None:
    assert run_timers(whens) == [(when, when) for when in sorted(whens)]


@given(st.lists(instants, min_size=1), instants)
def test_after_a_stall_all_that_is_due_runs_at_once_and_in_order(
    whens: list[float], start: float
) -> None:
    assert run_timers(whens, start=start) == [(max(start, when), when) for when in sorted(whens)]


@pytest.mark.parametrize("first", [0.0, 0.1, 1.0, 2.0**40, 1e9 / 3])
def test_timers_one_ulp_apart_run_apart(first: float) -> None:
    second = math.nextafter(first, math.inf)
    assert run_timers([second, first], start=math.nextafter(first, 0.0)) == [
        (first, first),
        (second, second),
    ]


def test_clock_starts_at_zero_and_stands_still_while_tasks_run() -> None:
    async def main(loop: VirtualEventLoop) -> None:
        for _ in range(100):
            assert loop.time() == 0.0
            await asyncio.sleep(0)

    run(main)


def test_advance_lets_nothing_run() -> None:
    async def main(loop: VirtualEventLoop) -> None:
        ran: list[float] = []
        loop.call_soon(lambda: ran.append(loop.time()))
        loop.call_at(1.0, lambda: ran.append(loop.time()))
        loop.advance(2.5)
        assert loop.time() == 2.5
        assert ran == []
        loop.advance(0)
        await asyncio.sleep(1.0)
        assert ran == [2.5, 2.5]
        assert loop.time() == 3.5

    run(main)


@pytest.mark.parametrize("seconds", [-1.0, -5e-324, math.inf, -math.inf, math.nan])
def test_advance_refuses_what_no_clock_can_do(seconds: float) -> None:
    async def main(loop: VirtualEventLoop) -> None:
        with pytest.raises(ValueError, match="seconds must be a finite number, 0 or more, not"):
            loop.advance(seconds)

        assert loop.time() == 0.0

    run(main)


@pytest.mark.parametrize("cancelled", [1, 1000], ids=["head of the heap", "half of the heap"])
def test_cancelled_timers_are_not_jumped_to(cancelled: int) -> None:
    async def main(loop: VirtualEventLoop) -> None:
        for number in range(cancelled):
            loop.call_at(1.0 + number / cancelled, pytest.fail).cancel()

        await asyncio.sleep(3.0)
        assert loop.time() == 3.0

    run(main)


@pytest.mark.parametrize("timers", [[], ["cancelled"], ["infinite"]], ids=str)
def test_without_a_timer_to_jump_to_it_waits_for_threads(
    timers: list[str], idle_spy: IdleSpy
) -> None:
    async def main(loop: VirtualEventLoop) -> None:
        if "cancelled" in timers:
            loop.call_at(1.0, pytest.fail).cancel()

        if "infinite" in timers:
            loop.call_at(math.inf, pytest.fail)

        assert await loop.run_in_executor(None, idle_spy.wait)
        assert loop.time() == 0.0
        # The loop waited, it did not spin.
        assert idle_spy.count <= 2

    run(main)


def test_io_that_is_ready_goes_before_a_jump() -> None:
    async def main(loop: VirtualEventLoop) -> None:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            received = asyncio.create_task(loop.sock_recv(near, 1))
            read_at: list[float] = []
            received.add_done_callback(lambda _: read_at.append(loop.time()))
            await asyncio.sleep(1.0)
            far.send(b"x")
            await asyncio.sleep(1.0)
            assert received.result() == b"x"
            assert read_at == [1.0]

    run(main)


def test_closing_waits_for_the_default_executor_whatever_the_time(idle_spy: IdleSpy) -> None:
    jobs: list[asyncio.Future[bool]] = []

    async def main(loop: VirtualEventLoop) -> None:
        jobs.append(loop.run_in_executor(None, idle_spy.wait))

    # Python 3.13 gives the threads 300 s by the loop's clock, and then warns.
    run(main)
    assert jobs[0].done()


def test_nothing_is_kept_of_who_waited_for_quiet() -> None:
    async def main(loop: VirtualEventLoop) -> None:
        for _ in range(3):
            await loop.wait_idle()

        assert loop._idle_waiters == []

    run(main)


def test_each_loop_has_a_clock_of_its_own() -> None:
    async def main(loop: VirtualEventLoop) -> float:
        await asyncio.sleep(5.0)
        return loop.time()

    assert [run(main), run(main)] == [5.0, 5.0]


def test_debug_mode() -> None:
    async def main(loop: VirtualEventLoop) -> float:
        assert loop.get_debug()
        await asyncio.sleep(5.0)
        return loop.time()

    assert run(main, debug=True) == 5.0
