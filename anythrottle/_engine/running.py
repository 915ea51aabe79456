"""One run of a crew, from begin to end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import NoReturn, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from .cancellation import bare
from .crew import Crew

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")


async def run_to_end(
    crew: Crew[I, T],
    meanwhile: Callable[[], Awaitable[None]] | None = None,
    on_begun: Callable[[], None] | None = None,
) -> None:
    """
    Let a crew do all there is to do, in task groups of its own.

    :param meanwhile: what the caller's task does in the meantime
    :param on_begun: is called as soon as jobs may start
    :raises BaseException: what has ended the run, as it is: task groups are an inner matter

    """
    try:
        async with tasks_of(crew):
            if on_begun is not None:
                on_begun()

            if meanwhile is not None:
                await meanwhile()

        if crew.failure is None and not crew.finished:
            # While the task group was waiting for nothing but its workers.
            await cancelled_by_others()
    except BaseException:
        crew.log_failure()
        raise
    finally:
        crew.let_go()

    crew.raise_failure()


@asynccontextmanager
async def tasks_of(crew: Crew[I, T]) -> AsyncGenerator[None]:
    """
    Run the tasks of a crew, until the jobs have ended and their source has been seen to.

    The workers are in a group of their own, which the crew cancels when there is nothing more to
    do. The task that pulls from the source is in another around it, which nothing but the caller's
    own cancellation reaches: what a generator does when it is closed is not cut off.

    :raises BaseException: what else has ended the task groups, as it is

    """
    thrown = traceback = None
    try:
        async with anyio.create_task_group() if crew.pulls else nullcontext() as source_group:
            try:
                async with anyio.create_task_group() as task_group:
                    crew.begin(task_group, source_group)
                    try:
                        yield
                    except BaseException as exc:
                        thrown, traceback = exc, exc.__traceback__
                        raise
            finally:
                crew.end_pulling()
    except BaseException as exc:
        if bare(exc) is exc:
            raise

        # On Trio, Ctrl-C comes in a group of the task group's.
        raise bare(exc) from None
    finally:
        if thrown is not None and traceback is not None:
            # Not with the frame of this generator: since Python 3.12 that refers to the frames of
            # its callers, and one of these to the error, which would be a reference cycle.
            thrown.__traceback__ = traceback.tb_next

        del thrown, traceback


async def cancelled_by_others() -> NoReturn:
    """
    End a run whose tasks have been cancelled, though nobody here has wanted that.

    :raises RuntimeError: unless the caller is being cancelled

    """
    await checkpoint()
    raise RuntimeError("the tasks of the run were cancelled by somebody else")
