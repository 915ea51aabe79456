"""
Guard an API with tiers, let a flood and an obedient client loose on it, and show what each gets.

Anonymous clients are limited by their address, users by their token, in tiers, and over all there
is a limit that nobody passes. The flood comes from one address as fast as it can, and lies of it;
the obedient client is a ``ThrottledTransport`` that is told nothing, and learns the limits from
the answers. It is never refused. What the limiters do is on ``/metrics``, for Prometheus. On
asyncio and on Trio; it needs ``anythrottle[httpx2,prometheus]`` and hypercorn::

    python docs/examples/guarded_api.py [--backend trio] [--serve]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import httpx2
from limited_server import serving
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from anythrottle import KeyedLimiter, RateLimiter
from anythrottle.integrations.asgi import EXEMPT, RateLimitMiddleware, client_address
from anythrottle.integrations.httpx2 import ThrottledTransport
from anythrottle.integrations.prometheus import PrometheusObserver

#: Who has which token, and the limit of each tier; "anonymous" is for each address.
TOKENS = {"token-of-ada": "gold", "token-of-bob": "free"}
TIERS = {"anonymous": "5/2s", "free": "10/2s", "gold": "40/2s"}
TOTAL = "200/2s"

address_of = client_address()


def key_of(scope: Any) -> Any:
    """Return whose request it is: a tier, and who in it; who cannot be told is anonymous."""
    if scope["path"] in {"/health", "/metrics"}:
        return EXEMPT

    token = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ").decode()
    # A token that is none must not be a key: each lie would be a limit of its own.
    tier = TOKENS.get(token)
    return ("anonymous", address_of(scope)) if tier is None else (tier, token)


def total_key(scope: Any) -> Any:
    """Return the key of all, so that what is exempt there is exempt here."""
    return EXEMPT if key_of(scope) is EXEMPT else "all"


async def api(registry: CollectorRegistry, scope: Any, receive: Any, send: Any) -> None:
    """Answer any request by its path, as a framework's application would do; tell the metrics."""
    if scope["type"] == "lifespan":
        for _ in ("startup", "shutdown"):
            await send({"type": f"{(await receive())['type']}.complete"})

        return

    assert scope["type"] == "http"
    content, body = "text/plain", scope["path"].encode()
    if scope["path"] == "/metrics":
        content, body = CONTENT_TYPE_LATEST, generate_latest(registry)

    headers = [(b"content-type", content.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def guarded() -> RateLimitMiddleware:
    """Return the API behind its limits, each of which is measured by the name of its tier."""
    registry = CollectorRegistry()
    metrics = PrometheusObserver(registry)

    def limiter(text: str, name: str) -> RateLimiter:
        return RateLimiter(text, name=name, observer=metrics)

    total, overflow = limiter(TOTAL, "total"), limiter("20/2s", "overflow")
    metrics.watch(total)
    # The total is inside: what a tier refuses has cost the others nothing.
    within_total = RateLimitMiddleware(partial(api, registry), total, key=total_key)
    tiers = KeyedLimiter(lambda key: limiter(TIERS[key[0]], key[0]))
    return RateLimitMiddleware(within_total, tiers, key=key_of, overflow=overflow)


async def flood(url: str, statuses: Counter[int]) -> None:
    """Ask as fast as it can, from one address, whoever it says to be."""
    async with httpx2.AsyncClient(base_url=url) as client:
        while True:
            lie = {
                "X-Forwarded-For": f"198.51.100.{statuses.total() % 250}",
                "Authorization": f"Bearer {statuses.total()}",
            }
            statuses[(await client.get("/page", headers=lie)).status_code] += 1


async def obey(url: str, pages: int, statuses: Counter[int]) -> None:
    """Get pages by ten tasks, with a token of the tier "gold", and keep to what is told."""
    transport = ThrottledTransport(
        Counting(httpx2.AsyncHTTPTransport(), statuses), RateLimiter(), learn=True
    )
    headers = {"Authorization": "Bearer token-of-ada"}
    todo = iter(range(pages))
    async with httpx2.AsyncClient(base_url=url, transport=transport, headers=headers) as client:

        async def work() -> None:
            for page in todo:
                (await client.get(f"/{page}")).raise_for_status()

        async with anyio.create_task_group() as task_group:
            for _ in range(10):
                task_group.start_soon(work)


class Counting(httpx2.AsyncBaseTransport):
    """Counts the answers of another transport."""

    def __init__(self, transport: httpx2.AsyncBaseTransport, statuses: Counter[int]) -> None:
        self._transport = transport
        self._statuses = statuses

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        response = await self._transport.handle_async_request(request)
        self._statuses[response.status_code] += 1
        return response

    async def aclose(self) -> None:
        """Close it."""
        await self._transport.aclose()


async def show(options: argparse.Namespace) -> int:
    """Let both loose on the API, and print what each got."""
    flooded, obeyed = Counter[int](), Counter[int]()
    async with serving(guarded(), options.backend) as url:
        if options.serve:
            print(f"serving on {url} until you press Ctrl+C", flush=True)
            await anyio.sleep_forever()

        began = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(flood, url, flooded)
            await obey(url, options.pages, obeyed)
            task_group.cancel_scope.cancel()

        lasted = anyio.current_time() - began
        async with httpx2.AsyncClient(base_url=url) as client:
            metrics = (await client.get("/metrics")).text

    print(f"the flood: {flooded[200]} served, {flooded[429]} refused in {lasted:.1f} s")
    print(f"the obedient client: {obeyed[200]} served, {obeyed[429]} refused")
    print(*(line for line in metrics.splitlines() if "_refused_total{" in line), sep="\n")
    problems = report(flooded, obeyed, options.pages, lasted)
    print("\n".join(problems) or "all is well")
    return len(problems)


def report(flooded: Counter[int], obeyed: Counter[int], pages: int, lasted: float) -> list[str]:
    """Return what is wrong."""
    problems: list[str] = []
    # As many windows as have begun.
    most = 5 * (int(lasted / 2) + 1)
    if flooded[200] > most:
        problems.append(f"the flood got more than {most}")

    if not flooded[429]:
        problems.append("the flood was not refused")

    if obeyed != {200: pages}:
        problems.append(f"who obeys got {dict(obeyed)}")

    return problems


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--pages", type=int, default=120, help="that the obedient client gets")
    parser.add_argument("--serve", action="store_true", help="only serve, for clients of yours")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the example."""
    options = parse()
    try:
        return anyio.run(partial(show, options), backend=options.backend)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
