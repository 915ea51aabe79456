"""RunCancellation: is this the run's own cancellation?"""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from anythrottle._engine.cancellation import RunCancellation, without_cancellations
from anythrottle._loops.clock import loop_of, native_loop


def asyncio_run(main: Callable[[], Awaitable[object]]) -> None:
    async def call() -> None:
        await main()

    asyncio.run(call())


def made_here() -> RunCancellation:
    return RunCancellation(loop_of(native_loop()))


async def test_an_ordinary_error_is_none() -> None:
    assert not made_here().caused(ValueError())
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert not made_here().caused(ValueError())


async def test_generator_exit_always_has_to_leave() -> None:
    assert made_here().caused(GeneratorExit())


async def test_a_cancelled_scope() -> None:
    cancellation = made_here()
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
            await anyio.sleep(1)

        assert cancellation.caused(caught.value)
        raise caught.value


async def test_a_scope_around_that_was_cancelled() -> None:
    cancellation = made_here()
    told = False
    with anyio.CancelScope() as scope, anyio.CancelScope():
        scope.cancel()
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class() as exc:
            told = cancellation.caused(exc)
            raise

    assert told


async def test_a_scope_within_that_was_cancelled_is_another_matter() -> None:
    cancellation = made_here()
    error: BaseException | None = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class() as exc:
            error = exc
            raise

    assert error is not None
    assert not cancellation.caused(error)


def test_the_run_s_own_task_is_cancelled_natively() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        cancellation = made_here()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asyncio.sleep(1)

        assert cancellation.caused(caught.value)
        task.uncancel()

    asyncio_run(main)


def test_it_was_cancelled_natively_before_and_went_on() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)

        cancellation = made_here()
        assert not cancellation.caused(asyncio.CancelledError())
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asyncio.sleep(1)

        assert cancellation.caused(caught.value)

    asyncio_run(main)


def test_it_was_cancelled_natively_before_and_that_is_taken_back() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)

        cancellation = RunCancellation(loop_of(native_loop()), host_waits=True)
        task.uncancel()
        assert not cancellation.host_is_called()
        assert not cancellation.forbids_starts()
        assert not cancellation.caused(asyncio.CancelledError())

    asyncio_run(main)


def test_awaiting_a_cancelled_task_is_none() -> None:
    async def main() -> None:
        cancellation = made_here()
        victim = asyncio.ensure_future(asyncio.sleep(1))
        victim.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await victim

        assert not cancellation.caused(caught.value)

    asyncio_run(main)


def test_another_task_that_is_cancelled_natively_absorbs_it() -> None:
    async def main() -> None:
        cancellation = made_here()

        async def worker() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            task.cancel()
            told = True
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError as exc:
                told = cancellation.caused(exc)
                cancellation.absorb(exc)

            assert not told
            assert not task.cancelling()
            await asyncio.sleep(0)
            return "went on"

        assert await asyncio.create_task(worker()) == "went on"

    asyncio_run(main)


def test_what_was_meant_for_a_job_that_is_over_is_forgotten() -> None:
    async def main() -> None:
        cancellation = made_here()

        async def worker() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(1)

            cancellation.forget(task)
            assert not task.cancelling()

        await asyncio.create_task(worker())

    asyncio_run(main)


def test_but_not_what_was_meant_for_the_run() -> None:
    async def main() -> None:
        cancellation = made_here()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)

        cancellation.forget(task)
        assert task.cancelling() == 1
        task.uncancel()

    asyncio_run(main)


async def test_there_is_nothing_to_absorb_in_other_errors() -> None:
    RunCancellation.absorb(ValueError())


async def test_an_error_in_the_company_of_cancellations_is_none() -> None:
    cancellation = made_here()
    error = ValueError()
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
            await anyio.sleep(1)

        assert cancellation.caused(BaseExceptionGroup("", [caught.value]))
        mixed = BaseExceptionGroup("", [caught.value, error])
        assert not cancellation.caused(mixed)
        rest = without_cancellations(mixed)
        assert isinstance(rest, ExceptionGroup)
        assert rest.exceptions == (error,)
        raise caught.value


@pytest.mark.parametrize("error", [ValueError(), ExceptionGroup("", [ValueError()])], ids=repr)
async def test_what_has_no_cancellations_stays_what_it_is(error: Exception) -> None:
    assert without_cancellations(error) is error


def test_a_timeout_of_the_host_s_own_is_none() -> None:
    async def main() -> None:
        cancellation = made_here()
        told: list[bool] = []

        async def ask() -> None:
            told.append(cancellation.is_under_way())
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            told.append(cancellation.is_under_way())
            task.uncancel()

        with anyio.move_on_after(0.01):
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    asker = asyncio.create_task(ask())
                    await asyncio.wait([asker])

        assert told == [False, True]

    asyncio_run(main)
