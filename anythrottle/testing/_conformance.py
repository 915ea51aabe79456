"""A test suite for anything that is to be a limiter."""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup

from .._errors import CostTooHigh, LimitExceeded, ThrottleException
from ..abc import Limiter
from ._conformance_base import LIMIT, ConformanceBase, go_wrong, raises
from ._conformance_permits import PermitConformance
from ._conformance_quotas import QuotaConformance


class LimiterConformance(QuotaConformance, PermitConformance):
    """
    Tests of all that :class:`~anythrottle.abc.Limiter` promises, for any limiter.

    To be subclassed: in a test module, for AnyIO's pytest plugin. It needs no more than a way to
    make the limiter::

        class TestMyLimiter(LimiterConformance):
            def make_limiter(self, limit, window, *, concurrency=None):
                return MyLimiter(limit, window, concurrency)

    Run it with :func:`virtual_backends` as AnyIO's backends, and every timing is exact and no test
    takes time. A limiter that needs real time, because it talks to a server, sets :attr:`window`
    to a short time and :attr:`slack` to what its answers may take.
    """

    async def test_is_a_limiter(self) -> None:
        assert isinstance(self._limiter(), Limiter), "a method is missing"

    async def test_no_window_holds_more_than_the_limit(self) -> None:
        limiter = self._limiter()
        begun: list[float] = []

        async def call(patience: float) -> None:
            with anyio.move_on_after(patience):
                async with limiter:
                    begun.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            for number in range(4 * LIMIT):
                # Some of them give up, and none that come later may be the worse for it.
                tasks.start_soon(call, self.window / 2 if number % 4 == 3 else 100 * self.window)
                await anyio.sleep(self.window / 7)

        begun.sort()
        pairs = zip(begun, begun[LIMIT:], strict=False)
        least = min(later - earlier for earlier, later in pairs)
        assert least >= self.window - self.resolution, f"{LIMIT + 1} calls began in {least} s"

    async def test_a_full_burst_passes_at_once_and_the_next_as_soon_as_it_may(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        for _ in range(LIMIT):
            async with limiter:
                self._assert_passed(start, 0)

        for _ in range(LIMIT):
            async with limiter:
                self._assert_passed(start, self.window)

    async def test_first_come_first_served(self) -> None:
        crowd = _Crowd(self, self._limiter())
        async with anyio.create_task_group() as crowd.tasks:
            for name in range(4 * LIMIT):
                await crowd.join(name)

        assert crowd.by_batches(LIMIT) == [set(range(n, n + LIMIT)) for n in range(0, 12, 3)]

    async def test_a_lower_priority_goes_first(self) -> None:
        crowd = _Crowd(self, self._limiter())
        async with anyio.create_task_group() as crowd.tasks:
            for name in ("first", "second", "third", "later", "last"):
                await crowd.join(name, priority=name == "last")

            for name in ("urgent", "more urgent", "as urgent"):
                await crowd.join(name, priority=-1)

        assert crowd.by_batches(LIMIT)[1] == {"urgent", "more urgent", "as urgent"}
        assert crowd.begun[-1] == "last" or crowd.begun[-2] == "last"

    async def test_small_costs_do_not_overtake_a_large_one(self) -> None:
        crowd = _Crowd(self, self._limiter())
        async with anyio.create_task_group() as crowd.tasks:
            await crowd.join("first", 1)
            await crowd.join("large", LIMIT)
            for name in range(4):
                await crowd.join(name, 1)

        assert crowd.begun[:2] == ["first", "large"]

    async def test_a_call_that_costs_nothing_needs_no_token(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        await self._spend(limiter)
        async with limiter.permit(0):
            self._assert_passed(start, 0)

    async def test_costs_are_checked_at_once(self) -> None:
        limiter = self._limiter()
        for cost, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
            with raises(error):
                await self._call(limiter, cost)  # type: ignore[arg-type]

        with raises(CostTooHigh):
            await self._call(limiter, LIMIT + 1)

        await self._assert_full(limiter)

    async def test_concurrency_is_never_exceeded(self) -> None:
        limiter = self._limiter(10**6, concurrency=2)
        running = most = 0

        async def call(number: int) -> None:
            nonlocal running, most
            async with limiter.permit(number % 2):
                running += 1
                most = max(most, running)
                await anyio.sleep(self.window / 20)
                running -= 1

        async with anyio.create_task_group() as tasks:
            for number in range(9):
                tasks.start_soon(call, number)

        assert most == 2

    async def test_an_error_in_the_call_lets_go(self) -> None:
        limiter = self._limiter(10**6, concurrency=1)
        for _ in range(3):
            with raises(ZeroDivisionError), anyio.fail_after(100 * self.window):
                async with limiter.permit():
                    go_wrong()

    async def test_who_is_cancelled_in_line_has_taken_nothing(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        await self._spend(limiter)
        with anyio.move_on_after(self.window / 4) as scope:
            await self._call(limiter, LIMIT)

        assert scope.cancelled_caught, "it did not wait"
        async with limiter.permit(LIMIT):
            self._assert_passed(start, self.window)

    async def test_the_line_goes_on_when_its_head_is_cancelled(self) -> None:
        crowd = _Crowd(self, self._limiter())
        async with anyio.create_task_group() as crowd.tasks:
            await crowd.join("first", LIMIT)
            await crowd.join("head", LIMIT)
            await crowd.join("next", LIMIT)
            crowd.scopes["head"].cancel()

        assert crowd.begun == ["first", "next"]
        self._assert_passed(crowd.start, self.window)

    async def test_a_permit_that_must_not_wait_is_refused_with_a_true_delay(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        await self._spend(limiter)
        await anyio.sleep(self.window / 4)
        with raises(LimitExceeded) as refusals:
            await self._call(limiter, max_wait=0)

        self._assert_passed(start, self.window / 4)
        await anyio.sleep(refusals[0].retry_after)
        async with limiter.permit(max_wait=self.slack):
            self._assert_passed(start, self.window)

    async def test_waiting_has_a_bound(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        await self._spend(limiter)
        with raises(LimitExceeded):
            await self._call(limiter, max_wait=self.window / 2)

        # It is refused at once, for it could not come in time.
        self._assert_passed(start, 0)
        async with limiter.permit(max_wait=2 * self.window) as permit:
            self._assert_passed(start, self.window)
            assert permit.waited <= self.window + self.slack

    async def test_a_pause_holds_back_those_in_line_as_well(self) -> None:
        crowd = _Crowd(self, self._limiter())
        async with anyio.create_task_group() as crowd.tasks:
            await crowd.join("first", LIMIT)
            await crowd.join("in line")
            crowd.limiter.pause(2 * self.window)
            # Of overlapping pauses, the later end holds.
            crowd.limiter.pause(self.window / 2)

        self._assert_passed(crowd.start, 2 * self.window)

    async def test_a_refund_gives_the_charge_back(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        async with limiter.permit(LIMIT) as permit:
            permit.refund()

        async with limiter.permit(LIMIT):
            self._assert_passed(start, 0)

    async def test_a_charge_can_be_corrected(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        async with limiter.permit(LIMIT) as permit:
            permit.settle(1)

        async with limiter.permit(1) as permit:
            self._assert_passed(start, 0)
            # More than there is: later calls wait for it.
            permit.settle(LIMIT)

        async with limiter.permit(1):
            self._assert_passed(start, self.window)

    async def test_run_returns_what_the_function_returns(self) -> None:
        limiter = self._limiter(concurrency=1)
        start = anyio.current_time()

        async def add(left: int, right: int) -> int:
            return left + right

        assert await limiter.run(add, 2, 3) == 5
        assert await limiter.wrap(add)(2, right=4) == 6
        # Each of them has been charged like any call.
        await self._call(limiter, LIMIT - 2)
        self._assert_passed(start, 0)
        await self._call(limiter)
        self._assert_passed(start, self.window)

    async def test_run_passes_errors_on_and_lets_go(self) -> None:
        limiter = self._limiter(concurrency=1)

        async def fail() -> None:
            go_wrong()

        for _ in range(2):
            with raises(ZeroDivisionError), anyio.fail_after(100 * self.window):
                await limiter.run(fail)

    async def test_a_throttled_call_pauses_the_limiter_and_goes_again_first(self) -> None:
        limiter = self._limiter(10**6, concurrency=1)
        start = anyio.current_time()
        begun: list[str] = []

        async def throttled() -> None:
            begun.append("throttled")
            if len(begun) == 1:
                await self.settle_down()
                raise ThrottleException(retry_after=self.window)

            self._assert_passed(start, self.window)

        async def other() -> None:
            begun.append("other")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limiter.run, throttled)
            await self.settle_down()
            tasks.start_soon(limiter.run, other)

        assert begun == ["throttled", "throttled", "other"]

    async def test_attempts_have_a_bound(self) -> None:
        limiter = self._limiter(10**6)
        attempts = 0

        async def throttled() -> None:
            nonlocal attempts
            attempts += 1
            raise ThrottleException(retry_after=0)

        with raises(ThrottleException):
            await limiter.run(throttled, max_throttles=3)

        assert attempts == 3


class _Crowd:
    """Tasks that call one limiter, by name, in the order in which their calls have begun."""

    tasks: TaskGroup

    def __init__(self, suite: ConformanceBase, limiter: Limiter) -> None:
        self._suite = suite
        self.limiter = limiter
        self.start = anyio.current_time()
        self.begun: list[object] = []
        self.scopes: dict[object, anyio.CancelScope] = {}

    async def join(self, name: object, cost: int = 1, *, priority: int = 0) -> None:
        """Start one more call, and wait until it is in line or through."""
        self.tasks.start_soon(self._call, name, cost, priority)
        await self._suite.settle_down()

    def by_batches(self, size: int) -> list[set[object]]:
        """Return what has begun, in batches: within one instant, a backend may shuffle tasks."""
        return [set(self.begun[n : n + size]) for n in range(0, len(self.begun), size)]

    async def _call(self, name: object, cost: int, priority: int) -> None:
        with anyio.CancelScope() as self.scopes[name]:
            async with self.limiter.permit(cost, priority=int(priority)):
                self.begun.append(name)
