"""
The promises G1 to G6, all at once, whatever happens.

A script makes calls come and leave, stalls the loop, pauses, corrects and reconfigures the limiter.
What it does is judged by :class:`Book`: a list of all that was ever charged, looked through from
the first entry to the last each time.
"""

from __future__ import annotations

import math
import random
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import (
    CostTooHigh,
    FixedWindow,
    LimitExceeded,
    RateLimiter,
    ThrottleException,
    TokenBucket,
    WindowTokenBucket,
    current_permit,
)
from anythrottle.abc import Permit, Policy
from anythrottle.testing import wait_idle
from anythrottle.testing._backends import stall
from tests.conftest import Run
from tests.limiters.tools import assert_exact, tasks
from tests.properties import examples

#: What is remembered one by one of what has come back: beyond, a successor is told less exactly.
EXACT_PAST = 16


@dataclass(eq=False)
class Call:
    """What is known of one call."""

    amounts: dict[str, int]
    priority: float
    #: When it came, by the clock and by the order of all arrivals, and what its place goes by.
    came: float = math.nan
    arrival: int = 0
    order: int = 0
    entered: float | None = None
    ended: float | None = None
    #: The clock at its entry, less all stalls before.
    entered_unstalled: float = math.nan
    came_unstalled: float = math.nan
    holds: bool = True
    settled: bool = False
    #: How often the limiter was another one before it began, and before it ended.
    epoch: int = -1
    ended_epoch: int = -1
    permit: Permit | None = None
    #: When it told first that its server had counted it as a call.
    counted: float = math.inf
    scope: anyio.CancelScope | None = None

    def within(self) -> anyio.CancelScope:
        """Return the scope by which it can be cancelled, from now on."""
        self.scope = anyio.CancelScope()
        return self.scope


@dataclass(eq=False)
class Entry:
    """A charge: it counts since an instant, or is held as yet."""

    call: Call | None
    since: float | None
    amount: int
    #: When the call has told that it was counted.
    counted: float | None = None


class PlainWindow:
    """All that was ever charged, as one exact window has to see it."""

    def __init__(self, policy: WindowTokenBucket) -> None:
        self.policy = policy
        self.entries: list[Entry] = []
        #: Whether something was taken back that had come back: a limiter may remember it further.
        self.corrected_late = False

    def is_out(self, entry: Entry, now: float) -> bool:
        window, since = self.policy.window, entry.since
        return since is None or now - since < window or now < since + window

    def free(self, now: float) -> int:
        out = [entry.amount for entry in self.entries if self.is_out(entry, now)]
        return self.policy.limit - sum(out)

    def charge(self, call: Call | None, now: float, amount: int) -> None:
        held = self.policy.holds and call is not None and call.holds and call.ended is None
        self.entries.append(Entry(call, None if held else now, amount))

    def settle(self, call: Call, now: float, amount: int) -> None:
        mine = [entry for entry in self.entries if entry.call is call]
        change = amount - sum(entry.amount for entry in mine)
        if change > 0:
            self.charge(call, now, change)

        for entry in reversed(mine):
            part = min(max(-change, 0), entry.amount)
            if part and not self.is_out(entry, now):
                self.corrected_late = True

            entry.amount -= part
            change += part

    def end(self, call: Call, now: float) -> None:
        for entry in self.entries:
            if entry.call is call and entry.since is None:
                entry.since = now

    def mark(self, call: Call, now: float) -> None:
        for entry in self.entries:
            if entry.call is call and entry.counted is None:
                entry.counted = now
                entry.since = now if entry.since is None else entry.since

    def successor(self, policy: WindowTokenBucket, now: float) -> PlainWindow:
        new = PlainWindow(policy)
        for entry in self.entries:
            call, since = entry.call, entry.since
            if call is not None and call.holds and call.ended is None:
                if entry.counted is not None and (policy.holds or self.policy.holds):
                    since = entry.counted
                else:
                    # What was held counts from now on, if it isn't to be held further.
                    since = None if policy.holds else now if since is None else since

            new.entries.append(Entry(call, since, entry.amount, entry.counted))

        return new


def suitability(policy: WindowTokenBucket, window: PlainWindow) -> tuple[bool, float]:
    return window.policy.measure == policy.measure, window.policy.window


class LooseBound:
    """What a policy that is not exact may let pass in some time, by what was granted under it."""

    def __init__(self, policy: TokenBucket | FixedWindow) -> None:
        self.policy = policy
        self.entries: list[Entry] = []

    def check(self, call: Call, now: float, amount: int, stalled: float) -> None:
        self.entries.append(Entry(call, now, amount))
        policy = self.policy
        passed = 0
        for entry in reversed(self.entries):
            assert entry.since is not None
            passed += entry.amount
            if isinstance(policy, FixedWindow):
                # As sums of floats go, windows may seem shorter than they are.
                if now - entry.since < policy.window * (1 - 1e-9):
                    assert passed <= 2 * policy.limit
            else:
                assert policy.burst is not None
                flow = (now - entry.since + stalled) / policy.per * policy.limit
                assert passed <= policy.burst + flow + 1e-6

    def settle(self, call: Call, amount: int) -> None:
        for entry in self.entries:
            if entry.call is call:
                entry.amount = min(entry.amount, amount)


class Book:
    """The reference: it is told what happens, and says whether that may be."""

    def __init__(self, policies: list[Policy]) -> None:
        self.windows: list[PlainWindow] = []
        self.loose: list[LooseBound] = []
        self.epoch = 0
        #: Whether the limiter has to know all as exactly as this does.
        self.exact = True
        self.calls: list[Call] = []
        self.reconfigure(policies, 0.0)

    def running(self) -> int:
        return sum(c.entered is not None and c.ended is None and c.holds for c in self.calls)

    def enter(self, call: Call, now: float, stalled: float) -> None:
        """G1 and G2: it has to fit in each window, whatever instant of a block is chosen."""
        for window in self.windows:
            amount = call.amounts[window.policy.unit]
            assert amount == 0 or amount <= window.free(now), f"{call} crowds {window.policy}"
            window.charge(call, now, amount)

        for bound in self.loose:
            bound.check(call, now, call.amounts[bound.policy.unit], stalled)

        call.entered = now
        call.epoch = self.epoch
        if not call.holds:
            call.ended = now

    def end(self, call: Call, now: float) -> None:
        call.ended = now
        call.ended_epoch = self.epoch
        for window in self.windows:
            window.end(call, now)

    def may_settle(self, call: Call) -> bool:
        """Tell whether the limiter has to know which of its charges are whose."""
        if call.permit is None or call.entered is None:
            return False

        if call.ended is not None:
            return call.ended_epoch == call.epoch == self.epoch

        return call.epoch == self.epoch or not call.settled

    def settle(self, call: Call, now: float, amounts: dict[str, int]) -> None:
        call.settled = True
        for unit, amount in amounts.items():
            for window in self.windows:
                if window.policy.unit == unit:
                    window.settle(call, now, amount)

            for bound in self.loose:
                if bound.policy.unit == unit:
                    bound.settle(call, amount)

    def mark(self, call: Call, now: float, units: tuple[str, ...]) -> None:
        if call.ended is None:
            for window in self.windows:
                if not units or window.policy.unit in units:
                    window.mark(call, now)

            if not units or "calls" in units:
                call.counted = min(call.counted, now)

    def penalize(self, now: float, amounts: dict[str, int]) -> None:
        for window in self.windows:
            if window.policy.unit in amounts:
                window.charge(None, now, amounts[window.policy.unit])

    def reconfigure(self, policies: list[Policy], now: float) -> None:
        self.epoch += 1
        old, self.windows, self.loose = self.windows, [], []
        running = [c for c in self.calls if c.entered is not None and c.ended is None]
        vague = [w for w in old if len(w.entries) > EXACT_PAST or w.corrected_late]
        if vague or any(call.settled for call in running):
            self.exact = False

        for policy in policies:
            if not isinstance(policy, WindowTokenBucket):
                assert isinstance(policy, (TokenBucket, FixedWindow))
                self.loose.append(LooseBound(policy))
                continue

            kept = [w for w in old if w.policy == policy and w not in self.windows]
            known = [w for w in old if w.policy.unit == policy.unit]
            if kept:
                self.windows.append(kept[0])
            elif known:
                # One that has measured the same instants knows best, and a longer one knows more.
                best = max(known, key=partial(suitability, policy))
                self.windows.append(best.successor(policy, now))
            else:
                self.windows.append(PlainWindow(policy))

    def fits(self, call: Call, now: float) -> bool:
        return all(
            call.amounts[window.policy.unit] <= max(window.free(now), 0) for window in self.windows
        )


#: A verb, two numbers and a part of a window, of which each verb makes what it needs.
Step = tuple[str, int, int, float]

VERBS = [
    *("permit", "permit", "burst", "burst", "acquire", "nowait", "run", "patient"),
    *("wait", "wait", "idle", "idle", "stall", "pause", "resume", "cancel"),
    *("settle", "settle", "refund", "penalize", "reconfigure", "reconfigure", "outsider"),
    *("mark", "mark", "mark"),
]


class Chaos:
    """A limiter in a world where anything may happen, and the book that is kept of it."""

    def __init__(self, configurations: list[list[Policy]], slots: list[int]) -> None:
        self.configurations = configurations
        self.slot_choices = slots
        self.shared = anyio.CapacityLimiter(2)
        self.outsiders: list[object] = []
        self.limiter = RateLimiter(*configurations[0], concurrency=self.concurrency(slots[0]))
        self.slots = slots[0]
        self.book = Book(configurations[0])
        #: Those that are in line, as far as one can tell from outside.
        self.waiting: list[Call] = []
        self.paused_until = -math.inf
        self.stalled = 0.0
        #: The instants in which a pause or another limit came, stalls apart.
        self.disturbed_at: list[float] = []

    def concurrency(self, slots: int) -> int | anyio.CapacityLimiter | None:
        """0 is no bound, -1 is slots that are shared."""
        return self.shared if slots < 0 else slots or None

    def free_slots(self) -> float:
        if self.slots == 0:
            return math.inf

        if self.slots > 0:
            return self.slots - self.book.running()

        return self.shared.total_tokens - len(self.outsiders) - self.book.running()

    def holds(self) -> bool:
        return self.slots != 0 or any(window.policy.holds for window in self.book.windows)

    async def perform(self, script: list[Step]) -> None:
        async with tasks() as task_group:
            for verb, number, other, part in script:
                await self.step(task_group, verb, number, other, part)

            await self.quiet()
            self.limiter.resume()
            self.paused_until = -math.inf
            while self.outsiders:
                self.shared.release_on_behalf_of(self.outsiders.pop())

        await self.everything_is_back()
        self.check_order()

    async def step(
        self, task_group: TaskGroup, verb: str, number: int, other: int, part: float
    ) -> None:
        if verb in ("permit", "acquire", "nowait", "run", "patient"):
            amounts = {"calls": number % 4, "tokens": other}
            call = Call(amounts, 0 if verb == "nowait" else number % 3, holds=verb != "acquire")
            self.come(task_group, verb, call, part)
        elif verb == "burst":
            for priority in (0, 1, 0):
                self.come(task_group, "permit", Call({"calls": 1, "tokens": other}, priority), part)
        elif verb == "wait":
            await anyio.sleep(part)
        elif verb == "idle":
            await self.quiet()
        elif verb in ("settle", "refund", "penalize", "mark"):
            # Who has been granted its turn before, may go.
            await wait_idle()
            self.correct(verb, number, other)
        elif verb == "reconfigure":
            self.reconfigure(number, other)
        else:
            self.interfere(verb, number, part)

    def interfere(self, verb: str, number: int, part: float) -> None:
        now = anyio.current_time()
        if verb == "stall":
            self.stall(part * 2)
        elif verb == "pause":
            self.limiter.pause(part * 3)
            self.paused_until = max(self.paused_until, now + part * 3)
            self.disturbed_at.append(now - self.stalled)
        elif verb == "resume":
            self.limiter.resume()
            self.paused_until = -math.inf
        elif verb == "cancel" and self.book.calls:
            call = self.book.calls[-1 - number % len(self.book.calls)]
            if call.scope is not None:
                call.scope.cancel()
        elif verb == "outsider":
            self.outsider(part)

    def come(self, task_group: TaskGroup, verb: str, call: Call, part: float) -> None:
        self.book.calls.append(call)
        if verb == "nowait":
            call.holds = False
            self.arrive(call)
            with suppress(LimitExceeded, CostTooHigh, RuntimeError):
                self.limiter.acquire_nowait(call.amounts)
                self.enter(call)

            self.leave(call)
        else:
            task_group.start_soon(getattr(self, "_" + verb), call, part)

    def stall(self, seconds: float) -> None:
        stall(seconds)
        self.stalled += seconds

    def outsider(self, part: float) -> None:
        """Somebody else who uses the shared slots comes or, at times, goes."""
        if part < 1 and not self.shared.statistics().tasks_waiting:
            with suppress(anyio.WouldBlock):
                slot = object()
                self.shared.acquire_on_behalf_of_nowait(slot)
                self.outsiders.append(slot)
        elif self.outsiders:
            self.shared.release_on_behalf_of(self.outsiders.pop())

    def reconfigure(self, number: int, other: int) -> None:
        now = anyio.current_time()
        policies = self.configurations[number % len(self.configurations)]
        self.slots = self.slot_choices[other % len(self.slot_choices)]
        self.book.reconfigure(policies, now)
        self.disturbed_at.append(now - self.stalled)
        self.limiter.reconfigure(*policies, concurrency=self.concurrency(self.slots))

    def correct(self, verb: str, number: int, other: int) -> None:
        now = anyio.current_time()
        may = [call for call in self.book.calls if self.book.may_settle(call)]
        if verb == "penalize":
            self.limiter.penalize({"tokens": other})
            self.book.penalize(now, {"tokens": other})
        elif verb == "mark":
            self.mark(number, now)
        elif may:
            call = may[number % len(may)]
            assert call.permit is not None
            if verb == "settle":
                amounts = {"tokens": 2 * other} if number % 2 else {"calls": number % 5}
                call.permit.settle(amounts)
            else:
                amounts = {"calls": 0, "tokens": 0}
                call.permit.refund()

            self.book.settle(call, now, amounts)

    def mark(self, number: int, now: float) -> None:
        """A call tells that its server has counted it; of one that has ended, that is no news."""
        begun = [c for c in self.book.calls if c.permit is not None and c.entered is not None]
        if begun:
            call = begun[-1 - number % len(begun)]
            assert call.permit is not None
            units = ((), ("calls",), ("requests", "tokens"))[number % 3]
            call.permit.mark_counted(*units)
            self.book.mark(call, now, tuple({"requests": "calls"}.get(u, u) for u in units))

    def arrive(self, call: Call) -> None:
        call.came = anyio.current_time()
        call.came_unstalled = call.came - self.stalled
        call.arrival = sum(not math.isnan(other.came) for other in self.book.calls)
        call.order = call.arrival
        self.waiting.append(call)

    def enter(self, call: Call) -> None:
        now = anyio.current_time()
        assert self.paused_until <= now, "somebody passes during a pause"
        if call.holds:
            # G6: never more at once, those included that began when there were more slots.
            assert self.free_slots() >= 1, "one too many at once"

        self.waiting.remove(call)
        self.book.enter(call, now, self.stalled)
        call.entered_unstalled = now - self.stalled

    async def _acquire(self, call: Call, part: float) -> None:
        with call.within(), suppress(CostTooHigh, RuntimeError):
            self.arrive(call)
            try:
                await self.limiter.acquire(call.amounts, priority=int(call.priority))
                self.enter(call)
            finally:
                self.leave(call)

    async def _permit(self, call: Call, part: float, max_wait: float | None = None) -> None:
        with call.within(), suppress(CostTooHigh, LimitExceeded):
            self.arrive(call)
            try:
                async with self.limiter.permit(
                    call.amounts, priority=int(call.priority), max_wait=max_wait
                ) as call.permit:
                    self.enter(call)
                    try:
                        if part == 1.5:
                            self.stall(0.75)

                        await anyio.sleep(part * 4)
                    finally:
                        self.book.end(call, anyio.current_time())
            finally:
                self.leave(call)

    async def _patient(self, call: Call, part: float) -> None:
        await self._permit(call, part, part * 2)

    async def _run(self, call: Call, part: float) -> None:
        attempt = call

        async def job() -> None:
            nonlocal attempt
            mine = attempt
            mine.permit = current_permit()
            self.enter(mine)
            try:
                await anyio.sleep(part)
            finally:
                now = anyio.current_time()
                self.book.end(mine, now)

            if mine is call:
                self.disturbed_at.append(now - self.stalled)
                self.paused_until = max(self.paused_until, now + part)
                # It goes again: before all others, but not before those that came before it.
                attempt = Call(call.amounts, -math.inf, scope=mine.scope)
                self.book.calls.append(attempt)
                self.arrive(attempt)
                attempt.order = call.order
                raise ThrottleException(retry_after=part)

        with call.within(), suppress(CostTooHigh):
            self.arrive(call)
            try:
                await self.limiter.run(job, cost=call.amounts, priority=int(call.priority))
            finally:
                self.leave(attempt)

    def leave(self, call: Call) -> None:
        if call in self.waiting:
            self.waiting.remove(call)

    async def quiet(self) -> None:
        """When nothing can happen in this instant any more: G3, and that nothing is lost."""
        await wait_idle()
        now = anyio.current_time()
        statistics = self.limiter.statistics()
        assert statistics.tasks_waiting == len(self.waiting)
        if self.holds():
            assert statistics.borrowed_tokens == self.book.running()

        buckets = [
            bucket
            for policy, bucket in zip(
                self.limiter._gate.policies, self.limiter._gate.buckets, strict=True
            )
            if isinstance(policy, WindowTokenBucket)
        ]
        for window, bucket in zip(self.book.windows, buckets, strict=True):
            free = max(window.free(now), 0)
            if self.book.exact:
                assert bucket.remaining(now) == free, f"{window.policy} at {now}"
            else:
                assert bucket.remaining(now) <= free

        if self.waiting and self.book.exact and not self.book.loose and self.paused_until <= now:
            head = min(self.waiting, key=lambda call: (call.priority, call.order))
            could_go = self.book.fits(head, now) and self.free_slots() >= 1
            assert not could_go, f"{head} is kept waiting at {now}"

    async def everything_is_back(self) -> None:
        """G5: in the end nobody waits, nothing is held, and all of it comes back."""
        assert not self.waiting
        assert self.limiter.statistics().tasks_waiting == 0
        assert self.limiter.statistics().borrowed_tokens == 0
        assert self.shared.borrowed_tokens == 0
        assert self.shared.statistics().tasks_waiting == 0
        await anyio.sleep(1000)
        now = anyio.current_time()
        for policy, bucket in zip(
            self.limiter._gate.policies, self.limiter._gate.buckets, strict=True
        ):
            assert bucket.remaining(now) == int(bucket.capacity), policy
            assert bucket.reset_after(now) == 0.0

    def check_order(self) -> None:
        """G4: who came before, or is of better priority, does not enter after."""
        entered = [call for call in self.book.calls if call.entered is not None]
        for one in entered:
            for other in entered:
                before = (one.priority, one.order) < (other.priority, other.order)
                in_line = one.came_unstalled < other.entered_unstalled - 1e-9
                met = in_line or one.arrival < other.arrival
                # Trio shuffles those who are woken in one instant, and so what comes in between.
                disturbed = any(
                    abs(instant - other.entered_unstalled) <= 1e-9 for instant in self.disturbed_at
                )
                if before and met and not disturbed:
                    late = one.entered_unstalled - other.entered_unstalled
                    assert late <= 1e-9, f"{other} goes before {one}"


def windows_of(unit: str, limits: st.SearchStrategy[int]) -> st.SearchStrategy[WindowTokenBucket]:
    return st.builds(
        WindowTokenBucket,
        limits,
        st.one_of(st.sampled_from([0.5, 1.0, 2.0, 0.3]), st.floats(0.1, 5.0)),
        measure=st.sampled_from(["start", "start", "end"]),
        unit=st.just(unit),
    )


loose_policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(TokenBucket, st.integers(1, 6), st.floats(0.2, 5.0), burst=st.integers(3, 6)),
    st.builds(FixedWindow, st.integers(3, 6), st.floats(0.2, 5.0)),
)


@st.composite
def configurations(draw: st.DrawFn) -> list[Policy]:
    calls = draw(st.lists(windows_of("calls", st.integers(2, 5)), min_size=1, max_size=2))
    tokens = draw(st.lists(windows_of("tokens", st.integers(4, 12)), min_size=1, max_size=1))
    others = draw(st.one_of(st.just([]), st.just([]), st.lists(loose_policies, max_size=1)))
    return [*calls, *others, *tokens]


#: What would let more calls pass than were granted, or another limit.
UNDONE = {"settle", "refund", "reconfigure"}

#: Parts of a second: odd ones, and those at which something falls due.
parts = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5]), st.floats(0.0, 1.5))


def steps_of(verbs: list[str]) -> st.SearchStrategy[Step]:
    return st.tuples(st.sampled_from(verbs), st.integers(0, 9), st.integers(0, 9), parts)


@pytest.mark.promise("G1", "G2", "G3", "G4", "G5", "G6")
class TestEverythingAtOnce:
    @examples(120)
    @given(
        st.lists(configurations(), min_size=1, max_size=3),
        st.lists(st.sampled_from([0, 0, 1, 2, -1]), min_size=1, max_size=3),
        st.lists(steps_of(VERBS), min_size=15, max_size=50),
    )
    def test_whatever_happens(
        self, run: Run, choices: list[list[Policy]], slots: list[int], script: list[Step]
    ) -> None:
        async def main() -> None:
            await Chaos(choices, slots).perform(script)

        run(main)

    @examples(60)
    @given(
        windows_of("calls", st.integers(1, 5)),
        st.lists(
            steps_of([verb for verb in VERBS if verb not in UNDONE]), min_size=10, max_size=40
        ),
        st.integers(0, 1000),
    )
    def test_wherever_in_its_call_the_server_counts_it(
        self, run: Run, policy: WindowTokenBucket, script: list[Step], seed: int
    ) -> None:
        """
        G2, by instants drawn inside of the calls, before their marks.

        With measure="start" they are the starts.
        """

        async def main() -> list[Call]:
            tokens = WindowTokenBucket(1000, 0.1, unit="tokens")
            chaos = Chaos([[policy, tokens]], [0])
            await chaos.perform(script)
            return chaos.book.calls

        draw = random.Random(seed)  # noqa: S311 - the same each time
        blocks = [
            (call.entered, min(call.ended, call.counted), call.amounts["calls"])
            for call in run(main)
            if call.entered is not None and call.ended is not None
        ]
        for places in (repeat(0.0), repeat(1.0), iter(draw.random, None)):
            instants = [
                (min(begun + place * (ended - begun), ended) if policy.holds else begun, amount)
                for (begun, ended, amount), place in zip(blocks, places, strict=False)
            ]
            assert_exact(instants, policy.limit, policy.window)


class TestTheReference:
    """That the book would notice: what it is told here is against the rules."""

    def book(self, **options: Any) -> tuple[Book, Call, Call]:
        book = Book([WindowTokenBucket(2, 10.0, **options)])
        first, second = Call({"calls": 2}, 0), Call({"calls": 1}, 0)
        book.calls += [first, second]
        return book, first, second

    def test_a_crowded_window(self) -> None:
        book, first, second = self.book()
        book.enter(first, 0.0, 0.0)
        book.end(first, 1.0)
        with pytest.raises(AssertionError, match="crowds"):
            book.enter(second, math.nextafter(10.0, 0), 0.0)

        book.enter(second, 10.0, 0.0)

    def test_a_crowded_window_at_the_server(self) -> None:
        book, first, second = self.book(measure="end")
        book.enter(first, 0.0, 0.0)
        book.end(first, 5.0)
        with pytest.raises(AssertionError, match="crowds"):
            book.enter(second, 14.0, 0.0)

    def test_a_limit_that_forgets(self) -> None:
        book, first, second = self.book()
        book.enter(first, 0.0, 0.0)
        book.reconfigure([WindowTokenBucket(2, 20.0)], 1.0)
        with pytest.raises(AssertionError, match="crowds"):
            book.enter(second, 15.0, 0.0)

    def test_a_debt_that_is_not_paid(self) -> None:
        book, first, second = self.book()
        book.enter(first, 0.0, 0.0)
        book.settle(first, 5.0, {"calls": 4})
        with pytest.raises(AssertionError, match="crowds"):
            book.enter(second, 10.0, 0.0)

    def test_a_mark_that_comes_too_soon(self) -> None:
        book, first, second = self.book(measure="end")
        book.enter(first, 0.0, 0.0)
        book.mark(first, 1.0, ())
        with pytest.raises(AssertionError, match="crowds"):
            book.enter(second, 10.0, 0.0)

        book.enter(second, 11.0, 0.0)

    @pytest.mark.timing
    async def test_who_waits_without_need_and_who_barges(self) -> None:
        chaos = Chaos([[WindowTokenBucket(2, 10.0)]], [0])
        call = Call({"calls": 1}, 0)
        chaos.book.calls.append(call)
        chaos.arrive(call)
        with pytest.raises(AssertionError):
            await chaos.quiet()

        later = Call({"calls": 1}, 0)
        chaos.book.calls.append(later)
        chaos.arrive(later)
        chaos.enter(later)
        await anyio.sleep(1)
        chaos.enter(call)
        with pytest.raises(AssertionError, match="goes before"):
            chaos.check_order()
