"""Where the items come from: any iterable or async iterable, advanced one item at a time."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
    Sized,
)
from inspect import isasyncgen
from itertools import islice
from typing import Generic, TypeVar, cast, final

I = TypeVar("I")  # noqa: E741 - an item


class SourceEnd(Exception):
    """The source has no more items. An exception of our own: a source may raise any other."""


@final
class Source(Generic[I]):
    """
    The items that have not been pulled yet.

    :param items: an iterable or async iterable
    :param name: the name of the parameter it was given as
    :raises TypeError: if it is neither

    """

    __slots__ = (
        "_items",
        "_iterator",
        "_sequence",
        "ended",
        "interrupted",
        "is_sequence",
        "pulled",
    )

    def __init__(self, items: Iterable[I] | AsyncIterable[I], name: str) -> None:
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise TypeError(f"{name} must be an iterable or an async iterable, not {items!r}")

        self._items = items
        self._sequence = items if isinstance(items, Sequence) else None
        #: Whether any task may advance it, by :meth:`pull_nowait`: a sequence has no state.
        self.is_sequence = self._sequence is not None
        self._iterator: Iterator[I] | AsyncIterator[I] | None = None
        #: How many items have been pulled.
        self.pulled = 0
        #: Whether it has said that there is no more.
        self.ended = False
        #: Whether the source is an async generator that was cut off inside its own step.
        self.interrupted = False

    def pull_nowait(self) -> I:
        """
        Return the next item of a sequence.

        :raises SourceEnd: if there is none

        """
        sequence = self._sequence
        assert sequence is not None
        if self.pulled >= len(sequence):
            raise SourceEnd

        item: I = sequence[self.pulled]
        self.pulled += 1
        return item

    async def pull(self) -> I:
        """
        Return the next item.

        :raises SourceEnd: if there is none

        """
        if self._sequence is not None:
            return self.pull_nowait()

        if self._iterator is None:
            items = self._items
            self._iterator = aiter(items) if isinstance(items, AsyncIterable) else iter(items)

        try:
            if isinstance(self._iterator, AsyncIterator):
                item = await anext(self._iterator)
            else:
                item = next(self._iterator)
        except (StopIteration, StopAsyncIteration):
            self.ended = True
            raise SourceEnd from None

        self.pulled += 1
        return item

    async def close(self) -> None:
        """Close an async generator, for nobody will advance it any more."""
        if isasyncgen(self._iterator):
            await cast("AsyncGenerator[I]", self._iterator).aclose()

    def note_cut_off(self) -> None:
        """Look what has become of the source, if a step of it was cut off."""
        self.interrupted = isasyncgen(self._iterator) and self._iterator.ag_frame is None

    @property
    def items(self) -> object:
        """What the items come from."""
        return self._items

    @property
    def left(self) -> int | None:
        """How many items are left, if the source can tell."""
        if self.ended:
            return 0

        return max(len(self._items) - self.pulled, 0) if isinstance(self._items, Sized) else None

    def rest(self) -> list[I]:
        """Return what a sequence still has to give; of other sources the rest stays unread."""
        return [] if self._sequence is None else list(islice(self._sequence, self.pulled, None))
