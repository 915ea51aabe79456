"""What both observers that measure make of what limiters do."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from math import inf
from typing import Any

import anyio
import pytest

from anythrottle import (
    Decision,
    Ended,
    Failed,
    Finished,
    Granted,
    KeyedLimiter,
    LeaseExpired,
    LimitExceeded,
    Paused,
    RateLimiter,
    Reconfigured,
    Refused,
    Resumed,
    Retried,
    Settled,
    Started,
    StoreBack,
    StoreError,
    StoreLost,
    Throttled,
    ThrottleException,
    Throttler,
    Tightened,
)
from anythrottle.abc import Event
from anythrottle.integrations._metrics import BOUNDS, MOST_NAMES, OTHERS
from anythrottle.testing import wait_idle
from tests.integrations.figures import HISTOGRAMS, KINDS, NAMES, Figures
from tests.limiters.tools import tasks

ERROR = ValueError("mine")


@pytest.fixture(params=KINDS)
def figures(request: pytest.FixtureRequest) -> Figures:
    return KINDS[request.param]()


@pytest.mark.timing
class TestCalls:
    async def test_grants_and_their_waits(self, figures: Figures) -> None:
        limiter = RateLimiter("2/10s", name="a", observer=figures.observer)
        for _ in range(3):
            await limiter.acquire()

        assert figures.one("wait.duration", "a") == (3, pytest.approx(10))
        assert figures.read("cost") == {("a", "calls"): 3}
        assert figures.one("refusals", "a", "rate") == 0

    async def test_the_cost_of_grants_by_unit(self, figures: Figures) -> None:
        limiter = RateLimiter("100/s", "1000 tokens/s", name="a", observer=figures.observer)
        for cost in ({"tokens": 850}, {"tokens": 50, "calls": 3}, {"requests": 2, "tokens": 0}):
            async with limiter.permit(cost):
                pass

        assert figures.read("cost") == {("a", "calls"): 6, ("a", "tokens"): 900}
        assert figures.one("wait.duration", "a") == (3, 0)

    async def test_a_cost_that_is_an_int_is_calls(self, figures: Figures) -> None:
        limiter = RateLimiter("100/s", observer=figures.observer)
        await limiter.acquire(7)
        await limiter.acquire(0)
        assert figures.read("cost") == {("", "calls"): 7}

    async def test_how_long_a_slot_is_held(self, figures: Figures) -> None:
        limiter = RateLimiter(concurrency=1, name="a", observer=figures.observer)
        for seconds in (2, 3):
            async with limiter:
                await anyio.sleep(seconds)

        assert figures.one("hold.duration", "a") == (2, pytest.approx(5))

    async def test_what_holds_nothing_is_never_held(self, figures: Figures) -> None:
        limiter = RateLimiter("9/s", name="a", observer=figures.observer)
        async with limiter:
            await anyio.sleep(1)

        assert figures.one("hold.duration", "a") == (0, 0)

    async def test_refusals_by_reason(self, figures: Figures) -> None:
        limiter = RateLimiter("2/10s", concurrency=1, name="a", observer=figures.observer)
        async with limiter:
            with pytest.raises(LimitExceeded):
                async with limiter.permit(max_wait=0):
                    pass

        async with limiter:
            pass

        for _ in range(2):
            with pytest.raises(LimitExceeded):
                async with limiter.permit(max_wait=1):
                    pass

        limiter.pause(60)
        with pytest.raises(LimitExceeded):
            async with limiter.permit(max_wait=1):
                pass

        found = {("a", "concurrency"): 1, ("a", "rate"): 2, ("a", "pause"): 1}
        assert figures.read("refusals") == found

    def test_a_refusal_without_a_reason(self, figures: Figures) -> None:
        figures.observer(Refused("a", 1, Decision(True, None, 0.0, 1, 0.0, 1, None)))
        assert figures.read("refusals") == {("a", "none"): 1}

    async def test_calls_that_are_given_up(self, figures: Figures) -> None:
        limiter = RateLimiter("1/10s", name="a", observer=figures.observer)
        await limiter.acquire()
        with anyio.move_on_after(3):
            await limiter.acquire()

        assert figures.one("abandoned", "a") == 1
        assert figures.one("wait.duration", "a") == (1, 0)

    async def test_calls_that_were_throttled(self, figures: Figures) -> None:
        limiter = RateLimiter("9/s", name="a", observer=figures.observer)
        answers = iter([ThrottleException(retry_after=5), ThrottleException(retry_after=2)])

        async def call() -> None:
            for error in answers:
                raise error

        await limiter.run(call)
        assert figures.one("throttled", "a") == 2
        assert figures.one("pauses", "a") == 2
        assert figures.one("pause.duration", "a") == (2, pytest.approx(7))
        assert figures.one("abandoned", "a") == 0

    async def test_jobs_that_were_throttled_have_no_name(self, figures: Figures) -> None:
        throttles = iter([5, 2])

        async def job() -> None:
            for seconds in throttles:
                raise ThrottleException(retry_after=seconds)

        limiter = RateLimiter("9/s", name="a", observer=figures.observer)
        throttler = Throttler([job], limiter=limiter, observer=figures.observer)
        await throttler.run()
        assert figures.one("throttled", "") == 2
        assert figures.one("throttled", "a") == 0
        assert figures.one("pauses", "a") == 2

    async def test_an_infinite_pause_is_counted_and_not_measured(self, figures: Figures) -> None:
        limiter = RateLimiter("9/s", name="a", observer=figures.observer)
        limiter.pause(inf)
        limiter.resume()
        limiter.pause(30)
        assert figures.one("pauses", "a") == 2
        assert figures.one("pause.duration", "a") == (1, pytest.approx(30))

    async def test_nothing_of_it_reaches_a_call(
        self, figures: Figures, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("the metrics are broken")

        monkeypatch.setattr(type(figures.observer), "_new_series", fail)
        limiter = RateLimiter("9/s", concurrency=1, name="a", observer=figures.observer)
        async with limiter:
            assert limiter.statistics().borrowed_tokens == 1

        assert figures.read("cost") == {}


class TestStore:
    def test_it_is_down_until_it_is_back(self, figures: Figures) -> None:
        figures.observer(StoreLost("a", StoreError("a", "no answer")))
        assert figures.one("store.down", "a") == 1
        assert figures.one("store.outages", "a") == 1
        figures.observer(StoreBack("a", 20.0))
        assert figures.one("store.down", "a") == 0
        figures.observer(StoreLost("a", StoreError("a", "no answer")))
        assert figures.one("store.down", "a") == 1
        assert figures.one("store.outages", "a") == 2
        assert figures.one("store.outages", "b") == 0

    def test_calls_that_have_lost_what_they_held(self, figures: Figures) -> None:
        figures.observer(LeaseExpired("a", 3))
        figures.observer(LeaseExpired("a", 0))
        figures.observer(LeaseExpired("a", 4))
        assert figures.one("lease.expired", "a") == 7


class TestOtherEvents:
    @pytest.mark.parametrize(
        "event",
        [
            Started(0, None, 1, 0.0),
            Retried(0, None, 1, 2.0, ERROR),
            Finished(0, None, 1, 2.0),
            Failed(0, None, 1, 2.0, ERROR),
        ],
        ids=lambda event: type(event).__name__,
    )
    def test_those_of_jobs_measure_nothing(self, figures: Figures, event: Event) -> None:
        figures.observer(event)
        assert not any(figures.read(name) for name in NAMES)

    @pytest.mark.parametrize(
        "event",
        [
            Resumed("a"),
            Settled("a", {"calls": 1}, {"calls": 0}),
            Tightened("a", "calls", 3, None),
            Reconfigured("a", ()),
        ],
        ids=lambda event: type(event).__name__,
    )
    def test_changes_measure_nothing(self, figures: Figures, event: Event) -> None:
        figures.observer(event)
        assert not any(any(map(any_of, figures.read(name).values())) for name in NAMES)


def any_of(figure: object) -> bool:
    return any(figure) if isinstance(figure, tuple) else bool(figure)


class TestNames:
    def test_each_has_figures_of_its_own(self, figures: Figures) -> None:
        for name, cost in (("a", 1), ("b", 2), (None, 4), ("", 8)):
            figures.observer(Granted(name, cost, 0.0))

        found = {("a", "calls"): 1, ("b", "calls"): 2, ("", "calls"): 12}
        assert figures.read("cost") == found

    def test_those_beyond_the_most_are_one(
        self, figures: Figures, caplog: pytest.LogCaptureFixture
    ) -> None:
        for index in range(MOST_NAMES):
            figures.observer(Granted(f"user-{index}", 1, 0.0))

        assert not caplog.records
        for index in range(1000):
            figures.observer(Granted(f"user-{index}", 1, 0.0))

        found = figures.read("cost")
        assert len(found) == MOST_NAMES + 1
        assert found[OTHERS, "calls"] == 1000 - MOST_NAMES
        assert found["user-0", "calls"] == 2
        assert len(figures.observer._named) == MOST_NAMES + 1
        (record,) = caplog.records
        assert record.name == "anythrottle"
        assert record.levelno == logging.WARNING
        assert "more than 100 names" in record.getMessage()
        assert "named()" in record.getMessage()

    def test_one_for_all_limiters_whatever_their_own(self, figures: Figures) -> None:
        observer = figures.observer.named("per user")
        for index in range(2 * MOST_NAMES):
            observer(Granted(f"user-{index}", 1, 0.5))
            observer(Ended(f"user-{index}", 2.0))

        figures.observer(Granted("a", 1, 0.0))
        figures.observer(Granted("per user", 1, 0.0))
        found = {("per user", "calls"): 2 * MOST_NAMES + 1, ("a", "calls"): 1}
        assert figures.read("cost") == found
        assert figures.one("hold.duration", "per user") == (200, 400)

    def test_the_same_name_is_the_same_observer(self, figures: Figures) -> None:
        # A store's limiters are compared by it.
        named = figures.observer.named
        assert named("a") is named("a")
        assert named("a") is not named("b")

    def test_names_that_were_given_do_not_count_as_taken(self, figures: Figures) -> None:
        for index in range(2 * MOST_NAMES):
            figures.observer.named(f"given-{index}")

        figures.observer(Granted("a", 1, 0.0))
        assert figures.one("cost", "a", "calls") == 1

    @pytest.mark.parametrize("name", [None, 5, b"a"], ids=repr)
    def test_bad_ones(self, figures: Figures, name: Any) -> None:
        message = rf"^name must be a str, not {name!r}$"
        with pytest.raises(TypeError, match=message):
            figures.observer.named(name)

        if name is not None:
            with pytest.raises(TypeError, match=message):
                figures.observer.watch(RateLimiter(), name=name)

    def test_it_cannot_be_copied(self, figures: Figures) -> None:
        with pytest.raises(TypeError, match="cannot be copied"):
            copy.copy(figures.observer)


@pytest.mark.timing
class TestWatch:
    async def test_those_that_wait_and_those_that_are_active(self, figures: Figures) -> None:
        limiter = RateLimiter(concurrency=2, name="a", observer=figures.observer)
        figures.observer.watch(limiter)

        async def call() -> None:
            async with limiter:
                await anyio.sleep(1)

        assert figures.read("waiting") == {("a",): 0}
        async with tasks() as task_group:
            for _ in range(5):
                task_group.start_soon(call)

            await wait_idle()
            assert figures.read("waiting") == {("a",): 3}
            assert figures.read("active") == {("a",): 2}

        assert figures.read("waiting") == figures.read("active") == {("a",): 0}

    async def test_a_keyed_limiter_is_one(self, figures: Figures) -> None:
        keyed = KeyedLimiter[str, RateLimiter](
            lambda key: RateLimiter(concurrency=1, name=key, observer=figures.observer.named("k"))
        )
        figures.observer.watch(keyed, name="k")

        async def call(key: str) -> None:
            async with keyed[key]:
                await anyio.sleep(1)

        async with tasks() as task_group:
            for key in ("x", "x", "y", "z", "z", "z"):
                task_group.start_soon(call, key)

            await wait_idle()
            assert figures.read("waiting") == {("k",): 3}
            assert figures.read("active") == {("k",): 3}

        assert figures.one("cost", "k", "calls") == 6
        names = {labels[0] for name in NAMES for labels in figures.read(name)}
        assert names == {"k"}

    async def test_no_limiter_is_no_figure(self, figures: Figures) -> None:
        assert figures.read("waiting") == figures.read("active") == {}


def test_the_bounds_of_the_histograms() -> None:
    assert list(BOUNDS) == sorted(BOUNDS)
    assert len(BOUNDS) < 16


def test_all_names_are_read() -> None:
    assert set(HISTOGRAMS) < set(NAMES)


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_figures_are_of_this_observer_alone(kind: Callable[[], Figures]) -> None:
    first, second = kind(), kind()
    first.observer(Throttled("a", None, 1, ERROR))
    first.observer(Paused("a", 1.0))
    assert second.one("throttled", "a") == second.one("pauses", "a") == 0
    assert first.one("throttled", "a") == first.one("pauses", "a") == 1
