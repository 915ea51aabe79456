"""The tables of the page that ``compared`` fills, from what it has measured."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

from . import contests, counting_server
from .contenders import CONTENDERS, Contender

#: What is the same each time, and what is not.
STEADY = (
    "fullest",
    "overtaken",
    "overtaken_by_cost",
    "cancelled",
    "lost",
    "stuck",
    "model_refused",
    "model_seconds",
    "trio",
)
TIMED = ("refused", "seconds", "microseconds", "ratio")
COLUMNS = ("how", *STEADY, *TIMED)

NO, YES = "no", "yes"

Row = Mapping[str, Any]
#: Makes a cell of a contender and what was measured of it.
Cell = Callable[[Contender, Row], str]


def settings() -> dict[str, Any]:
    """Return what the figures depend on besides the contenders: the constants, as JSON has them."""
    constants: dict[str, dict[str, object]] = {
        module.__name__.rpartition(".")[2]: {
            name: value
            for name, value in vars(module).items()
            if name.isupper() and name != "CONTESTS" and isinstance(value, int | float | tuple)
        }
        for module in (contests, counting_server)
    }
    found: dict[str, Any] = json.loads(json.dumps(constants))
    return found


def table(rows: Mapping[str, Row], columns: Mapping[str, Cell]) -> str:
    """Return a table in Markdown, with a row for each contender that was measured."""
    lines = [["", *columns]]
    lines += [
        [f"`{each.name}`" if '"' in each.name else each.name]
        + [cell(each, rows[each.name]) for cell in columns.values()]
        for each in CONTENDERS
        if each.name in rows
    ]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *body])


def shown(column: str) -> Cell:
    """Make a cell of a figure; there is none of what a contender cannot do."""

    def cell(_: Contender, row: Row) -> str:
        return NO if row[column] is None else f"{row[column]}"

    return cell


def refused(_: Contender, row: Row) -> str:
    least, *_rest, most = row["refused"]
    return f"{median(row['refused'])}" + (f" ({least} to {most})" if least < most else "")


def fullest(_: Contender, row: Row) -> str:
    return f"{row['fullest'] / contests.LIMIT:.2f}"


def overtaken(column: str) -> Cell:
    def cell(_: Contender, row: Row) -> str:
        return {None: "one cost only", 0: "none"}.get(row[column], f"{row[column]}")

    return cell


def cancelled(_: Contender, row: Row) -> str:
    if row["stuck"]:
        return "others wait for ever"
    return f"lost, {row['lost']} times of {row['cancelled']}" if row["lost"] else "handed on"


def together(contender: Contender, _: Row) -> str:
    if contender.units is None:
        return NO
    return YES if contender.together else "one after the other"


def yes_or_no(value: object) -> str:
    return YES if value else NO


def blocks(found: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands between the markers of the page, by their names."""
    return {
        "dated": dated(found),
        "sockets": sockets(found["rows"]),
        "model": model(found["rows"]),
        "windows": windows(found["rows"]),
        "cost": cost(found["rows"], found["beside"]),
        "can": can(found["rows"]),
        "how": table(found["rows"], {"made by": lambda _, row: f"`{row['how']}`"}),
    }


def dated(found: Mapping[str, Any]) -> str:
    versions = [f"{package} {version}" for package, version in found["versions"].items()]
    return "\n".join(
        wrapped(
            f"Measured on {found['date']} with {found['python']}: {', '.join(versions)}.".split()
        )
    )


def sockets(rows: Mapping[str, Row]) -> str:
    least, most = (f"{seconds * 1000:g}" for seconds in counting_server.LATENCIES)
    return table(
        rows,
        {
            f"refused of {counting_server.CALLS}, median of {len(counting_server.SEEDS)}": refused,
            "seconds until the last is answered": shown("seconds"),
        },
    ) + (
        f"\n\n{counting_server.CALLS} calls at {counting_server.LIMIT} per"
        f" {counting_server.WINDOW:g} s, each {least} to {most} ms on its way."
    )


def model(rows: Mapping[str, Row]) -> str:
    low, high = (f"{seconds * 1000:g}" for seconds in contests.LATENCIES)
    return table(
        rows,
        {
            "both units in one decision": together,
            f"refused of {contests.MODEL_COUNT}": shown("model_refused"),
            "seconds": shown("model_seconds"),
        },
    ) + (
        f"\n\n{contests.MODEL_CALLS} calls and {contests.MODEL_TOKENS} tokens per"
        f" {contests.MODEL_WINDOW} s; calls of {contests.TOKENS[0]} to {contests.TOKENS[1]} tokens,"
        f"\n{low} to {high} ms on their way, {contests.MODEL_TASKS} at a time."
    )


def windows(rows: Mapping[str, Row]) -> str:
    return table(
        rows,
        {
            "fullest window / limit": fullest,
            f"overtaken of {contests.ONE_BY_ONE}": overtaken("overtaken"),
            "overtaken, costs differ": overtaken("overtaken_by_cost"),
            "the turn of a cancelled waiter": cancelled,
        },
    )


def cost(rows: Mapping[str, Row], beside: Mapping[str, Row]) -> str:
    """Return what a call costs, by contender, and beside that what is no contender."""
    text = table(
        rows,
        {"microseconds": micro, f"x {CONTENDERS[0].name}": ratio},
    )
    lines = [
        f"| *{name}* | {row['microseconds']:.2f} | {row['ratio']:.2f} |"
        for name, row in beside.items()
    ]
    return "\n".join([text, *lines])


def micro(_: Contender, row: Row) -> str:
    found = row["microseconds"]
    return "each call waits" if found is None else f"{found:.2f}"


def ratio(_: Contender, row: Row) -> str:
    return "" if row["ratio"] is None else f"{row['ratio']:.2f}"


def can(rows: Mapping[str, Row]) -> str:
    return table(
        rows,
        {
            "asyncio": lambda _, __: YES,
            "Trio": lambda _, row: yes_or_no(row["trio"]),
            "costs above 1": lambda contender, _: yes_or_no(contender.weighted),
            "several processes": lambda contender, _: contender.shares or NO,
            "threads without a loop": lambda contender, _: yes_or_no(contender.threads),
        },
    )


def wrapped(words: Iterable[str], width: int = 120) -> list[str]:
    """Return lines of words, none longer than ``width``."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()

    return lines


def filled(page: str, found: Mapping[str, Any]) -> str:
    """Return the page, with the blocks between its markers."""
    for name, text in blocks(found).items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        page, times = re.subn(
            f"{begin}\n.*?{end}",
            lambda _, text=f"{begin}\n{text}\n{end}": text,  # type: ignore[misc]
            page,
            flags=re.DOTALL,
        )
        if times != 1:
            raise ValueError(f"the page has {times} places for {name}")

    return page
