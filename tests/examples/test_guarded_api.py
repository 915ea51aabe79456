from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.integrations.asgi_tools import ask

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def guarded_api() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return import_module("guarded_api")


@both_backends
def test_a_flood_is_refused_and_who_obeys_is_not(backend: str) -> None:
    program = str(EXAMPLES / "guarded_api.py")
    ended = subprocess.run(
        [sys.executable, "-W", "error", program, "--backend", backend, "--pages", "50"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *sys.path])},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.stderr == ""
    assert "the obedient client: 50 served, 0 refused\n" in ended.stdout
    assert 'anythrottle_refused_total{limiter="anonymous",reason="rate"}' in ended.stdout
    assert ended.stdout.endswith("all is well\n"), ended.stdout
    assert ended.returncode == 0


@pytest.mark.timing
async def test_tiers(guarded_api: ModuleType) -> None:
    app = guarded_api.guarded()
    for token, most in (("token-of-ada", 40), ("token-of-bob", 10), ("nobody", 5)):
        headers = [("authorization", f"Bearer {token}")]
        found = [(await ask(app, headers=headers)).status for _ in range(most + 1)]
        assert found == [200] * most + [429]

    # Other lies are of the same address.
    assert (await ask(app, headers=[("authorization", "Bearer other")])).status == 429
    assert [(await ask(app, path="/health")).status for _ in range(300)] == [200] * 300


@pytest.mark.timing
async def test_nobody_passes_the_total(guarded_api: ModuleType) -> None:
    app = guarded_api.guarded()
    found = [
        (await ask(app, peer=(f"192.0.{number}.1", 1))).status
        for number in range(100)
        for _ in range(3)
    ]
    assert found.count(200) == 200


def test_what_is_wrong_is_found(guarded_api: ModuleType) -> None:
    fine = Counter({200: 10, 429: 500})
    assert guarded_api.report(fine, Counter({200: 7}), 7, 3.0) == []
    wrong = guarded_api.report(Counter({200: 11}), Counter({200: 6, 429: 1}), 7, 3.0)
    assert len(wrong) == 3


@pytest.mark.timing
async def test_what_limits_do_is_measured(guarded_api: ModuleType) -> None:
    app = guarded_api.guarded()
    for token in ("token-of-ada", *["nobody"] * 6):
        await ask(app, headers=[("authorization", f"Bearer {token}")])

    page = (await ask(app, path="/metrics")).body.decode()
    assert 'anythrottle_granted_total{limiter="gold",unit="calls"} 1.0' in page
    assert 'anythrottle_granted_total{limiter="anonymous",unit="calls"} 5.0' in page
    assert 'anythrottle_granted_total{limiter="total",unit="calls"} 6.0' in page
    assert 'anythrottle_refused_total{limiter="anonymous",reason="rate"} 1.0' in page
    assert 'anythrottle_waiting{limiter="total"} 0.0' in page
