"""Parking and waking on Trio; imported only where Trio runs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import final

import trio

from .event_loop import EventLoop, Parked


@final
class TrioLoop(EventLoop):
    """Trio's event loop, in one run. A nursery learns at once that a task of it has failed."""

    __slots__ = ("_clock", "_current_token", "_token")

    def __init__(self, token: object) -> None:
        super().__init__()
        assert isinstance(token, trio.lowlevel.TrioToken)
        self._token = token
        self._current_token = trio.lowlevel.current_trio_token
        self._clock = trio.lowlevel.current_clock()
        self.real = type(self._clock).__name__ == "SystemClock"
        self.checkpoint = trio.lowlevel.checkpoint
        self.checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled
        self.deadline = trio.current_effective_deadline
        # Trio's own real clock counts the same seconds from a random origin.
        self.time = time.monotonic if self.real else self._virtual_time

    def is_current(self) -> bool:
        try:
            return self._current_token() is self._token and not self._process.left
        except RuntimeError:
            return False

    def task(self) -> object | None:
        return trio.lowlevel.current_task() if self.is_current() else None

    def has_ended(self) -> bool:
        if self._process.left:
            return True

        try:
            self._token.run_sync_soon(bool, idempotent=True)
        except trio.RunFinishedError:
            return True

        return False

    def goes_on_here(self, native: object) -> bool:
        return native is self._token and not self._process.left

    def _virtual_time(self) -> float:
        now = self._clock.current_time()
        self.behind = time.monotonic() - now
        return now

    def park(self, waiter: Parked) -> Awaitable[object]:
        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            waiter.parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        waiter.parked = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105 - the caller does

    async def park_until(self, waiter: Parked, instant: float) -> bool:
        if instant == inf:
            deadline = inf
        elif self.real:
            deadline = self._clock.current_time() + (instant - self.time())
        else:
            deadline = instant

        with trio.CancelScope(deadline=deadline) as scope:
            await self.park(waiter)

        return not scope.cancelled_caught

    def wake(self, waiter: Parked) -> None:
        if self.is_current():
            self._wake_here(waiter)
        elif not self._process.left:
            # From the host's side of a guest run, or after the end.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake_here, waiter)

    def post(self, function: Callable[[], object]) -> None:
        if not self._process.left:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(function)

    def _wake_here(self, waiter: Parked) -> None:
        task = waiter.parked
        if isinstance(task, trio.lowlevel.Task):
            waiter.parked = None
            trio.lowlevel.reschedule(task)
