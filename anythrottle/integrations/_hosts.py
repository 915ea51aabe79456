"""The limiters of a throttled client, by host or key, and what their answers have told."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from math import inf
from typing import Any, TypeAlias, final
from weakref import WeakKeyDictionary

from .._limiters.keyed import KeyedLimiter
from .._limiters.rate_limiter import RateLimiter
from .._loops.clock import LoopClock, weakly
from .._policies.text import as_policy
from ..abc import AdjustableLimiter, Limiter
from ._feedback import Limits

_logger = logging.getLogger("anythrottle")

#: What a client may be given: a text form, one limiter for all, or one for each host or key.
ClientLimiter: TypeAlias = "str | Limiter | KeyedLimiter[Any, Any]"  # pyright: ignore[reportExplicitAny] # of the user's own keys

#: For how many hosts it is remembered that malformed fields of theirs were logged.
_LOGGED = 1024


@final
class Known:
    """
    What is known of the server behind a limiter.

    :ivar learns: whether its limits are to become the limiter's
    :ivar first: lets one request go alone, until an answer has come that can be learned from
    :ivar bucket: the name of the server's bucket that the limiter stands for
    :ivar limits: what was learned last
    :ivar paused_until: up to when it was paused because all were, by the client's clock

    """

    __slots__ = ("bucket", "first", "learns", "limits", "paused_until")

    def __init__(self, *, learns: bool) -> None:
        self.learns = learns
        self.first = RateLimiter(concurrency=1, name="the first request") if learns else None
        self.bucket: str | None = None
        self.limits: Limits | None = None
        self.paused_until = -inf

    def note_answer(self) -> None:
        """Release all requests that wait for the first answer, in their order."""
        first, self.first = self.first, None
        if first is not None:
            first.reconfigure(concurrency=None)


@final
class Hosts:
    """
    The limiters of a client's requests.

    :param limiter: a text form makes one limiter for each key, measured from the end of the call
        unless the text says otherwise
    :param learn: whether the limiters' policies are to become the server's
    :raises TypeError: if it is no limiter, or one that cannot learn
    :raises ValueError: if a text is not a limit

    """

    __slots__ = (
        "__weakref__",
        "_all_paused_until",
        "_keyed",
        "_known",
        "_known_of_all",
        "_learn",
        "_limiter",
        "_logged",
        "clock",
    )

    def __init__(self, limiter: ClientLimiter, *, learn: bool) -> None:
        self._learn = learn
        self._limiter: Limiter | None = None
        self._keyed: KeyedLimiter[Hashable, Limiter] | None = None
        #: What is known of the one limiter for all, which need not support weak references.
        self._known_of_all = Known(learns=learn)
        if isinstance(limiter, str):
            policy = as_policy(limiter, "end")
            self._keyed = KeyedLimiter(lambda _: RateLimiter(policy))
        elif isinstance(limiter, KeyedLimiter):
            self._keyed = limiter
        elif isinstance(limiter, Limiter) and not isinstance(limiter, type):
            self._limiter = limiter
            self._check_learns(limiter)
        else:
            raise TypeError(
                f"limiter must be a text such as '20/10s', a limiter or a KeyedLimiter, "
                f"not {limiter!r}"
            )

        self._known = WeakKeyDictionary[Limiter, Known]()
        self.clock = LoopClock(weakly(self._shift), "the throttled client")
        #: Up to when all are paused, those that come later included.
        self._all_paused_until = -inf
        self._logged: set[Hashable] = set()

    def limiter_of(self, key: Hashable) -> tuple[Limiter, Known]:
        """
        Return the limiter for a key, paused if all are, and what is known of its server.

        :raises ~anythrottle.LimitExceeded: if there are as many keys as there may be
        :raises TypeError: if it is to learn, and cannot
        """
        if self._keyed is None:
            assert self._limiter is not None
            return self._limiter, self._known_of_all

        limiter = self._keyed[key]
        known = self._known.get(limiter)
        if known is None:
            self._check_learns(limiter)
            known = self._known[limiter] = Known(learns=self._learn)

        until = self._all_paused_until
        if known.paused_until < until and (now := self.clock.now()) < until:
            self._pause(limiter, known, now)

        return limiter, known

    def pause_all(self, seconds: float) -> None:
        """Pause the limiters of all keys: those in use at once, others when they come."""
        now = self.clock.now()
        self._all_paused_until = max(self._all_paused_until, now + seconds)
        for limiter, known in list(self._known.items()):
            self._pause(limiter, known, now)

    def log_malformed(self, host: Hashable, names: tuple[str, ...]) -> None:
        """Log, once for each host, that fields of an answer were ignored; their values are not."""
        if host not in self._logged and len(self._logged) < _LOGGED:
            self._logged.add(host)
            _logger.warning("malformed fields of %r are ignored: %s", host, ", ".join(names))

    def _pause(self, limiter: Limiter, known: Known, now: float) -> None:
        known.paused_until = self._all_paused_until
        limiter.pause(self._all_paused_until - now)

    def _check_learns(self, limiter: Limiter) -> None:
        if self._learn and not isinstance(limiter, AdjustableLimiter):
            raise TypeError(
                f"learn=True needs a limiter that can be reconfigured, as "
                f"anythrottle.abc.AdjustableLimiter says, not {limiter!r}"
            )

    def _shift(self, seconds: float) -> None:
        self._all_paused_until += seconds
        for known in self._known.values():
            known.paused_until += seconds
