"""Throttled clients with limiters of a user's own, and limiters within limiters."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from anythrottle import BaseLimiter, LimitExceeded, RateLimiter, ThrottleException
from anythrottle._limiters.permit import TurnPermit
from tests.engine.mine import Mine
from tests.integrations.tools import Answer, Library, Throttled, held

pytestmark = pytest.mark.timing

REFUSED = Answer(429, {"retry-after": "7"}, parts=(b"refused",))


async def test_one_around_another(library: Library) -> None:
    inner = RateLimiter("9/s end", concurrency=1)
    throttled = Throttled(library, Mine(inner), REFUSED, Answer())
    answer = await throttled.open()
    assert throttled.server.instants == [0, 7]
    assert held(inner) == 1
    await answer.aread()
    assert held(inner) == 0


async def test_a_permit_is_told_once_of_each_refusal(library: Library) -> None:
    """Else what adapts to refusals would do so twice."""
    inner = RateLimiter()
    times: list[float | None] = []
    throttled = Throttled(library, inner, REFUSED, REFUSED, max_throttles=2)
    original = TurnPermit.throttled

    def note(permit: Any, retry_after: float | None = None) -> None:
        times.append(retry_after)
        original(permit, retry_after)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TurnPermit, "throttled", note)
        await throttled.get()

    assert times == [7, 7]


async def test_a_limit_inside_of_the_request_is_an_error_of_it(library: Library) -> None:
    """An error of another limiter, in the turn, is not taken for one's own."""
    inner = RateLimiter("1/h")

    async def limited(request: Any) -> Any:
        inner.acquire_nowait()
        return await send(request)

    throttled = Throttled(library, RateLimiter(concurrency=1), REFUSED)
    send = throttled.server.handle_async_request
    throttled.server.handle_async_request = limited  # type: ignore[method-assign]
    with pytest.raises(LimitExceeded) as caught:
        await throttled.get()

    assert type(caught.value) is LimitExceeded
    throttled.assert_nothing_held()


async def test_one_that_waits_as_a_call_leaves_it(library: Library) -> None:
    """If it is cancelled there, nobody gets the answer: it is closed."""
    limiter = RateLimiter(concurrency=1)

    class Waits(Mine):
        async def run(self, func: Any, *args: Any, **options: Any) -> Any:
            answer = await self.limiter.run(func, *args, **options)
            await anyio.sleep(1)
            return answer

    throttled = Throttled(library, Waits(limiter))
    with anyio.move_on_after(0.5):
        await throttled.get()

    assert throttled.server.open == held(limiter) == 0


async def test_one_whose_calls_cannot_be_kept(library: Library) -> None:
    """Its answers are closed: they could hold nothing."""
    inner = RateLimiter(concurrency=1)

    class Bare:
        waited = 0.0

        def mark_counted(self, *units: str) -> None: ...

    class Simple(BaseLimiter):
        @asynccontextmanager
        async def permit(self, *args: Any, **options: Any) -> AsyncGenerator[Any]:
            async with inner.permit(*args, **options):
                yield Bare()

        def pause(self, seconds: float | None = None) -> None: ...

    throttled = Throttled(library, Simple())
    with pytest.raises(AttributeError, match="keep"):
        await throttled.get()

    assert throttled.server.open == held(inner) == 0


async def test_two_event_loops_at_once(library: Library) -> None:
    """It is told before anything is sent."""
    throttled = Throttled(library, RateLimiter())
    await throttled.get()
    with pytest.raises(RuntimeError, match="the throttled client is in use in another event loop"):
        await anyio.to_thread.run_sync(partial(anyio.run, throttled.get))

    assert len(throttled.server.sent) == 1


async def test_what_is_inside_may_throttle_no_more_often_than_the_server(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1), max_throttles=3)
    calls: list[Any] = []

    async def throttle(request: Any) -> None:
        calls.append(request)
        raise ThrottleException(retry_after=7)

    throttled.server.handle_async_request = throttle  # type: ignore[method-assign]
    with pytest.raises(ThrottleException):
        await throttled.get()

    assert (len(calls), anyio.current_time()) == (3, 14)
    throttled.assert_nothing_held()
