"""Finds which limiter a request is for, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from inspect import iscoroutinefunction
from types import CoroutineType
from typing import Any, Final, TypeAlias, cast, final

from .._errors import LimitExceeded
from .._limiters.cost import by_unit
from .._limiters.keyed import KeyedLimiter
from .._limiters.rate_limiter import RateLimiter
from .._policies.policy import Cost
from .._policies.text import as_policy
from ..abc import Limiter
from ._addresses import client_address
from ._asgi import Scope
from ._exempt import EXEMPT, Exempt

#: What a server may be given: a text form, one limiter for all, or one for each key.
ServerLimiter: TypeAlias = "str | Limiter | KeyedLimiter[Any, Any]"  # pyright: ignore[reportExplicitAny] # of the user's own keys


class Unsaid(Enum):
    """The type of :data:`UNSAID`, for annotations."""

    UNSAID = "unsaid"

    def __repr__(self) -> str:
        return "<one of the same text>"


#: Says that no limiter for newcomers was given, so that it depends on the other one.
UNSAID: Final = Unsaid.UNSAID


@final
class Guard:
    """
    The limiters of a server, and what a request asks of them.

    :param limiter: the limiter, or what makes one for each key
    :param key: returns the key of a request; ``None`` for the address of its sender
    :param cost: what a request costs, or what returns that
    :param overflow: the limiter of newcomers that find no place; ``None`` refuses them

    """

    __slots__ = ("_cost", "_key", "_keyed", "_limiter", "_overflow")

    _keyed: KeyedLimiter[Hashable, Limiter] | None

    def __init__(
        self,
        limiter: ServerLimiter,
        *,
        key: Callable[[Scope], Hashable] | None,
        cost: Cost | Exempt | Callable[[Scope], Cost | Exempt],
        overflow: str | Limiter | Unsaid | None,
    ) -> None:
        for name, function in (("key", key), ("cost", cost)):
            if iscoroutinefunction(function):
                raise TypeError(
                    f"{name} must be a function that is not async, not {function!r}: look up what "
                    f"takes time in a middleware before this one, and leave it in the scope"
                )

        if key is not None and not callable(key):
            raise TypeError(f"key must be a function of a scope, or None, not {key!r}")

        if key is client_address:
            raise TypeError("key must be a function of a scope, as client_address() returns one")

        if not callable(cost) and cost is not EXEMPT:
            by_unit(_check_cost(cost))

        self._cost = cost
        self._keyed = None
        self._limiter: Limiter | None = None
        if isinstance(limiter, str):
            policy = as_policy(limiter)
            self._keyed = KeyedLimiter(lambda _: RateLimiter(policy))
            overflow = RateLimiter(policy) if overflow is UNSAID else overflow
        elif isinstance(limiter, KeyedLimiter):
            self._keyed = limiter
        elif isinstance(limiter, Limiter) and not isinstance(limiter, type):
            self._limiter = limiter
        else:
            raise TypeError(
                f"limiter must be a text such as '20/10s', a limiter or a KeyedLimiter, "
                f"not {limiter!r}"
            )

        self._key = client_address() if key is None and self._keyed is not None else key
        self._overflow = self._checked_overflow(overflow)

    def _checked_overflow(self, overflow: str | Limiter | Unsaid | None) -> Limiter | None:
        """
        Return the limiter of newcomers that find no place, if there is one.

        :raises TypeError: if it is no limiter, or there is one limiter for all
        """
        if overflow is None or overflow is UNSAID:
            return None

        if self._keyed is None:
            raise TypeError("overflow is for a limiter by key: here all share one")

        if isinstance(overflow, str):
            return RateLimiter(overflow)

        if not isinstance(overflow, Limiter) or isinstance(overflow, type):
            raise TypeError(f"overflow must be a limiter, a text or None, not {overflow!r}")

        return overflow

    def asked(self, scope: Scope) -> tuple[Hashable, Cost] | None:
        """
        Return the key of a request, and what it costs; ``None`` if it is not limited.

        :raises TypeError: if what a function of the user's has returned is of the wrong type:
            ``None`` is no way past a limit
        """
        key: Hashable = None
        if self._key is not None:
            key = self._key(scope)
            if key is EXEMPT:
                return None

            if key is None or type(key) is CoroutineType:
                raise TypeError(f"key must be what tells clients apart, or EXEMPT, not {key!r}")

        cost = self._cost
        if isinstance(cost, int):
            # The common case; it was checked by __init__().
            return key, cost

        if callable(cost):
            cost = cost(scope)

        return None if cost is EXEMPT else (key, _check_cost(cost))

    def limiter_of(self, key: Hashable) -> Limiter:
        """
        Return the limiter for a key.

        :raises ~anythrottle.LimitExceeded: if there are as many keys as there may be
        """
        if self._keyed is None:
            assert self._limiter is not None
            return self._limiter

        try:
            return self._keyed[key]
        except LimitExceeded:
            if self._overflow is None:
                raise

            return self._overflow


def _check_cost(cost: object) -> Cost:
    """
    Return a cost if it has the type of one; the limiter checks the rest.

    :raises TypeError: if it is none: ``None`` is no way past a limit
    """
    if not isinstance(cost, (int, Mapping)):
        raise TypeError(
            f"cost must be an int, a mapping of units to ints, a function of a scope that returns "
            f"one, or EXEMPT, not {cost!r}"
        )

    return cast("Cost", cost)
