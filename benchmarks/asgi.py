"""What a rate limit costs an ASGI application, beside the middlewares of others."""

import gc
from collections.abc import Callable
from statistics import median
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_limiter.depends import RateLimiter as FastapiLimiter
from pyrate_limiter import Duration, Rate
from pyrate_limiter import Limiter as PyrateLimiter
from ratelimit import RateLimitMiddleware as AsgiRatelimit
from ratelimit import Rule
from ratelimit.backends.simple import MemoryBackend
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anythrottle import KeyedLimiter, RateLimiter
from anythrottle.integrations.asgi import RateLimitMiddleware, client_address

from .measuring import LOOPS, Stopwatch, print_table, run_on

CALLS, ROUNDS, RUNS, CLIENTS = 2000, 5, 3, 100
AMPLE = f"{10**9}/h"
#: The most for a request with fields, in microseconds of the processor; and in slowapi's.
AIM, SHARE = "15", "0.2"
#: What stands last before the address of a client whose proxy is trusted.
PROXY = "10.0.0.1"

App = Callable[[Any, Any, Any], Any]


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"yes"})


async def page(_: object) -> Response:
    return Response(b"yes")


def slowapi(strategy: str) -> tuple[App, dict[str, Any]]:
    """Return slowapi's middleware, and what it wants to find in a scope."""
    limiter = Limiter(
        get_remote_address,
        default_limits=[f"{10**9}/hour"],
        headers_enabled=True,
        strategy=strategy,
    )
    starlette = Starlette(routes=[Route("/", page)])
    starlette.state.limiter = limiter
    return SlowAPIASGIMiddleware(app), {"app": starlette}


def asgi_ratelimit() -> App:
    async def whose(scope: Any) -> tuple[str, str]:
        return scope["client"][0], "default"

    rules: Any = {"/": [Rule(hour=10**9)]}
    backend: Any = MemoryBackend
    return AsgiRatelimit(app, whose, backend(), rules)


def fastapi_limiter() -> tuple[App, dict[str, Any]]:
    """
    Return an application that asks fastapi-limiter first, and what that wants to find in a scope.

    It is no middleware but a dependency of FastAPI's routes, which costs more than to call it.
    """
    limit = FastapiLimiter(PyrateLimiter(Rate(10**9, Duration.HOUR)))

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        await limit(Request(scope, receive), Response())
        await app(scope, receive, send)

    return guarded, {"app": FastAPI(routes=[APIRoute("/", page)])}


def ours(*texts: str, **options: Any) -> App:
    return RateLimitMiddleware(app, KeyedLimiter(lambda _: RateLimiter(*texts)), **options)


def contenders(loop: str) -> dict[str, tuple[App, dict[str, Any]]]:
    """Return the bare application, and the guarded ones beside it."""
    behind_proxy = client_address(["10.0.0.0/8"])
    found: dict[str, tuple[App, dict[str, Any]]] = {
        "bare": (app, {}),
        "ours": (ours(AMPLE), {}),
        "ours, no headers": (ours(AMPLE, headers=False), {}),
        "ours, may wait": (ours(AMPLE, max_wait=5), {}),
        "ours, two policies": (ours(AMPLE, f"{10**9}/day"), {}),
        "ours, one for all": (RateLimitMiddleware(app, RateLimiter(AMPLE)), {}),
        "ours, behind a proxy": (ours(AMPLE, key=behind_proxy), {"proxy": PROXY}),
        "slowapi, fixed window": slowapi("fixed-window"),
        "slowapi, exact": slowapi("moving-window"),
    }
    if loop != "trio":
        found["asgi-ratelimit, no headers"] = (asgi_ratelimit(), {})
        found["fastapi-limiter, one for all, no headers"] = fastapi_limiter()

    return found


def scope_of(number: int, proxy: str | None = None, **more: Any) -> dict[str, Any]:
    client = f"192.0.2.{number % CLIENTS}"
    headers = [(b"host", b"a.example"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")]
    if proxy is not None:
        headers.append((b"x-forwarded-for", client.encode("ascii")))

    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "client": (client if proxy is None else proxy, 4711),
        "headers": headers,
        **more,
    }


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_: object) -> None:
    """Send nowhere."""


async def measure(loop: str) -> dict[str, float]:
    """Return the seconds of a request to each, the least of some rounds that take turns."""
    found: dict[str, list[float]] = {}
    guarded = contenders(loop)
    for number in range(ROUNDS + 1):
        for label, (each, more) in guarded.items():
            scopes = [scope_of(number, **more) for number in range(CALLS)]
            gc.collect()
            with Stopwatch() as watch:
                for scope in scopes:
                    await each(scope, receive, send)

            if number:
                found.setdefault(label, []).append(watch.cpu / CALLS)

    return {label: min(seconds) for label, seconds in found.items()}


def main() -> None:
    rows: list[tuple[object, ...]] = []
    for loop in LOOPS:
        runs = [run_on(loop, measure, loop) for _ in range(RUNS)]
        for label in runs[0]:
            above = median(run[label] - run["bare"] for run in runs) * 1e6
            slow = "slowapi, fixed window"
            share = median((run[label] - run["bare"]) / (run[slow] - run["bare"]) for run in runs)
            aims = (AIM, SHARE) if label == "ours" else ("", "")
            rows.append((f"{loop}: {label}", above, aims[0], share, aims[1]))

    head = ("a request", "us above bare", "aim", "x slowapi", "aim")
    print_table("What a rate limit costs an ASGI application", head, rows)


if __name__ == "__main__":
    main()
