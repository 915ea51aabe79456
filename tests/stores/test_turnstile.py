"""So many exchanges are under way at once, and the next one begins when one is over."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from anyio.abc import TaskStatus

from anythrottle.stores.turnstile import Turnstile
from anythrottle.testing import wait_idle

pytestmark = pytest.mark.timing


class Visits:
    """Those who have entered a turnstile, in order."""

    def __init__(self, turnstile: Turnstile) -> None:
        self.turnstile = turnstile
        self.entered: list[str] = []
        self.errors: list[str] = []

    async def come(
        self, name: str, *, task_status: TaskStatus[anyio.CancelScope] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Enter by a name, which begins with "k" if the limiter is known."""
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            error = await self.turnstile.enter(known=name.startswith("k"))
            if error is None:
                self.entered.append(name)
            else:
                self.errors.append(f"{name}: {error}")


async def entered(names: Sequence[str], leaves: int) -> list[str]:
    """Return who enters a turnstile of one place when it is left so often."""
    visits = Visits(Turnstile(1))
    async with anyio.create_task_group() as tasks:
        for name in names:
            await tasks.start(visits.come, name)
            await wait_idle()

        for _ in range(leaves):
            visits.turnstile.leave()
            await wait_idle()

        tasks.cancel_scope.cancel()

    return visits.entered


async def test_enters_at_once_while_there_is_room() -> None:
    turnstile = Turnstile(2)
    with anyio.fail_after(0):
        assert await turnstile.enter(known=False) is None
        assert await turnstile.enter(known=False) is None


async def test_the_rest_go_one_after_the_other() -> None:
    assert await entered(["n1", "n2", "n3", "n4"], 2) == ["n1", "n2", "n3"]


async def test_those_who_are_known_do_not_stand_behind_all_who_are_new() -> None:
    names = ["n1", "n2", "n3", "n4", "k1", "k2", "k3"]
    assert await entered(names, 6) == ["n1", "k1", "n2", "k2", "n3", "k3", "n4"]


async def test_what_goes_on_takes_a_place() -> None:
    turnstile = Turnstile(1)
    visits = Visits(turnstile)
    turnstile.occupy()
    turnstile.occupy()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visits.come, "n1")
        await wait_idle()
        turnstile.leave()
        await wait_idle()
        assert not visits.entered
        turnstile.leave()

    assert visits.entered == ["n1"]


async def test_who_is_cancelled_in_line_leaves_it() -> None:
    turnstile = Turnstile(1)
    visits = Visits(turnstile)
    async with anyio.create_task_group() as tasks:
        await tasks.start(visits.come, "n1")
        scope = await tasks.start(visits.come, "n2")
        await tasks.start(visits.come, "n3")
        await wait_idle()
        scope.cancel()
        await wait_idle()
        turnstile.leave()

    assert visits.entered == ["n1", "n3"]


async def test_who_is_cancelled_as_he_is_let_in_leaves_his_place_to_the_next() -> None:
    turnstile = Turnstile(1)
    visits = Visits(turnstile)
    async with anyio.create_task_group() as tasks:
        await tasks.start(visits.come, "n1")
        scope = await tasks.start(visits.come, "n2")
        await tasks.start(visits.come, "n3")
        await wait_idle()
        scope.cancel()
        turnstile.leave()

    assert visits.entered[-1] == "n3"


async def test_who_is_cancelled_as_he_is_refused_takes_nothing_along() -> None:
    turnstile = Turnstile(1)
    visits = Visits(turnstile)
    async with anyio.create_task_group() as tasks:
        await tasks.start(visits.come, "n1")
        scope = await tasks.start(visits.come, "n2")
        await wait_idle()
        scope.cancel()
        turnstile.refuse(ConnectionError("broken"), 0.0)
        await wait_idle()
        turnstile.leave()
        await visits.come("n3")

    assert visits.entered == ["n1", "n3"]


async def test_all_in_line_are_told_that_nobody_answers() -> None:
    turnstile = Turnstile(1)
    visits = Visits(turnstile)
    async with anyio.create_task_group() as tasks:
        for name in ("n1", "n2", "k1"):
            await tasks.start(visits.come, name)

        await wait_idle()
        turnstile.refuse(ConnectionError("broken"), 0.0)

    assert visits.entered == ["n1"]
    assert sorted(visits.errors) == ["k1: broken", "n2: broken"]


async def test_those_in_line_go_on_waiting_if_others_are_answered() -> None:
    turnstile = Turnstile(1)
    visits = Visits(turnstile)
    async with anyio.create_task_group() as tasks:
        await tasks.start(visits.come, "n1")
        await tasks.start(visits.come, "n2")
        await wait_idle()
        turnstile.heard_at = 5.0
        turnstile.refuse(ConnectionError("broken"), 5.0)
        await wait_idle()
        assert not visits.errors
        turnstile.leave()

    assert visits.entered == ["n1", "n2"]
