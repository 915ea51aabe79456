"""What the pages say of the package's files: they exist, and so do their tests."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[1]

PACKAGE = ROOT / "anythrottle"

PAGES = [ROOT / "docs" / "explanation" / f"{name}.md" for name in ("architecture", "grants")]

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_each_file_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`(_?\w+(?:/_?\w+)*\.py)`", page.read_text(encoding="utf-8")))
    assert named, "no file is named"
    missing = {name for name in named if not (PACKAGE / name).exists()}
    assert not missing


def test_the_layers_are_those_that_are_enforced() -> None:
    page = PAGES[0].read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = {contract["id"]: contract for contract in tools["importlinter"]["contracts"]}
    layers = [name for row in contracts["layers"]["layers"] for name in re.findall(r"\w+", row)]
    there = [path.stem for path in PACKAGE.iterdir() if not path.stem.startswith("__init__")]
    assert told == [name for name in layers if name in there]


def without_tests(folder: str) -> set[str]:
    """Return the modules of a folder that no test file is named for."""
    tests = ROOT / "tests" / folder.lstrip("_")
    names = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__", "__main__"}
    return {name for name in names if not list(tests.glob(f"test_{name.lstrip('_')}*.py"))}


FOLDERS = ["", "_limiters", "_loops", "_policies", "testing", "integrations", "stores"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_modules_without_a_test_file_are_named(folder: str) -> None:
    sentence = CONTRIBUTING[CONTRIBUTING.index("These modules have no file of their name") :]
    named = sentence[: sentence.index("\n\n")]
    start = named.index(f"in `{folder}`") if folder in named and folder else 0
    part = named[start:].split(";")[0]
    told = set(re.findall(r"`(\w+)`", part)) - {folder} if folder in named else set()
    assert without_tests(folder) == told


MODULES = sorted(PACKAGE.rglob("*.py"))

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    assert MODULES
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {str(path): length for path, length in lengths.items() if length > 400}


def lines_of_code(function: Function, lines: Sequence[str]) -> int:
    """Return how many lines a function has, without its head, docstring and comments."""
    first = function.body[1 if ast.get_docstring(function) and function.body[1:] else 0]
    body = [line.strip() for line in lines[first.lineno - 1 : function.end_lineno]]
    return sum(bool(line) and not line.startswith("#") for line in body)


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_no_function_is_too_long_to_be_read_at_once(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]
    lengths = {each.name: lines_of_code(each, text.splitlines()) for each in functions}
    assert not {name: length for name, length in lengths.items() if length >= 40}
