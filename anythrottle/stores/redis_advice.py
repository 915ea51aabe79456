"""What users are told to do about errors of servers and of coredis, without importing that."""

from __future__ import annotations

#: What to do about an error, by the name of a class that it is of; the first that fits.
_ADVICE: tuple[tuple[str, str], ...] = (
    ("AuthenticationError", "give the user and password that the server asks for"),
    (
        "AuthorizationError",
        "let the user do what is needed: +@all on the keys and channels of the prefix",
    ),
    ("ReadOnlyError", "ask the primary, not a replica; a Sentinel's client knows where it is"),
    (
        "MovedError",
        "it is one of a cluster: pass a coredis.RedisCluster, not a URL or coredis.Redis",
    ),
    ("BusyLoadingError", "it loads its data: try again when that is done"),
    ("UnknownCommandError", "take a server that runs scripts: Redis 7 or later, or Valkey"),
    ("PrimaryNotFoundError", "see that a Sentinel runs, and watches over something of that name"),
    ("InvalidResponse", "see that it is a Redis or Valkey: it speaks something else"),
    ("TimeoutError", "see that it is not overloaded or stopped, and that it is a Redis or Valkey"),
    ("ConnectionError", "see that it runs, and is Redis 7 or later, or Valkey, at that address"),
)


def advice(error: Exception) -> str:
    """Return what went wrong with a server, and what to do about it."""
    said = [str(error) or type(error).__name__]
    cause = error.__cause__
    while cause is not None:
        said.append(str(cause) or type(cause).__name__)
        cause = cause.__cause__

    kinds = {kind.__name__ for kind in type(error).__mro__}
    what = next((text for kind, text in _ADVICE if kind in kinds), "")
    if said[0].startswith("OOM"):
        what = "its memory is full: give it more, or let it evict what expires"

    return ": ".join(said) + (f"; {what}" if what else "")
