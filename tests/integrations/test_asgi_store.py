"""A middleware over the limiters of a store that is away."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anythrottle import KeyedLimiter, PolicyConflict, RateLimiter, StoreError
from anythrottle.integrations.asgi import RateLimitMiddleware
from anythrottle.stores.memory import MemoryServer, MemoryStore
from tests.integrations.asgi_tools import Client, Echo, ask, statuses

pytestmark = [pytest.mark.timing, pytest.mark.promise("S13")]


def limiters(kind: str, store: MemoryStore) -> Any:
    """Return a limiter of a store, or one for each key."""
    if kind == "one":
        return store.limiter("api", "9/h", read_ahead=0)

    return KeyedLimiter(lambda key: store.limiter(f"user:{key}", "9/h", read_ahead=0))


@pytest.mark.parametrize("max_wait", [0, 5, None])
@pytest.mark.parametrize("kind", ["one", "keyed"])
async def test_requests_are_answered_503_while_the_store_is_away(
    kind: str, max_wait: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(deadline=1)
    echo = Echo()
    app = RateLimitMiddleware(echo, limiters(kind, store), max_wait=max_wait)
    async with store:
        store.server.network.down = True
        refused = await ask(app)
        assert anyio.current_time() == 1
        assert refused.status == 503
        assert refused.headers == {
            "content-type": "application/problem+json",
            "content-length": str(len(refused.body)),
            "retry-after": "1",
        }
        assert refused.problem == {
            "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            "title": "Request cannot be satisfied due to temporary server capacity constraints",
            "status": 503,
        }
        assert await statuses(app, 3, peer=("192.0.2.8", 1)) == [503] * 3
        assert echo.requests == []
        store.server.network.down = False
        await anyio.sleep(2)
        assert await statuses(app, 2) == [200, 200]
        logged = [record for record in caplog.records if "503" in record.message]
        assert [record.levelname for record in logged] == ["WARNING"]
        # Once for each outage.
        store.server.network.down = True
        await anyio.sleep(1)
        assert await statuses(app, 2, peer=("192.0.2.9", 1)) == [503] * 2
        logged = [record for record in caplog.records if "503" in record.message]
        assert len(logged) == 2


async def test_a_websocket_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(deadline=1)
    app = RateLimitMiddleware(Echo(), limiters("one", store), headers=False)
    async with store:
        store.server.network.down = True
        client = await ask(app, Client(), kind="websocket")
        assert client.sent == [{"type": "websocket.close", "code": 1013}]
        assert (await ask(app)).status == 503


async def test_a_conflict_is_a_mistake_in_the_program() -> None:
    server = MemoryServer()
    async with MemoryStore(server) as one, MemoryStore(server) as other:
        await one.limiter("api", "8/h").acquire()
        with pytest.raises(PolicyConflict):
            await ask(RateLimitMiddleware(Echo(), limiters("one", other)))


async def test_what_the_application_raises_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise StoreError("its own", "as it happens")

    store = MemoryStore()
    async with store:
        for limiter in (limiters("one", store), RateLimiter("9/h")):
            with pytest.raises(StoreError, match="its own"):
                await ask(RateLimitMiddleware(app, limiter))
