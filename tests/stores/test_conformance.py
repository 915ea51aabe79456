"""Shared limiters pass the suite that all limiters pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import count

import pytest

from anythrottle import WindowTokenBucket, abc
from anythrottle.stores.memory import MemoryStore
from anythrottle.testing import LimiterConformance


@pytest.mark.timing
class TestMemoryRateLimiter(LimiterConformance):
    resolution = 1e-5
    slack = 1e-2

    @pytest.fixture(autouse=True)
    async def entered(self) -> AsyncGenerator[None]:
        self.names = count()
        self.store = MemoryStore()
        async with self.store:
            yield

    def make_limiter(
        self, limit: int, window: float, *, concurrency: int | None = None
    ) -> abc.Limiter:
        policy = WindowTokenBucket(limit, window)
        return self.store.limiter(f"limiter-{next(self.names)}", policy, concurrency=concurrency)
