"""The transport for httpx2 and httpx, generic over the library's classes."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
)
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast, final

import anyio

from .._errors import LimitExceeded, StoreError
from .._limiters.max_wait import MaxWait
from .._policies.policy import Cost
from ..abc import Permit
from ._exchange import DRAINED, DRAINING, IDEMPOTENT, Exchange
from ._held import HeldCall, Settle
from ._hosts import ClientLimiter
from ._options import Options, key_of_host
from .headers import Exempt, Profile

#: How many seconds closing an answer that is not returned may take.
_CLOSING = 1.0

#: The extension by which a request says what is special about it, and an answer how it came about.
_EXTENSION = "anythrottle"


class Url(Protocol):
    """A URL."""

    @property
    def scheme(self) -> str:
        """The scheme, in lower case."""
        ...

    @property
    def host(self) -> str:
        """The host, in lower case."""
        ...

    @property
    def port(self) -> int | None:
        """The port, unless it is the scheme's."""
        ...


class Headers(Protocol):
    """The headers of an answer."""

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """The names and values as they came."""
        ...


class Body(Protocol):
    """The body of an answer."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over its parts, as they come."""
        ...

    async def aclose(self) -> None:
        """Close the answer."""
        ...


class Request(Protocol):
    """A request."""

    method: str
    stream: Any  # pyright: ignore[reportExplicitAny] # the library's own
    extensions: Any  # pyright: ignore[reportExplicitAny]

    @property
    def url(self) -> Url:
        """Its address."""
        ...


class Response(Protocol):
    """An answer."""

    status_code: int
    is_closed: bool
    stream: Any  # pyright: ignore[reportExplicitAny]
    extensions: Any  # pyright: ignore[reportExplicitAny]

    @property
    def headers(self) -> Headers:
        """Its headers."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


Req = TypeVar("Req", bound=Request)
Res = TypeVar("Res", bound=Response)


@final
class ClientClosed(RuntimeError):
    """Raised by a request that has got its turn when its client is closed already."""


class HeldBody:
    """
    The body of an answer, which ends its call when it has been read, or is closed.

    :param body: the library's own
    :param call: the call

    """

    def __init__(self, body: Body, call: HeldCall) -> None:
        self._body = body
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call, parts = self._call, aiter(self._body)
        try:
            async for part in parts:
                call.take(part)
                yield part
        except GeneratorExit:
            # Its reader stops early. The connection is held until the answer is closed.
            raise
        except BaseException:
            call.end()
            raise
        finally:
            await _close_parts(parts)

        call.end(complete=True)

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            self._call.end()

    def __del__(self) -> None:
        self._call.lose()


async def _close_parts(parts: AsyncIterator[bytes]) -> None:
    """Close the iterator of a body if it is a generator, because Trio would warn of it."""
    if isinstance(parts, AsyncGenerator):
        await parts.aclose()


@dataclass(frozen=True, slots=True)
class Library:
    """
    What a transport needs of its library.

    :ivar response: its class of answers
    :ivar bytes_body: its class of bodies that can be sent again
    :ivar held_body: makes a body that is a :class:`HeldBody`
    :ivar never_left: its errors after which nothing has reached the server
    :ivar turn_timeout: makes the error of a request that has not got its turn
    :ivar store_away: makes the error of a request that the limiter's store gives no turn

    """

    response: Callable[..., Any]  # pyright: ignore[reportExplicitAny]
    bytes_body: type[Any]  # pyright: ignore[reportExplicitAny]
    held_body: Callable[[Body, HeldCall], object]
    never_left: tuple[type[BaseException], ...]
    turn_timeout: Callable[[LimitExceeded], Exception]
    store_away: Callable[[StoreError], Exception]


@final
class _Request(Generic[Req, Res]):
    """A request, as an exchange knows it."""

    def __init__(
        self,
        library: Library,
        send: Callable[[Req], Awaitable[Res]],
        request: Req,
        settle: Callable[[Res], Cost | None] | None,
    ) -> None:
        self._library = library
        self._send = send
        self._request = request
        self._settle = settle
        self.idempotent = request.method.upper() in IDEMPOTENT
        self.replayable = isinstance(request.stream, library.bytes_body)
        self.settles = settle is not None

    async def send(self) -> Res:
        return await self._send(self._request)

    def never_left(self, error: BaseException) -> bool:
        return isinstance(error, (ClientClosed, *self._library.never_left))

    def head(self, answer: Res) -> tuple[int, Iterable[tuple[str, str]]]:
        raw = answer.headers.raw
        names = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        return answer.status_code, names

    def is_over(self, answer: Res) -> bool:
        return answer.is_closed

    def settle_of(self, answer: Res) -> Settle | None:
        settle, response = self._settle, self._library.response
        if settle is None:
            return None

        if answer.is_closed:
            return lambda _: settle(answer)

        status, headers, request = answer.status_code, answer.headers.raw, self._request

        def settle_copy(body: bytes) -> Cost | None:
            # A copy, because the answer belongs to its reader. It is decoded like the answer.
            copy = response(status, headers=headers, content=body, request=request)
            return settle(cast("Res", copy))

        return settle_copy

    async def close(self, answer: Res) -> None:
        # An error in closing must not hide the one that came before.
        with anyio.move_on_after(_CLOSING, shield=True), suppress(Exception):
            await answer.aclose()

    async def drain(self, answer: Res) -> Res:
        if answer.is_closed:
            return answer

        body = await self._small_body(answer)
        copy = self._library.response(
            answer.status_code,
            headers=answer.headers.raw,
            stream=self._library.bytes_body(body),
            extensions=answer.extensions,
        )
        return cast("Res", copy)

    async def _small_body(self, answer: Res) -> bytes:
        """Return an answer's body, and close it; none if it is large, slow or broken."""
        body, parts = bytearray(), aiter(cast("Body", answer.stream))
        try:
            with anyio.move_on_after(DRAINING):
                async for part in parts:
                    body += part
                    if len(body) > DRAINED:
                        await _close_parts(parts)
                        return b""

                return bytes(body)
        except Exception:  # noqa: BLE001, S110 - of an answer that is not returned
            pass
        finally:
            await self.close(answer)

        return b""

    def hold(self, answer: Res, call: HeldCall) -> None:
        answer.stream = self._library.held_body(answer.stream, call)

    def note(self, answer: Res, waited: float, attempts: int, permit: Permit) -> None:
        said = {"waited": waited, "attempts": attempts, "permit": permit}
        answer.extensions = {**answer.extensions, _EXTENSION: said}

    def turn_timeout(self, error: LimitExceeded) -> Exception:
        return self._library.turn_timeout(error)

    def store_away(self, error: StoreError) -> Exception:
        return self._library.store_away(error)


class Throttled(Generic[Req, Res]):
    """
    A transport whose requests wait for their turns, and which follows what the server says.

    Its public subclasses document the parameters.
    """

    _library: ClassVar[Library]

    def __init__(
        self,
        transport: Any,  # pyright: ignore[reportExplicitAny] # the library's own class
        limiter: ClientLimiter,
        *,
        key: Callable[[Req], Hashable] | None = None,
        cost: Cost | Exempt | Callable[[Req], Cost | Exempt] = 1,
        settle: Callable[[Res], Cost | None] | None = None,
        profile: Profile | str = "plain",
        max_throttles: int = 5,
        max_wait: MaxWait = None,
        max_pause: float = 3600.0,
        learn: bool = False,
    ) -> None:
        if not hasattr(transport, "handle_async_request"):
            raise TypeError(
                f"transport must be an async transport, such as AsyncHTTPTransport(), "
                f"not {transport!r}"
            )

        if settle is not None and not callable(settle):
            raise TypeError(f"settle must be a function of an answer, or None, not {settle!r}")

        self._transport = transport
        self._closed = False
        self._settle = settle
        self._options = Options[Req](
            limiter,
            key=key,
            cost=cost,
            profile=profile,
            max_throttles=max_throttles,
            max_wait=max_wait,
            max_pause=max_pause,
            learn=learn,
        )

    async def handle_async_request(self, request: Req) -> Res:
        """Send a request in its turn; return the answer, which holds its slot until it is over."""
        url, options = request.url, self._options
        host = key_of_host(url.scheme, url.host, url.port)
        asked = options.asked(request, host, request.extensions.get(_EXTENSION))
        if asked is None:
            return await self._send(request)

        wire = _Request(self._library, self._send, request, self._settle)
        exchange = Exchange(
            wire,
            options.hosts,
            asked.key,
            options.rules,
            cost=asked.cost,
            max_wait=asked.max_wait,
            host=host,
        )
        return await exchange.run(asked.priority)

    async def _send(self, request: Req) -> Res:
        if self._closed:
            # Else it would open connections that are never closed.
            raise ClientClosed("the client was closed before this request had its turn")

        answer: Res = await self._transport.handle_async_request(request)
        return answer

    async def aclose(self) -> None:
        """Close the inner transport; a request that waits raises an error when its turn comes."""
        self._closed = True
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        self._closed = False
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._closed = True
        await self._transport.__aexit__(exc_type, exc_value, traceback)
