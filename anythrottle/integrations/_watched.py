"""The limiters whose calls are counted when metrics are read."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import TypeAlias, TypeVar, cast, final

from .._limiters.controls import Controls
from .._limiters.keyed import KeyedLimiter
from ..abc import Limiter

K = TypeVar("K", bound=Hashable)
L = TypeVar("L", bound=Limiter)

#: A limiter of this library, or those of all keys.
Watchable: TypeAlias = Controls | KeyedLimiter[K, L]

_Any: TypeAlias = Controls | KeyedLimiter[Hashable, Limiter]


@final
class Watched:
    """
    Limiters, none of which is kept alive by being here, and the names that they are shown by.

    :meth:`load` may be called from any thread.
    """

    __slots__ = ("_limiters",)

    def __init__(self) -> None:
        #: By their ids; a limiter that ends takes its entry with it, before its id is used again.
        self._limiters: dict[int, tuple[weakref.ref[_Any], str]] = {}

    def add(self, limiter: Watchable[K, L], name: str | None) -> None:
        """
        Watch a limiter from now on; one that is watched already has only its new name then.

        :param limiter: a limiter of this library, or a :class:`.KeyedLimiter`
        :param name: what to call it; ``None`` for its own name
        :raises TypeError: if a parameter is of the wrong type

        """
        if not isinstance(limiter, Controls | KeyedLimiter):
            raise TypeError(
                f"limiter must be a RateLimiter, a limiter of a store, or a KeyedLimiter, not "
                f"{limiter!r}; of one that wraps another, watch the other"
            )

        if name is not None:
            check_name(name)
        elif isinstance(limiter, Controls):
            name = limiter.name

        limiters, number = self._limiters, id(limiter)

        def forget(_: object) -> None:
            limiters.pop(number, None)

        # The type of the keys makes no difference here.
        limiters[number] = weakref.ref(cast("_Any", limiter), forget), name or ""

    def load(self) -> dict[str, tuple[int, int]]:
        """Return how many calls wait, and how many hold something, by name."""
        found: dict[str, tuple[int, int]] = {}
        for reference, name in list(self._limiters.values()):
            limiter = reference()
            if limiter is not None:
                waiting, active = found.get(name, (0, 0))
                for each in limiter.made() if isinstance(limiter, KeyedLimiter) else [limiter]:
                    if isinstance(each, Controls):
                        more_waiting, more_active = each.load()
                        waiting += more_waiting
                        active += more_active

                found[name] = waiting, active

        return found


def check_name(name: object) -> str:
    """
    Return a name as it is.

    :raises TypeError: if it is no str

    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")

    return name
