"""Whatever servers answer and whoever is cancelled: nothing stays held, and no limit is passed."""

from __future__ import annotations

import gc
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import KeyedLimiter, LimitExceeded, RateLimiter
from tests.conftest import Run
from tests.integrations.tools import LIBRARIES, Answer, Library, Server, Throttled
from tests.limiters.tools import Grant, assert_exact, tasks
from tests.properties import examples

pytestmark = pytest.mark.timing

LIMIT, WINDOW = 4, 10.0

SECONDS = st.integers(0, 12).map(lambda quarters: quarters / 4)


class Request(NamedTuple):
    """What a task does."""

    starts: float
    host: str
    method: str
    replayable: bool
    #: When it is cancelled; never if ``None``.
    patience: float | None
    max_wait: float | None
    way: str


@dataclass(frozen=True)
class Scripted(Answer):
    """An answer, and by which part of the time until its headers the server counts the call."""

    counts: float = 0.0


VALUES = {
    "retry-after": ["0", "1", "2.5", "999"],
    "ratelimit": ['"a";r=1;t=3', '"a";r=0;t=2', '"a";r=0;t=30'],
    "ratelimit-policy": ['"a";q=3;w=5', '"a";q=9;w=2, "c";q=1;qu="concurrent-requests"'],
    "x-ratelimit-global": ["true"],
    "x-should-retry": ["false"],
}

HEADERS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
)

#: Limiters, and whether they learn. Exact is what the first one is to be.
LIMITERS: dict[str, tuple[Callable[[], Any], dict[str, bool]]] = {
    "exact": (lambda: RateLimiter(f"{LIMIT}/{WINDOW:g}s end", concurrency=2), {}),
    "for each": (lambda: f"{LIMIT}/{WINDOW:g}s", {}),
    "learns": (lambda: RateLimiter("9/s", concurrency=2), {"learn": True}),
    "learns for each": (lambda: KeyedLimiter(lambda _: RateLimiter()), {"learn": True}),
}

ANSWERS = st.builds(
    Scripted,
    status=st.sampled_from([200, 200, 302, 404, 429, 429, 503]),
    headers=HEADERS,
    after=SECONDS,
    parts=st.lists(st.one_of(st.just(b"part"), SECONDS, st.just(OSError("reset"))), max_size=4),
    error=st.sampled_from([None, None, None, None, "ConnectError", "ReadError", "PoolTimeout"]),
    read=st.booleans(),
    counts=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)

REQUESTS = st.builds(
    Request,
    SECONDS,
    st.sampled_from("ab"),
    st.sampled_from(["GET", "POST"]),
    st.booleans(),
    st.one_of(st.none(), SECONDS),
    st.sampled_from([None, None, 0, 1.0, 5.0]),
    st.sampled_from(["get", "close", "later", "drop"]),
)


class CountingServer(Server):
    """Counts each call at an instant of its own, and who is in flight."""

    def __init__(self, library: Library, answers: Sequence[Answer]) -> None:
        super().__init__(library, answers)
        self.counted: list[Grant] = []
        self.sends = Counter[tuple[str, str]]()
        self.in_flight = self.most_in_flight = 0

    async def handle_async_request(self, request: Any) -> Any:
        self.sends[request.headers["x-task"], request.url.path] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight + self.open)
        answer = self.answers[min(len(self.sent), len(self.answers) - 1)]
        assert isinstance(answer, Scripted)
        begins = anyio.current_time()
        try:
            return await super().handle_async_request(request)
        finally:
            self.in_flight -= 1
            if answer.error not in {"ConnectError", "PoolTimeout"}:
                # At that instant, or when it was cut off.
                instant = min(begins + answer.after * answer.counts, anyio.current_time())
                self.counted.append((instant, 1))


async def do(throttled: Throttled, name: int, asked: Request, kept: list[Any]) -> None:
    async def parts() -> Any:
        yield b"part"

    options: dict[str, Any] = {"headers": {"x-task": str(name)}}
    options["extensions"] = {"anythrottle": {"max_wait": asked.max_wait}}
    if not asked.replayable:
        options["content"] = parts()

    client, module = throttled.client, throttled.library.module
    await anyio.sleep(asked.starts)
    with (
        suppress(OSError, LimitExceeded, module.HTTPError),
        anyio.move_on_after(asked.patience),
    ):
        request = client.build_request(asked.method, f"http://{asked.host}/", **options)
        answer = await client.send(request, stream=True, follow_redirects=False)
        if asked.way == "drop":
            return

        kept.append(answer)
        if asked.way == "get":
            await answer.aread()
        elif asked.way == "close":
            await answer.aclose()


async def play(
    library: Library, limiter: str, requests: list[Request], answers: list[Scripted], most: int
) -> None:
    make, learns = LIMITERS[limiter]
    options: dict[str, Any] = learns | {
        "profile": "discord",
        "max_throttles": most,
        "max_pause": 20,
    }
    server = CountingServer(library, answers)
    throttled = Throttled(library, make(), server=server, **options)
    kept: list[Any] = []

    async def close_later() -> None:
        await anyio.sleep(5)
        while True:
            for answer in kept:
                await answer.aclose()

            gc.collect()
            await anyio.sleep(1)

    async with tasks() as closing:
        closing.start_soon(close_later)
        async with anyio.create_task_group() as task_group:
            for name, asked in enumerate(requests):
                task_group.start_soon(do, throttled, name, asked, kept)

        await anyio.sleep(10)
        closing.cancel_scope.cancel()

    # What was dropped is let go by us, but closed by nobody.
    dropped = any(asked.way == "drop" for asked in requests)
    throttled.assert_nothing_held(still_open=server.open if dropped else 0)
    assert max(server.sends.values(), default=0) <= most
    for name, asked in enumerate(requests):
        if not asked.replayable:
            assert server.sends[str(name), "/"] <= 1

    if limiter == "exact":
        assert dropped or server.most_in_flight <= 2
        assert_exact(server.counted, LIMIT, WINDOW)


@pytest.mark.promise("H1", "H3")
@given(
    library=st.sampled_from(list(LIBRARIES.values())),
    limiter=st.sampled_from(list(LIMITERS)),
    requests=st.lists(REQUESTS, min_size=1, max_size=8),
    answers=st.lists(ANSWERS, min_size=1, max_size=8),
    most=st.integers(1, 4),
)
@examples(15)
def test_nothing_stays_held(run: Run, **drawn: Any) -> None:
    logger = logging.getLogger("anythrottle")
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            run(play, **drawn)
            gc.collect()
    finally:
        logger.disabled = False
