"""
`amap` and its kin, cut off at each suspension that they have: nothing hangs, and nothing is kept.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest

from anythrottle import RateLimiter, ThrottleException, amap, amap_outcomes, first, for_each
from anythrottle._engine.outcome_feed import OutcomeFeed
from anythrottle._engine.source_reader import SourceReader
from anythrottle._engine.workers import WorkerPool
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.conftest import Run
from tests.engine.calls import Calls, Pulled
from tests.engine.diary import doubled
from tests.sweep import Strike, striker, sweep

#: All that is awaited: the pool's tasks, and whoever takes outcomes.
AWAITED: list[tuple[type, str]] = [
    (WorkerPool, "_work"),
    (SourceReader, "pull"),
    (OutcomeFeed, "__anext__"),
]

#: Runs a coroutine function, lets the strike cut it off, and tells whether it did.
How: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, object]], Strike], Awaitable[bool]]


@pytest.fixture
def strike_pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[Strike], None]:
    """Count the suspensions for a strike, from the next run on."""
    return striker(monkeypatch, AWAITED)


class Scenario:
    """A function called for items of all kinds, and the stock-taking afterwards."""

    def __init__(self, source: str, function: str) -> None:
        self.function = function
        errors: dict[object, list[BaseException]] = {1: [ThrottleException(retry_after=2)]}
        if function.startswith("outcomes") or function == "leave":
            errors[3] = [ValueError("fails")]
        elif function == "first":
            errors |= {n: [ValueError("fails")] for n in range(5) if n != 1}

        self.calls = Calls({0: 1, 1: 1, 3: 2, 4: 9, 5: 1}, errors)
        self.pulled = Pulled(range(7))
        self.limiter = RateLimiter("3/5s", concurrency=3)
        self.capacity = anyio.CapacityLimiter(2)
        self.open_calls = 0
        self.begun = False
        self.clean_ups: list[str] = []
        self.done: object = None
        self._items: Any = range(7)
        if source == "async":
            self._items = self.slowly()
        elif source == "generator":
            self._items = self.pulled.generator()

    async def slowly(self) -> AsyncIterator[object]:
        self.begun = True
        generator = self.pulled.async_generator()
        try:
            async for item in generator:
                await anyio.sleep(0.5)
                yield item
        finally:
            try:
                await anyio.sleep(0.5)
                self.clean_ups.append("done")
            except anyio.get_cancelled_exc_class():
                self.clean_ups.append("cut off")
                raise
            finally:
                await generator.aclose()  # type: ignore[attr-defined]

    async def call(self, item: object) -> object:
        self.open_calls += 1
        try:
            return await self.calls(item)
        finally:
            self.open_calls -= 1

    async def run(self) -> None:
        options: dict[str, Any] = {"limiter": self.limiter, "concurrency": self.capacity}
        if self.function == "amap":
            self.done = len(await amap(self.call, self._items, **options))
        elif self.function == "first":
            self.done = (await first(self.call, self._items, **options)).index >= 0
        elif self.function == "leave":
            async with amap_outcomes(self.call, self._items, **options) as outcomes:
                async for outcome in outcomes:
                    self.done = outcome.index >= 0
                    break
        else:
            ordered = self.function == "outcomes in order"
            found: list[object] = []
            async with amap_outcomes(
                self.call, self._items, ordered=ordered, **options
            ) as outcomes:
                found.extend([outcome.index async for outcome in outcomes])

            assert doubled(found) == []
            self.done = len(found)

    def check(self, when: str, *, was_cut_off: bool) -> None:
        # What was cancelled never returns as if it were done.
        early = self.function in ("first", "leave")
        assert was_cut_off or self.done == (True if early else 7), when
        self.check_closed(when, was_cut_off=was_cut_off)
        assert self.open_calls == 0, when
        assert self.calls.diary.running == 0, when
        assert self.calls.diary.most_running <= 2, when
        assert self.capacity.borrowed_tokens == 0, when
        assert self.capacity.statistics().tasks_waiting == 0, when
        statistics = self.limiter.statistics()
        assert (statistics.borrowed_tokens, statistics.tasks_waiting) == (0, 0), when
        starts = len(self.calls.starts)
        assert (
            len(self.calls.ends) + len(self.calls.cut_off) + len(self.calls.diary.who("raise"))
            == starts
        ), when
        # One that was pulled may be ahead, and may not have started.
        assert len(self.pulled.items) <= 7, when

    def check_closed(self, when: str, *, was_cut_off: bool) -> None:
        """Check that an async generator was closed by the engine, and not by the event loop."""
        if self.begun:
            assert self._items.ag_frame is None, when
            assert len(self.clean_ups) == 1, when
            # Else a step may have been under way, and the clean-up is a part of that.
            if not was_cut_off and self.function not in ("first", "leave"):
                assert self.clean_ups == ["done"], when

    async def cut_off(self, how: How, strike: Strike) -> None:
        when = f"struck at {strike._number}"
        with anyio.fail_after(10_000):
            was_cut_off = await how(self.run, strike)

        self.check(when, was_cut_off=was_cut_off)
        strike.blow = lambda: None
        before = list(self.calls.starts), list(self.pulled.items)
        await anyio.sleep(100)
        assert (self.calls.starts, self.pulled.items) == before, when
        # And what was shared can be used on.
        with anyio.fail_after(100):
            again = Calls(1)
            await amap(again, range(3), limiter=self.limiter, concurrency=self.capacity)


async def by_scope(run: Callable[[], Coroutine[Any, Any, object]], strike: Strike) -> bool:
    with anyio.CancelScope() as scope:
        strike.blow = scope.cancel
        await run()
        return False

    return True


async def by_outer_scope(run: Callable[[], Coroutine[Any, Any, object]], strike: Strike) -> bool:
    ended = False

    async def run_to_its_end() -> None:
        nonlocal ended
        await run()
        ended = True

    async with anyio.create_task_group() as task_group:
        strike.blow = task_group.cancel_scope.cancel
        task_group.start_soon(run_to_its_end)

    return not ended


async def natively(run: Callable[[], Coroutine[Any, Any, object]], strike: Strike) -> bool:
    task = asyncio.create_task(run())
    strike.blow = task.cancel
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()

    return task.cancelled()


async def twice_natively(run: Callable[[], Coroutine[Any, Any, object]], strike: Strike) -> bool:
    """Whoever is impatient cancels again while all winds down."""
    task = asyncio.create_task(run())

    def blow() -> None:
        task.cancel()
        asyncio.get_running_loop().call_soon(task.cancel)

    strike.blow = blow
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()

    return task.cancelled()


async def by_teardown(run: Callable[[], Coroutine[Any, Any, object]], strike: Strike) -> bool:
    """Cancel every task at once, as asyncio.run() does at its end."""
    task = asyncio.create_task(run())
    here = asyncio.current_task()
    strike.blow = lambda: [each.cancel() for each in asyncio.all_tasks() if each is not here]
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()

    return task.cancelled()


def run_on_asyncio(main: Callable[..., Awaitable[object]], *args: object) -> None:
    anyio.run(main, *args, backend_options={"loop_factory": VirtualEventLoop})


functions = pytest.mark.parametrize(
    "function", ["amap", "first", "outcomes in order", "outcomes", "leave"]
)


@functions
class TestSweep:
    @pytest.mark.untraced
    @pytest.mark.parametrize("source", ["sequence", "async"])
    @pytest.mark.parametrize("how", [by_scope, by_outer_scope])
    def test_by_scopes(
        self,
        run: Run,
        strike_pool: Callable[[Strike], None],
        function: str,
        source: str,
        how: How,
    ) -> None:
        async def main(strike: Strike) -> None:
            await Scenario(source, function).cut_off(how, strike)

        for strike in sweep():
            strike_pool(strike)
            run(main, strike)

        gc.collect()

    @pytest.mark.untraced
    @pytest.mark.parametrize("source", ["sequence", "async"])
    @pytest.mark.parametrize("woken", [False, True])
    @pytest.mark.parametrize("how", [natively, twice_natively, by_teardown])
    # AnyIO starts a task of its own around each: asyncio cancels that before the first step.
    @pytest.mark.filterwarnings("ignore:coroutine '.*wrapper' was never awaited")
    def test_natively(
        self,
        strike_pool: Callable[[Strike], None],
        function: str,
        source: str,
        how: How,
        *,
        woken: bool,
    ) -> None:
        async def main(strike: Strike) -> None:
            await Scenario(source, function).cut_off(how, strike)

        for strike in sweep(when_woken=woken):
            strike_pool(strike)
            run_on_asyncio(main, strike)

        gc.collect()


class TestLeavingAtAnyTime:
    """The strike is a break: the block is left at each point that it can be left at."""

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("source", ["sequence", "generator", "async"])
    def test_after_any_number_of_outcomes_and_any_time(
        self, run: Run, source: str, *, ordered: bool
    ) -> None:
        async def main(taken: int, wait: float) -> None:
            scenario = Scenario(source, "outcomes")
            found: list[object] = []
            with anyio.fail_after(10_000):
                async with amap_outcomes(
                    scenario.call,
                    scenario._items,
                    limiter=scenario.limiter,
                    concurrency=scenario.capacity,
                    ordered=ordered,
                ) as outcomes:
                    while len(found) < taken:
                        found.append((await anext(outcomes)).index)

                    await anyio.sleep(wait)

            scenario.check(f"left after {taken} and {wait} s", was_cut_off=True)
            before = list(scenario.calls.starts), list(scenario.pulled.items)
            await anyio.sleep(100)
            assert (scenario.calls.starts, scenario.pulled.items) == before

        for taken, wait in itertools.product(range(0, 8, 2), (0, 0.5, 1, 3)):
            run(main, taken, wait)

        gc.collect()


@pytest.mark.timing
class TestOneByOne:
    async def test_cancelled_before_it_began(self) -> None:
        for function in amap, for_each, first:
            calls, pulled = Calls(1), Pulled(range(3))
            with anyio.CancelScope() as scope:
                scope.cancel()
                await function(calls, pulled.async_generator())

            assert scope.cancelled_caught
            assert calls.starts == []

    async def test_cancelled_from_inside_a_call(self) -> None:
        ended = False
        scope = anyio.CancelScope()

        async def call(item: int) -> int:
            scope.cancel()
            await anyio.sleep(0)
            return item

        with scope:
            await amap(call, range(3), concurrency=1)
            ended = True

        assert scope.cancelled_caught
        assert not ended

    async def test_cancelled_while_calls_never_wait(self) -> None:
        calls = 0
        scope = anyio.CancelScope()

        async def call(item: int) -> None:
            nonlocal calls
            calls += 1
            if calls == 100:
                scope.cancel()

        with scope:
            await for_each(call, itertools.count(), concurrency=2)

        assert scope.cancelled_caught
        assert calls <= 200

    @pytest.mark.parametrize("function", [amap, for_each, first])
    async def test_whose_tasks_were_all_cancelled_before_it_does_not_return(
        self,
        monkeypatch: pytest.MonkeyPatch,
        function: Callable[..., Awaitable[object]],
    ) -> None:
        """A task group without tasks raises no cancellation that is pending."""
        ended = False
        with anyio.CancelScope() as scope:

            def die_at_once(self: WorkerPool[object, object], *task_groups: object) -> None:
                scope.cancel()

            monkeypatch.setattr(WorkerPool, "begin", die_at_once)
            await function(Calls(1), range(3))
            ended = True

        assert scope.cancelled_caught
        assert not ended

    async def test_a_cancelled_amap_in_a_task_that_goes_on(self) -> None:
        """A deadline on the inside is no error on the outside."""
        calls = Calls(2)
        with anyio.move_on_after(5) as scope:
            await amap(calls, range(9), concurrency=1)

        assert scope.cancelled_caught
        assert await amap(calls, [1], concurrency=1)

    async def test_an_error_of_a_call_that_comes_with_a_cancellation_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def call(item: int) -> None:
            try:
                await anyio.sleep(100)
            finally:
                raise ValueError("cleanup")

        with anyio.move_on_after(1) as scope:
            await amap(call, [0])

        assert scope.cancelled_caught
        errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
        assert errors == ["cleanup"]

    async def test_a_generator_that_fails_when_it_is_closed_does_not_hide_the_first_error(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def source() -> AsyncIterator[int]:
            try:
                for item in range(9):
                    yield item
            finally:
                raise ValueError("cleanup")

        error = KeyError("first")
        with pytest.raises(KeyError) as caught:
            await amap(Calls(1, {0: [error]}), source(), concurrency=1)

        assert caught.value is error
        assert error.__notes__ == [
            "While the run ended because of this, another error: ValueError('cleanup')"
        ]

    async def test_a_generator_that_fails_when_it_is_closed_does_not_take_the_winner(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def source() -> AsyncIterator[int]:
            try:
                for item in range(9):
                    yield item
            finally:
                raise ValueError("cleanup")

        assert (await first(Calls(1), source(), concurrency=1)).item == 0
        assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["cleanup"]

    def test_asyncio_timeout(self) -> None:
        async def main() -> None:
            for function in amap, for_each, first:
                calls = Calls(10)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(5):
                        await function(calls, Pulled(itertools.count()).generator(), concurrency=2)

                assert sorted(map(str, calls.cut_off)) == ["0", "1"]
                task = asyncio.current_task()
                assert task is not None
                assert not task.cancelling()

        run_on_asyncio(main)

    def test_torn_down_with_asyncio(self) -> None:
        calls = Calls(10)
        tasks: list[asyncio.Task[object]] = []

        def items() -> Iterator[int]:
            yield from range(9)

        async def leave_it_running() -> None:
            tasks.append(asyncio.create_task(amap(calls, items(), concurrency=2)))
            await asyncio.sleep(15)

        run_on_asyncio(partial(leave_it_running))
        assert tasks[0].cancelled()
        assert sorted(map(str, calls.cut_off)) == ["2", "3"]
