"""What is left to the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable

import anyio

Case = Callable[[], Awaitable[object]]


def left_by(case: Case, backend: str) -> set[str]:
    """Return the names of the types of ours that only the garbage collector finds."""

    async def main() -> set[str]:
        gc.collect()
        gc.disable()
        try:
            # On Trio, tasks take turns in no certain order.
            for _ in range(5):
                await case()

            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return {
                type(each).__qualname__
                for each in gc.garbage
                if type(each).__module__.startswith("anythrottle")
            }
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    return anyio.run(main, backend=backend)
