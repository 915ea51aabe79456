"""A connection is alive as long as it delivers answers, whoever is cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from anythrottle.stores.redis_link import Link
from anythrottle.stores.turnstile import Turnstile
from anythrottle.testing import wait_idle

pytestmark = pytest.mark.timing


class Answer:
    """An answer that is to come."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.error: Exception | None = None

    @property
    def complete(self) -> bool:
        return self._event.is_set()

    def come(self, error: Exception | None = None) -> None:
        self.error = error
        self._event.set()

    def __await__(self) -> Generator[Any, Any, object]:
        return self._wait().__await__()

    async def _wait(self) -> object:
        if not self._event.is_set():
            await self._event.wait()

        if self.error is not None:
            raise self.error

        return "answer"


class Connection:
    """A connection that answers when it is told to."""

    def __init__(self) -> None:
        self.usable = True
        self.answers: list[Answer] = []

    def ask(self) -> Answer:
        self.answers.append(Answer())
        return self.answers[-1]

    def invalidate(self) -> None:
        self.usable = False
        for answer in self.answers:
            if not answer.complete:
                answer.come(ConnectionError("lost"))


class World:
    """A link for 1 s of silence, and what those who use it have seen."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.connection = Connection()
        self.turnstile = Turnstile(1)
        self.link = Link(self.connection, tasks, self.turnstile, 1.0)
        self.seen: list[tuple[float, object]] = []
        self.began = anyio.current_time()

    async def ask(self, patience: float = 100.0) -> None:
        with anyio.move_on_after(patience) as scope:
            try:
                self.see(await self.link.answer(self.connection.ask()))
            except Exception as error:  # noqa: BLE001 - whatever it is
                self.see(repr(error))

        if scope.cancelled_caught:
            self.see("cancelled")

    def see(self, what: object) -> None:
        self.seen.append((round(anyio.current_time() - self.began, 2), what))

    async def begin(self, patience: float = 100.0) -> None:
        self.tasks.start_soon(self.ask, patience)
        await wait_idle()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with anyio.create_task_group() as tasks:
        yield World(tasks)
        tasks.cancel_scope.cancel()


async def test_an_answer() -> None:
    async with world() as it:
        await it.begin()
        await anyio.sleep(0.5)
        it.connection.answers[0].come()
        await wait_idle()
        assert it.seen == [(0.5, "answer")]


async def test_an_error_of_the_server() -> None:
    async with world() as it:
        await it.begin()
        it.connection.answers[0].come(ValueError("wrong"))
        await wait_idle()
        assert it.seen == [(0.0, "ValueError('wrong')")]
        await anyio.sleep(5)
        assert it.connection.usable


async def test_silence_breaks_it_for_all() -> None:
    async with world() as it:
        await it.begin()
        await anyio.sleep(0.5)
        await it.begin()
        await anyio.sleep(5)
        assert it.seen == [(1.0, "FallenSilent('no answer within 1 s')")] * 2
        assert not it.connection.usable


async def test_answers_keep_it_alive() -> None:
    async with world() as it:
        for _ in range(5):
            await it.begin()

        for answer in it.connection.answers:
            await anyio.sleep(0.9)
            answer.come()

        await wait_idle()
        assert [what for _, what in it.seen] == ["answer"] * 5
        assert it.connection.usable


async def test_it_may_be_silent_if_it_owes_nothing() -> None:
    async with world() as it:
        await it.begin()
        it.connection.answers[0].come()
        await anyio.sleep(5)
        await it.begin()
        await anyio.sleep(0.9)
        it.connection.answers[1].come()
        await wait_idle()
        assert it.seen == [(0.0, "answer"), (5.9, "answer")]


async def test_who_is_cancelled_leaves_it_to_others() -> None:
    async with world() as it:
        await it.begin(0.2)
        await it.begin()
        await anyio.sleep(0.5)
        assert it.seen == [(0.2, "cancelled")]
        for answer in it.connection.answers:
            answer.come()

        await wait_idle()
        assert it.seen[1:] == [(0.5, "answer")]


async def test_what_is_given_up_takes_a_place_until_it_is_answered() -> None:
    async with world() as it:
        await it.begin(0.2)
        await anyio.sleep(0.5)
        with anyio.move_on_after(0.1) as scope:
            await it.turnstile.enter(known=True)

        assert scope.cancelled_caught
        it.connection.answers[0].come()
        await wait_idle()
        with anyio.fail_after(0):
            await it.turnstile.enter(known=True)


async def test_its_watch_ends_when_another_one_takes_its_place() -> None:
    async with anyio.create_task_group() as tasks:
        it = World(tasks)
        await it.begin()
        it.connection.answers[0].come()
        await anyio.sleep(2)
        it.connection.invalidate()
        it.link.close()
        with anyio.fail_after(0.1):
            await wait_idle()

    # Which does not end before the watch does.
    assert it.seen == [(0.0, "answer")]


async def test_what_is_given_up_may_show_that_it_is_dead() -> None:
    async with world() as it:
        await it.begin(0.2)
        await anyio.sleep(0.9)
        assert it.connection.usable
        await anyio.sleep(0.2)
        assert not it.connection.usable
        with anyio.fail_after(0):
            await it.turnstile.enter(known=True)


async def test_an_answer_that_is_there_when_a_deadline_is_noticed_counts() -> None:
    async with world() as it:
        await it.begin(0.2)
        await anyio.sleep(0.2)
        it.connection.answers[0].come()
        await wait_idle()
        assert [what for _, what in it.seen] == ["answer"]


async def test_a_busy_process_gets_the_time_that_it_has_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as it:
        await it.begin(1.0)
        await it.begin()
        late = Link._late
        # As if the loop had stood still for 0.4 s when the second was over.
        monkeypatch.setattr(Link, "_late", lambda self, since: late(self, since) + 0.4)
        await anyio.sleep(1.3)
        for answer in it.connection.answers:
            answer.come()

        await anyio.sleep(0.2)
        assert it.seen == [(1.3, "answer"), (1.4, "answer")]


async def test_it_gets_no_more_time_than_a_server_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as it:
        await it.begin(1.0)
        await it.begin()
        late = Link._late
        monkeypatch.setattr(Link, "_late", lambda self, since: late(self, since) + 30)
        await anyio.sleep(5)
        assert len(it.seen) == 2
        assert all(at <= 2.1 for at, _ in it.seen)
        assert not it.connection.usable
