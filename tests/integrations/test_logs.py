"""The observer that writes to a log: which line, at which level, of which event."""

from __future__ import annotations

import logging
from math import inf
from typing import Any, get_args

import anyio
import pytest

from anythrottle import (
    Abandoned,
    Decision,
    Ended,
    Failed,
    Finished,
    Granted,
    LeaseExpired,
    Paused,
    RateLimiter,
    Reconfigured,
    Refused,
    Resumed,
    Retried,
    Settled,
    Started,
    StoreBack,
    StoreLost,
    Throttled,
    Throttler,
    Tightened,
    WindowTokenBucket,
)
from anythrottle.abc import Event
from anythrottle.integrations.logs import LoggingObserver

ERROR = ValueError("mine")
SECRET = {"password": "secret"}

LINES: list[tuple[Event, str, str]] = [
    (Granted("a", 1, 0.0), "DEBUG", "limiter 'a': granted 1 call after 0 s"),
    (
        Granted(None, {"calls": 1, "tokens": 850}, 1.23456),
        "DEBUG",
        "limiter: granted 1 calls, 850 tokens after 1.23 s",
    ),
    (
        Refused("a", 2, Decision(False, "rate", 1.5, 0, 1.5, 1, None)),
        "INFO",
        "limiter 'a': refused 2 calls: rate, could go in 1.5 s",
    ),
    (
        Refused("a", {}, Decision(False, "pause", inf, 0, inf, 1, None)),
        "INFO",
        "limiter 'a': refused nothing: pause, could go in inf s",
    ),
    (Abandoned("a", 1, 2.5), "DEBUG", "limiter 'a': abandoned 1 call after 2.5 s"),
    (Paused("a", 60.0), "WARNING", "limiter 'a': paused for 60 s"),
    (Paused("a", inf), "WARNING", "limiter 'a': paused"),
    (Resumed("a"), "INFO", "limiter 'a': resumed"),
    (
        Settled("a", {"tokens": 850}, {"tokens": 700}),
        "DEBUG",
        "limiter 'a': settled 700 tokens, not 850 tokens",
    ),
    (Tightened("a", "calls", 3, None), "DEBUG", "limiter 'a': tightened to 3 calls"),
    (Tightened("a", "calls", 3, 7.5), "DEBUG", "limiter 'a': tightened to 3 calls within 7.5 s"),
    (
        Reconfigured("a", (WindowTokenBucket(20, 10),)),
        "INFO",
        f"limiter 'a': goes on with {WindowTokenBucket(20, 10)!r}",
    ),
    (Reconfigured("a", ()), "INFO", "limiter 'a': goes on with no policy"),
    (Ended("a", 2.5), "DEBUG", "limiter 'a': ended after 2.5 s"),
    (
        StoreLost("a", ERROR),
        "WARNING",
        "limiter 'a': the store does not serve it: ValueError('mine')",
    ),
    (StoreBack("a", 20.0), "INFO", "limiter 'a': the store answers again, after 20 s"),
    (LeaseExpired("a", 3), "WARNING", "limiter 'a': the lease of 3 calls is over"),
    (
        Throttled("a", None, 2, ERROR),
        "WARNING",
        "limiter 'a': was throttled in attempt 2: ValueError('mine')",
    ),
    (
        Throttled(None, 0, 2, ERROR, SECRET),
        "WARNING",
        "job 0: was throttled in attempt 2: ValueError('mine')",
    ),
    (Started(7, SECRET, 2, 1.5), "DEBUG", "job 7: started, attempt 2, after 1.5 s in line"),
    (
        Retried(7, SECRET, 1, 2.0, ERROR),
        "WARNING",
        "job 7: failed in attempt 1, goes again in 2 s: ValueError('mine')",
    ),
    (Finished(7, SECRET, 2, 1.5), "DEBUG", "job 7: done in attempt 2, after 1.5 s"),
    (
        Failed(7, SECRET, 2, 1.5, ERROR),
        "ERROR",
        "job 7: failed in attempt 2, after 1.5 s: ValueError('mine')",
    ),
]


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level("DEBUG")
    return logging.getLogger("tests.limits")


@pytest.mark.parametrize(("event", "level", "text"), LINES, ids=[line for _, _, line in LINES])
def test_the_line_of_an_event(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, event: Event, level: str, text: str
) -> None:
    LoggingObserver(logger)(event)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("tests.limits", level)
    assert record.getMessage() == text
    assert "secret" not in record.getMessage()


def test_all_events_have_a_line() -> None:
    assert {type(event) for event, _, _ in LINES} == set(get_args(Event))


@pytest.mark.parametrize("level", ["INFO", "WARNING", "ERROR", "CRITICAL"])
def test_what_is_below_the_level_is_not_written(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    caplog.set_level(level)
    observer = LoggingObserver(logger)
    for event, _, _ in LINES:
        observer(event)

    least = logging.getLevelNamesMapping()[level]
    expected = [text for _, level, text in LINES if logging.getLevelNamesMapping()[level] >= least]
    assert [record.getMessage() for record in caplog.records] == expected


def test_the_default_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "anythrottle")
    observer = LoggingObserver()
    observer(Paused("a", 60.0))
    (record,) = caplog.records
    assert record.name == "anythrottle.events"
    assert repr(observer) == "<LoggingObserver 'anythrottle.events'>"


@pytest.mark.parametrize(
    "event", [StoreLost("a", ERROR), StoreBack("a", 2.0), LeaseExpired("a", 3)]
)
def test_what_the_library_logs_anyhow_is_not_told_twice(
    caplog: pytest.LogCaptureFixture, event: Event
) -> None:
    caplog.set_level("DEBUG", "anythrottle")
    LoggingObserver()(event)
    (record,) = caplog.records
    assert record.levelname == "DEBUG"


def test_names_cannot_begin_a_line(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    LoggingObserver(logger)(Resumed("a\nERROR all is lost %s"))
    (record,) = caplog.records
    assert record.getMessage() == r"limiter 'a\nERROR all is lost %s': resumed"


@pytest.mark.timing
async def test_a_limiter_and_its_jobs(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    observer = LoggingObserver(logger)
    limiter = RateLimiter("1/10s", concurrency=1, name="a", observer=observer)

    async def job() -> None:
        await anyio.sleep(1)

    await Throttler([job, job], limiter=limiter, observer=observer).run()

    assert [record.getMessage() for record in caplog.records if record.name == logger.name] == [
        "limiter 'a': granted 1 call after 0 s",
        "job 0: started, attempt 1, after 0 s in line",
        "job 0: done in attempt 1, after 1 s",
        "limiter 'a': ended after 1 s",
        "limiter 'a': granted 1 call after 10 s",
        "job 1: started, attempt 1, after 10 s in line",
        "job 1: done in attempt 1, after 1 s",
        "limiter 'a': ended after 1 s",
    ]


@pytest.mark.timing
async def test_a_handler_that_fails_is_no_matter_of_a_call(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    handler = Broken()
    logger.addHandler(handler)
    try:
        limiter = RateLimiter("9/s", concurrency=1, observer=LoggingObserver(logger))
        async with limiter:
            assert limiter.statistics().borrowed_tokens == 1
    finally:
        logger.removeHandler(handler)

    assert limiter.statistics().borrowed_tokens == 0


@pytest.mark.parametrize("logger", ["anythrottle", 5, logging.Logger, logging], ids=repr)
def test_what_is_no_logger(logger: Any) -> None:
    with pytest.raises(TypeError) as caught:
        LoggingObserver(logger)

    assert str(caught.value) == f"logger must be a logging.Logger, not {logger!r}"
