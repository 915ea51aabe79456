"""The consumer of a throttler's results: what can be one, and how it gets them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable, iscoroutinefunction, unwrap
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Generic, final

import anyio
from anyio.lowlevel import checkpoint

from .._jobs import discard
from .job_record import I, JobRecord, T
from .outcome import Outcome, uncancelled
from .run_state import RunState
from .throttler_results import ThrottlerResults

_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, MethodDescriptorType)

#: How much of an item's repr a note shows, in characters.
_LONGEST = 200

#: What an annotation names if it promises an awaitable.
_AWAITABLE = re.compile("Awaitable|Coroutine|Future|Task|Any|object")


@final
class Consumer(Generic[I, T]):
    """
    The user's function that takes what becomes of the jobs.

    :param consumer_fn: takes each result, if there is no ``outcome_fn``
    :param outcome_fn: takes each outcome, failures too

    """

    __slots__ = ("_consumer_fn", "_outcome_fn", "name", "takes_failures")

    def __init__(
        self,
        consumer_fn: Callable[[T], Awaitable[object]] | None,
        outcome_fn: Callable[[Outcome[I, T]], Awaitable[object]] | None,
    ) -> None:
        self._consumer_fn = consumer_fn
        self._outcome_fn = outcome_fn
        #: The name of the parameter that it was passed as.
        self.name = "consumer_fn" if outcome_fn is None else "outcome_fn"
        #: Whether it takes failures as well.
        self.takes_failures = outcome_fn is not None

    def call(self, record: JobRecord[I, T]) -> Awaitable[object]:
        """Call the function with a job that has ended, and return what to await."""
        called: object
        if self._outcome_fn is not None:
            called = self._outcome_fn(record.outcome(record.error))
        else:
            assert self._consumer_fn is not None
            called = self._consumer_fn(record.value)

        if not isawaitable(called):
            function = self._outcome_fn or self._consumer_fn
            raise TypeError(
                f"{self.name} must be an async function, but {function!r} returned {called!r}, "
                f"which cannot be awaited"
            )

        return called


def consumer_of(
    consumer_fn: Callable[[T], Awaitable[object]] | None,
    outcome_fn: Callable[[Outcome[I, T]], Awaitable[object]] | None,
) -> Consumer[I, T] | None:
    """
    Return the consumer that these parameters make; ``None`` if there is none.

    :raises TypeError: if both are given, or one that cannot be a consumer

    """
    if consumer_fn is not None and outcome_fn is not None:
        raise TypeError(
            f"outcome_fn={outcome_fn!r} is given the results too: leave out "
            f"consumer_fn={consumer_fn!r}"
        )

    if consumer_fn is None and outcome_fn is None:
        return None

    consumer = Consumer(consumer_fn, outcome_fn)
    _check(consumer.name, outcome_fn or consumer_fn)
    return consumer


async def consume(results: ThrottlerResults[I, T], consumer: Consumer[I, T], run: RunState) -> None:
    """Pass what has become of the jobs to the consumer, one at a time, until the last has ended."""
    while True:
        try:
            _, record = await results.processed.receive(results)
        except anyio.EndOfStream:
            return

        # There is room for one more.
        run.change.tell()
        called: Awaitable[object] | None = None
        try:
            if run.cancellation.is_under_way():
                # There may be many results, and a consumer that never comes to a checkpoint.
                await checkpoint()

            called = consumer.call(record)
            await called
        except BaseException as exc:
            # Ctrl-C may come between the two.
            discard(called)
            if run.cancellation.caused(exc) and not _is_exit_by_itself(exc):
                raise

            results.finish(record)
            # Kept in no variable, which would make a cycle of it and this frame.
            run.fail(_noted(exc, consumer, record), consumer.name)
            return

        results.finish(record)


def _noted(
    error: BaseException, consumer: Consumer[I, T], record: JobRecord[I, T]
) -> BaseException:
    """Return an error of the consumer with a note of the job, which counts as consumed."""
    try:
        item = repr(record.item)
    except Exception:  # noqa: BLE001 - whatever it is, the consumer's own error comes first
        item = object.__repr__(record.item)

    what = "outcome" if consumer.takes_failures else "result"
    shortened = item if len(item) <= _LONGEST else f"{item[:_LONGEST]}..."
    error = uncancelled(error, consumer.name)
    error.add_note(
        f"It was raised by {consumer.name}, which had the {what} of {record}: {shortened}"
    )
    return error


def _is_exit_by_itself(error: BaseException) -> bool:
    """
    Return whether what was awaited has raised GeneratorExit by itself.

    When the caller's coroutine is closed, what was awaited is closed first, and then the error is
    raised at the ``await`` itself: nothing deeper is in its traceback.
    """
    traceback = error.__traceback__
    return isinstance(error, GeneratorExit) and traceback is not None and bool(traceback.tb_next)


def _check(name: str, consumer: object) -> None:
    """Raise if a consumer is certainly not async; in doubt, its first call will show."""
    if iscoroutinefunction(consumer):
        # It is async, whatever it wraps.
        return

    function = consumer.func if isinstance(consumer, partial) else consumer
    if callable(function):
        function = unwrap(function)

    if not isinstance(function, _FUNCTIONS) and not isinstance(function, type):
        # For a callable object, the method of its class counts.
        function = type(function).__call__ if callable(function) else None

    certain = not callable(function) or isinstance(
        function, (BuiltinFunctionType, MethodDescriptorType, type)
    )
    if isinstance(function, (FunctionType, MethodType)) and not iscoroutinefunction(function):
        # A lambda may return an awaitable, and so may a function that is annotated so.
        declared = str(function.__annotations__.get("return"))
        certain = function.__name__ != "<lambda>" and not _AWAITABLE.search(declared)

    if certain:
        raise TypeError(f"{name} must be an async function of one argument, not {consumer!r}")
