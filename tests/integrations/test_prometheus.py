"""The observer that measures for Prometheus: names, labels, and what its registry writes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from anythrottle import (
    Abandoned,
    Decision,
    Ended,
    Granted,
    LeaseExpired,
    Paused,
    RateLimiter,
    Refused,
    StoreBack,
    StoreLost,
    Throttled,
)
from anythrottle.abc import Event
from anythrottle.integrations.prometheus import PrometheusObserver
from tests.conftest import Run

ERROR = ValueError("mine")

#: One event of each kind that is measured.
EVENTS: list[Event] = [
    Granted("a", {"tokens": 850}, 1.5),
    Ended("a", 2.5),
    Refused("a", 1, Decision(False, "rate", 1.0, 0, 1.0, 1, None)),
    Abandoned("a", 1, 0.0),
    Throttled("a", None, 1, ERROR),
    Paused("a", 30.0),
    StoreLost("a", ERROR),
    LeaseExpired("a", 3),
    StoreBack("a", 20.0),
]


def written(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_the_text_of_the_registry() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    limiter = RateLimiter(concurrency=1, name="a")
    observer.watch(limiter)
    for event in EVENTS:
        observer(event)

    lines = written(registry).splitlines()
    buckets = [line for line in lines if "_bucket{" in line]
    created = [line for line in lines if "_created{" in line]
    assert [line for line in lines if line not in {*buckets, *created} and line[0] != "#"] == [
        'anythrottle_wait_seconds_count{limiter="a"} 1.0',
        'anythrottle_wait_seconds_sum{limiter="a"} 1.5',
        'anythrottle_hold_seconds_count{limiter="a"} 1.0',
        'anythrottle_hold_seconds_sum{limiter="a"} 2.5',
        'anythrottle_pause_seconds_count{limiter="a"} 1.0',
        'anythrottle_pause_seconds_sum{limiter="a"} 30.0',
        'anythrottle_granted_total{limiter="a",unit="calls"} 1.0',
        'anythrottle_granted_total{limiter="a",unit="tokens"} 850.0',
        'anythrottle_refused_total{limiter="a",reason="rate"} 1.0',
        'anythrottle_abandoned_total{limiter="a"} 1.0',
        'anythrottle_throttled_total{limiter="a"} 1.0',
        'anythrottle_pauses_total{limiter="a"} 1.0',
        'anythrottle_store_outages_total{limiter="a"} 1.0',
        'anythrottle_lease_expired_total{limiter="a"} 3.0',
        'anythrottle_store_down{limiter="a"} 0.0',
        'anythrottle_waiting{limiter="a"} 0.0',
        'anythrottle_active{limiter="a"} 0.0',
    ]
    assert 'anythrottle_wait_seconds_bucket{le="1.0",limiter="a"} 0.0' in buckets
    assert 'anythrottle_wait_seconds_bucket{le="2.5",limiter="a"} 1.0' in buckets
    assert 'anythrottle_pause_seconds_bucket{le="3600.0",limiter="a"} 1.0' in buckets


def test_the_types_and_the_help() -> None:
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    families = list(text_string_to_metric_families(written(registry)))
    assert {family.name: family.type for family in families} == {
        "anythrottle_wait_seconds": "histogram",
        "anythrottle_hold_seconds": "histogram",
        "anythrottle_pause_seconds": "histogram",
        "anythrottle_granted": "counter",
        "anythrottle_refused": "counter",
        "anythrottle_abandoned": "counter",
        "anythrottle_throttled": "counter",
        "anythrottle_pauses": "counter",
        "anythrottle_store_outages": "counter",
        "anythrottle_lease_expired": "counter",
        "anythrottle_store_down": "gauge",
        "anythrottle_waiting": "gauge",
        "anythrottle_active": "gauge",
    }
    assert all(len(family.documentation) > 10 for family in families)


def test_counters_are_there_before_they_count() -> None:
    # Otherwise the first one is missing from each rate.
    registry = CollectorRegistry()
    PrometheusObserver(registry)(Granted("a", 1, 0.0))
    for name in ("abandoned", "throttled", "pauses", "store_outages", "lease_expired"):
        assert registry.get_sample_value(f"anythrottle_{name}_total", {"limiter": "a"}) == 0

    # Not so what is told of a store that the limiter may not have.
    assert registry.get_sample_value("anythrottle_store_down", {"limiter": "a"}) is None


def test_odd_names_and_units() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    name, unit = 'a "b"\\\nc', "\u00fcnits"
    observer(Granted(name, {unit: 2}, 0.0))
    (family,) = [
        family
        for family in text_string_to_metric_families(written(registry))
        if family.name == "anythrottle_granted"
    ]
    found = {
        (sample.labels["limiter"], sample.labels["unit"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert found == {(name, "calls"): 1, (name, unit): 2}


def test_one_for_each_registry() -> None:
    registry = CollectorRegistry()
    first = PrometheusObserver(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusObserver(registry)

    first(Granted("a", 1, 0.0))
    assert 'anythrottle_wait_seconds_count{limiter="a"} 1.0' in written(registry)


def test_the_global_registry_by_default() -> None:
    program = """if True:
        from prometheus_client import REGISTRY
        from anythrottle.integrations.prometheus import PrometheusObserver
        assert PrometheusObserver.__init__.__defaults__ == (REGISTRY,)
        PrometheusObserver().named("a")
        assert REGISTRY.get_sample_value("anythrottle_pauses_total", {"limiter": "a"}) == 0
        """
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("registry", [None, "REGISTRY", CollectorRegistry], ids=repr)
def test_what_is_no_registry(registry: Any) -> None:
    with pytest.raises(TypeError) as caught:
        PrometheusObserver(registry)

    assert str(caught.value) == (
        f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}"
    )
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("anythrottle")]


def test_the_registry_keeps_no_limiter_alive(run: Run) -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    limiter = RateLimiter("9/s", name="a", observer=observer)
    observer.watch(limiter)
    run(limiter.acquire)
    reference = weakref.ref(limiter)
    assert 'anythrottle_waiting{limiter="a"} 0.0' in written(registry)
    del limiter
    gc.collect()
    assert reference() is None
    assert 'anythrottle_waiting{limiter="a"}' not in written(registry)
    assert 'anythrottle_wait_seconds_count{limiter="a"} 1.0' in written(registry)


def test_several_processes(tmp_path: Path) -> None:
    program = """if True:
        from anythrottle import Granted, StoreLost
        from anythrottle.integrations.prometheus import PrometheusObserver
        observer = PrometheusObserver()
        observer(Granted("a", 2, 0.0))
        observer(StoreLost("a", ValueError()))
        """
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)

    gather = """if True:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        print(generate_latest(registry).decode())
        """
    result = subprocess.run(
        [sys.executable, "-c", gather], check=True, env=environment, capture_output=True, text=True
    )
    assert 'anythrottle_granted_total{limiter="a",unit="calls"} 4.0' in result.stdout
    assert 'anythrottle_wait_seconds_count{limiter="a"} 2.0' in result.stdout
    assert 'anythrottle_store_down{limiter="a"} 1.0' in result.stdout
