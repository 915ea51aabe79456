"""Objects that can exist only once."""

from __future__ import annotations

from typing import NoReturn


class Live:
    """
    Refuses to be copied or pickled: waiting tasks, slots and charges belong to one object.

    A shallow copy would share only a part of that state, and so break both.
    """

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        # copy.copy(), copy.deepcopy() and pickle all use this.
        raise TypeError(f"{self!r} cannot be copied or pickled: make another one")
