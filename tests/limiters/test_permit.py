"""The permit of one call."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anythrottle import LimitExceeded, RateLimiter, WindowTokenBucket
from anythrottle.testing import wait_idle
from tests.limiters.tools import permit_of, tasks


class TestPermit:
    @pytest.mark.timing
    async def test_tells_how_long_it_has_waited(self) -> None:
        limiter = RateLimiter("1/10s")
        async with limiter.permit() as first:
            assert first.waited == 0.0

        await anyio.sleep(4)
        permit = permit_of(limiter)
        assert permit.waited == 0.0
        async with permit:
            assert permit.waited == 6.0

        assert permit.waited == 6.0

    @pytest.mark.timing
    async def test_a_pause_counts_as_waiting(self) -> None:
        limiter = RateLimiter()
        limiter.pause(3)
        async with limiter.permit() as permit:
            assert permit.waited == 3.0

    async def test_is_for_one_call(self) -> None:
        limiter = RateLimiter("5/h", concurrency=2)
        permit = permit_of(limiter)
        async with permit:
            with pytest.raises(RuntimeError, match="a permit is for one call"):
                await permit.__aenter__()

            assert limiter.statistics().borrowed_tokens == 1

        with pytest.raises(RuntimeError, match="ask the limiter for another one"):
            async with permit:
                pass

        assert limiter.statistics().borrowed_tokens == 0
        assert limiter.peek().remaining == 4

    async def test_lets_go_when_the_call_fails(self) -> None:
        limiter = RateLimiter(concurrency=1)
        with pytest.raises(ZeroDivisionError):
            async with limiter.permit():
                1 / 0  # noqa: B018

        with pytest.raises(ZeroDivisionError):
            async with limiter:
                1 / 0  # noqa: B018

        assert limiter.statistics().borrowed_tokens == 0

    async def test_one_slot_whatever_the_cost(self) -> None:
        limiter = RateLimiter("10/h", concurrency=2)
        async with limiter.permit(5), limiter.permit(0):
            assert limiter.statistics().borrowed_tokens == 2
            assert limiter.peek().remaining == 5

    @pytest.mark.timing
    async def test_cost_0_waits_for_pause_and_slot_alone(self) -> None:
        limiter = RateLimiter("1/h", concurrency=1)
        async with limiter.permit():
            pass

        limiter.pause(5)
        async with limiter.permit(0) as permit:
            assert permit.waited == 5.0

        async def holder() -> None:
            async with limiter.permit(0):
                await anyio.sleep(7)

        async with tasks() as task_group:
            task_group.start_soon(holder)
            await wait_idle()
            async with limiter.permit(0) as permit:
                assert permit.waited == 7.0

    async def test_repr(self) -> None:
        limiter = RateLimiter(concurrency=1)
        permit = permit_of(limiter)
        assert repr(permit) == "<Permit new>"
        async with tasks() as task_group:
            async with limiter.permit():
                task_group.start_soon(permit.__aenter__)
                await wait_idle()
                assert repr(permit) == "<Permit waiting>"

            await wait_idle()
            assert repr(permit) == "<Permit held>"
            await permit.__aexit__(None, None, None)

        assert repr(permit) == "<Permit ended>"

    async def test_leaving_it_twice_lets_go_once(self) -> None:
        limiter = RateLimiter(concurrency=2)
        async with limiter.permit():
            permit = permit_of(limiter)
            async with permit:
                pass

            await permit.__aexit__(None, None, None)
            assert limiter.statistics().borrowed_tokens == 1

    async def test_takes_a_mapping(self) -> None:
        limiter = RateLimiter("500/h", "200_000 tokens/h")
        async with limiter.permit({"tokens": 850}):
            pass

        assert limiter.peek({"tokens": 200_000 - 850}).allowed
        assert not limiter.peek({"tokens": 200_000 - 849}).allowed

    async def test_works_on_a_limiter_that_holds_nothing(self) -> None:
        limiter = RateLimiter("5/h")
        async with limiter.permit(2):
            assert limiter.peek().remaining == 3
            assert limiter.statistics().borrowed_tokens == 0


class TestRefund:
    @pytest.mark.timing
    @pytest.mark.parametrize("measure", ["start", "end"])
    async def test_what_is_still_out_comes_back_at_once(self, measure: Any) -> None:
        limiter = RateLimiter(WindowTokenBucket(5, 10, measure=measure), concurrency=2)
        async with limiter.permit(3) as permit:
            await anyio.sleep(1)
            assert limiter.peek().remaining == 2
            permit.refund()
            assert limiter.peek().remaining == 5
            # The slot is kept, and a second time it does nothing.
            permit.refund()
            assert limiter.peek().remaining == 5
            assert limiter.statistics().borrowed_tokens == 1

        assert limiter.peek().remaining == 5
        assert limiter.statistics().borrowed_tokens == 0

    @pytest.mark.timing
    async def test_what_had_come_back_already_stays_so(self) -> None:
        limiter = RateLimiter("5/10s")
        async with limiter.permit(3) as permit:
            await anyio.sleep(10)
            async with limiter.permit(5):
                permit.refund()
                assert limiter.peek().remaining == 0

    @pytest.mark.timing
    @pytest.mark.parametrize("measure", ["start", "end"])
    async def test_after_the_end_of_the_call(self, measure: Any) -> None:
        limiter = RateLimiter(WindowTokenBucket(5, 10, measure=measure))
        async with limiter.permit(3) as permit:
            pass

        await anyio.sleep(5)
        assert limiter.peek().remaining == 2
        permit.refund()
        assert limiter.peek().remaining == 5

    async def test_before_the_call_there_is_nothing_to_refund(self) -> None:
        limiter = RateLimiter("5/10s")
        with pytest.raises(RuntimeError, match="enter the permit first"):
            permit_of(limiter).refund()

        assert limiter.peek().remaining == 5

    @pytest.mark.timing
    async def test_while_it_waits_there_is_nothing_to_refund(self) -> None:
        limiter = RateLimiter("1/10s")
        await limiter.acquire()
        permit = permit_of(limiter)
        async with tasks() as task_group:
            task_group.start_soon(permit.__aenter__)
            await wait_idle()
            with pytest.raises(RuntimeError, match="enter the permit first"):
                permit.refund()

        assert permit.waited == 10.0

    def test_of_a_run_that_is_over_changes_nothing(self, run: Any) -> None:
        limiter = RateLimiter("5/h")

        async def first() -> Any:
            async with limiter.permit(3) as permit:
                return permit

        async def second(permit: Any) -> None:
            await limiter.acquire()
            permit.refund()
            assert limiter.peek().remaining == 1

        run(second, run(first))


@pytest.mark.timing
class TestEnterNow:
    async def test_what_is_due_needs_no_waiting(self) -> None:
        limiter = RateLimiter("2/10s", concurrency=1)
        async with limiter.permit():
            pass

        permit = permit_of(limiter)
        assert permit.enter_now()
        assert not permit.enter_now()
        assert limiter.statistics().borrowed_tokens == 1
        permit.leave()
        assert limiter.statistics().borrowed_tokens == 0
        assert limiter.peek().remaining == 0

    async def test_of_a_limiter_that_is_new(self) -> None:
        limiter = RateLimiter("2/10s")
        permit = permit_of(limiter)
        assert permit.enter_now()
        assert limiter.peek().remaining == 1
        permit.leave()

    async def test_is_for_one_call_as_well(self) -> None:
        limiter = RateLimiter("5/s", concurrency=2)
        async with limiter.permit():
            pass

        permit = permit_of(limiter)
        assert permit.enter_now()
        assert not permit.enter_now()
        with pytest.raises(RuntimeError, match="a permit is for one call"):
            await permit.__aenter__()

        assert limiter.statistics().borrowed_tokens == 1
        assert limiter.peek().remaining == 3
        permit.leave()
        assert limiter.statistics().borrowed_tokens == 0

    async def test_what_is_not_can_still_be_entered(self) -> None:
        limiter = RateLimiter("1/10s")
        async with limiter.permit():
            pass

        permit = permit_of(limiter)
        assert not permit.enter_now()
        async with permit:
            assert anyio.current_time() == 10

    async def test_who_could_not_enter_is_a_newcomer_all_the_same(self) -> None:
        limiter = RateLimiter("1/h", max_waiting=0)
        await limiter.acquire()
        permit = permit_of(limiter)
        assert not permit.enter_now()
        with pytest.raises(LimitExceeded):
            await permit.__aenter__()

    def test_what_was_held_in_another_run_does_not_begin(self, run: Any) -> None:
        limiter = RateLimiter("3/h")
        permit = permit_of(limiter)

        async def hold() -> None:
            await limiter.acquire()
            assert permit.enter_now(begins=False)

        async def begin() -> None:
            await limiter.acquire()
            assert not permit.begin()
            assert limiter.peek().remaining == 1

        run(hold)
        run(begin)

    @pytest.mark.parametrize("begins", [False, True])
    async def test_what_is_withdrawn_has_cost_nothing(self, begins: bool) -> None:
        limiter = RateLimiter("2/10s", concurrency=1)
        for _ in range(3):
            permit = permit_of(limiter)
            assert permit.enter_now(begins=begins)
            assert limiter.peek().remaining == 1
            permit.withdraw()
            assert limiter.peek().remaining == 2
            assert limiter.statistics().borrowed_tokens == 0

    async def test_not_by_limits_that_are_no_more(self) -> None:
        limiter = RateLimiter("1/10s")
        async with limiter.permit():
            pass

        permit = permit_of(limiter)
        limiter.reconfigure("5/10s", "9/min")
        assert not permit.enter_now()
        async with permit:
            assert anyio.current_time() == 0
