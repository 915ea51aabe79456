"""ASGI apps on sockets of this machine, on either event loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import anyio
from hypercorn.config import Config


@asynccontextmanager
async def serving(app: Any, backend: str) -> AsyncIterator[str]:
    """Serve an app on a free port; yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = "http://{}:{}/".format(*listener.getsockname())
    config = Config.from_mapping(
        bind=f"fd://{listener.detach()}", loglevel="CRITICAL", graceful_timeout=0.5
    )
    serve = import_module(f"hypercorn.{backend}").serve
    stop = anyio.Event()

    async def serve_until_stopped() -> None:
        # If it were cancelled, it would leave its sockets open.
        with anyio.CancelScope(shield=True):
            await serve(app, config, shutdown_trigger=stop.wait, mode="asgi")

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(serve_until_stopped)
        try:
            yield url
        finally:
            stop.set()
