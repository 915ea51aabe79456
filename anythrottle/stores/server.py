"""What a store needs of its server: one kind of exchange, and news that come unasked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from .exchange import Push, Reply, Request
from .turnstile import Turnstile


class Server(Protocol):
    """
    A server, or what stands for one, while a store is entered.

    Entering it connects to nothing yet; leaving it closes what was opened.
    """

    async def exchange(self, name: str, request: Request) -> Reply:
        """
        Carry a request out.

        It may be cancelled at any time, and then be repeated with the same number.

        :param name: the name of the limiter
        :raises Exception: if no answer has come; the request may have been carried out all the same

        """
        ...

    def turnstile(self, name: str) -> Turnstile:
        """Return where exchanges about a limiter wait until they may begin."""
        ...

    async def forget(self, name: str) -> None:
        """Delete all that the server knows of a limiter."""
        ...

    def listen(
        self,
        name: str,
        node: str,
        on_push: Callable[[Push], None],
        on_ready: Callable[[], None],
    ) -> AbstractAsyncContextManager[None]:
        """
        Return a context in which a function is called with each push for a process, or for all.

        Entering it does not wait for the server. What is sent while the connection is broken is
        lost; the connection is made again each time it breaks.

        :param on_push: called with each push
        :param on_ready: called when pushes are heard, first and after each break
        """
        ...
