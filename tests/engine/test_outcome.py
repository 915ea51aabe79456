"""Outcome: what became of one job."""

import pickle
from copy import copy
from dataclasses import FrozenInstanceError, replace

import pytest

from anythrottle import Outcome, amap_outcomes


def test_the_value_of_one_that_succeeded() -> None:
    outcome = Outcome(3, "item", 0, None, 1, 0.5, 2.0)
    assert outcome.value == 0
    assert (outcome.index, outcome.item, outcome.attempts) == (3, "item", 1)
    assert (outcome.waited, outcome.duration) == (0.5, 2.0)


def test_none_is_a_value() -> None:
    outcome: Outcome[str, None] = Outcome(0, "item", None, None, 1, 0.0, 0.0)
    outcome.value  # noqa: B018 - it raises nothing
    assert outcome.error is None


def test_the_value_of_one_that_failed_raises_its_own_error() -> None:
    error = KeyError("mine")
    outcome: Outcome[str, int] = Outcome(0, "item", None, error, 1, 0.0, 0.0)
    with pytest.raises(KeyError) as caught:
        outcome.value  # noqa: B018 - it raises

    assert caught.value is error


def test_it_is_frozen_and_has_no_other_attributes() -> None:
    outcome = Outcome(0, "item", 1, None, 1, 0.0, 0.0)
    with pytest.raises(FrozenInstanceError):
        outcome.index = 1  # type: ignore[misc]

    assert not hasattr(outcome, "__dict__")


def test_equal_by_value() -> None:
    assert Outcome(0, "a", 1, None, 1, 0.0, 0.0) == Outcome(0, "a", 1, None, 1, 0.0, 0.0)
    assert Outcome(0, "a", 1, None, 1, 0.0, 0.0) != Outcome(1, "a", 1, None, 1, 0.0, 0.0)


async def test_those_of_the_engine_are_no_others() -> None:
    async def fail_at_1(item: int) -> str:
        if item == 1:
            raise KeyError

        return f"of {item}"

    async with amap_outcomes(fail_at_1, [0, 1], ordered=True) as outcomes:
        succeeded, failed = [outcome async for outcome in outcomes]

    assert type(succeeded) is type(failed) is Outcome
    assert succeeded == Outcome(0, 0, "of 0", None, 1, 0.0, succeeded.duration)
    assert failed == Outcome(1, 1, None, failed.error, 1, 0.0, failed.duration)
    assert isinstance(failed.error, KeyError)
    assert copy(succeeded) == pickle.loads(pickle.dumps(succeeded)) == succeeded  # noqa: S301
    assert replace(succeeded, index=3).index == 3
    with pytest.raises(FrozenInstanceError):
        succeeded.index = 1  # type: ignore[misc]

    assert not hasattr(succeeded, "__dict__")
