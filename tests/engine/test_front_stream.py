"""The front-of-stream channel, as its users see it."""

import gc
from collections.abc import AsyncIterator
from math import inf, nan

import anyio
import pytest
from anyio.streams.memory import MemoryObjectStreamStatistics

from anythrottle import FrontReceiveStream, FrontSendStream, create_front_stream
from anythrottle.testing import wait_idle


class TestCreate:
    def test_the_default_buffer_holds_nothing(self) -> None:
        send, receive = create_front_stream[int]()
        with send, receive, pytest.raises(anyio.WouldBlock):
            send.send_nowait(1)

    def test_the_types_of_the_ends(self) -> None:
        ends = create_front_stream[int](1)
        assert type(ends) is tuple
        with ends[0], ends[1]:
            assert isinstance(ends[0], FrontSendStream)
            assert isinstance(ends[1], FrontReceiveStream)
            assert isinstance(ends[0], anyio.abc.ObjectSendStream)
            assert isinstance(ends[1], anyio.abc.ObjectReceiveStream)

    def test_without_a_subscript(self) -> None:
        send, receive = create_front_stream(1)  # type: ignore[var-annotated]
        with send, receive:
            send.send_nowait("x")
            assert receive.receive_nowait() == "x"

    @pytest.mark.parametrize("size", [1.5, True, "1", None, nan, -inf])
    def test_a_buffer_size_of_the_wrong_type(self, size: float) -> None:
        with pytest.raises(TypeError, match=r"max_buffer_size must be an int or infinity, not "):
            create_front_stream[int](size)

    def test_a_negative_buffer_size(self) -> None:
        with pytest.raises(ValueError, match="max_buffer_size must be at least 0, not -1"):
            create_front_stream[int](-1)


class TestNowait:
    @pytest.mark.parametrize("size", [0, 1, 3])
    def test_a_full_buffer_would_block(self, size: int) -> None:
        send, receive = create_front_stream[int](size)
        with send, receive:
            for number in range(size):
                send.send_nowait(number)

            with pytest.raises(anyio.WouldBlock):
                send.send_nowait(size)

            assert [receive.receive_nowait() for _ in range(size)] == list(range(size))
            with pytest.raises(anyio.WouldBlock):
                receive.receive_nowait()

    def test_an_infinite_buffer_never_would(self) -> None:
        send, receive = create_front_stream[int](inf)
        with send, receive:
            for number in range(10_000):
                send.send_nowait(number)

            assert receive.statistics().current_buffer_used == 10_000
            assert receive.statistics().max_buffer_size == inf

    @pytest.mark.parametrize("item", [None, False, 0, "", []])
    def test_falsy_items_are_items(self, item: object) -> None:
        send, receive = create_front_stream[object](1)
        with send, receive:
            send.send_nowait(item)
            assert receive.receive_nowait() is item

    async def test_a_receiver_that_waits_is_handed_the_item(self) -> None:
        send, receive = create_front_stream[int]()
        received: list[int] = []

        async def take() -> None:
            received.append(await receive.receive())

        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take)
                await wait_idle()
                send.send_nowait(1)
                with pytest.raises(anyio.WouldBlock):
                    send.send_nowait(2)

        assert received == [1]

    async def test_a_sender_that_waits_is_relieved(self) -> None:
        send, receive = create_front_stream[int]()
        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(send.send, 1)
                task_group.start_soon(send.send, 2)
                await wait_idle()
                assert {receive.receive_nowait(), receive.receive_nowait()} == {1, 2}


class TestWaiting:
    @pytest.mark.parametrize("size", [0, 1, 2, inf])
    async def test_all_arrive_in_order(self, size: float) -> None:
        send, receive = create_front_stream[int](size)
        async with anyio.create_task_group() as task_group:

            async def produce() -> None:
                with send:
                    for number in range(10):
                        await send.send(number)

            task_group.start_soon(produce)
            with receive:
                assert [item async for item in receive] == list(range(10))

    async def test_senders_go_in_the_order_they_came(self) -> None:
        send, receive = create_front_stream[int](1)
        with send, receive:
            async with anyio.create_task_group() as task_group:
                for number in range(4):
                    task_group.start_soon(send.send, number)
                    await wait_idle()

                assert receive.statistics().tasks_waiting_send == 3
                assert [await receive.receive() for _ in range(4)] == [0, 1, 2, 3]

    async def test_receivers_go_in_the_order_they_came(self) -> None:
        send, receive = create_front_stream[int]()
        received: dict[str, int] = {}

        async def take(name: str) -> None:
            received[name] = await receive.receive()

        with send, receive:
            async with anyio.create_task_group() as task_group:
                for name in "abc":
                    task_group.start_soon(take, name)
                    await wait_idle()

                assert send.statistics().tasks_waiting_receive == 3
                for number in range(3):
                    await send.send(number)

        assert received == {"a": 0, "b": 1, "c": 2}

    async def test_every_send_and_receive_is_a_checkpoint(self) -> None:
        send, receive = create_front_stream[int](1)
        with send, receive:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await send.send(1)

            assert scope.cancelled_caught
            assert receive.statistics().current_buffer_used == 0
            send.send_nowait(2)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await receive.receive()

            assert scope.cancelled_caught
            assert receive.receive_nowait() == 2

    async def test_a_sender_that_was_cancelled_has_not_sent(self) -> None:
        send, receive = create_front_stream[int]()
        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(send.send, 1)
                await wait_idle()
                task_group.cancel_scope.cancel()

            assert send.statistics().tasks_waiting_send == 0
            with pytest.raises(anyio.WouldBlock):
                receive.receive_nowait()

    async def test_a_receiver_that_was_cancelled_waits_no_more(self) -> None:
        send, receive = create_front_stream[int]()
        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(receive.receive)
                await wait_idle()
                task_group.cancel_scope.cancel()

            assert send.statistics().tasks_waiting_receive == 0
            with pytest.raises(anyio.WouldBlock):
                send.send_nowait(1)

    async def test_a_receiver_that_is_cancelled_as_it_is_handed_an_item_lacks_it(self) -> None:
        """In one step: nothing is thrown at a task that has been woken already."""
        send, receive = create_front_stream[int]()
        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(receive.receive)
                await wait_idle()
                send.send_nowait(1)
                task_group.cancel_scope.cancel()

            assert receive.receive_nowait() == 1


class TestClosing:
    def test_the_send_end_is_closed(self) -> None:
        send, receive = create_front_stream[int](1)
        with receive:
            send.close()
            send.close()
            with pytest.raises(anyio.ClosedResourceError):
                send.send_nowait(1)

            with pytest.raises(anyio.ClosedResourceError):
                send.clone()

    async def test_awaiting_on_closed_ends(self) -> None:
        send, receive = create_front_stream[int](1)
        await send.aclose()
        await receive.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await send.send(1)

        with pytest.raises(anyio.ClosedResourceError):
            await receive.receive()

        with pytest.raises(anyio.ClosedResourceError):
            await receive.receive_numbered()

    def test_the_receive_end_is_closed(self) -> None:
        send, receive = create_front_stream[int](1)
        with send:
            receive.close()
            receive.close()
            with pytest.raises(anyio.ClosedResourceError):
                receive.receive_nowait()

            with pytest.raises(anyio.ClosedResourceError):
                receive.put_back(1, 0)

            with pytest.raises(anyio.ClosedResourceError):
                receive.clone()

            with pytest.raises(anyio.BrokenResourceError):
                send.send_nowait(1)

    async def test_sending_to_a_closed_receive_end_breaks(self) -> None:
        send, receive = create_front_stream[int](1)
        receive.close()
        with send, pytest.raises(anyio.BrokenResourceError):
            await send.send(1)

    async def test_what_was_sent_before_the_end_arrives(self) -> None:
        send, receive = create_front_stream[int](2)
        with receive:
            with send:
                send.send_nowait(1)
                send.send_nowait(2)

            assert await receive.receive() == 1
            assert receive.receive_nowait() == 2
            with pytest.raises(anyio.EndOfStream):
                receive.receive_nowait()

            with pytest.raises(anyio.EndOfStream):
                await receive.receive()

    async def test_the_last_sender_closes_while_receivers_wait(self) -> None:
        send, receive = create_front_stream[int]()
        clone = send.clone()

        async def take() -> None:
            with pytest.raises(anyio.EndOfStream):
                await receive.receive()

        with receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take)
                task_group.start_soon(take)
                await wait_idle()
                send.close()
                await wait_idle()
                assert clone.statistics().tasks_waiting_receive == 2
                clone.close()

    async def test_the_last_receiver_closes_while_senders_wait(self) -> None:
        send, receive = create_front_stream[int]()
        clone = receive.clone()

        async def give() -> None:
            with pytest.raises(anyio.BrokenResourceError):
                await send.send(1)

        with send:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(give)
                task_group.start_soon(give)
                await wait_idle()
                receive.close()
                await wait_idle()
                assert send.statistics().tasks_waiting_send == 2
                clone.close()

    async def test_a_receive_end_closes_while_it_waits_itself(self) -> None:
        send, receive = create_front_stream[int]()
        clone = receive.clone()
        received: list[int] = []

        async def take() -> None:
            received.append(await clone.receive())

        async def take_in_vain() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await receive.receive()

        with send, clone:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take_in_vain)
                task_group.start_soon(take)
                await wait_idle()
                receive.close()
                await wait_idle()
                assert send.statistics().tasks_waiting_receive == 1
                await send.send(1)

        assert received == [1]

    async def test_a_send_end_closes_while_it_waits_itself(self) -> None:
        send, receive = create_front_stream[int]()
        clone = send.clone()

        async def give_in_vain() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await send.send(1)

        with clone, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(give_in_vain)
                task_group.start_soon(clone.send, 2)
                await wait_idle()
                send.close()
                await wait_idle()
                assert receive.statistics().tasks_waiting_send == 1
                assert await receive.receive() == 2

    async def test_ends_can_be_used_as_async_context_managers(self) -> None:
        send, receive = create_front_stream[int](1)
        async with send, receive:
            await send.send(1)
            assert await receive.receive() == 1

        assert send.statistics().open_send_streams == 0
        assert send.statistics().open_receive_streams == 0


class TestClones:
    async def test_clones_share_the_stream(self) -> None:
        send, receive = create_front_stream[int](2)
        with send, receive, send.clone() as other_send, receive.clone() as other_receive:
            send.send_nowait(1)
            other_send.send_nowait(2)
            assert (other_receive.receive_nowait(), receive.receive_nowait()) == (1, 2)

    async def test_the_stream_goes_on_until_the_last_clone_is_closed(self) -> None:
        send, receive = create_front_stream[int](1)
        clone = send.clone()
        with receive:
            send.close()
            with pytest.raises(anyio.WouldBlock):
                receive.receive_nowait()

            clone.close()
            with pytest.raises(anyio.EndOfStream):
                receive.receive_nowait()

    async def test_sending_works_until_the_last_clone_is_closed(self) -> None:
        send, receive = create_front_stream[int](1)
        clone = receive.clone()
        with send:
            receive.close()
            send.send_nowait(1)
            assert clone.receive_nowait() == 1
            clone.close()
            with pytest.raises(anyio.BrokenResourceError):
                send.send_nowait(2)


def test_statistics() -> None:
    send, receive = create_front_stream[int](3)
    with send, receive, send.clone():
        send.send_nowait(1)
        send.send_nowait(2)
        receive.put_back(receive.receive_nowait(), 0)
        expected = MemoryObjectStreamStatistics(2, 3, 2, 1, 0, 0)
        assert send.statistics() == receive.statistics() == expected


async def test_async_iteration() -> None:
    send, receive = create_front_stream[int](3)
    for number in range(3):
        send.send_nowait(number)

    send.close()
    with receive:
        iterator: AsyncIterator[int] = aiter(receive)
        assert [item async for item in iterator] == [0, 1, 2]


class TestUnclosed:
    def test_a_send_end(self) -> None:
        send, receive = create_front_stream[int](1)
        receive.close()
        with pytest.warns(ResourceWarning, match=r"Unclosed <FrontSendStream at "):
            send.__del__()

        send.close()

    def test_a_receive_end(self) -> None:
        send, receive = create_front_stream[int](1)
        send.close()
        with pytest.warns(ResourceWarning, match=r"Unclosed <FrontReceiveStream at "):
            receive.__del__()

        receive.close()

    def test_closed_ends_are_silent(self) -> None:
        send, receive = create_front_stream[int](1)
        with send, receive:
            pass

        del send, receive
        gc.collect()


class TestNumbered:
    async def test_positions_count_from_zero_in_the_order_sent(self) -> None:
        send, receive = create_front_stream[str](3)
        with send, receive:
            for item in "abc":
                send.send_nowait(item)

            numbered = [await receive.receive_numbered() for _ in range(3)]
            assert numbered == [(0, "a"), (1, "b"), (2, "c")]

    async def test_one_that_waits_is_told_the_position_too(self) -> None:
        send, receive = create_front_stream[str]()
        numbered: list[tuple[int, str]] = []

        async def take() -> None:
            numbered.append(await receive.receive_numbered())

        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take)
                await wait_idle()
                await send.send("a")

            async with anyio.create_task_group() as task_group:
                task_group.start_soon(send.send, "b")
                await wait_idle()
                numbered.append(await receive.receive_numbered())

        assert numbered == [(0, "a"), (1, "b")]

    async def test_what_was_put_back_keeps_its_position(self) -> None:
        send, receive = create_front_stream[str](2)
        with send, receive:
            send.send_nowait("a")
            send.send_nowait("b")
            position, _ = await receive.receive_numbered()
            receive.put_back("A", position)
            assert await receive.receive_numbered() == (0, "A")
            assert await receive.receive_numbered() == (1, "b")


class TestPutBack:
    async def test_three_thrown_back_together_come_back_in_their_original_order(self) -> None:
        send, receive = create_front_stream[str](5)
        with send, receive:
            for item in "abcde":
                send.send_nowait(item)

            taken = [await receive.receive_numbered() for _ in range(3)]
            for position, item in (taken[1], taken[2], taken[0]):
                receive.put_back(item, position)

            assert [await receive.receive() for _ in range(5)] == list("abcde")

    def test_never_refused_for_lack_of_room(self) -> None:
        send, receive = create_front_stream[str]()
        with send, receive:
            for position in range(100):
                receive.put_back("x", position)

            assert receive.statistics().current_buffer_used == 100

    def test_before_anything_else_even_if_its_position_is_high(self) -> None:
        send, receive = create_front_stream[str](1)
        with send, receive:
            send.send_nowait("sent")
            receive.put_back("back", 1000)
            assert receive.receive_nowait() == "back"
            assert receive.receive_nowait() == "sent"

    def test_of_equal_positions_the_one_put_back_first(self) -> None:
        send, receive = create_front_stream[object]()
        items = [object(), object()]
        with send, receive:
            for item in items:
                receive.put_back(item, 0)

            assert [receive.receive_nowait(), receive.receive_nowait()] == items

    async def test_handed_to_one_that_waits(self) -> None:
        send, receive = create_front_stream[str](1)
        received: list[tuple[int, str]] = []

        async def take() -> None:
            received.append(await receive.receive_numbered())

        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take)
                await wait_idle()
                receive.put_back("back", 7)

        assert received == [(7, "back")]

    async def test_after_all_senders_have_closed(self) -> None:
        send, receive = create_front_stream[str](1)
        with receive:
            send.send_nowait("a")
            send.close()
            position, item = await receive.receive_numbered()
            with pytest.raises(anyio.EndOfStream):
                receive.receive_nowait()

            receive.put_back(item, position)
            assert await receive.receive() == "a"
            with pytest.raises(anyio.EndOfStream):
                await receive.receive()

    async def test_when_the_end_has_just_been_announced_to_one_that_waits(self) -> None:
        send, receive = create_front_stream[str](1)
        outcome: list[object] = []

        async def take() -> None:
            try:
                outcome.append(await receive.receive())
            except anyio.EndOfStream:
                outcome.append("end")

        with receive:
            send.send_nowait("a")
            position, item = await receive.receive_numbered()
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take)
                await wait_idle()
                send.close()
                receive.put_back(item, position)

            # Either will do, but the end that it waits at has not been closed.
            if outcome == ["end"]:
                outcome.append(receive.receive_nowait())

            assert outcome[-1] == "a"

    @pytest.mark.parametrize("position", [1.0, "0", None, True])
    def test_a_position_of_the_wrong_type(self, position: int) -> None:
        send, receive = create_front_stream[str](1)
        with send, receive:
            with pytest.raises(TypeError, match=r"position must be an int, not "):
                receive.put_back("x", position)

            assert receive.statistics().current_buffer_used == 0

    def test_a_negative_position(self) -> None:
        send, receive = create_front_stream[str](1)
        with send, receive, pytest.raises(ValueError, match="position must be at least 0, not -1"):
            receive.put_back("x", -1)


class TestHandedButCancelled:
    """An item handed to a receiver belongs to it once its task has resumed."""

    @pytest.mark.parametrize("how", ["send", "put back"])
    async def test_it_reaches_another_that_waits(self, how: str) -> None:
        send, receive = create_front_stream[str](1)
        received: list[str] = []
        scopes: list[anyio.CancelScope] = []

        async def take() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                received.append(await receive.receive())

        with send, receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take)
                await wait_idle()
                task_group.start_soon(take)
                await wait_idle()
                # On Trio it can be received all the same: then there is nothing to hand on.
                scopes[0].cancel()
                if how == "send":
                    send.send_nowait("a")
                else:
                    receive.put_back("a", 0)

                await wait_idle()
                assert received == ["a"]
                scopes[1].cancel()

    async def test_the_end_is_not_announced_meanwhile(self) -> None:
        send, receive = create_front_stream[str](1)
        received: list[object] = []
        scope = anyio.CancelScope()

        async def take_and_be_cancelled() -> None:
            with scope:
                received.append(await receive.receive())

        async def take() -> None:
            try:
                received.append(await receive.receive())
            except anyio.EndOfStream:
                received.append("end")

        with receive:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(take_and_be_cancelled)
                await wait_idle()
                task_group.start_soon(take)
                await wait_idle()
                scope.cancel()
                send.send_nowait("a")
                send.close()

        assert received[0] == "a"
        assert set(received[1:]) <= {"end"}
