"""What users are told about errors of servers and of coredis, without importing coredis."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from .._errors import StoreError

_UNFIT = "take Redis 7 or later, or Valkey, whose scripts may use all commands"
_STRANGER = "it is no Redis or Valkey: see what the URL says"
_LOGIN = "give the user and password that the server asks for"
_RIGHTS = (
    "let the user do what it needs, with the keys ~{{{prefix}:*}}* and the channels "
    '&{{{prefix}:*}}*: see "Rights" in docs/howto/redis-in-production.md'
)
_TLS = "see that either both sides speak TLS, and the URL begins with rediss://, or none does"


@dataclass(frozen=True, slots=True)
class _Case:
    """
    A kind of error.

    :ivar kind: the name of a class that the error is of, or what has caused it at first
    :ivar what: what to do about it, with ``{prefix}`` for the prefix of the keys
    :ivar pattern: what is found in its text
    :ivar is_mistake: whether it stays until that is done
    :ivar said: what is said of it; if empty, its text
    """

    kind: str
    what: str
    pattern: str = ""
    is_mistake: bool = True
    said: str = ""


#: The first that fits counts. An error that fits none may pass by itself.
_CASES = (
    _Case("AuthenticationRequiredError", _LOGIN, said="it asks for a password"),
    _Case("AuthenticationError", _LOGIN),
    _Case("AuthorizationError", _RIGHTS),
    # The texts of Redis 7.0, and of later versions.
    _Case("ResponseError", _RIGHTS, r"The user executing the script can't|ACL failure in script"),
    _Case(
        "ResponseError",
        "take a database that it has: /0 to /15 unless it is told otherwise, /0 alone in a cluster",
        r"(?i)DB index|SELECT is not allowed",
    ),
    _Case("UnknownCommandError", _UNFIT),
    _Case("ResponseError", _UNFIT, "Unknown Redis command|command is not allowed from"),
    _Case("ProtocolError", _UNFIT),
    _Case("TooOld", _UNFIT),
    _Case("InvalidResponse", _STRANGER, said="it speaks something else"),
    _Case("SpeaksOtherwise", _STRANGER, said="it speaks something else"),
    _Case(
        "OneOfMany",
        "pass a coredis.RedisCluster, not a URL or coredis.Redis",
        said="the server is one of a cluster",
    ),
    _Case("WrongTypeError", "another program has a key of that name: take another prefix"),
    _Case(
        "ResponseError",
        "set a password, or turn its protected mode off",
        "^DENIED",
        said="it is in protected mode",
    ),
    _Case(
        "SSLCertVerificationError",
        "see that the URL has the certificate's name, and ssl_ca_certs the file of who signed it",
    ),
    _Case("SSLError", _TLS, "WRONG_VERSION_NUMBER|RECORD_LAYER", said="it does not speak TLS"),
    _Case(
        "HungUp",
        f"see that it is a Redis or Valkey; {_TLS}",
        is_mistake=False,
        said="it closed the connection without an answer",
    ),
    _Case("FallenSilent", "see that it is not overloaded", is_mistake=False),
    _Case(
        "TimeoutError",
        f"see that it is a Redis or Valkey, and not overloaded; {_TLS}",
        is_mistake=False,
    ),
    _Case(
        "ReadOnlyError",
        "ask the primary, not a replica; a Sentinel's client knows where it is",
        is_mistake=False,
    ),
    _Case("BusyLoadingError", "try again when that is done", is_mistake=False),
    _Case(
        "PrimaryNotFoundError",
        "see that a Sentinel runs, and watches over something of that name",
        is_mistake=False,
    ),
    _Case(
        "ResponseError",
        "its memory is full: give it more, or let it evict what expires",
        "^OOM",
        is_mistake=False,
    ),
    _Case("ConnectionError", "let it take more clients", "max number of clients", is_mistake=False),
    _Case(
        "ConnectionError",
        "see that it runs, and is Redis 7 or later, or Valkey, at that address",
        "Unable to establish",
        is_mistake=False,
    ),
    _Case("ConnectionError", "see that it runs", is_mistake=False),
)

#: Where what a server says stops being of use: names of scripts, arguments of commands.
_REST = re.compile(r"(?: script: (?:\w+, )?on @|,? with args\b).*|\.$", re.DOTALL)


def fault(name: str, error: Exception, prefix: str) -> StoreError:
    """Return the error that says what went wrong with a limiter's server, and what to do."""
    first = _first_cause(error)
    kinds = {kind.__name__ for each in (error, first) for kind in type(each).__mro__}
    text = str(error) or type(error).__name__
    if first is not error and str(first):
        text += f": {first}"

    for case in _CASES:
        if case.kind in kinds and re.search(case.pattern, text):
            said = case.said or _REST.sub("", text)
            mistake = ("mistake",) if case.is_mistake else ()
            return StoreError(name, f"{said}; {case.what.format(prefix=prefix)}", *mistake)

    return StoreError(name, _REST.sub("", text))


def _first_cause(error: BaseException) -> BaseException:
    """Return what has caused an error at first; of a group, the last one's."""
    if isinstance(error, BaseExceptionGroup):
        return _first_cause(cast("BaseExceptionGroup[BaseException]", error).exceptions[-1])

    return error if error.__cause__ is None else _first_cause(error.__cause__)
