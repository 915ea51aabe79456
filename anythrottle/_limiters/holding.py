"""
What is held by the jobs within which a task runs, and whether it could ever get more of the same.

A job that waits for a slot, while every slot is held by a job that waits for one too, waits for
ever, be it through another engine, a child task, or a second limiter with the same capacity
limiter. So the context of a job says what it holds, and a task that waits inside of a job is
counted meanwhile. A task that a job has started in a task group of another task does not wait
inside of the job, though it has its context, because the job may end before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import anyio

from .current import current_permits
from .slots import Slot, Slots
from .turn import Turn

#: The slots that an engine has borrowed for the jobs within which the caller runs.
_slots: ContextVar[tuple[Slot, ...]] = ContextVar("anythrottle slots", default=())

#: For what can be held (slots, a capacity limiter): how many tasks wait inside of each holder.
_waiting: WeakKeyDictionary[object, Counter[object]] = WeakKeyDictionary()


def hold_here(slot: Slot) -> None:
    """Note, in a job's context, the slot that it holds, and the task that runs it."""
    slot.task_id = anyio.get_current_task().id
    _slots.set((slot, *_slots.get()))


def turns_here(charged: Collection[Turn]) -> list[Turn]:
    """
    Return the turns that are held by jobs within which the caller runs, and which await it.

    If there are any, the turns count as well that the caller's task has entered by itself.
    """
    held: list[Turn] = [
        permit
        for permit in current_permits()
        if isinstance(permit, Turn) and permit in charged and _cannot_end_before(permit.task_id)
    ]
    if held:
        here = anyio.get_current_task().id
        held += [turn for turn in charged if turn.task_id == here and turn not in held]

    return held


def slots_here(capacity: anyio.CapacityLimiter) -> list[object]:
    """Return the slots of a capacity limiter that are held by such jobs."""
    held: list[object] = [
        permit.slot
        for permit in current_permits()
        if isinstance(permit, Turn) and _cannot_end_before(permit.task_id)
    ]
    held += [slot for slot in _slots.get() if _cannot_end_before(slot.task_id)]
    return [slot for slot in held if isinstance(slot, Slot) and slot.capacity is capacity]


def _cannot_end_before(task_id: int) -> bool:
    """Return whether the task of a job cannot end before the caller, which has its context."""
    task = anyio.get_current_task()
    if task_id == task.id or task.parent_id is None:
        # It is not known what waits for a task that was started without AnyIO.
        return True

    parents = {task.id: task.parent_id for task in anyio.get_running_tasks()}
    ancestor: int | None = task.parent_id
    while ancestor is not None and ancestor != task_id:
        ancestor = parents.get(ancestor)

    return ancestor is not None


def is_inside() -> bool:
    """Return whether the caller runs within a job that may hold something."""
    return bool(current_permits() or _slots.get())


def borrowers_of(capacity: anyio.CapacityLimiter) -> Collection[object]:
    """Return the holders of the slots of a capacity limiter, if none is left."""
    statistics = capacity.statistics()
    full = statistics.borrowed_tokens >= statistics.total_tokens
    return statistics.borrowers if full else ()


@contextmanager
def waiting_for_slots(slots: Slots, *, stuck: bool) -> Generator[None]:
    """
    Count the caller, while it waits for slots, as waiting inside of the jobs within which it runs.

    :param stuck: whether there is nothing to be had before something that is held is let go
    :raises RuntimeError: if all that could be let go is held by jobs that wait for it as well
    """
    with ExitStack() as stack:
        held = turns_here(slots.holders)
        stack.enter_context(waiting_inside(slots, held, slots.holders if stuck else ()))
        if slots.shared is not None:
            mine, borrowers = slots_here(slots.shared), borrowers_of(slots.shared)
            stack.enter_context(waiting_inside(slots.shared, mine, borrowers))

        yield


@contextmanager
def waiting_inside(
    pool: object, mine: Collection[object], holding: Collection[object]
) -> Generator[None]:
    """
    Count the caller, while it waits, as waiting inside of the jobs within which it runs.

    :param pool: what the caller waits for: slots, or a capacity limiter
    :param mine: the holders in it that are these jobs'
    :param holding: all holders in it, if there is no more to be had before one lets go
    :raises RuntimeError: if all of the holders wait for more

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
