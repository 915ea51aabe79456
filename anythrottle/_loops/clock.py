"""The clock of the running event loop, and which event loop that is."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from types import MethodType
from typing import final

from anyio import NoEventLoopError
from anyio.lowlevel import current_token

from .asyncio_loop import AsyncioLoop
from .event_loop import EventLoop
from .process import current_process
from .utc import UtcReader


@final
class LoopClock:
    """
    Reads the time of the running event loop, and notices when that is another one.

    Loops count from different origins. When the owner begins to be used in another loop, it is told
    by how much its instants have to be shifted, so that as much time has passed for them as has
    passed in reality.

    :param on_change: called with the shift, in seconds, when another loop begins to use the owner
    :param owner: the owner's name in an error

    """

    __slots__ = ("_on_change", "_owner", "_utc", "latest")

    def __init__(self, on_change: Callable[[float], None], owner: str) -> None:
        self._on_change = on_change
        self._owner = owner
        self._utc: UtcReader | None = None
        #: The loop that used the owner last.
        self.latest: EventLoop | None = None

    def now(self) -> float:
        """
        Return the time of the loop that the caller is in; outside of one, by real elapsed time.

        :raises RuntimeError: if another loop uses the owner at the same time

        """
        try:
            return self.loop().time()
        except NoEventLoopError:
            if self.latest is not None and self.latest.has_ended():
                self._change(None)

            return self.estimate()

    def loop(self) -> EventLoop:
        """
        Return the loop that the caller is in; what is bound to an earlier one is let go.

        :raises ~anyio.NoEventLoopError: if no event loop runs in this thread
        :raises RuntimeError: if another loop uses the owner at the same time

        """
        before = self.latest
        loop = before or _here.latest()
        if loop is not None and loop.is_here():
            if before is None:
                self._change(loop)

            return loop

        native = native_loop()
        if before is not None and before.goes_on_here(native):
            return before

        loop = loop_of(native)
        if before is not None and not before.is_over():
            raise RuntimeError(
                f"{self._owner} is in use in another event loop that is running now; "
                f"use one limiter per loop, or one loop and anyio.from_thread"
            )

        self._change(loop)
        return loop

    def peek(self) -> float:
        """
        Return the time as :meth:`now` does, for a question: a loop that may go on is not left.

        What was held in a loop that has ended is let go: asked later, the answer would be the same.
        """
        loop = self.latest
        if loop is not None and loop.is_current():
            return loop.time()

        return self.now() if loop is not None and loop.has_ended() else self.estimate()

    def estimate(self) -> float:
        """Return the time of the latest loop; outside of it, by real elapsed time."""
        loop = self.latest
        if loop is None:
            return time.monotonic()

        return loop.time() if loop.is_current() else time.monotonic() - loop.behind

    def utc(self, now: float) -> float:
        """Return UTC at an instant of this clock, in seconds since the epoch."""
        if self._utc is None:
            self._utc = UtcReader()

        return self._utc.read(now, real_clock=self.latest is None or self.latest.real)

    def _change(self, loop: EventLoop | None) -> None:
        """Go over to another loop, or to real time."""
        # The old clock is read first: a stall between the readings moves instants later, which is
        # the safe side.
        left = self.estimate()
        now = time.monotonic() if loop is None else loop.time()
        self.latest = loop
        self._utc = None
        self._on_change(now - left)


def native_loop() -> object:
    """
    Return what identifies the event loop that runs here: asyncio's loop, or Trio's token.

    :raises ~anyio.NoEventLoopError: if none runs in this thread

    """
    try:
        loop = current_token().native_token
        if loop is current_process().inherited:
            # asyncio's loop may run all the same, which AnyIO does not see then.
            loop = asyncio.get_running_loop()
    except RuntimeError as exc:
        # In a forked child AnyIO may take the parent's asyncio loop for running; asyncio does not.
        raise NoEventLoopError("no event loop runs in this thread") from exc

    return loop


@final
class _Here(threading.local):
    """The loop that each thread met last, as long as it is in use."""

    latest: Callable[[], EventLoop | None] = staticmethod(lambda: None)


_here = _Here()


def loop_of(native: object) -> EventLoop:
    """Return the event loop that runs here, given what :func:`native_loop` returns."""
    latest = _here.latest()
    if latest is not None and latest.goes_on_here(native):
        return latest

    loop: EventLoop
    if isinstance(native, asyncio.AbstractEventLoop):
        token = current_token()
        if token.native_token is not native:
            # AnyIO does not see the loop, so there are no cancel scopes in it.
            return AsyncioLoop(native)

        loop = AsyncioLoop(native, token.backend_class)
    else:
        # Imported only where Trio runs, and so is installed.
        from .trio_loop import TrioLoop

        loop = TrioLoop(native)

    _here.latest = weakref.ref(loop)
    return loop


@final
class weakly:  # noqa: N801 - reads as the function that it could be, at twice its size
    """Calls a method, but does not keep its object alive."""

    __slots__ = ("_function", "_owner")

    def __init__(self, method: Callable[[float], None]) -> None:
        assert isinstance(method, MethodType)
        self._function = method.__func__
        self._owner = weakref.ref(method.__self__)

    def __call__(self, shift: float) -> None:
        owner = self._owner()
        if owner is not None:
            self._function(owner, shift)
