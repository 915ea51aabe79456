"""
Crawl a small site within the limit that it enforces; the site's own log is the proof.

The site allows so many requests in any window of its own clock, and answers 429 beyond that. The
crawler follows all links, through a client that knows the limit, and shows live how far it is.
Neither the crawler's code nor the client's knows of 429: there should be none.

Status 1 means that a check has failed. Ctrl-C ends it and says what was seen so far (status 130).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio
import httpx2
from limited_server import LimitedServer

from anythrottle import KeyedLimiter, RateLimiter, amap_outcomes
from anythrottle.integrations.httpx2 import ThrottledTransport
from anythrottle.integrations.rich import JobProgress

LINK = re.compile(rb'href="([^"]+)"')


@dataclass
class Site(LimitedServer):
    """A site of so many pages, of which each links to two others, and the last to the first."""

    pages: int = 60

    def page(self, path: str) -> bytes:
        """Return a page."""
        number = int(path.removeprefix("/") or 0)
        others = (2 * number + 1, 2 * number + 2, (number + 1) % self.pages)
        links = [f'<a href="/{other}">{other}</a>' for other in others if other < self.pages]
        return f"<p>page {number}</p>{''.join(links)}".encode()


@dataclass
class Found:
    """What the crawler has seen."""

    pages: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


async def crawl(client: httpx2.AsyncClient, start: str, found: Found, concurrency: int) -> None:
    """Read all pages that can be reached from one."""
    add, pages = anyio.create_memory_object_stream[str](math.inf)
    known: set[str] = set()

    def add_new(paths: Iterable[str]) -> None:
        for path in paths:
            if path not in known:
                known.add(path)
                add.send_nowait(path)

    async def read(path: str) -> bytes:
        return (await client.get(path)).raise_for_status().content

    add_new([start])
    with JobProgress(description="Pages") as progress, add, pages:
        calls = amap_outcomes(read, pages, concurrency=concurrency, observer=progress)
        async with calls as outcomes:
            async for outcome in outcomes:
                if outcome.error is None:
                    found.pages[outcome.item] = len(outcome.value)
                    add_new(link.decode() for link in LINK.findall(outcome.value))
                else:
                    found.failures[outcome.item] = repr(outcome.error)

                if len(found.pages) + len(found.failures) == len(known):
                    # Nothing is left, and what runs has ended: no more links can come.
                    add.close()


async def run(options: argparse.Namespace, site: Site, found: Found) -> None:
    """Serve the site, and crawl it."""
    limit = f"{options.limit}/{options.window:g}s end"
    per_host = KeyedLimiter(lambda _: RateLimiter(limit, concurrency=options.concurrency))
    async with (
        site.serving(options.backend) as url,
        httpx2.AsyncClient(
            base_url=url, transport=ThrottledTransport(httpx2.AsyncHTTPTransport(), per_host)
        ) as client,
    ):
        began = anyio.current_time()
        try:
            await crawl(client, "/0", found, options.concurrency)
        finally:
            found.seconds = anyio.current_time() - began


def most_in_a_window(instants: list[float], window: float) -> int:
    """Return how many of the instants are within one window, wherever it begins."""
    return max(
        (sum(start <= instant < start + window for instant in instants) for start in instants),
        default=0,
    )


def report(options: argparse.Namespace, site: Site, found: Found) -> list[str]:
    """Print what happened, by the site's own log; return what is wrong."""
    most = most_in_a_window(site.allowed, options.window)
    print(f"pages: {len(found.pages)} of {site.pages}, {sum(found.pages.values())} bytes")
    print(f"most requests in any {options.window:g} s: {most} of {options.limit}")
    print(f"most in flight: {site.most_in_flight} of {options.concurrency}")
    print(f"429s: {site.refused}")
    print(f"seconds: {found.seconds:.2f}")
    for path, error in found.failures.items():
        print(f"failed: {path}: {error}")

    checks = {
        "not all pages were seen, or some failed": len(found.pages) != site.pages,
        "requests were refused": site.refused > 0,
        "a page was asked for twice": len(site.allowed) != site.pages,
        "a window held too many requests": most > options.limit,
        "too many requests were in flight": site.most_in_flight > options.concurrency,
    }
    return [what for what, wrong in checks.items() if wrong]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=60, help="of the site (%(default)s)")
    parser.add_argument("--limit", type=int, default=20, help="requests (%(default)s)")
    parser.add_argument("--window", type=float, default=2.0, help="seconds (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=5, help="at once (%(default)s)")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    return parser.parse_args(arguments)


def main() -> int:
    """Run, report, check; return the exit status."""
    options = parse()
    site = Site(options.limit, options.window, pages=options.pages)
    found = Found()
    interrupted = False
    try:
        anyio.run(run, options, site, found, backend=options.backend)
    except* KeyboardInterrupt:  # Trio's comes in a group
        interrupted = True

    problems = report(options, site, found)
    if interrupted:
        return 130

    print("\n".join(f"WRONG: {problem}" for problem in problems) or "all is well")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
