"""
The engine as a whole on the virtual clock: whatever jobs, sources and users do.

What happens is written into a log, by the jobs themselves, and judged by a plain reference that
knows nothing of the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import iscoroutine
from math import inf
from typing import Any, TypeAlias

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    Attempts,
    JobInterrupted,
    Outcome,
    RateLimiter,
    SourceInterrupted,
    ThrottleException,
    Throttler,
    WindowTokenBucket,
    amap_outcomes,
)
from anythrottle._jobs import JobOf
from tests.engine.diary import doubled, finish
from tests.properties import examples

pytestmark = pytest.mark.timing

#: After how many seconds an attempt that has timed out goes again.
AFTER_TIMEOUT = 1.25

# Quarters of a second add up without rounding.
quarters = st.integers(0, 20).map(lambda number: number / 4)
windows = st.integers(1, 16).map(lambda number: number / 4)


class Later(Exception):
    """An error after which a job is to go again, in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def later(error: Exception) -> bool | float:
    if isinstance(error, TimeoutError):
        return AFTER_TIMEOUT

    return error.seconds if isinstance(error, Later) else False


@dataclass(frozen=True)
class Step:
    """What a job does when it is started: how long it takes, and how it ends."""

    seconds: float | None
    #: "value", "error", ("again", seconds) or ("throttle", seconds or None)
    ending: str | tuple[str, float | None]


@dataclass(frozen=True)
class Plan:
    """What a job does at each of its starts; when all is done, it ends well. And its cost."""

    steps: list[Step]
    cost: int


endings = st.one_of(
    st.sampled_from(["value", "error"]),
    st.tuples(st.just("again"), quarters),
    st.tuples(st.just("throttle"), st.none() | quarters),
)
plans = st.builds(
    Plan,
    steps=st.lists(st.builds(Step, seconds=st.none() | quarters, ending=endings), max_size=4),
    cost=st.integers(0, 3),
)


def may_go(count: int, most: int | None) -> bool:
    return most is None or count < most


@dataclass(frozen=True)
class Rules:
    """What the engine has to obey, and by which the log is judged."""

    window: float
    limit: int
    concurrency: int | None
    max_attempts: int | None
    max_throttles: int | None
    timeout: float | None

    @property
    def attempts(self) -> Attempts:
        return Attempts(
            self.max_attempts,
            max_throttles=self.max_throttles,
            retry_on=later,
            timeout=self.timeout,
        )


rules = st.builds(
    Rules,
    window=windows,
    limit=st.integers(3, 8),
    concurrency=st.integers(1, 4),
    max_attempts=st.none() | st.integers(1, 3),
    max_throttles=st.none() | st.integers(1, 3),
    timeout=st.none() | st.integers(1, 12).map(lambda number: number / 4),
)

#: (what, who, when)
Entry: TypeAlias = tuple[Any, str, float]


class Log:
    """All that happens to the jobs, in its order."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self.entries: list[Entry] = []
        self.plans = {str(number): plan for number, plan in enumerate(plans)}

    def note(self, what: object, who: str = "") -> None:
        self.entries.append((what, who, anyio.current_time()))

    async def play(self, name: str) -> str:
        """Do what the job of this name does at this start."""
        steps = self.plans[name].steps
        number = sum(what == "start" and who == name for what, who, _ in self.entries)
        step = steps[number] if number < len(steps) else Step(None, "value")
        self.note("start", name)
        try:
            if step.seconds is not None:
                await anyio.sleep(step.seconds)
        except anyio.get_cancelled_exc_class():
            self.note("cut off", name)
            raise

        self.note(step.ending, name)
        if isinstance(step.ending, tuple):
            kind, seconds = step.ending
            if kind == "again":
                assert seconds is not None
                raise Later(seconds)

            raise ThrottleException(retry_after=seconds)

        if step.ending == "error":
            raise KeyError(name)

        return name

    def is_ambiguous(self, timeout: float | None) -> bool:
        """Tell whether a run was over in the instant of a timeout: who was cut off by which?"""
        cut_off = {when for what, _, when in self.entries if what == "cut off"}
        over = {when for what, _, when in self.entries if what == "run over"}
        begun = {when for when, _ in self.starts()}
        return timeout is not None and any(when - timeout in begun for when in cut_off & over)

    def starts(self) -> list[tuple[float, str]]:
        return [(when, who) for what, who, when in self.entries if what == "start"]


@dataclass
class Judge:
    """Goes through a log, and knows of each job where it has to be."""

    rules: Rules
    plans: dict[str, Plan]
    #: Those that cannot go again.
    once: set[str] = field(default_factory=set)
    ranks: dict[str, int] = field(default_factory=dict)
    #: Who is at the front, by rank, who will be, and since when who runs.
    front: dict[str, int] = field(default_factory=dict)
    delayed: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)
    #: How many starts of who have ended so.
    errors: Counter[str] = field(default_factory=Counter)
    throttles: Counter[str] = field(default_factory=Counter)
    fresh: int = 0
    put_first: int = 0
    paused_until: float = -1.0

    def judge(self, entries: list[Entry]) -> None:
        for what, who, when in entries:
            if what in ("add", "add to the front"):
                self.put_first += what == "add to the front"
                # Those that come from the source have no place in between.
                self.ranks[who] = -self.put_first if what != "add" else len(self.ranks)
                self.front[who] = self.ranks[who]
            elif what == "start":
                self.start(who, when)
            elif what == "run over":
                self.run_over()
            else:
                self.end(what, who, when)

    def start(self, who: str, when: float) -> None:
        assert when >= self.paused_until, "nothing starts while the limiter pauses"
        for name in [name for name, due in self.delayed.items() if due <= when]:
            del self.delayed[name]
            self.front[name] = self.ranks[name]

        if self.front:
            assert who == min(self.front, key=self.front.__getitem__), "the frontmost starts"
            del self.front[who]
        else:
            assert who == str(self.fresh), "jobs start in the order given"
            self.fresh += 1
            self.ranks[who] = len(self.ranks)

        assert who not in self.running
        self.running[who] = when
        assert may_go(self.errors[who], self.rules.max_attempts)
        assert may_go(self.throttles[who], self.rules.max_throttles)
        most_running = self.rules.concurrency
        assert most_running is None or len(self.running) <= most_running

    def end(self, what: object, who: str, when: float) -> None:
        began = self.running.pop(who)
        timeout = self.rules.timeout
        if timeout is not None:
            assert when - began <= timeout, "no attempt takes longer than that"

        if what == "cut off" and timeout is not None and when - began == timeout:
            what = ("again", AFTER_TIMEOUT)

        if what == "cut off":
            self.cut_off.add(who)
        elif isinstance(what, tuple) and what[0] == "again":
            self.errors[who] += 1
            if who not in self.once and may_go(self.errors[who], self.rules.max_attempts):
                self.delayed[who] = when + what[1]
        elif isinstance(what, tuple):
            seconds = self.rules.window if what[1] is None else what[1]
            self.paused_until = max(self.paused_until, when + seconds)
            self.throttles[who] += 1
            if who not in self.once and may_go(self.throttles[who], self.rules.max_throttles):
                self.front[who] = self.ranks[who]

    def run_over(self) -> None:
        assert not self.running, "nothing goes on after the run"
        for who in [*self.cut_off, *self.delayed]:
            if who not in self.once:
                self.front[who] = self.ranks[who]

        self.cut_off.clear()
        self.delayed.clear()

    def check_window(self, entries: list[Entry]) -> None:
        """Whatever window one looks at, what was started in it has not cost more than the limit."""
        starts = [(when, self.plans[who].cost) for what, who, when in entries if what == "start"]
        for begin, _ in starts:
            end = begin + self.rules.window
            assert sum(cost for when, cost in starts if begin <= when < end) <= self.rules.limit


# The sources. Each knows what has not been pulled.


class Pulling:
    """An async iterator that takes its time; at one item, it fails once."""

    def __init__(self, items: list[Any], seconds: float | None, fails_at: int | None) -> None:
        self.items = list(items)
        self.seconds = seconds
        self.fails_at = fails_at
        self.pulled = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self.seconds is not None:
            await anyio.sleep(self.seconds)

        if self.pulled == self.fails_at:
            self.fails_at = None
            raise OSError("the source")

        if not self.items:
            raise StopAsyncIteration

        self.pulled += 1
        return self.items.pop(0)

    async def generate(self) -> AsyncIterator[Any]:
        while True:
            try:
                item = await self.__anext__()
            except StopAsyncIteration:
                return

            yield item

    def generate_sync(self) -> Iterator[Any]:
        while self.items:
            if self.pulled == self.fails_at:
                self.fails_at = None
                raise OSError("the source")

            self.pulled += 1
            yield self.items.pop(0)


KINDS = ["list", "iterator", "generator", "async generator", "stream"]


def source_of(kind: str, items: list[Any], pulling: Pulling) -> Any:
    kinds = {
        "list": lambda: items,
        "iterator": lambda: pulling,
        "generator": pulling.generate_sync,
        "async generator": pulling.generate,
    }
    return kinds[kind]()


def check_error(outcome: Outcome[Any, Any], name: str, rules: Rules, *, once: bool = False) -> None:
    error = outcome.error
    most = [1 if once else most for most in (rules.max_attempts, rules.max_throttles)]
    if isinstance(error, KeyError):
        assert error.args == (name,)
    elif isinstance(error, JobInterrupted):
        assert once
    else:
        # What could have gone again has used up its attempts.
        assert isinstance(error, (Later, ThrottleException, TimeoutError))
        assert outcome.attempts >= (most[isinstance(error, ThrottleException)] or inf)

    assert outcome.attempts <= sum(each or inf for each in most)


@dataclass(frozen=True)
class Disturbance:
    """What somebody does to a run, so many seconds after its begin."""

    kind: str
    after: float

    async def happen(self, throttler: Throttler[JobOf[object], object]) -> None:
        """Run the throttler, and disturb it."""
        # Rarely in the instant of anything else.
        after = self.after + 1 / 64 if self.kind == "cancel" else inf
        async with anyio.create_task_group() as task_group:
            if self.kind == "stop":
                task_group.start_soon(self.stop, throttler)

            with suppress(OSError, SourceInterrupted), anyio.move_on_after(after):
                await finish(throttler, within=100_000)

            task_group.cancel_scope.cancel()

    async def stop(self, throttler: Throttler[JobOf[object], object]) -> None:
        await anyio.sleep(self.after)
        throttler.stop()


@dataclass(frozen=True)
class Story:
    """What happens to a throttler."""

    rules: Rules
    todo: list[Plan]
    #: Whether those are awaitables, which cannot go again.
    once: list[bool]
    kind: str
    shared_slots: bool
    pull_seconds: float | None
    fails_at: int | None
    consume_seconds: float | None
    #: (how long after the one before, what, to the front)
    added: list[tuple[float, Plan, bool]]
    disturbed: list[Disturbance]


stories = st.builds(
    Story,
    rules=rules,
    todo=st.lists(plans, max_size=8),
    once=st.lists(st.integers(0, 6).map(lambda chance: chance == 6), min_size=8, max_size=8),
    kind=st.sampled_from(KINDS),
    shared_slots=st.booleans(),
    pull_seconds=st.none() | quarters,
    fails_at=st.none() | st.integers(0, 6),
    consume_seconds=st.none() | quarters,
    added=st.lists(st.tuples(quarters, plans, st.booleans()), max_size=3),
    disturbed=st.lists(
        st.builds(Disturbance, kind=st.sampled_from(["cancel", "cancel", "stop"]), after=quarters),
        max_size=4,
    ),
)


class World:
    """A throttler with all that happens to it."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.log = Log(story.todo)
        self.names: dict[object, str] = {}
        self.consumed: list[str] = []
        self.failed: list[str] = []
        #: Those that cannot go again.
        self.once: set[str] = set()
        self.consuming = False
        jobs = [
            self.job(str(number), once=once)
            for number, (_, once) in enumerate(zip(story.todo, story.once, strict=False))
        ]
        self.pulling = Pulling(
            [] if story.kind == "list" else jobs, story.pull_seconds, story.fails_at
        )
        self.send, self.receive = anyio.create_memory_object_stream[Any](inf)
        streamed = story.kind == "stream"
        rules = story.rules
        assert rules.concurrency is not None
        self.slots = anyio.CapacityLimiter(rules.concurrency)
        self.throttler: Throttler[JobOf[object], object] = Throttler(
            self.receive if streamed else source_of(story.kind, jobs, self.pulling),
            self.consume,
            limiter=RateLimiter(WindowTokenBucket(rules.limit, rules.window)),
            concurrency=self.slots if story.shared_slots else rules.concurrency,
            cost=lambda job: self.log.plans[self.names[job]].cost,
            attempts=rules.attempts,
        )

    def job(self, name: str, *, once: bool = False) -> Any:
        job: Any = self.log.play(name) if once else partial(self.log.play, name)
        if once:
            self.once.add(name)

        self.names[job] = name
        return job

    async def consume(self, result: object) -> None:
        assert not self.consuming, "one at a time"
        self.consuming = True
        try:
            if self.story.consume_seconds is not None:
                await anyio.sleep(self.story.consume_seconds)
        finally:
            self.consuming = False

        assert isinstance(result, str)
        self.consumed.append(result)

    async def feed(self) -> None:
        with self.send:
            while self.story.kind == "stream" and self.pulling.items:
                await anyio.sleep(self.story.pull_seconds or 0)
                self.send.send_nowait(self.pulling.items.pop(0))

    async def add(self) -> None:
        for number, (after, plan, front) in enumerate(self.story.added):
            await anyio.sleep(after)
            name = f"added {number}"
            self.log.plans[name] = plan
            self.log.note("add to the front" if front else "add", name)
            self.throttler.add(self.job(name), front=front)

    def collect_failures(self) -> None:
        with suppress(anyio.WouldBlock, anyio.EndOfStream):
            while True:
                outcome = self.throttler.exceptions.receive_nowait()
                name = self.names[outcome.item]
                self.failed.append(name)
                check_error(outcome, name, self.story.rules, once=name in self.once)

    async def run(self, disturbance: Disturbance) -> None:
        """Run the throttler, and see to it that each job is in one place afterwards."""
        await disturbance.happen(self.throttler)
        self.log.note("run over")
        self.collect_failures()
        left = [self.names[job] for job in self.throttler.remaining()]
        stock = [*self.consumed, *self.failed, *left]
        assert doubled(stock) == []
        unread = [self.names[job] for job in self.pulling.items]
        assert not set(stock) & set(unread)
        in_stream = self.receive.statistics().current_buffer_used
        assert len(stock) + len(unread) + in_stream == len(self.log.plans)
        statistics = self.throttler.statistics()
        assert (statistics.running, statistics.delayed) == (0, 0)
        assert self.slots.borrowed_tokens == 0

    def check_all_done(self) -> None:
        # A generator that has failed, or was cut off, is over: what it had stays there.
        if "generator" not in self.story.kind:
            assert sorted(self.consumed + self.failed) == sorted(self.log.plans)

        assert self.throttler.remaining() == []
        assert self.throttler.statistics().started == len(self.log.starts())
        for job in self.pulling.items:
            if iscoroutine(job):
                job.close()


@pytest.mark.promise("T1", "T2", "T4", "T5", "T7", "T8")
@examples(150)
@given(story=stories)
async def test_a_throttler_whatever_happens(story: Story) -> None:
    world = World(story)
    with world.receive, world.send:
        async with anyio.create_task_group() as others:
            others.start_soon(world.feed)
            others.start_soon(world.add)
            for disturbance in story.disturbed:
                await world.run(disturbance)

        # The source may fail once more, and after that nothing is in the way.
        for _ in range(2):
            await world.run(Disturbance("none", 0))

    world.check_all_done()
    judge = Judge(story.rules, world.log.plans, world.once)
    judge.check_window(world.log.entries)
    if not world.log.is_ambiguous(story.rules.timeout):
        judge.judge(world.log.entries)
        assert not judge.front


@dataclass(frozen=True)
class Mapping:
    """What is asked of amap_outcomes, and what its caller does."""

    rules: Rules
    bounded: bool
    todo: list[Plan]
    kind: str
    pull_seconds: float | None
    fails_at: int | None
    take_seconds: float | None
    ordered: bool
    #: How the block is left, after how many outcomes; ``None`` for not early
    leave: tuple[str, int] | None


mappings = st.builds(
    Mapping,
    rules=rules,
    bounded=st.booleans(),
    todo=st.lists(plans, max_size=10),
    kind=st.sampled_from(KINDS[:-1]),
    pull_seconds=st.none() | quarters,
    fails_at=st.none() | st.integers(0, 9),
    take_seconds=st.none() | quarters,
    ordered=st.booleans(),
    leave=st.none() | st.tuples(st.sampled_from(["break", "raise", "cancel"]), st.integers(0, 6)),
)


class Own(Exception):
    """What the block raises."""


class Taker:
    """Somebody who calls amap_outcomes, takes the outcomes, and may leave early."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self.log = Log(mapping.todo)
        # Items that are not the same as any others.
        self.items = [[str(number)] for number in range(len(mapping.todo))]
        pulled = [] if mapping.kind == "list" else self.items
        self.pulling = Pulling(pulled, mapping.pull_seconds, mapping.fails_at)
        rules = mapping.rules
        self.rules = rules if mapping.bounded else replace(rules, concurrency=None)
        self.outcomes: list[Outcome[list[str], str]] = []
        self.left_early = False
        self.source_failed = False

    async def call(self, item: list[str]) -> str:
        self.check_room()
        return await self.log.play(item[0])

    async def run(self) -> None:
        how = None if self.mapping.leave is None else self.mapping.leave[0]
        with anyio.CancelScope() as self.scope:
            try:
                await self.take_all()
            except Own:
                assert self.left_early
                assert how == "raise"
            except OSError:
                self.source_failed = True

        assert self.scope.cancelled_caught == (self.left_early and how == "cancel")

    async def take_all(self) -> None:
        rules = self.rules
        async with amap_outcomes(
            self.call,
            source_of(self.mapping.kind, self.items, self.pulling),
            limiter=RateLimiter(WindowTokenBucket(rules.limit, rules.window)),
            concurrency=rules.concurrency,
            cost=lambda item: self.log.plans[item[0]].cost,
            ordered=self.mapping.ordered,
            attempts=rules.attempts,
        ) as outcomes:
            async for outcome in outcomes:
                self.outcomes.append(outcome)
                if self.mapping.leave is not None and len(self.outcomes) > self.mapping.leave[1]:
                    self.left_early = True
                    await self.leave(self.mapping.leave[0])
                    break

                if self.mapping.take_seconds is not None:
                    await anyio.sleep(self.mapping.take_seconds)

    async def leave(self, how: str) -> None:
        if how == "raise":
            raise Own

        if how == "cancel":
            self.scope.cancel()
            await anyio.sleep(1)

    @property
    def started(self) -> set[str]:
        return {who for _, who in self.log.starts()}

    def check_room(self) -> None:
        """Whoever is slow to take the outcomes holds the calls back."""
        bound = self.rules.concurrency
        if bound is None:
            return

        not_taken = len(self.started) - len(self.outcomes)
        if self.mapping.ordered:
            # The one that is waited for, and those that are held back.
            assert not_taken <= bound + 1
        else:
            judge = Judge(self.rules, self.log.plans)
            judge.judge(self.log.entries)
            # Those that run, and those whose outcomes wait.
            assert not_taken - len(judge.front) - len(judge.delayed) <= 2 * bound

    def check_outcomes(self) -> None:
        indexes = [outcome.index for outcome in self.outcomes]
        assert doubled(indexes) == []
        if self.mapping.ordered:
            assert indexes == list(range(len(indexes)))

        for outcome in self.outcomes:
            assert outcome.item is self.items[outcome.index]
            if outcome.error is None:
                assert outcome.value == str(outcome.index)
            else:
                check_error(outcome, str(outcome.index), self.rules)

        if not self.left_early:
            assert set(indexes) == {int(name) for name in self.started}
            given = self.mapping.fails_at if self.source_failed else len(self.items)
            assert len(self.outcomes) == given

    def check_pulls(self) -> None:
        if self.mapping.kind != "list":
            # One ahead at most.
            assert self.pulling.pulled <= len(self.started) + 1


@examples(100)
@given(mapping=mappings)
async def test_amap_outcomes_whatever_happens(mapping: Mapping) -> None:
    taker = Taker(mapping)
    with anyio.fail_after(100_000):
        await taker.run()

    # Nothing goes on: the judge says so.
    taker.log.note("run over")
    await anyio.sleep(1000)
    judge = Judge(taker.rules, taker.log.plans)
    judge.judge(taker.log.entries)
    judge.check_window(taker.log.entries)
    taker.check_outcomes()
    taker.check_pulls()
