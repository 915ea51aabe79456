"""Frozen records of which there is one for each call, made at two thirds of the usual cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

#: Sets a field of a record, frozen or not.
Setter: TypeAlias = Callable[[object, object], None]


def setters(record: type) -> tuple[Setter, ...]:
    """
    Return what sets each field of a frozen dataclass with slots, for an ``__init__`` by hand.

    The one that a dataclass writes looks up ``object.__setattr__`` and each field's name anew.
    """
    slots = cast("tuple[str, ...]", vars(record)["__slots__"])
    return tuple([cast("Setter", vars(record)[name].__set__) for name in slots])
