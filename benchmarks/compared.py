"""
How the library does beside its peers: prints the tables of ``docs/explanation/compared.md``.

``python -m benchmarks compared --write`` puts them into the page, and what was measured beside this
program, from where a test sees whether the page is what would be written. About four minutes.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import anyio

from .compared_page import COLUMNS, blocks, filled, settings
from .contenders import CONTENDERS, Contender
from .contests import CONTESTS
from .counting_server import over_sockets
from .measuring import Stopwatch

DATA = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "compared.md"

#: How often a call is made that needn't wait, and how often that is measured.
CALLS, RUNS = 2_000, 9


async def microseconds(contender: Contender) -> float:
    call = contender.bare()
    for _ in range(CALLS // 10):
        await call()

    with Stopwatch() as watch:
        for _ in range(CALLS):
            await call()

    return watch.wall / CALLS * 1e6


async def costs(contenders: list[Contender]) -> dict[str, float]:
    """Measure all in turn, within one run of an event loop."""
    return {contender.name: await microseconds(contender) for contender in contenders}


def cost_per_call(contenders: list[Contender]) -> dict[str, dict[str, object]]:
    """Return what a call costs that needn't wait, and its ratio to the first one's."""
    runs = [anyio.run(costs, contenders) for _ in range(RUNS)]
    first = contenders[0].name
    return {
        contender.name: {
            "microseconds": round(median(run[contender.name] for run in runs), 2),
            "ratio": round(median(run[contender.name] / run[first] for run in runs), 2),
        }
        for contender in contenders
    }


def steady(contender: Contender) -> dict[str, object]:
    """Return what is the same each time."""
    row: dict[str, object] = {}
    for contest in CONTESTS:
        row |= contest(contender)

    return row


def measure(contenders: list[Contender], tell: Callable[[str], object]) -> dict[str, Any]:
    """Measure everything."""
    rows = {}
    for contender in contenders:
        tell(contender.name)
        rows[contender.name] = steady(contender) | over_sockets(contender)

    tell("costs")
    for name, row in cost_per_call(contenders).items():
        rows[name] |= row

    return {
        "date": f"{datetime.now(tz=UTC):%Y-%m-%d}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {
            contender.package: contender.installed for contender in contenders if contender.package
        },
        "settings": settings(),
        "rows": {name: {column: row[column] for column in COLUMNS} for name, row in rows.items()},
    }


def ours_hold(rows: dict[str, dict[str, Any]]) -> bool:
    """Tell whether ours keep what the page says of them."""
    ours = {contender.name for contender in CONTENDERS if contender.package == "anythrottle"}
    return all(
        row["fullest"] == settings()["limit"]
        and not row["overtaken"]
        and not row["overtaken_by_cost"]
        and not row["lost"]
        and not row["stuck"]
        and (not name.count(" end") or (not max(row["refused"]) and not row["model_refused"]))
        for name, row in rows.items()
        if name in ours
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks compared")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    write = parser.parse_args().write
    missing = sorted({each.package for each in CONTENDERS if each.installed is None})
    if missing and write:
        parser.error(f"install {', '.join(missing)}; token-throttle wants Python 3.12")

    contenders = [each for each in CONTENDERS if each.installed is not None]
    found = measure(contenders, lambda text: print(text, file=sys.stderr, flush=True))
    for text in blocks(found).values():
        print(f"\n{text}")

    if missing:
        print(f"\nNot installed: {', '.join(missing)}")

    if write:
        DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")

    return 0 if ours_hold(found["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
