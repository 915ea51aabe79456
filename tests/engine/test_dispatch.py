"""What starts, and when: nothing of a user's own runs between the stamp and the job."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    Attempts,
    CostTooHigh,
    Finished,
    Granted,
    RateLimiter,
    Started,
    ThrottleException,
    Throttler,
    WindowTokenBucket,
    amap,
)
from anythrottle._jobs import JobOf
from anythrottle._limiters.permit import TurnPermit
from anythrottle.abc import Event
from anythrottle.testing._backends import stall
from anythrottle.testing._virtual_loop import VirtualEventLoop
from tests.engine.diary import Diary, Job, doubled, failures, finish
from tests.limiters.tools import assert_exact
from tests.properties import examples

pytestmark = pytest.mark.timing


@pytest.mark.parametrize("number", [2, 5])
@pytest.mark.parametrize("place", ["Granted", "Started"])
async def test_an_observer_that_stalls_crowds_no_window(place: str, number: int) -> None:
    def observe(event: Event) -> None:
        if type(event).__name__ == place and len(diary.starts) == number:
            stall(0.12)

    diary = Diary()
    limiter = RateLimiter(WindowTokenBucket(5, 0.24), observer=observe)
    await finish(Throttler(diary.jobs(12), limiter=limiter, observer=observe))
    assert_exact([(instant, 1) for instant in diary.when("start")], 5, 0.24)


@pytest.mark.parametrize(("place", "number"), [("Granted", 2), ("Started", 2), ("cost", 3)])
@pytest.mark.parametrize("measure", ["start", "end"])
async def test_a_turn_counts_from_when_its_job_begins(
    place: str, number: int, measure: Literal["start", "end"]
) -> None:
    diary = Diary()
    told: Counter[str] = Counter()

    def hook(name: str) -> None:
        told[name] += 1
        if name == place and told[name] == number:
            stall(3)

    def observe(event: Event) -> None:
        hook(type(event).__name__)

    def cost(_: object) -> int:
        hook("cost")
        return 1

    limiter = RateLimiter(WindowTokenBucket(1, 10, measure=measure), observer=observe)
    throttler: Throttler[JobOf[object], object] = Throttler(
        diary.jobs(3), limiter=limiter, cost=cost, observer=observe
    )
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(finish, throttler)
        await anyio.sleep(5)
        # Who goes first now is asked for the cost when the turn is there.
        throttler.add(diary.job("first"), front=True)

    assert diary.starts == [0, "first", 1, 2]
    assert diary.when("start") == [0, 13, 23, 33]


#: Where code of a user's own runs in a throttler, and may hold the program up.
PLACES = [
    "__getitem__", "cost", "retry_on", "job", "consumer",
    "Granted", "Started", "Finished", "Throttled", "Retried", "Failed",
]  # fmt: skip

# Quarters of a second add up without rounding.
quarters = st.integers(1, 12).map(lambda number: number / 4)


@dataclass(frozen=True)
class Story:
    """Jobs under a limit, and where and for how long the program is held up meanwhile."""

    limit: int
    window: float
    at_end: bool
    fast: bool
    concurrency: int | None
    observed: bool
    #: What the jobs do at each start, until they end well, and how long they take.
    jobs: list[tuple[list[str], float | None]]
    #: When a job is added at the front, each so long after the one before.
    fronts: list[float]
    #: One after the other; then none.
    stalls: dict[str, list[float]]


stories = st.builds(
    Story,
    limit=st.integers(1, 4),
    window=quarters,
    at_end=st.booleans(),
    fast=st.booleans(),
    concurrency=st.none() | st.integers(1, 3),
    observed=st.booleans(),
    jobs=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["throttle", "again", "fail"]), max_size=2),
            st.sampled_from([None, 0.0, 0.25, 1.5]),
        ),
        min_size=3,
        max_size=9,
    ),
    fronts=st.lists(quarters, max_size=2),
    stalls=st.dictionaries(
        st.sampled_from(PLACES), st.lists(st.just(0.0) | quarters, max_size=6), min_size=1
    ),
)


class Jobs(Sequence[Job]):
    """A sequence that calls something at each look into it."""

    def __init__(self, jobs: list[Job], hook: Callable[[], None]) -> None:
        self._jobs = jobs
        self._hook = hook

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, index: Any) -> Any:
        self._hook()
        return self._jobs[index]


class World:
    """A story as it goes; notes when each call has begun and ended."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.calls: list[list[float]] = []
        self._stalls = {place: list(stalls) for place, stalls in story.stalls.items()}

    def hook(self, place: str) -> None:
        stalls = self._stalls.get(place)
        if stalls and (seconds := stalls.pop(0)):
            stall(seconds)

    def observe(self, event: Event) -> None:
        self.hook(type(event).__name__)

    def job(self, endings: list[str], seconds: float | None) -> Job:
        rest = list(endings)

        async def job() -> None:
            call = [anyio.current_time(), inf]
            self.calls.append(call)
            self.hook("job")
            if seconds is not None:
                await anyio.sleep(seconds)

            call[1] = anyio.current_time()
            if rest:
                raise {
                    "throttle": ThrottleException(retry_after=0.5),
                    "again": TimeoutError(),
                    "fail": KeyError(),
                }[rest.pop(0)]

        return job

    def cost(self, _: object) -> int:
        self.hook("cost")
        return 1

    def retry_on(self, error: Exception) -> bool | float:
        self.hook("retry_on")
        return isinstance(error, TimeoutError) and 0.25

    async def consume(self, _: object) -> None:
        self.hook("consumer")

    async def run(self) -> None:
        story = self.story
        measure: Literal["start", "end"] = "end" if story.at_end else "start"
        policy = WindowTokenBucket(story.limit, story.window, measure=measure)
        observer = self.observe if story.observed else None
        limiter = RateLimiter(policy, observer=self.observe, fast_acquire=story.fast)
        throttler: Throttler[JobOf[object], object] = Throttler(
            Jobs([self.job(*job) for job in story.jobs], partial(self.hook, "__getitem__")),
            self.consume,
            limiter=limiter,
            concurrency=story.concurrency,
            cost=self.cost,
            attempts=Attempts(retry_on=self.retry_on),
            observer=observer,
        )
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(finish, throttler)
            for seconds in story.fronts:
                await anyio.sleep(seconds)
                throttler.add(self.job([], None), front=True)

        for _ in failures(throttler):
            pass

        assert limiter.statistics().borrowed_tokens == 0


@given(stories)
@examples(50)
async def test_no_window_is_crowded_wherever_the_program_is_held_up(story: Story) -> None:
    world = World(story)
    await world.run()
    assert len(world.calls) >= len(story.jobs)
    for began, _ in world.calls:
        if story.at_end:
            # Whatever instant of each call the server counts.
            out = sum(b <= began < end + story.window for b, end in world.calls)
        else:
            out = sum(began <= b < began + story.window for b, _ in world.calls)

        assert out <= story.limit, world.calls


@dataclass
class Witness:
    """
    A throttler whose observer does something, once.

    :ivar what: what it does, see :meth:`do`
    :ivar at: at which event of that kind
    """

    what: str
    kind: type[Event]
    at: int
    limiter: RateLimiter = field(init=False)
    throttler: Throttler[JobOf[object], object] = field(init=False)
    #: What cancels the run.
    cancel: Callable[[], object] = field(init=False)
    jobs: list[Job] = field(default_factory=list)
    diary: Diary = field(default_factory=Diary)
    events: list[Event] = field(default_factory=list)
    done: bool = False

    def __post_init__(self) -> None:
        self.jobs += self.diary.jobs(5)

    def begin(self, **options: Any) -> None:
        """Make the limiter, for two jobs in ten seconds, and the throttler."""
        self.limiter = RateLimiter("4/10s", observer=self.observe, **options)
        self.throttler = Throttler(
            list(self.jobs),
            self.diary.consumer(),
            limiter=self.limiter,
            cost=2,
            observer=self.observe,
        )

    def observe(self, event: Event) -> None:
        self.events.append(event)
        if not self.done and len(self.of(self.kind)) == self.at:
            self.done = True
            self.do()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def do(self) -> None:
        for what in self.what.split(", "):
            if what == "pause":
                self.limiter.pause(7)
            elif what == "resume":
                self.limiter.resume()
            elif what == "stop":
                self.throttler.stop()
            elif what == "cancel":
                self.cancel()
            elif what == "add":
                self.jobs.append(self.diary.job("added"))
                self.throttler.add(self.jobs[-1], front=True)
            elif what == "slow down":
                self.limiter.reconfigure("2/7s")
            elif what == "forbid":
                self.limiter.reconfigure("1/10s")
            else:
                raise SystemExit(what)

    async def run(self) -> None:
        with anyio.CancelScope() as scope:
            self.cancel = scope.cancel
            await self.catch()

    async def catch(self) -> None:
        with suppress(SystemExit, CostTooHigh):
            await finish(self.throttler)

    def check(self) -> None:
        """Take stock between two runs."""
        starts = self.diary.when("start")
        statistics = self.throttler.statistics()
        assert (statistics.started, statistics.running) == (len(starts), 0)
        assert self.limiter.statistics().borrowed_tokens == 0
        assert self.limiter.statistics().tasks_waiting == 0
        if not {"slow down", "forbid"} & {*self.what.split(", ")}:
            out = sum(start > anyio.current_time() - 10 for start in starts)
            assert self.limiter.peek(0).remaining == 4 - 2 * out

        assert failures(self.throttler) == []
        # Each job is in one place, and in no other.
        places = Counter([*self.throttler.remaining(), *map(self.job, self.diary.consumed)])
        assert places == Counter(self.jobs)

    def job(self, name: object) -> Job:
        return self.jobs[-1 if name == "added" else int(str(name))]

    async def end(self) -> None:
        """Let the jobs that remain run, and look back."""
        self.limiter.resume()
        self.limiter.reconfigure("4/10s")
        if self.throttler.remaining():
            await finish(self.throttler)

        self.check()
        assert self.throttler.remaining() == []
        # Not one of them has run twice, and what was called back was told of again when it went.
        assert doubled(self.diary.starts) == []
        assert {event.attempts for event in self.of(Started)} == {1}
        assert [event.attempts for event in self.of(Finished)] == [1] * len(self.jobs)


ACTS = [
    "pause", "pause, resume", "pause, stop", "stop", "cancel", "cancel, pause", "add", "add, pause",
    "slow down", "slow down, stop", "slow down, add", "forbid", "exit", "pause, exit",
    "slow down, exit",
]  # fmt: skip


@pytest.mark.parametrize("kind", [Started, Granted])
class TestObserversThatInterfere:
    @pytest.mark.parametrize("what", ACTS)
    async def test_lose_nothing(self, what: str, kind: type[Event]) -> None:
        """Neither a job, nor a turn, nor a token."""
        for at in 1, 2, 3:
            for options in {}, {"fast_acquire": True}, {"concurrency": 1}:
                witness = Witness(what, kind, at)
                witness.begin(**options)
                await witness.run()
                assert witness.done
                witness.check()
                await witness.end()

    @pytest.mark.parametrize("what", ["cancel", "cancel, pause", "slow down, cancel"])
    def test_nor_natively(self, what: str, kind: type[Event]) -> None:
        async def main(at: int) -> None:
            witness = Witness(what, kind, at)
            witness.begin()
            task = asyncio.create_task(witness.catch())
            witness.cancel = task.cancel
            await asyncio.wait([task])
            assert task.cancelled()
            witness.check()
            await witness.end()

        for at in 1, 2, 3:
            anyio.run(main, at, backend_options={"loop_factory": VirtualEventLoop})


@pytest.mark.parametrize(
    ("at", "starts", "waited"),
    [
        (1, [7, 7, 17, 17, 27], [0, 7, 0, 10, 0, 10]),
        (2, [0, 7, 10, 17, 20], [0, 0, 7, 3, 7, 3]),
        (3, [0, 0, 17, 17, 27], [0, 0, 10, 17, 0, 10]),
    ],
)
async def test_a_turn_that_is_called_back_at_its_start_goes_when_it_may(
    at: int, starts: list[float], waited: list[float]
) -> None:
    witness = Witness("pause", Started, at)
    witness.begin()
    await witness.run()
    assert witness.diary.when("start") == starts
    told = witness.of(Started)
    assert [event.index for event in told] == [*range(at), *range(at - 1, 5)]
    assert [event.waited for event in told] == waited


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_turn_that_is_called_back_at_its_start_keeps_its_place(at: int) -> None:
    order: list[object] = []
    limiter = RateLimiter("4/10s")

    async def job(item: int) -> None:
        order.append(item)

    async def other() -> None:
        await limiter.acquire(4)
        order.append("other")

    def observe(event: Event) -> None:
        nonlocal at
        if isinstance(event, Started):
            at -= 1
            if not at:
                limiter.pause(7)
                task_group.start_soon(other)

    expected = [*range(at), "other", *range(at, 5)]
    async with anyio.create_task_group() as task_group:
        await amap(job, range(5), limiter=limiter, cost=2, observer=observe)

    assert order == expected


async def test_after_a_throttled_job_others_need_not_wait_in_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[TurnPermit] = []
    hold = TurnPermit.hold

    async def note_and_hold(permit: TurnPermit) -> None:
        held.append(permit)
        await hold(permit)

    monkeypatch.setattr(TurnPermit, "hold", note_and_hold)
    throttled = [ThrottleException(retry_after=1)]

    async def job(_: int) -> None:
        if throttled:
            raise throttled.pop()

    await amap(job, range(50), limiter=RateLimiter("100/s"))
    assert len(held) == 1
