"""One request that has no turn at once: it waits, or is refused."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import final

import anyio

from .._errors import LimitExceeded, PolicyConflict, StoreError
from .._limiters.current import as_current
from .._policies.policy import Cost
from ..abc import Limiter, Permit
from ._asgi import ASGIApp, Receive, Scope, Send
from ._in_line import Early
from ._refusing import Refusal
from ._telling import states_of, tell, told_by_others

#: The status for a client that has hung up, as nginx logs it. No client gets it.
_GONE = 499

_logger = logging.getLogger("anythrottle")


@final
class Outage:
    """Whether the store of a middleware's limiters is away, as far as requests have shown."""

    __slots__ = ("_lasts",)

    def __init__(self) -> None:
        self._lasts = False

    def note_refused(self, error: StoreError) -> None:
        """Note that a request has got no turn; it is logged once, until one has got its turn."""
        if not self._lasts:
            self._lasts = True
            _logger.warning("requests are answered 503 until the store is back: %s", error)

    def note_served(self) -> None:
        """Note that a request has got its turn."""
        self._lasts = False


@final
@dataclass(frozen=True, slots=True)
class Serving:
    """
    A request that has no turn at once, and what it takes to serve or refuse it.

    :ivar app: the application
    :ivar cost: what the request costs
    :ivar scope: what it is
    :ivar receive: receives from the server
    :ivar send: sends to the server
    :ivar headers: whether answers have the fields
    :ivar outage: notes whether the store of the limiters is away

    """

    app: ASGIApp
    cost: Cost
    scope: Scope
    receive: Receive
    send: Send
    headers: bool
    outage: Outage

    async def wait(self, limiter: Limiter, permit: AbstractAsyncContextManager[Permit]) -> None:
        """Serve the request, or refuse it; notice meanwhile if its client hangs up."""
        early = Early(self.receive)
        raised: BaseException | None = None
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(early.listen)
                try:
                    await self.enter(limiter, permit, early)
                except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
                    # Raised below, without a group around it.
                    raised = error

                task_group.cancel_scope.cancel()
        finally:
            # Even in place of a cancellation, as it would be raised without the group.
            if raised is not None:
                raise raised

    async def enter(
        self,
        limiter: Limiter,
        permit: AbstractAsyncContextManager[Permit],
        early: Early | None = None,
    ) -> None:
        """
        Serve the request once its permit is entered, or refuse it.

        :param early: notices if its client hangs up
        """
        refused: LimitExceeded | None = None
        away: StoreError | None = None
        gone = False
        async with AsyncExitStack() as stack:
            enter = partial(stack.enter_async_context, permit)
            try:
                entered = await (enter() if early is None else early.wait(enter))
            except LimitExceeded as error:
                refused = error
            except PolicyConflict:
                # A mistake in the program, which does not pass.
                raise
            except StoreError as error:
                away = error
            else:
                self.outage.note_served()
                gone = entered is None
                if entered is not None:
                    receive = self.receive if early is None else early.receive
                    await self._call(entered, limiter, receive)

        if away is not None:
            self.outage.note_refused(away)

        if away is not None or refused is not None:
            await self.refuse(refused)
        elif gone and self.scope["type"] == "http":
            await self._answer_who_is_gone()

    async def refuse(self, error: LimitExceeded | None) -> None:
        """
        Answer that the request is refused.

        :param error: why; ``None`` if the store that is to give the turn does not answer
        """
        refusal = Refusal(error, self.cost, told_by_others(self.scope))
        if self.headers:
            quotas = () if error is None else error.quotas
            await tell(refusal, self.scope, self.receive, self.send, quotas)
        else:
            await refusal(self.scope, self.receive, self.send)

    async def _answer_who_is_gone(self) -> None:
        """Answer a client that has hung up, as applications around this one insist on an answer."""
        with suppress(OSError):
            await self.send({"type": "http.response.start", "status": _GONE, "headers": []})
            await self.send({"type": "http.response.body", "body": b""})

    async def _call(self, permit: Permit, limiter: Limiter, receive: Receive) -> None:
        """Call the application, under a permit that is entered."""
        with as_current(permit):
            if self.headers:
                states = states_of(permit, limiter)
                await tell(self.app, self.scope, receive, self.send, states)
            else:
                await self.app(self.scope, receive, self.send)
