"""The task that talks to the server about one limiter: the only one that awaits it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import final

import anyio

from .._errors import PolicyConflict, StoreError
from .._events import LeaseExpired
from .._limiters.line import WaitLine
from .._limiters.turn import KeptTurn
from .._loops.event_loop import EventLoop, Parked
from .exchange import Amounts, Push, Reply, Request
from .insurance import Insurance
from .outage import Outage
from .question import Question
from .refusal import silence
from .remote_gate import RemoteGate
from .reports import Reports
from .rule_words import in_words
from .server import Server
from .turnstile import Turnstile

_logger = logging.getLogger("anythrottle")

#: How long to wait before a request that has failed is sent again, in seconds: at first, at most.
_FIRST_RETRY, _LAST_RETRY = 0.05, 1.0

#: For how long a courier with nothing to do stays, in seconds.
_IDLE = 10.0

#: How many exchanges it makes at most when the store is left: one that is pending, one to give
#: back, and one for what that has brought.
_LAST_EXCHANGES = 3


@final
class Courier:
    """
    Carries requests to the server, and serves the line with what comes back.

    :param line: the line of the limiter
    :param gate: its gate
    :param server: the server, or its substitute
    :param open_if_lost: whether calls pass uncharged while the server does not answer
    :param reports: logs what fails
    :param insurance: the limiter that stands in; its calls come back when the server answers again

    :ivar failures: how often an exchange has failed
    :ivar exchanges: how many have been answered
    :ivar ends_at: when it is idle if there is nothing to do
    """

    __slots__ = (
        "_asked",
        "_asking",
        "_line",
        "_name",
        "_outage",
        "_questions",
        "_reports",
        "_server",
        "_sleeper",
        "ends_at",
        "exchanges",
        "failures",
        "gate",
        "loop",
    )

    def __init__(
        self,
        line: WaitLine,
        gate: RemoteGate,
        server: Server,
        *,
        open_if_lost: bool,
        reports: Reports,
        insurance: Insurance | None = None,
    ) -> None:
        self._line = line
        self._outage = Outage(line, gate, reports, insurance, opens=open_if_lost)
        self._reports = reports
        self.gate = gate
        self._server = server
        self._name = gate.name
        self.loop: EventLoop | None = None
        self._sleeper = Parked()
        self._sleeper.parked = None
        self._asked = False
        self._questions: list[Question] = []
        #: The question that the pending request asks.
        self._asking: Question | None = None
        self.ends_at = line.clock.estimate() + _IDLE
        self.exchanges = 0
        self.failures = 0

    def ask(self) -> None:
        """Make the courier look at once whether an exchange is to be made."""
        self._asked = True
        if self._sleeper.parked is not None and self.loop is not None:
            self.loop.wake(self._sleeper)

    async def run(self) -> None:
        """Talk to the server, until there has been nothing to say for a while."""
        self.loop = loop = self._line.clock.loop()
        node = self.gate.dialogue.node
        while True:
            async with self._server.listen(self._name, node, self._hear, self._hear_all):
                await self._talk(loop)

            if not self._asked:
                return

    async def _talk(self, loop: EventLoop) -> None:
        while True:
            self._asked = False
            now = loop.time()
            until = self.gate.next_at(now)
            if until <= now or self._questions:
                await self._exchange(loop)
            elif until < inf:
                await loop.park_until(self._sleeper, until)
            else:
                self.ends_at = now + _IDLE
                # It goes on listening for longer, because the server may lose its state.
                until = now + max(_IDLE, self.gate.dialogue.terms.attention)
                await loop.park_until(self._sleeper, until)
                if not self._asked and loop.time() >= until:
                    # run() notices what is asked for from now on, when it has stopped listening.
                    return

    async def leave(self) -> None:
        """Give back what is not used, in a few last exchanges; answer no more questions."""
        dialogue, name = self.gate.dialogue, self._name
        self._refuse(lambda: StoreError(name, "the store was left while the call waited"))
        loop = self.loop
        if loop is None or not (dialogue.clock.known or dialogue.pending):
            return

        # If nothing is held, a server that is known to be away need not be reported again.
        matters = dialogue.holds_something() or self._outage.refusal is None
        dialogue.fetch_no_more()
        if not dialogue.has_last_words():
            return

        error: Exception | None = silence(dialogue.terms.deadline)
        with anyio.move_on_after(dialogue.terms.deadline, shield=True):
            turnstile = self._server.turnstile(name)
            error = await turnstile.enter(known=True) or await self._leave_through(loop, turnstile)

        if error is not None and matters:
            self._reports.note_unheard(name, error)

    async def _leave_through(self, loop: EventLoop, turnstile: Turnstile) -> Exception | None:
        """Make the last exchanges; return ``None``, or why one has failed."""
        dialogue = self.gate.dialogue
        try:
            for _ in range(_LAST_EXCHANGES):
                was_pending = dialogue.pending is not None
                sent = loop.time()
                dialogue.account.recall(sent)
                request = dialogue.request(sent, ())
                reply = await self._server.exchange(self._name, request)
                received = loop.time()
                turnstile.note_answer(sent, received)
                dialogue.hear_reply(reply, sent, received)
                if not (was_pending or dialogue.pending or dialogue.account.stock.total):
                    break
        except Exception as exc:  # noqa: BLE001 - of whatever client
            return exc
        finally:
            turnstile.leave()

        return None

    async def answer(self, probe: Amounts = (), *, count_all: bool = False) -> Reply:
        """
        Return the server's answer to a question.

        :raises ~anythrottle.StoreError: if it does not answer
        """
        if self._outage.refusal is not None:
            raise self._outage.refusal()

        question = Question(probe, count_all=count_all)
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
        """Make one exchange, and try again until it is answered."""
        turnstile = self._server.turnstile(self._name)
        retry = _FIRST_RETRY
        while True:
            error = await turnstile.enter(known=self.gate.dialogue.clock.known)
            if error is None:
                try:
                    error = await self._try(loop, turnstile)
                finally:
                    turnstile.leave()

                if error is None:
                    return

            if self.gate.is_lost:
                self._outage.go_on(error, loop.time())
            else:
                self._refuse(self._outage.begin(error, loop.time()))

            await anyio.sleep(retry)
            retry = min(2 * retry, _LAST_RETRY)

    async def _try(self, loop: EventLoop, turnstile: Turnstile) -> Exception | None:
        """
        Try to make an exchange, until the deadline; once only if the server was away before.

        :return: ``None`` if it is answered, or why it is not
        """
        dialogue, gate = self.gate.dialogue, self.gate
        began = loop.time()
        deadline = began + dialogue.terms.deadline
        retry = _FIRST_RETRY
        # The latest failure with a reason: an attempt that is cut off has none.
        cause: Exception | None = None
        while True:
            now = loop.time()
            if dialogue.has_lapsed(now):
                self._note_lease_lost(dialogue.lapse(now))
                # This process must stay silent until the server has noticed it too.
                await anyio.sleep(max(dialogue.surely_lapsed_at() - now, 0.0))
                continue

            if not dialogue.clock.known:
                # Else the first grants would be over when they come, if the server is far away.
                dialogue.clock.round_trip = turnstile.round_trip

            request = self._request(now)
            sent = loop.time()
            reply = failure = None
            with anyio.move_on_after(dialogue.terms.deadline if gate.is_lost else deadline - sent):
                try:
                    reply = await self._server.exchange(self._name, request)
                except Exception as exc:  # noqa: BLE001 - of whatever client
                    cause = failure = exc

            received = loop.time()
            if reply is not None:
                turnstile.note_answer(sent, received)
                self._hear_reply(reply, sent, received)
                return None

            self.failures += 1
            error = cause or silence(dialogue.terms.deadline)
            self._reports.note_failure(error)
            # A mistake does not pass by itself, so it is not tried again here.
            is_mistake = isinstance(failure, StoreError) and failure.is_mistake
            if gate.is_lost or is_mistake or received + retry >= deadline:
                # Exchanges in line would fail too, unless another one was answered meanwhile.
                turnstile.refuse(error, began)
                return error

            await anyio.sleep(retry)
            retry = min(2 * retry, _LAST_RETRY)

    def _request(self, now: float) -> Request:
        """Return what to say to the server now."""
        dialogue, gate = self.gate.dialogue, self.gate
        if dialogue.pending is None:
            self._asking = self._questions[0] if self._questions else None

        question = self._asking
        return dialogue.request(
            now,
            gate.wants(),
            census=self._census(),
            count_all=question is not None and question.count_all,
            probe=() if question is None else question.probe,
        )

    def _hear_reply(self, reply: Reply, sent: float, received: float) -> None:
        dialogue, gate = self.gate.dialogue, self.gate
        number = dialogue.number
        self.exchanges += 1
        if gate.is_lost:
            self._outage.end(received)

        if reply.status == "buried" and dialogue.account.running:
            self._note_lease_lost(dialogue.lose_all(reply.news.now))

        answers = dialogue.hear_reply(reply, sent, received)
        if reply.status == "conflict":
            self._note_conflict(reply, received)
            return

        question = self._asking
        if question is not None and reply.status in ("done", "buried"):
            self._questions = [each for each in self._questions if each is not question]
            question.settle(reply, None)

        self._line.serve_anew(received)
        hopeless = gate.hopeless(received, number) if answers else ()
        for turn in hopeless:
            self._line.dismiss(turn, self._line.refuse(turn, received))

        if hopeless:
            # Turns that stood behind one of them may go.
            self._line.serve_anew(received)

    def _hear(self, push: Push) -> None:
        """Note news that came unasked."""
        assert self.loop is not None, "nothing listens before"
        now = self.loop.time()
        self.gate.dialogue.hear_push(push, now)
        self._line.serve_anew(now)
        self.ask()

    def _note_conflict(self, reply: Reply, now: float) -> None:
        """Note that others have other rules: all calls that wait get an error."""
        name = self._name
        ours, theirs = in_words(self.gate.dialogue.text), in_words(reply.theirs)

        def refusal() -> Exception:
            return PolicyConflict(name, ours, theirs)

        self._refuse(refusal)
        self.gate.refusal = refusal
        self._line.serve_anew(now)
        self.gate.refusal = None

    def _refuse(self, refusal: Callable[[], Exception]) -> None:
        """Answer all questions with an error."""
        questions, self._questions = self._questions, []
        for question in questions:
            question.settle(None, refusal())

    def _hear_all(self) -> None:
        """Ask for what may have been pushed before pushes were heard."""
        self.gate.dialogue.miss()
        self.ask()

    def _note_lease_lost(self, lost: int) -> None:
        """Report that the server has taken, or may have, what so many calls here hold."""
        if lost:
            _logger.warning("limiter %r: the lease of %d calls is over", self._name, lost)
            self._line.tell(LeaseExpired, lost)

    def _census(self) -> tuple[int, int, int]:
        holders = self.gate.slots.holders
        kept = sum(isinstance(turn, KeptTurn) for turn in holders)
        return len(self._line.queue), len(holders) if self.gate.holds else 0, kept
