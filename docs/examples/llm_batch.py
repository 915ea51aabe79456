"""
Put many prompts to a language model, under its limits of requests and tokens; survive a kill.

The prompts are the lines of a file, the answers go to a database: see resume.py. (Without them, it
has 500 prompts of its own, and a database that is thrown away.) The client keeps to both limits by
what each request may cost, and settles that by the usage that each answer tells. Kill the program
anywhere, start it again with the same files, and it does what is left.

The model is a stand-in on this machine that counts requests and tokens in any window of its own
clock, and answers 429 beyond either limit. With --serve the program is nothing but that stand-in.

Status 0 means that nothing is left to do, 1 that something is. Ctrl-C ends it (status 130).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from limited_server import serving
from resume import Row, TodoList

from anythrottle import RateLimiter, amap_outcomes
from anythrottle.integrations.httpx2 import ThrottledTransport
from anythrottle.integrations.llm import TokenCost

#: How many tokens an answer may have.
MOST_TOKENS = 64


@dataclass
class Model:
    """An ASGI app that answers as OpenAI's API does, and enforces two limits."""

    requests: int
    tokens: int
    window: float
    seconds: float = 0.05
    counted: list[tuple[float, int]] = field(default_factory=list)
    refused: int = 0

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve one request, or one life of the server, as ASGI has it."""
        if scope["type"] == "lifespan":
            for _ in ("startup", "shutdown"):
                await send({"type": f"{(await receive())['type']}.complete"})
            return

        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)

        prompt = json.loads(body)["messages"][-1]["content"]
        answer = prompt.upper()
        tokens = len(prompt) // 4 + 1 + min(len(answer) // 3 + 1, MOST_TOKENS)
        retry_after = self.refuse(time.monotonic(), tokens)
        headers = [(b"content-type", b"application/json")]
        if retry_after:
            headers.append((b"retry-after", b"%d" % retry_after))

        await anyio.sleep(self.seconds)
        await send(
            {
                "type": "http.response.start",
                "status": 429 if retry_after else 200,
                "headers": headers,
            }
        )
        said = {
            "choices": [{"message": {"role": "assistant", "content": answer}}],
            "usage": {"total_tokens": tokens},
        }
        text = b"{}" if retry_after else json.dumps(said).encode()
        await send({"type": "http.response.body", "body": text})

    def refuse(self, now: float, tokens: int) -> int:
        """Return after how many seconds to come again, or count the request and return 0."""
        recent = [(at, count) for at, count in self.counted if now < at + self.window]
        used = sum(count for _, count in recent)
        if len(recent) < self.requests and used + tokens <= self.tokens:
            self.counted.append((now, tokens))
            return 0

        self.refused += 1
        return math.ceil(recent[0][0] + self.window - now)


async def ask(client: httpx2.AsyncClient, prompt: str) -> str:
    """Return the model's answer to a prompt."""
    question = {
        "model": "stand-in",
        "max_tokens": MOST_TOKENS,
        "messages": [{"role": "user", "content": prompt}],
    }
    response = await client.post("/v1/chat/completions", json=question)
    answer: str = response.raise_for_status().json()["choices"][0]["message"]["content"]
    return answer


async def run(options: argparse.Namespace) -> int:
    """Do what is todo, and return how much is left."""
    todo_list = TodoList(options.database)
    prompts = [f"What is {number} times {number}?" for number in range(500)]
    if options.prompts is not None:
        prompts = (await anyio.Path(options.prompts).read_text(encoding="utf-8")).splitlines()

    limits = (
        f"{options.requests}/{options.window:g}s end",
        f"{options.tokens} tokens/{options.window:g}s end",
    )
    limiter = RateLimiter(*limits, concurrency=options.concurrency)
    if not await anyio.to_thread.run_sync(todo_list.create, prompts):
        # The model may still count what the process before has asked, up to its last instant.
        limiter.pause(options.window + 1)

    todo = await anyio.to_thread.run_sync(todo_list.todo)
    model = Model(options.requests, options.tokens, options.window)
    cost = TokenCost()
    transport = ThrottledTransport(
        httpx2.AsyncHTTPTransport(),
        limiter,
        cost=cost.estimate,
        settle=cost.used,
        profile="openai",
    )
    served = nullcontext(options.url) if options.url else serving(model, options.backend)
    async with served as url, httpx2.AsyncClient(base_url=url, transport=transport) as client:

        async def answer(row: tuple[int, str]) -> Row:
            return Row(row[0], "done", await ask(client, row[1]))

        calls = amap_outcomes(answer, todo, concurrency=options.concurrency)
        async with calls as outcomes:
            async for outcome in outcomes:
                if outcome.error is None:
                    await anyio.to_thread.run_sync(todo_list.save, outcome.value)
                else:
                    print(f"not done: {outcome.item}: {outcome.error!r}")

    if not options.url:
        print(f"429s: {model.refused}; tokens: {sum(tokens for _, tokens in model.counted)}")

    counts = await anyio.to_thread.run_sync(todo_list.counts)
    print(", ".join(f"{state}: {count}" for state, count in counts.items()))
    return counts["todo"]


async def serve(options: argparse.Namespace) -> int:
    """Serve the stand-in until standard input ends; then print what it has counted."""
    model = Model(options.requests, options.tokens, options.window)
    async with serving(model, options.backend) as url:
        print(url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)

    print(json.dumps({"refused": model.refused, "counted": model.counted}))
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts", nargs="?", help="a file with a prompt in each line")
    parser.add_argument("database", nargs="?", help="for the answers; made if it is missing")
    parser.add_argument("--url", help="of a model that runs already")
    parser.add_argument("--serve", action="store_true", help="be the model, until input ends")
    parser.add_argument("--requests", type=int, default=200, help="a window (%(default)s)")
    parser.add_argument("--tokens", type=int, default=10_000, help="a window (%(default)s)")
    parser.add_argument("--window", type=float, default=2.0, help="seconds (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=16, help="at once (%(default)s)")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()
    if options.prompts is not None and options.database is None:
        parser.error("say which database is for the answers")

    return options


def main() -> int:
    """Run, and return the exit status."""
    options = parse()
    status = 130
    with TemporaryDirectory() as folder:
        options.database = options.database or f"{folder}/answers.db"
        try:
            run_or_serve = serve if options.serve else run
            status = 1 if anyio.run(run_or_serve, options, backend=options.backend) else 0
        except* KeyboardInterrupt:  # Trio's comes in a group
            print("interrupted; the rest is still todo")

    return status


if __name__ == "__main__":
    sys.exit(main())
