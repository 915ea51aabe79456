"""What cannot work is said clearly, by stores on real servers."""

from __future__ import annotations

from math import inf

import anyio
import pytest

from anythrottle import (
    PolicyConflict,
    StoreError,
)
from anythrottle.abc import Bucket, Policy
from anythrottle.stores.redis import RedisStore
from tests.stores import servers
from tests.stores.redis_tools import both_backends, fake, until
from tests.stores.servers import HOST, Server
from tests.stores.store_tools import (
    IMPATIENT,
    PATIENT,
    passes,
    run,
    wait_for_listeners,
)


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        request.getfixturevalue("server").flush()


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
