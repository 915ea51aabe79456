"""What a process and the server agree on, and the times that follow from it."""

from __future__ import annotations

from typing import final

from .exchange import MARGIN, Micros, Rule

_MICRO = 1e6

#: The part of the shortest window by which starts that are told together may lie apart.
_SPREAD = 1 / 200

#: The part of the shortest window after which starts are told of at the latest.
_PATIENCE = 1 / 4

#: How long what was granted and is not used may wait to be given back while no process is known to
#: wait, in seconds: tokens; and what is held, which never comes back by itself.
_RETURN_PATIENCE, _RELEASE_PATIENCE = 1.0, 0.05

#: How far ahead grants reach: as a part of the shortest window, and in seconds, least and most.
_HORIZON = 1 / 10
_LEAST_HORIZON, _MOST_HORIZON = 0.005, 0.1

#: How many round trips the horizon, and the grace of a grant, are at least.
_HORIZON_TRIPS, _GRACE_TRIPS = 2, 4

#: How long a grant is valid at least, in seconds: event loops are late by that now and then.
_LEAST_GRACE = 0.02

#: How long a process that is idle listens for the loss of the state at most, in seconds.
_LONGEST_ATTENTION = 600.0

#: What counts as the shortest window if no rule has one, in seconds.
_NO_WINDOW = 1.0


@final
class Terms:
    """
    The rules of a shared limiter, and the times within which things have to happen.

    :param rules: what must agree to each call
    :param lease: for how long the process may be silent before it counts as dead, in seconds
    :param deadline: by when a request shall be answered, in seconds
    :param leases: whether turns are kept in stock for longer, because the user wants it so

    :ivar holds: whether a rule holds something while a call runs
    :ivar tells_starts: whether the server has to know when calls start
    :ivar patience: for how long starts may wait to be told, in seconds
    :ivar return_patience: for how long what is given back may wait to be told, in seconds
    :ivar memory: for how long after a request the server keeps the state, if no other one comes, in
        seconds: less a good part of its margin, for the way
    :ivar attention: for how long after its calls a process listens for the loss of the server's
        state, in seconds: for the longest window, but ten minutes at most
    :ivar shortest: the shortest window, in seconds
    :ivar spread: how far starts that are told together may lie apart, in microseconds
    """

    __slots__ = (
        "_leases",
        "attention",
        "deadline",
        "holds",
        "lease",
        "memory",
        "patience",
        "return_patience",
        "rules",
        "shortest",
        "spread",
        "tells_starts",
    )

    def __init__(
        self, rules: tuple[Rule, ...], *, lease: float, deadline: float, leases: bool
    ) -> None:
        self.rules = rules
        self.lease = lease
        self.deadline = deadline
        self._leases = leases
        self.holds = any(rule.holds for rule in rules)
        self.tells_starts = any(rule.kind == "window" for rule in rules)
        windows = [rule.window / _MICRO for rule in rules if rule.window]
        self.shortest = min(windows, default=_NO_WINDOW)
        self.attention = min(max(windows, default=0.0), _LONGEST_ATTENTION)
        self.patience = self.shortest * _PATIENCE
        most = _RELEASE_PATIENCE if self.holds else _RETURN_PATIENCE
        self.return_patience = min(self.patience, most)
        self.memory = max([lease, *windows]) + MARGIN / 2 / _MICRO
        self.spread = int(self.shortest * _SPREAD * _MICRO)

    @property
    def lease_micros(self) -> Micros:
        """The lease, in microseconds."""
        return int(self.lease * _MICRO)

    @property
    def deadline_micros(self) -> Micros:
        """The deadline, in microseconds."""
        return int(self.deadline * _MICRO)

    def grace_and_horizon(self, round_trip: float) -> tuple[Micros, Micros]:
        """
        Return for how long a grant shall be valid, and how far ahead grants may reach.

        :param round_trip: the mean duration of an exchange, in seconds
        """
        grace = max(_GRACE_TRIPS * round_trip, _LEAST_GRACE)
        horizon = 0.0
        tenth = self.shortest * _HORIZON
        if not self.holds:
            horizon = min(max(tenth, _LEAST_HORIZON), _MOST_HORIZON)
            horizon = max(horizon, _HORIZON_TRIPS * round_trip)
            grace = max(grace, min(horizon, tenth), tenth if self._leases else 0.0)

        return int(grace * _MICRO), int(horizon * _MICRO)
