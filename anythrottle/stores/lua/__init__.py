"""The server's side of a shared limiter as a script, for Redis and Valkey: the twin of the ledger."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

#: The files of the script, in the order in which they are joined.
PARTS = ("rule", "window", "bucket", "fixed", "slots", "exchange")


@cache
def script() -> str:
    """
    Return the text of the script.

    Its one key is the limiter's, with braces around all of it: whatever else it reads or writes has
    a key that begins with that one, and so lies in the same slot of a cluster. Its arguments are
    those of :func:`~anythrottle.stores.exchange.request_args`, and its reply is read by
    :func:`~anythrottle.stores.exchange.reply_of`. What it publishes, to shard channels, is read by
    :func:`~anythrottle.stores.exchange.push_of`.
    """
    folder = files(__package__)
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in PARTS)
