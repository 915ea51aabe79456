"""What the tests of the ASGI middleware share: a server made of lists, and applications."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from anythrottle.integrations.headers import Quota, read_figures

Message = Any

#: An address for documentation.
CLIENT = ("192.0.2.7", 4711)


def scope_of(
    peer: tuple[str, int] | None = CLIENT,
    *,
    headers: Iterable[tuple[str, str]] = (),
    kind: str = "http",
    method: str = "GET",
    **more: Any,
) -> dict[str, Any]:
    """Return what a connection is."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope: dict[str, Any] = {"type": kind, "client": peer, "headers": raw, "path": "/", **more}
    return {**scope, "method": method} if kind == "http" else scope


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


@dataclass
class Client:
    """
    What a client sends, and is sent.

    :ivar script: messages; numbers are seconds that pass before the next, errors are raised
    :ivar sent: what it was sent
    """

    script: Sequence[Message | float | Exception] = (body(),)
    sent: list[Message] = field(default_factory=list)
    received: int = 0
    asked: int = 0

    async def receive(self) -> Message:
        self.asked += 1
        while self.received < len(self.script):
            message = self.script[self.received]
            self.received += 1
            if isinstance(message, Exception):
                raise message

            if not isinstance(message, (int, float)):
                return message

            # Cancelled here, what comes next is lost, as it may be with a server.
            await anyio.sleep(message)

        await anyio.sleep_forever()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def start(self) -> Message:
        """The message that bears the headers."""
        (start,) = [message for message in self.sent if "headers" in message]
        return start

    @property
    def status(self) -> int:
        status: int = self.start["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        headers = self.start["headers"]
        named = {name.decode(): value.decode() for name, value in headers}
        assert len(named) == len(headers)
        return named

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def problem(self) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(self.body)
        return problem

    @property
    def quotas(self) -> tuple[Quota, ...]:
        return read_figures(self.status, self.headers.items(), utc=0).quotas


App = Callable[[Any, Any, Any], Awaitable[None]]


async def ask(app: App, client: Client | None = None, **options: Any) -> Client:
    """Send a request, and return the client with its answer."""
    client = client or Client()
    await app(scope_of(**options), client.receive, client.send)
    return client


async def statuses(app: App, number: int, **options: Any) -> list[int]:
    return [(await ask(app, **options)).status for _ in range(number)]


@dataclass
class Echo:
    """
    An application that answers with the body that it was sent.

    :ivar takes: how long it takes, in seconds
    :ivar requests: the messages that each has received
    """

    takes: float = 0.0
    reads: bool = False
    requests: list[list[Message]] = field(default_factory=list)
    instants: list[float] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.instants.append(anyio.current_time())
        messages: list[Message] = []
        self.requests.append(messages)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.sleep(self.takes)
            while self.reads and (not messages or messages[-1].get("more_body")):
                messages.append(await receive())

            echo = b"".join(message.get("body", b"") for message in messages)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
            await send({"type": "http.response.body", "body": echo})
        finally:
            self.running -= 1
