"""What a request by aiohttp holds: until when, and that it is let go however that ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable

import aiohttp
import anyio
import pytest
from aiohttp import web

from anythrottle import RateLimiter
from anythrottle.integrations.aiohttp import ThrottledMiddleware, TurnTimeout
from tests.integrations.loopback import (
    SOON,
    Loopback,
    broken,
    client,
    held,
    late,
    refused,
    serving,
    streamed,
    text,
    until,
)
from tests.sweep import Strike, sweep

# What aiohttp itself says of what is dropped: of a connection always, of an answer in debug mode.
UNCLOSED = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncGenerator[Loopback]:
    async with serving() as server:
        yield server


@pytest.fixture
def limiter() -> RateLimiter:
    return RateLimiter("100/h", concurrency=1, measure="end")


async def read(server: Loopback, response: aiohttp.ClientResponse) -> None:
    server.go_on.set()
    assert await response.read() == b"xxxxrest"


async def read_half(_: Loopback, response: aiohttp.ClientResponse) -> None:
    assert await response.content.readexactly(2) == b"xx"
    response.release()


async def leave(_: Loopback, response: aiohttp.ClientResponse) -> None:
    async with response:
        pass


async def close_twice(_: Loopback, response: aiohttp.ClientResponse) -> None:
    response.close()
    response.close()
    response.release()


async def close_in_another_task(_: Loopback, response: aiohttp.ClientResponse) -> None:
    await asyncio.create_task(leave(_, response))


async def come_to_its_end_unread(server: Loopback, response: aiohttp.ClientResponse) -> None:
    server.go_on.set()
    await until(lambda: response.closed)


async def raise_for_status(_: Loopback, response: aiohttp.ClientResponse) -> None:
    response.status = 500
    with pytest.raises(aiohttp.ClientResponseError):
        response.raise_for_status()


@pytest.mark.parametrize(
    "end",
    [
        read,
        read_half,
        leave,
        close_twice,
        close_in_another_task,
        come_to_its_end_unread,
        raise_for_status,
    ],
)
async def test_a_call_is_held_until_its_answer_is_over(
    server: Loopback,
    limiter: RateLimiter,
    end: Callable[[Loopback, aiohttp.ClientResponse], Awaitable[None]],
) -> None:
    server.answers.append(streamed())
    async with client(server, limiter) as session:
        response = await session.get("/1")
        assert held(limiter) == 1
        next_one = asyncio.create_task(session.get("/2"))
        await until(lambda: limiter.statistics().tasks_waiting)
        await asyncio.sleep(SOON)
        assert len(server.seen) == 1
        await end(server, response)
        async with await next_one:
            assert len(server.seen) == 2

    assert held(limiter) == 0
    assert limiter.quotas()[0].remaining == 98


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_an_answer_without_a_body_is_over_at_once(
    server: Loopback, limiter: RateLimiter, method: str
) -> None:
    server.answers.append(text(b"", 204))
    async with client(server, limiter) as session:
        response = await session.request(method, "/")
        assert response.status == 204
        assert held(limiter) == 0


async def test_an_answer_that_breaks_off_is_over(server: Loopback, limiter: RateLimiter) -> None:
    server.answers.append(broken())
    async with client(server, limiter) as session:
        response = await session.get("/")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()

        assert held(limiter) == 0


async def test_an_answer_that_is_dropped_is_over_when_the_server_has_sent_it(
    server: Loopback, limiter: RateLimiter
) -> None:
    server.answers.append(streamed())
    async with client(server, limiter) as session:
        assert (await session.get("/")).ok
        gc.collect()
        await asyncio.sleep(SOON)
        assert held(limiter) == 1
        server.go_on.set()
        await until(lambda: not held(limiter))


async def half(server: Loopback, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
    """Return an answer that nobody can end any more but who has it."""
    server.answers.append(broken())
    response = await session.get(server.url)
    await until(response.content.exception)
    return response


@UNCLOSED
@pytest.mark.parametrize("in_cycle", [False, True])
async def test_an_answer_that_is_dropped_is_over_when_it_is_collected(
    server: Loopback, limiter: RateLimiter, *, in_cycle: bool
) -> None:
    async with client(server, limiter) as session:
        response = await half(server, session)
        assert held(limiter) == 1
        if in_cycle:
            response.me = response  # type: ignore[attr-defined]

        del response
        gc.collect()
        # It is the loop that ends the call, and not who collects.
        assert held(limiter) == 1
        await until(lambda: not held(limiter))


@UNCLOSED
def test_an_answer_that_is_dropped_after_its_loop_ends_nothing(limiter: RateLimiter) -> None:
    throttled = ThrottledMiddleware(limiter)

    async def leave_one() -> list[aiohttp.ClientResponse]:
        async with serving() as server, aiohttp.ClientSession(middlewares=(throttled,)) as session:
            left = [await half(server, session)]
            assert held(limiter) == 1
            return left

    async def use_again(left: list[aiohttp.ClientResponse]) -> None:
        async with serving() as server, aiohttp.ClientSession(middlewares=(throttled,)) as session:
            server.answers.append(streamed())
            async with session.get(server.url):
                assert held(limiter) == 1
                left.clear()
                gc.collect()
                await asyncio.sleep(SOON)
                assert held(limiter) == 1

            assert held(limiter) == 0

    asyncio.run(use_again(asyncio.run(leave_one())))


async def test_an_answer_that_was_over_before_it_came_holds_nothing(
    server: Loopback, limiter: RateLimiter
) -> None:
    async def reading(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        await response.read()
        return response

    throttled = ThrottledMiddleware(limiter)
    server.go_on.set()
    server.answers.append(streamed())
    async with aiohttp.ClientSession(server.url, middlewares=(throttled, reading)) as session:
        response = await session.get("/")
        assert held(limiter) == 0
        assert await response.read() == b"xxxxrest"


def moved(to: str) -> web.Response:
    return web.Response(status=302, headers={"Location": to}, body=b"moved" * 1000)


async def test_each_hop_is_a_request(server: Loopback, limiter: RateLimiter) -> None:
    async def hop(_: Loopback, request: web.Request) -> web.StreamResponse:
        return moved("/b" if request.path == "/a" else "/c")

    server.answers += [hop, refused(), hop]
    async with client(server, limiter) as session, session.get("/a") as response:
        assert await response.text() == "yes"
        assert len(response.history) == 2

    assert [path for _, path, _ in server.seen] == ["/a", "/b", "/b", "/c"]
    assert held(limiter) == 0
    assert limiter.quotas()[0].remaining == 96


async def accept(server: Loopback, request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.data == "close":
            break
        await socket.send_str(message.data)
    return socket


@UNCLOSED
@pytest.mark.parametrize("by", ["client", "server", "nobody"])
async def test_a_websocket_is_held_until_it_is_closed(
    server: Loopback, limiter: RateLimiter, by: str
) -> None:
    server.answers += [refused(), accept]
    async with client(server, limiter, max_wait=1) as session:
        socket = await session.ws_connect("/")
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        assert held(limiter) == 1
        if by == "client":
            await socket.close()
        elif by == "server":
            await socket.send_str("close")
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        else:
            del socket
            gc.collect()
            await until(lambda: not held(limiter))

        assert held(limiter) == 0

    assert len(server.seen) == 2


async def test_a_handshake_that_fails_holds_nothing(server: Loopback, limiter: RateLimiter) -> None:
    async with client(server, limiter) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/")

        assert held(limiter) == 0


async def cancelled_natively(task: asyncio.Task[None], _: anyio.CancelScope) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_by_its_scope(task: asyncio.Task[None], scope: anyio.CancelScope) -> None:
    scope.cancel()
    await task


CANCEL = pytest.mark.parametrize("cancel", [cancelled_natively, cancelled_by_its_scope])

Cancel = Callable[[asyncio.Task[None], anyio.CancelScope], Awaitable[None]]


@CANCEL
@pytest.mark.parametrize("at", ["line", "headers", "body", "refusal", "pause"])
async def test_what_is_cancelled_holds_nothing(
    server: Loopback, limiter: RateLimiter, at: str, cancel: Cancel
) -> None:
    scope = anyio.CancelScope()
    got: list[aiohttp.ClientResponse] = []

    async def get() -> None:
        with scope:
            async with session.get("/") as response:
                got.append(response)
                await response.read()

    async with client(server, limiter) as session:
        permit = limiter.permit()
        if at == "line":
            await permit.__aenter__()
            reached: Callable[[], object] = lambda: limiter.statistics().tasks_waiting  # noqa: E731
        elif at == "headers":
            server.answers.append(late(text()))
            reached = lambda: server.seen  # noqa: E731
        elif at == "body":
            server.answers.append(streamed())
            reached = lambda: got  # noqa: E731
        elif at == "refusal":
            server.answers.append(streamed(429))
            reached = lambda: session.connector and session.connector._acquired  # noqa: E731
        else:
            server.answers.append(refused("1000"))
            reached = lambda: limiter.statistics().paused_for  # noqa: E731

        task = asyncio.create_task(get())
        await until(reached)
        if at in {"refusal", "headers"}:
            await asyncio.sleep(SOON)

        await cancel(task, scope)
        if at == "line":
            await permit.__aexit__(None, None, None)
            assert not server.seen

        assert held(limiter) == 0
        assert limiter.statistics().tasks_waiting == 0


@CANCEL
@pytest.mark.parametrize("when_woken", [False, True])
async def test_whenever_it_is_cancelled_nothing_is_held(
    server: Loopback, cancel: Cancel, *, when_woken: bool
) -> None:
    async def call(session: aiohttp.ClientSession, scope: anyio.CancelScope) -> None:
        with scope:
            async with session.post("/", data=b"abc") as response:
                await response.read()

    server.go_on.set()
    limiter = RateLimiter(concurrency=1)
    async with client(server, limiter) as session:
        for strike in sweep(when_woken=when_woken):
            server.answers.clear()
            server.answers += [streamed(429, retry_after="0.001"), streamed()]
            scope = anyio.CancelScope()

            async def struck(strike: Strike = strike, scope: anyio.CancelScope = scope) -> None:
                await strike.wrap(call(session, scope))

            task = asyncio.create_task(struck())
            strike.blow = scope.cancel if cancel is cancelled_by_its_scope else task.cancel
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

            await until(lambda: not held(limiter))
            assert limiter.statistics().tasks_waiting == 0
            limiter.resume()
            if strike.struck:
                # What is held by nobody can be had.
                async with limiter:
                    pass


async def test_at_concurrency_one_a_request_within_an_open_answer_waits(
    server: Loopback, limiter: RateLimiter
) -> None:
    server.answers.append(streamed())
    async with client(server, limiter, max_wait=SOON) as session, session.get("/"):
        with pytest.raises(TurnTimeout):
            await session.get("/")
