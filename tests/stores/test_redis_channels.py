"""What servers publish is heard, and heard again after whatever happened to the connection."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import anyio
import coredis
import pytest

from anythrottle.stores import redis_channels
from anythrottle.stores.exchange import Push
from tests.stores import servers
from tests.stores.redis_tools import PUSH, Heard, both_backends, calls, fake, run, store, until
from tests.stores.servers import HOST, Server

MINE, ALL = "{test:api}:n:node", "{test:api}:all"


def subscribers(server: Server, channel: str = MINE) -> int:
    return int(server.ask("PUBSUB", "SHARDNUMSUB", channel)[1])


def listeners(server: Server) -> int:
    """Return how many connections listen."""
    clients = server.ask("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines()
    return sum("name=doctor" not in client for client in clients)


@pytest.fixture
def warned() -> Iterator[list[str]]:
    warned = list[str]()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("anythrottle")
    logger.addHandler(handler)
    yield warned
    logger.removeHandler(handler)


@both_backends
class TestListening:
    def test_hears_what_is_for_the_process_and_for_all(self, server: Server, backend: str) -> None:
        async def main() -> None:
            heard = Heard()
            async with (
                store(server.url) as entered,
                entered.listen("api", "node", heard.append, print),
            ):
                await heard.hears(server, MINE)
                await heard.hears(server, ALL)

            assert {push.node for push in heard} == {"node", ""}
            assert heard[0].news.epoch == "epoch"
            assert heard[0].news.paused_until == 0

        run(backend, main)

    def test_hears_what_is_for_it_alone(self, server: Server, backend: str) -> None:
        async def main() -> None:
            one, two, other = Heard(), Heard(), Heard()
            async with (
                store(server.url) as entered,
                entered.listen("api", "node", one.append, print),
                entered.listen("api", "two", two.append, print),
                entered.listen("other", "node", other.append, print),
            ):
                await one.hears(server, MINE)
                assert not two
                assert not other
                assert listeners(server) == 1
                await two.hears(server, ALL)
                assert not other
                await other.hears(server, "{test:other}:all")

            assert len(one) > len(two)

        run(backend, main)

    def test_ends(self, server: Server, backend: str) -> None:
        async def main() -> None:
            heard = Heard()
            async with store(server.url) as entered:
                async with entered.listen("other", "node", print, print):
                    async with entered.listen("api", "node", heard.append, print):
                        await heard.hears(server, MINE)

                    await until(lambda: subscribers(server) == 0)
                    assert listeners(server) == 1

                await until(lambda: listeners(server) == 0)
                async with entered.listen("api", "node", heard.append, print):
                    await heard.hears(server, MINE)

            await until(lambda: listeners(server) == 0)

        run(backend, main)

    def test_of_two_may_end_for_one(self, server: Server, backend: str) -> None:
        async def main() -> None:
            one, two = Heard(), Heard()
            async with (
                store(server.url) as entered,
                entered.listen("api", "node", one.append, print),
            ):
                async with entered.listen("api", "node", two.append, print):
                    await two.hears(server, MINE)

                count = len(two)
                await one.hears(server, MINE)
                assert len(two) == count

        run(backend, main)

    def test_ends_and_begins_at_once(self, server: Server, backend: str) -> None:
        async def main() -> None:
            heard = Heard()
            async with (
                store(server.url) as entered,
                entered.listen("other", "node", print, print),
            ):
                for _ in range(5):
                    async with entered.listen("api", "node", heard.append, print):
                        await until(lambda: subscribers(server) == 1)

                    await anyio.sleep(0)

                async with entered.listen("api", "node", heard.append, print):
                    await heard.hears(server, MINE)

        run(backend, main)

    def test_drops_what_makes_no_sense(
        self, server: Server, backend: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            heard = Heard()
            async with (
                store(server.url) as entered,
                entered.listen("api", "node", heard.append, print),
            ):
                await heard.hears(server, MINE)
                for nonsense in ("", "0", "0 epoch x", b"\xff", "0 epoch 1 0 0 0 0 0 1 1"):
                    server.ask("SPUBLISH", MINE, nonsense)

                await heard.hears(server, MINE)
                assert {push.news.epoch for push in heard} == {"epoch"}
                assert listeners(server) == 1

        run(backend, main)
        told = [message for message in caplog.messages if "makes no sense" in message]
        assert len(told) == 5

    def test_does_not_swallow_errors(self, server: Server, backend: str) -> None:
        def fail(push: Push) -> None:
            raise LookupError(push.node)

        async def main() -> None:
            async with (
                store(server.url) as entered,
                entered.listen("api", "node", fail, print),
            ):
                while True:
                    server.ask("SPUBLISH", MINE, PUSH.format(until=0))
                    await anyio.sleep(0.01)

        with pytest.raises(ExceptionGroup) as raised:
            run(backend, main)

        assert raised.group_contains(LookupError, match="node")


@both_backends
class TestReconnecting:
    def test_after_a_kill(self, server: Server, backend: str, warned: list[str]) -> None:
        async def main() -> None:
            client = coredis.Redis(HOST, server.port, max_connections=1)
            heard = Heard()
            async with (
                client,
                store(client) as entered,
                entered.listen("api", "node", heard.append, print),
            ):
                for _ in range(3):
                    await heard.hears(server, MINE)
                    assert server.ask("CLIENT", "KILL", "TYPE", "pubsub") == 1

                await heard.hears(server, ALL)
                await client.ping()

        run(backend, main)
        assert "trying again: ConnectionError" in warned[0]

    def test_after_a_restart(self, server: Server, backend: str, warned: list[str]) -> None:
        async def main() -> None:
            heard = Heard()
            async with (
                store(server.url) as entered,
                entered.listen("api", "node", heard.append, print),
            ):
                await heard.hears(server, MINE)
                server.kill()
                await anyio.sleep(0.4)
                server.start()
                await heard.hears(server, ALL)

        run(backend, main)
        assert any("Unable to establish" in message for message in warned)
        assert len(warned) <= 3

    def test_begins_before_the_server(self, backend: str) -> None:
        async def main() -> None:
            heard = Heard()
            with servers.server("valkey") as late:
                late.kill()
                async with (
                    store(late.url) as entered,
                    entered.listen("api", "node", heard.append, print),
                ):
                    await anyio.sleep(0.1)
                    late.start()
                    await heard.hears(late, MINE)

        run(backend, main)

    def test_waits_longer_each_time_but_not_after_a_while(
        self, server: Server, backend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delays = list[float]()

        async def main() -> None:
            sleep = anyio.sleep

            async def note(delay: float) -> None:
                delays.append(delay)
                await sleep(0)

            heard = Heard()
            async with (
                store(server.url) as entered,
                entered.listen("api", "node", heard.append, print),
            ):
                await heard.hears(server, MINE)
                monkeypatch.setattr(anyio, "sleep", note)
                for _ in range(6):
                    server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                    count = len(delays)
                    while len(delays) == count or not subscribers(server):
                        await sleep(0.01)

                monkeypatch.setattr(redis_channels, "_LAST_DELAY", 0.0)
                server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                while len(delays) < 7:
                    await sleep(0.01)

                monkeypatch.undo()

        run(backend, main)
        assert delays[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 0.05]

    def test_if_a_subscription_is_refused(
        self, server: Server, backend: str, warned: list[str]
    ) -> None:
        user = ["ACL", "SETUSER", "deaf", "on", ">secret", "+@all", "~*", "resetchannels"]
        server.ask(*user)
        url = server.url.replace("//", "//deaf:secret@")

        async def main() -> None:
            heard = Heard()
            async with (
                store(url) as entered,
                entered.listen("api", "node", heard.append, print),
            ):
                await until(lambda: warned)
                await calls(entered)
                server.ask("ACL", "SETUSER", "deaf", "allchannels")
                await heard.hears(server, MINE)

        run(backend, main)
        server.ask("ACL", "DELUSER", "deaf")
        assert "No permissions" in warned[0] or "no permissions" in warned[0]

    def test_after_an_answer_that_nobody_asked_for(self, backend: str, warned: list[str]) -> None:
        async def main() -> None:
            async with (
                fake(b"+WHAT\r\n") as url,
                store(url) as entered,
                entered.listen("api", "node", print, print),
            ):
                await until(lambda: len(warned) == 2)

        run(backend, main)
        assert "WHAT" in warned[0]

    def test_if_a_silent_server_is_gone(
        self, server: Server, backend: str, monkeypatch: pytest.MonkeyPatch, warned: list[str]
    ) -> None:
        monkeypatch.setattr(redis_channels, "_SILENCE", 0.05)

        async def main() -> None:
            heard = Heard()
            async with (
                servers.proxy(server.port) as proxy,
                store(proxy.url, deadline=0.3) as entered,
                entered.listen("api", "node", heard.append, print),
            ):
                await heard.hears(server, MINE)
                await anyio.sleep(0.2)  # it answers, and is kept
                assert not warned
                proxy.stall()
                await until(lambda: warned)
                proxy.flow()
                await heard.hears(server, ALL)

        run(backend, main)
