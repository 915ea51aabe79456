"""The options of a throttled client: for all of its requests, and for one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar, cast, final

from .._limiters.cost import by_unit
from .._limiters.max_wait import MaxWait, check_max_wait, check_priority
from .._policies.checks import check_count, check_seconds
from .._policies.policy import Cost
from ._exchange import Rules
from ._hosts import ClientLimiter, Hosts
from .headers import EXEMPT, Exempt, Profile, profile_of

R = TypeVar("R")

#: What a request may say of itself.
_SAID = frozenset({"cost", "key", "max_wait", "priority"})

_NOTHING_SAID: Mapping[str, Any] = {}  # pyright: ignore[reportExplicitAny]

#: The ports that an address need not name.
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Asked(NamedTuple):
    """How a request waits for its turn."""

    key: Hashable
    cost: Cost
    priority: int
    max_wait: MaxWait


@final
class Options(Generic[R]):
    """
    The options for all requests of a client, checked.

    :param limiter: the limiter, or what makes one for each key
    :param key: returns the key of a request; ``None`` for its host
    :param cost: what a request costs, or what returns that
    :param profile: how the server tells its figures
    :param max_throttles: how often a request is sent at most, at least 1
    :param max_wait: how long a request waits for each turn at most
    :param max_pause: how long a pause is waited for at most, in seconds, above 0
    :param learn: whether the server's limits become the limiter's

    """

    __slots__ = ("_cost", "_key", "_max_wait", "hosts", "rules")

    def __init__(
        self,
        limiter: ClientLimiter,
        *,
        key: Callable[[R], Hashable] | None,
        cost: Cost | Exempt | Callable[[R], Cost | Exempt],
        profile: Profile | str,
        max_throttles: int,
        max_wait: MaxWait,
        max_pause: float,
        learn: bool,
    ) -> None:
        if key is not None and not callable(key):
            raise TypeError(f"key must be a function of a request, or None, not {key!r}")

        if not callable(cost) and cost is not EXEMPT:
            _check_cost(cost)

        self._key = key
        self._cost = cost
        self._max_wait: MaxWait = check_max_wait(max_wait)
        self.rules = Rules(
            profile_of(profile),
            check_count("max_throttles", max_throttles),
            check_seconds("max_pause", max_pause, infinite=True),
        )
        self.hosts = Hosts(limiter, learn=learn)

    def asked(self, request: R, host: str, said: object = None) -> Asked | None:
        """
        Return how a request waits; ``None`` if it is exempt.

        :param host: the key of its limiter, unless something else is said
        :param said: what the request says of itself: a mapping
        :raises TypeError: if what is said, or returned by a function of the user's, is of the wrong
            type: ``None`` is no way past a limit
        :raises ValueError: if it is out of its range, or has an unknown name

        """
        special = _NOTHING_SAID if said is None else _check_said(said)
        key: object = special.get("key", host if self._key is None else self._key(request))
        if key is None:
            raise TypeError("key must be what tells limiters apart, or EXEMPT, not None")

        cost: Any = special.get("cost", self._cost)  # pyright: ignore[reportExplicitAny]
        if callable(cost):
            cost = cost(request)

        if key is EXEMPT or cost is EXEMPT:
            return None

        if cost is not self._cost:
            _check_cost(cost)

        # An error is raised now, and not only when the hash happens to be needed.
        hash(key)
        max_wait: MaxWait = self._max_wait
        if "max_wait" in special:
            max_wait = check_max_wait(special["max_wait"])

        priority = special.get("priority", 0)
        check_priority(priority)
        return Asked(key, cost, priority, max_wait)


def key_of_host(scheme: str, host: str, port: int | None) -> str:
    """Return the key of an address: its host, with its port if that isn't the scheme's."""
    name = host.lower().rstrip(".")
    if ":" in name:
        # Else an address of IPv6 could be taken for another one and a port.
        name = f"[{name}]"

    return name if port is None or port == _PORTS.get(scheme) else f"{name}:{port}"


def _check_cost(cost: object) -> None:
    """
    Raise unless something is a cost.

    :raises TypeError: if it is none: ``None`` is no way past a limit
    :raises ValueError: if an amount is negative
    """
    if not isinstance(cost, (int, Mapping)):
        raise TypeError(
            f"cost must be an int, a mapping of units to ints, a function of a request that "
            f"returns one, or EXEMPT, not {cost!r}"
        )

    by_unit(cast("Cost", cost))


def _check_said(said: object) -> Mapping[str, Any]:  # pyright: ignore[reportExplicitAny] # each is checked where it is used
    """
    Return what a request says of itself, by name.

    :raises TypeError: if it is no mapping
    :raises ValueError: if a name in it is unknown
    """
    if not isinstance(said, Mapping):
        raise TypeError(f"extensions['anythrottle'] must be a mapping, not {said!r}")

    special = cast("Mapping[str, object]", said)
    unknown = [name for name in special if name not in _SAID]
    if unknown:
        raise ValueError(
            f"extensions['anythrottle'] has {unknown[0]!r}, which is none of {sorted(_SAID)}"
        )

    return special
