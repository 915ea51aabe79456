"""What is logged of limiters that the server does not serve: a line or two, not one for each."""

from __future__ import annotations

import logging
from typing import final

from .._errors import StoreError

_logger = logging.getLogger("anythrottle")


@final
class Reports:
    """
    What a store's limiters report of failures, and what is logged of that.

    An outage hits all limiters alike, and there may be thousands. So the first one is named, others
    only if something else has happened to them; and it is said when all are served again.

    :ivar last_error: the error of the latest exchange that has failed
    """

    __slots__ = ("_kinds", "_lost", "_most", "_unheard", "last_error")

    def __init__(self) -> None:
        self.last_error: Exception | None = None
        #: The limiters that are not served.
        self._lost: set[str] = set()
        #: How many there have been at once in this outage, at most.
        self._most = 0
        #: The kinds of errors that have been logged in it.
        self._kinds: set[str] = set()
        self._unheard: list[tuple[str, Exception]] = []

    def note_failure(self, error: Exception) -> None:
        """Note why an exchange has failed."""
        self.last_error = error

    def note_lost(self, error: StoreError) -> None:
        """Note that a limiter is not served any more, or for another reason than before."""
        self._lost.add(error.name)
        self._most = max(self._most, len(self._lost))
        kind = _kind(error)
        if kind not in self._kinds:
            self._kinds.add(kind)
            _logger.warning(
                "limiter %r: the store does not serve it: %s; of others to which this happens, no "
                "more is said until all are served again",
                error.name,
                error.reason,
            )

    def note_back(self, name: str) -> None:
        """Note that a limiter is served again."""
        self._lost.discard(name)
        if not self._lost and self._kinds:
            others = f", as it does all {self._most} that it did not" if self._most > 1 else ""
            _logger.info("limiter %r: the store answers again%s", name, others)
            self._kinds.clear()
            self._most = 0

    def note_unheard(self, name: str, error: Exception) -> None:
        """Note that the server has not heard the last that a limiter had to say."""
        self._unheard.append((name, error))

    def close(self) -> None:
        """Note that the store was left."""
        if self._unheard:
            name, error = self._unheard[0]
            _logger.warning(
                "limiter %r: the store was left unheard, by %d in all: %r; what they held is free "
                "when it expires",
                name,
                len(self._unheard),
                error,
            )

        self._unheard.clear()


def _kind(error: StoreError) -> str:
    """Return what errors of one kind have in common, whatever their limiters."""
    return type(error.__cause__).__name__
