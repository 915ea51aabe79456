"""A call's way once its turn is held: it begins, is settled, marked, kept, and ends."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from .._events import Ended
from .line import WaitLine
from .turn import Turn


def begin_call(line: WaitLine, turn: Turn) -> bool:
    """
    Begin the call of a turn that is held, after a last look whether it still may.

    :return: whether the call has begun; if not, its turn is in line again, or can never be granted
    """
    if not turn.granted or turn.error is not None or turn.loop is not line.clock.latest:
        return False

    now = line.clock.estimate()
    if not line.gate.may_start(turn, now):
        line.call_back(turn, now)
        return False

    line.start(turn, now)
    return True


def end_call(line: WaitLine, turn: Turn) -> None:
    """End the call of a turn; what it held goes to the turns in line."""
    gate = line.gate
    if turn.began == inf:
        # The turn was held, or called back since, and is not needed.
        line.leave(turn)
    elif turn.granted and turn.loop is line.clock.latest:
        waited_for = line.queue.head is not None
        told = gate.holds and line.observer is not None
        now = line.clock.estimate() if waited_for or gate.counts_ends or told else turn.began
        if waited_for or gate.counts_ends:
            line.scheduler.end(turn, now)
        else:
            gate.slots.let_go(turn)

        if waited_for and not gate.slots.may_have_one():
            # Still not: there were more slots when it began.
            line.wake_all()
        elif waited_for:
            line.serve(now)

        if told:
            line.tell(Ended, now - turn.began)


def keep_call(line: WaitLine, turn: Turn) -> Turn:
    """Keep a call whose function has returned; return what it holds, for :func:`end_call`."""
    if turn.granted and turn.loop is line.clock.latest:
        return line.gate.slots.keep(turn)

    return turn


def mark_call(line: WaitLine, turn: Turn, units: Collection[str]) -> None:
    """Count a running call from now on, in some units; other turns may be due sooner by that."""
    if turn.granted and turn.loop is line.clock.latest:
        now = line.clock.estimate()
        line.catch_up(now)
        line.scheduler.mark_counted(turn, now, units)
        if line.gate.holds_charges and line.queue.head is not None:
            line.serve(now)


def settle_call(line: WaitLine, turn: Turn, changes: dict[str, int]) -> None:
    """Correct the charge of a started turn, by unit; what comes back goes to the turns in line."""
    if turn.loop is line.clock.latest:
        now = line.clock.estimate()
        line.catch_up(now)
        line.scheduler.settle(turn, now, changes)
        line.serve(now)


def stand_again(line: WaitLine, turn: Turn) -> None:
    """Put a turn in line already before :meth:`.WaitLine.wait` is called for it."""
    turn.loop = line.clock.loop()
    turn.came = turn.loop.time()
    line.scheduler.rejoin(turn)
    line.serve(turn.came)
