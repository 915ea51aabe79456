"""What was charged when, kept for a policy that takes over."""

from __future__ import annotations

from math import inf, nextafter
from typing import final


@final
class ChargeLog:
    """
    Amounts and the instants at which they were charged, in their order; coarser with age.

    Its size is bounded: neighbours are merged, the older ones again and again, to the instant of
    the later one. So the resolution fades with age, like that of an exponential histogram (Datar,
    Gionis, Indyk and Motwani, "Maintaining stream statistics over sliding windows", 2002), and
    what the log tells is never earlier than it was.

    :param most: how many entries are kept, a multiple of 4

    """

    __slots__ = ("_entries", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: list[tuple[float, int]] = []

    def note(self, instant: float, amount: int) -> None:
        """Note a charge; if the clock went back, at the instant of the latest one."""
        entries = self._entries
        if entries and instant <= entries[-1][0]:
            latest, before = entries[-1]
            entries[-1] = (latest, before + amount)
            return

        entries.append((instant, amount))
        if len(entries) > self._most:
            half = entries[: self._most // 2]
            entries[: len(half)] = [
                (later[0], earlier[1] + later[1])
                for earlier, later in zip(half[::2], half[1::2], strict=True)
            ]

    def forget(self, amount: int, since: float) -> None:
        """
        Undo so much of a charge that was made at ``since`` or later.

        When is unknown. The earliest that it may have been matter least to a successor.
        """
        kept: list[tuple[float, int]] = []
        for instant, noted in self._entries:
            part = min(amount, noted) if instant >= since else 0
            amount -= part
            if noted > part:
                kept.append((instant, noted - part))

        self._entries = kept

    def entries(self) -> list[tuple[float, int]]:
        """Return the instants and amounts, the earliest first."""
        return self._entries.copy()

    def shift(self, seconds: float) -> None:
        """Move the instants, rounded up, to another clock."""
        self._entries = [(nextafter(at + seconds, inf), amount) for at, amount in self._entries]
