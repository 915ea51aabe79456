"""Clients that obey what they are told are never refused, and get what the limit allows."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import FixedWindow, KeyedLimiter, RateLimiter, TokenBucket, WindowTokenBucket
from anythrottle.abc import Policy
from anythrottle.integrations.asgi import RateLimitMiddleware
from tests.conftest import Run
from tests.integrations.asgi_tools import Client, Echo, ask
from tests.integrations.tools import LIBRARIES
from tests.properties import examples

pytestmark = pytest.mark.timing

#: How much earlier than it should a timer fires.
EARLY = 0.001


@dataclass
class Obeying:
    """
    A client that knows only what ``RateLimit`` tells, and whole seconds.

    It has at most r less what is unanswered, within t; then one until it is told more.
    """

    app: Any
    quota_of: dict[int, tuple[float, float]] = field(default_factory=dict)
    sent: int = 0
    unanswered: int = 0
    served: int = 0
    refused: int = 0

    def may(self) -> float:
        """Return in how many seconds a request may go: 0 for now, infinity for not until told."""
        now = anyio.current_time()
        wait = 0.0
        for left, until in self.quota_of.values():
            if now < until - EARLY:
                if left < 1:
                    wait = max(wait, until - EARLY - now)
            elif self.unanswered:
                return math.inf

        return math.inf if not self.quota_of and self.unanswered else wait

    def begin(self) -> int:
        """Count a request that goes now; return how many were answered before, and itself."""
        self.sent += 1
        answered = self.sent - self.unanswered
        self.unanswered += 1
        self.quota_of = {name: (left - 1, until) for name, (left, until) in self.quota_of.items()}
        return answered

    async def request(self, takes: float, answered: int) -> None:
        client = await ask(self.app, Client())
        await anyio.sleep(takes)
        self.unanswered -= 1
        if client.status == 200:
            self.served += 1
        else:
            self.refused += 1

        for index, quota in enumerate(client.quotas):
            assert quota.remaining is not None
            # No t: nothing is missing. What is left then is left whenever it is asked for.
            seconds = math.ceil(quota.reset_after) if quota.reset_after else 1e9
            self.note(index, quota.remaining, anyio.current_time() + seconds, answered)

    def note(self, index: int, remaining: int, until: float, answered: int) -> None:
        now = anyio.current_time()
        left: float = remaining - self.unanswered
        before, before_until = self.quota_of.get(index, (math.inf, -math.inf))
        if now < before_until - EARLY:
            # Answers come out of order: only ever lowered within t.
            left, until = min(left, before), max(until, before_until)

        self.quota_of[index] = (left, until)


class ByThePage(Obeying):
    """A client that goes by the newest answer alone, as the page on servers says."""

    def note(self, index: int, remaining: int, until: float, answered: int) -> None:
        # Less all that it has sent since, and what was unanswered when it sent that request.
        self.quota_of[index] = (remaining - (self.sent - answered), until)


def policies() -> st.SearchStrategy[Policy]:
    limits = st.integers(1, 12)
    windows = st.floats(0.2, 5)
    return st.one_of(
        st.builds(WindowTokenBucket, limits, windows),
        st.builds(TokenBucket, limits, windows),
        st.builds(partial(TokenBucket, burst=1.5), limits, windows),
        st.builds(FixedWindow, limits, windows),
        st.builds(partial(FixedWindow, align="utc"), limits, windows),
    )


async def one_at_a_time(client: Obeying, number: int, gaps: list[float]) -> None:
    for index in range(number):
        await anyio.sleep(client.may() + gaps[index % len(gaps)])
        await client.request(0, client.begin())


@pytest.mark.promise("H12")
class TestNeverRefused:
    @examples(60)
    @given(
        st.lists(policies(), min_size=1, max_size=3),
        st.lists(st.one_of(st.just(0.0), st.floats(0, 1)), min_size=1, max_size=8),
    )
    def test_one_at_a_time(self, run: Run, limits: list[Policy], gaps: list[float]) -> None:
        async def main() -> None:
            client = Obeying(RateLimitMiddleware(Echo(), RateLimiter(*limits)))
            await one_at_a_time(client, 60, gaps)
            assert (client.served, client.refused) == (60, 0)

        run(main)

    @pytest.mark.untraced
    @examples(60)
    @given(
        st.lists(policies(), min_size=1, max_size=3),
        st.lists(st.floats(0, 0.5), min_size=1, max_size=8),
        st.floats(0, 0.5),
        st.sampled_from([Obeying, ByThePage]),
    )
    def test_many(
        self,
        run: Run,
        limits: list[Policy],
        latencies: list[float],
        takes: float,
        kind: type[Obeying],
    ) -> None:
        """Answers come out of order."""

        async def main() -> None:
            app = RateLimitMiddleware(Echo(takes=takes), RateLimiter(*limits))
            client = kind(app)
            async with anyio.create_task_group() as task_group:
                for index in range(60):
                    while (wait := client.may()) > 0:
                        await anyio.sleep(min(wait, 0.05))

                    latency = latencies[index % len(latencies)]
                    task_group.start_soon(client.request, latency, client.begin())

            assert (client.served, client.refused) == (60, 0)

        run(main)

    @pytest.mark.parametrize(("limit", "window"), [(20, 1), (20, 10), (100, 60)])
    async def test_a_thousand(self, limit: int, window: float) -> None:
        """One at a time, and never slower than nine tenths of the rate where windows are long."""
        app = RateLimitMiddleware(Echo(), KeyedLimiter(lambda _: RateLimiter(f"{limit}/{window}s")))
        client = Obeying(app)
        began = anyio.current_time()
        await one_at_a_time(client, 1000, [0.0])
        assert (client.served, client.refused) == (1000, 0)
        lasted = anyio.current_time() - began
        attained = (1000 - limit) * window / limit / lasted
        assert attained >= (0.9 if window >= 10 else 0.5)

    async def test_beside_others(self) -> None:
        """Who does not obey harms only itself."""
        app = RateLimitMiddleware(Echo(), "20/10s")
        client = Obeying(app)
        refused = deque[int]()

        async def flood() -> None:
            while True:
                refused.append((await ask(app, peer=("192.0.2.99", 1))).status)
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(flood)
            await one_at_a_time(client, 100, [0.0])
            task_group.cancel_scope.cancel()

        assert (client.served, client.refused) == (100, 0)
        assert refused.count(429) > 3000


#: What our own client attains with what it has learned: limit, window, share of the rate.
ATTAINED = [(100, 1, 0.6), (100, 2, 0.75), (200, 10, 0.8)]


@pytest.mark.promise("H12")
@pytest.mark.parametrize(("limit", "window", "share"), ATTAINED)
@pytest.mark.parametrize("name", LIBRARIES)
async def test_our_own_client(name: str, limit: int, window: float, share: float) -> None:
    """Twenty tasks, and nothing said of limits: no 429."""
    library = LIBRARIES[name]
    echo = Echo(takes=0.002)
    app = RateLimitMiddleware(echo, f"{limit}/{window}s")
    refused: list[Any] = []

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def see(message: Any) -> None:
            if message.get("status") == 429:
                refused.append(message)

            await send(message)

        await app(scope, receive, see)

    inner = library.module.ASGITransport(counting)
    transport = library.ours.ThrottledTransport(inner, RateLimiter(), learn=True)
    jobs = iter(range(3 * limit))
    async with library.module.AsyncClient(transport=transport, base_url="http://a") as client:

        async def work() -> None:
            for _ in jobs:
                assert (await client.get("/")).status_code == 200

        began = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            for _ in range(20):
                task_group.start_soon(work)

        lasted = anyio.current_time() - began

    assert not refused
    assert len(echo.requests) == 3 * limit
    # What may go at once is no merit.
    assert 2 * window / lasted >= share
