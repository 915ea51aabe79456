"""The state that the ends of a front-of-stream channel share."""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappop, heappush
from typing import Generic, TypeVar, final

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, WouldBlock
from anyio.streams.memory import MemoryObjectStreamStatistics

from .._loops.clock import LoopClock, weakly
from .._loops.event_loop import EventLoop, Parked

T = TypeVar("T")


class _Waiter(Parked):
    """
    A task that waits at the stream.

    :ivar owner: the end of the stream at which it waits
    :ivar settled: whether what it waits for has happened, or cannot happen any more

    """

    __slots__ = ("loop", "owner", "settled")

    def __init__(self, owner: object, loop: EventLoop) -> None:
        self.parked = None
        self.owner = owner
        self.loop = loop
        self.settled = False

    def settle(self) -> None:
        self.settled = True
        self.loop.wake(self)

    async def wait(self) -> None:
        while not self.settled:
            await self.loop.park(self)


@final
class _Receiver(_Waiter, Generic[T]):
    """
    A task that waits for an item.

    :ivar numbered: the item that it was handed, with its position
    :ivar sent_away: whether its end was closed

    """

    __slots__ = ("numbered", "sent_away")

    def __init__(self, owner: object, loop: EventLoop) -> None:
        super().__init__(owner, loop)
        self.numbered: tuple[int, T] | None = None
        self.sent_away = False


@final
class _Sender(_Waiter, Generic[T]):
    """A task that waits for room; ``taken`` is whether its item has found room."""

    __slots__ = ("item", "taken")

    def __init__(self, owner: object, loop: EventLoop, item: T) -> None:
        super().__init__(owner, loop)
        self.item = item
        self.taken = False


@final
class FrontState(Generic[T]):
    """
    The state that the ends of one stream share.

    An item is in one place: with a sender that waits, in the buffer, at the front, or handed to
    a receiver. An item that was handed over belongs to the receiver once its task has resumed;
    if the task is cancelled before, the item goes to the front. An item gets its position when it
    leaves the buffer, in the order sent.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_clock",
        "_handed",
        "_max_buffer_size",
        "_positions",
        "_put_backs",
        "_receivers",
        "_senders",
        "front",
        "open_receivers",
        "open_senders",
    )

    def __init__(self, max_buffer_size: float) -> None:
        self._max_buffer_size = max_buffer_size
        self._buffer: deque[T] = deque()
        #: What has been put back: (position, number of the put-back, item), as a heap.
        self.front: list[tuple[int, int, T]] = []
        self._put_backs = 0
        self._positions = 0
        #: How many items have been handed to receivers that have not resumed yet.
        self._handed = 0
        #: The tasks that wait, in their order; ordered dicts, because any of them may leave.
        self._senders: OrderedDict[_Sender[T], None] = OrderedDict()
        self._receivers: OrderedDict[_Receiver[T], None] = OrderedDict()
        self._clock = LoopClock(weakly(self._forget_run), "the front stream")
        #: How many ends are open; counted by the ends themselves, and by a throttler for its own.
        self.open_senders = 0
        self.open_receivers = 0

    def __len__(self) -> int:
        return len(self.front) + len(self._buffer)

    def __repr__(self) -> str:
        return f"<front stream of {len(self)} items>"

    def items(self) -> list[T]:
        """Return the items that were not received, in the order in which they would be."""
        return [item for _, _, item in sorted(self.front)] + list(self._buffer)

    def send_nowait(self, item: T) -> None:
        """Hand ``item`` to a receiver or the buffer, or raise :exc:`~anyio.WouldBlock`."""
        if not self.open_receivers:
            raise BrokenResourceError

        if self._is_awaited():
            self._hand(self._new_position(), item)
        elif len(self._buffer) < self._max_buffer_size:
            self._buffer.append(item)
        else:
            raise WouldBlock

    async def send(self, item: T, owner: object) -> None:
        """Hand ``item`` over; wait for room if there is none. A cancelled caller has not sent."""
        try:
            self.send_nowait(item)
        except WouldBlock:
            sender = _Sender(owner, self._clock.loop(), item)
            self._senders[sender] = None
            try:
                await sender.wait()
            finally:
                self._senders.pop(sender, None)

            if not sender.taken:
                raise (
                    BrokenResourceError if not self.open_receivers else ClosedResourceError
                ) from None

    def receive_nowait(self) -> tuple[int, T]:
        """Return the frontmost item with its position, or raise ``WouldBlock``, ``EndOfStream``."""
        if self.front:
            position, _, item = heappop(self.front)
            return position, item

        if self._senders:
            # A task whose loop has ended has not sent.
            self._clock.peek()

        if self._buffer:
            item = self._buffer.popleft()
            if self._senders:
                self._buffer.append(self._take_from_sender())
        elif self._senders:
            item = self._take_from_sender()
        elif self.is_at_end():
            raise EndOfStream
        else:
            raise WouldBlock

        return self._new_position(), item

    async def receive(self, owner: object) -> tuple[int, T]:
        """Return the frontmost item with its position, as soon as there is one."""
        while True:
            try:
                return self.receive_nowait()
            except WouldBlock:
                receiver: _Receiver[T] = _Receiver(owner, self._clock.loop())
                if self.is_at_end():
                    # An item that was handed over in a loop that has ended will not be put back.
                    raise EndOfStream from None

                self._receivers[receiver] = None
                try:
                    await receiver.wait()
                    if receiver.loop.is_cancelled():
                        # Nothing is thrown at a task that has been woken already.
                        await receiver.loop.checkpoint_if_cancelled()
                except BaseException:
                    self._withdraw(receiver)
                    raise

            if receiver.numbered is not None:
                self._handed -= 1
                self.end_if_drained()
                return receiver.numbered

            if receiver.sent_away:
                raise ClosedResourceError

            # The end was announced. Something may have been put back since then.

    def put_back(self, item: T, position: int) -> None:
        """Put ``item`` to the front, in the order of positions."""
        if self._is_awaited():
            self._hand(position, item)
        else:
            self._put_backs += 1
            heappush(self.front, (position, self._put_backs, item))

    def is_at_end(self) -> bool:
        """Return whether there is no item to receive, and never will be."""
        empty = not (self.front or self._buffer or self._senders or self._handed)
        return empty and not self.open_senders

    def end_if_drained(self) -> None:
        """Wake all receivers that wait if there can be no more items."""
        if self.is_at_end():
            while self._receivers:
                self._receivers.popitem(last=False)[0].settle()

    def close_receivers(self, owner: object) -> None:
        """Wake the receivers that wait at an end that closes, and all senders if it is the last."""
        for receiver in [r for r in self._receivers if r.owner is owner]:
            del self._receivers[receiver]
            receiver.sent_away = True
            receiver.settle()

        if not self.open_receivers:
            while self._senders:
                self._senders.popitem(last=False)[0].settle()

    def close_senders(self, owner: object) -> None:
        """Wake the senders that wait at an end that closes, and all receivers if it is the last."""
        for sender in [s for s in self._senders if s.owner is owner]:
            del self._senders[sender]
            sender.settle()

        self.end_if_drained()

    def statistics(self) -> MemoryObjectStreamStatistics:
        return MemoryObjectStreamStatistics(
            len(self),
            self._max_buffer_size,
            self.open_senders,
            self.open_receivers,
            len(self._senders),
            len(self._receivers),
        )

    def _is_awaited(self) -> bool:
        """Return whether a task waits for an item in a loop that has not ended."""
        if self._receivers:
            self._clock.peek()

        return bool(self._receivers)

    def _new_position(self) -> int:
        self._positions += 1
        return self._positions - 1

    def _hand(self, position: int, item: T) -> None:
        receiver, _ = self._receivers.popitem(last=False)
        receiver.numbered = (position, item)
        self._handed += 1
        receiver.settle()

    def _take_from_sender(self) -> T:
        sender, _ = self._senders.popitem(last=False)
        sender.taken = True
        sender.settle()
        return sender.item

    def _withdraw(self, receiver: _Receiver[T]) -> None:
        """Remove a cancelled receiver; put the item that it was handed to the front."""
        if receiver.numbered is not None:
            position, item = receiver.numbered
            self._handed -= 1
            self.put_back(item, position)
        else:
            self._receivers.pop(receiver, None)

    def _forget_run(self, _shift: float) -> None:
        self._senders.clear()
        self._receivers.clear()
        self._handed = 0
