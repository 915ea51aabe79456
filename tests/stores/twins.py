"""The ledger and the script, told the same, at the same instants."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import NamedTuple

from anythrottle.stores import window_state
from anythrottle.stores.exchange import Push, Reply, Request
from anythrottle.stores.ledger import Ledger
from anythrottle.stores.lua import script
from anythrottle.stores.wire import push_of, reply_of, request_args
from tests.stores.plain_client import PlainClient

#: The script, but for its time: that is its last argument.
SCRIPT = "local function clock_of_test() return {0, table.remove(ARGV)} end\n" + script().replace(
    "redis.call('TIME')", "clock_of_test()"
)

#: How many entries a window remembers one by one, as the ledger has it.
EXACT = f"EXACT_ENTRIES = {window_state.EXACT_ENTRIES}\n"

#: What the limiter's key is followed by, where the script sees that one was lost.
COUNTED = ("", ":n", ":q", ":a", *(f":w{i}" for i in range(4)))

#: And all.
PARTS = (*COUNTED, ":h", ":s")

#: What becomes of requests that let the state live on.
CARRIED_OUT = ("done", "lost", "buried")


class Answer(NamedTuple):
    """What an exchange has come to."""

    reply: Reply
    pushes: list[Push]


class Twins:
    """
    One limiter, kept twice.

    :param port: the server's
    :param name: the limiter's
    :param nodes: the processes that there may be
    :param exact: how many entries a window shall remember one by one; the ledger must be told too

    """

    def __init__(self, port: int, name: str, nodes: list[str], exact: int) -> None:
        self.key = f"{{{name}}}"
        self.ledger: Ledger | None = None
        self._is_whole = True
        self._began = time.monotonic()
        self.server = PlainClient(port)
        assert EXACT in SCRIPT
        text = SCRIPT.replace(EXACT, f"EXACT_ENTRIES = {exact}\n")
        self._sha = self.server.ask("SCRIPT", "LOAD", text)
        self._saved: tuple[Ledger | None, bool] = None, True
        #: How many pushes have come.
        self.heard = 0
        self._ear = PlainClient(port)
        for channel in ["all", "silence", *(f"n:{node}" for node in nodes)]:
            self._ear.ask("SSUBSCRIBE", f"{self.key}:{channel}")

    def close(self) -> None:
        self.server.close()
        self._ear.close()

    def exchange(self, request: Request, now: int) -> Reply:
        """Make an exchange with both; they must say the same."""
        answer, expected = self._by_script(request, now), self._by_ledger(request, now)
        assert answer == expected, f"{request}\n{answer}\n{expected}"
        if self.ledger and self._is_whole and answer.reply.status in CARRIED_OUT:
            left = (self.ledger.expires_at - now) // 1000
            assert 0 <= left - self.server.ask("PTTL", self.key) < self._slack()

        return answer.reply

    def _by_ledger(self, request: Request, now: int) -> Answer:
        # Who has other rules does not look.
        if self.ledger and not self._is_whole and request.rules == self.ledger.text:
            self.ledger = None

        if not self.ledger:
            self._is_whole = True

        ledger = self.ledger or Ledger(request, now)
        reply, pushes = ledger.exchange(request, now)
        # What was given up begins nothing.
        if self.ledger or reply.status != "stale":
            self.ledger = ledger

        return Answer(reply, pushes)

    def _by_script(self, request: Request, now: int) -> Answer:
        flat = self.server.ask("EVALSHA", self._sha, 1, self.key, *request_args(request), now)
        self.server.ask("SPUBLISH", f"{self.key}:silence", "")
        pushes: list[Push] = []
        while (heard := self._ear.read())[1] != f"{self.key}:silence":
            part, _, node = heard[1].removeprefix(f"{self.key}:").partition(":")
            assert part in ("n", "all")
            pushes.append(push_of(node, heard[2]))

        self.heard += len(pushes)
        return Answer(reply_of(flat), pushes)

    def check_that_all_expires(self) -> None:
        """Check that each key expires, and none before the first, which tells of the others."""
        left = {part: self.server.ask("PTTL", self.key + part) for part in PARTS}
        # -2: there is no such key.
        least = left[""] - self._slack()
        assert all(each == -2 or each > least for each in left.values()), left

    def _slack(self) -> float:
        """Return by how many milliseconds a key may expire sooner: the server's time is real."""
        return 5000 + (time.monotonic() - self._began) * 1000

    def lose(self, part: str) -> None:
        """Lose one key, for want of memory: with it the state is lost."""
        if self.server.ask("DEL", self.key + part):
            self._is_whole = False
            if not part:
                self.ledger = None

    def lose_all(self) -> None:
        self.server.ask("DEL", *(self.key + part for part in PARTS))
        self.ledger = None

    def save(self) -> None:
        """Save the state, for :meth:`set_back`."""
        self._saved = deepcopy(self.ledger), self._is_whole
        for part in PARTS:
            self.server.ask("DEL", self.key + part + ":saved")
            self.server.ask("COPY", self.key + part, self.key + part + ":saved")

    def set_back(self) -> None:
        """Set the state back to what was saved, as a failover does."""
        self.lose_all()
        ledger, self._is_whole = self._saved
        self.ledger = deepcopy(ledger)
        for part in PARTS:
            self.server.ask("COPY", self.key + part + ":saved", self.key + part)
