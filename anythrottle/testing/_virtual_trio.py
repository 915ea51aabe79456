"""
Virtual time on Trio.

Trio's own ``MockClock`` keeps counting when a second run uses the same instance, and its jumps can
miss a deadline by a rounding error. This clock does neither, and is made of Trio's public parts
only: a clock, which is told the next deadline, and an instrument, which sees each wait for I/O.

"""

import math
from enum import Enum, auto
from typing import Final, final

import trio

from ._durations import check_advance

#: What the clock answers for "wait for the next deadline", in real seconds. Any shorter wait is
#: that of a task in ``wait_all_tasks_blocked()``, which goes before a jump.
_LONG_WAIT: Final = 3600.0


class _Phase(Enum):
    """How far the run has got on its way from the last task step to a jump."""

    BUSY = auto()
    """Tasks may be runnable, or nothing is left to jump to."""
    POLLING = auto()
    """No task is runnable; I/O is being polled without waiting."""
    QUIET = auto()
    """That poll made no task runnable either."""
    JUMPING = auto()
    """The clock jumps, unless a task waits for just this quiet moment."""


@final
class _RunClock(trio.abc.Instrument):
    """The clock of one run."""

    def __init__(self) -> None:
        self.now = 0.0
        self._deadline = math.inf
        self._phase = _Phase.BUSY

    def wait_for(self, deadline: float) -> float:
        """
        Decide how long the run may wait for I/O, as no task is runnable.

        :param deadline: the run's next deadline, in virtual seconds
        :return: the longest wait, in real seconds

        """
        if deadline <= self.now or deadline == math.inf:
            self._phase = _Phase.BUSY
            return deadline - self.now

        if self._phase is _Phase.QUIET:
            self._phase = _Phase.JUMPING
            self._deadline = deadline
            return _LONG_WAIT

        self._phase = _Phase.POLLING
        return 0.0

    def before_io_wait(self, timeout: float) -> None:
        """
        Jump to the deadline if the run is about to wait for it.

        :param timeout: how long the run is about to wait, in real seconds

        """
        if self._phase is _Phase.JUMPING and timeout == _LONG_WAIT:
            self.now = self._deadline
            # A clock can't shorten a wait that it has agreed to, but a wake-up can.
            trio.lowlevel.current_trio_token().run_sync_soon(_wake_up, idempotent=True)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # Trio's signature
        """
        Note whether a poll has found nothing to do.

        :param timeout: how long the run was ready to wait, in real seconds

        """
        quiet = (
            self._phase is _Phase.POLLING and trio.lowlevel.current_statistics().tasks_runnable == 0
        )
        self._phase = _Phase.QUIET if quiet else _Phase.BUSY


def _wake_up() -> None:
    """Do nothing: that it is called ends Trio's wait for I/O."""


@final
class VirtualClock(trio.abc.Clock):
    """
    A Trio clock that starts at 0.0 in each run and jumps from deadline to deadline.

    When every task is blocked, the clock jumps to the next deadline, and to exactly that instant.
    Otherwise it stands still. While there is no deadline, Trio waits for I/O and worker threads in
    real time. A deadline doesn't wait for them though: don't mix threads or real sockets with
    timeouts in virtual time. Tasks in :func:`trio.testing.wait_all_tasks_blocked` go before a jump.

    One instance serves any number of runs, each with its own time, in several threads at once too::

        >>> import trio
        >>> async def tomorrow() -> float:
        ...     await trio.sleep(86_400)
        ...     return trio.current_time()
        >>> clock = VirtualClock()
        >>> trio.run(tomorrow, clock=clock), trio.run(tomorrow, clock=clock)
        (86400.0, 86400.0)

    """

    def __init__(self) -> None:
        self._run_clock = trio.lowlevel.RunVar[_RunClock]("anythrottle.testing clock")

    def start_clock(self) -> None:
        """Begin a new run at 0.0."""
        run_clock = _RunClock()
        self._run_clock.set(run_clock)
        trio.lowlevel.add_instrument(run_clock)

    def current_time(self) -> float:
        """
        Return the virtual time.

        :return: seconds since the run began

        """
        return self._run_clock.get().now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """
        Return how long Trio may wait for I/O.

        :param deadline: the run's next deadline, in virtual seconds
        :return: the longest wait, in real seconds

        """
        return self._run_clock.get().wait_for(deadline)

    def advance(self, seconds: float) -> None:
        """
        Set the clock ahead at once, as if the run had been stalled for that long.

        Nothing runs in between: deadlines that have passed meanwhile are seen late, once the caller
        has given up control.

        :param seconds: how long the stall was, in seconds; 0 or more, finite

        :raises ValueError: if ``seconds`` is negative, infinite or NaN
        :raises RuntimeError: if called outside a run

        """
        check_advance(seconds)
        self._run_clock.get().now += seconds


def running_clock() -> VirtualClock | None:
    """
    Find the virtual clock of the Trio run that is under way here.

    :return: that clock, or ``None`` if the run's clock is another one

    """
    clock = trio.lowlevel.current_clock()
    return clock if isinstance(clock, VirtualClock) else None
