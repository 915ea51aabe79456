"""
On which event loops the tests run.

An async test runs on asyncio and Trio with a virtual clock, and on uvloop. One marked ``timing``
stays away from uvloop, which has no virtual clock. A sync test that starts runs of its own takes
the fixture ``run``: each call is a new run with a new virtual clock.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import anyio
import pytest
from hypothesis import settings

from anythrottle.testing import virtual_backends
from tests.properties import PROFILE
from tests.stopwatch import RealTime

settings.register_profile("anythrottle", PROFILE)
settings.load_profile("anythrottle")

#: Calls an async function in a run of its own, and returns what it returns.
Run: TypeAlias = Callable[..., Any]

_VIRTUAL = [pytest.param(backend, id=f"{backend[0]}-virtual") for backend in virtual_backends()]

#: Counts the tests that have run in this process.
_ended = count(1)

_UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")


def pytest_configure() -> None:
    # Processes that a shell starts in the background ignore Ctrl-C, and hand that on: those that
    # tests start would not end by it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("untraced") or goes_known_ways(item):
        item.runtest = partial(untraced, item.runtest)  # type: ignore[method-assign]


def goes_known_ways(item: pytest.Item) -> bool:
    """Return whether a test goes the ways of one on asyncio: on uvloop, or a property on Trio."""
    ids = item.name.rpartition("[")[2]
    is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    return "uvloop" in ids or ("trio" in ids and is_property)


def untraced(function: Callable[[], None]) -> None:
    """Call a function out of sight of who measures the coverage."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        function()
    finally:
        sys.settrace(tracer)


def pytest_collection_finish() -> None:
    freeze()


def pytest_runtest_logfinish() -> None:
    # Something is kept of each test, by pytest and others, and many tests collect all garbage.
    if next(_ended) % 100 == 0:
        freeze()


def freeze() -> None:
    """Take out of the garbage collector's rounds what lives as long as the tests do."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "anyio_backend" in metafunc.fixturenames and not _overridden(metafunc):
        timing = metafunc.definition.get_closest_marker("timing")
        backends = _VIRTUAL if timing else [*_VIRTUAL, _UVLOOP]
        metafunc.parametrize("anyio_backend", backends, indirect=True)

    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", _VIRTUAL, indirect=True)


def _overridden(metafunc: pytest.Metafunc) -> bool:
    """Tell whether the test's module brings its own ``anyio_backend``, or parametrises it."""
    marks = metafunc.definition.iter_markers("parametrize")
    by_mark = any("anyio_backend" in str(mark.args[0]) for mark in marks)
    fixtures = metafunc.definition._fixtureinfo.name2fixturedefs["anyio_backend"]
    return by_mark or fixtures[-1].func is not anyio_backend.__wrapped__  # type: ignore[attr-defined]


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    name, options = request.param

    def run(function: Callable[..., Awaitable[object]], *args: Any, **kwargs: Any) -> Any:
        return anyio.run(partial(function, *args, **kwargs), backend=name, backend_options=options)

    return run


@pytest.fixture
def real_time(monkeypatch: pytest.MonkeyPatch) -> RealTime:
    """Let ``time.monotonic()`` stand still, until it is set."""
    real_time = RealTime()
    monkeypatch.setattr(time, "monotonic", real_time)
    return real_time
