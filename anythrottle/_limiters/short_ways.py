"""
The short ways past an empty line, at a fraction of the cost.

Each does what :meth:`.WaitLine.wait` would do then. They are closed while a turn is in line, and
while a pause may be under way.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._events import Abandoned, Granted, tell
from .._loops.event_loop import EventLoop
from .._policies.bucket import Bucket
from .calls import begin_call
from .gate import NEVER
from .line import WaitLine
from .turn import NOWHERE, Turn


def free_loop(line: WaitLine) -> EventLoop | None:
    """
    Return the loop that the caller is in, if the short ways are open.

    The line's count of arrivals is then the caller's place, should it have to wait after all.
    """
    if line.queue.head is not None or line.gate.paused_until != NEVER:
        return None

    loop = line.clock.latest
    if loop is None:
        # No loop has used the limiter so far.
        loop = line.clock.loop()
    elif not loop.is_here():
        return None

    line.scheduler.arrivals += 1
    return loop


def enter_now(line: WaitLine, turn: Turn, priority: float, *, begins: bool) -> bool:
    """
    Begin the call of a turn if that may be at once.

    :param priority: the priority of its place, should it come to stand in line
    :param begins: whether the call begins; else the turn is only held, for :func:`.begin_call`
    :return: whether the call has begun, or the turn is held
    """
    loop = free_loop(line)
    if loop is None:
        return False

    turn.loop = loop
    turn.came = now = loop.time()
    gate = line.gate
    gate.notice(now)

    turn.place = (priority, line.scheduler.arrivals)
    # The line is empty, so there is no forecast that this would invalidate.
    gate.take_if_due(turn, now)
    entered = turn.granted
    quick = begins and line.observer is None and not gate.slow
    if entered and quick:
        gate.start(turn, now)
        if gate.holds:
            turn.task_id = id(loop.task())
    elif entered:
        if line.observer is not None:
            line.tell_granted(turn, 0.0)

        entered = not begins or begin_call(line, turn)

    if not (entered or quick):
        line.leave(turn)

    if not entered:
        turn.place = NOWHERE

    return entered


def take_now(line: WaitLine, turn: Turn) -> None:
    """
    Begin the call of a turn at once; works outside of an event loop too.

    :raises ~anythrottle.LimitExceeded: if the turn would have to wait

    """
    now = line.clock.now()
    turn.loop = line.clock.latest
    turn.place = line.scheduler.new_place(0)
    line.catch_up(now)
    if not line.scheduler.try_now(turn, now):
        raise line.refuse(turn, now)

    if line.observer is not None:
        line.tell_granted(turn, 0.0)
        now = line.clock.now()

    if not begin_call(line, turn):
        line.leave(turn)
        try:
            raise turn.error or line.refuse(turn, now)
        finally:
            # Its traceback leads here.
            turn.error = None


async def pass_watched(
    line: WaitLine,
    loop: EventLoop,
    held: tuple[Bucket, ...],
    amounts: Sequence[int],
    cost: int,
    *,
    fast: bool,
) -> None:
    """
    Tell the observer that a call without a turn is granted, and holds that; then it may begin.

    Not if a pause has begun meanwhile, or there are another loop or other policies: then the call
    has to wait after all.

    :param held: the buckets in which its cost is held
    :param amounts: what it costs in each of them
    :param fast: whether this shall be no checkpoint
    """
    gate, came = line.gate, loop.time()
    try:
        if not fast:
            await loop.checkpoint()
            if loop.suspect is not None and loop.is_alarmed():
                await loop.look()

        if loop is line.clock.latest and held is gate.buckets and gate.paused_until == NEVER:
            assert line.observer is not None
            tell(line.observer, Granted(line.name, cost, loop.time() - came))
            if not fast and loop.is_cancelled():
                # By the observer.
                await loop.look()
    except BaseException:
        give_back_held(line, loop, held, amounts)
        # No refusal: such a call only ends so if it is cancelled, or the program ends.
        line.tell(Abandoned, cost, line.clock.estimate() - came)
        raise


def give_back_held(
    line: WaitLine, loop: EventLoop, held: tuple[Bucket, ...], amounts: Sequence[int]
) -> None:
    """Give back what is held for a call without a turn, which does not begin."""
    if loop is line.clock.latest:
        now = line.clock.estimate()
        line.gate.give_back_held(held, amounts, now)
        line.serve_anew(now)
