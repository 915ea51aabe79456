"""Parking and waking on asyncio."""

from __future__ import annotations

import asyncio
import time
import types
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from math import inf
from threading import get_ident
from typing import cast, final

from anyio.abc import AsyncBackend

from .event_loop import EventLoop, Parked


@final
class AsyncioLoop(EventLoop):
    """An asyncio event loop, in the thread in which it was first met."""

    __slots__ = ("_looking", "_native", "_thread")

    def __init__(
        self, native: asyncio.AbstractEventLoop, backend: type[AsyncBackend] | None = None
    ) -> None:
        super().__init__()
        self._native = native
        #: Held by the task that looks. A task group learns one pass of the loop later that one of
        #: its tasks has failed, and tasks that were woken before have to wait for that.
        self._looking = asyncio.Lock()
        self._thread = get_ident()
        own_time = getattr(native.time, "__func__", None) is not asyncio.BaseEventLoop.time
        accelerated = type(native).__module__.partition(".")[0] in {"uvloop", "winloop"}
        # The loop's own time is that of the real clock too, but uvloop cuts it to milliseconds.
        self.real = accelerated or not own_time
        self.time = time.monotonic if self.real else self._virtual_time
        self.checkpoint = _yield_once  # type: ignore[assignment] # mypy forgets what coroutine() does
        if backend is None:
            self.checkpoint_if_cancelled = self.checkpoint
            self.deadline = _no_deadline
        else:
            self.checkpoint_if_cancelled = backend.checkpoint_if_cancelled
            self.deadline = backend.current_effective_deadline

    def is_current(self) -> bool:
        # A fourth of the cost of asyncio.get_running_loop(), which asks for the process id too.
        return self._native.is_running() and get_ident() == self._thread and not self._process.left

    def is_here(self) -> bool:
        # Trio may run as a guest in asyncio's callbacks, and asyncio knows tasks of other threads.
        return (
            asyncio.current_task(self._native) is not None
            and get_ident() == self._thread
            and not self._process.left
        )

    def task(self) -> object | None:
        here = get_ident() == self._thread and not self._process.left
        return asyncio.current_task(self._native) if here else None

    def is_over(self) -> bool:
        return self._process.left or not self._native.is_running()

    def has_ended(self) -> bool:
        return self._process.left or self._native.is_closed()

    def goes_on_here(self, native: object) -> bool:
        if native is not self._native or self._process.left:
            return False

        self._thread = get_ident()
        return True

    def _virtual_time(self) -> float:
        now = self._native.time()
        self.behind = time.monotonic() - now
        return now

    def park(self, waiter: Parked) -> Awaitable[object]:
        waiter.parked = future = self._native.create_future()
        return future

    async def park_until(self, waiter: Parked, instant: float) -> bool:
        future: asyncio.Future[bool] = self._native.create_future()
        waiter.parked = future
        timer = None if instant == inf else self._native.call_at(instant, _time_is_up, future)
        try:
            return await future
        finally:
            waiter.parked = None
            if timer is not None:
                timer.cancel()

    def wake(self, waiter: Parked) -> None:
        future = cast("asyncio.Future[bool] | None", waiter.parked)
        if future is not None:
            waiter.parked = None
            if not (future.done() or self._process.left or self._native.is_closed()):
                future.set_result(True)

    def post(self, function: Callable[[], object]) -> None:
        if not self._process.left:
            with suppress(RuntimeError):
                self._native.call_soon_threadsafe(function)

    def note_actor(self) -> None:
        if self.suspect is None or not self.is_alarmed():
            task = asyncio.current_task(self._native)
            self.suspect = None if task is None else weakref.ref(task)

    def is_alarmed(self) -> bool:
        suspect = self.suspect
        if isinstance(suspect, weakref.ref):
            # The task's step is over. exception() would count as taking note of its error.
            task = suspect()
            failed = task is not None and task.done() and getattr(task, "_exception", None)
            self.suspect = suspect = True if failed else None

        return suspect is True

    async def look(self) -> None:
        if not self.is_cancelled():
            # One after the other, lest each of many tasks that fail makes all the others wait.
            async with self._looking:
                await self._let_groups_learn()

        await self.checkpoint_if_cancelled()

    async def _let_groups_learn(self) -> None:
        if self.is_alarmed():
            await _yield_once()
            self.suspect = None


@types.coroutine
def _yield_once() -> Generator[None, None, None]:
    # The same as asyncio.sleep(0), without its two coroutines.
    yield


def _no_deadline() -> float:
    return inf


def _time_is_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
