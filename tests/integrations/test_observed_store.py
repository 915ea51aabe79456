"""What is seen of limiters that processes share, and of their store."""

from __future__ import annotations

import logging

import anyio
import pytest

from anythrottle import KeyedLimiter, StoreError, observe_all
from anythrottle.integrations.logs import LoggingObserver
from anythrottle.stores.memory import MemoryRateLimiter, MemoryServer, MemoryStore
from anythrottle.testing import wait_idle
from tests.integrations.figures import KINDS, Figures
from tests.limiters.tools import tasks

pytestmark = pytest.mark.timing


@pytest.fixture(params=KINDS)
def figures(request: pytest.FixtureRequest) -> Figures:
    return KINDS[request.param]()


async def test_calls_and_those_in_line(figures: Figures) -> None:
    async with MemoryStore(MemoryServer()) as store:
        limiter = store.limiter("api", "9/s", concurrency=1, observer=figures.observer)
        figures.observer.watch(limiter)

        async def call() -> None:
            async with limiter.permit():
                await anyio.sleep(2)

        async with tasks() as task_group:
            for _ in range(3):
                task_group.start_soon(call)

            await anyio.sleep(1)
            await wait_idle()
            assert figures.read("waiting") == {("api",): 2}
            assert figures.read("active") == {("api",): 1}

        assert figures.one("cost", "api", "calls") == 3
        assert figures.one("hold.duration", "api") == (3, pytest.approx(6, abs=0.1))
        assert figures.read("active") == {("api",): 0}


async def test_an_outage(figures: Figures, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = MemoryServer()
    log = LoggingObserver(logging.getLogger("tests.limits"))
    async with MemoryStore(server) as store:
        limiter = store.limiter("api", "20/10s", observer=observe_all(figures.observer, log))
        await limiter.acquire()
        assert figures.one("store.outages", "api") == 0
        server.network.down = True
        with pytest.raises(StoreError):
            await limiter.acquire(cost=20)

        assert figures.one("store.down", "api") == 1
        assert figures.one("store.outages", "api") == 1
        server.network.down = False
        await anyio.sleep(10)
        assert figures.one("store.down", "api") == 0
        assert figures.one("store.outages", "api") == 1

    told = [record.getMessage() for record in caplog.records if record.name == "tests.limits"]
    assert len(told) == 2
    assert told[0].startswith("limiter 'api': the store does not serve it: ")
    assert told[1].startswith("limiter 'api': the store answers again, after ")


async def test_a_lease_that_is_over(figures: Figures) -> None:
    server = MemoryServer()
    async with MemoryStore(server) as store:
        limiter = store.limiter("api", concurrency=2, lease_timeout=3.0, observer=figures.observer)
        async with limiter.permit(), limiter.permit():
            assert figures.one("lease.expired", "api") == 0
            server.network.down = True
            await anyio.sleep(6)
            assert figures.one("lease.expired", "api") == 2


async def test_the_names_of_keyed_limiters_are_seen_nowhere(figures: Figures) -> None:
    async with MemoryStore(MemoryServer()) as store:

        def limiter_of(user: str) -> MemoryRateLimiter:
            # The same observer each time, as the store compares it.
            observer = figures.observer.named("per user")
            return store.limiter(f"user:{user}", "9/s", concurrency=1, observer=observer)

        per_user = KeyedLimiter[str, MemoryRateLimiter](limiter_of)
        figures.observer.watch(per_user, name="per user")
        for user in ("ada", "bob", "ada"):
            async with per_user[user].permit():
                assert limiter_of(user) is per_user[user]
                assert figures.read("active") == {("per user",): 1}

        assert figures.read("cost") == {("per user", "calls"): 3}
        assert figures.one("hold.duration", "per user")[0] == 3
