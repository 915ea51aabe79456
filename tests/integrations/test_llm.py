"""The costs of calls of language models, as the SDKs of OpenAI and Anthropic make them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import Cost, RateLimiter
from anythrottle.integrations.llm import Request, Response, TokenCost
from tests.integrations.test_llm_answer import ANTHROPIC, CHUNK, LAST_CHUNK, USAGE, response, stream
from tests.integrations.test_llm_request import JSON, PNG

TOKENS = TokenCost()

SPLIT = TokenCost(split=True)

URL = "https://api.example/v1/chat/completions"

LIBRARIES = pytest.mark.parametrize("lib", [httpx2, httpx], ids=["httpx2", "httpx"])

# --- parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"default_output": -1}, ValueError, "default_output must be at least 0, not -1"),
        ({"default_output": 1.5}, TypeError, "default_output must be an int, not 1.5"),
        ({"default_output": True}, TypeError, "default_output must be an int, not True"),
        ({"split": 1}, TypeError, "split must be a bool, not 1"),
        ({"split": None}, TypeError, "split must be a bool, not None"),
    ],
)
def test_parameters_are_checked(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        TokenCost(**options)


def test_parameters_are_named() -> None:
    with pytest.raises(TypeError):
        TokenCost(5)  # type: ignore[call-arg]
    assert repr(TokenCost(default_output=0)) == "TokenCost(default_output=0, split=False)"


# --- requests and answers of both libraries ----------------------------------------------------


@LIBRARIES
def test_a_request_and_its_answer(lib: Any) -> None:
    request = lib.Request("post", URL, json={"prompt": "word" * 3, "max_tokens": 50})
    assert TOKENS.estimate(request) == {"tokens": 11 + 50}
    assert SPLIT.estimate(request) == {"input-tokens": 11, "output-tokens": 50}
    answer = lib.Response(200, json={"usage": USAGE}, request=request)
    assert TOKENS.used(answer) == {"tokens": 48}
    assert SPLIT.used(answer) == {"input-tokens": 8, "output-tokens": 40}


@LIBRARIES
def test_the_default_output(lib: Any) -> None:
    request = lib.Request("POST", URL, json={"prompt": "word"})
    assert TOKENS.estimate(request) == {"tokens": 4 + 1024}
    assert TokenCost(default_output=0).estimate(request) == {"tokens": 4}


@LIBRARIES
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("GET", {}),
        ("DELETE", {}),
        ("GET", {"json": {"prompt": "word"}}),
        ("DELETE", {"json": {"prompt": "word"}}),
        ("POST", {}),
        ("POST", {"content": b""}),
        ("POST", {"data": {"prompt": "word"}}),
        ("POST", {"files": {"file": b'{"prompt": "word"}'}}),
        ("POST", {"content": iter([b'{"prompt": "word"}'])}),
    ],
)
def test_what_has_no_json_costs_no_tokens(lib: Any, method: str, options: dict[str, Any]) -> None:
    request = lib.Request(method, URL, **options)
    assert TOKENS.estimate(request) == {"tokens": 0}
    assert SPLIT.estimate(request) == {"input-tokens": 0, "output-tokens": 0}


@LIBRARIES
def test_a_body_that_is_streamed_is_left_alone(lib: Any) -> None:
    parts = iter([b'{"prompt": ', b'"word"}'])
    TOKENS.estimate(lib.Request("POST", URL, content=parts))
    assert b"".join(parts) == b'{"prompt": "word"}'


@LIBRARIES
@pytest.mark.parametrize("status", [100, 199, 300, 302, 400, 429, 500, 503, 529])
def test_errors_leave_the_estimate(lib: Any, status: int) -> None:
    assert TOKENS.used(lib.Response(status, json={"usage": USAGE})) is None


@LIBRARIES
@pytest.mark.parametrize("status", [200, 201, 299])
def test_success_is_settled(lib: Any, status: int) -> None:
    assert TOKENS.used(lib.Response(status, json={"usage": USAGE})) == {"tokens": 48}


@LIBRARIES
def test_what_is_fetched_again_is_not_paid_again(lib: Any) -> None:
    request = lib.Request("GET", "https://api.example/v1/responses/1")
    assert TOKENS.used(lib.Response(200, json={"usage": USAGE}, request=request)) is None


@LIBRARIES
def test_an_answer_that_is_not_read_leaves_the_estimate(lib: Any) -> None:
    assert TOKENS.used(lib.Response(200, content=iter([b'{"usage": {"total_tokens": 1}}']))) is None


@LIBRARIES
def test_a_path_is_found_in_spite_of_a_query(lib: Any) -> None:
    url = "https://mine.example/openai/deployments/d/embeddings?api-version=1&a=/b"
    assert SPLIT.estimate(lib.Request("POST", url, json={"input": "word"})) == {
        "input-tokens": 3,
        "output-tokens": 0,
    }


@pytest.mark.parametrize("url", ["/v1/embeddings?a=/b", "https://a.example/v1/embeddings"])
def test_an_address_may_be_a_text(url: str) -> None:
    request = SimpleNamespace(method="POST", url=url, content=b'{"input": "word"}')
    assert SPLIT.estimate(request)["output-tokens"] == 0


class Broken:
    """Raises at anything."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


THINGS = st.none() | st.integers() | st.text() | st.binary() | st.builds(Broken)


@given(
    method=st.just("POST") | THINGS,
    url=st.builds(SimpleNamespace, path=THINGS) | THINGS,
    content=JSON.map(lambda body: json.dumps(body).encode()) | THINGS,
    split=st.booleans(),
)
def test_no_request_raises(method: Any, url: object, content: Any, split: bool) -> None:
    cost = TokenCost(split=split)
    request = SimpleNamespace(method=method, url=url, content=content)
    for requested in (request, Broken(), SimpleNamespace()):
        check(cost.estimate(requested), split)


@given(
    status=st.just(200) | THINGS,
    content=st.builds(
        lambda usage: json.dumps({"usage": usage}).encode(),
        st.dictionaries(st.sampled_from(sorted(USAGE)), st.integers() | JSON),
    )
    | THINGS,
    request=st.builds(SimpleNamespace, method=THINGS) | THINGS,
    split=st.booleans(),
)
def test_no_answer_raises(status: Any, content: Any, request: object, split: bool) -> None:
    cost = TokenCost(split=split)
    answer = SimpleNamespace(status_code=status, content=content, request=request)
    for answered in (answer, Broken(), SimpleNamespace()):
        told = cost.used(answered)
        if told is not None:
            check(told, split)


def check(cost: dict[str, int], split: bool) -> None:
    """Fail unless a cost names what is promised, and can be charged."""
    assert list(cost) == (["input-tokens", "output-tokens"] if split else ["tokens"])
    assert all(type(amount) is int and amount >= 0 for amount in cost.values())


def test_the_types_are_those_of_the_libraries() -> None:
    """What mypy says of these lines is the test."""
    requests: list[Request] = [httpx2.Request("GET", URL), httpx.Request("GET", URL)]
    answers: list[Response] = [httpx2.Response(200), httpx.Response(200)]
    estimates: list[Callable[[httpx2.Request], Cost]] = [TOKENS.estimate]
    usages: list[Callable[[httpx.Response], Cost | None]] = [TOKENS.used]
    assert len(requests) + len(answers) + len(estimates) + len(usages) == 6


@pytest.mark.timing
async def test_limiters_take_both(anyio_backend: object) -> None:
    both = [
        (RateLimiter("5/min", "2000 tokens/min"), TOKENS, [1952]),
        (
            RateLimiter("5/min", "2000 input-tokens/min", "2000 output-tokens/min"),
            SPLIT,
            [1992, 1960],
        ),
    ]
    request = httpx2.Request("POST", URL, json={"prompt": "word"})
    for limiter, cost, left in both:
        async with limiter.permit(cost.estimate(request)) as permit:
            used = cost.used(httpx2.Response(200, json={"usage": USAGE}))
            assert used is not None
            permit.settle(used)
        assert [quota.remaining for quota in limiter.quotas()] == [4, *left]


# --- what the SDKs send, and take ---------------------------------------------------------------


class Provider:
    """Answers as it is told to, and keeps what was sent and answered."""

    def __init__(self, *, json: object = None, content: bytes | None = None) -> None:
        self.answer = {"json": json} if content is None else {"content": content}
        self.sent: list[httpx2.Request] = []
        self.answered: list[httpx2.Response] = []
        transport = httpx2.MockTransport(self.serve)
        client = httpx2.Client(transport=transport)
        options: dict[str, Any] = {"api_key": "none", "max_retries": 0}
        self.openai = openai.OpenAI(http_client=client, **options)
        self.anthropic = anthropic.Anthropic(http_client=client, **options)

    def serve(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request)
        # a copy: the client closes the one that it gets
        self.answered.append(httpx2.Response(200, **self.answer))
        headers = {"content-type": "text/event-stream"} if "content" in self.answer else {}
        return httpx2.Response(200, headers=headers, **self.answer)

    @property
    def estimate(self) -> tuple[int, ...]:
        (request,) = self.sent
        return tuple(SPLIT.estimate(request).values())

    @property
    def used(self) -> tuple[int, ...] | None:
        (answer,) = self.answered
        told = SPLIT.used(answer)
        return None if told is None else tuple(told.values())


@pytest.fixture
def provider() -> Iterator[Callable[..., Provider]]:
    made: list[Provider] = []

    def make(**options: Any) -> Provider:
        made.append(Provider(**options))
        return made[-1]

    yield make
    for one in made:
        one.openai.close()
        one.anthropic.close()


#: Makes a provider that answers in one way.
Make = Callable[..., Provider]

PROMPT = "Why is the sky blue? " * 20

#: What about the least and the most is that a prompt so long may have.
LEAST, MOST = 120, 200

TOOL: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}

COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "42"}}
    ],
    "usage": USAGE,
}

MESSAGE = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "42"}],
    "usage": {
        "input_tokens": 20,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 5000,
        "output_tokens": 7,
    },
}


def test_openai_chat(provider: Make) -> None:
    service = provider(json=COMPLETION)
    service.openai.chat.completions.create(
        model="gpt-5",
        messages=[
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
        ],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": TOOL}}],
        max_completion_tokens=300,
        n=2,
    )
    read, written = service.estimate
    assert LEAST < read < MOST + 60
    assert written == 600
    assert service.used == (8, 40)


def test_openai_images(provider: Make) -> None:
    service = provider(json=COMPLETION)
    url = f"data:image/png;base64,{PNG}"
    service.openai.chat.completions.create(
        model="gpt-5",
        messages=[
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}] * 2}
        ],
    )
    read, written = service.estimate
    assert 3200 < read < 3260
    assert written == 1024


def test_openai_chat_streamed(provider: Make) -> None:
    service = provider(content=stream(CHUNK, LAST_CHUNK, "[DONE]"))
    chunks = service.openai.chat.completions.create(
        model="gpt-5",
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=300,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert len(list(chunks)) == 2
    assert LEAST < service.estimate[0] < MOST
    assert service.estimate[1] == 300
    assert service.used == (8, 40)


def test_openai_responses(provider: Make) -> None:
    usage = {"input_tokens": 8, "output_tokens": 40, "total_tokens": 48}
    service = provider(json={"id": "1", "object": "response", "output": [], "usage": usage})
    service.openai.responses.create(
        model="gpt-5", instructions="Be short.", input=PROMPT, max_output_tokens=300
    )
    assert LEAST < service.estimate[0] < MOST
    assert service.estimate[1] == 300
    assert service.used == (8, 40)


def test_openai_responses_streamed(provider: Make) -> None:
    usage = {"input_tokens": 8, "output_tokens": 40, "total_tokens": 48}
    events = (response("created", output=[]), response("completed", usage, output=[]))
    service = provider(content=stream(*events))
    answer = service.openai.responses.create(model="gpt-5", input=PROMPT, stream=True)
    assert [event.type for event in answer] == ["response.created", "response.completed"]
    assert service.estimate[1] == 1024
    assert service.used == (8, 40)


def test_openai_fetched_again(provider: Make) -> None:
    service = provider(json={"id": "1", "object": "response", "output": []})
    service.openai.responses.retrieve("1")
    assert service.estimate == (0, 0)


def test_openai_completions(provider: Make) -> None:
    service = provider(json={**COMPLETION, "object": "text_completion", "choices": []})
    service.openai.completions.create(model="m", prompt=["one", "two"], max_tokens=10, n=3)
    assert service.estimate[1] == 60
    assert service.used == (8, 40)


def test_openai_embeddings(provider: Make) -> None:
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    service = provider(json={"object": "list", "data": data, "usage": usage})
    service.openai.embeddings.create(model="m", input=[PROMPT], encoding_format="float")
    assert LEAST < service.estimate[0] < MOST
    assert service.estimate[1] == 0
    assert service.used == (8, 0)


def test_openai_files_and_lists(provider: Make) -> None:
    service = provider(json={"object": "list", "data": []})
    service.openai.files.create(file=("a.jsonl", b'{"messages": []}'), purpose="batch")
    assert service.estimate == (0, 0)
    service.sent.clear()
    service.openai.models.list()
    assert service.estimate == (0, 0)
    service.sent.clear()
    service.openai.batches.create(
        completion_window="24h", endpoint="/v1/responses", input_file_id="1"
    )
    assert service.estimate == (0, 0)


def test_anthropic_messages(provider: Make) -> None:
    service = provider(json=MESSAGE)
    service.anthropic.messages.create(
        model="claude",
        max_tokens=300,
        system=[{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "weather", "description": "The weather", "input_schema": TOOL}],
        messages=[{"role": "user", "content": PROMPT}],
    )
    read, written = service.estimate
    assert LEAST < read < MOST + 60
    assert written == 300
    assert service.used == (320, 7)


def test_anthropic_images_and_documents(provider: Make) -> None:
    service = provider(json=MESSAGE)
    service.anthropic.messages.create(
        model="claude",
        max_tokens=300,
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    },
                    {
                        "type": "document",
                        "source": {"type": "url", "url": "https://example.org/a.pdf"},
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": PROMPT},
                    },
                ],
            }
        ],
    )
    assert 3200 + LEAST < service.estimate[0] < 3200 + MOST + 60


def test_anthropic_streamed(provider: Make) -> None:
    service = provider(content=stream(*ANTHROPIC))
    events = service.anthropic.messages.create(
        model="claude",
        max_tokens=300,
        messages=[{"role": "user", "content": PROMPT}],
        stream=True,
    )
    assert [event.type for event in events][-1] == "message_stop"
    assert service.used == (125, 15)


def test_anthropic_counts_and_batches(provider: Make) -> None:
    service = provider(json={"input_tokens": 7})
    service.anthropic.messages.count_tokens(
        model="claude", messages=[{"role": "user", "content": PROMPT}]
    )
    assert service.estimate == (0, 0)
    assert service.used is None
    service.sent.clear()
    service.anthropic.messages.batches.create(
        requests=[
            {
                "custom_id": "1",
                "params": {
                    "model": "claude",
                    "max_tokens": 300,
                    "messages": [{"role": "user", "content": PROMPT}],
                },
            }
        ]
    )
    assert service.estimate == (0, 0)


async def parts(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 7):
        yield body[start : start + 7]


async def test_openai_async(anyio_backend: object) -> None:
    seen: list[dict[str, int]] = []

    async def serve(request: httpx2.Request) -> httpx2.Response:
        seen.append(TOKENS.estimate(request))
        return httpx2.Response(200, content=parts(stream(CHUNK, LAST_CHUNK, "[DONE]")))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(serve))
    async with (
        openai.AsyncOpenAI(api_key="none", http_client=client, max_retries=0) as model,
        model.chat.completions.with_streaming_response.create(
            model="gpt-5",
            messages=[{"role": "user", "content": "Why?"}],
            max_completion_tokens=300,
            stream=True,
            stream_options={"include_usage": True},
        ) as answer,
    ):
        body = await answer.read()
    assert TOKENS.used(httpx2.Response(200, content=body)) == {"tokens": 48}
    assert 300 < seen[0]["tokens"] < 350
