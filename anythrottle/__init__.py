"""Obey "at most 20 calls in any 10 seconds, 5 at a time" exactly, on asyncio and on Trio."""

import logging as _logging

from ._engine.front_stream import FrontReceiveStream, FrontSendStream, create_front_stream
from ._engine.outcome import Outcome
from ._engine.throttler import Throttler, ThrottlerStatistics
from ._errors import (
    AnythrottleError,
    CostTooHigh,
    JobInterrupted,
    LimitExceeded,
    SourceInterrupted,
    ThrottleException,
)
from ._limiters.rate_limiter import RateLimiter, RateLimiterStatistics
from ._policies.policy import Cost, Decision
from ._policies.window import WindowTokenBucket

__all__ = (
    "AnythrottleError",
    "Cost",
    "CostTooHigh",
    "Decision",
    "FrontReceiveStream",
    "FrontSendStream",
    "JobInterrupted",
    "LimitExceeded",
    "Outcome",
    "RateLimiter",
    "RateLimiterStatistics",
    "SourceInterrupted",
    "ThrottleException",
    "Throttler",
    "ThrottlerStatistics",
    "WindowTokenBucket",
    "create_front_stream",
)

_logging.getLogger(__name__).addHandler(_logging.NullHandler())
