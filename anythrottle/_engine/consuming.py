"""The consumer of a throttler's results: what it may be, and how it gets them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable, iscoroutinefunction, unwrap
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from .._limiters.throttle import JobOf, discard
from .crew import Crew
from .deliveries import Deliveries

T = TypeVar("T")

_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, MethodDescriptorType)

#: What an annotation names if it promises an awaitable.
_AWAITABLE = re.compile("Awaitable|Coroutine|Future|Task|Any|object")


async def consume(
    deliveries: Deliveries[T], consumer: Callable[[T], Awaitable[object]], crew: Crew[JobOf[T], T]
) -> None:
    """Hand the results to the consumer, one at a time, until the last job has ended."""
    while True:
        try:
            _, errand = await deliveries.processed.receive(deliveries)
        except anyio.EndOfStream:
            return

        # There is room for one more.
        crew.nudge()
        called: Awaitable[object] | None = None
        try:
            if crew.cancellation.is_under_way():
                # There may be many results, and a consumer that never comes to a checkpoint.
                await checkpoint()

            called = _awaitable(consumer(errand.value), consumer)
            await called
        except BaseException as exc:
            # Ctrl-C may come between the two.
            discard(called)
            if crew.cancellation.caused(exc) and not _is_exit_by_itself(exc):
                raise

            deliveries.finish(errand)
            crew.fail(exc, "consumer_fn")
            return

        deliveries.finish(errand)


def _is_exit_by_itself(error: BaseException) -> bool:
    """
    Tell whether what was awaited has raised GeneratorExit.

    One that is thrown in, as the caller's coroutine is closed, has closed what was awaited before
    it is raised at the ``await`` itself. So nothing deeper is in its traceback.
    """
    traceback = error.__traceback__
    return isinstance(error, GeneratorExit) and traceback is not None and bool(traceback.tb_next)


def _awaitable(result: Awaitable[object], consumer: object) -> Awaitable[object]:
    if not isawaitable(result):
        raise TypeError(
            f"consumer_fn must be an async function, but {consumer!r} returned {result!r}, "
            f"which cannot be awaited"
        )

    return result


def check_consumer(consumer: object) -> None:
    """Raise unless a consumer is async, or may be by what it declares: the first call tells."""
    if iscoroutinefunction(consumer):
        # Whatever it wraps.
        return

    function = consumer.func if isinstance(consumer, partial) else consumer
    if callable(function):
        function = unwrap(function)

    if not isinstance(function, _FUNCTIONS) and not isinstance(function, type):
        # An object that can be called: its class tells how.
        function = type(function).__call__ if callable(function) else None

    certain = not callable(function) or isinstance(
        function, (BuiltinFunctionType, MethodDescriptorType, type)
    )
    if isinstance(function, (FunctionType, MethodType)) and not iscoroutinefunction(function):
        # A lambda, or a function that declares so, may well return an awaitable.
        declared = str(function.__annotations__.get("return"))
        certain = function.__name__ != "<lambda>" and not _AWAITABLE.search(declared)

    if certain:
        raise TypeError(f"consumer_fn must be an async function of one argument, not {consumer!r}")
