"""What the callers of a limiter get while the server does not serve it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import final

from .._errors import StoreError
from .._events import StoreBack, StoreLost
from .._limiters.line import WaitLine
from .insurance import Insurance
from .refusal import refusal_of
from .remote_gate import RemoteGate
from .reports import Reports


@final
class Outage:
    """
    Opens and closes the gate of a limiter by whether the server serves it.

    :param line: the line of the limiter
    :param gate: its gate
    :param reports: logs it
    :param insurance: the limiter that stands in; its calls come back when the server answers again
    :param opens: whether calls pass uncharged meanwhile

    :ivar refusal: makes the error of callers; ``None`` while the server answers
    """

    __slots__ = ("_gate", "_insurance", "_line", "_opens", "_reports", "_since", "refusal")

    def __init__(
        self,
        line: WaitLine,
        gate: RemoteGate,
        reports: Reports,
        insurance: Insurance | None,
        *,
        opens: bool,
    ) -> None:
        self._line = line
        self._gate = gate
        self._reports = reports
        self._insurance = insurance
        self._opens = opens
        self._since = inf
        self.refusal: Callable[[], StoreError] | None = None

    def begin(self, error: Exception, now: float) -> Callable[[], StoreError]:
        """Note that the server does not answer, or refuses; return what makes the error."""
        refusal = self._note_reason(error)
        self._since = now
        self._gate.is_lost = True
        self._line.tell(StoreLost, error)
        self._line.serve_anew(now)
        return refusal

    def go_on(self, error: Exception, now: float) -> None:
        """Note that it is still so, perhaps for another reason, which callers are told."""
        assert self.refusal is not None, "it has begun"
        if refusal_of(self._gate.name, error).args != self.refusal().args:
            self._note_reason(error)
            self._line.serve_anew(now)

    def end(self, now: float) -> None:
        """Note that the server answers again."""
        self._gate.is_lost = self._gate.open = False
        self._gate.refusal = self.refusal = None
        if self._insurance is not None:
            # Before the observer is told, because it may let newcomers in.
            self._insurance.call_back()

        self._reports.note_back(self._gate.name)
        self._line.tell(StoreBack, now - self._since)

    def _note_reason(self, error: Exception) -> Callable[[], StoreError]:
        """
        Refuse calls from now on; or let them pass, if so set and the error is no mistake.

        :return: what makes the error
        """
        name = self._gate.name

        def refusal() -> StoreError:
            return refusal_of(name, error)

        refused = refusal()
        self._gate.open = self._opens and not refused.is_mistake
        self._gate.refusal = None if self._gate.open else refusal
        self.refusal = refusal
        self._reports.note_lost(refused)
        return refusal
