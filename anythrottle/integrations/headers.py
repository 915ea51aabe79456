"""
What HTTP headers tell of a service's limits: ``pip install anythrottle[httpx2]``.

The extras ``httpx`` and ``aiohttp`` will do as well. This module sends nothing, and asks no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ._exempt import EXEMPT, Exempt
from ._fields import NOTHING_TOLD, Policies, Quota, Told, limits_of, policies_of, states_of
from ._profiles import PLAIN, PROFILES, Profile, QuotaFields, When, profile_of
from ._resets import MOST, amount_of, date_of, pause_of, reset_of, used_of
from ._writing import write_fields

__all__ = (
    "EXEMPT",
    "PLAIN",
    "PROFILES",
    "Exempt",
    "Figures",
    "Profile",
    "Quota",
    "QuotaFields",
    "profile_of",
    "read_figures",
    "write_fields",
)

T = TypeVar("T")

#: How many characters of a value are looked at.
_LONGEST = 1024

#: How long the name of a bucket may be.
_LONGEST_BUCKET = 256

#: How many quotas an answer can tell of.
_MOST_QUOTAS = 32

#: The headers that are lists, which may come in several parts.
_LISTS = frozenset({"ratelimit", "ratelimit-policy", "ratelimit-limit"})


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What the headers of an answer tell.

    :ivar quotas: what is left, at most 32
    :ivar refused: whether the answer is a refusal: the call may go again later
    :ivar certain: whether the refusal says that the server did nothing
    :ivar final: whether the server has asked not to send this call again
    :ivar retry_after: after a refusal, the seconds until the call may go again, above 0; infinity
        if they are more than can be; ``None`` if none are told
    :ivar bucket: the name of the set of quotas that these are of, if told
    :ivar everywhere: whether a refusal is for all hosts and keys
    :ivar malformed: the names of the headers that could not be read, or not all of them, in lower
        case
    """

    quotas: tuple[Quota, ...] = ()
    refused: bool = False
    certain: bool = False
    final: bool = False
    retry_after: float | None = None
    bucket: str | None = None
    everywhere: bool = False
    malformed: tuple[str, ...] = ()


_NOTHING = Figures()


def read_figures(
    status: int, headers: Iterable[tuple[str, str]], profile: Profile = PLAIN, *, utc: float
) -> Figures:
    """
    Return what the headers of an answer tell.

    >>> headers = [("RateLimit", '"default";r=3;t=20'), ("RateLimit-Policy", '"default";q=9;w=60')]
    >>> read_figures(200, headers, utc=0).quotas
    (Quota(unit='calls', limit=9, window=60.0, remaining=3, reset_after=20.0),)

    >>> read_figures(429, [("Retry-After", "7")], utc=0).retry_after
    7.0

    No header makes it raise. What cannot be read, is negative or above 10^15 is taken for not told;
    at most 1024 characters of a value are looked at. If a header comes more than once, the first
    one counts; headers that are lists are joined.

    :param status: the status of the answer
    :param headers: names and values as they came, each of those that came more than once
    :param profile: which headers there are, and what they mean
    :param utc: the time by this machine's clock, in seconds since 1970; used if the answer has no
        ``Date`` that can be read
    """
    known = profile.known
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key in known:
            _note(found, key, value)

    when = profile.refusals.get(status)
    if when is None and len(found) == ("date" in found):
        return _NOTHING

    return _Reading(found, profile, utc).figures(status, when)


def _note(found: dict[str, str], name: str, value: str) -> None:
    """Keep the value of a header, joined with what came before if it is a list."""
    if name not in found:
        found[name] = value[: _LONGEST + 1]
    elif name in _LISTS and len(found[name]) <= _LONGEST:
        found[name] = f"{found[name]}, {value}"[: _LONGEST + 1]


class _Reading:
    """The headers of one answer, while they are read."""

    __slots__ = ("_found", "_malformed", "_profile", "_utc")

    def __init__(self, found: dict[str, str], profile: Profile, utc: float) -> None:
        self._found = found
        self._profile = profile
        self._utc = utc
        #: The names, as a set that keeps its order.
        self._malformed: dict[str, None] = {}

    def figures(self, status: int, when: When | None) -> Figures:
        """Return what they tell."""
        quotas = self._quotas()
        told = None if when is None else self._retry_after()
        used_up = [quota.reset_after for quota in quotas if quota.remaining == 0]
        refused = when == "always" or (when == "told" and (told is not None or bool(used_up)))
        if refused and told is None:
            told = max((reset for reset in used_up if reset), default=None)

        profile = self._profile
        header, value = profile.everywhere or ("", "")
        return Figures(
            quotas,
            refused=refused,
            certain=refused and status not in profile.doubtful,
            final=self._text("x-should-retry").lower() == "false",
            retry_after=told if refused else None,
            bucket=self._bucket(),
            everywhere=profile.everywhere is not None and self._text(header).lower() == value,
            malformed=tuple(self._malformed),
        )

    def _text(self, name: str) -> str:
        """Return what a header says, without spaces around it; nothing if there is none."""
        return self._found.get(name, "")[:_LONGEST].strip()

    def _read(self, name: str | None, parse: Callable[[str], T | None]) -> T | None:
        """Return what a header tells, and note it if that cannot be read."""
        if name is None or name not in self._found:
            return None

        told = parse(self._text(name))
        if told is None:
            self._malformed[name] = None

        return told

    def _now(self) -> float:
        """Return the server's time, in seconds since 1970."""
        date = self._read("date", date_of)
        return self._utc if date is None else date

    def _retry_after(self) -> float | None:
        """Return for how many seconds to wait, by the first header that asks for any."""
        for name, scale in self._profile.retry_after:
            told = self._read(name, partial(pause_of, scale=scale, now=self._now))
            if told:
                return told

        return None

    def _bucket(self) -> str | None:
        """Return the name of the set of quotas that these are of."""
        name = self._profile.bucket
        told = "" if name is None else self._text(name)
        if name is not None and len(told) > _LONGEST_BUCKET:
            self._malformed[name] = None
            return None

        return told or None

    def _quotas(self) -> tuple[Quota, ...]:
        """Return what is left, first by the profile, then by the drafts."""
        policies = Policies(self._told("ratelimit-policy", policies_of))
        quotas: list[Quota] = []
        for fields in self._profile.rows:
            quota = self._row(fields, policies)
            if quota is not None:
                quotas.append(quota)

        states = self._told("ratelimit", states_of)
        quotas.extend(policies.join(name, quota) for name, quota in states.quotas)
        quotas.extend(policies.rest())
        return tuple(quotas[:_MOST_QUOTAS])

    def _told(self, name: str, parse: Callable[[str], Told]) -> Told:
        """Return what a field of the drafts tells; without the last item if it is too long."""
        text = self._found.get(name)
        if text is None:
            return NOTHING_TOLD

        too_long = len(text) > _LONGEST
        told = parse((text[:_LONGEST].rpartition(",")[0] if too_long else text).strip())
        if too_long or not told.clean:
            self._malformed[name] = None

        return told

    def _row(self, fields: QuotaFields, policies: Policies) -> Quota | None:
        """Return what the headers of one quota tell, or ``None`` if that is nothing."""
        unit = fields.unit
        remaining = self._read(fields.remaining, amount_of)
        limit = None
        limits = self._read(fields.limit, partial(limits_of, unit=unit))
        if limits is not None:
            limit, others = limits
            policies.add(others)

        used = self._read(fields.used_of, used_of)
        overdrawn = 0
        if used is not None:
            limit = used[1] if limit is None else limit
            remaining = max(used[1] - used[0], 0) if remaining is None else remaining
            overdrawn = max(used[0] - used[1], 0)

        reset = self._reset(fields)
        if limit is None and remaining is None:
            return None

        more_after = _more_after(fields, limit, remaining, reset, overdrawn)
        quota = Quota(unit, limit, fields.window, remaining, more_after)
        return quota if fields.window else policies.join(None, quota)

    def _reset(self, fields: QuotaFields) -> float | None:
        """Return the seconds until the reset, by the first header that tells it."""
        for name in fields.reset:
            told = self._read(name, partial(reset_of, now=self._now))
            if told is not None:
                return told

        return None


def _more_after(
    fields: QuotaFields,
    limit: int | None,
    remaining: int | None,
    reset: float | None,
    overdrawn: int,
) -> float | None:
    """
    Return the seconds until more than ``remaining`` can be had, or ``None`` if that is unknown.

    :param reset: the seconds until the reset that is told
    :param overdrawn: by how much more than the limit is used
    """
    if remaining is None:
        return None

    out = None if limit is None else limit - remaining
    if out is not None and out <= 0 and (fields.flow or reset is None):
        return None

    if reset is not None:
        return reset / out if fields.flow and out else reset

    if fields.per_second is None:
        return None

    return min((overdrawn + 1) / fields.per_second, float(MOST))
