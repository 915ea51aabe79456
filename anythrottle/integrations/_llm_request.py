"""How many tokens a request to a language model may cost: of itself, and of its answer."""

from __future__ import annotations

import json
import re
from math import ceil
from typing import TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | bool | None"

#: The longest body, in bytes, that is parsed.
MOST_PARSED = 4 * 2**20

#: The largest count of tokens that is believed: a larger one is taken as not told.
_MOST_TOKENS = 10**15

_BYTES_PER_TOKEN = 3

_TOKENS_PER_ATTACHMENT = 1600

#: A run so long without a space, a quote or a full stop is no text. (The lookbehind keeps the
#: search linear: a run that is too short is not tried again from its second byte on.)
_ENCODED = re.compile(rb"(?<![\w+/=-])[\w+/=-]{4096,}")

_DATA_URL = re.compile(r"data:[^,\s]{0,200};base64,", re.IGNORECASE)

#: What an object that stands for an image, a recording or a file says that it is.
_ATTACHED = {
    *("base64", "url", "file"),  # Anthropic's sources; OpenAI has "file" too
    *("image_url", "input_audio", "input_image", "input_file"),
    *("computer_screenshot", "image_generation_call"),
}

#: The members of such an object that hold the content, or say where it is.
_CONTENT = {
    *("data", "url", "file", "image_url", "input_audio"),
    *("file_data", "file_id", "file_url", "result"),
}

#: The members that bound the answer, in older and in newer APIs.
_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "max_tokens_to_sample")

#: Endpoints that have limits of their own, which count no tokens of a minute.
_FREE = {"batches", "count_tokens", "count-tokens:rawPredict"}

#: Endpoints whose answer has no tokens.
_SILENT = {"embeddings", "input_tokens", "moderations"}


def tokens_of(body: bytes, path: str, default_output: int) -> tuple[int, int]:
    """
    Return the tokens that a request may cost: of itself, and of its answer.

    The work grows with the body's length and nothing else.

    :param path: the path of its address
    :param default_output: what the answer to one prompt has if the request doesn't bound it

    """
    endpoint = path.rstrip("/").rpartition("/")[2]
    if endpoint in _FREE or body.lstrip()[:1] not in (b"{", b"["):
        return 0, 0

    cut = 0
    if len(body) > MOST_PARSED:
        body, cut = _ENCODED.subn(b"", body)

    try:
        request = _parsed(body)
    except ValueError:
        return 0, 0

    if request is None:
        read, output = _tokens(len(body), cut), default_output
    elif not request:
        return 0, 0
    else:
        read, output = _input(request, cut), _output(request, default_output)

    return read, (0 if endpoint in _SILENT else output)


def count(value: object) -> int | None:
    """Return ``value`` if it can be a number of tokens, else ``None``."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _parsed(body: bytes) -> Json:
    """
    Return the JSON of a body; ``None`` if that would be too much work, or is too deeply nested.

    :raises ValueError: if it is no JSON

    """
    if len(body) > MOST_PARSED:
        return None

    try:
        request: Json = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (RecursionError, ValueError):
        # too deep, or a number of more digits than Python reads
        return None

    return request


def _tokens(size: int, attachments: int) -> int:
    """Return the tokens of a text of so many bytes, with what is attached to it."""
    return ceil(size / _BYTES_PER_TOKEN) + attachments * _TOKENS_PER_ATTACHMENT


def _input(request: Json, attached_least: int) -> int:
    """
    Return the tokens of all that a request says.

    Names of members are text as well: the model is told those of tools, and those around a message
    stand for the tokens that set it off. All that is no text is a token, as in prompts that are
    lists of tokens.

    :param attached_least: how many things are attached, at the least

    """
    size = attachments = 0
    ahead = [request]
    while ahead:
        value = ahead.pop()
        if isinstance(value, str):
            if _DATA_URL.match(value):
                attachments += 1
            else:
                size += _size(value)
        elif isinstance(value, list):
            ahead.extend(value)
        elif isinstance(value, dict):
            kind = value.get("type")
            attached = isinstance(kind, str) and kind in _ATTACHED
            attachments += attached
            for name, member in value.items():
                size += _size(name)
                if not (attached and name in _CONTENT):
                    ahead.append(member)
        else:
            size += _BYTES_PER_TOKEN

    return _tokens(size, max(attachments, attached_least))


def _size(text: str) -> int:
    """Return the length of a text in bytes of UTF-8; half of an escaped pair counts as well."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _output(request: Json, default: int) -> int:
    """Return the tokens that the answers to a request may have, together."""
    if not isinstance(request, dict):
        return default

    told = [most for name in _BOUNDS if (most := count(request.get(name))) is not None]
    answers = max(count(request.get("n")) or 1, count(request.get("best_of")) or 1)
    return max(told, default=default) * answers * _prompts(request.get("prompt"))


def _prompts(prompt: Json) -> int:
    """Return how many prompts there are: one, which may be a list of tokens, or a list of them."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
        return len(prompt)

    return 1
