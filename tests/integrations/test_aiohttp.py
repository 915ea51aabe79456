"""Throttled clients of aiohttp: what goes again, what is returned, and what is raised."""

from __future__ import annotations

import asyncio
import io
import pickle
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from math import inf
from typing import Any

import aiohttp
import pytest

import anythrottle.integrations._exchange as exchange
import anythrottle.integrations.aiohttp as module
from anythrottle import (
    AnythrottleError,
    Decision,
    LimitExceeded,
    RateLimiter,
    StoreError,
)
from anythrottle.integrations.aiohttp import StoreAway, ThrottledMiddleware, TurnTimeout
from anythrottle.stores.memory import MemoryStore
from tests.integrations.loopback import (
    SOON,
    Answer,
    Loopback,
    broken,
    client,
    held,
    refused,
    serving,
    streamed,
    text,
    until,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncGenerator[Loopback]:
    async with serving() as server:
        yield server


def form(*fields: tuple[str, object]) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields:
        form.add_field(name, value)

    return form


REPLAYABLE: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": dict,
    "bytes": lambda: {"data": b"abc"},
    "bytearray": lambda: {"data": bytearray(b"abc")},
    "str": lambda: {"data": "abc"},
    "str in memory": lambda: {"data": io.StringIO("abc")},
    "json": lambda: {"json": {"a": 1}},
    "form": lambda: {"data": {"a": "1"}},
    "multipart form": lambda: {"data": form(("a", "1"), ("b", "2"))},
    "compressed": lambda: {"data": b"abc" * 100, "compress": "deflate"},
}


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
@pytest.mark.parametrize("body", REPLAYABLE)
async def test_a_refusal_is_sent_again_as_it_was(server: Loopback, method: str, body: str) -> None:
    server.answers += [refused(), refused()]
    limiter = RateLimiter(concurrency=1)
    async with (
        client(server, limiter) as session,
        session.request(method, "/a", **REPLAYABLE[body]()) as response,
    ):
        assert (response.status, await response.text()) == (200, "yes")

    assert len(server.seen) == 3
    assert len(set(server.seen)) == 1
    assert server.seen[0][:2] == (method, "/a")
    assert bool(server.seen[0][2]) == (body != "nothing")


async def parts() -> AsyncIterator[bytes]:
    yield b"abc"


@pytest.mark.parametrize(
    "make",
    [parts, lambda: io.BytesIO(b"abc"), lambda: form(("a", "1"), ("b", io.BytesIO(b"abc")))],
    ids=["iterator", "file", "multipart with a file"],
)
async def test_a_body_that_may_be_gone_is_not_sent_again(
    server: Loopback, make: Callable[[], object]
) -> None:
    server.answers.append(refused("30"))
    limiter = RateLimiter()
    async with (
        client(server, limiter) as session,
        session.post("/", data=make()) as response,
    ):
        assert (response.status, await response.text()) == (429, "no")

    assert len(server.seen) == 1
    assert b"abc" in server.seen[0][2]
    assert 29 < limiter.statistics().paused_for <= 30


async def test_what_asks_whether_it_may_go_on_asks_again(server: Loopback) -> None:
    again = text(b"no", 429, retry_after="0.001", connection="close")
    server.answers += [again, again]
    limiter = RateLimiter(concurrency=1)
    async with (
        client(server, limiter) as session,
        session.post("/asks", data=b"abc", expect100=True) as response,
    ):
        assert await response.text() == "yes"

    assert server.seen == [("POST", "/asks", b"")] * 3 + [("POST", "/asks", b"abc")]
    assert held(limiter) == 0


@pytest.mark.parametrize(
    ("method", "answer", "sent"),
    [
        ("GET", refused(status=503), 2),
        ("PUT", refused(status=503), 2),
        ("POST", refused(status=503), 1),
        ("GET", text(status=503), 1),
        ("GET", text(status=429, retry_after="0.001", x_should_retry="false"), 1),
        ("POST", text(status=500), 1),
    ],
)
async def test_what_the_server_may_have_done_is_not_sent_again(
    server: Loopback, method: str, answer: Answer, sent: int
) -> None:
    server.answers.append(answer)
    async with (
        client(server, RateLimiter()) as session,
        session.request(method, "/", data=b"abc") as response,
    ):
        assert response.ok == (sent == 2)

    assert len(server.seen) == sent


async def test_after_so_many_sends_the_answer_is_the_servers_own(server: Loopback) -> None:
    server.answers += [refused(body=f"no {number}".encode()) for number in range(4)]
    limiter = RateLimiter()
    async with (
        client(server, limiter, max_throttles=3) as session,
        session.get("/") as response,
    ):
        assert (response.status, await response.text()) == (429, "no 2")

    assert len(server.seen) == 3


async def test_a_pause_above_max_pause_is_not_waited_for(server: Loopback) -> None:
    server.answers.append(refused("1000"))
    limiter = RateLimiter()
    async with client(server, limiter, max_pause=10) as session, session.get("/") as response:
        assert (response.status, await response.text()) == (429, "no")

    assert 9 < limiter.statistics().paused_for <= 10


async def test_a_pause_is_for_all_and_holds_neither_slot_nor_connection(server: Loopback) -> None:
    server.answers.append(refused("3600"))
    limiter = RateLimiter(concurrency=1)
    async with client(server, limiter) as session, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(session.post("/1"))
        await until(lambda: limiter.statistics().paused_for)
        second = tasks.create_task(session.post("/2"))
        await until(lambda: limiter.statistics().tasks_waiting == 2)
        assert held(limiter) == 0
        connector = session.connector
        assert connector is not None
        assert not connector._acquired
        limiter.resume()
        for task in (first, second):
            async with await task as response:
                assert response.ok

    assert [path for _, path, _ in server.seen] == ["/1", "/1", "/2"]


REFUSED_AGAIN: dict[str, tuple[Answer, bytes]] = {
    "small": (refused(body=b'{"why": "no"}'), b'{"why": "no"}'),
    "as large as is read": (refused(body=b"x" * 65536), b"x" * 65536),
    "without a body": (refused(body=b""), b""),
    "large": (refused(body=b"x" * 65537), b""),
    "large, and slow": (streamed(429, size=65537, retry_after="0.001"), b""),
    "slow": (streamed(429, retry_after="0.001"), b""),
    "broken": (broken(429, retry_after="0.001"), b""),
}


@pytest.mark.parametrize("kind", REFUSED_AGAIN)
@pytest.mark.parametrize("by", ["read", "content", "text"])
async def test_without_a_second_turn_the_answer_is_the_servers_own(
    server: Loopback, kind: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAINING", SOON if kind == "slow" else inf)
    answer, body = REFUSED_AGAIN[kind]
    server.answers.append(answer)
    limiter = RateLimiter("1/h", concurrency=1, measure="end")
    async with client(server, limiter, max_wait=0.01) as session, session.get("/") as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "0.001"
        assert response.closed
        assert held(limiter) == 0
        if by == "read":
            assert await response.read() == body
        elif by == "text":
            assert await response.text() == body.decode()
        else:
            assert [part async for part in response.content.iter_any()] == [body] * bool(body)

    assert len(server.seen) == 1


async def test_a_slow_refusal_does_not_outlast_the_time_of_its_request(server: Loopback) -> None:
    server.answers.append(streamed(429, retry_after="1000"))
    limiter = RateLimiter(concurrency=1)
    async with client(server, limiter, timeout=0.3) as session, asyncio.timeout(10) as hung:
        with pytest.raises(TimeoutError) as raised:
            await session.get("/")

    assert not hung.expired()
    assert not isinstance(raised.value, AnythrottleError)
    assert held(limiter) == 0
    assert len(server.seen) == 1


async def test_a_refusal_that_stalls_is_given_up(server: Loopback) -> None:
    server.answers.append(streamed(429, retry_after="0.001"))
    limiter = RateLimiter(concurrency=1)
    timeout = aiohttp.ClientTimeout(sock_read=SOON)
    async with client(server, limiter, timeout=timeout) as session, session.get("/") as response:
        assert response.ok

    assert held(limiter) == 0


async def test_a_first_turn_that_does_not_come_is_an_error_of_aiohttp(server: Loopback) -> None:
    limiter = RateLimiter("2/h", concurrency=1, measure="end")
    async with client(server, limiter, max_wait=0) as session, limiter:
        with pytest.raises(TurnTimeout) as raised:
            await session.get("/")

    error = raised.value
    assert isinstance(error, aiohttp.ClientError)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, LimitExceeded)
    assert isinstance(error.__cause__, LimitExceeded)
    assert error.decision.reason == "concurrency"
    assert [quota.remaining for quota in error.quotas] == [1]
    assert not server.seen


@pytest.mark.promise("S13")
async def test_that_the_store_is_away_is_an_error_of_aiohttp(server: Loopback) -> None:
    store = MemoryStore(deadline=SOON)
    outer = RateLimiter("9/h")
    limiter = store.limiter("api", "9/h")
    async with client(server, limiter) as session, store:
        store.server.network.down = True
        with pytest.raises(aiohttp.ClientConnectionError) as raised:
            await session.get("/")

        error = raised.value
        assert type(error) is StoreAway
        assert isinstance(error, StoreError)
        assert isinstance(error.__cause__, TimeoutError)
        assert "does not serve limiter 'api'" in str(error)
        other = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
        assert (type(other), other.name, other.reason) == (StoreAway, "api", error.reason)
        # What a middleware inside of another does not send is given back there.
        both = (ThrottledMiddleware(outer), ThrottledMiddleware(limiter))
        with pytest.raises(StoreAway):
            await session.get("/", middlewares=both)

        used_up = RateLimiter("1/h")
        used_up.penalize(1)
        both = (ThrottledMiddleware(outer), ThrottledMiddleware(used_up, max_wait=0))
        with pytest.raises(TurnTimeout):
            await session.get("/", middlewares=both)

        assert outer.peek().remaining == 9

    assert not server.seen


def test_a_turn_timeout_is_pickled() -> None:
    decision = Decision(
        allowed=False,
        retry_after=1.5,
        reason="rate",
        remaining=0,
        reset_after=1.5,
        limit=1,
        policy=None,
    )
    error = pickle.loads(pickle.dumps(TurnTimeout(decision)))  # noqa: S301 - made here
    assert type(error) is TurnTimeout
    assert (error.decision, error.quotas, error.errno) == (decision, (), None)
    assert "in 1.500 s" in str(error)


async def test_the_line_counts_for_the_time_of_a_request(server: Loopback) -> None:
    limiter = RateLimiter(concurrency=1)
    async with client(server, limiter, timeout=SOON) as session, limiter:
        with pytest.raises(TimeoutError) as raised:
            await session.get("/")

    assert not isinstance(raised.value, AnythrottleError)
    assert limiter.statistics().tasks_waiting == 0
    assert not server.seen


async def test_what_never_left_is_not_charged(server: Loopback) -> None:
    limiter = RateLimiter("5/h", measure="end")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    async with client(server, limiter) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{port}/")

        assert limiter.quotas()[0].remaining == 5
        server.answers.append(broken_before_headers)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post("/")

    assert limiter.quotas()[0].remaining == 4
    assert held(limiter) == 0


async def broken_before_headers(_: Loopback, request: Any) -> Any:
    request.transport.close()


async def test_an_error_of_ours_closes_the_answer(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("mine")

    monkeypatch.setattr(exchange, "read_figures", fail)
    server.answers.append(streamed())
    limiter = RateLimiter(concurrency=1)
    async with client(server, limiter) as session:
        with pytest.raises(RuntimeError, match="mine"):
            await session.get("/")

        connector = session.connector
        assert connector is not None
        assert not connector._acquired

    assert held(limiter) == 0
