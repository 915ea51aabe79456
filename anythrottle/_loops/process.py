"""Which process this is, and what of the one that it was forked off from is no more."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import final


@final
class Process:
    """
    A process, as what begins in it remembers it.

    :ivar left: whether it was left behind: this is a child that has been forked off since
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
    """Leave the parent process behind."""
    global _current  # noqa: PLW0603 - there is one at a time
    _current.left = True
    inherited: object = None
    # Not imported for this, in a child of unknown state: if it isn't there, neither is a run.
    with suppress(KeyError, AttributeError, RuntimeError):
        inherited = sys.modules["trio.lowlevel"].current_trio_token()

    _current = Process(inherited)


# Where processes cannot be forked, there is nothing to register with.
with suppress(AttributeError):
    os.register_at_fork(after_in_child=_enter_child)
