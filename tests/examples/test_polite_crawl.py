from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def polite_crawl() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return import_module("polite_crawl")


@both_backends
def test_a_site_that_refuses_beyond_its_limit_refuses_nothing(backend: str) -> None:
    options = ("--pages", "14", "--limit", "6", "--window", "0.4", "--concurrency", "3")
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "error", str(EXAMPLES / "polite_crawl.py")),
            *("--backend", backend, *options),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *sys.path])},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.stderr == ""
    assert "pages: 14 of 14" in ended.stdout
    assert "429s: 0\n" in ended.stdout
    assert ended.stdout.endswith("all is well\n"), ended.stdout
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("instants", "most"),
    [([], 0), ([1.0], 1), ([0.0, 1.9, 2.0, 3.9], 2), ([0.0, 1.0, 1.5, 1.9, 2.5], 4)],
)
def test_what_any_window_holds(polite_crawl: ModuleType, instants: list[float], most: int) -> None:
    assert polite_crawl.most_in_a_window(instants, 2.0) == most


def test_what_is_wrong_is_found(polite_crawl: ModuleType) -> None:
    options = polite_crawl.parse(["--limit", "2", "--concurrency", "5"])
    site = polite_crawl.Site(2, 2.0, pages=3)
    found = polite_crawl.Found(pages={"/0": 1, "/1": 1, "/2": 1})
    site.allowed = [0.0, 1.0, 2.0]
    assert polite_crawl.report(options, site, found) == []

    site.allowed = [0.0, 1.0, 1.5, 4.0]
    site.refused, site.most_in_flight = 1, 6
    found.failures["/2"] = "lost"
    del found.pages["/2"]
    assert len(polite_crawl.report(options, site, found)) == 5
