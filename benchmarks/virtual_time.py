"""Virtual time for limiters of any kind, whichever clock they read; on asyncio."""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio

from anythrottle.testing import virtual_backends
from anythrottle.testing._virtual_loop import VirtualEventLoop

T = TypeVar("T")

#: What the clocks show at the start, in seconds: an instant, and how long the machine may be up.
EPOCH, UPTIME = 1_800_000_000.0, 100_000.0

#: How long it takes to read a clock, and how soon a timer is due at the earliest, in seconds: a
#: task that looks at a clock again and again until it has gone on would do so for ever.
READ, SOONEST = 1e-9, 1e-6

READINGS: dict[str, Callable[[float], float]] = {
    "time": lambda now: EPOCH + now,
    "time_ns": lambda now: round((EPOCH + now) * 1e9),
    "monotonic": lambda now: UPTIME + now,
    "monotonic_ns": lambda now: round((UPTIME + now) * 1e9),
}


async def at_once(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Stand in for :func:`asyncio.to_thread`: virtual time does not wait for threads."""
    return function(*args, **kwargs)


@contextmanager
def clocks_of(modules: tuple[str, ...]) -> Generator[Callable[[VirtualEventLoop], None]]:
    """
    Make the clocks of the ``time`` module show an event loop's time; yield what takes the loop.

    A module of the packages named that has imported such a function by its name gets another one.
    """
    loops: list[VirtualEventLoop] = []
    here = threading.get_ident()

    def shown(reading: Callable[[float], float]) -> Callable[[], float]:
        def read() -> float:
            if not loops:
                return reading(0.0)

            # Other threads only look.
            if threading.get_ident() == here:
                loops[-1].advance(READ)

            return reading(loops[-1].time())

        return read

    real = {name: getattr(time, name) for name in READINGS}
    places: list[tuple[Any, str, Any]] = [(asyncio, "to_thread", at_once)]
    places += [(time, name, shown(reading)) for name, reading in READINGS.items()]
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").partition(".")[0] in modules:
            places += [
                (module, name, shown(READINGS[name]))
                for name, function in real.items()
                if vars(module).get(name) is function
            ]

    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    for place, name, other in places:
        setattr(place, name, other)
    try:
        yield loops.append
    finally:
        for place, name, function in before:
            setattr(place, name, function)


def run_virtually(
    modules: tuple[str, ...], function: Callable[..., Awaitable[T]], *args: object
) -> T:
    """Run ``function`` on asyncio and a virtual clock, which the packages named follow."""
    with clocks_of(modules) as follow:

        async def run() -> T:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualEventLoop)
            call_at = loop.call_at

            def call_soonest(when: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
                return call_at(max(when, loop.time() + SOONEST), *rest, **options)

            loop.call_at = call_soonest  # type: ignore[assignment, method-assign]
            follow(loop)
            return await function(*args)

        options = dict(virtual_backends())["asyncio"]
        return anyio.run(run, backend="asyncio", backend_options=options)
