"""
Throttled HTTP clients against a server that counts exactly, and refuses what is more.

The server delays what a network would: each request by another latency, before it is counted. Over
sockets beside others; and on virtual time many requests, of which some are cut off.
"""

import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from math import inf
from statistics import mean, median
from typing import Any

import anyio
import httpx
import httpx_limiter
import httpx_retries
from httpx_limiter.aiolimiter import AiolimiterAsyncLimiter
from httpx_limiter.pyrate import PyrateAsyncLimiter
from hypercorn.config import Config

from anythrottle.integrations.httpx import ThrottledTransport
from anythrottle.testing import virtual_backends

from .exact_window import ExactWindow
from .measuring import print_table, run_on

REQUESTS, LIMIT, WINDOW = 60, 20, 2.0
LATENCIES, BODIES = (0.005, 0.060), (0.0, 0.1)
RUNS = 5

#: On virtual time: how many requests, the seconds there and back, and limits and windows.
MANY = 10_000
WAY = (0.0, 0.1)
WINDOWS = ((50, 1.0), (100, 2.0), (200, 10.0))

Transport = httpx.AsyncBaseTransport


@dataclass
class CountingApp:
    """An ASGI app that counts each request at its own instant, and refuses with Retry-After."""

    chance: random.Random
    window: ExactWindow = field(default_factory=lambda: ExactWindow(LIMIT, WINDOW))
    refused: int = 0

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Any
    ) -> None:
        """Serve one request, or one life of the server, as ASGI has it."""
        if scope["type"] == "lifespan":
            for _ in ("startup", "shutdown"):
                await send({"type": f"{(await receive())['type']}.complete"})
            return

        await anyio.sleep(self.chance.uniform(*LATENCIES))
        now = time.monotonic()
        allowed = self.window.allows(now)
        if allowed:
            self.window.count(now)
        else:
            self.refused += 1

        status, headers = (200, []) if allowed else (429, [(b"retry-after", b"1")])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await anyio.sleep(self.chance.uniform(*BODIES))
        await send({"type": "http.response.body", "body": b"page"})


@asynccontextmanager
async def serving(app: CountingApp, backend: str) -> AsyncGenerator[str]:
    """Serve an app on a free port of this machine; yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = "http://{}:{}/".format(*listener.getsockname())
    config = Config.from_mapping(
        bind=f"fd://{listener.detach()}", loglevel="ERROR", graceful_timeout=0.5
    )
    stop = anyio.Event()
    serve = import_module(f"hypercorn.{backend}").serve
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(lambda: serve(app, config, shutdown_trigger=stop.wait, mode="asgi"))
        try:
            yield url
        finally:
            stop.set()


def ours(text: str) -> Callable[[Transport], Transport]:
    return lambda inner: ThrottledTransport(inner, text)


def limited_by_aiolimiter(inner: Transport) -> Transport:
    rate = httpx_limiter.Rate.create(magnitude=LIMIT, duration=WINDOW)
    limiter = AiolimiterAsyncLimiter.create(rate)
    return httpx_limiter.AsyncRateLimitedTransport(limiter=limiter, transport=inner)


def limited_by_pyrate(inner: Transport) -> Transport:
    rate = httpx_limiter.Rate.create(magnitude=LIMIT, duration=WINDOW)
    limiter = PyrateAsyncLimiter.create(rate)
    return httpx_limiter.AsyncRateLimitedTransport(limiter=limiter, transport=inner)


def retried(inner: Transport) -> Transport:
    return httpx_retries.RetryTransport(inner, retry=httpx_retries.Retry(total=10))


CLIENTS: dict[str, Callable[[Transport], Transport]] = {
    'anythrottle, "20/2s"': ours("20/2s"),
    'anythrottle, "20/2s start"': ours("20/2s start"),
    "httpx-limiter, aiolimiter": limited_by_aiolimiter,
    "httpx-limiter, pyrate-limiter": limited_by_pyrate,
    "httpx-retries": retried,
    "httpx": lambda inner: inner,
}


async def measure(name: str, seed: int, backend: str) -> tuple[int, int, float]:
    """Return how many requests were refused, how many answers were, and the seconds of all."""
    app = CountingApp(random.Random(seed))  # noqa: S311 - no secret
    answers: list[int] = []

    async def get() -> None:
        answers.append((await client.get(url)).status_code)

    # as many connections as are wanted: a pool is a limit too
    limits = httpx.Limits(max_connections=None)
    transport = CLIENTS[name](httpx.AsyncHTTPTransport(limits=limits))
    async with (
        serving(app, backend) as url,
        httpx.AsyncClient(transport=transport, timeout=60) as client,
    ):
        began = time.monotonic()
        async with anyio.create_task_group() as task_group:
            for _ in range(REQUESTS):
                task_group.start_soon(get)

        return app.refused, answers.count(429), time.monotonic() - began


class CountingTransport(httpx.AsyncBaseTransport):
    """What the app does, without sockets; the way back takes time, too."""

    def __init__(self, limit: int, window: float) -> None:
        self.window = ExactWindow(limit, window)
        self.chance = random.Random(limit)  # noqa: S311 - no secret
        self.refused = 0
        self.seconds_to_headers: list[float] = []

    async def handle_async_request(
        self,
        request: httpx.Request,  # noqa: ARG002 - all alike
    ) -> httpx.Response:
        """Answer a request; its body comes later than its headers."""
        sent = anyio.current_time()
        await anyio.sleep(self.chance.uniform(*WAY))
        now = anyio.current_time()
        allowed = self.window.allows(now)
        if allowed:
            self.window.count(now)
        else:
            self.refused += 1

        await anyio.sleep(self.chance.uniform(*WAY))
        self.seconds_to_headers.append(anyio.current_time() - sent)

        async def body() -> AsyncGenerator[bytes]:
            await anyio.sleep(self.chance.uniform(*WAY))
            yield b"page"

        headers = {} if allowed else {"retry-after": "0.1"}
        return httpx.Response(200 if allowed else 429, headers=headers, content=body())


async def many(limit: int, window: float, cut: int | None) -> tuple[int, float, float]:
    """
    Return how many of many requests were refused, the rate attained, and the best there could be.

    :param cut: which ones are cut off: each so many-th; ``None`` for none
    """
    server = CountingTransport(limit, window)
    chance = random.Random(0)  # noqa: S311 - no secret
    requests = iter(range(MANY))

    async def ask() -> None:
        for number in requests:
            seconds = chance.uniform(*WAY) if cut and number % cut == 0 else inf
            with anyio.move_on_after(seconds):
                await client.get("http://service.example/")

    transport = ThrottledTransport(server, f"{limit}/{window:g}s")
    async with httpx.AsyncClient(transport=transport) as client:
        began = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            for _ in range(2 * limit):
                task_group.start_soon(ask)

        rate = len(server.seconds_to_headers) / (anyio.current_time() - began)

    return server.refused, rate, limit / (window + mean(server.seconds_to_headers))


def print_many() -> None:
    """Print what becomes of many requests on virtual time."""
    rows: list[tuple[object, ...]] = []
    for backend, options in virtual_backends():
        for limit, window in WINDOWS:
            for cut in (None, 20):
                refused, rate, best = anyio.run(
                    many, limit, window, cut, backend=backend, backend_options=options
                )
                what = f"{limit}/{window:g}s on {backend}"
                rows.append((what if cut is None else f"{what}, some cut", refused, rate / best))

    head = (f"{MANY} requests", "refused", "of limit / (window + time to headers)")
    print_table("A text form, up to 0.2 s until the headers, and 0.1 s until the end", head, rows)


def main() -> None:
    rows: list[tuple[object, ...]] = []
    for name in CLIENTS:
        for loop in ("asyncio", "trio") if name.startswith("anythrottle") else ("asyncio",):
            runs = [run_on(loop, measure, name, seed, loop) for seed in range(RUNS)]
            refused, answers, seconds = zip(*runs, strict=True)
            spread = f"{median(refused):g} ({min(refused)} to {max(refused)})"
            rows.append((f"{name}, on {loop}", spread, f"{median(answers):g}", median(seconds)))

    head = (f"{REQUESTS} requests", "refused by the server", "answers that are 429", "seconds")
    print_table(f"Clients of a server that allows {LIMIT} in {WINDOW:g} s", head, rows)
    print_many()


if __name__ == "__main__":
    main()
