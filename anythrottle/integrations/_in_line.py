"""A request that waits: what it sends meanwhile, and whether it has hung up."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar, final

import anyio
from anyio.lowlevel import checkpoint

from ._asgi import Message, Receive

T = TypeVar("T")

#: How many bytes of a body are received while a request waits, and in how many messages.
_MOST_BYTES, _MOST_MESSAGES = 64 * 1024, 4096

#: The messages that say that the client does not wait for an answer any more.
_GONE = frozenset({"http.disconnect", "websocket.disconnect"})


@final
class Early:
    """
    What a request sends while it waits, kept for the application.

    :param receive: receives from the server
    :ivar waiting: the scope to wait in: it is cancelled if the client hangs up
    :ivar error: what was raised instead of a message

    """

    __slots__ = ("_heard", "_messages", "_over", "_receive", "_size", "error", "waiting")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages = deque[Message]()
        self._size = 0
        #: Whether the turn has come, and no more is to be received on behalf of the request.
        self._over = False
        #: Set once nothing is received here any more.
        self._heard = anyio.Event()
        self.waiting = anyio.CancelScope()
        self.error: Exception | None = None

    async def listen(self) -> None:
        """Receive what comes, until there is too much of it, the client is gone, or it is over."""
        try:
            while not self._over and self._has_room():
                message = await self._receive()
                self._messages.append(message)
                self._size += len(message.get("body") or b"")
                if message["type"] in _GONE:
                    self.waiting.cancel()
                    return

                # Some servers hand out what they have without a checkpoint.
                await checkpoint()
        except Exception as error:  # noqa: BLE001 - it is the application's, or the server's
            self.error = error
            self.waiting.cancel()
        finally:
            self._heard.set()

    async def wait(self, enter: Callable[[], Awaitable[T]]) -> T | None:
        """
        Wait for the turn; return what is entered then, or ``None`` if the client is gone.

        :param enter: enters the permit
        :raises Exception: what was raised instead of a message
        """
        entered = None
        with self.waiting:
            entered = await enter()

        self._over = True
        if entered is None and self.error is not None:
            raise self.error

        return entered

    async def receive(self) -> Message:
        """Return what came while the request waited, and then what comes."""
        if not self._messages:
            # A message that is on its way must not be lost, whatever the server does when its
            # receive() is cancelled.
            await self._heard.wait()

        if self._messages:
            return self._messages.popleft()

        error, self.error = self.error, None
        if error is not None:
            raise error

        return await self._receive()

    def _has_room(self) -> bool:
        return self._size <= _MOST_BYTES and len(self._messages) < _MOST_MESSAGES
