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
    """The source has no more items; a class of our own, because a source may raise any other."""


@final
class Source(Generic[I]):
    """
    The items that have not been pulled yet.

    :param items: an iterable or async iterable
    :param name: the name of the parameter that it was passed as
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

        #: The iterable that the items come from.
        self.items = items
        self._sequence = items if isinstance(items, Sequence) else None
        #: Whether any task may pull from it, by :meth:`pull_nowait`: a sequence has no state.
        self.is_sequence = self._sequence is not None
        #: Whether it is async. Judged by the iterable, because an async iterator may lack
        #: ``__aiter__()``.
        self.is_async = isinstance(items, AsyncIterable)
        self._iterator: Iterator[I] | AsyncIterator[I] | None = None
        #: How many items have been pulled.
        self.pulled = 0
        #: Whether it has ended: then it is never asked again, because it may be closed by now, or
        #: give more items.
        self.ended = False
        #: Whether it is an async generator that was cut off inside its own step.
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
            # This is either the end, or an error of the sequence's own.
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

        if self._iterator is None:
            items = self.items
            self._iterator = aiter(items) if isinstance(items, AsyncIterable) else iter(items)

        item: object
        if self.is_async:
            try:
                item = await anext(cast("AsyncIterator[I]", self._iterator))
            except StopAsyncIteration:
                item = _END
        else:
            item = next(cast("Iterator[I]", self._iterator), _END)

        if item is _END:
            self.ended = True
            raise SourceEnd

        self.pulled += 1
        return cast("I", item)

    async def close(self) -> None:
        """Close the source for good if it is a generator; nothing else is closed."""
        generator = self._generator()
        if isasyncgen(generator):
            try:
                await cast("AsyncGenerator[I]", generator).aclose()
            except BaseExceptionGroup as group:
                # A task group around its `yield` wraps what has told it to leave.
                if group.split(GeneratorExit)[1] is not None:
                    raise
        elif isgenerator(generator):
            cast("Generator[I]", generator).close()

    def note_cut_off(self) -> None:
        """Find out whether the source has ended because a step of it was cut off."""
        self.interrupted = isasyncgen(self._iterator) and self._iterator.ag_frame is None

    @property
    def can_be_cut_off(self) -> bool:
        """Whether it is an async generator that has not ended."""
        generator = self._generator()
        return isasyncgen(generator) and generator.ag_frame is not None

    def _generator(self) -> object:
        """Return what is to be closed if it is a generator, which other code may have begun."""
        return self.items if self._iterator is None else self._iterator

    @property
    def left(self) -> int | None:
        """How many items are left; ``None`` if it is unknown."""
        if self.ended:
            return 0

        if not isinstance(self.items, Sized):
            return None

        try:
            return max(len(self.items) - self.pulled, 0)
        except Exception:  # noqa: BLE001 - it has no length, or none that is an index
            return None

    def rest(self) -> list[I]:
        """Return the items that a sequence has left; those of other sources stay unread."""
        if self._sequence is None or self.ended:
            return []

        return list(islice(self._sequence, self.pulled, None))

    def rest_at_hand(self) -> Iterator[I]:
        """Yield the items that a sequence has left, unless it may make them only when asked."""
        if isinstance(self._sequence, (list, tuple, deque)) and not self.ended:
            yield from islice(self._sequence, self.pulled, None)
