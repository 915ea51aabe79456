"""Distinguishes a cancellation of the run from what a job has raised by itself."""

from __future__ import annotations

import asyncio
from typing import cast, final

import anyio

from .._loops.event_loop import EventLoop


def bare(error: BaseException) -> BaseException:
    """Return the first error in a task group's, cancellations apart; else the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error

    group = cast("BaseExceptionGroup[BaseException]", error)
    rest = group.split(anyio.get_cancelled_exc_class())[1]
    return group if rest is None else bare(rest.exceptions[0])


def is_cancellation(error: BaseException) -> bool:
    """Return whether an error is a cancellation, or a group of nothing else, as Trio raises it."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(cancelled)[1] is None

    return isinstance(error, cancelled)


def without_cancellations(error: BaseException) -> BaseException:
    """
    Return a group without the cancellations in it; else the error itself.

    A Trio nursery may raise such a group; a task group on asyncio leaves cancellations out.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error

    group = cast("BaseExceptionGroup[BaseException]", error)
    cancellations, rest = group.split(anyio.get_cancelled_exc_class())
    return group if cancellations is None or rest is None else rest


@final
class RunCancellation:
    """
    Knows whether the run is being cancelled; made in the task that runs it.

    A cancel scope is not the only way: asyncio's own ``Task.cancel()`` leaves no trace in the
    scopes. And not every ``CancelledError`` is a cancellation: a job that awaits a task which was
    cancelled raises it as well, as does a job whose task is cancelled natively by other code than
    the run's owner.

    :param loop: the event loop
    :param host_waits: whether the task that runs it only waits for the run's other tasks

    """

    __slots__ = ("_before", "_host", "_host_waits", "_loop")

    def __init__(self, loop: EventLoop, *, host_waits: bool = False) -> None:
        self._loop = loop
        self._host_waits = host_waits
        try:
            self._host = asyncio.current_task()
        except RuntimeError:
            self._host = None

        self._before = 0 if self._host is None else self._host.cancelling()

    def caused(self, error: BaseException) -> bool:
        """Return whether ``error``, just caught, must be raised: it is the run's cancellation."""
        if isinstance(error, GeneratorExit):
            return True

        return is_cancellation(error) and self.is_under_way()

    def is_under_way(self) -> bool:
        """Return whether the run is being cancelled, or at least the calling task."""
        if self._loop.is_cancelled():
            return True

        if not self.host_is_called():
            return False

        # Perhaps by a timeout within the host alone: then no other task is being cancelled.
        task = asyncio.current_task()
        return task is self._host or (task is not None and task.cancelling() > 0)

    def forbids_starts(self) -> bool:
        """
        Return whether no job may start any more: the run is being cancelled, or is about to be.

        A waiting host is cancelled in the same step as its scope, and asking the task costs a tenth
        of what asking the scope costs.
        """
        if self._host_waits and self._host is not None:
            return self._host.cancelling() > self._before

        return self._loop.is_cancelled()

    def host_is_called(self) -> bool:
        """
        Return whether the task that runs the run has been cancelled natively.

        It may not have noticed yet, and the cancellation may be a timeout of its own.
        """
        return self._host is not None and self._host.cancelling() > self._before

    def native_task(self) -> asyncio.Task[object] | None:
        """Return the calling task, if it can be cancelled natively."""
        return None if self._host is None else asyncio.current_task()

    def is_native(self, error: BaseException) -> bool:
        """
        Return whether ``error`` is there because the calling task was cancelled natively.

        A ``CancelledError`` may also come from a function that has asked a cancelled future.
        """
        task = self.native_task()
        return (
            isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
        )

    @staticmethod
    def absorb(error: BaseException) -> None:
        """Undo the native cancellation behind an error that goes no further."""
        if isinstance(error, asyncio.CancelledError):
            _uncancel(asyncio.current_task())

    def forget(self, task: asyncio.Task[object] | None) -> None:
        """
        Undo the native cancellation of a task, unless it is the run's.

        It was meant for a job that is over.
        """
        if task is not None and task.cancelling() and not self.is_under_way():
            _uncancel(task)


def _uncancel(task: asyncio.Task[object] | None) -> None:
    while task is not None and task.cancelling():
        task.uncancel()
