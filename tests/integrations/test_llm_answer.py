"""The usage that an answer tells: what is found of it, and which of it counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.integrations._llm_answer import usage_of
from anythrottle.integrations._llm_request import MOST_PARSED
from tests.integrations.test_llm_request import JSON


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def stream(*events: dict[str, Any] | str, named: bool = True, end: str = "\n") -> bytes:
    """Return server-sent events as the providers write them."""
    lines: list[str] = []
    for event in events:
        if isinstance(event, str):
            lines += [f"data: {event}", ""]
        else:
            if named and "type" in event:
                lines.append(f"event: {event['type']}")
            lines += [f"data: {json.dumps(event)}", ""]
    return (end.join(lines) + end).encode()


CACHED = {"cached_tokens": 1024, "audio_tokens": 0}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        # OpenAI's chat completions: what is cached is part of the prompt, and counts
        (
            {
                "prompt_tokens": 1200,
                "completion_tokens": 40,
                "total_tokens": 1240,
                "prompt_tokens_details": CACHED,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            (1200, 40),
        ),
        # its responses
        (
            {
                "input_tokens": 1200,
                "input_tokens_details": CACHED,
                "output_tokens": 40,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 1240,
            },
            (1200, 40),
        ),
        # its embeddings
        ({"prompt_tokens": 8, "total_tokens": 8}, (8, 0)),
        # others' embeddings
        ({"total_tokens": 8}, (8, 0)),
        # what was thought stands in the total only
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 100}, (10, 90)),
        # a total that is too low
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3}, (10, 5)),
        # a gateway's, of an Anthropic call: the prompt includes the cache
        (
            {
                "prompt_tokens": 900,
                "completion_tokens": 5,
                "total_tokens": 905,
                "cache_creation_input_tokens": 800,
            },
            (900, 5),
        ),
        # Anthropic's: written to the cache counts, read from it doesn't
        (
            {
                "input_tokens": 20,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": 5000,
                "output_tokens": 7,
                "service_tier": "standard",
                "server_tool_use": {"web_search_requests": 1},
            },
            (320, 7),
        ),
        ({"input_tokens": 20, "cache_creation_input_tokens": None, "output_tokens": 7}, (20, 7)),
        ({"input_tokens": 0, "output_tokens": 0}, (0, 0)),
        # one part is missing
        ({"input_tokens": 20}, None),
        ({"prompt_tokens": 20}, None),
        ({"output_tokens": 20}, None),
        # no counts
        ({}, None),
        (None, None),
        ([], None),
        ("many", None),
        ({"type": "duration", "seconds": 3}, None),
        ({"input_tokens": -1, "output_tokens": 7}, None),
        ({"input_tokens": 20.0, "output_tokens": 7}, None),
        ({"input_tokens": True, "output_tokens": 7}, None),
        ({"input_tokens": "20", "output_tokens": 7}, None),
        ({"input_tokens": 10**16, "output_tokens": 7}, None),
        ({"input_tokens": 20, "output_tokens": 7, "total_tokens": -5}, (20, 7)),
        ({"input_tokens": 20, "cache_creation_input_tokens": -5, "output_tokens": 7}, (20, 7)),
    ],
)
def test_usage_of_a_json_answer(usage: object, tokens: tuple[int, int] | None) -> None:
    assert usage_of(text({"id": "1", "usage": usage})) == tokens
    assert usage_of(b"\xef\xbb\xbf \n" + text({"usage": usage})) == tokens


USAGE = {"prompt_tokens": 8, "completion_tokens": 40, "total_tokens": 48}

CHUNK = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "4"}}]}

LAST_CHUNK = {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}

RESPONSE_USAGE = {"input_tokens": 8, "output_tokens": 40, "total_tokens": 48}

MESSAGE_START = {
    "type": "message_start",
    "message": {
        "type": "message",
        "content": [],
        "usage": {
            "input_tokens": 25,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 9000,
            "output_tokens": 1,
        },
    },
}

BLOCK = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": '"usage"'}}

MESSAGE_DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn"},
    "usage": {"output_tokens": 15},
}

ANTHROPIC = (MESSAGE_START, {"type": "ping"}, BLOCK, MESSAGE_DELTA, {"type": "message_stop"})

ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def response(kind: str, usage: object = None, **more: object) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"error": None, "usage": usage, **more}}


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ((CHUNK, CHUNK, LAST_CHUNK, "[DONE]"), (8, 40)),
        (({**CHUNK, "usage": None}, LAST_CHUNK, "[DONE]"), (8, 40)),
        # told in each chunk, so far
        (({**CHUNK, "usage": {"prompt_tokens": 8, "completion_tokens": 1}}, LAST_CHUNK), (8, 40)),
        # not asked for
        ((CHUNK, CHUNK, "[DONE]"), None),
        ((response("created"), response("completed", RESPONSE_USAGE)), (8, 40)),
        ((response("in_progress"), response("incomplete", RESPONSE_USAGE)), (8, 40)),
        ((response("created"),), None),
        ((response("failed", RESPONSE_USAGE, error={"code": "server_error"}),), None),
        (({"type": "error", "code": "server_error", "usage": RESPONSE_USAGE},), None),
        (ANTHROPIC, (125, 15)),
        # broken off: how much was written is not told
        ((MESSAGE_START, BLOCK), None),
        # the numbers are of all so far, and may be told again
        (
            (
                *ANTHROPIC[:-1],
                {
                    "type": "message_delta",
                    "usage": {
                        "input_tokens": 30,
                        "cache_creation_input_tokens": None,
                        "output_tokens": 99,
                    },
                },
            ),
            (130, 99),
        ),
        ((*ANTHROPIC, ERROR), None),
        ((CHUNK, {"error": {"message": "gone"}}, LAST_CHUNK), None),
        ((MESSAGE_DELTA,), None),
        (('{"usage": ', LAST_CHUNK), (8, 40)),
        (('["usage"]', LAST_CHUNK), (8, 40)),
        (('{"usage": ' + "[" * 100_000, LAST_CHUNK), (8, 40)),
        ((), None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("named", [True, False])
def test_usage_of_a_stream(
    events: tuple[dict[str, Any] | str, ...], tokens: tuple[int, int] | None, named: bool, end: str
) -> None:
    assert usage_of(stream(*events, named=named, end=end)) == tokens


@pytest.mark.parametrize(
    "body",
    [
        b": OPENROUTER PROCESSING\n\n" + stream(LAST_CHUNK, "[DONE]"),
        b"\xef\xbb\xbf" + stream(LAST_CHUNK),
        b"\n\n\n" + stream(LAST_CHUNK) + b"\n\n: keep-alive\n\n",
        b"id: 7\nretry: 100\n" + stream(LAST_CHUNK),
        # without a space, without an end, in several lines
        b"data:" + text(LAST_CHUNK),
        b"data: " + text(LAST_CHUNK),
        b"data: " + text(LAST_CHUNK) + b"\n",
        b"data: " + json.dumps(LAST_CHUNK, indent=1).replace("\n", "\ndata: ").encode() + b"\n\n",
        # the last event is cut off
        stream(LAST_CHUNK) + b'data: {"choices": [], "usa',
        stream(LAST_CHUNK) + b'data: {"choices": [], "usage": {"prompt_tok',
        stream(LAST_CHUNK) + b"data",
    ],
)
def test_forms_of_streams(body: bytes) -> None:
    assert usage_of(body) == (8, 40)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"null",
        b'{"usage": {"total_tokens": 1}',
        b"<html>usage</html>",
        b'[{"usage": {"total_tokens": 1}}]',
        b'"usage"',
        text({"data": {"usage": USAGE}}),
        text({"type": "error", "error": {"type": "api_error"}, "usage": USAGE}),
        text({"error": "gone", "usage": USAGE}),
        text({"status": "failed", "error": {"code": "server_error"}, "usage": RESPONSE_USAGE}),
        text({"usage": USAGE, "choices": "a" * MOST_PARSED}),
        b'{"usage": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"usage": ' + b"9" * 5_000 + b"}",
        b'{"usage": "\xff"}',
    ],
)
def test_nothing_is_told(body: bytes) -> None:
    assert usage_of(body) is None


NUMBERS = st.integers() | st.floats() | st.none() | st.booleans() | st.text() | st.integers(0, 99)

USAGES = st.dictionaries(
    st.sampled_from(
        [
            *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens"),
            *("output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        ]
    ),
    NUMBERS,
)

EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "usage": USAGES | JSON,
        "message": st.fixed_dictionaries({"usage": USAGES}) | JSON,
        "response": st.fixed_dictionaries({"usage": USAGES}) | JSON,
        "type": st.sampled_from(["message_start", "message_delta", "error"]) | JSON,
    },
)


def is_usage(told: tuple[int, int] | None) -> bool:
    return told is None or (all(type(tokens) is int for tokens in told) and min(told) >= 0)


@given(events=st.lists(EVENTS, max_size=5), end=st.sampled_from(["\n", "\r\n"]), cut=st.integers(0))
def test_no_stream_raises(events: list[dict[str, Any]], end: str, cut: int) -> None:
    body = stream(*events, named=False, end=end)
    assert is_usage(usage_of(body))
    assert is_usage(usage_of(body[: cut % (len(body) + 1)]))


@given(document=EVENTS)
def test_no_json_raises(document: dict[str, Any]) -> None:
    assert is_usage(usage_of(text(document)))


@given(body=st.binary(), before=st.sampled_from([b"", b"{", b'data: {"usage"', b'{"usage":']))
def test_no_bytes_raise(body: bytes, before: bytes) -> None:
    assert is_usage(usage_of(before + body))
