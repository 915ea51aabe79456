"""What type checkers must see in the engine; no test runs this."""

import logging
from collections.abc import Awaitable, Callable
from typing import assert_type

from anythrottle import (
    Attempts,
    FrontReceiveStream,
    FrontSendStream,
    Outcome,
    RateLimiter,
    ThrottleException,
    Throttler,
    ThrottlerStatistics,
    create_front_stream,
)
from anythrottle.abc import Event


async def job() -> int:
    return 1


async def consume(result: int) -> None: ...


async def consume_text(result: str) -> None: ...


def consume_sync(result: int) -> None: ...


def observe(event: Event) -> None: ...


async def the_form_of_the_ancestor() -> None:
    assert_type(Throttler([job]), Throttler[int])
    assert_type(Throttler([job()]), Throttler[int])
    assert_type(Throttler([job], consume), Throttler[int])
    assert_type(Throttler(job for _ in range(3)), Throttler[int])
    throttler = Throttler(
        [job],
        consume,
        time_window=10,
        per_time_window=20,
        concurrency=5,
        attempts=Attempts(max_throttles=3),
        observer=observe,
        log_handler=logging.NullHandler(),
        log_level="INFO",
    )
    assert_type(throttler, Throttler[int])
    assert_type(await throttler.run(), ThrottlerStatistics)
    assert_type(throttler.statistics(), ThrottlerStatistics)
    assert_type(throttler.remaining(), list[Callable[[], Awaitable[int]] | Awaitable[int]])
    outcome = await throttler.exceptions.receive()
    assert_type(outcome, Outcome[Callable[[], Awaitable[int]] | Awaitable[int], int])
    assert_type(outcome.value, int)
    assert_type(outcome.error, BaseException | None)
    throttler.add(job)
    throttler.add(job())


def the_form_with_a_limiter() -> None:
    assert_type(Throttler([job], limiter="20/10s"), Throttler[int])
    assert_type(Throttler([job], consume, limiter=RateLimiter(), concurrency=3), Throttler[int])
    assert_type(Throttler([job], limiter="20/10s", concurrency=None, log_level=10), Throttler[int])
    assert_type(Throttler([job], limiter="20/10s", observer=observe), Throttler[int])
    assert_type(Throttler([job], observer=None), Throttler[int])


def wrong() -> None:
    Throttler([job], limiter="20/10s", time_window=10)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Throttler([job], limiter="20/10s", per_time_window=10)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Throttler([job], limiter=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], limiter=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], concurrency=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], concurrency=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], consume_sync)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], consume_text)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([1, 2])  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], observer=consume_text)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], observer="print")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler([job], consume, 10)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Throttler([job]).add(consume)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def front_streams() -> None:
    send, receive = create_front_stream[str](3)
    assert_type(send, FrontSendStream[str])
    assert_type(receive, FrontReceiveStream[str])
    await send.send("a")
    await send.send(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await receive.receive(), str)
    assert_type(receive.receive_nowait(), str)
    assert_type(await receive.receive_numbered(), tuple[int, str])
    receive.put_back("a", 0)
    assert_type(send.clone(), FrontSendStream[str])
    assert_type(receive.clone(), FrontReceiveStream[str])
    async for item in receive:
        assert_type(item, str)


def signals() -> None:
    ThrottleException()
    ThrottleException(job)
    ThrottleException(job(), retry_after=1)
    ThrottleException(retry_after="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ThrottleException(job, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
