"""What a call has cost, told by the whole of its answer."""

from __future__ import annotations

import gzip
import logging
import warnings
from contextlib import aclosing, suppress
from typing import Any

import anyio
import pytest

from anythrottle import RateLimiter
from anythrottle.testing import wait_idle
from tests.integrations.tools import Answer, Library, Throttled, held

pytestmark = [pytest.mark.timing, pytest.mark.promise("H1")]

ESTIMATE = {"tokens": 100}

#: What ``settle`` returns.
USED = {"tokens": 30}


def tokens(*policies: str, **options: Any) -> RateLimiter:
    return RateLimiter("1000 tokens/min", *policies, **options)


def left(limiter: RateLimiter) -> int:
    return limiter.quotas()[0].remaining


class Settling:
    """A client that settles, and remembers of what."""

    def __init__(
        self, library: Library, answer: Answer, used: Any = USED, *policies: str, **options: Any
    ) -> None:
        self.seen: list[Any] = []
        self.used = used
        self.throttled = Throttled(
            library,
            tokens(*policies, concurrency=1),
            answer,
            cost=ESTIMATE,
            settle=self.settle,
            **options,
        )

    def settle(self, answer: Any) -> Any:
        self.seen.append(answer)
        if isinstance(self.used, Exception):
            raise self.used

        return self.used

    @property
    def left(self) -> int:
        return left(self.throttled.limiter)


async def test_by_a_complete_copy_of_the_answer(library: Library) -> None:
    body = gzip.compress(b'{"used": 30}')
    headers = {"content-encoding": "gzip", "x-name": "ä", "transfer-encoding": "chunked"}
    answer = Answer(201, headers, parts=(body[:5], 1, body[5:]))
    settling = Settling(library, answer)
    got = await settling.throttled.open()
    assert settling.left == 900
    assert await got.aread() == b'{"used": 30}'
    assert settling.left == 970
    (copy,) = settling.seen
    assert copy is not got
    assert (copy.status_code, copy.json()) == (201, {"used": 30})
    assert copy.headers.raw[:3] == got.headers.raw
    assert copy.request.url == got.request.url
    settling.throttled.assert_nothing_held()


async def test_of_one_that_was_read_before(library: Library) -> None:
    settling = Settling(library, Answer(read=True))
    await settling.throttled.get()
    assert settling.left == 970
    assert settling.seen[0].content == b"whole body"
    settling.throttled.assert_nothing_held()


async def test_none_leaves_the_estimate(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    settling = Settling(library, Answer(), None)
    await settling.throttled.get()
    assert settling.left == 900
    assert not caplog.messages


@pytest.mark.parametrize("used", [ZeroDivisionError("broken"), {"tokns": 30}, {"tokens": -1}, "30"])
@pytest.mark.parametrize("read", [False, True])
async def test_an_error_is_logged_and_leaves_it(
    library: Library, caplog: pytest.LogCaptureFixture, used: Any, *, read: bool
) -> None:
    settling = Settling(library, Answer(read=read), used)
    answer = await settling.throttled.get()
    assert answer.content == b"whole body"
    assert settling.left == 900
    assert caplog.messages == ["settle failed: the estimate of what the call costs stays"]
    settling.throttled.assert_nothing_held()


async def test_a_body_that_cannot_be_decoded(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    settling = Settling(library, Answer(headers={"content-encoding": "gzip"}))
    answer = await settling.throttled.open()
    assert b"".join([part async for part in answer.aiter_raw()]) == b"whole body"
    assert len(caplog.messages) == 1
    assert settling.left == 900
    settling.throttled.assert_nothing_held()


@pytest.mark.parametrize(("size", "seen"), [(4 * 2**20, 1), (4 * 2**20 + 1, 0)])
async def test_a_large_body(
    library: Library, caplog: pytest.LogCaptureFixture, size: int, seen: int
) -> None:
    caplog.set_level(logging.INFO, "anythrottle")
    half = b"x" * (size // 2)
    settling = Settling(library, Answer(parts=(half, b"x" * (size - len(half)), b"")))
    assert len((await settling.throttled.get()).content) == size
    assert len(settling.seen) == seen
    assert settling.left == (970 if seen else 900)
    assert len(caplog.messages) == 1 - seen
    settling.throttled.assert_nothing_held()


@pytest.mark.parametrize("how", ["closed", "broken", "cancelled"])
async def test_a_body_that_was_half_read(
    library: Library, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level(logging.INFO, "anythrottle")
    end = library.error("ReadError") if how == "broken" else 5
    settling = Settling(library, Answer(parts=(b"first", end, b"last")))
    answer = await settling.throttled.open()
    with anyio.move_on_after(1), suppress(library.module.ReadError):
        await (answer.aclose() if how == "closed" else answer.aread())

    await answer.aclose()
    assert not settling.seen
    assert settling.left == 900
    assert len(caplog.messages) == 1
    assert "its call's estimate stays" in caplog.text
    settling.throttled.assert_nothing_held()


async def test_what_there_is_no_settle_for_is_not_remembered(library: Library) -> None:
    throttled = Throttled(library, "9/s")
    answer = await throttled.open()
    call = answer.stream._stream._call
    await answer.aread()
    assert not call._body
    assert call._size == 0


async def test_a_body_that_another_iterator_reads_to_its_end(library: Library) -> None:
    """As openai's client does after the last event, on a connection, which goes on where it was."""
    rest = [b"first", b"last"]

    async def parts(_: Any) -> Any:
        while rest:
            yield rest.pop(0)

    settling = Settling(library, Answer())
    settling.throttled.server._body.__aiter__ = parts  # type: ignore[attr-defined]
    answer = await settling.throttled.open()
    body = answer.stream._stream
    async with aclosing(aiter(body)) as first:
        assert await anext(first) == b"first"
        assert [part async for part in body] == [b"last"]
        settling.throttled.server.open = 0
        settling.throttled.assert_nothing_held()

    await answer.aclose()
    assert [seen.content for seen in settling.seen] == [b"firstlast"]


async def test_a_body_that_is_iterated_again_is_not_remembered(library: Library) -> None:
    settling = Settling(library, Answer())
    answer = await settling.throttled.open()
    call, stream = answer.stream._stream._call, answer.stream
    await answer.aread()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert [part async for part in stream] == [b"whole", b" body"]

    assert not call._body
    assert len(settling.seen) == 1


class TestWhenItCounts:
    """By limits that are measured from the end, the headers are the end, if nothing is settled."""

    @pytest.mark.parametrize("limit", ["1/10s", "1/10s end"])
    async def test_a_text_is_marked_at_the_headers(self, library: Library, limit: str) -> None:
        throttled = Throttled(library, limit, Answer(after=1, parts=(2,)))
        await throttled.get()
        await throttled.get()
        assert throttled.server.instants == [0, 11]

    async def test_unless_it_says_start(self, library: Library) -> None:
        throttled = Throttled(library, "1/10s start", Answer(after=1, parts=(2,)))
        await throttled.get()
        await throttled.get()
        assert throttled.server.instants == [0, 10]

    @pytest.mark.parametrize(
        ("policies", "cost", "second"),
        [
            (["1/10s end"], 1, 11),
            (["1/10s end", "1000 tokens/10s end"], {"tokens": 400}, 11),
            (["9/10s end", "1000 tokens/10s end"], {"tokens": 600}, 13),
            (["1000 tokens/10s end"], {"tokens": 600}, 13),
        ],
    )
    async def test_what_is_settled_counts_from_the_end_of_the_body(
        self, library: Library, policies: list[str], cost: Any, second: float
    ) -> None:
        throttled = Throttled(
            library,
            RateLimiter(*policies),
            Answer(after=1, parts=(2,)),
            cost=cost,
            settle=lambda _: None,
        )
        await throttled.get()
        await throttled.get()
        assert throttled.server.instants == [0, second]


@pytest.mark.promise("H7")
class TestFiguresAgain:
    """After ``settle`` the figures of the headers hold once more, with less time left."""

    async def test_what_comes_back_is_not_there_if_the_server_says_so(
        self, library: Library
    ) -> None:
        headers = {"ratelimit": '"t";r=50;t=20', "ratelimit-policy": '"t";q=1000;w=60;qu="tokens"'}
        settling = Settling(library, Answer(headers=headers, parts=(b"x", 5)))
        answer = await settling.throttled.open()
        assert settling.left == 50
        await answer.aread()
        # Not 120.
        assert settling.left == 50
        await anyio.sleep(14.9)
        assert settling.left == 50
        await anyio.sleep(0.1)
        assert settling.left == 970

    async def test_what_is_over_meanwhile_is_not_told_again(
        self, library: Library, caplog: pytest.LogCaptureFixture
    ) -> None:
        headers = {"ratelimit": '"t";r=50;t=20', "ratelimit-policy": '"t";q=1000;w=60;qu="tokens"'}
        settling = Settling(library, Answer(headers=headers, parts=(b"x", 25)))
        await settling.throttled.get()
        assert settling.left == 970
        assert not caplog.messages

    @pytest.mark.parametrize(("seconds", "remaining"), [(5, 50), (70, 1000)])
    async def test_untold_for_how_long(
        self, library: Library, seconds: float, remaining: int
    ) -> None:
        headers = {"ratelimit": '"t";r=50', "ratelimit-policy": '"t";q=1000;w=60;qu="tokens"'}
        settling = Settling(library, Answer(headers=headers, parts=(b"x", seconds)))
        await settling.throttled.get()
        assert settling.left == remaining
        await anyio.sleep(max(60 - seconds, 0))
        assert settling.left >= 970

    async def test_of_a_bucket_that_is_not_its_own_nothing(self, library: Library) -> None:
        headers = {"x-ratelimit-resource": "core"}
        others = {"x-ratelimit-resource": "search", "x-ratelimit-remaining": "0"}
        limiter = RateLimiter("100/min", concurrency=1)
        throttled = Throttled(
            library,
            limiter,
            Answer(headers=headers),
            Answer(headers=others),
            cost=5,
            settle=lambda _: 3,
            profile="github",
        )
        await throttled.get()
        await throttled.get()
        assert left(limiter) == 94
        assert held(limiter) == 0


# On Trio, httpx leaves generators behind.
@pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")
@pytest.mark.parametrize(
    "last",
    [
        b"data: [DONE]\n\n",
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        b"event: response.completed\ndata: {}\n\n",
    ],
)
async def test_an_event_stream_is_whole_when_it_says_so(library: Library, last: bytes) -> None:
    """As SDKs read them: they close the answer behind the last event, or soon after it."""
    parts = (b'data: {"used": 30}\n\n', last[:9], last[9:], 60, b"")
    settling = Settling(library, Answer(parts=parts))
    answer = await settling.throttled.open()
    async with aclosing(answer.aiter_raw()) as read:
        assert b"".join([await anext(read) for _ in range(3)]).endswith(last)

    await answer.aclose()
    assert settling.left == 970
    assert settling.seen[0].content.endswith(last)
    settling.throttled.assert_nothing_held()


# On Trio, httpx leaves generators behind.
@pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")
async def test_an_event_stream_that_is_broken_off_is_not_whole(library: Library) -> None:
    parts = (b'data: {"said": "data: [DONE]"}\n\n', b"data: {}\n\n", b"")
    settling = Settling(library, Answer(parts=parts))
    answer = await settling.throttled.open()
    async with aclosing(answer.aiter_raw()) as read:
        await anext(read)

    await answer.aclose()
    assert (settling.left, settling.seen) == (900, [])
    settling.throttled.assert_nothing_held()


async def test_what_was_refused_has_cost_nothing_but_a_call(library: Library) -> None:
    limiter = tokens("1000/h")
    refusal = Answer(429, {"retry-after": "5"})
    throttled = Throttled(
        library, limiter, refusal, refusal, Answer(), cost=ESTIMATE, settle=lambda _: USED
    )
    await throttled.get()
    used, calls = (state.policy.limit - state.remaining for state in limiter.quotas())
    assert (used, calls) == (30, 3)


async def test_what_may_have_been_done_has_cost_what_was_estimated(library: Library) -> None:
    limiter = tokens()
    answer = Answer(503, {"retry-after": "5"})
    throttled = Throttled(library, limiter, answer, cost=ESTIMATE, settle=lambda _: None)
    await throttled.post()
    assert left(limiter) == 900


@pytest.mark.parametrize("sends", [1, 2])
async def test_what_a_refusal_gives_back_is_not_on_top_of_what_it_tells(
    library: Library, sends: int
) -> None:
    """Neither for those in line: they are granted nothing before the pause, and the figures."""
    limiter = tokens()
    told = {"ratelimit": '"t";r=0;t=50', "ratelimit-policy": '"t";q=1000;w=3600;qu="tokens"'}
    throttled = Throttled(
        library,
        limiter,
        Answer(429, {"retry-after": "5", **told}),
        Answer(),
        cost={"tokens": 1000},
        settle=lambda answer: None if answer.status_code == 429 else USED,
        max_throttles=sends,
    )
    async with anyio.create_task_group() as task_group:
        for _ in range(3):
            task_group.start_soon(throttled.get)

        await wait_idle()
        assert (left(limiter), len(throttled.server.sent)) == (0, 1)
        await anyio.sleep(49)
        assert len(throttled.server.sent) == 1

    assert throttled.server.instants[1] == 50
