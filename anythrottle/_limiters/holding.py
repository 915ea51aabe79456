"""
What the jobs hold within which a task runs, and whether it could ever get more of the same.

A job that waits for a slot while every slot is held by a job that does so waits for ever, be it
through another engine, a child task, or a second limiter with the same capacity limiter. So the
context of a job says what it holds, and who waits inside of a job is counted as long as it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final
from weakref import WeakKeyDictionary

import anyio

from .current import current_permits
from .turn import Turn


@final
class Slot:
    """
    On whose behalf a slot of a capacity limiter is borrowed: a fresh one for each grant.

    :ivar capacity: the capacity limiter

    """

    __slots__ = ("capacity",)

    def __init__(self, capacity: anyio.CapacityLimiter) -> None:
        self.capacity = capacity


#: The slots that an engine has borrowed for the jobs within which the caller runs.
_slots: ContextVar[tuple[Slot, ...]] = ContextVar("anythrottle slots", default=())

#: For what can be held (a gate, a capacity limiter): how many wait for it inside of each holder.
_waiting: WeakKeyDictionary[object, Counter[object]] = WeakKeyDictionary()


def hold_here(slot: Slot) -> None:
    """Note, in a job's context, the slot that it holds."""
    _slots.set((slot, *_slots.get()))


def turns_here(charged: Collection[Turn]) -> list[object]:
    """Return those turns that are held by jobs within which the caller runs."""
    return [turn for turn in current_permits() if isinstance(turn, Turn) and turn in charged]


def slots_here(capacity: anyio.CapacityLimiter) -> list[object]:
    """Return the slots of a capacity limiter held by jobs within which the caller runs."""
    held = [permit.slot for permit in current_permits() if isinstance(permit, Turn)]
    return [s for s in (*held, *_slots.get()) if isinstance(s, Slot) and s.capacity is capacity]


def is_inside() -> bool:
    """Return whether the caller runs within a job that may hold something."""
    return bool(current_permits() or _slots.get())


def borrowers_of(capacity: anyio.CapacityLimiter) -> Collection[object]:
    """Return who holds the slots of a capacity limiter, if none is left."""
    statistics = capacity.statistics()
    full = statistics.borrowed_tokens >= statistics.total_tokens
    return statistics.borrowers if full else ()


@contextmanager
def waiting_inside(
    pool: object, mine: Collection[object], holding: Collection[object]
) -> Generator[None]:
    """
    Count the caller, while it waits, as waiting inside of the jobs within which it runs.

    :param pool: what it waits for more of: a gate, or a capacity limiter
    :param mine: what of that these jobs hold
    :param holding: all that is held of it, if there is no more to be had before some is let go
    :raises RuntimeError: if all of them wait for more

    """
    if not mine:
        yield
        return

    waiting = _waiting.setdefault(pool, Counter())
    if holding and all(held in mine or waiting[held] for held in holding):
        raise RuntimeError(
            "a job waits for the limiter that runs it, whose slots are all held by jobs which "
            "do so: a slot could never come; call it without the limiter inside of the job"
        )

    waiting.update(mine)
    try:
        yield
    finally:
        waiting.subtract(mine)
        for held in mine:
            if not waiting[held]:
                del waiting[held]
