"""Exchanges with real servers: what is answered, and what is said when nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import coredis
import pytest
import valkey.asyncio
from coredis.connection import TCPLocation

from anythrottle import StoreError
from anythrottle.stores import lua, redis_server
from anythrottle.stores.redis_server import RedisServer, script_of_package
from anythrottle.stores.redis_urls import redis_url
from tests.stores import servers
from tests.stores.redis_tools import (
    HELLO,
    SCRIPT,
    again,
    both_backends,
    calls,
    fake,
    request,
    run,
    store,
    until,
)
from tests.stores.servers import HOST, Sentinel, Server


def clients(server: Server) -> list[str]:
    """Return what the server says of each of its clients."""
    lines: list[str] = server.ask("CLIENT", "LIST").decode().splitlines()
    return lines


@both_backends
class TestExchange:
    def test_is_one_call_of_the_script(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with store(server.url) as entered:
                assert await calls(entered) == 1
                assert (await entered.exchange("api", request("n7"))).news.epoch == "n7"
                assert await calls(entered, "other") == 1

        run(backend, main)
        assert server.ask("HGET", "{test:api}", "calls") == b"2"

    def test_loads_the_script_where_it_is_missing(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with store(server.url) as entered:
                for number in range(1, 4):
                    server.ask("SCRIPT", "FLUSH")
                    assert await calls(entered) == number

                assert server.ask("SCRIPT", "EXISTS", SCRIPT.sha) == [1]

        run(backend, main)

    def test_goes_on_after_a_restart(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with store(server.url) as entered:
                assert await calls(entered) == 1
                server.restart()
                assert (await again(entered)).news.now == 1

        run(backend, main)

    def test_many_at_once_share_a_connection(self, server: Server, backend: str) -> None:
        async def main() -> None:
            before = len(clients(server))
            async with store(server.url) as entered, anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(calls, entered, f"api{number % 2}")

                await calls(entered, "last")
                assert len(clients(server)) == before + 1

        run(backend, main)
        assert server.ask("HGET", "{test:api1}", "calls") == b"10"

    def test_keeps_its_connection_beyond_the_deadline(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with store(server.url, deadline=0.2) as entered:
                await calls(entered)
                before = {client.split()[0] for client in clients(server)}
                await anyio.sleep(0.4)
                await calls(entered)
                assert len(before & {client.split()[0] for client in clients(server)}) == 1

        run(backend, main)

    def test_may_be_cancelled(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with servers.proxy(server.port) as proxy, store(proxy.url) as entered:
                assert await calls(entered) == 1
                proxy.stall()
                with anyio.move_on_after(0.1) as scope:
                    await calls(entered)

                assert scope.cancelled_caught
                proxy.flow()
                assert await calls(entered) == 3

        run(backend, main)

    def test_that_is_cancelled_leaves_the_connection_to_others(
        self, server: Server, backend: str
    ) -> None:
        async def main() -> None:
            counts: list[int] = []

            async def wait(entered: RedisServer) -> None:
                counts.append(await calls(entered))

            async with servers.proxy(server.port) as proxy, store(proxy.url) as entered:
                assert await calls(entered) == 1
                before = {client.split()[0] for client in clients(server)}
                proxy.stall()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait, entered)
                    with anyio.move_on_after(0.1) as scope:
                        await calls(entered)

                    assert scope.cancelled_caught
                    proxy.flow()

                assert await calls(entered) == 4
                assert len(before & {client.split()[0] for client in clients(server)}) == 1

            assert len(counts) == 1

        run(backend, main)

    def test_gives_up_a_connection_that_is_silent(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with (
                servers.proxy(server.port) as proxy,
                store(proxy.url, deadline=1.0) as entered,
            ):
                assert await calls(entered) == 1
                proxy.forsake()
                with pytest.raises(StoreError, match="no answer within 1 s; see that it is no"):
                    await calls(entered)

                assert await calls(entered) == 3

        run(backend, main)

    def test_that_may_not_write_gives_up_its_connection(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with store(server.url) as entered:
                assert await calls(entered) == 1
                before = len(clients(server))
                server.ask("REPLICAOF", HOST, servers.free_port())
                with pytest.raises(StoreError, match="ask the primary, not a replica"):
                    await calls(entered)

                await until(lambda: len(clients(server)) == before - 1)
                server.ask("REPLICAOF", "NO", "ONE")
                assert await calls(entered) == 2

        run(backend, main)

    def test_may_be_cancelled_while_it_connects(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with servers.proxy(server.port) as proxy, store(proxy.url) as entered:
                proxy.stall()
                for _ in range(3):
                    with anyio.move_on_after(0.05):
                        await calls(entered)

                proxy.flow()
                assert await calls(entered) == 1

        run(backend, main)

    def test_goes_on_after_a_server_stood_still(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with store(server.url, deadline=0.2) as entered:
                assert await calls(entered) == 1
                server.stop()
                with anyio.move_on_after(0.1) as scope:
                    await calls(entered)

                assert scope.cancelled_caught
                with pytest.raises(StoreError, match="not overloaded"):
                    await calls(entered)

                server.cont()
                assert (await again(entered)).news.now in (2, 3, 4)

        run(backend, main)

    def test_whose_answer_is_lost_fails(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with servers.proxy(server.port) as proxy, store(proxy.url) as entered:
                assert await calls(entered) == 1
                proxy.cuts = 1
                with pytest.raises(StoreError, match=r"onnection lost.*see that it runs"):
                    await calls(entered)

                assert await calls(entered) == 3

        run(backend, main)

    def test_is_cancelled_when_the_server_is_left(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with (
                servers.proxy(server.port) as proxy,
                anyio.create_task_group() as tasks,
                store(proxy.url) as entered,
            ):
                proxy.stall()
                tasks.start_soon(fails, entered)
                await anyio.sleep(0.05)

        async def fails(entered: RedisServer) -> None:
            with pytest.raises(StoreError, match="see that it runs"):
                await calls(entered)

        run(backend, main)


@both_backends
class TestForget:
    def test_deletes_all_of_a_name(self, server: Server, backend: str) -> None:
        keys = ["{test:api}" + part for part in ("", ":w0", ":w15", ":n", ":q", ":a", ":h", ":s")]

        async def main() -> None:
            for key in [*keys, "{test:other}"]:
                server.ask("SET", key, "x")

            async with store(server.url) as entered:
                await entered.forget("api")

        run(backend, main)
        assert server.ask("KEYS", "*") == [b"{test:other}"]

    def test_that_fails_says_so(self, backend: str) -> None:
        async def main() -> None:
            async with store(f"redis://{HOST}:{servers.free_port()}") as entered:
                with pytest.raises(StoreError, match="see that it runs"):
                    await entered.forget("api")

        run(backend, main)


@both_backends
class TestEntering:
    def test_touches_no_network(self, backend: str) -> None:
        async def main() -> None:
            async with store(f"redis://{HOST}:1"):
                await anyio.sleep(0.01)

        run(backend, main)

    def test_can_be_done_again(self, server: Server, backend: str) -> None:
        one = store(server.url)

        async def main() -> None:
            async with one as entered:
                await calls(entered)

        run(backend, main)
        run(backend, main)
        assert server.ask("HGET", "{test:api}", "calls") == b"2"

    def test_twice_at_once_is_an_error(self, server: Server, backend: str) -> None:
        async def main() -> None:
            one = store(server.url)
            async with one:
                with pytest.raises(RuntimeError, match="already been entered"):
                    async with one:
                        pass  # pragma: no cover

                await calls(one)

        run(backend, main)

    def test_is_needed(self, server: Server, backend: str) -> None:
        async def main() -> None:
            one = store(server.url)
            with pytest.raises(RuntimeError, match="inside of `async with store:`"):
                await calls(one)

            with pytest.raises(RuntimeError, match="inside of `async with store:`"):
                await one.forget("api")

            with pytest.raises(RuntimeError, match="inside of `async with store:`"):
                async with one.listen("api", "node", print, print):
                    pass

        run(backend, main)

    def test_does_not_wrap_errors(self, server: Server, backend: str) -> None:
        async def main() -> None:
            async with store(server.url) as entered:
                await calls(entered)
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            run(backend, main)


@both_backends
class TestClient:
    def test_is_left_alone(self, server: Server, backend: str) -> None:
        async def main() -> None:
            client = coredis.Redis(HOST, server.port, max_connections=1, noreply=True)
            async with client:
                async with store(client) as entered:
                    for number in range(1, 4):
                        assert await calls(entered) == number

                async with store(client) as entered:
                    assert await calls(entered) == 4

                await client.set("mine", 1)

                assert client.connection_pool.connection_kwargs["noreply"] is True

        run(backend, main)

    def test_settings_are_used(self, server: Server, backend: str) -> None:
        async def main() -> None:
            client = coredis.Redis(HOST, server.port, db=3, client_name="ours")
            async with client, store(client) as entered:
                await calls(entered)
                assert sum(" name=ours " in client for client in clients(server)) == 1

        run(backend, main)
        assert server.ask("EXISTS", "{test:api}") == 0

    def test_of_a_sentinel_follows_the_primary(self, backend: str) -> None:
        async def main(sentinel: Sentinel) -> None:
            places = [TCPLocation(HOST, sentinel.sentinel.port)]
            async with (
                coredis.Sentinel(places) as manager,
                manager.primary_for("main") as client,
                store(client, deadline=0.5) as entered,
            ):
                assert await calls(entered) == 1
                assert sentinel.primary.ask("HGET", "{test:api}", "calls") == b"1"
                sentinel.fail_over()
                await again(entered)

        with servers.sentinel("valkey") as sentinel:
            run(backend, lambda: main(sentinel))
            assert int(sentinel.replica.ask("HGET", "{test:api}", "calls")) >= 1

    def test_of_a_sentinel_that_knows_no_such_name(self, sentinel: Sentinel, backend: str) -> None:
        async def main() -> None:
            places = [TCPLocation(HOST, sentinel.sentinel.port)]
            async with (
                coredis.Sentinel(places) as manager,
                manager.primary_for("other") as client,
                store(client) as entered,
            ):
                with pytest.raises(StoreError, match=r"'other'; see that a Sentinel runs"):
                    await calls(entered)

        run(backend, main)


@both_backends
class TestTls:
    def test(self, tls: Server, backend: str) -> None:
        async def main() -> None:
            async with store(tls.url) as entered:
                await calls(entered)

        run(backend, main)
        assert int(tls.ask("HGET", "{test:api}", "calls")) >= 1

    def test_the_name_must_be_that_of_the_certificate(self, tls: Server, backend: str) -> None:
        url = tls.url.replace(HOST, "localhost")

        async def main() -> None:
            async with store(url) as entered:
                with pytest.raises(StoreError, match="certificate is not valid for 'localhost'"):
                    await calls(entered)

            async with store(url + "&ssl_check_hostname=false") as entered:
                await calls(entered)

        run(backend, main)


ERRORS = {
    "LOADING Redis is loading the dataset in memory": "try again when that is done",
    "READONLY You can't write against a read only replica.": "ask the primary",
    "OOM command not allowed when used memory > 'maxmemory'.": "its memory is full",
    "NOAUTH Authentication required.": "'api': it asks for a password; give the user and password",
    "WRONGPASS invalid username-password pair": "give the user and password",
    "NOPERM this user has no permissions to run the 'evalsha' command": "~{test:.*&{test:.*in-prod",
    "ERR The user executing the script can't access at least one of the keys mentioned in the "
    "command arguments script: 00a17a6f, on @user_script:119.": "mentioned in the command "
    "arguments; let the user do",
    "ERR ACL failure in script: No permissions to access a key script: on @user_script:119.": (
        "'api': ACL failure in script: No permissions to access a key; let the user do"
    ),
    "ERR DB index is out of range": "'api': DB index is out of range; take a database",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "take another prefix",
    "DENIED Redis is running in protected mode because. Long story": (
        "'api': it is in protected mode; set a password"
    ),
    "ERR max number of clients reached": "reached; let it take more clients$",
    "ERR Unknown Redis command called from script": "whose scripts may use all",
    "NOPROTO unsupported protocol version": "version; take Redis 7",
    "BUSY Redis is busy running a script.": "a script$",
    "CLUSTERDOWN The cluster is down": "The cluster is down$",
    "MASTERDOWN Link with MASTER is down": "Link with MASTER is down$",
    "MISCONF Redis is configured to save snapshots": "save snapshots$",
    "NOREPLICAS Not enough good replicas to write.": "good replicas to write$",
    "TRYAGAIN Multiple keys request during rehashing of slot": "rehashing of slot$",
    "MOVED 5 127.0.0.1:7000": "'api': the server is one of a cluster; pass a coredis.RedisCluster",
    "ERR unknown command 'EVALSHA', with args beginning with: '1' '2'": (
        "'api': unknown command 'EVALSHA'; take Redis 7 or later"
    ),
    "ERR no idea": "no idea$",
}

#: What of these may pass by itself, by their first words.
PASSING = (
    *("LOADING", "READONLY", "OOM", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS"),
    *("TRYAGAIN", "ERR max", "ERR no idea"),
)


@both_backends
def test_a_unix_socket(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with store(f"unix://{tmp_path}/socket?db=1") as entered:
            assert await calls(entered) == 1

    with servers.server("redis", "--unixsocket", f"{tmp_path}/socket") as server:
        run(backend, main)
        assert server.ask("DBSIZE") == 0


@both_backends
class TestErrors:
    @pytest.mark.parametrize("said", ERRORS)
    def test_say_what_to_do(self, said: str, backend: str) -> None:
        async def main() -> None:
            async with fake(f"-{said}\r\n".encode()) as url, store(url) as entered:
                for _ in range(2):
                    with pytest.raises(StoreError, match=ERRORS[said]) as raised:
                        await calls(entered)

                    assert raised.value.name == "api"
                    assert raised.value.__cause__ is not None
                    assert raised.value.is_mistake != (said.startswith(PASSING))

        run(backend, main)

    def test_at_an_error_of_the_handshake(self, backend: str) -> None:
        async def main() -> None:
            answer = b"-WRONGPASS invalid username-password pair\r\n"
            async with fake(answer, hello=answer) as url, store(url) as entered:
                with pytest.raises(
                    StoreError, match=r"invalid username.*give the user and password"
                ):
                    await calls(entered)

        run(backend, main)

    def test_nobody_there(self, backend: str) -> None:
        async def main() -> None:
            async with store(f"redis://{HOST}:{servers.free_port()}") as entered:
                with pytest.raises(StoreError, match="see that it runs, and is Redis 7"):
                    await calls(entered)

        run(backend, main)

    def test_another_kind_of_server(self, backend: str) -> None:
        async def main() -> None:
            http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
            async with fake(http, hello=http) as url, store(url) as entered:
                with pytest.raises(StoreError, match="it speaks something else"):
                    await calls(entered)

        run(backend, main)

    def test_an_old_server(self, backend: str) -> None:
        async def main() -> None:
            hello = HELLO.replace(b"7.0.15", b"6.2.14")
            async with fake(b"+OK\r\n", hello=hello) as url, store(url) as entered:
                for _ in range(2):
                    with pytest.raises(StoreError, match=r"Redis 6\.2\.14, which has no SPUBLISH"):
                        await calls(entered)

        run(backend, main)

    def test_a_server_that_says_nothing(self, backend: str) -> None:
        async def main() -> None:
            async with fake(b"", hello=b"") as url, store(url, deadline=0.1) as entered:
                with pytest.raises(
                    StoreError, match="see that it is a Redis or Valkey, and not overloaded"
                ):
                    await calls(entered)

        run(backend, main)

    def test_a_script_never_at_home(self, backend: str) -> None:
        async def main() -> None:
            answers = (b"-NOSCRIPT No matching script.\r\n", b"+OK\r\n")
            async with fake(*answers) as url, store(url) as entered:
                with pytest.raises(StoreError, match="No matching script"):
                    await calls(entered)

        run(backend, main)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with servers.server("valkey", "--requirepass", "a/b", url="redis://:a%2Fb@{host}") as guarded:
        yield guarded


class TestPassword:
    @both_backends
    def test_in_the_url(self, guarded: Server, backend: str) -> None:
        async def main() -> None:
            async with store(guarded.url) as entered:
                await calls(entered)

            for wrong in ("", ":wrong@"):
                async with store(guarded.url.replace(":a%2Fb@", wrong)) as entered:
                    with pytest.raises(StoreError, match="give the user and password"):
                        await calls(entered)

        run(backend, main)


class TestConstructing:
    @pytest.mark.parametrize(
        ("url", "taken"),
        [
            ("redis://localhost", "redis://localhost"),
            ("redis://u:p@h:1/2?db=3", "redis://u:p@h:1/2?db=3"),
            ("redis://h/", "redis://h/"),
            ("valkey://h:1/2", "redis://h:1/2"),
            ("rediss://h", "rediss://h?ssl_check_hostname=true"),
            ("valkeys://h?db=1", "rediss://h?db=1&ssl_check_hostname=true"),
            ("rediss://h?ssl_cert_reqs=none", "rediss://h?ssl_cert_reqs=none"),
            ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ],
    )
    def test_url(self, url: str, taken: str) -> None:
        assert redis_url(url) == taken

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("http://:secret@h", "begins with one of redis, rediss, unix, valkey, valkeys"),
            ("localhost:6379", "begins with one of"),
            ("redis://:secret@", "with a host"),
            ("redis://:secret@h:a", "a port from 0 to 65535"),
            ("redis://:secret@h:99999", "a port from 0 to 65535"),
            ("redis://:secret@h/x", "a number for a path, not '/x'"),
            ("unix://", "with a path"),
        ],
    )
    def test_url_that_makes_no_sense(self, url: str, said: str) -> None:
        with pytest.raises(ValueError, match=said) as raised:
            store(url)

        assert str(raised.value).startswith("server must be a URL")
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize("other", [valkey.asyncio.Valkey(), coredis.Redis, 5.0])
    def test_a_client_of_others(self, other: Any) -> None:
        with pytest.raises(
            TypeError, match=r"must be a URL or a client of coredis \(coredis.Redis"
        ):
            store(other)

    def test_something_else(self) -> None:
        with pytest.raises(TypeError, match=r"a client of coredis .*, not 5"):
            store(5)  # type: ignore[arg-type]


class TestScript:
    def test_is_the_package_s(self) -> None:
        assert script_of_package().text == lua.script()
        assert len(script_of_package().sha) == 40

    def test_of_the_package_is_taken(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_server, "script_of_package", lambda: SCRIPT)

        async def main() -> None:
            async with RedisServer(server.url, "test", 1.0) as entered:
                assert await calls(entered) == 1

        anyio.run(main)
