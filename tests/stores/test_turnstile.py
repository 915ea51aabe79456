"""So many exchanges are under way at once, and the next one begins when one is over."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio
import pytest
from anyio.abc import TaskGroup, TaskStatus
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.stores.turnstile import Turnstile
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.properties import examples

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


class Reference:
    """A turnstile as it is to be: two lines that take turns, and a list of who is inside."""

    def __init__(self, places: int) -> None:
        self.free = places
        self.lines: dict[str, deque[str]] = {"n": deque(), "k": deque()}
        self.last = "n"
        self.inside: list[str] = []
        self.entered: list[str] = []
        self.errors: list[str] = []

    def come(self, name: str) -> None:
        if self.free > 0:
            self.enter(name)
        else:
            self.lines[name[0]].append(name)

    def enter(self, name: str) -> None:
        self.free -= 1
        self.inside.append(name)
        self.entered.append(name)

    def leave(self, *, but: str = "") -> None:
        """Free a place; one in line, if any is named, has been cancelled in the same step."""
        self.free += 1
        self.admit(but=but)
        if but in self.inside:
            self.inside.remove(but)
            self.entered.remove(but)
            self.free += 1
            self.admit()
        elif but:
            self.lines[but[0]].remove(but)

    def admit(self, *, but: str = "") -> None:
        while self.free > 0 and (self.lines["n"] or self.lines["k"]):
            other = "k" if self.last == "n" else "n"
            self.last = other if self.lines[other] else self.last
            name = self.lines[self.last].popleft()
            self.enter(name)
            if name == but:
                # It finds out only later, and then leaves.
                return

    def refuse(self) -> None:
        for line in self.lines.values():
            self.errors += [f"{name}: broken" for name in line]
            line.clear()


class Course:
    """The same course of events at a turnstile and at its reference."""

    def __init__(self, places: int, tasks: TaskGroup) -> None:
        self.turnstile = Turnstile(places)
        self.visits = Visits(self.turnstile)
        self.reference = Reference(places)
        self.occupied = 0
        self.scopes: dict[str, anyio.CancelScope] = {}
        self.tasks = tasks

    async def go(self, number: int, act: str, pick: int) -> None:
        waiting = [*self.reference.lines["n"], *self.reference.lines["k"]]
        chosen = waiting[pick % len(waiting)] if waiting else ""
        if act in {"n", "k"}:
            name = f"{act}{number}"
            self.scopes[name] = await self.tasks.start(self.visits.come, name)
            self.reference.come(name)
        elif act == "occupy":
            self.turnstile.occupy()
            self.reference.free -= 1
            self.occupied += 1
        elif act == "refuse":
            self.turnstile.refuse(ConnectionError("broken"), 0.0)
            self.reference.refuse()
        elif act == "cancel" and chosen:
            self.scopes[chosen].cancel()
            self.reference.lines[chosen[0]].remove(chosen)
        elif self.occupied or self.reference.inside:
            if act == "cancel and leave" and chosen:
                self.scopes[chosen].cancel()

            if self.occupied:
                self.occupied -= 1
            else:
                self.reference.inside.pop(0)

            self.turnstile.leave()
            self.reference.leave(but=chosen if act == "cancel and leave" else "")

        await wait_idle()


acts = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("n", "n", "n", "k", "k", "leave", "leave", "cancel", "cancel and leave"),
                *("occupy", "refuse"),
            ]
        ),
        st.integers(0, 5),
    ),
    max_size=25,
)


@examples(150)
@given(st.integers(1, 3), acts)
def test_is_as_its_reference(run: Run, places: int, script: list[tuple[str, int]]) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            course = Course(places, tasks)
            for number, (act, pick) in enumerate(script):
                await course.go(number, act, pick)
                assert course.visits.entered == course.reference.entered
                assert sorted(course.visits.errors) == sorted(course.reference.errors)

            # No place is lost, or there twice.
            while course.occupied or course.reference.inside:
                await course.go(0, "leave", 0)

            for number in range(places + 1):
                await course.go(len(script) + number, "n", 0)

            assert len(course.reference.inside) == places
            assert course.visits.entered == course.reference.entered
            tasks.cancel_scope.cancel()

    run(main)
