"""
A limit for any ASGI application: ``pip install anythrottle[asgi]``.

It needs no framework, and runs on asyncio and on Trio, under any server of either.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import final

from .._errors import LimitExceeded
from .._limiters.current import make_current, no_longer_current
from .._limiters.max_wait import MaxWait, check_max_wait
from .._limiters.permit import TurnPermit
from .._limiters.rate_limiter import RateLimiter
from .._policies.policy import Cost
from ..abc import Limiter
from ._addresses import client_address
from ._asgi import ASGIApp, Receive, Scope, Send
from ._exempt import EXEMPT, Exempt
from ._guard import UNSAID, Guard, ServerLimiter, Unsaid
from ._serving import Outage, Serving
from ._telling import tell

__all__ = ("EXEMPT", "Exempt", "RateLimitMiddleware", "client_address")


@final
class RateLimitMiddleware:
    """
    An ASGI application that limits another one, and tells clients what they have left.

    >>> from anythrottle.integrations.asgi import RateLimitMiddleware
    >>> async def app(scope, receive, send):
    ...     await send({"type": "http.response.start", "status": 204, "headers": []})
    ...     await send({"type": "http.response.body"})
    >>> app = RateLimitMiddleware(app, "100/min")

    A text limits each client by its address. A :class:`.KeyedLimiter` has a limiter for each key,
    made as you say; any other limiter is one for all. A request beyond the limit is answered 429,
    with ``Retry-After``, or 503 while the limiter is paused or its store does not answer; a
    websocket is refused before it is accepted. Every other answer has the fields
    ``RateLimit-Policy`` and ``RateLimit``: a client that is alone with its key and obeys them is
    never refused by a rate measured from the start.

    A slot of the limiter is held until the application returns, so streams and websockets count
    for as long as they last. Errors that the application raises pass through.

    :param app: the application
    :param limiter: a text such as ``"100/min"``, a limiter, or one for each key
    :param key: a function of the scope that returns the key of the client, or
        :data:`~.headers.EXEMPT` for a request that is not limited; ``None`` for
        :func:`client_address`
    :param cost: what a request costs, 0 or more, or amounts by unit; :data:`~.headers.EXEMPT`; or a
        function of the scope that returns one of these
    :param max_wait: for how many seconds a request waits for its turn at most, 0 or more; ``None``
        for as long as it takes. A client that hangs up meanwhile leaves the line
    :param overflow: the limiter that new clients share while there are as many keys as there may
        be; ``None`` refuses them. If ``limiter`` is a text, the default is a limiter of that text
    :param headers: whether answers have the fields
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a text is no limit, or a number out of its range

    """

    __slots__ = ("_app", "_guard", "_headers", "_max_wait", "_outage")

    def __init__(
        self,
        app: ASGIApp,
        limiter: ServerLimiter,
        *,
        key: Callable[[Scope], Hashable] | None = None,
        cost: Cost | Exempt | Callable[[Scope], Cost | Exempt] = 1,
        max_wait: MaxWait = 0.0,
        overflow: str | Limiter | Unsaid | None = UNSAID,
        headers: bool = True,
    ) -> None:
        self._app = app
        self._guard = Guard(limiter, key=key, cost=cost, overflow=overflow)
        self._max_wait: MaxWait = check_max_wait(max_wait)
        self._headers = headers
        self._outage = Outage()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve a connection.

        :param scope: what it is
        :param receive: receives from the server
        :param send: sends to the server
        :raises TypeError: if ``key`` or ``cost`` has returned what is of the wrong type
        :raises ValueError: if a cost does not fit the limiter, or is negative
        :raises ~anythrottle.CostTooHigh: if the limiter could never allow a cost

        """
        asked = self._guard.asked(scope) if scope["type"] in {"http", "websocket"} else None
        if asked is None:
            await self._app(scope, receive, send)
            return

        key, cost = asked
        try:
            limiter = self._guard.limiter_of(key)
        except LimitExceeded as error:
            await self._serving(cost, scope, receive, send).refuse(error)
            return

        permit = limiter.permit(cost, max_wait=self._max_wait)
        if type(permit) is not TurnPermit or not permit.enter_now():
            serving = self._serving(cost, scope, receive, send)
            method = serving.wait if self._may_wait(limiter, cost) else serving.enter
            await method(limiter, permit)
            return

        # The common case: there is a turn at once. The server has checkpoints of its own.
        current = make_current(permit)
        try:
            if self._headers:
                await tell(self._app, scope, receive, send, permit.quotas)
            else:
                await self._app(scope, receive, send)
        finally:
            no_longer_current(current)
            permit.leave()

    def _serving(self, cost: Cost, scope: Scope, receive: Receive, send: Send) -> Serving:
        """Return a request that has no turn at once."""
        return Serving(self._app, cost, scope, receive, send, self._headers, self._outage)

    def _may_wait(self, limiter: Limiter, cost: Cost) -> bool:
        """Return whether a request that has no turn at once may come to wait for one."""
        max_wait = self._max_wait
        if max_wait == 0:
            return False

        if max_wait is None or max_wait == "deadline" or type(limiter) is not RateLimiter:
            return True

        # Else it is refused at once: a flood of such requests must not start a task for each.
        return not max_wait < limiter.peek(cost).retry_after < inf
