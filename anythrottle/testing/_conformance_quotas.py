"""Tests of the quotas of a limiter, and of their corrections, for limiters that have them."""

from __future__ import annotations

import anyio

from ..abc import AdjustableLimiter, Idle, QuotaLimiter
from ._conformance_base import LIMIT, ConformanceBase


class QuotaConformance(ConformanceBase):
    """Tests of quota limiters, adjustable and idle ones, as :mod:`anythrottle.abc` has them."""

    async def test_quotas_tell_what_is_left(self) -> None:
        limiter = self._limiter()
        if not isinstance(limiter, QuotaLimiter):
            return

        assert [state.policy for state in limiter.quotas()] == list(limiter.policies)
        for left in range(LIMIT, 0, -1):
            # Asking changes nothing.
            for _ in range(2):
                assert min(state.remaining for state in limiter.quotas()) == left

            await self._call(limiter)

        (empty,) = [state for state in limiter.quotas() if state.remaining == 0]
        start = anyio.current_time()
        await anyio.sleep(empty.retry_after)
        async with limiter.permit(max_wait=self.slack):
            self._assert_passed(start, empty.retry_after)

    async def test_a_server_s_figures_tighten(self) -> None:
        limiter = self._limiter()
        if not isinstance(limiter, QuotaLimiter):
            return

        start = anyio.current_time()
        limiter.tighten(remaining=1, reset_after=self.window / 2)
        # It only ever tightens.
        limiter.tighten(remaining=LIMIT, reset_after=self.window)
        await self._call(limiter)
        self._assert_passed(start, 0)
        await self._call(limiter)
        self._assert_passed(start, self.window / 2)

    async def test_a_penalty_is_charged(self) -> None:
        limiter = self._limiter()
        if not isinstance(limiter, QuotaLimiter):
            return

        start = anyio.current_time()
        limiter.penalize(LIMIT)
        await self._call(limiter)
        self._assert_passed(start, self.window)

    async def test_a_pause_can_be_ended(self) -> None:
        limiter = self._limiter()
        if not isinstance(limiter, QuotaLimiter):
            return

        start = anyio.current_time()
        limiter.pause(10 * self.window)

        async def call() -> None:
            await self._call(limiter)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(self.window / 2)
            limiter.resume()

        self._assert_passed(start, self.window / 2)

    async def test_another_limit_holds_at_once(self) -> None:
        limiter = self._limiter()
        if not isinstance(limiter, AdjustableLimiter):
            return

        start = anyio.current_time()
        await self._spend(limiter)

        async def call() -> None:
            await self._call(limiter)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(self.window / 2)
            limiter.reconfigure(f"{LIMIT + 1}/{self.window:f}s")

        # What was charged still counts.
        self._assert_passed(start, self.window / 2)
        await self._call(limiter)
        self._assert_passed(start, self.window)

    async def test_it_is_idle_when_there_is_nothing_to_remember(self) -> None:
        limiter = self._limiter()
        if not isinstance(limiter, Idle):
            return

        assert limiter.idle_in() == 0
        await self._call(limiter)
        idle_in = limiter.idle_in()
        assert idle_in > 0, "it would be forgotten too soon"
        await anyio.sleep(min(idle_in, self.window + self.slack))
        assert limiter.idle_in() in {0, float("inf")}
