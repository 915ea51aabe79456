"""What becomes of the source when `amap` or its kin end: a generator is closed, nothing else is."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from anythrottle import amap, amap_outcomes, first, for_each
from anythrottle.testing import wait_idle
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.calls import Calls
from tests.limiters.tools import BLOWS, Blow, Victim, sweep_with

pytestmark = pytest.mark.timing


class Source:
    """
    An async generator that has something to give back, which takes 3 seconds.

    :param step: how long each of its steps takes
    :param stubborn: whether a step that is cut off gives an item all the same
    """

    def __init__(self, *, step: float = 0.0, stubborn: bool = False) -> None:
        self.given = 0
        self.released: list[float] = []
        self.cut_off: list[float] = []
        self.tasks: set[int] = set()
        self._step = step
        self._stubborn = stubborn
        self.items = self._generate()

    async def _generate(self) -> AsyncGenerator[int]:
        self.tasks.add(anyio.get_current_task().id)
        try:
            # One that is held from step to step is to be left before those around it.
            with anyio.CancelScope():
                for item in itertools.count():
                    with anyio.CancelScope(shield=self._stubborn):
                        await anyio.sleep(self._step)

                    self.given += 1
                    yield item
        finally:
            self.tasks.add(anyio.get_current_task().id)
            try:
                await anyio.sleep(3)
                self.released.append(anyio.current_time())
            except anyio.get_cancelled_exc_class():
                self.cut_off.append(anyio.current_time())
                raise

    @property
    def closed(self) -> bool:
        return self.items.ag_frame is None  # type: ignore[attr-defined]


async def call(item: object) -> object:
    """Succeed with the first item after a second; the others take long."""
    await anyio.sleep(1 if item == 0 else 1000)
    return item


async def fail(item: object) -> None:
    await call(item)
    raise KeyError(item)


async def leave_by_break(items: Any) -> None:
    async with amap_outcomes(call, items, concurrency=2) as outcomes:
        async for _ in outcomes:
            break


async def leave_in_order(items: Any) -> None:
    async with amap_outcomes(call, items, concurrency=2, ordered=True) as outcomes:
        await anext(outcomes)


async def leave_without_a_look(items: Any) -> None:
    async with amap_outcomes(call, items, concurrency=2):
        await anyio.sleep(1)


async def leave_by_an_error(items: Any) -> None:
    with pytest.raises(OSError, match="mine"):  # noqa: PT012 - the block is what is tested
        async with amap_outcomes(call, items, concurrency=2) as outcomes:
            await anext(outcomes)
            raise OSError("mine")


async def leave_by_ctrl_c(items: Any) -> None:
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the block is what is tested
        async with amap_outcomes(call, items, concurrency=2) as outcomes:
            await anext(outcomes)
            raise KeyboardInterrupt


async def leave_from_a_generator_around(items: Any) -> None:
    async def around() -> AsyncGenerator[object]:
        async with amap_outcomes(call, items, concurrency=2) as outcomes:
            async for outcome in outcomes:
                yield outcome

    generator = around()
    await anext(generator)
    await generator.aclose()


async def fail_in_amap(items: Any) -> None:
    with pytest.raises(KeyError):
        await amap(fail, items, concurrency=2)


async def fail_in_for_each(items: Any) -> None:
    with pytest.raises(KeyError):
        await for_each(fail, items, concurrency=2)


async def win_in_first(items: Any) -> None:
    assert (await first(call, items, concurrency=2)).item == 0


#: Each ends at 1 s. Two calls have begun by then, and one item is ahead; a third call perhaps.
early_ends = pytest.mark.parametrize(
    "end_early",
    [
        leave_by_break,
        leave_in_order,
        leave_without_a_look,
        leave_by_an_error,
        leave_by_ctrl_c,
        leave_from_a_generator_around,
        fail_in_amap,
        fail_in_for_each,
        win_in_first,
    ],
)

EndEarly = Callable[[Any], Coroutine[Any, Any, None]]


@early_ends
class TestAnEarlyEnd:
    async def test_does_not_cut_off_what_an_async_generator_does_at_its_end(
        self, end_early: EndEarly
    ) -> None:
        source = Source()
        await end_early(source.items)
        assert source.closed
        # And it was waited for.
        assert (source.released, source.cut_off) == ([4], [])
        assert anyio.current_time() == 4
        assert source.given in (3, 4)
        assert len(source.tasks) == 1

    async def test_cuts_off_a_step(self, end_early: EndEarly) -> None:
        source = Source(step=0.75)
        await end_early(source.items)
        assert source.closed
        # The generator's own clean-up is a part of that step.
        assert (source.released, source.cut_off) == ([], [anyio.current_time()])
        assert anyio.current_time() in (1, 1.75)

    async def test_waits_for_a_step_that_goes_on(self, end_early: EndEarly) -> None:
        source = Source(step=0.75, stubborn=True)
        await end_early(source.items)
        assert source.closed
        assert (source.released, source.cut_off) == ([anyio.current_time()], [])
        assert anyio.current_time() in (1.5 + 3, 2.25 + 3)
        assert len(source.tasks) == 1

    async def test_closes_a_plain_generator(self, end_early: EndEarly) -> None:
        tasks: list[int] = []

        def generate() -> Iterator[int]:
            tasks.append(anyio.get_current_task().id)
            try:
                yield from itertools.count()
            finally:
                tasks.append(anyio.get_current_task().id)

        items = generate()
        await end_early(items)
        assert len(tasks) == 2
        assert len(set(tasks)) == 1
        assert list(items) == []

    async def test_closes_what_an_iterable_makes(self, end_early: EndEarly) -> None:
        source = Source()

        class Iterable:
            def __aiter__(self) -> AsyncGenerator[int]:
                return source.items

        await end_early(Iterable())
        assert source.closed
        assert source.released == [4]

    async def test_closes_one_that_yields_within_a_task_group(self, end_early: EndEarly) -> None:
        log: list[str] = []

        async def wait() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log.append("cut off")

        async def generate() -> AsyncGenerator[int]:
            try:
                async with anyio.create_task_group() as task_group:
                    task_group.start_soon(wait)
                    for item in itertools.count():
                        yield item
            finally:
                log.append("closed")

        await end_early(generate())
        assert log == ["cut off", "closed"]

    async def test_leaves_an_iterator_as_it_is(self, end_early: EndEarly) -> None:
        iterator = iter(range(100))
        await end_early(iterator)
        assert next(iterator) in (3, 4)

    async def test_leaves_a_stream_open(self, end_early: EndEarly) -> None:
        send, receive = anyio.create_memory_object_stream[int](10)
        with send, receive:
            for item in range(10):
                send.send_nowait(item)

            await end_early(receive)
            assert receive.receive_nowait() in (3, 4)


async def test_a_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "items"
    path.write_text("a\nb\nc\n")
    with path.open() as file:
        assert (await first(Calls(1), file, concurrency=1)).item == "a\n"
        assert not file.closed


class TestWhenTheCallerIsCancelled:
    """Then so is what a generator does when it is closed, and the generator is closed at once."""

    @early_ends
    async def test_before_the_end(self, end_early: EndEarly) -> None:
        source = Source()
        with anyio.move_on_after(0.5) as scope:
            await end_early(source.items)

        assert scope.cancelled_caught
        assert source.closed
        assert (source.released, source.cut_off) == ([], [0.5])

    @early_ends
    @pytest.mark.parametrize(("step", "stubborn"), [(0, False), (0.75, True)])
    async def test_while_it_is_closed(
        self, end_early: EndEarly, step: float, *, stubborn: bool
    ) -> None:
        source = Source(step=step, stubborn=stubborn)
        with anyio.CancelScope(deadline=3) as scope:
            await end_early(source.items)

        # An error of one's own goes on.
        assert scope.cancelled_caught != (end_early in (leave_by_an_error, leave_by_ctrl_c))
        assert anyio.current_time() == 3
        assert source.closed
        assert (source.released, source.cut_off) == ([], [3])

    @early_ends
    @pytest.mark.parametrize("seconds", [0.5, 3])
    @pytest.mark.parametrize(("step", "stubborn"), [(0, False), (0.75, True)])
    def test_natively(
        self, end_early: EndEarly, seconds: float, step: float, *, stubborn: bool
    ) -> None:
        async def main() -> None:
            source = Source(step=step, stubborn=stubborn)
            task = asyncio.create_task(end_early(source.items))
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.wait([task])
            goes_on = seconds == 3 and end_early in (leave_by_an_error, leave_by_ctrl_c)
            assert task.cancelled() != goes_on
            # A step that is shielded goes on to its end first.
            assert anyio.current_time() == (0.75 if stubborn and seconds == 0.5 else seconds)
            assert source.closed
            assert (source.released, source.cut_off) == ([], [anyio.current_time()])

        anyio.run(main, backend_options={"loop_factory": VirtualEventLoop})


@pytest.mark.parametrize("function", [amap, for_each, first])
class TestBeforeItHasBegun:
    """In a scope that is cancelled already."""

    async def test_the_source_is_not_advanced(
        self, function: Callable[..., Awaitable[object]]
    ) -> None:
        source = Source()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await function(call, source.items)

        assert scope.cancelled_caught
        assert source.given == 0
        assert source.tasks == set()
        assert source.closed

    async def test_one_that_stands_at_a_yield_is_closed(
        self, function: Callable[..., Awaitable[object]]
    ) -> None:
        closed: list[str] = []

        async def generate_async() -> AsyncGenerator[int]:
            try:
                yield 0
            finally:
                closed.append("async")

        def generate() -> Iterator[int]:
            try:
                yield 0
            finally:
                closed.append("plain")

        begun_async, begun = generate_async(), generate()
        assert await anext(begun_async) == next(begun) == 0
        for items in begun_async, begun:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await function(call, items)

        assert closed == ["async", "plain"]


class TestErrorsOfClosing:
    """They are told, and hide no other; those of plain generators, too."""

    @staticmethod
    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise ValueError("cleanup")

    async def test_after_a_break_it_is_bare(self) -> None:
        with pytest.raises(ValueError, match="cleanup"):
            await leave_by_break(self.source())

    async def test_one_of_a_task_within_a_generator_leaves_in_its_group(self) -> None:
        async def fail_at_last() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("cleanup")

        async def generate() -> AsyncGenerator[int]:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(fail_at_last)
                for item in itertools.count():
                    yield item

        with pytest.raises(BaseExceptionGroup) as caught:
            await leave_by_break(generate())

        assert caught.group_contains(ValueError, match="cleanup")

    async def test_after_an_error_it_is_noted(self) -> None:
        with pytest.raises(KeyError) as caught:
            await amap(fail, self.source(), concurrency=2)

        assert caught.value.__notes__ == [
            "While the run ended because of this, another error: ValueError('cleanup')"
        ]

    async def test_after_success_it_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        await win_in_first(self.source())
        assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["cleanup"]

    async def test_with_an_error_of_the_body_s_it_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        await leave_by_an_error(self.source())
        assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["cleanup"]


async def test_an_error_of_a_step_that_is_cut_off_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def generate() -> AsyncGenerator[int]:
        yield 0
        try:
            await anyio.sleep(100)
        finally:
            raise ValueError("cut off")

    await leave_by_break(generate())
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["cut off"]
    assert "the source has failed" in caplog.text


async def test_what_the_jobs_need_is_closed_after_them() -> None:
    """A generator may give back what the jobs use that are cut off."""
    log: list[str] = []

    async def generate() -> AsyncGenerator[int]:
        try:
            for item in itertools.count():
                yield item
        finally:
            log.append("closed")

    async def clean_up(item: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
                log.append("cleaned up")

    async with amap_outcomes(clean_up, generate(), concurrency=2):
        await wait_idle()

    assert log == ["cleaned up", "cleaned up", "closed"]


@early_ends
@pytest.mark.parametrize("blow", BLOWS)
def test_wherever_the_caller_is_cut_off_it_is_closed(end_early: EndEarly, blow: Blow) -> None:
    async def scenario(victim: Victim) -> None:
        source = Source(step=0.25)
        with anyio.fail_after(1000):
            await victim.run(end_early(source.items))

        assert source.closed or not source.tasks
        assert len(source.released) + len(source.cut_off) == bool(source.tasks)

    assert sweep_with(blow, scenario) > 2
    gc.collect()
