"""What type checkers must see in `amap` and its kin; no test runs this."""

from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import assert_type

import anyio

from anythrottle import (
    Attempts,
    Outcome,
    RateLimiter,
    ThrottlerStatistics,
    amap,
    amap_outcomes,
    first,
    for_each,
)
from anythrottle._engine.outcomes import Outcomes
from anythrottle.abc import Event, Limiter


async def length(item: str) -> int:
    return len(item)


def length_later(item: str) -> Coroutine[object, object, int]:
    return length(item)


def length_now(item: str) -> int:
    return len(item)


async def shout(item: object) -> str:
    return str(item)


async def texts() -> AsyncIterator[str]:
    yield "a"


def cost(item: str) -> int:
    return len(item)


def tokens(item: str) -> Mapping[str, int]:
    return {"tokens": len(item)}


def cost_of_number(item: int) -> int:
    return item


def observe(event: Event) -> None: ...


def is_worth_it(error: Exception) -> bool | float:
    return 5.0


async def results() -> None:
    assert_type(await amap(length, ["a"]), list[int])
    assert_type(await amap(length, texts()), list[int])
    assert_type(await amap(length, "abc"), list[int])
    assert_type(await amap(length, (text for text in "abc")), list[int])
    assert_type(await amap(length_later, ["a"]), list[int])
    assert_type(await amap(shout, [1, 2]), list[str])
    assert_type(await for_each(length, ["a"]), None)


async def the_first(receive: anyio.abc.ObjectReceiveStream[str]) -> None:
    outcome = await first(length, receive)
    assert_type(outcome, Outcome[str, int])
    assert_type(outcome.item, str)
    assert_type(outcome.value, int)
    assert_type(outcome.result, int | None)
    assert_type(outcome.error, BaseException | None)


async def outcomes() -> None:
    stream = amap_outcomes(length, ["a"], ordered=True)
    assert_type(stream, AbstractAsyncContextManager[Outcomes[str, int], bool | None])
    block: AbstractAsyncContextManager[AsyncIterator[Outcome[object, object]]] = stream
    take_block(block)
    async with stream as found:
        assert_type(found, Outcomes[str, int])
        assert_type(found.statistics(), ThrottlerStatistics)
        assert_type(found.statistics().expected_in, float | None)
        found.stop()
        async for outcome in found:
            assert_type(outcome, Outcome[str, int])
            assert_type(outcome.item, str)
            assert_type(outcome.value, int)

    async with amap_outcomes(length, texts()) as more:
        take(await anext(more))


async def all_parameters(limiter: Limiter) -> None:
    assert_type(
        await amap(
            length,
            ["a"],
            limiter=RateLimiter("20/10s"),
            concurrency=5,
            cost={"tokens": 3},
            attempts=Attempts(3, retry_on=(OSError, ValueError), timeout=5),
            observer=observe,
        ),
        list[int],
    )
    await amap(
        length,
        ["a"],
        limiter=limiter,
        concurrency=None,
        cost=cost,
        attempts=Attempts(retry_on=OSError),
    )
    await for_each(
        length, ["a"], limiter="5/s", cost=tokens, attempts=Attempts(retry_on=is_worth_it)
    )
    await first(
        length,
        ["a"],
        limiter=None,
        concurrency=anyio.CapacityLimiter(3),
        attempts=Attempts(timeout=None),
    )
    amap_outcomes(length, ["a"], cost=3, ordered=False, observer=None)


async def wrong() -> None:
    await amap(length, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await amap(length_now, ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await amap(length, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await amap(length, ["a"], "20/10s")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await amap(length, ["a"], limiter=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await amap(length, ["a"], concurrency=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await amap(length, ["a"], cost=cost_of_number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await amap(length, ["a"], ordered=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await amap(length, ["a"], attempts=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await first(length, ["a"], observer=print_it)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def wrong_attempts() -> None:
    Attempts(3, 5, retry_on=OSError)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Attempts(1.5, retry_on=OSError)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Attempts(retry_on=[OSError])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Attempts(retry_on=KeyboardInterrupt)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def print_it(event: int) -> None: ...


def take(outcome: Outcome[object, object]) -> None: ...


def take_block(block: AbstractAsyncContextManager[object]) -> None: ...
