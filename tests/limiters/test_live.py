"""Whatever holds live state refuses to be copied, in all ways, and says so."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import anyio
import pytest

from anythrottle import (
    KeyedLimiter,
    RateLimiter,
    Throttler,
    amap_outcomes,
    create_front_stream,
)
from anythrottle._jobs import JobOf
from anythrottle.integrations.rich import JobProgress

TWINS = [copy.copy, copy.deepcopy, pickle.dumps]


@pytest.fixture
def stream_ends() -> Iterator[list[object]]:
    send, receive = create_front_stream[int](3)
    with send, receive:
        yield [send, receive]


def refuses(twin: Callable[[object], object], live: object) -> bool:
    with pytest.raises(TypeError, match="cannot be copied or pickled: make another one") as raised:
        twin(live)

    return str(raised.value).startswith(repr(live))


@pytest.mark.parametrize("twin", TWINS)
class TestLive:
    def test_an_unused_one_cannot_be_copied(
        self, twin: Callable[[object], object], stream_ends: list[object]
    ) -> None:
        limiter = RateLimiter("5/s", name="api")
        throttler: Throttler[JobOf[object], object] = Throttler([])
        live = [
            limiter,
            KeyedLimiter[str, RateLimiter](lambda _: RateLimiter()),
            limiter.permit(),
            throttler,
        ]
        assert all(refuses(twin, each) for each in [*live, throttler.exceptions, *stream_ends])
        assert refuses(twin, JobProgress())

    async def test_one_in_use_cannot_be_copied(self, twin: Callable[[object], object]) -> None:
        limiter = RateLimiter("5/s", concurrency=2)
        async with limiter.permit() as permit:
            assert refuses(twin, permit)
            assert refuses(twin, limiter)

        async with amap_outcomes(anyio.sleep, [0]) as outcomes:
            assert refuses(twin, outcomes)

        assert limiter.statistics().borrowed_tokens == 0
        assert limiter.peek().remaining == 4

    def test_what_holds_one_cannot_be_copied_deeply(self, twin: Callable[[object], object]) -> None:
        holder = {"limiter": RateLimiter("5/s")}
        if twin is copy.copy:
            assert copy.copy(holder)["limiter"] is holder["limiter"]
        else:
            with pytest.raises(TypeError, match="RateLimiter"):
                twin(holder)
