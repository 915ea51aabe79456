"""``python -m anythrottle``, and the version."""

from __future__ import annotations

import runpy
from importlib.metadata import version

import pytest

import anythrottle


def test_it_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("anythrottle", run_name="__main__")
    output = capsys.readouterr().out
    assert output.startswith(f"anythrottle {anythrottle.__version__}: ")
    assert "README.md" in output


def test_imported_it_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("anythrottle.__main__", run_name="imported")
    assert capsys.readouterr().out == ""


def test_the_version_is_that_of_the_distribution() -> None:
    assert anythrottle.__version__ == version("anythrottle")
