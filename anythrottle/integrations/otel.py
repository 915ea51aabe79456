"""An observer that measures limiters by OpenTelemetry's API: ``pip install anythrottle[otel]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from math import inf
from typing import final

from opentelemetry.metrics import (
    CallbackOptions,
    Histogram,
    Meter,
    MeterProvider,
    Observation,
    get_meter,
)

from ._metrics import BOUNDS, MetricsObserver, Series, amounts_of

__all__ = ("OTelObserver",)

#: What the names of metrics and attributes begin with.
_OURS = "anythrottle.limiter"

_NAME, _REASON, _UNIT = f"{_OURS}.name", f"{_OURS}.reason", f"{_OURS}.unit"


@final
class OTelObserver(MetricsObserver):
    """
    Measures what limiters do, by OpenTelemetry; to be given to each of them as its observer.

    >>> from anythrottle import RateLimiter
    >>> from anythrottle.integrations.otel import OTelObserver
    >>> metrics = OTelObserver()
    >>> limiter = RateLimiter("20/10s", name="geocoder", observer=metrics)
    >>> metrics.watch(limiter)

    It needs OpenTelemetry's API only, and does next to nothing as long as the program has set no
    provider of metrics. It uses one that is set later from then on.

    The attribute ``anythrottle.limiter.name`` is the limiter's name, and empty if it has none. At
    most 100 names are taken from events; all others are measured together, as ``(others)``.

    :param meter_provider: where the meter comes from, one observer for each; ``None`` for
        OpenTelemetry's global one
    :raises TypeError: if ``meter_provider`` is not a provider of meters

    """

    __slots__ = ("_instruments",)

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        if meter_provider is not None and not isinstance(meter_provider, MeterProvider):
            raise TypeError(
                f"meter_provider must be an opentelemetry.metrics.MeterProvider, not "
                f"{meter_provider!r}"
            )

        super().__init__()
        meter = get_meter("anythrottle", meter_provider=meter_provider)
        self._instruments = _Instruments(meter)
        for index, (name, text) in enumerate(
            (("waiting", "Calls that wait"), ("active", "Calls that hold a slot, or a charge"))
        ):
            meter.create_observable_gauge(
                f"{_OURS}.{name}", [partial(self._observe, index)], "{call}", text
            )

    def _new_series(self, name: str) -> Series:
        return _Series(self._instruments, name)

    def _observe(self, index: int, _: CallbackOptions) -> Iterable[Observation]:
        load = self._watched.load()
        return [Observation(counts[index], {_NAME: name}) for name, counts in load.items()]


@final
class _Instruments:
    """The instruments of all names."""

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, text: str) -> Histogram:
            return meter.create_histogram(
                f"{_OURS}.{name}.duration", "s", text, explicit_bucket_boundaries_advisory=BOUNDS
            )

        self.wait = histogram("wait", "How long calls have waited for their turns")
        self.hold = histogram("hold", "How long calls have held a slot, or a charge")
        self.pause = histogram("pause", "How long pauses last when they begin, infinite ones apart")
        counter = meter.create_counter
        self.cost = counter(f"{_OURS}.cost", "{unit}", "What was granted: calls, or another unit")
        self.refusals = counter(
            f"{_OURS}.refusals", "{call}", "Calls that would have had to wait, by reason"
        )
        self.abandoned = counter(
            f"{_OURS}.abandoned", "{call}", "Calls that were given up before they began"
        )
        self.throttled = counter(
            f"{_OURS}.throttled", "{call}", "Calls that the service has refused, and go again"
        )
        self.pauses = counter(
            f"{_OURS}.pauses", "{pause}", "Pauses that have begun, infinite ones included"
        )
        self.outages = counter(
            f"{_OURS}.store.outages",
            "{outage}",
            "How often the store has ceased to answer",
        )
        self.expired = counter(
            f"{_OURS}.lease.expired", "{call}", "Calls that have lost what they held in the store"
        )
        self.down = meter.create_gauge(
            f"{_OURS}.store.down", "1", "Whether the store does not answer: 1 if so, else 0"
        )


@final
class _Series(Series):
    __slots__ = ("_attributes", "_calls", "_instruments")

    def __init__(self, instruments: _Instruments, name: str) -> None:
        self._instruments = instruments
        self._attributes = {_NAME: name}
        self._calls = {_NAME: name, _UNIT: "calls"}

    def granted(self, cost: int | Mapping[str, int], waited: float) -> None:
        instruments = self._instruments
        instruments.wait.record(waited, self._attributes)
        if isinstance(cost, int):
            instruments.cost.add(cost, self._calls)
        else:
            for unit, amount in amounts_of(cost).items():
                instruments.cost.add(amount, {**self._attributes, _UNIT: unit})

    def ended(self, held: float) -> None:
        self._instruments.hold.record(held, self._attributes)

    def refused(self, reason: str) -> None:
        self._instruments.refusals.add(1, {**self._attributes, _REASON: reason})

    def abandoned(self) -> None:
        self._instruments.abandoned.add(1, self._attributes)

    def throttled(self) -> None:
        self._instruments.throttled.add(1, self._attributes)

    def paused(self, seconds: float) -> None:
        self._instruments.pauses.add(1, self._attributes)
        if seconds < inf:
            self._instruments.pause.record(seconds, self._attributes)

    def store_changed(self, *, lost: bool) -> None:
        self._instruments.down.set(int(lost), self._attributes)
        if lost:
            self._instruments.outages.add(1, self._attributes)

    def lease_expired(self, calls: int) -> None:
        self._instruments.expired.add(calls, self._attributes)
