"""What a ``Retry-After`` header says."""

from __future__ import annotations

import logging
import re
import sys
import time
from math import isfinite

_logger = logging.getLogger("anythrottle")

#: Delta seconds, as RFC 9110 has them; with a fraction, as some servers have them.
_SECONDS = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*")


def parse_retry_after(text: str, *, utc: float | str | None = None) -> float | None:
    """
    Return the seconds to pause for, by the text of a ``Retry-After`` header.

    >>> parse_retry_after("120")
    120.0
    >>> parse_retry_after(
    ...     "Fri, 31 Dec 1999 23:59:59 GMT", utc="Fri, 31 Dec 1999 23:58:59 GMT"
    ... )
    60.0

    The header is described in :rfc:`9110`, section 10.2.3: seconds, or an HTTP date. What it says
    is not always of use: for 0 or less, an instant that is past, and whatever else cannot be read,
    ``None`` is returned, and that is logged.

    :param text: the header's text, as it came
    :param utc: what the ``Date`` header of the same answer says, as it came or in seconds since
        1970; ``None``, or what cannot be read, for this machine's clock
    :raises TypeError: if ``text`` is no str
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {text!r}")

    match = _SECONDS.fullmatch(text)
    if match is not None:
        # More digits than a float can hold are as long as can be, but not for ever.
        seconds = min(float(match[1]), sys.float_info.max)
    else:
        instant = instant_of(text)
        now = instant_of(utc) if isinstance(utc, str) else utc
        now = time.time() if now is None or not isfinite(now) else now
        seconds = 0.0 if instant is None else instant - now

    if seconds <= 0:
        _logger.info("Retry-After %r is ignored: it names no time to come", text)
        return None

    return seconds


def instant_of(date: str) -> float | None:
    """Return the instant that an HTTP date means, in seconds since 1970."""
    # Imported here, because few headers are dates and these modules take milliseconds.
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        instant = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None

    if instant.tzinfo is None:
        # HTTP dates are UTC, those in C's form too, which do not say so.
        instant = instant.replace(tzinfo=UTC)

    return instant.timestamp()
