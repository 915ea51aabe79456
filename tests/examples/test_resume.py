from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ITEMS = 10
CONCURRENCY = 2

#: How many jobs may have been called and not saved: those that run, those whose results wait for
#: the consumer, and the one that it saves.
UNDER_WAY = 2 * CONCURRENCY

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def resume() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return import_module("resume")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "todo.db"


#: The program, which when asked says as soon as all of its tasks wait: so Ctrl-C comes at a known
#: moment. It goes on waking up, since asyncio may sleep through a signal that comes just before.
SAYS_WHEN_IDLE = """
import anyio, anyio.to_thread, resume, sys

run = resume.run

async def run_and_say(options):
    async def say():
        await anyio.to_thread.run_sync(sys.stdin.readline)
        await anyio.wait_all_tasks_blocked()
        print("idle", flush=True)
        while True:
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(say)
        await run(options)

resume.run = run_and_say
sys.exit(resume.main())
"""


@contextmanager
def start(
    path: Path, *options: str, program: tuple[str, ...] = (str(EXAMPLES / "resume.py"),)
) -> Iterator[subprocess.Popen[str]]:
    """Start the program, which finds the library where these tests do, and wait for its end."""
    sizes = ("--items", str(ITEMS), "--concurrency", str(CONCURRENCY))
    speed = ("--limit", "100/100ms", "--seconds", "0.02")
    with subprocess.Popen(
        [sys.executable, "-W", "error", *program, str(path), *sizes, *speed, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def finish(path: Path, *options: str) -> tuple[str, int]:
    """Run the program to its end, and return what it prints, and its status."""
    with start(path, *options) as process:
        output, errors = process.communicate()

    assert errors == ""
    return output, process.returncode


def read_until(process: subprocess.Popen[str], text: str, times: int) -> str:
    """Return what the program prints, up to the line that has ``text`` for so many times."""
    assert process.stdout is not None
    lines = []
    while times:
        lines.append(process.stdout.readline())
        assert lines[-1], "the program has ended"
        times -= text in lines[-1]

    return "".join(lines)


def called(output: str) -> list[int]:
    return [int(number) for number in re.findall(r"calling item (\d+)", output)]


def saved(output: str) -> list[int]:
    return [int(number) for number in re.findall(r"saved (\d+)", output)]


def rows(path: Path) -> dict[int, tuple[str, str | None]]:
    """Return state and result of each row, and see to it that each item has exactly one."""
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT number, item, state, result FROM jobs").fetchall()

    assert [(number, item) for number, item, _, _ in found] == [
        (number, f"item {number}") for number in range(1, ITEMS + 1)
    ]
    return {number: (state, result) for number, _, state, result in found}


def in_state(path: Path, state: str) -> list[int]:
    return [number for number, row in rows(path).items() if row[0] == state]


def counts(path: Path) -> str:
    """Return the line that the program ends with."""
    states = ("todo", "done", "failed")
    return ", ".join(f"{state}: {len(in_state(path, state))}" for state in states) + "\n"


def assert_all_done(path: Path) -> None:
    expected = {number: ("done", f"ITEM {number}") for number in range(1, ITEMS + 1)}
    expected[7] = ("failed", "LookupError('no such item')")
    assert rows(path) == expected


@both_backends
def test_a_second_process_does_what_the_first_has_left(backend: str, path: Path) -> None:
    first, status = finish(path, "--backend", backend, "--stop-after", "3")
    assert status == 1
    done = saved(first)
    assert 3 <= len(done) < ITEMS
    # a clean stop: nothing was begun in vain
    assert sorted(called(first)) == sorted(done)
    left = in_state(path, "todo")
    assert sorted([*done, *left]) == list(rows(path))
    assert first.endswith(counts(path))

    second, status = finish(path, "--backend", backend)
    assert status == 0
    assert sorted(called(second)) == sorted(saved(second)) == left
    assert second.endswith(counts(path))
    assert_all_done(path)


def test_a_third_process_finds_nothing_to_do(path: Path) -> None:
    finish(path)
    output, status = finish(path)
    assert status == 0
    assert output == counts(path)
    assert_all_done(path)


@both_backends
def test_jobs_start_in_order_in_each_process(backend: str, path: Path) -> None:
    # one at a time: of two that are let go together, Trio may run the later one first
    options = ("--backend", backend, "--concurrency", "1")
    first, _ = finish(path, *options, "--stop-after", "4")
    second, _ = finish(path, *options)
    assert called(first) + called(second) == list(range(1, ITEMS + 1))


@pytest.mark.parametrize("cut", [("calling", 1), ("saved", 1), ("saved", 6)])
def test_what_was_saved_stays_if_the_process_is_killed(cut: tuple[str, int], path: Path) -> None:
    with start(path) as process:
        first = read_until(process, *cut)
        process.kill()
        assert process.stdout is not None
        first += process.stdout.read()

    before = in_state(path, "done") + in_state(path, "failed")
    # it may die between the commit and the line that tells of it
    assert set(saved(first)) <= set(before) <= set(called(first))

    second, status = finish(path)
    assert status == 0
    assert not set(before) & set(called(second))
    repeated = set(called(first)) & set(called(second))
    assert repeated == set(called(first)) - set(before)
    assert len(repeated) <= UNDER_WAY
    assert_all_done(path)


def test_it_gets_there_even_if_each_process_is_killed(path: Path) -> None:
    output, killed, left = "", 0, ITEMS
    while left:
        # it may die too late, but does not do all of it before
        with start(path, "--stop-after", "5") as process:
            output += read_until(process, "saved", min(left, 3))
            process.kill()
            assert process.stdout is not None
            output += process.stdout.read()

        left = len(in_state(path, "todo"))
        killed += 1
        assert killed <= ITEMS

    assert killed > 1
    assert max(Counter(saved(output)).values()) == 1
    assert_all_done(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process alone")
@both_backends
@pytest.mark.parametrize(
    ("options", "cut"),
    [(("--seconds", "3600"), ("calling", CONCURRENCY)), (("--limit", "3/h"), ("saved", 3))],
    ids=["in the middle of a call", "between calls"],
)
def test_ctrl_c_leaves_the_rest_todo(
    backend: str, options: tuple[str, ...], cut: tuple[str, int], path: Path
) -> None:
    program = ("-c", SAYS_WHEN_IDLE)
    with start(path, "--backend", backend, *options, program=program) as process:
        first = read_until(process, *cut)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        read_until(process, "idle", 1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()

    assert errors == ""
    assert process.returncode == 130
    assert output == "interrupted; the rest is still todo\n"
    assert sorted(saved(first)) == in_state(path, "done")
    assert len(in_state(path, "todo")) == ITEMS - len(saved(first))
    assert finish(path)[1] == 0
    assert_all_done(path)


class TestTodoList:
    def test_a_list_is_made_once(self, resume: ModuleType, path: Path) -> None:
        todo_list = resume.TodoList(str(path))
        assert todo_list.create(["a", "b"])
        assert not todo_list.create(["c"])
        assert todo_list.todo() == [(1, "a"), (2, "b")]

    def test_a_list_is_made_whole_or_not_at_all(self, resume: ModuleType, path: Path) -> None:
        todo_list = resume.TodoList(str(path))
        with pytest.raises(sqlite3.IntegrityError):
            todo_list.create(["a", None])

        assert todo_list.create(["b"])
        assert todo_list.todo() == [(1, "b")]

    def test_what_is_saved_first_counts(self, resume: ModuleType, path: Path) -> None:
        todo_list = resume.TodoList(str(path))
        todo_list.create(["a", "b"])
        todo_list.save(resume.Row(1, "done", "first"))
        todo_list.save(resume.Row(1, "failed", "second"))
        with closing(sqlite3.connect(path)) as database:
            found = database.execute("SELECT state, result FROM jobs").fetchall()

        assert found == [("done", "first"), ("todo", None)]
        assert todo_list.counts() == {"todo": 1, "done": 1, "failed": 0}
