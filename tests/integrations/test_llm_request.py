"""The estimate of a request: what is counted of it, and what its answer may have."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.integrations import _llm_request
from anythrottle.integrations._llm_request import MOST_PARSED, count, tokens_of

CHAT = "/v1/chat/completions"

PNG = base64.b64encode(bytes(range(256)) * 400).decode()

USER = len("messagesroleusercontent")


def tokens(body: object, path: str = CHAT, default: int = 1000) -> tuple[int, int]:
    return tokens_of(json.dumps(body, ensure_ascii=False).encode(), path, default)


def read(*parts: object) -> int:
    """Return the tokens of a message's parts, without those of the message around them."""
    around = tokens({"messages": [{"role": "user", "content": []}]})[0]
    whole = tokens({"messages": [{"role": "user", "content": list(parts)}]})[0]
    assert around == -(-USER // 3)
    return whole - around


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ("", 0),
        ("Why?", 4),
        ("héllo", 6),
        ("为什么", 9),
        ("\U0001f600", 4),
        ("\ud83d", 3),
        ("a" * 3000, 3000),
    ],
)
def test_a_token_is_three_bytes_of_text_names_included(content: str, size: int) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    assert tokens_of(body, CHAT, 0) == (-(-(USER + size) // 3), 0)


def test_what_is_no_text_is_a_token_each() -> None:
    assert tokens({"input": [1, 2.5, True, None, -7]})[0] == 5 + 2


def test_instructions_tools_and_system_are_texts_too() -> None:
    long = "word " * 300
    for more in (
        {"instructions": long},
        {"system": long},
        {"system": [{"type": "text", "text": long}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": long}}]},
        {"tools": [{"name": "f", "input_schema": {"properties": {long: {"type": "string"}}}}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": long}]}]},
        {"prompt": long},
    ):
        assert 500 < tokens(more)[0] < 520


IMAGE_URL = "https://example.org/" + "a" * 3000

ATTACHMENTS: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    {"type": "image_url", "image_url": {"url": IMAGE_URL, "detail": "high"}},
    {"type": "input_image", "image_url": IMAGE_URL},
    {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
    {"type": "input_image", "file_id": "file-1"},
    {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
    {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PNG}"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "input_file", "file_data": PNG, "filename": "a.pdf"},
    {"type": "input_file", "file_url": IMAGE_URL},
    {"type": "computer_screenshot", "image_url": IMAGE_URL},
    {"type": "image_generation_call", "result": PNG},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    {"type": "image", "source": {"type": "url", "url": IMAGE_URL}},
    {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
    {"type": "document", "source": {"type": "base64", "media_type": "pdf", "data": PNG}},
    {"type": "video_url", "video_url": {"url": f"DATA:video/mp4;base64,{PNG}"}},
]


@pytest.mark.parametrize("part", ATTACHMENTS, ids=[part["type"] for part in ATTACHMENTS])
def test_what_is_attached_is_a_constant(part: dict[str, Any]) -> None:
    assert 1600 < read(part) < 1630
    assert 3200 < read(part, part) < 3260


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "text", "data": "word " * 300}},
        {"type": "tool_result", "content": [{"type": "text", "text": "word " * 300}]},
        {"type": "tool_use", "input": {"url": "https://example.org/", "data": "word " * 300}},
        {"type": ["file"], "data": "word " * 300},
        {"type": "text", "text": "data:" + "word " * 300},
    ],
)
def test_what_is_text_counts_as_text(part: dict[str, Any]) -> None:
    assert 500 < read(part) < 540


@pytest.mark.parametrize(
    ("members", "output"),
    [
        ({}, 1000),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens_to_sample": 8}, 8),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": None}, 1000),
        ({"max_tokens": -1}, 1000),
        ({"max_tokens": "5"}, 1000),
        ({"max_tokens": 5.0}, 1000),
        ({"max_tokens": True}, 1000),
        ({"max_tokens": 10**16}, 1000),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"n": 3}, 3000),
        ({"n": 2, "best_of": 4, "max_tokens": 5}, 20),
        ({"n": 0, "max_tokens": 5}, 5),
        ({"n": -3, "best_of": "4", "max_tokens": 5}, 5),
        ({"prompt": "one", "max_tokens": 5}, 5),
        ({"prompt": ["one", "two", "three"], "n": 2, "max_tokens": 5}, 30),
        ({"prompt": [[1, 2], [3]], "max_tokens": 5}, 10),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, 5),
        ({"prompt": [], "max_tokens": 5}, 5),
        ({"prompt": {"id": "stored"}, "max_tokens": 5}, 5),
    ],
)
def test_the_output_is_what_the_request_allows(members: dict[str, Any], output: int) -> None:
    assert tokens({"model": "m", **members})[1] == output


@pytest.mark.parametrize(
    ("path", "free", "silent"),
    [
        ("/v1/chat/completions", False, False),
        ("/v1/messages", False, False),
        ("/openai/deployments/batches/chat/completions", False, False),
        ("/v1/embeddings", False, True),
        ("/v1/embeddings/", False, True),
        ("/openai/deployments/mine/embeddings", False, True),
        ("/v1/moderations", False, True),
        ("/v1/responses/input_tokens", False, True),
        ("/v1/messages/count_tokens", True, True),
        ("/v1/projects/p/models/count-tokens:rawPredict", True, True),
        ("/v1/messages/batches", True, True),
        ("/v1/batches", True, True),
        ("embeddings", False, True),
        ("", False, False),
    ],
)
def test_some_endpoints_put_nothing_out_or_count_elsewhere(
    path: str, free: bool, silent: bool
) -> None:
    went_in, came_out = tokens({"input": "word", "max_tokens": 7}, path)
    assert went_in == (0 if free else 8)
    assert came_out == (0 if silent else 7)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{}",
        b" [] ",
        b"null",
        b"12",
        b'"text"',
        b"{",
        b'{"messages": ',
        b"{'a': 1}",
        b'{"a": "\xff"}',
        b"--boundary\r\nContent-Disposition: form-data",
        b"\x1f\x8b\x08compressed",
        b"\x89PNG",
    ],
)
def test_no_json_costs_nothing(body: bytes) -> None:
    assert tokens_of(body, CHAT, 1000) == (0, 0)


def test_a_list_is_measured_too() -> None:
    assert tokens(["word", "word"]) == (3, 1000)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"text": "' + b"word " * (MOST_PARSED // 5 + 1) + b'"}',
    ],
    ids=["lists", "objects", "digits", "long"],
)
def test_what_cannot_be_parsed_is_measured_as_it_stands(body: bytes) -> None:
    assert tokens_of(body, CHAT, 1000) == (-(-len(body) // 3), 1000)
    assert tokens_of(body, "/v1/embeddings", 1000) == (-(-len(body) // 3), 0)


def test_large_images_are_cut_out_before_parsing() -> None:
    image = {"type": "base64", "media_type": "image/png", "data": PNG * 40}
    assert len(image["data"]) > MOST_PARSED
    went_in, came_out = tokens({"messages": [image, image], "max_tokens": 5})
    assert 3200 < went_in < 3240
    assert came_out == 5


def test_what_is_cut_out_counts_though_nothing_says_what_it_is() -> None:
    assert tokens({"text": PNG * 40, "max_tokens": 5}) == (1600 + 5 + 1, 5)
    went_in, came_out = tokens({"a": [PNG * 40, "word " * (MOST_PARSED // 5 + 1)]})
    assert 1600 + MOST_PARSED // 3 <= went_in < 1600 + MOST_PARSED // 3 + 10
    assert came_out == 1000


def test_what_is_short_is_not_cut_out() -> None:
    words = ("a" * 4095 + " ") * (MOST_PARSED // 4096 + 1)
    assert tokens({"a": words})[0] > MOST_PARSED // 3


def test_the_work_does_not_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is not cut out is looked at once; from each of its bytes, it would take hours."""
    monkeypatch.setattr(_llm_request, "MOST_PARSED", 10)
    body = b'{"a": "' + (b"a" * 4095 + b" ") * 2_000 + b'"}'
    start = time.process_time()
    tokens_of(body, CHAT, 0)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("value", [0, 1, 10**15])
def test_what_can_be_a_count(value: int) -> None:
    assert count(value) == value


@pytest.mark.parametrize("value", [-1, 10**15 + 1, 1.0, True, False, "1", None, [1], {}])
def test_what_cannot_be_a_count(value: object) -> None:
    assert count(value) is None


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()

KINDS = st.sampled_from(["file", "base64", "url", "text", "image_url", "input_image"])

NAMES = st.sampled_from(
    [
        *("messages", "prompt", "input", "max_tokens", "max_output_tokens", "n", "best_of"),
        *("type", "data", "url", "image_url", "file", "content", "role", "system", "tools"),
    ]
)

JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS | KINDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=5)
    ),
    max_leaves=20,
)

PATHS = st.text() | st.sampled_from([CHAT, "/v1/embeddings", "/v1/messages/count_tokens", "/"])


@given(body=JSON, path=PATHS, default=st.integers(0, 10**6), ascii_only=st.booleans())
def test_no_json_raises(body: object, path: str, default: int, ascii_only: bool) -> None:
    text = json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert min(tokens_of(text, path, default)) >= 0


@given(body=st.binary(), before=st.sampled_from([b"", b"{", b"[", b'{"a":']), path=PATHS)
def test_no_bytes_raise(body: bytes, before: bytes, path: str) -> None:
    assert min(tokens_of(before + body, path, 10)) >= 0


@given(texts=st.lists(st.text(), min_size=1))
def test_more_text_never_costs_less(texts: list[str]) -> None:
    costs = [tokens({"messages": texts[:size]})[0] for size in range(1, len(texts) + 1)]
    assert costs == sorted(costs)
