"""Limits that are shared over real servers, from end to end, with all that goes wrong there."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
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
    LimitExceeded,
    PolicyConflict,
    RateLimiter,
    StoreBack,
    StoreError,
    StoreLost,
    ThrottleException,
    Throttler,
)
from anythrottle.abc import Bucket, Event, Limiter, Policy
from anythrottle.integrations.httpx2 import ThrottledTransport
from anythrottle.stores.redis import RedisRateLimiter, RedisStore
from anythrottle.testing import LimiterConformance
from tests.stores import servers
from tests.stores.pace import WINDOWS, Pace, RedisConformance
from tests.stores.redis_tools import both_backends, fake, until
from tests.stores.servers import HOST, Cluster, Sentinel, Server

#: By when an exchange is to be answered where no test waits for that: machines may be slow.
PATIENT = 20.0

#: The same where it is waited for.
IMPATIENT = 0.5


def run(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run an async function on a loop, for two minutes at most."""

    async def bounded() -> None:
        with anyio.fail_after(120):
            await main()

    anyio.run(bounded, backend=backend)


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        request.getfixturevalue("server").flush()


async def passes(limiter: Limiter, most: int = 20) -> int:
    """
    Return how many calls in a row pass that must not wait for long.

    They may wait for a second answer, because on a slow machine the first may come too late.
    """
    for number in range(most):
        try:
            async with limiter.permit(max_wait=60):
                pass
        except LimitExceeded:
            return number

    return most


async def again(limiter: Limiter) -> None:
    """Take a turn, once the store answers."""
    while True:
        try:
            async with limiter.permit():
                return
        except StoreError:
            await anyio.sleep(0.02)


@asynccontextmanager
async def calling(limiter: Limiter, tasks: int) -> AsyncIterator[list[None]]:
    """Let tasks take turn after turn; yield a list of all that have begun."""
    begun: list[None] = []

    async def call() -> None:
        while True:
            await again(limiter)
            begun.append(None)

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(call)

        yield begun
        group.cancel_scope.cancel()


class Starts:
    """Calls that start, each between two instants."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.spans: list[tuple[float, float]] = []

    async def take(self) -> None:
        before = anyio.current_time()
        async with self._limiter.permit():
            self.spans.append((before, anyio.current_time()))

    def assert_within(self, limit: int, window: float) -> None:
        """Assert that no window has more starts for sure than it may have."""
        for first, _ in self.spans:
            there = sum(first <= a and b < first + window - 1e-4 for a, b in self.spans)
            assert there <= limit, f"{there} of {limit}"


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
    """Each test of the suite is tried with longer windows as long as the machine was too slow."""
    for window in WINDOWS:
        pace = Pace()

        async def main(window: float = window, pace: Pace = pace) -> None:
            store = RedisStore(server.url, deadline=PATIENT)
            async with store, pace.watching(server):
                await getattr(RedisConformance(store, window), name)()

        try:
            run(backend, main)
        except Exception:
            if pace.late < window / 20 or window == WINDOWS[-1]:
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
                    await anyio.sleep(0.01)
                    running -= 1

            async with stores[0], stores[1]:
                limiters = [store.limiter("api", concurrency=2) for store in stores]
                async with anyio.create_task_group() as tasks:
                    for number in range(20):
                        tasks.start_soon(call, limiters[number % 2])

                assert most == 2
                assert (await limiters[0].shared_statistics()).borrowed_tokens == 0

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


async def wait_for_listeners(server: Server, number: int) -> None:
    """Wait until so many connections listen for what the server publishes."""
    await until(
        lambda: len(server.ask("CLIENT", "LIST", "TYPE", "pubsub").split(b"\n")) - 1 >= number
    )


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
                    with anyio.fail_after(60):
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


@both_backends
class TestLostState:
    """A window may be held back, but none has more than it may."""

    window = 2.0

    async def spend(self, server: Server, lose: Callable[[], None]) -> None:
        store = RedisStore(server.url, deadline=IMPATIENT)
        async with store:
            limiter = store.limiter("api", f"3/{self.window}s")
            starts = Starts(limiter)
            for _ in range(3):
                await starts.take()

            await to_thread.run_sync(lose)
            for _ in range(4):
                with anyio.fail_after(60):
                    while True:
                        try:
                            await starts.take()
                        except StoreError:
                            await anyio.sleep(0.05)
                        else:
                            break

            starts.assert_within(3, self.window)

    def test_flush(self, server: Server, backend: str) -> None:
        run(backend, lambda: self.spend(server, server.flush))

    def test_flush_of_all(self, server: Server, backend: str) -> None:
        def lose() -> None:
            server.ask("SCRIPT", "FLUSH")
            server.flush()

        run(backend, lambda: self.spend(server, lose))

    def test_restart_without_data(self, server: Server, backend: str) -> None:
        run(backend, lambda: self.spend(server, server.restart))

    def test_a_user_who_deletes_keys(self, server: Server, backend: str) -> None:
        """Nothing hangs, and nothing stays wrong."""

        def delete() -> None:
            for _ in range(20):
                for key in server.ask("KEYS", "{anythrottle:api}*"):
                    server.ask("DEL", key)

        async def main() -> None:
            async with RedisStore(server.url, deadline=IMPATIENT) as store:
                limiter = store.limiter("api", "50/0.2s", concurrency=20)
                async with calling(limiter, 10) as begun:
                    for _ in range(3):
                        await to_thread.run_sync(delete)
                        before = len(begun)
                        with anyio.fail_after(60):
                            while len(begun) < before + 100:
                                await anyio.sleep(0.01)

                with anyio.fail_after(60):
                    while (await limiter.shared_statistics()).borrowed_tokens:
                        await anyio.sleep(0.05)

        run(backend, main)

    def test_flush_of_scripts_is_not_noticed(self, server: Server, backend: str) -> None:
        events: list[Event] = []

        async def main() -> None:
            async with RedisStore(server.url, deadline=PATIENT) as store:
                limiter = store.limiter("api", "10/h", read_ahead=0, observer=events.append)
                for _ in range(5):
                    assert await passes(limiter, 1) == 1
                    server.ask("SCRIPT", "FLUSH")

                assert await passes(limiter) == 5
                assert store.statistics().failures == 0

        run(backend, main)
        assert not any(isinstance(event, StoreLost) for event in events)


@both_backends
class TestDisturbed:
    def test_a_server_that_stands_still(self, server: Server, backend: str) -> None:
        events: list[Event] = []

        async def main() -> None:
            async with RedisStore(server.url, deadline=IMPATIENT) as store:
                limiter = store.limiter("api", "4/h", read_ahead=0, observer=events.append)
                await again(limiter)
                server.stop()
                try:
                    with pytest.raises(StoreError, match="does not answer"):
                        await limiter.acquire()

                    # told at once, not after a deadline each
                    assert not store.statistics().connected
                    for _ in range(100):
                        with pytest.raises(StoreError, match="does not answer"):
                            await limiter.acquire()
                finally:
                    server.cont()

                await again(limiter)
                # what went wrong is charged once at most, and nothing is lost
                assert await passes(limiter) == 2
                assert store.statistics().failures > 0

        run(backend, main)
        kinds = [type(event) for event in events if isinstance(event, StoreLost | StoreBack)]
        assert kinds[:2] == [StoreLost, StoreBack]

    def test_lost_replies_charge_nothing_twice(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with (
                servers.proxy(server.port) as proxy,
                RedisStore(proxy.url, deadline=PATIENT) as store,
            ):
                limiter = store.limiter("api", "30/h", concurrency=30, read_ahead=0)
                for number in range(25):
                    if number % 5 == 2:
                        proxy.cuts = 2

                    async with limiter.permit():
                        pass

                assert store.statistics().failures > 0
                proxy.cuts = 0
                assert await passes(limiter) == 5
                assert (await limiter.shared_statistics()).borrowed_tokens == 0

        run(backend, main)

    def test_connections_that_are_killed(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                limiters = [store.limiter("api", "60/h", read_ahead=0) for store in stores]
                for number in range(50):
                    if number % 10 == 5:
                        for kind in ("normal", "pubsub"):
                            server.ask("CLIENT", "KILL", "TYPE", kind)

                    async with limiters[number % 2].permit():
                        pass

                assert await passes(limiters[0], 100) == 10

        run(backend, main)

    def test_who_is_cancelled_has_taken_nothing(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with RedisStore(server.url, deadline=PATIENT) as store:
                limiter = store.limiter("api", "20/h", concurrency=20, read_ahead=0)
                begun = 0

                async def call(patience: float) -> None:
                    nonlocal begun
                    with anyio.move_on_after(patience):
                        async with limiter.permit():
                            begun += 1

                async with anyio.create_task_group() as tasks:
                    for number in range(15):
                        tasks.start_soon(call, number / 5000)

                # what they were granted goes back with the next exchange, or to the next call
                for _ in range(20 - begun):
                    async with limiter.permit():
                        pass

                assert await passes(limiter) == 0

        run(backend, main)


@both_backends
class TestOnStoreError:
    @asynccontextmanager
    async def lost(
        self, server: Server, on_store_error: RateLimiter | None
    ) -> AsyncIterator[RedisRateLimiter]:
        """Yield a limiter whose server stands still; let it go on at the end."""
        async with RedisStore(server.url, deadline=IMPATIENT) as store:
            limiter = store.limiter(
                "api", "3/h", on_store_error=on_store_error or "open", read_ahead=0
            )
            while not store.statistics().connected:
                with anyio.move_on_after(0.5):
                    await limiter.peek()

            server.stop()
            try:
                yield limiter
            finally:
                server.cont()

            await until(lambda: store.statistics().connected)
            left = await passes(limiter)
            # one of those that were let through may have been carried out as well
            assert left in (2, 3)

    def test_open(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with self.lost(server, None) as limiter:
                for _ in range(20):
                    async with limiter.permit():
                        pass

        run(backend, main)

    def test_a_limiter(self, server: Server, backend: str) -> None:
        insurance = RateLimiter("4/h")

        async def main() -> None:
            async with self.lost(server, insurance) as limiter:
                for _ in range(4):
                    await limiter.acquire()

                with pytest.raises(LimitExceeded):
                    async with limiter.permit(max_wait=0):
                        pass

        run(backend, main)

    def test_raise_reaches_those_in_line(self, server: Server, backend: str) -> None:
        async def main() -> None:
            errors: list[StoreError] = []

            async def wait(limiter: RedisRateLimiter) -> None:
                with pytest.raises(StoreError) as raised:
                    await limiter.acquire()

                errors.append(raised.value)

            async with RedisStore(server.url, deadline=IMPATIENT) as store:
                # whose renewals find out that nobody answers
                limiter = store.limiter("api", "1/h", lease_timeout=1)
                await again(limiter)
                async with anyio.create_task_group() as tasks:
                    for _ in range(5):
                        tasks.start_soon(wait, limiter)

                    await until(lambda: limiter.statistics().tasks_waiting == 5)
                    await limiter.peek()
                    server.stop()
                    try:
                        await until(lambda: len(errors) == 5)
                    finally:
                        server.cont()

            assert all(error.name == "api" and error.__cause__ for error in errors)

        run(backend, main)


async def refused(url: str, reason: str) -> None:
    """
    Assert that a store at a URL says so of why it does not answer.

    A machine may be so slow that the last attempt before the deadline is cut off by it.
    """
    deadline = IMPATIENT
    while not await says(url, reason, deadline):
        deadline *= 2


async def says(url: str, reason: str, deadline: float) -> bool:
    async with RedisStore(url, deadline=deadline) as store:
        limiter = store.limiter("api", "3/h")
        for call in (limiter.acquire, limiter.acquire, limiter.peek):
            with pytest.raises(StoreError) as raised:
                await call()

            if deadline < 10 and "no answer within" in str(raised.value):
                return False

            assert raised.match(reason)
            assert raised.value.name == "api"
            assert raised.value.__cause__ is not None

        assert store.statistics().last_error is not None

    return True


@both_backends
class TestBadInput:
    def test_a_wrong_password(self, backend: str) -> None:
        with servers.server("valkey", "--requirepass", "abc", url="redis://:abc@{host}") as guarded:
            for url in (guarded.url.replace(":abc@", ":abcd@"), guarded.url.replace(":abc@", "")):
                run(backend, lambda url=url: refused(url, "give the user and password"))  # type: ignore[misc]

            async def main() -> None:
                async with RedisStore(guarded.url, deadline=PATIENT) as store:
                    assert await passes(store.limiter("api", "3/h")) == 3

            run(backend, main)

    def test_nobody(self, backend: str) -> None:
        url = f"redis://{HOST}:{servers.free_port()}"
        run(backend, lambda: refused(url, "see that it runs"))

    def test_another_service(self, backend: str) -> None:
        http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

        async def main() -> None:
            async with fake(http, hello=http) as url:
                await refused(url, "it speaks something else")

        run(backend, main)

    @pytest.mark.parametrize("name", ["", "a b", "a{b", "a}b", "a\nb", "x" * 201])
    def test_names(self, server: Server, name: str, backend: str) -> None:
        store = RedisStore(server.url)
        with pytest.raises(ValueError, match="name must be 1 to 200 printable characters"):
            store.limiter(name, "3/h")

        with pytest.raises(ValueError, match="prefix must be 1 to 200 printable characters"):
            RedisStore(server.url, prefix=name)

        async def main() -> None:
            with pytest.raises(ValueError, match="name must be"):
                await store.forget(name)

        run(backend, main)

    @pytest.mark.parametrize("name", ["a:b/c?d=e", "ä€😀", "*[x]", "x" * 200])
    def test_names_that_are_good(self, server: Server, name: str, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, prefix=name, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                one, two = (store.limiter(name, "3/h", concurrency=3) for store in stores)
                async with two.permit(), one.permit():
                    await wait_for_listeners(server, 2)
                    one.pause(inf)
                    await until(lambda: two.statistics().paused_for == inf)
                    one.resume()
                    await until(lambda: two.statistics().paused_for == 0)

                assert await passes(one) == 1

        run(backend, main)

    def test_other_policies_at_the_first_exchange(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                ours = stores[0].limiter("api", "3/h", read_ahead=0)
                theirs = stores[1].limiter("api", "4/h")
                await ours.acquire()
                errors: list[PolicyConflict] = []

                async def wait() -> None:
                    with pytest.raises(PolicyConflict, match="in use with other policies") as said:
                        await theirs.acquire()

                    errors.append(said.value)

                async with anyio.create_task_group() as tasks:
                    for _ in range(5):
                        tasks.start_soon(wait)

                assert len(errors) == 5
                assert all(error.name == "api" for error in errors)
                assert errors[0].ours != errors[0].theirs
                # who was there first is none the worse for it
                assert await passes(ours) == 2

        run(backend, main)

    def test_other_policies_while_calls_are_in_line(self, server: Server, backend: str) -> None:
        async def main() -> None:
            stores = [RedisStore(server.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                # whose renewals find out
                ours = stores[0].limiter("api", "1/h", lease_timeout=1)
                await ours.acquire()
                errors: list[PolicyConflict] = []

                async def wait() -> None:
                    with pytest.raises(PolicyConflict) as said:
                        await ours.acquire()

                    errors.append(said.value)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)
                    await until(lambda: ours.statistics().tasks_waiting == 1)
                    await ours.peek()
                    theirs = stores[1].limiter("api", "4/h")
                    while not errors:
                        server.flush()
                        with anyio.move_on_after(1):
                            try:
                                await theirs.peek()
                            except PolicyConflict:
                                continue

                            await until(lambda: errors)

        run(backend, main)

    def test_a_policy_of_one_s_own(self, server: Server, backend: str) -> None:
        class Mine(Policy):
            limit = 3
            window = 1.0
            unit = "calls"

            holds = False

            def bucket(self) -> Bucket:
                raise NotImplementedError

        with pytest.raises(TypeError, match="WindowTokenBucket, TokenBucket and FixedWindow"):
            RedisStore(server.url).limiter("api", Mine())

    def test_a_store_that_was_not_entered(self, server: Server, backend: str) -> None:
        store = RedisStore(server.url, deadline=PATIENT)
        limiter = store.limiter("api", "3/h")

        async def main() -> None:
            for _ in range(2):
                for call in (limiter.acquire, limiter.peek, lambda: store.forget("api")):
                    with pytest.raises(RuntimeError, match="async with store"):
                        await call()

                with pytest.raises(RuntimeError, match="async with store"):
                    async with limiter:
                        pass

                async with store:
                    await limiter.acquire()
                    with pytest.raises(RuntimeError, match="entered already"):
                        await store.__aenter__()

        run(backend, main)

    def test_who_waits_when_the_store_is_left(self, server: Server, backend: str) -> None:
        async def main() -> None:
            store = RedisStore(server.url, deadline=PATIENT)
            limiter = store.limiter("api", "1/h")
            errors: list[StoreError] = []

            async def wait() -> None:
                with pytest.raises(StoreError, match="was left") as said:
                    await limiter.acquire()

                errors.append(said.value)

            async with anyio.create_task_group() as tasks, store:
                await limiter.acquire()
                tasks.start_soon(wait)
                await until(lambda: limiter.statistics().tasks_waiting == 1)

            assert len(errors) == 1

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
                        one, two = (store.limiter(name, "3/h", concurrency=3) for store in stores)
                        async with two.permit(), one.permit():
                            # where the other one hears of it by a push alone
                            before = stores[1].statistics().exchanges
                            await self.hears(one, two)
                            assert stores[1].statistics().exchanges <= before + 1

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
                limiter = store.limiter("api", "3/2s")
                starts = Starts(limiter)
                await again(limiter)
                await anyio.sleep(2)
                for number in range(7):
                    if number == 3:
                        await to_thread.run_sync(sentinel.fail_over)

                    while True:
                        try:
                            await starts.take()
                        except StoreError:
                            await anyio.sleep(0.05)
                        else:
                            break

                starts.assert_within(3, 2)
                assert sentinel.replica.ask("EXISTS", "{anythrottle:api}") == 1

        with servers.sentinel("valkey") as sentinel:
            run(backend, lambda: main(sentinel))

    def test_tls(self, tls: Server, backend: str) -> None:
        tls.flush()

        async def main() -> None:
            stores = [RedisStore(tls.url, deadline=PATIENT) for _ in range(2)]
            async with stores[0], stores[1]:
                one, two = (store.limiter("api", "4/h", read_ahead=0) for store in stores)
                assert await passes(one, 3) == 3
                assert await passes(two) == 1

        run(backend, main)
