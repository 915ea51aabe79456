"""What a throttled transport costs a request that needn't wait, beside the bare one."""

import gc
from statistics import median
from typing import Any

import httpx
import httpx2

from anythrottle import RateLimiter
from anythrottle.integrations import httpx as for_httpx
from anythrottle.integrations import httpx2 as for_httpx2

from .measuring import LOOPS, Stopwatch, print_table, run_on

CALLS, ROUNDS, RUNS = 200, 5, 3
AMPLE = f"{10**9}/h end"
#: The most on top of the bare transport, in microseconds of the processor.
AIM = "60"
URL = "http://a.example/"

LIBRARIES: dict[str, tuple[Any, Any]] = {
    "httpx2": (httpx2, for_httpx2),
    "httpx": (httpx, for_httpx),
}

PLAIN = [(b"content-type", b"application/json"), (b"content-length", b"13")]
TELLING = [
    *PLAIN,
    (b"ratelimit-policy", b'"a";q=1000000000;w=1'),
    (b"ratelimit", b'"a";r=900000000;t=1'),
]


def inner(library: Any, headers: list[tuple[bytes, bytes]], *, read: bool) -> Any:
    """Return a transport that answers at once."""

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> Any:
            yield b'{"answer":42}'

    class Inner(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, _: Any) -> Any:
            if read:
                return library.Response(200, headers=headers, content=b'{"answer":42}')

            return library.Response(200, headers=headers, stream=Body())

    return Inner()


def nothing(_: object) -> None:
    """Settle nothing."""


def clients(name: str) -> dict[str, Any]:
    """Return the bare client, and the throttled ones beside it."""
    library, ours = LIBRARIES[name]
    throttled = ours.ThrottledTransport
    body, telling, done = (
        inner(library, headers, read=read)
        for headers, read in ((PLAIN, False), (TELLING, False), (PLAIN, True))
    )
    transports = {
        "bare": body,
        "a text": throttled(body, AMPLE),
        "a limiter": throttled(body, RateLimiter(AMPLE, concurrency=10**9)),
        "settled": throttled(body, RateLimiter(AMPLE), settle=nothing),
        "bare, read before": done,
        "a text, read before": throttled(done, AMPLE),
        "bare, RateLimit": telling,
        "a text, RateLimit": throttled(telling, AMPLE),
    }
    return {
        label: library.AsyncClient(transport=transport, trust_env=False)
        for label, transport in transports.items()
    }


async def measure(name: str) -> dict[str, float]:
    """Return the seconds of a request by each client, the least of some rounds that take turns."""
    found: dict[str, list[float]] = {}
    ours = clients(name)
    for number in range(ROUNDS + 1):
        for label, client in ours.items():
            gc.collect()
            with Stopwatch() as watch:
                for _ in range(CALLS):
                    await client.get(URL)

            if number:
                found.setdefault(label, []).append(watch.cpu / CALLS)

    return {label: min(seconds) for label, seconds in found.items()}


def bare_of(label: str) -> str:
    """Return which bare client a throttled one is compared to."""
    _, comma, more = label.partition(", ")
    return f"bare{comma}{more}"


def main() -> None:
    rows: list[tuple[object, ...]] = []
    for name in LIBRARIES:
        for loop in LOOPS:
            runs = [run_on(loop, measure, name) for _ in range(RUNS)]
            for label in runs[0]:
                bare = bare_of(label)
                above = median(run[label] - run[bare] for run in runs) * 1e6
                ratio = median(run[label] / run[bare] for run in runs)
                micro = median(run[label] for run in runs) * 1e6
                aim = AIM if label == "a text" else ""
                rows.append((f"{name} on {loop}: {label}", micro, ratio, above, aim))

    head = ("a request on a mock", "us", "x bare", "us above bare", "aim")
    print_table("What a throttled transport costs", head, rows)


if __name__ == "__main__":
    main()
