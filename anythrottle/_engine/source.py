"""Advances any iterable or async iterable by one item at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Sequence,
    Sized,
)
from inspect import isasyncgen, isgenerator
from itertools import islice
from typing import Generic, TypeVar, cast, final

I = TypeVar("I")  # noqa: E741 - an item


#: Stands for the item after the last.
_END = object()


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
        "_iterator",
        "_sequence",
        "ended",
        "interrupted",
        "is_async",
        "is_sequence",
        "items",
        "pulled",
    )

    def __init__(self, items: Iterable[I] | AsyncIterable[I], name: str) -> None:
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise TypeError(f"{name} must be an iterable or an async iterable, not {items!r}")

        #: What the items come from.
        self.items = items
        self._sequence = items if isinstance(items, Sequence) else None
        #: Whether any task may advance it, by :meth:`pull_nowait`: a sequence has no state.
        self.is_sequence = self._sequence is not None
        #: Whether it is waited for. By what was given, not by its iterator: that of an async
        #: iterable may lack ``__aiter__()``.
        self.is_async = isinstance(items, AsyncIterable)
        self._iterator: Iterator[I] | AsyncIterator[I] | None = None
        #: How many items have been pulled.
        self.pulled = 0
        #: Whether it has said that there is no more: then it is never asked again. It may be
        #: closed by now, or say something else.
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
        if self.ended:
            raise SourceEnd

        try:
            item: I = sequence[self.pulled]
        except IndexError:
            # The end, or an error of its own.
            if self.pulled >= len(sequence):
                self.ended = True
                raise SourceEnd from None

            raise

        self.pulled += 1
        return item

    async def pull(self) -> I:
        """
        Return the next item of anything but a sequence.

        :raises SourceEnd: if there is none

        """
        if self.ended:
            raise SourceEnd

        item: object
        if self.is_async:
            if self._iterator is None:
                self._iterator = aiter(cast("AsyncIterable[I]", self.items))

            try:
                item = await anext(cast("AsyncIterator[I]", self._iterator))
            except StopAsyncIteration:
                item = _END
        else:
            if self._iterator is None:
                self._iterator = iter(cast("Iterable[I]", self.items))

            item = next(cast("Iterator[I]", self._iterator), _END)

        if item is _END:
            self.ended = True
            raise SourceEnd

        self.pulled += 1
        return cast("I", item)

    async def close(self) -> None:
        """Close a generator, which will not be advanced any more; nothing else is closed."""
        generator = self._generator()
        if isasyncgen(generator):
            await cast("AsyncGenerator[I]", generator).aclose()
        elif isgenerator(generator):
            cast("Generator[I]", generator).close()

    def note_cut_off(self) -> None:
        """Find out what has become of the source, now that a step of it was cut off."""
        self.interrupted = isasyncgen(self._iterator) and self._iterator.ag_frame is None

    @property
    def can_be_cut_off(self) -> bool:
        """Whether it is an async generator that has not ended."""
        generator = self._generator()
        return isasyncgen(generator) and generator.ag_frame is not None

    def _generator(self) -> object:
        """Return what is to be closed, if it is a generator; it may have been begun by others."""
        return self.items if self._iterator is None else self._iterator

    @property
    def left(self) -> int | None:
        """How many items are left, if the source can tell."""
        if self.ended:
            return 0

        if not isinstance(self.items, Sized):
            return None

        try:
            return max(len(self.items) - self.pulled, 0)
        except Exception:  # noqa: BLE001 - it has no length, or none that is an index
            return None

    def rest(self) -> list[I]:
        """Return what a sequence still has to give; of other sources the rest stays unread."""
        if self._sequence is None or self.ended:
            return []

        return list(islice(self._sequence, self.pulled, None))

    def rest_at_hand(self) -> Iterator[I]:
        """Yield what a sequence still has to give, unless it may make it only when asked."""
        if isinstance(self._sequence, (list, tuple, deque)) and not self.ended:
            yield from islice(self._sequence, self.pulled, None)
