"""The check that both virtual clocks make before they are set ahead."""

import math


def check_advance(seconds: float) -> None:
    """
    Refuse a length of time by which no clock can move on.

    :param seconds: the length, in seconds; 0 or more, finite

    :raises ValueError: if ``seconds`` is negative, infinite or NaN

    """
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be a finite number, 0 or more, not {seconds!r}")
