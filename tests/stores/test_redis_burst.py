"""Thousands of new limiters at once are served, and those in use with them."""

from __future__ import annotations

import logging
import socket

import anyio
import pytest

from anythrottle import KeyedLimiter, StoreError
from anythrottle.stores.redis import RedisRateLimiter, RedisStore
from tests.stores import servers
from tests.stores.redis_tools import both_backends, run
from tests.stores.servers import HOST, Server
from tests.stores.store_tools import PATIENT

#: So many that sent at once, and broken off one by one, they would break each other's connection.
MANY = 2000

#: By when an exchange is to be answered where that is waited for.
DEADLINE = 1.0


async def use_each_once(
    keyed: KeyedLimiter[int, RedisRateLimiter], keys: range, failures: list[Exception]
) -> None:
    """Take a turn of each key that is to be had at once, all at the same time."""

    async def use(key: int) -> None:
        try:
            async with keyed[key].permit(max_wait=0):
                pass
        except Exception as exc:  # noqa: BLE001 - whatever it is
            failures.append(exc)

    async with anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(use, key)


@both_backends
@pytest.mark.parametrize("kind", ["redis"])
class TestBurst:
    def test_all_are_served_and_each_once(self, kind: str, backend: str) -> None:
        failures: list[Exception] = []

        async def main(url: str) -> None:
            async with RedisStore(url, deadline=PATIENT) as store:
                used = store.limiter("used", "1000/h", read_ahead=0)
                async with anyio.create_task_group() as tasks:
                    for _ in range(2):
                        await used.acquire()

                    keyed: KeyedLimiter[int, RedisRateLimiter] = KeyedLimiter(
                        lambda key: store.limiter(f"user:{key}", "1/h")
                    )
                    tasks.start_soon(use_each_once, keyed, range(MANY), failures)
                    for _ in range(5):
                        await used.acquire()
                        await anyio.sleep(0.01)

                assert store.statistics().connected

        with servers.server(kind) as server:
            run(backend, lambda: main(server.url))
            assert len(server.ask("KEYS", "{anythrottle:user:*}:w0")) == MANY

        assert not failures


@both_backends
def test_a_server_that_stands_still_is_a_line_or_two(
    server: Server, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.flush()
    failures: list[Exception] = []

    async def main() -> None:
        async with RedisStore(server.url, deadline=PATIENT) as store:
            keyed: KeyedLimiter[int, RedisRateLimiter] = KeyedLimiter(
                lambda key: store.limiter(f"user:{key}", "9/h")
            )
            await use_each_once(keyed, range(100), failures)
            assert not failures

        async with RedisStore(server.url, deadline=DEADLINE) as store:
            server.stop()
            try:
                await use_each_once(keyed, range(300), failures)
            finally:
                server.cont()

    run(backend, main)
    assert len(failures) == 300
    messages = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= sum("does not serve it" in record.getMessage() for record in messages) <= 2
    assert len([record for record in messages if "left unheard" in record.getMessage()]) <= 1


@both_backends
def test_coredis_has_nothing_to_say_of_a_server_that_is_silent(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with socket.create_server((HOST, 0)) as silent:
            url = f"redis://{HOST}:{silent.getsockname()[1]}"
            async with RedisStore(url, deadline=DEADLINE) as store:
                with pytest.raises(StoreError, match="no answer within"):
                    await store.limiter("api", "1/s").acquire()

    run(backend, main)
    assert not [record for record in caplog.records if record.name == "coredis"]
