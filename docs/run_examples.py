"""
A pytest plugin: what README, pages and docstrings show is run on asyncio and on Trio.

In the examples ``anyio.run`` is on the backend under test and on a virtual clock, so they may sleep
as long as they like. Blocks of one document share their names and run in order. A Python block that
is not to be run stands below a ``<!-- skip: next -->`` comment.
"""

from collections.abc import Awaitable, Callable
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from sybil import Sybil
from sybil.parsers import myst, rest
from sybil.sybil import SybilCollection

from anythrottle.testing import virtual_backends

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ELLIPSIS | NORMALIZE_WHITESPACE


def run_on(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give ``anyio.run`` a backend and a virtual clock, where an example chooses neither."""
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    real_run = anyio.run
    virtual = {"backend": backend, "backend_options": dict(virtual_backends())[backend]}

    def run(func: Callable[..., Awaitable[T]], *args: object, **chosen: Any) -> T:
        return real_run(func, *args, **(chosen or virtual))

    monkeypatch.setattr(anyio, "run", run)


@pytest.fixture
def examples_on_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an example on asyncio."""
    run_on("asyncio", monkeypatch)


@pytest.fixture
def examples_on_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an example on Trio."""
    run_on("trio", monkeypatch)


def pages(backend: str) -> Sybil:
    """Find the Python blocks of Markdown files."""
    return Sybil(
        name=backend,
        parsers=[myst.PythonCodeBlockParser(doctest_optionflags=FLAGS), myst.SkipParser()],
        path=str(ROOT),
        pattern="*.md",
        fixtures=[f"examples_on_{backend}"],
    )


def docstrings(backend: str) -> Sybil:
    """Find the doctests of the package."""
    return Sybil(
        name=backend,
        parsers=[rest.DocTestParser(FLAGS), rest.SkipParser()],
        path=str(ROOT / "anythrottle"),
        pattern="*.py",
        fixtures=[f"examples_on_{backend}"],
    )


pytest_collect_file = SybilCollection(
    find(backend) for find in (pages, docstrings) for backend in ("asyncio", "trio")
).pytest()
