"""The running loop's clock, and which run this is."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import final

from anyio import NoEventLoopError
from anyio.lowlevel import current_token

from .parking import AsyncioRun, Run
from .process import current_process


@final
class RunClock:
    """
    Tells the time of the event loop that runs, and notices when that is another one.

    Loops count from different origins. At a change of runs the owner is told by how much its
    instants have to be shifted, so that as much time has passed for them as has passed in reality.

    :param on_change: called with the shift, in seconds, when another run begins to use the owner
    :param owner: what to call the owner in an error

    """

    __slots__ = ("_on_change", "_owner", "latest")

    def __init__(self, on_change: Callable[[float], None], owner: str) -> None:
        self._on_change = on_change
        self._owner = owner
        #: The run that used the owner last.
        self.latest: Run | None = None

    def now(self) -> float:
        """
        Return the time of the run that the caller is in, outside of one by real elapsed time.

        :raises RuntimeError: if another run uses the owner at the same time

        """
        try:
            return self.run().time()
        except NoEventLoopError:
            if self.latest is not None and self.latest.has_ended():
                self._change(None)

            return self.estimate()

    def run(self) -> Run:
        """
        Return the run that the caller is in; what is bound to an earlier run is let go.

        :raises ~anyio.NoEventLoopError: if no event loop runs in this thread
        :raises RuntimeError: if another run uses the owner at the same time

        """
        before = self.latest
        if before is not None and before.is_here():
            return before

        loop = current_loop()
        if before is not None and before.goes_on_here(loop):
            return before

        run = run_of(loop)
        if before is not None and not before.is_over():
            raise RuntimeError(
                f"{self._owner} is in use in another event loop that is running now; "
                f"use one limiter per loop, or one loop and anyio.from_thread"
            )

        self._change(run)
        return run

    def glance(self) -> float:
        """
        Return the time as :meth:`now` does, for a question: a run that may go on is not left.

        What a run held that has ended is let go: asked later, it would be just the same.
        """
        run = self.latest
        if run is None or run.is_current() or not run.has_ended():
            return self.estimate()

        return self.now()

    def estimate(self) -> float:
        """Return the time of the latest run, outside of it by real elapsed time."""
        run = self.latest
        if run is None:
            return time.monotonic()

        return run.time() if run.is_current() else time.monotonic() - run.behind

    def is_real(self) -> bool:
        """Return whether that is what ``time.monotonic()`` says."""
        return self.latest is None or self.latest.real

    def is_here(self, run: Run | None) -> bool:
        """Tell whether ``run`` is the one that used the owner last, and the caller is in it."""
        return run is not None and run is self.latest and run.is_current()

    def _change(self, run: Run | None) -> None:
        """Go over to another run, or to real time."""
        # The clock that is left is read first: a stall between the readings moves instants later,
        # which is the safe side.
        left = self.estimate()
        now = time.monotonic() if run is None else run.time()
        self.latest = run
        self._on_change(now - left)


def current_loop() -> object:
    """
    Return the event loop that runs here: an asyncio loop, or the token of a Trio run.

    :raises ~anyio.NoEventLoopError: if none runs in this thread

    """
    try:
        loop = current_token().native_token
        if loop is current_process().inherited:
            # There may be one of asyncio all the same, which AnyIO does not see then.
            loop = asyncio.get_running_loop()
    except RuntimeError as exc:
        # In a forked child AnyIO may take the parent's asyncio loop for running. asyncio does not.
        raise NoEventLoopError("no event loop runs in this thread") from exc

    return loop


def run_of(loop: object) -> Run:
    """Return the run of an event loop that runs here, as :func:`.current_loop` returns it."""
    if isinstance(loop, asyncio.AbstractEventLoop):
        token = current_token()
        # If AnyIO does not see the loop, there are no cancel scopes in it.
        return AsyncioRun(loop, token.backend_class if token.native_token is loop else None)

    # Needed only by who runs on Trio, and so has it.
    from .trio_parking import TrioRun

    return TrioRun(loop)


def weakly(method: Callable[[float], None]) -> Callable[[float], None]:
    """Return a function that calls a method, but does not keep its object alive."""
    reference = weakref.WeakMethod(method)

    def call(shift: float) -> None:
        alive = reference()
        if alive is not None:
            alive(shift)

    return call
