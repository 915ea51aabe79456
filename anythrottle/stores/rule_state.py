"""
A rule of a shared limiter, as the server counts.

Each decides as the bucket of its policy does in one process, but in whole microseconds: instants
are rounded up. The scripts are its twins, a file for each kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import floor
from typing import final

from .exchange import NEVER, Micros, Quota, Rule

#: More calls than a process asks for at once.
ANY_NUMBER = 2**31


class RuleState(ABC):
    """
    The state of one rule.

    :ivar held: how much running calls hold
    :ivar holds: whether charges are held while calls run
    """

    def __init__(self, rule: Rule) -> None:
        self.holds = rule.holds
        self.limit = rule.limit
        self.window = rule.window
        self.extra = rule.extra
        self.held: int = 0

    @abstractmethod
    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        """Return the first instant, not before ``instant``, at which an amount is to be had."""

    @abstractmethod
    def fits(self, amount: int, instant: Micros) -> int:
        """Return how many calls can have an amount each, above 0, at an instant."""

    @abstractmethod
    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        """
        Charge an amount to calls that may start until ``grace`` after an instant.

        :return: the receipt: when it comes back if they start at the last instant; 0 if it is held
        """

    @abstractmethod
    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        """Charge an amount at once, due or not, which counts from ``at``."""

    def start(self, amount: int, at: Micros, receipt: Micros) -> None:  # noqa: B027
        """Count what was charged from ``at``, not from the last instant at which it could start."""

    @abstractmethod
    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        """Undo a charge, as far as it is still out."""

    def count(self, amount: int, at: Micros) -> None:
        """Count what was held, from ``at`` on."""
        self.held -= amount

    @abstractmethod
    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        """Allow at most ``remaining`` before ``reset``; -1 if that is unknown."""

    @abstractmethod
    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        """Charge what had been charged before the state was lost."""

    def forget(self, now: Micros) -> None:  # noqa: B027
        """Drop what has come back."""

    @abstractmethod
    def full_at(self, now: Micros) -> Micros:
        """Return the instant, not before ``now``, at which all is there again."""

    def quota(self, now: Micros) -> Quota:
        """Return what is left."""
        remaining = max(self.fits(1, now), 0)
        more = now if remaining + 1 > self.capacity else self.earliest(remaining + 1, now, 0)
        return Quota(remaining, more, self.full_at(now))

    @property
    def capacity(self) -> float:
        """The most that can be charged at once."""
        return self.limit


@final
class SlotState(RuleState):
    """Slots: held while a call runs, and nothing else."""

    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        return instant if self.held + amount <= self.limit else NEVER

    def fits(self, amount: int, instant: Micros) -> int:
        return floor((self.limit - self.held) / amount)

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        self.held += amount
        return 0

    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        pass

    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        pass

    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        pass

    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        pass

    def full_at(self, now: Micros) -> Micros:
        return now
