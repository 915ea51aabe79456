"""Throttled clients of aiohttp: what is said of requests, and what the server says of limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest

from anythrottle import (
    CostTooHigh,
    KeyedLimiter,
    RateLimiter,
    WindowTokenBucket,
)
from anythrottle.abc import Limiter
from anythrottle.integrations.aiohttp import ThrottledMiddleware, TurnTimeout
from anythrottle.integrations.headers import EXEMPT, PROFILES, Profile
from tests.integrations.loopback import (
    SOON,
    Loopback,
    client,
    late,
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


def limiters(made: list[object]) -> KeyedLimiter[Any, Limiter]:
    def make(key: object) -> RateLimiter:
        made.append(key)
        return RateLimiter()

    return KeyedLimiter(make)


async def test_the_key_is_the_host_or_what_is_said(server: Loopback) -> None:
    made: list[object] = []
    keyed = limiters(made)
    async with client(server, keyed) as session, session.get("/"):
        pass
    async with (
        client(server, keyed, key=lambda request: request.url.path) as session,
        session.get("/a"),
        session.get("/b"),
    ):
        pass

    assert made == [f"127.0.0.1:{server.port}", "/a", "/b"]


async def test_a_text_is_for_each_host_from_the_end(server: Loopback) -> None:
    async with serving() as other, client(server, "1/h", max_wait=0) as session:
        async with session.get("/"):
            with pytest.raises(TurnTimeout):
                await session.get("/")
        async with session.get(f"{other.url}/") as response:
            assert response.ok

    assert len(server.seen) == 1


async def test_the_cost_may_be_told_by_a_function(server: Loopback) -> None:
    limiter = RateLimiter("10/h", "100 tokens/h", measure="end")

    def cost(request: aiohttp.ClientRequest) -> dict[str, int]:
        return {"tokens": int(request.headers["X-Tokens"])}

    async with client(server, limiter, cost=cost) as session:
        async with session.get("/", headers={"X-Tokens": "30"}):
            pass
        with pytest.raises(CostTooHigh):
            await session.get("/", headers={"X-Tokens": "101"})

    assert [quota.remaining for quota in limiter.quotas()] == [9, 70]
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "options",
    [{"cost": EXEMPT}, {"cost": lambda _: EXEMPT}, {"key": lambda _: EXEMPT}],
    ids=["cost", "cost of a request", "key"],
)
async def test_what_is_exempt_passes(server: Loopback, options: dict[str, Any]) -> None:
    server.answers.append(refused())
    limiter = RateLimiter(concurrency=1)
    async with (
        limiter,
        client(server, limiter, max_wait=0, **options) as session,
        session.get("/") as response,
    ):
        assert response.status == 429

    assert len(server.seen) == 1


@pytest.mark.parametrize("name", ["cost", "key"])
async def test_none_is_no_way_past_a_limit(server: Loopback, name: str) -> None:
    options: dict[str, Any] = {name: lambda _: None}
    async with client(server, RateLimiter(), **options) as session:
        with pytest.raises(TypeError, match=f"^{name} must be .* not None$"):
            await session.get("/")

    assert not server.seen


@pytest.mark.parametrize(
    ("limiter", "options", "error", "message"),
    [
        (None, {}, TypeError, "limiter must be a text"),
        (RateLimiter, {}, TypeError, "limiter must be a text"),
        ("much", {}, ValueError, "much"),
        ("1/s", {"key": "host"}, TypeError, "key must be a function"),
        ("1/s", {"cost": None}, TypeError, "cost must be an int"),
        ("1/s", {"cost": -1}, ValueError, "-1"),
        ("1/s", {"profile": "strange"}, ValueError, "strange"),
        ("1/s", {"max_throttles": 0}, ValueError, "max_throttles"),
        ("1/s", {"max_wait": -1}, ValueError, "max_wait"),
        ("1/s", {"max_pause": 0}, ValueError, "max_pause"),
    ],
)
def test_wrong_arguments(
    limiter: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ThrottledMiddleware(limiter, **options)


async def test_figures_tighten_the_limiter(server: Loopback) -> None:
    server.answers.append(text(ratelimit='"a";r=3;t=60'))
    limiter = RateLimiter("10/min", measure="end")
    async with client(server, limiter) as session, session.get("/"):
        assert limiter.quotas()[0].remaining == 3


async def test_no_header_raises(server: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    profile = Profile("mine", PROFILES["plain"].quotas, first_pause=0.001)
    wrong = {"retry_after": "\u00fc", "x_ratelimit_remaining": "\u0665", "x_a": "a\tb"}
    server.answers += [text(b"", 429, **wrong), text(b"", 429, **wrong)]
    with caplog.at_level(logging.WARNING, "anythrottle"):
        async with (
            client(server, RateLimiter(), profile=profile) as session,
            session.get("/") as response,
        ):
            assert response.ok

    names = "x-ratelimit-remaining, retry-after"
    assert len(server.seen) == 3
    assert [record.message for record in caplog.records] == [
        f"malformed fields of '127.0.0.1:{server.port}' are ignored: {names}"
    ]


async def test_the_servers_limits_are_learned_from_the_first_alone(server: Loopback) -> None:
    answer = streamed(ratelimit_policy='"a";q=7;w=60', ratelimit='"a";r=6;t=60')
    server.answers.append(late(answer))
    limiter = RateLimiter()
    async with client(server, limiter, learn=True) as session, asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(session.get("/")) for _ in range(3)]
        await until(lambda: server.seen)
        await asyncio.sleep(SOON)
        assert len(server.seen) == 1
        server.go_on.set()
        for call in calls:
            async with await call as response:
                assert response.ok

        assert limiter.policies == (WindowTokenBucket(7, 60, measure="end"),)
        assert limiter.quotas()[0].remaining == 4
