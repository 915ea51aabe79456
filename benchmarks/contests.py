"""
What ``compared`` measures on virtual time, where each run is the same: windows, order, cancelled.

A contest takes a contender and returns the figures of some columns.
"""

import asyncio
import random
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import TypeVar

import anyio

from anythrottle.testing import virtual_backends

from .contenders import Contender, Turn
from .exact_window import ExactWindow, fullest
from .virtual_time import run_virtually

T = TypeVar("T")

SEED = 20261130
LIMIT, WINDOW = 20, 2.0

#: When all come at once, by the window: those who count between fixed edges are not hit at one.
PHASES = (0.0, 0.25, 0.5, 0.75, 0.95)
AT_ONCE = 3 * LIMIT
#: Those that come one by one, how far apart on average, and every how many is cancelled, when.
ONE_BY_ONE, APART, EVERY, CUT = 6 * LIMIT, WINDOW / LIMIT / 1.5, 3, 0.1
#: How long a call takes, in seconds.
CALL = 0.3

#: Every how many costs a half of the limit, where costs differ.
LARGE_EVERY, LARGE = 10, LIMIT // 2

#: Which of the waiters is cancelled, and how many steps of the event loop after its turn came up.
WAITERS = (LIMIT, LIMIT + LIMIT // 2, 2 * LIMIT - 1)
STEPS = tuple(range(8))
WAITING = 3 * LIMIT
#: How long after that a turn that was handed on must have been taken, in seconds.
GRACE = 1.0

#: The calls to a model: limits per window of seconds, and how many tasks call how often.
MODEL_CALLS, MODEL_TOKENS, MODEL_WINDOW = 60, 60_000, 10
MODEL_TASKS, MODEL_COUNT = 100, 2000
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
    """Let calls come faster than they may go, and cancel some that have begun."""
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


async def turns(turn: Turn, cancel: Callable[[int, "asyncio.Task[None]"], None]) -> list[float]:
    """Return when each of those who wait has its turn, infinity if it has none in time."""
    found = [float("inf")] * WAITING

    async def wait(number: int) -> None:
        async with turn.take(1):
            found[number] = anyio.current_time()

    tasks = [asyncio.ensure_future(wait(number)) for number in range(WAITING)]
    for number, task in enumerate(tasks):
        cancel(number, task)

    # Those who fill the window are among them; each window lets as many pass.
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
    """Cancel a waiter as its turn comes, and count those whose turn nobody had instead."""
    undisturbed = with_turn(contender, turns, lambda _number, _task: None)
    lost, stuck, cases = 0, False, 0
    for waiter, steps in product(WAITERS, STEPS):
        instant = undisturbed[waiter]
        found = with_turn(contender, turns, cancelling(waiter, instant, steps))
        if found[waiter] < float("inf"):
            continue  # it had its turn already

        cases += 1
        by = instant + GRACE
        lost += sum(had <= by for had in found) < sum(had <= by for had in undisturbed)
        stuck |= found.count(float("inf")) > 1 + undisturbed.count(float("inf"))

    return {"lost": lost, "cancelled": cases, "stuck": stuck}


def cancelling(
    waiter: int, instant: float, steps: int
) -> Callable[[int, "asyncio.Task[None]"], None]:
    """Make what cancels a waiter so many steps of the event loop after an instant has come."""

    def cancel(number: int, task: "asyncio.Task[None]") -> None:
        if number == waiter:
            asyncio.get_running_loop().call_at(instant, step, task, steps)

    def step(task: "asyncio.Task[None]", left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(step, task, left - 1)
        else:
            task.cancel()

    return cancel


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
            # Some leave a coroutine that nobody awaits.
            warnings.simplefilter("ignore")
            with suppress(Exception):
                anyio.run(wait, backend=name, backend_options=options)
                return {"trio": True}

        return {"trio": False}
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
