"""Limits that are shared over real servers, from end to end."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from math import inf

import anyio
import coredis
import httpx2
import pytest
from anyio import to_thread
from coredis.connection import TCPLocation
from coredis.typing import Key

import anythrottle
from anythrottle import (
    KeyedLimiter,
    ThrottleException,
    Throttler,
)
from anythrottle.abc import Limiter
from anythrottle.integrations.httpx2 import ThrottledTransport
from anythrottle.stores.redis import RedisRateLimiter, RedisStore
from anythrottle.testing import LimiterConformance
from tests.stores import servers
from tests.stores.pace import WINDOWS, RedisConformance
from tests.stores.redis_tools import both_backends, run, until
from tests.stores.servers import HOST, Cluster, Sentinel, Server
from tests.stores.store_tools import (
    IMPATIENT,
    PATIENT,
    Starts,
    again,
    passes,
    wait_for_listeners,
)


@both_backends
def test_a_limiter_without_rules_can_be_paused(server: Server, backend: str) -> None:
    async def main() -> None:
        stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
        async with stores[0], stores[1]:
            one, two = (store.limiter("api") for store in stores)
            assert await passes(one) == await passes(two) == 20
            assert (await one.peek()).allowed
            async with one.permit():
                assert (await two.shared_statistics()).total_tokens == inf

            await wait_for_listeners(server, 2)
            one.pause(inf)
            await until(lambda: two.statistics().paused_for == inf)
            decision = await two.peek()
            assert (decision.allowed, decision.reason) == (False, "pause")
            assert (await one.shared_statistics()).paused_for == inf
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(two.acquire)

                await until(lambda: two.statistics().tasks_waiting == 3)
                one.resume()

            assert one.quotas() == ()

    run(backend, main)


#: All but one: a limiter is idle once it has been of no use for ten seconds, or more than its
#: window if that is shorter; the test waits for the window.
NAMES = [
    name
    for name in dir(LimiterConformance)
    if name.startswith("test_") and not name.startswith("test_it_is_idle")
]


@both_backends
@pytest.mark.parametrize("name", NAMES)
def test_conformance(server: Server, name: str, backend: str) -> None:
    for window in WINDOWS:

        async def main(window: float = window) -> None:
            store = RedisStore(server.url, deadline=PATIENT)
            async with store:
                # Only the first exchange has to connect.
                await store.limiter("other", "1/s").peek()
                await getattr(RedisConformance(store, window), name)()

        try:
            run(backend, main)
        except Exception:
            if window == WINDOWS[-1]:
                raise
        else:
            return


@both_backends
class TestSharing:
    def test_several_stores_share_a_limit(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(3)]
            async with stores[0], stores[1], stores[2]:
                one, two, three = (store.limiter("api", "5/h", read_ahead=0) for store in stores)
                await one.acquire(2)
                await two.acquire(2)
                assert await passes(three) == 1
                assert await passes(one) == 0
                assert (await two.peek()).remaining == 0
                assert await passes(stores[0].limiter("other", "5/h", read_ahead=0)) == 5

        run(backend, main)

    def test_other_prefixes_share_nothing(self, server: Server, backend: str) -> None:
        async def main() -> None:
            for prefix in ("one", "two"):
                async with RedisStore(server.url, prefix=prefix, deadline=PATIENT) as store:
                    assert await passes(store.limiter("api", "2/h")) == 2

        run(backend, main)

    def test_slots_go_from_store_to_store(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            running = most = 0

            async def call(limiter: Limiter) -> None:
                nonlocal running, most
                async with limiter.permit():
                    running += 1
                    most = max(most, running)
                    # However slow the machine is, the first one waits for the second.
                    while most < 2:
                        await anyio.sleep(0.01)

                    await anyio.sleep(0.01)
                    running -= 1

            async with stores[0], stores[1]:
                limiters = [store.limiter("api", concurrency=2) for store in stores]
                async with anyio.create_task_group() as tasks:
                    for number in range(20):
                        tasks.start_soon(call, limiters[number % 2])

                assert most == 2
                # what the other store gives back may be under way
                while (await limiters[0].shared_statistics()).borrowed_tokens:
                    await anyio.sleep(0.01)

        run(backend, main)

    def test_what_is_charged_outlives_the_store(self, server: Server, backend: str) -> None:
        async def main() -> None:
            store = RedisStore(server.url, deadline=PATIENT)
            limiter = store.limiter("api", "5/h", read_ahead=0)
            async with store:
                assert await passes(limiter, 3) == 3

            async with store:
                assert await passes(limiter) == 2

            async with store:
                await store.forget("api")
                assert await passes(limiter) == 5

        run(backend, main)

    def test_a_client_of_one_s_own(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with coredis.Redis(HOST, server.port, db=2) as client:
                async with RedisStore(client, deadline=PATIENT) as store:
                    assert await passes(store.limiter("api", "3/h")) == 3

                assert await client.exists(["{anythrottle:api}"]) == 1

        run(backend, main)

    def test_a_pause_holds_in_all(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                one, two = (store.limiter("api", "1000/s", concurrency=9) for store in stores)
                async with two.permit(), one.permit():
                    await wait_for_listeners(server, 2)
                    before = stores[1].statistics().exchanges
                    one.pause(1000)
                    await until(lambda: two.statistics().paused_for > 900)
                    assert stores[1].statistics().exchanges == before, "it was pushed"
                    one.resume()
                    await until(lambda: two.statistics().paused_for == 0)

        run(backend, main)


@both_backends
class TestParts:
    def test_a_keyed_limiter(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]

            def make(store: RedisStore) -> KeyedLimiter[str, RedisRateLimiter]:
                return KeyedLimiter(lambda key: store.limiter(f"user:{key}", "3/h", read_ahead=0))

            async with stores[0], stores[1]:
                keyed = [make(store) for store in stores]
                assert await passes(keyed[0]["ann"], 2) == 2
                assert await passes(keyed[1]["ann"]) == 1
                assert await passes(keyed[1]["bob"]) == 3
                assert await passes(keyed[0]["bob"]) == 0
                assert len(keyed[0]) == 2

        run(backend, main)

    def test_an_http_transport(self, server: Server, backend: str) -> None:
        refusals = [httpx2.Response(429, headers={"retry-after": "0"})]

        def answer(request: httpx2.Request) -> httpx2.Response:
            return refusals.pop() if refusals else httpx2.Response(200, text="page")

        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                limiters = [store.limiter("api", "7/h end", concurrency=2) for store in stores]
                clients = [
                    httpx2.AsyncClient(
                        transport=ThrottledTransport(httpx2.MockTransport(answer), limiter)
                    )
                    for limiter in limiters
                ]
                async with clients[0], clients[1]:
                    for number in range(6):
                        answered = await clients[number % 2].get("http://a.example/")
                        assert (answered.status_code, answered.text) == (200, "page")

                    # one of them was refused, and went twice
                    with pytest.raises(httpx2.PoolTimeout):
                        await clients[0].get(
                            "http://a.example/", extensions={"anythrottle": {"max_wait": 0}}
                        )

        run(backend, main)
        assert not refusals

    def test_a_refusal_pauses_the_clients_of_all_processes(
        self, server: Server, backend: str
    ) -> None:
        refusals = [httpx2.Response(429, headers={"retry-after": "1000"})]

        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                one, two = (store.limiter("api", "1000/s") for store in stores)
                await two.acquire()
                transport = ThrottledTransport(httpx2.MockTransport(lambda _: refusals.pop()), one)
                async with (
                    httpx2.AsyncClient(transport=transport) as client,
                    anyio.create_task_group() as tasks,
                ):
                    tasks.start_soon(client.get, "http://a.example/")
                    await until(lambda: one.statistics().paused_for > 900)
                    while (await two.peek()).reason != "pause":
                        await anyio.sleep(0.01)

                    tasks.cancel_scope.cancel()

        run(backend, main)

    def test_jobs(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                limiters = [store.limiter("api", "100/h", concurrency=3) for store in stores]
                running = most = 0

                async def double(number: int) -> int:
                    nonlocal running, most
                    running += 1
                    most = max(most, running)
                    await anyio.sleep(0.001)
                    running -= 1
                    return 2 * number

                found: list[int] = []

                async def consume(result: int) -> None:
                    found.append(result)

                throttler = Throttler(range(20), consume, func=double, limiter=limiters[0])
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(throttler.run)
                    doubled = await anythrottle.amap(double, range(20), limiter=limiters[1])

                assert doubled == [2 * number for number in range(20)]
                assert sorted(found) == doubled
                assert most <= 3
                assert (await limiters[0].peek()).remaining == 60

        run(backend, main)

    def test_a_job_that_is_throttled_goes_again(self, server: Server, backend: str) -> None:
        async def main() -> None:
            tries = Counter[int]()

            async def job(number: int) -> int:
                tries[number] += 1
                if number == 3 and tries[number] == 1:
                    raise ThrottleException(retry_after=0.01)

                return number

            async with RedisStore(server.url, deadline=PATIENT) as store:
                limiter = store.limiter("api", "100/h")
                assert await anythrottle.amap(job, range(10), limiter=limiter, concurrency=4) == [
                    *range(10)
                ]
                assert tries[3] == 2
                assert (await limiter.peek()).remaining == 89

        run(backend, main)


# coredis leaves memory streams open: of each cluster's client, and of what failed to connect
ignores_streams = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function MemoryObject:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def _collected() -> Iterator[None]:
    yield
    gc.collect()  # here, where the warnings of it are ignored


@both_backends
@pytest.mark.usefixtures("_collected")
@ignores_streams
class TestElsewhere:
    def test_a_cluster(self, cluster: Cluster, backend: str) -> None:
        names = [f"limiter-{backend}-{number}" for number in range(9)]
        slots = [Key("{anythrottle:" + name + "}").slot for name in names]
        assert len({cluster.keeper(slot).port for slot in slots}) == 3
        for server in cluster.servers:
            server.flush()

        async def main() -> None:
            places = [TCPLocation(HOST, cluster.servers[0].port)]
            async with coredis.RedisCluster(startup_nodes=places) as client:
                stores = [RedisStore(client, deadline=PATIENT) for _ in range(2)]
                async with stores[0], stores[1]:
                    for name in names:
                        # which nobody renews meanwhile
                        one, two = (
                            store.limiter(name, "3/h", concurrency=3, lease_timeout=9999)
                            for store in stores
                        )
                        async with two.permit(), one.permit():
                            for _ in range(3):
                                await self.hears(one, two)

                        assert await passes(one) == 1

        run(backend, main)
        for name, slot in zip(names, slots, strict=True):
            assert cluster.keeper(slot).ask("EXISTS", "{anythrottle:" + name + "}") == 1

    async def hears(self, one: RedisRateLimiter, two: RedisRateLimiter) -> None:
        """Pause again and again, until that is heard: who listens not yet does not."""
        for seconds in count(1000, 1000):
            one.pause(seconds)
            with anyio.move_on_after(0.2):
                await until(lambda: two.statistics().paused_for > 900)
                one.resume()
                await until(lambda: two.statistics().paused_for == 0)
                return

    def test_sentinel(self, backend: str) -> None:
        async def main(sentinel: Sentinel) -> None:
            places = [TCPLocation(HOST, sentinel.sentinel.port)]
            async with (
                coredis.Sentinel(places) as manager,
                manager.primary_for("main") as client,
                RedisStore(client, deadline=IMPATIENT) as store,
            ):
                await self.outlives(store, sentinel.fail_over, sentinel.replica)

        with servers.sentinel("valkey") as sentinel:
            run(backend, lambda: main(sentinel))

    def test_a_cluster_that_loses_a_server(self, backend: str) -> None:
        # One kind for each is enough, because it takes long.
        kind = "redis" if backend == "asyncio" else "valkey"

        async def main(cluster: Cluster, keeper: Server, heir: Server) -> None:
            places = [TCPLocation(HOST, server.port) for server in cluster.servers]
            async with (
                coredis.RedisCluster(startup_nodes=places) as client,
                RedisStore(client, deadline=IMPATIENT) as store,
            ):
                await self.outlives(store, partial(servers.succeed, keeper, heir), heir)

        with servers.cluster(kind) as cluster:
            keeper = cluster.keeper(Key("{anythrottle:api}").slot)
            with servers.heir(kind, cluster, keeper) as heir:
                run(backend, partial(main, cluster, keeper, heir))

    async def outlives(
        self, store: RedisStore, fail_over: Callable[[], None], heir: Server
    ) -> None:
        """Keep to a limit while the server that keeps it fails, and its replica becomes the one."""
        limiter = store.limiter("api", "3/2s")
        starts = Starts(limiter)
        await again(limiter)
        await anyio.sleep(2)
        for number in range(7):
            if number == 3:
                await to_thread.run_sync(fail_over)

            await starts.take_in_the_end()

        starts.assert_within(3, 2)
        assert heir.ask("EXISTS", "{anythrottle:api}") == 1

    def test_tls(self, tls: Server, backend: str) -> None:
        tls.flush()

        async def main() -> None:
            stores = [RedisStore(tls.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                one, two = (store.limiter("api", "4/h", read_ahead=0) for store in stores)
                assert await passes(one, 3) == 3
                assert await passes(two) == 1

        run(backend, main)
