"""Pulls the items of a source that only one task may advance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, final

import anyio

from .._limiters.parking import Parked, Run
from .backlog import Backlog
from .cancellation import RunCancellation
from .outlet import Outlet
from .source import SourceEnd

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")


@final
class Puller(Parked, Generic[I, T]):
    """
    Offers the items of a source to the workers of one run, one ahead; parked until it is taken.

    :param backlog: where the jobs for them go
    :param outlet: is asked what an error of the source means
    :param cancellation: tells a cancellation of the run from what the source has raised
    :param run: the event loop run
    :param on_pulled: is called when a job is ahead
    :param end_with: is called with an error that ends the run
    :param resumable: whether another run may go on with the source

    """

    __slots__ = (
        "_backlog",
        "_cancellation",
        "_end_with",
        "_on_pulled",
        "_outlet",
        "_resumable",
        "_run",
        "scope",
        "stopping",
    )

    def __init__(
        self,
        backlog: Backlog[I, T],
        outlet: Outlet[I, T],
        cancellation: RunCancellation,
        *,
        run: Run,
        on_pulled: Callable[[], None],
        end_with: Callable[[BaseException], None],
        resumable: bool,
    ) -> None:
        self.parked = None
        self._backlog = backlog
        self._run = run
        self._on_pulled = on_pulled
        self._outlet = outlet
        self._cancellation = cancellation
        self._end_with = end_with
        self._resumable = resumable
        #: The scope within which it pulls.
        self.scope = anyio.CancelScope()
        #: Whether nothing more is to be pulled.
        self.stopping = False

    async def pull(self) -> None:
        """Pull until the source has ended; always in the task that calls this."""
        backlog = self._backlog
        backlog.on_ahead_taken = self._go_on
        with self.scope:
            try:
                while not self.stopping:
                    if backlog.ahead is None:
                        if backlog.source.interrupted:
                            break

                        backlog.ahead = backlog.errand(await backlog.source.pull())

                    self._on_pulled()
                    await self._run.park(self)
            except SourceEnd:
                pass
            except BaseException as exc:
                if self._cancellation.is_under_way():
                    backlog.source.note_cut_off()

                if self._cancellation.caused(exc):
                    raise

                self.note_error(exc)
                return
            finally:
                if not self._resumable:
                    await self._close()

            backlog.end_of_source()

    def note_error(self, error: BaseException) -> None:
        """Take note of an error of the source, whoever has advanced it."""
        if isinstance(error, Exception) and self._outlet.end_with(error):
            self._backlog.end_of_source()
        else:
            self._end_with(error)

    def _go_on(self) -> None:
        self._run.wake(self)

    async def _close(self) -> None:
        try:
            await self._backlog.source.close()
        except BaseException as exc:
            if self._cancellation.caused(exc):
                raise

            self._end_with(exc)
