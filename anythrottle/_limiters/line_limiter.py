"""The calls of a limiter that has a line: the base of every limiter of this library."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import ClassVar

from .._events import Throttled
from .._policies.policy import Cost
from ..abc import Permit
from .calls import end_call, stand_again
from .controls import Controls
from .line import WaitLine
from .max_wait import MaxWait, check_max_wait, check_priority
from .permit import TurnPermit
from .scheduling import HOLDS
from .short_ways import free_loop, give_back_held, pass_watched
from .turn import FRONT, NOWHERE, Turn


class LineLimiter(Controls):
    """
    A limiter whose calls wait in a line, whatever the gate before it.

    :param line: the line
    :param fast: whether a turn that is due at once is no checkpoint

    """

    __slots__ = ("_fast",)

    #: What its permits are.
    permit_type: ClassVar[type[TurnPermit]] = TurnPermit

    def __init__(self, line: WaitLine, *, fast: bool) -> None:
        super().__init__(line)
        self._fast = fast

    async def acquire(  # noqa: C901 - the most frequent way, in one piece
        self, cost: Cost = 1, *, priority: int = 0, max_wait: MaxWait = None
    ) -> None:
        """
        Wait for a turn.

        It counts from the instant this returns. For limiters that hold something, use
        :meth:`permit`.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :param max_wait: for how many seconds to wait at most, 0 or more; ``"deadline"`` for until
            the deadline of the enclosing cancel scope; ``None`` for as long as it takes
        :raises ~anythrottle.LimitExceeded: if the turn could not come before ``max_wait`` is over
            (then at once), has not come by then, or if too many are waiting
        :raises RuntimeError: if the limiter holds something while a call runs, or is in use in
            another event loop at the same time
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units, or
            ``max_wait`` is out of its range
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        line, gate = self._line, self._line.gate
        # Most often the line is empty and nothing is paused: a short way for that, but not for a
        # mapping, which may be of the user's own making, and do what it likes.
        plain = type(cost) is type(priority) is int and max_wait is None
        loop = free_loop(line) if plain and gate.has_short_way else None
        if loop is None or not isinstance(cost, int):
            check_priority(priority)
            turn = self._turn(cost, line.scheduler.new_place(priority))
            await line.wait(turn, fast=self._fast, max_wait=check_max_wait(max_wait))
            return

        amounts: tuple[int, ...] = (cost,)
        place, held = (priority, line.scheduler.arrivals), gate.buckets
        if (only := gate.only) is None or cost <= 0 or not only.take_free(cost):
            amounts, now = gate.amounts(cost), loop.time()
            if (delay := gate.hold(amounts, now)) > 0:
                turn = Turn(cost, amounts, ends=False)
                turn.place, turn.loop, turn.came = place, loop, now
                await line.wait(turn, fast=self._fast, due=now + delay)
                return
        elif self._fast and line.observer is None:
            only.start(loop.time(), cost)
            return

        if line.observer is not None:
            await pass_watched(line, loop, held, amounts, cost, fast=self._fast)
        elif not self._fast:
            try:
                await loop.checkpoint()
                if loop.suspect is not None and loop.is_alarmed():
                    await loop.look()
            except BaseException:
                give_back_held(line, loop, held, amounts)
                raise

        now = loop.time()
        if loop is line.clock.latest and gate.start_held(held, amounts, now):
            if line.scheduler.arrivals != place[1]:
                # Other tasks may be at the same point, and of the same task group.
                loop.note_actor()

            if line.queue.head is not None:
                line.look_again(now)
        else:
            # A pause has begun, or another loop or other policies: it waits after all.
            give_back_held(line, loop, held, amounts)
            await line.wait(self._turn(cost, place), fast=True, newcomer=False)

    def permit(
        self, cost: Cost = 1, *, priority: int = 0, max_wait: MaxWait = None
    ) -> AbstractAsyncContextManager[TurnPermit]:
        """
        Return the permit for one call, to be entered.

        >>> import anyio, anythrottle
        >>> limiter = anythrottle.RateLimiter("500/min", "200_000 tokens/min", concurrency=8)
        >>> async def main():
        ...     async with limiter.permit({"tokens": 850}) as permit:
        ...         permit.settle({"tokens": 700})
        ...         return permit.waited < 1
        >>> anyio.run(main)
        True

        Entering it raises :exc:`.LimitExceeded` as :meth:`acquire` does.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :param max_wait: for how many seconds to wait at most, 0 or more: 0 for a permit that
            doesn't wait; ``"deadline"`` for until the deadline of the enclosing cancel scope;
            ``None`` for as long as it takes
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if ``cost`` is negative or does not fit the limiter's units, or
            ``max_wait`` is out of its range
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``

        """
        # What is not most often given needs a closer look, which costs a call.
        if not (max_wait is None or (type(max_wait) is float and max_wait >= 0)):
            max_wait = check_max_wait(max_wait)

        if type(priority) is not int:
            check_priority(priority)

        return self.permit_type(self, self._line, cost, priority, max_wait, fast=self._fast)

    def permit_again(self, permit: Permit, cost: Cost) -> TurnPermit | None:
        """
        Return the permit for a call that goes again, which is in line already, before all others.

        :param permit: the permit that the call runs under as yet
        :param cost: what the call costs, 0 or more, or amounts by unit
        :return: the permit; ``None`` if ``permit`` was not granted by this limiter
        """
        if not isinstance(permit, TurnPermit) or permit.limiter is not self:
            return None

        if permit.place is NOWHERE:
            return None

        # Not fast, because a function that is throttled each time would never let others run.
        again = self.permit_type(self, self._line, cost, FRONT, permit.max_wait, fast=False)
        again.place = (FRONT, permit.place[1])
        stand_again(self._line, again)
        return again

    async def __aenter__(self) -> None:
        line, gate = self._line, self._line.gate
        turn = Turn(1, gate.amounts(1), ends=True)
        turn.place = line.scheduler.new_place(0)
        await line.wait(turn, fast=self._fast)
        assert turn.loop is not None
        self._put_inside(turn.loop, turn)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        turn = self._take_out()
        if turn is not None:
            assert isinstance(turn, Turn)
            end_call(self._line, turn)

    def _turn(self, cost: Cost, place: tuple[float, int]) -> Turn:
        """Return the turn of a call that holds nothing once it has begun."""
        turn = Turn(cost, self._amounts_without_hold(cost, "acquire"), ends=False)
        turn.place = place
        return turn

    def _amounts_without_hold(self, cost: Cost, verb: str) -> tuple[int, ...]:
        """Return what a cost charges; raise if the limiter has to know of the end of a call."""
        if self._line.gate.holds:
            raise RuntimeError(HOLDS.format(verb=verb, limiter=repr(self)))

        return self._line.gate.amounts(cost)

    def _note_throttled(self, throttles: int, error: BaseException) -> None:
        self._line.tell(Throttled, None, throttles, error)
