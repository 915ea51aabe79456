"""What the tests of throttled clients share: both libraries, and a server made of a script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import anyio
import httpx
import httpx2

from anythrottle import RateLimiter
from anythrottle.integrations import httpx as for_httpx
from anythrottle.integrations import httpx2 as for_httpx2

#: Where requests go.
URL = "http://a.example/"


class Library(NamedTuple):
    """One of the two, and what is ours for it."""

    module: Any
    ours: ModuleType

    def error(self, name: str) -> Exception:
        """Return one of its errors."""
        error: Exception = getattr(self.module, name)("as it happens")
        return error


LIBRARIES = {"httpx2": Library(httpx2, for_httpx2), "httpx": Library(httpx, for_httpx)}


@dataclass(frozen=True)
class Answer:
    """
    What the server does with a request.

    :ivar after: in how many seconds the headers come
    :ivar parts: of the body; numbers are seconds that pass, and an error ends it
    :ivar error: the name of an error that is raised instead of an answer
    :ivar read: whether the answer has been read already, as a cache's
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    parts: Sequence[bytes | float | Exception] = (b"whole", b" body")
    error: str | None = None
    read: bool = False

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """The headers as a library has them: any bytes will do there."""
        return [(name.encode(), value.encode()) for name, value in self.headers.items()]


class Body:
    """A body that is sent part by part; of a class that each library takes for its own."""

    def __init__(self, answer: Answer, server: Server) -> None:
        self.answer = answer
        self.server = server
        self.closed = False
        #: Whether who iterates over it has come to the end, or closed it.
        self.left = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for part in self.answer.parts:
                if isinstance(part, Exception):
                    raise part

                if isinstance(part, bytes):
                    yield part
                else:
                    await anyio.sleep(part)
        finally:
            # As a connection, which has to be closed.
            await anyio.lowlevel.checkpoint()
            self.left = True

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self.server.open -= 1

        await anyio.lowlevel.checkpoint()


class Server:
    """
    The transport inside of ours: answers by a script, whose last answer holds for all others.

    :ivar open: how many answers have not been closed
    """

    def __init__(self, library: Library, answers: Sequence[Answer]) -> None:
        self.library = library
        self.answers = answers
        self.sent: list[tuple[float, Any]] = []
        self.open = self.most_open = 0
        self.bodies: list[Body] = []
        self._body = type("StreamBody", (Body, library.module.AsyncByteStream), {})

    @property
    def instants(self) -> list[float]:
        """When the requests came."""
        return [instant for instant, _ in self.sent]

    def choose(self, request: Any) -> Answer:
        """Return the answer to a request that has been noted already."""
        return self.answers[min(len(self.sent), len(self.answers)) - 1]

    async def handle_async_request(self, request: Any) -> Any:
        self.sent.append((anyio.current_time(), request))
        answer = self.choose(request)
        await anyio.sleep(answer.after)
        if answer.error is not None:
            raise self.library.error(answer.error)

        if answer.read:
            content = b"".join(part for part in answer.parts if isinstance(part, bytes))
            return self.library.module.Response(answer.status, headers=answer.raw, content=content)

        self.open += 1
        self.most_open = max(self.most_open, self.open)
        body = self._body(answer, self)
        self.bodies.append(body)
        return self.library.module.Response(answer.status, headers=answer.raw, stream=body)

    async def __aenter__(self) -> None:
        self.entered = True

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self.closed = True


class Throttled:
    """A throttled client and its server."""

    def __init__(
        self, library: Library, limiter: Any, *answers: Answer, server: Any = None, **options: Any
    ) -> None:
        self.library = library
        self.server: Server = server or Server(library, answers or [Answer()])
        self.limiter = limiter
        self.transport = library.ours.ThrottledTransport(self.server, limiter, **options)
        self.client = library.module.AsyncClient(transport=self.transport, trust_env=False)

    async def get(self, url: str = URL, **options: Any) -> Any:
        return await self.client.get(url, **options)

    async def post(self, url: str = URL, **options: Any) -> Any:
        return await self.client.post(url, **options)

    async def open(self, method: str = "GET", url: str = URL, **options: Any) -> Any:
        """Return an answer at its headers."""
        request = self.client.build_request(method, url, **options)
        return await self.client.send(request, stream=True)

    @property
    def hosts(self) -> Any:
        return self.transport._options.hosts

    def limiter_of(self, key: str = "a.example") -> RateLimiter:
        limiter: RateLimiter = self.hosts._keyed[key]
        return limiter

    def assert_nothing_held(self, *, still_open: int = 0) -> None:
        assert self.server.open == still_open
        limiters = [self.limiter] if isinstance(self.limiter, RateLimiter) else []
        if self.hosts._keyed is not None:
            limiters = [self.hosts._keyed[key] for key in self.hosts._keyed]

        for limiter in limiters:
            statistics = limiter.statistics()
            assert (statistics.borrowed_tokens, statistics.kept) == (0, 0)
            assert statistics.tasks_waiting == 0


def held(limiter: RateLimiter) -> int:
    return limiter.statistics().borrowed_tokens
