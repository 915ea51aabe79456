"""
Native wake-ups: what they are, and how asyncio does them.

A :class:`Run` is one event loop run. It tells its time, and parks and wakes whoever waits in it.
AnyIO's own ``Event`` would do, at twice the time and memory for each waiter (it has to find its
backend anew each time). Trio's side is in ``trio_parking.py``.
"""

from __future__ import annotations

import asyncio
import time
import types
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from math import inf
from threading import get_ident
from typing import Literal, cast, final

from anyio.abc import AsyncBackend

from .process import current_process


class Parked:
    """Whoever waits: remembers how to be woken while it is parked."""

    __slots__ = ("parked",)

    #: An ``asyncio.Future`` or a Trio task, while parked.
    parked: object


class Run(ABC):
    """One run of an event loop. In a forked child, those of the parent process have ended."""

    __slots__ = (
        "_process",
        "behind",
        "checkpoint",
        "checkpoint_if_cancelled",
        "deadline",
        "real",
        "suspect",
        "time",
    )

    #: By how much this run's clock was behind ``time.monotonic()`` when it was last read.
    behind: float
    #: Whether this run's clock is the real one; then it is read as ``time.monotonic()``.
    real: bool
    #: What returns the time of this run's clock, in seconds.
    time: Callable[[], float]
    #: What lets others run, and is cancelled if that is due.
    checkpoint: Callable[[], Awaitable[None]]
    #: What raises if the scope that the caller is in is cancelled, and lets others run only then.
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    #: What returns the deadline of that scope: minus infinity if it is cancelled.
    deadline: Callable[[], float]
    #: The task that was noted last, if that may have failed since; ``True`` if one has.
    suspect: weakref.ref[asyncio.Task[object]] | Literal[True] | None

    def __init__(self) -> None:
        self._process = current_process()
        self.behind = 0.0

    @abstractmethod
    def is_current(self) -> bool:
        """Tell whether the caller is inside this run, or a guest's in this one."""

    @abstractmethod
    def is_here(self) -> bool:
        """Tell whether the caller is a task of this run: slower, and certain."""

    @abstractmethod
    def task(self) -> object:
        """Return the task that runs now."""

    @abstractmethod
    def is_over(self) -> bool:
        """Tell, from outside, whether this run stands still, or has ended."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Tell whether this run has ended for good."""

    @abstractmethod
    def goes_on_here(self, loop: object) -> bool:
        """
        Return whether this run is that of a loop, though perhaps in another thread than before.

        :param loop: what :func:`.current_loop` returns
        """

    @abstractmethod
    def park(self, who: Parked) -> Awaitable[object]:
        """Wait for :meth:`wake`."""

    @abstractmethod
    async def park_until(self, who: Parked, instant: float) -> bool:
        """Wait for :meth:`wake` or an instant of this run's clock; tell whether it was a wake."""

    @abstractmethod
    def wake(self, who: Parked) -> None:
        """Wake somebody, if it is parked; more than once is the same as once."""

    def is_cancelled(self) -> bool:
        """Return whether the scope that the caller is in is cancelled."""
        return self.deadline() == -inf

    @abstractmethod
    def note_actor(self) -> None:
        """Note that the task which runs now begins its call, or grants others their turns."""

    def is_alarmed(self) -> bool:
        """
        Return whether a task that was noted has failed, so that others may be cancelled at once.

        Who has just passed a checkpoint has to :meth:`look` then, before its call begins.
        """
        return False

    def must_look(self) -> bool:
        """
        Return whether a task that has been woken has to :meth:`look` before its call begins.

        Nothing is thrown at a task that has been woken already: it has to see for itself that its
        scope has been cancelled since.
        """
        return self.deadline() == -inf

    async def look(self) -> None:
        """Raise if the scope that the caller is in is cancelled, or is about to be."""
        await self.checkpoint_if_cancelled()


@final
class AsyncioRun(Run):
    """A run of an asyncio event loop, in the thread that it was made in."""

    __slots__ = ("_looking", "_loop", "_thread")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, backend: type[AsyncBackend] | None = None
    ) -> None:
        super().__init__()
        self._loop = loop
        self.suspect = None
        #: Held by the one that looks. A task group learns one pass of the loop later that a task
        #: of it has failed: those that were woken before have to wait for that.
        self._looking = asyncio.Lock()
        self._thread = get_ident()
        own_time = getattr(loop.time, "__func__", None) is not asyncio.BaseEventLoop.time
        accelerated = type(loop).__module__.partition(".")[0] in {"uvloop", "winloop"}
        # The real clock is the loop's own too, but uvloop cuts that to milliseconds.
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
        # A fourth of what asyncio.get_running_loop() costs, which asks for the process id too.
        return self._loop.is_running() and get_ident() == self._thread and not self._process.left

    def is_here(self) -> bool:
        # Trio may run as a guest in asyncio's callbacks.
        return self.is_current() and asyncio.current_task(self._loop) is not None

    def task(self) -> object:
        return asyncio.current_task(self._loop)

    def is_over(self) -> bool:
        return self._process.left or not self._loop.is_running()

    def has_ended(self) -> bool:
        return self._process.left or self._loop.is_closed()

    def goes_on_here(self, loop: object) -> bool:
        if loop is not self._loop or self._process.left:
            return False

        self._thread = get_ident()
        return True

    def _virtual_time(self) -> float:
        now = self._loop.time()
        self.behind = time.monotonic() - now
        return now

    def park(self, who: Parked) -> Awaitable[object]:
        who.parked = future = self._loop.create_future()
        return future

    async def park_until(self, who: Parked, instant: float) -> bool:
        future: asyncio.Future[bool] = self._loop.create_future()
        who.parked = future
        timer = None if instant == inf else self._loop.call_at(instant, _time_is_up, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self, who: Parked) -> None:
        future = cast("asyncio.Future[bool] | None", who.parked)
        if future is not None:
            who.parked = None
            if not (future.done() or self._process.left or self._loop.is_closed()):
                future.set_result(True)

    def note_actor(self) -> None:
        if self.suspect is None or not self.is_alarmed():
            task = asyncio.current_task(self._loop)
            self.suspect = None if task is None else weakref.ref(task)

    def is_alarmed(self) -> bool:
        suspect = self.suspect
        if isinstance(suspect, weakref.ref):
            # Its step is over. Asking by exception() would count as taking note of it.
            task = suspect()
            failed = task is not None and task.done() and getattr(task, "_exception", None)
            self.suspect = suspect = True if failed else None

        return suspect is True

    def must_look(self) -> bool:
        return self.is_alarmed() or self.deadline() == -inf

    async def look(self) -> None:
        if not self.is_cancelled():
            # One after the other, lest each of many that fail makes all the others wait.
            async with self._looking:
                await self._let_groups_learn()

        await self.checkpoint_if_cancelled()

    async def _let_groups_learn(self) -> None:
        if self.is_alarmed():
            await _yield_once()
            self.suspect = None


@types.coroutine
def _yield_once() -> Generator[None, None, None]:
    # What asyncio.sleep(0) comes to, without its two coroutines.
    yield


def _no_deadline() -> float:
    return inf


def _time_is_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
