"""The page that compares says what was measured, and what was measured is still so."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "compared.md"
DATA = ROOT / "benchmarks" / "compared.json"

# what is compared with may be missing, so type checkers do not see these
compared = import_module("benchmarks.compared")
compared_page = import_module("benchmarks.compared_page")
contenders = import_module("benchmarks.contenders")

AGAIN = "run: python -m benchmarks compared --write"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def comparable() -> list[Any]:
    """Return ours, and those peers that are installed in the version that was measured."""
    versions = json.loads(DATA.read_text(encoding="utf-8"))["versions"]
    return [
        each
        for each in contenders.CONTENDERS
        if each.package in {"", "anythrottle"} or each.installed == versions.get(each.package)
    ]


def test_the_page_shows_what_was_measured(found: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == compared_page.filled(page, found), AGAIN


def test_all_were_measured_that_the_program_knows_and_no_others(found: dict[str, Any]) -> None:
    how = {each.name: each.how for each in contenders.CONTENDERS}
    assert {name: row["how"] for name, row in found["rows"].items()} == how, AGAIN
    assert all(set(row) == set(compared_page.COLUMNS) for row in found["rows"].values()), AGAIN
    assert list(found["beside"]) == list(compared.BESIDE), AGAIN
    packages = {each.package for each in contenders.CONTENDERS if each.package}
    assert set(found["versions"]) == packages, AGAIN
    assert None not in found["versions"].values()


def test_they_were_measured_as_the_program_measures(found: dict[str, Any]) -> None:
    assert found["settings"] == compared_page.settings(), AGAIN


def test_ours_keep_what_the_page_says(found: dict[str, Any]) -> None:
    assert compared.ours_hold(found["rows"])


@pytest.mark.untraced
@pytest.mark.parametrize("contender", comparable(), ids=lambda each: str(each.name))
def test_what_is_the_same_each_time_is_the_same(contender: Any, found: dict[str, Any]) -> None:
    row = found["rows"][contender.name]
    again = compared.steady(contender)
    assert again == {column: row[column] for column in ("how", *compared_page.STEADY)}, AGAIN
