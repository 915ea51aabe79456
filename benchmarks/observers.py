"""
What observers add to a grant, in time of the processor, to that of a limiter without one.

Any observer costs something: the record has to be built, and as the observer may do whatever it
likes, the call has to look once more, at the clock, at pauses and at its cancel scope, before it
begins. The observer that does nothing shows how much that is.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from logging import CRITICAL, getLogger
from statistics import median

from anythrottle import RateLimiter, WindowTokenBucket
from anythrottle.abc import Observer

from .measuring import Stopwatch, print_table, run_on

CALLS = 10_000
RUNS = 7
AMPLE = 10**9

#: The most microseconds that each may add to a grant.
AIMS = {"Prometheus": 10.0, "OpenTelemetry, API alone": 2.0}


def nothing(_: object) -> None:
    """Observe, and do nothing."""


def prometheus() -> Observer:
    from prometheus_client import CollectorRegistry

    from anythrottle.integrations.prometheus import PrometheusObserver

    return PrometheusObserver(CollectorRegistry())


def otel() -> Observer:
    from anythrottle.integrations.otel import OTelObserver

    return OTelObserver()


def otel_sdk() -> Observer:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from anythrottle.integrations.otel import OTelObserver

    return OTelObserver(MeterProvider([InMemoryMetricReader()]))


def log() -> Observer:
    from anythrottle.integrations.logs import LoggingObserver

    logger = getLogger("benchmarks.observers")
    logger.setLevel(CRITICAL)
    return LoggingObserver(logger)


OBSERVERS: dict[str, Callable[[], Observer | None]] = {
    "none": lambda: None,
    "one that does nothing": lambda: nothing,
    "log, below its level": log,
    "OpenTelemetry, API alone": otel,
    "OpenTelemetry, SDK": otel_sdk,
    "Prometheus": prometheus,
}


async def in_and_out(limiter: RateLimiter) -> None:
    async with limiter.permit():
        pass


def ways(observer: Observer | None) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the ways to a turn; with a slot, there is a second event at the end."""
    ample = WindowTokenBucket(AMPLE, 1.0)
    rate = RateLimiter(ample, name="service", observer=observer)
    slots = RateLimiter(ample, name="service", concurrency=AMPLE, observer=observer)
    return {
        "acquire()": rate.acquire,
        "permit()": partial(in_and_out, rate),
        "permit(), a slot": partial(in_and_out, slots),
    }


async def measure(
    calls: dict[tuple[str, str], Callable[[], Awaitable[object]]],
) -> dict[tuple[str, str], float]:
    """Return the microseconds of each call."""
    found: dict[tuple[str, str], float] = {}
    for name, call in calls.items():
        for _ in range(CALLS // 10):
            await call()

        with Stopwatch() as watch:
            for _ in range(CALLS):
                await call()

        found[name] = watch.cpu / CALLS * 1e6

    return found


def handlers() -> dict[str, float]:
    """Return the microseconds that the observers themselves take for a grant, by their names."""
    from anythrottle import Granted

    found: dict[str, float] = {}
    for name, make in OBSERVERS.items():
        observer = make()
        if observer is not None:
            event = Granted("service", 1, 0.0)
            with Stopwatch() as watch:
                for _ in range(CALLS):
                    observer(event)

            found[name] = watch.cpu / CALLS * 1e6

    return found


def main() -> None:
    alone = [handlers() for _ in range(RUNS)]
    for loop in ("asyncio", "trio"):
        runs: list[dict[tuple[str, str], float]] = []
        for _ in range(RUNS):
            calls = {
                (name, way): call
                for name, make in OBSERVERS.items()
                for way, call in ways(make()).items()
            }
            runs.append(run_on(loop, measure, calls))

        rows: list[tuple[object, ...]] = []
        for name in OBSERVERS:
            added = [
                median(run[name, way] - run["none", way] for run in runs) for way in ways(None)
            ]
            own = median(run.get(name, 0.0) for run in alone)
            rows.append((name, own, *added, AIMS.get(name, "")))

        head = ("us", "observer alone", *(f"+ {way}" for way in ways(None)), "aim")
        print_table(f"{loop}: what an observer adds to a grant", head, rows)


if __name__ == "__main__":
    main()
