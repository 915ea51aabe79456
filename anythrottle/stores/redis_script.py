"""A script for servers that speak the protocol of Redis."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1


@dataclass(frozen=True, slots=True)
class Script:
    """
    A script, and the name that a server has for it.

    :ivar text: what is carried out
    :ivar sha: its SHA-1, in hexadecimal digits
    """

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        """Return the script with that text."""
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
