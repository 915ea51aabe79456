"""The front-of-stream channel: a memory object stream to which items can be put back."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from types import TracebackType
from typing import Any, Self, TypeVar, final

from anyio import ClosedResourceError
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectStreamStatistics

from .._limiters.live import Live
from .._policies.checks import check_count
from .front_state import FrontState

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class _FrontEnd(Live):
    """What both ends of a stream have in common; each is open until it is closed."""

    __slots__ = ("_closed", "_warns")

    _state: FrontState[Any]  # pyright: ignore[reportExplicitAny]

    def __init__(self, *, warns: bool) -> None:
        self._closed = False
        #: Whether to warn if it was never closed.
        self._warns = warns

    @abstractmethod
    def _leave(self) -> None:
        """Note in the state that this end is closed."""

    def close(self) -> None:
        """Close this end."""
        if not self._closed:
            self._closed = True
            self._leave()

    async def aclose(self) -> None:
        """Close this end, like :meth:`close`."""
        self.close()

    def statistics(self) -> MemoryObjectStreamStatistics:
        """Return the state at this instant; what was put back counts as buffered."""
        return self._state.statistics()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._warns and not self._closed:
            warnings.warn(
                f"Unclosed <{type(self).__name__} at {id(self):x}>",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )


@final
class FrontSendStream(_FrontEnd, ObjectSendStream[T_contra]):
    """
    The sending end of a front-of-stream channel, see :class:`create_front_stream`.

    Like AnyIO's memory object send stream: it can be cloned, and is to be closed.
    """

    __slots__ = ("_state",)

    _state: FrontState[T_contra]

    def __init__(self, state: FrontState[T_contra]) -> None:
        super().__init__(warns=True)
        self._state = state
        state.open_senders += 1

    def send_nowait(self, item: T_contra) -> None:
        """
        Send an item if that can be done without waiting.

        :param item: the item
        :raises ~anyio.WouldBlock: if the buffer is full and no task waits to receive
        :raises ~anyio.ClosedResourceError: if this end has been closed
        :raises ~anyio.BrokenResourceError: if the receiving end has been closed

        """
        self._check_open()
        self._state.send_nowait(item)

    async def send(self, item: T_contra) -> None:
        """
        Send an item, and wait for room if the buffer is full.

        A caller that is cancelled has not sent, with one exception, which AnyIO's own streams have
        too: asyncio's ``Task.cancel()`` in the very instant in which a receiver has taken the item.

        :param item: the item
        :raises ~anyio.ClosedResourceError: if this end has been closed, or is while waiting
        :raises ~anyio.BrokenResourceError: if the receiving end has been closed, or is while
            waiting

        """
        await checkpoint()
        self._check_open()
        await self._state.send(item, self)

    def clone(self) -> FrontSendStream[T_contra]:
        """
        Return another sending end; the stream ends when all of them have been closed.

        :raises ~anyio.ClosedResourceError: if this end has been closed

        """
        self._check_open()
        return FrontSendStream(self._state)

    def _leave(self) -> None:
        self._state.open_senders -= 1
        self._state.close_senders(self)


@final
class FrontReceiveStream(_FrontEnd, ObjectReceiveStream[T_co]):
    """
    The receiving end of a front-of-stream channel, see :class:`create_front_stream`.

    Like AnyIO's memory object receive stream, with :meth:`receive_numbered` and
    :meth:`put_back`.
    """

    __slots__ = ("_state",)

    _state: FrontState[T_co]

    def __init__(self, state: FrontState[T_co], *, warns: bool = True) -> None:
        super().__init__(warns=warns)
        self._state = state
        state.open_receivers += 1

    def receive_nowait(self) -> T_co:
        """
        Receive the frontmost item if that can be done without waiting.

        :return: the item
        :raises ~anyio.WouldBlock: if there is none at the moment
        :raises ~anyio.EndOfStream: if there is none and all sending ends have been closed
        :raises ~anyio.ClosedResourceError: if this end has been closed

        """
        self._check_open()
        return self._state.receive_nowait()[1]

    async def receive(self) -> T_co:
        """
        Receive the frontmost item.

        If the task is cancelled when it has been handed an item but has not resumed yet, by
        asyncio's own ``Task.cancel()`` too, the item goes back to the front.

        :return: the item
        :raises ~anyio.EndOfStream: if there is none and all sending ends have been closed
        :raises ~anyio.ClosedResourceError: if this end has been closed, or is while waiting

        """
        return (await self.receive_numbered())[1]

    async def receive_numbered(self) -> tuple[int, T_co]:
        """
        Receive the frontmost item with its position in the order sent, as :meth:`receive` does.

        :return: the position, from 0 on, and the item
        :raises ~anyio.EndOfStream: if there is none and all sending ends have been closed
        :raises ~anyio.ClosedResourceError: if this end has been closed, or is while waiting

        """
        await checkpoint()
        self._check_open()
        return await self._state.receive(self)

    def put_back(self, item: T_co, position: int) -> None:  # type: ignore[misc] # it was received here
        """
        Put an item to the front: it is received before any that was not put back.

        Of those that were, the lowest position is received first. There is always room.

        :param item: the item, or one to take its place
        :param position: its position as :meth:`receive_numbered` has returned it, 0 or more
        :raises TypeError: if ``position`` is no int
        :raises ValueError: if ``position`` is negative
        :raises ~anyio.ClosedResourceError: if this end has been closed

        """
        self._check_open()
        self._state.put_back(item, check_count("position", position, least=0))

    def clone(self) -> FrontReceiveStream[T_co]:
        """
        Return another receiving end; sending breaks when all of them have been closed.

        :raises ~anyio.ClosedResourceError: if this end has been closed

        """
        self._check_open()
        return FrontReceiveStream(self._state, warns=self._warns)

    def _leave(self) -> None:
        self._state.open_receivers -= 1
        self._state.close_receivers(self)


@final
class create_front_stream(  # noqa: N801 - a function to its users, as AnyIO's is
    tuple[FrontSendStream[T], FrontReceiveStream[T]]
):
    """
    Return a sending and a receiving end, like :class:`anyio.create_memory_object_stream`.

    What has been received can be put back, in its old place at the front of the stream:

    >>> import anyio, anythrottle
    >>> async def main():
    ...     send, receive = anythrottle.create_front_stream[str](3)
    ...     with send, receive:
    ...         for item in "abc":
    ...             await send.send(item)
    ...         position, item = await receive.receive_numbered()
    ...         receive.put_back(item, position)
    ...         return [await receive.receive() for _ in range(3)]
    >>> anyio.run(main)
    ['a', 'b', 'c']

    The item type is given by subscription, as above.

    :param max_buffer_size: how many items can be sent before :meth:`FrontSendStream.send` waits:
        0 or more, or infinity. What is put back doesn't count.
    :raises TypeError: if it is neither an int nor infinity
    :raises ValueError: if it is negative

    """

    __slots__ = ()

    def __new__(  # type: ignore[misc] # a plain tuple, as AnyIO's
        cls, max_buffer_size: float = 0
    ) -> tuple[FrontSendStream[T], FrontReceiveStream[T]]:
        if max_buffer_size != float("inf"):
            check_count("max_buffer_size", max_buffer_size, least=0, or_else="infinity")

        state: FrontState[T] = FrontState(max_buffer_size)
        return FrontSendStream(state), FrontReceiveStream(state)
