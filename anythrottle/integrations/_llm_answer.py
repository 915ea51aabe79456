"""What the answer of a language model tells of its usage, in JSON or in a stream of events."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ._llm_request import MOST_PARSED, Json, count

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def usage_of(body: bytes) -> tuple[int, int] | None:
    """
    Return the tokens that count towards the provider's limits, read and written.

    ``None`` if the answer doesn't tell them all, or tells of an error: then it doesn't tell what
    was written before.
    """
    if len(body) > MOST_PARSED:
        return None

    body = body.removeprefix(_BYTE_ORDER_MARK)
    counts: dict[str, int] = {}
    for text in (body,) if body.lstrip()[:1] == b"{" else _events(body):
        if b'"usage"' in text or b'"error"' in text:
            told = _told(text)
            if told is None:
                return None

            # Later events tell more, or newer counts.
            counts |= told

    return _charged(counts)


def _events(body: bytes) -> Iterator[bytes]:
    """Yield the data of each server-sent event; the last one need not be complete."""
    data: list[bytes] = []
    for line in (*body.splitlines(), b""):
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:"))
        elif data and not line:
            yield b"\n".join(data)
            data.clear()


def _told(text: bytes) -> dict[str, int] | None:
    """Return the counts that one JSON text tells, by name; ``None`` if it tells of an error."""
    try:
        document: Json = json.loads(text)
    except (ValueError, RecursionError):
        return {}

    if not isinstance(document, dict):
        return {}

    told: dict[str, int] = {}
    for holder in (document, document.get("response"), document.get("message")):
        if isinstance(holder, dict):
            if holder.get("error") or holder.get("type") == "error":
                return None

            told |= _counts(holder.get("usage"))

    if document.get("type") == "message_start":
        # Hardly anything is written yet. Unless a later event tells how much was, it is unknown.
        told.pop("output_tokens", None)

    return told


def _counts(usage: Json) -> dict[str, int]:
    """Return what can be numbers of tokens, by name."""
    if not isinstance(usage, dict):
        return {}

    return {name: told for name, value in usage.items() if (told := count(value)) is not None}


def _charged(counts: dict[str, int]) -> tuple[int, int] | None:
    """
    Return the tokens read and written, of those that count towards the provider's limits.

    ``prompt_tokens`` and OpenAI's ``input_tokens`` include what was read from a cache, which its
    limits count. Anthropic's ``input_tokens`` don't: what comes from the cache or goes into it is
    told beside them, and its limits count what goes in only.
    """
    total = counts.get("total_tokens")
    if (read := counts.get("prompt_tokens")) is not None:
        written = counts.get("completion_tokens")
    elif (read := counts.get("input_tokens")) is not None:
        read += counts.get("cache_creation_input_tokens", 0)
        written = counts.get("output_tokens")
    elif (read := total) is not None:
        # Answers that tell nothing else are embeddings and the like.
        written = 0
    else:
        return None

    if written is None and total is None:
        return None

    # Some providers count what the model thought in the total only.
    return read, max(written or 0, (total or 0) - read)
