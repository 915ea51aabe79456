"""Limits that a throttled client learns from its server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from anythrottle import KeyedLimiter, RateLimiter, WindowTokenBucket
from anythrottle.abc import AdjustableLimiter
from anythrottle.testing import wait_idle
from tests.engine.mine import Mine
from tests.integrations.tools import URL, Answer, Library, Server, Throttled, held
from tests.limiters.tools import Grant, assert_exact

pytestmark = [pytest.mark.timing, pytest.mark.promise("H9")]


def policy(text: str, **more: str) -> Answer:
    return Answer(after=1, headers={"ratelimit-policy": text, **more})


#: Its body takes longer than those that have waited need to stand in line.
SLOW = Answer(after=1, parts=(1,))

TEN = policy('"a";q=10;w=60')


def said(priority: int) -> dict[str, Any]:
    return {"anythrottle": {"priority": priority}}


def ends(*limits: tuple[int, float, str]) -> tuple[WindowTokenBucket, ...]:
    return tuple(
        WindowTokenBucket(limit, window, measure="end", unit=unit) for limit, window, unit in limits
    )


class Adjustable(Mine):
    """A limiter of a user's own that can be reconfigured, but not as to its concurrency."""

    @property
    def policies(self) -> Any:
        return self.limiter.policies

    def quotas(self) -> Any:
        return self.limiter.quotas()

    def tighten(self, **options: Any) -> None:
        self.limiter.tighten(**options)

    def penalize(self, cost: Any) -> None: ...

    def resume(self) -> None: ...

    def reconfigure(self, *policies: Any) -> None:
        self.limiter.reconfigure(*policies)


class ExactServer(Server):
    """Counts a window of its own, at once, and refuses what is above its limit."""

    limit, window, latency = 5, 10.0, 0.25

    def __init__(self, library: Library) -> None:
        super().__init__(library, [])
        self.counted: list[float] = []
        self.refused = 0

    def choose(self, request: Any) -> Answer:
        now = anyio.current_time()
        self.counted = [at for at in self.counted if at > now - self.window]
        fields = {"ratelimit-policy": f'"a";q={self.limit};w={self.window:g}'}
        if len(self.counted) >= self.limit:
            self.refused += 1
            return Answer(429, fields, after=self.latency)

        self.counted.append(now)
        left = self.limit - len(self.counted)
        fields["ratelimit"] = f'"a";r={left};t={self.window:g}'
        return Answer(200, fields, after=self.latency)


async def test_the_first_request_goes_alone(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(), TEN, learn=True)
    async with anyio.create_task_group() as task_group:
        for _ in range(20):
            task_group.start_soon(throttled.get)

    instants = throttled.server.instants
    # The window of the first runs from its answer, those of the others from theirs.
    assert instants == [0] + 9 * [1] + [61] + 9 * [62]
    assert throttled.limiter.policies == ends((10, 60, "calls"))
    throttled.assert_nothing_held()


async def test_no_refusal_from_twenty_tasks(library: Library) -> None:
    server = ExactServer(library)
    throttled = Throttled(library, RateLimiter(), server=server, learn=True)
    async with anyio.create_task_group() as task_group:
        for _ in range(20):
            task_group.start_soon(throttled.get)

    assert (server.refused, len(server.sent)) == (0, 20)
    grants: list[Grant] = [(at, 1) for at in server.instants]
    assert_exact(grants, server.limit, server.window)


async def test_for_each_host_by_itself(library: Library) -> None:
    throttled = Throttled(library, "1000/s", TEN, policy('"a";q=5;w=1'), learn=True)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(throttled.get, "http://a/")
        await anyio.sleep(0.5)
        task_group.start_soon(throttled.get, "http://b/")

    assert throttled.server.instants == [0, 0.5]
    assert throttled.limiter_of("a").policies == ends((10, 60, "calls"))
    assert throttled.limiter_of("b").policies == ends((5, 1, "calls"))


async def test_if_the_first_fails_another_goes_first(library: Library) -> None:
    failing = Answer(error="ConnectError", after=1)
    throttled = Throttled(library, RateLimiter(), failing, Answer(after=1), learn=True)

    async def get() -> None:
        with suppress(library.module.ConnectError):
            await throttled.get()

    async with anyio.create_task_group() as task_group:
        for _ in range(3):
            task_group.start_soon(get)

    assert throttled.server.instants == [0, 1, 2]


async def test_a_refused_first_holds_up_nobody_longer_than_the_pause(library: Library) -> None:
    """The others take their places in line as soon as its headers are there."""
    refused = Answer(429, {"retry-after": "7"}, after=1)
    throttled = Throttled(library, RateLimiter(), refused, Answer(after=5), learn=True)
    order: list[int] = []

    async def get(number: int) -> None:
        await throttled.get()
        order.append(number)

    async with anyio.create_task_group() as task_group:
        for number in range(3):
            task_group.start_soon(get, number)
            await anyio.sleep(0.1)

        await anyio.sleep(1)
        assert throttled.limiter.statistics().tasks_waiting == 3

    assert throttled.server.instants == [0, 8, 8, 8]


async def test_without_knowledge_nothing_changes(library: Library) -> None:
    limiter = RateLimiter("9/s")
    before = limiter.policies
    headers = {"x-ratelimit-remaining": "5", "x-ratelimit-limit": "7"}
    throttled = Throttled(library, limiter, Answer(headers=headers), learn=True)
    async with anyio.create_task_group() as task_group:
        for _ in range(3):
            task_group.start_soon(throttled.get)

    assert limiter.policies is before
    assert throttled.server.instants == [0, 0, 0]


async def test_without_learning_neither(library: Library) -> None:
    limiter = RateLimiter("9/s")
    throttled = Throttled(library, limiter, TEN)
    await throttled.get()
    assert limiter.policies == RateLimiter("9/s").policies


async def test_changes_are_learned_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[Any] = []
    reconfigure = RateLimiter.reconfigure

    def note(limiter: RateLimiter, *policies: Any, **options: Any) -> None:
        changes.extend(policies)
        reconfigure(limiter, *policies, **options)

    monkeypatch.setattr(RateLimiter, "reconfigure", note)
    throttled = Throttled(library, "9/s", TEN, TEN, policy('"a";q=20;w=60'), learn=True)
    for _ in range(3):
        await throttled.get()

    assert tuple(changes) == ends((10, 60, "calls"), (20, 60, "calls"))


async def test_by_a_profile(library: Library) -> None:
    headers = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "4000",
        "x-ratelimit-reset-tokens": "12s",
    }
    throttled = Throttled(
        library,
        RateLimiter(),
        Answer(headers=headers),
        learn=True,
        profile="openai",
        cost={"tokens": 50},
        settle=lambda _: {"tokens": 60},
    )
    await throttled.get()
    limiter = throttled.limiter
    assert limiter.policies == ends((100, 60, "calls"), (5000, 60, "tokens"))
    assert [state.remaining for state in limiter.quotas()] == [99, 3990]
    throttled.assert_nothing_held()


@pytest.mark.parametrize("status", [200, 429])
async def test_units_that_the_server_does_not_tell_of_are_no_errors(
    library: Library, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """When the cost was written, nobody knew which units the server tells of."""
    throttled = Throttled(
        library,
        RateLimiter(),
        Answer(status, TEN.headers),
        Answer(),
        learn=True,
        cost={"tokens": 50},
        settle=lambda _: {"tokens": 60},
    )
    # Refused, it cannot go again by what is learned: it is the server's own answer.
    assert (await throttled.get()).status_code == status
    assert (await throttled.get()).status_code == 200
    assert throttled.limiter.peek().remaining == 8
    assert not caplog.messages
    throttled.assert_nothing_held()


async def test_units_of_ones_own_limits_are_checked_all_the_same(library: Library) -> None:
    throttled = Throttled(library, "9/s", TEN, learn=True, cost={"tokns": 1})
    with pytest.raises(ValueError, match="does not fit"):
        await throttled.get()


async def test_ones_own_limits_of_other_units_stay(library: Library) -> None:
    limiter = RateLimiter("5/s", "100 tokens/s")
    throttled = Throttled(library, limiter, TEN, learn=True, cost={"tokens": 1})
    await throttled.get()
    assert limiter.policies == (*RateLimiter("100 tokens/s").policies, *ends((10, 60, "calls")))


class TestConcurrency:
    @pytest.mark.parametrize("rate", ["", '"a";q=10;w=60, '])
    async def test_it_is_set(self, library: Library, rate: str) -> None:
        answer = policy(f'{rate}"c";q=2;qu="concurrent-requests"')
        throttled = Throttled(library, RateLimiter(), answer, learn=True)
        async with anyio.create_task_group() as task_group:
            for _ in range(5):
                task_group.start_soon(throttled.get)

        assert throttled.limiter.statistics().total_tokens == 2
        assert throttled.server.instants == [0, 1, 1, 2, 2]
        assert len(throttled.limiter.policies) == bool(rate)
        throttled.assert_nothing_held()

    @pytest.mark.parametrize("rate", ["", '"a";q=10;w=60, '])
    async def test_where_it_cannot_be_set(self, library: Library, rate: str) -> None:
        limiter = Adjustable(RateLimiter(concurrency=3))
        answer = policy(f'{rate}"c";q=2;qu="concurrent-requests"')
        throttled = Throttled(library, limiter, answer, learn=True)
        await throttled.get()
        assert limiter.limiter.policies == (ends((10, 60, "calls")) if rate else ())
        assert limiter.limiter.statistics().total_tokens == 3


class TestWhoCannot:
    async def test_one_for_all(self, library: Library) -> None:
        limiter = Mine(RateLimiter())
        assert not isinstance(limiter, AdjustableLimiter)
        with pytest.raises(TypeError, match="learn=True needs a limiter that can be reconfigured"):
            Throttled(library, limiter, learn=True)

    async def test_one_of_many_when_it_is_used(self, library: Library) -> None:
        class Idle(Mine):
            def idle_in(self) -> float:
                return 0.0

        limiters = KeyedLimiter[str, Any](
            lambda key: RateLimiter() if key == "good" else Idle(RateLimiter())
        )
        throttled = Throttled(library, limiters, learn=True)
        await throttled.get("http://good/")
        with pytest.raises(TypeError, match="learn=True"):
            await throttled.get("http://bad/")


class TestTheFirstTurn:
    async def test_max_wait_bounds_the_wait_for_the_first_answer(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(), TEN, learn=True)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttled.get)
            await anyio.sleep(0.25)
            with pytest.raises(library.ours.TurnTimeout):
                await throttled.get(extensions={"anythrottle": {"max_wait": 0.5}})

            assert anyio.current_time() == 0.75
            answer = await throttled.get()

        assert answer.extensions["anythrottle"]["waited"] == 0.25

    async def test_cancelled_while_it_waits(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(), TEN, learn=True)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttled.get)
            await wait_idle()
            with anyio.move_on_after(0.5):
                await throttled.get()

        await throttled.get()
        assert throttled.server.instants == [0, 1]

    async def test_by_priority(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), SLOW, learn=True)
        order: list[int] = []

        async def get(priority: int) -> None:
            await throttled.get(extensions=said(priority))
            order.append(priority)

        async with anyio.create_task_group() as task_group:
            for priority in (5, 3, 1):
                task_group.start_soon(get, priority)
                await anyio.sleep(0.1)

        assert order == [5, 1, 3]

    async def test_by_priority_if_it_fails(self, library: Library) -> None:
        failing = Answer(error="ConnectError", after=1)
        throttled = Throttled(library, RateLimiter(), failing, SLOW, learn=True)

        async def get(priority: int) -> None:
            with suppress(library.module.ConnectError):
                await throttled.get(f"{URL}{priority}", extensions=said(priority))

        async with anyio.create_task_group() as task_group:
            for priority in (5, 3, 1):
                task_group.start_soon(get, priority)
                await anyio.sleep(0.1)

        assert [request.url.path for _, request in throttled.server.sent[:2]] == ["/5", "/1"]

    async def test_it_counts_from_its_headers_by_what_they_tell(self, library: Library) -> None:
        answer = Answer(after=1, parts=(2,), headers={"ratelimit-policy": '"a";q=1;w=10'})
        throttled = Throttled(library, RateLimiter(), answer, learn=True, settle=lambda _: None)
        await throttled.get()
        await throttled.get()
        assert throttled.server.instants == [0, 11]

    async def test_a_pause_of_somebody_else_stays(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(), TEN, learn=True)
        throttled.limiter.pause(5)
        await throttled.get()
        throttled.limiter.pause(5)
        assert throttled.server.instants == [5]
        assert throttled.limiter.statistics().paused_for == 5
        assert held(throttled.limiter) == 0
