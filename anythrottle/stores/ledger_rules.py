"""
The rules of a shared limiter, as the server counts: windows, buckets and slots.

Each decides as the bucket of its policy does in one process, in whole microseconds, instants being
rounded later. The scripts are its twins, a file for each kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right, insort
from math import ceil, floor
from typing import cast, final
from urllib.parse import unquote

from .exchange import NEVER, Kind, Micros, Quota, Rule

#: How many charges are remembered one by one; beyond, later ones are merged.
EXACT_ENTRIES = 1000

#: More calls than anybody asks for at once.
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
        """Return for how many calls an amount each, above 0, is to be had at an instant."""

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


class WindowState(RuleState):
    """
    A window from the start of the calls.

    Invariant: the limit is what is free, plus what is held, plus the sum of the entries that have
    not come back. Equal ends are one entry; beyond :data:`EXACT_ENTRIES`, ends are rounded later
    by at most a thousandth of the window, so that they become equal.

    :ivar entries: the end and the amount of each charge, in their order
    :ivar used: the sum of the entries
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.entries: list[tuple[Micros, int]] = []
        self.used = 0
        self.grain = max(self.window // EXACT_ENTRIES, 1)

    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        excess = self.used + self.held + amount - self.limit
        if excess <= 0:
            return instant

        for end, charged in self.entries:
            excess -= charged
            if excess <= 0:
                return max(end, instant)

        return NEVER

    def fits(self, amount: int, instant: Micros) -> int:
        free = self.limit - self.held - self._used_at(instant)
        return floor(free / amount)

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        return self.add(instant + grace + self.window, amount)

    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        self.forget(now)
        self.add(at + self.window, amount)

    def start(self, amount: int, at: Micros, receipt: Micros) -> None:
        found = self.remove(amount, receipt, receipt)
        if found:
            self.add(min(at + self.window, receipt), found)

    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        self.forget(now)
        # Its return may have been moved, by merging or by tighten(), but never to an earlier one.
        if receipt > now:
            self.remove(amount, receipt, NEVER)

    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        self.forget(now)
        free = floor(self.limit - self.held - self.used)
        withheld = max(free - remaining, 0)
        spare = max(remaining - free, 0)
        if reset < 0:
            if withheld:
                self.add(now + self.window, withheld)

            return

        reset = min(reset, now + self.window)
        # What would come back before the reset comes back with it, but for what is to spare.
        for end, amount in self.entries[: bisect_right(self.entries, (reset, ANY_NUMBER))]:
            part = min(amount, spare)
            spare -= part
            withheld += self.remove(amount - part, end, end)

        if withheld:
            self.add(max(reset, now + 1), withheld)

    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        if receipt > now:
            self.add(receipt, amount)

    def full_at(self, now: Micros) -> Micros:
        last = self.entries[-1][0] if self.entries else now
        return max(last, now + self.window if self.held else now)

    def forget(self, now: Micros) -> None:
        count = bisect_right(self.entries, (now, ANY_NUMBER))
        self.used -= sum(amount for _, amount in self.entries[:count])
        del self.entries[:count]

    def add(self, end: Micros, amount: int) -> Micros:
        """Enter a charge; return its end, which may have become later."""
        if len(self.entries) >= EXACT_ENTRIES:
            end += -end % self.grain

        if not amount:
            return end

        index = bisect_left(self.entries, (end, 0))
        if index < len(self.entries) and self.entries[index][0] == end:
            self.entries[index] = (end, self.entries[index][1] + amount)
        else:
            insort(self.entries, (end, amount))

        self.used += amount
        return end

    def remove(self, amount: int, first: Micros, last: Micros) -> int:
        """Take an amount out of the entries with ends from the first to the last, in order."""
        index = bisect_left(self.entries, (first, 0))
        removed = 0
        while removed < amount and index < len(self.entries) and self.entries[index][0] <= last:
            end, charged = self.entries[index]
            part = min(charged, amount - removed)
            removed += part
            if part == charged:
                del self.entries[index]
            else:
                self.entries[index] = (end, charged - part)

        self.used -= removed
        return removed

    def _used_at(self, instant: Micros) -> int:
        used = self.used
        for end, amount in self.entries:
            if end > instant:
                break

            used -= amount

        return used


@final
class EndState(WindowState):
    """A window from the end of the calls: what runs is held."""

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        self.held += amount
        return 0

    def start(self, amount: int, at: Micros, receipt: Micros) -> None:
        pass

    def count(self, amount: int, at: Micros) -> None:
        self.held -= amount
        if amount:
            self.add(at + self.window, amount)


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


@final
class BucketState(RuleState):
    """
    A token bucket: there were ``level`` tokens at the instant ``at``, and they flow in since.

    Before that instant nothing flows in, should it be yet to come.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.level = rule.extra
        self.at = 0

    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        if amount <= self.level:
            return instant

        return NEVER if amount > self.extra else max(instant, self._due(amount))

    def fits(self, amount: int, instant: Micros) -> int:
        return min(floor(self._level_at(instant) / amount), ANY_NUMBER)

    def fits_until(self, amount: int, since: Micros, latest: Micros) -> int:
        """Return how many calls can go one after the other, from an instant to the latest."""
        flow = max(latest - max(self.at, since), 0) / self.window * self.limit
        return min(floor((self._due_level_at(since) + flow) / amount), ANY_NUMBER)

    def due_from(self, amount: int, since: Micros) -> Micros:
        """Return when an amount will have been there, if what flows in since then is taken."""
        missing = max(amount - self._due_level_at(since), 0)
        return max(since, self.at) + ceil(missing / self.limit * self.window) if missing else since

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        self.level = self._due_level_at(instant) - amount
        self.at = max(self.at, instant)
        return max(instant, self._due(self.extra))

    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        self.charge(amount, now, 0)

    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        if receipt > now:
            back = min(amount, (receipt - now) / self.window * self.limit)
            self.level = min(self.level + back, self.extra)

    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        self.level = min(self._level_at(now), remaining)
        self.at = max(self.at, now)
        if reset >= 0:
            reset = min(reset, now + self.window)
            missing = max(remaining - self.level, 0.0)
            self.at = max(self.at, reset - floor(missing / self.limit * self.window))

    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        # As if nothing of it had flowed in yet, for that is counted once, not for each process.
        if receipt > now:
            self.charge(amount, now, 0)

    def full_at(self, now: Micros) -> Micros:
        return max(self._due(self.extra), now)

    @property
    def capacity(self) -> float:
        return self.extra

    def _due(self, amount: float) -> Micros:
        return min(self.at + ceil((amount - self.level) / self.limit * self.window), NEVER)

    def _level_at(self, instant: Micros) -> float:
        if instant <= self.at:
            return self.level

        return min(self.level + (instant - self.at) / self.window * self.limit, self.extra)

    def _due_level_at(self, instant: Micros) -> float:
        """
        Return the level at which a call is granted that is due at an instant.

        That was rounded up. So what overflows within less than a microsecond is kept: of fast
        buckets it is a good part of all.
        """
        if instant <= self.at:
            return self.level

        level = self.level + (instant - self.at) / self.window * self.limit
        return level if level < self.extra + self.limit / self.window else self.extra


@final
class FixedState(RuleState):
    """
    Fixed windows: ``used`` was charged in the one that ends at ``end``, the latest that was noted.

    What was charged beyond the limit is carried on, the limit's worth into each window. No grant is
    made in the last ``grace`` of a window, because its call might start in the next one.

    :ivar foreign: receipts up to this one are of windows that have ended
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.used = 0
        self.end = 0
        self.foreign = 0

    def earliest(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        if amount > self.limit:
            return NEVER

        excess = self._used_at(instant) + amount - self.limit
        if excess > 0:
            edges = ceil((self.used + amount - self.limit) / self.limit)
            instant = max(instant, self._edge(edges))

        end = self._end_at(instant)
        return end if end and end - instant < grace < self.window else instant

    def fits(self, amount: int, instant: Micros) -> int:
        return floor((self.limit - self._used_at(instant)) / amount)

    def charge(self, amount: int, instant: Micros, grace: Micros) -> Micros:
        self._open(instant, grace)
        self.used += amount
        return self.end

    def charge_now(self, amount: int, at: Micros, now: Micros) -> None:
        self.charge(amount, now, 0)

    def give_back(self, amount: int, receipt: Micros, now: Micros) -> None:
        self._roll(now)
        if now < self.end and receipt > self.foreign:
            self.used = max(self.used - amount, 0)

    def tighten(self, remaining: int, reset: Micros, now: Micros) -> None:
        self._roll(now)
        free = floor(self.limit - self.used)
        reset = now if reset < 0 else min(reset, now + self.window)
        end = self.end if now < self.end else self._end_from(now)
        # Ending before the reset would also admit the next window's quota, which is right only if
        # the service leaves enough for it.
        next_room = self.limit - max(self.used - self.limit, 0)
        if end < reset and self._end_from(end) < reset:
            next_room += self.limit

        early = end < reset and max(min(free, remaining), 0) + next_room > remaining
        if free > remaining or early:
            self._open(now, 0)
            self.used += max(free - remaining, 0)

        if early:
            self.end = reset

    def remember(self, amount: int, receipt: Micros, now: Micros) -> None:
        self._roll(now)
        if receipt > now:
            self.end = max(self.end, receipt)
            self.used += amount

    def full_at(self, now: Micros) -> Micros:
        if not self._used_at(now):
            return now

        return self._edge(ceil(self.used / self.limit))

    def _used_at(self, instant: Micros) -> float:
        return max(self.used - self._edges_passed(instant) * self.limit, 0)

    def _edge(self, number: int) -> Micros:
        """Return the end of the latest window, number 1, or of one that is to follow it."""
        if number == 1:
            return self.end

        return self._end_from(self.end) + (number - 2) * self.window

    def _edges_passed(self, instant: Micros) -> int:
        if instant < self.end:
            return 0

        return (instant - self._edge(2)) // self.window + 2

    def _end_at(self, instant: Micros) -> Micros:
        """Return the end of the window that is under way at an instant, 0 if there is none."""
        passed = self._edges_passed(instant)
        if not passed or self.used > passed * self.limit:
            return self._edge(passed + 1)

        # A window that opens with its first call has no edge before that.
        return self._end_from(instant) if self.extra >= 0 else 0

    def _roll(self, now: Micros) -> None:
        """Note which window it is; after the end of one, another follows only to carry debt."""
        passed = self._edges_passed(now)
        if not passed:
            return

        used = max(self.used - passed * self.limit, 0)
        self.foreign = max(self.foreign, self.end)
        self.end = self._edge(passed + 1) if used else 0
        self.used = floor(used)

    def _open(self, instant: Micros, grace: Micros) -> None:
        """Open a window, unless one is under way."""
        self._roll(instant)
        if self.end <= instant:
            self.end = self._end_from(instant)
            if self.extra < 0:
                # Its first call may start as late as that.
                self.end += grace

    def _end_from(self, instant: Micros) -> Micros:
        if self.extra < 0:
            return instant + self.window

        return instant + self.window - (instant - floor(self.extra)) % self.window


_STATES: dict[str, type[RuleState]] = {
    "window": WindowState,
    "end": EndState,
    "bucket": BucketState,
    "fixed": FixedState,
    "slots": SlotState,
}


def state_of(rule: Rule) -> RuleState:
    """Return the state of a rule under which nothing was charged yet."""
    return _STATES[rule.kind](rule)


def rules_of(text: str) -> list[Rule]:
    """Return the rules that :func:`.rules_text` has written."""
    rules: list[Rule] = []
    for part in text.split():
        kind, limit, window, extra, unit = part.split(":")
        rule = Rule(cast("Kind", kind), float(limit), int(window), float(extra), unquote(unit))
        rules.append(rule)

    return rules
