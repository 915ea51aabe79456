"""What may be wrong with a server that coredis has no error of its own for."""

from __future__ import annotations

#: What coredis stumbles over if an answer to its greeting makes no sense.
_STUMBLES = (AssertionError, LookupError, TypeError)


class HungUp(Exception):
    """A server has closed the connection before it answered anything."""


class FallenSilent(TimeoutError):
    """A server does not answer any more on a connection on which it has answered before."""


class SpeaksOtherwise(Exception):
    """A server has answered something that is no answer of a Redis."""


class TooOld(Exception):
    """A server lacks what is needed of it."""


class OneOfMany(Exception):
    """A server belongs to a cluster, which the client does not know."""


def plainer(error: Exception) -> Exception:
    """Return an error of connecting, or in its place one that says more plainly what happened."""
    if isinstance(error.__cause__, _STUMBLES):
        told: Exception = SpeaksOtherwise("the server speaks something else")
    elif str(error).startswith("Connection lost"):
        told = HungUp("the server has closed the connection without an answer")
    else:
        return error

    told.__cause__ = error
    return told


def check_version(version: str) -> None:
    """
    Raise an error if a server is too old.

    :param version: as the server tells it, such as "7.0.15"; anything else passes
    :raises TooOld: if it is older than Redis 7

    """
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < 7:  # noqa: PLR2004 - the first with SPUBLISH
        raise TooOld(f"the server is Redis {version}, which has no SPUBLISH")
