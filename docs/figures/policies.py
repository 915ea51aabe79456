"""
Draw what the policies let through: ``python -m docs.figures.policies`` draws README's figure anew.

The library's own buckets decide, so the figures show what the code does; what the page says of
them is asserted here. Those of the pages are drawn at each build, which also sees whether README's,
which is kept, is still what would be drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anythrottle import FixedWindow, TokenBucket, WindowTokenBucket
from anythrottle.abc import Policy

from .simulation import full_demand, trailing_counts, worst_window

LIMIT = 20
WINDOW = 10.0

#: README's figure: kept, and on white, so that it can be read on pages of either brightness.
OF_README = Path(__file__).with_name("policies.svg")

#: When the first calls come, and up to when is drawn what happens, in seconds.
START, STOP = 8.0, 48.0

#: How long calls take at least and at most, in seconds.
QUICKEST, SLOWEST = 0.2, 6.0

#: The width of the bars that count calls, in seconds.
BAR = 0.5


@dataclass(frozen=True)
class Theme:
    """Colours for a page of one brightness."""

    text: str
    faint: str
    bars: str
    count: str
    limit: str


THEMES = {
    "light": Theme("#30363d", "#d8dde3", "#8b98a5", "#0b62d6", "#c62828"),
    "dark": Theme("#d0d4d9", "#3b424a", "#7c8894", "#6fb3ff", "#ff8a80"),
}


@dataclass(frozen=True)
class Row:
    """
    One row of a figure.

    :ivar title: the policy
    :ivar instants: when calls are counted, in seconds

    """

    title: str
    instants: list[float]

    def worst(self) -> int:
        """Return the most that any window holds."""
        return worst_window(self.instants, WINDOW)[0]


def policies() -> list[Row]:
    """Return what each policy lets through, by the instants at which calls begin."""
    shown: list[tuple[str, Policy]] = [
        ("WindowTokenBucket(20, 10)", WindowTokenBucket(LIMIT, WINDOW)),
        ("TokenBucket(20, 10)", TokenBucket(LIMIT, WINDOW)),
        ("TokenBucket(20, 10, burst=1)", TokenBucket(LIMIT, WINDOW, burst=1)),
        ('FixedWindow(20, 10, align="utc")', FixedWindow(LIMIT, WINDOW, align="utc")),
    ]
    rows = [
        Row(title, [call.begun for call in full_demand(policy, START, STOP + WINDOW)])
        for title, policy in shown
    ]
    worst = [row.worst() for row in rows]
    # A window does not hold the instant at which it ends: one less than burst + limit.
    assert worst == [LIMIT, 2 * LIMIT - 1, LIMIT, 2 * LIMIT], worst
    return rows


def at_the_server() -> list[Row]:
    """Return what a server counts that counts calls at any instant between start and end."""
    shown: list[tuple[str, Policy]] = [
        ("WindowTokenBucket(20, 10)", WindowTokenBucket(LIMIT, WINDOW)),
        (
            'WindowTokenBucket(20, 10, measure="end")',
            WindowTokenBucket(LIMIT, WINDOW, measure="end"),
        ),
    ]
    rows = []
    for title, policy in shown:
        chance = random.Random(1)  # noqa: S311 # the same each time
        calls = full_demand(policy, START, STOP + WINDOW, durations(chance))
        rows.append(Row(title, [chance.uniform(call.begun, call.ended) for call in calls]))

    from_start, from_end = (row.worst() for row in rows)
    assert from_start > LIMIT, from_start
    assert from_end == LIMIT, from_end
    return rows


def durations(chance: random.Random) -> Iterator[float]:
    """Return how long calls take, in seconds."""
    while True:
        yield chance.uniform(QUICKEST, SLOWEST)


def drawn(rows: Sequence[Row], theme: Theme) -> Figure:
    """Return a figure with a row for each policy, all on the same scales."""
    figure = Figure(figsize=(7.4, 1.55 * len(rows) + 0.7), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06)
    axes = figure.subplots(len(rows), sharex=True, sharey=True)
    for row, ax in zip(rows, axes, strict=True):
        draw(row, ax, theme)

    axes[-1].set_xlabel("seconds", color=theme.text)
    handles = axes[-1].get_legend_handles_labels()
    figure.legend(
        *handles, loc="outside upper center", ncols=4, frameon=False, labelcolor=theme.text
    )
    return figure


def draw(row: Row, ax: Axes, theme: Theme) -> None:
    """Draw a row: bars for the calls, and a line for what windows hold."""
    most, since = worst_window(row.instants, WINDOW)
    color = theme.limit if most > LIMIT else theme.count
    bins = [index * BAR for index in range(int(STOP / BAR) + 2)]
    instants, counts = zip(*trailing_counts(row.instants, WINDOW), strict=True)
    ax.hist(
        row.instants, bins, histtype="stepfilled", color=theme.bars, label=f"calls in each {BAR} s"
    )
    ax.axhline(LIMIT, color=theme.limit, linewidth=1, linestyle=(0, (4, 3)), label="limit")
    last = f"calls in the last {WINDOW:g} s"
    ax.step((0, *instants), (0, *counts), color=theme.count, where="post", label=last)
    fullest = f"fullest {WINDOW:g} s"
    ax.axvspan(since, since + WINDOW, color=theme.bars, alpha=0.2, linewidth=0, label=fullest)
    ax.set_title(row.title, loc="left", family="monospace", size="medium", color=theme.text)
    ax.set_title(f"{fullest}: {most} calls", loc="right", size="medium", color=color)
    ax.set(xlim=(START - 3, STOP), ylim=(0, 2.3 * LIMIT), yticks=(0, LIMIT, 2 * LIMIT))
    ax.set_xticks(range(10, int(STOP) + 1, 10))
    ax.tick_params(colors=theme.text)
    ax.grid(axis="x", color=theme.faint, linewidth=0.8)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(theme.text)


def save(rows: Sequence[Row], theme: Theme, path: Path, *, transparent: bool) -> None:
    """Draw a figure; the same each time."""
    with mpl.rc_context({"svg.hashsalt": path.stem}):
        drawn(rows, theme).savefig(
            path,
            transparent=transparent,
            metadata={"Date": None, "Description": fingerprint(rows)},
        )


def fingerprint(rows: Sequence[Row]) -> str:
    """Return what tells figures apart by what they show, whichever Matplotlib has drawn them."""
    shown = [(row.title, [round(instant, 6) for instant in row.instants]) for row in rows]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def main(directory: Path) -> None:
    """Draw the figures of the pages, each for light and for dark ones; see if README's is right."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in (("policies", policies()), ("server", at_the_server())):
        for brightness, theme in THEMES.items():
            save(rows, theme, directory / f"{name}-{brightness}.svg", transparent=True)

    if fingerprint(policies()) not in OF_README.read_text("utf-8"):
        raise RuntimeError(f"{OF_README} is out of date: python -m docs.figures.policies draws it")


if __name__ == "__main__":
    save(policies(), THEMES["light"], OF_README, transparent=False)
