"""What cannot work is said clearly, by stores on real servers."""

from __future__ import annotations

from math import inf

import anyio
import pytest

from anythrottle import (
    PolicyConflict,
    RateLimiter,
    StoreError,
)
from anythrottle.abc import Bucket, Policy
from anythrottle.stores.redis import RedisStore
from tests.stores import servers
from tests.stores.redis_tools import HELLO, both_backends, fake, run, until
from tests.stores.servers import HOST, Server
from tests.stores.store_tools import (
    IMPATIENT,
    PATIENT,
    again,
    passes,
    wait_for_listeners,
)


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


async def refused_at_once(url: str, reason: str, prefix: str = "anythrottle") -> None:
    """Assert that a store at a URL says so at once, whatever is to happen while it is away."""
    for choice in ("raise", "open", RateLimiter()):
        async with RedisStore(url, prefix=prefix, deadline=PATIENT) as store:
            limiter = store.limiter("api", "3/h", on_store_error=choice)
            with anyio.fail_after(PATIENT / 2):
                for call in (limiter.acquire, limiter.__aenter__, limiter.acquire, limiter.peek):
                    with pytest.raises(StoreError, match=reason) as raised:
                        await call()

                    assert raised.value.is_mistake
                    assert str(raised.value).count("does not serve") == 1
                    assert isinstance(raised.value.__cause__, Exception)


#: All that a user needs, as "Rights" in docs/howto/redis-in-production.md has it.
RIGHTS = """
    +hello +auth +select +ping +evalsha +script|load +unlink +ssubscribe +sunsubscribe
    +time +del +hget +hmget +hset +hdel +hlen +hvals +pexpire
    +zadd +zrem +zrange +zrangebyscore +zcard +zscore +zrank +spublish
"""


@both_backends
class TestBadInput:
    def test_a_wrong_password(self, backend: str) -> None:
        with servers.server("valkey", "--requirepass", "abc", url="redis://:abc@{host}") as guarded:
            for wrong in (":abcd@", "", "nobody:abc@"):
                url = guarded.url.replace(":abc@", wrong)
                run(backend, lambda url=url: refused_at_once(url, "give the user and password"))  # type: ignore[misc]

            async def main() -> None:
                async with RedisStore(guarded.url, deadline=PATIENT) as store:
                    assert await passes(store.limiter("api", "3/h")) == 3

            run(backend, main)

    def test_a_password_that_is_mended(self, backend: str) -> None:
        with servers.server("valkey") as server:
            server.ask("ACL", "SETUSER", "app", "on", ">new", "~*", "&*", "+@all")

            async def main() -> None:
                url = server.url.replace("//", "//app:old@")
                async with RedisStore(url, deadline=PATIENT) as store:
                    limiter = store.limiter("api", "3/h", on_store_error="open")
                    with pytest.raises(StoreError, match="give the user and password"):
                        await limiter.acquire()

                    server.ask("ACL", "SETUSER", "app", ">old")
                    await again(limiter)
                    assert await passes(limiter) == 2

            run(backend, main)

    def test_a_database_that_is_not_there(self, server: Server, backend: str) -> None:
        run(backend, lambda: refused_at_once(server.url + "/99", "out of range; take a database"))

    @pytest.mark.parametrize(
        ("without", "prefix"), [("+evalsha", "mine"), ("+hset", "mine"), ("", "other")]
    )
    def test_rights(self, server: Server, without: str, prefix: str, backend: str) -> None:
        rights = [right for right in RIGHTS.split() if right != without]
        limits = ("resetkeys", "~{mine:*}*", "resetchannels", "&{mine:*}*", "-@all")
        server.ask("ACL", "SETUSER", "app", "on", ">pw", *limits, *rights)
        url = server.url.replace("//", "//app:pw@")
        wanted = rf"~{{{prefix}:\*}}\* and the channels &{{{prefix}:\*}}\*: see .*in-production"
        try:
            run(backend, lambda: refused_at_once(url, wanted, prefix))
        finally:
            server.ask("ACL", "DELUSER", "app")

    @pytest.mark.parametrize(
        "hello", [b"+OK ready\r\n", b"*1\r\n:1\r\n", b"%0\r\n", b"220 hello\r\n"]
    )
    def test_what_does_not_understand(self, hello: bytes, backend: str) -> None:
        async def main() -> None:
            async with fake(hello, hello=hello) as url:
                await refused_at_once(
                    url, "'api': it speaks something else; it is no Redis or Valkey"
                )

        run(backend, main)

    def test_too_old_a_server(self, backend: str) -> None:
        async def main() -> None:
            for hello, said in (
                (HELLO.replace(b"7.0.15", b"6.2.14"), r"6\.2\.14, which has no SPUBLISH; take"),
                (b"-ERR unknown command `HELLO`, with args\r\n", "`HELLO`; take Redis 7 or"),
            ):
                async with fake(b"+OK\r\n", hello=hello) as url:
                    await refused_at_once(url, said)

        run(backend, main)

    def test_tls_on_one_side_alone(self, tls: Server, server: Server, backend: str) -> None:
        hint = "the URL begins with rediss://, or none does"
        plain = f"redis://{HOST}:{tls.port}"
        run(backend, lambda: refused(plain, f"closed the connection without an answer.*{hint}"))

        async def main() -> None:
            async with RedisStore(f"rediss://{HOST}:{server.port}", deadline=IMPATIENT) as store:
                said = ""
                while hint not in said:
                    with pytest.raises(StoreError, match="no answer within") as raised:
                        await store.limiter("api", "3/h").acquire()

                    said = str(raised.value)
                    assert not raised.value.is_mistake
                    await anyio.sleep(0.01)

            async with fake(b"", hello=b"-ERR Protocol error\r\n") as url:
                secured = url.replace("redis:", "rediss:")
                await refused_at_once(secured, f"it does not speak TLS; .*{hint}")

        run(backend, main)

    def test_a_certificate_of_others(self, tls: Server, backend: str) -> None:
        url = tls.url.partition("?")[0]
        run(backend, lambda: refused_at_once(url, "CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs"))

    def test_nobody(self, backend: str) -> None:
        url = f"redis://{HOST}:{servers.free_port()}"
        run(backend, lambda: refused(url, "see that it runs"))

    def test_another_service(self, backend: str) -> None:
        http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

        async def main() -> None:
            async with fake(http, hello=http) as url:
                await refused_at_once(url, "it speaks something else")

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
