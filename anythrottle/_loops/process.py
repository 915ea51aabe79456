"""Which process this is, and whether what began before a fork was left behind by it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import final


@final
class Process:
    """
    A process, as objects that are made in it remember it.

    :ivar left: whether it was left behind, because the caller is in a child forked off since
    :ivar inherited: the token of the parent's Trio run in which this process was forked off; Trio
        takes it for a run that is under way here

    """

    __slots__ = ("inherited", "left")

    def __init__(self, inherited: object = None) -> None:
        self.left = False
        self.inherited = inherited


_current = Process()


def current_process() -> Process:
    """Return the process that this is."""
    return _current


def _enter_child() -> None:
    """Mark the parent process as left behind, and note this one."""
    global _current  # noqa: PLW0603 - there is one at a time
    _current.left = True
    inherited: object = None
    # Trio is not imported for this, in a child of unknown state: without it, there is no run.
    with suppress(KeyError, AttributeError, RuntimeError):
        inherited = sys.modules["trio.lowlevel"].current_trio_token()

    _current = Process(inherited)


# Where processes cannot be forked, there is nothing to register with.
with suppress(AttributeError):
    os.register_at_fork(after_in_child=_enter_child)
