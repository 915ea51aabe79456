"""One of several processes that serve one application: by the URL of a Redis server, and a port."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import uvicorn

from anythrottle import KeyedLimiter
from anythrottle.integrations.asgi import RateLimitMiddleware
from anythrottle.stores.redis import RedisStore

LIMIT = 40


async def page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def by_path(scope: Any) -> str:
    path: str = scope["path"].strip("/")
    return path


async def main(redis: str, port: int) -> None:
    store = RedisStore(redis, deadline=30)
    # None in stock: what one process has fetched ahead, others do without for a while.
    per_path = KeyedLimiter[str, Any](lambda path: store.limiter(path, f"{LIMIT}/h", read_ahead=0))
    app = RateLimitMiddleware(page, per_path, key=by_path)
    config = uvicorn.Config(app, port=port, log_level="warning", lifespan="off")
    async with store:
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
