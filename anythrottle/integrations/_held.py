"""What a call holds from its answer's headers until the body is over."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from typing import TypeAlias, final

from .._loops.event_loop import EventLoop
from .._policies.policy import Cost
from ..abc import Permit

_logger = logging.getLogger("anythrottle")

#: How much of a body is kept for ``settle``, in bytes.
_MOST = 4 * 2**20

#: What an event stream says at its end: a reader need not wait for the end of the connection.
_LAST_EVENT = re.compile(
    rb"^(data: ?\[DONE\]|event: ?(message_stop|response\.(completed|incomplete)))", re.MULTILINE
)

#: Returns what a call has cost, from the whole body as it came; ``None`` leaves the estimate.
Settle: TypeAlias = Callable[[bytes], Cost | None]


@final
class HeldCall:
    """
    A call whose answer has begun: its slot, and its charge, until the body is over.

    :param loop: the event loop of the call
    :param permit: the permit of the call
    :param settle: returns what the call has cost; ``None`` if there is nothing to settle
    :param after: called when the call is settled, before it ends

    """

    __slots__ = ("_after", "_body", "_ended", "_loop", "_permit", "_settle", "_size")

    def __init__(
        self, loop: EventLoop, permit: Permit, settle: Settle | None, after: Callable[[], None]
    ) -> None:
        self._permit = permit
        self._settle = settle
        self._after = after
        self._loop = loop
        self._body: list[bytes] = []
        self._size = 0
        self._ended = False

    def take(self, chunk: bytes) -> None:
        """Take note of a part of the body."""
        if self._settle is not None:
            self._size += len(chunk)
            if self._size <= _MOST:
                self._body.append(chunk)
            else:
                self._body.clear()

    def end(self, *, complete: bool = False) -> None:
        """
        End the call; a second time, do nothing.

        :param complete: whether the whole body has been taken
        """
        if self._ended:
            return

        self._ended = True
        whole = complete or (self._settle is not None and bool(self._body) and self._is_told())
        try:
            self.settle(complete=whole and self._size <= _MOST)
        finally:
            self._settle = None
            self._body.clear()
            self._permit.end()

    def _is_told(self) -> bool:
        """Return whether the body that was taken is an event stream which has said that it ends."""
        return _LAST_EVENT.search(b"".join(self._body)) is not None

    def settle(self, *, complete: bool) -> None:
        """
        Settle the call by its body, and do what is to be done after that; nothing here raises.

        :param complete: whether the body that was taken is the whole
        """
        if self._settle is None:
            return

        if not complete:
            _logger.info(
                "an answer was not read to its end (or is above 4 MiB): its call's estimate stays"
            )
            return

        try:
            cost = self._settle(b"".join(self._body))
            if cost is not None:
                self._permit.settle(cost)

            self._after()
        except Exception:
            _logger.exception("settle failed: the estimate of what the call costs stays")

    def lose(self) -> None:
        """
        End the call in its own event loop, because its answer was dropped without being closed.

        This may be called by the garbage collector, in any thread and at any time.
        """
        if not self._ended:
            # First, because a warning may be raised as an error.
            self._loop.post(self._end_lost)
            warnings.warn(
                "an answer was dropped before it was read or closed: its call has held its slot "
                "until now; close it, or read it to its end",
                ResourceWarning,
                stacklevel=2,
            )

    def _end_lost(self) -> None:
        try:
            self.end()
        except Exception:
            # Only a user's own permit raises. An event loop has no caller to raise it to.
            _logger.exception("a call whose answer was dropped could not be ended")
