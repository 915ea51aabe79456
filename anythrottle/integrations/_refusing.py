"""The answer to a request that is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf
from typing import Final, final

from .._errors import LimitExceeded
from .._limiters.cost import by_unit
from .._policies.policy import Cost, Decision, PolicyState
from ._asgi import Receive, Scope, Send
from ._writing import policy_name, whole_seconds

#: The longest wait that a client is told, in seconds: it may ask again after a day.
_DAY = 86_400

#: The wait that a client is told while a store is away, in seconds: it is tried about as often.
_SOON = 1

_PROBLEMS: Final = "https://iana.org/assignments/http-problem-types#"

#: The names of problems, by status: those of draft-ietf-httpapi-ratelimit-headers-11.
_KINDS: Final = {
    429: ("quota-exceeded", "Request cannot be satisfied as assigned quota has been exceeded"),
    503: (
        "temporary-reduced-capacity",
        "Request cannot be satisfied due to temporary server capacity constraints",
    ),
}

#: The extension of servers that let an application answer a websocket's request.
_DENIAL: Final = "websocket.http.response"


@final
class Refusal:
    """
    An application that refuses: a limiter is not available, or there are too many calls.

    It is not available while it is paused, and while its store is away.

    :param error: why; ``None`` if the store that is to give the turn does not answer
    :param cost: what the request would have cost
    :param before: how many policies the guards around this one tell of

    """

    __slots__ = ("_before", "_cost", "_decision", "_states")

    def __init__(self, error: LimitExceeded | None, cost: Cost, before: int) -> None:
        self._decision = None if error is None else error.decision
        self._states = () if error is None else error.quotas
        self._cost = cost
        self._before = before

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        kind = "http"
        if scope["type"] == "websocket":
            if _DENIAL not in (scope.get("extensions") or ()):
                # Before it is accepted: the server answers 403.
                await send({"type": "websocket.close", "code": 1013})
                return

            kind = "websocket.http"

        body, start = self._answer()
        await send({"type": f"{kind}.response.start", **start})
        sent = b"" if scope.get("method") == "HEAD" else body
        await send({"type": f"{kind}.response.body", "body": sent})

    def _answer(self) -> tuple[bytes, dict[str, object]]:
        """Return the body, and the status and headers that go before it."""
        decision = self._decision
        status = 503 if decision is None or decision.reason == "pause" else 429
        name, title = _KINDS[status]
        problem: dict[str, object] = {"type": _PROBLEMS + name, "title": title, "status": status}
        if decision is not None and status == 429:  # noqa: PLR2004
            problem["violated-policies"] = violated(
                decision, self._states, self._cost, self._before
            )

        body = json.dumps(problem).encode("ascii")
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"%d" % (_SOON if decision is None else retry_after(decision))),
        ]
        return body, {"status": status, "headers": headers}


def violated(
    decision: Decision, states: Sequence[PolicyState], cost: Cost, before: int
) -> list[str]:
    """Return the names of the policies that have less left than a request would have cost."""
    if decision.reason not in {"rate", "line"}:
        return []

    amounts = {"calls": 1, **by_unit(cost)}
    return [
        policy_name(state.policy, index)
        for index, state in enumerate(states, before)
        if state.remaining < amounts.get(state.policy.unit, 0) or state.policy is decision.policy
    ]


def retry_after(decision: Decision) -> int:
    """Return after how many seconds to come again, at least 1 and at most a day."""
    seconds = decision.retry_after
    if seconds == inf and decision.reason == "pause":
        return _DAY

    if seconds == inf:
        # When a call ends is unknown. But what counts until then comes back a window later.
        policy = decision.policy if decision.reason == "rate" else None
        seconds = 0.0 if policy is None else policy.window

    return min(whole_seconds(seconds), _DAY)
