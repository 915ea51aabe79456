"""In a cluster, exchanges and pushes find the server that keeps a limiter."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import coredis
import pytest
from coredis.cluster._layout import ClusterLayout
from coredis.cluster._node import ClusterNodeLocation
from coredis.connection import TCPLocation
from coredis.typing import Key

from anythrottle import StoreError
from anythrottle.stores.redis_faults import check_version
from anythrottle.stores.redis_server import RedisServer
from tests.stores.redis_tools import Heard, again, both_backends, calls, run, store
from tests.stores.servers import HOST, Cluster, Server, is_whole, wait_until

#: Names that different servers of three keep.
NAMES = ["api", "b", "c", "d", "e", "f"]


def slot(name: str) -> int:
    return Key("{test:" + name + "}").slot


@asynccontextmanager
async def entered(cluster: Cluster) -> AsyncIterator[RedisServer]:
    places = [TCPLocation(HOST, cluster.servers[0].port)]
    async with coredis.RedisCluster(startup_nodes=places) as client, store(client) as entered:
        yield entered


def move(cluster: Cluster, number: int, target: Server) -> None:
    """Let another server keep a slot, without what is in it."""
    cluster.keeper(number).flush()
    name = target.ask("CLUSTER", "MYID")
    for server in sorted(cluster.servers, key=lambda server: server is not target):
        server.ask("CLUSTER", "SETSLOT", number, "NODE", name)
        if server is target:
            # Else the others may believe the one that kept it before, which they heard of earlier.
            server.ask("CLUSTER", "BUMPEPOCH")


# coredis leaves memory streams open: of each cluster's client, and of what failed to connect
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function MemoryObject:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _clean(cluster: Cluster) -> Iterator[None]:
    for server in cluster.servers:
        server.flush()

    yield
    gc.collect()  # here, where the warnings of it are ignored


@both_backends
class TestCluster:
    def test_each_name_has_its_server(self, cluster: Cluster, backend: str) -> None:
        async def main() -> None:
            async with entered(cluster) as server:
                for number in (1, 2):
                    for name in NAMES:
                        assert await calls(server, name) == number

        run(backend, main)
        keepers = [cluster.keeper(slot(name)) for name in NAMES]
        assert len(set(keepers)) == 3
        for name, keeper in zip(NAMES, keepers, strict=True):
            assert keeper.ask("HGET", "{test:" + name + "}", "calls") == b"2"

    def test_forgets(self, cluster: Cluster, backend: str) -> None:
        async def main() -> None:
            async with entered(cluster) as server:
                assert await calls(server) == 1
                await server.forget("api")
                assert await calls(server) == 1

        run(backend, main)

    def test_hears(self, cluster: Cluster, backend: str) -> None:
        async def main() -> None:
            heard = {name: Heard() for name in NAMES}
            async with entered(cluster) as server, anyio.create_task_group() as tasks:

                async def listen(name: str) -> None:
                    async with server.listen(name, "node", heard[name].append, print):
                        await heard[name].hears(
                            cluster.keeper(slot(name)), "{test:" + name + "}:all"
                        )

                for name in NAMES:
                    tasks.start_soon(listen, name)

        run(backend, main)

    def test_follows_a_name_to_another_server(self, cluster: Cluster, backend: str) -> None:
        number = slot("api")

        async def main() -> None:
            heard = Heard()
            async with (
                entered(cluster) as server,
                server.listen("api", "node", heard.append, print),
            ):
                for target in [*cluster.servers, *cluster.servers[::-1]]:
                    move(cluster, number, target)
                    # The servers may take a while to agree, and send us around until then.
                    await again(server)
                    assert int(target.ask("HGET", "{test:api}", "calls")) >= 1
                    await heard.hears(target, "{test:api}:all")

        run(backend, main)

    def test_hears_of_a_move_without_an_exchange(self, cluster: Cluster, backend: str) -> None:
        number = slot("api")

        async def main() -> None:
            heard = Heard()
            async with (
                entered(cluster) as server,
                server.listen("api", "node", heard.append, print),
            ):
                for target in cluster.servers:
                    move(cluster, number, target)
                    await heard.hears(target, "{test:api}:all")

        run(backend, main)

    def test_asks_another_server_while_a_name_moves(self, cluster: Cluster, backend: str) -> None:
        number = slot("api")
        source = cluster.keeper(number)
        target = next(server for server in cluster.servers if server is not source)

        async def main() -> None:
            async with entered(cluster) as server:
                target.ask("SCRIPT", "FLUSH")
                target.ask("CLUSTER", "SETSLOT", number, "IMPORTING", source.ask("CLUSTER", "MYID"))
                source.ask("CLUSTER", "SETSLOT", number, "MIGRATING", target.ask("CLUSTER", "MYID"))
                for count in (1, 2):
                    assert await calls(server) == count

        try:
            run(backend, main)
        finally:
            target.ask("CLUSTER", "SETSLOT", number, "STABLE")
            source.ask("CLUSTER", "SETSLOT", number, "STABLE")
            target.flush()

        assert source.ask("PING")

    def test_gives_up_if_it_is_sent_around(self, cluster: Cluster, backend: str) -> None:
        number = slot("api")
        source = cluster.keeper(number)
        target = next(server for server in cluster.servers if server is not source)

        async def main() -> None:
            async with entered(cluster) as server:
                # The other one does not take what is asked of it.
                source.ask("CLUSTER", "SETSLOT", number, "MIGRATING", target.ask("CLUSTER", "MYID"))
                with pytest.raises(StoreError, match="127"):
                    await calls(server)

        try:
            run(backend, main)
        finally:
            source.ask("CLUSTER", "SETSLOT", number, "STABLE")

    def test_goes_on_after_a_restart(self, cluster: Cluster, backend: str) -> None:
        async def main() -> None:
            keeper = cluster.keeper(slot("api"))
            async with entered(cluster) as server:
                assert await calls(server) == 1
                keeper.restart()
                assert (await again(server)).news.now == 1

        run(backend, main)

    def test_tells_its_client_of_what_failed(
        self, cluster: Cluster, backend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keeper = cluster.keeper(slot("api"))
        told = list[tuple[int, str]]()

        def tell(node: ClusterNodeLocation, *errors: Exception) -> None:
            told.extend((node.port, str(error)) for error in errors)

        async def main() -> None:
            async with entered(cluster) as server:
                monkeypatch.setattr(ClusterLayout, "report_errors", lambda _, *args: tell(*args))
                keeper.kill()
                with pytest.raises(StoreError):
                    await calls(server)

        try:
            run(backend, main)
        finally:
            keeper.start()
            for each in cluster.servers:
                wait_until(partial(is_whole, each, 3))

        assert told == [(keeper.port, f"Unable to establish a connection to {HOST}:{keeper.port}")]

    def test_a_url_will_not_do(self, cluster: Cluster, backend: str) -> None:
        other = next(each for each in cluster.servers if each is not cluster.keeper(slot("api")))

        async def main() -> None:
            async with store(other.url) as server:
                with pytest.raises(StoreError, match=r"pass a coredis\.RedisCluster"):
                    await calls(server)

        run(backend, main)

    def test_must_be_entered(self, cluster: Cluster, backend: str) -> None:
        async def main() -> None:
            client = coredis.RedisCluster(HOST, cluster.servers[0].port)
            with pytest.raises(RuntimeError, match="enter it before the store"):
                async with store(client):
                    pass

        run(backend, main)


@pytest.mark.parametrize("version", ["7.0.15", "9.1.2", "255.255.255", "df-v1.2", ""])
def test_a_version_that_passes(version: str) -> None:
    check_version(version)
