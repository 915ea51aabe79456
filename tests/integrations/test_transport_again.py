"""What a throttled client does with refusals."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from anythrottle import KeyedLimiter, RateLimiter
from anythrottle.integrations.headers import Profile
from tests.integrations.tools import Answer, Library, Throttled, held

pytestmark = pytest.mark.timing

REFUSED = Answer(429, {"retry-after": "7", "x-body": "ä"}, parts=(b"refused",))


def told(status: int = 429, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): text for name, text in headers.items()})


@pytest.mark.promise("H3")
class TestAgain:
    @pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
    async def test_whatever_the_method(self, library: Library, method: str) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), REFUSED, REFUSED, Answer())
        answer = await throttled.client.request(method, "http://a.example/", content=b"ping")
        assert (answer.status_code, throttled.server.instants) == (200, [0, 7, 14])
        assert [request.content for _, request in throttled.server.sent] == [b"ping"] * 3
        said = answer.extensions["anythrottle"]
        assert (said["waited"], said["attempts"]) == (14, 3)
        assert not said["permit"].quotas
        throttled.assert_nothing_held()

    @pytest.mark.parametrize("body", [{"json": {"a": 1}}, {"data": {"a": "1"}}, {}])
    async def test_bodies_that_can_be_sent_again(
        self, library: Library, body: dict[str, Any]
    ) -> None:
        throttled = Throttled(library, "9/s", REFUSED, Answer())
        assert (await throttled.post(**body)).status_code == 200

    @pytest.mark.parametrize("body", ["generator", "files"])
    async def test_bodies_that_cannot(self, library: Library, body: str) -> None:
        async def parts() -> Any:
            yield b"part"

        throttled = Throttled(library, "9/s", REFUSED, Answer())
        options = {"content": parts()} if body == "generator" else {"files": {"a": b"a"}}
        answer = await throttled.post(**options)
        assert (answer.status_code, answer.content) == (429, b"refused")
        assert throttled.limiter_of().statistics().paused_for == 7
        throttled.assert_nothing_held()

    @pytest.mark.parametrize(
        ("method", "sends"),
        [*((method, 2) for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")), ("POST", 1)],
    )
    async def test_what_may_have_been_done(self, library: Library, method: str, sends: int) -> None:
        throttled = Throttled(library, "9/s", told(503, retry_after="7"), Answer())
        await throttled.client.request(method, "http://a.example/")
        assert len(throttled.server.sent) == sends
        throttled.assert_nothing_held()

    async def test_a_503_that_tells_nothing_is_an_answer(self, library: Library) -> None:
        throttled = Throttled(library, "9/s", told(503))
        assert (await throttled.get()).status_code == 503
        assert throttled.limiter_of().statistics().paused_for == 0

    async def test_a_403_of_github(self, library: Library) -> None:
        throttled = Throttled(
            library, "9/s", told(403, retry_after="7"), Answer(403), profile="github"
        )
        answer = await throttled.post()
        assert (answer.status_code, len(throttled.server.sent)) == (403, 2)

    async def test_it_goes_before_all_others(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), REFUSED, Answer())
        order: list[str] = []

        async def get(name: str) -> None:
            await throttled.get()
            order.append(name)

        async with anyio.create_task_group() as task_group:
            for name in "abc":
                task_group.start_soon(get, name)
                await anyio.sleep(0.1)

        assert order == ["a", "b", "c"]
        throttled.assert_nothing_held()


@pytest.mark.promise("H4")
class TestPause:
    async def test_all_pause_from_the_headers_on(self, library: Library) -> None:
        """The refused body is drained after that, and takes its time."""
        slow = Answer(429, {"retry-after": "7"}, parts=(b"slow", 0.9))
        throttled = Throttled(library, RateLimiter(concurrency=2), slow, Answer())
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttled.get)
            await anyio.sleep(0.5)
            assert held(throttled.limiter) == 1
            assert throttled.limiter.statistics().paused_for == 6.5
            task_group.start_soon(throttled.get)
            await anyio.sleep(0.5)
            assert throttled.server.open == held(throttled.limiter) == 0

        assert throttled.server.instants == [0, 7, 7]

    async def test_who_is_cancelled_then_has_paused_it(self, library: Library) -> None:
        slow = Answer(429, {"retry-after": "7"}, parts=(b"slow", 0.9))
        throttled = Throttled(library, RateLimiter(concurrency=2), slow, Answer())
        with anyio.move_on_after(0.5):
            await throttled.get()

        throttled.assert_nothing_held()
        await throttled.get()
        assert throttled.server.instants == [0, 7]

    async def test_who_is_cancelled_then_waits_until_it_is_closed(self, library: Library) -> None:
        slow = Answer(429, {"retry-after": "7"}, parts=(b"slow", 0.9))
        throttled = Throttled(library, RateLimiter(concurrency=2), slow, Answer())

        async def close_late(body: Any) -> None:
            await anyio.sleep(0.1)
            body.server.open -= 1

        throttled.server._body.aclose = close_late  # type: ignore[attr-defined]
        with anyio.move_on_after(0.5):
            await throttled.get()

        assert anyio.current_time() == 0.6
        throttled.assert_nothing_held()

    @pytest.mark.parametrize(
        "parts", [(b"x" * 40_000, b"x" * 40_000), (b"slow", 1.5), (b"x", OSError("reset"))]
    )
    async def test_a_body_that_is_not_read(self, library: Library, parts: Any) -> None:
        """Too large, too slow, or broken: it is closed, and if there is no turn, empty."""
        limiter = RateLimiter("1/h", concurrency=1)
        throttled = Throttled(library, limiter, Answer(429, parts=parts), max_wait=10)
        answer = await throttled.get()
        assert (answer.status_code, answer.content) == (429, b"")
        throttled.assert_nothing_held()

    async def test_an_error_of_closing_it_is_nobodys(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), REFUSED, Answer())
        body: Any = throttled.server._body

        async def fail(self: Any) -> None:
            self.server.open -= 1
            body.aclose = aclose
            raise OSError

        aclose, body.aclose = body.aclose, fail
        assert (await throttled.get()).status_code == 200
        throttled.assert_nothing_held()

    async def test_everywhere(self, library: Library) -> None:
        globally = told(429, retry_after="7", x_ratelimit_global="true")
        limiters = KeyedLimiter[str, RateLimiter](lambda _: RateLimiter(concurrency=1))
        throttled = Throttled(
            library, limiters, Answer(after=1), globally, Answer(), profile="discord"
        )
        sent = throttled.server.sent
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(throttled.get, "http://known/")
            await anyio.sleep(0.5)
            # Waits in its line when the refusal comes.
            task_group.start_soon(throttled.get, "http://known/")
            task_group.start_soon(throttled.get, "http://refused/")
            await anyio.sleep(1)
            task_group.start_soon(throttled.get, "http://later/")

        assert [(at, request.url.host) for at, request in sent[:2]] == [
            (0, "known"),
            (0.5, "refused"),
        ]
        assert {(at, request.url.host) for at, request in sent[2:]} == {
            (7.5, "known"),
            (7.5, "refused"),
            (7.5, "later"),
        }
        await throttled.get("http://last/")
        assert anyio.current_time() == 7.5
        throttled.assert_nothing_held()

    async def test_everywhere_once(self, library: Library) -> None:
        """Who is resumed is not paused again for the same."""
        globally = told(429, retry_after="7", x_ratelimit_global="true")
        throttled = Throttled(
            library, "9/s", Answer(), globally, Answer(), profile="discord", max_throttles=1
        )
        await throttled.get("http://known/")
        await throttled.get("http://refused/")
        await throttled.get("http://later/", extensions={"anythrottle": {"key": "known"}})
        assert anyio.current_time() == 7
        throttled.server.answers = [globally]
        await throttled.get("http://refused/")
        throttled.limiter_of("known").resume()
        await throttled.get("http://known/")
        assert anyio.current_time() == 7


@pytest.mark.promise("H4")
class TestPauseAcrossRuns:
    def test_what_is_left_of_it_holds_in_another_run(
        self, library: Library, run: Any, real_time: Any
    ) -> None:
        globally = told(429, retry_after="7", x_ratelimit_global="true")
        throttled = Throttled(
            library, "9/s", globally, Answer(), profile="discord", max_throttles=1
        )
        run(throttled.get)
        real_time.now += 3

        async def get() -> float:
            start = anyio.current_time()
            await throttled.get("http://other/")
            return anyio.current_time() - start

        assert run(get) == pytest.approx(4)


@pytest.mark.promise("H5")
class TestItsOwnAnswer:
    """What is not sent again is returned as it came, and held until it is closed."""

    @pytest.mark.parametrize(
        ("answer", "options"),
        [
            (REFUSED, {"max_throttles": 1}),
            (REFUSED, {"max_wait": 6}),
            (REFUSED, {"max_pause": 6}),
            (told(429, retry_after="9" * 21), {}),
            (told(429, retry_after="7", x_should_retry="false"), {}),
        ],
    )
    async def test_as_it_came(
        self, library: Library, answer: Answer, options: dict[str, Any]
    ) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), answer, **options)
        got = await throttled.open()
        assert held(throttled.limiter) == throttled.server.open == 1
        assert got.status_code == 429
        assert got.headers.raw == answer.raw
        assert await got.aread() == b"".join(answer.parts)  # type: ignore[arg-type]
        assert got.extensions["anythrottle"]["attempts"] == 1
        throttled.assert_nothing_held()
        paused = throttled.limiter.statistics().paused_for
        assert paused == min(options.get("max_pause", 3600), 3600 if "9" * 21 in str(answer) else 7)

    async def test_when_the_sends_are_used_up(self, library: Library) -> None:
        throttled = Throttled(library, "9/s", REFUSED, max_throttles=3)
        answer = await throttled.get()
        assert answer.status_code == 429
        assert throttled.server.instants == [0, 7, 14]
        assert answer.extensions["anythrottle"]["attempts"] == 3

    async def test_a_second_turn_that_is_not_had(self, library: Library) -> None:
        """The pause would do, but the rate not: the refused answer was drained meanwhile."""
        throttled = Throttled(library, RateLimiter("1/h", concurrency=1), REFUSED, max_wait=10)
        answer = await throttled.open()
        throttled.assert_nothing_held()
        assert answer.extensions["anythrottle"]["attempts"] == 1
        assert answer.headers.raw == REFUSED.raw
        assert await answer.aread() == b"refused"
        assert len(throttled.server.sent) == 1

    async def test_by_the_deadline(self, library: Library) -> None:
        throttled = Throttled(library, RateLimiter(concurrency=1), REFUSED, max_wait="deadline")
        with anyio.fail_after(6):
            answer = await throttled.open()
            # Not drained in vain.
            assert throttled.server.open == 1
            assert await answer.aread() == b"refused"

        with anyio.fail_after(20):
            throttled.server.answers = [REFUSED, REFUSED, Answer()]
            assert (await throttled.get()).status_code == 200

    async def test_even_if_it_was_read_before(self, library: Library) -> None:
        refused = Answer(429, {"retry-after": "7"}, parts=(b"no",), read=True)
        throttled = Throttled(library, RateLimiter("1/h", concurrency=1), refused, max_wait=10)
        answer = await throttled.get()
        assert (answer.status_code, answer.content) == (429, b"no")
        throttled.assert_nothing_held()

    async def test_an_error_of_the_second_request_is_raised(self, library: Library) -> None:
        throttled = Throttled(library, "9/s", REFUSED, Answer(error="ReadError"))
        with pytest.raises(library.module.ReadError):
            await throttled.get()

        throttled.assert_nothing_held()


@pytest.mark.promise("H6")
class TestHowLong:
    @pytest.mark.parametrize(
        "headers", [{}, {"retry-after": "0"}, {"retry-after": "-1"}, {"retry-after": "soon"}]
    )
    async def test_untold_it_doubles(self, library: Library, headers: dict[str, str]) -> None:
        throttled = Throttled(library, RateLimiter(), Answer(429, headers), max_throttles=4)
        await throttled.get()
        assert throttled.server.instants == [0, 1, 3, 7]
        assert throttled.limiter.statistics().paused_for == 8

    async def test_each_refusal_is_told_to_the_log(
        self, library: Library, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Else a long pause looks like a program that hangs."""
        caplog.set_level(logging.INFO, "anythrottle")
        refused = Answer(429, {"retry-after": "300"})
        await Throttled(library, "9/s", refused, Answer()).get()
        told = "'a.example' has refused a request: all pause for 300 s"
        assert caplog.record_tuples == [("anythrottle", logging.INFO, told)]

    async def test_without_end(self, library: Library) -> None:
        profile = Profile("mine", (), first_pause=1e-300)
        throttled = Throttled(
            library, RateLimiter(), Answer(429), max_throttles=1100, profile=profile
        )
        await throttled.get()
        assert len(throttled.server.sent) == 1100

    async def test_by_the_quota_that_is_used_up(self, library: Library) -> None:
        refused = told(429, x_ratelimit_remaining="0", x_ratelimit_reset="9")
        throttled = Throttled(library, RateLimiter(), refused, Answer())
        await throttled.get()
        assert throttled.server.instants == [0, 9]

    async def test_more_than_may_be_is_logged(
        self, library: Library, caplog: pytest.LogCaptureFixture
    ) -> None:
        throttled = Throttled(library, RateLimiter(), told(429, retry_after="9999"))
        assert (await throttled.get()).status_code == 429
        assert throttled.limiter.statistics().paused_for == 3600
        assert (
            caplog.messages[-1]
            == "'a.example' has asked for a pause of 9999 s: it is 3600 s, max_pause"
        )

    async def test_nobody_is_said_to_have_asked_for_what_was_not_told(
        self, library: Library, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "anythrottle")
        throttled = Throttled(library, RateLimiter(), told(429), max_pause=0.5)
        assert (await throttled.get()).status_code == 429
        assert throttled.limiter.statistics().paused_for == 0.5
        assert not caplog.messages

    async def test_for_ever_if_that_may_be(self, library: Library) -> None:
        refused = told(429, retry_after="9" * 21)
        throttled = Throttled(library, RateLimiter(concurrency=1), refused, max_pause=float("inf"))
        with anyio.move_on_after(1e9) as scope:
            await throttled.get()

        assert scope.cancelled_caught
        throttled.assert_nothing_held()
