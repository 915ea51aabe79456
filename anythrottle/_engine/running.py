"""One run of a crew, from begin to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from .cancellation import bare
from .crew import Crew

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")


async def run_to_end(
    crew: Crew[I, T], meanwhile: Callable[[], Awaitable[None]] | None = None
) -> None:
    """
    Let a crew do all there is to do, in a task group of its own.

    :param meanwhile: what the caller's task does in the meantime
    :raises BaseException: what has ended the run, as it is: task groups are an inner matter

    """
    try:
        async with anyio.create_task_group() as task_group:
            crew.begin(task_group)
            if meanwhile is not None:
                await meanwhile()
    except BaseException as exc:
        crew.log_failure()
        if bare(exc) is exc:
            raise

        # On Trio, Ctrl-C comes in a group of the task group's.
        raise bare(exc) from None

    if crew.failure is not None:
        raise crew.failure

    if not crew.finished:
        # While the task group was waiting for nothing but its workers.
        await cancelled_by_others()


async def cancelled_by_others() -> NoReturn:
    """
    End a run whose tasks have been cancelled, though nobody here has wanted that.

    :raises RuntimeError: unless the caller is being cancelled

    """
    await checkpoint()
    raise RuntimeError("the tasks of the run were cancelled by somebody else")
