"""A question to the server, whose task waits for the answer."""

from __future__ import annotations

from typing import final

import anyio

from .exchange import Amounts, Reply


@final
class Question:
    """
    A question for the server.

    :ivar probe: the amounts of a call, to ask when it could go; empty for no such question
    :ivar count_all: whether the calls of all processes are to be counted
    :ivar answered: set when there is a reply or an error
    """

    __slots__ = ("answered", "count_all", "error", "probe", "reply")

    def __init__(self, probe: Amounts, *, count_all: bool) -> None:
        self.probe = probe
        self.count_all = count_all
        self.answered = anyio.Event()
        self.reply: Reply | None = None
        self.error: Exception | None = None

    def settle(self, reply: Reply | None, error: Exception | None) -> None:
        """Answer the question."""
        self.reply, self.error = reply, error
        self.answered.set()
