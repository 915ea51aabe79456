"""The whole engine on the virtual clock, judged by plain references that know nothing of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import ThrottleException, Throttler
from anythrottle._jobs import JobOf
from tests.engine.diary import (
    Diary,
    Job,
    doubled,
    failures,
    finish,
    most_in_any_window,
)
from tests.properties import examples

pytestmark = pytest.mark.timing

#: Quarters of a second add up without rounding.
quarters = st.integers(0, 24).map(lambda number: number / 4)


@pytest.mark.promise("T1", "T2")
@examples(150)
@given(
    seconds=st.lists(quarters, max_size=25),
    window=st.integers(1, 20).map(lambda number: number / 4),
    limit=st.integers(1, 6),
    concurrency=st.integers(1, 6),
)
async def test_starts_are_as_early_as_the_rules_allow(
    seconds: list[float], window: float, limit: int, concurrency: int
) -> None:
    diary = Diary()
    jobs = [diary.job(n, seconds=each) for n, each in enumerate(seconds)]
    throttler = Throttler(jobs, time_window=window, per_time_window=limit, concurrency=concurrency)
    await finish(throttler)

    expected: list[float] = []
    ends: list[float] = []
    for number, each in enumerate(seconds):
        start = expected[-1] if expected else 0.0
        if number >= limit:
            start = max(start, expected[number - limit] + window)

        if number >= concurrency:
            start = max(start, heappop(ends))

        expected.append(start)
        heappush(ends, start + each)

    assert diary.when("start") == expected
    assert diary.starts == list(range(len(seconds)))


@dataclass(frozen=True)
class Plan:
    """What a job does: how long it takes, how often it is throttled before, how it ends."""

    seconds: float | None
    throttles: list[tuple[float | None, bool]]
    ending: str


@dataclass
class World:
    """All that happens, as (what, who, when); and who has to be where."""

    throttler: Throttler[JobOf[object], object] = field(init=False)
    log: list[tuple[str, str, float]] = field(default_factory=list)
    consumed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Every job, replacements included, by identity.
    names: dict[Job, str] = field(default_factory=dict)
    existing: list[str] = field(default_factory=list)
    consuming: int = 0

    def note(self, what: str, who: str) -> None:
        self.log.append((what, who, anyio.current_time()))

    def job(self, name: str, plan: Plan) -> Job:
        throttles = list(plan.throttles)
        added = False

        async def job() -> object:
            nonlocal added
            self.note("start", name)
            if plan.ending == "adds" and not added:
                added = True
                self.note("add", name + "+")
                child = self.job(name + "+", Plan(plan.seconds, [], "value"))
                self.existing.append(name + "+")
                self.throttler.add(child)

            try:
                if plan.seconds is not None:
                    await anyio.sleep(plan.seconds)
            except anyio.get_cancelled_exc_class():
                self.note("cut off", name)
                raise

            if throttles:
                retry_after, replaced = throttles.pop(0)
                rest = Plan(plan.seconds, list(throttles), plan.ending)
                # A replacement would add its child again.
                instead = self.job(name, rest) if replaced and plan.ending != "adds" else None
                self.note(f"throttle {retry_after}", name)
                raise ThrottleException(instead, retry_after=retry_after)

            self.note("end", name)
            if plan.ending == "error":
                raise ValueError(name)

            return Result(name, falsy=plan.ending == "falsy")

        self.names[job] = name
        return job

    async def consume(self, seconds: float | None, result: object) -> None:
        assert not self.consuming
        self.consuming += 1
        try:
            if seconds is not None:
                await anyio.sleep(seconds)
        finally:
            self.consuming -= 1

        assert isinstance(result, Result)
        self.consumed.append(result.name)

    def take_stock(self, unread: list[Job]) -> list[str]:
        for item, error in failures(self.throttler):
            assert isinstance(error, ValueError)
            name = self.names[item]  # type: ignore[index]
            assert str(error) == name
            self.failed.append(name)

        left = [self.names[job] for job in self.throttler.remaining()]  # type: ignore[index]
        return [*self.consumed, *self.failed, *left, *(self.names[job] for job in unread)]


class Result:
    def __init__(self, name: str, *, falsy: bool) -> None:
        self.name = name
        self.falsy = falsy

    def __bool__(self) -> bool:
        return not self.falsy


class Unread:
    """An async iterable that knows what it still has, and may be slow."""

    def __init__(self, jobs: list[Job], seconds: float | None) -> None:
        self.jobs = list(jobs)
        self.seconds = seconds

    def __aiter__(self) -> Unread:
        return self

    async def __anext__(self) -> Job:
        if self.seconds is not None:
            await anyio.sleep(self.seconds)

        if not self.jobs:
            raise StopAsyncIteration

        return self.jobs.pop(0)


def check_order(log: list[tuple[str, str, float]]) -> None:
    """Each start is of the lowest at the front, else of the next that has never started."""
    front: dict[str, int] = {}
    positions: dict[str, int] = {}
    cut_off: list[str] = []
    next_fresh = 0
    for what, who, _ in log:
        if what == "add":
            front[who] = positions[who] = len(positions)
        elif what == "start" and front:
            assert who == min(front, key=front.__getitem__)
            del front[who]
        elif what == "start":
            assert who == str(next_fresh)
            next_fresh += 1
            positions[who] = len(positions)
        elif what.startswith("throttle"):
            front[who] = positions[who]
        elif what == "cut off":
            cut_off.append(who)
        elif what == "run over":
            front.update((name, positions[name]) for name in cut_off)
            cut_off.clear()


def check_pauses(log: list[tuple[str, str, float]], window: float) -> None:
    until = -1.0
    for what, _, when in log:
        if what == "start":
            assert when >= until
        elif what.startswith("throttle"):
            retry_after = what.split()[1]
            until = max(until, when + (window if retry_after == "None" else float(retry_after)))


def most_at_once(log: list[tuple[str, str, float]]) -> int:
    running = most = 0
    for what, _, _ in log:
        if what == "start":
            running += 1
            most = max(most, running)
        elif what in ("end", "cut off") or what.startswith("throttle"):
            running -= 1

    assert running == 0
    return most


plans = st.builds(
    Plan,
    seconds=st.none() | quarters,
    throttles=st.lists(
        st.tuples(st.none() | st.integers(0, 28).map(lambda n: n / 4), st.booleans()), max_size=2
    ),
    ending=st.sampled_from(["value", "value", "falsy", "error", "adds"]),
)


@pytest.mark.promise("T1", "T2", "T4", "T5", "T7", "T8")
@examples(150)
@given(
    todo=st.lists(plans, max_size=10),
    window=st.integers(1, 20).map(lambda number: number / 4),
    limit=st.integers(1, 5),
    concurrency=st.integers(1, 4),
    pull_seconds=st.none() | quarters,
    consume_seconds=st.none() | quarters,
    interruptions=st.lists(st.tuples(st.sampled_from(["cancel", "stop"]), quarters), max_size=4),
)
async def test_whatever_happens(  # noqa: PLR0917
    todo: list[Plan],
    window: float,
    limit: int,
    concurrency: int,
    pull_seconds: float | None,
    consume_seconds: float | None,
    interruptions: list[tuple[str, float]],
) -> None:
    world = World()
    jobs = [world.job(str(number), plan) for number, plan in enumerate(todo)]
    world.existing += [str(number) for number in range(len(todo))]
    source = Unread(jobs, pull_seconds)
    world.throttler = throttler = Throttler(
        source,
        lambda result: world.consume(consume_seconds, result),
        time_window=window,
        per_time_window=limit,
        concurrency=concurrency,
    )

    def check_stock() -> None:
        stock = world.take_stock(source.jobs)
        assert doubled(stock) == []
        assert sorted(stock) == sorted(world.existing)
        assert throttler.statistics().running == 0

    for how, after in interruptions:
        if how == "stop":
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(finish, throttler)
                await anyio.sleep(after)
                throttler.stop()
        else:
            with anyio.move_on_after(after):
                await throttler.run()

        world.note("run over", "")
        check_stock()

    await finish(throttler, within=10_000)
    check_stock()
    # What was added when the last result was under way is for the next run, at the latest.
    assert throttler.remaining() == []
    assert source.jobs == []

    starts = [when for what, _, when in world.log if what == "start"]
    assert most_in_any_window(starts, window) <= limit
    assert most_at_once(world.log) <= concurrency
    check_order(world.log)
    check_pauses(world.log, window)
    # At most once, for those that ended.
    assert doubled([who for what, who, _ in world.log if what == "end"]) == []
    statistics = throttler.statistics()
    assert statistics.done == len(world.consumed)
    assert statistics.failed == len(world.failed)
    assert statistics.started == len(starts)
