"""What a throttled client does with the figures that answers tell."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import RateLimiter, TokenBucket
from tests.conftest import Run
from tests.engine.mine import Mine
from tests.integrations.tools import LIBRARIES, Answer, Library, Throttled
from tests.properties import examples

pytestmark = [pytest.mark.timing, pytest.mark.promise("H7")]


def plain(remaining: int, reset: float | None = None, **more: str) -> Answer:
    headers = {"x-ratelimit-remaining": str(remaining)}
    if reset is not None:
        headers["x-ratelimit-reset"] = str(reset)

    return Answer(headers=headers | {name.replace("_", "-"): text for name, text in more.items()})


async def test_they_tighten_within_a_window(library: Library) -> None:
    throttled = Throttled(library, RateLimiter("10/min"), plain(3, 20))
    await throttled.get()
    assert throttled.limiter.peek().remaining == 3
    await anyio.sleep(20)
    assert throttled.limiter.peek().remaining == 9


async def test_untold_for_how_long_it_is_as_if_charged_just_now(library: Library) -> None:
    """What was charged before comes back as ever."""
    throttled = Throttled(library, RateLimiter("10/min"), Answer(), plain(3))
    await throttled.get(extensions={"anythrottle": {"cost": 5}})
    await anyio.sleep(30)
    await throttled.get()
    assert throttled.limiter.peek().remaining == 3
    await anyio.sleep(30)
    assert throttled.limiter.peek().remaining == 8


async def test_they_only_tighten(library: Library) -> None:
    throttled = Throttled(library, RateLimiter("10/min"), plain(500, 20))
    await throttled.get()
    assert throttled.limiter.peek().remaining == 9


@pytest.mark.parametrize(
    ("limiter", "paused"),
    [
        (RateLimiter("10/s"), 1800),
        (RateLimiter("10/s", "500/h"), 0),
        (RateLimiter(), 1800),
        (RateLimiter("10 tokens/s"), 0),
        (RateLimiter(TokenBucket(10, 60)), 1800),
    ],
    ids=["10/s", "10/s and 500/h", "nothing", "tokens", "token bucket"],
)
async def test_none_left_for_longer_than_any_window_is_a_pause(
    library: Library, limiter: RateLimiter, paused: float
) -> None:
    cost = {"tokens": 1} if "tokens" in repr(limiter) else 1
    throttled = Throttled(library, limiter, plain(0, 1800), cost=cost)
    await throttled.get()
    assert limiter.statistics().paused_for == paused
    if "h" in repr(limiter):
        assert not limiter.peek().allowed

    limiter.resume()


async def test_for_no_longer_than_max_pause(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(), plain(0, 1800), max_pause=60)
    await throttled.get()
    assert throttled.limiter.statistics().paused_for == 60


async def test_none_left_and_nothing_more_told_is_no_pause(library: Library) -> None:
    throttled = Throttled(library, RateLimiter(), plain(0), plain(0, 0))
    await throttled.get()
    await throttled.get()
    assert throttled.server.instants == [0, 0]


async def test_a_limiter_that_counts_nothing_known_is_paused(library: Library) -> None:
    inner = RateLimiter("10/s")
    throttled = Throttled(library, Mine(inner), plain(0, 1800))
    await throttled.get()
    assert inner.statistics().paused_for == 1800


async def test_by_the_servers_clock(library: Library) -> None:
    date = "Sat, 29 Nov 2025 14:35:40 GMT"
    throttled = Throttled(library, RateLimiter(), plain(0, 1764427000, date=date))
    await throttled.get()
    assert throttled.limiter.statistics().paused_for == 60


async def test_of_other_buckets_than_the_first_nothing(library: Library) -> None:
    throttled = Throttled(
        library,
        RateLimiter("5000/h"),
        Answer(),
        plain(4000, 60, x_ratelimit_resource="core"),
        plain(2, 60, x_ratelimit_resource="search"),
        plain(3000, 60),
        profile="github",
    )
    for remaining in (4999, 4000, 3999, 3000):
        await throttled.get()
        assert throttled.limiter.peek().remaining == remaining


@pytest.mark.promise("H8")
class TestMalformed:
    async def test_it_is_logged_once_for_each_host(
        self, library: Library, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = Answer(headers={"x-ratelimit-remaining": "secret\n", "retry-after": "too"})
        throttled = Throttled(library, "9/s", answer, key=lambda _: "a key of theirs")
        for host in ("a", "b", "a"):
            await throttled.get(f"http://{host}/")

        expected = "malformed fields of '{}' are ignored: x-ratelimit-remaining"
        assert caplog.messages == [expected.format("a"), expected.format("b")]

    async def test_of_no_more_than_so_many(
        self, library: Library, caplog: pytest.LogCaptureFixture
    ) -> None:
        throttled = Throttled(
            library, RateLimiter(), Answer(headers={"x-ratelimit-remaining": "?"})
        )
        hosts = throttled.hosts
        for number in range(2000):
            hosts.log_malformed(number, ("a",))

        await throttled.get()
        assert len(caplog.messages) == len(hosts._logged) == 1024

    async def test_bytes_that_are_no_text(self, library: Library) -> None:
        answer = Answer(headers={"x-name": "ä", "ratelimit": "€", "date": "ß"})
        throttled = Throttled(library, "9/s", answer)
        got = await throttled.get()
        assert got.headers.raw == answer.raw
        throttled.assert_nothing_held()


NAMES = [
    *("retry-after", "date", "ratelimit", "ratelimit-policy", "x-ratelimit-limit"),
    *("x-ratelimit-remaining", "x-ratelimit-reset", "x-should-retry", "x-ratelimit-reset-after"),
]

VALUES = st.one_of(
    st.text(max_size=20),
    st.integers(-(10**17), 10**17).map(str),
    st.floats().map(str),
    st.sampled_from(
        [
            '"a";r=1;t=9',
            '"a";q=5;w=1, "b";q=1;w=1e3',
            '"a";q=999999999999999;w=0.001',
            '"a";q=3;qu="concurrent-requests"',
            "100;w=60",
            "limit=1, remaining=0, reset=5",
            "Sat, 29 Nov 2025 14:35:40 GMT",
        ]
    ),
)


@pytest.mark.promise("H8")
@pytest.mark.promise("H8")
@given(
    status=st.sampled_from([200, 403, 429, 503]),
    headers=st.dictionaries(st.sampled_from(NAMES), VALUES),
    profile=st.sampled_from(["plain", "github", "openai", "discord"]),
    learn=st.booleans(),
)
@examples(200)
def test_no_header_raises(run: Run, **drawn: Any) -> None:
    logging.getLogger("anythrottle").disabled = True
    try:
        run(use, **drawn)
    finally:
        logging.getLogger("anythrottle").disabled = False


async def use(*, status: int, headers: dict[str, str], profile: str, learn: bool) -> None:
    throttled = Throttled(
        LIBRARIES["httpx2"],
        RateLimiter("5/s", concurrency=2),
        Answer(status, headers),
        Answer(),
        profile=profile,
        learn=learn,
        max_wait=30,
    )
    answer = await throttled.get()
    assert answer.status_code in {200, status}
    throttled.assert_nothing_held()
