"""
The messages between a process and the store: frozen records.

An exchange is one request and its reply; a push comes unasked. All instants are whole microseconds
of the server's clock, since the Unix epoch. Amounts and receipts are tuples with one number for
each rule of the limiter, in the order of its rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import quote

#: An instant of the server's clock, or a duration, in whole microseconds.
Micros: TypeAlias = int

#: For each rule: how much is charged.
Amounts: TypeAlias = tuple[int, ...]

#: An instant that never comes: the greatest of those that a double tells apart.
NEVER: Micros = 2**53 - 1

#: For how long the server keeps what has become void.
MARGIN: Micros = 10_000_000

#: What a rule is: a window from the start, one from the end, a token bucket, a fixed window, slots.
Kind: TypeAlias = Literal["window", "end", "bucket", "fixed", "slots"]


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One of the things that must agree to a call: a policy, or the slots.

    :ivar kind: what it is
    :ivar limit: how much there is at most; of a bucket: what flows in during ``window``
    :ivar window: the window's length, 0 for slots
    :ivar extra: of a bucket the burst; of a fixed window the offset from UTC, -1 if it starts with
        its first call; else 0
    :ivar unit: what is counted; it serves only to compare the rules of two processes

    """

    kind: Kind
    limit: float
    window: Micros
    extra: float
    unit: str

    def __str__(self) -> str:
        unit = quote(self.unit, safe="")
        return f"{self.kind}:{self.limit:.17g}:{self.window}:{self.extra:.17g}:{unit}"

    @property
    def holds(self) -> bool:
        """Whether a charge is held while the call runs."""
        return self.kind in ("end", "slots")


def rules_text(rules: Sequence[Rule]) -> str:
    """Return the rules as the server keeps them, and compares them with those of others."""
    return " ".join(map(str, rules))


@dataclass(frozen=True, slots=True)
class Grant:
    """
    Turns for calls that are alike, granted together.

    :ivar number: unique among the grants of its process, ascending
    :ivar due: the instant from which on the calls may start
    :ivar grace: for how long after that they may
    :ivar amounts: what each of them is charged
    :ivar receipts: when what the last of them was charged comes back, provided that it starts at
        the last instant; 0 for what is held. The server knows a charge by it
    :ivar count: how many calls

    """

    number: int
    due: Micros
    grace: Micros
    amounts: Amounts
    receipts: tuple[Micros, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Started:
    """
    Calls that were granted have started: their charges count from ``at`` instead of the latest.

    :ivar at: when, or later
    :ivar amounts: what all of them together were charged
    :ivar receipts: those of the grant
    """

    at: Micros
    amounts: Amounts
    receipts: tuple[Micros, ...]


@dataclass(frozen=True, slots=True)
class GivenBack:
    """
    Something that was charged or held comes back, as far as it is still out.

    It is a grant that was not used, whose charges count as if never made, or a correction.
    """

    amounts: Amounts
    receipts: tuple[Micros, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """What was held counts from ``at`` on: a call has ended, or was counted by its server."""

    at: Micros
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Charged:
    """
    Something is charged at once, due or not.

    :ivar at: when, or later
    :ivar held: whether rules that hold charges hold this one, because it is a running call's
    """

    at: Micros
    amounts: Amounts
    held: bool


@dataclass(frozen=True, slots=True)
class Paused:
    """No call may start before ``until``; of overlapping pauses, the later end holds."""

    until: Micros


@dataclass(frozen=True, slots=True)
class Resumed:
    """Any pause is over."""


@dataclass(frozen=True, slots=True)
class Tightened:
    """
    A service's figures: at most ``remaining`` of a rule may be charged before ``reset``.

    :ivar rule: which rule, by its index
    :ivar reset: when the service counts anew; -1 if that is unknown
    """

    rule: int
    remaining: int
    reset: Micros


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the server has forgotten: a charge to one rule that comes back at ``receipt``."""

    rule: int
    amount: int
    receipt: Micros


@dataclass(frozen=True, slots=True)
class Held:
    """What the server has forgotten: what the process holds."""

    amounts: Amounts


Happening: TypeAlias = (
    Started | GivenBack | Ended | Charged | Paused | Resumed | Tightened | Remembered | Held
)


@dataclass(frozen=True, slots=True)
class Want:
    """How many calls in line, one behind the other, want the same amounts."""

    amounts: Amounts
    count: int


@dataclass(frozen=True, slots=True)
class Request:
    """
    What a process says about one limiter, and what it wants.

    :ivar rules: the rules, as :func:`rules_text` has them
    :ivar node: the process
    :ivar number: ascending by one; a request that is repeated keeps it
    :ivar epoch: which state the process knows, empty for none
    :ivar fresh: the name of the state, if there is none yet
    :ivar expires: after which instant the request is not carried out, because it was given up
    :ivar grace: for how long after its instant a grant shall be valid
    :ivar horizon: how far ahead grants may reach
    :ivar lease: for how long the process may be silent before it counts as dead
    :ivar hold_back: for how long nothing is granted if this request finds the state lost
    :ivar alive: whether the server must know the process, because its lease cannot be over
    :ivar holds: whether the process believes that it holds something
    :ivar census: how many of its calls wait, run and are kept, for :attr:`count_all` of others
    :ivar count_all: whether the censuses of all processes are asked for
    :ivar probe: the amounts of a call, to ask when it could go; empty for no such question
    :ivar received: the grants that have come, by number
    :ivar wants: what the calls in line want, from the front
    :ivar happenings: what has happened since the last request, in order

    """

    rules: str
    node: str
    number: int
    epoch: str
    fresh: str
    expires: Micros
    grace: Micros
    horizon: Micros
    lease: Micros
    hold_back: Micros
    alive: bool
    holds: bool
    census: tuple[int, int, int]
    count_all: bool
    probe: Amounts
    received: tuple[int, ...]
    wants: tuple[Want, ...]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, slots=True)
class Quota:
    """
    What a rule has left.

    :ivar remaining: how much may be charged at once
    :ivar more: until when it stays so, :data:`NEVER` if only the end of a call helps
    :ivar full: when all is there again
    """

    remaining: int
    more: Micros
    full: Micros


@dataclass(frozen=True, slots=True)
class News:
    """
    What the server says in a reply, and in a push.

    :ivar epoch: which state it has
    :ivar now: the server's instant
    :ivar paused_until: until when nothing may start; in the past if there is no pause
    :ivar come: when the process shall come again if it still waits, :data:`NEVER` if it need not
    :ivar due: the earliest instant for the next grant to any process, as foreseen
    :ivar waiting: how many processes wait
    :ivar grants: what was granted to the process and not acknowledged yet
    :ivar served: how many processes waited before something was granted

    """

    epoch: str
    now: Micros
    paused_until: Micros
    come: Micros
    due: Micros
    waiting: int
    grants: tuple[Grant, ...]
    served: int = 0


#: What has become of a request: it was carried out; it was overtaken, or has expired; the state
#: that the process knows is lost; what it held was taken from it; others have other rules.
Status: TypeAlias = Literal["done", "stale", "lost", "buried", "conflict"]


@dataclass(frozen=True, slots=True)
class Reply:
    """
    The answer to a request.

    :ivar status: what has become of it
    :ivar news: what the server says
    :ivar quotas: what each rule has left
    :ivar census: the sum of the censuses of all processes, if it was asked for
    :ivar probed: when the probe's call could go if no process waited, :data:`NEVER` if not before a
        call ends
    :ivar theirs: the rules of the others, if there is a conflict

    """

    status: Status
    news: News
    quotas: tuple[Quota, ...] = ()
    census: tuple[int, int, int] = (0, 0, 0)
    probed: Micros = 0
    theirs: str = ""


@dataclass(frozen=True, slots=True)
class Push:
    """
    News for one process, or for all.

    :ivar node: the process, empty for all that know the limiter; then only ``paused_until`` and
        ``recall`` count
    :ivar recall: whether what is in stock is to go back, because the figures have changed
    """

    node: str
    news: News
    recall: bool = False
