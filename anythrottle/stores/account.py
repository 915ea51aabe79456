"""What the calls of this process were charged, and hold, under one shared limiter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from .claim import Claim, Piece
from .exchange import Amounts, Charged, Ended, GivenBack, Micros, Quota
from .outbox import Outbox
from .read_ahead import ReadAhead
from .server_clock import ServerClock
from .stock import Lot, Stock
from .terms import Terms

#: How long news that no process waits for may stay untold, in seconds.
_LINGER = 0.05


@final
class Account:
    """
    The calls of this process under one limiter, from their grants on.

    What happens to them goes into the outbox, from which the server is told.

    :param terms: what is agreed on
    :param clock: what is known of the server's clock
    :param outbox: what there is to tell
    :param ahead: what is fetched ahead, by how much is used

    :ivar stock: what was granted and not used
    :ivar running: the claims of calls that hold something
    :ivar life: counts the lives with the server: claims of an earlier one are void
    :ivar waiting: how many processes wait
    :ivar quotas: what each rule had left when the server was heard last
    """

    __slots__ = (
        "_ahead",
        "_clock",
        "_outbox",
        "_rules",
        "_terms",
        "life",
        "quotas",
        "running",
        "stock",
        "waiting",
    )

    def __init__(self, terms: Terms, clock: ServerClock, outbox: Outbox, ahead: ReadAhead) -> None:
        self._terms = terms
        self._rules = terms.rules
        self._clock = clock
        self._outbox = outbox
        self._ahead = ahead
        self.stock = Stock()
        self.running: dict[Claim, None] = {}
        self.life = 0
        self.waiting = 0
        self.quotas: tuple[Quota, ...] = ()

    def claim(self, lot: Lot) -> Claim:
        """Take something for one call out of a lot."""
        self.stock.use(lot)
        return Claim(lot)

    def is_valid(self, claim: Claim, now: float) -> bool:
        """Return whether a claim still is good for a start."""
        return claim.life == self.life and now <= claim.lot.until

    def start(self, claim: Claim, now: float) -> bool:
        """Note that the call of a claim starts; return whether that makes an exchange due."""
        lot = claim.lot
        claim.started = True
        self._ahead.note_use(lot.grant.amounts)
        claim.segment, new = self._outbox.note_start(lot, self._clock.latest(now))
        # While no process waits, the start is told with whatever there is to say next.
        tells = new and self._terms.tells_starts and self.waiting > 0
        if tells:
            self._outbox.speak_by(now + self._terms.patience)

        if self._terms.holds:
            tells = tells or not self.running
            self.running[claim] = None

        return tells

    def give_back(self, claim: Claim, now: float) -> None:
        """Note that a claim is not used: it goes to another call, or back."""
        if self.is_valid(claim, now):
            self.stock.put_back(claim.lot)
        else:
            self.return_lots([(claim.lot, 1)], now)

    def end(self, claim: Claim, now: float) -> None:
        """Note that the call of a claim has ended."""
        if claim in self.running:
            self.count(claim, now, [True] * len(self._rules))
            del self.running[claim]

    def count(self, claim: Claim, now: float, which: Sequence[bool]) -> None:
        """Note that what a call holds of some rules counts from now on."""
        at = self._clock.latest(now)
        amounts = claim.count(self._rules, at, which)
        if any(amounts) and self._knows(claim):
            self._remember(amounts, at)
            self._outbox.tell(Ended(at, amounts), now + (0.0 if self._is_scarce() else _LINGER))

    def settle(self, claim: Claim, index: int, change: int, now: float) -> None:
        """Correct what one rule has charged to the call of a claim, which has started."""
        pieces = claim.pieces(self._rules)[index]
        rule = self._rules[index]
        if change > 0:
            at = self._clock.latest(now)
            held = rule.holds and claim in self.running and all(piece.held for piece in pieces)
            pieces.append(Piece(change, 0 if held else self._receipt(index, at, change)))
            amounts = self._only(index, change)
            if not held:
                # What is held need not be remembered: it is told again as a whole.
                self._remember(amounts, at)

            self._outbox.tell(Charged(at, amounts, held), now + _LINGER)
            return

        excess = -change
        for piece in reversed(pieces):
            part = min(excess, piece.amount)
            if part:
                piece.amount -= part
                excess -= part
                receipts = self._only(index, piece.receipt_now(rule.window))
                if self._knows(claim):
                    given_back = GivenBack(self._only(index, part), receipts)
                    self._outbox.tell(given_back, now + _LINGER)

    def recall(self, now: float) -> None:
        """Give back what is in stock, because it was granted by figures that hold no more."""
        self.return_lots(self.stock.take_surplus({}), now)

    def drop(self, now: float) -> None:
        """Drop what is in stock, because it cannot be had any more; give back what is held."""
        kinds = [rule.holds for rule in self._rules]
        for lot, count in self.stock.take_surplus({}):
            amounts = tuple(
                amount * count if holds else 0
                for amount, holds in zip(lot.grant.amounts, kinds, strict=True)
            )
            if any(amounts):
                self._outbox.tell(GivenBack(amounts, lot.grant.receipts), now)

    def lacks_own(self, amounts: Sequence[int]) -> bool:
        """Return whether the calls of this process hold too much to leave an amount."""
        held = self.held()
        return any(
            rule.holds and held[index] + amounts[index] > rule.limit
            for index, rule in enumerate(self._rules)
        )

    def lacks_slots(self) -> bool:
        """Return whether there was no slot left when the server was heard last."""
        return bool(self.quotas) and any(
            rule.kind == "slots" and not quota.remaining
            for rule, quota in zip(self._rules, self.quotas, strict=True)
        )

    def held(self) -> list[int]:
        """Return how much of each rule the calls of this process hold."""
        held = [0] * len(self._rules)
        for claim in self.running:
            for index, amount in enumerate(claim.held(self._rules)):
                held[index] += amount

        return held

    def return_lots(self, lots: Sequence[tuple[Lot, int]], now: float) -> None:
        """Give lots back, each for so many calls."""
        for lot, count in lots:
            if lot.life == self.life:
                amounts = tuple(amount * count for amount in lot.grant.amounts)
                patience = 0.0 if self.waiting else self._terms.return_patience
                self._outbox.tell(GivenBack(amounts, lot.grant.receipts), now + patience)

    def adopt(self) -> None:
        """Begin another life, in which the server is told what the calls hold."""
        self.life += 1
        self.stock.clear()
        for claim in self.running:
            claim.life = self.life

    def lose(self) -> int:
        """Begin another life, because the server has taken all; return how many calls held it."""
        self.life += 1
        self.stock.clear()
        for claim in self.running:
            claim.lost = True

        self._outbox.hold_nothing()
        lost = len(self.running)
        self.running.clear()
        return lost

    def _knows(self, claim: Claim) -> bool:
        """Return whether the server knows of a call."""
        return claim.life == self.life and not claim.lost

    def _is_scarce(self) -> bool:
        """Return whether others may wait for what a call lets go."""
        return self.waiting > 0 or any(
            rule.holds and 2 * quota.remaining <= rule.limit
            for rule, quota in zip(self._rules, self.quotas, strict=False)
        )

    def _only(self, index: int, amount: int) -> Amounts:
        return tuple(amount if i == index else 0 for i in range(len(self._rules)))

    def _receipt(self, index: int, at: Micros, amount: int) -> Micros:
        """Return when a charge that is made now comes back, at the earliest."""
        rule = self._rules[index]
        if rule.kind == "fixed":
            return self.quotas[index].more if self.quotas else at

        passes = rule.window * amount / rule.limit if rule.kind == "bucket" else rule.window
        return at + int(passes)

    def _remember(self, amounts: Amounts, at: Micros) -> None:
        """Remember what counts from an instant on, in case the server forgets it."""
        for index, amount in enumerate(amounts):
            if amount and self._rules[index].window:
                self._outbox.remember(index, at + self._rules[index].window, amount)
