"""The source: one job at a time, from any iterable."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from anythrottle import Throttler
from anythrottle._engine.source import Source, SourceEnd
from tests.conftest import Run
from tests.engine.diary import Diary, Job, finish


async def job() -> int:
    return 1


async def other() -> int:
    return 2


def source_of(jobs: object) -> Source[object]:
    return Source(jobs, "jobs")  # type: ignore[arg-type]


async def pull(source: Source[object]) -> object:
    return source.pull_nowait() if source.is_sequence else await source.pull()


async def drain(source: Source[object]) -> list[object]:
    pulled: list[object] = []
    while True:
        try:
            pulled.append(await pull(source))
        except SourceEnd:
            return pulled


class AsyncJobs:
    """An async iterable that can be cut off in its step without being finished."""

    def __init__(self, jobs: list[Callable[[], object]], seconds: float = 0.0) -> None:
        self.jobs = list(jobs)
        self.seconds = seconds

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        await anyio.sleep(self.seconds)
        if not self.jobs:
            raise StopAsyncIteration

        return self.jobs.pop(0)


@pytest.mark.parametrize("make", [list, tuple, iter, lambda jobs: (each for each in jobs)])
async def test_sync_iterables(make: Callable[[object], object]) -> None:
    assert await drain(source_of(make([job, other]))) == [job, other]


async def test_an_async_generator() -> None:
    async def generate() -> AsyncGenerator[Callable[[], object]]:
        yield job
        await anyio.lowlevel.checkpoint()
        yield other

    assert await drain(source_of(generate())) == [job, other]


async def test_an_async_iterable() -> None:
    assert await drain(source_of(AsyncJobs([job, other]))) == [job, other]


async def test_a_memory_object_stream() -> None:
    send, receive = anyio.create_memory_object_stream[object](2)
    with send, receive:
        send.send_nowait(job)
        send.send_nowait(other)
        send.close()
        assert await drain(source_of(receive)) == [job, other]


async def test_the_end_stays_the_end() -> None:
    source: Source[object] = source_of([])
    for _ in range(2):
        with pytest.raises(SourceEnd):
            await pull(source)


async def test_nothing_is_touched_before_the_first_pull() -> None:
    class Jobs:
        def __iter__(self) -> Iterator[object]:
            raise RuntimeError("touched")

    source: Source[object] = source_of(Jobs())
    with pytest.raises(RuntimeError, match="touched"):
        await pull(source)


@pytest.mark.parametrize("jobs", [None, 5, job, object()])
def test_what_is_no_iterable_is_refused(jobs: object) -> None:
    with pytest.raises(TypeError, match="jobs must be an iterable or an async iterable, not"):
        source_of(jobs)


class TestRest:
    async def test_of_a_sequence(self) -> None:
        source = source_of([job, other, job])
        assert source.rest() == [job, other, job]
        await pull(source)
        assert source.rest() == [other, job]
        await drain(source)
        assert source.rest() == []

    async def test_of_others_stays_unread(self) -> None:
        iterator = iter([job, other])
        source = source_of(iterator)
        await pull(source)
        assert source.rest() == []
        assert list(iterator) == [other]


def test_items_is_what_it_was_made_of() -> None:
    jobs = [job]
    assert source_of(jobs).items is jobs


@pytest.mark.timing
class TestInterrupted:
    async def test_an_async_generator_cut_off_in_its_step(self) -> None:
        async def generate() -> AsyncGenerator[Callable[[], object]]:
            yield job
            await anyio.sleep(10)
            yield other

        source: Source[object] = source_of(generate())
        await pull(source)
        with anyio.move_on_after(1) as scope:
            await pull(source)

        assert scope.cancelled_caught
        source.note_cut_off()
        assert source.interrupted

    async def test_an_async_generator_that_saves_itself_is_not(self) -> None:
        async def generate() -> AsyncGenerator[Callable[[], object]]:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)

            yield job

        jobs = generate()
        source: Source[object] = source_of(jobs)
        with anyio.move_on_after(1):
            assert await pull(source) is job

        source.note_cut_off()
        assert not source.interrupted
        await jobs.aclose()

    async def test_other_async_iterators_go_on(self) -> None:
        source: Source[object] = source_of(AsyncJobs([job], seconds=10))
        with anyio.move_on_after(1) as scope:
            await pull(source)

        assert scope.cancelled_caught
        source.note_cut_off()
        assert not source.interrupted
        assert await pull(source) is job

    async def test_an_error_of_its_own_is_no_interruption(self) -> None:
        async def generate() -> AsyncGenerator[Callable[[], object]]:
            yield job
            raise ValueError

        source: Source[object] = source_of(generate())
        await pull(source)
        with pytest.raises(ValueError):  # noqa: PT011 - it has no message
            await pull(source)

        assert not source.interrupted


def test_an_async_generator_cut_off_by_asyncio_itself() -> None:
    async def generate() -> AsyncGenerator[Callable[[], object]]:
        await anyio.sleep_forever()
        yield job

    async def main() -> bool:
        source: Source[object] = source_of(generate())
        task = asyncio.ensure_future(pull(source))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        source.note_cut_off()
        return source.interrupted

    assert asyncio.run(main())


async def test_a_sequence_may_grow_until_its_end_was_told() -> None:
    jobs = [job]
    source = source_of(jobs)
    assert await pull(source) is job
    jobs.append(other)
    assert source.rest() == [other]
    assert await drain(source) == [other]
    jobs.append(job)
    assert (source.rest(), source.left) == ([], 0)
    assert await drain(source) == []


class TestTheEnd:
    """A source that has told that there is no more is not asked again, by no run."""

    async def test_of_an_iterator(self) -> None:
        class Items:
            asked = 0

            def __iter__(self) -> Iterator[object]:
                return self

            def __next__(self) -> object:
                self.asked += 1
                raise StopIteration

        items = Items()
        source = source_of(items)
        for _ in range(3):
            assert await drain(source) == []

        assert items.asked == 1

    async def test_of_an_async_iterator(self) -> None:
        class Items(AsyncJobs):
            asked = 0

            async def __anext__(self) -> object:
                self.asked += 1
                return await super().__anext__()

        items = Items([job])
        source = source_of(items)
        assert await drain(source) == [job]
        items.jobs.append(other)
        assert await drain(source) == []
        assert items.asked == 2

    async def test_of_a_sequence(self) -> None:
        asked: list[int] = []

        class Items(list[object]):
            def __getitem__(self, index: Any) -> Any:
                asked.append(index)
                return super().__getitem__(index)

        source = source_of(Items([job]))
        assert await drain(source) == [job]
        assert await drain(source) == []
        assert asked == [0, 1]

    async def test_of_a_stream_that_was_closed_afterwards(self) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Job](1)
        with receive:
            with send:
                send.send_nowait(diary.job("sent"))

            throttler = Throttler(receive, diary.consumer())
            await finish(throttler)

        for name in "ab":
            throttler.add(diary.job(name))
            assert (await finish(throttler)).queued == 0

        assert diary.consumed == ["sent", "a", "b"]

    async def test_of_a_file_that_was_closed_afterwards(self, tmp_path: Path) -> None:
        path = tmp_path / "jobs"
        path.write_text("a\nb\n")

        class Jobs:
            def __iter__(self) -> "Jobs":
                return self

            def __next__(self) -> Job:
                return diary.job(next(file).strip())

        diary = Diary()
        with path.open() as file:
            throttler = Throttler(Jobs(), diary.consumer())
            await finish(throttler)

        throttler.add(diary.job("added"))
        await finish(throttler)
        assert diary.consumed == ["a", "b", "added"]

    async def test_of_a_list_that_grows_afterwards(self) -> None:
        diary = Diary()
        jobs = diary.jobs(2)
        throttler = Throttler(jobs, diary.consumer())
        await finish(throttler)
        jobs.append(diary.job("late"))
        assert throttler.remaining() == []
        throttler.add(diary.job("added"))
        assert (await finish(throttler)).queued == 0
        assert diary.consumed == [0, 1, "added"]

    async def test_is_not_an_error_on_the_way(self) -> None:
        """Who has failed to give an item is asked for it again."""
        diary = Diary()
        broken = True

        class Jobs(list[Job]):
            def __getitem__(self, index: Any) -> Any:
                if index == 1 and broken:
                    raise OSError

                return super().__getitem__(index)

        throttler = Throttler(Jobs(diary.jobs(3)), diary.consumer())
        for _ in range(2):
            with pytest.raises(OSError):  # noqa: PT011 - it has no message
                await finish(throttler)

        broken = False
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]


def test_a_source_lasts_over_two_runs(run: Run) -> None:
    source = source_of([job, other])
    assert run(pull, source) is job
    assert run(pull, source) is other


def test_a_sequence_is_advanced_without_waiting() -> None:
    source = source_of([job, other])
    assert source.is_sequence
    assert [source.pull_nowait(), source.pull_nowait()] == [job, other]
    with pytest.raises(SourceEnd):
        source.pull_nowait()

    assert source.pulled == 2
    assert not source_of(iter([job])).is_sequence


def test_of_one_that_has_become_shorter_than_was_pulled_none_are_left() -> None:
    items = [1, 2, 3]
    source = source_of(items)
    source.pull_nowait()
    source.pull_nowait()
    items.clear()
    assert source.left == 0


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: [1, 2, 3], [3, 2, 1]),
        (lambda: {1: 1, 2: 2}, [2, 1, 0]),
        (lambda: iter([1]), [None, None, 0]),
    ],
    ids=["sequence", "sized", "unsized"],
)
async def test_how_many_are_left(make: Callable[[], object], left: list[int | None]) -> None:
    source = source_of(make())
    found = [source.left]
    for _ in range(2):
        with suppress(SourceEnd):
            await pull(source)

        found.append(source.left)

    assert found == left


class TestClosing:
    async def test_an_async_generator(self) -> None:
        closed = False

        async def generate() -> AsyncGenerator[int]:
            nonlocal closed
            try:
                yield 1
                yield 2
            finally:
                closed = True

        source = source_of(generate())
        assert await pull(source) == 1
        await source.close()
        assert closed

    async def test_a_generator(self) -> None:
        closed = False

        def generate() -> Iterator[int]:
            nonlocal closed
            try:
                yield 1
                yield 2
            finally:
                closed = True

        source = source_of(generate())
        assert await pull(source) == 1
        await source.close()
        assert closed

    async def test_generators_that_it_has_not_advanced(self) -> None:
        async def generate_async() -> AsyncGenerator[int]:
            yield 1

        items = generate_async()
        await source_of(items).close()
        assert [item async for item in items] == []
        generator = (item for item in [1, 2, 3])
        next(generator)
        await source_of(generator).close()
        assert list(generator) == []

    async def test_nothing_else(self) -> None:
        items = iter([1, 2])
        source = source_of(items)
        await pull(source)
        await source.close()
        assert list(items) == [2]
        send, receive = anyio.create_memory_object_stream[int](1)
        with send, receive:
            send.send_nowait(1)
            await source_of(receive).close()
            assert receive.receive_nowait() == 1


async def test_an_async_iterator_that_is_no_iterable() -> None:
    class Iterator:
        async def __anext__(self) -> int:
            raise StopAsyncIteration

    class Iterable:
        def __aiter__(self) -> Iterator:
            return Iterator()

    assert await drain(source_of(Iterable())) == []


async def test_an_iterator_that_is_false() -> None:
    class Iterator:
        def __init__(self) -> None:
            self.items = iter([1, 2])

        def __len__(self) -> int:
            return 0

        def __iter__(self) -> "Iterator":
            return self

        def __next__(self) -> int:
            return next(self.items)

    class Iterable:
        def __iter__(self) -> Iterator:
            return Iterator()

    assert await drain(source_of(Iterable())) == [1, 2]


async def test_the_end_of_the_other_kind_is_an_error() -> None:
    def generate() -> Iterator[int]:
        yield 1
        raise StopAsyncIteration

    source = source_of(generate())
    assert await pull(source) == 1
    with pytest.raises(StopAsyncIteration):
        await pull(source)


def test_a_sequence_longer_than_any_index() -> None:
    source = source_of(range(10**20))
    assert [source.pull_nowait(), source.pull_nowait()] == [0, 1]
    assert source.left is None


async def test_a_length_that_fails_is_none() -> None:
    class Loader:
        def __len__(self) -> int:
            raise TypeError

        def __iter__(self) -> Iterator[int]:
            return iter([1])

    source = source_of(Loader())
    assert source.left is None
    assert await drain(source) == [1]
    assert source.left == 0
