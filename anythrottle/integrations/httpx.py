"""Throttled clients of httpx: ``pip install anythrottle[httpx]``."""

from __future__ import annotations

from typing import ClassVar, final

import httpx

from .._errors import LimitExceeded, StoreError
from .._policies.policy import Decision, PolicyState
from ._transport import HeldBody, Library, Throttled

__all__ = ("StoreAway", "ThrottledTransport", "TurnTimeout")


@final
class TurnTimeout(LimitExceeded, httpx.PoolTimeout):  # pyright: ignore[reportUnsafeMultipleInheritance] # see __init__()
    """
    Raised if a request has not got its turn within ``max_wait``: a ``PoolTimeout`` of httpx, too.

    :ivar decision: why, and when a request could go
    :ivar quotas: what each policy of the limiter had left

    """

    def __init__(self, decision: Decision, quotas: tuple[PolicyState, ...] = ()) -> None:
        # Not by super(): the two bases are made in ways of their own.
        Exception.__init__(self, decision, quotas)
        self.decision = decision
        self.quotas = quotas
        self._request = None


@final
class StoreAway(StoreError, httpx.ConnectError):  # pyright: ignore[reportUnsafeMultipleInheritance] # see __init__()
    """
    Raised if a shared limiter's store gives a request no turn: a ``ConnectError`` of httpx, too.

    Nothing of the request has been sent.

    :ivar name: the name of the limiter
    :ivar reason: what went wrong, and what to do about it
    :ivar is_mistake: whether it stays so until the program or its settings are changed

    """

    #: ``None`` until the client says which request it was.
    _request = None


class _HeldBody(HeldBody, httpx.AsyncByteStream):
    """A body that httpx accepts."""


def _turn_timeout(error: LimitExceeded) -> TurnTimeout:
    return TurnTimeout(error.decision, error.quotas)


def _store_away(error: StoreError) -> StoreAway:
    return StoreAway(*error.args)


class ThrottledTransport(Throttled[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    """
    A transport of httpx whose requests wait for their turns, and follow what the server says.

    >>> import httpx
    >>> from anythrottle.integrations.httpx import ThrottledTransport
    >>> transport = ThrottledTransport(httpx.AsyncHTTPTransport(), "20/10s")
    >>> client = httpx.AsyncClient(transport=transport)

    A request holds its slot and its charge until its answer has been read, or is closed. Waiting
    for a turn counts for none of the timeouts of httpx, and holds no connection. A refusal pauses
    the limiter for all; the request goes again, if it can, from the front of the line.

    :param transport: what sends the requests
    :param limiter: a text such as ``"20/10s"``: so much for each host, measured from the end of
        each call unless the text says otherwise; a limiter for all; or a
        :class:`~anythrottle.KeyedLimiter`
    :param key: returns the key of a request, which decides on its limiter; ``None`` for its host
    :param cost: what a request costs: calls, amounts by unit, a function of the request that
        returns either, or :data:`~anythrottle.integrations.headers.EXEMPT`
    :param settle: returns, for a complete copy of an answer, what the call has really cost;
        ``None`` to leave it. It is called when the body has been read, if that is no longer than 4
        MiB
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

    A request can have options of its own, by
    ``extensions={"anythrottle": {"cost": 2, "priority": -1, "max_wait": 5, "key": "other"}}``. Its
    answer tells in ``extensions["anythrottle"]`` for how long it has ``waited``, in how many
    ``attempts`` it came, and its ``permit``.
    """

    _library: ClassVar = Library(
        response=httpx.Response,
        bytes_body=httpx.ByteStream,
        held_body=_HeldBody,
        never_left=(
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.ProxyError,
            httpx.UnsupportedProtocol,
        ),
        turn_timeout=_turn_timeout,
        store_away=_store_away,
    )
