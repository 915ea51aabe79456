"""What a call costs: limits never fail open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest

from anythrottle import Cost, CostTooHigh, RateLimiter, WindowTokenBucket
from anythrottle._limiters import cost as cost_module

CALLS = WindowTokenBucket(10, 1)
MORE_CALLS = WindowTokenBucket(100, 60)
TOKENS = WindowTokenBucket(1000, 60, unit="tokens")


def amounts_of(cost: Cost, policies: Sequence[WindowTokenBucket]) -> tuple[int, ...]:
    return cost_module.amounts_of(
        cost, [policy.unit for policy in policies], [policy.limit for policy in policies]
    )


class TestAmounts:
    @pytest.mark.parametrize(
        ("cost", "amounts"),
        [
            (1, (1, 1)),
            (0, (0, 0)),
            (10, (10, 10)),
            ({}, (1, 1)),
            ({"calls": 3}, (3, 3)),
            (MappingProxyType({"calls": 0}), (0, 0)),
        ],
    )
    def test_of_calls(self, cost: Cost, amounts: tuple[int, ...]) -> None:
        assert amounts_of(cost, [CALLS, MORE_CALLS]) == amounts

    @pytest.mark.parametrize(
        ("cost", "amounts"),
        [
            ({"tokens": 850}, (1, 850)),
            ({"tokens": 0}, (1, 0)),
            ({"tokens": 5, "calls": 2}, (2, 5)),
            ({"tokens": 5, "calls": 0}, (0, 5)),
        ],
    )
    def test_of_calls_and_tokens(self, cost: Cost, amounts: tuple[int, ...]) -> None:
        assert amounts_of(cost, [CALLS, TOKENS]) == amounts

    def test_of_tokens_alone(self) -> None:
        assert amounts_of({"tokens": 5}, [TOKENS]) == (5,)

    @pytest.mark.parametrize("cost", [0, 1, {}, {"calls": 5}, {"whatever": 5}])
    def test_without_a_policy_nothing_is_counted(self, cost: Cost) -> None:
        assert amounts_of(cost, []) == ()

    @pytest.mark.parametrize(
        ("cost", "policies"),
        [
            (1, [CALLS, TOKENS]),
            ({}, [CALLS, TOKENS]),
            ({"calls": 1}, [CALLS, TOKENS]),
            ({"tokens": 1, "bytes": 1}, [CALLS, TOKENS]),
            ({"bytes": 1}, [CALLS]),
            (1, [TOKENS]),
            (0, [TOKENS]),
            ({}, [TOKENS]),
            ({"calls": 1}, [TOKENS]),
            ({"calls": 1, "tokens": 1}, [TOKENS]),
        ],
    )
    def test_a_missing_or_unknown_unit_is_refused_with_a_list_of_the_units(
        self, cost: Cost, policies: list[WindowTokenBucket]
    ) -> None:
        with pytest.raises(ValueError, match="does not fit this limiter, which counts") as raised:
            amounts_of(cost, policies)

        assert repr(cost) in str(raised.value)
        for policy in policies:
            assert repr(policy.unit) in str(raised.value)

    @pytest.mark.parametrize("cost", [1.0, 1.5, True, "1", None, ["tokens"], b"1"])
    def test_neither_int_nor_mapping(self, cost: Any) -> None:
        for policies in ([CALLS], []):
            message = "^cost must be an int or a mapping of units to ints, not "
            with pytest.raises(TypeError, match=message) as raised:
                amounts_of(cost, policies)

            assert repr(cost) in str(raised.value)

    @pytest.mark.parametrize("amount", [1.5, True, "1", None])
    def test_an_amount_that_is_no_int(self, amount: Any) -> None:
        with pytest.raises(TypeError, match=r"^cost\['tokens'\] must be an int, not "):
            amounts_of({"tokens": amount}, [CALLS, TOKENS])

    def test_a_negative_amount(self) -> None:
        with pytest.raises(ValueError, match=r"^cost must be at least 0, not -1$"):
            amounts_of(-1, [CALLS])

        with pytest.raises(ValueError, match=r"^cost\['tokens'\] must be at least 0, not -5$"):
            amounts_of({"tokens": -5}, [CALLS, TOKENS])

    def test_above_what_a_policy_could_ever_allow(self) -> None:
        with pytest.raises(CostTooHigh) as raised:
            amounts_of(11, [MORE_CALLS, CALLS])

        assert (raised.value.cost, raised.value.limit, raised.value.unit) == (11, 10, "calls")
        with pytest.raises(CostTooHigh, match="1001 tokens is above the limit of 1000"):
            amounts_of({"tokens": 1001}, [CALLS, TOKENS])

    def test_requests_are_calls(self) -> None:
        assert amounts_of({"requests": 3}, [CALLS]) == (3,)
        assert amounts_of({"tokens": 5, "req": 2}, [CALLS, TOKENS]) == (2, 5)

    def test_calls_in_two_words(self) -> None:
        with pytest.raises(ValueError, match="names calls twice"):
            amounts_of({"requests": 3, "calls": 1}, [CALLS])

    def test_any_number_of_units(self) -> None:
        cost = {f"unit-{number}": number for number in range(1000)}
        policies = [WindowTokenBucket(1000, 1, unit=unit) for unit in cost]
        assert amounts_of(cost, policies) == tuple(range(1000))

    def test_a_mapping_is_left_as_it_was(self) -> None:
        cost = {"tokens": 5}
        amounts_of(cost, [CALLS, TOKENS])
        assert cost == {"tokens": 5}


class TestLimitsNeverFailOpen:
    """Every way in has to check, the first time and ever after."""

    @pytest.mark.parametrize("cost", [1, 5, {}, {"calls": 1}, {"tokens": 1, "x": 1}])
    async def test_a_limiter_of_tokens_alone(self, cost: int | Mapping[str, int]) -> None:
        limiter = RateLimiter("100 tokens/min")
        for _ in range(2):
            with pytest.raises(ValueError, match="'tokens'"):
                await limiter.acquire(cost)

            with pytest.raises(ValueError, match="'tokens'"):
                limiter.acquire_nowait(cost)

            with pytest.raises(ValueError, match="'tokens'"):
                limiter.permit(cost)

            with pytest.raises(ValueError, match="'tokens'"):
                limiter.peek(cost)

            with pytest.raises(ValueError, match="'tokens'"):
                async with limiter:
                    pass

            # From now on the limiter knows its event loop, and has a short way for most calls.
            await limiter.acquire({"tokens": 0})

        assert limiter.peek({"tokens": 0}).remaining == 100

    async def test_too_much_is_refused_at_once_and_charges_nothing(self) -> None:
        limiter = RateLimiter("10/s", "100/h")
        for _ in range(2):
            with pytest.raises(CostTooHigh):
                await limiter.acquire(11)

            with pytest.raises(CostTooHigh):
                limiter.acquire_nowait(11)

            with pytest.raises(CostTooHigh):
                limiter.permit(11)

            with pytest.raises(CostTooHigh):
                limiter.peek(11)

            await limiter.acquire(0)

        assert limiter.statistics().tasks_waiting == 0
        limiter.acquire_nowait(10)

    @pytest.mark.parametrize("cost", [-1, 1.5, True, "1", None])
    async def test_a_wrong_cost_is_refused_at_once(self, cost: Any) -> None:
        limiter = RateLimiter("10/s")
        for _ in range(2):
            with pytest.raises((TypeError, ValueError), match=r"^cost must be"):
                await limiter.acquire(cost)

            with pytest.raises((TypeError, ValueError), match=r"^cost must be"):
                limiter.acquire_nowait(cost)

            with pytest.raises((TypeError, ValueError), match=r"^cost must be"):
                limiter.permit(cost)

            with pytest.raises((TypeError, ValueError), match=r"^cost must be"):
                limiter.peek(cost)

            await limiter.acquire(0)

        limiter.acquire_nowait(10)
