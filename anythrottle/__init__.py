"""Obey "at most 20 calls in any 10 seconds, 5 at a time" exactly, on asyncio and on Trio."""

import logging as _logging
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._engine.attempts import Attempts
    from ._engine.front_stream import FrontReceiveStream, FrontSendStream, create_front_stream
    from ._engine.mapping import amap, amap_outcomes, first, for_each
    from ._engine.outcome import Outcome
    from ._engine.throttler import Throttler
    from ._engine.throttler_statistics import ThrottlerStatistics
    from ._errors import (
        AnythrottleError,
        CostTooHigh,
        JobInterrupted,
        LeaseLost,
        LimitExceeded,
        PolicyConflict,
        SourceInterrupted,
        StoreError,
        ThrottleException,
    )
    from ._events import (
        Abandoned,
        Ended,
        Failed,
        Finished,
        Granted,
        LeaseExpired,
        Paused,
        Reconfigured,
        Refused,
        Resumed,
        Retried,
        Settled,
        Started,
        StoreBack,
        StoreLost,
        Throttled,
        Tightened,
        observe_all,
    )
    from ._limiters.base_limiter import BaseLimiter
    from ._limiters.controls import RateLimiterStatistics
    from ._limiters.current import current_permit
    from ._limiters.keyed import KeyedLimiter
    from ._limiters.rate_limiter import RateLimiter
    from ._policies.fixed_window import FixedWindow
    from ._policies.policy import Cost, Decision, PolicyState
    from ._policies.token_bucket import TokenBucket
    from ._policies.window import WindowTokenBucket
    from ._retry_after import parse_retry_after
else:
    #: The module of each public name, as above; importing them takes most of the time.
    _HOMES = {
        name: f".{module}"
        for module, names in {
            "_engine.attempts": "Attempts",
            "_engine.front_stream": "FrontReceiveStream FrontSendStream create_front_stream",
            "_engine.mapping": "amap amap_outcomes first for_each",
            "_engine.outcome": "Outcome",
            "_engine.throttler": "Throttler",
            "_engine.throttler_statistics": "ThrottlerStatistics",
            "_errors": (
                "AnythrottleError CostTooHigh JobInterrupted LeaseLost LimitExceeded "
                "PolicyConflict SourceInterrupted StoreError ThrottleException"
            ),
            "_events": (
                "Abandoned Ended Failed Finished Granted LeaseExpired Paused Reconfigured Refused "
                "Resumed Retried Settled Started StoreBack StoreLost Throttled Tightened "
                "observe_all"
            ),
            "_limiters.base_limiter": "BaseLimiter",
            "_limiters.controls": "RateLimiterStatistics",
            "_limiters.current": "current_permit",
            "_limiters.keyed": "KeyedLimiter",
            "_limiters.rate_limiter": "RateLimiter",
            "_policies.fixed_window": "FixedWindow",
            "_policies.policy": "Cost Decision PolicyState",
            "_policies.token_bucket": "TokenBucket",
            "_policies.window": "WindowTokenBucket",
            "_retry_after": "parse_retry_after",
        }.items()
        for name in names.split()
    }

    def __getattr__(name: str) -> object:
        """Import a public name's module when the name is first used: a limiter needs no engine."""
        if name == "abc":  # need not be imported by itself
            return _import_module(".abc", __name__)

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        value = getattr(_import_module(_HOMES[name], __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*__all__, *(name for name in globals() if name.startswith("__"))]


__all__ = (
    "Abandoned",
    "AnythrottleError",
    "Attempts",
    "BaseLimiter",
    "Cost",
    "CostTooHigh",
    "Decision",
    "Ended",
    "Failed",
    "Finished",
    "FixedWindow",
    "FrontReceiveStream",
    "FrontSendStream",
    "Granted",
    "JobInterrupted",
    "KeyedLimiter",
    "LeaseExpired",
    "LeaseLost",
    "LimitExceeded",
    "Outcome",
    "Paused",
    "PolicyConflict",
    "PolicyState",
    "RateLimiter",
    "RateLimiterStatistics",
    "Reconfigured",
    "Refused",
    "Resumed",
    "Retried",
    "Settled",
    "SourceInterrupted",
    "Started",
    "StoreBack",
    "StoreError",
    "StoreLost",
    "ThrottleException",
    "Throttled",
    "Throttler",
    "ThrottlerStatistics",
    "Tightened",
    "TokenBucket",
    "WindowTokenBucket",
    "amap",
    "amap_outcomes",
    "create_front_stream",
    "current_permit",
    "first",
    "for_each",
    "observe_all",
    "parse_retry_after",
)

#: The version of this library.
__version__ = "0.1.0"

_logging.getLogger(__name__).addHandler(_logging.NullHandler())
