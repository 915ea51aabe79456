"""An outage that hits all limiters is a line or two of the log."""

from __future__ import annotations

import logging

import pytest

from anythrottle import StoreError
from anythrottle.stores.reports import Reports


def wrapped(name: str, cause: Exception) -> StoreError:
    error = StoreError(name, str(cause))
    error.__cause__ = cause
    return error


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "anythrottle")
    return caplog


def test_the_first_one_is_named(log: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    for name in ("a", "b", "c"):
        reports.note_lost(wrapped(name, TimeoutError("no answer")))

    assert len(log.messages) == 1
    assert log.messages[0].startswith(
        "limiter 'a': the store does not serve it: no answer; of others"
    )


def test_something_else_is_told_of_too(log: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    reports.note_lost(wrapped("a", TimeoutError("no answer")))
    reports.note_lost(wrapped("b", PermissionError("wrong password")))
    reports.note_lost(wrapped("c", PermissionError("wrong password")))
    assert len(log.messages) == 2
    assert "limiter 'b'" in log.messages[1]


def test_it_is_said_when_all_are_back(log: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    for _ in range(2):
        for name in ("a", "b"):
            reports.note_lost(wrapped(name, TimeoutError("no answer")))

        for name in ("a", "b"):
            reports.note_back(name)

    assert len(log.messages) == 4
    assert log.messages[1] == (
        "limiter 'b': the store answers again, as it does all 2 that it did not"
    )
    assert log.messages[2].startswith("limiter 'a': the store does not serve it")


def test_of_one_that_is_back_no_number_is_said(log: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    reports.note_lost(wrapped("a", TimeoutError("no answer")))
    reports.note_back("a")
    assert log.messages[1] == "limiter 'a': the store answers again"


def test_those_who_were_not_heard_at_the_end_are_counted(log: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    for name in ("a", "b"):
        reports.note_unheard(name, TimeoutError("no answer"))

    assert not log.messages
    reports.close()
    reports.close()
    assert len(log.messages) == 1
    assert log.messages[0].startswith(
        "limiter 'a': the store was left unheard, by 2 in all: TimeoutError"
    )
