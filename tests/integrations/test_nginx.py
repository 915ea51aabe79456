"""Against nginx, whose limits are a leaky bucket in milliseconds, and requests at once."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import httpx2
import pytest

from anythrottle import RateLimiter, WindowTokenBucket
from anythrottle.integrations.httpx2 import ThrottledTransport

REQUESTS = 60

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

CONFIGURATION = """
master_process off; daemon off; worker_processes 1;
pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    limit_req_zone $binary_remote_addr zone=rate:1m rate={rate}r/s;
    limit_conn_zone $binary_remote_addr zone=slots:1m;
    server {{
        listen 127.0.0.1:{port} backlog=511;
        location / {{ {limits} root {folder}; }}
    }}
}}
"""


class Limits(NamedTuple):
    """What nginx is told, and the limiter that keeps to it."""

    limits: str
    limiter: Callable[[int], RateLimiter]


def window(count: int, rate: int) -> WindowTokenBucket:
    """Return what keeps below a leaky bucket: so many, and then as many in the time they take."""
    return WindowTokenBucket(count, count / rate, measure="end")


LIMITS = {
    "no burst": Limits("limit_req zone=rate;", lambda rate: RateLimiter(window(1, rate))),
    "burst": Limits("limit_req zone=rate burst=10;", lambda rate: RateLimiter(window(10, rate))),
    "burst, nodelay": Limits(
        "limit_req zone=rate burst=10 nodelay;", lambda rate: RateLimiter(window(10, rate))
    ),
    "burst, delay": Limits(
        "limit_req zone=rate burst=10 delay=5;", lambda rate: RateLimiter(window(10, rate))
    ),
    "at once": Limits("limit_conn slots 3;", lambda _: RateLimiter(concurrency=3)),
    "both": Limits(
        "limit_conn slots 3; limit_req zone=rate burst=10 nodelay;",
        lambda rate: RateLimiter(window(10, rate), concurrency=3),
    ),
}

#: Eight configurations: the rate matters to all but one of them.
CASES = [
    pytest.param(rate, limits, id=f"{rate}/s, {name}")
    for rate in (200, 400)
    for name, limits in LIMITS.items()
    if rate == 200 or name in {"no burst", "burst, nodelay"}
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, rate: int, limits: str) -> Iterator[int]:
    """Run nginx on a port of this machine, and wait for its end; yield the port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert program is not None, "nginx is missing: install it (Debian: apt-get install nginx-light)"
    port = free_port()
    (folder / "page").write_bytes(b"x" * 5000)
    configuration = CONFIGURATION.format(folder=folder, rate=rate, port=port, limits=limits)
    (folder / "nginx.conf").write_text(configuration, encoding="utf-8")
    with subprocess.Popen(
        [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for(port, process)
            yield port
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    """Wait until a server accepts connections, which it is the last to do before it waits."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert process.poll() is None, process.communicate()[1]
        else:
            return


async def ask(port: int, transport: httpx2.AsyncBaseTransport) -> Counter[int]:
    """Send many requests at once; return how often each status was answered."""
    statuses = Counter[int]()

    async def get() -> None:
        answer = await client.get(f"http://127.0.0.1:{port}/page")
        statuses[answer.status_code] += 1

    async with (
        httpx2.AsyncClient(transport=transport) as client,
        anyio.create_task_group() as task_group,
    ):
        for _ in range(REQUESTS):
            task_group.start_soon(get)

    return statuses


@both_backends
@pytest.mark.parametrize(("rate", "limits"), CASES)
def test_nothing_is_refused(tmp_path: Path, rate: int, limits: Limits, backend: str) -> None:
    limiter = limits.limiter(rate)
    transport = ThrottledTransport(httpx2.AsyncHTTPTransport(), limiter, max_throttles=1)
    with nginx(tmp_path, rate, limits.limits) as port:
        statuses = anyio.run(ask, port, transport, backend=backend)

    assert statuses == {200: REQUESTS}


@both_backends
def test_without_a_limiter_most_are_refused(tmp_path: Path, backend: str) -> None:
    with nginx(tmp_path, 1, "limit_req zone=rate burst=10 nodelay;") as port:
        statuses = anyio.run(ask, port, httpx2.AsyncHTTPTransport(), backend=backend)

    assert statuses[503] > statuses[200] >= 11
