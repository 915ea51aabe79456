"""SDKs with a throttled client, over sockets, where every third call is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import anyio
import httpx2
import openai
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer

from anythrottle import RateLimiter, WindowTokenBucket
from anythrottle.integrations.httpx2 import ThrottledTransport
from anythrottle.integrations.llm import TokenCost
from tests.integrations.sockets import serving

# On Trio, the SDKs leave generators unfinished behind the last event, whatever the transport.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator .* was garbage collected:ResourceWarning"
)

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

#: So long that nothing comes back while a test runs.
HOUR = 3600.0
CALLS = 6

#: What each answer has cost.
INPUT, OUTPUT = 8, 5

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


def event(data: object, name: str | None = None) -> bytes:
    kind = "" if name is None else f"event: {name}\n"
    return f"{kind}data: {json.dumps(data)}\n\n".encode()


def chat(*, streamed: bool) -> list[bytes]:
    """Return an answer of OpenAI's API, in parts."""
    usage = {
        "prompt_tokens": INPUT,
        "completion_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
    }
    common = {"id": "c1", "created": 1, "model": "m"}
    if not streamed:
        message = {"role": "assistant", "content": "42"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
        return [json.dumps(answer).encode()]

    common["object"] = "chat.completion.chunk"
    parts = [{"index": 0, "delta": {"content": text}} for text in "42"]
    return [
        *(event({**common, "choices": [part]}) for part in parts),
        event({**common, "choices": [], "usage": usage}),
        b"data: [DONE]\n\n",
    ]


def message(*, streamed: bool) -> list[bytes]:
    """Return an answer of Anthropic's API, in parts."""
    said: Message = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": None,
    }
    if not streamed:
        usage = {"input_tokens": INPUT, "output_tokens": OUTPUT}
        content = [{"type": "text", "text": "42"}]
        return [json.dumps({**said, "content": content, "usage": usage}).encode()]

    begun: Message = {**said, "content": [], "usage": {"input_tokens": INPUT, "output_tokens": 1}}
    text = {"type": "text", "text": ""}
    parts = [{"type": "text_delta", "text": text} for text in "42"]
    ended = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": OUTPUT}}
    events: list[Message] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": text},
        *({"type": "content_block_delta", "index": 0, "delta": part} for part in parts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", **ended},
        {"type": "message_stop"},
    ]
    return [event(each, str(each["type"])) for each in events]


ANSWERS = {"/v1/chat/completions": chat, "/v1/messages": message}


@dataclass
class Refusing:
    """An ASGI app that refuses every third call before another one, and counts."""

    app: App
    calls: int = 0
    refused: int = 0

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        self.calls += 1
        if self.calls % 3:
            await self.app(scope, receive, send)
            return

        self.refused += 1
        headers = [(b"retry-after", b"0.05"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


@dataclass
class Models:
    """An ASGI app that answers as the APIs of two providers do."""

    bodies: list[Message] = field(default_factory=list)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in ("startup", "shutdown"):
                await send({"type": f"{(await receive())['type']}.complete"})

            return

        body = b""
        while True:
            part = await receive()
            body += part["body"]
            if not part["more_body"]:
                break

        asked = json.loads(body)
        self.bodies.append(asked)
        streamed = asked.get("stream", False)
        kind = b"text/event-stream" if streamed else b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in ANSWERS[scope["path"]](streamed=streamed):
            await send({"type": "http.response.body", "body": part, "more_body": True})

        await send({"type": "http.response.body", "body": b""})


async def ask_openai(url: str, client: Any, *, streamed: bool) -> str:
    sdk: Any = openai.AsyncOpenAI(
        api_key="none", base_url=f"{url}v1", http_client=client, max_retries=0
    )
    question: Any = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
    if not streamed:
        answer = await sdk.chat.completions.create(**question)
        return str(answer.choices[0].message.content)

    options = {"include_usage": True}
    stream = await sdk.chat.completions.create(**question, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    return "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)


async def ask_anthropic(url: str, client: Any, *, streamed: bool) -> str:
    sdk: Any = anthropic.AsyncAnthropic(
        api_key="none", base_url=url, http_client=client, max_retries=0
    )
    question: Any = {
        "model": "m",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Why?"}],
    }
    if not streamed:
        answer = await sdk.messages.create(**question)
        return str(answer.content[0].text)

    async with sdk.messages.stream(**question) as stream:
        return "".join([text async for text in stream.text_stream])


@asynccontextmanager
async def throttled(limiter: RateLimiter, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    transport = ThrottledTransport(httpx2.AsyncHTTPTransport(), limiter, **options)
    async with httpx2.AsyncClient(transport=transport, timeout=900) as client:
        yield client


@both_backends
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
def test_all_come_through_and_tokens_are_settled(ask: Any, backend: str, *, streamed: bool) -> None:
    async def main() -> None:
        models = Models()
        server = Refusing(models)
        tokens = WindowTokenBucket(10**6, HOUR, unit="tokens", measure="end")
        limiter = RateLimiter(WindowTokenBucket(1000, HOUR, measure="end"), tokens, concurrency=4)
        cost = TokenCost()
        answers: list[str] = []

        async def one() -> None:
            answers.append(await ask(url, client, streamed=streamed))

        async with (
            serving(server, backend) as url,
            throttled(limiter, cost=cost.estimate, settle=cost.used, profile="openai") as client,
            anyio.create_task_group() as task_group,
        ):
            for _ in range(CALLS):
                task_group.start_soon(one)

        assert answers == ["42"] * CALLS
        assert len(models.bodies) == CALLS
        assert server.calls == CALLS + server.refused > CALLS
        calls, used = limiter.quotas()
        assert calls.remaining == 1000 - server.calls
        # What was refused has cost no tokens.
        assert used.remaining == 10**6 - CALLS * (INPUT + OUTPUT)
        assert limiter.statistics().borrowed_tokens == 0

    anyio.run(main, backend=backend)


@both_backends
def test_mcp(backend: str) -> None:
    tools = MCPServer("tools")

    @tools.tool()
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    async def main() -> None:
        server = Refusing(tools.streamable_http_app())
        # Its listening stream holds a slot for as long as the session goes on.
        limiter = RateLimiter(WindowTokenBucket(1000, HOUR, measure="end"), concurrency=3)
        async with (
            serving(server, backend) as url,
            throttled(limiter) as client,
            streamable_http_client(f"{url}mcp", http_client=client) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            for number in range(CALLS):
                result: Any = await session.call_tool("double", {"number": number})
                assert not result.is_error
                assert result.content[0].text == str(2 * number)

        assert server.refused > 1
        assert limiter.statistics().borrowed_tokens == 0

    anyio.run(main, backend=backend)
