"""
How the library does beside its peers: prints the tables of ``docs/explanation/compared.md``.

``python -m benchmarks compared --write`` puts them into the page, and what was measured beside this
program, from where a test sees whether the page is what would be written. About four minutes.
"""

import argparse
import json
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from anyio.lowlevel import checkpoint

from anythrottle import RateLimiter

from .compared_page import COLUMNS, blocks, filled, settings
from .contenders import CONTENDERS, Contender
from .contests import CONTESTS, LIMIT
from .counting_server import over_sockets
from .measuring import Stopwatch, median_ratios, run_on

DATA = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "compared.md"

#: How often a call is made that needn't wait, and how often that is measured: often and for a short
#: time, so that what else the machine does falls on few of the measurements.
CALLS, RUNS = 200, 41

Costs: TypeAlias = dict[str, float]

AMPLE = "1_000_000_000/s"
#: What is measured beside the contenders.
BESIDE: dict[str, Callable[[], Callable[[], Awaitable[object]]]] = {
    "a bare checkpoint of AnyIO": lambda: checkpoint,
    "anythrottle, fast_acquire=True": lambda: (
        RateLimiter("1_000_000_000/s", fast_acquire=True).acquire
    ),
}


async def microseconds(call: Callable[[], Awaitable[object]]) -> float:
    for _ in range(CALLS // 2):
        await call()

    with Stopwatch() as watch:
        for _ in range(CALLS):
            await call()

    return watch.wall / CALLS * 1e6


async def costs(makes: Mapping[str, Callable[[], Callable[[], Awaitable[object]]]]) -> Costs:
    """Measure all in turn, within one run of an event loop."""
    return {name: await microseconds(make()) for name, make in makes.items()}


def cost_per_call(contenders: list[Contender]) -> dict[str, dict[str, float]]:
    """Return what a call costs that needn't wait, and its ratio to the first one's."""
    makes = {each.name: each.bare for each in contenders if each.bare} | BESIDE
    runs = [run_on("asyncio", costs, makes) for _ in range(RUNS)]
    ratios = median_ratios(runs, contenders[0].name)
    return {
        name: {
            "microseconds": round(median(run[name] for run in runs), 2),
            "ratio": round(ratios[name], 2),
        }
        for name in makes
    }


def steady(contender: Contender) -> dict[str, object]:
    """Return what is the same each time."""
    row: dict[str, object] = {"how": contender.how}
    for contest in CONTESTS:
        row |= contest(contender)

    return row


def measure(contenders: list[Contender], tell: Callable[[str], object]) -> dict[str, Any]:
    """Measure everything."""
    rows: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        tell(contender.name)
        rows[contender.name] = steady(contender) | over_sockets(contender)

    tell("costs")
    found = cost_per_call(contenders)
    none = dict.fromkeys(("microseconds", "ratio"))
    for name in rows:
        rows[name] |= found.get(name, none)

    return {
        "date": f"{datetime.now(tz=UTC):%Y-%m-%d}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {
            contender.package: contender.installed for contender in contenders if contender.package
        },
        "settings": settings(),
        "beside": {name: found[name] for name in BESIDE},
        "rows": {name: {column: row[column] for column in COLUMNS} for name, row in rows.items()},
    }


def ours_hold(rows: dict[str, dict[str, Any]]) -> bool:
    """Return whether ours keep what the page says of them."""
    ours = {contender.name for contender in CONTENDERS if contender.package == "anythrottle"}
    return all(
        row["fullest"] == LIMIT
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
