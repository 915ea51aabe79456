"""Slots: a limiter's own, those of a capacity limiter, and what holds them when they change."""

from __future__ import annotations

import math

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle._limiters.slots import Slot, Slots
from anythrottle._limiters.turn import Turn
from anythrottle.testing import wait_idle
from tests.properties import examples


def turn() -> Turn:
    return Turn(1, (), ends=True)


def taken(slots: Slots, number: int) -> list[Turn]:
    """Let so many turns hold a slot each."""
    turns = [turn() for _ in range(number)]
    for each in turns:
        assert slots.take(each)

    return turns


def without(slots: Slots) -> list[Turn]:
    """Return the holders for whom there is no slot."""
    return [each for each in slots.holders if each.slot is None]


class TestWithoutABound:
    def test_there_are_as_many_as_are_asked_for(self) -> None:
        slots = Slots()
        assert (slots.total, slots.bounded) == (math.inf, False)
        turns = taken(slots, 100)
        assert list(slots.holders) == turns
        assert slots.may_have_one()
        assert not slots.none_left()
        assert not slots.none_behind(10**6)

    def test_bounds_may_come_and_go(self) -> None:
        slots = Slots()
        first, second = taken(slots, 2)
        slots.resize(1, None)
        assert slots.bounded
        assert not slots.may_have_one()
        slots.let_go(first)
        slots.let_go(second)
        assert slots.may_have_one()
        slots.resize(math.inf, None)
        assert not slots.bounded


class TestOwn:
    def test_one_is_held_until_it_is_let_go(self) -> None:
        slots = Slots(2)
        assert (slots.total, slots.bounded) == (2, True)
        first, second = taken(slots, 2)
        assert first.granted
        assert first.slot is None
        assert not slots.may_have_one()
        assert slots.none_left()
        slots.let_go(first)
        assert not first.granted
        assert slots.may_have_one()
        assert not slots.none_left()
        assert list(slots.holders) == [second]

    def test_to_let_go_twice_is_as_once(self) -> None:
        slots = Slots(2)
        first, _ = taken(slots, 2)
        slots.let_go(first)
        slots.let_go(first)
        assert len(slots.holders) == 1

    def test_what_is_left_behind_others(self) -> None:
        slots = Slots(3)
        taken(slots, 1)
        assert [slots.none_behind(ahead) for ahead in range(4)] == [False, False, True, True]

    def test_fewer_than_are_held(self) -> None:
        slots = Slots(3)
        turns = taken(slots, 3)
        slots.resize(1, None)
        assert slots.total == 1
        for each in turns[:2]:
            assert not slots.may_have_one()
            slots.let_go(each)

        assert not slots.may_have_one(), "the last one holds the only slot"
        slots.let_go(turns[2])
        assert slots.may_have_one()

    def test_none_at_all(self) -> None:
        slots = Slots(0)
        assert not slots.may_have_one()
        assert slots.none_behind(0)

    def test_one_that_is_kept_is_held_by_another_turn(self) -> None:
        slots = Slots(1)
        (first,) = taken(slots, 1)
        kept = slots.keep(first)
        assert list(slots.holders) == [kept]
        assert (first.granted, kept.granted) == (False, True)
        slots.let_go(first)
        assert not slots.may_have_one()
        slots.let_go(kept)
        assert slots.may_have_one()

    def test_nothing_is_held_any_more_in_another_loop(self) -> None:
        slots = Slots(1)
        taken(slots, 1)
        slots.forget_holders()
        assert not slots.holders
        assert slots.may_have_one()


class TestShared:
    async def test_what_is_left_behind_others(self) -> None:
        slots = Slots(shared=anyio.CapacityLimiter(3))
        taken(slots, 1)
        assert [slots.none_behind(ahead) for ahead in range(4)] == [False, False, True, True]

    async def test_each_turn_borrows_on_behalf_of_a_fresh_object(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        slots = Slots(shared=capacity)
        assert (slots.total, slots.bounded) == (2, True)
        first, second = taken(slots, 2)
        assert isinstance(first.slot, Slot)
        assert first.slot.capacity is capacity
        assert first.slot is not second.slot
        assert set(capacity.statistics().borrowers) == {first.slot, second.slot}
        third = turn()
        assert slots.may_have_one(), "that is not known before it is tried"
        assert not slots.take(third)
        assert not third.granted
        assert third not in slots.holders
        slots.let_go(first)
        assert first.slot is None
        assert slots.take(third)
        assert capacity.borrowed_tokens == 2

    async def test_what_is_left(self) -> None:
        capacity = anyio.CapacityLimiter(3)
        slots = Slots(shared=capacity)
        capacity.acquire_on_behalf_of_nowait(object())
        taken(slots, 1)
        assert not slots.none_left()
        assert not slots.none_behind(0)
        assert slots.none_behind(1)
        assert slots.may_have_one(), "that is the capacity limiter's own business"
        taken(slots, 1)
        assert slots.none_left()
        assert slots.none_behind(0)

    async def test_others_may_wait_for_them_too(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        slots = Slots(shared=capacity)
        outsider = object()
        capacity.acquire_on_behalf_of_nowait(outsider)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(capacity.acquire_on_behalf_of, object())
            await wait_idle()
            assert slots.none_left()
            capacity.total_tokens = 3
            await wait_idle()
            assert not slots.none_left()
            assert slots.none_behind(1)

    async def test_a_spare_one_is_taken_instead_of_another(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        slots = Slots(shared=capacity)
        spare = Slot(capacity)
        capacity.acquire_on_behalf_of_nowait(spare)
        first = turn()
        assert slots.take(first, spare)
        assert first.slot is spare
        slots.let_go(first)
        assert capacity.borrowed_tokens == 0

    async def test_a_spare_one_that_nobody_takes_goes_back(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        slots = Slots(shared=capacity)
        spare = Slot(capacity)
        capacity.acquire_on_behalf_of_nowait(spare)
        assert slots.hand_on(spare) is spare
        slots.give_back(spare)
        assert capacity.borrowed_tokens == 0

    async def test_one_that_is_kept_is_held_by_another_turn(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        slots = Slots(shared=capacity)
        (first,) = taken(slots, 1)
        borrowed = first.slot
        kept = slots.keep(first)
        assert kept.slot is borrowed
        slots.let_go(first)
        assert capacity.borrowed_tokens == 1
        slots.let_go(kept)
        assert capacity.borrowed_tokens == 0

    async def test_nothing_is_held_any_more_in_another_loop(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        slots = Slots(shared=capacity)
        taken(slots, 2)
        slots.forget_holders()
        assert capacity.borrowed_tokens == 0
        assert not slots.holders


class TestExchanged:
    """Holders hold one of the new slots, as far as there are enough."""

    async def test_own_ones_for_shared_ones(self) -> None:
        slots = Slots(2)
        first, second = taken(slots, 2)
        capacity = anyio.CapacityLimiter(3)
        slots.resize(math.inf, capacity)
        assert set(capacity.statistics().borrowers) == {first.slot, second.slot}

    async def test_too_few_of_them(self) -> None:
        slots = Slots(3)
        turns = taken(slots, 3)
        capacity = anyio.CapacityLimiter(1)
        slots.resize(math.inf, capacity)
        assert capacity.borrowed_tokens == 1
        assert len(without(slots)) == 2
        assert not slots.take(turn()), "those that run already come first"
        with_one = next(each for each in turns if each.slot is not None)
        slots.let_go(with_one)
        assert len(without(slots)) == 1, "it goes to one that has none"
        assert capacity.borrowed_tokens == 1

    async def test_a_holder_without_one_may_be_kept(self) -> None:
        slots = Slots(2)
        taken(slots, 2)
        capacity = anyio.CapacityLimiter(1)
        slots.resize(math.inf, capacity)
        (lacking,) = without(slots)
        kept = slots.keep(lacking)
        (with_one,) = (each for each in slots.holders if each.slot is not None)
        slots.let_go(with_one)
        assert kept.slot is not None

    async def test_a_spare_one_is_handed_on_to_a_holder_without(self) -> None:
        slots = Slots(2)
        taken(slots, 2)
        capacity = anyio.CapacityLimiter(1)
        slots.resize(math.inf, capacity)
        capacity.total_tokens = 2
        spare = Slot(capacity)
        capacity.acquire_on_behalf_of_nowait(spare)
        assert slots.hand_on(spare) is None
        assert not without(slots)

    async def test_more_that_come_later_are_for_holders_first(self) -> None:
        slots = Slots(2)
        taken(slots, 2)
        capacity = anyio.CapacityLimiter(1)
        slots.resize(math.inf, capacity)
        capacity.total_tokens = 2
        assert not slots.take(turn())
        assert not without(slots)

    async def test_shared_ones_for_others(self) -> None:
        before, after = anyio.CapacityLimiter(2), anyio.CapacityLimiter(2)
        slots = Slots(shared=before)
        taken(slots, 2)
        slots.resize(math.inf, after)
        assert (before.borrowed_tokens, after.borrowed_tokens) == (0, 2)

    async def test_shared_ones_for_own_ones(self) -> None:
        capacity = anyio.CapacityLimiter(2)
        slots = Slots(shared=capacity)
        taken(slots, 2)
        slots.resize(2, None)
        assert capacity.borrowed_tokens == 0
        assert not slots.may_have_one()

    async def test_the_same_again(self) -> None:
        capacity = anyio.CapacityLimiter(1)
        slots = Slots(shared=capacity)
        (first,) = taken(slots, 1)
        borrowed = first.slot
        slots.resize(math.inf, capacity)
        assert first.slot is borrowed


VERBS = ["take", "let go", "keep", "own", "shared", "other", "outsider", "give"]


@examples(60)
@given(st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 3)), max_size=30))
async def test_no_capacity_limiter_is_forgotten_whatever_happens(
    script: list[tuple[str, int]],
) -> None:
    capacities = {"shared": anyio.CapacityLimiter(2), "other": anyio.CapacityLimiter(3)}
    outsiders: list[object] = []
    slots = Slots(2)
    for verb, number in script:
        holders = list(slots.holders)
        if verb == "take" and slots.may_have_one():
            slots.take(turn())
        elif verb == "own":
            slots.resize(number, None)
        elif verb in capacities:
            slots.resize(math.inf, capacities[verb])
        elif verb in ("let go", "keep") and number < len(holders):
            (slots.keep if verb == "keep" else slots.let_go)(holders[number])
        elif verb == "outsider" and capacities["shared"].available_tokens > 0:
            outsiders.append(object())
            capacities["shared"].acquire_on_behalf_of_nowait(outsiders[-1])
        elif verb == "give" and outsiders:
            capacities["shared"].release_on_behalf_of(outsiders.pop())

        for name, capacity in capacities.items():
            borrowers = {each.slot for each in slots.holders if each.slot is not None}
            ours = borrowers if capacity is slots.shared else set()
            others = set(outsiders) if name == "shared" else set()
            assert set(capacity.statistics().borrowers) == ours | others

        assert all(each.granted for each in slots.holders)

    for holder in list(slots.holders):
        slots.let_go(holder)

    assert not slots.holders
    assert capacities["shared"].borrowed_tokens == len(outsiders)
    assert capacities["other"].borrowed_tokens == 0


async def test_the_total_of_shared_ones_is_asked_for_each_time() -> None:
    capacity = anyio.CapacityLimiter(2)
    slots = Slots(shared=capacity)
    capacity.total_tokens = 5
    assert slots.total == 5


async def test_a_capacity_limiter_of_the_users_must_have_lent_what_goes_back() -> None:
    slots = Slots(shared=anyio.CapacityLimiter(1))
    with pytest.raises(RuntimeError):
        slots.give_back(object())
