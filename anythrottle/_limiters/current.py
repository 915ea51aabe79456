"""The permit under which the current job runs."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from ..abc import Permit

#: The permits of the jobs within which the caller runs, the innermost one first.
_current: ContextVar[tuple[Permit, ...]] = ContextVar("anythrottle permits", default=())


def current_permit() -> Permit:
    """
    Return the innermost permit under which the caller runs.

    That is the permit of the job that :meth:`.RateLimiter.run`, a function made by
    :meth:`.RateLimiter.wrap` or a :class:`.Throttler` has called. Tasks that the job starts have
    it as well.

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

    :raises RuntimeError: if the caller is no such job

    """
    permits = _current.get()
    if not permits:
        raise RuntimeError(
            "no permit here: only jobs that are called by RateLimiter.run(), by a function made "
            "by RateLimiter.wrap() or by a Throttler have a current permit"
        )

    return permits[0]


def current_permits() -> Iterator[Permit]:
    """Return all the permits under which the caller runs."""
    return iter(_current.get())


@contextmanager
def as_current(permit: Permit) -> Generator[None]:
    """Let a permit be the current one within a ``with`` block."""
    token = _current.set((permit, *_current.get()))
    try:
        yield
    finally:
        # A coroutine that was never finished is closed in whatever context there is.
        with suppress(ValueError):
            _current.reset(token)
