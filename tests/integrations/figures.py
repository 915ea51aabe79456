"""What the tests of both observers that measure share: a way to read figures by their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
)
from prometheus_client import CollectorRegistry

from anythrottle.integrations._metrics import MetricsObserver
from anythrottle.integrations.otel import OTelObserver
from anythrottle.integrations.prometheus import PrometheusObserver

#: What Prometheus calls what OpenTelemetry calls ``anythrottle.limiter.`` and this.
NAMES = {
    "wait.duration": "wait_seconds",
    "hold.duration": "hold_seconds",
    "pause.duration": "pause_seconds",
    "cost": "granted_total",
    "refusals": "refused_total",
    "abandoned": "abandoned_total",
    "throttled": "throttled_total",
    "pauses": "pauses_total",
    "waiting": "waiting",
    "active": "active",
    "store.down": "store_down",
    "store.outages": "store_outages_total",
    "lease.expired": "lease_expired_total",
}

HISTOGRAMS = ("wait.duration", "hold.duration", "pause.duration")

Figure: TypeAlias = Any  # a number; of a histogram, how many there were and their sum


class Figures(ABC):
    """An observer, and what it has measured."""

    observer: MetricsObserver

    @abstractmethod
    def read(self, name: str) -> dict[tuple[str, ...], Figure]:
        """
        Return the figures of one of :data:`NAMES`, by limiter, and unit or reason.

        That of a histogram is how many there were, and their sum.
        """

    def one(self, name: str, *labels: str) -> Figure:
        """Return a figure, 0 if there is none."""
        nothing: Figure = (0, 0.0) if name in HISTOGRAMS else 0
        return self.read(name).get(labels, nothing)


class Prometheus(Figures):
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.observer = PrometheusObserver(self.registry)

    def read(self, name: str) -> dict[tuple[str, ...], Figure]:
        wanted = f"anythrottle_{NAMES[name]}"
        samples = [sample for family in self.registry.collect() for sample in family.samples]

        def found(suffix: str = "") -> dict[tuple[str, ...], float]:
            return {
                tuple(
                    each.labels[label]
                    for label in ("limiter", "unit", "reason")
                    if label in each.labels
                ): each.value
                for each in samples
                if each.name == wanted + suffix
            }

        if name not in HISTOGRAMS:
            return dict(found())

        sums = found("_sum")
        return {labels: (int(count), sums[labels]) for labels, count in found("_count").items()}


class OpenTelemetry(Figures):
    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.observer = OTelObserver(self.provider)

    def metrics(self) -> dict[str, Metric]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def read(self, name: str) -> dict[tuple[str, ...], Figure]:
        metric = self.metrics().get(f"anythrottle.limiter.{name}")
        found: dict[tuple[str, ...], Figure] = {}
        for point in metric.data.data_points if metric else ():
            attributes = point.attributes or {}
            labels = tuple(
                str(attributes[f"anythrottle.limiter.{each}"])
                for each in ("name", "unit", "reason")
                if f"anythrottle.limiter.{each}" in attributes
            )
            assert len(labels) == len(attributes)
            if isinstance(point, HistogramDataPoint):
                found[labels] = point.count, point.sum
            else:
                assert isinstance(point, NumberDataPoint)
                found[labels] = point.value

        return found


KINDS: dict[str, type[Prometheus | OpenTelemetry]] = {
    "prometheus": Prometheus,
    "otel": OpenTelemetry,
}
