"""The virtual clock of Trio, seen through Trio alone."""

import math
import queue
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import outcome
import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from anythrottle.testing._virtual_trio import VirtualClock

#: Only a test that has failed ever waits this long, in real seconds.
FAR_TOO_LONG = 900.0

#: In floats, first + (second - first) is later than second.
ROUNDED_UP = [1.014495849609375, 274877906945.8553]

instants = st.floats(0.0, 1e12)


def run_deadlines(deadlines: list[float], *, start: float = 0.0) -> list[tuple[float, float]]:
    """Sleep until each deadline, and return the clock's readings afterwards with the deadlines."""
    clock = VirtualClock()
    woken: list[tuple[float, float]] = []

    async def sleeper(deadline: float) -> None:
        await trio.sleep_until(deadline)
        woken.append((trio.current_time(), deadline))

    async def main() -> None:
        clock.advance(start)
        async with trio.open_nursery() as nursery:
            for deadline in deadlines:
                nursery.start_soon(sleeper, deadline)

    trio.run(main, clock=clock)
    return woken


def run_as_guest(clock: trio.abc.Clock) -> float:
    """Sleep for an hour in a run that is a guest of this thread's own little loop."""
    calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    outcomes: list[outcome.Outcome[float]] = []

    async def main() -> float:
        await trio.sleep(3600)
        return trio.current_time()

    trio.lowlevel.start_guest_run(
        main, run_sync_soon_threadsafe=calls.put, done_callback=outcomes.append, clock=clock
    )
    while not outcomes:
        calls.get(timeout=FAR_TOO_LONG)()

    return outcomes[0].unwrap()


@given(st.lists(instants))
@example(ROUNDED_UP)
def test_each_deadline_is_met_in_order_and_exactly(deadlines: list[float]) -> None:
    assert run_deadlines(deadlines) == [(deadline, deadline) for deadline in sorted(deadlines)]


@given(st.lists(instants), instants)
def test_after_a_stall_all_that_is_due_wakes_at_once(deadlines: list[float], start: float) -> None:
    # Trio shuffles tasks that wake in the same instant.
    assert sorted(run_deadlines(deadlines, start=start)) == [
        (max(start, deadline), deadline) for deadline in sorted(deadlines)
    ]


@pytest.mark.parametrize("first", [0.0, 0.1, 1.0, 2.0**40, 1e9 / 3])
def test_deadlines_one_ulp_apart_are_met_apart(first: float) -> None:
    second = math.nextafter(first, math.inf)
    assert run_deadlines([second, first], start=math.nextafter(first, 0.0)) == [
        (first, first),
        (second, second),
    ]


def test_one_instance_begins_each_run_at_zero() -> None:
    clock = VirtualClock()

    async def main() -> tuple[float, float]:
        start = trio.current_time()
        await trio.sleep(5.0)
        return start, trio.current_time()

    assert [trio.run(main, clock=clock) for _ in range(3)] == [(0.0, 5.0)] * 3


def test_one_instance_serves_several_threads_at_once() -> None:
    clock = VirtualClock()
    both_run = threading.Barrier(2)

    async def main(seconds: float) -> float:
        await trio.sleep(seconds)
        both_run.wait(FAR_TOO_LONG)
        await trio.sleep(seconds)
        return trio.current_time()

    def run(seconds: float) -> float:
        return trio.run(main, seconds, clock=clock)

    with ThreadPoolExecutor() as executor:
        assert list(executor.map(run, [1.0, 100.0])) == [2.0, 200.0]


def test_guest_runs_jump_too_and_begin_at_zero() -> None:
    clock = VirtualClock()
    assert [run_as_guest(clock) for _ in range(2)] == [3600.0, 3600.0]


def test_clock_stands_still_while_tasks_run() -> None:
    async def other() -> None:
        await trio.sleep(1.0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(100):
                assert trio.current_time() == 0.0
                await trio.lowlevel.checkpoint()

    trio.run(main, clock=VirtualClock())


def test_advance_lets_nothing_run() -> None:
    clock = VirtualClock()

    async def main() -> None:
        woken: list[float] = []

        async def sleeper() -> None:
            await trio.sleep(1.0)
            woken.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            await trio.testing.wait_all_tasks_blocked()
            clock.advance(2.5)
            assert trio.current_time() == 2.5
            assert woken == []
            clock.advance(0)
            await trio.sleep(1.0)
            assert woken == [2.5]
            assert trio.current_time() == 3.5

    trio.run(main, clock=clock)


@pytest.mark.parametrize("seconds", [-1.0, -5e-324, math.inf, -math.inf, math.nan])
def test_advance_refuses_what_no_clock_can_do(seconds: float) -> None:
    clock = VirtualClock()

    async def main() -> None:
        with pytest.raises(ValueError, match="seconds must be a finite number, 0 or more, not"):
            clock.advance(seconds)

        assert trio.current_time() == 0.0

    trio.run(main, clock=clock)


def test_advance_needs_a_run() -> None:
    with pytest.raises(RuntimeError, match="outside of a run"):
        VirtualClock().advance(1.0)


def test_without_a_deadline_it_waits_for_threads() -> None:
    clock = VirtualClock()
    waiting = threading.Event()

    class Spy(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            if timeout > 0:
                waiting.set()

    async def main() -> None:
        # The thread ends only when Trio is about to wait in earnest.
        assert await trio.to_thread.run_sync(waiting.wait, FAR_TOO_LONG)
        assert trio.current_time() == 0.0

    trio.run(main, clock=clock, instruments=[Spy()])


async def due_in_a_stall() -> None:
    async def stall() -> None:
        await trio.testing.wait_all_tasks_blocked()
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, VirtualClock)
        clock.advance(1.0)

    trio.lowlevel.spawn_system_task(stall)
    await trio.sleep(1.0)


async def due_later() -> None:
    await trio.sleep(1.0)


@pytest.mark.parametrize(
    "wait",
    [due_later, due_in_a_stall, trio.testing.wait_all_tasks_blocked, trio.lowlevel.checkpoint],
)
def test_io_that_is_ready_goes_before_a_jump(wait: Callable[[], Awaitable[None]]) -> None:
    """Tasks wake one another through sockets, after the first one was woken in some other way."""
    passed_on_at: list[float] = []

    async def pass_on(near: socket.socket, far: socket.socket) -> None:
        await trio.lowlevel.wait_readable(near)
        passed_on_at.append(trio.current_time())
        far.send(near.recv(1))

    async def main() -> None:
        pairs = [socket.socketpair() for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for (_, near), (far, _) in pairwise(pairs):
                nursery.start_soon(pass_on, near, far)

            nursery.start_soon(trio.sleep, 1.5)
            await wait()
            sent_at = trio.current_time()
            pairs[0][0].send(b"x")

        assert passed_on_at == [sent_at] * 3
        for near, far in pairs:
            near.close()
            far.close()

    trio.run(main, clock=VirtualClock())


@pytest.mark.parametrize("cushion", [0.0, 0.001])
def test_tasks_that_wait_for_quiet_go_before_a_jump(cushion: float) -> None:
    async def main() -> None:
        quiet_at: list[float] = []

        async def wait_for_quiet() -> None:
            await trio.testing.wait_all_tasks_blocked(cushion)
            quiet_at.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_quiet)
            nursery.start_soon(wait_for_quiet)
            await trio.sleep(1.0)
            assert quiet_at == [0.0, 0.0]

    trio.run(main, clock=VirtualClock())
