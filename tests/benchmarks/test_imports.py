"""The program that measures imports: what it measures, and that it does so at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import imports


def test_each_statement_is_measured_after_anyio() -> None:
    figures = imports.measure(1)
    assert figures.keys() == imports.STATEMENTS.keys()
    assert all(anyio > 0 and ours > 0 for anyio, ours in figures.values())
    assert figures["import anythrottle"][1] < figures["from anythrottle import *"][1]


def test_the_bytecode_is_cached_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    imports.seconds_of("import anythrottle", str(tmp_path))
    cached = {path.name.split(".")[0] for path in tmp_path.rglob("anythrottle/*.pyc")}
    assert cached == {"__init__"}


def test_what_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "RUNS", 1)
    imports.main()
    printed = capsys.readouterr().out
    assert all(statement in printed for statement in imports.STATEMENTS)
    assert "x asyncio and anyio" in printed
