"""
A todo list of HTTP calls against a server that enforces its limit; the program checks itself.

The server allows so many requests in any window of its own clock, and answers 429 with
``Retry-After`` beyond that. The todo list: 30 jobs, one that throttles itself a few times, 30 more.
What was throttled goes back to the front, the consumer is slow, and nothing gets lost.

Status 1 means that a check has failed. Ctrl-C ends it and lists what remained (status 130).
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice, takewhile

import anyio
import httpx2
from limited_server import SECONDS_PER_REQUEST, LimitedServer

from anythrottle import ThrottleException, Throttler

JOBS = 61
BAD_JOB = 30
BOUNCES = 3
SECONDS_PER_RESULT = 0.02

# Requests that leave at the right intervals arrive at others. Our window is longer than the
# server's by as much as the way there may vary; a 429 that comes all the same is obeyed.
# (limiter="20/10s end" needs no such guess; the ancestor's parameters do.)
JITTER = 0.05


@dataclass
class Record:
    """What happened, for the report and the checks."""

    server: LimitedServer
    events: list[tuple[str, int]] = field(default_factory=list)  # ("start" or "throttle", job)
    results: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    remaining: list[int] = field(default_factory=lambda: list(range(JOBS)))
    seconds: float = 0.0

    async def consume(self, result: int) -> None:
        """Take a result, slowly."""
        await anyio.sleep(SECONDS_PER_RESULT)
        self.results.append(result)


@dataclass
class Job:
    """One HTTP call, to be made after so many bounces."""

    number: int
    client: httpx2.AsyncClient
    record: Record
    bounces: float = 0

    async def __call__(self) -> int:
        """Make the call, and return what it answers."""
        self.record.events.append(("start", self.number))
        if self.bounces:
            self.bounces -= 1
            raise self.throttled()

        response = await self.client.get(f"/{self.number}")
        if response.status_code == 429:
            raise self.throttled(retry_after=float(response.headers["retry-after"]))

        return int(response.raise_for_status().text)

    def throttled(self, retry_after: float | None = None) -> ThrottleException:
        """Note that the job goes back to the front."""
        self.record.events.append(("throttle", self.number))
        return ThrottleException(retry_after=retry_after)


async def run(options: argparse.Namespace, record: Record) -> None:
    """Run the jobs against the server."""
    connections = httpx2.Limits(max_connections=options.concurrency)
    async with (
        record.server.serving(options.backend) as url,
        # without trust_env, no proxy stands on the way to this machine
        httpx2.AsyncClient(base_url=url, limits=connections, trust_env=False) as client,
    ):
        jobs = [Job(number, client, record) for number in range(JOBS)]
        jobs[BAD_JOB].bounces = math.inf if options.forever else BOUNCES
        throttler = Throttler(
            jobs,
            record.consume,
            time_window=options.window + JITTER,
            per_time_window=options.per_window,
            concurrency=options.concurrency,
            log_handler=logging.StreamHandler(sys.stdout),
            log_level="INFO",  # tells of throttled jobs as it happens
        )
        began = anyio.current_time()
        try:
            await throttler.run()
        finally:
            record.seconds = anyio.current_time() - began
            record.remaining = [job.number for job in throttler.remaining() if isinstance(job, Job)]

        record.failures = [repr(failure.error) async for failure in throttler.exceptions]


def ideal_seconds(options: argparse.Namespace) -> float:
    """
    Return what a perfect client needs, without latency or computing, by the server's own window.

    Each start waits for the window, for a place among the concurrent ones, and after a bounce for
    the pause, which is one window long. The consumer takes one result after the other.
    """
    starts: list[float] = []
    start = paused_until = consumed = 0.0
    for number in range(JOBS):
        for bounces_left in range(BOUNCES if number == BAD_JOB else 0, -1, -1):
            start = max(start, paused_until)
            if len(starts) >= options.per_window:
                start = max(start, starts[-options.per_window] + options.window)
            if len(starts) >= options.concurrency:
                start = max(start, starts[-options.concurrency] + SECONDS_PER_REQUEST)
            if bounces_left:
                paused_until = start + options.window

        starts.append(start)
        consumed = max(consumed, start + SECONDS_PER_REQUEST) + SECONDS_PER_RESULT

    return consumed


def problems(record: Record, options: argparse.Namespace) -> list[str]:
    """Return what went wrong."""
    times = Counter(record.results)
    checks = {
        "results are missing": sorted(set(range(JOBS)) - set(times)),
        "results came more than once": sorted(number for number in times if times[number] > 1),
        "too many requests were in flight": record.server.most_in_flight > options.concurrency,
        "it took over 1.3 times the ideal": record.seconds > 1.3 * ideal_seconds(options),
        "jobs started before one that was throttled": out_of_turn(record.events),
    }
    return [f"{what}: {found}" for what, found in checks.items() if found]


def out_of_turn(events: list[tuple[str, int]]) -> list[int]:
    """Return the jobs that started while an earlier one was to start again."""
    found = []
    to_go_first: set[int] = set()
    for event, number in events:
        if event == "throttle":
            to_go_first.add(number)
        elif number > min(to_go_first, default=number):
            found.append(number)
        else:
            to_go_first.discard(number)

    return found


def report(record: Record, options: argparse.Namespace) -> None:
    """Print what happened."""
    server = record.server
    windows = Counter((at - server.allowed[0]) // options.window for at in server.allowed)
    counts = [windows[index] for index in range(int(max(windows, default=-1)) + 1)]
    print(f"starts in each {options.window:g} s, as the server counted them: {counts}")
    print(f"429s: {server.refused}")
    print(f"most requests in flight: {server.most_in_flight} of {options.concurrency}")
    for index, (event, number) in enumerate(record.events, 1):
        if event == "throttle":
            after = takewhile(lambda later: later[0] == "start", islice(record.events, index, None))
            print(f"job {number} throttled; first starts after it: {[n for _, n in after][:5]}")

    print(f"results consumed: {len(record.results)} of {JOBS}")
    print(f"failures: {record.failures or 0}")
    print(f"seconds: {record.seconds:.2f}; ideal: {ideal_seconds(options):.2f}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--per-window", type=int, default=20, help="requests (%(default)s)")
    parser.add_argument("--window", type=float, default=2.0, help="seconds (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=5, help="at once (%(default)s)")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--forever", action="store_true", help="the bad job never stops bouncing")
    return parser.parse_args(arguments)


def main() -> int:
    """Run, report, check; return the exit status."""
    options = parse()
    record = Record(LimitedServer(options.per_window, options.window))
    interrupted = False
    try:
        anyio.run(run, options, record, backend=options.backend)
    except* KeyboardInterrupt:  # Trio's comes in a group
        interrupted = True

    report(record, options)
    if interrupted:
        print(f"interrupted; {len(record.remaining)} jobs remain: {record.remaining}")
        return 130

    found = problems(record, options)
    print("\n".join(f"WRONG: {problem}" for problem in found) or "all is well")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
