"""A limiter for each key: the same object, bounded in number, and dropping forgives nothing."""

from __future__ import annotations

import gc
import math
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import BaseLimiter, KeyedLimiter, LimitExceeded, RateLimiter, WindowTokenBucket
from anythrottle.abc import Permit
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.limiters.tools import assert_exact, tasks
from tests.properties import examples
from tests.stopwatch import RealTime


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    """What nobody holds goes at once, without the help of the garbage collector."""
    gc.disable()
    yield
    gc.enable()


def per_key(key: object) -> RateLimiter:
    return RateLimiter("2/10s", name=str(key))


class TestMapping:
    def test_a_key_has_one_limiter_made_by_the_factory(self) -> None:
        keyed = KeyedLimiter(per_key)
        limiter = keyed["a"]
        assert keyed["a"] is limiter
        assert keyed["b"] is not limiter
        assert repr(limiter) == "<RateLimiter 'a' 2 calls/10s>"

    def test_questions_make_none(self) -> None:
        keyed = KeyedLimiter(per_key)
        assert "a" not in keyed
        assert len(keyed) == 0
        assert list(keyed) == []
        assert ["unhashable"] not in list(keyed)
        assert repr(keyed) == "<KeyedLimiter 0 of 10000 keys>"
        first = keyed["a"]
        assert "a" in keyed
        assert "b" not in keyed
        assert len(keyed) == 1
        assert list(keyed) == ["a"]
        assert keyed["a"] is first

    def test_falsy_keys_are_keys(self) -> None:
        keyed = KeyedLimiter(per_key)
        for key in (None, 0, "", ()):
            assert keyed[key] is keyed[key]

    @pytest.mark.parametrize("value", [0, -1])
    def test_max_keys_out_of_range(self, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^max_keys must be at least 1, not {value}$"):
            KeyedLimiter(per_key, max_keys=value)

    @pytest.mark.parametrize("value", [1.5, True, "1", None, math.inf])
    def test_max_keys_that_is_no_int(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"^max_keys must be an int, not "):
            KeyedLimiter(per_key, max_keys=value)

    @pytest.mark.parametrize("make", [None, "20/10s", RateLimiter("5/s")])
    def test_a_factory_that_cannot_be_called(self, make: Any) -> None:
        with pytest.raises(TypeError, match=r"^make must be a function of a key, not ") as raised:
            KeyedLimiter(make)

        assert repr(make) in str(raised.value)

    def test_a_factory_that_makes_no_limiter(self) -> None:
        make: Any = lambda _: "5/s"  # noqa: E731
        keyed: KeyedLimiter[str, RateLimiter] = KeyedLimiter(make)
        with pytest.raises(TypeError, match=r"return a limiter, not '5/s', for .*'a'"):
            keyed["a"]

        assert "a" not in keyed

    def test_a_factory_that_makes_a_class(self) -> None:
        make: Any = lambda _: RateLimiter  # noqa: E731
        keyed: KeyedLimiter[str, RateLimiter] = KeyedLimiter(make)
        with pytest.raises(TypeError, match="return a limiter, not <class"):
            keyed["a"]

    def test_a_limiter_that_cannot_tell_when_it_is_idle(self) -> None:
        keyed = KeyedLimiter[str, Own](lambda _: Own())
        with pytest.raises(TypeError, match=r"has idle_in\(\), as anythrottle.abc.Idle says"):
            keyed["a"]

    def test_a_limiter_that_cannot_be_referred_to_weakly(self) -> None:
        make: Any = lambda _: Slotted()  # noqa: E731
        keyed: KeyedLimiter[str, RateLimiter] = KeyedLimiter(make)
        with pytest.raises(TypeError, match="'__weakref__'"):
            keyed["a"]


class Own(BaseLimiter):
    """A limiter of one's own."""

    def __init__(self) -> None:
        self._limiter = RateLimiter("1/10s")

    def permit(
        self, cost: Any = 1, *, priority: int = 0, max_wait: Any = None
    ) -> AbstractAsyncContextManager[Permit]:
        return self._limiter.permit(cost, priority=priority, max_wait=max_wait)

    def pause(self, seconds: float | None = None) -> None:
        self._limiter.pause(seconds)


class Idle(Own):
    """One that tells when it is idle."""

    forgets = True

    def idle_in(self) -> float:
        return self._limiter.idle_in() if self.forgets else math.inf


class Slotted:
    """One without room for weak references."""

    __slots__ = ()

    def run(self) -> None: ...

    permit = wrap = pause = idle_in = __aenter__ = __aexit__ = run


@pytest.mark.timing
class TestLimitersOfOnesOwn:
    async def test_they_are_dropped_when_they_are_idle(self) -> None:
        keyed = KeyedLimiter[str, Idle](lambda _: Idle(), max_keys=1)
        async with keyed["a"]:
            pass

        with pytest.raises(LimitExceeded):
            keyed["b"]

        await anyio.sleep(10)
        assert isinstance(keyed["b"], Idle)
        assert list(keyed) == ["b"]

    async def test_who_does_not_know_is_asked_again(self) -> None:
        keyed = KeyedLimiter[str, Idle](lambda _: Idle(), max_keys=1)
        keyed["a"].forgets = False
        for _ in range(3):
            with pytest.raises(LimitExceeded) as raised:
                keyed["b"]

            assert 0 < raised.value.retry_after <= 1
            await anyio.sleep(raised.value.retry_after)

        keyed["a"].forgets = True
        await anyio.sleep(1)
        assert isinstance(keyed["b"], Idle)

    def test_an_error_of_the_factory_is_passed_on_and_leaves_no_key(self) -> None:
        errors = [ZeroDivisionError()]

        def make(key: str) -> RateLimiter:
            if errors:
                raise errors.pop()

            return per_key(key)

        keyed = KeyedLimiter(make)
        with pytest.raises(ZeroDivisionError):
            keyed["a"]

        assert "a" not in keyed
        assert keyed["a"] is keyed["a"]

    def test_a_factory_that_asks_for_its_own_key_gets_one_limiter_too(self) -> None:
        def make(key: str) -> RateLimiter:
            if not made:
                made.append(per_key(key))
                made.append(keyed[key])

            return made[0]

        made: list[RateLimiter] = []
        keyed = KeyedLimiter(make)
        assert keyed["a"] is made[1] is keyed["a"]

    @pytest.mark.timing
    async def test_a_key_that_was_made_twice_can_be_dropped(self) -> None:
        def make(key: str) -> RateLimiter:
            nested.append(key)
            if len(nested) == 1:
                assert keyed[key] is keyed[key]

            return per_key(key)

        nested: list[str] = []
        keyed = KeyedLimiter(make)
        for key in "abcdef":
            await keyed[key].acquire()
            await anyio.sleep(20)

        assert len(keyed) <= 2


@pytest.mark.timing
class TestDropping:
    async def test_an_idle_key_makes_room_for_another(self) -> None:
        keyed = KeyedLimiter(per_key, max_keys=1)
        await keyed["a"].acquire()
        await anyio.sleep(10)
        await keyed["b"].acquire()
        assert list(keyed) == ["b"]

    async def test_a_key_with_something_to_remember_does_not(self) -> None:
        keyed = KeyedLimiter(per_key, max_keys=1)
        await keyed["a"].acquire()
        await anyio.sleep(9.9)
        with pytest.raises(LimitExceeded) as raised:
            keyed["b"]

        assert list(keyed) == ["a"]
        decision = raised.value.decision
        assert (decision.allowed, decision.reason, decision.limit) == (False, "concurrency", 1)
        assert decision.retry_after == pytest.approx(0.1)
        await anyio.sleep(decision.retry_after)
        assert keyed["b"] is keyed["b"]

    async def test_a_key_that_somebody_holds_does_not(self) -> None:
        keyed = KeyedLimiter(per_key, max_keys=1)
        held = keyed["a"]
        for _ in range(5):
            await anyio.sleep(100)
            with pytest.raises(LimitExceeded):
                keyed["b"]

            assert keyed["a"] is held

        # Used without being asked for again, it is remembered all the same.
        held.acquire_nowait(2)
        del held
        await anyio.sleep(1)
        with pytest.raises(LimitExceeded):
            keyed["b"]

        assert keyed["a"].peek().retry_after == 9.0
        await anyio.sleep(9)
        assert keyed["b"] is keyed["b"]
        assert "a" not in keyed

    async def test_a_key_within_which_a_call_runs_or_waits_does_not(self) -> None:
        keyed = KeyedLimiter[str, RateLimiter](lambda _: RateLimiter(concurrency=1), max_keys=1)
        async with tasks() as task_group:
            async with keyed["a"]:
                await anyio.sleep(100)
                with pytest.raises(LimitExceeded):
                    keyed["b"]

                task_group.start_soon(keyed["a"].run, anyio.sleep, 100)
                await wait_idle()

            await anyio.sleep(50)
            with pytest.raises(LimitExceeded):
                keyed["b"]

        assert keyed["b"] is keyed["b"]

    async def test_a_key_of_which_there_is_a_permit_does_not(self) -> None:
        keyed = KeyedLimiter(per_key)
        permit = keyed["a"].permit(2)
        for other in range(10):
            await keyed[other].acquire()

        async with permit:
            assert not keyed["a"].peek().allowed

    async def test_a_window_shorter_than_the_clock_can_tell(self) -> None:
        keyed = KeyedLimiter[str, RateLimiter](
            lambda _: RateLimiter(WindowTokenBucket(1, 1e-12)), max_keys=1
        )
        await anyio.sleep(1e6)
        held = keyed["a"]
        with pytest.raises(LimitExceeded):
            keyed["b"]

        assert keyed["a"] is held

    async def test_a_paused_key_does_not(self) -> None:
        keyed = KeyedLimiter(per_key, max_keys=1)
        keyed["a"].pause(50)
        await anyio.sleep(49)
        with pytest.raises(LimitExceeded):
            keyed["b"]

        keyed["a"].pause(math.inf)
        await anyio.sleep(1000)
        with pytest.raises(LimitExceeded):
            keyed["b"]

        keyed["a"].resume()
        await anyio.sleep(10)
        assert keyed["b"] is keyed["b"]

    async def test_a_key_in_debt_does_not(self) -> None:
        keyed = KeyedLimiter[str, RateLimiter](
            lambda _: RateLimiter(WindowTokenBucket(1, 10)), max_keys=1
        )
        keyed["a"].penalize(5)
        await anyio.sleep(9.9)
        with pytest.raises(LimitExceeded):
            keyed["b"]

        await anyio.sleep(0.1)
        assert keyed["b"] is keyed["b"]

    @pytest.mark.parametrize("idle", range(5))
    async def test_one_idle_key_makes_room_however_many_are_held(self, idle: int) -> None:
        keyed = KeyedLimiter(per_key, max_keys=5)
        limiters = {number: keyed[number] for number in range(5)}
        del limiters[idle]
        await anyio.sleep(1000)
        assert keyed["new"] is keyed["new"]
        assert idle not in keyed
        assert all(keyed[number] is limiter for number, limiter in limiters.items())

    async def test_idle_keys_grow_fewer_as_others_are_made(self) -> None:
        keyed = KeyedLimiter(per_key)
        for number in range(100):
            await keyed[number].acquire()

        await anyio.sleep(10)
        for number in range(50):
            await keyed[f"new {number}"].acquire()

        assert list(keyed) == [f"new {number}" for number in range(50)]

    async def test_one_key_never_delays_another(self) -> None:
        keyed = KeyedLimiter(per_key)
        await keyed["a"].acquire(2)
        async with tasks() as task_group:
            task_group.start_soon(keyed["a"].acquire, 2)
            await wait_idle()
            await keyed["b"].acquire(2)
            assert anyio.current_time() == 0.0

    @pytest.mark.parametrize("busy", [False, True])
    async def test_what_a_call_costs_does_not_grow_with_the_keys(
        self, busy: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = 0
        real = RateLimiter.idle_in

        def look(self: RateLimiter) -> float:
            nonlocal looks
            looks += 1
            return real(self)

        monkeypatch.setattr(RateLimiter, "idle_in", look)
        keyed = KeyedLimiter(per_key, max_keys=1000)
        held = []
        for number in range(1000):
            held.append(keyed[number])
            held[-1].acquire_nowait()

        if not busy:
            held.clear()
            await anyio.sleep(10)

        looks = 0
        refused = 0
        for number in range(1000, 4000):
            try:
                keyed[number].acquire_nowait()
            except LimitExceeded:
                refused += 1

            await anyio.sleep(0.01)

        # No more than two for each that is asked for.
        assert looks <= 2 * 3000
        assert (refused == 3000) == busy

    def test_across_runs(self, run: Run, real_time: RealTime) -> None:
        keyed = KeyedLimiter(per_key, max_keys=2)

        async def use(key: str) -> None:
            await anyio.sleep(1000)
            await keyed[key].acquire()

        run(use, "a")
        run(use, "b")
        # As much time has passed for them as in reality: none.
        with pytest.raises(LimitExceeded) as raised:
            keyed["c"]

        assert raised.value.retry_after == pytest.approx(10)

        async def wait_and_use() -> None:
            # A run's clock is theirs from when they are first asked in it.
            with pytest.raises(LimitExceeded):
                keyed["c"]

            assert [keyed[key].peek().remaining for key in "ab"] == [1, 1]
            await anyio.sleep(10.01)
            assert keyed["c"] is keyed["c"]

        run(wait_and_use)
        assert "c" in keyed


class TestNothingIsForgiven:
    @examples(60)
    @given(st.data())
    def test_no_key_ever_gets_more_than_its_limit(self, run: Run, data: st.DataObject) -> None:
        """However keys come and go: judged by a list of all grants of each key."""
        steps = st.tuples(
            st.integers(0, 5), st.floats(0.0, 12.0), st.sampled_from(["use", "use", "hold", "drop"])
        )
        script = data.draw(st.lists(steps, min_size=5, max_size=60), "script")
        max_keys = data.draw(st.integers(1, 4), "max_keys")

        async def main() -> None:
            keyed = KeyedLimiter[int, RateLimiter](
                lambda _: RateLimiter("2/10s"), max_keys=max_keys
            )
            grants: dict[int, list[tuple[float, int]]] = {}
            held: dict[int, RateLimiter] = {}
            for key, seconds, verb in script:
                try:
                    if verb == "hold":
                        held[key] = keyed[key]

                    keyed[key].acquire_nowait()
                except LimitExceeded:
                    pass
                else:
                    grants.setdefault(key, []).append((anyio.current_time(), 1))

                if verb == "drop":
                    held.pop(key, None)

                assert all(keyed[key] is limiter for key, limiter in held.items())
                assert len(keyed) <= max_keys
                await anyio.sleep(seconds)

            for of_key in grants.values():
                assert_exact(of_key, 2, 10.0)

        run(main)


class TestMade:
    def test_those_that_there_are(self) -> None:
        keyed = KeyedLimiter[int, RateLimiter](lambda _: RateLimiter("9/s"))
        assert list(keyed.made()) == []
        limiters = [keyed[1], keyed[2]]
        assert list(keyed.made()) == limiters
        assert len(keyed) == 2

    def test_those_that_go_meanwhile_are_left_out(self) -> None:
        keyed = KeyedLimiter[int, RateLimiter](lambda _: RateLimiter("9/s"), max_keys=2)
        held = [keyed[1], keyed[2]]
        made = keyed.made()
        assert next(made) is held[0]
        held.clear()
        keyed[3].pause(1)
        assert set(keyed) == {1, 3}
        assert list(made) == []

    def test_one_at_a_time_is_held(self) -> None:
        keyed = KeyedLimiter[int, RateLimiter](lambda _: RateLimiter("9/s"))
        held = [keyed[key] for key in range(5)]
        references = list(map(weakref.ref, held))
        held.clear()
        made = keyed.made()
        next(made)
        keyed._limiters.clear()
        assert [reference() is not None for reference in references] == [True, *[False] * 4]


@pytest.mark.timing
@pytest.mark.parametrize("how", ["acquire", "permit"])
async def test_a_busy_key_costs_at_most_a_kilobyte_and_a_half(how: str) -> None:
    async def call(limiter: RateLimiter) -> None:
        if how == "acquire":
            await limiter.acquire()
        else:
            async with limiter.permit():
                pass

    keyed: KeyedLimiter[str, RateLimiter] = KeyedLimiter(lambda _: RateLimiter("2/10s"))
    await call(keyed["the first"])
    keys = list(map(str, range(2000)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for key in keys:
            await call(keyed[key])

        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(keyed) == 2001
    assert (after - before) / len(keys) < 1500
