"""Runs a coroutine in a context of its own, as if it were a task of its own."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Coroutine, Generator
from contextvars import Context
from types import CoroutineType
from typing import TypeVar, cast

T = TypeVar("T")


@types.coroutine
def run_in_context(awaitable: Awaitable[T], context: Context) -> Generator[object, object, T]:
    """
    Await something with each of its steps in ``context``: what it sets there stays there.

    A task of its own would do the same, at ten times the price.
    """
    coroutine = cast(
        "Coroutine[object, object, T]",
        awaitable
        if isinstance(awaitable, CoroutineType)
        # One that is awaited elsewhere already is left alone.
        and not (awaitable.cr_running or awaitable.cr_suspended)
        else _awaiting(cast("Awaitable[object]", awaitable)),
    )
    run = context.run
    thrown: BaseException | None = None
    answer: object = None
    try:
        waits_for = run(coroutine.send, None)
        while True:
            thrown = answer = None
            try:
                answer = yield waits_for
            except BaseException as exc:  # noqa: BLE001 - it is the coroutine's
                thrown = exc

            # Outside of that clause: for the coroutine, nothing else is being handled.
            waits_for = (
                run(coroutine.send, answer) if thrown is None else run(coroutine.throw, thrown)
            )
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        # An error on its way out has a traceback that leads here; Trio's answers are errors, too.
        thrown = answer = None


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable
