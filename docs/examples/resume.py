"""
A todo list that outlives the process: cut it off anywhere, and start it again.

The list is a table of a SQLite database, with one row for each job. A row is todo, done or failed,
and changes once: in the transaction that stores the result. A job that was cut off before that is
still todo, and the next process does it again.

Status 0 means that nothing is left to do, 1 that something is. Ctrl-C ends it (status 130).
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import anyio
import anyio.to_thread

from anythrottle import RateLimiter, Throttler

SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    item TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'todo' CHECK (state IN ('todo', 'done', 'failed')),
    result TEXT
)
"""


@dataclass(frozen=True)
class Row:
    """What becomes of a row: its new state, and the answer or the error."""

    number: int
    state: str
    result: str


@dataclass(frozen=True)
class TodoList:
    """
    The table.

    Its methods block, so call them in worker threads. Each opens a connection of its own and makes
    one transaction, so it does not matter in which thread, nor when the process dies.
    """

    path: str

    def create(self, items: Iterable[str]) -> bool:
        """Make the table with a row for each item, unless there is one; tell if it is new."""
        with closing(self._connect()) as database, database:
            # nobody else comes in between, and a process that dies here leaves no table at all
            database.execute("BEGIN IMMEDIATE")
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
                return False

            database.execute(SCHEMA)
            database.executemany("INSERT INTO jobs (item) VALUES (?)", [(item,) for item in items])
            return True

    def todo(self) -> list[tuple[int, str]]:
        """Return the number and the item of each row that is todo, in order."""
        query = "SELECT number, item FROM jobs WHERE state = 'todo' ORDER BY number"
        with closing(self._connect()) as database:
            return database.execute(query).fetchall()

    def save(self, row: Row) -> None:
        """Store a result; if that has been done before, change nothing."""
        update = "UPDATE jobs SET state = ?, result = ? WHERE number = ? AND state = 'todo'"
        with closing(self._connect()) as database, database:
            database.execute(update, (row.state, row.result, row.number))

    def counts(self) -> dict[str, int]:
        """Return how many rows are in each state."""
        query = "SELECT state, count(*) FROM jobs GROUP BY state"
        with closing(self._connect()) as database:
            return {"todo": 0, "done": 0, "failed": 0, **dict(database.execute(query))}

    def _connect(self) -> sqlite3.Connection:
        # another process that writes is waited for
        return sqlite3.connect(self.path, timeout=30)


async def call(item: str, seconds: float) -> str:
    """Stand for the call to a service."""
    print(f"calling {item}", flush=True)
    await anyio.sleep(seconds)
    if item == "item 7":
        raise LookupError("no such item")

    return item.upper()


@dataclass(frozen=True)
class Job:
    """One row that is to be done; raise ThrottleException in it where the service says 429."""

    number: int
    item: str
    seconds: float

    async def __call__(self) -> Row:
        """Make the call; an error that would only come again is a result, too."""
        try:
            return Row(self.number, "done", await call(self.item, self.seconds))
        except LookupError as exc:
            return Row(self.number, "failed", repr(exc))


async def run(options: argparse.Namespace) -> int:
    """Do what is todo, and return how much is left."""
    todo_list = TodoList(options.path)
    items = [f"item {number}" for number in range(1, options.items + 1)]
    limiter = RateLimiter(options.limit)
    if not await anyio.to_thread.run_sync(todo_list.create, items):
        # the service may still count the calls of the process before, those under way included:
        # wait for one window, and as long as a call takes
        limiter.pause(limiter.policies[0].window + options.seconds)

    todo = await anyio.to_thread.run_sync(todo_list.todo)
    saved = 0

    async def save(row: Row) -> None:
        nonlocal saved
        await anyio.to_thread.run_sync(todo_list.save, row)
        print(f"saved {row.number}", flush=True)
        saved += 1
        if saved == options.stop_after:
            throttler.stop()

    jobs = [Job(number, item, options.seconds) for number, item in todo]
    throttler = Throttler(jobs, save, limiter=limiter, concurrency=options.concurrency)
    await throttler.run()
    async for failure in throttler.exceptions:
        # a defect of this program's, most likely: the row is still todo
        print(f"not done: {failure.item}: {failure.error!r}")

    counts = await anyio.to_thread.run_sync(todo_list.counts)
    print(", ".join(f"{state}: {count}" for state, count in counts.items()))
    return counts["todo"]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", help="the database; it is made if it is missing")
    parser.add_argument("--items", type=int, default=20, help="in a new list (%(default)s)")
    parser.add_argument("--stop-after", type=int, metavar="N", help="stop when N are saved")
    parser.add_argument("--limit", default="10/s end", help="rate of calls (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=3, help="at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.2, help="for a call (%(default)s)")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    return parser.parse_args()


def main() -> int:
    """Run, and return the exit status."""
    options = parse()
    status = 130
    try:
        status = 1 if anyio.run(run, options, backend=options.backend) else 0
    except* KeyboardInterrupt:  # Trio's comes in a group
        print("interrupted; the rest is still todo")

    return status


if __name__ == "__main__":
    sys.exit(main())
