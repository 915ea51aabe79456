"""The fields that tell a client what it has left, on whatever answer."""

from __future__ import annotations

import copy
from typing import Any, Self

import anyio
import pytest

from anythrottle import FixedWindow, KeyedLimiter, RateLimiter, TokenBucket, WindowTokenBucket
from anythrottle.integrations.asgi import RateLimitMiddleware
from tests.engine.mine import Mine
from tests.integrations.asgi_tools import CLIENT, Client, Echo, ask, scope_of

pytestmark = [pytest.mark.timing, pytest.mark.promise("H11")]


def fields(client: Client) -> tuple[str | None, str | None]:
    return client.headers.get("ratelimit-policy"), client.headers.get("ratelimit")


async def test_a_text() -> None:
    app = RateLimitMiddleware(Echo(), "3/60s")
    first = await ask(app)
    assert first.headers == {
        "a": "b",
        "ratelimit-policy": '"calls-0";q=3;w=60',
        "ratelimit": '"calls-0";r=2;t=61;anythrottle-t=60002',
    }
    await anyio.sleep(20.5)
    assert fields(await ask(app))[1] == '"calls-0";r=1;t=40;anythrottle-t=39502'
    assert fields(await ask(app))[1] == '"calls-0";r=0;t=40;anythrottle-t=39502'


async def test_several_policies() -> None:
    limiter = RateLimiter(
        TokenBucket(2.5, 1, burst=4), FixedWindow(9, 0.5), "200 tokens/min", concurrency=7
    )
    app = RateLimitMiddleware(Echo(), limiter, cost={"tokens": 30})
    policy, left = fields(await ask(app))
    assert policy == '"calls-0";q=5;w=2, "calls-1";q=9;w=1, "tokens-2";q=200;w=60;qu="tokens"'
    assert left == (
        '"calls-0";r=3;t=1;anythrottle-t=402, "calls-1";r=8;t=1;anythrottle-t=502, '
        '"tokens-2";r=170;t=61;anythrottle-t=60002'
    )


async def test_they_are_of_the_instant_at_which_the_permit_is_entered() -> None:
    slow = Echo(takes=5)
    app = RateLimitMiddleware(slow, KeyedLimiter(lambda _: RateLimiter("9/60s")))
    await ask(app)
    clients = [Client() for _ in range(3)]
    async with anyio.create_task_group() as task_group:
        for client in clients:
            task_group.start_soon(ask, app, client)

    assert sorted(client.quotas[0].remaining or 0 for client in clients) == [5, 6, 7]
    assert {client.quotas[0].reset_after for client in clients} == {55.002}


async def test_slots_are_not_told() -> None:
    app = RateLimitMiddleware(Echo(), RateLimiter(concurrency=2))
    assert (await ask(app)).headers == {"a": "b"}


async def test_held_by_calls_that_run_there_is_no_t() -> None:
    app = RateLimitMiddleware(Echo(), RateLimiter("4/s end"))
    assert fields(await ask(app)) == ('"calls-0";q=4;w=1', '"calls-0";r=3')


async def test_no_headers_wanted() -> None:
    app = RateLimitMiddleware(Echo(), "1/60s", headers=False)
    assert (await ask(app)).headers == {"a": "b"}
    refused = await ask(app)
    assert (refused.status, refused.headers["retry-after"]) == (429, "61")
    assert fields(refused) == (None, None)
    app = RateLimitMiddleware(Echo(), RateLimiter("1/s"), headers=False, max_wait=5)
    assert [(await ask(app)).headers for _ in range(2)] == [{"a": "b"}] * 2


async def test_the_message_of_the_application_is_left_alone() -> None:
    start = {"type": "http.response.start", "status": 200, "headers": ((b"a", b"b"),)}
    before = copy.deepcopy(start)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)

    assert "ratelimit" in (await ask(RateLimitMiddleware(app, "3/s"))).headers
    assert start == before


async def test_headers_may_be_missing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    assert set((await ask(RateLimitMiddleware(app, "3/s"))).headers) == {
        "ratelimit",
        "ratelimit-policy",
    }


async def test_no_other_message_is_changed() -> None:
    messages = [
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.pathsend", "path": "/a"},
        {"type": "http.response.trailers", "headers": []},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    client = Client()
    await RateLimitMiddleware(app, "3/s")(scope_of(), client.receive, client.send)
    assert [client.sent[0], *client.sent[2:]] == [messages[0], *messages[2:]]
    assert len(client.sent[1].pop("headers")) == 2
    assert client.sent[1] == {"type": "http.response.start", "status": 200, "trailers": True}


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.start"])
async def test_websockets(kind: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": kind, "headers": [(b"a", b"b")]})
        await send({"type": "websocket.send", "text": "hello"})

    client = await ask(RateLimitMiddleware(app, "3/60s"), kind="websocket")
    assert fields(client)[1] == '"calls-0";r=2;t=61;anythrottle-t=60002'
    assert client.headers["a"] == "b"
    assert client.sent[1] == {"type": "websocket.send", "text": "hello"}


async def test_nothing_of_the_client_stands_in_them() -> None:
    def key(scope: Any) -> str:
        return "secret key"

    keyed: Any = KeyedLimiter(lambda key: RateLimiter("1/s", name=f"limiter of {key}"))
    app = RateLimitMiddleware(Echo(), keyed, key=key)
    for client in [await ask(app, headers=[("x", "secret header")]) for _ in range(2)]:
        said = repr(client.sent)
        assert "secret" not in said
        assert "limiter of" not in said
        assert CLIENT[0] not in said


class TestWithinAnother:
    async def test_one_field_tells_of_both(self) -> None:
        inner = RateLimitMiddleware(Echo(), RateLimiter("9/s"))
        scope = scope_of()
        for left in (4, 3):
            client = Client()
            await RateLimitMiddleware(inner, RateLimiter("5/60s"))(
                scope, client.receive, client.send
            )
            assert fields(client)[0] == '"calls-0";q=5;w=60, "calls-1";q=9;w=1'
            assert [quota.remaining for quota in client.quotas] == [4, left + 4]
            assert scope == scope_of()

    async def test_a_refusal_names_its_own_policy(self) -> None:
        inner = RateLimitMiddleware(Echo(), RateLimiter("1/60s"))
        app = RateLimitMiddleware(inner, RateLimiter("5/s"))
        await ask(app)
        refused = await ask(app)
        assert refused.status == 429
        assert fields(refused)[0] == '"calls-0";q=5;w=1, "calls-1";q=1;w=60'
        assert refused.problem["violated-policies"] == ["calls-1"]

    async def test_the_outer_refuses_without_the_inner(self) -> None:
        inner = RateLimitMiddleware(Echo(), RateLimiter("5/s"))
        app = RateLimitMiddleware(inner, RateLimiter("1/60s"))
        await ask(app)
        refused = await ask(app)
        assert fields(refused)[0] == '"calls-0";q=1;w=60'
        assert refused.problem["violated-policies"] == ["calls-0"]

    async def test_if_the_application_raises_the_scope_is_as_it_was(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["route"] = "seen by who stands outside"
            raise OSError

        scope, client = scope_of(), Client()
        with pytest.raises(OSError, match=r"^$"):
            await RateLimitMiddleware(app, "5/s")(scope, client.receive, client.send)

        assert scope == {**scope_of(), "route": "seen by who stands outside"}


class Bare:
    """The permit of a limiter of a user's own: it knows of no quotas."""

    waited = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class Foreign(Mine):
    """A limiter of a user's own."""

    def __init__(self) -> None:
        super().__init__(RateLimiter())

    def permit(self, *_: Any, **__: Any) -> Any:
        return Bare()


class Knowing(Foreign):
    """One that has quotas itself."""

    policies = (WindowTokenBucket(5, 60),)

    def quotas(self) -> Any:
        return RateLimiter(*self.policies).quotas()

    def tighten(self, **_: Any) -> None: ...

    def penalize(self, cost: Any) -> None: ...

    def resume(self) -> None: ...


async def test_limiters_of_a_users_own() -> None:
    foreign: Any = Foreign()
    assert (await ask(RateLimitMiddleware(Echo(), foreign))).headers == {"a": "b"}
    knowing: Any = Knowing()
    told = await ask(RateLimitMiddleware(Echo(), knowing))
    assert fields(told) == ('"calls-0";q=5;w=60', '"calls-0";r=5')
