"""Units in other words, and how a text is measured: the same wherever they are named."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anythrottle import FixedWindow, RateLimiter, TokenBucket, WindowTokenBucket, amap
from anythrottle.abc import Bucket

pytestmark = pytest.mark.timing


class Own:
    """A policy of a user's own, that names its unit in its own words."""

    limit = 5.0
    window = 10.0
    holds = False

    def __init__(self, unit: str) -> None:
        self.unit = unit

    def bucket(self) -> Bucket:
        return WindowTokenBucket(5, 10).bucket()


@pytest.mark.parametrize("word", ["requests", "request", "req", "call"])
class TestRequestsAreCalls:
    @pytest.mark.parametrize(
        "make",
        [
            lambda unit: WindowTokenBucket(5, 10, unit=unit),
            lambda unit: TokenBucket(5, 10, unit=unit),
            lambda unit: FixedWindow(5, 10, unit=unit),
        ],
    )
    def test_in_a_policy(self, make: Any, word: str) -> None:
        assert make(word) == make("calls")
        assert make(word).unit == "calls"

    async def test_in_costs_corrections_and_figures(self, word: str) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit({word: 4}) as permit:
            assert limiter.peek().remaining == 1
            permit.settle({word: 2})

        assert limiter.peek({word: 3}).allowed
        limiter.penalize({word: 1})
        assert limiter.peek().remaining == 2
        limiter.tighten(remaining=1, unit=word)
        assert limiter.peek().remaining == 1
        await limiter.acquire({word: 1})
        assert limiter.peek().remaining == 0

    async def test_in_a_policy_of_a_users_own(self, word: str) -> None:
        limiter = RateLimiter(Own(word))
        await limiter.acquire()
        await limiter.acquire({"calls": 2})
        limiter.penalize({word: 1})
        assert limiter.peek().remaining == 1
        limiter.reconfigure("6/10s")
        assert limiter.peek().remaining == 2


class TestMeasure:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: RateLimiter("2/10s end"),
            lambda: RateLimiter("2/10s", measure="end"),
            lambda: RateLimiter("2/10s start", "2/10s", measure="end"),
        ],
    )
    async def test_from_the_end(self, make: Any) -> None:
        limiter = make()
        begun = []

        async def call() -> None:
            begun.append(anyio.current_time() - start)
            await anyio.sleep(3)

        start = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            for _ in range(3):
                task_group.start_soon(limiter.run, call)

        assert begun == [0, 0, 13]

    async def test_of_texts_that_do_not_say(self) -> None:
        limiter = RateLimiter("2/10s start", TokenBucket(2, 10), measure="end")
        await limiter.acquire()

    async def test_of_texts_that_come_later(self) -> None:
        limiter = RateLimiter("2/10s", measure="end")
        limiter.reconfigure("3/10s")
        with pytest.raises(RuntimeError, match="permit"):
            await limiter.acquire()

    async def test_in_a_text_for_the_engine(self) -> None:
        begun = []

        async def call(item: int) -> None:
            begun.append(anyio.current_time() - start)
            await anyio.sleep(3)

        start = anyio.current_time()
        await amap(call, range(3), limiter="2/10s end")
        assert begun == [0, 0, 13]

    def test_a_wrong_one(self) -> None:
        wrong: Any = "middle"
        with pytest.raises(ValueError, match="measure must be 'start' or 'end', not 'middle'"):
            RateLimiter("2/10s", measure=wrong)
