"""A limiter of a user's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from anythrottle import RateLimiter
from anythrottle.abc import Permit


class Mine:
    """A limiter that passes on to another one, with permits that are generators."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter
        self.told: list[str] = []

    @asynccontextmanager
    async def permit(self, *args: Any, **options: Any) -> AsyncGenerator[Permit]:
        async with self.limiter.permit(*args, **options) as permit:
            self.told.append("entered")
            try:
                yield permit
            except BaseException as exc:
                self.told.append(f"left by {type(exc).__name__}")
                raise

            self.told.append("left")

    async def run(self, func: Any, *args: Any, **options: Any) -> Any:
        return await self.limiter.run(func, *args, **options)

    def wrap(self, func: Any) -> Any:
        return self.limiter.wrap(func)

    def pause(self, seconds: float | None = None) -> None:
        self.limiter.pause(seconds)

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...
