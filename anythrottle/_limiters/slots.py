"""How many calls may run at once: slots of a limiter's own, or shared with others."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import final

import anyio

from .turn import Turn


@final
class Slot:
    """
    On whose behalf a slot of a capacity limiter is borrowed: a fresh one for each grant.

    :ivar capacity: the capacity limiter
    :ivar task_id: what AnyIO calls the task that holds it, if an engine has borrowed it

    """

    __slots__ = ("capacity", "task_id")

    def __init__(self, capacity: anyio.CapacityLimiter) -> None:
        self.capacity = capacity
        self.task_id = 0


@final
class Slots:
    """
    The slots of a limiter, and the turns that hold one.

    Without a bound there are as many slots as are asked for. Shared slots are borrowed from a
    capacity limiter on behalf of each turn; calls that run when the slots are exchanged go on
    without one until there are enough.

    :param own: how many there are, infinity for no bound; ignored with ``shared``
    :param shared: a capacity limiter that the user brought, whose slots others may borrow too

    :ivar holders: the turns that were granted and have not ended, in the order of their grants
    """

    __slots__ = ("__weakref__", "_lacking", "_own", "holders", "shared")

    def __init__(self, own: float = inf, shared: anyio.CapacityLimiter | None = None) -> None:
        self._own = own
        self.shared = shared
        # An ordered set; while it is empty, it is a fourth of the size of a set.
        self.holders: dict[Turn, None] = {}
        #: The holders for which there was no slot when the slots were exchanged.
        self._lacking: dict[Turn, None] | None = None

    @property
    def total(self) -> float:
        """How many slots there are; infinity without a bound."""
        return self._own if self.shared is None else self.shared.total_tokens

    @property
    def bounded(self) -> bool:
        """Whether there is a bound."""
        return self._own < inf or self.shared is not None

    def resize(self, own: float, shared: anyio.CapacityLimiter | None) -> None:
        """Exchange the slots. Holders hold new ones from now on, as far as there are enough."""
        self._own = own
        if shared is self.shared:
            return

        self._lacking = None
        for turn in self.holders:
            self._return_of(turn)

        self.shared = shared
        if shared is not None:
            self._lacking = dict(self.holders)
            self._fill_lacking()

    def may_have_one(self) -> bool:
        """Return whether there may be a slot now; of shared ones, only :meth:`take` finds out."""
        return len(self.holders) < self._own or self.shared is not None

    def take(self, turn: Turn, spare: object = None) -> bool:
        """
        Give a turn a slot to hold; return whether there was one.

        :param spare: what a shared slot has been borrowed for already, for this turn to have
        """
        if spare is not None:
            turn.slot = spare
        elif self.shared is not None:
            self._fill_lacking()
            turn.slot = self._borrow()
            if turn.slot is None:
                return False

        self.holders[turn] = None
        turn.granted = True
        return True

    def let_go(self, turn: Turn) -> None:
        """Take the slot of a turn back."""
        turn.granted = False
        holders = self.holders
        if len(holders) > 1:
            holders.pop(turn, None)
        elif turn in holders:
            # Not emptied, because it would keep its size.
            self.holders = {}

        if self.shared is not None:
            self._return_of(turn)

    def keep(self, turn: Turn) -> Turn:
        """Return another turn that holds from now on what this turn holds."""
        kept = turn.kept()
        del self.holders[turn]
        self.holders[kept] = None
        if self._lacking and turn in self._lacking:
            del self._lacking[turn]
            self._lacking[kept] = None

        return kept

    def hand_on(self, slot: object) -> object:
        """Give a shared slot that was borrowed to a holder without one; else return it."""
        if not self._lacking:
            return slot

        self._lacking.popitem()[0].slot = slot
        return None

    def give_back(self, slot: object) -> None:
        """Give a shared slot back that no turn has got."""
        assert self.shared is not None
        self.shared.release_on_behalf_of(slot)

    def none_left(self) -> bool:
        """Return whether no slot could be had now."""
        if self.shared is None:
            return not self.may_have_one()

        statistics = self.shared.statistics()
        return statistics.borrowed_tokens >= statistics.total_tokens or statistics.tasks_waiting > 0

    def none_behind(self, ahead: int) -> bool:
        """Return whether no slot would be left behind ``ahead`` other turns."""
        if self.shared is not None:
            return self.shared.available_tokens <= ahead

        return len(self.holders) + ahead >= self._own

    def forget_holders(self) -> None:
        """Take back all that is held, because the loop of its holders has gone."""
        gone, self.holders = self.holders, {}
        self._lacking = None
        for turn in gone:
            # A capacity limiter of a loop that is closed cannot wake its waiters any more.
            with suppress(RuntimeError):
                self._return_of(turn)

    def _borrow(self) -> object:
        """Borrow a shared slot; return what it was borrowed for, ``None`` if there is no slot."""
        assert self.shared is not None
        slot = Slot(self.shared)
        try:
            self.shared.acquire_on_behalf_of_nowait(slot)
        except anyio.WouldBlock:
            return None

        return slot

    def _fill_lacking(self) -> None:
        while self._lacking and (slot := self._borrow()) is not None:
            self.hand_on(slot)

    def _return_of(self, turn: Turn) -> None:
        if self._lacking:
            self._lacking.pop(turn, None)

        if turn.slot is not None:
            slot, turn.slot = self.hand_on(turn.slot), None
            if slot is not None:
                self.give_back(slot)
