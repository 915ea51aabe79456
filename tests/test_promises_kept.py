"""Each promise of docs/explanation/promises.md has a test of its mark, on asyncio and on Trio."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest

TESTS = Path(__file__).parent

PAGE = TESTS.parent / "docs" / "explanation" / "promises.md"

PROMISES: dict[str, str] = dict(
    re.findall(r"^\| \*\*(\w+)\*\* \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Kept(NamedTuple):
    """A test that is marked with a promise."""

    promise: str
    test: str
    #: Whether it runs on both backends: what tests/conftest.py does with async tests, and `run`.
    on_both: bool


def marks_of(nodes: Sequence[ast.expr], name: str) -> Iterator[list[object]]:
    """Return the arguments of all marks of a name, as far as they are literals."""
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{name}":
            yield [arg.value for arg in node.args if isinstance(arg, ast.Constant)]


def marks_of_body(body: Sequence[ast.stmt]) -> list[ast.expr]:
    """Return what `pytestmark` is set to in a module or class."""
    marks: list[ast.expr] = []
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            marks += node.value.elts if isinstance(node.value, ast.List) else [node.value]

    return marks


def functions_in(
    body: Sequence[ast.stmt], marks: Sequence[ast.expr] = ()
) -> Iterator[tuple[Function, list[ast.expr]]]:
    """Return all tests of a module, each with its marks and those of what it stands in."""
    inherited = [*marks, *marks_of_body(body)]
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions_in(node.body, [*inherited, *node.decorator_list])
        elif isinstance(node, Function) and node.name.startswith("test_"):
            yield node, [*inherited, *node.decorator_list]


def kept_in(source: str, name: str = "") -> Iterator[Kept]:
    """Return what tests in a file are marked with promises."""
    body = ast.parse(source).body
    own_backend = any(isinstance(node, Function) and node.name == "anyio_backend" for node in body)
    for test, marks in functions_in(body):
        parameters = {arg.arg for arg in (*test.args.args, *test.args.kwonlyargs)}
        chosen = any("anyio_backend" in str(args[:1]) for args in marks_of(marks, "parametrize"))
        is_async = isinstance(test, ast.AsyncFunctionDef)
        on_both = "run" in parameters or (is_async and not own_backend and not chosen)
        for args in marks_of(marks, "promise"):
            for promise in args:
                yield Kept(str(promise), f"{name}::{test.name}", on_both)


@cache
def all_kept() -> list[Kept]:
    return [
        kept
        for path in sorted(TESTS.rglob("test_*.py"))
        if path != Path(__file__)
        and "mark.promise(" in (source := path.read_text(encoding="utf-8"))
        for kept in kept_in(source, path.relative_to(TESTS).as_posix())
    ]


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_has_a_test_on_both_backends(promise: str) -> None:
    assert any(kept.promise == promise and kept.on_both for kept in all_kept()), (
        f'no test that runs on asyncio and on Trio has the mark promise("{promise}"), '
        f"which says: {PROMISES[promise]}"
    )


def test_no_other_promise_is_marked() -> None:
    strangers = {kept for kept in all_kept() if kept.promise not in PROMISES}
    assert not strangers, f"{PAGE.name} tells of no such promise"


def test_the_page_tells_of_all_promises() -> None:
    kinds = {"G": range(1, 10), "T": range(1, 12), "H": [*range(1, 10), *range(11, 17)]}
    kinds["S"] = range(1, 18)
    told = [f"{kind}{n}" for kind, numbers in kinds.items() for n in numbers]
    assert list(PROMISES) == told


MARKED = """
pytestmark = [pytest.mark.timing, pytest.mark.promise("G1")]

def test_on_one(): ...

async def test_on_both(anyio_backend): ...

async def help(): ...

@pytest.mark.promise("G2", "G3")
class TestClass:
    pytestmark = pytest.mark.promise("G4")

    @pytest.mark.promise("G5")
    def test_by_runs(self, run): ...

@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio(anyio_backend): ...
"""


def test_where_marks_may_stand() -> None:
    found: dict[str, set[str]] = {}
    for kept in kept_in(MARKED):
        found.setdefault(f"{kept.test} {kept.on_both}", set()).add(kept.promise)

    assert found == {
        "::test_on_one False": {"G1"},
        "::test_on_both True": {"G1"},
        "::test_by_runs True": {"G1", "G2", "G3", "G4", "G5"},
        "::test_on_trio False": {"G1"},
    }


def test_a_file_may_have_its_own_backend() -> None:
    own = "def anyio_backend(): ...\n" + MARKED
    assert {kept.test for kept in kept_in(own) if kept.on_both} == {"::test_by_runs"}
