"""Servers that run as long as the tests do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores import servers
from tests.stores.servers import PROGRAMS, Cluster, Sentinel, Server

#: What starts a server for those who ask for it.
STARTERS = {"server", "cluster", "sentinel", "tls"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if STARTERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("servers")


@pytest.fixture(scope="session", params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with servers.server(request.param) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    """Let no test find what another has left on the server."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server").flush()


@pytest.fixture(scope="session", params=PROGRAMS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with servers.cluster(request.param) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sentinel() -> Iterator[Sentinel]:
    with servers.sentinel("valkey") as sentinel:
        yield sentinel


@pytest.fixture(scope="session")
def tls() -> Iterator[Server]:
    with servers.tls() as server:
        yield server
