"""The middleware within frameworks, added as their users add one."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import litestar
import pytest
from fastapi import FastAPI
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from anythrottle import KeyedLimiter, RateLimiter
from anythrottle.integrations.asgi import EXEMPT, RateLimitMiddleware
from tests.integrations.asgi_tools import GONE, Client, ask, body


def whose(scope: Any) -> Any:
    return EXEMPT if scope["path"] == "/health" else dict(scope["headers"]).get(b"x-user", b"")


def options() -> dict[str, Any]:
    return {"limiter": KeyedLimiter(lambda _: RateLimiter("2/h")), "key": whose}


def of_starlette() -> Any:
    async def page(_: Any) -> PlainTextResponse:
        return PlainTextResponse("page")

    return Starlette(
        routes=[Route("/page", page), Route("/health", page)],
        middleware=[Middleware(RateLimitMiddleware, **options())],
    )


def of_fastapi() -> Any:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, **options())

    @app.get("/page")
    @app.get("/health")
    async def page() -> str:
        return "page"

    return app


def of_litestar() -> Any:
    @litestar.get(["/page", "/health"])
    async def page() -> str:
        return "page"

    # Litestar has types of its own for what ASGI calls a mapping.
    ours: Any = RateLimitMiddleware
    middleware = DefineMiddleware(ours, **options())
    return litestar.Litestar([page], middleware=[middleware], logging_config=None)


def around_litestar() -> Any:
    @litestar.get(["/page", "/health"])
    async def page() -> str:
        return "page"

    app: Any = litestar.Litestar([page], logging_config=None)
    return RateLimitMiddleware(app, **options())


@pytest.mark.parametrize("make", [around_litestar, of_starlette, of_fastapi, of_litestar])
async def test_framework(make: Any) -> None:
    transport = httpx2.ASGITransport(make())
    async with httpx2.AsyncClient(transport=transport, base_url="http://a.example") as client:
        with anyio.fail_after(600):
            for user in ("one", "two"):
                answers = [await client.get("/page", headers={"x-user": user}) for _ in range(3)]
                assert [answer.status_code for answer in answers] == [200, 200, 429]
                assert all("ratelimit" in answer.headers for answer in answers)
                assert answers[2].json()["status"] == 429

            assert (await client.get("/health")).status_code == 200
            # Litestar's middlewares are behind its router, and see nothing of this.
            missing = await client.get("/missing")
            assert ("ratelimit" in missing.headers) == (make is not of_litestar)


async def test_a_client_that_hangs_up_before_its_turn_is_no_error_of_a_middleware_around() -> None:
    app = FastAPI()
    limiter = RateLimiter("1/60s")
    app.add_middleware(RateLimitMiddleware, limiter=limiter, max_wait=100)

    @app.middleware("http")
    async def around(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    limiter.acquire_nowait()
    client = await ask(app, Client([body(), GONE, GONE]))
    assert client.status == 499
    assert limiter.statistics().tasks_waiting == 0
