"""The middleware under real servers, on sockets: nothing depends on how fast that is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx2
import pytest

from anythrottle import RateLimiter
from anythrottle.integrations.asgi import RateLimitMiddleware
from tests.integrations.asgi_servers import SERVERS, Kind, connected, head_of, open_websocket
from tests.integrations.sockets import serving

on_each_server = pytest.mark.parametrize("kind", SERVERS.values(), ids=SERVERS)

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

#: Longer than any test takes.
LONG = 600


class App:
    """An application that echoes bodies, opens websockets, and can be held up."""

    def __init__(self) -> None:
        self.go_on = anyio.Event()
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in ("startup", "shutdown"):
                await send({"type": f"{(await receive())['type']}.complete"})

            return

        self.running += 1
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return

        if scope["path"] == "/held":
            await self.go_on.wait()

        message: Any = {"more_body": True}
        echo = b""
        while message.get("more_body"):
            message = await receive()
            echo += message.get("body", b"")

        headers = [(b"content-length", b"%d" % len(echo))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": echo})


def client_of(url: str, **options: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, trust_env=False, timeout=LONG, **options)


def run(kind: Kind, main: Callable[[], Awaitable[None]]) -> None:
    anyio.run(main, backend=kind.backend)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(LONG):
        while not condition():
            await anyio.sleep(0.005)


@pytest.mark.promise("H11")
@on_each_server
def test_answers_and_refusals(kind: Kind) -> None:
    async def main() -> None:
        app = RateLimitMiddleware(App(), "2/h")
        async with kind.serving(app) as url, client_of(url) as client:
            for left in (1, 0):
                answer = await client.post("/", content=b"hello")
                assert (answer.status_code, answer.content) == (200, b"hello")
                assert answer.headers["ratelimit"].startswith(f'"calls-0";r={left};t=3')

            refused = await client.get("/")
            assert refused.status_code == 429
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["violated-policies"] == ["calls-0"]
            assert 3000 < int(refused.headers["retry-after"]) <= 3601
            head = await client.head("/")
            assert (head.status_code, head.content) == (429, b"")
            # The connection is as good as before.
            assert (await client.get("/")).status_code == 429

    run(kind, main)


@pytest.mark.promise("H16")
@on_each_server
def test_websockets(kind: Kind) -> None:
    async def main() -> None:
        limiter = RateLimiter("9/h", concurrency=1)
        app = App()
        async with kind.serving(RateLimitMiddleware(app, limiter)) as url:
            status, headers = await open_websocket(url)
            assert status == 101
            if kind is not SERVERS["granian"]:
                assert headers["ratelimit"].startswith('"calls-0";r=8;t=3')

            await until(lambda: limiter.statistics().borrowed_tokens == 0)
            async with limiter.permit():
                status, headers = await open_websocket(url)

            assert status in {403, 429}
            assert (status == 429) == ("retry-after" in headers)
            assert app.running == 1

    run(kind, main)


@pytest.mark.promise("H13")
@on_each_server
def test_who_waits_is_served_and_who_hangs_up_is_gone(kind: Kind) -> None:
    async def main() -> None:
        app, limiter = App(), RateLimiter(concurrency=1)
        answers: list[httpx2.Response] = []
        data = bytes(range(256)) * 400

        async def post(client: httpx2.AsyncClient, path: str) -> None:
            answers.append(await client.post(path, content=data))

        guarded = RateLimitMiddleware(app, limiter, max_wait=LONG)
        async with kind.serving(guarded) as url, client_of(url) as client:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(post, client, "/held")
                await until(lambda: app.running == 1)
                task_group.start_soon(post, client, "/next")
                await until(lambda: limiter.statistics().tasks_waiting == 1)
                for request in (
                    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nhalf",
                ):
                    async with connected(url) as stream:
                        await stream.send(request)
                        await until(lambda: limiter.statistics().tasks_waiting == 2)

                    await until(lambda: limiter.statistics().tasks_waiting == 1)

                app.go_on.set()

            assert [answer.content == data for answer in answers] == [True, True]
            assert app.running == 2
            # Those who are gone have left nothing behind.
            assert (await client.get("/")).status_code == 200

        assert limiter.statistics().borrowed_tokens == 0

    run(kind, main)


@pytest.mark.promise("H11")
@both_backends
def test_http_2(backend: str) -> None:
    async def main() -> None:
        app = RateLimitMiddleware(App(), "20/h")
        async with (
            serving(app, backend) as url,
            client_of(url, http1=False, http2=True) as client,
            anyio.create_task_group() as task_group,
        ):
            statuses: list[int] = []

            # Without bodies: hypercorn ends a connection on which one comes after its answer.
            async def get() -> None:
                answer = await client.get("/")
                assert answer.http_version == "HTTP/2"
                assert "ratelimit" in answer.headers
                statuses.append(answer.status_code)

            await get()
            for _ in range(29):
                task_group.start_soon(get)

        assert sorted(statuses) == [200] * 20 + [429] * 10

    anyio.run(main, backend=backend)


@both_backends
def test_lifespan_goes_through(backend: str) -> None:
    """Else the server would not start, or complain."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        await App()(scope, receive, send)

    async def main() -> None:
        guarded = RateLimitMiddleware(app, "1/h")
        async with serving(guarded, backend) as url, connected(url) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await head_of(stream))[0] == 200

    anyio.run(main, backend=backend)
    assert seen == ["lifespan", "http"]
