"""Whose limiter a request is for, what it costs, and how many keys there can be."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
from collections.abc import Hashable
from functools import partial
from typing import Any

import anyio
import pytest

from anythrottle import CostTooHigh, KeyedLimiter, RateLimiter, TokenBucket, current_permit
from anythrottle.integrations import headers
from anythrottle.integrations.asgi import EXEMPT, Exempt, RateLimitMiddleware, client_address
from tests.conftest import Run
from tests.integrations.asgi_tools import Client, Echo, ask, scope_of, statuses

pytestmark = pytest.mark.timing


async def noop(scope: Any, receive: Any, send: Any) -> None: ...


def peer(number: int) -> tuple[str, int]:
    return (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number % 60_000)


def per_client(text: str, **options: Any) -> KeyedLimiter[Hashable, RateLimiter]:
    return KeyedLimiter(lambda _: RateLimiter(text), **options)


class TestThePermitOfARequest:
    """An application may correct what a request costs."""

    @pytest.mark.parametrize("headers", [True, False])
    @pytest.mark.parametrize("waits", [True, False])
    async def test_it_is_the_current_one(self, headers: bool, waits: bool) -> None:
        limiter = RateLimiter("10/60s")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            current_permit().settle(4)
            await Echo()(scope, receive, send)

        if waits:
            limiter.pause(1)

        guarded = RateLimitMiddleware(app, limiter, cost=2, headers=headers, max_wait=2)
        for left in (6, 2):
            assert (await ask(guarded)).status == 200
            assert limiter.peek().remaining == left

        with pytest.raises(RuntimeError, match="no permit here"):
            current_permit()

    async def test_of_several_it_is_the_innermost(self) -> None:
        total, own = RateLimiter("10/60s"), RateLimiter("10/60s")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            current_permit().settle(3)
            await Echo()(scope, receive, send)

        await ask(RateLimitMiddleware(RateLimitMiddleware(app, own), total))
        assert (own.peek().remaining, total.peek().remaining) == (7, 9)


@pytest.mark.promise("H14")
class TestKeys:
    async def test_a_text_is_for_each_address(self) -> None:
        app = RateLimitMiddleware(Echo(), "2/60s")
        assert await statuses(app, 3) == [200, 200, 429]
        assert await statuses(app, 3, peer=("192.0.2.8", 1)) == [200, 200, 429]
        assert await statuses(app, 1, peer=("192.0.2.8", 2)) == [429]
        assert await statuses(app, 3, peer=("2001:db8::1", 1)) == [200, 200, 429]
        assert await statuses(app, 1, peer=("2001:db8::2", 1)) == [429]
        # All without an address are one.
        assert await statuses(app, 3, peer=None) == [200, 200, 429]

    async def test_whoever_lies_of_an_address_gains_nothing(self) -> None:
        for key in (None, client_address(["10.0.0.0/8"])):
            app = RateLimitMiddleware(Echo(), "2/60s", key=key)
            for number, status in enumerate([200, 200, 429, 429, 429]):
                lie = [("x-forwarded-for", f"198.51.100.{number}")]
                assert await statuses(app, 1, headers=lie) == [status]

    async def test_a_key_of_ones_own(self) -> None:
        def by_path(scope: Any) -> str:
            path: str = scope["path"]
            return path

        texts = {"/a": "1/60s", "/b": "2/60s"}
        keyed: Any = KeyedLimiter(lambda path: RateLimiter(texts[path]))
        app = RateLimitMiddleware(Echo(), keyed, key=by_path)
        assert await statuses(app, 2, path="/a") == [200, 429]
        assert await statuses(app, 3, path="/b") == [200, 200, 429]

    async def test_a_limiter_is_one_for_all(self) -> None:
        app = RateLimitMiddleware(Echo(), RateLimiter("2/60s"))
        assert [(await ask(app, peer=peer(n))).status for n in range(3)] == [200, 200, 429]

    async def test_exempt(self) -> None:
        def key(scope: Any) -> Any:
            return EXEMPT if scope["path"] == "/health" else "all"

        for limiter in (RateLimiter("1/60s"), per_client("1/60s")):
            app = RateLimitMiddleware(Echo(), limiter, key=key)
            assert await statuses(app, 3, path="/health") == [200] * 3
            assert await statuses(app, 2) == [200, 429]
            assert (await ask(app, path="/health")).headers == {"a": "b"}

        app = RateLimitMiddleware(Echo(), "1/60s", cost=lambda scope: key({**scope, "key": 1}))
        assert await statuses(app, 3, path="/health") == [200] * 3
        app = RateLimitMiddleware(Echo(), "1/60s", cost=EXEMPT)
        assert await statuses(app, 3) == [200] * 3

    def test_exempt_is_the_same_for_clients(self) -> None:
        assert EXEMPT is headers.EXEMPT
        assert Exempt is headers.Exempt
        assert repr(EXEMPT) == "EXEMPT"

    @pytest.mark.parametrize("max_wait", [0, 10])
    async def test_none_is_no_way_past_the_limit(self, max_wait: float) -> None:
        for name in ("key", "cost"):
            options: Any = {name: lambda _: None}
            for limiter in ("1/60s", RateLimiter("1/60s")):
                echo = Echo()
                app = RateLimitMiddleware(echo, limiter, max_wait=max_wait, **options)
                with pytest.raises(TypeError, match=r"(key|cost) must be .*not None"):
                    await ask(app)

                assert echo.requests == []

    async def test_a_key_without_hash(self) -> None:
        key: Any = lambda _: []  # noqa: E731
        app = RateLimitMiddleware(Echo(), "1/60s", key=key)
        with pytest.raises(TypeError, match="unhashable"):
            await ask(app)

    @pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
    async def test_a_coroutine_is_no_key(self) -> None:
        """Each would be another one."""

        async def slow(scope: Any) -> str:
            return "key"

        class Slow:
            def __call__(self, scope: Any) -> Any:
                return slow(scope)

        for name in ("key", "cost"):
            with pytest.raises(TypeError, match=f"{name} must be a function that is not async"):
                RateLimitMiddleware(noop, "1/s", **{name: slow})  # type: ignore[arg-type]

            app = RateLimitMiddleware(Echo(), "1/s", **{name: Slow()})  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=f"{name} must be"):
                await ask(app)


class TestCost:
    async def test_by_request(self) -> None:
        def cost(scope: Any) -> dict[str, int]:
            return {"tokens": len(scope["path"])}

        limiter = RateLimiter("100/min", "10 tokens/min")
        app = RateLimitMiddleware(Echo(), limiter, cost=cost)
        assert await statuses(app, 1, path="/seven-") == [200]
        assert await statuses(app, 1, path="/abc") == [429]
        assert await statuses(app, 1, path="/ab") == [200]

    async def test_a_number(self) -> None:
        assert await statuses(RateLimitMiddleware(Echo(), "10/min", cost=4), 3) == [200, 200, 429]
        assert await statuses(RateLimitMiddleware(Echo(), "1/min", cost=0), 3) == [200] * 3

    async def test_wrong_costs_reach_the_server(self) -> None:
        def told(cost: Any, scope: Any) -> Any:
            return cost

        for cost, error in ((11, CostTooHigh), (-1, ValueError), ({"tokens": 1}, ValueError)):
            echo = Echo()
            app = RateLimitMiddleware(echo, "10/min", cost=partial(told, cost))
            with pytest.raises(error):
                await ask(app)

            assert echo.requests == []


class TestArguments:
    @pytest.mark.parametrize("limiter", [None, 5, RateLimiter, object()])
    def test_no_limiter(self, limiter: Any) -> None:
        with pytest.raises(TypeError, match="limiter must be a text such as '20/10s', a limiter"):
            RateLimitMiddleware(noop, limiter)

    def test_no_limit(self) -> None:
        with pytest.raises(ValueError, match="'many' is not a limit"):
            RateLimitMiddleware(noop, "many")

    @pytest.mark.parametrize("cost", [None, "1", 1.5, object()])
    def test_no_cost(self, cost: Any) -> None:
        with pytest.raises(TypeError, match="cost must be"):
            RateLimitMiddleware(noop, "1/s", cost=cost)

    def test_negative_cost(self) -> None:
        with pytest.raises(ValueError, match="cost"):
            RateLimitMiddleware(noop, "1/s", cost=-1)

    def test_no_key(self) -> None:
        with pytest.raises(TypeError, match="key must be a function of a scope, or None, not 'a'"):
            RateLimitMiddleware(noop, "1/s", key="a")  # type: ignore[arg-type]

    def test_a_key_that_was_not_called(self) -> None:
        with pytest.raises(TypeError, match=r"as client_address\(\) returns one"):
            RateLimitMiddleware(noop, "1/s", key=client_address)

    @pytest.mark.parametrize("max_wait", [-1, float("nan"), "soon"])
    def test_no_max_wait(self, max_wait: Any) -> None:
        with pytest.raises(ValueError, match="max_wait"):
            RateLimitMiddleware(noop, "1/s", max_wait=max_wait)

    @pytest.mark.parametrize("overflow", [5, RateLimiter, object()])
    def test_no_overflow(self, overflow: Any) -> None:
        with pytest.raises(TypeError, match="overflow must be a limiter, a text or None"):
            RateLimitMiddleware(noop, "1/s", overflow=overflow)

    def test_overflow_of_one_limiter(self) -> None:
        with pytest.raises(TypeError, match="overflow is for a limiter by key"):
            RateLimitMiddleware(noop, RateLimiter("1/s"), overflow="1/s")

        RateLimitMiddleware(noop, RateLimiter("1/s"), overflow=None)

    def test_what_is_not_said_is_shown_so(self) -> None:
        parameters = inspect.signature(RateLimitMiddleware).parameters
        assert repr(parameters["overflow"].default) == "<one of the same text>"


@pytest.mark.promise("H15")
class TestBounded:
    async def test_newcomers_share_the_overflow(self) -> None:
        keyed = per_client("2/60s", max_keys=2)
        app = RateLimitMiddleware(Echo(), keyed, overflow=RateLimiter("3/60s"))
        found = [(await ask(app, peer=peer(number))).status for number in range(7)]
        assert found == [200] * 5 + [429] * 2
        # Those that were there have theirs.
        assert await statuses(app, 2, peer=peer(0)) == [200, 429]
        await anyio.sleep(60)
        assert await statuses(app, 2, peer=peer(6)) == [200, 200]
        assert len(keyed) <= 2

    async def test_a_text_as_overflow(self) -> None:
        app = RateLimitMiddleware(Echo(), per_client("2/60s", max_keys=1), overflow="1/60s")
        found = [(await ask(app, peer=peer(number))).status for number in range(3)]
        assert found == [200, 200, 429]

    @pytest.mark.untraced
    @pytest.mark.parametrize(("options", "last"), [({}, 200), ({"overflow": None}, 429)])
    async def test_with_a_text_there_is_one(self, options: Any, last: int) -> None:
        app = RateLimitMiddleware(noop, "1/h", **options)
        for number in range(10_000):
            await ask(app, Client(), peer=peer(number))

        app._app = Echo()
        assert (await ask(app, peer=peer(10_000))).status == last
        assert (await ask(app, peer=peer(10_001))).status == 429

    @pytest.mark.untraced
    def test_a_flood_of_addresses_cannot_grow_memory(self, run: Run) -> None:
        """And who is known is served, and newcomers are not locked out."""

        async def flood(app: Any, start: int, number: int) -> None:
            send = Client().send
            for index in range(start, start + number):
                scope = scope_of(peer(index))
                await app(scope, Client().receive, send)

        async def main() -> None:
            app = RateLimitMiddleware(
                noop,
                per_client("100/h", max_keys=1000),
                overflow=RateLimiter(TokenBucket(10**9, 1, burst=10**9)),
            )
            known: Any = {"peer": ("192.0.2.7", 1)}
            await ask(app, **known)
            await flood(app, 0, 20_000)
            gc.collect()
            before = sys.getallocatedblocks()
            await flood(app, 20_000, 80_000)
            gc.collect()
            # Of 80 000 addresses nothing is left, not even a hundredth of a block each.
            assert sys.getallocatedblocks() - before < 800
            app._app = Echo()
            served = await ask(app, **known)
            assert (served.status, served.quotas[0].remaining) == (200, 98)
            assert (await ask(app, peer=("192.0.2.8", 1))).status == 200

        run(main)

    async def test_keys_that_wait_or_run_are_not_dropped(self) -> None:
        keyed = per_client("1/s", max_keys=1)
        app = RateLimitMiddleware(Echo(takes=100), keyed)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, app)
            await anyio.sleep(50)
            assert (await ask(app, peer=peer(1))).status == 429

        assert (await ask(app, peer=peer(1))).status == 200


class TestOddApplications:
    @pytest.mark.parametrize("max_wait", [0, 10])
    async def test_one_that_never_answers(self, max_wait: float) -> None:
        limiter = RateLimiter("1/5s", concurrency=1)
        app = RateLimitMiddleware(noop, limiter, max_wait=max_wait)
        for _ in range(2):
            client = await ask(app)
            assert limiter.statistics().borrowed_tokens == 0
            await anyio.sleep(5 if not max_wait else 0)
            assert client.sent == []

    async def test_one_that_answers_twice(self) -> None:
        """That is between it and the server."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(2):
                await Echo()(scope, receive, send)

        client = await ask(RateLimitMiddleware(app, "9/60s"))
        assert [message["type"] for message in client.sent] == [
            "http.response.start",
            "http.response.body",
        ] * 2
        assert client.sent[0] == client.sent[2]

    async def test_one_that_is_cut_off_lets_go(self) -> None:
        limiter = RateLimiter(concurrency=1)
        app = RateLimitMiddleware(Echo(takes=9), limiter)
        with anyio.move_on_after(1):
            await ask(app)

        assert limiter.statistics().borrowed_tokens == 0


def test_no_framework_and_no_parser_is_imported() -> None:
    code = (
        "import sys, anythrottle.integrations.asgi\n"
        "print(*sorted({'http_sf', 'starlette', 'httpx', 'httpx2'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"
