"""What the tests of limiters share: plain references to judge by, and crowds of tasks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import anyio
import pytest
import trio
from anyio.abc import TaskGroup
from anyio.lowlevel import current_token

from anythrottle import Cost, LimitExceeded, RateLimiter
from anythrottle._limiters.permit import TurnPermit
from anythrottle._loops.asyncio_loop import AsyncioLoop
from anythrottle._loops.trio_loop import TrioLoop
from anythrottle.testing import virtual_backends, wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from anythrottle.testing._virtual_trio import running_clock
from tests.sweep import Strike, sweep

#: Who waits that long, in virtual seconds, would have waited for ever.
FOREVER = 1e13

Grant = tuple[float, int]


@asynccontextmanager
async def tasks() -> AsyncIterator[TaskGroup]:
    """A task group in which nobody waits for ever."""
    with anyio.fail_after(FOREVER):
        async with anyio.create_task_group() as task_group:
            yield task_group


def window_later(instant: float, window: float) -> float:
    """Return the first instant that is a window later by both ways of reckoning it."""
    later = instant + window
    while later - instant < window:
        later = math.nextafter(later, math.inf)

    return later


def assert_exact(grants: Sequence[Grant], limit: int, window: float) -> None:
    """Count each window that begins with a grant: none may hold more than the limit."""
    grants = sorted(grants)
    for index, (start, _) in enumerate(grants):
        held = 0
        for instant, cost in grants[index:]:
            if instant - start >= window and start + window <= instant:
                break

            held += cost

        assert held <= limit, f"{held} in the window from {start!r} on: {grants}"


def latest_start(limiter: RateLimiter) -> float:
    """Return the instant that the latest call counts from, by the limiter's own first bucket."""
    bucket = limiter._gate.buckets[0]
    return bucket.history(limiter._line.clock.loop().time())[-1][0]


def plain_fifo(
    calls: Sequence[Grant], limit: int, window: float, granted: Sequence[float] = ()
) -> list[float]:
    """
    Return when each of the calls, given as arrival and cost in order, has to be granted.

    :param granted: when the first of them have been granted, if that is known
    """
    instants: list[float] = []
    out: list[Grant] = []
    instant = -math.inf
    for index, (arrival, cost) in enumerate(calls):
        instant = max(instant, arrival)
        if index < len(granted):
            instant = granted[index]
        else:
            for back_at, _ in [(instant, 0), *sorted(out)]:
                at = max(instant, back_at)
                if sum(amount for due, amount in out if due > at) + cost <= limit:
                    instant = at
                    break

        instants.append(instant)
        out.append((window_later(instant, window), cost))

    return instants


def permit_of(limiter: RateLimiter, cost: Cost = 1) -> TurnPermit:
    """Return a limiter's permit as what it is, to ask it before it is entered, too."""
    permit = limiter.permit(cost)
    assert isinstance(permit, TurnPermit)
    return permit


def left(limiter: RateLimiter) -> list[int]:
    """Return what is left by each policy."""
    now = limiter._line.clock.peek()
    return [bucket.remaining(now) for bucket in limiter._gate.buckets]


async def left_at(limiter: RateLimiter, instant: float) -> list[int]:
    """Wait until an instant, and return what is left by each policy then."""
    await anyio.sleep_until(instant)
    return left(limiter)


def pass_at_once(limiter: RateLimiter) -> int:
    """Take one after the other until one is refused; return how many have passed."""
    passed = 0
    try:
        while True:
            limiter.acquire_nowait()
            passed += 1
    except LimitExceeded:
        return passed


class Crowd:
    """Tasks that acquire from one limiter, by name, with the instants of their grants."""

    def __init__(self, limiter: RateLimiter, task_group: TaskGroup) -> None:
        self.limiter = limiter
        self.task_group = task_group
        #: In the order of the grants.
        self.granted: dict[object, float] = {}
        self.grants: list[Grant] = []
        self.scopes: dict[object, anyio.CancelScope] = {}

    async def join(self, name: object, cost: int = 1, **options: Any) -> None:
        """Let one more task come, and wait until it is in line or through."""
        self.task_group.start_soon(self._call, name, cost, options)
        await wait_idle()

    async def join_all(self, *names: object) -> None:
        for name in names:
            await self.join(name)

    async def leave(self, name: object) -> None:
        """Cancel a task."""
        self.scopes[name].cancel()
        await wait_idle()

    async def _call(self, name: object, cost: int, options: dict[str, Any]) -> None:
        with anyio.CancelScope() as self.scopes[name]:
            await self.limiter.acquire(cost, **options)
            self.granted[name] = anyio.current_time()
            self.grants.append((anyio.current_time(), cost))


class Counts:
    """Counts how often a waiting task was woken, and how often anybody tried to wake one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wakes = 0
        self.parks = 0
        for name in ("park", "park_until"):
            monkeypatch.setattr(AsyncioLoop, name, self._counting(getattr(AsyncioLoop, name)))

        # Here park_until() goes through park().
        monkeypatch.setattr(TrioLoop, "park", self._counting(TrioLoop.park))
        for run in (AsyncioLoop, TrioLoop):
            monkeypatch.setattr(run, "wake", self._counting_wakes(run.wake))

    def _counting(self, park: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.parks += 1
            return park(*args)

        return counted

    def _counting_wakes(self, wake: Callable[..., Any]) -> Callable[..., Any]:
        def counted(run: Any, who: Any) -> Any:
            self.wakes += who.parked is not None
            return wake(run, who)

        return counted


def turn_back(seconds: float) -> None:
    """Set the running virtual clock back."""
    loop = current_token().native_token
    if isinstance(loop, VirtualEventLoop):
        loop._set_time(loop.time() - seconds)
    else:
        clock = running_clock()
        assert clock is not None
        clock._run_clock.get().now -= seconds


def set_clock(limiter: RateLimiter, *readings: float) -> None:
    """Let a limiter read these times, one after the other, then the last one again and again."""
    rest = list(readings)
    limiter._line.clock.loop().time = lambda: rest.pop(0) if len(rest) > 1 else rest[0]


class Blow(NamedTuple):
    """A way to cancel: on which backend, by a native cancel or by scope, before or after a wake."""

    backend: str
    native: bool = False
    when_woken: bool = False


#: As ids for pytest: what is cancelled and when.
BLOWS = [
    pytest.param(Blow("asyncio"), id="asyncio-scope"),
    pytest.param(Blow("trio"), id="trio-scope"),
    pytest.param(Blow("asyncio", when_woken=True), id="asyncio-scope-when-woken"),
    pytest.param(Blow("asyncio", native=True), id="asyncio-native"),
    pytest.param(Blow("asyncio", native=True, when_woken=True), id="asyncio-native-when-woken"),
]


def sweep_with(blow: Blow, scenario: Callable[[Victim], Coroutine[Any, Any, None]]) -> int:
    """Run a scenario with its victim cancelled at each suspension in turn; count the runs."""
    options = dict(virtual_backends())[blow.backend]
    runs = 0
    for strike in sweep(when_woken=blow.when_woken):
        victim = Victim(strike, native=blow.native)
        anyio.run(partial(scenario, victim), backend=blow.backend, backend_options=options)
        runs += 1

    return runs


class Victim:
    """Runs a coroutine that is cancelled at the suspension that a strike is for."""

    def __init__(self, strike: Strike, *, native: bool) -> None:
        self._strike = strike
        self._native = native

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        if self._native:
            task = asyncio.create_task(self._wrapped(coroutine))
            self._strike.blow = task.cancel
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        else:
            with anyio.CancelScope() as scope:
                self._strike.blow = scope.cancel
                await self._wrapped(coroutine)

    async def _wrapped(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        await self._strike.wrap(coroutine)


def is_trio() -> bool:
    """Tell whether the caller runs on Trio."""
    return isinstance(current_token().native_token, trio.lowlevel.TrioToken)
