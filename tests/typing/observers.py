"""What type checkers make of observers. Checked, never run."""

from logging import getLogger
from typing import assert_type

from opentelemetry.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from anythrottle import KeyedLimiter, RateLimiter, Throttler, observe_all
from anythrottle.abc import Event, Limiter, Observer
from anythrottle.integrations.logs import LoggingObserver
from anythrottle.integrations.otel import OTelObserver
from anythrottle.integrations.prometheus import PrometheusObserver


def own(event: Event) -> None:
    """Observe."""


async def job() -> None:
    """Do nothing."""


def observers(
    registry: CollectorRegistry,
    provider: MeterProvider,
    keyed: KeyedLimiter[tuple[str, int], RateLimiter],
    any_keyed: KeyedLimiter[str, Limiter],
    other: Limiter,
) -> None:
    metrics, telemetry = PrometheusObserver(registry), OTelObserver(provider)
    for measuring in (metrics, telemetry):
        assert_type(measuring.named("a"), Observer)
        measuring.watch(RateLimiter("20/10s", observer=measuring))
        measuring.watch(keyed, name="a")
        measuring.watch(any_keyed)
        measuring.watch(other)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        measuring.watch("20/10s")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    observer = observe_all(metrics, telemetry, LoggingObserver(getLogger("a")), own)
    assert_type(observer, Observer)
    assert_type(RateLimiter(name="a", observer=observer).name, str | None)
    Throttler([job], observer=observer)
    PrometheusObserver("a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    LoggingObserver("a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    OTelObserver("a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    observe_all(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
