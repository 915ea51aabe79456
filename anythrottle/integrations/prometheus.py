"""An observer that measures limiters for Prometheus: ``pip install anythrottle[prometheus]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ._metrics import BOUNDS, MetricsObserver, Series, amounts_of
from ._watched import Watched

__all__ = ("PrometheusObserver",)


@final
class PrometheusObserver(MetricsObserver):
    """
    Measures what limiters do, for Prometheus; to be given to each of them as its observer.

    >>> import anyio
    >>> from anythrottle import RateLimiter
    >>> from anythrottle.integrations.prometheus import PrometheusObserver
    >>> from prometheus_client import CollectorRegistry
    >>> registry = CollectorRegistry()  # leave it out in a program that has one only
    >>> metrics = PrometheusObserver(registry)
    >>> limiter = RateLimiter("20/10s", name="geocoder", observer=metrics)
    >>> metrics.watch(limiter)
    >>> anyio.run(limiter.acquire)
    >>> registry.get_sample_value(
    ...     "anythrottle_granted_total", {"limiter": "geocoder", "unit": "calls"}
    ... )
    1.0

    The label ``limiter`` is the limiter's name, and empty if it has none. At most 100 names are
    taken from events; all others are measured together, as ``(others)``.

    :param registry: where to register the metrics; one observer for each
    :raises TypeError: if ``registry`` is not a registry
    :raises ValueError: if metrics of these names are registered there already

    """

    __slots__ = ("_metrics",)

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        if not isinstance(registry, CollectorRegistry):
            raise TypeError(
                f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}"
            )

        super().__init__()
        self._metrics = _Metrics(registry)
        registry.register(_Gauges(self._watched))

    def _new_series(self, name: str) -> Series:
        return _Series(self._metrics, name)


@final
class _Metrics:
    """The metrics of all names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"anythrottle_{name}", text, ("limiter", *labels), registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(
                f"anythrottle_{name}_seconds", text, ("limiter",), registry=registry, buckets=BOUNDS
            )

        self.wait = histogram("wait", "How long calls have waited for their turns")
        self.hold = histogram("hold", "How long calls have held a slot, or a charge")
        self.pause = histogram("pause", "How long pauses last when they begin, infinite ones apart")
        self.granted = counter("granted", "What was granted: calls, or another unit", "unit")
        self.refused = counter("refused", "Calls that would have had to wait, by reason", "reason")
        self.abandoned = counter("abandoned", "Calls that were given up before they began")
        self.throttled = counter("throttled", "Calls that the service has refused, and go again")
        self.pauses = counter("pauses", "Pauses that have begun, infinite ones included")
        self.outages = counter("store_outages", "How often the store has ceased to answer")
        self.expired = counter("lease_expired", "Calls that have lost what they held in the store")
        self.down = Gauge(
            "anythrottle_store_down",
            "Whether the store does not answer: 1 if so, else 0",
            ("limiter",),
            registry=registry,
            multiprocess_mode="livemax",
        )


@final
class _Series(Series):
    __slots__ = (
        "_abandoned",
        "_calls",
        "_down",
        "_expired",
        "_granted",
        "_hold",
        "_name",
        "_outages",
        "_pause",
        "_pauses",
        "_refused",
        "_throttled",
        "_wait",
    )

    def __init__(self, metrics: _Metrics, name: str) -> None:
        self._name = name
        self._granted = metrics.granted
        self._refused = metrics.refused
        # Without labels yet: nothing is shown of a store that a limiter may not have.
        self._down = metrics.down
        # Looked up once, they cost each event less, and are shown as 0 before the first event.
        self._calls = metrics.granted.labels(name, "calls")
        self._wait = metrics.wait.labels(name)
        self._hold = metrics.hold.labels(name)
        self._pause = metrics.pause.labels(name)
        self._abandoned = metrics.abandoned.labels(name)
        self._throttled = metrics.throttled.labels(name)
        self._pauses = metrics.pauses.labels(name)
        self._outages = metrics.outages.labels(name)
        self._expired = metrics.expired.labels(name)

    def granted(self, cost: int | Mapping[str, int], waited: float) -> None:
        self._wait.observe(waited)
        if isinstance(cost, int):
            self._calls.inc(cost)
        else:
            for unit, amount in amounts_of(cost).items():
                self._granted.labels(self._name, unit).inc(amount)

    def ended(self, held: float) -> None:
        self._hold.observe(held)

    def refused(self, reason: str) -> None:
        self._refused.labels(self._name, reason).inc()

    def abandoned(self) -> None:
        self._abandoned.inc()

    def throttled(self) -> None:
        self._throttled.inc()

    def paused(self, seconds: float) -> None:
        self._pauses.inc()
        if seconds < inf:
            self._pause.observe(seconds)

    def store_changed(self, *, lost: bool) -> None:
        self._down.labels(self._name).set(lost)
        if lost:
            self._outages.inc()

    def lease_expired(self, calls: int) -> None:
        self._expired.inc(calls)


@final
class _Gauges(Collector):
    """Returns the counts of the limiters that are watched, when it is asked."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return (
            GaugeMetricFamily("anythrottle_waiting", "Calls that wait", labels=("limiter",)),
            GaugeMetricFamily(
                "anythrottle_active", "Calls that hold a slot, or a charge", labels=("limiter",)
            ),
        )

    def collect(self) -> Iterable[GaugeMetricFamily]:
        families = self.describe()
        for name, load in self._watched.load().items():
            for family, value in zip(families, load, strict=True):
                family.add_metric((name,), value)

        return families
