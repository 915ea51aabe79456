"""What type checkers must see in the engine; no test runs this."""

import logging
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias, assert_type

import anyio
import anyio.abc

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

#: What the items are, if there is no function for them.
Job: TypeAlias = Callable[[], Awaitable[int]] | Awaitable[int]


async def job() -> int:
    return 1


async def consume(result: int) -> None: ...


async def consume_text(result: str) -> None: ...


def consume_sync(result: int) -> None: ...


def observe(event: Event) -> None: ...


async def the_form_of_the_ancestor() -> None:
    assert_type(Throttler([job]), Throttler[Job, int])
    assert_type(Throttler([job()]), Throttler[Job, int])
    assert_type(Throttler([job], consume), Throttler[Job, int])
    assert_type(Throttler(job for _ in range(3)), Throttler[Job, int])
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
    assert_type(throttler, Throttler[Job, int])
    assert_type(await throttler.run(), ThrottlerStatistics)
    assert_type(throttler.statistics(), ThrottlerStatistics)
    assert_type(throttler.remaining(), list[Job])
    outcome = await throttler.exceptions.receive()
    assert_type(outcome, Outcome[Job, int])
    assert_type(outcome.value, int)
    assert_type(outcome.error, BaseException | None)
    throttler.add(job)
    throttler.add(job())


def the_form_with_a_limiter() -> None:
    assert_type(Throttler([job], limiter="20/10s"), Throttler[Job, int])
    assert_type(
        Throttler([job], consume, limiter=RateLimiter(), concurrency=3), Throttler[Job, int]
    )
    assert_type(
        Throttler([job], limiter="20/10s", concurrency=None, log_level=10), Throttler[Job, int]
    )
    assert_type(Throttler([job], limiter="20/10s", observer=observe), Throttler[Job, int])
    assert_type(Throttler([job], observer=None), Throttler[Job, int])


async def length(item: str) -> int:
    return len(item)


async def shout(item: object) -> str:
    return str(item)


async def take(outcome: Outcome[str, int]) -> None:
    assert_type(outcome.value, int)


async def take_job(outcome: Outcome[Job, int]) -> None:
    assert_type(outcome.value, int)


def cost(item: str) -> int:
    return len(item)


def halt(run: ThrottlerStatistics) -> bool:
    assert_type(run.ended, Literal["done", "stopped", "halted"] | None)
    return run.failed > 5


async def the_form_with_a_function(receive: anyio.abc.ObjectReceiveStream[str]) -> None:
    throttler = Throttler(receive, consume, func=length, limiter="20/10s", cost=cost)
    assert_type(throttler, Throttler[str, int])
    assert_type(throttler.remaining(), list[str])
    assert_type(await throttler.exceptions.receive(), Outcome[str, int])
    throttler.add("a", front=True)
    assert_type(Throttler(["a"], func=length), Throttler[str, int])
    assert_type(Throttler(["a"], func=length, time_window=5, halt=halt), Throttler[str, int])
    assert_type(Throttler(["a"], func=length, outcome_fn=take), Throttler[str, int])
    assert_type(Throttler(["a"], func=length, limiter=RateLimiter()), Throttler[str, int])
    assert_type(Throttler([1, 2], func=shout), Throttler[int, str])
    assert_type(Throttler([job], outcome_fn=take_job), Throttler[Job, int])
    assert_type(Throttler([job], func=None, limiter="5/s"), Throttler[Job, int])
    nothing: list[Job] = []
    assert_type(Throttler(nothing), Throttler[Job, int])


def wrong_with_a_function() -> None:
    Throttler([1], func=length)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler(["a"], consume_text, func=length)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler(["a"], func=length).add(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Throttler(["a"], func=length, outcome_fn=take_job)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler(["a"], func=length, halt=observe)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Throttler(jobs=[job])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


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
    ThrottleException(retry_after="1")
    ThrottleException(retry_after=b"1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ThrottleException(job, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
