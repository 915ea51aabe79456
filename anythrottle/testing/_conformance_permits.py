"""Tests of what can be done with a permit, for limiters whose permits can do it."""

from __future__ import annotations

import anyio

from .._limiters.current import current_permit
from ..abc import Permit
from ._conformance_base import LIMIT, ConformanceBase, raises


class PermitConformance(ConformanceBase):
    """Tests of permits. What a permit lacks is not tested: its callers have to do without."""

    async def test_a_permit_that_is_told_of_throttling_pauses_the_limiter(self) -> None:
        limiter = self._limiter(10**6)
        start = anyio.current_time()
        async with limiter.permit() as permit:
            if not hasattr(permit, "throttled"):
                return

            permit.throttled(self.window)

        async with limiter.permit():
            self._assert_passed(start, self.window)

    async def test_a_kept_call_holds_its_slot_until_its_end(self) -> None:
        limiter = self._limiter(10**6, concurrency=1)
        start = anyio.current_time()

        async def keep() -> Permit | None:
            permit = current_permit()
            if not hasattr(permit, "keep"):
                return None

            permit.keep()
            return permit

        permit = await limiter.run(keep)
        if permit is None:
            return

        async def wait() -> None:
            async with limiter.permit():
                self._assert_passed(start, self.window)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(self.window)
            permit.end()
            # A second time, it does nothing.
            permit.end()

    async def test_only_a_call_of_run_can_be_kept(self) -> None:
        async with self._limiter().permit() as permit:
            if hasattr(permit, "keep"):
                with raises(RuntimeError):
                    permit.keep()

                with raises(RuntimeError):
                    permit.end()

    async def test_a_call_that_was_counted_counts(self) -> None:
        limiter = self._limiter()
        start = anyio.current_time()
        async with limiter.permit(LIMIT) as permit:
            if hasattr(permit, "mark_counted"):
                permit.mark_counted()
                permit.mark_counted()

        async with limiter.permit():
            self._assert_passed(start, self.window)
