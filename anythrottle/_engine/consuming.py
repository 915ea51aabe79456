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
from .isolation import isolated

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
        try:
            if crew.cancellation.is_under_way():
                # There may be many results, and a consumer that never comes to a checkpoint.
                await checkpoint()

            await isolated(_consume_one(errand.value, consumer), None)
        except BaseException as exc:
            if crew.cancellation.caused(exc):
                raise

            deliveries.finish(errand)
            crew.fail(exc, "consumer_fn")
            return

        deliveries.finish(errand)


async def _consume_one(result: T, consumer: Callable[[T], Awaitable[object]]) -> None:
    awaitable: Awaitable[object] | None = None
    try:
        awaitable = consumer(result)
        await _checked(awaitable, consumer)
    except BaseException:
        # Ctrl-C may come between the two.
        discard(awaitable)
        raise


def _checked(result: Awaitable[object], consumer: object) -> Awaitable[object]:
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
