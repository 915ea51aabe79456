"""What a call holds, from its turn to the end of its answer's body."""

from __future__ import annotations

import gc
import warnings
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from anythrottle import RateLimiter
from anythrottle._limiters.permit import TurnPermit
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.integrations.tools import Answer, Library, Throttled, held

pytestmark = [pytest.mark.timing, pytest.mark.promise("H1")]

SLOW = Answer(after=2, parts=(b"first", 3, b"last"))


async def test_until_its_body_has_been_read(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1), SLOW)
    answer = await throttled.open()
    assert held(throttled.limiter) == 1
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(throttled.get)
        await anyio.sleep(10)
        assert len(throttled.server.sent) == 1
        assert await answer.aread() == b"firstlast"
        await wait_idle()
        assert throttled.server.instants == [0, 15]

    throttled.assert_nothing_held()
    assert throttled.server.most_open == 1


async def test_until_it_is_closed_unread(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1))
    answer = await throttled.open()
    assert held(throttled.limiter) == 1
    await answer.aclose()
    throttled.assert_nothing_held()


async def test_until_it_is_closed_by_another_task(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1))
    answer = await throttled.open()
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(throttled.get)
        await anyio.sleep(1)
        task_group.start_soon(answer.aclose)

    assert throttled.server.instants == [0, 1]
    throttled.assert_nothing_held()


async def test_half_read_until_it_is_closed(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1))
    answer = await throttled.open()
    with warnings.catch_warnings():
        # On Trio, of generators of httpx that are left behind.
        warnings.simplefilter("ignore", ResourceWarning)
        async with aclosing(answer.stream.__aiter__()) as parts:
            assert await anext(parts) == b"whole"

        # Not only when it is collected, of which Trio warns.
        assert throttled.server.bodies[0].left or library.module.__name__ == "httpx"
        del parts
        gc.collect()
        await wait_idle()
        assert held(throttled.limiter) == 1

    await answer.aclose()
    throttled.assert_nothing_held()


async def test_closed_twice_it_is_let_go_once(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[TurnPermit] = []
    end = TurnPermit.end

    def note(permit: TurnPermit) -> None:
        ended.append(permit)
        end(permit)

    monkeypatch.setattr(TurnPermit, "end", note)
    throttled = Throttled(library, RateLimiter(concurrency=1))
    first = await throttled.open()
    body = first.stream
    await first.aread()
    second = await throttled.open()
    await first.aclose()
    await body.aclose()
    assert held(throttled.limiter) == 1
    await second.aclose()
    throttled.assert_nothing_held()
    assert [id(permit) for permit in ended] == [
        id(answer.extensions["anythrottle"]["permit"]) for answer in (first, second)
    ]


async def test_an_error_midway_ends_it(library: Library) -> None:
    error = library.error("ReadError")
    throttled = Throttled(library, RateLimiter(concurrency=1), Answer(parts=(b"first", error)))
    answer = await throttled.open()
    with pytest.raises(type(error)):
        await answer.aread()

    assert held(throttled.limiter) == 0
    await answer.aclose()
    throttled.assert_nothing_held()


async def test_cancelled_in_its_body_it_ends(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1), SLOW)
    answer = await throttled.open()
    with anyio.move_on_after(1):
        await answer.aread()

    assert held(throttled.limiter) == 0
    await answer.aclose()
    throttled.assert_nothing_held()


async def test_cancelled_before_its_headers(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1), SLOW)
    with anyio.move_on_after(1):
        await throttled.get()

    throttled.assert_nothing_held()


async def test_an_error_of_closing_ends_it(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1))
    answer = await throttled.open()

    async def fail() -> None:
        throttled.server.open -= 1
        raise OSError

    throttled.server.bodies[0].aclose = fail  # type: ignore[method-assign]
    with pytest.raises(OSError):  # noqa: PT011
        await answer.aclose()

    throttled.assert_nothing_held()


@pytest.mark.parametrize("follow", [True, False])
async def test_redirected(library: Library, *, follow: bool) -> None:
    """Each hop has a turn of its own, and ends before the next."""
    there = Answer(302, {"location": "http://b.example/"})
    throttled = Throttled(library, RateLimiter(concurrency=1), there, Answer())
    answer = await throttled.get(follow_redirects=follow)
    assert answer.status_code == (200 if follow else 302)
    assert len(throttled.server.sent) == 1 + follow
    throttled.assert_nothing_held()


async def test_an_answer_that_has_been_read_already_is_over(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1), Answer(read=True))
    answer = await throttled.open()
    assert await answer.aread() == b"whole body"
    throttled.assert_nothing_held()
    await throttled.get()


async def test_a_request_inside_of_an_open_answer_waits_as_any_other(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(concurrency=1))
    answer = await throttled.open()
    with anyio.move_on_after(1000) as scope:
        await throttled.get()

    assert scope.cancelled_caught
    await answer.aclose()
    throttled.assert_nothing_held()


@pytest.mark.parametrize(
    ("error", "left"),
    [
        *[(name, 1) for name in ("ConnectError", "ConnectTimeout", "PoolTimeout")],
        *[("UnsupportedProtocol", 1), ("ProxyError", 1)],
        *[(name, 0) for name in ("ReadError", "ReadTimeout", "WriteError", "WriteTimeout")],
        # It may be raised when half of a request has left.
        *[("LocalProtocolError", 0), ("RemoteProtocolError", 0)],
    ],
)
async def test_what_never_left_is_given_back(library: Library, error: str, left: int) -> None:
    throttled = Throttled(library, RateLimiter("1/h end"), Answer(error=error, after=1))
    with pytest.raises(getattr(library.module, error)):
        await throttled.get()

    assert throttled.limiter.peek().remaining == left
    throttled.assert_nothing_held()


async def test_a_body_that_is_no_generator(library: Library) -> None:
    class Parts:
        def __init__(self, parts: list[bytes]) -> None:
            self.parts = parts

        def __aiter__(self) -> Parts:
            return self

        async def __anext__(self) -> bytes:
            if not self.parts:
                raise StopAsyncIteration

            return self.parts.pop(0)

    throttled = Throttled(library, RateLimiter(concurrency=1))
    throttled.server._body.__aiter__ = lambda body: Parts([b"a", b"b"])  # type: ignore[attr-defined]
    assert (await throttled.get()).content == b"ab"
    throttled.assert_nothing_held()


class TestDropped:
    async def test_it_is_warned_of_and_let_go(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1))
        answers = [await throttled.open()]
        with pytest.warns(ResourceWarning, match="dropped before it was read or closed"):
            drop(throttled, answers)

        # Not by the finalizer itself.
        assert held(throttled.limiter) == 1
        await wait_idle()
        assert held(throttled.limiter) == 0

    async def test_even_if_a_warning_is_an_error(
        self, library: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raised: list[Any] = []
        monkeypatch.setattr("sys.unraisablehook", raised.append)
        throttled = Throttled(library, RateLimiter(concurrency=1))
        answers = [await throttled.open()]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            drop(throttled, answers)

        await wait_idle()
        assert [type(each.exc_value) for each in raised] == [ResourceWarning]
        assert held(throttled.limiter) == 0

    async def test_in_another_thread(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1))
        answers = [await throttled.open()]
        with pytest.warns(ResourceWarning):
            await anyio.to_thread.run_sync(drop, throttled, answers)

        await wait_idle()
        assert held(throttled.limiter) == 0

    async def test_what_is_over_is_not_warned_of(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1))
        drop(throttled, [await throttled.get()])

    def test_after_its_run_it_does_nothing(self, library: Library, run: Run) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1))
        answers = [run(throttled.open)]
        with pytest.warns(ResourceWarning):
            drop(throttled, answers)

        run(throttled.get)
        assert held(throttled.limiter) == 0

    async def test_a_permit_that_fails_to_end_is_logged(
        self, library: Library, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Failing:
            def end(self) -> None:
                raise ZeroDivisionError

        throttled = Throttled(library, RateLimiter(concurrency=1))
        answers = [await throttled.open()]
        permit = answers[0].extensions["anythrottle"]["permit"]
        answers[0].stream._stream._call._permit = Failing()
        with pytest.warns(ResourceWarning):
            drop(throttled, answers)

        await wait_idle()
        assert "could not be ended" in caplog.text
        permit.end()


def drop(throttled: Throttled, answers: list[Any]) -> None:
    """Drop answers, which nobody else holds."""
    throttled.server.bodies.clear()
    answers.clear()
    gc.collect()
