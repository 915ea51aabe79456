"""What a ``Retry-After`` header says."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import RateLimiter, ThrottleException, parse_retry_after
from tests.properties import examples

NOW = "Sat, 29 Nov 2025 14:35:40 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("1", 1),
        (" 7 ", 7),
        ("0.5", 0.5),
        ("2.0", 2),
        ("9" * 21, 1e21),
        ("9" * 5000, sys.float_info.max),
        ("Sat, 29 Nov 2025 14:36:40 GMT", 60),
        # the older forms, which are to be understood as well
        ("Saturday, 29-Nov-25 14:36:40 GMT", 60),
        ("Sat Nov 29 14:36:40 2025", 60),
        ("Sat, 29 Nov 2025 15:36:40 +0100", 60),
    ],
)
def test_a_time_to_come(text: str, seconds: float) -> None:
    assert parse_retry_after(text, utc=NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("0", "0.0", "-5", "1e3", "", "soon", "5 s", "5,5", "+5", "5.", ".5", "nan", "inf", "٣"),
        # past, or just now
        *("Sat, 29 Nov 2025 14:35:39 GMT", NOW),
        # no dates
        *("Sat, 99 Nov 2025 14:36:40 GMT", "Sat, 29 Nov 99999999999 14:36:40 GMT", "29 Nov 2025"),
    ],
)
def test_what_tells_nothing_is_logged(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "anythrottle"):
        assert parse_retry_after(text, utc=NOW) is None

    (record,) = caplog.records
    assert repr(text) in record.getMessage()


def test_by_the_answer_s_date_or_this_machine_s_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1764426900.0)
    date = "Sat, 29 Nov 2025 14:36:40 GMT"
    assert parse_retry_after(date) == 100
    assert parse_retry_after(date, utc=None) == 100
    assert parse_retry_after(date, utc="unreadable") == 100
    assert parse_retry_after(date, utc=1764426990.0) == 10
    assert parse_retry_after(date, utc=NOW) == 60
    assert parse_retry_after(date, utc=float("nan")) == 100
    assert parse_retry_after(date, utc=float("-inf")) == 100


@pytest.mark.parametrize("text", [None, 5, b"5"])
def test_what_is_no_text(text: Any) -> None:
    with pytest.raises(TypeError, match=f"text must be a str, not {text!r}"):
        parse_retry_after(text)


@examples(200)
@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, .{0,40}")))
def test_no_text_is_too_much(text: str) -> None:
    seconds = parse_retry_after(text, utc=0.0)
    assert seconds is None or 0 < seconds < float("inf")


@pytest.mark.timing
async def test_in_a_signal_and_in_one_of_a_user_s_own() -> None:
    class Own(ThrottleException):
        def __init__(self) -> None:
            self.retry_after: Any = "5"

    limiter = RateLimiter("99/s")
    signals = [ThrottleException(retry_after="3"), Own(), ThrottleException(retry_after="soon")]
    start = anyio.current_time()

    async def job() -> None:
        if signals:
            raise signals.pop(0)

    await limiter.run(job)
    assert anyio.current_time() - start == 3 + 5 + 1
