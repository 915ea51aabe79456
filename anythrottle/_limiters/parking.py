"""
Native wake-ups: a future of the asyncio loop, a rescheduled task on Trio.

A :class:`Run` is one event loop run. It tells its time, and parks and wakes whoever waits in it.
AnyIO's own ``Event`` would do, at twice the time and memory for each waiter (it has to find its
backend anew each time).
"""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Awaitable, Generator
from contextlib import suppress
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Protocol, final

from anyio.lowlevel import EventLoopToken

if TYPE_CHECKING:
    import trio


class Parked:
    """Whoever waits: remembers how to be woken while it is parked."""

    __slots__ = ("_parked",)

    #: An ``asyncio.Future`` or a Trio task, while parked.
    _parked: object


class Run(Protocol):
    """One run of an event loop."""

    #: By how much this run's clock was behind ``time.monotonic()`` when it was last read.
    behind: float

    def is_current(self) -> bool:
        """Tell whether the caller is inside this run."""

    def is_over(self) -> bool:
        """Tell, from outside, whether this run has ended, or at least stands still."""

    def goes_on_here(self, token: EventLoopToken) -> bool:
        """Tell whether the caller is in this very run, though in another thread than before."""

    def time(self) -> float:
        """Return the time of this run's clock, in seconds."""

    def checkpoint(self) -> Awaitable[None]:
        """Let others run, and be cancelled if that is due."""

    def park(self, who: Parked) -> Awaitable[object]:
        """Wait for :meth:`wake`."""

    async def park_until(self, who: Parked, instant: float) -> bool:
        """Wait for :meth:`wake` or an instant of this run's clock; tell whether it was a wake."""

    def wake(self, who: Parked) -> None:
        """Wake somebody, if it is parked; more than once is the same as once."""


def run_of(token: EventLoopToken) -> Run:
    """Return the run that a token of the running event loop stands for."""
    native = token.native_token
    return AsyncioRun(native) if isinstance(native, asyncio.AbstractEventLoop) else TrioRun(native)


@final
class AsyncioRun:
    """A run of an asyncio event loop, in the thread that it was made in."""

    __slots__ = ("_loop", "_real", "_thread", "behind")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = get_ident()
        own_time = getattr(loop.time, "__func__", None) is not asyncio.BaseEventLoop.time
        accelerated = type(loop).__module__.partition(".")[0] in {"uvloop", "winloop"}
        self._real = accelerated or not own_time
        self.behind = 0.0

    def is_current(self) -> bool:
        # A fourth of what asyncio.get_running_loop() costs, which asks for the process id too.
        return self._loop.is_running() and get_ident() == self._thread

    def is_over(self) -> bool:
        return not self._loop.is_running()

    def goes_on_here(self, token: EventLoopToken) -> bool:
        if token.native_token is not self._loop:
            return False

        self._thread = get_ident()
        return True

    def time(self) -> float:
        if self._real:
            # The loop's own clock too, but uvloop cuts that to milliseconds.
            return time.monotonic()

        now = self._loop.time()
        self.behind = time.monotonic() - now
        return now

    def checkpoint(self) -> Awaitable[None]:
        return _yield_once()

    def park(self, who: Parked) -> Awaitable[object]:
        who._parked = future = self._loop.create_future()
        return future

    async def park_until(self, who: Parked, instant: float) -> bool:
        future = self._loop.create_future()
        who._parked = future
        if instant == inf:
            timer = None
        else:
            timer = self._loop.call_at(instant, _time_is_up, future)

        try:
            woken: bool = await future
        finally:
            if timer is not None:
                timer.cancel()

        return woken

    def wake(self, who: Parked) -> None:
        future = who._parked
        if isinstance(future, asyncio.Future):
            who._parked = None
            if not future.done() and not self._loop.is_closed():
                future.set_result(True)


@types.coroutine
def _yield_once() -> Generator[None, None, None]:
    # What asyncio.sleep(0) comes to, without its two coroutines.
    yield


def _time_is_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


@final
class TrioRun:
    """A run of Trio."""

    __slots__ = ("_clock", "_current_token", "_real", "_token", "_trio", "behind")

    def __init__(self, token: object) -> None:
        import trio

        assert isinstance(token, trio.lowlevel.TrioToken)
        self._trio = trio
        self._token = token
        self._current_token = trio.lowlevel.current_trio_token
        self._clock = trio.lowlevel.current_clock()
        self._real = type(self._clock).__name__ == "SystemClock"
        self.behind = 0.0

    def is_current(self) -> bool:
        try:
            return self._current_token() is self._token
        except RuntimeError:
            return False

    def is_over(self) -> bool:
        try:
            self._token.run_sync_soon(bool)
        except self._trio.RunFinishedError:
            return True

        return False

    def goes_on_here(self, token: EventLoopToken) -> bool:
        return token.native_token is self._token

    def time(self) -> float:
        if self._real:
            # Trio's own clock counts the same seconds, from a random origin.
            return time.monotonic()

        now = self._clock.current_time()
        self.behind = time.monotonic() - now
        return now

    def checkpoint(self) -> Awaitable[None]:
        return self._trio.lowlevel.checkpoint()

    def park(self, who: Parked) -> Awaitable[object]:
        lowlevel = self._trio.lowlevel

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            who._parked = None
            return lowlevel.Abort.SUCCEEDED

        who._parked = lowlevel.current_task()
        return lowlevel.wait_task_rescheduled(abort)

    async def park_until(self, who: Parked, instant: float) -> bool:
        if instant == inf:
            deadline = inf
        elif self._real:
            deadline = self._clock.current_time() + (instant - self.time())
        else:
            deadline = instant

        with self._trio.CancelScope(deadline=deadline) as scope:
            await self.park(who)

        return not scope.cancelled_caught

    def wake(self, who: Parked) -> None:
        if not self.is_current():
            # From the host's side of a guest run, or after the end.
            with suppress(self._trio.RunFinishedError):
                self._token.run_sync_soon(self._wake_here, who)
        else:
            self._wake_here(who)

    def _wake_here(self, who: Parked) -> None:
        task = who._parked
        if isinstance(task, self._trio.lowlevel.Task):
            who._parked = None
            self._trio.lowlevel.reschedule(task)
