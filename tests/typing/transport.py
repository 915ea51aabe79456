"""What type checkers make of throttled clients of httpx2 and httpx. Checked, never run."""

from typing import assert_type

import httpx
import httpx2

from anythrottle import Cost, KeyedLimiter, LimitExceeded, RateLimiter
from anythrottle.abc import Limiter
from anythrottle.integrations import httpx as for_httpx
from anythrottle.integrations import httpx2 as for_httpx2
from anythrottle.integrations.headers import EXEMPT, PLAIN, Exempt


def cost_of(request: httpx2.Request) -> Cost | Exempt:
    return EXEMPT if request.method == "OPTIONS" else {"tokens": len(request.content)}


def used_by(response: httpx2.Response) -> Cost | None:
    return None if response.is_error else {"tokens": len(response.content)}


def path_of(request: httpx.Request) -> tuple[str, int | None]:
    return request.url.path, request.url.port


async def clients(
    limiter: Limiter, keyed: KeyedLimiter[tuple[str, int | None], RateLimiter]
) -> None:
    transport = for_httpx2.ThrottledTransport(
        httpx2.AsyncHTTPTransport(), "20/10s", cost=cost_of, settle=used_by, profile=PLAIN
    )
    async with transport as entered:
        assert_type(entered, for_httpx2.ThrottledTransport)

    async with httpx2.AsyncClient(transport=transport) as client:
        assert_type(await client.get("http://a.example/"), httpx2.Response)

    other = for_httpx.ThrottledTransport(
        httpx.AsyncHTTPTransport(), keyed, key=path_of, max_wait="deadline", learn=True
    )
    for_httpx.ThrottledTransport(other, limiter, cost=EXEMPT, max_wait=5, max_pause=60)
    httpx.AsyncClient(transport=other)
    for_httpx.ThrottledTransport(other, limiter, cost=cost_of)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await other.handle_async_request(httpx.Request("GET", "")), httpx.Response)


def errors(error: for_httpx2.TurnTimeout) -> None:
    limit: LimitExceeded = error
    timeout: httpx2.PoolTimeout = error
    assert_type(error.retry_after, float)
    assert_type(timeout.request, httpx2.Request)
    del limit
