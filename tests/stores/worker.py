"""
A process that takes turns of a shared limiter, and tells when calls start: one JSON line each.

Its argument is a JSON object: the fields of :class:`Task`. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import anyio
from anyio import get_current_task, get_running_tasks, to_thread

from anythrottle import StoreError
from anythrottle.abc import Event
from anythrottle.stores.redis import RedisRateLimiter, RedisStore

__all__ = ("Task",)


@dataclass
class Task:
    """
    What a process does.

    :ivar url: where the server is
    :ivar backend: the event loop it runs on
    :ivar names: limiters: the waiters are divided among them
    :ivar policies: of each of them
    :ivar waiters: how many tasks take turns, again and again
    :ivar concurrency: of each limiter
    :ivar lease_timeout: of each limiter
    :ivar read_ahead: of each limiter
    :ivar hold: how long calls last, in seconds
    :ivar patience: after how many seconds a call is cancelled, one of these; none for never
    :ivar pause: for how many seconds a limiter is paused now and then; 0 for never
    :ivar deadline: of the store
    :ivar seed: of what is random

    """

    url: str
    backend: str = "asyncio"
    names: tuple[str, ...] = ("api",)
    policies: tuple[str, ...] = ()
    waiters: int = 10
    concurrency: int | None = None
    lease_timeout: float = 30.0
    read_ahead: int | None = None
    hold: float = 0.0
    patience: tuple[float, ...] = ()
    pause: float = 0.0
    deadline: float = 1.0
    seed: int = 0


def say(**words: object) -> None:
    """Write a line, at once and in one piece."""
    os.write(1, json.dumps(words).encode() + b"\n")


class Worker:
    """Takes turns."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.random = random.Random(task.seed)  # noqa: S311 - of what happens
        #: When each task's call was about to start: the limiter looks once more after that.
        self.granted: dict[int, int] = {}
        self.calls = 0
        self.store = RedisStore(task.url, deadline=task.deadline)
        self.limiters = [
            self.store.limiter(
                name,
                *task.policies,
                concurrency=task.concurrency,
                lease_timeout=task.lease_timeout,
                read_ahead=task.read_ahead,
                observer=self.note,
            )
            for name in task.names
        ]

    def note(self, event: Event) -> None:
        """Note the instant of an event, before the call starts."""
        if type(event).__name__ == "Granted":
            self.granted[get_current_task().id] = time.time_ns()

    async def call(self, limiter: RedisRateLimiter) -> None:
        """Take one turn."""
        async with limiter.permit():
            after = time.time_ns()
            before = self.granted.pop(get_current_task().id)
            self.calls += 1
            number = self.calls
            say(start=limiter.name, at=before // 1000, by=after // 1000, call=number)
            if self.task.hold:
                await anyio.sleep(self.task.hold)

            if self.task.concurrency is not None:
                say(end=limiter.name, at=time.time_ns() // 1000, call=number)

    async def take(self, limiter: RedisRateLimiter) -> None:
        """Take turn after turn, whatever the store does."""
        while True:
            patience = self.random.choice(self.task.patience or (inf,))
            try:
                with anyio.move_on_after(patience):
                    await self.call(limiter)
            except StoreError as error:
                say(error=type(error).__name__)
                await anyio.sleep(0.01)

    async def pauses(self) -> None:
        """Pause a limiter now and then."""
        while True:
            await anyio.sleep(self.random.uniform(5, 15) * self.task.pause)
            limiter = self.random.choice(self.limiters)
            limiter.pause(self.task.pause)
            if self.random.random() < 0.3:
                await anyio.sleep(self.task.pause / 3)
                limiter.resume()

    async def run(self) -> None:
        """Take turns until the standard input ends."""
        async with self.store, anyio.create_task_group() as tasks:
            for number in range(self.task.waiters):
                limiter = self.limiters[number % len(self.limiters)]
                tasks.start_soon(self.take, limiter)

            if self.task.pause:
                tasks.start_soon(self.pauses)

            say(ready=os.getpid())
            read = partial(to_thread.run_sync, sys.stdin.readline, abandon_on_cancel=True)
            while command := (await read()).strip():
                if command == "state":
                    self.say_state()

            tasks.cancel_scope.cancel()

        say(left=True)

    def say_state(self) -> None:
        """Tell what might grow."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        state = self.store.statistics()
        say(
            memory=pages * os.sysconf("SC_PAGE_SIZE"),
            files=files,
            tasks=len(get_running_tasks()),
            exchanges=state.exchanges,
            failures=state.failures,
        )


def main() -> None:
    """Run until the standard input ends."""
    task = Task(**json.loads(sys.argv[1]))
    anyio.run(Worker(task).run, backend=task.backend)


if __name__ == "__main__":
    main()
