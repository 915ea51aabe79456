"""
Virtual time on asyncio.

An event loop asks its selector to wait until its earliest timer is due. The selector here looks
whether I/O is ready and, if none is, doesn't wait: the loop's clock jumps to that timer instead.

"""

import asyncio
import math
import selectors
from collections.abc import Callable
from typing import final

from ._durations import check_advance


@final
class VirtualEventLoop(asyncio.SelectorEventLoop):
    """
    An asyncio event loop whose clock starts at 0.0 and jumps from timer to timer.

    When every task is blocked, the clock jumps to the earliest timer, and to exactly that instant:
    :meth:`time` equals the timer's ``when()`` as its callback runs. Otherwise the clock stands
    still, however long a callback takes. While no timer is pending, the loop waits for I/O and
    worker threads in real time. A timer doesn't wait for them though: don't mix threads or real
    sockets with timeouts in virtual time.

    The class itself is a loop factory::

        >>> import anyio
        >>> async def tomorrow() -> float:
        ...     await anyio.sleep(86_400)
        ...     return anyio.current_time()
        >>> anyio.run(tomorrow, backend_options={"loop_factory": VirtualEventLoop})
        86400.0

    """

    # Attributes of asyncio's own, which its type stubs don't know.
    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float

    def __init__(self) -> None:
        super().__init__(_VirtualSelector(self._pass_idle_time))
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._set_time(0.0)

    def time(self) -> float:
        """
        Return the virtual time.

        :return: seconds since the loop was made

        """
        return self._now

    def advance(self, seconds: float) -> None:
        """
        Set the clock ahead at once, as if the loop had been stalled for that long.

        Nothing runs in between: what has fallen due meanwhile runs late, after the caller has given
        up control, and in the order in which it was due.

        :param seconds: how long the stall was, in seconds; 0 or more, finite

        :raises ValueError: if ``seconds`` is negative, infinite or NaN

        """
        check_advance(seconds)
        self._set_time(self._now + seconds)

    async def wait_idle(self) -> None:
        """Wait until all tasks are blocked, at the present virtual time; see :func:`.wait_idle`."""
        waiter = self.create_future()
        self._idle_waiters.append(waiter)
        await waiter

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  # asyncio's signature
    ) -> None:
        """
        Join the default executor's threads, however long it takes.

        :param timeout: not used, because virtual time would run out before any thread could end

        """
        await super().shutdown_default_executor()

    def _set_time(self, now: float) -> None:
        self._now = now
        # asyncio runs each timer with `when < now + resolution`: with one ulp that is
        # `when <= now`, so that nothing runs early and what is due just now does run.
        self._clock_resolution = math.ulp(now)

    def _pass_idle_time(self) -> bool:
        """
        Find something to do, now that all tasks are blocked and no I/O is ready.

        :return: ``True`` if there is; ``False`` if only I/O or another thread can wake the loop

        """
        waiters = [waiter for waiter in self._idle_waiters if not waiter.done()]
        self._idle_waiters.clear()
        if waiters:
            for waiter in waiters:
                waiter.set_result(None)

            return True

        # asyncio has just dropped the cancelled timers from the head of its heap. An infinite one
        # (`anyio.sleep_forever()`) never comes due.
        if not self._scheduled or self._scheduled[0].when() == math.inf:
            return False

        self._set_time(self._scheduled[0].when())
        return True


@final
class _VirtualSelector(selectors.DefaultSelector):
    """
    A selector that lets virtual time pass where others wait for it.

    :param pass_idle_time: called instead of waiting, when nothing is ready; returns whether it has
        found the loop something to do

    """

    def __init__(self, pass_idle_time: Callable[[], bool]) -> None:
        super().__init__()
        self._pass_idle_time = pass_idle_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """
        Return what is ready, or else let virtual time pass.

        :param timeout: 0 if the loop has callbacks to run; any other value means that it has none
        :return: the files that are ready, as a selector returns them

        """
        ready = super().select(0)
        if ready or timeout == 0 or self._pass_idle_time():
            return ready

        return super().select(None)
