"""Whose limiter a request waits for, how, and what it is told if there is no turn."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import anyio
import pytest

from anythrottle import CostTooHigh, KeyedLimiter, LimitExceeded, RateLimiter
from anythrottle.integrations._options import key_of_host
from anythrottle.integrations.headers import EXEMPT
from anythrottle.testing import wait_idle
from tests.engine.mine import Mine
from tests.integrations.tools import URL, Answer, Library, Throttled, held

pytestmark = pytest.mark.timing

SLOW = Answer(after=10)


def said(**options: Any) -> dict[str, Any]:
    return {"anythrottle": options}


class TestHosts:
    @pytest.mark.parametrize(
        ("url", "key"),
        [
            ("http://A.example./x", "a.example"),
            ("http://a.example:80/", "a.example"),
            ("https://a.example:443/", "a.example"),
            ("http://a.example:8080/", "a.example:8080"),
            ("http://[::1]:8080/", "[::1]:8080"),
            ("http://[::1:8080]/", "[::1:8080]"),
        ],
    )
    async def test_a_text_is_for_each_host(self, library: Library, url: str, key: str) -> None:
        throttled = Throttled(library, "1/h")
        await throttled.get(url)
        assert list(throttled.hosts._keyed) == [key]
        assert throttled.limiter_of(key).peek().remaining == 0
        await throttled.get("http://another/")

    def test_by_any_port(self, library: Library) -> None:
        assert key_of_host("wss", "a", 443) == "a"
        assert key_of_host("ws", "a", 443) == "a:443"

    async def test_one_limiter_is_for_all(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter("2/h"))
        await throttled.get("http://a/")
        await throttled.get("http://b/")
        assert throttled.limiter.peek().remaining == 0

    @pytest.mark.parametrize("limiter", ["plain", "keyed"])
    async def test_that_neither_can_be_hashed_nor_referred_to(
        self, library: Library, limiter: str
    ) -> None:
        class Odd(Mine):
            __slots__ = ()
            __hash__ = None  # type: ignore[assignment]

        throttled = Throttled(library, Odd(RateLimiter(concurrency=1)))
        await throttled.get()
        await throttled.get()

    async def test_by_a_key_of_ones_own(self, library: Library) -> None:
        limiters = KeyedLimiter[tuple[str, int], RateLimiter](lambda _: RateLimiter("1/h"))
        throttled = Throttled(
            library, limiters, key=lambda request: (request.url.path, len(request.method))
        )
        await throttled.get("http://a/x")
        await throttled.get("http://a/y")
        assert list(limiters) == [("/x", 3), ("/y", 3)]

    async def test_no_place_for_another_host(self, library: Library) -> None:
        limiters = KeyedLimiter[str, RateLimiter](lambda _: RateLimiter("1/h"), max_keys=1)
        throttled = Throttled(library, limiters)
        await throttled.get("http://a/")
        with pytest.raises(library.ours.TurnTimeout) as caught:
            await throttled.get("http://b/")

        assert caught.value.decision.reason == "concurrency"


class TestCosts:
    @pytest.mark.parametrize(
        ("cost", "left"), [(1, 9), (3, 7), ({"calls": 4}, 6), (lambda request: 5, 5), (0, 10)]
    )
    async def test_of_all_requests(self, library: Library, cost: Any, left: int) -> None:
        throttled = Throttled(library, "10/h", cost=cost)
        await throttled.get()
        assert throttled.limiter_of().peek().remaining == left
        await throttled.get(extensions=said(cost=1))
        assert throttled.limiter_of().peek().remaining == left - 1

    async def test_too_high(self, library: Library) -> None:
        throttled = Throttled(library, "10/h", cost=11)
        with pytest.raises(CostTooHigh):
            await throttled.get()

        assert not throttled.server.sent

    @pytest.mark.parametrize(
        "options", [{"cost": EXEMPT}, {"cost": lambda _: EXEMPT}, {"key": lambda _: EXEMPT}]
    )
    async def test_exempt(self, library: Library, options: dict[str, Any]) -> None:
        throttled = Throttled(library, "1/h", Answer(), **options)
        await throttled.get()
        answer = await throttled.get()
        assert "anythrottle" not in answer.extensions
        assert not throttled.hosts._keyed
        assert throttled.server.instants == [0, 0]

    @pytest.mark.parametrize("options", [{"cost": EXEMPT}, {"key": EXEMPT}])
    async def test_one_is_exempt(self, library: Library, options: dict[str, Any]) -> None:
        throttled = Throttled(library, RateLimiter("1/h"))
        await throttled.get()
        await throttled.get(extensions=said(**options))
        assert throttled.server.instants == [0, 0]


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"cost": None}, TypeError, "cost must be an int"),
            ({"cost": "1"}, TypeError, "cost must be an int"),
            ({"cost": True}, TypeError, "cost must be an int"),
            ({"cost": -1}, ValueError, "cost must be"),
            ({"cost": {"tokens": -1}}, ValueError, "tokens"),
            ({"key": "host"}, TypeError, "key must be a function"),
            ({"settle": 1}, TypeError, "settle must be a function"),
            ({"profile": "githup"}, ValueError, "profile"),
            ({"profile": None}, TypeError, "profile"),
            ({"max_throttles": 0}, ValueError, "max_throttles"),
            ({"max_throttles": 1.5}, TypeError, "max_throttles"),
            ({"max_wait": -1}, ValueError, "max_wait"),
            ({"max_wait": "soon"}, ValueError, "max_wait"),
            ({"max_pause": 0}, ValueError, "max_pause"),
            ({"max_pause": None}, TypeError, "max_pause"),
        ],
    )
    async def test_of_options(
        self, library: Library, options: dict[str, Any], error: type[Exception], match: str
    ) -> None:
        with pytest.raises(error, match=match):
            Throttled(library, "9/s", **options)

    @pytest.mark.parametrize("limiter", [None, 20, RateLimiter, KeyedLimiter])
    async def test_of_limiters(self, library: Library, limiter: Any) -> None:
        with pytest.raises(TypeError, match="limiter must be a text such as"):
            Throttled(library, limiter)

    async def test_of_a_text(self, library: Library) -> None:
        with pytest.raises(ValueError, match="20 per day or so"):
            Throttled(library, "20 per day or so")

    async def test_of_transports(self, library: Library) -> None:
        with pytest.raises(TypeError, match="transport must be an async transport"):
            library.ours.ThrottledTransport(library.module.HTTPTransport(), "9/s")

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"cost": lambda _: None}, TypeError, "cost must be .* or EXEMPT, not None"),
            ({"key": lambda _: None}, TypeError, "key must be what tells limiters apart"),
            ({"key": lambda _: ["a"]}, TypeError, "unhashable"),
        ],
    )
    async def test_of_functions(
        self, library: Library, options: dict[str, Any], error: type[Exception], match: str
    ) -> None:
        throttled = Throttled(library, RateLimiter(), **options)
        with pytest.raises(error, match=match):
            await throttled.get()

        assert not throttled.server.sent

    @pytest.mark.parametrize(
        ("what", "error", "match"),
        [
            (5, TypeError, "must be a mapping"),
            ({"costs": 5}, ValueError, "'costs', which is none of"),
            ({"cost": None}, TypeError, "cost must be .* or EXEMPT, not None"),
            ({"key": None}, TypeError, "key must be"),
            ({"priority": "high"}, TypeError, "priority"),
            ({"max_wait": "soon"}, ValueError, "max_wait"),
        ],
    )
    async def test_of_one_request(
        self, library: Library, what: Any, error: type[Exception], match: str
    ) -> None:
        throttled = Throttled(library, "9/s")
        with pytest.raises(error, match=match):
            await throttled.get(extensions={"anythrottle": what})

        assert not throttled.server.sent


class TestOfOneRequest:
    async def test_priority(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), SLOW)
        order: list[int] = []

        async def get(priority: int) -> None:
            await throttled.get(extensions=said(priority=priority))
            order.append(priority)

        async with anyio.create_task_group() as task_group:
            for priority in (0, 5, -5):
                task_group.start_soon(get, priority)
                await wait_idle()

        assert order == [0, -5, 5]

    async def test_key_and_cost(self, library: Library) -> None:
        throttled = Throttled(library, "9/h", key=lambda _: "all")
        await throttled.get(extensions=said(key="other", cost=4))
        assert throttled.limiter_of("other").peek().remaining == 5

    async def test_it_says_so_of_its_redirects_too(self, library: Library) -> None:
        there = Answer(302, {"location": "/b"})
        throttled = Throttled(library, "9/h", there, Answer())
        await throttled.get(extensions=said(cost=4), follow_redirects=True)
        assert throttled.limiter_of().peek().remaining == 1


@pytest.mark.promise("H2")
class TestTheLineIsOutside:
    async def test_no_timeout_counts_it(self, library: Library) -> None:
        """Nor does it hold a connection: the transport inside is not asked before the turn."""
        throttled = Throttled(library, RateLimiter("1/10s"))
        await throttled.get(timeout=0.1)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttled.get)
            await anyio.sleep(5)
            assert len(throttled.server.sent) == 1

        answer = await throttled.get(timeout=0.1)
        assert throttled.server.instants == [0, 10, 20]
        assert answer.extensions["anythrottle"]["waited"] == 10


@pytest.mark.promise("H5")
class TestTurnTimeout:
    @pytest.mark.parametrize("how", ["client", "request", "deadline"])
    async def test_it_is_of_both_kinds(self, library: Library, how: str) -> None:
        options = {"max_wait": "deadline" if how == "deadline" else 5} if how != "request" else {}
        throttled = Throttled(library, RateLimiter("1/10s", name="mine"), **options)
        await throttled.get()
        with anyio.fail_after(5), pytest.raises(library.ours.TurnTimeout) as caught:
            await throttled.get(extensions=said(max_wait=5) if how == "request" else {})

        error = caught.value
        assert anyio.current_time() == 0
        assert isinstance(error, LimitExceeded)
        assert isinstance(error, anyio.WouldBlock)
        assert isinstance(error, library.module.PoolTimeout)
        assert isinstance(error.__cause__, LimitExceeded)
        assert (
            str(error)
            == str(error.__cause__)
            == "the limit is reached (rate): try again in 10.000 s"
        )
        assert error.retry_after == 10
        assert error.quotas == throttled.limiter.quotas()
        assert str(error.request.url) == URL
        throttled.assert_nothing_held()

    async def test_one_request_may_wait_longer(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter("1/10s"), max_wait=5)
        await throttled.get()
        await throttled.get(extensions=said(max_wait=None))
        await throttled.get(extensions=said(max_wait=10))
        assert throttled.server.instants == [0, 10, 20]

    async def test_too_many_wait(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1, max_waiting=0), SLOW)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttled.get)
            await wait_idle()
            with pytest.raises(library.ours.TurnTimeout, match="concurrency"):
                await throttled.get()

    @pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
    async def test_copies(self, library: Library, how: str) -> None:
        throttled = Throttled(library, RateLimiter("1/10s"), max_wait=0)
        await throttled.get()
        with pytest.raises(library.ours.TurnTimeout) as caught:
            await throttled.get()

        error = caught.value
        copies = {
            "pickle": lambda: pickle.loads(pickle.dumps(error)),  # noqa: S301
            "copy": lambda: copy.copy(error),
            "deepcopy": lambda: copy.deepcopy(error),
        }
        other = copies[how]()
        assert type(other) is type(error)
        assert (str(other), other.decision, other.quotas) == (
            str(error),
            error.decision,
            error.quotas,
        )
        bare = library.ours.TurnTimeout(error.decision)
        assert bare.quotas == ()
        with pytest.raises(RuntimeError):
            _ = bare.request

    async def test_of_a_transport_inside_of_another(self, library: Library) -> None:
        """What the inner one refuses has not left, and the outer one gives it back."""
        inner = Throttled(library, RateLimiter("1/h"), max_wait=1)
        outer = RateLimiter("9/h", concurrency=1)
        throttled = Throttled(library, outer, server=inner.transport)
        await throttled.get()
        with pytest.raises(library.ours.TurnTimeout, match="rate"):
            await throttled.get()

        assert outer.peek().remaining == 8
        assert held(outer) == held(inner.limiter) == 0


class TestTheTransportInside:
    async def test_it_is_entered_and_left(self, library: Library) -> None:
        throttled = Throttled(library, "9/s")
        async with throttled.transport as entered:
            assert entered is throttled.transport
            assert throttled.server.entered

        assert throttled.server.closed

    async def test_by_the_client(self, library: Library) -> None:
        throttled = Throttled(library, "9/s")
        async with throttled.client:
            assert throttled.server.entered

        assert throttled.server.closed

    async def test_it_is_closed(self, library: Library) -> None:
        throttled = Throttled(library, "9/s")
        await throttled.client.aclose()
        assert throttled.server.closed

    async def test_what_the_user_reads_is_what_it_sent(self, library: Library) -> None:
        throttled = Throttled(library, "9/s", Answer(201, {"x-a": "ä"}, parts=(b"a", b"b")))
        answer = await throttled.get()
        assert (answer.status_code, answer.content) == (201, b"ab")
        assert answer.headers.raw == [(b"x-a", "ä".encode())]
        assert answer.is_closed


async def test_what_waits_when_the_client_is_closed_sends_nothing(library: Library) -> None:
    limiter = RateLimiter("1/10s end")
    throttled = Throttled(library, limiter)
    await throttled.get()

    async def too_late() -> None:
        with pytest.raises(RuntimeError, match="closed before this request had its turn"):
            await throttled.get()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(too_late)
        await wait_idle()
        await throttled.client.aclose()

    assert len(throttled.server.sent) == 1
    assert limiter.quotas()[0].remaining == 1, "it has never left"
    throttled.assert_nothing_held()


async def test_a_transport_that_is_entered_again_sends_again(library: Library) -> None:
    throttled = Throttled(library, "5/10s")
    for _ in range(2):
        async with throttled.transport:
            request = throttled.client.build_request("GET", "http://a.example/")
            answer = await throttled.transport.handle_async_request(request)
            await answer.aread()

    assert len(throttled.server.sent) == 2
