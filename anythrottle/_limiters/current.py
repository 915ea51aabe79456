"""The permit under which the current job runs."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TypeAlias, final

from ..abc import Permit

#: The permits of the jobs within which the caller runs, the innermost one first.
_current: ContextVar[tuple[Permit, ...]] = ContextVar("anythrottle permits", default=())

Current: TypeAlias = Token[tuple[Permit, ...]]


def current_permit() -> Permit:
    """
    Return the innermost permit under which the caller runs.

    That is the permit of the job that :meth:`.RateLimiter.run`, a function made by
    :meth:`.RateLimiter.wrap`, a :class:`.Throttler`, or :func:`.amap` and its kin have called; or
    of the request, within an application behind :class:`.RateLimitMiddleware`. Tasks that the job
    starts have it as well.

    >>> import anyio, anythrottle
    >>> limiter = anythrottle.RateLimiter("500/min", "200_000 tokens/min")
    >>> async def ask(question):
    ...     answer, tokens = "42", 17
    ...     anythrottle.current_permit().settle({"tokens": tokens})
    ...     return answer
    >>> async def main():
    ...     return await limiter.run(ask, "Why?", cost={"tokens": 1000})
    >>> anyio.run(main)
    '42'

    In a block of your own, it is ``permit`` of ``async with limiter.permit() as permit``.

    :raises RuntimeError: if the caller is no such job

    """
    permits = _current.get()
    if not permits:
        raise RuntimeError(
            "no permit here: only jobs that are called by RateLimiter.run(), by a function made "
            "by RateLimiter.wrap(), by a Throttler, or by amap() and its kin, and requests behind "
            "RateLimitMiddleware that are not exempt, have a current one; "
            "that of a block is 'async with limiter.permit() as permit'"
        )

    return permits[0]


def current_permits() -> tuple[Permit, ...]:
    """Return all the permits under which the caller runs."""
    return _current.get()


def make_current(permit: Permit) -> Current:
    """Make a permit the current one; return what :func:`no_longer_current` needs."""
    return _current.set((permit, *_current.get()))


def no_longer_current(current: Current) -> None:
    """Make the permit the current one again that was it before."""
    # A coroutine that was never finished is closed in whatever context there is.
    try:  # noqa: SIM105 - suppress() costs as much as all the rest
        _current.reset(current)
    except ValueError:
        pass


@final
class as_current:  # noqa: N801 - reads as the function that it could be, at a third of its cost
    """Makes a permit the current one within a ``with`` block."""

    _before: Current

    __slots__ = ("_before", "_permit")

    def __init__(self, permit: Permit) -> None:
        self._permit = permit

    def __enter__(self) -> None:
        self._before = make_current(self._permit)

    def __exit__(self, *_: object) -> None:
        no_longer_current(self._before)
