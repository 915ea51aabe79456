"""A change: the task that waits for it is woken, and none of an earlier run."""

from __future__ import annotations

import anyio
import pytest

from anythrottle._engine.admission import Worker
from anythrottle._engine.change import Change
from anythrottle._loops.clock import loop_of, native_loop
from anythrottle.testing import wait_idle

pytestmark = pytest.mark.timing


async def test_only_the_task_that_waits_is_woken() -> None:
    loop = loop_of(native_loop())
    change = Change()
    change.tell()
    woken: list[str] = []

    async def wait(name: str, worker: Worker) -> None:
        change.await_by(worker, loop)
        await loop.park(worker)
        woken.append(name)

    earlier, later = Worker(), Worker()
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(wait, "earlier", earlier)
        await wait_idle()
        change.waiting = None
        change.tell()
        task_group.start_soon(wait, "later", later)
        await wait_idle()
        # The loop of the earlier run goes on, and its task gives up.
        change.forget(earlier)
        change.tell()
        change.tell()
        await wait_idle()
        assert woken == ["later"]
        assert change.waiting is later
        change.forget(later)
        change.tell()
        assert change.waiting is None
        task_group.cancel_scope.cancel()
