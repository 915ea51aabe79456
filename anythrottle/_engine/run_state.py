"""Where a run stands between its begin and its end, and what has ended it."""

from __future__ import annotations

import logging
from enum import Enum, auto
from typing import Literal, final

import anyio

from .._loops.event_loop import EventLoop
from .cancellation import RunCancellation
from .change import Change
from .outcome import uncancelled
from .throttler_statistics import Ended

_logger = logging.getLogger("anythrottle")


class Phase(Enum):
    """Where a run stands."""

    #: Jobs are started.
    RUNNING = auto()
    #: Nothing more is started; what runs goes on to its end.
    STOPPING = auto()
    #: What runs is cancelled as well.
    CANCELLED = auto()
    #: So it is, because all that was wanted has been done before: what fails now is late.
    WON = auto()
    #: All that was to be done has been done.
    DONE = auto()


#: Kept at hand, because each job asks.
RUNNING = Phase.RUNNING


@final
class RunState:
    """
    The state of one run; made in the task that runs it.

    Only its own methods change :attr:`phase`, :attr:`how` and :attr:`failure`. Every part of
    the run may call :meth:`stop` and :meth:`fail`; the other methods say which part calls them.

    :param change: what a worker waits for that finds nothing to start, told by each part that
        may have changed that
    :param loop: the event loop
    :param host_waits: whether the task that runs it does nothing but wait for the others

    :ivar loop: the event loop
    :ivar cancellation: tells whether the run is being cancelled
    :ivar phase: where it stands
    :ivar how: how it has ended, or will if nothing else comes between
    :ivar failure: the error that has ended it
    :ivar entering: the scope in which the admission waits, and that one alone sets it
    :ivar task_scope: the scope in which all its jobs run; the worker pool sets it as it begins

    """

    __slots__ = (
        "cancellation",
        "change",
        "entering",
        "failure",
        "how",
        "loop",
        "phase",
        "task_scope",
    )

    task_scope: anyio.CancelScope

    def __init__(self, change: Change, loop: EventLoop, *, host_waits: bool) -> None:
        self.change = change
        self.loop = loop
        self.cancellation = RunCancellation(loop, host_waits=host_waits)
        self.phase = RUNNING
        self.how: Ended = "done"
        self.failure: BaseException | None = None
        self.entering: anyio.CancelScope | None = None

    @property
    def is_ending(self) -> bool:
        """Whether it ends before all is done, or because all is that was wanted."""
        return self.phase is Phase.WON or self.how != "done" or self.failure is not None

    def exhaust(self) -> None:
        """Start nothing more, because there is nothing left; for the dispatcher."""
        if self.phase is RUNNING:
            self.phase = Phase.STOPPING

    def stop(self, why: Literal["stopped", "halted"] = "stopped") -> None:
        """Start nothing more; what runs goes on."""
        if self.how == "done":
            self.how = why

        self.exhaust()
        self.change.tell()
        if self.entering is not None:
            self.entering.cancel()

    def finish(self) -> None:
        """Note that the last worker has ended by itself; for the worker pool."""
        if self.phase in (RUNNING, Phase.STOPPING):
            self.phase = Phase.DONE

    def cancel(self) -> None:
        """Start nothing more, and cancel what runs; for the owner of the run."""
        self.phase = Phase.CANCELLED
        self.task_scope.cancel()

    def win(self) -> None:
        """Cancel what runs, because all that was wanted has been done; for a result sink."""
        self.cancel()
        self.phase = Phase.WON

    def note_end(self) -> None:
        """Note that the workers are gone, be it by themselves or not; for the worker pool."""
        if self.phase in (RUNNING, Phase.STOPPING):
            self.phase = Phase.CANCELLED

    def fail(self, error: BaseException, what: str = "something in the run") -> None:
        """
        End the run with an error; any but the first is noted on the first, and logged.

        :param error: not what the cancellation of the run has caused: if it is a cancellation all
            the same, it becomes a :exc:`RuntimeError`
        :param what: what has raised it

        """
        error = uncancelled(error, what)
        if self.phase is Phase.WON and isinstance(error, Exception):
            _logger.error("error after all was done: %r", error, exc_info=error)
        elif self.failure is None:
            self.failure = error
            self.cancel()
        elif error is not self.failure:
            self.failure.add_note(f"While the run ended because of this, another error: {error!r}")
            _logger.error("another error while the run ended: %r", error, exc_info=error)

    def raise_failure(self) -> None:
        """Raise what has ended the run, if that was an error; for the owner of the run."""
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback leads here.
                del failure

    def log_failure(self) -> None:
        """Log what would have ended the run, had it not been cancelled; for its owner."""
        failure, self.failure = self.failure, None
        if failure is not None:
            _logger.error("error in a run that was cancelled", exc_info=failure)
