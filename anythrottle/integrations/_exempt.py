"""The value that says of a request that it is not limited."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Exempt(Enum):
    """The type of :data:`EXEMPT`, for annotations."""

    EXEMPT = "exempt"

    def __repr__(self) -> str:
        return "EXEMPT"


#: Says that a request is not limited; to be returned by a function that tells its cost or its key.
EXEMPT: Final = Exempt.EXEMPT
