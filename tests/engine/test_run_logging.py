"""The logging knobs act only while a run is under way."""

import logging
from collections.abc import Iterator

import pytest

from anythrottle import ThrottleException, Throttler
from anythrottle._engine.run_logging import logging_during_run
from tests.engine.diary import Diary, finish

logger = logging.getLogger("anythrottle")


class ListHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = list(logger.handlers), logger.level
    yield
    assert (list(logger.handlers), logger.level) == before


def test_the_library_prints_nothing_by_itself() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)


def test_neither() -> None:
    before = list(logger.handlers), logger.level
    with logging_during_run(None, None):
        assert (list(logger.handlers), logger.level) == before


def test_handler_and_level_are_there_meanwhile() -> None:
    handler = ListHandler()
    with logging_during_run(handler, logging.DEBUG):
        assert handler in logger.handlers
        assert logger.level == logging.DEBUG

    assert handler not in logger.handlers


def test_taken_off_after_an_error() -> None:
    handler = ListHandler()
    with pytest.raises(ValueError, match="mine"), logging_during_run(handler, logging.DEBUG):
        raise ValueError("mine")

    assert handler not in logger.handlers


def test_a_handler_that_was_attached_before_stays() -> None:
    handler = ListHandler()
    logger.addHandler(handler)
    with logging_during_run(handler, None):
        assert logger.handlers.count(handler) == 1

    assert handler in logger.handlers
    logger.removeHandler(handler)


def test_a_handler_that_was_attached_before_and_is_not_any_more() -> None:
    handler = ListHandler()
    logger.addHandler(handler)
    with logging_during_run(handler, None):
        pass

    logger.removeHandler(handler)
    with logging_during_run(handler, None):
        assert handler in logger.handlers

    assert handler not in logger.handlers


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_overlapping_runs_with_one_handler(*, first_ends_first: bool) -> None:
    handler = ListHandler()
    runs = [logging_during_run(handler, logging.INFO), logging_during_run(handler, logging.DEBUG)]
    for run in runs:
        run.__enter__()

    assert logger.handlers.count(handler) == 1
    assert logger.level == logging.DEBUG
    first, second = runs if first_ends_first else runs[::-1]
    first.__exit__(None, None, None)
    assert logger.handlers.count(handler) == 1
    assert logger.level == (logging.DEBUG if first_ends_first else logging.INFO)
    second.__exit__(None, None, None)
    assert handler not in logger.handlers


def test_of_several_levels_the_lowest_holds() -> None:
    for levels in ([10, 20, 30], [30, 10, 20], [20, 30, 10]):
        runs = [logging_during_run(None, level) for level in levels]
        for run in runs:
            run.__enter__()

        assert logger.level == 10
        for run in runs:
            run.__exit__(None, None, None)


def test_overlapping_runs_with_two_handlers() -> None:
    handlers = [ListHandler(), ListHandler()]
    with logging_during_run(handlers[0], None):
        with logging_during_run(handlers[1], None):
            assert set(handlers) <= set(logger.handlers)

        assert handlers[0] in logger.handlers
        assert handlers[1] not in logger.handlers


def test_the_lowest_level_holds_even_if_it_is_the_default_level() -> None:
    before = logger.level
    with logging_during_run(None, logging.ERROR):
        assert logger.level == logging.ERROR

    assert logger.level == before


async def test_a_run_tells_the_handler_of_throttles_and_unread_failures() -> None:
    diary = Diary()
    handler = ListHandler()
    jobs = [
        diary.job("bounces", errors=[ThrottleException(retry_after=0)]),
        diary.job("fails", errors=[ValueError()]),
    ]
    throttler = Throttler(jobs, limiter="10/1s", log_handler=handler, log_level=logging.INFO)
    await finish(throttler)
    throttled, unread = handler.messages
    assert throttled.startswith("job 0")
    assert "throttled for 0 s" in throttled
    assert unread == "1 failed job has not been read from the throttler's exceptions"
    handler.messages.clear()
    logger.error("after the run")
    assert handler.messages == []


async def test_below_the_level_nothing_is_told() -> None:
    diary = Diary()
    handler = ListHandler()
    job = diary.job("bounces", errors=[ThrottleException(retry_after=0)])
    throttler = Throttler([job], limiter="10/1s", log_handler=handler, log_level="WARNING")
    await finish(throttler)
    assert handler.messages == []


async def test_nothing_is_added_twice_over_several_runs() -> None:
    handler = ListHandler()
    throttler = Throttler(Diary().jobs(1), log_handler=handler)
    for _ in range(3):
        await finish(throttler)
        assert handler not in logger.handlers


async def test_taken_off_after_a_run_that_failed() -> None:
    async def consume(result: object) -> None:
        raise ValueError("mine")

    handler = ListHandler()
    throttler = Throttler(Diary().jobs(1), consume, log_handler=handler, log_level=1)
    with pytest.raises(ValueError, match="mine"):
        await finish(throttler)

    assert handler not in logger.handlers
