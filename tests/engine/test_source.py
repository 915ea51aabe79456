"""The source: one job at a time, from any iterable."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from anythrottle._engine.source import Source, SourceEnd
from tests.conftest import Run


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


async def test_a_sequence_may_grow() -> None:
    jobs = [job]
    source = source_of(jobs)
    assert await drain(source) == [job]
    jobs.append(other)
    assert source.rest() == [other]
    assert await drain(source) == [other]


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
