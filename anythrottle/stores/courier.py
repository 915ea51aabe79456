"""The task that talks to the server about one limiter: the only one that awaits it."""

from __future__ import annotations

import logging
from math import inf
from typing import final

import anyio

from .._errors import PolicyConflict, StoreError
from .._events import Event, LeaseExpired, StoreBack, StoreLost, tell
from .._limiters.line import WaitLine
from .._limiters.turn import KeptTurn
from .._loops.event_loop import EventLoop, Parked
from .exchange import Amounts, Micros, Push, Reply
from .remote_gate import RemoteGate
from .server import Server

_logger = logging.getLogger("anythrottle")

#: How long to wait before a request that has failed is sent again, in seconds: at first, at most.
_FIRST_RETRY, _LAST_RETRY = 0.05, 1.0


@final
class _Question:
    """
    A question for the server.

    :ivar probe: what a call would be charged that asks when it could go; empty for no such question
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


@final
class Courier:
    """
    Carries requests to the server, and serves the line with what comes back.

    :param line: the line of the limiter
    :param gate: its gate
    :param server: the server, or its substitute
    :param open_if_lost: whether calls pass uncharged while the server does not answer

    :ivar failures: how often an exchange has failed
    :ivar exchanges: how many have been answered
    :ivar last_error: why the latest one failed that did
    """

    __slots__ = (
        "_asked",
        "_line",
        "_lost_at",
        "_name",
        "_open_if_lost",
        "_questions",
        "_server",
        "_sleeper",
        "exchanges",
        "failures",
        "gate",
        "last_error",
        "loop",
    )

    def __init__(
        self,
        line: WaitLine,
        gate: RemoteGate,
        server: Server,
        *,
        open_if_lost: bool,
    ) -> None:
        self._line = line
        self.gate = gate
        self._server = server
        self._name = gate.name
        self._open_if_lost = open_if_lost
        self.loop: EventLoop | None = None
        self._sleeper = Parked()
        self._sleeper.parked = None
        self._asked = False
        #: Since when the server has not answered.
        self._lost_at = inf
        self._questions: list[_Question] = []
        self.exchanges = 0
        self.failures = 0
        self.last_error: Exception | None = None

    def ask(self) -> None:
        """See to it that the courier looks at once whether an exchange is to be made."""
        self._asked = True
        if self._sleeper.parked is not None and self.loop is not None:
            self.loop.wake(self._sleeper)

    async def run(self) -> None:
        """Talk to the server until cancelled."""
        self.loop = loop = self._line.clock.loop()
        dialogue, gate = self.gate.dialogue, self.gate
        async with self._server.listen(self._name, dialogue.node, self._hear, self._hear_all):
            while True:
                now = loop.time()
                until = dialogue.next_at(now, gate.wanted())
                if until <= now or self._questions:
                    await self._exchange(loop)
                elif not self._asked:
                    await loop.park_until(self._sleeper, until)

                self._asked = False

    async def leave(self) -> None:
        """Give back what is not used, in one last exchange."""
        dialogue = self.gate.dialogue
        loop = self.loop
        if loop is None or not dialogue.clock.known:
            return

        dialogue.account.recall(loop.time())
        with anyio.move_on_after(dialogue.terms.deadline, shield=True):
            for _ in range(2 if dialogue.pending else 1):
                request = dialogue.request(loop.time(), ())
                sent = loop.time()
                try:
                    reply = await self._server.exchange(self._name, request)
                except Exception as exc:  # noqa: BLE001 - of whatever client
                    _logger.warning("limiter %r: the store was left unheard: %r", self._name, exc)
                    return

                dialogue.hear_reply(reply, sent, loop.time())

    async def answer(self, probe: Amounts = (), *, count_all: bool = False) -> Reply:
        """
        Return the server's answer to a question.

        :raises ~anythrottle.StoreError: if it does not answer
        """
        if self.gate.refusal is not None:
            raise self.gate.refusal()

        question = _Question(probe, count_all=count_all)
        self._questions.append(question)
        self.ask()
        try:
            await question.answered.wait()
        finally:
            if question in self._questions:
                self._questions.remove(question)

        if question.reply is None:
            assert question.error is not None
            raise question.error

        return question.reply

    async def _exchange(self, loop: EventLoop) -> None:
        """Make one exchange, again until it is answered."""
        dialogue, gate = self.gate.dialogue, self.gate
        deadline = loop.time() + dialogue.terms.deadline
        retry = _FIRST_RETRY
        asked: _Question | None = None
        while True:
            now = loop.time()
            if dialogue.is_lapsed(now) and dialogue.account.running:
                self._lose_lease(dialogue.clock.latest(now))
                # Not to be heard of again before the server has noticed it too.
                await anyio.sleep(dialogue.surely_lapsed_at() - now)
                continue

            question = self._questions[0] if self._questions and not dialogue.pending else None
            request = dialogue.request(
                now,
                gate.wants(),
                census=self._census(),
                count_all=question is not None and question.count_all,
                probe=() if question is None else question.probe,
            )
            asked = asked or question
            sent = loop.time()
            reply = None
            error: Exception = TimeoutError(f"no answer within {dialogue.terms.deadline:g} seconds")
            with anyio.move_on_after(dialogue.terms.deadline if gate.is_lost else deadline - sent):
                try:
                    reply = await self._server.exchange(self._name, request)
                except Exception as exc:  # noqa: BLE001 - of whatever client
                    error = exc

            received = loop.time()
            if reply is not None:
                self._hear_reply(reply, sent, received)
                if asked is not None and reply.status == "done":
                    asked.settle(reply, None)

                return

            self.failures += 1
            self.last_error = error
            if not gate.is_lost and received + retry >= deadline:
                self._note_lost(error, received)
                retry = _FIRST_RETRY

            await anyio.sleep(retry)
            retry = min(2 * retry, _LAST_RETRY)

    def _hear_reply(self, reply: Reply, sent: float, received: float) -> None:
        dialogue, gate = self.gate.dialogue, self.gate
        number = dialogue.number
        self.exchanges += 1
        if gate.is_lost:
            self._note_back(received)

        if reply.status == "buried" and dialogue.account.running:
            self._lose_lease(reply.news.now)

        dialogue.hear_reply(reply, sent, received)
        if reply.status == "conflict":
            ours, theirs = dialogue.text, reply.theirs
            gate.refusal = lambda: PolicyConflict(self._name, ours, theirs)
            self._line.serve_anew(received)
            gate.refusal = None
            return

        self._line.serve_anew(received)
        for turn in gate.hopeless(received, number):
            self._line.dismiss(turn, self._line.refuse(turn, received))

    def _hear(self, push: Push) -> None:
        """Note news that came unasked."""
        if self.loop is None:
            return

        now = self.loop.time()
        self.gate.dialogue.hear_push(push, now)
        self._line.serve_anew(now)
        self.ask()

    def _hear_all(self) -> None:
        """Ask for what may have been pushed before pushes were heard."""
        self.gate.dialogue.miss()
        self.ask()

    def _note_lost(self, error: Exception, now: float) -> None:
        """Note that the server does not answer."""
        name = self._name
        self._lost_at = now

        def refusal() -> Exception:
            refused = StoreError(name, f"it does not answer: {error}")
            refused.__cause__ = error
            return refused

        if self._open_if_lost:
            self.gate.open = True
        else:
            self.gate.refusal = refusal

        self.gate.is_lost = True
        for question in self._questions:
            question.settle(None, refusal())

        _logger.warning("limiter %r: the store does not answer: %r", name, error)
        self._tell(StoreLost(name, error))
        self._line.serve_anew(now)

    def _note_back(self, now: float) -> None:
        """Note that the server answers again."""
        self.gate.is_lost = self.gate.open = False
        self.gate.refusal = None
        _logger.info("limiter %r: the store answers again", self._name)
        self._tell(StoreBack(self._name, now - self._lost_at))

    def _lose_lease(self, now: Micros) -> None:
        """Note that the server has taken what this process holds, or may have."""
        lost = self.gate.dialogue.lose_all(now)
        _logger.warning("limiter %r: the lease of %d calls is over", self._name, lost)
        self._tell(LeaseExpired(self._name, lost))

    def _tell(self, event: Event) -> None:
        if self._line.observer is not None:
            tell(self._line.observer, event)

    def _census(self) -> tuple[int, int, int]:
        holders = self.gate.slots.holders
        kept = sum(isinstance(turn, KeptTurn) for turn in holders)
        return len(self._line.queue), len(holders) if self.gate.holds else 0, kept
