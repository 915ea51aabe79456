"""Wherever a request is cut off, nothing stays held and no answer open."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anythrottle import RateLimiter
from anythrottle.testing import wait_idle
from tests.engine.mine import Mine
from tests.integrations.tools import Answer, Library, Throttled, held
from tests.limiters.tools import BLOWS, Blow, Victim, sweep_with, tasks

pytestmark = pytest.mark.promise("H1")

REFUSED = Answer(429, {"retry-after": "1"}, after=0.1, parts=(b"no", 0.1, b" way"))
LARGE = Answer(429, {"retry-after": "1"}, after=0.1, parts=3 * (b"x" * 40_000,))
THERE = Answer(302, {"location": "/there"}, after=0.1, parts=(0.1, b"there"))
SLOW = Answer(200, after=0.1, parts=(b"first", 0.1, b"last"))
TOLD = Answer(200, {"ratelimit-policy": '"a";q=10;w=1'}, after=0.1, parts=(b"first", 0.1))
OVER = Answer(200, after=0.1, read=True)

#: By which answers, and options.
SCRIPTS: dict[str, tuple[list[Answer], dict[str, Any]]] = {
    "plain": ([SLOW], {}),
    "again": ([REFUSED, REFUSED, SLOW], {}),
    "again, large": ([LARGE, LARGE, SLOW], {}),
    "used up": ([REFUSED], {"max_throttles": 2}),
    "redirected": ([THERE, SLOW], {}),
    "over": ([OVER], {}),
    "learns": ([TOLD], {"learn": True}),
    "settles": ([SLOW], {"settle": lambda _: 0, "cost": 2}),
}


async def get(throttled: Throttled) -> None:
    answer = await throttled.get(follow_redirects=True)
    assert answer.is_closed


async def by_hand(throttled: Throttled) -> None:
    """As who closes what it opens."""
    answer = await throttled.open()
    try:
        await answer.aread()
    finally:
        await answer.aclose()


async def in_a_block(throttled: Throttled) -> None:
    async with throttled.client.stream("GET", "http://a.example/") as answer:
        assert answer.status_code


WAYS = {"get": get, "by hand": by_hand, "in a block": in_a_block}


async def ahead_of_others(
    library: Library, script: str, way: str, limiter: RateLimiter, victim: Victim
) -> None:
    """The victim stands in line, or holds the slot, with others before and behind it."""
    answers, options = SCRIPTS[script]
    throttled = Throttled(library, limiter, *answers, **options)
    async with tasks() as task_group:
        task_group.start_soon(get, throttled)
        await wait_idle()
        task_group.start_soon(victim.run, WAYS[way](throttled))
        await wait_idle()
        task_group.start_soon(get, throttled)

    throttled.assert_nothing_held()
    throttled.server.answers = [SLOW]
    with anyio.fail_after(1000):
        await throttled.get()


@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("way", WAYS)
def test_at_each_step(library: Library, blow: Blow, script: str, way: str) -> None:
    def scenario(victim: Victim) -> Any:
        limiter = RateLimiter("20/s end", concurrency=1)
        return ahead_of_others(library, script, way, limiter, victim)

    assert sweep_with(blow, scenario) >= 3


class Slow(Mine):
    """A limiter whose calls take their time to end, in ``run`` and in their permits."""

    async def run(self, func: Any, *args: Any, **options: Any) -> Any:
        answer = await self.limiter.run(func, *args, **options)
        await anyio.sleep(0.1)
        return answer


@pytest.mark.parametrize("blow", BLOWS)
def test_by_a_limiter_of_ones_own(library: Library, blow: Blow) -> None:
    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter(concurrency=1)
        throttled = Throttled(library, Slow(limiter), REFUSED, SLOW)
        await victim.run(get(throttled))
        assert held(limiter) == throttled.server.open == 0

    assert sweep_with(blow, scenario) > 5


@pytest.mark.parametrize("blow", BLOWS)
def test_closing_by_another_task(library: Library, blow: Blow) -> None:
    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter(concurrency=1)
        throttled = Throttled(library, limiter, SLOW)
        answer = await throttled.open()
        await victim.run(answer.aclose())
        throttled.assert_nothing_held()

    assert sweep_with(blow, scenario) >= 1


@pytest.mark.parametrize("blow", BLOWS)
def test_while_a_refused_answer_will_not_close(library: Library, blow: Blow) -> None:
    """It is waited for, but not for ever."""

    async def hang(body: Any) -> None:
        body.server.open -= 1
        await anyio.sleep_forever()

    async def scenario(victim: Victim) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), REFUSED, OVER)
        body: Any = throttled.server._body
        body.aclose = hang
        start = anyio.current_time()
        await victim.run(get(throttled))
        assert anyio.current_time() <= start + 3
        throttled.assert_nothing_held()

    assert sweep_with(blow, scenario) > 3
