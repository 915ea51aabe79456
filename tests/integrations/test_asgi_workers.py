"""Four processes that serve one application, with limiters of a Redis server: one count for all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import httpx2

from tests.integrations.asgi_worker import LIMIT
from tests.stores.servers import free_port, server

WORKERS, REQUESTS = 4, 20

PROGRAM = Path(__file__).with_name("asgi_worker.py")


@contextmanager
def worker(redis: str) -> Iterator[str]:
    """Run a worker, and return its URL."""
    port = free_port()
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), redis, str(port)], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def ready(client: httpx2.AsyncClient, url: str) -> None:
    with anyio.fail_after(600):
        while True:
            try:
                await client.get(f"{url}/warm-up")
            except httpx2.TransportError:
                await anyio.sleep(0.05)
            else:
                return


async def main(urls: list[str]) -> dict[str, Counter[int]]:
    """Return how often which status came, by path."""
    found = {"a": Counter[int](), "b": Counter[int]()}

    async def ask(client: httpx2.AsyncClient, url: str, path: str) -> None:
        for _ in range(REQUESTS):
            answer = await client.get(f"{url}/{path}")
            found[path][answer.status_code] += 1
            assert answer.headers["ratelimit-policy"] == f'"calls-0";q={LIMIT};w=3600'

    async with httpx2.AsyncClient(trust_env=False, timeout=600) as client:
        for url in urls:
            await ready(client, url)

        async with anyio.create_task_group() as task_group:
            for url in urls:
                for path in found:
                    task_group.start_soon(ask, client, url, path)

    return found


def test_four_workers_count_as_one() -> None:
    with server("redis") as redis, ExitStack() as stack:
        urls = [stack.enter_context(worker(redis.url)) for _ in range(WORKERS)]
        found = anyio.run(main, urls)

    every = {204: LIMIT, 429: WORKERS * REQUESTS - LIMIT}
    assert found == {"a": every, "b": every}
