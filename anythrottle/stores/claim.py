"""One call's part of a grant, from the moment it is taken out of the stock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from .exchange import Micros, Rule
from .stock import Lot, Segment


@final
class Piece:
    """
    An amount that one rule has charged to a call.

    :ivar amount: how much of it has not been given back
    :ivar receipt: when it comes back; 0 while it is held
    :ivar segment: the segment that the call started in, if it comes back a window after that
    """

    __slots__ = ("amount", "receipt", "segment")

    def __init__(self, amount: int, receipt: Micros, segment: Segment | None = None) -> None:
        self.amount = amount
        self.receipt = receipt
        self.segment = segment

    @property
    def held(self) -> bool:
        """Whether it is held while the call runs."""
        return not self.receipt and self.segment is None

    def receipt_now(self, window: Micros) -> Micros:
        """Return when it comes back, for good: no other start may join its segment any more."""
        if self.segment is not None:
            self.segment.closed = True
            self.receipt = self.segment.last + window
            self.segment = None

        return self.receipt


@final
class Claim:
    """
    One call's part of a lot.

    :ivar lot: the lot
    :ivar life: in which life of the process with the server it is known there
    :ivar segment: the segment that it started in; ``None`` before it has started
    :ivar started: whether it has started
    :ivar lost: whether the server has taken away what it held
    """

    __slots__ = ("_behind", "_pieces", "life", "lost", "lot", "segment", "started")

    def __init__(self, lot: Lot) -> None:
        self.lot = lot
        self.life = lot.life
        self.segment: Segment | None = None
        self.started = False
        self.lost = False
        #: How many calls of the lot have been charged later than this one.
        self._behind = lot.left
        self._pieces: list[list[Piece]] | None = None

    def pieces(self, rules: Sequence[Rule]) -> list[list[Piece]]:
        """Return what each rule has charged to the call; one list for each."""
        if self._pieces is None:
            self._pieces = [self._charged(index, rule) for index, rule in enumerate(rules)]

        return self._pieces

    def _charged(self, index: int, rule: Rule) -> list[Piece]:
        amount = self.lot.grant.amounts[index]
        receipt = self.lot.grant.receipts[index]
        if rule.kind == "window":
            return [Piece(amount, receipt, self.segment)]

        if rule.kind == "bucket":
            # The receipt is that of the lot's last call, which has to flow in after this one.
            receipt -= int(self._behind * amount / rule.limit * rule.window)

        return [Piece(amount, receipt)]

    def held(self, rules: Sequence[Rule]) -> tuple[int, ...]:
        """Return how much of each rule the call holds."""
        if self._pieces is None:
            amounts = self.lot.grant.amounts
            return tuple(
                amount if rule.holds else 0 for rule, amount in zip(rules, amounts, strict=True)
            )

        return tuple(
            sum(piece.amount for piece in pieces if piece.held) if rule.holds else 0
            for rule, pieces in zip(rules, self._pieces, strict=True)
        )

    def count(self, rules: Sequence[Rule], at: Micros, which: Sequence[bool]) -> tuple[int, ...]:
        """
        Count what the call holds of some rules, from an instant on; return how much of each.

        :param which: for each rule, whether it is one of them
        """
        counted: list[int] = []
        for rule, pieces, chosen in zip(rules, self.pieces(rules), which, strict=True):
            amount = 0
            for piece in pieces:
                if chosen and rule.holds and piece.held:
                    amount += piece.amount
                    # At least 1: it is not held any more.
                    piece.receipt = max(at + rule.window, 1)

            counted.append(amount)

        return tuple(counted)
