"""
What ``compared`` measures on virtual time, where each run is the same: windows, order, cancelled.

A contest takes a contender and returns the figures of some columns.
"""

import asyncio
import gc
import random
import types
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeVar

import anyio

from anythrottle.testing import virtual_backends

from .contenders import Contender
from .exact_window import ExactWindow, fullest
from .turns import Turn
from .virtual_time import run_virtually

T = TypeVar("T")

SEED = 20261130
LIMIT, WINDOW = 20, 2.0

#: When all come at once, by the window: limiters that count between fixed edges are not hit at one.
PHASES = (0.0, 0.25, 0.5, 0.75, 0.95)
AT_ONCE = 3 * LIMIT
#: Those that come one by one, how far apart on average, and every how many is cancelled, when.
ONE_BY_ONE, APART, EVERY, CUT = 6 * LIMIT, WINDOW / LIMIT / 1.5, 3, 0.1
#: How long a call takes, in seconds.
CALL = 0.3

#: Every how many costs a half of the limit, where costs differ.
LARGE_EVERY, LARGE = 10, LIMIT // 2

#: How many wait, which of them is cancelled, by the order of their turns, and at how many of its
#: suspensions, the last ones.
WAITING = 4 * LIMIT
PLACES = (LIMIT, LIMIT + LIMIT // 2, 2 * LIMIT - 1)
LAST = 4
#: How long after that a turn that was handed on must have been taken, in seconds: any that only
#: come a tenth of a second apart are not counted at an edge.
GRACE = 1.05

#: The calls to a model: limits per window of seconds, and how many tasks call how often.
MODEL_CALLS, MODEL_TOKENS, MODEL_WINDOW = 60, 60_000, 10
MODEL_TASKS, MODEL_COUNT = 30, 2000
#: Of each call: its tokens, the latency before it is counted, and how long it takes after that.
TOKENS, LATENCIES, DURATIONS = (100, 2000), (0.01, 0.2), (0.5, 8.0)


@dataclass
class Calls:
    """Makes calls through a turn, and writes down when they begin, and which."""

    turn: Turn
    begun: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    async def call(self, number: int, cost: int = 1, cut: float = CALL) -> None:
        """Make a call, which is cancelled once it has gone on for so long."""
        # What cancels it is one of its task's own, as a timeout around the whole would be.
        with anyio.CancelScope() as scope:
            async with self.turn.take(cost):
                self.begun.append(anyio.current_time())
                self.order.append(number)
                if cut < CALL:
                    scope.deadline = anyio.current_time() + cut

                await anyio.sleep(CALL)


async def at_once(turn: Turn, phase: float) -> int:
    calls = Calls(turn)
    await anyio.sleep(phase * WINDOW)
    async with anyio.create_task_group() as task_group:
        for number in range(AT_ONCE):
            task_group.start_soon(calls.call, number)

    return fullest(calls.begun, WINDOW)


async def one_by_one(turn: Turn) -> int:
    """Make calls faster than they may go, and cancel some that have begun."""
    calls = Calls(turn)
    async with anyio.create_task_group() as task_group:
        for number, apart in enumerate(gaps()):
            await anyio.sleep(apart)
            task_group.start_soon(calls.call, number, 1, CALL if number % EVERY else CUT)

    return fullest(calls.begun, WINDOW)


def gaps() -> Iterator[float]:
    """Return by how many seconds each call comes after the one before it, the same each time."""
    chance = random.Random(SEED)  # noqa: S311 - the same each time
    return (chance.uniform(0, 2 * APART) for _ in range(ONE_BY_ONE))


async def overtaken(turn: Turn, large: int) -> int:
    """Return how many calls began after one that had come later."""
    calls = Calls(turn)
    async with anyio.create_task_group() as task_group:
        for number, apart in enumerate(gaps()):
            await anyio.sleep(apart)
            task_group.start_soon(calls.call, number, 1 if (number + 1) % LARGE_EVERY else large)

    return sum(
        number < max(calls.order[:place], default=0) for place, number in enumerate(calls.order)
    )


class Strike:
    """
    Cancels a task at one of the suspensions of its coroutine: what it waits for has just come.

    :ivar count: how many suspensions there were so far
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0

    @types.coroutine
    def drive(self, coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Drive the coroutine of the task to be cancelled."""
        answer, error = None, None
        while True:
            try:
                trap = coroutine.throw(error) if error else coroutine.send(answer)
            except StopIteration:
                return

            self.count += 1
            if self.count == self.number:
                self._strike(trap)

            answer, error = None, None
            try:
                answer = yield trap
            except BaseException as exc:  # noqa: BLE001 - it is thrown on
                error = exc

    @staticmethod
    def _strike(trap: "asyncio.Future[Any] | None") -> None:
        task = asyncio.current_task()
        assert task is not None
        if trap is None:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            # Before the callback that wakes the task, which is added after this one.
            trap.add_done_callback(lambda _: task.cancel())


async def turns(turn: Turn, waiter: int, strike: Strike) -> list[float]:
    """Return when each waiter has its turn, infinity if it has none in time."""
    found = [inf] * WAITING

    async def wait(number: int) -> None:
        async with turn.take(1):
            found[number] = anyio.current_time()

    async def struck() -> None:
        await strike.drive(wait(waiter))

    tasks = [
        asyncio.ensure_future(struck() if number == waiter else wait(number))
        for number in range(WAITING)
    ]
    # The calls that fill the first window are among them; each window lets as many pass.
    await asyncio.wait(tasks, timeout=(WAITING / LIMIT + 2) * WINDOW)
    for task in tasks:
        task.cancel()

    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def contest_windows(contender: Contender) -> dict[str, object]:
    """Find the fullest window."""
    most = [with_turn(contender, at_once, phase) for phase in PHASES]
    return {"fullest": max(*most, with_turn(contender, one_by_one))}


def contest_order(contender: Contender) -> dict[str, object]:
    """Count those that were overtaken, among equals and among calls of different costs."""
    return {
        "overtaken": with_turn(contender, overtaken, 1),
        "overtaken_by_cost": with_turn(contender, overtaken, LARGE) if contender.weighted else None,
    }


def contest_cancelled(contender: Contender) -> dict[str, object]:
    """Cancel a waiter as its turn comes, and count the turns that no other had instead."""
    lost, cases, stuck = 0, 0, 0
    first = with_turn(contender, turns, 0, Strike(0))
    in_order = sorted(range(WAITING), key=first.__getitem__)
    for waiter in (in_order[place] for place in PLACES):
        watch = Strike(0)
        undisturbed = with_turn(contender, turns, waiter, watch)
        by = undisturbed[waiter] + GRACE
        had = sum(instant <= by for instant in undisturbed)
        for number in range(max(1, watch.count - LAST), watch.count + 1):
            found = with_turn(contender, turns, waiter, Strike(number))
            if found[waiter] < inf:
                continue  # it had its turn already

            cases += 1
            lost += sum(instant <= by for instant in found) < had
            stuck += found.count(inf) > 1 + undisturbed.count(inf)

    return {"cancelled": cases, "lost": lost, "stuck": stuck}


async def model(turn: Turn) -> dict[str, object]:
    """Call a model whose server counts calls and tokens, each exactly, as they arrive."""
    chance = random.Random(SEED)  # noqa: S311 - the same each time
    calls = iter(
        [
            (chance.randint(*TOKENS), chance.uniform(*LATENCIES), chance.uniform(*DURATIONS))
            for _ in range(MODEL_COUNT)
        ]
    )
    windows = ExactWindow(MODEL_CALLS, MODEL_WINDOW), ExactWindow(MODEL_TOKENS, MODEL_WINDOW)
    refused = 0

    async def work() -> None:
        nonlocal refused
        for tokens, latency, duration in calls:
            async with turn.take(tokens) as mark:
                await anyio.sleep(latency)
                now = anyio.current_time()
                costs = list(zip(windows, (1, tokens), strict=True))
                if not all(window.allows(now, cost) for window, cost in costs):
                    refused += 1
                    continue

                for window, cost in costs:
                    window.count(now, cost)

                # The head of the answer tells that the call was counted.
                await anyio.sleep(latency)
                mark()
                await anyio.sleep(duration)

    async with anyio.create_task_group() as task_group:
        for _ in range(MODEL_TASKS):
            task_group.start_soon(work)

    return {"model_refused": refused, "model_seconds": round(anyio.current_time())}


def contest_model(contender: Contender) -> dict[str, object]:
    """Count what a model's server refuses, and the seconds that all calls take."""
    if contender.units is None:
        return {"model_refused": None, "model_seconds": None}

    turn = contender.units(MODEL_CALLS, MODEL_TOKENS, MODEL_WINDOW)
    try:
        return run_virtually(contender.modules, model, turn)
    finally:
        turn.close()


def contest_trio(contender: Contender) -> dict[str, object]:
    """See whether a call that has to wait can, on Trio."""
    turn = contender.calls(1, 1.0)

    async def wait() -> None:
        with anyio.fail_after(10):
            for _ in range(2):
                async with turn.take(1):
                    pass

    name, options = virtual_backends()[1]
    try:
        with warnings.catch_warnings():
            # Some leave a coroutine that is never awaited.
            warnings.simplefilter("ignore")
            runs = False
            with suppress(Exception):
                anyio.run(wait, backend=name, backend_options=options)
                runs = True

            gc.collect()

        return {"trio": runs}
    finally:
        turn.close()


def with_turn(contender: Contender, function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run ``function`` on virtual time with a new turn."""
    turn = contender.calls(LIMIT, WINDOW)
    try:
        return run_virtually(contender.modules, function, turn, *args)
    finally:
        turn.close()


CONTESTS = (contest_windows, contest_order, contest_cancelled, contest_model, contest_trio)
