from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PROMPTS = [f"prompt {number} " + "word " * (number % 9) for number in range(40)]

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    return str(prompts), str(tmp_path / "answers.db")


@contextmanager
def start(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the program, and wait for its end."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / "llm_batch.py"), *arguments],
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


def answers(path: str) -> list[tuple[str, str | None]]:
    """Return the state and the answer of each prompt, in order."""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
            return []

        rows = database.execute("SELECT item, state, result FROM jobs ORDER BY number").fetchall()

    assert [item for item, *_ in rows] == PROMPTS
    return [(state, result) for _, state, result in rows]


def done(path: str) -> int:
    return sum(state == "done" for state, _ in answers(path))


@both_backends
def test_killed_and_resumed_nothing_is_lost_or_doubled_or_refused(
    backend: str, files: tuple[str, str]
) -> None:
    limits = ("--requests", "20", "--tokens", "1200", "--window", "0.5", "--backend", backend)
    with start("--serve", *limits) as model:
        assert model.stdout is not None
        url = model.stdout.readline().strip()
        # by a limit of its own it cannot come to the end
        slow = ("--requests", "10", "--tokens", "1200", "--window", "3600", "--concurrency", "4")
        with start(*files, "--url", url, *slow, "--backend", backend) as first:
            while done(files[1]) < 10:
                assert first.poll() is None
                time.sleep(0.01)

            first.kill()

        with start(*files, "--url", url, *limits) as second:
            output, errors = second.communicate()

        assert errors == ""
        assert output == "todo: 0, done: 40, failed: 0\n"
        assert second.returncode == 0
        counted, errors = model.communicate()

    assert errors == ""
    served = json.loads(counted)
    assert served["refused"] == 0
    assert len(served["counted"]) == 40
    assert answers(files[1]) == [("done", prompt.upper()) for prompt in PROMPTS]


def test_it_serves_a_model_of_its_own(files: tuple[str, str]) -> None:
    with start(*files, "--tokens", "2000", "--window", "0.5") as process:
        output, errors = process.communicate()

    assert errors == ""
    assert output.startswith("429s: 0; tokens: ")
    assert output.endswith("todo: 0, done: 40, failed: 0\n")


def test_the_model_refuses_beyond_either_limit() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        model = import_module("llm_batch").Model(requests=3, tokens=10, window=2.0)

    assert [model.refuse(now, 4) for now in (0.0, 0.5, 0.6, 2.0)] == [0, 0, 2, 0]
    assert [model.refuse(now, 1) for now in (2.1, 2.2)] == [0, 1]
    assert model.refused == 2
