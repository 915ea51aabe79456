from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def seed_job() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return import_module("seed_job")


@pytest.fixture
def record(seed_job: ModuleType) -> Any:
    """What a run at the defaults leaves, when all goes well."""
    server = seed_job.LimitedServer(20, 2.0, most_in_flight=5)
    events = [("start", number) for number in range(31)]
    events += 3 * [("throttle", 30), ("start", 30)]
    events += [("start", number) for number in range(31, 61)]
    return seed_job.Record(server, events, list(range(61)), seconds=11.0)


def start(*options: str) -> subprocess.Popen[str]:
    """Start the program; it finds the library where these tests do."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / "seed_job.py"), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@both_backends
def test_all_is_well(backend: str) -> None:
    with start("--backend", backend, "--per-window", "40", "--window", "1") as process:
        output, errors = process.communicate(timeout=60)

    assert errors == ""
    assert output.endswith("all is well\n"), output
    assert process.returncode == 0
    assert "429s: 0" in output
    assert output.count("job 30 throttled; first starts after it: [30") == 3
    assert "first starts after it: [30, 31, 32, 33, 34]" in output
    assert "results consumed: 61 of 61" in output
    assert "failures: 0" in output


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process alone")
@both_backends
def test_ctrl_c_ends_it_and_lists_what_remained(backend: str) -> None:
    options = ("--backend", backend, "--per-window", "40", "--window", "0.3", "--forever")
    with start(*options) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        assert all(line.startswith("job 30: throttled") for line in lines), lines

        time.sleep(0.1)  # into the middle of the pause
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        output, errors = process.communicate(timeout=60)
        took = time.monotonic() - sent

    assert errors == ""
    assert output.endswith(f"interrupted; 31 jobs remain: {list(range(30, 61))}\n"), output
    assert process.returncode == 130
    assert took < 1


def test_nothing_is_wrong_with_a_good_record(seed_job: ModuleType, record: Any) -> None:
    assert seed_job.problems(record, seed_job.parse([])) == []


@pytest.mark.parametrize(
    ("doctored", "problem"),
    [
        ({"results": [*range(7), *range(8, 61)]}, "results are missing: [7]"),
        ({"results": [*range(61), 7]}, "results came more than once: [7]"),
        ({"seconds": 14.0}, "it took over 1.3 times the ideal: True"),
        (
            {"events": [("start", 0), ("start", 1), ("throttle", 0), ("start", 2), ("start", 0)]},
            "jobs started before one that was throttled: [2]",
        ),
    ],
)
def test_what_is_wrong_is_found(
    seed_job: ModuleType, record: Any, doctored: dict[str, object], problem: str
) -> None:
    for name, value in doctored.items():
        setattr(record, name, value)

    assert seed_job.problems(record, seed_job.parse([])) == [problem]


def test_too_many_in_flight_are_found(seed_job: ModuleType, record: Any) -> None:
    record.server.most_in_flight = 6

    found = seed_job.problems(record, seed_job.parse([]))

    assert found == ["too many requests were in flight: True"]


def test_the_status_tells_what_was_found(
    seed_job: ModuleType,
    record: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["seed_job.py"])
    monkeypatch.setattr(seed_job, "Record", lambda _: record)
    monkeypatch.setattr(seed_job.anyio, "run", lambda *_, **__: None)

    assert seed_job.main() == 0
    record.results.remove(7)
    assert seed_job.main() == 1
    assert capsys.readouterr().out.endswith("WRONG: results are missing: [7]\n")


def test_ideal(seed_job: ModuleType) -> None:
    # three pauses, then 31 requests at once, and the consumer takes 0.02 s for each
    options = seed_job.parse(["--per-window", "100", "--window", "1", "--concurrency", "50"])
    assert seed_job.ideal_seconds(options) == pytest.approx(3 + 0.05 + 31 * 0.02)

    # the 21st starts in the 2nd window; three pauses; of 31 more, 11 start one window later
    # (three rounds of five at a time, the last of one) and the consumer is behind by the last round
    options = seed_job.parse([])
    assert seed_job.ideal_seconds(options) == pytest.approx(2 + 0.05 + 3 * 2 + 2 + 0.05 + 0.27)


def test_server_counts_by_its_own_clock(seed_job: ModuleType) -> None:
    server = seed_job.LimitedServer(2, 10.0)

    answers = [server.refuse(now) for now in (0.0, 1.0, 8.5, 9.5, 10.0, 10.5, 11.0)]

    assert answers == [0, 0, 2, 1, 0, 1, 0]
    assert server.allowed == [0.0, 1.0, 10.0, 11.0]
    assert server.refused == 3
