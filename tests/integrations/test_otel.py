"""The observer that measures by OpenTelemetry's API: names, units, attributes."""

from __future__ import annotations

import logging
import subprocess
import sys
from math import inf
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint

from anythrottle import Paused, RateLimiter
from anythrottle.integrations._metrics import BOUNDS
from anythrottle.integrations.otel import OTelObserver
from anythrottle.testing import wait_idle
from tests.integrations.figures import OpenTelemetry
from tests.integrations.test_prometheus import EVENTS


def test_names_units_and_kinds() -> None:
    figures = OpenTelemetry()
    limiter = RateLimiter(concurrency=1, name="a")
    figures.observer.watch(limiter)
    for event in EVENTS:
        figures.observer(event)

    metrics = figures.metrics()
    found = {name: (type(each.data).__name__, each.unit) for name, each in metrics.items()}
    assert found == {
        "anythrottle.limiter.wait.duration": ("Histogram", "s"),
        "anythrottle.limiter.hold.duration": ("Histogram", "s"),
        "anythrottle.limiter.pause.duration": ("Histogram", "s"),
        "anythrottle.limiter.cost": ("Sum", "{unit}"),
        "anythrottle.limiter.refusals": ("Sum", "{call}"),
        "anythrottle.limiter.abandoned": ("Sum", "{call}"),
        "anythrottle.limiter.throttled": ("Sum", "{call}"),
        "anythrottle.limiter.pauses": ("Sum", "{pause}"),
        "anythrottle.limiter.store.outages": ("Sum", "{outage}"),
        "anythrottle.limiter.lease.expired": ("Sum", "{call}"),
        "anythrottle.limiter.store.down": ("Gauge", "1"),
        "anythrottle.limiter.waiting": ("Gauge", "{call}"),
        "anythrottle.limiter.active": ("Gauge", "{call}"),
    }
    assert all(len(each.description or "") > 10 for each in metrics.values())


def test_attributes() -> None:
    figures = OpenTelemetry()
    for event in EVENTS:
        figures.observer(event)

    ours = "anythrottle.limiter"
    for name, metric in figures.metrics().items():
        found = [dict(point.attributes or {}) for point in metric.data.data_points]
        if name == f"{ours}.cost":
            assert found == [
                {f"{ours}.name": "a", f"{ours}.unit": unit} for unit in ("calls", "tokens")
            ]
        elif name == f"{ours}.refusals":
            assert found == [{f"{ours}.name": "a", f"{ours}.reason": "rate"}]
        else:
            assert found == [{f"{ours}.name": "a"}]


def test_the_bounds_of_histograms() -> None:
    figures = OpenTelemetry()
    for event in EVENTS:
        figures.observer(event)

    for name in ("wait", "hold", "pause"):
        (point,) = figures.metrics()[f"anythrottle.limiter.{name}.duration"].data.data_points
        assert isinstance(point, HistogramDataPoint)
        assert tuple(point.explicit_bounds) == BOUNDS


def test_an_infinite_pause_reaches_no_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK drops what is infinite, but others may not.
    recorded: list[float] = []

    class Recorder:
        def record(self, amount: float, attributes: object) -> None:
            recorded.append(amount)

    figures = OpenTelemetry()
    monkeypatch.setattr(figures.observer._instruments, "pause", Recorder())  # type: ignore[attr-defined]
    for seconds in (inf, 5.0):
        figures.observer(Paused("a", seconds))

    assert recorded == [5.0]
    assert figures.one("pauses", "a") == 2


def test_the_name_of_the_meter() -> None:
    figures = OpenTelemetry()
    figures.observer(EVENTS[0])
    data = figures.reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == "anythrottle"


def test_a_provider_that_is_set_later_is_taken_up() -> None:
    program = """if True:
        from opentelemetry.metrics import set_meter_provider
        from anythrottle import Granted, RateLimiter
        from anythrottle.integrations.otel import OTelObserver
        observer = OTelObserver()
        observer(Granted("a", 1, 0.0))
        limiter = RateLimiter(name="a")
        observer.watch(limiter)
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        set_meter_provider(MeterProvider([reader]))
        observer(Granted("a", 7, 0.0))
        (resource,) = reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        found = {metric.name: metric.data.data_points[0] for metric in scope.metrics}
        assert found["anythrottle.limiter.cost"].value == 7
        assert found["anythrottle.limiter.waiting"].value == 0
        """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_it_needs_the_api_only() -> None:
    program = """if True:
        import sys
        sys.modules["opentelemetry.sdk"] = None
        import anyio
        from anythrottle import RateLimiter
        from anythrottle.integrations.otel import OTelObserver
        observer = OTelObserver()
        limiter = RateLimiter("9/s", concurrency=1, observer=observer)
        observer.watch(limiter)
        async def main():
            async with limiter:
                limiter.pause(1)
        anyio.run(main)
        """
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.timing
async def test_a_provider_that_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    observer = OTelObserver(NoOpMeterProvider())
    limiter = RateLimiter("9/s", concurrency=1, name="a", observer=observer)
    observer.watch(limiter)
    for event in EVENTS:
        observer(event)

    async with limiter:
        await wait_idle()

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("provider", ["global", 5, NoOpMeterProvider], ids=repr)
def test_what_is_no_provider(provider: Any) -> None:
    with pytest.raises(TypeError) as caught:
        OTelObserver(provider)

    assert str(caught.value) == (
        f"meter_provider must be an opentelemetry.metrics.MeterProvider, not {provider!r}"
    )
