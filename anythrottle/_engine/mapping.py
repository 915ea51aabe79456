"""Calls a function for many items under a limiter: for all results, outcomes, or the first."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar

from .._events import Observer
from .._loops.clock import LoopClock, loop_of, native_loop
from ..abc import Limiter
from .attempts import Attempts
from .backlog import Backlog
from .gathering import Gathering, Race
from .halting import Halt, asking, check_halt
from .job_record import I, T
from .options import Concurrency, CostOf, JobOptions, results_waiting
from .outcome import Outcome
from .outcome_block import OutcomeBlock
from .outcome_feed import OutcomeFeed
from .outcomes import Outcomes
from .run_state import RunState
from .sink import ResultSink
from .tally import Tally
from .throttler_statistics import statistics_of
from .workers import WorkerPool, run_to_end

S = TypeVar("S", bound=ResultSink[Any, Any])  # pyright: ignore[reportExplicitAny]


async def amap(
    func: Callable[[I], Awaitable[T]],
    items: Iterable[I] | AsyncIterable[I],
    /,
    *,
    limiter: Limiter | str | None = None,
    concurrency: Concurrency = None,
    cost: CostOf[I] = 1,
    priority: int = 0,
    attempts: Attempts | None = None,
    observer: Observer | None = None,
) -> list[T]:
    """
    Call ``func`` for each item, and return the results in the order of the items.

    >>> import anyio, anythrottle
    >>> async def double(number):
    ...     return 2 * number
    >>> async def main():
    ...     return await anythrottle.amap(double, range(5), limiter="20/10s", concurrency=3)
    >>> anyio.run(main)
    [0, 2, 4, 6, 8]

    The first call that fails ends all: the others are cancelled, and its error is raised as it is.
    Further errors, while the others end, are logged and noted on the first. An error of the source
    ends all in the same way. To go on after errors, use :func:`amap_outcomes`.

    The items are pulled only as calls start, one ahead, always by the same task; those of a
    sequence are taken by their index. A generator, async or not, is closed at the end, however
    early that is, by the same task. What it awaits then is waited for, and cancelled only if the
    caller is. If it is in the midst of a step, the step is cancelled, and what the generator does
    at its end is part of the step. Iterators of other kinds, streams and files stay open.

    A call that raises :exc:`.ThrottleException` pauses the limiter, and goes again before all
    others. A call that raises an error which is worth another attempt goes again alone, after a
    while. Each attempt has the context variables of the caller of this function, and sets only its
    own; it has a :func:`.current_permit`. It must not wait for the limiter that runs it: it has
    been paid for.

    :param func: an async function of one argument
    :param items: an iterable or async iterable
    :param limiter: what the calls wait for: a limiter, which may be shared, or a text such as
        ``"20/10s"``; ``None`` for no limit
    :param concurrency: how many calls run at once, at least 1, or a capacity limiter that is shared
        with others; ``None`` for no bound but the limiter's. Without either, all start at once.
    :param cost: what each attempt costs by the limiter, or a function that returns it for an item;
        :func:`.current_permit` can correct it. If that function fails, or what it returns can never
        fit, the call has failed.
    :param priority: of the calls' turns among others that use the limiter: lower goes first
    :param attempts: how often each call is tried, after which errors, and for how long each time;
        ``None`` for once, and again for as long as it is throttled
    :param observer: a function that is called with :type:`events <anythrottle.abc.Event>`: what
        becomes of the calls
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range
    :raises BaseException: the first error of a call, of the source or of the limiter; a
        cancellation that one of them raises by itself comes as a :exc:`RuntimeError`

    """
    options = JobOptions[I].checked(limiter, concurrency, cost, priority, attempts, observer)
    gathering = await _run_all(_backlog_of(func, items), options, Gathering[I, T])
    return gathering.values()


async def for_each(
    func: Callable[[I], Awaitable[object]],
    items: Iterable[I] | AsyncIterable[I],
    /,
    *,
    limiter: Limiter | str | None = None,
    concurrency: Concurrency = None,
    cost: CostOf[I] = 1,
    priority: int = 0,
    attempts: Attempts | None = None,
    observer: Observer | None = None,
) -> None:
    """
    Call ``func`` for each item, and keep no results, so that there may be any number of items.

    >>> import anyio, anythrottle
    >>> async def main():
    ...     await anythrottle.for_each(anyio.sleep, [0.1, 0.2], limiter="20/10s")
    >>> anyio.run(main)

    All else is as with :func:`amap`: the first call that fails ends all, and its error is raised as
    it is.

    :param func: an async function of one argument
    :param items: an iterable or async iterable
    :param limiter: what the calls wait for, or a text such as ``"20/10s"``; ``None`` for no limit
    :param concurrency: how many calls run at once, at least 1, or slots that are shared; ``None``
        for no bound but the limiter's
    :param cost: what each attempt costs by the limiter, or a function that returns it for an item
    :param priority: of the calls' turns among others that use the limiter: lower goes first
    :param attempts: how often each call is tried, as with :func:`amap`
    :param observer: a function that is called with :type:`events <anythrottle.abc.Event>`
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range
    :raises BaseException: the first error of a call, of the source or of the limiter

    """
    options = JobOptions[I].checked(limiter, concurrency, cost, priority, attempts, observer)
    keep_none = partial(Gathering[I, object], keep=False)
    await _run_all(_backlog_of(func, items), options, keep_none)


async def first(
    func: Callable[[I], Awaitable[T]],
    items: Iterable[I] | AsyncIterable[I],
    /,
    *,
    limiter: Limiter | str | None = None,
    concurrency: Concurrency = None,
    cost: CostOf[I] = 1,
    priority: int = 0,
    attempts: Attempts | None = None,
    observer: Observer | None = None,
) -> Outcome[I, T]:
    """
    Call ``func`` for each item until one call succeeds, and return its outcome.

    >>> import anyio, anythrottle
    >>> async def answer_of(mirror):
    ...     if mirror == "broken":
    ...         raise OSError
    ...     return f"answer of {mirror}"
    >>> async def main():
    ...     outcome = await anythrottle.first(answer_of, ["broken", "slow"], concurrency=2)
    ...     return outcome.item, outcome.value
    >>> anyio.run(main)
    ('slow', 'answer of slow')

    The other calls are cancelled at once, and nothing more is pulled. If the source raises, the
    calls that run still may succeed; if none does, its error is raised, and theirs are noted on
    it. All else is as with :func:`amap`.

    :param func: an async function of one argument
    :param items: an iterable or async iterable
    :param limiter: what the calls wait for, or a text such as ``"20/10s"``; ``None`` for no limit
    :param concurrency: how many calls run at once, at least 1, or slots that are shared; ``None``
        for no bound but the limiter's
    :param cost: what each attempt costs by the limiter, or a function that returns it for an item
    :param priority: of the calls' turns among others that use the limiter: lower goes first
    :param attempts: how often each call is tried, as with :func:`amap`
    :param observer: a function that is called with :type:`events <anythrottle.abc.Event>`
    :raises ExceptionGroup: of the errors of all calls, in the order of the items, if none succeeds
    :raises ValueError: if there are no items, or a parameter is out of its range
    :raises TypeError: if a parameter is of the wrong type
    :raises BaseException: an error of the source, if no call succeeds, or of the limiter

    """
    options = JobOptions[I].checked(limiter, concurrency, cost, priority, attempts, observer)
    race = await _run_all(_backlog_of(func, items), options, Race[I, T])
    return race.result()


def amap_outcomes(
    func: Callable[[I], Awaitable[T]],
    items: Iterable[I] | AsyncIterable[I],
    /,
    *,
    limiter: Limiter | str | None = None,
    concurrency: Concurrency = None,
    cost: CostOf[I] = 1,
    priority: int = 0,
    ordered: bool = False,
    halt: Halt | None = None,
    attempts: Attempts | None = None,
    observer: Observer | None = None,
) -> AbstractAsyncContextManager[Outcomes[I, T]]:
    """
    Call ``func`` for each item, and iterate over the outcomes as they come.

    >>> import anyio, anythrottle
    >>> async def divide(number):
    ...     return 12 // number
    >>> async def main():
    ...     async with anythrottle.amap_outcomes(divide, [3, 0, 4], limiter="20/10s") as outcomes:
    ...         async for outcome in outcomes:
    ...             print(outcome.item, outcome.error or outcome.value)
    >>> anyio.run(main)
    3 4
    0 integer division or modulo by zero
    4 3

    A call that fails has an :class:`.Outcome` too, whose ``value`` raises its error. No call starts
    while as many outcomes wait to be taken as calls run at once by ``concurrency``, or else by that
    of the limiter (100 if neither bounds it): a body that is slow to take them holds the calls and
    the source back. An endless source needs a limiter or a ``concurrency``: else calls start for
    ever. All else is as with :func:`amap`.

    To leave the ``async with`` block early cancels the calls that run; nothing more is pulled, and
    a generator is closed as by :func:`amap`. An error of the block's own leaves it as it is. An
    error of the source is raised by the iterator, after the outcomes of the calls that were started
    before it. An outcome that is there already is returned without a checkpoint. What this function
    returns can be entered once.

    The iterator has two methods besides. ``stop()`` starts no more calls: those that run go on, and
    the iteration ends after their outcomes. ``statistics()`` returns a
    :class:`.ThrottlerStatistics`: how many have ended, run or wait, how fast, and in how many
    seconds all may be done.

    :param func: an async function of one argument
    :param items: an iterable or async iterable
    :param limiter: what the calls wait for, or a text such as ``"20/10s"``; ``None`` for no limit
    :param concurrency: how many calls run at once, at least 1, or slots that are shared; ``None``
        for no bound but the limiter's
    :param cost: what each attempt costs by the limiter, or a function that returns it for an item
    :param ordered: whether the outcomes come in the order of the items; then as many of them may
        be held back as calls run at once. Else they come as calls end
    :param halt: a function of :class:`.ThrottlerStatistics` that is asked after each failure: if it
        returns ``True``, no more calls start, and the outcomes end with those of the calls that
        run; if it fails, its error leaves the block
    :param priority: of the calls' turns among others that use the limiter: lower goes first
    :param attempts: how often each call is tried, as with :func:`amap`
    :param observer: a function that is called with :type:`events <anythrottle.abc.Event>`
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range

    """
    options = JobOptions[I].checked(limiter, concurrency, cost, priority, attempts, observer)
    backlog = _backlog_of(func, items)
    check_halt(halt)
    return OutcomeBlock(partial(_begin, backlog, options, ordered=ordered, halt=halt))


def _backlog_of(
    func: Callable[[I], Awaitable[T]], items: Iterable[I] | AsyncIterable[I]
) -> Backlog[I, T]:
    """Return the calls to be made, or raise if there can be none."""
    if not callable(func):
        raise TypeError(f"func must be an async function of one argument, not {func!r}")

    return Backlog(items, func, "items")


async def _run_all(
    backlog: Backlog[I, T], options: JobOptions[I], sink_of: Callable[[Backlog[I, T], RunState], S]
) -> S:
    """Run all the jobs, and return the sink that their results went to."""
    run = RunState(backlog.change, loop_of(native_loop()), host_waits=True)
    sink = sink_of(backlog, run)
    await run_to_end(WorkerPool(backlog, sink, options, run, resumable=False))
    return sink


def _begin(
    backlog: Backlog[I, T], options: JobOptions[I], *, ordered: bool, halt: Halt | None
) -> tuple[OutcomeFeed[I, T], WorkerPool[I, T]]:
    """Return what all the outcomes come out of, and the workers that are to begin for that."""
    tally = Tally()
    clock = LoopClock(tally.shift, "the mapping")
    run = RunState(backlog.change, clock.loop(), host_waits=False)
    tally.begin_run(run.loop.time)
    statistics = partial(statistics_of, backlog, tally, options.limiter, clock)
    most_waiting = results_waiting(options.concurrency, options.limiter)
    feed = OutcomeFeed(backlog, run, tally, statistics, most_waiting=most_waiting, ordered=ordered)
    ask = asking(halt, run, statistics)
    return feed, WorkerPool(backlog, feed, options, run, resumable=False, on_failure=ask)
