"""The state of a run: its phase, and what has ended it."""

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
    """The phase of a run."""

    #: Jobs are started.
    RUNNING = auto()
    #: Nothing more is started; the jobs that run go on to their ends.
    STOPPING = auto()
    #: The jobs that run are cancelled as well.
    CANCELLED = auto()
    #: As CANCELLED, because all that was wanted is done: later errors are only logged.
    WON = auto()
    #: Everything is done.
    DONE = auto()


#: Kept at hand, because each job asks.
RUNNING = Phase.RUNNING


@final
class RunState:
    """
    The state of one run; made in the task that runs it.

    Only its own methods change :attr:`phase`, :attr:`how` and :attr:`failure`. Every part of
    the run may call :meth:`stop` and :meth:`fail`; the other methods say which part calls them.

    :param change: the change that a worker with nothing to start waits for; each part of the run
        that may have caused it notifies it
    :param loop: the event loop
    :param host_waits: whether the task that runs it only waits for the others

    :ivar loop: the event loop
    :ivar cancellation: knows whether the run is being cancelled
    :ivar phase: its phase
    :ivar how: how it has ended, or will end if nothing else happens
    :ivar failure: the error that has ended it
    :ivar entering: the scope in which the admission waits; only the admission sets it
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
        """Whether it ends before everything is done, or because all that was wanted is done."""
        return self.phase is Phase.WON or self.how != "done" or self.failure is not None

    def exhaust(self) -> None:
        """Start nothing more, because there is nothing left; for the dispatcher."""
        if self.phase is RUNNING:
            self.phase = Phase.STOPPING

    def stop(self, why: Literal["stopped", "halted"] = "stopped") -> None:
        """Start nothing more; the jobs that run go on."""
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
        """Start nothing more, and cancel the jobs that run; for the owner of the run."""
        self.phase = Phase.CANCELLED
        self.task_scope.cancel()

    def win(self) -> None:
        """Cancel the jobs that run, because all that was wanted is done; for a result sink."""
        self.cancel()
        self.phase = Phase.WON

    def note_end(self) -> None:
        """Note that all workers have ended, by themselves or not; for the worker pool."""
        if self.phase in (RUNNING, Phase.STOPPING):
            self.phase = Phase.CANCELLED

    def fail(self, error: BaseException, what: str = "something in the run") -> None:
        """
        End the run with an error; any but the first is noted on the first, and logged.

        :param error: the error, not one that the run's cancellation has caused: a cancellation of
            another kind becomes a :exc:`RuntimeError`
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
        """Raise the error that has ended the run, if there is one; for the owner of the run."""
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback leads here.
                del failure

    def log_failure(self) -> None:
        """Log the error that would have ended the run if it were not cancelled; for its owner."""
        failure, self.failure = self.failure, None
        if failure is not None:
            _logger.error("error in a run that was cancelled", exc_info=failure)
