"""`first`: the first success, or all errors."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from anythrottle import (
    CostTooHigh,
    Failed,
    Finished,
    RateLimiter,
    Started,
    ThrottleException,
    first,
)
from anythrottle.abc import Event
from tests.engine.calls import Calls, Pulled, of, raising, raising_async

pytestmark = pytest.mark.timing


class TestTheWinner:
    async def test_is_an_outcome_with_its_item(self) -> None:
        calls = Calls({"a": 3, "b": 2, "c": 1}, {"c": [OSError()]})
        outcome = await first(calls, "abc", concurrency=3)
        assert (outcome.index, outcome.item, outcome.value) == (1, "b", of("b"))
        assert (outcome.attempts, outcome.waited, outcome.duration) == (1, 0, 2)
        assert outcome.error is None

    async def test_may_have_a_falsy_result(self) -> None:
        async def call(item: int) -> None:
            return None

        assert (await first(call, [7])).value is None

    async def test_ends_it_at_once_and_nothing_more_is_pulled(self) -> None:
        for make in Pulled.generator, Pulled.async_generator:
            began = anyio.current_time()
            calls = Calls({0: 100, 1: 5, 2: 100})
            pulled = Pulled(itertools.count(), calls)
            outcome = await first(calls, make(pulled), concurrency=3)
            assert outcome.item == 1
            assert anyio.current_time() == began + 5
            assert sorted(calls.cut_off, key=str) == [0, 2]
            await anyio.sleep(1000)
            assert calls.starts == [0, 1, 2]
            assert pulled.items == [0, 1, 2, 3]

    async def test_closes_an_async_generator(self) -> None:
        pulled = Pulled(itertools.count())
        await first(Calls(1), pulled.async_generator(), concurrency=2)
        assert pulled.closed == 1

    async def test_comes_though_the_source_still_lets_others_wait(self) -> None:
        async def source() -> AsyncIterator[int]:
            yield 0
            await anyio.sleep(1000)
            yield 1

        assert (await first(Calls(1), source())).item == 0
        assert anyio.current_time() == 1

    async def test_comes_though_others_wait_for_the_limiter(self) -> None:
        limiter = RateLimiter("2/1000s")
        assert (await first(Calls(1), itertools.count(), limiter=limiter)).item in {0, 1}
        assert anyio.current_time() == 1
        assert limiter.statistics().tasks_waiting == 0

    async def test_is_one_of_two_at_the_same_instant(self) -> None:
        calls = Calls(1)
        outcome = await first(calls, range(2))
        assert outcome.value == of(outcome.item)

    async def test_starts_nobody_if_it_never_waits(self) -> None:
        calls = Calls()
        assert (await first(calls, range(9))).item == 0
        assert calls.starts == [0]

    async def test_may_be_one_that_was_throttled(self) -> None:
        calls = Calls(1, {n: [ThrottleException(retry_after=5)] for n in range(2)})
        outcome = await first(calls, range(2), concurrency=1)
        assert (outcome.item, outcome.attempts, outcome.waited) == (0, 2, 5)

    async def test_a_loser_that_fails_as_it_is_cancelled_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def call(item: int) -> int:
            try:
                await anyio.sleep(1 if item == 0 else 100)
            finally:
                if item:
                    raise ValueError(f"cleanup {item}")

            return item

        assert (await first(call, range(3))).item == 0
        errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
        assert sorted(errors) == ["cleanup 1", "cleanup 2"]

    @pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
    async def test_there_is_none_after_ctrl_c_in_a_call(self, signal: type[BaseException]) -> None:
        calls = Calls({0: 1, 1: 5}, {0: [signal("mine")]})
        with pytest.raises(signal, match="mine"):
            await first(calls, range(2))

        assert calls.cut_off == [1]


class TestNoSuccess:
    async def test_is_a_group_of_all_errors_in_the_order_of_the_items(self) -> None:
        errors = [OSError(n) for n in range(4)]
        calls = Calls({n: 4 - n for n in range(4)}, {n: [errors[n]] for n in range(4)})
        with pytest.raises(ExceptionGroup) as caught:
            await first(calls, range(4))

        assert list(caught.value.exceptions) == errors
        assert anyio.current_time() == 4

    async def test_is_a_group_of_one_too(self) -> None:
        error = OSError()
        with pytest.raises(ExceptionGroup) as caught:
            await first(Calls(errors={0: [error]}), [0])

        assert caught.value.exceptions == (error,)

    async def test_has_costs_that_fail_in_it(self) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await first(
                Calls(errors={1: [KeyError()]}),
                [9, 1, 0],
                limiter="4/10s",
                cost=lambda item: item or 1 // 0,
            )

        kinds = [type(error) for error in caught.value.exceptions]
        assert kinds == [CostTooHigh, KeyError, ZeroDivisionError]

    async def test_of_no_items_is_a_value_error(self) -> None:
        sources: list[Any] = [[], iter(()), Pulled([]).async_generator()]
        for items in sources:
            with pytest.raises(ValueError, match="items must not be empty"):
                await first(Calls(), items)

    async def test_of_an_error_of_the_source_is_that_one(self) -> None:
        for make in raising, raising_async:
            error = KeyError("source")
            with pytest.raises(KeyError) as caught:
                await first(Calls(1, {0: [OSError()]}), make(error, [0]))

            assert caught.value is error

    async def test_an_error_of_the_source_lets_who_runs_succeed(self) -> None:
        for make in raising, raising_async:
            assert (await first(Calls(5), make(KeyError("source"), [0]))).item == 0


async def test_an_observer_is_told_of_winner_and_errors() -> None:
    events: list[Event] = []
    error = OSError()
    await first(Calls({0: 1, 1: 2, 2: 3}, {0: [error]}), range(3), observer=events.append)
    assert events == [
        Started(0, 0, 1, 0.0),
        Started(1, 1, 1, 0.0),
        Started(2, 2, 1, 0.0),
        Failed(0, 0, 1, 1.0, error),
        Finished(1, 1, 1, 2.0),
    ]
