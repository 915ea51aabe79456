"""What the two ends share: against a plain list, and under cancellation at every suspension."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, TypeVar

import anyio
import pytest
from anyio import BrokenResourceError, EndOfStream, WouldBlock
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FrontReceiveStream, FrontSendStream, create_front_stream
from anythrottle._engine.front_state import FrontState
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.conftest import Run
from tests.properties import examples
from tests.sweep import Strike, sweep

T = TypeVar("T")


class Model:
    """A front stream as one would write it without tasks: two plain lists."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.front: list[tuple[int, int]] = []
        self.sent: list[int] = []
        self.position = 0

    def send(self, item: int) -> bool:
        if len(self.sent) >= self.size:
            return False

        self.sent.append(item)
        return True

    def receive(self) -> tuple[int, int] | None:
        if self.front:
            lowest = min(position for position, _ in self.front)
            index = next(i for i, (p, _) in enumerate(self.front) if p == lowest)
            return self.front.pop(index)

        if self.sent:
            self.position += 1
            return self.position - 1, self.sent.pop(0)

        return None

    def items(self) -> list[int]:
        return [item for _, item in sorted(self.front, key=lambda e: e[0])] + self.sent


STEPS = st.lists(
    st.one_of(
        st.just(("send",)),
        st.just(("receive",)),
        st.tuples(st.just("put back"), st.integers(0, 30)),
        st.just(("close",)),
    ),
    max_size=60,
)


@examples(200)
@given(size=st.sampled_from([0, 1, 2, 5, inf]), steps=STEPS)
def test_without_tasks_it_is_a_list_with_a_front(
    size: float, steps: list[tuple[str] | tuple[str, int]]
) -> None:
    model = Model(size)
    state: FrontState[int] = FrontState(size)
    state.open_receivers = state.open_senders = 1
    held: list[tuple[int, int]] = []
    for number, step in enumerate(steps):
        if step[0] == "send" and state.open_senders:
            try:
                state.send_nowait(number)
            except WouldBlock:
                assert not model.send(number)
            else:
                assert model.send(number)
        elif step[0] == "receive":
            expected = model.receive()
            if expected is None:
                with pytest.raises(WouldBlock if state.open_senders else EndOfStream):
                    state.receive_nowait()
            else:
                assert state.receive_nowait() == expected
                held.append(expected)
        elif step[0] == "put back" and held:
            position, item = held.pop(int(step[-1]) % len(held))
            state.put_back(item, position)
            model.front.append((position, item))
        elif step[0] == "close":
            state.open_senders = 0
            state.close_senders(object())

        assert state.items() == model.items()
        assert len(state) == len(model.items())
        assert state.is_at_end() == (not model.items() and not state.open_senders)


@pytest.mark.timing
@examples(60)
@given(
    size=st.sampled_from([0, 1, 3, inf]),
    items=st.integers(0, 15),
    producers=st.integers(1, 3),
    # For each receiver: how it deals with the items it gets, and when it is cancelled.
    consumers=st.lists(
        st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 6))),
        min_size=1,
        max_size=4,
    ),
)
async def test_with_tasks_nothing_is_lost_or_doubled(  # noqa: C901
    size: float, items: int, producers: int, consumers: list[tuple[int, int | None]]
) -> None:
    send, receive = create_front_stream[int](size)
    received: list[tuple[int, int]] = []

    async def produce(end: FrontSendStream[int], numbers: range) -> None:
        with end:
            for number in numbers:
                await send_after_a_while(end, number)

    async def send_after_a_while(end: FrontSendStream[int], number: int) -> None:
        await anyio.sleep(number % 3)
        await end.send(number)

    async def consume(end: FrontReceiveStream[int], every: int, patience: int | None) -> None:
        with end, anyio.move_on_after(inf if patience is None else patience):
            while True:
                try:
                    position, item = await end.receive_numbered()
                except EndOfStream:
                    return

                if every and len(received) % 4 == every:
                    end.put_back(item, position)
                    every = 0
                else:
                    received.append((position, item))

    async with anyio.create_task_group() as task_group:
        for producer in range(producers):
            task_group.start_soon(produce, send.clone(), range(producer, items, producers))

        send.close()
        for every, patience in consumers:
            task_group.start_soon(consume, receive.clone(), every, patience)

        with receive.clone() as last:
            # Somebody must stay to the end, and take what others put back after that.
            await consume(receive, 0, None)
            await wait_idle()
            with contextlib.suppress(EndOfStream):
                while True:
                    received.append(await last.receive_numbered())

    assert sorted(item for _, item in received) == list(range(items))
    assert sorted(position for position, _ in received) == list(range(items))


#: Drives one scenario: makes what is struck, and what to strike it with.
Cancel = Callable[[Strike, "anyio.CancelScope"], None]


def by_scope(strike: Strike, scope: anyio.CancelScope) -> None:
    strike.blow = scope.cancel


def natively(strike: Strike, scope: anyio.CancelScope) -> None:
    task = asyncio.current_task()
    assert task is not None
    strike.blow = task.cancel


async def struck(strike: Strike, cancel: Cancel, body: Callable[[], object]) -> bool:
    """Run ``body`` in a task of its own, wrapped in ``strike``; tell whether it was cut off."""
    ended = False

    async def victim() -> None:
        nonlocal ended
        with anyio.CancelScope() as scope:
            cancel(strike, scope)
            try:
                await strike.wrap(body())  # type: ignore[arg-type]
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    task.uncancel()
                    return

                raise

            ended = True

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(victim)

    return not ended


BY_SCOPE = [pytest.param(by_scope, False, id="scope")]
NATIVE = [
    pytest.param(by_scope, True, id="scope, woken"),
    pytest.param(natively, False, id="native"),
    pytest.param(natively, True, id="native, woken"),
]


def check_receive(
    run_it: Callable[[Callable[[], object]], object], cancel: Cancel, *, woken: bool
) -> None:
    for strike in sweep(when_woken=woken):

        async def main(strike: Strike = strike) -> None:
            send, receive = create_front_stream[int](1)
            received: list[int] = []

            async def produce() -> None:
                with send:
                    for number in range(4):
                        await anyio.sleep(1)
                        await send.send(number)

            async def body() -> None:
                while len(received) < 4:
                    received.append(await receive.receive())

            async with anyio.create_task_group() as task_group:
                task_group.start_soon(produce)
                await struck(strike, cancel, body)
                with receive:
                    rest = [item async for item in receive]

            assert received + rest == [0, 1, 2, 3], f"struck at {strike._number}"
            assert receive.statistics().tasks_waiting_receive == 0

        run_it(main)


def check_send(
    run_it: Callable[[Callable[[], object]], object], cancel: Cancel, *, woken: bool
) -> None:
    for strike in sweep(when_woken=woken):

        async def main(strike: Strike = strike) -> None:
            send, receive = create_front_stream[int](1)
            sent: list[int] = []
            received: list[int] = []

            async def consume() -> None:
                with receive:
                    async for item in receive:
                        received.append(item)
                        await anyio.sleep(1)

            async def body() -> None:
                for number in range(5):
                    await send.send(number)
                    sent.append(number)

            async with anyio.create_task_group() as task_group:
                task_group.start_soon(consume)
                with send:
                    await struck(strike, cancel, body)

            assert received == sent, f"struck at {strike._number}"

        run_it(main)


class TestSweep:
    @pytest.mark.parametrize(("cancel", "woken"), BY_SCOPE)
    def test_receive(self, run: Run, cancel: Cancel, *, woken: bool) -> None:
        check_receive(run, cancel, woken=woken)

    @pytest.mark.parametrize(("cancel", "woken"), BY_SCOPE)
    def test_send(self, run: Run, cancel: Cancel, *, woken: bool) -> None:
        check_send(run, cancel, woken=woken)

    @pytest.mark.parametrize(("cancel", "woken"), NATIVE)
    def test_receive_on_asyncio(self, cancel: Cancel, *, woken: bool) -> None:
        check_receive(run_on_asyncio, cancel, woken=woken)

    # Not "native, woken": as with AnyIO's streams, what a receiver has taken already was sent.
    @pytest.mark.parametrize(("cancel", "woken"), NATIVE[:2])
    def test_send_on_asyncio(self, cancel: Cancel, *, woken: bool) -> None:
        check_send(run_on_asyncio, cancel, woken=woken)


def run_on_asyncio(main: Callable[[], object]) -> None:
    anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})  # type: ignore[arg-type]


async def waiting(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a task in which a call has come to wait."""
    task = asyncio.create_task(call)
    await wait_idle()
    return task


class TestWokenAndNativelyCancelled:
    """On asyncio, a task can be cancelled when it has been handed an item but has not resumed."""

    def test_the_item_goes_to_another_that_waits(self) -> None:
        async def main() -> None:
            send, receive = create_front_stream[str]()
            with send, receive:
                first = await waiting(receive.receive_numbered())
                second = await waiting(receive.receive_numbered())
                send.send_nowait("a")
                first.cancel()
                assert await second == (0, "a")
                assert first.cancelled()

        run_on_asyncio(main)

    def test_the_item_goes_to_the_front(self) -> None:
        async def main() -> None:
            send, receive = create_front_stream[str](1)
            with send, receive:
                task = await waiting(receive.receive())
                send.send_nowait("a")
                send.send_nowait("b")
                task.cancel()
                await wait_idle()
                assert [receive.receive_nowait(), receive.receive_nowait()] == ["a", "b"]

        run_on_asyncio(main)

    def test_the_end_is_not_announced_while_the_item_may_come_back(self) -> None:
        async def main() -> None:
            send, receive = create_front_stream[str]()
            with receive:
                first = await waiting(receive.receive())
                second = await waiting(receive.receive())
                send.send_nowait("a")
                send.close()
                with pytest.raises(WouldBlock):
                    receive.receive_nowait()

                first.cancel()
                assert await second == "a"

        run_on_asyncio(main)

    def test_the_end_is_announced_when_the_item_has_been_taken(self) -> None:
        async def main() -> None:
            send, receive = create_front_stream[str]()
            with receive:
                first = await waiting(receive.receive())
                second = await waiting(receive.receive())
                send.send_nowait("a")
                send.close()
                assert await first == "a"
                with pytest.raises(EndOfStream):
                    await second

        run_on_asyncio(main)

    def test_sent_away_and_cancelled_in_one_instant(self) -> None:
        async def main() -> None:
            send, receive = create_front_stream[str]()
            with receive:
                task = await waiting(receive.receive())
                send.close()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                with pytest.raises(EndOfStream):
                    receive.receive_nowait()

        run_on_asyncio(main)


def test_who_waits_for_an_item_is_told_of_the_end_in_its_turn() -> None:
    order: list[int] = []

    async def main() -> None:
        send, receive = create_front_stream[int]()

        async def try_to_receive(number: int) -> None:
            with pytest.raises(EndOfStream):
                await receive.receive()

            order.append(number)

        async with anyio.create_task_group() as task_group:
            with receive:
                for number in range(5):
                    task_group.start_soon(try_to_receive, number)

                await wait_idle()
                send.close()
                await wait_idle()

    run_on_asyncio(main)
    assert order == [*range(5)]


def test_who_waits_for_room_is_sent_away_in_its_turn() -> None:
    order: list[int] = []

    async def main() -> None:
        send, receive = create_front_stream[int]()

        async def try_to_send(item: int) -> None:
            with pytest.raises(BrokenResourceError):
                await send.send(item)

            order.append(item)

        async with anyio.create_task_group() as task_group:
            with send:
                for item in range(5):
                    task_group.start_soon(try_to_send, item)

                await wait_idle()
                receive.close()
                await wait_idle()

    run_on_asyncio(main)
    assert order == [*range(5)]


class TestRuns:
    def test_items_last_over_runs(self, run: Run) -> None:
        send, receive = create_front_stream[int](3)

        async def fill() -> None:
            await send.send(0)
            await send.send(1)
            receive.put_back(*reversed(await receive.receive_numbered()))

        async def drain() -> list[int]:
            return [await receive.receive(), await receive.receive()]

        with send, receive:
            run(fill)
            assert run(drain) == [0, 1]

    def test_who_waited_in_a_dead_run_is_forgotten(self) -> None:
        send, receive = create_front_stream[int]()
        loop = VirtualEventLoop()
        waiting = loop.create_task(receive.receive())
        loop.run_until_complete(wait_idle())
        assert receive.statistics().tasks_waiting_receive == 1

        async def main() -> None:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(send.send, 1)
                assert await receive.receive() == 1

        run_on_asyncio(main)
        waiting.cancel()
        loop.run_until_complete(asyncio.wait([waiting]))
        loop.close()
        send.close()
        receive.close()

    @pytest.mark.parametrize("put", [False, True])
    @pytest.mark.parametrize("handed_before", [False, True])
    def test_who_waited_in_a_loop_that_was_closed_gets_nothing(
        self, put: bool, handed_before: bool
    ) -> None:
        send, receive = create_front_stream[int](1)
        loop = VirtualEventLoop()
        waiting = loop.create_task(receive.receive())
        loop.run_until_complete(wait_idle())
        if handed_before:
            # That one is lost: whoever has it will never resume.
            send.send_nowait(0)

        loop.close()
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]

        found: list[int] = []

        async def main() -> None:
            if put:
                receive.put_back(1, 0)
            else:
                await send.send(1)

            send.close()
            with anyio.fail_after(10):
                found.extend([item async for item in receive])

        run_on_asyncio(main)
        assert found == [1]
        receive.close()

    def test_who_waited_for_room_in_a_loop_that_was_closed_has_not_sent(self) -> None:
        send, receive = create_front_stream[int]()
        loop = VirtualEventLoop()
        waiting = loop.create_task(send.send(1))
        loop.run_until_complete(wait_idle())
        with send, receive:
            assert receive.statistics().tasks_waiting_send == 1
            loop.close()
            waiting._log_destroy_pending = False  # type: ignore[attr-defined]
            with pytest.raises(anyio.WouldBlock):
                receive.receive_nowait()

            assert receive.statistics().tasks_waiting_send == 0


def test_repr() -> None:
    state: FrontState[str] = FrontState(2)
    state.put_back("a", 0)
    assert repr(state) == "<front stream of 1 items>"
