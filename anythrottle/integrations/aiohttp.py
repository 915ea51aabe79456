"""Throttled clients of aiohttp, on asyncio: ``pip install anythrottle[aiohttp]``."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import final

import aiohttp
import anyio
from aiohttp.base_protocol import BaseProtocol

from .._errors import LimitExceeded, StoreError
from .._limiters.max_wait import MaxWait
from .._loops.clock import loop_of, native_loop
from .._policies.policy import Cost, Decision, PolicyState
from ..abc import Permit
from ._exchange import DRAINED, DRAINING, IDEMPOTENT, Exchange
from ._held import HeldCall
from ._hosts import ClientLimiter
from ._options import Options, key_of_host
from .headers import Exempt, Profile

__all__ = ("StoreAway", "ThrottledMiddleware", "TurnTimeout")

#: Errors after which nothing of a request has reached its server.
_NEVER_LEFT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ServerFingerprintMismatch,
)


@final
class TurnTimeout(  # pyright: ignore[reportUnsafeMultipleInheritance] # see its __init__
    LimitExceeded, aiohttp.ClientError, TimeoutError
):
    """
    Raised if a request has not got its turn within ``max_wait``: an error of aiohttp, too.

    :ivar decision: why, and when a request could go
    :ivar quotas: what each policy of the limiter had left

    """

    def __init__(self, decision: Decision, quotas: tuple[PolicyState, ...] = ()) -> None:
        # Not by super(): an OSError would take the two for its number and its text.
        Exception.__init__(self, decision, quotas)
        self.decision = decision
        self.quotas = quotas


@final
class StoreAway(  # pyright: ignore[reportUnsafeMultipleInheritance] # see its __init__
    StoreError, aiohttp.ClientConnectionError
):
    """
    Raised if the store of a shared limiter gives a request no turn: an error of aiohttp, too.

    Nothing of the request has been sent.

    :ivar name: the name of the limiter
    :ivar reason: what went wrong, and what to do about it
    :ivar is_mistake: whether it stays so until the program or its settings are changed

    """


class ThrottledMiddleware:
    """
    A middleware of aiohttp whose requests wait for their turns, and follow what the server says.

    >>> import asyncio, aiohttp
    >>> from anythrottle.integrations.aiohttp import ThrottledMiddleware
    >>> throttled = ThrottledMiddleware("20/10s")
    >>> async def main():
    ...     async with aiohttp.ClientSession(middlewares=(throttled,)) as session:
    ...         ...
    >>> asyncio.run(main())

    A request holds its slot and its charge until its answer has come to its end, or is closed; a
    websocket, until that is closed. Waiting for a turn holds no connection, but counts for
    ``ClientTimeout.total``. A refusal pauses the limiter for all; the request goes again, if it
    can, from the front of the line. Each hop of a redirect is a request. Give it as the last of the
    middlewares, so that it sees each request that another one makes.

    :param limiter: a text such as ``"20/10s"``: so much for each host, measured from the end of
        each call unless the text says otherwise; a limiter for all; or a
        :class:`~anythrottle.KeyedLimiter`
    :param key: returns the key of a request, which decides on its limiter; ``None`` for its host
    :param cost: what a request costs: calls, amounts by unit, a function of the request that
        returns either, or :data:`~anythrottle.integrations.headers.EXEMPT`
    :param profile: how the server tells its figures: a name of
        :data:`~anythrottle.integrations.headers.PROFILES`, or a profile of your own
    :param max_throttles: how often a request is sent at most, at least 1
    :param max_wait: for how many seconds a request waits for each turn at most, 0 or more;
        ``"deadline"`` for until the deadline of the enclosing cancel scope; ``None`` for as long as
        it takes
    :param max_pause: for how many seconds a pause is waited for at most, above 0; after a refusal
        that asks for more, the limiter pauses for so long, and the answer is returned
    :param learn: whether the limits that the server tells become the limiter's
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range

    """

    __slots__ = ("_options",)

    def __init__(
        self,
        limiter: ClientLimiter,
        *,
        key: Callable[[aiohttp.ClientRequest], Hashable] | None = None,
        cost: Cost | Exempt | Callable[[aiohttp.ClientRequest], Cost | Exempt] = 1,
        profile: Profile | str = "plain",
        max_throttles: int = 5,
        max_wait: MaxWait = None,
        max_pause: float = 3600.0,
        learn: bool = False,
    ) -> None:
        self._options = Options[aiohttp.ClientRequest](
            limiter,
            key=key,
            cost=cost,
            profile=profile,
            max_throttles=max_throttles,
            max_wait=max_wait,
            max_pause=max_pause,
            learn=learn,
        )

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request in its turn; return the answer, which holds its slot until it is over."""
        url, options = request.url, self._options
        host = key_of_host(url.scheme, url.host or "", url.port)
        asked = options.asked(request, host)
        if asked is None:
            return await handler(request)

        exchange = Exchange(
            _Request(request, handler),
            options.hosts,
            asked.key,
            options.rules,
            cost=asked.cost,
            max_wait=asked.max_wait,
            host=host,
        )
        return await exchange.run(asked.priority)


@final
class _Request:
    """A request, as an exchange knows it."""

    #: No answer tells what its call has cost: its body belongs to its reader, and there is no copy.
    settles = False

    def __init__(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> None:
        self._request = request
        self._handler = handler
        self.idempotent = request.method in IDEMPOTENT
        self.replayable = _is_replayable(request.body)

    async def send(self) -> aiohttp.ClientResponse:
        return await self._handler(self._request)

    def never_left(self, error: BaseException) -> bool:
        # Our own errors come from another middleware, within this one.
        return isinstance(error, (*_NEVER_LEFT, StoreAway, TurnTimeout))

    def head(self, answer: aiohttp.ClientResponse) -> tuple[int, Iterable[tuple[str, str]]]:
        raw = answer.raw_headers
        names = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        return answer.status, names

    def is_over(self, answer: aiohttp.ClientResponse) -> bool:
        return answer.connection is None

    def settle_of(self, answer: aiohttp.ClientResponse) -> None:
        """Return nothing, as :attr:`settles` says."""

    async def close(self, answer: aiohttp.ClientResponse) -> None:
        answer.close()

    async def drain(self, answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        answer.content = await _small_body(answer)
        # The server may have refused it instead of saying "100 Continue", which it may say now.
        self._request.update_expect_continue()
        return answer

    def hold(self, answer: aiohttp.ClientResponse, call: HeldCall) -> None:
        connection = answer.connection
        assert connection is not None, "it would be over"
        loop = loop_of(native_loop())
        # The connection must not keep an answer alive that has been dropped.
        known = weakref.ref(answer)

        def released() -> None:
            held = known()
            if held is not None and held.closed:
                call.end()
            else:
                # It was dropped. The garbage collector may find that, in any thread and at any
                # time.
                loop.post(call.end)

        connection.add_callback(released)

    def note(
        self,
        answer: aiohttp.ClientResponse,
        waited: float,
        attempts: int,
        permit: Permit,
    ) -> None:
        """Note nothing: an answer of aiohttp has no place for it."""

    def turn_timeout(self, error: LimitExceeded) -> TurnTimeout:
        return TurnTimeout(error.decision, error.quotas)

    def store_away(self, error: StoreError) -> StoreAway:
        return StoreAway(*error.args)


def _is_replayable(body: object) -> bool:
    """Return whether a body can be sent again: bytes, which str, JSON and forms are, or nothing."""
    if isinstance(body, aiohttp.MultipartWriter):
        return all(_is_replayable(part) for part, *_ in body)

    return isinstance(body, (bytes, aiohttp.BytesPayload))


async def _small_body(answer: aiohttp.ClientResponse) -> aiohttp.StreamReader:
    """Return an answer's body, and let its connection go; none if it is large, slow or broken."""
    content = answer.content
    body = bytearray()
    whole = False
    try:
        with anyio.move_on_after(DRAINING):
            while not content.at_eof() and len(body) <= DRAINED:
                body += await content.readany()

            whole = content.at_eof() and len(body) <= DRAINED
    except Exception as exc:
        # An answer that is not returned may fail, unless the time of the whole request is over.
        if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ClientError):
            raise
    finally:
        if not whole:
            answer.close()

    if not whole:
        return aiohttp.EMPTY_PAYLOAD

    loop = asyncio.get_running_loop()
    again = aiohttp.StreamReader(BaseProtocol(loop), DRAINED, loop=loop)
    again.feed_data(bytes(body))
    again.feed_eof()
    return again
