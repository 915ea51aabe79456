"""The events that observers are called with: frozen records, one for each kind."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ._policies.policy import Decision, Policy
from ._records import setters

_logger = logging.getLogger("anythrottle")


@dataclass(frozen=True, slots=True, init=False)
class Granted:
    """
    A call has its turn, and holds it. It begins next, unless the limiter is paused before it does.

    :ivar name: the limiter's name
    :ivar cost: what the call costs: calls, or amounts by unit
    :ivar waited: how long it has waited for its turn, in seconds

    """

    name: str | None
    cost: int | Mapping[str, int]
    waited: float

    def __init__(self, name: str | None, cost: int | Mapping[str, int], waited: float) -> None:
        _set_name(self, name)
        _set_cost(self, cost)
        _set_waited(self, waited)


_set_name, _set_cost, _set_waited = setters(Granted)


@dataclass(frozen=True, slots=True)
class Refused:
    """
    A call would have to wait and may not, or no longer: :exc:`.LimitExceeded` is raised.

    :ivar name: the limiter's name
    :ivar cost: what the call would cost: calls, or amounts by unit
    :ivar decision: why it would have to wait, and how long

    """

    name: str | None
    cost: int | Mapping[str, int]
    decision: Decision


@dataclass(frozen=True, slots=True)
class Abandoned:
    """
    A call was given up while it waited, or before it could make use of its turn.

    :ivar name: the limiter's name
    :ivar cost: what the call would have cost: calls, or amounts by unit
    :ivar waited: how long it has waited, in seconds

    """

    name: str | None
    cost: int | Mapping[str, int]
    waited: float


@dataclass(frozen=True, slots=True)
class Paused:
    """
    The limiter lets no call pass for a while. No event is sent when a pause expires by itself.

    :ivar name: the limiter's name
    :ivar seconds: for how long from now, earlier pauses included; infinity for until it is resumed

    """

    name: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """
    A pause was ended.

    :ivar name: the limiter's name

    """

    name: str | None


@dataclass(frozen=True, slots=True)
class Settled:
    """
    The charge of a call was corrected.

    :ivar name: the limiter's name
    :ivar before: what it was charged before, by unit
    :ivar after: what it is charged now, by unit

    """

    name: str | None
    before: Mapping[str, int]
    after: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tightened:
    """
    The limiter has taken over a server's figures.

    :ivar name: the limiter's name
    :ivar unit: what they count
    :ivar remaining: how much the server lets pass before its reset
    :ivar reset_after: in how many seconds that is, ``None`` if it did not say

    """

    name: str | None
    unit: str
    remaining: int
    reset_after: float | None


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """
    The limiter goes on with other policies, or another concurrency.

    :ivar name: the limiter's name
    :ivar policies: all its policies from now on

    """

    name: str | None
    policies: tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """
    A call that held something while it ran, a slot or what it was charged, has ended.

    :ivar name: the limiter's name
    :ivar held: for how long, in seconds

    """

    name: str | None
    held: float


@dataclass(frozen=True, slots=True)
class StoreLost:
    """
    The store of a shared limiter does not answer any more, or refuses to serve.

    :ivar name: the limiter's name
    :ivar error: why not: what the last attempt has raised

    """

    name: str | None
    error: Exception


@dataclass(frozen=True, slots=True)
class StoreBack:
    """
    The store of a shared limiter answers again.

    :ivar name: the limiter's name
    :ivar seconds: how long after :class:`StoreLost` that is

    """

    name: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """
    A process was silent for so long that others may have got what its calls hold.

    :ivar name: the limiter's name
    :ivar calls: how many calls have lost what they held

    """

    name: str | None
    calls: int


@dataclass(frozen=True, slots=True)
class Throttled:
    """
    A call has raised :exc:`.ThrottleException` and goes again, from the front.

    The pause, of which a :class:`Paused` is sent, has begun.

    :ivar name: the limiter's name, if a limiter sends the event
    :ivar index: the job's place in the order of first starts, if a :class:`.Throttler`,
        :func:`.amap` or a related function sends the event
    :ivar attempts: how often the call was started so far
    :ivar error: what it has raised
    :ivar item: what was throttled, as in :class:`Started`; ``None`` if a limiter sends the event

    """

    name: str | None
    index: int | None
    attempts: int
    error: BaseException
    item: object = None


@dataclass(frozen=True, slots=True)
class Started:
    """
    A job has been started, by a :class:`.Throttler`, :func:`.amap` or a related function.

    :ivar index: the job's place in the order of first starts, from 0 on
    :ivar item: the job, or the item that it was made for
    :ivar attempts: how often it was started, this time included
    :ivar waited: how long it has waited for its turns so far, in seconds

    """

    index: int
    item: object
    attempts: int
    waited: float


@dataclass(frozen=True, slots=True)
class Retried:
    """
    A job has raised an error after which it is tried again, later; the others go on.

    :ivar index: the job's place in the order of first starts, from 0 on
    :ivar item: the job, or the item that it was made for
    :ivar attempts: how often it was started so far
    :ivar delay: in how many seconds it may be started again
    :ivar error: what it has raised

    """

    index: int
    item: object
    attempts: int
    delay: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class Finished:
    """
    A job has ended well.

    :ivar index: the job's place in the order of first starts, from 0 on
    :ivar item: the job, or the item that it was made for
    :ivar attempts: how often it was started
    :ivar duration: how long the last attempt took, in seconds

    """

    index: int
    item: object
    attempts: int
    duration: float


@dataclass(frozen=True, slots=True)
class Failed:
    """
    A job has ended with an error.

    :ivar index: the job's place in the order of first starts, from 0 on
    :ivar item: the job, or the item that it was made for
    :ivar attempts: how often it was started
    :ivar duration: how long the last attempt took, in seconds
    :ivar error: the error

    """

    index: int
    item: object
    attempts: int
    duration: float
    error: BaseException


#: Any event that an observer may be called with.
Event: TypeAlias = (
    Granted
    | Refused
    | Abandoned
    | Paused
    | Resumed
    | Settled
    | Tightened
    | Reconfigured
    | Ended
    | StoreLost
    | StoreBack
    | LeaseExpired
    | Throttled
    | Started
    | Retried
    | Finished
    | Failed
)

#: A function that is called with each event, at once, after the change that the event describes.
#: It has to return soon. What it raises is logged, and has no other effect.
Observer: TypeAlias = Callable[[Event], None]


def tell(observer: Observer, event: Event) -> None:
    """Call an observer, and log what it raises."""
    try:
        observer(event)
    except (Exception, CancelledError):  # the latter is no cancellation, as nothing is awaited
        _logger.exception("observer %r has failed on %r", observer, event)


def observe_all(*observers: Observer) -> Observer:
    """
    Return an observer that hands each event on to several others.

    >>> from anythrottle import RateLimiter, observe_all
    >>> limiter = RateLimiter("20/10s", observer=observe_all(print, print))
    >>> limiter.pause(60)
    Paused(name=None, seconds=60.0)
    Paused(name=None, seconds=60.0)

    They are called in the order given. What one of them raises is logged, and the others are called
    all the same.

    :param observers: functions that are told of :type:`events <anythrottle.abc.Event>`
    :raises TypeError: if one of them cannot be called

    """
    for observer in observers:
        if not callable(observer):
            raise TypeError(f"observers must be functions of one argument, not {observer!r}")

    def observe(event: Event) -> None:
        for observer in observers:
            tell(observer, event)

    return observe


def check_observer(observer: object) -> None:
    """
    Raise if a value cannot be an observer.

    :raises TypeError: if it cannot be called

    """
    if observer is not None and not callable(observer):
        raise TypeError(f"observer must be a function of one argument, not {observer!r}")
