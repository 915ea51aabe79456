"""Reads the fields ``RateLimit`` and ``RateLimit-Policy``, as the IETF's drafts have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias

import http_sf

from .._policies.checks import unit_of
from ._resets import limit_of

#: A value of a structured field, with its parameters.
_Item: TypeAlias = tuple[object, dict[str, object]]

#: How the field ``RateLimit`` begins in the seventh draft, where it is a dictionary.
_DICTIONARY = re.compile(r"(?:limit|remaining|reset)\s*=")


@dataclass(frozen=True, slots=True)
class Quota:
    """
    What an answer tells of one quota; whatever it does not tell is ``None``.

    :ivar unit: what is counted: ``"calls"``, or another unit
    :ivar limit: how much there is per ``window``, at least 1
    :ivar window: the time that the limit is for, in seconds, above 0
    :ivar remaining: how much is left, at least 0
    :ivar reset_after: the seconds until more than that can be had, at least 0; 0 if that instant is
        past
    """

    unit: str
    limit: int | None
    window: float | None
    remaining: int | None
    reset_after: float | None


@dataclass(frozen=True, slots=True)
class Told:
    """
    What a field of the drafts tells.

    :ivar quotas: the quotas, each with its name, ``None`` in drafts that have no names
    :ivar clean: whether all of it could be read
    """

    quotas: tuple[tuple[str | None, Quota], ...] = ()
    clean: bool = True


NOTHING_TOLD = Told()


class Policies:
    """
    The policies that an answer tells of, each of which is joined with what is left by it.

    They are joined by their names or, in the drafts that have no names, by their limits.
    """

    __slots__ = ("_joined", "_policies")

    def __init__(self, told: Told) -> None:
        self._policies = list(told.quotas)
        #: The indexes of those that have been joined.
        self._joined: set[int] = set()

    def add(self, quotas: tuple[Quota, ...]) -> None:
        """Add policies without names."""
        self._policies.extend((None, quota) for quota in quotas)

    def join(self, name: str | None, quota: Quota) -> Quota:
        """
        Return a quota with the limit, window and unit of its policy, if that is told.

        Its policy is the first of its name or, without a name, the only one of its limit.
        """
        if name is None and quota.limit is None:
            return quota

        like = [
            index
            for index, (named, policy) in enumerate(self._policies)
            if named == name
            and (name is not None or (policy.unit, policy.limit) == (quota.unit, quota.limit))
        ]
        if not like or (name is None and len(like) > 1):
            return quota

        self._joined.add(like[0])
        policy = self._policies[like[0]][1]
        return replace(policy, remaining=quota.remaining, reset_after=quota.reset_after)

    def rest(self) -> Iterator[Quota]:
        """Return the policies that have not been joined."""
        return (
            policy for index, (_, policy) in enumerate(self._policies) if index not in self._joined
        )


@lru_cache(maxsize=64)
def policies_of(text: str) -> Told:
    """Return what a ``RateLimit-Policy`` tells."""
    items = _list_of(text)
    if items is None:
        return Told(clean=False)

    quotas: list[tuple[str | None, Quota]] = []
    clean = True
    for value, params in items:
        name = _text_of(value)
        unit = _unit_of(params)
        limit = _whole(value if name is None else params.get("q"), least=1)
        window = _decimal(params.get("w"))
        if unit is None or limit is None or window == 0:
            clean = False
            continue

        clean = clean and (window is not None or "w" not in params)
        quotas.append((name, Quota(unit, limit, window, None, None)))

    return Told(tuple(quotas), clean)


def states_of(text: str) -> Told:
    """Return what a ``RateLimit`` tells."""
    if _DICTIONARY.match(text):
        return _seventh_draft(text)

    items = _list_of(text)
    if items is None:
        return Told(clean=False)

    quotas: list[tuple[str | None, Quota]] = []
    clean = True
    for value, params in items:
        name = _text_of(value)
        unit = _unit_of(params)
        remaining = _whole(params.get("r"))
        if name is None or unit is None or remaining is None:
            clean = False
            continue

        reset = _decimal(params.get("t"))
        exact = _decimal(params.get("anythrottle-t"))
        clean = clean and (reset is not None or "t" not in params)
        clean = clean and (exact is not None or "anythrottle-t" not in params)
        reset = reset if exact is None else exact / 1000
        quotas.append((name, Quota(unit, None, None, remaining, reset)))

    return Told(tuple(quotas), clean)


def limits_of(text: str, unit: str) -> tuple[int, tuple[Quota, ...]] | None:
    """
    Return the limit that a header tells, and the policies that it tells besides.

    The fifth draft and those before it write ``100, 100;w=60``: the limit that counts, and then all
    policies. ``None`` if there is no limit to be read.
    """
    if (plain := limit_of(text)) is not None:
        return plain, ()

    items = _list_of(text)
    if not items:
        return None

    first = _whole(items[0][0], least=1)
    if first is None:
        return None

    policies: list[Quota] = []
    for value, params in items:
        limit = _whole(value, least=1)
        window = _decimal(params.get("w"))
        if limit is not None and window:
            policies.append(Quota(unit, limit, window, None, None))

    return first, tuple(policies)


def _seventh_draft(text: str) -> Told:
    """Return what a dictionary such as ``limit=100, remaining=50, reset=5`` tells."""
    try:
        fields = http_sf.parse(text.encode("ascii"), tltype="dictionary")
    except ValueError:
        return Told(clean=False)

    assert isinstance(fields, dict), "that is what was asked for"
    values = {name: item[0] for name, item in fields.items() if isinstance(item, tuple)}
    limit = _whole(values.get("limit"), least=1)
    remaining = _whole(values.get("remaining"))
    reset = _decimal(values.get("reset"))
    told = (("limit", limit), ("remaining", remaining), ("reset", reset))
    clean = all(value is not None or name not in values for name, value in told)
    if limit is None and remaining is None:
        return Told(clean=False)

    # It is unknown when there is more, so no time is told.
    reset = None if remaining is None else reset
    return Told(((None, Quota("calls", limit, None, remaining, reset)),), clean)


def _list_of(text: str) -> list[_Item] | None:
    """Return the items of a list, or ``None`` if a text is none."""
    try:
        items = http_sf.parse(text.encode("ascii"), tltype="list")
    except ValueError:
        return None

    assert isinstance(items, list), "that is what was asked for"
    return items  # type: ignore[return-value]


def _text_of(value: object) -> str | None:
    """Return a name, written as a String or as a Token, or ``None`` if it is none."""
    return str(value) if isinstance(value, (str, http_sf.Token)) else None


def _unit_of(params: dict[str, object]) -> str | None:
    """Return the unit that a parameter names, ``None`` if it doesn't name one as it should."""
    return unit_of(_text_of(params.get("qu", "calls")) or "") or None


def _whole(value: object, *, least: int = 0) -> int | None:
    """Return a number rounded down, or ``None`` if it is none, or too small."""
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool) or value < least:
        return None

    return int(value)


def _decimal(value: object) -> float | None:
    """Return a number, or ``None`` if it is none, or negative."""
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool) or value < 0:
        return None

    return float(value)
