"""Pulls the items of a source that only one task may advance, one ahead of the jobs."""

from __future__ import annotations

from typing import Generic, final

import anyio
from anyio.abc import TaskGroup

from .._loops.event_loop import Parked
from .backlog import Backlog
from .job_record import I, T
from .outcome import uncancelled
from .run_state import RUNNING, RunState
from .sink import ResultSink
from .source import SourceEnd


@final
class SourceReader(Parked, Generic[I, T]):
    """
    Offers the items of a source to the workers of one run; parked until the one ahead is taken.

    :param backlog: takes the jobs for these items
    :param sink: decides what an error of the source means
    :param run: the run
    :param resumable: whether another run may go on with the source

    """

    __slots__ = ("_backlog", "_closing", "_resumable", "_run", "_scope", "_sink", "_stepping")

    def __init__(
        self, backlog: Backlog[I, T], sink: ResultSink[I, T], run: RunState, *, resumable: bool
    ) -> None:
        self.parked = None
        self._backlog = backlog
        self._sink = sink
        self._run = run
        self._resumable = resumable
        #: The scopes within which it pulls and closes: a generator may hold scopes of its own from
        #: one step to the next, and has to leave them before these. The outer one cuts off a step;
        #: the inner one can be shielded from that.
        self._scope = anyio.CancelScope()
        self._closing = anyio.CancelScope()
        #: Whether a step of the source is under way.
        self._stepping = False

    async def pull(self, task_group: TaskGroup) -> None:
        """
        Pull until the source has ended, or :meth:`end` is called; always in the calling task.

        :param task_group: the task group that this task is in

        """
        with self._scope, self._closing:
            try:
                await self._pull()
            finally:
                if not self._resumable:
                    await self._close(task_group)

    def end(self) -> None:
        """Pull nothing more, because the run has ended, and cut off a step that is under way."""
        if self._stepping:
            self._scope.cancel()
        else:
            self._run.loop.wake(self)

    def let_go(self) -> None:
        """Break the reference cycles, once the run is over."""
        del self._backlog, self._sink, self._run

    async def _pull(self) -> None:
        self._backlog.ahead_taken.await_by(self, self._run.loop)
        try:
            await self._run.loop.checkpoint()
            looks = self._resumable and self._backlog.source.is_async
            while self._run.phase is RUNNING and not self._backlog.source.interrupted:
                # A task that was woken before it was cancelled has not noticed yet. That only
                # matters to a source that goes on: it must not be cut off without need.
                if looks and self._run.cancellation.is_under_way():
                    return

                if self._backlog.ahead is None:
                    item = await self._step()
                    self._backlog.ahead = self._backlog.record(item)

                self._backlog.change.tell()
                await self._run.loop.park(self)
        except SourceEnd:
            pass
        except BaseException as exc:
            if self._run.cancellation.caused(exc):
                # AnyIO keeps it in a reference cycle: not with all that was under way.
                exc.__traceback__ = None
                raise

            if self._run.cancellation.is_native(exc):
                self._run.cancellation.absorb(exc)

            self.note_source_error(exc)
            return

        self._backlog.end_of_source()

    async def _step(self) -> I:
        source = self._backlog.source
        self._stepping = True
        try:
            return await source.pull()
        except SourceEnd:
            raise
        except BaseException as exc:
            if self._run.cancellation.is_under_way() or self._run.cancellation.is_native(exc):
                source.note_cut_off()

            raise
        finally:
            self._stepping = False

    def note_source_error(self, error: BaseException) -> None:
        """Handle an error of the source; of a sequence too, from which a worker has pulled."""
        error = uncancelled(error, "the source")
        if isinstance(error, Exception) and self._sink.survives(error):
            self._backlog.end_of_source()
        else:
            self._run.fail(error)

    async def _close(self, task_group: TaskGroup) -> None:
        source = self._backlog.source
        watching = anyio.CancelScope()
        if self._scope.cancel_called and source.can_be_cut_off:
            # It was cut off, and has given an item all the same. Closing it is no part of that
            # step: only the caller's cancellation may reach it.
            self._closing.shield = True
            task_group.start_soon(self._pass_on_cancellation, watching)

        try:
            await source.close()
        except BaseException as exc:
            if self._run.cancellation.caused(exc):
                # AnyIO keeps it in a reference cycle: not with all that was under way.
                exc.__traceback__ = None
                raise

            self._run.fail(uncancelled(exc, "the source"))
        finally:
            watching.cancel()

    async def _pass_on_cancellation(self, watching: anyio.CancelScope) -> None:
        try:
            # On asyncio, a task is not cancelled if its group was cancelled before it began.
            if not self._run.cancellation.is_under_way():
                with watching:
                    await anyio.sleep_forever()
        finally:
            self._closing.cancel()
