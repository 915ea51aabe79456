"""The source: one job at a time, from any iterable."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

import anyio
import anyio.lowlevel
import pytest

from anythrottle._engine.source import Source, SourceEnd
from tests.conftest import Run


async def job() -> int:
    return 1


async def other() -> int:
    return 2


async def drain(source: Source[int]) -> list[object]:
    pulled: list[object] = []
    while True:
        try:
            pulled.append(await source.pull())
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
    assert await drain(Source(make([job, other]))) == [job, other]  # type: ignore[arg-type]


async def test_an_async_generator() -> None:
    async def generate() -> AsyncGenerator[Callable[[], object]]:
        yield job
        await anyio.lowlevel.checkpoint()
        yield other

    assert await drain(Source(generate())) == [job, other]  # type: ignore[arg-type]


async def test_an_async_iterable() -> None:
    assert await drain(Source(AsyncJobs([job, other]))) == [job, other]  # type: ignore[arg-type]


async def test_a_memory_object_stream() -> None:
    send, receive = anyio.create_memory_object_stream[object](2)
    with send, receive:
        send.send_nowait(job)
        send.send_nowait(other)
        send.close()
        assert await drain(Source(receive)) == [job, other]  # type: ignore[arg-type]


async def test_the_end_stays_the_end() -> None:
    source: Source[int] = Source([])
    for _ in range(2):
        with pytest.raises(SourceEnd):
            await source.pull()


async def test_nothing_is_touched_before_the_first_pull() -> None:
    class Jobs:
        def __iter__(self) -> Iterator[object]:
            raise RuntimeError("touched")

    source: Source[int] = Source(Jobs())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="touched"):
        await source.pull()


@pytest.mark.parametrize("jobs", [None, 5, job, object()])
def test_what_is_no_iterable_is_refused(jobs: object) -> None:
    with pytest.raises(TypeError, match="jobs must be an iterable or an async iterable, not"):
        Source(jobs)  # type: ignore[arg-type]


async def test_what_is_no_job_is_named_by_its_position_and_passed_over() -> None:
    source: Source[int] = Source([job, 5, other])  # type: ignore[list-item]
    assert await source.pull() is job
    with pytest.raises(TypeError, match=r"^jobs\[1\] must be .*, not 5$"):
        await source.pull()

    assert source.rest() == [other]
    assert await drain(source) == [other]


class TestRest:
    async def test_of_a_sequence(self) -> None:
        source = Source([job, other, job])
        assert source.rest() == [job, other, job]
        await source.pull()
        assert source.rest() == [other, job]
        await drain(source)
        assert source.rest() == []

    async def test_of_others_stays_unread(self) -> None:
        iterator = iter([job, other])
        source = Source(iterator)
        await source.pull()
        assert source.rest() == []
        assert list(iterator) == [other]


def test_jobs_is_what_it_was_made_of() -> None:
    jobs = [job]
    assert Source(jobs).jobs is jobs


@pytest.mark.timing
class TestInterrupted:
    async def test_an_async_generator_cut_off_in_its_step(self) -> None:
        async def generate() -> AsyncGenerator[Callable[[], object]]:
            yield job
            await anyio.sleep(10)
            yield other

        source: Source[int] = Source(generate())  # type: ignore[arg-type]
        await source.pull()
        with anyio.move_on_after(1) as scope:
            await source.pull()

        assert scope.cancelled_caught
        source.note_cut_off()
        assert source.interrupted

    async def test_an_async_generator_that_saves_itself_is_not(self) -> None:
        async def generate() -> AsyncGenerator[Callable[[], object]]:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)

            yield job

        jobs = generate()
        source: Source[int] = Source(jobs)  # type: ignore[arg-type]
        with anyio.move_on_after(1):
            assert await source.pull() is job

        source.note_cut_off()
        assert not source.interrupted
        await jobs.aclose()

    async def test_other_async_iterators_go_on(self) -> None:
        source: Source[int] = Source(AsyncJobs([job], seconds=10))  # type: ignore[arg-type]
        with anyio.move_on_after(1) as scope:
            await source.pull()

        assert scope.cancelled_caught
        source.note_cut_off()
        assert not source.interrupted
        assert await source.pull() is job

    async def test_an_error_of_its_own_is_no_interruption(self) -> None:
        async def generate() -> AsyncGenerator[Callable[[], object]]:
            yield job
            raise ValueError

        source: Source[int] = Source(generate())  # type: ignore[arg-type]
        await source.pull()
        with pytest.raises(ValueError):  # noqa: PT011 - it has no message
            await source.pull()

        assert not source.interrupted


def test_an_async_generator_cut_off_by_asyncio_itself() -> None:
    async def generate() -> AsyncGenerator[Callable[[], object]]:
        await anyio.sleep_forever()
        yield job

    async def main() -> bool:
        source: Source[int] = Source(generate())  # type: ignore[arg-type]
        task = asyncio.ensure_future(source.pull())
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
    source = Source(jobs)
    assert await drain(source) == [job]
    jobs.append(other)
    assert source.rest() == [other]
    assert await drain(source) == [other]


def test_a_source_lasts_over_two_runs(run: Run) -> None:
    source = Source([job, other])
    assert run(source.pull) is job
    assert run(source.pull) is other
