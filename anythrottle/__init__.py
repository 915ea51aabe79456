"""Obey "at most 20 calls in any 10 seconds, 5 at a time" exactly, on asyncio and on Trio."""

import logging as _logging

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
    LimitExceeded,
    SourceInterrupted,
    ThrottleException,
)
from ._events import (
    Abandoned,
    Ended,
    Failed,
    Finished,
    Granted,
    Paused,
    Reconfigured,
    Refused,
    Resumed,
    Retried,
    Settled,
    Started,
    Throttled,
    Tightened,
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
    "LimitExceeded",
    "Outcome",
    "Paused",
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
    "parse_retry_after",
)

#: The version of this library.
__version__ = "0.1.0"

_logging.getLogger(__name__).addHandler(_logging.NullHandler())
