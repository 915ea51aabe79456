"""What a request is answered that is refused."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Any

import anyio
import pytest

from anythrottle import KeyedLimiter, RateLimiter, WindowTokenBucket
from anythrottle.integrations.asgi import RateLimitMiddleware
from tests.integrations.asgi_tools import Client, Echo, ask, scope_of

pytestmark = pytest.mark.timing

PROBLEMS = "https://iana.org/assignments/http-problem-types#"


@pytest.mark.promise("H11")
class TestRate:
    async def test_answer(self) -> None:
        echo = Echo()
        app = RateLimitMiddleware(echo, "1/60s")
        await ask(app)
        await anyio.sleep(0.5)
        refused = await ask(app)
        assert len(echo.requests) == 1
        assert refused.status == 429
        assert refused.headers == {
            "content-type": "application/problem+json",
            "content-length": str(len(refused.body)),
            "retry-after": "60",
            "ratelimit-policy": '"calls-0";q=1;w=60',
            "ratelimit": '"calls-0";r=0;t=60;anythrottle-t=59502',
        }
        assert refused.problem == {
            "type": PROBLEMS + "quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "violated-policies": ["calls-0"],
        }

    @pytest.mark.parametrize(
        ("after", "seconds"), [(0, 61), (0.5, 60), (0.998, 60), (0.999, 60), (59.5, 1), (58.997, 2)]
    )
    async def test_retry_after(self, after: float, seconds: int) -> None:
        app = RateLimitMiddleware(Echo(), "1/60s")
        await ask(app)
        await anyio.sleep(after)
        assert (await ask(app)).headers["retry-after"] == str(seconds)

    async def test_retry_after_is_at_most_a_day(self) -> None:
        app = RateLimitMiddleware(Echo(), "1/week")
        await ask(app)
        assert (await ask(app)).headers["retry-after"] == "86400"

    async def test_which_policies_are_violated(self) -> None:
        unit = '"odd"\\unit\xe9'
        limiter = RateLimiter(
            *("9/min", "100 tokens/min", "100 tokens/h"), WindowTokenBucket(1000, 3600, unit=unit)
        )
        cost = {"tokens": 60, unit: 1}
        app = RateLimitMiddleware(Echo(), limiter, cost=cost)
        await ask(app)
        refused = await ask(app)
        assert refused.problem["violated-policies"] == ["tokens-1", "tokens-2"]
        limiter.penalize({unit: 999})
        refused = await ask(app)
        odd = '"odd"\\unit%C3%A9-3'
        assert refused.problem["violated-policies"] == ["tokens-1", "tokens-2", odd]
        assert r'"\"odd\"\\unit%C3%A9-3"' in refused.headers["ratelimit"]

    async def test_a_policy_whose_calls_still_run(self) -> None:
        app = RateLimitMiddleware(Echo(takes=5), RateLimiter("1/20s end"))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, app)
            await anyio.sleep(1)
            refused = await ask(app)

        # Earlier there is nothing, however soon the other call ends.
        assert (refused.status, refused.headers["retry-after"]) == (429, "21")

    async def test_others_that_wait_go_before(self) -> None:
        app = RateLimitMiddleware(Echo(), RateLimiter("1/10s"), max_wait=10)
        async with anyio.create_task_group() as task_group:
            for _ in range(2):
                task_group.start_soon(ask, app)

            await anyio.sleep(1)
            refused = await ask(app)
            assert (refused.status, refused.headers["retry-after"]) == (429, "20")
            assert refused.problem["violated-policies"] == ["calls-0"]

    async def test_a_cost_that_waits_goes_before_one_that_would_fit(self) -> None:
        limiter = RateLimiter("10/10s", "99/h")
        patient = RateLimitMiddleware(Echo(), limiter, cost=6, max_wait=10)
        await ask(patient)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, patient)
            await anyio.sleep(1)
            refused = await ask(RateLimitMiddleware(Echo(), limiter))

        assert refused.quotas[0].remaining == 4
        assert refused.problem["violated-policies"] == ["calls-0"]


@pytest.mark.promise("H11")
class TestSlots:
    @pytest.mark.parametrize("texts", [(), ("9/min",)])
    async def test_a_missing_slot(self, texts: tuple[str, ...]) -> None:
        app = RateLimitMiddleware(Echo(takes=5), RateLimiter(*texts, concurrency=1))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, app)
            await anyio.sleep(1)
            refused = await ask(app)

        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.problem["violated-policies"] == []

    async def test_too_many_wait(self) -> None:
        limiter = RateLimiter(concurrency=1, max_waiting=1)
        app = RateLimitMiddleware(Echo(takes=5), limiter, max_wait=20)
        clients = [Client() for _ in range(3)]
        async with anyio.create_task_group() as task_group:
            for client in clients:
                task_group.start_soon(ask, app, client)
                await anyio.sleep(1)

        assert [client.status for client in clients] == [200, 200, 429]
        assert clients[2].headers["retry-after"] == "1"


@pytest.mark.promise("H11")
class TestPause:
    async def test_answer(self) -> None:
        limiter = RateLimiter("9/min")
        app = RateLimitMiddleware(Echo(), limiter)
        limiter.pause(7)
        refused = await ask(app)
        assert refused.status == 503
        assert refused.headers["retry-after"] == "8"
        assert refused.headers["ratelimit"] == '"calls-0";r=9'
        assert refused.problem == {
            "type": PROBLEMS + "temporary-reduced-capacity",
            "title": "Request cannot be satisfied due to temporary server capacity constraints",
            "status": 503,
        }
        await anyio.sleep(7)
        assert (await ask(app)).status == 200

    async def test_until_it_is_resumed(self) -> None:
        limiter = RateLimiter("9/min")
        limiter.pause(inf)
        refused = await ask(RateLimitMiddleware(Echo(), limiter))
        assert (refused.status, refused.headers["retry-after"]) == (503, "86400")


@pytest.mark.promise("H11")
async def test_head_has_no_body() -> None:
    app = RateLimitMiddleware(Echo(), "1/60s")
    await ask(app)
    get, head = await ask(app), await ask(app, method="HEAD")
    assert (head.status, head.headers, head.body) == (429, get.headers, b"")
    assert head.sent[-1] == {"type": "http.response.body", "body": b""}


@pytest.mark.promise("H15")
async def test_no_place_for_newcomers() -> None:
    keyed: Any = KeyedLimiter(lambda _: RateLimiter("5/60s"), max_keys=1)
    app = RateLimitMiddleware(Echo(), keyed)
    await ask(app)
    refused = await ask(app, peer=("192.0.2.8", 1))
    assert (refused.status, refused.headers["retry-after"]) == (429, "61")
    assert refused.problem["violated-policies"] == []
    assert "ratelimit" not in refused.headers
    await anyio.sleep(60)
    assert (await ask(app, peer=("192.0.2.8", 1))).status == 200


@pytest.mark.promise("H16")
class TestWebsockets:
    async def test_closed_before_it_is_accepted(self) -> None:
        app = RateLimitMiddleware(Echo(), "1/60s")
        await ask(app)
        scopes: list[Any] = [{}, {"extensions": None}, {"extensions": {"tls": {}}}]
        for more in scopes:
            refused = await ask(app, kind="websocket", **more)
            assert refused.sent == [{"type": "websocket.close", "code": 1013}]
            assert refused.asked == 0

    async def test_answered_where_the_server_can(self) -> None:
        app = RateLimitMiddleware(Echo(), "1/60s")
        await ask(app)
        more: Any = {"extensions": {"websocket.http.response": {}}}
        refused = await ask(app, kind="websocket", **more)
        assert [message["type"] for message in refused.sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert refused.status == 429
        assert refused.headers == (await ask(app)).headers
        assert refused.problem["violated-policies"] == ["calls-0"]

    async def test_one_that_lasts_holds_its_slot(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await anyio.sleep(100)

        limiter = RateLimiter("9/s", concurrency=1)
        guarded = RateLimitMiddleware(app, limiter)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(partial(ask, guarded, kind="websocket"))
            await anyio.sleep(99)
            refused = await ask(guarded, kind="websocket")
            assert refused.sent[0]["type"] == "websocket.close"

        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.parametrize("kind", ["lifespan", "webtransport", "http3.datagram"])
    async def test_what_is_neither_passes_untouched(self, kind: str) -> None:
        seen: list[Any] = []

        async def app(*args: Any) -> None:
            seen.extend(args)

        limiter = RateLimiter("1/h")
        limiter.pause(inf)
        scope, client = {"type": kind}, Client()
        args = (scope, client.receive, client.send)
        await RateLimitMiddleware(app, limiter, key=wrong)(*args)
        assert tuple(seen) == args
        assert seen[0] is scope
        assert scope == {"type": kind}


def wrong(scope: Any) -> Any:
    raise AssertionError


@pytest.mark.promise("H16")
async def test_a_websocket_that_is_let_through() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive))

    client, scope = Client(), scope_of(kind="websocket")
    await RateLimitMiddleware(app, "1/h")(scope, client.receive, client.send)
    assert seen == [(scope, client.receive)]
