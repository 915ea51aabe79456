"""The server's side of a shared limiter as a script for Redis: the twin of the ledger."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

#: The kinds of rules, with a file for each.
KINDS = ("window", "end", "bucket", "fixed", "slots")


@cache
def script() -> str:
    """
    Return the text of the script.

    Its one key is the limiter's, with braces around all of it: whatever else it reads or writes has
    a key that begins with that one, and so lies in the same slot of a cluster. Its arguments are
    those of :func:`~anythrottle.stores.wire.request_args`, and its reply is read by
    :func:`~anythrottle.stores.wire.reply_of`. What it publishes, to shard channels, is read by
    :func:`~anythrottle.stores.wire.push_of`.
    """
    kinds = [f"PARTS['{kind}'] = function()\n{_text(kind)}end\n" for kind in KINDS]
    exchange = f"return (function()\n{_text('exchange')}end)()\n"
    return "\n".join([_text("rule"), *kinds, exchange])


def _text(part: str) -> str:
    return (files(__name__) / f"{part}.lua").read_text(encoding="utf-8")
