"""An observer that writes events to a log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import isinf
from typing import Final, TypeAlias, final

from .._events import (
    Abandoned,
    Ended,
    Event,
    Failed,
    Finished,
    Granted,
    LeaseExpired,
    Paused,
    Reconfigured,
    Refused,
    Resumed,
    Retried,
    Settled,
    Started,
    StoreBack,
    StoreLost,
    Throttled,
    Tightened,
)

__all__ = ("LoggingObserver",)

#: How much each kind of event matters.
_LEVELS: Final[Mapping[type[Event], int]] = {
    Granted: logging.DEBUG,
    Refused: logging.INFO,
    Abandoned: logging.DEBUG,
    Paused: logging.WARNING,
    Resumed: logging.INFO,
    Settled: logging.DEBUG,
    Tightened: logging.DEBUG,
    Reconfigured: logging.INFO,
    Ended: logging.DEBUG,
    StoreLost: logging.WARNING,
    StoreBack: logging.INFO,
    LeaseExpired: logging.WARNING,
    Throttled: logging.WARNING,
    Started: logging.DEBUG,
    Retried: logging.WARNING,
    Finished: logging.DEBUG,
    Failed: logging.ERROR,
}

#: What the library logs by itself, to the parent of the default logger.
_LOGGED_ANYHOW: Final = (StoreLost, StoreBack, LeaseExpired)


@final
class LoggingObserver:
    """
    Writes a line to a log for each event; to be given to limiters, throttlers and the like.

    >>> import logging
    >>> from anythrottle import RateLimiter
    >>> from anythrottle.integrations.logs import LoggingObserver
    >>> observer = LoggingObserver(logging.getLogger("my_program.limits"))
    >>> limiter = RateLimiter("20/10s", name="geocoder", observer=observer)

    After ``limiter.pause(60)`` the log has a line ``limiter 'geocoder': paused for 60 s``.

    What goes well (turns, ends, corrections) is at level DEBUG; refusals and changes are at INFO;
    pauses, what was throttled or goes again, and a store that is lost, at WARNING; a job that has
    failed at ERROR. Items are never written, because it is unknown what they hold.

    :param logger: where to write; ``None`` for ``logging.getLogger("anythrottle.events")``. There,
        what is told of a store is at DEBUG, because the library logs it by itself
    :raises TypeError: if ``logger`` is not a logger

    """

    __slots__ = ("_levels", "_logger")

    def __init__(self, logger: logging.Logger | None = None) -> None:
        if logger is not None and not isinstance(logger, logging.Logger):
            raise TypeError(f"logger must be a logging.Logger, not {logger!r}")

        self._levels = dict(_LEVELS)
        if logger is None:
            logger = logging.getLogger("anythrottle.events")
            self._levels.update(dict.fromkeys(_LOGGED_ANYHOW, logging.DEBUG))

        self._logger = logger

    def __call__(self, event: Event) -> None:
        """
        Write what an event tells of.

        :param event: any event

        """
        level = self._levels[type(event)]
        if self._logger.isEnabledFor(level):
            text, values = _line_of(event)
            self._logger.log(level, text, *values)

    def __repr__(self) -> str:
        return f"<LoggingObserver {self._logger.name!r}>"


#: A text with places, and what to put there.
_Line: TypeAlias = tuple[str, tuple[object, ...]]


def _line_of(event: Event) -> _Line:
    """Return what to write of an event, with the job or limiter that it is of in front."""
    match event:
        case Started() | Retried() | Finished() | Failed() | Throttled(index=int(_)):
            text, values = _of_job(event)
            return f"job %d: {text}", (event.index, *values)
        case _:
            text, values = _of_store(event) or _of_change(event) or _of_call(event)
            whose = "limiter" if event.name is None else f"limiter {event.name!r}"
            return f"%s: {text}", (whose, *values)


def _of_job(event: Started | Retried | Finished | Failed | Throttled) -> _Line:
    match event:
        case Started(attempts=attempts, waited=waited):
            return "started, attempt %d, after %.3g s in line", (attempts, waited)
        case Throttled(attempts=attempts, error=error):
            return "was throttled in attempt %d: %r", (attempts, error)
        case Retried(attempts=attempts, delay=delay, error=error):
            return "failed in attempt %d, goes again in %.3g s: %r", (attempts, delay, error)
        case Finished(attempts=attempts, duration=duration):
            return "done in attempt %d, after %.3g s", (attempts, duration)
        case _:
            text = "failed in attempt %d, after %.3g s: %r"
            return text, (event.attempts, event.duration, event.error)


def _of_store(event: Event) -> _Line | None:
    match event:
        case StoreLost(error=error):
            return "the store does not serve it: %r", (error,)
        case StoreBack(seconds=seconds):
            return "the store answers again, after %.3g s", (seconds,)
        case LeaseExpired(calls=calls):
            return "the lease of %d calls is over", (calls,)
        case _:
            return None


def _of_change(event: Event) -> _Line | None:
    match event:
        case Paused(seconds=seconds):
            return ("paused", ()) if isinf(seconds) else ("paused for %.3g s", (seconds,))
        case Resumed():
            return "resumed", ()
        case Tightened(unit=unit, remaining=remaining, reset_after=None):
            return "tightened to %d %s", (remaining, unit)
        case Tightened(unit=unit, remaining=remaining, reset_after=reset_after):
            return "tightened to %d %s within %.3g s", (remaining, unit, reset_after)
        case Reconfigured(policies=policies):
            return "goes on with %s", (", ".join(map(repr, policies)) or "no policy",)
        case _:
            return None


def _of_call(event: Event) -> _Line:
    match event:
        case Granted(cost=cost, waited=waited):
            return "granted %s after %.3g s", (_words(cost), waited)
        case Refused(cost=cost, decision=decision):
            why = decision.reason, decision.retry_after
            return "refused %s: %s, could go in %.3g s", (_words(cost), *why)
        case Abandoned(cost=cost, waited=waited):
            return "abandoned %s after %.3g s", (_words(cost), waited)
        case Settled(before=before, after=after):
            return "settled %s, not %s", (_words(after), _words(before))
        case Ended(held=held):
            return "ended after %.3g s", (held,)
        case _:
            assert isinstance(event, Throttled)
            return _of_job(event)


def _words(cost: int | Mapping[str, int]) -> str:
    """Return a cost in words."""
    if cost == 1:
        return "1 call"

    amounts = {"calls": cost} if isinstance(cost, int) else cost
    return ", ".join(f"{amount} {unit}" for unit, amount in amounts.items()) or "nothing"
