"""Adds the fields that tell a client what is left to any answer of an application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .._policies.policy import PolicyState
from ..abc import Limiter, QuotaLimiter
from ._asgi import ASGIApp, Message, Receive, Scope, Send
from ._writing import write_fields

#: The key in a scope of what is told on the answer, by all guards that stand one within the other,
#: because a field must not tell of two policies by one name.
_TOLD: Final = "anythrottle.told"

#: The messages that bear the headers of an answer.
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


async def tell(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, states: Sequence[PolicyState]
) -> None:
    """
    Call an application, and add the fields to its answer.

    :param states: what each policy has left
    """
    outer: list[PolicyState] | None = scope.get(_TOLD)
    if outer is not None:
        outer.extend(states)
        await app(scope, receive, send)
        return

    told = list(states)

    # Not async: it is called for each message, and most have no headers.
    def send_telling(message: Message) -> object:
        if message["type"] in _STARTS and (fields := write_fields(told)):
            message = {**message, "headers": [*message.get("headers", ()), *fields]}

        return send(message)

    # In the scope itself, not in a copy: an application around this one looks for what those
    # within, a router for example, have put there.
    scope[_TOLD] = told
    try:
        await app(scope, receive, send_telling)  # type: ignore[arg-type]
    finally:
        scope.pop(_TOLD, None)


def told_by_others(scope: Scope) -> int:
    """Return how many policies the guards around this one tell of."""
    return len(scope.get(_TOLD, ()))


def states_of(permit: object, limiter: Limiter) -> Sequence[PolicyState]:
    """Return what each policy has left, once a permit is entered; nothing if that is unknown."""
    states: Sequence[PolicyState] | None = getattr(permit, "quotas", None)
    if states is None:
        return limiter.quotas() if isinstance(limiter, QuotaLimiter) else ()

    return states
