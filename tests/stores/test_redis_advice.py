"""What is said of an error, and of what has caused it."""

from __future__ import annotations

from anythrottle.stores.redis_advice import fault


def test_the_first_cause_is_told_and_none_between() -> None:
    error = ConnectionError("Unable to establish a connection to h:1")
    error.__cause__ = OSError("All attempts failed")
    refused = [ConnectionRefusedError("refused by one"), ConnectionRefusedError("by another")]
    error.__cause__.__cause__ = ExceptionGroup("several", refused)
    told = fault("api", error, "mine")
    assert told.reason.startswith("Unable to establish a connection to h:1: by another; see that")
    assert not told.is_mistake


def test_a_cause_without_words_is_not_told() -> None:
    error = ConnectionError("lost")
    error.__cause__ = EOFError()
    assert fault("api", error, "mine").reason == "lost; see that it runs"
    assert fault("api", ValueError(), "mine").reason == "ValueError"
