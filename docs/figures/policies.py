"""
Draw what each policy lets through: ``python -m docs.figures.policies DIRECTORY``.

The policies of the library decide, so the figures show what the code does. What their captions
say is asserted.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
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

#: When the first calls come, and when the drawing ends, in seconds. Windows of UTC start at 0, 10...
START = 8.0
STOP = 50.0

#: A call, and by how much the server's count of it may come after its start, in seconds.
QUICKEST, SLOWEST = 0.2, 4.0


@dataclass(frozen=True)
class Theme:
    """Colours that can be read on a page of one brightness."""

    text: str
    faint: str
    calls: str
    count: str
    limit: str


THEMES = {
    "light": Theme(text="#333333", faint="#d5d8dc", calls="#9aa5b1", count="#1f6feb", limit="#c0392b"),
    "dark": Theme(text="#cfd0d0", faint="#3a3f45", calls="#6f7a86", count="#6cb0ff", limit="#ff8577"),
}


@dataclass(frozen=True)
class Panel:
    """
    One row of a figure.

    :ivar title: what it shows
    :ivar instants: when calls are counted, in seconds
    :ivar most: the most that any window may hold, as the title's policy promises

    """

    title: str
    instants: list[float]
    most: int


def policies() -> list[Panel]:
    """Return what each policy lets through."""
    shown: list[tuple[str, Policy, int]] = [
        ("WindowTokenBucket(20, 10)", WindowTokenBucket(LIMIT, WINDOW), LIMIT),
        ("TokenBucket(20, 10)", TokenBucket(LIMIT, WINDOW), 2 * LIMIT),
        ("TokenBucket(20, 10, burst=1)", TokenBucket(LIMIT, WINDOW, burst=1), LIMIT + 1),
        (
            'FixedWindow(20, 10, align="utc")',
            FixedWindow(LIMIT, int(WINDOW), align="utc"),
            2 * LIMIT,
        ),
    ]
    return [
        Panel(title, [call.begun for call in full_demand(policy, START, STOP)], most)
        for title, policy, most in shown
    ]
