"""What every limiter can do that has permits and can be paused."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from math import inf
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, TypeVarTuple, overload

from .._errors import LimitExceeded
from .._jobs import JobOf, awaitable_of, discard
from .._loops.clock import loop_of, native_loop
from .._loops.event_loop import EventLoop
from .._policies.checks import check_count
from .._policies.policy import Cost
from ..abc import Limiter, Permit
from .cost import by_unit
from .current import as_current
from .max_wait import MaxWait, check_max_wait, check_priority
from .permit import TurnPermit
from .throttling import go_again, throttle_in

P = ParamSpec("P")
T = TypeVar("T")
PosArgsT = TypeVarTuple("PosArgsT")

#: The priority of a call that goes again, where it cannot stand in line before its slot is free.
_FIRST = -sys.maxsize


class BaseLimiter(ABC):
    """
    The base for limiters of your own: with :meth:`permit` and :meth:`pause`, it does the rest.

    >>> import anyio, anythrottle
    >>> class Polite(anythrottle.BaseLimiter):
    ...     def __init__(self, limiter):
    ...         self._limiter = limiter
    ...     def permit(self, cost=1, *, priority=0, max_wait=None):
    ...         return self._limiter.permit(cost, priority=priority + 1, max_wait=max_wait)
    ...     def pause(self, seconds=None):
    ...         self._limiter.pause(seconds)
    >>> polite = Polite(anythrottle.RateLimiter("20/10s"))
    >>> @polite.wrap(max_throttles=3)
    ... async def fetch(page):
    ...     return f"page {page}"
    >>> anyio.run(fetch, 7)
    'page 7'

    """

    __slots__ = ("__weakref__", "_inside", "_inside_of")

    #: What the tasks inside of ``async with limiter`` hold, by task; and in which loop they are.
    _inside: dict[object, list[object]] | None
    _inside_of: EventLoop | None

    def __new__(cls, *_: Any, **__: Any) -> Self:  # pyright: ignore[reportExplicitAny]
        # Not in __init__(), which those derived from this need not call.
        self = super().__new__(cls)
        self._inside = None
        self._inside_of = None
        return self

    @abstractmethod
    def permit(
        self, cost: Cost = 1, *, priority: int = 0, max_wait: MaxWait = None
    ) -> AbstractAsyncContextManager[Permit]:
        """
        Return the permit for one call, to be entered, as :meth:`.RateLimiter.permit` does.

        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :param max_wait: for how many seconds to wait at most, 0 or more; ``"deadline"`` for until
            the deadline of the enclosing cancel scope; ``None`` for as long as it takes

        """

    @abstractmethod
    def pause(self, seconds: float | None = None) -> None:
        """
        Hold up, for a while, all calls that have not begun, as :meth:`.RateLimiter.pause` does.

        :param seconds: how long, 0 or more; ``None`` for the limiter's own choice
        """

    def permit_again(
        self,
        permit: Permit,  # noqa: ARG002 - for limiters that override it
        cost: Cost,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[Permit] | None:
        """
        Return the permit for a call that was throttled and goes again.

        A limiter that can puts it in line already, in front: then no other call gets the slot
        that this one gives back next.

        :param permit: the permit that the call runs under as yet
        :param cost: what it costs
        :return: the permit; ``None``, as here, if it is to be one of :meth:`permit`, with a
            priority that goes before all others

        """
        return None

    async def run(
        self,
        func: Callable[[*PosArgsT], Awaitable[T]],
        *args: *PosArgsT,
        cost: Cost = 1,
        priority: int = 0,
        max_wait: MaxWait = None,
        max_throttles: int | None = None,
    ) -> T:
        """
        Wait for a turn, call ``func`` and return what it returns.

        If it raises :exc:`.ThrottleException`, the limiter pauses (for the time given with the
        exception, else as :meth:`pause` does by itself), what the call holds is let go, and the
        call goes again from the front of the line. The attempt stays charged, unless the function
        calls ``current_permit().refund()``.

        A group of nothing but such exceptions is treated as one, with the longest of their
        pauses. If there is anything else in a group, the limiter pauses too, but the group is
        raised.

        :param func: an async function
        :param args: what to call it with
        :param cost: what the call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :param max_wait: for how many seconds to wait at most, 0 or more, for each turn;
            ``"deadline"`` for until the deadline of the enclosing cancel scope; ``None`` for as
            long as it takes
        :param max_throttles: how often it may be throttled, at least 1: the last time its
            throttling is raised as its error, so 1 is for never again; ``None`` for no bound
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if a parameter is out of its range
        :raises ~anythrottle.CostTooHigh: if a policy could never allow ``cost``
        :raises ~anythrottle.LimitExceeded: if too many are waiting, or a turn cannot come within
            ``max_wait``: from the :exc:`.ThrottleException`, if it is not the first turn
        :raises RuntimeError: if the call is made by a job that the limiter itself runs, and all
            its slots are held by jobs that do so: a slot could never come

        """
        _check_func(func)
        most = inf if max_throttles is None else check_count("max_throttles", max_throttles)
        permit = self.permit(cost, priority=priority, max_wait=max_wait)
        job: JobOf[T] = partial(func, *args)
        throttles = 0
        throttled: BaseException | None = None
        try:
            while True:
                following = again = current = None
                try:
                    async with permit as current:
                        if isinstance(current, TurnPermit):
                            current.may_be_kept = True

                        try:
                            with as_current(current):
                                return await awaitable_of(job, "the function")
                        except BaseException as exc:
                            throttles += 1
                            following = self._after_throttling(exc, current, job, throttles, most)
                            if following is not None:
                                job, throttled = following, exc
                                again = self.permit_again(current, cost)
                                if not isinstance(again, TurnPermit):
                                    # To enter it may be no checkpoint, nor the call one.
                                    await loop_of(native_loop()).checkpoint()

                            raise
                except BaseException as exc:
                    if isinstance(exc, LimitExceeded) and current is None and throttled is not None:
                        raise exc from throttled

                    if following is None or exc is not throttled:
                        _abandon(current, again)
                        raise

                if following is None:
                    raise RuntimeError(f"{permit!r} has swallowed the error of its call")

                permit = again or self.permit(cost, priority=_FIRST, max_wait=max_wait)
        finally:
            # It may be a replacement that has never run; and its traceback leads here.
            discard(job)
            del throttled

    @overload
    def wrap(
        self, func: Callable[P, Awaitable[T]], /
    ) -> Callable[P, Coroutine[object, object, T]]: ...

    @overload
    def wrap(
        self,
        /,
        *,
        cost: Cost = 1,
        priority: int = 0,
        max_wait: MaxWait = None,
        max_throttles: int | None = None,
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[object, object, T]]]: ...

    def wrap(
        self,
        func: Callable[..., Awaitable[object]] | None = None,
        /,
        *,
        cost: Cost = 1,
        priority: int = 0,
        max_wait: MaxWait = None,
        max_throttles: int | None = None,
    ) -> object:
        """
        Return an async function that calls ``func`` by :meth:`run`; without it, a decorator.

        >>> import anyio, anythrottle
        >>> limiter = anythrottle.RateLimiter("20/10s", concurrency=5)
        >>> @limiter.wrap
        ... async def fetch(page):
        ...     return f"page {page}"
        >>> anyio.run(fetch, 7)
        'page 7'
        >>> @limiter.wrap(cost=2, max_throttles=3)
        ... async def search(words):
        ...     return f"found {words}"
        >>> anyio.run(search, "it")
        'found it'

        :param func: an async function
        :param cost: what each call costs, 0 or more, or amounts by unit
        :param priority: lower goes first
        :param max_wait: as that of :meth:`run`
        :param max_throttles: as that of :meth:`run`
        :raises TypeError: if ``func`` cannot be called, or a parameter is of the wrong type
        :raises ValueError: if a parameter is out of its range

        """
        by_unit(cost)
        check_priority(priority)
        check_max_wait(max_wait)
        if max_throttles is not None:
            check_count("max_throttles", max_throttles)

        def decorate(
            func: Callable[P, Awaitable[object]],
        ) -> Callable[P, Coroutine[object, object, object]]:
            _check_func(func)

            @wraps(func)
            async def limited(*args: P.args, **kwargs: P.kwargs) -> object:
                return await self.run(
                    partial(func, *args, **kwargs),
                    cost=cost,
                    priority=priority,
                    max_wait=max_wait,
                    max_throttles=max_throttles,
                )

            return limited

        return decorate if func is None else decorate(func)

    async def __aenter__(self) -> None:
        permit = self.permit()
        await permit.__aenter__()
        self._put_inside(loop_of(native_loop()), permit)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        permit = self._take_out()
        if permit is not None:
            assert isinstance(permit, AbstractAsyncContextManager)
            await permit.__aexit__(exc_type, exc, traceback)

    def _put_inside(self, loop: EventLoop, held: object) -> None:
        """Note what the caller's task holds inside of ``async with limiter``."""
        inside = self._inside
        if inside is None or self._inside_of is not loop:
            # The tasks of an earlier loop were inside when it ended, and will not come out again.
            self._inside = inside = {}
            self._inside_of = loop

        inside.setdefault(loop.task(), []).append(held)

    def _take_out(self) -> object | None:
        """Return what was noted for the caller's task, else for any; ``None`` if nothing was."""
        loop, inside = self._inside_of, self._inside
        task = loop.task() if loop is not None and inside else None
        if inside is None or task is None:
            # What the caller held was in a loop that is over.
            return None

        # The task's own; or, if another task came in, any: they are all alike.
        if task not in inside:
            task = next(iter(inside))

        held = inside[task]
        found = held.pop()
        if not held:
            del inside[task]

        return found

    def _after_throttling(
        self, error: BaseException, permit: Permit, job: JobOf[T], throttles: int, most: float
    ) -> JobOf[T] | None:
        """Return what to run after an attempt that was throttled; ``None`` if it was not."""
        throttle = throttle_in(error)
        if throttle is None:
            return None

        tell_throttled(permit, self, throttle.retry_after)
        again = go_again(throttle, error, job, throttles, most)
        if again is not None:
            self._note_throttled(throttles, error)

        return again

    def _note_throttled(self, throttles: int, error: BaseException) -> None:  # noqa: B027
        """Note that a call was throttled, and goes again; by default, nothing is noted."""


def _check_func(func: object) -> None:
    if not callable(func):
        raise TypeError(f"func must be an async function, not {func!r}")


def _abandon(permit: object, again: object) -> None:
    """Give up what is of no use any more: a call that is kept, and a turn to go again."""
    # A limiter of ours may put another one's permit around its own.
    give_up = getattr(again, "leave", None)
    if give_up is not None:
        give_up()

    if isinstance(permit, TurnPermit):
        permit.end_if_kept()


def tell_throttled(permit: Permit, limiter: Limiter, retry_after: float | None) -> None:
    """Report to a permit that its call was refused; without a way to do so, pause its limiter."""
    throttled = getattr(permit, "throttled", None)
    if throttled is None:
        limiter.pause(retry_after)
    else:
        throttled(retry_after)
