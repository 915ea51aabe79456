"""Whatever happens to processes that share limits, at random: judged by a book of what starts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import assume, given
from hypothesis import strategies as st

from anythrottle import LimitExceeded, StoreError, WindowTokenBucket
from anythrottle.stores.exchange import MARGIN
from anythrottle.stores.memory import MemoryServer, MemoryStore
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import tasks
from tests.properties import examples
from tests.stores.branches import SECOND, Branch, most_in_a_window

pytestmark = pytest.mark.timing

LIMIT, CONCURRENCY, LEASE, DEADLINE = 6, 3, 1.0, 0.2

WHO = st.integers(0, 2)

SOON = st.floats(0, 0.7).map(lambda x: round(x, 3))

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), WHO, st.integers(0, 3), SOON),
        st.tuples(st.just("call"), WHO, st.integers(1, 2), st.just(0.0)),
        st.tuples(st.just("give up"), WHO, st.integers(1, 3), SOON),
        st.tuples(st.just("refuse"), WHO, st.integers(1, 3), SOON),
        st.tuples(st.just("settle"), WHO, st.integers(1, 3), st.integers(0, 4)),
        st.tuples(st.just("mark"), WHO, st.integers(1, 3), SOON),
        st.tuples(st.just("down"), WHO, SOON),
        st.tuples(st.just("slow"), WHO, SOON),
        st.tuples(st.just("visit"), WHO, st.integers(1, 3), st.booleans()),
        st.tuples(st.just("pause"), WHO, SOON),
        st.tuples(st.just("sleep"), SOON),
        st.tuples(st.just("sleep"), SOON),
        st.tuples(st.just("stall"), SOON),
    ),
    max_size=40,
)

LIMITS: list[dict[str, Any]] = [
    {"policies": [WindowTokenBucket(LIMIT, 1.0)]},
    {"policies": [WindowTokenBucket(LIMIT, 1.0)], "read_ahead": 4},
    {"policies": [WindowTokenBucket(LIMIT, 1.0, measure="end")]},
    {"policies": [WindowTokenBucket(LIMIT, 1.0)], "concurrency": CONCURRENCY},
    {
        "policies": [WindowTokenBucket(LIMIT, 1.0, measure="end"), "20/2s"],
        "concurrency": CONCURRENCY,
    },
]


class World:
    """Processes that share a limiter, and the book of their calls."""

    def __init__(self, limits: dict[str, Any], seed: int, jitter: float) -> None:
        self.server = MemoryServer(seed=seed)
        self.server.network.delay = 0.002
        self.server.network.jitter = jitter
        self.options = dict(limits)
        self.policies = self.options.pop("policies")
        self.ends = any(getattr(policy, "holds", False) for policy in self.policies)
        self.branches = [self.branch() for _ in range(3)]
        #: When calls have started, by when they were counted, and what they cost.
        self.calls: list[tuple[int, int, int]] = []
        self.running: list[Any] = []
        self.most_at_once = 0

    def branch(self) -> Branch:
        return Branch(
            self.server, *self.policies, deadline=DEADLINE, lease_timeout=LEASE, **self.options
        )

    async def call(
        self, branch: Branch, cost: int, seconds: float, *, mark: bool = False, **options: Any
    ) -> None:
        try:
            async with branch.permit(cost, **options) as permit:
                began = self.server.now()
                branch.starts.append((began, cost))
                self.running.append(permit)
                alive = [each for each in self.running if not each.lost]
                self.most_at_once = max(self.most_at_once, len(alive))
                try:
                    await anyio.sleep(seconds / 2)
                    if mark:
                        self.note(permit, began, cost)
                        permit.mark_counted()

                    await anyio.sleep(seconds / 2)
                finally:
                    self.running.remove(permit)
                    if not mark:
                        self.note(permit, began, cost)
        except (StoreError, LimitExceeded) as exc:
            branch.errors.append(exc)

    def note(self, permit: Any, began: int, cost: int) -> None:
        if not permit.lost:
            # What a call costs that was taken what it held, counts from then on.
            self.calls.append((began, self.server.now(), cost))

    def most_counted(self) -> int:
        """Return the most that any window holds, whenever within it each call is counted."""
        return max(
            (
                sum(c for start, end, c in self.calls if start < first + SECOND and end >= first)
                for _, first, _ in self.calls
            ),
            default=0,
        )

    async def settle(self, branch: Branch, cost: int, after: int) -> None:
        try:
            async with branch.permit(cost) as permit:
                began = self.server.now()
                branch.starts.append((began, min(cost, after)))
                self.note(permit, began, min(cost, after))
                permit.settle(after)

            permit.settle(min(cost, after))
        except StoreError as exc:
            branch.errors.append(exc)

    async def give_up(self, branch: Branch, cost: int, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.call(branch, cost, 0)

    async def visit(self, host: Branch, cost: int, killed: bool) -> None:
        """Let another process come for a call, and go, or be killed while that runs."""
        branch = self.branch()
        async with branch.store:
            with anyio.move_on_after(0.3):
                await self.call(branch, cost, 1.0)

            branch.store.network.down = killed

        host.starts += branch.starts

    async def be_down(self, branch: Branch, seconds: float) -> None:
        branch.store.network.down = True
        await anyio.sleep(2 * seconds)
        branch.store.network.down = False

    async def be_slow(self, branch: Branch, seconds: float) -> None:
        branch.store.network.delay += seconds / 4
        await anyio.sleep(seconds)
        branch.store.network.delay -= seconds / 4

    async def play(self, group: TaskGroup, events: list[Any]) -> None:
        async with AsyncExitStack() as stack:
            for branch in self.branches:
                await stack.enter_async_context(branch.store)

            for kind, *rest in events:
                if kind == "sleep":
                    await anyio.sleep(rest[0])
                elif kind == "stall":
                    stall(rest[0])
                else:
                    await self.happen(group, kind, self.branches[rest[0]], *rest[1:])

            # Until all is quiet, and what the dead held has come back.
            await anyio.sleep(12)

    async def happen(self, group: TaskGroup, kind: str, branch: Branch, *rest: Any) -> None:  # noqa: C901
        match kind:
            case "call":
                group.start_soon(lambda: self.call(branch, *rest))
            case "mark":
                group.start_soon(lambda: self.call(branch, *rest, mark=True))
            case "refuse":
                group.start_soon(lambda: self.call(branch, rest[0], 0.1, max_wait=rest[1]))
            case "give up":
                group.start_soon(self.give_up, branch, *rest)
            case "settle":
                group.start_soon(self.settle, branch, *rest)
            case "down":
                group.start_soon(self.be_down, branch, *rest)
            case "slow":
                group.start_soon(self.be_slow, branch, *rest)
            case "flush":
                self.server.flush()
                # Who is idle does not notice.
                for each in self.branches:
                    group.start_soon(each.limiter.peek)
            case "pause":
                branch.limiter.pause(rest[0])
            case "visit":
                group.start_soon(self.visit, branch, *rest)
            case _:
                raise AssertionError(kind)

    async def check_all_is_there_again(self) -> None:
        """A newcomer finds the whole limit."""
        async with MemoryStore(self.server) as store:
            limiter = store.limiter("api", *self.policies, **self.options)
            # What the dead held counts from when that is noticed.
            await limiter.peek()
            await anyio.sleep(2.5)
            decision = await limiter.peek()
            assert decision.allowed
            assert [quota.remaining for quota in limiter.quotas()] == [
                quota.policy.limit for quota in limiter.quotas()
            ]
            ledger = self.server.ledgers["api"]
            assert [rule.held for rule in ledger.rules] == [0] * len(ledger.rules)
            assert not ledger.queue


@pytest.mark.promise("S1", "S2", "S8", "S9", "S10")
@pytest.mark.parametrize("limits", range(len(LIMITS)))
@given(EVENTS, st.integers(0, 99), st.sampled_from([0.0, 0.003, 0.03]))
@examples(40)
def test_nothing_passes_that_should_not_and_nothing_is_lost(
    run: Run, limits: int, events: list[Any], seed: int, jitter: float
) -> None:
    world = World(LIMITS[limits], seed, jitter)

    async def main() -> None:
        async with tasks() as group:
            await world.play(group, events)

        starts = sorted(start for branch in world.branches for start in branch.starts)
        if world.ends:
            assert world.most_counted() <= LIMIT
        else:
            assert most_in_a_window(starts, 1.0) <= LIMIT

        if "concurrency" in LIMITS[limits]:
            assert world.most_at_once <= CONCURRENCY

        await world.check_all_is_there_again()

    run(main)


FLUSHES = st.lists(
    st.one_of(
        st.tuples(st.just("call"), WHO, st.integers(1, 3), SOON),
        st.tuples(st.just("give up"), WHO, st.integers(1, 3), SOON),
        st.tuples(st.just("sleep"), SOON),
        st.tuples(st.just("flush"), WHO),
    ),
    max_size=40,
)


@pytest.mark.promise("S12")
@pytest.mark.parametrize("limits", range(len(LIMITS)))
@given(FLUSHES, st.integers(0, 99), st.sampled_from([0.0, 0.003]))
@examples(25)
def test_a_server_that_forgets_all_is_told_again(
    run: Run, limits: int, events: list[Any], seed: int, jitter: float
) -> None:
    world = World(LIMITS[limits], seed, jitter)
    # All are known to it before; not for long enough to be as good as newcomers when it forgets.
    events = [("call", who, 1, 0.0) for who in range(3)] + [("sleep", 0.5), *events]
    kept = LEASE + MARGIN / 2 / SECOND
    assume(sum(event[1] for event in events if event[0] == "sleep") < kept)

    async def main() -> None:
        async with tasks() as group:
            await world.play(group, events)

        starts = sorted(start for branch in world.branches for start in branch.starts)
        if world.ends:
            assert world.most_counted() <= LIMIT
        else:
            assert most_in_a_window(starts, 1.0) <= LIMIT

        if "concurrency" in LIMITS[limits]:
            assert world.most_at_once <= CONCURRENCY

        await world.check_all_is_there_again()

    run(main)
