"""What a job is: a function without arguments, or an awaitable; checked, called, discarded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import CORO_CREATED, getcoroutinestate, isawaitable, iscoroutine
from types import CoroutineType
from typing import TypeAlias, TypeVar

T = TypeVar("T")

#: A job whose result is a ``T``: a zero-argument async callable, or an awaitable.
JobOf: TypeAlias = Callable[[], Awaitable[T]] | Awaitable[T]

#: A job, whatever its result.
Job: TypeAlias = Callable[[], Awaitable[object]] | Awaitable[object]


def is_job(value: object) -> bool:
    """Return whether a value can be a job, as far as that can be seen without calling it."""
    return callable(value) or isawaitable(value)


def check_job(job: JobOf[T], name: str, index: int | None = None) -> JobOf[T]:
    """
    Return a job, or raise if it cannot be one.

    :param name: the name of the parameter as which it was given
    :param index: its index there, if it was given with others
    :raises TypeError: if it is neither callable nor awaitable

    """
    if not is_job(job):
        what = name if index is None else f"{name}[{index}]"
        raise TypeError(
            f"{what} must be an async function without arguments, or an awaitable, not {job!r}; "
            f"to call one function with each item, pass it as func="
        )

    return job


def awaitable_of(job: JobOf[T], what: object) -> Awaitable[T]:
    """
    Return the awaitable of a job, which is called if it is a callable.

    :param what: what to call the job in an error
    :raises TypeError: if a callable returns something that cannot be awaited

    """
    if not callable(job):
        return job

    awaitable = job()
    # Nearly always a coroutine, which is recognized in a tenth of the time.
    kind: type[object] = type(awaitable)
    if kind is not CoroutineType and not isawaitable(awaitable):
        raise TypeError(
            f"{what}, {job!r}, returned {awaitable!r}, which cannot be awaited: "
            f"it must be an async function"
        )

    return awaitable


def discard(job: object) -> None:
    """Close a coroutine that will not be awaited, so that Python doesn't warn of it."""
    if iscoroutine(job) and getcoroutinestate(job) == CORO_CREATED:
        job.close()
