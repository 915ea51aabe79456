"""The throttler: what it takes, what it returns, and its promises T2, T5, T6, T7, T9, T10, T11."""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf

import anyio
import anyio.lowlevel
import pytest

from anythrottle import (
    RateLimiter,
    SourceInterrupted,
    ThrottleException,
    Throttler,
    ThrottlerStatistics,
)
from anythrottle._jobs import JobOf
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.engine.diary import (
    Diary,
    Job,
    failures,
    finish,
    most_in_any_window,
)
from tests.stopwatch import Stopwatch


class SlowJobs:
    """An async iterable, and one that can be cut off at any time."""

    def __init__(self, jobs: list[Job], seconds: float) -> None:
        self.jobs = list(jobs)
        self.seconds = seconds
        self.pulled = 0

    def __aiter__(self) -> AsyncIterator[Job]:
        return self

    async def __anext__(self) -> Job:
        await anyio.sleep(self.seconds)
        if not self.jobs:
            raise StopAsyncIteration

        self.pulled += 1
        return self.jobs.pop(0)


class TestWhatItTakes:
    async def test_lambdas_partials_bound_methods_and_awaitables(self) -> None:
        async def double(number: int) -> int:
            return 2 * number

        class Client:
            async def get(self) -> int:
                return 5

            def __call__(self) -> Awaitable[int]:
                return double(3)

        class Doubled:
            def __await__(self) -> Iterator[object]:
                return double(4).__await__()

        got: list[int] = []

        async def consume(result: int) -> None:
            got.append(result)

        jobs = [
            lambda: double(1),
            partial(double, 2),
            Client(),
            Doubled(),
            Client().get,
            double(6),
        ]
        statistics = await finish(Throttler(jobs, consume, concurrency=1))  # type: ignore[arg-type]
        assert got == [2, 4, 6, 8, 5, 12]
        assert statistics == ThrottlerStatistics(6, 0, 6, 0, 0)

    def test_asyncio_tasks_and_futures(self) -> None:
        async def main() -> list[int]:
            async def double(number: int) -> int:
                await asyncio.sleep(0)
                return 2 * number

            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            future.set_result(7)
            got: list[int] = []

            async def consume(result: int) -> None:
                got.append(result)

            await finish(Throttler([asyncio.create_task(double(1)), future], consume))  # type: ignore[arg-type]
            return got

        assert sorted(asyncio.run(main())) == [2, 7]

    @pytest.mark.parametrize("kind", ["list", "tuple", "iterator", "generator", "async", "stream"])
    async def test_any_iterable(self, kind: str) -> None:
        diary = Diary()
        jobs = diary.jobs(5)
        source: object = jobs
        if kind == "tuple":
            source = tuple(jobs)
        elif kind == "iterator":
            source = iter(jobs)
        elif kind == "generator":
            source = (job for job in jobs)
        elif kind == "async":

            async def generate() -> AsyncGenerator[Job]:
                for job in jobs:
                    await anyio.lowlevel.checkpoint()
                    yield job

            source = generate()
        elif kind == "stream":
            send, source = anyio.create_memory_object_stream[Job](5)
            for job in jobs:
                send.send_nowait(job)

            send.close()

        throttler: Throttler[JobOf[object], object] = Throttler(source, diary.consumer())  # type: ignore[call-overload]
        await finish(throttler)
        assert diary.consumed == diary.starts == [0, 1, 2, 3, 4]
        if kind == "stream":
            source.close()  # type: ignore[attr-defined]

    async def test_an_empty_source(self) -> None:
        nothing: list[Job] = []
        sources = [Throttler(nothing), Throttler(iter(nothing)), Throttler(SlowJobs(nothing, 0))]
        for throttler in sources:
            assert await finish(throttler) == ThrottlerStatistics(0, 0, 0, 0, 0)

    @pytest.mark.timing
    async def test_a_service_fed_by_a_stream(self) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Job](inf)
        with receive:
            throttler = Throttler(receive, diary.consumer(), time_window=1, per_time_window=2)
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(finish, throttler)
                with send:
                    for number in range(6):
                        await anyio.sleep(10)
                        send.send_nowait(diary.job(number))

        assert diary.when("start") == [10, 20, 30, 40, 50, 60]
        assert diary.consumed == [0, 1, 2, 3, 4, 5]

    def test_the_same_throttler_in_two_runs(self, run: Run) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(3, seconds=5), diary.consumer(), concurrency=1)

        async def for_a_while() -> None:
            with anyio.move_on_after(7):
                await throttler.run()

        run(for_a_while)
        assert diary.consumed == [0]
        run(throttler.run)
        assert diary.consumed == [0, 1, 2]


def test_first_asyncio_then_trio() -> None:
    from anythrottle.testing import virtual_backends

    diary = Diary()
    limiter = RateLimiter("2/1000s")
    throttler = Throttler(diary.jobs(4, seconds=5), diary.consumer(), limiter=limiter)

    async def main() -> None:
        with anyio.move_on_after(3):
            await throttler.run()

    async def main_again() -> None:
        await throttler.run()
        # The last two start when the first ones have been out for two windows, of which one was
        # cut off after three seconds; between the two runs, real time has passed.
        assert watch.may_be_left(2000 - 3 + 5, anyio.current_time())

    watch = Stopwatch()
    for function, (name, options) in zip([main, main_again], virtual_backends(), strict=True):
        anyio.run(function, backend=name, backend_options=options)

    assert sorted(diary.consumed, key=str) == [0, 1, 2, 3]
    assert diary.starts == [0, 1, 0, 1, 2, 3]


@pytest.mark.timing
@pytest.mark.promise("T2")
class TestT2ConcurrencyAndWindow:
    @pytest.mark.parametrize("concurrency", [1, 2, 5])
    async def test_never_more_than_concurrency_at_once(self, concurrency: int) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(20, seconds=3), concurrency=concurrency)
        await finish(throttler)
        assert diary.most_running == concurrency
        assert anyio.current_time() == 3 * 20 / concurrency

    async def test_never_more_starts_in_any_window(self) -> None:
        diary = Diary()
        throttler = Throttler(
            diary.jobs(23, seconds=0.7), time_window=10, per_time_window=5, concurrency=3
        )
        await finish(throttler)
        assert most_in_any_window(diary.when("start"), 10) == 5
        assert diary.when("start")[-1] == 40 + 0.0 + diary.when("start")[2]

    async def test_a_full_burst_starts_at_once(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(8), time_window=10, per_time_window=4, concurrency=8)
        await finish(throttler)
        assert diary.when("start") == [0.0] * 4 + [10.0] * 4

    async def test_fewer_jobs_than_the_window_holds(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(3)))
        assert diary.when("start") == [0.0] * 3

    async def test_a_text_as_limiter_has_no_concurrency_of_its_own(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(50, seconds=1), limiter="1000/10s"))
        assert diary.most_running == 50
        assert anyio.current_time() == 1.0

    async def test_limiter_and_concurrency(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(6, seconds=1), limiter="1000/10s", concurrency=2))
        assert diary.most_running == 2

    async def test_the_concurrency_of_the_limiter_holds(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=2)
        await finish(Throttler(diary.jobs(6, seconds=1), limiter=limiter))
        assert diary.most_running == 2
        assert anyio.current_time() == 3

    async def test_two_throttlers_share_a_limiter(self) -> None:
        diary = Diary()
        limiter = RateLimiter("4/10s", concurrency=3)
        async with anyio.create_task_group() as task_group:
            for name in "ab":
                jobs = [diary.job(name + str(number), seconds=1) for number in range(8)]
                task_group.start_soon(Throttler(jobs, limiter=limiter).run)

        assert len(diary.who("end")) == 16
        assert diary.most_running == 3
        assert most_in_any_window(diary.when("start"), 10) == 4

    async def test_a_shared_capacity_limiter_holds_too(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=anyio.CapacityLimiter(2))
        await finish(Throttler(diary.jobs(6, seconds=1), limiter=limiter))
        assert diary.most_running == 2

    async def test_the_defaults_are_the_ancestor_s(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(120, seconds=0.01))
        await finish(throttler)
        assert diary.most_running == 5
        assert diary.when("start")[100] == 60.0


@pytest.mark.timing
@pytest.mark.promise("T5")
class TestT5Consumer:
    async def test_results_as_they_complete(self) -> None:
        diary = Diary()
        jobs = [diary.job(seconds, seconds=seconds) for seconds in (3, 1, 2)]
        await finish(Throttler(jobs, diary.consumer()))
        assert diary.consumed == [1, 2, 3]

    async def test_one_at_a_time(self) -> None:
        diary = Diary()
        # The consumer itself asserts it.
        await finish(Throttler(diary.jobs(10), diary.consumer(1)))
        assert diary.consumed == list(range(10))
        assert anyio.current_time() == 10

    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_a_slow_consumer_slows_the_jobs_down(self, concurrency: int) -> None:
        diary = Diary()
        throttler = Throttler(
            diary.jobs(100), diary.consumer(1), concurrency=concurrency, per_time_window=1000
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            for _ in range(90):
                await anyio.sleep(1)
                # In the buffer, with workers that wait, and with the consumer.
                assert len(diary.starts) - len(diary.consumed) <= 2 * concurrency + 1

        assert diary.consumed == list(range(100))

    async def test_a_slow_consumer_bounds_memory_without_concurrency_too(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2000), diary.consumer(1), limiter=RateLimiter())
        worst = 0
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(partial(finish, throttler, within=10_000))
            while len(diary.consumed) < 1900:
                await anyio.sleep(50)
                worst = max(worst, len(diary.starts) - len(diary.consumed))

        assert worst <= 110

    @pytest.mark.parametrize("shared", [False, True])
    async def test_the_limiter_s_own_concurrency_bounds_it_too(self, shared: bool) -> None:
        diary = Diary()
        slots = anyio.CapacityLimiter(2)
        limiter = RateLimiter(concurrency=slots if shared else 2)
        throttler = Throttler(diary.jobs(40), diary.consumer(1), limiter=limiter)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(10.5)
            assert len(diary.starts) - len(diary.consumed) <= 5
            if shared:
                slots.total_tokens = 9
            else:
                limiter.reconfigure(concurrency=9)

            await anyio.sleep(10)
            assert 10 <= len(diary.starts) - len(diary.consumed) <= 19

    async def test_the_permit_is_let_go_before_a_result_waits(self) -> None:
        diary = Diary()
        limiter = RateLimiter(concurrency=2)
        throttler = Throttler(diary.jobs(10), diary.consumer(100), limiter=limiter, concurrency=2)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(partial(finish, throttler, within=10_000))
            await anyio.sleep(50)
            assert len(diary.consumed) == 0
            assert limiter.statistics().borrowed_tokens == 0
            assert limiter.statistics().tasks_waiting == 0

    @pytest.mark.parametrize("result", [None, 0, False, "", [], ()])
    async def test_falsy_results_are_results(self, result: object) -> None:
        diary = Diary()
        statistics = await finish(
            Throttler([diary.job("job", result=result)] * 3, diary.consumer())
        )
        assert diary.consumed == [result] * 3
        assert statistics.done == 3

    async def test_falsy_jobs_are_jobs(self) -> None:
        class Falsy:
            def __bool__(self) -> bool:
                return False

            def __len__(self) -> int:
                return 0

            async def __call__(self) -> str:
                return "ran"

        diary = Diary()
        await finish(Throttler([Falsy(), Falsy()], diary.consumer()))
        assert diary.consumed == ["ran", "ran"]

    async def test_without_a_consumer_results_are_counted_and_dropped(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(7))
        assert (await finish(throttler)).done == 7
        assert throttler.remaining() == []

    async def test_a_consumer_may_be_a_lambda_a_partial_or_an_object(self) -> None:
        diary = Diary()
        consume = diary.consumer()

        class Consumer:
            async def __call__(self, result: object) -> None:
                await consume(result)

            async def method(self, result: object) -> None:
                await consume(result)

        def plain(result: object) -> Awaitable[None]:
            return consume(result)

        def undeclared(result):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            return consume(result)

        consumers: list[Callable[[object], Awaitable[object]]] = [
            lambda result: consume(result),  # noqa: PLW0108 - a lambda it shall be
            partial(consume),
            Consumer(),
            Consumer().method,
            plain,
        ]
        for each in consumers:
            await finish(Throttler(diary.jobs(1), each))

        assert diary.consumed == [0] * 5
        with pytest.raises(TypeError, match="consumer_fn must be an async function of one"):
            Throttler(diary.jobs(1), undeclared)


#: A GeneratorExit that something raises by itself is an error like the others.
BASE_EXCEPTIONS = [KeyboardInterrupt("mine"), SystemExit(3), GeneratorExit("mine")]


@pytest.mark.promise("T6")
class TestT6Exceptions:
    async def test_errors_are_collected_and_the_run_goes_on(self) -> None:
        diary = Diary()
        error = ValueError("mine")
        bad = diary.job(1, errors=[error])
        throttler = Throttler(
            [diary.job(0), bad, diary.job(2)], diary.consumer(), limiter="10/1s", concurrency=1
        )
        statistics = await finish(throttler)
        assert diary.consumed == [0, 2]
        assert statistics == ThrottlerStatistics(3, 0, 2, 1, 0)
        outcome = await throttler.exceptions.receive()
        assert (outcome.index, outcome.item, outcome.error) == (1, bad, error)
        assert outcome.attempts == 1
        with pytest.raises(ValueError, match="mine"):
            outcome.value  # noqa: B018

    async def test_the_last_job_fails(self) -> None:
        diary = Diary()
        throttler = Throttler([*diary.jobs(3), diary.job(3, errors=[ValueError()])])
        await finish(throttler)
        assert len(failures(throttler)) == 1

    async def test_all_jobs_fail(self) -> None:
        diary = Diary()
        jobs = [diary.job(number, errors=[ValueError(number)]) for number in range(10)]
        throttler = Throttler(jobs, diary.consumer())
        await finish(throttler)
        assert [str(error) for _, error in failures(throttler)] == list("0123456789")

    async def test_not_at_its_end_before_any_run(self) -> None:
        throttler = Throttler(Diary().jobs(1))
        with pytest.raises(anyio.WouldBlock):
            throttler.exceptions.receive_nowait()

    @pytest.mark.timing
    async def test_a_reader_that_comes_before_the_first_run_waits_to_its_end(self) -> None:
        diary = Diary()
        throttler = Throttler([diary.job(n, seconds=1, errors=[ValueError(n)]) for n in range(3)])
        read: list[str] = []

        async def reader() -> None:
            async for outcome in throttler.exceptions:
                read.append(str(outcome.error))  # noqa: PERF401

            assert not throttler.statistics().running

        with anyio.fail_after(100):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(reader)
                await anyio.sleep(50)
                await throttler.run()

        assert sorted(read) == ["0", "1", "2"]

    @pytest.mark.timing
    async def test_one_that_comes_with_a_further_run_waits_for_what_fails_in_it(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(1))
        await finish(throttler)
        with pytest.raises(anyio.EndOfStream):
            await throttler.exceptions.receive()

        throttler.add(diary.job("bad", seconds=1, errors=[ValueError()]))
        with anyio.fail_after(100):
            async with anyio.create_task_group() as task_group:
                await task_group.start(throttler.run)
                assert isinstance((await throttler.exceptions.receive()).error, ValueError)
                with pytest.raises(anyio.EndOfStream):
                    await throttler.exceptions.receive()

    @pytest.mark.timing
    @pytest.mark.parametrize("ended_by", ["cancellation", "an error", "stop", "aclose"])
    async def test_a_waiting_reader_comes_to_its_end_however_that_comes(
        self, ended_by: str
    ) -> None:
        async def consume(result: object) -> None:
            raise OSError

        ended_at: list[float] = []

        async def reader() -> None:
            with pytest.raises(anyio.EndOfStream):
                await throttler.exceptions.receive()

            ended_at.append(anyio.current_time())

        failing = ended_by == "an error"
        throttler = Throttler(
            Diary().jobs(9, seconds=2), consume if failing else None, concurrency=1
        )
        with anyio.fail_after(100):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(reader)
                await anyio.sleep(2)
                if ended_by == "aclose":
                    await throttler.aclose()
                else:
                    with suppress(OSError), anyio.move_on_after(2 if ended_by[0] == "c" else 99):
                        if ended_by == "stop":
                            task_group.start_soon(self.stop_soon, throttler)

                        await throttler.run()

        assert ended_at == [2 if ended_by == "aclose" else 4]

    @staticmethod
    async def stop_soon(throttler: Throttler[JobOf[object], object]) -> None:
        await anyio.sleep(1)
        throttler.stop()

    @pytest.mark.timing
    async def test_a_call_that_is_refused_opens_nothing(self) -> None:
        throttler = Throttler(Diary().jobs(1))
        await throttler.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await throttler.run()

        with pytest.raises(anyio.EndOfStream):
            await throttler.exceptions.receive()

    async def test_at_its_end_after_a_run_when_empty(self) -> None:
        throttler = Throttler([Diary().job(0, errors=[ValueError()])])
        await finish(throttler)
        assert [type(outcome.error) async for outcome in throttler.exceptions] == [ValueError]
        with pytest.raises(anyio.EndOfStream):
            throttler.exceptions.receive_nowait()

    @pytest.mark.timing
    async def test_read_while_it_runs(self) -> None:
        diary = Diary()
        jobs = [diary.job(n, seconds=1, errors=[ValueError(n)]) for n in range(3)]
        throttler = Throttler(jobs, concurrency=1)
        read: list[tuple[str, float]] = []

        async def reader() -> None:
            async for outcome in throttler.exceptions:
                read.append((str(outcome.error), anyio.current_time()))  # noqa: PERF401

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await wait_idle()
            with pytest.raises(anyio.WouldBlock):
                throttler.exceptions.receive_nowait()

            task_group.start_soon(reader)

        assert read == [("0", 1.0), ("1", 2.0), ("2", 3.0)]

    async def test_readable_in_a_further_run(self) -> None:
        diary = Diary()
        throttler = Throttler([diary.job(0, errors=[ValueError("first")])])
        await finish(throttler)
        throttler.add(diary.job(1, errors=[ValueError("second")]))
        await finish(throttler)
        assert [str(error) for _, error in failures(throttler)] == ["first", "second"]

    async def test_one_warning_counts_those_unread(self, caplog: pytest.LogCaptureFixture) -> None:
        diary = Diary()
        throttler = Throttler([diary.job(n, errors=[ValueError()]) for n in range(3)])
        await finish(throttler)
        warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "3 failed jobs" in warnings[0].getMessage()
        assert warnings[0].name == "anythrottle"

    @pytest.mark.timing
    async def test_no_warning_if_there_is_nothing_unread(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        diary = Diary()
        jobs = [diary.job(0, errors=[ValueError()]), *diary.jobs(2, seconds=1)]
        throttler = Throttler(jobs)

        async def read() -> None:
            async for _ in throttler.exceptions:
                pass

        async with anyio.create_task_group() as task_group:

            async def job() -> None:
                task_group.start_soon(read)

            throttler.add(job)
            await finish(throttler)

        assert not caplog.records

    async def test_the_stream_is_the_same_and_never_warns(self) -> None:
        throttler = Throttler(Diary().jobs(1))
        stream = throttler.exceptions
        assert stream is throttler.exceptions
        await finish(throttler)
        clone = stream.clone()
        del throttler, stream, clone
        gc.collect()

    async def test_whoever_closes_it_finds_the_failures_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        diary = Diary()
        throttler = Throttler([diary.job(0, errors=[ValueError()]), diary.job(1)], diary.consumer())
        throttler.exceptions.close()
        statistics = await finish(throttler)
        assert statistics.failed == 1
        assert diary.consumed == [1]
        assert [record.getMessage() for record in caplog.records] == [
            "job 0 has failed, and exceptions is closed"
        ]

    @pytest.mark.parametrize("error", BASE_EXCEPTIONS, ids=repr)
    async def test_other_base_exceptions_of_a_job_are_not_swallowed(
        self, error: BaseException
    ) -> None:
        diary = Diary()
        bad = diary.job(1, errors=[error])
        throttler = Throttler(
            [diary.job(0), bad, diary.job(2)], diary.consumer(), limiter="10/1s", concurrency=1
        )
        with pytest.raises(type(error)) as caught:
            await finish(throttler)

        assert caught.value is error
        assert bad in throttler.remaining()
        assert failures(throttler) == []
        await finish(throttler)
        assert sorted(diary.consumed, key=str) == [0, 1, 2]

    @pytest.mark.parametrize("error", BASE_EXCEPTIONS, ids=repr)
    @pytest.mark.parametrize("when", ["called", "at once", "later"])
    async def test_nor_are_those_of_the_consumer(self, error: BaseException, when: str) -> None:
        diary = Diary()
        consumed: list[object] = []

        def call(result: object) -> Awaitable[None]:
            if result == 0 and when == "called":
                consumed.append(result)
                raise error

            return consume(result)

        async def consume(result: object) -> None:
            consumed.append(result)
            if result == 0:
                if when == "later":
                    await anyio.sleep(0)

                raise error

        throttler = Throttler(diary.jobs(3), call, concurrency=1)
        with pytest.raises(type(error)) as caught:
            await finish(throttler)

        assert caught.value is error
        # One that raised has consumed.
        assert throttler.statistics().done == 1
        assert len(throttler.remaining()) == 2
        await finish(throttler)
        assert consumed == [0, 1, 2]

    async def test_a_base_exception_of_one_s_own(self) -> None:
        class Mine(BaseException):
            pass

        error = Mine()
        with pytest.raises(Mine) as caught:
            await finish(Throttler([Diary().job(0, errors=[error])]))

        assert caught.value is error

    @pytest.mark.timing
    async def test_an_outcome_tells_how_long_it_took(self) -> None:
        diary = Diary()
        jobs = [
            diary.job(0),
            diary.job(1, seconds=2, errors=[ThrottleException(retry_after=5), ValueError()]),
        ]
        throttler = Throttler(jobs, limiter="1/10s")
        await finish(throttler, within=100)
        outcome = throttler.exceptions.receive_nowait()
        assert (outcome.attempts, outcome.duration) == (2, 2.0)
        # 10 s for the first start, and from the throttle at 12 until 20.
        assert outcome.waited == 18.0


@pytest.mark.promise("T7")
class TestT7TheEnd:
    @pytest.mark.timing
    async def test_not_before_the_consumer_has_had_everything(self) -> None:
        diary = Diary()
        await finish(Throttler(diary.jobs(3), diary.consumer(5)))
        assert diary.consumed == [0, 1, 2]
        assert anyio.current_time() == 15

    @pytest.mark.timing
    async def test_not_before_the_last_job_has_ended(self) -> None:
        diary = Diary()
        await finish(Throttler([diary.job(0, seconds=20), diary.job(1)]))
        assert anyio.current_time() == 20

    @pytest.mark.timing
    async def test_not_before_the_source_has_ended(self) -> None:
        await finish(Throttler(SlowJobs([], 20)))
        assert anyio.current_time() == 20

    @pytest.mark.timing
    async def test_not_before_the_last_that_was_throttled(self) -> None:
        diary = Diary()
        job = diary.job(0, errors=[ThrottleException(retry_after=20)])
        await finish(Throttler([job], diary.consumer()))
        assert diary.consumed == [0]
        assert anyio.current_time() == 20

    async def test_an_error_of_the_consumer_is_bare(self) -> None:
        diary = Diary()
        error = ValueError("mine")

        async def consume(result: object) -> None:
            raise error

        throttler = Throttler(diary.jobs(4), consume, concurrency=1)
        with pytest.raises(ValueError, match="mine") as caught:
            await finish(throttler)

        assert caught.value is error
        # One that raised has consumed.
        assert throttler.statistics().done == 1
        assert len(throttler.remaining()) == 3

    async def test_an_error_of_the_consumer_names_what_it_was_given(self) -> None:
        async def consume(result: object) -> None:
            if result == "Rome":
                raise ValueError("disk full")

        async def same(item: str) -> str:
            return item

        throttler = Throttler(["Oslo", "Rome"], consume, func=same)
        with pytest.raises(ValueError, match="disk full") as caught:
            await throttler.run()

        assert caught.value.__notes__ == [
            "It was raised by consumer_fn, which had the result of job 1: 'Rome'"
        ]

    async def test_an_error_of_the_consumer_names_a_failed_item_of_any_kind(self) -> None:
        class Nameless:
            def __repr__(self) -> str:
                raise NotImplementedError

        async def consume(outcome: object) -> None:
            raise ValueError("disk full")

        async def fail(item: object) -> None:
            raise OSError

        nameless = Nameless()
        for item, shown in (
            (nameless, object.__repr__(nameless)),
            ("x" * 198, repr("x" * 198)),
            ("x" * 199, f"'{'x' * 199}..."),
        ):
            throttler = Throttler([item], func=fail, outcome_fn=consume)
            with pytest.raises(ValueError, match="disk full") as caught:
                await throttler.run()

            assert caught.value.__notes__ == [
                f"It was raised by outcome_fn, which had the outcome of job 0: {shown}"
            ]

    async def test_a_consumer_that_raises_when_called(self) -> None:
        error = ValueError("mine")

        def consume(result: object) -> Awaitable[None]:
            raise error

        throttler = Throttler(Diary().jobs(1), consume)
        with pytest.raises(ValueError, match="mine") as caught:
            await finish(throttler)

        assert caught.value is error
        assert throttler.remaining() == []

    async def test_an_error_of_a_source_is_bare_and_the_jobs_before_are_not_lost(self) -> None:
        diary = Diary()
        jobs = diary.jobs(3)

        def generate() -> Iterator[Job]:
            yield from jobs
            raise ValueError("mine")

        throttler = Throttler(generate(), diary.consumer(), concurrency=1)
        with pytest.raises(ValueError, match=r"^mine$") as caught:
            await finish(throttler)

        assert not isinstance(caught.value, BaseExceptionGroup)
        done = list(diary.consumed)
        left = [jobs.index(job) for job in throttler.remaining()]  # type: ignore[arg-type]
        assert done + left == [0, 1, 2]
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]

    async def test_an_error_of_an_async_source_is_bare(self) -> None:
        error = KeyError("mine")

        async def generate() -> AsyncGenerator[Job]:
            yield Diary().job(0)
            raise error

        with pytest.raises(KeyError) as caught:
            await finish(Throttler(generate()))

        assert caught.value is error

    @pytest.mark.timing
    async def test_further_errors_are_noted_and_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        diary = Diary()
        in_step = anyio.Event()

        async def consume(result: object) -> None:
            await in_step.wait()
            raise ValueError("first")

        async def generate() -> AsyncGenerator[Job]:
            yield diary.job(0)
            try:
                in_step.set()
                await anyio.sleep_forever()
            finally:
                raise KeyError("second")

        throttler = Throttler(generate(), consume)
        with pytest.raises(ValueError, match="first") as caught:
            await finish(throttler)

        assert len(caught.value.__notes__) == 2
        assert "KeyError('second')" in caught.value.__notes__[1]
        assert ["KeyError('second')" in r.getMessage() for r in caplog.records] == [True]

    @pytest.mark.timing
    @pytest.mark.parametrize("delay", [0.0, 0.5, 1.0, 1.5, 2.0, 10.0])
    async def test_winding_down_is_no_error(
        self, caplog: pytest.LogCaptureFixture, delay: float
    ) -> None:
        diary = Diary()

        async def consume(result: object) -> None:
            await anyio.sleep(delay)
            raise ValueError("mine")

        jobs = [diary.job(n, seconds=n % 3) for n in range(20)]
        throttler = Throttler(
            SlowJobs(jobs, 0.5), consume, time_window=2, per_time_window=2, concurrency=3
        )
        with pytest.raises(ValueError, match="mine") as caught:
            await finish(throttler)

        (note,) = caught.value.__notes__
        assert note.startswith("It was raised by consumer_fn")
        assert not caplog.records

    async def test_an_error_of_the_limiter_is_bare(self) -> None:
        class Broken:
            """A limiter whose turn cannot be waited for."""

            def permit(self, cost: object = 1, *, priority: int = 0) -> object:
                raise ValueError("mine")

            async def run(self, func: object, *args: object) -> None: ...

            def wrap(self, func: object) -> None: ...

            def pause(self, seconds: float | None = None) -> None: ...

            async def __aenter__(self) -> None: ...

            async def __aexit__(self, *args: object) -> None: ...

        job = Diary().job(0)
        throttler = Throttler([job], limiter=Broken())  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="mine"):
            await finish(throttler)

        assert throttler.remaining() == [job]

    async def test_statistics_are_returned(self) -> None:
        throttler = Throttler(Diary().jobs(3))
        assert await finish(throttler) == throttler.statistics()

    async def test_a_finished_run_can_be_run_again(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(3), diary.consumer())
        await finish(throttler)
        await finish(throttler)
        assert diary.consumed == [0, 1, 2]


@pytest.mark.promise("T9")
class TestT9Lazy:
    @pytest.mark.timing
    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_one_item_ahead_at_most(self, concurrency: int) -> None:
        diary = Diary()
        pulled = 0

        def generate() -> Iterator[Job]:
            nonlocal pulled
            for job in diary.jobs(30, seconds=0.3):
                pulled += 1
                assert pulled - len(diary.starts) <= 1
                yield job

        throttler = Throttler(
            generate(), time_window=10, per_time_window=4, concurrency=concurrency
        )
        await finish(throttler)
        assert pulled == len(diary.starts) == 30

    @pytest.mark.timing
    async def test_nor_after_a_throttle_or_a_cancellation(self) -> None:
        diary = Diary()
        pulled = 0
        throttle = [ThrottleException(retry_after=50)]

        def generate() -> Iterator[Job]:
            nonlocal pulled
            for number in range(10):
                pulled += 1
                yield diary.job(number, seconds=10, errors=throttle if number == 2 else [])

        throttler = Throttler(generate(), concurrency=3)
        with anyio.move_on_after(5):
            await throttler.run()

        assert pulled == 4
        assert len(throttler.remaining()) == 4
        with anyio.move_on_after(15):
            await throttler.run()

        assert pulled <= 4 + 1
        await finish(throttler)
        assert pulled == 10

    async def test_always_pulled_by_one_and_the_same_task(self) -> None:
        diary = Diary()
        tasks: set[int] = set()

        async def generate() -> AsyncGenerator[Job]:
            for job in diary.jobs(10):
                tasks.add(anyio.get_current_task().id)
                # A scope that is held across a yield breaks if another task goes on.
                with anyio.CancelScope():
                    yield job

                tasks.add(anyio.get_current_task().id)

        await finish(Throttler(generate(), diary.consumer(), concurrency=3))
        assert len(tasks) == 1
        assert diary.consumed == list(range(10))

    @pytest.mark.untraced
    @pytest.mark.timing
    async def test_a_long_generator_costs_the_memory_of_the_concurrency(self) -> None:
        async def job() -> None:
            pass

        async def memory(jobs: int) -> int:
            gc.collect()
            tracemalloc.start()
            try:
                throttler = Throttler((job for _ in range(jobs)), limiter=RateLimiter())
                statistics = await throttler.run()
                assert statistics.done == jobs
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        # The first time, there is more.
        await memory(100)
        few, many = await memory(1_000), await memory(6_000)
        # In proportion, a million jobs cost less than 10 MB more.
        assert many - few < 50_000

    @pytest.mark.timing
    async def test_an_async_generator_cut_off_in_its_own_step(self) -> None:
        diary = Diary()

        async def generate() -> AsyncGenerator[Job]:
            for job in diary.jobs(2, seconds=5):
                yield job

            await anyio.sleep(1000)
            yield diary.job(2)

        source = generate()
        throttler = Throttler(source, diary.consumer(), concurrency=2)
        with anyio.move_on_after(3) as scope:
            await throttler.run()

        assert scope.cancelled_caught
        assert len(throttler.remaining()) == 2
        for _ in range(2):
            with pytest.raises(SourceInterrupted, match="cut off inside its own step") as caught:
                await finish(throttler)

            assert caught.value.source is source
            assert set(diary.consumed) == {0, 1}
            assert len(diary.consumed) == 2
            assert throttler.remaining() == []

    async def test_an_async_generator_that_has_failed_by_itself_was_not_cut_off(self) -> None:
        diary = Diary()

        async def generate() -> AsyncGenerator[Job]:
            yield diary.job(0)
            raise KeyError

        throttler = Throttler(generate(), diary.consumer())
        with pytest.raises(KeyError):
            await finish(throttler)

        await finish(throttler)
        assert diary.consumed == [0]

    @pytest.mark.timing
    async def test_an_async_generator_cut_off_elsewhere_goes_on(self) -> None:
        diary = Diary()

        async def generate() -> AsyncGenerator[Job]:
            for job in diary.jobs(5, seconds=5):
                await anyio.sleep(0)
                yield job

        throttler = Throttler(generate(), diary.consumer(), concurrency=2)
        with anyio.move_on_after(3):
            await throttler.run()

        await finish(throttler)
        assert sorted(diary.consumed, key=str) == [0, 1, 2, 3, 4]

    @pytest.mark.timing
    async def test_a_memory_object_stream_can_be_cut_off_at_any_time(self) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Job](5)
        throttler = Throttler(receive, diary.consumer())
        with send, receive:
            for number in range(3):
                with anyio.move_on_after(3):
                    await throttler.run()

                send.send_nowait(diary.job(number))

            send.close()
            await finish(throttler)

        assert diary.consumed == [0, 1, 2]


@pytest.mark.timing
@pytest.mark.promise("T10")
class TestT10StopAndRemaining:
    async def stop_at(self, instant: float, throttler: Throttler[JobOf[object], object]) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(partial(finish, throttler, within=500))
            await wait_idle()
            await anyio.sleep(instant)
            throttler.stop()

    async def test_what_runs_finishes_and_nothing_more_starts(self) -> None:
        diary = Diary()
        jobs = diary.jobs(9, seconds=10)
        throttler = Throttler(jobs, diary.consumer(), concurrency=3)
        await self.stop_at(15, throttler)
        assert sorted(diary.consumed, key=str) == [0, 1, 2, 3, 4, 5]
        assert anyio.current_time() == 20
        assert throttler.remaining() == jobs[6:]
        await finish(throttler)
        assert sorted(diary.consumed, key=str) == list(range(9))

    async def test_during_a_pause_without_end(self) -> None:
        diary = Diary()
        job = diary.job(0, errors=[ThrottleException(retry_after=inf)])
        throttler = Throttler([job, diary.job(1)], diary.consumer(), concurrency=1)
        await self.stop_at(15, throttler)
        assert anyio.current_time() == 15
        assert throttler.remaining()[0] is job
        assert len(throttler.remaining()) == 2

    async def test_in_the_limiter_s_line(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(3), diary.consumer(), limiter="1/100s")
        await self.stop_at(15, throttler)
        assert anyio.current_time() == 15
        assert diary.starts == [0]
        assert len(throttler.remaining()) == 2

    @pytest.mark.parametrize("concurrency", [1, 2, 5])
    @pytest.mark.parametrize("instant", [0, 5, 15])
    async def test_with_a_source_that_gives_nothing(self, instant: float, concurrency: int) -> None:
        diary = Diary()
        send, receive = anyio.create_memory_object_stream[Job](5)
        with send, receive:
            for job in diary.jobs(3, seconds=2):
                send.send_nowait(job)

            throttler = Throttler(receive, diary.consumer(), concurrency=concurrency)
            await self.stop_at(instant, throttler)

        assert anyio.current_time() <= instant + 2
        assert len(diary.consumed) == len(diary.starts)

    async def test_from_inside_a_job_with_a_source_that_gives_nothing_more(self) -> None:
        send, receive = anyio.create_memory_object_stream[Job](5)

        async def job() -> None:
            throttler.stop()

        with send, receive:
            send.send_nowait(job)
            throttler: Throttler[JobOf[object], object] = Throttler(receive, concurrency=2)
            assert (await finish(throttler)).done == 1

    async def test_a_slow_async_generator_that_stop_cuts_off_is_told_of_by_the_next_run(
        self,
    ) -> None:
        diary = Diary()

        async def generate() -> AsyncGenerator[Job]:
            yield diary.job(0)
            await anyio.sleep(1000)
            yield diary.job(1)

        throttler = Throttler(generate(), diary.consumer(), concurrency=1)
        await self.stop_at(5, throttler)
        assert anyio.current_time() == 5
        with pytest.raises(SourceInterrupted):
            await finish(throttler)

    async def test_from_inside_a_job(self) -> None:
        diary = Diary()

        async def job() -> str:
            throttler.stop()
            await anyio.sleep(5)
            return "stopped"

        throttler: Throttler[JobOf[object], object] = Throttler(
            [diary.job(0), job, diary.job(2)], diary.consumer(), limiter="10/1s"
        )
        await finish(throttler)
        assert diary.consumed == [0, "stopped"]
        assert len(throttler.remaining()) == 1

    async def test_a_throttled_job_stays_at_the_front(self) -> None:
        diary = Diary()
        jobs = [diary.job(0, seconds=10, errors=[ThrottleException()]), *diary.jobs(3)]
        throttler = Throttler(jobs, diary.consumer(), concurrency=1)
        await self.stop_at(5, throttler)
        assert throttler.remaining() == jobs
        assert throttler.statistics().throttled == 1

    async def test_stop_while_the_consumer_is_behind(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(10), diary.consumer(10), concurrency=2)
        await self.stop_at(15, throttler)
        # What has ended is consumed.
        assert diary.consumed == diary.starts
        assert len(diary.consumed) + len(throttler.remaining()) == 10

    async def test_without_a_run_there_is_nothing_to_stop(self) -> None:
        throttler = Throttler(Diary().jobs(3))
        throttler.stop()
        assert (await finish(throttler)).done == 3

    async def test_twice(self) -> None:
        throttler = Throttler(Diary().jobs(9, seconds=10), concurrency=1)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(5)
            throttler.stop()
            throttler.stop()

        assert throttler.statistics().done == 1

    async def test_remaining_of_a_sequence_before_and_after(self) -> None:
        jobs = Diary().jobs(3)
        throttler = Throttler(jobs)
        assert throttler.remaining() == jobs
        await finish(throttler)
        assert throttler.remaining() == []

    async def test_remaining_of_a_generator_leaves_the_rest_unread(self) -> None:
        jobs = Diary().jobs(5, seconds=10)
        iterator = iter(jobs)
        throttler = Throttler(iterator, concurrency=2)
        assert throttler.remaining() == []
        with anyio.move_on_after(5):
            await throttler.run()

        assert throttler.remaining() == jobs[:3]
        assert list(iterator) == jobs[3:]

    async def test_remaining_while_it_runs(self) -> None:
        diary = Diary()
        jobs = diary.jobs(5, seconds=10)
        throttler = Throttler(jobs, diary.consumer(), concurrency=2)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(15)
            assert throttler.remaining() == jobs[2:]

    async def test_front_first(self) -> None:
        diary = Diary()
        jobs = [
            diary.job(0, seconds=10),
            diary.job(1, errors=[ThrottleException(retry_after=inf)]),
            diary.job(2, seconds=10),
        ]
        added = diary.job("added")
        throttler = Throttler(iter(jobs), concurrency=3)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttler.run)
            await anyio.sleep(5)
            throttler.add(added)
            await anyio.sleep(10)
            left = throttler.remaining()
            task_group.cancel_scope.cancel()

        # The second of the jobs was still ahead when the first was added.
        assert left[0] is jobs[1]
        assert set(left) - {jobs[2]} == {jobs[1], added}


@pytest.mark.timing
@pytest.mark.promise("T11")
class TestT11Add:
    async def test_before_the_run(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(2), diary.consumer(), concurrency=1)
        throttler.add(diary.job("added"))
        throttler.add(diary.job("added too"))
        assert len(throttler.remaining()) == 4
        await finish(throttler)
        assert diary.starts == ["added", "added too", 0, 1]

    async def test_during_the_run_before_the_next_pull(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(5, seconds=10), diary.consumer(), concurrency=1)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(5)
            throttler.add(diary.job("added"))

        assert diary.starts in ([0, "added", 1, 2, 3, 4], [0, 1, "added", 2, 3, 4])
        assert diary.starts.index("added") == 1

    async def test_from_inside_a_job(self) -> None:
        diary = Diary()

        async def parent() -> str:
            throttler.add(diary.job("child"))
            return "parent"

        throttler: Throttler[JobOf[object], object] = Throttler(
            [parent, diary.job(1)], diary.consumer(), limiter="10/1s", concurrency=1
        )
        await finish(throttler)
        assert diary.consumed == ["parent", "child", 1]

    async def test_from_inside_the_last_job(self) -> None:
        diary = Diary()
        depth = 0

        async def again() -> object:
            nonlocal depth
            depth += 1
            if depth < 5:
                throttler.add(again)

            return depth

        throttler = Throttler([again], diary.consumer())
        await finish(throttler)
        assert diary.consumed == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("seconds", [None, 5])
    async def test_from_inside_the_consumer(self, seconds: float | None) -> None:
        diary = Diary()

        async def consume(result: object) -> None:
            if seconds is not None:
                await anyio.sleep(seconds)

            diary.consumed.append(result)
            if isinstance(result, int) and result < 3:
                throttler.add(diary.job(result + 1))

        throttler: Throttler[JobOf[object], object] = Throttler([diary.job(0)], consume)
        await finish(throttler)
        # Nothing waits at the front when a run returns.
        assert throttler.remaining() == []
        assert diary.consumed == [0, 1, 2, 3]

    async def test_while_the_source_gives_nothing(self) -> None:
        diary = Diary()
        throttler = Throttler(SlowJobs([diary.job("slow")], 20), diary.consumer())
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            await anyio.sleep(5)
            throttler.add(diary.job("added"))

        assert diary.entries[0] == ("start", "added", 5.0)
        assert diary.consumed == ["added", "slow"]

    async def test_after_what_was_put_back(self) -> None:
        diary = Diary()

        async def parent() -> object:
            if not diary.starts:
                throttler.add(diary.job("added"))
                diary.note("start", "parent")
                raise ThrottleException(retry_after=5)

            diary.note("start", "parent")
            return "parent"

        throttler = Throttler([parent, diary.job(1)], diary.consumer(), concurrency=1)
        await finish(throttler)
        assert diary.starts == ["parent", "parent", "added", 1]

    async def test_after_the_run_for_the_next(self) -> None:
        diary = Diary()
        throttler = Throttler(diary.jobs(1), diary.consumer())
        await finish(throttler)
        throttler.add(diary.job("added"))
        await finish(throttler)
        assert diary.consumed == [0, "added"]

    async def test_a_coroutine(self) -> None:
        diary = Diary()
        throttler: Throttler[JobOf[object], object] = Throttler([], diary.consumer())
        throttler.add(diary.job("added")())
        await finish(throttler)
        assert diary.consumed == ["added"]

    @pytest.mark.parametrize("job", [None, 0, "job", []])
    async def test_what_is_no_job_is_refused_at_once(self, job: object) -> None:
        throttler: Throttler[JobOf[object], object] = Throttler([])
        with pytest.raises(TypeError, match="job must be an async function without arguments"):
            throttler.add(job)  # type: ignore[arg-type]

        assert throttler.remaining() == []


class TestRepr:
    async def test_while_it_runs_and_else(self) -> None:
        async def job() -> None:
            assert repr(throttler) == "<Throttler running: 1 running, 0 done, 0 failed>"
            raise ValueError

        throttler = Throttler([job])
        assert repr(throttler) == "<Throttler idle: 0 running, 0 done, 0 failed>"
        await finish(throttler)  # type: ignore[arg-type]
        assert repr(throttler) == "<Throttler idle: 0 running, 0 done, 1 failed>"


class TestConstructingTouchesNothing:
    def test_no_event_loop_is_needed(self) -> None:
        throttler = Throttler(Diary().jobs(1), limiter="5/s")
        assert throttler.statistics() == ThrottlerStatistics(0, 0, 0, 0, 0)

    def test_the_source_is_not_touched(self) -> None:
        class Jobs:
            def __iter__(self) -> Iterator[Job]:
                raise AssertionError("touched")

        throttler: Throttler[JobOf[object], object] = Throttler(Jobs())
        assert throttler.remaining() == []
