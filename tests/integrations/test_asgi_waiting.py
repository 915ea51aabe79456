"""Requests that wait for their turn, and clients that hang up meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import KeyedLimiter, LimitExceeded, RateLimiter
from anythrottle.integrations.asgi import RateLimitMiddleware
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.engine.mine import Mine
from tests.integrations.asgi_tools import GONE, Client, Echo, Message, ask, body, scope_of
from tests.properties import examples

pytestmark = [pytest.mark.timing, pytest.mark.promise("H13")]

KIB = 1024


def waiting(limiter: RateLimiter) -> int:
    return limiter.statistics().tasks_waiting


async def test_who_may_wait_is_served_in_turn() -> None:
    echo = Echo()
    app = RateLimitMiddleware(echo, RateLimiter("2/10s"), max_wait=20)
    began = anyio.current_time()
    clients = [Client() for _ in range(8)]
    async with anyio.create_task_group() as task_group:
        for client in clients:
            task_group.start_soon(ask, app, client)

    assert [at - began for at in echo.instants] == pytest.approx([0, 0, 10, 10, 20, 20], abs=1e-6)
    assert sorted(client.status for client in clients) == [200] * 6 + [429] * 2


async def test_who_cannot_have_a_turn_in_time_is_refused_at_once() -> None:
    limiter = RateLimiter("1/60s")
    app = RateLimitMiddleware(Echo(), limiter, max_wait=5)
    await ask(app)
    began = anyio.current_time()
    refused = await ask(app, Client([GONE]))
    assert (anyio.current_time(), refused.status) == (began, 429)
    # Not even heard: there was nothing to wait for.
    assert refused.asked == 0


async def test_who_waits_in_vain_is_refused() -> None:
    app = RateLimitMiddleware(Echo(takes=60), RateLimiter(concurrency=1), max_wait=5)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(ask, app)
        await anyio.sleep(1)
        began = anyio.current_time()
        refused = await ask(app, Client([body(b"a" * 70 * KIB, more=True)]))
        assert anyio.current_time() - began == pytest.approx(5)
        assert refused.status == 429
        task_group.cancel_scope.cancel()


@pytest.mark.parametrize("max_wait", [None, "deadline", 100])
async def test_as_long_as_it_takes(max_wait: Any) -> None:
    app = RateLimitMiddleware(Echo(), RateLimiter("1/60s"), max_wait=max_wait)
    await ask(app)
    with anyio.fail_after(90):
        assert (await ask(app)).status == 200


async def test_a_limiter_of_a_users_own() -> None:
    limiter: Any = Mine(RateLimiter("1/60s"))
    app = RateLimitMiddleware(Echo(), limiter, max_wait=5)
    assert [(await ask(app)).status for _ in range(2)] == [200, 429]
    app = RateLimitMiddleware(Echo(), limiter, max_wait=60)
    assert (await ask(app)).status == 200
    assert limiter.told == ["entered", "left"] * 2


class TestHangUp:
    @pytest.mark.parametrize(
        "script",
        [
            [3, GONE],
            [body(), 3, GONE],
            [body(b"a" * 1000, more=True)] * 64 + [3, GONE],
            [body(b"a" * 64 * KIB, more=True), 3, GONE],
            [body(b"", more=True)] * 2000 + [3, GONE],
        ],
    )
    async def test_leaves_the_line_at_once(self, script: Sequence[Message]) -> None:
        echo, limiter = Echo(), RateLimiter("1/60s")
        app = RateLimitMiddleware(echo, limiter, max_wait=100)
        await ask(app)
        began = anyio.current_time()
        client = await ask(app, Client(script))
        assert anyio.current_time() - began == 3
        # Applications around it insist on an answer, which goes nowhere.
        assert (client.status, client.body) == (499, b"")
        assert len(echo.requests) == 1
        assert waiting(limiter) == 0
        # Its turn was not used.
        assert (await ask(app)).status == 200
        assert anyio.current_time() - began == pytest.approx(60)

    async def test_a_server_may_raise_if_it_is_answered_all_the_same(self) -> None:
        class Strict(Client):
            async def send(self, message: Message) -> None:
                await super().send(message)
                raise OSError

        app = RateLimitMiddleware(Echo(), RateLimiter("1/60s"), max_wait=100)
        await ask(app)
        assert (await ask(app, Strict([3, GONE]))).status == 499

    async def test_beyond_64_kib_nothing_more_is_received(self) -> None:
        """So nobody sees it, until the turn comes."""
        echo, limiter = Echo(reads=True), RateLimiter("1/60s")
        app = RateLimitMiddleware(echo, limiter, max_wait=100)
        await ask(app)
        began = anyio.current_time()
        flood = Client([body(b"a" * 10 * KIB, more=True)] * 1000 + [GONE])
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, app, flood)
            await anyio.sleep(59)
            assert flood.received == 7
            assert waiting(limiter) == 1

        assert anyio.current_time() - began == pytest.approx(60)
        assert len(echo.requests[1]) == 1001
        assert echo.requests[1][-1] == GONE

    async def test_a_body_in_crumbs_is_bounded_too(self) -> None:
        app = RateLimitMiddleware(Echo(), RateLimiter("1/60s"), max_wait=100)
        await ask(app)
        flood = Client([body(more=True)] * 10_000)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, app, flood)
            await anyio.sleep(59)
            assert flood.received == 4096

    async def test_others_have_their_turns_while_one_sends(self) -> None:
        """Though a server hands out what it has without a checkpoint."""
        app = RateLimitMiddleware(Echo(), RateLimiter("1/60s"), max_wait=100)
        await ask(app)
        flood = Client([body(more=True)] * 4000)
        turns = 0
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, app, flood)
            while flood.received < 4000:
                await anyio.lowlevel.checkpoint()
                turns += 1

            task_group.cancel_scope.cancel()

        assert turns > 1000

    async def test_a_websocket_too(self) -> None:
        echo, limiter = Echo(), RateLimiter("1/60s")
        app = RateLimitMiddleware(echo, limiter, max_wait=100)
        await ask(app)
        began = anyio.current_time()
        script = [{"type": "websocket.connect"}, 3, {"type": "websocket.disconnect"}]
        client = await ask(app, Client(script), kind="websocket")
        assert anyio.current_time() - began == 3
        assert (client.sent, len(echo.requests), waiting(limiter)) == ([], 1, 0)

    async def test_the_next_goes_in_its_place(self) -> None:
        limiter = RateLimiter("1/60s")
        app = RateLimitMiddleware(Echo(), limiter, max_wait=61)
        await ask(app)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(ask, app, Client([10, GONE]))
            await anyio.sleep(1)
            assert (await ask(app)).status == 429
            await anyio.sleep(10)
            assert (await ask(app)).status == 200

    async def test_at_the_instant_of_the_turn_nothing_is_lost(self) -> None:
        """Whichever is first, the turn is used once, or is still there."""
        for instant in (59.999, 60.0, 60.001):
            echo, limiter = Echo(reads=True), RateLimiter("1/60s")
            app = RateLimitMiddleware(echo, limiter, max_wait=100)
            await ask(app)
            await ask(app, Client([instant, GONE]))
            used = len(echo.requests) - 1
            await anyio.sleep(1)
            assert limiter.peek().remaining == 1 - used
            assert waiting(limiter) == 0


class TestReplay:
    @pytest.mark.parametrize(
        "script",
        [
            [body()],
            [body(b"whole")],
            [body(b"a", more=True), body(b"", more=True), 2, body(b"b", more=True), body(b"c")],
            [body(b"a", more=True), 120, body(b"b")],
            [body(b"a" * 70 * KIB, more=True), body(b"b" * 70 * KIB, more=True), body(b"c")],
            [59.9, body(b"a", more=True), 0.2, body(b"b", more=True), 0.2, body(b"c")],
            [{"type": "http.request", "more_body": True, "of": "a server"}, body(b"b")],
        ],
    )
    async def test_what_was_sent_comes_unchanged(self, script: Sequence[Message]) -> None:
        """A receive() that is under way when the turn comes would lose its message if cancelled."""
        echo = Echo(reads=True)
        app = RateLimitMiddleware(echo, RateLimiter("1/60s"), max_wait=100)
        await ask(app)
        sent = [message for message in script if not isinstance(message, (int, float))]
        await ask(app, Client(script))
        assert echo.requests[1] == sent
        assert all(got is message for got, message in zip(echo.requests[1], sent, strict=True))

    async def test_who_hangs_up_while_it_is_served(self) -> None:
        seen: list[Message] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append([await receive() for _ in range(3)])

        guarded = RateLimitMiddleware(app, RateLimiter("1/60s"), max_wait=100)
        await ask(guarded, Client([body(), body(), GONE]))
        await ask(guarded, Client([body(), 80, GONE, GONE]))
        assert seen[1] == [body(), GONE, GONE]

    async def test_a_receive_that_is_cancelled_loses_nothing(self) -> None:
        seen: list[Message] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with anyio.move_on_after(1):
                seen.append(await receive())

            seen.append(await receive())

        guarded = RateLimitMiddleware(app, RateLimiter("1/60s"), max_wait=100)
        await ask(guarded, Client([body(), body()]))
        seen.clear()
        await ask(guarded, Client([70, body(b"a")]))
        assert seen == [body(b"a")]

    @examples(60)
    @given(
        st.lists(
            st.one_of(
                st.floats(0, 40),
                st.integers(0, 40 * KIB),
            ),
            max_size=8,
        )
    )
    def test_whenever_it_comes(self, run: Run, parts: list[float]) -> None:
        script = [
            body(bytes([index]) * part, more=True) if isinstance(part, int) else part
            for index, part in enumerate(parts)
        ]
        script.append(body(b"end"))
        sent = [message for message in script if not isinstance(message, float)]

        async def main() -> None:
            echo = Echo(reads=True)
            app = RateLimitMiddleware(echo, RateLimiter("1/60s"), max_wait=100)
            await ask(app)
            client = await ask(app, Client(script))
            assert echo.requests[1] == sent
            assert client.body == b"".join(message["body"] for message in sent)

        run(main)


class TestErrors:
    @pytest.mark.parametrize("max_wait", [0, 100])
    @pytest.mark.parametrize(
        "error",
        [
            OSError("no"),
            ExceptionGroup("several", [ValueError()]),
            LimitExceeded(RateLimiter().peek()),
            SystemExit(3),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_of_the_application_reach_the_server_bare(
        self, error: BaseException, max_wait: float
    ) -> None:
        limiter = RateLimiter("1/60s", concurrency=1)
        client = Client()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await anyio.sleep(1)
            raise error

        guarded = RateLimitMiddleware(app, limiter, max_wait=max_wait)
        for _ in range(2 if max_wait else 1):
            with pytest.raises(type(error)) as info:
                await guarded(scope_of(), client.receive, client.send)

            assert info.value is error
            assert limiter.statistics().borrowed_tokens == 0

        # As it was: not taken for a refusal of ours.
        assert client.sent == []

    async def test_of_receive_reach_the_server_bare(self) -> None:
        limiter = RateLimiter("1/60s")
        app = RateLimitMiddleware(Echo(), limiter, max_wait=100)
        await ask(app)
        began = anyio.current_time()
        error = OSError("connection lost")
        with pytest.raises(OSError, match="connection lost") as info:
            await ask(app, Client([body(more=True), 3, error]))

        assert info.value is error
        assert anyio.current_time() - began == 3
        assert waiting(limiter) == 0

    async def test_of_receive_reach_the_application_if_its_turn_has_come(self) -> None:
        seen: list[object] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(3):
                try:
                    seen.append(await receive())
                except OSError as error:
                    seen.append(error)

        guarded = RateLimitMiddleware(app, RateLimiter("1/60s"), max_wait=100)
        await ask(guarded, Client([body()] * 3))
        seen.clear()
        error = OSError("connection lost")
        await ask(guarded, Client([body(more=True), 70, error, body()]))
        assert seen == [body(more=True), error, body()]

    @pytest.mark.parametrize("max_wait", [0, 100])
    async def test_of_send_reach_the_server(self, max_wait: float) -> None:
        async def send(message: Message) -> None:
            raise OSError("connection lost")

        app = RateLimitMiddleware(Echo(), RateLimiter("1/60s"), max_wait=max_wait)
        for _ in range(2):
            with pytest.raises(OSError, match="connection lost"):
                await app(scope_of(), Client().receive, send)

    async def test_cancelled_in_line_and_while_served(self) -> None:
        limiter = RateLimiter("1/60s", concurrency=1)
        app = RateLimitMiddleware(Echo(takes=90), limiter, max_wait=100)
        for after in (30, 30, 61):
            with anyio.move_on_after(after) as scope:
                await ask(app)

            assert scope.cancelled_caught
            assert (waiting(limiter), limiter.statistics().borrowed_tokens) == (0, 0)

    @pytest.mark.parametrize("max_wait", [0, 100])
    async def test_of_an_application_that_is_cut_off_too(self, max_wait: float) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("at the end")

        guarded = RateLimitMiddleware(app, RateLimiter("1/60s"), max_wait=max_wait)
        for after in (1, 61) if max_wait else (1,):
            with pytest.raises(OSError, match="at the end"), anyio.move_on_after(after):
                await ask(guarded)


class TestTasks:
    """A request has no task of its own unless it waits."""

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        started: list[object] = []
        create = anyio.create_task_group

        def create_task_group() -> Any:
            # Those of this module are of tests.
            if sys._getframe(1).f_globals["__name__"].startswith("anythrottle"):
                started.append(None)

            return create()

        monkeypatch.setattr(anyio, "create_task_group", create_task_group)
        return started

    async def test_who_need_not_wait(self, started: list[object]) -> None:
        limiter = RateLimiter("3/60s")
        app = RateLimitMiddleware(Echo(), limiter, max_wait=100)
        await ask(app)
        assert not started
        await ask(app)
        await ask(app)
        assert not started
        await ask(app)
        assert len(started) == 1

    async def test_who_is_refused_at_once(self, started: list[object]) -> None:
        app = RateLimitMiddleware(Echo(), RateLimiter("1/60s"), max_wait=5)
        await ask(app)
        assert (await ask(app)).status == 429
        app = RateLimitMiddleware(Echo(), RateLimiter("1/60s"))
        assert [(await ask(app)).status for _ in range(2)] == [200, 429]
        assert not started

    async def test_none_is_left_behind(self) -> None:
        app = RateLimitMiddleware(Echo(), KeyedLimiter(lambda _: RateLimiter("1/60s")), max_wait=61)
        async with anyio.create_task_group() as task_group:
            for number in range(20):
                peer = (f"192.0.2.{number % 7}", 1)
                task_group.start_soon(partial(ask, app, peer=peer))

            await wait_idle()
            task_group.cancel_scope.cancel()

        await anyio.sleep(100)
        assert (await ask(app)).status == 200
