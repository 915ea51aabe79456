"""The log of charges, judged by a plain list of them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle._policies.charge_log import ChargeLog
from tests.properties import examples

charges = st.lists(st.tuples(st.floats(0.0, 1e6), st.integers(1, 9)), min_size=1, max_size=200)


def test_of_a_few_it_tells_each() -> None:
    log = ChargeLog(4)
    for instant in (1.0, 2.0, 2.0, 3.0):
        log.note(instant, 5)

    assert log.entries() == [(1.0, 5), (2.0, 10), (3.0, 5)]


def test_as_many_as_are_kept_are_told_one_by_one() -> None:
    log = ChargeLog(4)
    for instant in (1.0, 2.0, 3.0, 4.0):
        log.note(instant, 5)

    assert log.entries() == [(1.0, 5), (2.0, 5), (3.0, 5), (4.0, 5)]


@examples(100)
@given(charges, st.sampled_from([4, 8, 64]))
def test_never_too_early_and_never_too_little(charged: list[tuple[float, int]], most: int) -> None:
    charged.sort()
    log = ChargeLog(most)
    for instant, amount in charged:
        log.note(instant, amount)

    told = log.entries()
    assert len(told) <= most
    assert told == sorted(told)
    assert sum(amount for _, amount in told) == sum(amount for _, amount in charged)
    for since, _ in charged:
        told_since = sum(amount for at, amount in told if at >= since)
        assert told_since >= sum(amount for at, amount in charged if at >= since)


def test_the_older_the_coarser() -> None:
    log = ChargeLog(64)
    for number in range(100_000):
        log.note(float(number), 1)

    told = log.entries()
    amounts = [amount for _, amount in told]
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[-32:] == [1] * 32
    # By no more than a part of its age is any of them off.
    for (before, _), (at, _) in pairwise(told[:-31]):
        assert at - before <= (100_000 - before) / 4


def test_only_the_older_half_grows_coarser() -> None:
    log = ChargeLog(8)
    for number in range(1, 10):
        log.note(float(number), 1)

    assert log.entries() == [(2.0, 2), (4.0, 2), *((float(number), 1) for number in range(5, 10))]


def test_the_instants_never_go_back() -> None:
    log = ChargeLog(4)
    log.note(5.0, 1)
    log.note(3.0, 2)
    assert log.entries() == [(5.0, 3)]


@pytest.mark.parametrize(
    ("amount", "since", "rest"),
    [
        (0, 0.0, [(1.0, 2), (2.0, 3)]),
        (1, 1.0, [(1.0, 1), (2.0, 3)]),
        (2, 1.0, [(2.0, 3)]),
        (4, 0.0, [(2.0, 1)]),
        (5, 0.0, []),
        (9, 0.0, []),
        (1, 1.5, [(1.0, 2), (2.0, 2)]),
        (9, 1.5, [(1.0, 2)]),
        (9, 2.5, [(1.0, 2), (2.0, 3)]),
    ],
)
def test_the_earliest_that_it_may_be_are_forgotten(
    amount: int, since: float, rest: list[tuple[float, int]]
) -> None:
    log = ChargeLog(4)
    log.note(1.0, 2)
    log.note(2.0, 3)
    log.forget(amount, since)
    assert log.entries() == rest


def test_what_is_told_is_a_copy() -> None:
    log = ChargeLog(4)
    log.note(1.0, 2)
    log.entries().clear()
    assert log.entries() == [(1.0, 2)]


@pytest.mark.parametrize("seconds", [-1e6, 0.1, 1e6])
def test_shift_rounds_up(seconds: float) -> None:
    log = ChargeLog(4)
    log.note(0.3, 2)
    log.shift(seconds)
    [(instant, amount)] = log.entries()
    assert instant > 0.3 + seconds
    assert instant == pytest.approx(0.3 + seconds)
    assert amount == 2
